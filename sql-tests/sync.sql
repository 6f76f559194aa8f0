.open app.db
CREATE TABLE t(a);
SELECT litestream_sync();
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync() = litestream_txid();
-- Nothing new: the same TXID, no object.
SELECT litestream_sync() = litestream_sync();
SELECT litestream_sync(5) = litestream_txid();
SELECT litestream_sync('soon');
SELECT litestream_sync(-1);
PRAGMA litestream_sync;
-- What is not committed is not waited for.
BEGIN;
INSERT INTO t VALUES (1);
SELECT litestream_sync() = litestream_txid();
ROLLBACK;
