"""Every TXID of a random workload shows the rows that the source had: to a connection that follows, to transactions that
outlast commits, to connections that are opened at it or moved there, cold and warm."""
import datetime
import json
import pathlib
import random
import sqlite3
import subprocess
import sys
import time

import lib
import opened

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
STEPS = 28
QUERIES = [
    "PRAGMA page_count", "PRAGMA page_size", "PRAGMA freelist_count", "PRAGMA auto_vacuum", "PRAGMA user_version",
    "PRAGMA schema_version", "PRAGMA integrity_check",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM person ORDER BY id",
    "SELECT * FROM item ORDER BY owner, number",
    "SELECT city, count(*), min(born), max(born), sum(length(note)) FROM person GROUP BY city ORDER BY city",
    "SELECT id, name FROM person WHERE city = 'city 3' AND born BETWEEN 1920 AND 1980 ORDER BY born, id",
    "SELECT id FROM person WHERE city >= 'city 2' ORDER BY city DESC, born DESC, id LIMIT 50",
    """SELECT p.name, count(*), total(length(i.data)) FROM person p JOIN item i ON i.owner = p.id
       GROUP BY p.id ORDER BY 3 DESC, p.id LIMIT 20""",
    "SELECT name FROM person WHERE id NOT IN (SELECT owner FROM item) ORDER BY name DESC, id",
    "SELECT id, rank() OVER (PARTITION BY city ORDER BY born, id) FROM person ORDER BY id",
    "SELECT number, length(data), count(*) FROM item WHERE number % 3 = 0 GROUP BY length(data), number ORDER BY 2, 1",
    "SELECT owner, number, substr(data, -16) FROM item ORDER BY length(data) DESC, owner, number LIMIT 5",
    "SELECT rowid, text FROM word WHERE word MATCH 'alpha OR b*' ORDER BY rowid",
    "SELECT id, lo, hi FROM span WHERE hi > 400 ORDER BY id",
    "SELECT name FROM person WHERE note LIKE '%77%' UNION SELECT city FROM person ORDER BY 1",
    "SELECT * FROM settled ORDER BY city",
    """WITH RECURSIVE next(id) AS (SELECT min(id) FROM person UNION ALL
       SELECT (SELECT min(id) FROM person p WHERE p.id > next.id) FROM next WHERE next.id IS NOT NULL LIMIT 200)
       SELECT * FROM next""",
]


def rows_of(db):
    return [repr(db.execute(query).fetchall()) for query in QUERIES]


def assert_same_rows(expected, db, what):
    for query, rows in zip(QUERIES, expected):
        try:
            found = repr(db.execute(query).fetchall())
        except sqlite3.Error as error:
            found = repr(error)
        lib.check(found == rows, f"{what}: {query}\nexpected {rows[:600]}\nfound    {found[:600]}\n{opened.last_error()}")


def create(db):
    db.execute("BEGIN")
    for sql in [
        "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, born INTEGER, note TEXT)",
        "CREATE INDEX person_city ON person(city, born)",
        "CREATE TABLE item(owner INTEGER, number INTEGER, data BLOB, PRIMARY KEY(owner, number)) WITHOUT ROWID",
        "CREATE INDEX item_size ON item(length(data)) WHERE number % 3 = 0",
        "CREATE VIEW settled AS SELECT city, avg(born) AS mean FROM person GROUP BY city HAVING count(*) > 2",
        "CREATE VIRTUAL TABLE word USING fts5(text)",
        "CREATE VIRTUAL TABLE span USING rtree(id, lo, hi)",
    ]:
        db.execute(sql)
    db.execute("COMMIT")


# Changes, each in a transaction of its own

