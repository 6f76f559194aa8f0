use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, DEFAULT_NAME, LoadExtensionGuard, OpenFlags, Result};

fn main() -> Result<()> {
    let url = std::env::var("REPLICA_URL").expect("REPLICA_URL");

    let db = Connection::open("notes.db")?;
    // SAFETY: no SQL of others runs while extensions may be loaded.
    unsafe {
        let _enabled = LoadExtensionGuard::new(&db)?;
        db.load_extension("./dist/liblitestream", DEFAULT_NAME)?;
    }

    db.query_row("SELECT litestream_replicate(?)", [&url], |_| Ok(()))?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS note(text); INSERT INTO note VALUES ('milk'), ('bread');")?;
    println!("shipped {}", txid(&db, "SELECT litestream_sync()")?);

    let uri = format!("file:notes?vfs=litestream&replica={}", utf8_percent_encode(&url, NON_ALPHANUMERIC));
    let replica = Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    for text in replica.prepare("SELECT text FROM note")?.query_map([], |row| row.get::<_, String>(0))? {
        println!("{}", text?);
    }
    println!("replica at {}", txid(&replica, "SELECT litestream_txid()")?);
    Ok(())
}

fn txid(db: &Connection, sql: &str) -> Result<String> {
    db.query_row(sql, [], |row| row.get(0))
}
