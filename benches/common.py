"""What the measures share: rounds, medians, tables, the host program, and the three subjects."""
import contextlib
import os
import statistics
import subprocess
import time

import lib

HOST = lib.ROOT / "target" / "bench-host" / "release" / "host"
BARE, US, THEM = "bare SQLite", "liblitestream", "Litestream 0.5.17"
FULL = False  # set by benches/run


def size(quick, full):
    """The length of a load: of the quick form, or of the full one."""
    return full if FULL else quick


def table(title, columns, rows):
    """rows: {name: {column: value}}."""
    width = max(map(len, rows)) + 2
    print(f"\n{title}\n{'':{width}}" + "".join(f"{column:>13}" for column in columns))
    for name, row in rows.items():
        print(f"{name:{width}}" + "".join(f"{row.get(column, ''):>13}" for column in columns), flush=True)


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def in_turn(rounds, variants):
    """Runs each variant once a round, every other round in the reverse order, each in an empty directory.
    {name: [what it measured]}."""
    runs = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            with lib.directory() as scratch:
                runs[name].append(variants[name](scratch))
    return runs


def ratio(runs, base, key):
    """The median of the ratios of neighbouring runs."""
    return statistics.median(run[key] / other[key] for run, other in zip(runs, base))


def host(workload, scratch, synchronous, amount, *extension, environment=None):
    """Runs the host program; what it measured, by name."""
    command = [HOST, workload, scratch / "app.db", synchronous, str(amount), *extension]
    out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment).stdout
    return {name: float(value) for name, value in map(str.split, out.splitlines())}


def bare(workload, synchronous, amount):
    return lambda scratch: host(workload, scratch, synchronous, amount)


def with_us(workload, synchronous, amount):
    return lambda scratch: host(workload, scratch, synchronous, amount, lib.LIBRARY, f"file://{scratch}/replica")


def beside_litestream(workload, synchronous, amount):
    """Its requests are not counted on file://: the files that it wrote are."""
    def run(scratch):
        replica = lib.FileReplica(scratch / "replica")
        with daemon(scratch, replica):
            found = host(workload, scratch, synchronous, amount)
            time.sleep(1.5)  # its interval: let the rest arrive
        sizes = [path.stat().st_size for path in replica.path.glob("ltx/*/*.ltx")]
        return found | {"requests": len(sizes), "bytes": sum(sizes)}
    return run


@contextlib.contextmanager
def daemon(scratch, replica):
    """`litestream replicate` on the database of the host. Yields its process."""
    subprocess.run(["sqlite3", scratch / "app.db", "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t"
                    "(id INTEGER PRIMARY KEY, k INTEGER, v BLOB)"], check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen([lib.litestream_binary(), "replicate", scratch / "app.db", replica.url],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=replica.environment())
    try:
        time.sleep(1.5)
        yield process
    finally:
        process.terminate()
        process.wait()


def mib(size_in_bytes):
    return f"{size_in_bytes / 2**20:.1f}"


def shell(sql, replica, database=":memory:"):
    """The sqlite3 shell with the extension."""
    subprocess.run(["sqlite3", "-batch", "-bail", "-init", os.devnull, "-cmd", f".load {lib.LIBRARY}", database],
                   input=sql, text=True, check=True, stdout=subprocess.DEVNULL, env=replica.environment())
