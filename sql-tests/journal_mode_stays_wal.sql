-- Outside the WAL nothing is seen: while replicating, a switch is refused with that reason.
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
PRAGMA journal_mode;
PRAGMA journal_mode = DELETE;
PRAGMA main.journal_mode = MEMORY;
PRAGMA journal_mode = OFF;
PRAGMA journal_mode;
PRAGMA journal_mode = WAL;
INSERT INTO t VALUES (1);
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_stop() IS NOT NULL;
PRAGMA journal_mode = DELETE;
