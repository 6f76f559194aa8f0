"""What the tests in these folders share: counting cases, opening databases with the extension, looking into replicas,
and the real Litestream.

Only Debian's python3 and its standard library are used, so the host is the system's SQLite.
"""
import atexit
import concurrent.futures
import contextlib
import difflib
import hashlib
import os
import pathlib
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = pathlib.Path(os.environ.get("LITESTREAM_TEST_LIBRARY", ROOT / "dist" / "liblitestream"))  # without the suffix, as in .load
CACHE = pathlib.Path(os.environ.get("LITESTREAM_TEST_CACHE", ROOT / ".cache")).resolve()
FULL = bool(os.environ.get("LITESTREAM_TEST_FULL"))
JOBS = int(os.environ.get("LITESTREAM_TEST_JOBS", "2"))

ACCESS_KEY, SECRET_KEY, REGION = "AKTEST", "sktestsktestsktest", "us-east-1"


def is_sanitized():
    return bool(os.environ.get("LITESTREAM_TEST_SANITIZER"))


def sanitized(environment, leaks=False):
    """The environment of a host that loads a library built with a sanitizer, whose runtime LITESTREAM_TEST_SANITIZER
    names (.ci/sanitize.sh). Python leaks by itself, so only the shell is asked for leaks."""
    runtime = os.environ.get("LITESTREAM_TEST_SANITIZER")
    options = f"detect_leaks={int(leaks)}:abort_on_error=0:exitcode=99"
    return dict(environment) | ({"LD_PRELOAD": runtime, "ASAN_OPTIONS": options} if runtime else {})


