"""A prefix that is wiped and begun again, or overwritten with another database, under open readers and a warm cache on
disk: an old connection shows its own history, whole, or an error that says what happened; a new one shows the new one.

Both databases have the same tables, row numbers and page numbers, so that a page of the wrong one fits everywhere.
"""
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import time

import compaction
import lib
import opened

ROWS = 400
COMMITS = 4
LOOK_SECONDS = 2
PATIENCE_SECONDS = 60


# Writers

def write_ours(path, replica, tag, commits):
    db = opened.primary(path, replica)
    opened.fill(db, tag, ROWS)
    lib.scalar(db, "SELECT litestream_sync(60)")
    for number in range(1, commits + 1):
        opened.renumber(db, number)
        lib.scalar(db, "SELECT litestream_sync(60)")
    lib.scalar(db, "SELECT litestream_stop()")
    db.close()


def write_litestreams(path, replica, tag, commits):
    db = sqlite3.connect(f"file:{path}?vfs=unix", uri=True, isolation_level=None, timeout=60)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    opened.fill(db, tag, ROWS)
    for number in range(commits + 1):
        if number:
            opened.renumber(db, number)
        lib.litestream("replicate", "-once", path, replica.url, environment=replica.environment())
    db.close()


WRITERS = {"ours": write_ours, "litestreams": write_litestreams}


def wipe(replica):
    if replica.kind == "file":
        return [shutil.rmtree(path) for path in replica.path.iterdir() if path.is_dir()]
    return [replica.server.request("-X", "DELETE", path=f"/{replica.server.bucket}/{key}")
            for key in replica.server.list(replica.prefix + "/")]


# What happens to the prefix: each gives the state that a new connection shows, or None if there is none.

def begun_again_longer(scratch, replica, write):
    wipe(replica)
    write(scratch / "b.db", replica, "B", 2 * COMMITS)
    return ["B", 2 * COMMITS]


