-- Not even by force: the connections that are open here would go on with a file that is gone.
.open app.db
SELECT litestream_replicate('file://$DIR/replica');
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', '$DIR/app.db', 'latest', '{"force":true}');
SELECT litestream_restore('file://$DIR/replica', 'app.db', 'latest', '{"force":true}');
INSERT INTO t VALUES (2);
SELECT * FROM t;
SELECT litestream_sync() = litestream_txid();
