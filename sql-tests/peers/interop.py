"""The cases. Each leaves with an AssertionError, or all is well."""
import contextlib
import pathlib
import random
import sqlite3
import subprocess
import time

import lib

SYNC_AT_ONCE = '{"sync_interval":"1ms"}'


def litestream_restores_ours(scratch, replica, page_size):
    rng, path = random.Random(page_size), scratch / "app.db"
    lib.connect(":memory:", load=True).close()
    db = lib.connect(path, page_size=page_size, auto_vacuum=2)
    db.execute("SELECT litestream_replicate(?, ?, ?)", (str(path), replica.url, SYNC_AT_ONCE))
    images = {}
    for step in range(8):
        change(db, rng, step)
        images[lib.scalar(db, "SELECT litestream_sync()")] = lib.image(path, scratch)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    lib.assert_same_database(path.read_bytes(), lib.litestream_restore(replica, scratch / "theirs.db"), "the latest state")
    txids = lib.chain(replica.objects())
    lib.check(f"{txids[-1]:016x}" == max(images), "the chain ends at", txids[-1], "synced:", sorted(images))
    for txid, image in images.items():
        lib.assert_same_database(image, lib.litestream_restore(replica, scratch / "theirs.db", txid), txid)
    for txid in rng.sample(txids, min(4, len(txids))):
        compare_restores(scratch, replica, f"{txid:016x}")


def we_restore_litestreams(scratch, replica, page_size):
    rng, path = random.Random(page_size), scratch / "app.db"
    db = plain(path, page_size)
    for step in range(6):
        change(db, rng, step)
        litestream_once(path, replica)
    for txid in lib.chain(replica.objects()):
        compare_restores(scratch, replica, f"{txid:016x}")
    image = lib.image(path, scratch)
    db.close()
    lib.assert_same_database(image, our_restore(scratch, replica), "the latest state")


def we_restore_litestreams_compacted(scratch, replica, page_size):
    """Short levels and snapshots, so that the plan takes files of several levels."""
    rng, path = random.Random(page_size), scratch / "app.db"
    db = plain(path, page_size)
    change(db, rng, 0)
    with litestream_running(scratch, path, replica):
        for step in range(1, 14):
            change(db, rng, step)
            time.sleep(0.6)
        time.sleep(2)
    db.close()
    objects = replica.objects()
    levels = {level for level, _, _ in objects}
    lib.check({0, 1, 2, 9} <= levels, "Litestream made the levels", levels, "only: the test is wrong")
    compare_restores(scratch, replica)
    for txid in sorted({high for _, _, high in objects}):
        compare_restores(scratch, replica, f"{txid:016x}", may_be_unavailable=True)


def each_goes_on_where_the_other_stopped(scratch, replica, page_size):
    """On one database, its local directory and its replica. Another process keeps the database open, so that the WAL
    outlives each of them: then neither has a reason for a full image."""
    rng, path = random.Random(page_size), scratch / "app.db"
    seed_rows(path, page_size)
    lib.connect(":memory:", load=True).close()
    with kept_open(path):
        full_images = []
        for turn in range(6):
            objects = replica.objects()
            if turn % 2 == 0:
                our_turn(path, replica, rng)
            else:
                their_turn(path, replica, rng)
            whose = "ours" if turn % 2 == 0 else "Litestream's"
            check_turn(scratch, path, replica, objects, f"turn {turn}, {whose}")
            new = set(replica.objects()) - set(objects)
            full_images += [f"turn {turn}, {whose}: {low:016x}" for level, low, high in sorted(new)
                            if level == 0 and low > 1 and lib.Ltx(replica.objects()[level, low, high]).is_full_image]
        lib.check(not full_images, "full images after the first:", full_images)


def each_goes_on_after_a_last_close(scratch, replica, page_size):
    """As above, but the WAL goes with each last close. Litestream then writes a full image; the chain has no gap."""
    rng, path = random.Random(page_size), scratch / "app.db"
    seed_rows(path, page_size)
    lib.connect(":memory:", load=True).close()
    for turn in range(4):
        objects = replica.objects()
        (our_turn if turn % 2 == 0 else their_turn)(path, replica, rng)
        check_turn(scratch, path, replica, objects, f"turn {turn}, {'ours' if turn % 2 == 0 else 'Litestreams'}")


