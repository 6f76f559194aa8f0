//! Replicas of real databases, in memory, read by the reader alone.

mod ahead;
mod broken_off;
mod copies;
mod damaged;
mod following;
mod hydrating;
mod keeping;
mod local;
mod reading;
mod verifying;

use super::connected::{Connected, Settings, connect_to};
use super::source::Source;
use crate::ltx::{Encoder, Header, Level, PageSize, Pgno, Txid, TxidRange, WalSpan};
use crate::replica::{Layout, Replica, Target};
use crate::store::fault::FaultStore;
use crate::store::{MemoryStore, Metadata, Store};
use crate::time::Timestamp;
use std::sync::Arc;
use tempfile::TempDir;

/// A database, every state of it, and its replica.
struct Written {
    directory: TempDir,
    page_size: usize,
    /// The database after each TXID; the first is empty.
    states: Vec<Vec<u8>>,
    store: MemoryStore,
    faults: FaultStore,
    /// Whether the rolling checksums are left, as we do and Litestream does not.
    sums: bool,
}

impl Written {
    fn new(page_size: usize) -> Self {
        let store = MemoryStore::new();
        let faults = FaultStore::new(Arc::new(store.clone()));
        let directory = tempfile::tempdir().unwrap();
        let written = Self { directory, page_size, states: vec![Vec::new()], store, faults, sums: true };
        written.sql(&format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = 1; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
        ));
        written
    }

    fn sql(&self, sql: &str) {
        run_sql(&self.directory.path().join("a.db"), sql);
    }

    fn now(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("a.db")).unwrap()
    }

    fn txid(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// Runs SQL, and ships what it changed as the next TXID.
    fn ship(&mut self, sql: &str) {
        self.sql(sql);
        self.states.push(self.now());
        let txid = self.txid();
        self.put(0, txid, txid);
    }

    /// Puts the file of a level that leads from the state before `min` to the one after `max`.
    fn put(&self, level: u8, min: u64, max: u64) {
        let bytes = self.file(min, max);
        let mut pairs = Vec::new();
        if self.sums {
            pairs.push((crate::replica::ROLLING_BEFORE.to_owned(), self.rolling(min - 1)));
            pairs.push((crate::replica::ROLLING_AFTER.to_owned(), self.rolling(max)));
        }
        let metadata = Metadata { timestamp: Some(Self::time(max)), pairs };
        self.store.put(&key(level, min, max), &bytes, &metadata).unwrap();
    }

    fn time(txid: u64) -> Timestamp {
        Timestamp(1_700_000_000_000 + txid as i64 * 1000)
    }

    fn rolling(&self, txid: u64) -> String {
        let mut sum = crate::ltx::Rolling::EMPTY;
        for (page, n) in self.states[txid as usize].chunks(self.page_size).zip(1..) {
            sum.add(crate::ltx::page_checksum(Pgno::new(n).unwrap(), page));
        }
        format!("{:016x}", sum.get())
    }

    fn file(&self, min: u64, max: u64) -> Vec<u8> {
        let (before, after) = (&self.states[min as usize - 1], &self.states[max as usize]);
        let header = Header {
            page_size: PageSize::new(self.page_size as u32).unwrap(),
            commit: (after.len() / self.page_size) as u32,
            txids: TxidRange::new(txid(min), txid(max)).unwrap(),
            timestamp: Self::time(max),
            wal: WalSpan::default(),
            node: 0,
            pre_apply: None,
        };
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        for (number, page) in after.chunks(self.page_size).enumerate() {
            // What was dropped by one TXID of the range and came back by another is in the file, too.
            let shrank =
                self.states[min as usize - 1..=max as usize].iter().any(|state| state.len() <= number * self.page_size);
            let former = before.get(number * self.page_size..(number + 1) * self.page_size);
            if min == 1 || shrank || former != Some(page) || self.changed_between(min, max, number) {
                encoder.page(Pgno::new(number as u32 + 1).unwrap(), page).unwrap();
            }
        }
        encoder.finish().unwrap().0
    }

    fn changed_between(&self, min: u64, max: u64, number: usize) -> bool {
        let page =
            |state: &Vec<u8>| state.get(number * self.page_size..(number + 1) * self.page_size).map(<[u8]>::to_vec);
        self.states[min as usize - 1..=max as usize].windows(2).any(|pair| page(&pair[0]) != page(&pair[1]))
    }

    fn store_bytes(&self) -> u64 {
        self.store.counters().bytes_in
    }

    fn delete(&self, level: u8, min: u64, max: u64) {
        self.store.delete(&key(level, min, max)).unwrap();
    }

    fn source(&self) -> Arc<Source> {
        let identity = self.directory.path().display().to_string();
        Arc::new(Source::new(Replica::new(Arc::new(self.faults.clone())), &identity))
    }

    fn at(&self, n: u64) -> crate::error::Result<Connected> {
        open(&self.source(), Target::Txid(txid(n)))
    }

    /// All bytes of what a connection sees are those of a TXID, but for what page 1 shows differently.
    #[track_caller]
    fn assert_sees(&self, connected: &Connected, n: u64) {
        let expected = &self.states[n as usize];
        assert_eq!(connected.position().unwrap().0, txid(n));
        assert_eq!(connected.size(), expected.len() as u64);
        let mut bytes = vec![1; expected.len()];
        for (number, page) in bytes.chunks_mut(self.page_size).enumerate() {
            assert!(connected.read((number * self.page_size) as u64, page, &|| false).unwrap());
        }
        for hidden in [18..20, 24..32, 92..96] {
            bytes[hidden.clone()].copy_from_slice(&expected[hidden]);
        }
        assert!(bytes == *expected, "TXID {n}");
        assert!(!connected.read(expected.len() as u64, &mut [0; 16], &|| false).unwrap(), "beyond the end");
    }
}

