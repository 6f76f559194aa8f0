//! Damaged and missing files: another level takes their place, or they are named and nothing is left.

use super::history::{History, key, sample, txid};
use super::restored;
use crate::error::{Error, Kind};
use crate::ltx::{HEADER_SIZE, Pgno, Txid};
use crate::replica::apply::Limits;
use crate::replica::{Replica, Target};
use crate::store::fault::{Call, Fault, FaultStore, Hold};
use crate::store::{MemoryStore, Metadata, Store};
use std::sync::Arc;

/// Every state is reachable without any one of these files.
const REDUNDANT: &[(u8, u64, u64)] =
    &[(9, 1, 4), (9, 1, 8), (3, 1, 6), (2, 5, 9), (1, 5, 10), (1, 7, 10), (0, 7, 7), (0, 8, 8), (0, 9, 9), (0, 10, 10)];

/// Fully determined: each file is needed.
const NEEDED: &[(u8, u64, u64)] = &[(9, 1, 4), (2, 5, 8), (0, 9, 9), (0, 10, 10)];

type Change = fn(&mut Vec<u8>);

/// Ways in which bytes go bad; each is found, wherever it strikes.
const CHANGES: &[(&str, Change)] = &[
    ("emptied", Vec::clear),
    ("a header left", |bytes| bytes.truncate(HEADER_SIZE)),
    ("half left", |bytes| bytes.truncate(bytes.len() / 2)),
    ("the last byte gone", |bytes| bytes.truncate(bytes.len() - 1)),
    ("a byte more", |bytes| bytes.push(0)),
    ("a bit of the magic", |bytes| bytes[0] ^= 1),
    ("a bit of the page size", |bytes| bytes[10] ^= 0x04),
    ("a huge commit", |bytes| bytes[12] = 0x7f),
    ("a bit of the commit", |bytes| bytes[15] ^= 1),
    ("a bit of the TXIDs", |bytes| bytes[31] ^= 1),
    ("a bit of the timestamp", |bytes| bytes[39] ^= 1),
    ("a reserved byte", |bytes| bytes[90] = 1),
    ("a page number", |bytes| bytes[103] ^= 2),
    ("a bit of a page", |bytes| bytes[150] ^= 1),
    ("a bit of the index", |bytes| flip_from_end(bytes, 26)),
    ("the index terminator", |bytes| flip_from_end(bytes, 25)),
    ("the index size", |bytes| flip_from_end(bytes, 17)),
    ("the post-apply checksum", |bytes| flip_from_end(bytes, 10)),
    ("the file checksum", |bytes| flip_from_end(bytes, 1)),
];

fn flip_from_end(bytes: &mut [u8], distance: usize) {
    let at = bytes.len() - distance;
    bytes[at] ^= 1;
}

fn limits() -> [Limits; 2] {
    [Limits { chunk_bytes: 4 << 20, threads: 2 }, Limits { chunk_bytes: 700, threads: 3 }]
}

#[test]
fn every_kind_of_damage_is_replaced_by_another_level() {
    let history = sample();
    for limits in limits() {
        for (level, min, max) in REDUNDANT {
            for (what, change) in CHANGES {
                let (mut replica, store) = history.replica(REDUNDANT);
                replica.limits = limits;
                store.damage(&key(*level, *min, *max), change).unwrap();
                let database = restored(&replica, Target::Latest);
                assert!(database.unwrap() == history.database(10), "{what} in {}", key(*level, *min, *max));
            }
        }
    }
}

#[test]
fn damage_without_a_replacement_is_named_and_leaves_nothing() {
    let history = sample();
    for limits in limits() {
        for (level, min, max) in NEEDED {
            for (what, change) in CHANGES {
                let (mut replica, store) = history.replica(NEEDED);
                replica.limits = limits;
                let key = key(*level, *min, *max);
                store.damage(&key, change).unwrap();
                let error = restored(&replica, Target::Latest).unwrap_err();
                assert_eq!(error.kind(), Kind::Corrupt, "{what} in {key}: {error}");
                let message = error.to_string();
                let range = format!("TXIDs {}-{}", txid(*min), txid(*max));
                assert!(message.contains(&key) && message.contains(&range), "{what} in {key}: {error}");
            }
        }
    }
}

/// The newest state must not silently become an earlier one, at `latest` or at a time.
#[test]
fn a_damaged_newest_file_is_an_error_not_an_earlier_state() {
    let history = sample();
    for target in [Target::Latest, Target::Txid(txid(10)), Target::Before(crate::time::Timestamp(i64::MAX))] {
        for (what, change) in CHANGES {
            let (replica, store) = history.replica(NEEDED);
            store.damage(&key(0, 10, 10), change).unwrap();
            let error = restored(&replica, target).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
        }
        let (replica, _) = history.replica(NEEDED);
        assert!(restored(&replica, target).unwrap() == history.database(10));
    }
}

#[test]
fn a_removed_file_is_replaced_or_named() {
    let history = sample();
    for (level, min, max) in REDUNDANT {
        let (replica, store) = history.replica(REDUNDANT);
        store.delete(&key(*level, *min, *max)).unwrap();
        assert!(restored(&replica, Target::Txid(txid(10))).unwrap() == history.database(10));
    }
    let (replica, store) = history.replica(NEEDED);
    store.delete(&key(2, 5, 8)).unwrap();
    let error = restored(&replica, Target::Latest).unwrap_err().to_string();
    assert!(error.contains("TXIDs 0000000000000005-0000000000000008 are missing"), "{error}");
}

