-- The store goes away: commits go on, the wait ends with an error, the status shows it, and all arrives later.
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
SELECT litestream_sync() IS NOT NULL;
.shell mv replica away && touch replica
INSERT INTO t VALUES (1);
SELECT litestream_sync(0.5);
SELECT state, lag_seconds > 0, spool_files, last_error IS NOT NULL FROM litestream_status;
.shell rm -rf replica && mv away replica
SELECT litestream_sync() = litestream_txid();
SELECT state, lag_seconds FROM litestream_status;
