-- Without a word about syncing: what was committed before the last close is in the replica.
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
INSERT INTO t VALUES (1), (2);
INSERT INTO t VALUES (3);
.open :memory:
.shell ls -A | grep app.db
SELECT litestream_restore('file://$DIR/replica', 'restored.db') IS NOT NULL;
.shell cmp app.db restored.db && echo same bytes
