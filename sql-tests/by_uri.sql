-- P16: a database that is opened with ?replica= is replicated without a call: after its first commit it is in WAL mode.
.open file:app.db?replica=file://$DIR/replica
SELECT url = 'file://$DIR/replica', state, last_error FROM litestream_status;
SELECT litestream_sync();
CREATE TABLE note(text);
SELECT litestream_sync();
INSERT INTO note VALUES ('milk');
PRAGMA journal_mode;
SELECT litestream_sync();
SELECT state, txid, durable_txid FROM litestream_status;
-- It goes on where it stopped.
.open file:app.db?replica=file://$DIR/replica&sync_interval=10ms
INSERT INTO note VALUES ('bread');
SELECT litestream_sync();
-- Who sets the mode by himself says so.
.open file:own.db?replica=file://$DIR/own&set_wal=0
CREATE TABLE note(text);
SELECT litestream_sync();
PRAGMA journal_mode;
.open restored.db
SELECT litestream_restore('file://$DIR/replica', '$DIR/out.db');
.open out.db
SELECT * FROM note;
