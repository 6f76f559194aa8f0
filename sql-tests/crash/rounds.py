"""The rounds on one database: write, kill, look at the replica, reopen, compare."""
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import time

import lib

HERE = pathlib.Path(__file__).resolve().parent


def run(seed, count):
    rng = random.Random(seed)
    page_size = rng.choice([512, 4096, 65536])
    print(f"seed {seed}: page_size={page_size}")
    with lib.directory() as scratch:
        replica, seen, before = lib.FileReplica(scratch / "replica"), {}, {}
        for number in range(count):
            journal = Journal(scratch / f"journal-{number}")
            killed = write_and_kill(rng, scratch, replica, journal.path, number, page_size)
            journal.read()
            print(f"round {number}: {len(journal.attempted)} attempted, {len(journal.committed)} acknowledged,",
                  "killed" if killed else "ended by itself", flush=True)
            look_at_replica(scratch, replica, seen, number, journal, before)
            before = reopen_and_compare(scratch, replica, seen, number, journal, before)


class Journal:
    """What the writer said: {(thread, number): rows} of what it tried, and the subset that was acknowledged."""

    def __init__(self, path):
        self.path, self.attempted, self.committed, self.rolled_back, self.synced = path, {}, set(), set(), []

    def read(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        committed_at_sync = set()
        for kind, *words in map(str.split, lines):
            if kind == "sync":
                committed_at_sync = set(self.committed)
                continue
            if kind == "synced":
                self.synced.append((words[0], committed_at_sync))
                continue
            thread, number, *parts = map(int, words)
            if kind == "attempt":
                self.attempted[thread, number] = parts[0]
            elif kind == "commit":
                self.committed.add((thread, number))
            else:
                self.rolled_back.add((thread, number))


def write_and_kill(rng, scratch, replica, journal, number, page_size):
    command = [sys.executable, HERE / "writer.py", scratch / "app.db", replica.url, journal, number,
               rng.randrange(10**6), page_size]
    writer = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    if rng.random() < 0.15:  # while it starts, reopens and makes its image
        time.sleep(rng.random() * 0.4)
    else:  # somewhere in its load
        while writer.poll() is None and not journal.exists():
            time.sleep(0.01)
        time.sleep(rng.random() ** 2)
    killed = writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    output = writer.communicate()[0].decode()
    lib.check(killed or writer.returncode == 0, "the writer failed:", output)
    return killed


def look_at_replica(scratch, replica, seen, number, journal, before):
    """Before anybody opens the database again: the replica holds a state that it had, and nothing was overwritten."""
    objects = replica.objects()
    lib.assert_not_overwritten(seen, objects)
    txids = lib.chain(objects)
    if not txids:
        return
    found = restored(scratch, replica, txids[-1])
    judge(found, number, journal, before, acknowledged=set())


def reopen_and_compare(scratch, replica, seen, number, journal, before):
    """A clean process takes the database over; all that was acknowledged must arrive. The rows of this round."""
    reopened = subprocess.run(
        [sys.executable, HERE / "reopen.py", scratch / "app.db", replica.url], stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    lib.check(reopened.returncode == 0, "reopening failed:", reopened.stdout)
    objects = replica.objects()
    lib.assert_not_overwritten(seen, objects)
    txids = lib.chain(objects)
    lib.check(reopened.stdout.split()[-1] == f"{txids[-1]:016x}", "synced to", reopened.stdout, "but the chain ends at", txids[-1])

    found = restored(scratch, replica)
    judge(found, number, journal, before, journal.committed)
    subprocess.run(["sqlite3", scratch / "app.db", "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, stdout=subprocess.DEVNULL)
    lib.assert_same_database((scratch / "app.db").read_bytes(), (scratch / "restored.db").read_bytes(), "after reopening")
    for txid, committed in journal.synced:
        judge(restored(scratch, replica, int(txid, 16)), number, journal, before, committed)
    return {key: rows for key, rows in found.items() if key[0] == number}


def restored(scratch, replica, txid=None):
    """{(round, thread, number): rows} of a restored file, which must be intact and whole in itself."""
    path = scratch / "restored.db"
    path.unlink(missing_ok=True)
    client = lib.connect(":memory:", load=True)
    when = "latest" if txid is None else f"{txid:016x}"
    client.execute("SELECT litestream_restore(?, ?, ?)", (replica.url, str(path), when))
    client.close()
    lib.assert_intact(path)
    db = sqlite3.connect(path)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    found = {}
    if {"row", "total"} <= tables:
        found = {(r, t, n): c for r, t, n, c in db.execute("SELECT round, thread, number, count(*) FROM row GROUP BY 1, 2, 3")}
        total = db.execute("SELECT rows FROM total").fetchone()
        lib.check(sum(found.values()) == (total[0] if total else 0), f"a torn transaction: {total} rows counted,",
                  sum(found.values()), "found")
    db.close()
    return found


def judge(found, number, journal, before, acknowledged):
    """`found` must hold what was acknowledged of this round, and nothing that was not attempted; and of each thread the
    first transactions, without a hole."""
    this_round = {(t, n): rows for (r, t, n), rows in found.items() if r == number}
    missing = sorted(acknowledged - set(this_round))
    lib.check(not missing, f"{len(missing)} acknowledged transactions are missing:", missing[:5])
    for key, rows in this_round.items():
        lib.check(journal.attempted.get(key) == rows, f"{key} has {rows} rows,", journal.attempted.get(key), "were attempted")
        lib.check(key not in journal.rolled_back, f"{key} was rolled back")
    for thread in {t for t, _ in this_round}:
        last = max(n for t, n in this_round if t == thread)
        expected = {n for t, n in journal.committed if t == thread and n <= last}
        hole = expected - {n for t, n in this_round if t == thread}
        lib.check(not hole, f"thread {thread}: {last} is there, but not {sorted(hole)[:5]}")
    if this_round:  # then all that the round before left is there too
        last_round = {key: rows for key, rows in found.items() if key[0] == number - 1}
        lib.check(last_round == before, f"round {number - 1} changed afterwards")
