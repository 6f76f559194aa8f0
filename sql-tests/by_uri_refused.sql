-- An open cannot return a text: it fails, and the reason is in sqlite3_log.
.log stdout
.open file:app.db?replica=s4://bucket/path
SELECT role, state, url, last_error FROM litestream_status WHERE path = '$DIR/app.db';
.open file:app.db?replica=file://$DIR/replica&sync_interval=soon
SELECT 1;
.open file:app.db?replica=file://$DIR/replica&mode=ro
SELECT 1;
-- A second replica of a database that is open.
.open app.db
PRAGMA journal_mode = WAL;
SELECT litestream_replicate('file://$DIR/replica');
ATTACH 'file:app.db?replica=file://$DIR/other' AS again;
SELECT count(*), url = 'file://$DIR/replica' FROM litestream_status;
-- (What the VFS below logs is its own.)
.log off
-- A replica that belongs to another database: the open succeeds, as it would with the store away; the status says it.
.shell sqlite3 stranger.db 'CREATE TABLE t(a)'
.open file:stranger.db?replica=file://$DIR/replica
SELECT count(*) FROM t;
SELECT litestream_sync();
SELECT state FROM litestream_status WHERE path LIKE '%stranger.db';
