"""Cold reads of a replica, side by side with Litestream's VFS: opening, scans, single rows, the social data set."""
import random
import sqlite3
import struct
import subprocess

import lib
import restoring
from common import US, host, mib, size, table
from readers import (DELAY, SIDES, THEM, make, middle, new_replica, numbers, pair, proxied, reader_of, row, scaled, upload,
                     upload_by_litestream)

AT = f"{DELAY * 1e3:.0f} ms a request"
WORDS = "time person year way day thing man world life hand part child eye woman place work week case point number".split()


def c2():
    """C2: cold open and first row, for plans of 1, 10 and 100 files"""
    found = {}
    with lib.directory() as scratch, proxied() as proxy:
        for files in (1, 10, 100):
            replica = new_replica()
            many_files(scratch, replica, files)
            found[f"{files} files, by us"] = opened(replica, proxy)
        for files in size((1, 10), (1, 10, 100)):
            replica = new_replica()
            many_files_by_litestream(scratch / f"{files}.db", replica, files)
            found[f"{files} files, by Litestream"] = opened(replica, proxy)
    for name, sides in found.items():
        pair(f"C2: cold open and first row, {name}, {AT}, median of {size(3, 9)}", sides[US], sides[THEM])


def many_files(scratch, replica, files):
    """By us: an image, then commits that are objects each."""
    for file in scratch.glob("*app.db*"):
        subprocess.run(["rm", "-r", file], check=True)
    host("syncs", scratch, "NORMAL", files - 1, lib.LIBRARY, replica.url, environment=replica.environment())


def many_files_by_litestream(source, replica, files):
    make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, v); {numbers(100)} INSERT INTO t SELECT i, randomblob(200) FROM n")
    for _ in range(files):
        upload_by_litestream(source, replica)
        subprocess.run(["sqlite3", source, "INSERT INTO t(v) VALUES (randomblob(200))"], check=True)


def opened(replica, proxy):
    def one(side):
        with reader_of(side, replica, proxy) as reader:
            return reader.open()
    return {side: middle([one(side) for _ in range(size(3, 9))]) for side in SIDES}


def open_1g():
    """Bytes and requests to open a database of 1 GiB (quick: 128 MiB) that we wrote"""
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        restoring.make_database(source, size(128, 1024))
        upload(source, replica)
        found = opened(replica, proxy)
        pair(f"Open of {mib(source.stat().st_size)} MiB that we wrote, and first row, {AT}", found[US], found[THEM])


def s1():
    """S1: full scan of a table of 19 MB and of 100 MB; waste; our rate against curl's"""
    # Litestream's VFS asks for each page: it scans a part, and is scaled.
    for megabytes, part in ((19, size(20, 1)), (100, size(100, 10))):
        scan(megabytes, part)


