//! A model of a database's history, from which the files of a replica are made.

use crate::ltx::{Encoder, Header, Level, PageSize, Pgno, Rolling, Txid, TxidRange, WalSpan, page_checksum};
use crate::replica::{Layout, Replica};
use crate::store::{MemoryStore, Metadata, Store};
use crate::time::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The time of TXID 1; each further TXID is a second later.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// Every state of a database, and what changed from one to the next.
pub struct History {
    pub page_size: PageSize,
    /// By TXID - 1: the pages.
    states: Vec<Vec<Vec<u8>>>,
    /// By TXID - 1: the numbers of the pages that this TXID wrote.
    changed: Vec<BTreeSet<u32>>,
}

pub fn txid(value: u64) -> Txid {
    Txid::new(value).unwrap()
}

pub fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(txid(min), txid(max)).unwrap()
}

pub fn time_of(number: u64) -> Timestamp {
    Timestamp(EPOCH_MS + i64::try_from(number).unwrap() * 1000)
}

impl History {
    pub fn new(page_size: u32) -> Self {
        Self { page_size: PageSize::new(page_size).unwrap(), states: Vec::new(), changed: Vec::new() }
    }

    /// The next TXID: the database has `pages` pages after it, and those of `touched` that exist are written.
    /// All new pages are written too, as by a primary.
    pub fn commit(&mut self, pages: u32, touched: impl IntoIterator<Item = u32>) {
        let number = self.states.len() as u32 + 1;
        let mut state = self.states.last().cloned().unwrap_or_default();
        let before = state.len() as u32;
        let mut changed: BTreeSet<u32> = touched.into_iter().filter(|pgno| (1..=pages).contains(pgno)).collect();
        changed.extend(before + 1..=pages);
        state.resize(pages as usize, Vec::new());
        for pgno in &changed {
            state[*pgno as usize - 1] = self.content(number, *pgno);
        }
        self.states.push(state);
        self.changed.push(changed);
    }

    /// Half of it compresses, half of it does not; no two TXIDs write the same.
    fn content(&self, number: u32, pgno: u32) -> Vec<u8> {
        let mut seed = u64::from(number) << 32 | u64::from(pgno);
        let half = self.page_size.bytes() / 2;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        });
        let mut page: Vec<u8> = noise.take(half).collect();
        page.resize(self.page_size.bytes(), number as u8);
        page
    }

    pub fn head(&self) -> u64 {
        self.states.len() as u64
    }

    /// The database file at a TXID.
    pub fn database(&self, number: u64) -> Vec<u8> {
        self.states[number as usize - 1].concat()
    }

    pub fn pages(&self, number: u64) -> &[Vec<u8>] {
        &self.states[number as usize - 1]
    }

    /// The database's rolling checksum at a TXID, as metadata has it.
    pub fn rolling(&self, number: u64) -> String {
        let mut sum = Rolling::EMPTY;
        for (page, pgno) in self.pages(number).iter().zip(1..) {
            sum.add(page_checksum(Pgno::new(pgno).unwrap(), page));
        }
        format!("{:016x}", sum.get())
    }

    /// The file of a range of TXIDs, as a compactor makes it.
    pub fn file(&self, min: u64, max: u64) -> Vec<u8> {
        self.file_at(min, max, time_of(max))
    }

    /// The same with another timestamp.
    pub fn file_at(&self, min: u64, max: u64, timestamp: Timestamp) -> Vec<u8> {
        let state = self.pages(max);
        let changed: BTreeSet<u32> = self.changed[min as usize - 1..max as usize].iter().flatten().copied().collect();
        let header = Header {
            page_size: self.page_size,
            commit: state.len() as u32,
            txids: range(min, max),
            timestamp,
            wal: WalSpan::default(),
            node: 0,
            pre_apply: None,
        };
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        for (page, number) in state.iter().zip(1..).filter(|(_, number)| changed.contains(number)) {
            encoder.page(Pgno::new(number).unwrap(), page).unwrap();
        }
        encoder.finish().unwrap().0
    }

    /// Puts files, as (level, first TXID, last TXID), into a store.
    pub fn put(&self, store: &dyn Store, files: &[(u8, u64, u64)]) {
        for (level, min, max) in files {
            let metadata = Metadata { timestamp: Some(time_of(*max)), pairs: Vec::new() };
            store.put(&key(*level, *min, *max), &self.file(*min, *max), &metadata).unwrap();
        }
    }

    /// A replica in memory with these files.
    pub fn replica(&self, files: &[(u8, u64, u64)]) -> (Replica, MemoryStore) {
        let store = MemoryStore::new();
        self.put(&store, files);
        (Replica::new(Arc::new(store.clone())), store)
    }
}

pub fn key(level: u8, min: u64, max: u64) -> String {
    Layout::Plain.key(Level::new(level).unwrap(), range(min, max))
}

/// Ten TXIDs of a database of 512-byte pages that grows, shrinks and grows again.
pub fn sample() -> History {
    let mut history = History::new(512);
    for (pages, touched) in [(3, 1), (5, 2), (40, 3), (40, 17), (9, 4), (12, 5), (12, 11), (30, 1), (28, 20), (28, 28)]
    {
        history.commit(pages, [touched]);
    }
    history
}
