//! The restore plan: which files, applied one after another, give the state that is wanted.
//!
//! The choice is Litestream's own (`docs/design.md`, restore plan): the newest snapshot at or before the target, then
//! again and again, of all files at the other levels that join, the one that reaches furthest. Each step takes the
//! largest reach, so the walk passes every position that any chain of files passes: where it ends, nothing goes on.

use crate::error::{Error, Kind, Result};
use crate::ltx::{Level, Txid};
use crate::replica::listing::{FileInfo, Listing};
use std::cmp::Reverse;
use std::collections::HashSet;

/// Keys of files that are known to be damaged or gone; a plan does without them.
pub type Excluded = HashSet<String>;

/// Files in the order in which they are applied: later ones win. Never empty; the first begins at TXID 1, and each
/// begins at the latest right after the one before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    files: Vec<FileInfo>,
    txid: Txid,
}

impl Plan {
    /// In the order in which they are applied.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// The TXID of the state that the plan gives.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The size of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// What a plan has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The end of the chain, with nothing behind a gap after it.
    Latest,
    /// Exactly this TXID.
    Txid(Txid),
    /// As far as the listing goes without a gap; what lies beyond does not matter. For a listing cut at a time.
    Furthest,
}

/// How many TXIDs are tried in search of the nearest one that can be restored, for the message only.
const NEAREST_TRIES: usize = 64;

/// Chooses the files.
///
/// # Errors
/// [`Kind::NotFound`], naming what is missing: everything, the TXID (with the nearest that are there), or a range.
pub(super) fn choose(listing: &Listing, goal: Goal, excluded: &Excluded) -> Result<Plan> {
    let bound = match goal {
        Goal::Txid(txid) => Some(txid),
        Goal::Latest | Goal::Furthest => None,
    };
    let files = walk(listing, bound, excluded);
    let end = files.last().map(|file| file.txids.max);
    match (goal, end) {
        (Goal::Txid(wanted), end) if end != Some(wanted) => Err(not_available(listing, wanted, end, excluded)),
        (_, None) => Err(no_start(listing, excluded)),
        (Goal::Latest, Some(end)) => match first_beyond(listing, end, excluded) {
            Some(next) => Err(gap(Some(end), next)),
            None => Ok(Plan { files, txid: end }),
        },
        (_, Some(end)) => Ok(Plan { files, txid: end }),
    }
}

/// The files from the newest snapshot on, as far as they join, none reaching past `bound`.
fn walk(listing: &Listing, bound: Option<Txid>, excluded: &Excluded) -> Vec<FileInfo> {
    let usable = |file: &&FileInfo| bound.is_none_or(|b| file.txids.max <= b) && !excluded.contains(&file.key);
    let snapshots = listing.level(Level::SNAPSHOT).iter().filter(|file| file.txids.min == Txid::FIRST);
    let mut files: Vec<FileInfo> =
        snapshots.filter(usable).max_by_key(|file| file.txids.max).cloned().into_iter().collect();

    let mut levels: Vec<Cursor<'_, _>> = Level::all()
        .rev()
        .filter(|level| *level != Level::SNAPSHOT)
        .map(|level| Cursor { rest: listing.level(level).iter().filter(usable).peekable(), best: None })
        .collect();
    let mut reached = files.last().map(|file| file.txids.max);
    loop {
        let best = levels.iter_mut().filter_map(|level| level.advance(reached)).max_by_key(|file| rank(file));
        let Some(best) = best else { return files };
        reached = Some(best.txids.max);
        files.push(best.clone());
    }
}

/// The first TXID that the next file may begin with at the latest.
fn joint(reached: Option<Txid>) -> Txid {
    reached.map_or(Txid::FIRST, Txid::next)
}

/// Litestream's preference: reach, then the earlier start, the higher level, the older file.
fn rank(file: &FileInfo) -> impl Ord + use<> {
    (file.txids.max, Reverse(file.txids.min), file.level, Reverse(file.created_at))
}

