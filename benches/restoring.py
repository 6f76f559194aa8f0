"""Restores, beside cp and the real Litestream."""
import os
import resource
import statistics
import subprocess
import time

import lib
from common import THEM, US, host, shell, size, table
from proxy import Proxy

COPY = "cp and sync"


def r1():
    """R1: a large database, from file:// and from S3"""
    with lib.directory() as scratch:
        source = scratch / "app.db"
        make_database(source, size(200, 834))
        for replica in stores(scratch):
            ship(source, replica)
            compare("R1", scratch, source, replica)


def r2():
    """R2: a database of 100 KB in 500 files, from file:// and from S3"""
    with lib.directory() as scratch:
        for replica in stores(scratch):
            many_files(scratch, replica, 499)
            compare("R2", scratch, scratch / "app.db", replica)


def r3():
    """R3: an image and 20,000 files of level 0, from file://"""
    with lib.directory() as scratch:
        replica = lib.FileReplica(scratch / "replica")
        many_files(scratch, replica, size(2_000, 20_000))
        compare("R3", scratch, scratch / "app.db", replica)


def stores(scratch):
    yield lib.FileReplica(scratch / "replica")
    try:
        yield lib.S3Replica(lib.S3Server("seaweed"), f"bench-{os.getpid()}-{time.time_ns()}")
    except Exception as error:  # a benchmark of one store is still one
        print("no S3 server:", error)


def make_database(path, mib):
    sql = f"""PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {mib * 2**20 // 1260})
    INSERT INTO t SELECT i, 'row number ' || i || ' of many', CAST(hex(randomblob(300)) || zeroblob(400) AS BLOB) FROM n;
    PRAGMA wal_checkpoint(TRUNCATE);"""
    subprocess.run(["sqlite3", path], input=sql, text=True, check=True, stdout=subprocess.DEVNULL)


def ship(source, replica):
    """One image and twenty small transactions, by us; both restore the same replica."""
    sql = f"SELECT litestream_replicate('{replica.url}'); SELECT litestream_sync(600);"
    for number in range(20):
        sql += f"UPDATE t SET k = '{replica.kind} {number}' WHERE id % 20000 = {number}; SELECT litestream_sync(60);"
    shell(sql + "SELECT litestream_stop();", replica, source)


def many_files(scratch, replica, count):
    """A small database, whose every commit is an object."""
    for file in scratch.glob("*app.db*"):
        subprocess.run(["rm", "-r", file], check=True)
    host("syncs", scratch, "NORMAL", count, lib.LIBRARY, replica.url, environment=replica.environment())


def compare(name, scratch, source, replica):
    output = scratch / "restored.db"

    def us(url):
        shell(f"SELECT litestream_restore('{url}', '{output}')", replica)

    def litestream(url):
        lib.litestream("restore", "-o", output, url, environment=replica.environment())

    def copy(_):
        subprocess.run(["cp", source, output], check=True)
        subprocess.run(["sync", output], check=True)

    rounds = size(3, 5)
    variants = {COPY: copy, US: us, THEM: litestream}
    runs = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant, run in variants.items():
            runs[variant].append(timed(output, run, replica.url))
            if variant != COPY:
                lib.assert_same_database(source.read_bytes(), output.read_bytes(), variant)
    counted = {variant: count(output, variants[variant], replica) for variant in (US, THEM)}
    mib = source.stat().st_size / 2**20
    seconds = {variant: statistics.median(s for s, _ in found) for variant, found in runs.items()}
    table(f"{name}: restore of {mib:.1f} MiB in {files(replica):,} files, {replica.kind}://, median of {rounds}",
          ["s", "MiB/s", "cp / this", "Litestr./this", "memory MiB", "requests", "got MiB"],
          {variant: {"s": f"{seconds[variant]:.3f}", "MiB/s": f"{mib / seconds[variant]:.0f}",
                     "cp / this": f"{seconds[COPY] / seconds[variant]:.2f}",
                     "Litestr./this": f"{seconds[THEM] / seconds[variant]:.1f}",
                     "memory MiB": f"{statistics.median(m for _, m in found) / 2**20:.0f}"} | counted.get(variant, {})
           for variant, found in runs.items()})


def timed(output, run, url):
    """Seconds, and the largest resident set in bytes of the programs that it ran: in a child, whose children they are."""
    output.unlink(missing_ok=True)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            started = time.monotonic()
            run(url)
            seconds = time.monotonic() - started
            os.write(send, f"{seconds} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    with open(receive) as pipe:
        found = pipe.read()
    lib.check(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a restore failed")
    return tuple(map(float, found.split()))


def files(replica):
    return len(replica.server.list(replica.prefix + "/") if replica.kind == "s3" else list(replica.path.glob("ltx/*/*.ltx")))


def count(output, run, replica):
    """One more run, through the counting proxy."""
    if replica.kind == "file":
        return {}
    proxy = Proxy(replica.server.url)
    timed(output, run, replica.url.replace(replica.server.url, proxy.url))
    counted = proxy.take()
    proxy.close()
    return {"requests": counted.total, "got MiB": f"{counted.bytes / 2**20:.1f}"}
