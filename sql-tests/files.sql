SELECT name, type, hidden FROM pragma_table_xinfo('litestream_files');
.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
CREATE TABLE t(a);
SELECT litestream_sync() IS NOT NULL;
SELECT level, min_txid, max_txid, size > 100 AS size, created_at, key
  FROM litestream_files('file://$DIR/replica') WHERE min_txid = '0000000000000001' AND level = 0;
SELECT count(*) FROM litestream_files('file://$DIR/nothing');
SELECT count(*) FROM litestream_files;
SELECT count(*) FROM litestream_files('ftp://nowhere');
.shell touch replica/ltx/0/notes.txt replica/ltx/0/0000000000000099-0000000000000099.ltx.tmp
SELECT key FROM litestream_files('file://$DIR/replica') WHERE key NOT GLOB 'ltx/[0-9]/*-*.ltx';
