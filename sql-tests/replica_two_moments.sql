-- Several moments of one replica are attached at once, and compared.
.open app.db
CREATE TABLE price(item TEXT PRIMARY KEY, euro);
INSERT INTO price VALUES ('bread', 3), ('milk', 1), ('cheese', 8);
SELECT litestream_replicate('file://$DIR/replica') IS NOT NULL;
SELECT litestream_sync();
UPDATE price SET euro = 4 WHERE item = 'bread';
SELECT litestream_sync();
BEGIN;
DELETE FROM price WHERE item = 'cheese';
INSERT INTO price VALUES ('butter', 3);
COMMIT;
SELECT litestream_sync();
.open file:prices?vfs=litestream&replica=file://$DIR/replica
ATTACH 'file:prices?vfs=litestream&replica=file://$DIR/replica&at=0000000000000001' AS first;
ATTACH 'file:prices?vfs=litestream&replica=file://$DIR/replica&at=0000000000000002' AS second;
SELECT item, f.euro, s.euro, p.euro FROM first.price f LEFT JOIN second.price s USING (item) LEFT JOIN price p USING (item) ORDER BY item;
SELECT * FROM price EXCEPT SELECT * FROM second.price;
PRAGMA litestream_txid;
PRAGMA first.litestream_txid;
PRAGMA second.litestream_txid;
PRAGMA second.litestream_time = '0000000000000001';
PRAGMA second.litestream_txid;
SELECT * FROM second.price EXCEPT SELECT * FROM first.price;
SELECT count(*), count(DISTINCT path), count(DISTINCT url) FROM litestream_status WHERE role = 'replica';
DETACH first;
SELECT count(*) FROM litestream_status WHERE role = 'replica';
-- The same with one cache for all: each moment is a database of its own.
.open file:prices?vfs=litestream&replica=file://$DIR/replica&cache=shared
ATTACH 'file:prices?vfs=litestream&replica=file://$DIR/replica&cache=shared&at=0000000000000001' AS first;
SELECT (SELECT euro FROM first.price WHERE item = 'bread'), (SELECT euro FROM price WHERE item = 'bread');
ATTACH 'file:prices?vfs=litestream&replica=file://$DIR/replica&cache=shared&at=0000000000000001' AS again;
