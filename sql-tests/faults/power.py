"""Power loss: a workload runs under the interposer's journal; then, for random moments of it, the disk is made as a
power cut might leave it (`machine.Machine`), and what is there is opened again and judged.

The replica is on another machine, unless told otherwise: it has exactly what was completed before the cut. So a replica
that was ahead of the disk (P8) is found.
"""
import json
import os
import pathlib
import random
import shutil
import threading
import time

import interposed
import lib
import machine
import workload

GENERATIONS = 2  # the second begins where a cut of the first left the disk
WRITERS = 2


def fillers(last, seed):
    """Every so often a transaction that a batch does not keep in memory."""
    return {number: random.Random(number).choice([60_000, 300_000, 5 << 20]) for number in range(60 + seed % 40, last, 97)}


LAST = 5000


def write(directory, rng, large, output):
    """The workload, in a child: several connections, checkpoints, restarts of the WAL, closes, a stop, a heal."""
    lib.connect(":memory:", load=True).close()
    interposed.arm(interposed.JOURNAL, directory, output=output, sync_us=rng.choice([0, 200, 2000]))
    pragmas = {"synchronous": rng.choice(["NORMAL", "FULL"]), "wal_autocheckpoint": rng.choice([8, 50, 1000]),
               "cache_size": rng.choice([5, 2000])}
    url, options = f"file://{directory}/replica", '{"sync_interval":"%dms"}' % rng.choice([5, 50, 400])
    ends = time.monotonic() + rng.uniform(0.3, 1.2)

    def writer(seed):
        rng = random.Random(seed)
        db = lib.connect(directory / "app.db", **pragmas)
        while time.monotonic() < ends:
            db.execute("BEGIN IMMEDIATE")
            number = db.execute("SELECT number FROM state").fetchone()[0] + 1
            workload.transaction(db, number, large.get(number, 0))
            db.execute("ROLLBACK" if rng.random() < 0.05 else "COMMIT")
            kind = rng.random()
            if kind < 0.05:
                db.execute(f"PRAGMA wal_checkpoint({rng.choice(['PASSIVE', 'RESTART', 'TRUNCATE'])})").fetchall()
            elif kind < 0.06:
                db.execute("VACUUM")
            elif kind < 0.1:
                db.close()
                time.sleep(rng.random() * 0.02)
                db = lib.connect(directory / "app.db", **pragmas)
            elif kind < 0.2:
                time.sleep(rng.random() * 0.02)
        db.close()

    first = lib.connect(directory / "app.db", **pragmas)
    first.execute("SELECT litestream_replicate(NULL, ?, ?)", (url, options))
    threads = [threading.Thread(target=writer, args=[rng.random()]) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    if rng.random() < 0.5:
        first.close()  # then closes of the writers may be last ones
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)
        if rng.random() < 0.2:
            try:
                first.execute("SELECT litestream_sync()").fetchall()
            except lib.sqlite3.ProgrammingError:
                pass  # closed
    for thread in threads:
        thread.join()
    interposed.disarm()
    os._exit(0)  # without a clean end; what a clean one does is in the journal too, by the closes


def moments(steps, count, rng):
    """Where to cut: anywhere, and where something has just become visible or been destroyed."""
    telling = [n for n, (step, _, path, to, offset, *_) in enumerate(steps)
               if step in (machine.RENAME, machine.LINK, machine.UNLINK) or
               (path.endswith("-wal") and (step == machine.TRUNCATE or (step == machine.WRITE and offset == 0)))]
    found = {rng.randrange(1, len(steps)) for _ in range(count - count // 2)}
    found |= {min(len(steps), rng.choice(telling) + rng.randint(1, 4)) for _ in range(count // 2)}
    return sorted(found)


def main(seed, cuts):
    """`cuts` moments of one run of the workload in each generation."""
    rng = random.Random(seed)
    page_size = rng.choice([512, 1024, 4096, 4096, 16384, 65536])
    with_us = rng.random() < 0.25  # the replica is on the machine that loses power
    large = fillers(LAST, seed)
    history = workload.History(large)
    print(f"seed {seed}: page size {page_size}, the replica is {'on the same machine' if with_us else 'elsewhere'}")
    failures, had_more = [], 0
    with lib.directory() as scratch:
        directory, kept = scratch / "app", scratch / "kept"
        directory.mkdir()
        interposed.child(prepare, directory, page_size)
        for generation in range(GENERATIONS):
            steps, start = journaled(scratch, directory, seed, generation, large)
            history.extend(newest(directory))
            chosen = moments(steps, cuts, rng)
            for cut in chosen:
                shutil.rmtree(directory, ignore_errors=True)
                found = start()
                found.run(steps[:cut])
                found.write(directory, rng, whole=() if with_us else {"replica"})
                keep_identity(directory)
                name = f"generation {generation}, cut {cut} of {len(steps)}"
                try:
                    had, number = judge(scratch, directory, history, with_us)
                    print(f"{name}: the replica had {had}, recovered {number}", flush=True)
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(directory, kept)
                except AssertionError as error:
                    failures.append(f"{name}: {str(error).strip().splitlines()[-1]}")
                    print("FAILED", failures[-1], flush=True)
            if not kept.exists():
                break
            shutil.rmtree(directory, ignore_errors=True)
            kept.rename(directory)
    lib.check(not failures, f"{len(failures)} cuts failed")


def keep_identity(directory):
    """A power cut leaves the database its inode. The copy here has another one, and the records are told so: else a
    VACUUM that was not shipped would make it another database at the same path (P12)."""
    database = directory / "app.db"
    for record in directory.glob(".app.db-litestream/record*"):
        try:
            fields = json.loads(record.read_bytes())
        except ValueError:
            continue  # torn
        if database.exists() and fields.get("file"):
            stat = database.stat()
            record.write_text(json.dumps(fields | {"file": [stat.st_dev, stat.st_ino]}))


def judge(scratch, directory, history, with_us):
    replica = lib.FileReplica(directory / "replica")
    return workload.reopen_and_judge(directory / "app.db", replica, history, scratch, all_txids=False)


def prepare(directory, page_size):
    db = lib.connect(directory / "app.db", page_size=page_size)
    for number in range(3):
        workload.commit(db, number)
    db.close()


def journaled(scratch, directory, seed, generation, large):
    """Runs the workload; its steps, and a function that gives the machine as it was before."""
    before = scratch / f"before-{generation}"
    shutil.copytree(directory, before)
    inodes = {path: os.stat(path).st_ino for path in all_files(directory)}

    def start():
        return machine.Machine(directory, before, inodes)

    journal = scratch / "journal"
    journal.unlink(missing_ok=True)
    output = os.open(journal, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    interposed.child(write, directory, random.Random(f"{seed} {generation}"), large, output)
    os.close(output)
    steps = machine.read_journal(journal)
    # The journal is whole: what it says was written is what is there.
    replayed = start()
    replayed.run(steps)
    expected = {path: pathlib.Path(path).read_bytes() for path in all_files(directory) if not path.endswith("-shm")}
    found = replayed.lost_nothing()
    lib.check(found.keys() == expected.keys(), "not in the journal:", sorted(found.keys() ^ expected.keys()))
    lib.check(found == expected, "the journal differs:", [path for path in found if found[path] != expected[path]])
    return steps, start


def all_files(directory):
    return [os.path.join(path, name) for path, _, names in os.walk(directory) for name in names]


def newest(directory):
    db = lib.sqlite3.connect(directory / "app.db")
    number = db.execute("SELECT number FROM state").fetchone()[0]
    db.close()
    return number
