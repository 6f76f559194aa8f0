"""Readers of replicas: our VFS and Litestream's, each in a process of its own, behind a proxy that delays and counts."""
import contextlib
import functools
import json
import os
import statistics
import subprocess
import time
import urllib.parse

import lib
from common import US, shell, table
from proxy import Proxy

THEM = "Litestream's VFS 0.5.17"
SIDES = US, THEM
DELAY = 0.025
PYTHON = "/usr/bin/python3"  # loads extensions


@functools.cache
def server():
    try:
        return lib.S3Server("seaweed")
    except Exception as error:  # where it cannot be had
        print("moto in place of SeaweedFS:", error)
        return lib.S3Server("moto")


def new_replica():
    return lib.S3Replica(server(), f"bench-{os.getpid()}-{time.time_ns()}")


def upload(source, replica):
    """By us: an image, with its companion index."""
    shell(f"SELECT litestream_replicate('{replica.url}'); SELECT litestream_sync(600); SELECT litestream_stop();",
          replica, source)


def upload_by_litestream(source, replica):
    lib.litestream("replicate", "-once", source, replica.url, environment=replica.environment(), timeout=600)


def make(path, sql):
    """A database in WAL mode, all of it in the database file."""
    sql = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {sql}; PRAGMA wal_checkpoint(TRUNCATE);"
    subprocess.run(["sqlite3", "-bail", path], input=sql, text=True, check=True, stdout=subprocess.DEVNULL)


def numbers(count):
    """`n`, a table of 1 to count, for what follows in the same statement."""
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


def litestream_vfs():
    return next(lib.litestream_binary().parent.parent.glob("lib/python3*/site-packages/litestream_vfs/litestream-vfs.so"))


class Reader:
    """A process that reads one replica."""

    def __init__(self, side, replica=None, proxy=None, local=None, **options):
        """local: a file to compare with. options: of our URI. Without a replica it is a host of our library for what else there is."""
        environment = lib.s3_environment()
        self.uri = "file:any?vfs=litestream"
        if replica:
            url = replica.url.replace(replica.server.url, proxy.url)
            environment |= {"LITESTREAM_REPLICA_URL": url} if side == THEM else {}
            options |= {"replica": url} if side == US else {}
        self.uri += "".join(f"&{name}={urllib.parse.quote(str(value), safe='')}" for name, value in options.items())
        library = lib.LIBRARY if side == US else litestream_vfs()
        self.process = subprocess.Popen([PYTHON, lib.ROOT / "benches" / "reader.py", library, *([local] if local else [])],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, env=environment)
        self.proxy = proxy
        self.load_ms = self.answer()["load_ms"]

    def answer(self):
        line = self.process.stdout.readline()
        lib.check(line, "a reader died: exit", line or self.process.wait())
        found = json.loads(line)
        lib.check("error" not in found, found.get("error"))
        return found

    def send(self, do, **command):
        self.process.stdin.write(json.dumps({"do": do} | command) + "\n")
        self.process.stdin.flush()

    def ask(self, do, **command):
        self.send(do, **command)
        return self.answer()

    def counted(self, do, **command):
        """The same, and what it asked of the store; waves: up to the answer, the rest with what was asked ahead."""
        self.proxy.settle()
        self.proxy.take()
        self.send(do, **command)
        found = self.answer()
        waves = self.proxy.counted.waves
        self.proxy.settle()
        requests = self.proxy.take()
        return found | {"requests": requests.total, "waves": waves, "bytes": requests.bytes, "counted": requests}

    def open(self, **command):
        return self.counted("open", uri=self.uri, **command)

    def close(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def reader_of(*arguments, **options):
    """A Reader, which ends with the block."""
    reader = Reader(*arguments, **options)
    try:
        yield reader
    finally:
        reader.close()


@contextlib.contextmanager
def proxied(delay=DELAY, mib_per_s=0):
    proxy = Proxy(server().url, delay, mib_per_s)
    try:
        yield proxy
    finally:
        proxy.close()


def scaled(found, factor):
    """What a part of the work came to, for all of it."""
    return found | {key: found[key] * factor for key in ("requests", "waves", "bytes", "ms")}


def middle(runs):
    """The medians of several runs."""
    return {key: statistics.median(run[key] for run in runs) for key in ("requests", "waves", "bytes", "ms")}


COLUMNS = ["requests", "waves", "KiB", "ms", "requests: x", "ms: x"]


def row(found, base=None):
    """base: what the ratios are to."""
    cells = {"requests": f"{found['requests']:,.0f}", "waves": f"{found['waves']:,.0f}",
             "KiB": f"{found['bytes'] / 1024:,.1f}", "ms": f"{found['ms']:,.1f}"}
    if base:
        cells |= {f"{key}: x": f"{found[key] / max(base[key], 1):,.1f}" for key in ("requests", "ms")}
    return cells


def pair(title, us, them, more=None):
    """A table of both sides; more: {side: {column: value}}."""
    more = more or {}
    columns = COLUMNS + list(dict.fromkeys(column for cells in more.values() for column in cells))
    table(title, columns, {US: row(us) | more.get(US, {}), THEM: row(them, us) | more.get(THEM, {})})


def failed(side, what, error):
    print(f"\n{side}: {what}: {str(error).strip()}", flush=True)
