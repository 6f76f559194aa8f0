"""What replication costs the host, and how soon a commit is safe."""
import os
import statistics
import subprocess

import lib
from common import (BARE, THEM, US, bare, beside_litestream, daemon, host, in_turn, median, mib, ratio, size, table,
                    with_us)
from proxy import Proxy


def w1_normal():
    """W1, synchronous=NORMAL: single-row transactions by one writer, replicated to file://; bare SQLite twice"""
    w1("NORMAL")


def w1_full():
    """W1, synchronous=FULL"""
    w1("FULL")


def w1(synchronous):
    seconds, rounds = size("6s", "30s"), size(3, 9)
    variants = {BARE: bare("w1", synchronous, seconds), US: with_us("w1", synchronous, seconds),
                f"{BARE} again": bare("w1", synchronous, seconds),
                THEM: beside_litestream("w1", synchronous, seconds)}
    runs = in_turn(rounds, variants)
    base = runs[BARE]
    table(f"W1: single-row transactions, 1 writer, synchronous={synchronous}, {seconds}, median of {rounds}, file://",
          ["tx/s", "of bare", "p50 us", "p99 us", "of bare's", "max ms", "WAL MiB", "memory MiB", "requests", "shipped MiB"],
          {name: {"tx/s": f"{median(found, 'rate'):.0f}", "of bare": f"{ratio(found, base, 'rate'):.3f}",
                  "p50 us": f"{median(found, 'p50_us'):.0f}", "p99 us": f"{median(found, 'p99_us'):.0f}",
                  "of bare's": f"{ratio(found, base, 'p99_us'):.2f}", "max ms": f"{median(found, 'max_us') / 1e3:.0f}",
                  "WAL MiB": mib(median(found, "wal_bytes")), "memory MiB": mib(median(found, "memory_bytes")),
                  "requests": f"{sum(run.get('requests', 0) for run in found) / rounds:.0f}",
                  "shipped MiB": mib(sum(run.get("bytes", 0) for run in found) / rounds)}
           for name, found in runs.items()})


def w2():
    """W2: one transaction of 1,000,000 rows"""
    bulk("W2: one transaction", "w2", size(200_000, 1_000_000))


def w3():
    """W3: 3,000 rows of 1 KB beside a long reader: the size of the WAL"""
    bulk("W3: beside a long reader", "w3", 3_000)


def bulk(title, workload, rows):
    rounds = size(3, 5)
    runs = in_turn(rounds, {BARE: bare(workload, "NORMAL", rows), US: with_us(workload, "NORMAL", rows),
                            THEM: beside_litestream(workload, "NORMAL", rows)})
    table(f"{title} of {rows:,} rows, synchronous=NORMAL, median of {rounds}, file://",
          ["s", "rate of bare", "WAL MiB", "memory MiB", "shipped MiB"],
          {name: {"s": f"{median(found, 'seconds'):.2f}", "rate of bare": f"{1 / ratio(found, runs[BARE], 'seconds'):.2f}",
                  "WAL MiB": mib(median(found, "wal_bytes")), "memory MiB": mib(median(found, "memory_bytes")),
                  "shipped MiB": mib(statistics.median(run.get("bytes", 0) for run in found))}
           for name, found in runs.items()})


def latency():
    """A commit after quiet: how long until its object is in file://"""
    commits = size(5, 20)

    def amount(scratch):
        return f"{commits},{scratch}/replica/ltx/0"

    def ours(scratch):
        return with_us("latency", "FULL", amount(scratch))(scratch)

    def theirs(scratch):
        with daemon(scratch, lib.FileReplica(scratch / "replica")):
            return host("latency", scratch, "FULL", amount(scratch))

    runs = in_turn(1, {US: ours, THEM: theirs})
    table(f"Commit after quiet to durable, synchronous=FULL, median of {commits}, file://", ["ms"],
          {name: {"ms": f"{found[0]['latency_ms']:.1f}"} for name, found in runs.items()})