/// One level, read in order of first TXIDs, once: what joins at a position joins at all later ones too.
struct Cursor<'a, I: Iterator<Item = &'a FileInfo>> {
    rest: std::iter::Peekable<I>,
    best: Option<&'a FileInfo>,
}

impl<'a, I: Iterator<Item = &'a FileInfo>> Cursor<'a, I> {
    /// The best file of this level that joins at `reached` and goes beyond it.
    fn advance(&mut self, reached: Option<Txid>) -> Option<&'a FileInfo> {
        while let Some(file) = self.rest.next_if(|file| file.txids.min <= joint(reached)) {
            if self.best.is_none_or(|best| rank(best) < rank(file)) {
                self.best = Some(file);
            }
        }
        self.best.filter(|file| Some(file.txids.max) > reached)
    }
}

/// The smallest TXID behind a gap after `end`.
fn first_beyond(listing: &Listing, end: Txid, excluded: &Excluded) -> Option<Txid> {
    let files = listing.files().iter().filter(|file| file.level != Level::SNAPSHOT && !excluded.contains(&file.key));
    files.map(|file| file.txids.min).filter(|min| *min > end.next()).min()
}

fn not_found(message: String) -> Error {
    Error::new(Kind::NotFound, message)
}

fn gap(end: Option<Txid>, next: Txid) -> Error {
    let first = joint(end);
    let have = end.map_or_else(
        || "no file starts at TXID 1".to_owned(),
        |end| format!("the files reach TXID {end}, the next one starts at {next}"),
    );
    let last = next.get().saturating_sub(1);
    not_found(format!(
        "TXIDs {first}-{last:016x} are missing: {have}. An earlier state can be restored by its TXID or time"
    ))
}

fn no_start(listing: &Listing, excluded: &Excluded) -> Error {
    let usable = listing.files().iter().filter(|file| !excluded.contains(&file.key));
    match usable.map(|file| file.txids.min).min() {
        Some(first) if first > Txid::FIRST => {
            let last = first.get().saturating_sub(1);
            not_found(format!(
                "TXIDs {}-{last:016x} are missing: no file starts at TXID 1, the first one starts at {first}",
                Txid::FIRST
            ))
        }
        _ => not_found("there is no usable LTX file".to_owned()),
    }
}

