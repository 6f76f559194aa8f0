//! R3: two histories under one URL.

use super::history::{History, key, sample, time_of};
use super::{Scratch, restored};
use crate::error::Kind;
use crate::replica::{ROLLING_AFTER, ROLLING_BEFORE, Replica, Target};
use crate::store::{FileStore, Metadata, Store};
use crate::time::Timestamp;
use std::sync::Arc;

/// Puts a file with the mtime and the header timestamp given.
fn put(store: &dyn Store, history: &History, file: (u8, u64, u64), header: Timestamp, modified: Timestamp) {
    let (level, min, max) = file;
    let metadata = Metadata { timestamp: Some(modified), pairs: Vec::new() };
    store.put(&key(level, min, max), &history.file_at(min, max, header), &metadata).unwrap();
}

fn replica(scratch: &Scratch) -> (Replica, Arc<FileStore>) {
    let store = Arc::new(FileStore::new(scratch.join("replica")));
    (Replica::new(Arc::clone(&store) as Arc<dyn Store>), store)
}

/// A database was replicated, lost with its level 0, and began again at TXID 1: Litestream restores a mixture.
#[test]
fn a_history_begun_again_under_an_old_snapshot_is_refused_and_named() {
    let scratch = Scratch::new();
    let (replica, store) = replica(&scratch);
    let (old, mut new) = (sample(), History::new(512));
    (0..3).for_each(|pages| new.commit(pages + 1, [1]));
    put(&*store, &old, (9, 1, 8), time_of(8), time_of(8));
    for number in 1..=3 {
        put(&*store, &new, (0, number, number), time_of(100 + number), time_of(100 + number));
    }
    for target in [Target::Latest, Target::Before(time_of(1000))] {
        let error = restored(&replica, target).unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
        let message = error.to_string();
        assert!(message.contains(&key(9, 1, 8)) && message.contains(&key(0, 3, 3)), "{message}");
    }
}

/// What is normal: level 0 kept below levels and snapshots, with the same or earlier times, uploaded late or copied.
#[test]
fn late_uploads_and_copies_are_no_second_history() {
    let scratch = Scratch::new();
    let (replica, store) = replica(&scratch);
    let history = sample();
    for file in [(9, 1, 8), (2, 5, 10), (1, 9, 10)] {
        put(&*store, &history, file, time_of(file.2), time_of(1));
    }
    for number in 1..=10 {
        put(&*store, &history, (0, number, number), time_of(number), time_of(500 + number));
    }
    assert!(restored(&replica, Target::Latest).unwrap() == history.database(10));
    assert!(restored(&replica, Target::Before(time_of(6))).unwrap() == history.database(5));
}

/// A snapshot's time is Litestream's wall clock when it began, later than its last TXID.
#[test]
fn a_snapshot_later_than_its_txid_is_no_second_history() {
    let scratch = Scratch::new();
    let (replica, store) = replica(&scratch);
    let history = sample();
    put(&*store, &history, (9, 1, 8), time_of(9), time_of(9));
    for number in 1..=10 {
        put(&*store, &history, (0, number, number), time_of(number), time_of(number));
    }
    assert!(restored(&replica, Target::Latest).unwrap() == history.database(10));
}

/// Puts level 0 as we do, of a history that began `late` seconds later; the first image without a checksum.
fn put_as_ours(store: &dyn Store, history: &History, numbers: std::ops::RangeInclusive<u64>, late: u64) {
    for number in numbers {
        let mut pairs = Vec::new();
        if number > 1 {
            pairs.push((ROLLING_BEFORE.to_owned(), history.rolling(number - 1)));
            pairs.push((ROLLING_AFTER.to_owned(), history.rolling(number)));
        }
        let time = time_of(late + number);
        let metadata = Metadata { timestamp: Some(time), pairs };
        store.put(&key(0, number, number), &history.file_at(number, number, time), &metadata).unwrap();
    }
}

/// Objects of another database lie over the first ones of a replica, with newer ones behind them.
#[test]
fn r3_objects_of_another_database_over_those_of_a_replica_are_refused() {
    let (old, mut new) = (sample(), History::new(512));
    (0..5).for_each(|pages| new.commit(pages + 7, [1, 2]));
    for copied in 2..=5 {
        let scratch = Scratch::new();
        let (replica, store) = replica(&scratch);
        put_as_ours(&*store, &old, 1..=10, 0);
        assert!(restored(&replica, Target::Latest).unwrap() == old.database(10));
        put_as_ours(&*store, &new, 1..=copied, 100);
        let error = restored(&replica, Target::Latest).unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
        let message = error.to_string();
        assert!(message.contains(&key(0, copied, copied)), "{message}");
        assert!(message.contains(&key(0, copied + 1, copied + 1)), "{message}");
        // What the message offers.
        let last = Target::Txid(super::history::txid(copied));
        assert!(restored(&replica, last).unwrap() == new.database(copied));
    }
}

/// What was shipped after a restart says nothing of what it follows, and a clock may have been set back: one history.
#[test]
fn r3_a_history_with_a_clock_set_back_is_restored() {
    let scratch = Scratch::new();
    let (replica, store) = replica(&scratch);
    let history = sample();
    put_as_ours(&*store, &history, 1..=1, 3600);
    put_as_ours(&*store, &history, 2..=10, 0);
    assert!(restored(&replica, Target::Latest).unwrap() == history.database(10));
}
