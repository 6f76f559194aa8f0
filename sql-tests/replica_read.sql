-- The VFS litestream: a database is read from its replica, and follows it.
.open app.db
CREATE TABLE note(id INTEGER PRIMARY KEY, text, size);
INSERT INTO note SELECT value, 'note ' || value, randomblob(300) FROM generate_series(1, 500);
CREATE INDEX note_text ON note(text);
SELECT litestream_replicate('app.db', 'file://$DIR/replica', '{"sync_interval":"10ms"}') IS NOT NULL;
SELECT litestream_sync() IS NOT NULL;
.connection 1
.open file:any?vfs=litestream&replica=file://$DIR/replica&poll_interval=10ms
SELECT count(*), min(text), sum(length(size)) FROM note;
SELECT id FROM note WHERE text = 'note 321';
PRAGMA integrity_check;
PRAGMA journal_mode;
SELECT litestream_txid() GLOB '000000000000000[1-9]', litestream_time(), litestream_lag() BETWEEN 0 AND 60;
SELECT typeof(litestream_txid()), typeof(litestream_time()), typeof(litestream_lag());
.mode line
SELECT path, url, role, state, txid = litestream_txid() AS txid, durable_txid, lag_seconds >= 0 AS lag,
  data_age_seconds >= 0 AS age, spool_bytes, last_error, requests_get > 0 AS gets
  FROM litestream_status WHERE role = 'replica';
.mode list
-- It follows.
.connection 0
INSERT INTO note(text) VALUES ('later');
SELECT litestream_sync() = litestream_txid();
.connection 1
SELECT litestream_wait(txid) = txid FROM litestream_status WHERE role = 'primary';
SELECT count(*) FROM note;
-- A transaction keeps its state.
BEGIN;
SELECT count(*) FROM note;
.connection 0
DELETE FROM note WHERE id > 100;
SELECT litestream_sync() = litestream_txid();
.connection 1
SELECT count(*) FROM note;
SELECT litestream_wait('00000000000000ff');
SELECT litestream_wait('0000000000000001') = litestream_txid();
COMMIT;
SELECT litestream_wait(txid) = txid FROM litestream_status WHERE role = 'primary';
SELECT count(*) FROM note;
SELECT litestream_wait('00000000000000ff', 0.05);
.connection close 0