/// In the sqlite3 shell: a second SQLite cannot be linked beside the one whose headers we use.
pub(super) fn run_sql(path: &std::path::Path, sql: &str) {
    let output = std::process::Command::new("sqlite3").args(["-bail", "-batch"]).arg(path).arg(sql).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn key(level: u8, min: u64, max: u64) -> String {
    Layout::of("memory:").key(Level::new(level).unwrap(), TxidRange::new(txid(min), txid(max)).unwrap())
}

fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

fn open(source: &Arc<Source>, target: Target) -> crate::error::Result<Connected> {
    // Polls are made by the tests.
    let settings = Settings { poll_interval: std::time::Duration::from_secs(3600), ..Settings::default() };
    connect_to("test.db", Arc::clone(source), target, &settings, &|| false)
}

/// A workload that grows, changes, shrinks and vacuums.
fn workload(written: &mut Written, txids: u64) {
    for n in 0..txids {
        written.ship(&match n % 7 {
            0 => format!("INSERT INTO t(b) SELECT hex(randomblob({})) FROM generate_series_{};", 20 + n, "x").replace(
                "generate_series_x",
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i FROM n)",
            ),
            1 => "UPDATE t SET b = hex(randomblob(30)) WHERE a % 11 = 3;".to_owned(),
            2 => "DELETE FROM t WHERE a % 3 = 0;".to_owned(),
            3 => "INSERT INTO t(b) VALUES (zeroblob(20000));".to_owned(),
            4 => "VACUUM;".to_owned(),
            5 => {
                let u = written.txid();
                format!("CREATE TABLE u{u}(x); INSERT INTO u{u} SELECT b FROM t; CREATE INDEX i{u} ON u{u}(x);")
            }
            _ => "DELETE FROM t WHERE a > (SELECT avg(a) FROM t);".to_owned(),
        });
    }
}

/// Numbers below a bound, the same for the same seed.
fn random_below(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = seed;
    move |end| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end
    }
}
