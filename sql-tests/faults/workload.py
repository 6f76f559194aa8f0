"""Numbered transactions whose effect depends on their number alone, so that every committed state can be computed
beforehand, and told from every state that is none."""
import pathlib
import random
import shutil
import sqlite3

import lib
from interposed import child

SCHEMA = [
    "CREATE TABLE state(id INTEGER PRIMARY KEY, number INTEGER)",
    "CREATE TABLE row(number INTEGER, part INTEGER, filler BLOB, PRIMARY KEY (number, part)) WITHOUT ROWID",
    "INSERT INTO state VALUES (1, 0)",
]


def transaction(db, number, filler=0):
    """The statements of one transaction, without BEGIN and COMMIT. `filler`: more bytes, for one that is large."""
    if number == 0:
        for statement in SCHEMA:
            db.execute(statement)
        return
    rng = random.Random(number)
    for part in range(12 if number % 5 == 4 else 1 + number % 2):
        db.execute("INSERT INTO row VALUES (?, ?, ?)", (number, part, rng.randbytes(rng.choice([10, 100, 700]))))
    if filler:
        db.execute("INSERT INTO row VALUES (?, -1, ?)", (number, rng.randbytes(filler)))
    db.execute("DELETE FROM row WHERE number <= ?", (number - 5 - number % 3,))
    db.execute("UPDATE state SET number = ?", (number,))


def commit(db, number, filler=0):
    """The same, committed."""
    db.execute("BEGIN IMMEDIATE")
    transaction(db, number, filler)
    db.execute("COMMIT")


class History:
    """The states after each transaction, computed by SQLite in memory."""

    def __init__(self, fillers):
        """`fillers`: {number: bytes} of transactions that are large."""
        self.fillers, self.numbers, self.next = fillers, {}, 0
        self.db = sqlite3.connect(":memory:", isolation_level=None)

    def extend(self, last):
        """All transactions up to this one."""
        while self.next <= last:
            self.commit(self.next)
            self.next += 1

    def commit(self, number):
        commit(self.db, number, self.fillers.get(number, 0))
        self.numbers[lib.content_hash(self.db)] = number

    def number_of(self, path):
        """Which committed state the database file holds; it must be one."""
        lib.assert_intact(path)
        db = sqlite3.connect(path)
        try:
            digest = lib.content_hash(db)
            said = db.execute("SELECT number FROM state").fetchall()
        finally:
            db.close()
        lib.check(digest in self.numbers, f"{path} holds no committed state; its counter says", said)
        return self.numbers[digest]


def restored(url, path, txid=None):
    """Restores into `path`, in a child."""
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)
    child(_restore, url, [(path, txid)])
    return path


def _restore(url, wanted):
    client = lib.connect(":memory:", load=True)
    for path, txid in wanted:
        client.execute("SELECT litestream_restore(?, ?, ?)",
                       (url, str(path), "latest" if txid is None else f"{txid:016x}"))
    client.close()


def restored_numbers(history, url, scratch, txids):
    """{txid: number}: which committed state each TXID restores to."""
    scratch.mkdir(exist_ok=True)
    paths = {txid: scratch / f"at-{txid}.db" for txid in txids}
    child(_restore, url, [(path, txid) for txid, path in paths.items()])
    numbers = {txid: history.number_of(path) for txid, path in paths.items()}
    shutil.rmtree(scratch)
    return numbers


def recovered(database, scratch):
    """The database as SQLite alone recovers it, from a copy; its path."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for suffix in ("", "-wal", "-journal"):
        if database.with_name(database.name + suffix).exists():
            shutil.copyfile(f"{database}{suffix}", scratch / f"recovered.db{suffix}")
    db = sqlite3.connect(scratch / "recovered.db", isolation_level=None)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    return scratch / "recovered.db"


def reopen(database, url):
    """What a program does after a crash, in a child: goes on replicating. The TXID that is durable then."""
    return child(_reopen, database, url)


def _reopen(database, url):
    lib.connect(":memory:", load=True).close()
    db = lib.connect(database)
    db.execute("SELECT litestream_replicate(?)", (url,))
    txid = lib.scalar(db, "SELECT litestream_sync()")
    db.close()
    return txid


def reopen_and_judge(database, replica, history, scratch, all_txids=True):
    """After a crash: what SQLite recovers arrives in full, every TXID is a committed state, in order, and nothing that
    was in the replica changed. The number that the replica had before, and the one that was recovered."""
    before = replica.objects()
    txids = lib.chain(before)
    had = -1
    if txids:
        path = restored(replica.url, scratch / "had.db")
        had = history.number_of(path)
    alone = recovered(database, scratch / "alone")
    number = history.number_of(alone)
    lib.check(had <= number, f"P8: the replica had transaction {had}, the database recovered to {number}")

    same = bool(txids) and path.read_bytes() == alone.read_bytes()
    durable = reopen(database, replica.url)
    after, seen = replica.objects(), {}
    lib.check(before.keys() <= after.keys(), "objects are gone:", sorted(before.keys() - after.keys()))
    lib.assert_not_overwritten(seen, before)
    lib.assert_not_overwritten(seen, after)
    if same:
        lib.check(after.keys() == before.keys(), "nothing was to be shipped, but", sorted(after.keys() - before.keys()))
    txids = lib.chain(after)
    lib.check(int(durable, 16) == txids[-1], "synced to", durable, "but the chain ends at", txids[-1])
    chosen = txids if all_txids else sorted({txids[0], *random.Random(number).sample(txids, min(4, len(txids))),
                                             *txids[-2:]})
    numbers = list(restored_numbers(history, replica.url, scratch / "states", chosen).values())
    lib.check(numbers == sorted(numbers), "TXIDs out of order:", numbers)
    lib.check(numbers[-1] == number, f"transaction {number} was recovered, {numbers[-1]} arrived")
    final = recovered(database, scratch / "alone")
    lib.assert_same_database(final.read_bytes(), restored(replica.url, scratch / "final.db").read_bytes(), "after all")
    return had, number
