#!/usr/bin/env bash
# demo.sh LIBRARY: the main job on file://, to the eye, in the sqlite3 shell.
set -euo pipefail
library=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }
shell() { sqlite3 -batch -bail -echo -cmd '.echo off' -cmd ".load ${library%.*}" -cmd '.echo on' "$@"; }

say "A database is replicated as it is written. Someone deletes too much."
shell app.db <<SQL
SELECT litestream_replicate('file://$dir/replica');
CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT);
INSERT INTO note(text) VALUES ('milk'), ('bread'), ('a very good idea');
CREATE TEMP TABLE before AS SELECT litestream_sync() AS txid;
DELETE FROM note;
INSERT INTO note(text) VALUES ('where did my notes go?');
SELECT litestream_sync();

SELECT level, min_txid, max_txid, size, created_at FROM litestream_files('file://$dir/replica');
SELECT litestream_restore('file://$dir/replica', '$dir/latest.db');
SELECT litestream_restore('file://$dir/replica', '$dir/before.db', txid) FROM before;
SQL

say "What lies in the replica:"
(cd replica && find . -type f | sort | xargs ls -l)

say "The latest state, restored; and the source:"
sqlite3 latest.db 'SELECT * FROM note'
cmp app.db latest.db && echo "app.db and latest.db are the same, byte for byte"

say "The state before the deletion:"
sqlite3 before.db 'SELECT * FROM note'
[ "$(sqlite3 before.db 'SELECT count(*) FROM note; PRAGMA integrity_check')" = $'3\nok' ]
