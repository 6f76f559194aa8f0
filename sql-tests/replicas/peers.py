"""Beside Litestream's own VFS, each in a process of its own: the same rows at the same moments of the same replicas,
and the examples of its guide with our library in the place of its file."""
import contextlib
import datetime
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys

import lib
import opened

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "peers")]
import interop  # noqa: E402

VECTORS = lib.ROOT / "sql-tests" / "vectors"
MOMENTS = 5


def libraries(scratch):
    """{whose: path}; ours has the name of theirs, from which SQLite makes the name of the entry point."""
    theirs, = lib.CACHE.glob("peers/lib/python*/site-packages/litestream_vfs/litestream-vfs.so")
    ours = scratch / "ours" / "litestream-vfs.so"
    ours.parent.mkdir()
    shutil.copy(lib.LIBRARY.with_suffix(".so"), ours)
    return {"ours": ours, "theirs": theirs}


# The same rows

def side_by_side(scratch, which):
    replica, moments = (of_a_vector if (VECTORS / which).exists() else of_a_workload)(scratch, which)
    found = {whose: rows_by(path, replica, moments) for whose, path in libraries(scratch).items()}
    compared = 0
    for moment in moments:
        truth = rows_of_file(scratch, replica, moment)
        ours, theirs = (found[whose][moment] for whose in ("ours", "theirs"))
        lib.check(ours == truth, f"{moment}: ours", ours, "and a restore", truth)
        if "error" in theirs or theirs["integrity_check"] != "ok" or theirs["page_count"] != truth["page_count"]:
            print(f"{moment}: Litestream's VFS:", theirs.get("error"), theirs.get("page_count"), "pages of", truth["page_count"],
                  theirs.get("integrity_check", "").splitlines()[:2])
        if "tables" in theirs:
            lib.check(theirs["tables"] == ours["tables"], f"{moment}: ours", ours, "theirs", theirs)
            compared += 1
    lib.check(compared * 2 > len(moments), "only", compared, "of", len(moments), "moments could be compared")


