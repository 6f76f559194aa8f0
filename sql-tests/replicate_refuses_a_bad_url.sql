-- The error names the URL, and nothing is started.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('');
SELECT litestream_replicate(NULL);
SELECT litestream_replicate('replica');
SELECT litestream_replicate('file:/');
SELECT litestream_replicate('file://');
SELECT litestream_replicate('file://host/path');
SELECT litestream_replicate('ftp://host/path');
SELECT litestream_replicate('gs://bucket/path');
SELECT litestream_replicate('s3://');
SELECT litestream_replicate('s3:///path');
SELECT litestream_replicate('s3://bucket/app?endpoint=ftp://nowhere');
SELECT litestream_replicate('s3://bucket/app?endpont=http://127.0.0.1:9');
SELECT litestream_replicate(17);
SELECT litestream_replicate('file://$DIR/app.db');
SELECT count(*) FROM litestream_status;
PRAGMA journal_mode;
.shell ls -A
