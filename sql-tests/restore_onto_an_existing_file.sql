.open app.db
SELECT litestream_replicate('file://$DIR/replica');
CREATE TABLE t(a);
INSERT INTO t VALUES ('new');
SELECT litestream_sync() IS NOT NULL;
.shell sqlite3 old.db "CREATE TABLE t(a); INSERT INTO t VALUES ('old');"
.shell touch old.db-wal && mkdir -p .old.db-litestream/ltx/0
SELECT litestream_restore('file://$DIR/replica', '$DIR/old.db');
.shell sqlite3 old.db "SELECT * FROM t"
SELECT litestream_restore('file://$DIR/replica', '$DIR/old.db', 'latest', '{"force":true}') = litestream_txid();
.shell ls -A | grep old
.shell sqlite3 old.db "SELECT * FROM t"