def litestream_does_not_see_our_companions(scratch, replica, page_size):
    """R6: beside a large image of ours lies its companion index. Litestream restores, goes on and compacts as ever."""
    page_size = min(page_size, 4096)  # larger pages would only be more bytes
    rng, path = random.Random(page_size), scratch / "app.db"
    seed_rows(path, page_size)
    db = plain(path)
    db.execute("CREATE TABLE large(a BLOB)")
    db.execute("INSERT INTO large WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT zeroblob(?) FROM n",
               (page_size * 9 // 10,))
    db.close()
    lib.connect(":memory:", load=True).close()
    ours = ["0/0000000000000001-0000000000000001.idx"]
    with kept_open(path):
        for turn in (our_turn, their_turn, our_turn):
            objects = replica.objects()
            turn(path, replica, rng)
            check_turn(scratch, path, replica, objects, turn.__name__)
            lib.check(replica.companions() == ours, turn.__name__, "left the companions", replica.companions())
        db = plain(path)
        with litestream_running(scratch, path, replica):
            for _ in range(10):
                touch(db, rng)
                time.sleep(0.6)
        db.close()
    lib.check({1, 2, 9} <= {level for level, _, _ in replica.objects()}, "Litestream has compacted nothing: the test is wrong")
    lib.check(replica.companions() == ours, "compaction left the companions", replica.companions())
    compare_restores(scratch, replica)
    lib.assert_same_database(lib.image(path, scratch), our_restore(scratch, replica), "after compaction")


CASES = {f.__name__: f for f in (
    litestream_restores_ours, we_restore_litestreams, we_restore_litestreams_compacted,
    each_goes_on_where_the_other_stopped, each_goes_on_after_a_last_close, litestream_does_not_see_our_companions)}


# Turns

def seed_rows(path, page_size):
    db = plain(path, page_size)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)")
    db.execute("INSERT INTO t WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, randomblob(?) FROM n",
               (page_size // 2,))
    db.close()


def our_turn(path, replica, rng):
    db = lib.connect(path)
    db.execute("SELECT litestream_replicate(?, ?, ?)", (str(path), replica.url, SYNC_AT_ONCE))
    for _ in range(3):
        touch(db, rng)
        db.execute("SELECT litestream_sync()").fetchall()
    touch(db, rng)
    db.execute("SELECT litestream_stop()").fetchall()
    db.close()


def their_turn(path, replica, rng):
    for _ in range(2):
        db = plain(path)
        touch(db, rng)
        litestream_once(path, replica)
        db.close()


def check_turn(scratch, path, replica, before, what):
    objects = replica.objects()
    txids = lib.chain(objects)
    lib.check(txids[-1] > max(lib.chain(before), default=0), what, "shipped nothing")
    seen = {}
    lib.assert_not_overwritten(seen, before)
    lib.assert_not_overwritten(seen, objects)
    image = lib.image(path, scratch)
    lib.assert_same_database(image, our_restore(scratch, replica), f"{what}: our restore")
    lib.assert_same_database(image, lib.litestream_restore(replica, scratch / "theirs.db"), f"{what}: Litestream's restore")


@contextlib.contextmanager
def kept_open(path):
    """A process that has the database open, and does nothing."""
    shell = subprocess.Popen(["sqlite3", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    shell.stdin.write("PRAGMA journal_mode; SELECT count(*) FROM sqlite_schema;\n")
    shell.stdin.flush()
    lib.check(shell.stdout.readline() == "wal\n" and shell.stdout.readline(), "the database could not be kept open")
    try:
        yield
    finally:
        shell.communicate()


# Restores

def our_restore(scratch, replica, txid="latest"):
    path = scratch / "ours.db"
    path.unlink(missing_ok=True)
    db = lib.connect(":memory:", load=True)
    db.execute("SELECT litestream_restore(?, ?, ?)", (replica.url, str(path), txid))
    db.close()
    return path.read_bytes()


def compare_restores(scratch, replica, txid=None, may_be_unavailable=False):
    try:
        theirs = lib.litestream_restore(replica, scratch / "theirs.db", txid)
    except AssertionError as error:
        if may_be_unavailable and "not available" in str(error):
            return
        raise
    lib.assert_same_database(theirs, our_restore(scratch, replica, txid or "latest"), f"{txid or 'latest'} of {replica.url}")


# The database, written by SQLite alone

def plain(path, page_size=None):
    """A connection past the shim, in WAL mode, as another program has it."""
    db = sqlite3.connect(f"file:{path}?vfs=unix", uri=True, isolation_level=None, timeout=60)
    if page_size:
        db.execute(f"PRAGMA page_size = {page_size}")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    return db


def touch(db, rng):
    """One page changes, or two."""
    db.execute("UPDATE t SET a = randomblob(length(a)) WHERE id = ?", (rng.randint(1, 200),))


def change(db, rng, step):
    """The database grows, is overwritten, shrinks and grows again."""
    page_size = db.execute("PRAGMA page_size").fetchone()[0]
    db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a BLOB)")
    db.execute("BEGIN")
    for _ in range(rng.randint(1, 30)):
        db.execute("INSERT INTO t(a) VALUES (randomblob(?))", (rng.randint(1, 3 * page_size),))
    db.execute("UPDATE t SET a = zeroblob(length(a)) WHERE id % 5 = ?", (step % 5,))
    db.execute("COMMIT")
    if step % 4 == 2:
        db.execute("DELETE FROM t WHERE id % 3 <> 0")
        db.execute("VACUUM")
    if step % 4 == 3:
        db.execute("PRAGMA incremental_vacuum(3)").fetchall()
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


# Litestream

def litestream_once(path, replica):
    lib.litestream("replicate", "-once", path, replica.url, environment=replica.environment())


@contextlib.contextmanager
def litestream_running(scratch, path, replica):
    config = scratch / "litestream.yml"
    config.write_text(f"""
levels: [{{interval: 1s}}, {{interval: 3s}}]
snapshot: {{interval: 4s, retention: 1h}}
l0-retention: 2s
l0-retention-check-interval: 1s
dbs:
  - path: {path}
    monitor-interval: 100ms
    replica: {{url: "{replica.url}", sync-interval: 100ms}}
""")
    log = pathlib.Path(scratch) / "litestream.log"
    with log.open("w") as out:
        process = subprocess.Popen([lib.litestream_binary(), "replicate", "-config", config], stdout=out,
                                   stderr=subprocess.STDOUT, env=replica.environment())
    try:
        yield
        lib.check(process.poll() is None, "litestream ended:", log.read_text())
    finally:
        process.terminate()
        process.wait()
