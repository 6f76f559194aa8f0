.open app.db
SELECT litestream_restore('file://$DIR/nothing', 'restored.db');
CREATE TABLE t(a);
SELECT litestream_replicate('file://$DIR/replica');
SELECT litestream_sync() IS NOT NULL;
-- A TXID that was never shipped, and what is no point in time.
SELECT litestream_restore('file://$DIR/replica', 'restored.db', '00000000000fffff');
SELECT litestream_restore('file://$DIR/replica', 'restored.db', 'the day before');
SELECT litestream_restore('file://$DIR/replica', 'restored.db', '');
-- No path, no directory, no URL.
SELECT litestream_restore('file://$DIR/replica', '');
SELECT litestream_restore('file://$DIR/replica', NULL);
SELECT litestream_restore('file://$DIR/replica', 'no/such/directory/restored.db');
SELECT litestream_restore(NULL, 'restored.db');
SELECT litestream_restore('replica', 'restored.db');
-- Options.
SELECT litestream_restore('file://$DIR/replica', 'restored.db', 'latest', '{"farce":true}');
SELECT litestream_restore('file://$DIR/replica', 'restored.db', 'latest', '{"force":"perhaps"}');
SELECT litestream_restore('file://$DIR/replica', 'restored.db', 'latest', 'force');
.shell ls -A
