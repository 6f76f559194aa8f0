-- :memory:, a temporary and a read-only database; each with its reason.
SELECT litestream_replicate('file://$DIR/replica');
.connection 1
.open ""
SELECT litestream_replicate('file://$DIR/replica');
.connection 2
.shell sqlite3 app.db "CREATE TABLE t(a)"
.open --readonly app.db
SELECT litestream_replicate('file://$DIR/replica');
.connection 3
.open "file:app.db?immutable=1"
SELECT litestream_replicate('file://$DIR/replica');
.connection 0
SELECT litestream_replicate('$DIR/missing.db', 'file://$DIR/replica');
SELECT litestream_replicate('$DIR', 'file://$DIR/replica');
SELECT count(*) FROM litestream_status;
.shell ls -A
