.open app.db
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync() IS NOT NULL;
PRAGMA page_count;
SELECT litestream_restore('file://$DIR/replica', 'restored.db') = litestream_txid();
ATTACH 'restored.db' AS restored;
SELECT count(*) FROM restored.sqlite_schema;
PRAGMA restored.integrity_check;
