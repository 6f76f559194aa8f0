-- An extension that registers itself for later connections must not break them (litestream#1506).
.load $LIBRARY
CREATE TABLE memory(a);
INSERT INTO memory VALUES (1);
.connection 1
.open plain.db
CREATE TABLE plain(a);
INSERT INTO plain VALUES (2);
PRAGMA journal_mode;
SELECT litestream_version() IS NOT NULL;
.connection 2
.open second.db
PRAGMA journal_mode = WAL;
CREATE TABLE second(a);
ATTACH 'plain.db' AS plain;
INSERT INTO second SELECT a FROM plain;
SELECT a FROM second;
.connection 0
SELECT a FROM memory;
-- Loading it again changes nothing.
.load $LIBRARY
SELECT a FROM memory;
SELECT count(*) FROM litestream_status;
.shell ls -A
