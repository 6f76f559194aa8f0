#!/bin/sh
# As a URI's parameter the URL is percent-encoded; for file:// nothing needs to be.
sqlite3 notes.db <<SQL
.load ./dist/liblitestream

-- The primary: replicated from here on.
SELECT litestream_replicate('$REPLICA_URL');
CREATE TABLE IF NOT EXISTS note(text);
INSERT INTO note VALUES ('milk'), ('bread');
SELECT 'shipped ' || litestream_sync();

-- A replica: read-only, straight from the store.
.open file:notes?vfs=litestream&replica=$REPLICA_URL
SELECT text FROM note;
SELECT 'replica at ' || litestream_txid();
SQL
