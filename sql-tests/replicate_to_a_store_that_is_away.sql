.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('s3://bucket/app?endpoint=http://127.0.0.1:9&region=us-east-1&force-path-style=true');
SELECT litestream_restore('s3://bucket/app?endpoint=http://127.0.0.1:9&region=us-east-1&force-path-style=true', 'restored.db');
SELECT count(*) FROM litestream_status;
.shell ls -A
