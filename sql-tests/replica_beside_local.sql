-- Beside a replica: local databases, temporary tables, sorts that need files, mapped reads.
.open local.db
CREATE TABLE mine(id INTEGER PRIMARY KEY, comment);
INSERT INTO mine VALUES (7, 'seven');
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(id INTEGER PRIMARY KEY, x);
INSERT INTO t SELECT value, hex(randomblob(500)) FROM generate_series(1, 3000);
SELECT litestream_sync() IS NOT NULL;
.open file:any?vfs=litestream&replica=file://$DIR/replica
-- An attached name is opened by the VFS of the main database, unless it says another.
ATTACH 'local.db' AS local;
ATTACH 'file:local.db?vfs=unix' AS also_local;
ATTACH 'file:new.db?vfs=unix' AS new;
ATTACH ':memory:' AS mem;
SELECT comment FROM local.mine JOIN t USING (id);
INSERT INTO local.mine VALUES (8, 'eight');
SELECT comment FROM also_local.mine JOIN t USING (id);
CREATE TABLE new.copy AS SELECT id FROM t WHERE id < 4;
CREATE TABLE mem.copy AS SELECT id FROM t WHERE id < 5;
SELECT (SELECT count(*) FROM new.copy), (SELECT count(*) FROM mem.copy);
PRAGMA cache_size = 20;
PRAGMA temp_store = FILE;
CREATE TEMP TABLE sorted AS SELECT x FROM t ORDER BY x;
SELECT count(*), count(DISTINCT x) FROM sorted;
SELECT count(*) FROM (SELECT x, row_number() OVER (ORDER BY x DESC) FROM t ORDER BY x || 'a');
PRAGMA mmap_size = 1000000000;
SELECT sum(length(x)) FROM t;
-- A transaction of several files, none of which is the replica.
BEGIN;
INSERT INTO local.mine SELECT id, 'copied' FROM t WHERE id BETWEEN 20 AND 22;
INSERT INTO new.copy VALUES (99);
COMMIT;
SELECT count(*) FROM local.mine;
-- A local database may be replicated from here.
DETACH also_local;
SELECT litestream_replicate('local.db', 'file://$DIR/local-replica') IS NOT NULL;
INSERT INTO local.mine VALUES (100, 'shipped');
SELECT litestream_stop('local.db') IS NOT NULL;
DETACH local;
ATTACH 'file:any?replica=file://$DIR/local-replica' AS other;
SELECT count(*) FROM other.mine;
