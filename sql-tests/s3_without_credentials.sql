-- environment: AWS_ACCESS_KEY_ID=
-- environment: AWS_SECRET_ACCESS_KEY=
-- environment: AWS_EC2_METADATA_DISABLED=true
-- environment: HOME=/nowhere
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('$S3?$PARAMETERS');
SELECT count(*) FROM litestream_status;
