-- A time means the newest state with a timestamp before it.
.open app.db
SELECT litestream_replicate('file://$DIR/replica');
BEGIN; CREATE TABLE t(a); INSERT INTO t VALUES ('one'); COMMIT;
SELECT litestream_sync() IS NOT NULL;
.shell sleep 0.1
CREATE TEMP TABLE point AS SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS time, litestream_txid() AS txid;
.shell sleep 0.1
INSERT INTO t VALUES ('two');
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_restore('file://$DIR/replica', 'then.db', time) = txid FROM point;
ATTACH 'then.db' AS "then";
SELECT * FROM "then".t;
SELECT litestream_restore('file://$DIR/replica', 'later.db', '1 hour ago');
SELECT litestream_restore('file://$DIR/replica', 'never.db', '2001-01-01T00:00:00Z');
.shell ls *.db
