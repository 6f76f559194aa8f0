"""The process that is killed: `writer.py DATABASE URL JOURNAL ROUND SEED PAGE_SIZE`.

Four connections, a thread each, insert numbered rows. JOURNAL takes a line before each transaction and one after its commit; what is written to
a file survives kill -9, so the parent knows what was attempted and what was acknowledged.
"""
import os
import pathlib
import random
import sys
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]
import lib  # noqa: E402

CONNECTIONS = 4
SCHEMA = """
CREATE TABLE IF NOT EXISTS row(round INTEGER, thread INTEGER, number INTEGER, part INTEGER, filler BLOB,
                               PRIMARY KEY (round, thread, number, part));
CREATE TABLE IF NOT EXISTS total(id INTEGER PRIMARY KEY, rows INTEGER);
INSERT OR IGNORE INTO total VALUES (1, 0);
"""


def main(database, url, journal, this_round, seed, page_size):
    rng = random.Random(seed)
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    first = lib.connect(database, load=True, page_size=page_size)
    first.execute("SELECT litestream_replicate(?, ?, ?)", (database, url, '{"sync_interval":"20ms"}'))
    for statement in filter(str.strip, SCHEMA.split(";")):
        first.execute(statement)
    forget(first, this_round)
    threads = [threading.Thread(target=write, args=[number, database, log, this_round, rng.random()])
               for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(rng.random() * 0.1)
        if rng.random() < 0.3:
            os.write(log, b"sync\n")
            txid = lib.scalar(first, "SELECT litestream_sync()")
            os.write(log, f"synced {txid}\n".encode())


def forget(db, this_round):
    """Keeps the database small: the rows of the last two rounds stay."""
    db.execute("BEGIN IMMEDIATE")
    gone = db.execute("DELETE FROM row WHERE round < ?", (this_round - 1,)).rowcount
    db.execute("UPDATE total SET rows = rows - ?", (gone,))
    db.execute("COMMIT")


def write(thread, database, log, this_round, seed):
    rng = random.Random(seed)
    pragmas = {"wal_autocheckpoint": rng.choice([5, 100, 1000]), "cache_size": rng.choice([5, 2000]),
               "synchronous": rng.choice(["OFF", "NORMAL", "FULL"])}
    db = lib.connect(database, **pragmas)
    for number in range(rng.randint(5, 400)):
        kind = rng.random()
        if kind < 0.02:
            db.execute(f"PRAGMA wal_checkpoint({rng.choice(['PASSIVE', 'RESTART', 'TRUNCATE'])})").fetchall()
        elif kind < 0.03:
            db.execute("VACUUM")
        elif kind < 0.06:  # leaves the process's last connection to `first`, and comes back
            db.close()
            db = lib.connect(database, **pragmas)
        parts = rng.choice([1, 1, 1, 5, 100])
        os.write(log, f"attempt {thread} {number} {parts}\n".encode())
        db.execute("BEGIN IMMEDIATE")
        for part in range(parts):
            db.execute("INSERT INTO row VALUES (?, ?, ?, ?, randomblob(?))",
                       (this_round, thread, number, part, rng.choice([10, 100, 3000])))
        db.execute("UPDATE total SET rows = rows + ?", (parts,))
        if rng.random() < 0.05:  # spilled, then taken back
            db.execute("ROLLBACK")
            os.write(log, f"rollback {thread} {number}\n".encode())
            continue
        db.execute("COMMIT")
        os.write(log, f"commit {thread} {number}\n".encode())
    db.close()


main(*sys.argv[1:4], *map(int, sys.argv[4:]))
