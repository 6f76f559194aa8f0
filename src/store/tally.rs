//! The counters of a store.

use super::Counters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What [`Counters`] counts, shared by threads. The numbers are for people: they need no order among each other.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub get: AtomicU64,
    pub put: AtomicU64,
    pub list: AtomicU64,
    pub head: AtomicU64,
    pub delete: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl Tally {
    /// One more of `what`.
    pub(super) fn one(what: &AtomicU64) {
        what.fetch_add(1, Relaxed);
    }

    /// `bytes` more of `what`.
    pub(super) fn bytes(what: &AtomicU64, bytes: usize) {
        what.fetch_add(bytes as u64, Relaxed);
    }

    /// The counts so far.
    pub(super) fn read(&self) -> Counters {
        Counters {
            get: self.get.load(Relaxed),
            put: self.put.load(Relaxed),
            list: self.list.load(Relaxed),
            head: self.head.load(Relaxed),
            delete: self.delete.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}
