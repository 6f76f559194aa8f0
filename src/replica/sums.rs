//! The page checksums of a state, without writing it: what the primary compares its database with (invariant 7).

use super::apply::{PageSink, Shape, apply};
use super::attempts::with_plans;
use super::poll::Cancelled;
use super::{Replica, Target};
use crate::error::{Error, Result};
use crate::ltx::{PageSize, Pgno, Rolling, Txid, page_checksum};
use crate::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The checksums of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The state.
    pub txid: Txid,
    /// Of the last file applied.
    pub timestamp: Timestamp,
    /// Of the database.
    pub page_size: PageSize,
    /// The database's size in pages.
    pub commit: u32,
    /// [`page_checksum`] of each page, page 1 first; 0 for the lock page.
    pub pages: Vec<u64>,
    /// The whole database's.
    pub rolling: Rolling,
}

/// Fetches and verifies the files of the target's state, like a restore that keeps 8 bytes of each page.
/// `cancelled` is asked on the calling thread, at least every 50 ms.
///
/// # Errors
/// As [`restore`](super::restore), without those of the local file.
pub fn page_checksums(replica: &Replica, target: Target, cancelled: Cancelled<'_>) -> Result<Sums> {
    with_plans(replica, target, cancelled, |plan, header| {
        let shape = Shape::of(plan, header)?;
        let pages = (0..shape.commit).map(|_| AtomicU64::new(0)).collect();
        let sink = Arc::new(SumSink { page_size: shape.page_size, pages });
        apply(replica, plan, shape, Arc::clone(&sink) as Arc<dyn PageSink>, cancelled)?;
        let pages: Vec<u64> = sink.pages.iter().map(|sum| sum.load(Ordering::Relaxed)).collect();
        let mut rolling = Rolling::EMPTY;
        pages.iter().filter(|sum| **sum != 0).for_each(|sum| rolling.add(*sum));
        Ok(Sums {
            txid: plan.txid(),
            timestamp: header.timestamp,
            page_size: shape.page_size,
            commit: shape.commit,
            pages,
            rolling,
        })
    })
}

struct SumSink {
    page_size: PageSize,
    pages: Vec<AtomicU64>,
}

impl PageSink for SumSink {
    fn write_run(&self, first: Pgno, pages: &[u8]) -> Result<()> {
        for (page, number) in pages.chunks_exact(self.page_size.bytes()).zip(first.get()..) {
            let pgno = Pgno::new(number).ok_or_else(|| Error::bug("page 0"))?;
            let slot = self.pages.get(pgno.index()).ok_or_else(|| Error::bug(format!("page {pgno} in no table")))?;
            slot.store(page_checksum(pgno, page), Ordering::Relaxed);
        }
        Ok(())
    }
}
