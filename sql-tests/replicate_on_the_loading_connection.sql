-- The connection that was open before the extension was loaded is replicated too.
.open app.db
CREATE TABLE t(a);
INSERT INTO t VALUES ('before');
.load $LIBRARY
SELECT litestream_replicate('file://$DIR/replica');
PRAGMA journal_mode;
INSERT INTO t VALUES ('after');
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', 'restored.db') = litestream_txid();
.connection 1
.open restored.db
SELECT * FROM t;
