//! States as they were, whatever files they come from, and no other pages whatever happens to the files.

use super::hydrating::until;
use super::{Written, key, open, txid, workload};
use crate::error::Kind;
use crate::replica::Target;
use crate::store::Store;
use crate::store::fault::{Call, Fault, Hold};
use std::sync::Arc;

#[test]
fn r10_every_txid_reads_as_it_was() {
    for page_size in [512, 1024, 4096, 16384, 65536] {
        let mut written = Written::new(page_size);
        workload(&mut written, 21);
        for n in 1..=21 {
            written.assert_sees(&written.at(n).unwrap(), n);
        }
    }
}

#[test]
fn compacted_files_give_the_same_states() {
    let mut written = Written::new(1024);
    workload(&mut written, 20);
    for (level, min, max) in [(1, 1, 5), (1, 6, 10), (2, 1, 10), (9, 1, 12), (1, 11, 15)] {
        written.put(level, min, max);
    }
    for n in 1..=9 {
        if n != 5 {
            written.delete(0, n, n);
        }
    }
    for n in [5, 10, 11, 12, 13, 14, 15, 16, 20] {
        written.assert_sees(&written.at(n).unwrap(), n);
    }
    let error = written.at(3).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

/// R8: one fetch per page, however many ask at the same time.
#[test]
fn r8_a_page_is_fetched_once_however_many_want_it() {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, randomblob(3000000));");
    let source = written.source();
    let connected = Arc::new(open(&source, Target::Latest).unwrap());
    let before = written.faults.count(Call::GetRange);
    let hold = Hold::default();
    written.faults.at(Call::GetRange, 1, Fault::Hold(hold.clone()));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let connected = Arc::clone(&connected);
            std::thread::spawn(move || connected.read(400 * 4096, &mut [0; 4096], &|| false).unwrap())
        })
        .collect();
    hold.wait_for(1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    hold.release();
    readers.into_iter().for_each(|reader| assert!(reader.join().unwrap()));
    assert_eq!(written.faults.count(Call::GetRange) - before, 1);
}

/// R8: a scan takes few requests, and one row few pages.
#[test]
fn r8_a_scan_takes_runs() {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT randomblob(200) FROM n;");
    let connected = open(&written.source(), Target::Latest).unwrap();
    let before = written.faults.count(Call::GetRange);
    written.assert_sees(&connected, 1);
    let requests = written.faults.count(Call::GetRange) - before;
    let pages = written.states[1].len() / 4096;
    assert!(pages > 1000 && requests < 25, "{requests} requests for {pages} pages");
}

/// R10: a file that is deleted under a reader is found elsewhere, or named.
#[test]
fn r10_a_file_that_is_gone_is_found_elsewhere_or_named() {
    let mut written = Written::new(1024);
    workload(&mut written, 12);
    let connected = written.at(12).unwrap();
    connected.begin().unwrap();
    written.put(1, 5, 12);
    (1..=12).filter(|n| *n > 4).for_each(|n| written.delete(0, n, n));
    written.assert_sees(&connected, 12);

    let connected = written.at(4).unwrap();
    connected.begin().unwrap();
    written.put(1, 1, 12);
    (1..=4).for_each(|n| written.delete(0, n, n));
    // Small files came whole, but for page 1 nothing of them was kept.
    let read = connected.read(2 * 1024, &mut [0; 1024], &|| false);
    let error = read.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("TXID 0000000000000004 cannot be read any more"), "{error}");
}

