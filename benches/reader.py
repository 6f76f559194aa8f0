#!/usr/bin/env python3
"""`reader.py LIBRARY [LOCAL]`: a host that loads an extension. Each line of its input is a command in JSON, which it
answers with one line. It measures by its own clock; what it asks of the store, the proxy counts."""
import json
import random
import sqlite3
import statistics
import sys
import time

FIRST_ROW = "SELECT 1 FROM sqlite_schema"


class Host:
    def __init__(self, library, local=None):
        # Before the library is loaded: Litestream's makes later openings of local files fail.
        self.local = local and connection(f"file:{local}?mode=ro")
        self.memory_connection = connection(":memory:")
        self.memory_connection.enable_load_extension(True)
        started = time.perf_counter()
        self.memory_connection.load_extension(library)
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.opened = []

    def open(self, uri, count=1):
        """Connections, each up to its first row."""
        started = time.perf_counter()
        for _ in range(count):
            self.opened.append(connection(uri))
            self.opened[-1].execute(FIRST_ROW).fetchone()
        return {"ms": (time.perf_counter() - started) * 1e3}

    def query(self, sql, arguments=(), times=1):
        started = time.perf_counter()
        for _ in range(times):
            rows = self.opened[0].execute(sql, arguments).fetchall()
        ms = (time.perf_counter() - started) * 1e3
        first = [len(value) if isinstance(value, bytes) else value for value in rows[0]] if rows else None
        return {"ms": ms, "rows": len(rows), "first": first}

    def against(self, sql, times, rounds, pragma=""):
        """The same query on a local file, in turn, warm: the median of the ratios of neighbouring runs."""
        both = [self.local, self.opened[0]]
        for each in both:
            each.execute(pragma)
            each.execute(sql).fetchall()
        runs = []
        for number in range(rounds):
            seconds = [0.0, 0.0]
            for side in (0, 1) if number % 2 else (1, 0):
                started = time.perf_counter()
                for _ in range(times):
                    both[side].execute(sql).fetchall()
                seconds[side] = time.perf_counter() - started
            runs.append(seconds)
        return {"share": statistics.median(there / here for here, there in runs),
                "local_us": statistics.median(here for here, _ in runs) / times * 1e6,
                "us": statistics.median(there for _, there in runs) / times * 1e6}

    def loop(self, sql, seconds, every, highest):
        """Queries for random rows, for a time."""
        end, spent, failures = time.monotonic() + seconds, [], {}
        while time.monotonic() < end:
            started = time.monotonic()
            try:
                self.opened[0].execute(sql, (random.randint(1, highest),)).fetchall()
            except sqlite3.Error as error:
                failures[str(error)] = failures.get(str(error), 0) + 1
            spent.append((time.monotonic() - started) * 1e3)
            time.sleep(max(0.0, started + every - time.monotonic()))
        return {"queries": len(spent), "median_ms": statistics.median(spent), "longest_ms": max(spent), "failures": failures}

    def write(self, seconds, every, rows, highest, value_sql):
        """Each `every` seconds a transaction that changes so many random rows."""
        started, count = time.monotonic(), 0
        sql = f"UPDATE t SET n = n + 1, v = {value_sql} WHERE id = ?"
        while time.monotonic() < started + seconds:
            self.opened[0].execute("BEGIN IMMEDIATE")
            for identity in random.sample(range(1, highest + 1), rows):
                self.opened[0].execute(sql, (identity,))
            self.opened[0].execute("COMMIT")
            count += 1
            time.sleep(max(0.0, started + count * every - time.monotonic()))
        return {"transactions": count}

    def memory(self):
        """Of the process, resident, in bytes."""
        with open("/proc/self/status") as status:
            return {"rss": next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))}

    def close(self):
        for opened in self.opened:
            opened.close()
        self.opened = []
        return {}


def connection(uri):
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)


def main():
    host = Host(*sys.argv[1:])
    print(json.dumps({"load_ms": host.load_ms}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(host, command.pop("do"))(**command)
        except sqlite3.Error as error:
            answer = {"error": f"{getattr(error, 'sqlite_errorname', '')} {error}"}
        print(json.dumps(answer), flush=True)


main()