def scan(megabytes, part):
    with lib.directory() as scratch, proxied(mib_per_s=90) as proxy:
        source, replica = scratch / "app.db", new_replica()
        count = megabytes * 1000
        # Half of each row compresses.
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); {numbers(count)} INSERT INTO t "
             "SELECT i, CAST(randomblob(500) || zeroblob(480) AS BLOB) FROM n")
        upload(source, replica)
        pages = pages_of(source, "t")
        sizes = frames(replica.objects())
        least = sum(sizes[page] for page in pages)
        sql = "SELECT count(*), sum(length(v)), sum(id) FROM t WHERE id <= ?"
        with reader_of(US, replica, proxy) as reader:
            reader.open()
            us = reader.counted("query", sql=sql, arguments=[count])
        with reader_of(THEM, replica, proxy) as reader:
            reader.open()
            them = scaled(reader.counted("query", sql=sql, arguments=[count // part]), part)
        lib.check(us["first"][0] == count, "rows:", us["first"])
        curl = curl_rate(replica, proxy)
        rate = us["bytes"] / us["ms"] * 1e3 / 2**20
        pair(f"S1: full scan of {megabytes} MB, {len(pages):,} pages, {AT}, 90 MiB/s a stream"
             + (f"; Litestream's VFS read 1/{part}, scaled" if part > 1 else ""), us, them,
             {US: {"waste": f"{us['bytes'] / least - 1:.1%}", "MiB/s": f"{rate:.1f}", "of curl's": f"{rate / curl:.2f}"},
              THEM: {"waste": f"{them['bytes'] / least - 1:.1%}"}})
        print(f"curl, the whole object in one stream: {curl:.1f} MiB/s")


def pages_of(source, *names):
    connection = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    marks = ", ".join("?" * len(names))
    found = [page for page, in connection.execute(f"SELECT pageno FROM dbstat WHERE name IN ({marks})", names)]
    connection.close()
    return found


def frames(objects):
    """{page: bytes of its newest frame}."""
    found = {}
    for _, data in sorted(objects.items(), key=lambda item: (item[0][2], -item[0][0])):
        end = len(data) - 24
        values = iter(varints(data[end - struct.unpack(">Q", data[end:end + 8])[0]:end]))
        for page in values:
            if page == 0:
                break
            next(values)
            found[page] = next(values)
    return found


def varints(data):
    value, shift = 0, 0
    for byte in data:
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value, shift = 0, 0


def curl_rate(replica, proxy):
    """Of the largest object, in one stream through the proxy, in MiB/s."""
    level, low, high = max(((len(data), key) for key, data in replica.objects().items()))[1]
    url = f"{proxy.url}/{replica.server.bucket}/{replica.prefix}/{level:04x}/{low:016x}-{high:016x}.ltx"
    out = subprocess.run(["curl", "-sf", "--noproxy", "*", "--aws-sigv4", f"aws:amz:{lib.REGION}:s3", "--user",
                          f"{lib.ACCESS_KEY}:{lib.SECRET_KEY}", "-o", "/dev/null", "-w", "%{size_download} %{time_total}",
                          url], check=True, text=True, stdout=subprocess.PIPE, env=lib.clean_environment()).stdout.split()
    return float(out[0]) / float(out[1]) / 2**20


def point():
    """One row by primary key, cold, of 1M rows (quick: 200k), after the open"""
    rows = size(200_000, 1_000_000)
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB); {numbers(rows)} INSERT INTO t "
             "SELECT i, 'row number ' || i, randomblob(100) FROM n")
        upload(source, replica)
        found = each(replica, proxy, "SELECT k, v FROM t WHERE id = ?", [[rows * n // 7] for n in range(1, 6)])
        pair(f"Point query, {rows:,} rows, cold, after the open, {AT}, median of 5", found[US], found[THEM])


def each(replica, proxy, sql, arguments, sides=SIDES):
    """Each query in a process of its own, which has opened the replica; {side: medians}."""
    found = {}
    for side in sides:
        runs = []
        for values in arguments:
            with reader_of(side, replica, proxy) as reader:
                opening = reader.open()["ms"]
                runs.append(reader.counted("query", sql=sql, arguments=values) | {"open": opening})
        found[side] = middle(runs) | {"open": sorted(run["open"] for run in runs)[len(runs) // 2]}
    return found


# Turbolite's own, of 1M posts: 64 KB pages, nothing cached, at about 25 ms. They have the manifest in memory when they
# begin to count; ours begin after the open.
TURBOLITE_MS = {"post+user": 159, "profile": 490, "who-liked": 376, "mutual": 53, "idx-filter": 118, "scan": 533}
QUERIES = {
    "post+user": ("SELECT p.*, u.first_name, u.last_name, u.school, u.city FROM posts p JOIN users u ON u.id = p.user_id "
                  "WHERE p.id = ?", ["post"]),
    "profile": ("SELECT u.*, p.id, p.content, p.created_at, p.like_count FROM users u JOIN posts p ON p.user_id = u.id "
                "WHERE u.id = ? ORDER BY p.created_at DESC LIMIT 10", ["user"]),
    "who-liked": ("SELECT u.first_name, u.last_name, u.school, l.created_at FROM likes l JOIN users u ON u.id = l.user_id "
                  "WHERE l.post_id = ? ORDER BY l.created_at DESC LIMIT 50", ["post"]),
    "mutual": ("SELECT u.id, u.first_name, u.last_name, u.school FROM friendships f JOIN friendships g "
               "ON f.user_b = g.user_b JOIN users u ON u.id = f.user_b WHERE f.user_a = ? AND g.user_a = ? LIMIT 20",
               ["user", "user"]),
    "idx-filter": ("SELECT count(*) FROM posts WHERE user_id = ?", ["user"]),
    "scan": ("SELECT count(*) FROM posts WHERE like_count > ? AND id <= ?", ["likes", "all"]),
}


def c1():
    """C1: six queries on a social data set of 1M posts (quick: 20k), nothing cached, beside Turbolite's figures"""
    posts, rounds = size(20_000, 1_000_000), 5
    part = size(40, 2000)  # of the scan, for Litestream's VFS
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        social(source, posts)
        upload(source, replica)
        draw, rows = random.Random(11), {}
        drawn = {"post": lambda: draw.randrange(posts), "user": lambda: draw.randrange(posts // 10),
                 "likes": lambda: draw.randrange(50), "all": lambda: posts}
        for name, (sql, wanted) in QUERIES.items():
            arguments = [[drawn[kind]() for kind in wanted] for _ in range(rounds)]
            us = each(replica, proxy, sql, arguments, [US])[US]
            if name == "scan":
                arguments = [[likes, posts // part] for likes, _ in arguments[:1]]
            them = each(replica, proxy, sql, arguments[:size(2, 5)], [THEM])[THEM]
            if name == "scan":
                them = scaled(them, part)
            rows[f"{name}, {US}"] = row(us) | {"open ms": f"{us['open']:.0f}", "Turbolite": TURBOLITE_MS[name],
                                              "of it": f"{us['ms'] / TURBOLITE_MS[name]:.2f}"}
            rows[f"{name}, {THEM}"] = row(them, us) | {"open ms": f"{them['open']:.0f}"}
        table(f"C1: {posts:,} posts, {mib(source.stat().st_size)} MiB in pages of 4 KB, each query in a new process after "
              f"the open, {AT}, median of {rounds}; Litestream's VFS: scan 1/{part}, scaled; Turbolite: 1,000,000 posts",
              ["requests", "waves", "KiB", "ms", "requests: x", "ms: x", "open ms", "Turbolite", "of it"], rows)


def social(path, posts):
    """Users a tenth of the posts, up to 25 friendships each, three likes a post, six indexes that exist before the rows."""
    draw, users = random.Random(7), posts // 10
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("""
        PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;
        CREATE TABLE users(id INTEGER PRIMARY KEY, first_name TEXT, last_name TEXT, email TEXT, school TEXT, city TEXT,
            bio TEXT, joined_at INTEGER);
        CREATE TABLE posts(id INTEGER PRIMARY KEY, user_id INTEGER, content TEXT, created_at INTEGER, like_count INTEGER);
        CREATE TABLE friendships(user_a INTEGER, user_b INTEGER, created_at INTEGER, PRIMARY KEY (user_a, user_b));
        CREATE TABLE likes(user_id INTEGER, post_id INTEGER, created_at INTEGER, PRIMARY KEY (user_id, post_id));
        CREATE INDEX posts_user ON posts(user_id); CREATE INDEX posts_created ON posts(created_at);
        CREATE INDEX friendships_b ON friendships(user_b, user_a); CREATE INDEX likes_post ON likes(post_id);
        CREATE INDEX likes_user ON likes(user_id, created_at); CREATE INDEX users_school ON users(school);""")

    def when():
        return draw.randrange(1_075_000_000, 1_169_000_000)

    phrases = [" ".join(draw.choices(WORDS, k=7)) + ". " for _ in range(8)]  # Turbolite's posts are made so

    def text(low, high):
        return "".join(draw.choices(phrases, k=high // 20))[:draw.randrange(low, high)]

    def insert(table_name, width, rows):
        connection.execute("BEGIN")
        connection.executemany(f"INSERT OR IGNORE INTO {table_name} VALUES ({', '.join('?' * width)})", rows)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    insert("users", 8, ((i, draw.choice(WORDS), draw.choice(WORDS), f"{draw.choice(WORDS)}{i}@{draw.choice(WORDS)}.edu",
                         draw.choice(WORDS), draw.choice(WORDS), text(60, 90), when()) for i in range(users)))
    insert("posts", 5, ((i, draw.randrange(users), text(200, 2000), when(), draw.randrange(200)) for i in range(posts)))
    insert("friendships", 3, ((*sorted((i, draw.randrange(users))), when()) for i in range(users) for _ in range(25)))
    insert("likes", 3, ((draw.randrange(users), draw.randrange(posts), when()) for _ in range(3 * posts)))
    connection.close()


def s2():
    """S2: an index range scan on a fragmented database, the index alone and with the rows"""
    rows = size(200_000, 1_000_000)
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        # Each row comes to a random place of the index: neighbouring leaves lie apart.
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB); CREATE INDEX k ON t(k); {numbers(rows)} "
             "INSERT INTO t SELECT i, random() & 0xffffffff, randomblob(100) FROM n")
        upload(source, replica)
        whole = 1 << 32
        for name, sql, share in (("the index alone", "SELECT count(*), sum(k) FROM t WHERE k BETWEEN ? AND ?", size(2, 4)),
                                 ("and the rows", "SELECT count(*), sum(length(v)) FROM t WHERE k BETWEEN ? AND ?", 400)):
            ranges = [[whole * n // 7, whole * n // 7 + whole // share] for n in (1, 2, 3)]
            us = each(replica, proxy, sql, ranges, [US])[US]
            them = each(replica, proxy, sql, ranges[:1], [THEM])[THEM]
            pair(f"S2: fragmented index range, {name}, 1/{share} of {rows:,} entries, {AT}", us, them)


def s3():
    """S3: a blob of 5 MB"""
    part = size(10, 1)
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES (1, randomblob({5_000_000 // part})); "
             f"{numbers(4)} INSERT INTO t SELECT i + 1, randomblob(5000000) FROM n")
        upload(source, replica)
        sql = "SELECT v FROM t WHERE id = ?"
        us = each(replica, proxy, sql, [[3], [4], [2]], [US])[US]
        them = scaled(each(replica, proxy, sql, [[1]], [THEM])[THEM], part)
        pair(f"S3: a blob of 5 MB, {AT}" + (f"; Litestream's VFS read 1/{part}, scaled" if part > 1 else ""), us, them)
