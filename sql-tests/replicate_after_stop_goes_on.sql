-- The chain goes on where it stopped; what was written in between is in it.
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
INSERT INTO t VALUES ('first');
CREATE TEMP TABLE point AS SELECT litestream_stop() AS txid;
SELECT litestream_sync();
SELECT litestream_stop();
INSERT INTO t VALUES ('between');
SELECT litestream_replicate('file://$DIR/replica') >= txid FROM point;
INSERT INTO t VALUES ('second');
SELECT litestream_sync() > txid FROM point;
SELECT litestream_restore('file://$DIR/replica', 'restored.db') = litestream_txid();
ATTACH 'restored.db' AS restored;
SELECT * FROM restored.t;
SELECT format('%016x', count(*)) = max(min_txid) FROM litestream_files('file://$DIR/replica') WHERE level = 0;
