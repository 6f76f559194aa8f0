-- A replica is read-only, in every way.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
INSERT INTO t VALUES (1);
SELECT litestream_sync() IS NOT NULL;
.open file:any?vfs=litestream&replica=file://$DIR/replica
INSERT INTO t VALUES (2);
CREATE TABLE u(a);
BEGIN IMMEDIATE;
DELETE FROM t;
ROLLBACK;
VACUUM;
PRAGMA user_version = 7;
PRAGMA journal_mode = WAL;
PRAGMA journal_mode = TRUNCATE;
PRAGMA wal_checkpoint;
PRAGMA locking_mode = EXCLUSIVE;
SELECT * FROM t;
PRAGMA locking_mode = NORMAL;
PRAGMA litestream_write_enabled;
PRAGMA litestream_write_enabled = 1;
PRAGMA litestream_write_enabled = off;
PRAGMA litestream_write_enabled = 2;
PRAGMA litestream_txid = 3;
SELECT litestream_sync();
PRAGMA litestream_sync;
SELECT litestream_replicate('file://$DIR/other');
.vfsname
SELECT * FROM t;
-- Copies can be had.
VACUUM INTO 'file:$DIR/copy.db?vfs=unix';
.backup backup.db
.open copy.db
SELECT * FROM t;
.open backup.db
SELECT * FROM t;
-- Nothing was made but the copies.
.shell ls
