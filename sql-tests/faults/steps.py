"""Stops at every step: one fixed workload, run once to count the calls that change a file (the database's, the
metadata directory's, the replica's), then once for each of them, killed there. What is there then is opened again and
judged (`workload.reopen_and_judge`)."""
import os
import pathlib
import random
import shutil

import interposed
import lib
import workload

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
PREPARED = 2  # transactions that are there before anything is replicated
LAST = 16
SPILLED = 10  # the transaction that is larger than what capture keeps in memory, where pages are large
ROW = 8  # like writes in a row, beyond which the middle ones are left out
OPTIONS = '{"sync_interval":"1h"}'  # nothing is shipped but where the workload waits for it


def fillers(page_size):
    """{number: bytes}: 3 MiB are kept in memory. With small pages that would be thousands of steps of SQLite's own."""
    return {SPILLED: 5 << 20} if page_size >= 32768 else {}


def prepare(directory, page_size):
    db = lib.connect(directory / "app.db", page_size=page_size, synchronous="OFF")
    for number in range(PREPARED + 1):
        workload.commit(db, number)
    db.close()


def run(directory, page_size, said, at, half, output):
    """The workload, killed at step `at`. Writes to `said` what was acknowledged."""
    def commit(db, number):
        workload.commit(db, number, fillers(page_size).get(number, 0))
        os.write(said, f"committed {number}\n".encode())

    def sync(db, number):
        txid = lib.scalar(db, "SELECT litestream_sync()")
        os.write(said, f"synced {number} {txid}\n".encode())

    def replicate(db):
        db.execute("SELECT litestream_replicate(NULL, ?, ?)", (f"file://{directory}/replica", OPTIONS))

    lib.connect(":memory:", load=True).close()
    interposed.arm(interposed.KILL, directory, at=at, half=half, output=output)
    db = lib.connect(directory / "app.db", cache_size=5)
    replicate(db)
    sync(db, PREPARED)  # the first image
    commit(db, 3)
    commit(db, 4)
    sync(db, 4)
    commit(db, 5)
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    commit(db, 6)  # restarts the WAL
    commit(db, 7)
    sync(db, 7)
    commit(db, 8)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute("BEGIN")
    workload.transaction(db, 99)  # spills its cache, and is taken back
    db.execute("ROLLBACK")
    commit(db, 9)
    commit(db, SPILLED)
    commit(db, 11)
    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    other = lib.connect(directory / "app.db")
    commit(other, 12)
    other.close()
    db.execute("VACUUM")
    sync(db, 12)
    commit(db, 13)
    db.close()  # the last close
    db = lib.connect(directory / "app.db")
    commit(db, 14)
    db.execute("SELECT litestream_stop()")
    commit(db, 15)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    replicate(db)  # heals
    commit(db, LAST)
    sync(db, LAST)
    db.close()
    interposed.disarm()


def trial(prepared, page_size, history, at, half):
    """One run that is killed, and what it left. The steps that it made, each as a line."""
    with lib.directory() as scratch:
        directory = scratch / "app"
        shutil.copytree(prepared, directory)
        said = os.open(scratch / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        steps = os.open(scratch / "steps", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        ended = interposed.child(run, directory, page_size, said, at, half, steps)
        os.close(said)
        os.close(steps)
        lines = (scratch / "steps").read_text().splitlines()
        lib.check(at == 0 or ended is None or len(lines) < at, "it was not killed at step", at)
        committed, synced = PREPARED, {}
        for kind, number, *txid in map(str.split, (scratch / "said").read_text().splitlines()):
            if kind == "committed":
                committed = int(number)
            else:
                synced[int(txid[0], 16)] = int(number)
        replica = lib.FileReplica(directory / "replica")
        _, number = workload.reopen_and_judge(directory / "app.db", replica, history, scratch)
        lib.check(committed <= number, f"transaction {committed} was acknowledged, {number} recovered")
        found = workload.restored_numbers(history, replica.url, scratch / "states", synced)
        lib.check(found == synced, "what sync promised:", synced, "what is there:", found)
        return lines


def kind_of(line):
    """A step without what differs between runs: `write .app.db-litestream/ltx/0/*`."""
    verb, path = line.split(" ", 1)
    path = pathlib.PurePath(path)
    name = path.name
    if name.endswith(".tmp"):
        name = "*.tmp"
    elif name.endswith((".ltx", ".meta")):
        name = "*" + path.suffix
    return f"{verb} {path.parent / name}"


def thinned(lines):
    """The numbers of the steps, without the middle of long rows of like writes: the pages of one commit, checkpoint or
    spill."""
    kept, row = [], []
    for number, kind in enumerate([*map(kind_of, lines), None], 1):
        if row and (kind != kind_of(lines[row[0] - 1]) or not kind.startswith("write")):
            kept += row if len(row) <= ROW else [*row[:3], row[len(row) // 3], row[len(row) * 2 // 3], *row[-3:]]
            row = []
        row.append(number)
    return kept


def chosen(lines, share, rng):
    """Which (step, half) to stop at: all, or a share of them, and five times as many of the first and last of each kind."""
    halves = [(n, half) for n in thinned(lines)
              for half in ([False, True] if lines[n - 1].startswith("write") else [False])]
    if share >= 1:
        return halves
    kinds = {}
    for n, line in enumerate(lines, 1):
        kinds.setdefault(kind_of(line), []).append(n)
    edges = {n for numbers in kinds.values() for n in (numbers[0], numbers[-1])}
    edge_list = [(n, half) for n, half in halves if n in edges]
    return sorted({*rng.sample(edge_list, max(1, round(len(edge_list) * min(1, share * 5)))),
                   *rng.sample(halves, max(1, round(len(halves) * share)))})


def main(page_size, share, seed, part, parts):
    """Every `parts`-th of the trials of one page size. Prints what it covered; raises at the end what went wrong."""
    history = workload.History(fillers(page_size))
    history.extend(LAST)
    with lib.directory() as scratch:
        prepared = scratch / "prepared"
        prepared.mkdir()
        interposed.child(prepare, prepared, page_size)
        lines = trial(prepared, page_size, history, 0, False)
        trials = chosen(lines, share, random.Random(seed))[part::parts]
        failures, covered = [], set()
        for at, half in trials:
            try:
                made = trial(prepared, page_size, history, at, half)
                covered.add(kind_of(made[-1]))
            except AssertionError as error:
                failures.append(f"page size {page_size}, {'half of ' if half else ''}step {at} ({lines[at - 1] if at <= len(lines) else '?'}): {error}")
                print(failures[-1], flush=True)
    kinds = {kind_of(line) for line in lines}
    print(f"{len(lines)} steps of {len(kinds)} kinds; stopped {len(trials)} times, at {len(covered & kinds)} of the kinds")
    lib.check(not failures, f"{len(failures)} of {len(trials)} stops")
