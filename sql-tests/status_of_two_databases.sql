.open a.db
SELECT litestream_replicate('file://$DIR/replica-a') IS NOT NULL;
CREATE TABLE a(a);
.connection 1
.open b.db
CREATE TABLE b(b);
ATTACH 'c.db' AS c;
CREATE TABLE c.c(c);
SELECT litestream_replicate(NULL, 'file://$DIR/replica-b') IS NOT NULL;
SELECT litestream_replicate('$DIR/c.db', 'file://$DIR/replica-c') IS NOT NULL;
BEGIN;
INSERT INTO b VALUES (1);
INSERT INTO c VALUES (2);
COMMIT;
SELECT litestream_sync() IS NOT NULL;
SELECT path, url, role FROM litestream_status ORDER BY path;
SELECT litestream_stop('$DIR/c.db') IS NOT NULL;
SELECT litestream_stop('$DIR/nothing.db');
SELECT path FROM litestream_status WHERE state = 'running' ORDER BY path;
SELECT litestream_restore('file://$DIR/replica-c', 'restored.db') IS NOT NULL;
ATTACH 'restored.db' AS restored;
SELECT * FROM restored.c;
