-- The same URL again is no news; another one is refused.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync() = litestream_txid();
SELECT litestream_replicate('file://$DIR/replica') = litestream_txid();
SELECT litestream_replicate('file://$DIR/elsewhere');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_interval":"1s"}') = litestream_txid();
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_interval":"20s"}');
SELECT count(*) FROM litestream_status;
.shell ls -A | grep -v app.db-
