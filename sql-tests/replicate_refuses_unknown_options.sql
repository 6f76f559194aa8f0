.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_intervall":"1s"}');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_interval":"soon"}');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_interval":-1}');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"spool_max":"many"}');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{');
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '[]');
SELECT count(*) FROM litestream_status;
.shell ls -A
