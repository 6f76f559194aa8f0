.open app.db
SELECT litestream_replicate('file://$DIR/replica');
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', 'dry.db', 'latest', '{"dry_run":true}') = litestream_txid();
SELECT litestream_restore('file://$DIR/replica', 'checked.db', 'latest', '{"integrity_check":true}') = litestream_txid();
SELECT litestream_restore('file://$DIR/replica', 'null.db', NULL, NULL) = litestream_txid();
.shell ls *.db