def of_a_vector(scratch, name):
    """A replica as a real Litestream left it, with the times of its files."""
    shutil.copytree(VECTORS / name / "replica", scratch / "replica")
    replica = lib.FileReplica(scratch / "replica")
    times = set()
    for file in json.loads((VECTORS / name / "vector.json").read_text())["files"]:
        os.utime(replica.path / file["path"], ns=(file["mtime_ns"], file["mtime_ns"]))
        times.add(file["mtime_ns"] // 10**6 + 1)
    return replica, some_moments(times)


def of_a_workload(scratch, which):
    """Written now, by our primary or by Litestream's, and grown, changed, shrunk and vacuumed."""
    whose, store = which.split("-")
    replica, rng, path, times = opened.place(scratch, store), random.Random(3), scratch / "app.db", set()
    opened.loaded()
    db = opened.primary(path, replica) if whose == "ours" else interop.plain(path, 4096)
    for step in range(8):
        interop.change(db, rng, step)
        if whose == "ours":
            lib.scalar(db, "SELECT litestream_sync(60)")
        else:
            interop.litestream_once(path, replica)
    db.close()
    for data in replica.objects().values():
        times.add(lib.Ltx(data).timestamp_ms + 1)
    # On S3 `litestream restore` goes by whole seconds of the listing.
    return replica, some_moments(times) if store == "file" else ["LATEST"]


def some_moments(times_ms):
    """The newest state is asked for by its name: `litestream restore` knows no time after it."""
    chosen = sorted(times_ms)[:-1]
    chosen = chosen[::max(len(chosen) // MOMENTS, 1)] + chosen[-1:]
    zone = datetime.timezone.utc
    texts = [datetime.datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="milliseconds")[:-6] + "Z" for ms in chosen]
    return list(dict.fromkeys(texts)) + ["LATEST"]


def rows_by(library, replica, moments):
    command = [sys.executable, pathlib.Path(__file__).with_name("run"), "--case", "rows_at", library, *moments]
    done = subprocess.run(list(map(str, command)), env=replica.environment() | {"LITESTREAM_REPLICA_URL": replica.url,
                          "LITESTREAM_LOG_FILE": os.devnull}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    lib.check(done.returncode == 0, library, done.stdout, done.stderr)
    return json.loads(done.stdout)


def rows_at(_, library, *moments):
    """As its guide says: the extension is loaded, the URL is in the environment, a PRAGMA moves the connection."""
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(library)
    db, found = sqlite3.connect("file:prod.db?vfs=litestream", uri=True), {}
    for moment in moments:
        try:
            with contextlib.suppress(MemoryError):  # Litestream's: a column without a name. It has moved.
                db.execute(f"PRAGMA litestream_time = '{moment}'").fetchall()
            found[moment] = content(db)
        except sqlite3.Error as error:
            found[moment] = {"error": str(error)}
    print(json.dumps(found))


def content(db):
    tables = [name for name, in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
    rows = {name: repr(db.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables}
    return {"tables": {name: lib.hashlib.sha256(text.encode()).hexdigest()[:16] + f" of {len(text)}" for name, text in rows.items()},
            "page_count": lib.scalar(db, "PRAGMA page_count"), "integrity_check": lib.scalar(db, "PRAGMA integrity_check")}


def rows_of_file(scratch, replica, moment):
    """What `litestream restore` makes of it."""
    path = scratch / "restored.db"
    path.unlink(missing_ok=True)
    at = [] if moment == "LATEST" else ["-timestamp", moment]
    lib.litestream("restore", "-o", path, *at, replica.url, environment=replica.environment())
    db = sqlite3.connect(path)
    found = content(db)
    db.close()
    return found


# Its examples

# Both say the same.
EXAMPLES = """.open 'file:prod.db?vfs=litestream'
.tables
SELECT name, sql FROM sqlite_schema ORDER BY 1;
SELECT count(*), sum(id) FROM t;
SELECT * FROM t ORDER BY id DESC LIMIT 3;
PRAGMA page_count;
PRAGMA journal_mode;
PRAGMA litestream_txid;
SELECT litestream_txid();
PRAGMA litestream_time = '{moment}';
PRAGMA litestream_txid;
SELECT count(*), sum(id) FROM t;
PRAGMA litestream_time = LATEST;
SELECT count(*), sum(id) FROM t;
SELECT litestream_set_time('{moment}');
SELECT litestream_txid();
SELECT count(*), sum(id) FROM t;
SELECT litestream_set_time('latest');
SELECT count(*), sum(id) FROM t;
PRAGMA litestream_time = '5 minutes ago';
SELECT count(*), sum(id) FROM t;
PRAGMA litestream_time = 'LATEST';
PRAGMA litestream_hydration_file;
PRAGMA litestream_write_enabled;
PRAGMA integrity_check;
"""
# Ours alone: seconds, and the time of the state, where Litestream has -1 until its first poll, and the time asked for;
# and what it does not come to, since a process that has loaded it opens no other database (#1506).
OURS = """.open 'file:prod.db?vfs=litestream'
PRAGMA litestream_lag;
SELECT litestream_lag();
PRAGMA litestream_time;
SELECT litestream_time();
PRAGMA litestream_hydration_progress;
INSERT INTO t(id) VALUES (1);
.open ':memory:'
ATTACH DATABASE 'file:prod.db?vfs=litestream' AS prod;
SELECT count(*), sum(id) FROM prod.t;
PRAGMA prod.litestream_txid;
"""


def examples(scratch, entry):
    replica, moments = of_a_vector(scratch, "ps4096_compact")
    found = {}
    for whose, path in libraries(scratch).items():
        found[whose] = shell(scratch, path, replica, EXAMPLES.replace("{moment}", moments[1]), entry)
    lib.assert_same_text(found["theirs"], found["ours"])
    lib.check("000000000000000a" in found["ours"] and "no such" not in found["ours"], found["ours"])
    ours = shell(scratch, scratch / "ours" / "litestream-vfs.so", replica, OURS, entry).splitlines()
    time = "2026-11-22T17:58:30.010Z"
    lib.check(ours[:5] == ["0", "0", time, time, "0"] and "readonly" in ours[5], ours)
    lib.check(ours[6:] == ["108|5886", "000000000000000a"], ours)


def hydrated(scratch, _):
    """LITESTREAM_HYDRATION_ENABLED: the same rows while it runs and afterwards, and a file that is the database."""
    replica, _ = of_a_vector(scratch, "ps512_1000pages")
    script = """.open 'file:prod.db?vfs=litestream'
SELECT count(*) FROM sqlite_schema;
.shell sleep 2
PRAGMA litestream_hydration_progress;
PRAGMA litestream_hydration_file;
PRAGMA integrity_check;
"""
    found = {}
    for whose, path in libraries(scratch).items():
        copy = scratch / f"{whose}.db"
        variables = {"LITESTREAM_HYDRATION_ENABLED": "true", "LITESTREAM_HYDRATION_PATH": copy}
        found[whose] = shell(scratch, path, replica, script, "", **variables).splitlines()
        lib.check(found[whose][1:] == ["100.0", str(copy), "ok"], found)
    lib.check(found["ours"][0] == found["theirs"][0], found)
    lib.check((scratch / "ours.db").stat().st_size == (scratch / "theirs.db").stat().st_size, "sizes of the files")


def shell(scratch, library, replica, script, entry, **variables):
    environment = replica.environment() | {"LITESTREAM_REPLICA_URL": replica.url, "LITESTREAM_LOG_FILE": str(scratch / "log")}
    done = subprocess.run(["sqlite3", "-batch", "-init", os.devnull, "-cmd", f".load {library} {entry}".strip()], input=script, cwd=scratch,
                          env=environment | {k: str(v) for k, v in variables.items()}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.stdout


CASES = {f.__name__: f for f in (side_by_side, rows_at, examples, hydrated)}


def wanted(full, seconds):
    names = sorted(path.name for path in VECTORS.iterdir() if (path / "vector.json").exists() and path.name != "v03_generation")
    workloads = ["ours-file", "litestreams-file", "ours-seaweed", "litestreams-seaweed"]
    return [("side_by_side", which) for which in names + workloads] + [
        ("examples", ""), ("examples", "sqlite3_litestreamvfs_init"), ("hydrated", "")]
