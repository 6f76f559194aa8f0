//! The workloads.

use crate::{Result, measure};
use rusqlite::Connection;
use std::time::{Duration, Instant};

/// Rows with blobs that do not compress.
struct Rows {
    random: u64,
    blob: Vec<u8>,
}

impl Rows {
    fn new(size: usize) -> Self {
        Self { random: 0x9e37_79b9_7f4a_7c15, blob: vec![0; size] }
    }

    fn next(&mut self) -> (i64, &[u8]) {
        for chunk in self.blob.chunks_mut(8) {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&self.random.to_be_bytes()[..chunk.len()]);
        }
        (self.random as i64, &self.blob)
    }
}

const INSERT: &str = "INSERT INTO t(k, v) VALUES (?1, ?2)";

/// W1: single-row transactions of 200-byte blobs with one index, by one writer; for a time ('30s') or a number of them.
pub fn single_rows(db: &Connection, amount: &str) -> Result<()> {
    let (duration, count) = match amount.strip_suffix('s') {
        Some(seconds) => (Duration::from_secs_f64(seconds.parse()?), usize::MAX),
        None => (Duration::MAX, amount.parse()?),
    };
    let mut insert = db.prepare(INSERT)?;
    let mut rows = Rows::new(200);
    let mut latencies_us = Vec::with_capacity(1 << 20);
    let started = Instant::now();
    let mut before = started;
    while before - started < duration && latencies_us.len() < count {
        insert.execute(rows.next())?;
        let now = Instant::now();
        latencies_us.push((now - before).as_nanos() as f32 / 1e3);
        before = now;
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies_us.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| latencies_us[((latencies_us.len() - 1) as f64 * part) as usize];
    println!("rate {:.0}\nseconds {seconds:.3}", latencies_us.len() as f64 / seconds);
    println!("p50_us {:.1}\np99_us {:.1}\nmax_us {:.0}", at(0.5), at(0.99), at(1.0));
    Ok(())
}

/// W2: one transaction.
pub fn bulk(db: &Connection, rows: usize) -> Result<()> {
    let started = Instant::now();
    insert_all(db, rows, 200)?;
    println!("seconds {:.3}", started.elapsed().as_secs_f64());
    Ok(())
}

/// W3: a reader that stays in its transaction for two thirds of the rows.
pub fn beside_a_long_reader(db: &Connection, path: &str, rows: usize) -> Result<()> {
    let reader = Connection::open(path)?;
    reader.execute_batch("BEGIN; SELECT count(*) FROM t")?;
    let mut insert = db.prepare(INSERT)?;
    let mut content = Rows::new(1000);
    let started = Instant::now();
    for number in 0..rows {
        if number == rows * 2 / 3 {
            reader.execute_batch("COMMIT")?;
        }
        insert.execute(content.next())?;
    }
    println!("seconds {:.3}", started.elapsed().as_secs_f64());
    Ok(())
}

/// Nothing happens for some seconds.
pub fn idle(db: &Connection, seconds: f64, is_replicated: bool) -> Result<()> {
    // What the start has left to do is not idling.
    std::thread::sleep(Duration::from_secs(3));
    let requests = || if is_replicated { asked(db).map(|(requests, _)| requests) } else { Ok(0) };
    let (before, requests_before) = (measure::cpu_seconds()?, requests()?);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    println!("cpu_seconds {:.6}", measure::cpu_seconds()? - before);
    println!("requests {}", requests()? - requests_before);
    Ok(())
}

/// Requests, and bytes sent, of the one database that is replicated.
pub fn asked(db: &Connection) -> Result<(i64, i64)> {
    let sql = "SELECT requests_get + requests_put + requests_list + requests_head + requests_delete, bytes_out \
               FROM litestream_status";
    Ok(db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Commits, each waited for: as many objects.
pub fn syncs(db: &Connection, commits: usize) -> Result<()> {
    let mut insert = db.prepare(INSERT)?;
    let mut sync = db.prepare("SELECT litestream_sync()")?;
    let mut rows = Rows::new(200);
    let started = Instant::now();
    for _ in 0..commits {
        insert.execute(rows.next())?;
        sync.query_row([], |_| Ok(()))?;
    }
    println!("seconds {:.3}", started.elapsed().as_secs_f64());
    Ok(())
}

/// 'N,DIRECTORY': commits after quiet; how long until each one's object is in the directory of the replica.
pub fn latency(db: &Connection, amount: &str) -> Result<()> {
    let (count, directory) = amount.split_once(',').ok_or("N,DIRECTORY")?;
    let objects = || std::fs::read_dir(directory).map_or(0, |files| files.filter(|f| is_object(f)).count());
    let mut insert = db.prepare(INSERT)?;
    let mut rows = Rows::new(200);
    let mut latencies_ms = Vec::new();
    for _ in 0..count.parse()? {
        std::thread::sleep(Duration::from_millis(2500));
        let before = objects();
        let started = Instant::now();
        insert.execute(rows.next())?;
        while objects() == before {
            std::thread::sleep(Duration::from_micros(100));
        }
        latencies_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    latencies_ms.sort_unstable_by(f64::total_cmp);
    println!("latency_ms {:.2}", latencies_ms[latencies_ms.len() / 2]);
    Ok(())
}

fn is_object(file: &std::io::Result<std::fs::DirEntry>) -> bool {
    file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|extension| extension == "ltx"))
}

fn insert_all(db: &Connection, rows: usize, size: usize) -> Result<()> {
    let mut content = Rows::new(size);
    db.execute_batch("BEGIN")?;
    {
        let mut insert = db.prepare(INSERT)?;
        for _ in 0..rows {
            insert.execute(content.next())?;
        }
    }
    db.execute_batch("COMMIT")?;
    Ok(())
}
