//! Which states the database went through: the rolling checksum after each TXID (P12). A database that has one of them
//! again, and not the newest, was put back.
//!
//! In the file an entry is TXID and checksum, u64, big-endian, appended and not synced: what a power cut takes is only
//! not recognised later. The TXIDs of one replica are followed, so another one begins an empty file.

use crate::error::{Context, Result};
use crate::ltx::Txid;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Entries that are kept, at least.
const KEPT: usize = 8192;
const ENTRY: usize = 16;

/// The states, oldest first.
pub(super) struct History {
    path: PathBuf,
    entries: Vec<(Txid, u64)>,
    /// The file holds these entries, and can be appended to.
    appends: bool,
}

impl History {
    /// The states of the replica to which the file belongs; of another one none are known.
    pub(super) fn open(path: PathBuf, is_of_this_replica: bool) -> Self {
        let bytes = if is_of_this_replica { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let entries: Vec<_> =
            entries.iter().filter_map(|entry| Some((Txid::new(word(entry))?, word(&entry[8..])))).collect();
        let appends = is_of_this_replica && rest.is_empty() && entries.len() < 2 * KEPT;
        Self { path, entries, appends }
    }

    /// The state after a TXID is this one. A TXID that was merged into has a new state (P18).
    pub(super) fn push(&mut self, txid: Txid, rolling: u64) -> Result<()> {
        if self.entries.last() == Some(&(txid, rolling)) {
            return Ok(());
        }
        self.entries.push((txid, rolling));
        let name = || self.path.display().to_string();
        if self.appends && self.entries.len() < 2 * KEPT {
            let file = File::options().append(true).create(true).open(&self.path);
            return file
                .and_then(|mut file| file.write_all(&bytes(&self.entries[self.entries.len() - 1..])))
                .with_context(name);
        }
        self.entries.drain(..self.entries.len().saturating_sub(KEPT));
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        super::spool::replace(&self.path, false, |file| file.write_all(&bytes(&self.entries)))?;
        self.appends = true;
        Ok(())
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The oldest TXID whose state is known.
    pub(super) fn oldest(&self) -> Option<Txid> {
        self.entries.iter().map(|(txid, _)| *txid).min()
    }

    /// States before those that are known, oldest first: the replica has told them.
    pub(super) fn begin_with(&mut self, mut older: Vec<(Txid, u64)>) -> Result<()> {
        older.append(&mut self.entries);
        self.entries = older;
        self.write()
    }

    /// The state after a TXID.
    pub(super) fn after(&self, txid: Txid) -> Option<u64> {
        self.entries.iter().rev().find(|(known, _)| *known == txid).map(|(_, sum)| *sum)
    }

    /// The newest TXID after which the database had this checksum.
    pub(super) fn find(&self, rolling: u64) -> Option<Txid> {
        self.entries.iter().rev().find(|(_, sum)| *sum == rolling).map(|(txid, _)| *txid)
    }
}

fn bytes(entries: &[(Txid, u64)]) -> Vec<u8> {
    entries.iter().flat_map(|(txid, sum)| [txid.get().to_be_bytes(), sum.to_be_bytes()]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_the_newest_states_are_remembered_within_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let txid = |n| Txid::new(n).unwrap();
        let mut history = History::open(path.clone(), true);
        for n in 1..=(3 * KEPT as u64) {
            history.push(txid(n), n << 8).unwrap();
        }
        let newest = 3 * KEPT as u64;
        assert!(std::fs::metadata(&path).unwrap().len() <= (2 * KEPT * ENTRY) as u64);
        // A torn end, as after a power cut.
        File::options().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        let mut history = History::open(path.clone(), true);
        assert_eq!(history.find((newest - 100) << 8), Some(txid(newest - 100)));
        assert_eq!((history.find(1 << 8), history.after(txid(newest))), (None, Some(newest << 8)));
        history.push(txid(newest + 1), 7).unwrap();
        assert_eq!(History::open(path.clone(), true).find(7), Some(txid(newest + 1)));
        assert_eq!(History::open(path, false).find(7), None);
    }
}
