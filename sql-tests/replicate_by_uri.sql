.open "file:app.db?replica=file%3A%2F%2F$DIR%2Freplica"
CREATE TABLE t(a);
INSERT INTO t VALUES ('by uri');
PRAGMA journal_mode;
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', 'restored.db') = litestream_txid();
.connection 1
.open restored.db
SELECT * FROM t;
.connection 2
.open "file:bad.db?replica=ftp%3A%2F%2Fnowhere"
CREATE TABLE t(a);
SELECT state, last_error FROM litestream_status WHERE path LIKE '%bad.db';
