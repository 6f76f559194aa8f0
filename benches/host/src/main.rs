//! `host DATABASE SYNCHRONOUS SECONDS [EXTENSION URL]`: workload W1, single-row transactions of 200-byte blobs with one
//! index, by one writer. Prints what it measured as `name value` lines.
//!
//! With an extension, the database is replicated to the URL meanwhile, and after the load comes a litestream_sync.

use rusqlite::Connection;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, synchronous, seconds, replica) = match arguments.as_slice() {
        [path, synchronous, seconds] => (path, synchronous, seconds, None),
        [path, synchronous, seconds, extension, url] => (path, synchronous, seconds, Some((extension, url))),
        _ => return Err("usage: host DATABASE SYNCHRONOUS SECONDS [EXTENSION URL]".into()),
    };
    if let Some((extension, _)) = replica {
        let memory = Connection::open_in_memory()?;
        // SAFETY: the extension is the one that this repository builds.
        unsafe {
            memory.load_extension_enable()?;
            memory.load_extension(extension, None::<&str>)?;
        }
    }
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", synchronous)?;
    db.busy_timeout(Duration::from_secs(30))?; // Litestream blocks writers at times
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB); CREATE INDEX IF NOT EXISTS k ON t(k)",
    )?;
    if let Some((_, url)) = replica {
        db.query_row("SELECT litestream_replicate(?1)", [url], |_| Ok(()))?;
        db.query_row("SELECT litestream_sync()", [], |_| Ok(()))?;
    }
    write(&db, path, Duration::from_secs_f64(seconds.parse()?))?;
    if replica.is_some() {
        let started = Instant::now();
        db.query_row("SELECT litestream_sync()", [], |_| Ok(()))?;
        println!("sync_s {:.3}", started.elapsed().as_secs_f64());
        let sql = "SELECT requests_get + requests_put + requests_list + requests_head + requests_delete, bytes_out \
                   FROM litestream_status";
        let (requests, bytes): (i64, i64) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        println!("requests {requests}\nbytes {bytes}");
    }
    Ok(())
}

fn write(db: &Connection, path: &str, duration: Duration) -> Result<()> {
    let mut insert = db.prepare("INSERT INTO t(k, v) VALUES (?1, ?2)")?;
    let mut latencies_us = Vec::with_capacity(1 << 20);
    let (mut random, mut blob) = (0x9e37_79b9_7f4a_7c15_u64, [0_u8; 200]);
    let started = Instant::now();
    let mut before = started;
    while before - started < duration {
        for chunk in blob.chunks_mut(8) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&random.to_be_bytes());
        }
        insert.execute((random as i64, &blob[..]))?;
        let now = Instant::now();
        latencies_us.push((now - before).as_nanos() as f64 / 1e3);
        before = now;
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies_us.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| latencies_us[((latencies_us.len() - 1) as f64 * part) as usize];
    println!("rate {:.0}", latencies_us.len() as f64 / seconds);
    println!("p50_us {:.1}\np99_us {:.1}\nmax_us {:.0}", at(0.5), at(0.99), at(1.0));
    println!("wal_bytes {}", std::fs::metadata(format!("{path}-wal"))?.len());
    Ok(())
}
