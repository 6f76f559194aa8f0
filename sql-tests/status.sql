SELECT name, type FROM pragma_table_info('litestream_status');
.open app.db
SELECT count(*) FROM litestream_status;
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
SELECT litestream_sync() IS NOT NULL;
.mode line
SELECT path, url, role, state, txid = litestream_txid() AS txid, durable_txid = txid AS durable,
  lag_seconds, spool_bytes, spool_files, last_error, last_error_at,
  requests_put > 0 AS puts, requests_list > 0 AS lists, bytes_out > 0 AS sent, cache_hits, cache_misses,
  pages_prefetched, pages_prefetch_used FROM litestream_status;
SELECT litestream_stop() IS NOT NULL;
SELECT path, url, role, state FROM litestream_status;
