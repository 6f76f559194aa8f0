.open app.db
PRAGMA page_size = 1024;
CREATE TABLE t(a);
INSERT INTO t VALUES (hex(randomblob(5000)));
PRAGMA journal_mode;
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
PRAGMA journal_mode;
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', 'restored.db') = litestream_txid();
ATTACH 'restored.db' AS restored;
PRAGMA restored.page_size;
SELECT count(*) FROM t JOIN restored.t AS r USING (a);
