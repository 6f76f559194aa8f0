-- The store's own words, at the call; nothing is started.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('s3://no-such-bucket/app?$PARAMETERS');
SELECT litestream_restore('s3://no-such-bucket/app?$PARAMETERS', 'restored.db');
SELECT count(*) FROM litestream_files('s3://no-such-bucket/app?$PARAMETERS');
SELECT litestream_restore('$S3/nothing?$PARAMETERS', 'restored.db');
SELECT count(*) FROM litestream_status;
.shell ls -A