def begun_again_shorter(scratch, replica, write):
    wipe(replica)
    write(scratch / "b.db", replica, "B", COMMITS // 2)
    return ["B", COMMITS // 2]


def begun_again_as_long(scratch, replica, write):
    wipe(replica)
    write(scratch / "b.db", replica, "B", COMMITS)
    return ["B", COMMITS]


def wiped(scratch, replica, write):
    wipe(replica)


def overwritten(scratch, replica, write):
    """By the files of another replica, in order, while there are still those of the first one."""
    other = opened.place(scratch, "file", "other") if replica.kind == "file" else lib.S3Replica(replica.server, replica.prefix + "-other")
    write(scratch / "b.db", other, "B", COMMITS + 2)
    for key in sorted(compaction.names(other)):
        compaction.write(replica, key, compaction.read(other, key))
    return ["B", COMMITS + 2]


HAPPENINGS = {f.__name__: f for f in (begun_again_longer, begun_again_shorter, begun_again_as_long, wiped, overwritten)}


def restarted(scratch, happening, writer, store):
    replica = opened.place(scratch, store)
    opened.loaded()
    WRITERS[writer](scratch / "a.db", replica, "A", COMMITS)
    cache = [] if store == "file" else [scratch / "cache"]
    readers = {"warm": read("warm", replica.url, *cache)}  # fills the cache on disk, which the next ones share
    readers |= {kind: read(kind, replica.url, *cache if kind == "disk" else []) for kind in ("half", "disk", "held", "past")}
    expected = HAPPENINGS[happening](scratch, replica, WRITERS[writer])
    # A follower meets a file that is not its next one.
    is_told = ("warm", "half", "disk") if happening in ("begun_again_longer", "overwritten") else ("half",)
    found = {kind: ask(reader, PATIENCE_SECONDS if kind in is_told else LOOK_SECONDS) for kind, reader in readers.items()}
    new = ask(read("new", replica.url, *cache)) if expected else None
    print(json.dumps(found | {"new": new}, indent=1))
    for kind, seen in found.items():
        lib.check(all(state == ["A", COMMITS] for state in seen["states"]), f"{kind} saw", seen["states"])
        again = "begun again" in str(seen["reason"])
        lib.check(not again or seen["anew"] in (expected, None) and bool(seen["anew"]) == bool(expected),
                  f"{kind}: opened anew it shows", seen["anew"], "and not", expected)
    # What half has not read yet is not there, or is not its own.
    for kind in is_told:
        lib.check("begun again" in str(found[kind]["reason"]), kind, "was not told:", found[kind])
    if expected:
        lib.check(new["states"] == [expected] and not new["reason"], "a new connection shows", new, "and not", expected)


def one_file_replaced(scratch):
    """By that of another database, without its metadata: what lies beside it is that of the file before."""
    opened.loaded()
    for name in ("a", "b"):
        WRITERS["ours"](scratch / f"{name}.db", lib.FileReplica(scratch / name), name.upper(), COMMITS)
    for key in sorted(path.name for path in (scratch / "a" / "ltx" / "0").glob("*.ltx")):
        mixed = lib.FileReplica(scratch / "mixed" / key)
        shutil.copytree(scratch / "a", mixed.path)
        shutil.copyfile(scratch / "b" / "ltx" / "0" / key, mixed.path / "ltx" / "0" / key)
        told = "the metadata beside it are of another file"
        try:
            lib.open_replica(mixed.url, key).execute("SELECT count(*) FROM whose").fetchall()
            lib.check(False, key, "was opened")
        except sqlite3.OperationalError:
            lib.check(told in opened.last_error()[-1] and key in opened.last_error()[-1], opened.last_error())
        try:
            lib.scalar(lib.connect(":memory:"), "SELECT litestream_restore(?, ?)", mixed.url, str(scratch / "restored.db"))
            lib.check(False, key, "was restored")
        except sqlite3.OperationalError as error:
            lib.check(told in str(error) and key in str(error), error)


# A reader in a process of its own

def read(kind, url, *cache):
    command = [sys.executable, pathlib.Path(__file__).with_name("run"), "--case", "read_whose", kind, url, *cache]
    reader = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lib.check(reader.stdout.readline() == "ready\n", f"{kind} does not start")
    return reader


def ask(reader, seconds=0):
    """What it sees in so many seconds, or until it is told."""
    out = reader.communicate(f"{seconds}\n", timeout=120)[0]
    lib.check(reader.returncode == 0, out)
    return json.loads(out)


def read_whose(_, kind, url, cache=None):
    opened.loaded()
    options = {"poll_interval": "50ms", "cache_size": "64MiB"}
    if cache:
        options["cache_dir"] = cache
    if kind == "disk":
        options["cache_size"] = "1B"
    if kind == "past":
        txid = lib.scalar(lib.open_replica(url), "SELECT litestream_txid()")
        options |= {"at": txid, "cache_size": "1B"}
    db = lib.open_replica(url, kind, **options)
    db.execute("PRAGMA cache_size = 5")
    if kind in ("warm", "past", "disk"):
        lib.check(opened.whose(db, ROWS) == (("A", COMMITS), None), "it does not begin well")
    if kind in ("half", "held"):
        db.execute("BEGIN") if kind == "held" else None
        lib.check(db.execute("SELECT DISTINCT tag FROM t NOT INDEXED WHERE id < 50").fetchall() == [("A",)], "it does not begin well")
    print("ready", flush=True)
    end = int(sys.stdin.readline()) + time.monotonic()
    states, reason, anew = [], None, None
    while True:
        state, reason = opened.whose(db, ROWS)
        if state and list(state) not in states:
            states.append(list(state))
        if reason or time.monotonic() >= end:
            break
        time.sleep(0.05)
    if reason:
        anew = once_more(url)
    print(json.dumps({"states": states, "reason": reason, "anew": anew}))


def once_more(url):
    """What a new connection of the process shows."""
    try:
        return opened.whose(lib.open_replica(url, "anew"), ROWS)[0]
    except sqlite3.OperationalError:
        return None


CASES = {"restarted": restarted, "one_file_replaced": one_file_replaced, "read_whose": read_whose}


def wanted(full, seconds):
    every = [("restarted", happening, writer, store)
             for happening in HAPPENINGS for writer in WRITERS for store in ("seaweed", "file")]
    quick = {("ours", "seaweed"): HAPPENINGS, ("litestreams", "seaweed"): ["begun_again_longer", "overwritten"],
             ("ours", "file"): ["begun_again_longer", "wiped"], ("litestreams", "file"): ["overwritten"]}
    return [words for words in every if full or words[1] in quick[words[2:]]] + [("one_file_replaced",)]
