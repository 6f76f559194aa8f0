-- litestream_set_time and PRAGMA litestream_time move an open connection.
.open app.db
CREATE TABLE t(a);
INSERT INTO t VALUES ('one');
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync();
.shell sleep 0.1
SELECT writefile('point.txt', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
.shell sleep 0.1
BEGIN;
ALTER TABLE t ADD COLUMN b;
INSERT INTO t VALUES ('two', 2);
COMMIT;
SELECT litestream_sync();
.open file:any?vfs=litestream&replica=file://$DIR/replica
SELECT * FROM t;
SELECT litestream_set_time('0000000000000001');
SELECT * FROM t;
SELECT litestream_txid();
SELECT litestream_set_time('latest');
SELECT * FROM t;
SELECT litestream_set_time(CAST(readfile('point.txt') AS TEXT));
SELECT * FROM t;
SELECT litestream_set_time('LATEST');
SELECT litestream_txid();
PRAGMA litestream_time = '0000000000000001';
PRAGMA litestream_time;
PRAGMA litestream_txid;
SELECT * FROM t;
PRAGMA LITESTREAM_TIME = LATEST;
SELECT * FROM t;
PRAGMA litestream_hydration_progress;
PRAGMA litestream_hydration_file;
SELECT litestream_hydration_progress(), litestream_hydration_status();
-- The statement's own transaction does not matter.
SELECT litestream_set_time('0000000000000001') FROM t LIMIT 1;
SELECT * FROM t;
SELECT litestream_set_time('latest') FROM litestream_status LIMIT 1;
-- What cannot be is refused, and the connection stays where it was.
SELECT litestream_set_time('soon');
SELECT litestream_set_time(5);
SELECT litestream_set_time(NULL);
SELECT litestream_set_time('00000000000000ff');
SELECT litestream_set_time('1 hour ago');
PRAGMA litestream_time = '1 hour ago';
SELECT litestream_txid();
BEGIN;
SELECT count(*) FROM t;
SELECT litestream_set_time('0000000000000001');
PRAGMA litestream_time = '0000000000000001';
COMMIT;
SELECT litestream_set_time('0000000000000001');
SELECT count(*) FROM t;
-- In views, too.
CREATE TEMP VIEW state AS SELECT litestream_txid() AS txid, litestream_lag() AS lag;
SELECT * FROM state;
.open :memory:
SELECT litestream_set_time('latest');
SELECT litestream_wait('0000000000000001');
SELECT litestream_wait('x');
SELECT litestream_hydration_progress(), litestream_hydration_status();
