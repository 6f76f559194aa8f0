//! `host WORKLOAD DATABASE SYNCHRONOUS AMOUNT [EXTENSION [URL]]`: a fast host. Prints what it measured as `name value`
//! lines. With an extension alone, it is loaded and nothing is replicated; with a URL, the database is replicated
//! there meanwhile, and after the load comes a litestream_sync.

mod measure;
mod workloads;

use rusqlite::Connection;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: host w1|w2|w3|latency|idle|syncs DATABASE NORMAL|FULL AMOUNT [EXTENSION [URL]]\n\
    AMOUNT: w1 '30s' or transactions; w2, w3 rows; latency 'COMMITS,DIRECTORY'; idle seconds; syncs commits";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workload, path, synchronous, amount, replica @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    if let Some(extension) = replica.first() {
        let memory = Connection::open_in_memory()?;
        let started = Instant::now();
        // SAFETY: the extension is the one that this repository builds.
        unsafe {
            memory.load_extension_enable()?;
            memory.load_extension(extension, None::<&str>)?;
        }
        println!("load_ms {:.2}", started.elapsed().as_secs_f64() * 1e3);
    }
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", synchronous)?;
    db.busy_timeout(Duration::from_secs(30))?; // Litestream blocks writers at times
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB); CREATE INDEX IF NOT EXISTS k ON t(k)",
    )?;
    let url = replica.get(1);
    if let Some(url) = url {
        db.query_row("SELECT litestream_replicate(?1)", [url], |_| Ok(()))?;
        db.query_row("SELECT litestream_sync()", [], |_| Ok(()))?;
    }
    if workload == "idle" {
        // Nobody watches: that would be all that is measured.
        return workloads::idle(&db, amount.parse()?, url.is_some());
    }
    let wal = measure::LargestFile::watch(format!("{path}-wal"));
    match workload.as_str() {
        "w1" => workloads::single_rows(&db, amount)?,
        "w2" => workloads::bulk(&db, amount.parse()?)?,
        "w3" => workloads::beside_a_long_reader(&db, path, amount.parse()?)?,
        "latency" => workloads::latency(&db, amount)?,
        "syncs" => workloads::syncs(&db, amount.parse()?)?,
        _ => return Err(USAGE.into()),
    }
    println!("wal_bytes {}", wal.largest());
    println!("threads {}\nmemory_bytes {}", measure::threads()?, measure::peak_memory()?);
    if url.is_some() {
        let started = Instant::now();
        db.query_row("SELECT litestream_sync(600)", [], |_| Ok(()))?;
        println!("sync_s {:.3}", started.elapsed().as_secs_f64());
        let (requests, bytes) = workloads::asked(&db)?;
        println!("requests {requests}\nbytes {bytes}");
    }
    Ok(())
}