def s3_w1():
    """W1 to S3 at 25 ms a request: objects a second, and what is missing at the end"""
    seconds = size(5, 30)
    server = lib.S3Server("seaweed")

    def run(scratch, begin):
        replica = lib.S3Replica(server, f"bench-{os.getpid()}-{scratch.name}")
        proxy = Proxy(server.url, delay=0.025)
        try:
            found = begin(scratch, replica, replica.url.replace(server.url, proxy.url))
            puts = proxy.take().of("PUT")
        finally:
            proxy.close()
        return found | {"puts": puts}

    def ours(scratch, replica, url):
        return host("w1", scratch, "NORMAL", f"{seconds}s", lib.LIBRARY, url, environment=replica.environment())

    def theirs(scratch, replica, url):
        replica.url = url
        with daemon(scratch, replica):
            return host("w1", scratch, "NORMAL", f"{seconds}s")

    runs = in_turn(1, {BARE: bare("w1", "NORMAL", f"{seconds}s"), US: lambda scratch: run(scratch, ours),
                       THEM: lambda scratch: run(scratch, theirs)})
    table(f"W1 to S3 at 25 ms a request, synchronous=NORMAL, {seconds} s",
          ["tx/s", "of bare", "PUT", "PUT a s", "to drain, s", "memory MiB"],
          {name: {"tx/s": f"{found[0]['rate']:.0f}", "of bare": f"{found[0]['rate'] / runs[BARE][0]['rate']:.2f}",
                  "PUT": f"{found[0].get('puts', 0)}", "PUT a s": f"{found[0].get('puts', 0) / seconds:.2f}",
                  "to drain, s": f"{found[0].get('sync_s', 0):.2f}" if name == US else "",
                  "memory MiB": mib(found[0]["memory_bytes"])} for name, found in runs.items()})


def loaded():
    """The extension is loaded and nothing is replicated: instructions, threads, the time of the load"""
    transactions = size(5_000, 50_000)

    def instructions(*extension):
        with lib.directory() as scratch:
            out = scratch / "callgrind.out"
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--toggle-collect=*single_rows*"]
            subprocess.run([*command, *host_command(scratch, transactions, extension)], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return next(int(line.split()[1]) for line in out.read_text().splitlines() if line.startswith("totals:"))

    found = in_turn(5, {BARE: bare("w1", "NORMAL", 1000),
                        US: lambda scratch: host("w1", scratch, "NORMAL", 1000, lib.LIBRARY)})
    counted = {BARE: instructions(), US: instructions(lib.LIBRARY)}
    table(f"Loaded, nothing replicated: W1, {transactions:,} transactions",
          ["instructions", "bare / this", "threads", "load ms"],
          {name: {"instructions": f"{count / 1e6:.1f} M", "bare / this": f"{counted[BARE] / count:.4f}",
                  "threads": f"{median(found[name], 'threads'):.0f}",
                  "load ms": f"{statistics.median(run.get('load_ms', 0) for run in found[name]):.2f}"}
           for name, count in counted.items()})
    print(f"size of the library: {lib.LIBRARY.with_suffix('.so').stat().st_size / 1e6:.2f} MB")


def host_command(scratch, transactions, extension):
    from common import HOST
    return [HOST, "w1", scratch / "app.db", "NORMAL", str(transactions), *extension]


def idle():
    """Replicated and idle: CPU and requests"""
    seconds = size(10, 60)
    with lib.directory() as scratch:
        ours = host("idle", scratch, "NORMAL", seconds, lib.LIBRARY, f"file://{scratch}/replica")
    with lib.directory() as scratch:
        subprocess.run(["sqlite3", scratch / "app.db", "PRAGMA journal_mode = WAL; CREATE TABLE b(v); WITH RECURSIVE n(i) AS "
                        "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO b SELECT randomblob(1000000) FROM n"],
                       check=True, stdout=subprocess.DEVNULL)
        with daemon(scratch, lib.FileReplica(scratch / "replica")) as process:
            host("idle", scratch, "NORMAL", 10)
            before = cpu_seconds(process.pid)
            host("idle", scratch, "NORMAL", seconds)
            theirs = cpu_seconds(process.pid) - before
    table(f"Replicated, idle for {seconds} s (Litestream: a database of 400 MB)", ["CPU s", "requests"],
          {US: {"CPU s": f"{ours['cpu_seconds']:.4f}", "requests": f"{ours['requests']:.0f}"},
           THEM: {"CPU s": f"{theirs:.2f}", "requests": "-"}})


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
