-- environment: AWS_SECRET_ACCESS_KEY=wrong
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('$S3?$PARAMETERS');
SELECT litestream_restore('$S3?$PARAMETERS', 'restored.db');
SELECT count(*) FROM litestream_status;
.shell ls -A
