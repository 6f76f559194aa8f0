"""Readers beside a primary that changes 400 pages a second, vacuums, and is compacted: whole states only, in order."""
import contextlib
import pathlib
import random
import subprocess
import sys
import threading
import time

import lib
import opened

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "peers")]
import interop  # noqa: E402
import bank  # noqa: E402
import compaction  # noqa: E402

# For a slow machine.
PATIENCE_SECONDS = 60
STATE = """SELECT (SELECT n FROM ledger), (SELECT sum(amount) FROM account NOT INDEXED), (SELECT count(*) FROM account),
    (SELECT max(last) FROM account), (SELECT sum(amount) FROM account INDEXED BY account_amount WHERE amount > -1000000000),
    (SELECT fillers FROM ledger), (SELECT count(*) FROM filler WHERE length(data) > 9)"""


class Reader(threading.Thread):
    """Reads until it is told to stop. What it read is one state after the other, or it has failed."""

    def __init__(self, url, kind, seed):
        super().__init__(daemon=True)
        self.url, self.kind, self.rng = url, kind, random.Random(seed)
        self.states, self.gone, self.checked, self.failure = set(), 0, 0, None
        self.stopped = threading.Event()
        self.last, self.txid, self.db = 0, "", None
        self.connect()

    def connect(self, **more):
        if self.db:
            self.db.close()
        self.db = lib.open_replica(self.url, self.kind, poll_interval="50ms", **more)
        self.db.execute(f"PRAGMA cache_size = {self.rng.choice([5, 2000])}")

    def run(self):
        try:
            while not self.stopped.is_set():
                getattr(self, self.kind)()
        except BaseException as error:
            self.failure = error
        finally:
            self.db.close()

    def finish(self):
        self.stopped.set()
        self.join(PATIENCE_SECONDS)
        lib.check(not self.is_alive(), self.kind, "does not end")
        if self.failure:
            raise self.failure

    # What it does, by its kind

    def short(self):
        self.read(pause=0)
        self.stopped.wait(self.rng.choice([0, 0.01, 0.1]))

    def long(self):
        self.read(pause=self.rng.uniform(0.2, 3))

    def anew(self):
        self.connect()
        self.read(pause=0)
        self.stopped.wait(0.2)

    def past(self):
        """Moves to where it was before, and back."""
        now = self.read(pause=0)
        self.stopped.wait(self.rng.uniform(0.3, 1))
        if now:
            with contextlib.suppress(lib.sqlite3.OperationalError):  # it may be gone, which is told
                self.db.execute("SELECT litestream_set_time(?)", (now[0],)).fetchall()
                before, self.last, self.txid = (self.last, self.txid), 0, ""
                again = self.read(pause=0)
                lib.check(again in (None, now), f"moved back to {now}, and found {again}")
                self.last, self.txid = before
            self.db.execute("SELECT litestream_set_time('latest')").fetchall()

    # One transaction

    def read(self, pause):
        """(TXID, n) of a whole state, or None if it is gone."""
        self.db.execute("BEGIN")
        try:
            first = self.state()
            if first and pause:
                self.stopped.wait(pause)
                again = self.state()
                lib.check(again in (None, first), f"{self.kind}: {first} became {again} within a transaction")
            if first and self.rng.random() < 0.1:
                self.integrity()
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        if first:
            (txid, n) = first
            lib.check(n >= self.last and txid >= self.txid, f"{self.kind}: {self.txid}, {self.last} went back to {first}")
            self.last, self.txid = n, txid
            self.states.add(n)
        return first

    def state(self):
        found, reason = opened.attempt(self.db, STATE)
        if found is None:
            return self.is_gone(reason)
        n, total, count, newest, by_index, fillers, filled = found[0]
        lib.check(total == by_index == bank.TOTAL and count == bank.ACCOUNTS and newest == n and fillers == filled,
                  f"{self.kind}: no state that there was:", found[0])
        return lib.scalar(self.db, "SELECT litestream_txid()"), n

    def integrity(self):
        found, reason = opened.attempt(self.db, "PRAGMA integrity_check")
        if found is None or "unable to get" in str(found) or "failed to get" in str(found):
            return self.is_gone(reason or "; ".join(opened.last_error()))
        self.checked += 1
        return lib.check(found == [("ok",)], f"{self.kind}:", found)

    def is_gone(self, reason):
        """Files of a state that is not the newest any more may be compacted away."""
        lib.check("cannot be read any more" in reason, f"{self.kind}:", reason)
        self.gone += 1


