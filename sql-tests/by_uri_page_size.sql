-- P16: another page size stops replication. Here the database is another one.
.open file:app.db?replica=file://$DIR/replica
PRAGMA page_size = 1024;
PRAGMA journal_mode = WAL;
CREATE TABLE t(a);
SELECT litestream_sync();
.open elsewhere.db
.shell rm app.db && sqlite3 app.db 'PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; CREATE TABLE other(a)'
.open file:app.db?replica=file://$DIR/replica
SELECT * FROM other;
SELECT litestream_sync();
SELECT state FROM litestream_status;
-- A replica of its own is a way out.
.open file:app.db?replica=file://$DIR/another
INSERT INTO other VALUES (1);
SELECT litestream_sync() IS NOT NULL;
SELECT state FROM litestream_status;