def clean_environment(**more):
    """The environment without what would change how a store is reached; then `more`."""
    dropped = ("AWS_", "LITESTREAM_", "SQLITE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {k: v for k, v in os.environ.items() if k.startswith("LITESTREAM_TEST_") or not k.upper().startswith(dropped)}
    return kept | {k: str(v) for k, v in more.items()}


def s3_environment():
    """The credentials of the test servers. AWS_CA_BUNDLE is absent: the real Litestream stops if it is set."""
    return clean_environment(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY, AWS_REGION=REGION)


# Cases

class Cases:
    """Counts the cases of a suite, one line each, and closes with their sum."""

    def __init__(self, suite):
        self.suite, self.passed, self.failed = suite, 0, 0

    def report(self, name, seconds, failure=None):
        if failure is None:
            self.passed += 1
            print(f"ok      {name} ({seconds:.1f} s)", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {name} ({seconds:.1f} s)\n{failure.rstrip()}", flush=True)

    @contextlib.contextmanager
    def case(self, name):
        started, failure = time.monotonic(), None
        try:
            yield
        except AssertionError as error:
            failure = str(error) or traceback.format_exc()
        except Exception:  # a broken case is a failed case; the others still run
            failure = traceback.format_exc()
        self.report(name, time.monotonic() - started, failure)

    def processes(self, script, cases, timeout=600):
        """Runs `script ARGUMENTS...` for each (name, arguments), in processes of their own, JOBS at a time: a crash of
        the host is the failure of one case, and no two cases share a loaded library."""
        def one(arguments):
            started = time.monotonic()
            try:
                done = subprocess.run([sys.executable, str(script), *map(str, arguments)], timeout=timeout, text=True,
                                      env=sanitized(os.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                status, output = done.returncode, done.stdout
            except subprocess.TimeoutExpired as error:
                status, output = "timeout", (error.stdout or b"").decode(errors="replace")
            return time.monotonic() - started, status, output

        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            runs = {pool.submit(one, arguments): (name, arguments) for name, arguments in cases}
            for run in concurrent.futures.as_completed(runs):
                name, arguments = runs[run]
                seconds, status, output = run.result()
                again = f"{os.path.relpath(script)} {' '.join(map(str, arguments))}"
                self.report(name, seconds, None if status == 0 else f"{output}exit: {status}\nagain: {again}")

    def close(self):
        print(f"{self.suite}: {self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(0 if self.failed == 0 and self.passed else 1)


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def assert_same_text(expected, found):
    if expected != found:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="")
        raise AssertionError("\n".join(lines))


@contextlib.contextmanager
def directory():
    """A temporary directory, by its real path. LITESTREAM_TEST_KEEP=1 leaves it and names it."""
    path = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="litestream-test-")))
    try:
        yield path
    finally:
        if os.environ.get("LITESTREAM_TEST_KEEP"):
            print("kept:", path)
        else:
            shutil.rmtree(path, ignore_errors=True)


# Databases

def connect(path, load=False, uri=False, **pragmas):
    """A connection in autocommit mode. Once one connection of the process has loaded the extension, all have it."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30, uri=uri)
    if load:
        load_extension(connection)
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
    return connection


def load_extension(connection):
    connection.enable_load_extension(True)
    connection.load_extension(str(LIBRARY))
    connection.enable_load_extension(False)


def scalar(connection, sql, *arguments):
    return connection.execute(sql, arguments).fetchone()[0]


def error_of(connection, sql, *arguments):
    """The message with which the statement fails."""
    try:
        rows = connection.execute(sql, arguments).fetchall()
    except sqlite3.Error as error:
        return str(error)
    raise AssertionError(f"{sql} succeeded with {rows}")


def content_hash(connection, schema="main"):
    """A hash of the schema and of every row: what a user would call the state of the database."""
    digest = hashlib.sha256()
    tables = connection.execute(
        f"SELECT type, name, sql FROM {schema}.sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2").fetchall()
    for kind, name, sql in tables:
        digest.update(f"{kind} {name} {sql}\n".encode())
        if kind == "table":
            for row in connection.execute(f'SELECT * FROM {schema}."{name}"'):
                for value in row:
                    digest.update(value if isinstance(value, bytes) else repr(value).encode())
                    digest.update(b"|")
    return digest.hexdigest()


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def image(path, scratch):
    """The file as it would be after a TRUNCATE checkpoint, made from a copy. Nobody may be writing. The copies are made
    by other processes: opening and closing the files in this one would drop SQLite's locks on them.

    What is committed is what the wal-index says. Letting SQLite recover the copied WAL would not do: SQLite 3.40.1 may
    publish commits whose frames do not pass a recovery (after a rolled back savepoint with cache spill)."""
    copy = pathlib.Path(scratch) / "image.db"
    for suffix in ("", "-wal", "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        if os.path.exists(f"{path}{suffix}"):
            subprocess.run(["cp", f"{path}{suffix}", f"{copy}{suffix}"], check=True)
    index = copy.with_name("image.db-shm")
    if index.exists():
        data = checkpointed(copy.read_bytes(), copy.with_name("image.db-wal").read_bytes(), index.read_bytes())
    else:  # an exclusive connection without shared memory
        subprocess.run(["sqlite3", copy, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, stdout=subprocess.DEVNULL)
        data = copy.read_bytes()
    copy.unlink()
    return data


def checkpointed(data, wal, index):
    """The database with the frames that the wal-index says are committed."""
    page_size = struct.unpack("=H", index[14:16])[0]
    page_size = 65536 if page_size == 1 else page_size
    last, pages = struct.unpack("=2I", index[16:24])
    if last == 0:
        return data
    found = bytearray(data[:pages * page_size].ljust(pages * page_size, b"\0"))
    for frame in range(last):
        start = 32 + frame * (24 + page_size)
        page = struct.unpack(">I", wal[start:start + 4])[0]
        if page <= pages:
            found[(page - 1) * page_size:page * page_size] = wal[start + 24:start + 24 + page_size]
    return bytes(found)


def assert_same_database(expected, found, what):
    """Two databases as bytes; says which pages differ."""
    if expected == found:
        return
    size = struct.unpack(">H", expected[16:18])[0] if len(expected) >= 100 else 4096
    size = 65536 if size == 1 else size or 4096
    pages = [n + 1 for n in range(max(len(expected), len(found)) // size)
             if expected[n * size:(n + 1) * size] != found[n * size:(n + 1) * size]]
    raise AssertionError(f"{what}: {len(expected)} bytes expected, {len(found)} found, page size {size}; "
                         f"{len(pages)} pages differ: {pages[:20]}")


def assert_intact(path):
    connection = sqlite3.connect(path)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    check(found == [("ok",)], f"{path}: integrity_check:", found[:3])


# Replicas

class Ltx:
    """The numbers of one LTX file: its header, and from its page index how many pages it holds."""

    def __init__(self, data):
        (magic, self.flags, self.page_size, self.commit, self.min_txid, self.max_txid, self.timestamp_ms,
         _, self.wal_offset, self.wal_size, self.salt1, self.salt2) = struct.unpack(">4sIIIQQqQqqII", data[:72])
        check(magic == b"LTX1", "not an LTX file:", magic)
        index_size = struct.unpack(">Q", data[-24:-16])[0]
        varints = sum(1 for byte in data[len(data) - 24 - index_size:-24] if byte < 0x80) - 1
        check(varints % 3 == 0, "a torn page index")
        self.pages = varints // 3

    @property
    def is_full_image(self):
        lock_page = 0x40000000 // self.page_size + 1
        return self.pages == self.commit - (1 if self.commit >= lock_page else 0)


class FileReplica:
    """A replica on file://."""
    kind = "file"
    environment = staticmethod(clean_environment)

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.url = f"file://{self.path}"

    def objects(self):
        """{(level, min, max): bytes}; what is not named as an LTX file is none."""
        found = {}
        for path in self.path.glob("ltx/*/*.ltx"):
            low, _, high = path.stem.partition("-")
            found[int(path.parent.name), int(low, 16), int(high, 16)] = path.read_bytes()
        return found

    def companions(self):
        return sorted(f"{path.parent.name}/{path.name}" for path in self.path.glob("index/*/*.idx"))


class S3Replica:
    """A replica in a bucket of one of the test servers (`S3Server`)."""
    kind = "s3"
    environment = staticmethod(s3_environment)

    def __init__(self, server, prefix):
        self.server, self.prefix = server, prefix
        self.url = (f"s3://{server.bucket}/{prefix}?endpoint={server.url}&region={REGION}&force-path-style=true")

    def objects(self):
        found = {}
        for key in self.server.list(self.prefix + "/"):
            level, _, name = key[len(self.prefix) + 1:].partition("/")
            if name.endswith(".ltx"):
                low, _, high = name[:-4].partition("-")
                found[int(level, 16), int(low, 16), int(high, 16)] = self.server.get(key)
        return found

    def companions(self):
        return sorted(key.removeprefix(f"{self.prefix}/index/") for key in self.server.list(f"{self.prefix}/index/"))


class S3Server:
    """One of the servers of stores/objstore.sh, with its bucket. One that runs is used; else it is started here, and
    stopped when the process ends."""
    SCRIPT = ROOT / "sql-tests" / "stores" / "objstore.sh"

    def __init__(self, name):
        self.name = name
        location = urllib.parse.urlsplit(self.run("url"))
        self.bucket, self.url = location.netloc, urllib.parse.parse_qs(location.query)["endpoint"][0].strip()
        try:
            urllib.request.urlopen(self.url, timeout=60).close()  # a busy machine is slow
        except urllib.error.HTTPError:
            pass  # it answers
        except OSError:
            self.run("install")
            atexit.register(self.run, "stop")
            self.run("start")

    def run(self, verb):
        return subprocess.run([self.SCRIPT, verb, self.name], check=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True).stdout

    def request(self, *arguments, path):
        """A signed request by curl; its body."""
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", "--aws-sigv4", f"aws:amz:{REGION}:s3",
             "--user", f"{ACCESS_KEY}:{SECRET_KEY}", *arguments, self.url + path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
        check(done.returncode == 0, self.name, path, done.stderr.decode(), done.stdout.decode(errors="replace"))
        return done.stdout

    def list(self, prefix):
        keys, after = [], ""
        while True:
            query = f"list-type=2&prefix={prefix.replace('/', '%2F')}"
            query += f"&start-after={after.replace('/', '%2F')}" if after else ""
            page = xml.etree.ElementTree.fromstring(self.request(path=f"/{self.bucket}?{query}"))
            space = page.tag[:page.tag.index("}") + 1]
            found = [entry.text for entry in page.iterfind(f"{space}Contents/{space}Key")]
            keys += found
            if page.findtext(f"{space}IsTruncated") != "true" or not found:
                return keys
            after = found[-1]

    def get(self, key):
        return self.request(path=f"/{self.bucket}/{key}")


def replica_parameters(url, **parameters):
    """The query of a URI that opens a replica."""
    return urllib.parse.urlencode({"vfs": "litestream", "replica": url} | parameters, quote_via=urllib.parse.quote)


def open_replica(url, name="any", **parameters):
    """A connection to a replica. The process has loaded the extension."""
    return connect(f"file:{name}?{replica_parameters(url, **parameters)}", uri=True)


def chain(objects, level=0):
    """The TXIDs of a level in order; fails at a gap. Level 0 holds one TXID an object."""
    ranges = sorted((low, high) for found, low, high in objects if found == level)
    for (_, before), (after, _) in zip(ranges, ranges[1:]):
        check(after == before + 1, f"level {level}: a gap or an overlap between {before:016x} and {after:016x}")
    if level == 0:
        check(all(low == high for low, high in ranges), "level 0 holds an object of several TXIDs")
    return [high for _, high in ranges]


def assert_not_overwritten(seen, objects):
    """`seen`: {key: sha256}, kept by the caller over the whole test; brought up to date here."""
    for key, data in objects.items():
        digest = hashlib.sha256(data).hexdigest()
        check(seen.setdefault(key, digest) == digest, f"the object {key} was overwritten")


# The real Litestream

def litestream(*arguments, environment=None, timeout=120):
    """Runs it to its end; what it printed. Fails if it does."""
    done = subprocess.run([litestream_binary(), *map(str, arguments)], env=environment or clean_environment(), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    check(done.returncode == 0, f"litestream {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def litestream_binary():
    binary = CACHE / "peers" / "bin" / "litestream"
    if not binary.exists():
        subprocess.run([ROOT / ".ci" / "deps.sh", "peers"], check=True, env=os.environ | {"PYTHON": sys.executable})
    return binary


def litestream_restore(replica, output, txid=None):
    """The bytes that `litestream restore` makes of a replica."""
    pathlib.Path(output).unlink(missing_ok=True)
    at = ["-txid", txid] if txid else []
    litestream("restore", "-o", output, *at, replica.url, environment=replica.environment())
    return pathlib.Path(output).read_bytes()
