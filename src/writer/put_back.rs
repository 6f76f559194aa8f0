//! A database that was put back to an older state, or another one at its path, is refused (P12).
//!
//! Asked where continuity is not proven, before anything is shipped. What others wrote meanwhile goes forward, and is
//! healed; a state in which the database was after an older TXID, and is again, is a backup that was copied back, and
//! shipping it would take back what was committed since. Content alone tells: a change that was undone by hand in the
//! database file is taken for one, too.

use super::encode::Work;
use super::primary::Primary;
use super::spool::{FileIdentity, Record};
use super::sums::Sums;
use crate::error::Result;
use crate::ltx::Txid;
use crate::replica::ROLLING_AFTER;

/// A table of fewer pages than that says little about whose they are.
const PAGES_THAT_TELL: u32 = 8;

impl Primary {
    /// The newest TXID is here, and the database does not continue from it provably.
    pub(super) fn refuse_put_back(&self, work: &Work, former: Option<&Record>, head: Txid) -> Result<()> {
        let newest = work.sums.as_ref().map(Sums::rolling).or_else(|| work.history.after(head));
        let Some(newest) = newest else { return Ok(()) };
        let Some(found) = self.sums_of_database()? else { return Ok(()) };
        if found.rolling() == newest {
            return Ok(());
        }
        if let Some(older) = work.history.find(found.rolling()) {
            return Err(self.diverged(
                Some(older),
                head,
                "the database has the content of the older one: it was put back",
            ));
        }
        if let (Some(sums), Some(former)) = (&work.sums, former)
            && self.is_another_file(former)
            && is_another_database(sums, &found)
        {
            let why = "the file is another one than before and has no page of it: it is another database";
            return Err(self.diverged(Some(head), head, why));
        }
        Ok(())
    }

    /// The store is ahead of the local record by TXIDs of ours: the record was not written, or the database was put
    /// back together with its metadata directory.
    pub(super) fn refuse_put_back_with_record(&self, work: &Work, local: Option<Txid>, remote: Txid) -> Result<()> {
        let Some(found) = self.sums_of_database()? else { return Ok(()) };
        let mut older = work.history.find(found.rolling()).filter(|txid| *txid < remote);
        let mut txid = local.map_or(Txid::FIRST, Txid::next);
        while txid <= remote {
            let object = self.store.head(&self.key(txid))?;
            let pairs = object.map(|object| object.metadata.pairs).unwrap_or_default();
            let after = pairs.iter().find(|(name, _)| name == ROLLING_AFTER).map(|(_, sum)| sum.as_str());
            if after == Some(&format!("{:016x}", found.rolling())) {
                // Of several TXIDs with this state, the newest counts.
                older = Some(txid).filter(|txid| *txid < remote);
            }
            txid = txid.next();
        }
        match older {
            Some(older) => Err(self.diverged(
                Some(older),
                remote,
                "the database has the content of the older one: it was put back",
            )),
            None => Ok(()),
        }
    }

    fn is_another_file(&self, former: &Record) -> bool {
        let now = FileIdentity::of(&self.path).ok();
        former.file.zip(now).is_some_and(|(before, now)| before != now.number())
    }
}

/// Whether no page is the same. A program that only writes leaves some; one that rebuilds all of them, as VACUUM does,
/// leaves the file.
fn is_another_database(sums: &Sums, found: &Sums) -> bool {
    let common = sums.commit().min(found.commit());
    common >= PAGES_THAT_TELL && (1..=common).all(|pgno| sums.get(pgno) == 0 || sums.get(pgno) != found.get(pgno))
}
