"""Disks that fill up, and calls that fail: the n-th call on the database's files, on the metadata directory or on the
replica's directory fails, once or until it is mended, with ENOSPC (a write does its half first) or EIO; and each of the
three on a disk of its own that is really full.

Commits have their own results: only what fails on the database's own files fails a commit. What hinders shipping shows
in litestream_status. Afterwards everything that was committed arrives, in order, and nothing else.
"""
import contextlib
import errno
import os
import random
import sqlite3
import subprocess

import interposed
import lib
import steps
import workload

LAST = 20
PLACES = {"database": "app.db", "spool": ".app.db-litestream", "replica": "replica"}
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
STATUS = "SELECT state, coalesce(last_error, '') FROM litestream_status"


class FailingCalls:
    """The n-th call and, `until_mended`, all later ones fail."""

    def __init__(self, directory, place, error, at, until_mended):
        self.directory, self.place, self.error, self.at, self.until_mended = directory, place, error, at, until_mended

    def begin(self):
        interposed.arm(interposed.FAIL, self.directory, at=self.at, half=self.error == "ENOSPC",
                       error=ERRORS[self.error], failures=-1 if self.until_mended else 1, match=PLACES[self.place])

    def hinders_shipping(self):
        return self.until_mended and 0 < self.at <= interposed.counted() and self.place != "database"

    def mend(self):
        """How many calls there were."""
        count = interposed.counted()
        interposed.disarm()
        return count


class FullDisk:
    """A disk that a file fills."""
    error, until_mended = "ENOSPC", True

    def __init__(self, mounted, place):
        self.filler, self.place = mounted / "filler", place

    def begin(self):
        with open(self.filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1024)):
                pass

    def hinders_shipping(self):
        return self.place != "database"

    def mend(self):
        self.filler.unlink()
        return 0


def run(directory, said, fault):
    """The workload, in a child."""
    failed = []

    def say(text):
        os.write(said, f"{text}\n".encode())

    def commit(db, number):
        try:
            workload.commit(db, number)
            say(f"committed {number}")
        except sqlite3.Error as error:
            say(f"failed {number}: {error}")
            failed.append(number)
            if db.in_transaction:
                db.execute("ROLLBACK")

    def attempt(db, sql):
        with contextlib.suppress(sqlite3.Error):
            db.execute(sql).fetchall()

    lib.connect(":memory:", load=True).close()
    db = lib.connect(directory / "app.db", synchronous="FULL", cache_size=5)
    db.execute("SELECT litestream_replicate(NULL, ?, ?)",
               (f"file://{directory}/replica", '{"sync_interval":"5ms","close_timeout":"100ms"}'))
    db.execute("SELECT litestream_sync()")
    fault.begin()
    for number in range(steps.PREPARED + 1, LAST - 2):
        commit(db, number)
        if number % 3 == 0:
            attempt(db, "SELECT litestream_sync(0.2)")
        if number % 5 == 0:
            attempt(db, f"PRAGMA wal_checkpoint({'TRUNCATE' if number % 2 else 'RESTART'})")
        if number == 11 and not (fault.place == "database" and fault.until_mended):
            db.close()
            db = lib.connect(directory / "app.db")
            attempt(db, "PRAGMA synchronous = FULL")
            attempt(db, "SELECT number FROM state")  # may be what fails
            # A commit whose sync failed left its frames in the WAL: SQLite recovers it when it is opened again.
            if lib.scalar(db, "SELECT number FROM state") in failed:
                say(f"committed {number}")
    hindered = fault.hinders_shipping()
    commit(db, LAST - 2)
    if hindered:
        lib.error_of(db, "SELECT litestream_sync(0.5)")
        state, message = db.execute(STATUS).fetchone()
        wanted = [PLACES[fault.place], "make room" if fault.error == "ENOSPC" else "Input/output error"]
        lib.check(state == "retrying" and all(word in message for word in wanted), "the status is", state, message)
    count = fault.mend()
    for number in (LAST - 1, LAST):
        commit(db, number)
        db.execute("SELECT litestream_sync(60)")
    lib.check(db.execute(STATUS).fetchone()[0] == "running", "afterwards:", db.execute(STATUS).fetchone())
    db.close()
    return count


def judge(directory, scratch, place, lines):
    """What the workload said it committed, in this order, is the history."""
    history = workload.History({})
    for number in [*range(steps.PREPARED + 1), *(int(line.split()[1]) for line in lines if line.startswith("committed"))]:
        history.commit(number)
    failed = [line for line in lines if line.startswith("failed")]
    lib.check(place == "database" or not failed, "commits failed:", failed)
    lib.check(lines[-2:] == [f"committed {LAST - 1}", f"committed {LAST}"], "with room again:", lines[-2:])
    _, number = workload.reopen_and_judge(directory / "app.db", lib.FileReplica(directory / "replica"), history, scratch)
    lib.check(number == LAST, f"{LAST} was committed, {number} recovered")


def trial(directory, scratch, fault):
    """One run; what `mend` gave."""
    path = scratch / "said"
    said = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    count = interposed.child(run, directory, said, fault)
    os.close(said)
    judge(directory, scratch, fault.place, path.read_text().splitlines())
    return int(count)


def with_failing_calls(place, error, at, until_mended):
    with lib.directory() as scratch:
        directory = scratch / "app"
        directory.mkdir()
        interposed.child(steps.prepare, directory, 4096)
        return trial(directory, scratch, FailingCalls(directory, place, error, at, until_mended))


def main(place, error, trials, seed):
    """`trials` calls of one place fail, each in a run of its own; 0: every call."""
    count = with_failing_calls(place, error, 0, False)
    chosen = [(at, until_mended) for at in range(1, count + 1) for until_mended in (False, True)]
    if trials:
        chosen = random.Random(seed).sample(chosen, min(trials, len(chosen)))
    failures = []
    for at, until_mended in sorted(chosen):
        try:
            with_failing_calls(place, error, at, until_mended)
        except AssertionError as failure:
            failures.append(f"{error} {'from' if until_mended else 'at'} call {at} of {count}: {failure}")
            print(failures[-1], flush=True)
    print(f"{len(chosen)} of {2 * count}")
    lib.check(not failures, f"{len(failures)} of {len(chosen)} failures were not survived")


def can_mount():
    """Whether a small file system can be had: root can mount one."""
    with lib.directory() as scratch:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", scratch], stderr=subprocess.DEVNULL)
        if done.returncode == 0:
            subprocess.run(["umount", scratch], check=True)
        return done.returncode == 0


def full_disk(place):
    """The place is a disk of its own, of 2 MiB, that is full; for the database, all is on that disk."""
    with lib.directory() as scratch:
        directory = scratch / "app"
        directory.mkdir()
        mounted = directory if place == "database" else directory / PLACES[place]
        mounted.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", mounted], check=True)
        try:
            interposed.child(steps.prepare, directory, 4096)
            trial(directory, scratch, FullDisk(mounted, place))
        finally:
            subprocess.run(["umount", mounted], check=True)
