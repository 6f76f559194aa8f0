.open app.db
CREATE TABLE t(a);
INSERT INTO t VALUES (hex(zeroblob(10000)));
SELECT litestream_replicate('file://$DIR/replica');
SELECT litestream_sync() IS NOT NULL;
SELECT litestream_stop() IS NOT NULL;
.shell cp -r replica cut; for f in cut/ltx/0/*; do head -c 300 $f > x; cp x $f; rm x; done
SELECT litestream_restore('file://$DIR/cut', 'restored.db');
.shell cp -r replica flipped; for f in flipped/ltx/0/*; do printf '\377' | env -u LD_PRELOAD dd of=$f bs=1 seek=120 conv=notrunc status=none; done
SELECT litestream_restore('file://$DIR/flipped', 'restored.db');
.shell cp -r replica empty; for f in empty/ltx/0/*; do : > $f; done
SELECT litestream_restore('file://$DIR/empty', 'restored.db');
.shell ls *.db