KINDS = ["short", "short", "long", "anew", "past"]


@contextlib.contextmanager
def readers(url):
    started = [Reader(url, kind, number) for number, kind in enumerate(KINDS)]
    for reader in started:
        reader.start()
    try:
        yield started
    finally:
        for reader in started:
            reader.stopped.set()
    for reader in started:
        reader.finish()


def wait_for_the_end(followers, last):
    """The followers arrive at what was committed last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(reader.last < last and not reader.failure for reader in followers):
        lib.check(time.monotonic() < deadline, "a reader stays at", [reader.last for reader in followers], "of", last)
        time.sleep(0.1)


def judge(started, last, seconds):
    found = [(reader.kind, len(reader.states), reader.gone, reader.checked) for reader in started]
    print("states, gone, integrity_checks:", found, "of", last)
    for kind, states, gone, _ in found:
        lib.check(states >= 3 and gone <= states * 2, f"{kind} saw {states} states, and {gone} times none")


def spawn(*arguments):
    command = [sys.executable, pathlib.Path(__file__).with_name("bank.py"), *arguments]
    return subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def last_of(process):
    """What it committed last; it must end well."""
    out = process.communicate(timeout=600)[0].split()
    lib.check(process.returncode == 0 and out, "the writer: exit", process.returncode, out)
    return int(out[-1])


def following_ours(scratch, store, seconds):
    """Our primary, and beside it what compacts its files into levels, makes snapshots, and deletes what is in them."""
    replica = opened.place(scratch, store)
    opened.loaded()
    path = scratch / "app.db"
    bank.create(path, replica.url)
    process = spawn(path, replica.url, seconds, 1)
    with compaction.Compactor(replica) as compactor, readers(replica.url) as started:
        last = last_of(process)
        wait_for_the_end(started[:2], last)
    lib.check(compactor.made > 2 and compactor.deleted > 2, "made, deleted:", compactor.made, compactor.deleted)
    judge(started, last, seconds)


def following_litestreams(scratch, store, seconds):
    """Litestream's primary with short levels, its compaction and its retention."""
    replica = opened.place(scratch, store)
    opened.loaded()
    path = scratch / "app.db"
    bank.create(path, None)
    with interop.litestream_running(scratch, path, replica):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not replica.objects():
            lib.check(time.monotonic() < deadline, "Litestream ships nothing")
            time.sleep(0.2)
        process = spawn(path, "-", seconds, 1)
        with readers(replica.url) as started:
            last = last_of(process)
            wait_for_the_end(started[:2], last)
    levels = {level for level, _, _ in replica.objects()}
    lib.check({1, 2, 9} <= levels, "Litestream made the levels", levels, "only")
    judge(started, last, seconds)


def following_turns(scratch, store, seconds):
    """Our primary and Litestream by turns on one database and one replica, under the same readers."""
    replica = opened.place(scratch, store)
    opened.loaded()
    path = scratch / "app.db"
    bank.create(path, replica.url)
    each = max(int(seconds) // 4, 3)
    with interop.kept_open(path), readers(replica.url) as started:
        for turn in range(4):
            if turn % 2 == 0:
                last = last_of(spawn(path, replica.url, each, turn))
            else:
                with interop.litestream_running(scratch, path, replica):
                    last = last_of(spawn(path, "-", each, turn))
                    time.sleep(2)
            wait_for_the_end(started[:2], last)
    judge(started, last, seconds)


CASES = {f.__name__: f for f in (following_ours, following_litestreams, following_turns)}


def wanted(full, seconds):
    stores = ["file", "seaweed"]
    return [(name, store, seconds) for store in stores for name in CASES if full or (name, store) != ("following_turns", "file")]