def grow(rng, db, page_size):
    for _ in range(rng.choice([1, 5, 40])):
        person = db.execute("INSERT INTO person(name, city, born, note) VALUES (?, ?, ?, ?)", (
            f"name {rng.random()}", f"city {rng.randrange(6)}", rng.randrange(1900, 2000),
            "".join(str(rng.randrange(1000)) for _ in range(rng.choice([1, 20, 200]))))).lastrowid
        for number in range(rng.choice([0, 1, 4])):
            size = rng.choice([0, 20, page_size // 3, 3 * page_size])
            db.execute("INSERT INTO item VALUES (?, ?, ?)", (person, number, rng.randbytes(min(size, 60_000))))
    text = " ".join(rng.choice(["alpha", "beta", "bar", "gamma", "delta"]) for _ in range(rng.randint(1, 30)))
    db.execute("INSERT INTO word(text) VALUES (?)", (text,))
    low = rng.randrange(500)
    db.execute("INSERT INTO span(lo, hi) VALUES (?, ?)", (low, low + rng.randrange(100)))


def change(rng, db, page_size):
    step, rest = rng.choice([2, 7, 30]), rng.randrange(2)
    db.execute("UPDATE person SET born = born + 1, note = note || '77' WHERE id % ? = ?", (step, rest))
    db.execute("UPDATE item SET data = ? WHERE owner % ? = ?", (rng.randbytes(rng.choice([5, page_size])), step, rest))


def shrink(rng, db, page_size):
    step = rng.choice([2, 3, 5])
    db.execute("DELETE FROM item WHERE owner % ? <> 0", (step,))
    db.execute("DELETE FROM person WHERE id % ? <> 0", (step,))
    db.execute("DELETE FROM word WHERE rowid % 2 = 0")
    if rng.random() < 0.5:
        db.execute(f"PRAGMA incremental_vacuum({rng.choice([1, 10, 1000])})").fetchall()


def alter(rng, db, page_size):
    name = f"extra{rng.randrange(3)}"
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone():
        db.execute(f"DROP TABLE {name}")
    else:
        db.execute(f"CREATE TABLE {name} AS SELECT * FROM person, (SELECT 1 UNION SELECT 2)")
        db.execute(f"CREATE INDEX {name}_index ON {name}(note)")
    db.execute(f"PRAGMA user_version = {rng.randrange(1000)}")


def step(rng, db, page_size):
    kind = rng.choices([grow, change, shrink, alter, "vacuum", "rollback", "checkpoint"], [8, 4, 3, 2, 2, 1, 2])[0]
    if kind == "vacuum":
        return db.execute("VACUUM")
    if kind == "checkpoint":
        return db.execute(f"PRAGMA wal_checkpoint({rng.choice(['PASSIVE', 'RESTART', 'TRUNCATE'])})").fetchall()
    db.execute("BEGIN IMMEDIATE")
    (grow if kind == "rollback" else kind)(rng, db, page_size)
    return db.execute("ROLLBACK" if kind == "rollback" else "COMMIT")


def every_txid(scratch, seed):
    seed = int(seed)
    rng = random.Random(seed)
    page_size, store = PAGE_SIZES[seed % len(PAGE_SIZES)], ["file", "seaweed"][(seed + seed // 8) % 2]
    replica = opened.place(scratch, store)
    opened.loaded()
    path = scratch / "app.db"
    db = opened.primary(path, replica, page_size=page_size, auto_vacuum=rng.randrange(3))
    create(db)
    expected, moments, held = {}, {}, None

    def synced():
        txid = lib.scalar(db, "SELECT litestream_sync(60)")
        rows = rows_of(db)
        lib.check(expected.setdefault(txid, rows) == rows, f"{txid} was another state before")
        return txid

    synced()
    follower = lib.open_replica(replica.url, "follower", poll_interval="10ms")
    poor = lib.open_replica(replica.url, "poor", poll_interval="10ms")
    poor.execute("PRAGMA cache_size = 5")
    poor.execute("PRAGMA mmap_size = 100000000").fetchall()
    for _ in range(STEPS):
        step(rng, db, page_size)
        txid = synced()
        for reader in (follower, poor) if rng.random() < 0.5 else (follower,):
            lib.check(lib.scalar(reader, "SELECT litestream_wait(?, 60)", txid) == txid, "it waited for", txid)
            assert_same_rows(expected[txid], reader, f"following, {txid}")
            lib.check(lib.scalar(reader, "SELECT litestream_txid()") == txid, "litestream_txid at", txid)
        if held and rng.random() < 0.4:
            assert_same_rows(expected[held[1]], held[0], f"a transaction of {held[1]}, at {txid}")
            held[0].execute("COMMIT")
            assert_same_rows(expected[txid], held[0], f"after the transaction, {txid}")
            held = None
        elif not held and rng.random() < 0.4:
            held = lib.open_replica(replica.url, "held", poll_interval="10ms"), txid
            held[0].execute("BEGIN")
            held[0].execute("SELECT count(*) FROM person").fetchall()
        if rng.random() < 0.2:
            time.sleep(0.02)
            moments[datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")] = txid
            time.sleep(0.02)
        if rng.random() < 0.1:
            db.execute("SELECT litestream_stop()").fetchall()
            db.close()
            db = opened.primary(path, replica)
    # The first may be of the empty database, on a machine that is slow to fill it.
    written = [f"{txid:016x}" for txid in lib.chain(replica.objects()) if txid > 1 or f"{txid:016x}" in expected]
    lib.check(written == sorted(expected), "TXIDs", written, "and states", sorted(expected))
    (scratch / "expected.json").write_text(json.dumps({"txids": expected, "moments": moments}))
    arguments = [scratch / "expected.json", replica.url, seed]
    done = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("run"), "--case", "read_every_txid",
                           *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lib.check(done.returncode == 0, done.stdout)
    db.close()


def read_every_txid(scratch, expected, url, seed):
    """In a process of its own, so that nothing is known of the replica."""
    rng = random.Random(int(seed) + 1)
    expected = json.loads(pathlib.Path(expected).read_text())
    states, moments = expected["txids"], expected["moments"]
    opened.loaded()
    options = {"cache_size": rng.choice(["1B", "64MiB"])}
    if url.startswith("s3:") and rng.random() < 0.7:
        options |= {"cache_dir": scratch / "cache", "cache_dir_size": rng.choice(["100KiB", "1GiB"])}
    moved = lib.open_replica(url, "moved", **options)
    # Without memory each page is a request: a few states show it.
    few = 3 if options["cache_size"] == "1B" and url.startswith("s3:") else len(states)
    for txid in rng.sample(sorted(states), min(few, len(states))):
        db = lib.open_replica(url, "at", at=txid, **options)
        db.execute(f"PRAGMA cache_size = {rng.choice([5, 2000])}")
        assert_same_rows(states[txid], db, f"at={txid}")
        if rng.random() < 0.5:
            moved.execute("SELECT litestream_set_time(?)", (txid,)).fetchall()
            assert_same_rows(states[txid], moved, f"moved to {txid}")
        other = rng.choice(sorted(states))
        name = "file:other?" + lib.replica_parameters(url, at=other, **options)
        db.execute("ATTACH ? AS other", (name,))
        found = lib.scalar(db, "SELECT count(*) FROM (SELECT * FROM main.person EXCEPT SELECT * FROM other.person)")
        here, there = (set(eval(states[at][QUERIES.index("SELECT * FROM person ORDER BY id")])) for at in (txid, other))
        lib.check(found == len(here - there), f"{txid} beside {other}: {found} rows differ, and not {len(here - there)}")
        db.close()
    for moment, txid in moments.items():
        db = lib.open_replica(url, "at", at=moment, **options)
        lib.check(lib.scalar(db, "SELECT litestream_txid()") == txid, f"at={moment}")
        assert_same_rows(states[txid], db, f"at={moment}, {txid}")
        db.close()
    moved.execute("SELECT litestream_set_time('latest')").fetchall()
    assert_same_rows(states[max(states)], moved, "moved to the latest")


CASES = {"every_txid": every_txid, "read_every_txid": read_every_txid}
