-- The call needs an answer, so it fails, with the store's own words; nothing is started.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('s3://bucket/app?endpoint=http://127.0.0.1:9&region=us-east-1&force-path-style=true');
SELECT count(*) FROM litestream_status;
.shell ls -A
