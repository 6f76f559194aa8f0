//! Whether what was shipped is still in the store (P17): a bucket may be emptied while a primary runs, and what is added
//! behind what is gone could never be restored.

use super::encode::Staged;
use super::primary::Primary;
use crate::error::Result;
use crate::ltx::Txid;
use crate::replica::Listing;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// At most so often, and only before something is shipped: a HEAD.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);

impl Primary {
    /// Looks for the object that was shipped last. If it is not there, a listing decides before anything is shipped
    /// ([`prove_later`](Self::prove_later)): others may have compacted it into a higher level.
    pub(super) fn look_behind(&self) -> Result<()> {
        let Some((txid, _)) = self.durable_txid().filter(|_| self.now() >= *self.look_behind_at.lock()) else {
            return Ok(());
        };
        if self.store.head(&self.key(txid))?.is_none() {
            self.is_lost.store(true, Ordering::Release);
            self.store_unseen.store(true, Ordering::Release);
        }
        *self.look_behind_at.lock() = self.now() + LOOK_INTERVAL;
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
