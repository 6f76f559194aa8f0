-- A restore never skips a missing TXID; it names it, and leaves nothing behind.
.open app.db
SELECT litestream_replicate(NULL, 'file://$DIR/replica', '{"sync_interval":"1ms"}');
CREATE TABLE t(a);
SELECT litestream_sync() IS NOT NULL;
INSERT INTO t VALUES (1);
SELECT litestream_sync() IS NOT NULL;
INSERT INTO t VALUES (2);
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_stop() IS NOT NULL;
.shell rm replica/ltx/0/0000000000000002-*.ltx
SELECT litestream_restore('file://$DIR/replica', 'restored.db');
SELECT litestream_restore('file://$DIR/replica', 'restored.db', '0000000000000001');
.shell ls -A | grep restored
