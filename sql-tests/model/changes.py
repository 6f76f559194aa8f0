"""What a transaction does to the tables: each function makes one random change through `db`, inside a transaction."""


def tables(db, schema="main"):
    rows = db.execute(f"SELECT name FROM {schema}.sqlite_schema WHERE type = 'table' AND name GLOB 't[0-9]*' ORDER BY 1")
    return [f"{schema}.{name}" for (name,) in rows]


def some_table(rng, db, schema):
    found = tables(db, schema)
    return rng.choice(found) if found else create_table(rng, db, schema)


def create_table(rng, db, schema):
    name = f"{schema}.t{rng.randrange(10**6)}"
    tail = rng.choice(["", "", " WITHOUT ROWID"])
    db.execute(f"CREATE TABLE {name}(id INTEGER PRIMARY KEY, a INTEGER, b BLOB, c TEXT){tail}")
    return name


def insert_few(rng, db, schema):
    insert(db, some_table(rng, db, schema), rng.randint(1, 5), 30)


def insert_many(rng, db, schema):
    insert(db, some_table(rng, db, schema), rng.randint(200, 1500), 60)


def insert_blobs(rng, db, schema):
    """Overflow chains: blobs longer than a page."""
    page_size = db.execute(f"PRAGMA {schema}.page_size").fetchone()[0]
    insert(db, some_table(rng, db, schema), rng.randint(1, 3), min(rng.randint(1, 20) * page_size, 150_000))


def insert(db, table, count, size):
    first = db.execute(f"SELECT ifnull(max(id), 0) + 1 FROM {table}").fetchone()[0]
    db.execute(f"""WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 + ?2 - 1)
                   INSERT INTO {table}(id, a, b, c) SELECT i, i * 7 % 100, randomblob(?3), 'row ' || i FROM n""",
               (first, count, size))


def update_some(rng, db, schema):
    size = rng.choice([10, 100, 1000])
    db.execute(f"UPDATE {some_table(rng, db, schema)} SET b = randomblob(?), a = a + 1 WHERE id % ? = ?",
               (size, rng.randint(2, 20), rng.randint(0, 1)))


def delete_some(rng, db, schema):
    table = some_table(rng, db, schema)
    db.execute(f"DELETE FROM {table} WHERE id % ? <> 0", (rng.randint(1, 10),))


def drop_table(rng, db, schema):
    db.execute(f"DROP TABLE {some_table(rng, db, schema)}")


def create_index(rng, db, schema):
    table = some_table(rng, db, schema).partition(".")[2]
    db.execute(f"CREATE INDEX {schema}.i{rng.randrange(10**6)} ON {table}(a, c)")


def add_column(rng, db, schema):
    table = some_table(rng, db, schema)
    db.execute(f"ALTER TABLE {table} ADD COLUMN x{rng.randrange(10**6)} DEFAULT 'x'")


def temporary_table(rng, db, schema):
    """Goes to another file, which is none of the replica's business."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS scratch(a)")
    db.execute("INSERT INTO scratch VALUES (randomblob(1000))")
    insert_few(rng, db, schema)


def nested(rng, db, schema):
    """Savepoints, some of them rolled back."""
    for depth in range(rng.randint(1, 3)):
        db.execute(f"SAVEPOINT s{depth}")
        one(rng, db, schema)
        if rng.random() < 0.4:
            db.execute(f"ROLLBACK TO s{depth}")
        db.execute(f"RELEASE s{depth}")


def failed_statement(rng, db, schema):
    """A statement that is undone by itself, after it has written."""
    table = some_table(rng, db, schema)
    insert(db, table, 20, 200)
    try:
        db.execute(f"INSERT INTO {table}(id) SELECT -id FROM {table} UNION ALL SELECT max(id) FROM {table}")
    except Exception as error:
        if "UNIQUE" not in str(error):
            raise


ALL = [(insert_few, 20), (insert_many, 8), (insert_blobs, 8), (update_some, 12), (delete_some, 6), (create_table, 4),
       (drop_table, 3), (create_index, 4), (add_column, 2), (temporary_table, 1), (nested, 5), (failed_statement, 2)]
SIZE_MAX = 4_000_000  # past it, only what makes the database smaller


def one(rng, db, schema="main"):
    pages, page_size = (db.execute(f"PRAGMA {schema}.{name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * page_size > SIZE_MAX:
        return rng.choice([drop_table, delete_some])(rng, db, schema)
    functions, weights = zip(*ALL)
    return rng.choices(functions, weights)[0](rng, db, schema)
