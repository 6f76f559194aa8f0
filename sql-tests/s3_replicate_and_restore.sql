-- The main job on a real S3 server.
.open app.db
SELECT litestream_replicate('$S3?$PARAMETERS');
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
CREATE TEMP TABLE point AS SELECT litestream_sync() AS txid;
INSERT INTO t VALUES (2);
SELECT litestream_sync() > txid FROM point;
SELECT key FROM litestream_files('$S3?$PARAMETERS') WHERE max_txid = '0000000000000001';
SELECT litestream_restore('$S3?$PARAMETERS', 'now.db') = litestream_txid();
SELECT litestream_restore('$S3?$PARAMETERS', 'then.db', txid) = txid FROM point;
ATTACH 'now.db' AS now;
ATTACH 'then.db' AS "then";
SELECT * FROM now.t;
SELECT * FROM "then".t;
SELECT requests_put >= 2, requests_list >= 1, bytes_out > 0, url FROM litestream_status;
SELECT litestream_stop() IS NOT NULL;
.open :memory:
.shell cmp app.db now.db && echo same bytes
