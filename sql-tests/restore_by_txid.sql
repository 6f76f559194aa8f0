.open app.db
SELECT litestream_replicate('file://$DIR/replica');
CREATE TABLE t(a);
INSERT INTO t VALUES ('one');
CREATE TEMP TABLE point AS SELECT litestream_sync() AS txid;
INSERT INTO t VALUES ('two');
SELECT litestream_sync() > txid FROM point;
SELECT litestream_restore('file://$DIR/replica', 'then.db', txid) = txid FROM point;
SELECT litestream_restore('file://$DIR/replica', 'now.db', 'latest') = litestream_txid();
ATTACH 'then.db' AS "then";
ATTACH 'now.db' AS now;
SELECT * FROM "then".t;
SELECT * FROM now.t;