/// A file that goes between the listing and its request, as retention may do it, is looked for at another level.
#[test]
fn a_file_that_moves_up_while_it_is_wanted_is_found_again() {
    let history = sample();
    let (_, store) = history.replica(NEEDED);
    let faulty = FaultStore::new(Arc::new(store.clone()));
    let hold = Hold::default();
    // The first is the header of the newest file.
    faulty.at(Call::GetRange, 2, Fault::Hold(hold.clone()));
    let replica = Replica::new(Arc::new(faulty));
    let restoring = std::thread::spawn(move || restored(&replica, Target::Latest));
    hold.wait_for(1);
    history.put(&store, &[(1, 5, 10)]);
    for file in [key(0, 9, 9), key(0, 10, 10), key(2, 5, 8)] {
        store.delete(&file).unwrap();
    }
    hold.release();
    assert!(restoring.join().unwrap().unwrap() == history.database(10));
}

/// R4: what the first listing missed is there in the second.
#[test]
fn a_gap_is_believed_only_after_a_second_listing() {
    let history = sample();
    let (_, store) = history.replica(&[(9, 1, 4), (0, 9, 9), (0, 10, 10)]);
    let faulty = FaultStore::new(Arc::new(store.clone()));
    let hold = Hold::default();
    faulty.at(Call::List, 2, Fault::Hold(hold.clone()));
    let replica = Replica::new(Arc::new(faulty));
    let restoring = std::thread::spawn(move || restored(&replica, Target::Latest));
    hold.wait_for(1);
    history.put(&store, &[(2, 5, 8)]);
    hold.release();
    assert!(restoring.join().unwrap().unwrap() == history.database(10));
}

/// A store that is away has damaged nothing: the restore fails as what it is.
#[test]
fn a_store_that_is_away_is_not_damage() {
    let history = sample();
    // The listing, the newest file's header, and files.
    for (call, nth) in [(Call::List, 1), (Call::GetRange, 1), (Call::GetRange, 2)] {
        let (_, store) = history.replica(REDUNDANT);
        let faulty = FaultStore::new(Arc::new(store));
        faulty.at(call, nth, Fault::Before(Error::new(Kind::Unavailable, "the store is away")));
        let replica = Replica::new(Arc::new(faulty));
        assert_eq!(restored(&replica, Target::Latest).unwrap_err().kind(), Kind::Unavailable);
    }
}

/// R1: bytes of an object that was replaced meanwhile are not mixed with those of the listed one.
#[test]
fn an_object_replaced_meanwhile_is_listed_again() {
    let history = sample();
    let mut other = History::new(512);
    (0..10).for_each(|_| other.commit(28, [7]));
    let (_, store) = history.replica(&[(9, 1, 10)]);
    let faulty = FaultStore::new(Arc::new(store.clone()));
    let hold = Hold::default();
    // Header for the plan, header, end, then frames.
    faulty.at(Call::GetRange, 4, Fault::Hold(hold.clone()));
    let mut replica = Replica::new(Arc::new(faulty));
    replica.limits = Limits { chunk_bytes: 700, threads: 1 };
    let restoring = std::thread::spawn(move || restored(&replica, Target::Latest));
    hold.wait_for(1);
    store.put(&key(9, 1, 10), &other.file(1, 10), &Metadata::default()).unwrap();
    hold.release();
    assert!(restoring.join().unwrap().unwrap() == other.database(10));
}

/// A page that no file of a sound plan holds is a hole, not zeros.
#[test]
fn a_hole_is_an_error_that_names_the_page() {
    let mut history = sample();
    let mut grown = History::new(512);
    for pages in [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8] {
        grown.commit(pages, []);
    }
    history.commit(31, []);
    // The database grows from 3 to 8 pages here, but the file after the snapshot comes from another history.
    let store = MemoryStore::new();
    grown.put(&store, &[(9, 1, 10)]);
    history.put(&store, &[(0, 11, 11)]);
    let error = restored(&Replica::new(Arc::new(store)), Target::Latest).unwrap_err();
    assert!(error.to_string().contains("page 4 is in no file"), "{error}");
}

/// Above 1 GiB there is the lock page: in no file, zeros in the database, no hole.
#[test]
fn the_lock_page_is_zeros() {
    let page_size = crate::ltx::PageSize::new(65536).unwrap();
    let lock_page = page_size.lock_page().get();
    let header = crate::ltx::Header {
        page_size,
        commit: lock_page + 2,
        txids: crate::ltx::TxidRange::single(Txid::FIRST),
        timestamp: super::history::time_of(1),
        wal: crate::ltx::WalSpan::default(),
        node: 0,
        pre_apply: None,
    };
    let mut encoder = crate::ltx::Encoder::new(Vec::new(), header).unwrap();
    for number in (1..=lock_page + 2).filter(|number| *number != lock_page) {
        encoder.page(Pgno::new(number).unwrap(), &vec![number as u8 | 1; page_size.bytes()]).unwrap();
    }
    let store = MemoryStore::new();
    store.put(&key(0, 1, 1), &encoder.finish().unwrap().0, &Metadata::default()).unwrap();
    let scratch = super::Scratch::new();
    let path = scratch.join("app.db");
    super::restore_to(&Replica::new(Arc::new(store)), Target::Latest, &path).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), u64::from(lock_page + 2) * 65536);
    for (number, byte) in
        [(lock_page - 1, (lock_page - 1) as u8 | 1), (lock_page, 0), (lock_page + 1, 1 | (lock_page + 1) as u8)]
    {
        let mut page = vec![9; page_size.bytes()];
        let offset = page_size.offset_of(Pgno::new(number).unwrap());
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut page, offset).unwrap();
        assert!(page.iter().all(|found| *found == byte), "page {number}");
    }
}
