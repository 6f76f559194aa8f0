-- NULL on a connection that is not replicated; then those of the last durable state.
.open app.db
SELECT litestream_txid(), litestream_time(), litestream_lag();
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_txid() GLOB '000000000000000[1-9]', litestream_time(), litestream_lag();
SELECT typeof(litestream_txid()), typeof(litestream_time()), typeof(litestream_lag());
