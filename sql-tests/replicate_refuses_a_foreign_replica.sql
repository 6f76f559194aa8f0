-- Another database's history under the URL: refused, with both positions and the ways out.
.open other.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE other(a);
SELECT litestream_stop() IS NOT NULL;
.open app.db
CREATE TABLE t(a);
SELECT litestream_replicate('file://$DIR/replica');
SELECT count(*) FROM litestream_files('file://$DIR/replica') WHERE level = 0 AND min_txid = '0000000000000001';
SELECT litestream_restore('file://$DIR/replica', 'restored.db') IS NOT NULL;
ATTACH 'restored.db' AS restored;
SELECT name FROM restored.sqlite_schema;
