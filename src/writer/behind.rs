//! Whether what was shipped is still in the store (P17): a bucket may be emptied while a primary runs, and what is added
//! behind what is gone could never be restored.

use super::encode::Staged;
use super::primary::Primary;
use crate::error::Result;
use crate::ltx::Txid;
use crate::replica::Listing;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// At most so often, and only before something is shipped: a HEAD.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// When it is looked next, and for which object: the one that was the newest when it was looked last. Newer ones may
/// have come to an emptied store meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Look {
    at: Instant,
    at_object: Option<Txid>,
}

impl Look {
    pub(super) fn after(now: Instant) -> Self {
        Self { at: now + LOOK_INTERVAL, at_object: None }
    }
}

impl Primary {
    /// Looks for an object that was shipped. If it is not there, a listing decides before anything is shipped
    /// ([`prove_later`](Self::prove_later)): others may have compacted it into a higher level.
    pub(super) fn look_behind(&self) -> Result<()> {
        let look = *self.look_behind.lock();
        let Some((newest, _)) = self.durable_txid().filter(|_| self.now() >= look.at) else { return Ok(()) };
        if self.store.head(&self.key(look.at_object.unwrap_or(newest)))?.is_none() {
            self.is_lost.store(true, Ordering::Release);
            self.store_unseen.store(true, Ordering::Release);
        }
        *self.look_behind.lock() = Look { at_object: Some(newest), ..Look::after(self.now()) };
        Ok(())
    }

    /// What is durable is what is listed. What is gone is shipped once more, as after a start, if it is still in the spool
    /// and continues what is there.
    pub(super) fn take_back(&self, listing: &Listing) -> Result<()> {
        if !self.is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        let newest = listing.files().iter().filter(|file| Some(file.txids.max) == listing.head());
        let found = newest.map(|file| (file.txids.max, file.created_at)).max();
        {
            let mut progress = self.progress.lock();
            if progress.durable.map(|(txid, _)| txid) != found.map(|(txid, _)| txid) {
                progress.durable = found;
            }
        }
        found.map_or(Ok(()), |(remote, _)| self.stage_again(remote))
    }

    fn stage_again(&self, remote: Txid) -> Result<()> {
        let files = self.spool.files()?;
        self.with_work(|work| {
            for (txid, _) in files.iter().rev().filter(|(txid, _)| *txid > remote) {
                // The one before the oldest that waits.
                if work.staged.front().is_some_and(|first| txid.next() == first.txid) {
                    let timestamp = self.spool.header(*txid)?.timestamp;
                    let after = |txid: u64| Txid::new(txid).and_then(|txid| work.history.after(txid));
                    let rolling = after(txid.get() - 1).zip(after(txid.get()));
                    work.staged.push_front(Staged { txid: *txid, timestamp, sequence: 0, rolling });
                }
            }
            Ok(())
        })
    }
}
