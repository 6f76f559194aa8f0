-- litestream_wait on a primary: until a TXID is in the store, also one that is not made yet.
.open app.db
SELECT litestream_wait('0000000000000001');
CREATE TABLE t(a);
SELECT litestream_replicate('app.db', 'file://$DIR/replica', '{"sync_interval":"10ms"}') IS NOT NULL;
SELECT litestream_wait('0000000000000001') = litestream_txid();
SELECT litestream_wait('0000000000000001', 0) = litestream_txid();
SELECT litestream_wait('00000000000000ff', 0.1);
SELECT litestream_wait('00000000000000ff', -1);
SELECT litestream_wait('00000000000000ff', 'long');
SELECT litestream_wait(1);
SELECT litestream_wait(NULL);
SELECT litestream_wait('1');