/// R1: the TXID came back with other content.
#[test]
fn r1_a_replica_that_was_begun_again_is_noticed_and_never_mixed() {
    let mut written = Written::new(1024);
    workload(&mut written, 6);
    let connected = written.at(6).unwrap();
    connected.begin().unwrap();
    let mut other = Written::new(1024);
    workload(&mut other, 6);
    for n in 1..=6 {
        let (bytes, _) = other.store.get(&key(0, n, n), 1 << 30).unwrap().unwrap();
        written.store.put(&key(0, n, n), &bytes, &crate::store::Metadata::default()).unwrap();
    }
    let pages = written.states[6].len() / 1024;
    let mut refused = 0;
    for number in 1..pages {
        let mut page = vec![0; 1024];
        match connected.read(number as u64 * 1024, &mut page, &|| false) {
            Ok(_) => assert!(page == written.states[6][number * 1024..(number + 1) * 1024]),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Diverged, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// R3: the first objects are another database's, the newer ones are not.
#[test]
fn r3_mixed_histories_are_not_opened() {
    for copied in 1..=5 {
        let (mut written, mut other) = (Written::new(1024), Written::new(1024));
        workload(&mut written, 6);
        workload(&mut other, copied);
        for n in 1..=copied {
            let (bytes, _) = other.store.get(&key(0, n, n), 1 << 30).unwrap().unwrap();
            let metadata = other.store.head(&key(0, n, n)).unwrap().unwrap().metadata;
            written.store.put(&key(0, n, n), &bytes, &metadata).unwrap();
        }
        let error = open(&written.source(), Target::Latest).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
        let (older, newer) = (key(0, copied, copied), key(0, copied + 1, copied + 1));
        assert!(error.to_string().contains(&older) && error.to_string().contains(&newer), "{error}");
        let earlier = open(&written.source(), Target::Txid(txid(copied))).unwrap();
        other.assert_sees(&earlier, copied);
    }
}

/// R7: damage is found, another level is used, and without one the file is named.
#[test]
fn r7_a_damaged_page_is_found_elsewhere_or_named() {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, randomblob(2000000));");
    let damaged = |written: &Written| {
        written.store.damage(&key(0, 1, 1), |bytes| {
            // The lengths of all frames in the middle.
            let middle = bytes.len() / 2;
            bytes[middle..middle + 200_000].fill(0xa5);
        })
    };
    let connected = written.at(1).unwrap();
    damaged(&written).unwrap();
    let error = connected.read(250 * 4096, &mut [0; 4096], &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains(&key(0, 1, 1)), "{error}");
    // A listing costs: it is not asked for at each read.
    let listings = written.faults.count(Call::List);
    for _ in 0..30 {
        let again = connected.read(250 * 4096, &mut [0; 4096], &|| false).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
    }
    assert!(written.faults.count(Call::List) - listings < 10);
    written.put(9, 1, 1);
    until("the other file is found", || connected.read(250 * 4096, &mut [0; 4096], &|| false).is_ok());
    written.assert_sees(&connected, 1);
}

/// R7: a small file is read whole, and so verified to the last bit, when it is opened and when it is followed.
#[test]
fn r7_one_bit_of_a_small_file_is_noticed() {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, randomblob(30000));");
    written.ship("INSERT INTO t VALUES (2, randomblob(20000));");
    let flip = |written: &Written, n| {
        let in_a_page = written.file(n, n).len() / 2;
        written.store.damage(&key(0, n, n), |bytes| bytes[in_a_page] ^= 1).unwrap();
    };
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    written.ship("INSERT INTO t VALUES (3, randomblob(20000));");
    flip(&written, 3);
    assert_eq!(source.poll().unwrap_err().kind(), Kind::Corrupt);
    written.assert_sees(&connected, 2);
    flip(&written, 3);
    source.poll().unwrap();
    written.assert_sees(&connected, 3);
    flip(&written, 1);
    let error = written.at(3).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    written.put(9, 1, 2);
    written.assert_sees(&written.at(3).unwrap(), 3);
}

#[test]
fn a_moment_is_a_txid_or_a_time() {
    let mut written = Written::new(1024);
    workload(&mut written, 8);
    let connected = open(&written.source(), Target::Latest).unwrap();
    for n in [3, 1, 8, 5] {
        connected.travel(Target::Before(crate::time::Timestamp(Written::time(n).0 + 1)), &|| false).unwrap();
        written.assert_sees(&connected, n);
    }
    let error = connected.travel(Target::Before(Written::time(1)), &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    written.assert_sees(&connected, 5);
    connected.travel(Target::Latest, &|| false).unwrap();
    written.assert_sees(&connected, 8);
    assert_eq!(connected.travel(Target::Txid(txid(9)), &|| false).unwrap_err().kind(), Kind::NotFound);
}

/// A transaction that travels keeps what it sees until its end.
#[test]
fn r10_a_transaction_keeps_its_state_when_the_connection_moves() {
    let mut written = Written::new(1024);
    workload(&mut written, 4);
    let connected = open(&written.source(), Target::Latest).unwrap();
    connected.begin().unwrap();
    connected.travel(Target::Txid(txid(2)), &|| false).unwrap();
    written.assert_sees(&connected, 4);
    connected.end();
    connected.begin().unwrap();
    written.assert_sees(&connected, 2);
}

/// R7: what was the newest state never silently becomes an earlier one.
#[test]
fn r7_a_damaged_newest_file_is_no_earlier_state() {
    let mut written = Written::new(1024);
    workload(&mut written, 5);
    written.store.damage(&key(0, 5, 5), |bytes| bytes[120] ^= 1).unwrap();
    let error = open(&written.source(), Target::Latest).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains(&key(0, 5, 5)), "{error}");
    written.put(1, 4, 5);
    written.assert_sees(&open(&written.source(), Target::Latest).unwrap(), 5);
}
