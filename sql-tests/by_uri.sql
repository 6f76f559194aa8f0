-- P16: a database that is opened with ?replica= is replicated while it is in WAL mode, without a call.
.open file:app.db?replica=file://$DIR/replica
SELECT url = 'file://$DIR/replica', state, last_error FROM litestream_status;
CREATE TABLE note(text);
SELECT state, txid FROM litestream_status;
SELECT litestream_sync();
PRAGMA journal_mode = WAL;
INSERT INTO note VALUES ('milk');
SELECT litestream_sync();
SELECT state, txid, durable_txid FROM litestream_status;
-- It goes on where it stopped.
.open file:app.db?replica=file://$DIR/replica&sync_interval=10ms
INSERT INTO note VALUES ('bread');
SELECT litestream_sync();
.open restored.db
SELECT litestream_restore('file://$DIR/replica', '$DIR/out.db');
.open out.db
SELECT * FROM note;