fn not_available(listing: &Listing, wanted: Txid, below: Option<Txid>, excluded: &Excluded) -> Error {
    let mut ends: Vec<Txid> = listing.files().iter().map(|f| f.txids.max).filter(|max| *max > wanted).collect();
    ends.sort_unstable();
    ends.dedup();
    let reachable = |end: &Txid| walk(listing, Some(*end), excluded).last().map(|file| file.txids.max) == Some(*end);
    let above = ends.into_iter().take(NEAREST_TRIES).find(reachable);
    let nearest = match (below, above) {
        (Some(below), Some(above)) => format!("the nearest are {below} and {above}"),
        (Some(below), None) => format!("the nearest before it is {below}, there is none after it"),
        (None, Some(above)) => format!("the nearest after it is {above}, there is none before it"),
        (None, None) => "there is no other either".to_owned(),
    };
    not_found(format!("TXID {wanted} is not available: {nearest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::TxidRange;
    use crate::replica::Layout;
    use crate::time::Timestamp;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    /// Files as (level, first TXID, last TXID).
    fn listing(files: &[(u8, u64, u64)]) -> Listing {
        let files = files.iter().map(|(level, min, max)| {
            let (level, txids) = (Level::new(*level).unwrap(), TxidRange::new(txid(*min), txid(*max)).unwrap());
            let key = Layout::Plain.key(level, txids);
            FileInfo { level, txids, size: 1, created_at: Timestamp(0), key, etag: None }
        });
        Listing::from_files(files.collect())
    }

    fn chosen(files: &[(u8, u64, u64)], goal: Goal) -> Vec<(u8, u64, u64)> {
        let plan = choose(&listing(files), goal, &Excluded::new()).unwrap();
        let short = |f: &FileInfo| (f.level.get(), f.txids.min.get(), f.txids.max.get());
        plan.files().iter().map(short).collect()
    }

    fn refused(files: &[(u8, u64, u64)], goal: Goal) -> String {
        let error = choose(&listing(files), goal, &Excluded::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        error.to_string()
    }

    #[test]
    fn snapshot_then_the_furthest_reach() {
        let files = [(9, 1, 3), (2, 1, 3), (2, 4, 9), (1, 1, 3), (1, 4, 5), (1, 6, 6), (1, 7, 7), (1, 8, 9), (0, 9, 9)];
        assert_eq!(chosen(&files, Goal::Latest), [(9, 1, 3), (2, 4, 9)]);
        assert_eq!(chosen(&files, Goal::Txid(txid(6))), [(9, 1, 3), (1, 4, 5), (1, 6, 6)]);
        assert_eq!(chosen(&files, Goal::Txid(txid(3))), [(9, 1, 3)]);
        assert!(refused(&files, Goal::Txid(txid(1))).contains("nearest after it is 0000000000000003"));
        assert!(refused(&files, Goal::Txid(txid(4))).contains("0000000000000003 and 0000000000000005"));
        assert!(refused(&files, Goal::Txid(txid(10))).contains("nearest before it is 0000000000000009"));
    }

    #[test]
    fn ties_go_to_the_earlier_start_then_the_higher_level() {
        assert_eq!(chosen(&[(0, 1, 1), (1, 1, 1), (2, 1, 1)], Goal::Latest), [(2, 1, 1)]);
        assert_eq!(chosen(&[(9, 1, 4), (1, 3, 8), (2, 5, 8)], Goal::Latest), [(9, 1, 4), (1, 3, 8)]);
    }

    #[test]
    fn overlaps_join() {
        assert_eq!(
            chosen(&[(3, 1, 5), (2, 3, 8), (1, 7, 12), (0, 12, 12)], Goal::Latest),
            [(3, 1, 5), (2, 3, 8), (1, 7, 12)]
        );
    }

    #[test]
    fn a_gap_is_an_error_for_latest_only() {
        let files = [(0, 1, 1), (0, 2, 2), (0, 5, 5)];
        assert!(refused(&files, Goal::Latest).contains("TXIDs 0000000000000003-0000000000000004 are missing"));
        assert_eq!(chosen(&files, Goal::Furthest), [(0, 1, 1), (0, 2, 2)]);
        assert_eq!(chosen(&files, Goal::Txid(txid(2))), [(0, 1, 1), (0, 2, 2)]);
        assert!(refused(&[(0, 3, 3)], Goal::Latest).contains("TXIDs 0000000000000001-0000000000000002 are missing"));
        assert!(refused(&[], Goal::Latest).contains("no usable LTX file"));
    }

    /// A snapshot that does not begin at TXID 1 holds no whole database.
    #[test]
    fn a_level_9_file_that_is_no_snapshot_is_no_start() {
        assert!(refused(&[(9, 2, 3)], Goal::Latest).contains("no file starts at TXID 1"));
    }

    #[test]
    fn an_excluded_file_is_replaced_by_another_level() {
        let files = listing(&[(9, 1, 3), (9, 1, 6), (2, 4, 6), (0, 6, 6), (0, 7, 7), (1, 4, 7)]);
        let mut excluded = Excluded::new();
        let mut plans = Vec::new();
        while let Ok(plan) = choose(&files, Goal::Txid(txid(7)), &excluded) {
            plans.push(plan.files().iter().map(|f| (f.level.get(), f.txids.max.get())).collect::<Vec<_>>());
            excluded.insert(plan.files()[0].key.clone());
        }
        assert_eq!(plans, [vec![(9, 6), (1, 7)], vec![(9, 3), (1, 7)]]);
    }

    /// The walk must not depend on the square of the number of files (20,000 L0 are normal).
    #[test]
    fn many_files() {
        let files: Vec<_> = (1..=20_000).map(|n| (0, n, n)).collect();
        assert_eq!(chosen(&files, Goal::Latest).len(), 20_000);
    }
}
