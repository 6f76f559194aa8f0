-- What cannot be opened: SQLite gives a code, the reason stands in the log and in litestream_status.
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync() IS NOT NULL;
.open :memory:
.log stdout
ATTACH 'file:a?vfs=litestream' AS a;
ATTACH 'file:b?vfs=litestream&replica=ftp://host/b' AS b;
.log off
ATTACH 'file:c?vfs=litestream&replica=s3://key:hush@bucket/c' AS c;
ATTACH 'file:d?vfs=litestream&replica=file://$DIR/nothing' AS d;
ATTACH 'file:e?vfs=litestream&replica=file://$DIR/replica&at=whenever' AS e;
ATTACH 'file:f?vfs=litestream&replica=file://$DIR/replica&at=00000000000000ff' AS f;
ATTACH 'file:g?vfs=litestream&replica=file://$DIR/replica&at=2001-01-01' AS g;
ATTACH 'file:h?vfs=litestream&replica=file://$DIR/replica&poll_interval=soon' AS h;
ATTACH 'file:i?vfs=litestream&replica=file://$DIR/replica&cache_size=lots' AS i;
ATTACH 'file:j?vfs=litestream&replica=file://$DIR/replica&hydrate=perhaps' AS j;
ATTACH 'file:k?vfs=litestream&replica=file://$DIR/replica&At=0000000000000001' AS k;
ATTACH 'file:l?vfs=litestream&replica=file://$DIR/replica&hydrate_path=l.db' AS l;
SELECT path LIKE '$DIR/_', url, state, last_error FROM litestream_status WHERE role = 'replica';
-- Once this replica is opened under this name, the reason is forgotten.
ATTACH 'file:e?vfs=litestream&replica=file://$DIR/replica' AS e;
SELECT state, last_error FROM litestream_status WHERE path = '$DIR/e';
SELECT count(*) FROM e.t;
