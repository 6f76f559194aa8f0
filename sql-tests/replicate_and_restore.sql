-- The main job: what was committed is in the replica, and comes back.
.open app.db
SELECT litestream_replicate('file://$DIR/replica');
CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT);
INSERT INTO t(a) VALUES ('one'), ('two');
SELECT litestream_sync() = litestream_txid();
SELECT litestream_restore('file://$DIR/replica', '$DIR/restored.db') = litestream_txid();
.connection 1
.open restored.db
SELECT * FROM t;
PRAGMA integrity_check;
.connection close 0
.shell cmp app.db restored.db && echo same bytes
