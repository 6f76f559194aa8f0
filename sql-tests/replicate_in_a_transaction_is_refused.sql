.open app.db
CREATE TABLE t(a);
BEGIN;
SELECT litestream_replicate('file://$DIR/replica');
INSERT INTO t VALUES (1);
SELECT litestream_replicate('file://$DIR/replica');
COMMIT;
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync() IS NOT NULL;
SELECT * FROM t;
