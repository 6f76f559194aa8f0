//! Random histories, files and targets against the model.

use super::history::{History, time_of, txid};
use super::restored;
use crate::error::Kind;
use crate::ltx::page_checksum;
use crate::replica::apply::Limits;
use crate::replica::{Replica, Target, page_checksums};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// (level, first TXID, last TXID)
type File = (u8, u64, u64);

#[derive(Debug, Clone)]
struct Case {
    page_size: u32,
    /// Per TXID: the database's pages after it, and the pages written.
    commits: Vec<(u32, Vec<u32>)>,
    files: Vec<File>,
    chunk_bytes: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let page_size = prop_oneof![4 => Just(512u32), 2 => Just(1024), 2 => Just(4096), 1 => Just(65536)];
    page_size.prop_flat_map(|page_size| {
        let pages = if page_size > 4096 { 1u32..6 } else { 1..24 };
        let commits = prop::collection::vec((pages, prop::collection::vec(1u32..24, 0..6)), 1..12);
        let chunks = prop_oneof![Just(64u64), Just(2000), Just(4 << 20)];
        (Just(page_size), commits, chunks).prop_flat_map(|(page_size, commits, chunk_bytes)| {
            let head = commits.len() as u64;
            let ranges = prop::collection::vec((1u8..9, 1..=head, 0u64..6), 0..8);
            let snapshots = prop::collection::vec(1..=head, 0..3);
            // Which of the files at level 0 are still there.
            let kept = prop_oneof![
                Just(vec![true; commits.len()]),
                prop::collection::vec(prop::bool::weighted(0.7), commits.len())
            ];
            (Just((page_size, commits, chunk_bytes)), ranges, snapshots, kept).prop_map(
                move |((page_size, commits, chunk_bytes), ranges, snapshots, kept)| {
                    let l0 = kept.iter().zip(1u64..).filter(|(kept, _)| **kept).map(|(_, n)| (0, n, n));
                    let compacted = ranges.into_iter().map(|(level, min, more)| (level, min, head.min(min + more)));
                    let snapshots = snapshots.into_iter().map(|max| (9, 1, max));
                    let files: BTreeSet<File> = l0.chain(compacted).chain(snapshots).collect();
                    Case { page_size, commits, files: files.into_iter().collect(), chunk_bytes }
                },
            )
        })
    })
}

/// The TXIDs that some chain of these files ends at: by trying all, not by the plan's rule.
fn reachable(files: &[File]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    loop {
        let joins = |(level, min, max): &&File| {
            *min == 1 || (*level < 9 && found.iter().any(|end| *min <= end + 1 && max > end))
        };
        let more: BTreeSet<u64> = files.iter().filter(joins).map(|file| file.2).collect();
        if more == found {
            return found;
        }
        found = more;
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let mut history = History::new(case.page_size);
    for (pages, touched) in &case.commits {
        history.commit(*pages, touched.iter().copied());
    }
    let (mut replica, _) = history.replica(&case.files);
    replica.limits = Limits { chunk_bytes: case.chunk_bytes, threads: 3 };

    let ends = reachable(&case.files);
    let end = ends.last().copied();
    let gap = end.is_none_or(|end| case.files.iter().any(|(level, min, _)| *level < 9 && *min > end + 1));
    expect(&replica, &history, Target::Latest, end.filter(|_| !gap))?;
    for number in 1..=history.head() {
        let there = ends.contains(&number).then_some(number);
        expect(&replica, &history, Target::Txid(txid(number)), there)?;
        let older: Vec<File> = case.files.iter().copied().filter(|(_, _, max)| *max < number).collect();
        expect(&replica, &history, Target::Before(time_of(number)), reachable(&older).last().copied())?;
    }
    Ok(())
}

/// The target is the state after this TXID, or is refused.
fn expect(replica: &Replica, history: &History, target: Target, state: Option<u64>) -> Result<(), TestCaseError> {
    let database = restored(replica, target);
    let sums = page_checksums(replica, target, &|| false);
    let Some(state) = state else {
        prop_assert_eq!(database.unwrap_err().kind(), Kind::NotFound);
        prop_assert_eq!(sums.unwrap_err().kind(), Kind::NotFound);
        return Ok(());
    };
    prop_assert!(database.unwrap() == history.database(state), "{:?} is not the state after {}", target, state);
    let sums = sums.unwrap();
    prop_assert_eq!((sums.txid, sums.timestamp), (txid(state), time_of(state)));
    let pages = history.pages(state);
    prop_assert_eq!(sums.pages.len(), pages.len());
    for ((sum, page), number) in sums.pages.iter().zip(pages).zip(1..) {
        prop_assert_eq!(*sum, page_checksum(crate::ltx::Pgno::new(number).unwrap(), page));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is left of a history: what can be restored is what was there, and the rest is refused.
    #[test]
    fn every_reachable_state_is_restored_and_no_other(case in cases()) {
        check(&case)?;
    }
}
