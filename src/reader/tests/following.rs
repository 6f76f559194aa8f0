//! The reader behind a primary.

use super::{Written, key, open, txid, workload};
use crate::error::Kind;
use crate::replica::Target;
use crate::store::fault::Call;
use crate::store::{Metadata, Store};
use std::time::Duration;

#[test]
fn r10_a_transaction_keeps_its_txid_and_the_next_one_sees_the_newest() {
    for page_size in [512, 4096] {
        let mut written = Written::new(page_size);
        workload(&mut written, 2);
        let source = written.source();
        let connected = open(&source, Target::Latest).unwrap();
        for n in 3..=30 {
            connected.begin().unwrap();
            let former = connected.position().unwrap().0.get();
            workload(&mut written, 1);
            let sql = if n % 2 == 0 { "VACUUM;" } else { "INSERT INTO t(b) SELECT b || a FROM t LIMIT 50;" };
            written.ship(sql);
            source.poll().unwrap();
            written.assert_sees(&connected, former);
            connected.end();
            connected.begin().unwrap();
            written.assert_sees(&connected, written.txid());
            connected.end();
        }
    }
}

/// R9: one GET for a TXID of news, one when there is none, and no LIST.
#[test]
fn r9_following_takes_one_request_per_file_and_lists_nothing() {
    let mut written = Written::new(4096);
    workload(&mut written, 3);
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    written.assert_sees(&connected, 3);
    let (lists, gets) = (written.faults.count(Call::List), written.faults.count(Call::GetEnd));
    let ranges = written.faults.count(Call::GetRange);
    for _ in 0..5 {
        written.ship("UPDATE t SET b = a WHERE a < 20;");
    }
    source.poll().unwrap();
    written.assert_sees(&connected, 8);
    assert_eq!(written.faults.count(Call::List), lists);
    assert_eq!(written.faults.count(Call::GetEnd) - gets, 6, "five files, and one that is not there");
    assert_eq!(written.faults.count(Call::GetRange), ranges, "small files came whole");
}

/// R11: SQLite drops its pages when the data moved, and only then.
#[test]
fn r11_the_change_counter_moves_with_the_data() {
    let mut written = Written::new(4096);
    workload(&mut written, 2);
    let source = written.source();
    let (one, two) = (open(&source, Target::Latest).unwrap(), open(&source, Target::Latest).unwrap());
    let counter = |connected: &super::Connected| {
        let mut bytes = [0; 16];
        connected.read(24, &mut bytes, &|| false).unwrap();
        bytes
    };
    let first = counter(&one);
    assert_eq!(first, counter(&two));
    source.poll().unwrap();
    assert_eq!(first, counter(&one));
    written.ship("INSERT INTO t(b) VALUES (1);");
    source.poll().unwrap();
    assert_ne!(first, counter(&one));
    assert_eq!(counter(&two), counter(&one));
    let mut versions = [0; 2];
    one.read(18, &mut versions, &|| false).unwrap();
    assert_eq!(versions, [1, 1]);
}

/// R2: a file that does not go on from what was read is not applied.
#[test]
fn r2_a_chain_that_does_not_join_is_not_followed() {
    for sums in [true, false] {
        let mut written = Written::new(1024);
        written.sums = sums;
        workload(&mut written, 3);
        let source = written.source();
        let connected = open(&source, Target::Latest).unwrap();
        if sums {
            written.ship("INSERT INTO t(b) VALUES (1);");
            source.poll().unwrap();
        }
        let known = written.txid();
        let mut other = Written::new(1024);
        other.sums = sums;
        workload(&mut other, known + 1);
        let next = key(0, known + 1, known + 1);
        let (mut bytes, _) = other.store.get(&next, 1 << 30).unwrap().unwrap();
        let pairs = other.store.head(&next).unwrap().unwrap().metadata.pairs;
        if !sums {
            // Of a time before.
            bytes = older(&other, known + 1);
        }
        written.store.put(&next, &bytes, &Metadata { timestamp: None, pairs }).unwrap();
        let error = source.poll().unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
        assert_eq!(connected.begin().unwrap_err().kind(), Kind::Diverged);
        assert_eq!(connected.status().state, "error");
    }
}

/// R2: so is the first file after the open, and any of Litestream's: the prefix was wiped, and begun again, between two
/// polls.
#[test]
fn r2_a_file_of_a_replica_that_was_begun_again_is_not_followed() {
    for sums in [true, false] {
        for compacted in [true, false] {
            let (mut written, mut other) = (Written::new(1024), Written::new(1024));
            (written.sums, other.sums) = (sums, sums);
            workload(&mut written, 3);
            let source = written.source();
            let connected = open(&source, Target::Latest).unwrap();
            workload(&mut other, 4);
            (1..=3).for_each(|n| written.delete(0, n, n));
            let keys = if compacted { vec![(1, 1, 3), (0, 4, 4)] } else { (1..=4).map(|n| (0, n, n)).collect() };
            for (level, min, max) in keys {
                written.states.clone_from(&other.states);
                written.put(level, min, max);
            }
            match source.poll() {
                Err(error) => assert_eq!(error.kind(), Kind::Diverged, "{error}"),
                // No file of before is there, so nothing tells it from the same replica; but nothing is mixed.
                Ok(()) => assert!(compacted && !sums),
            }
            if !compacted || sums {
                assert_eq!(connected.begin().unwrap_err().kind(), Kind::Diverged);
            } else {
                written.assert_sees(&connected, 4);
            }
        }
    }
}

/// R1: noticed by the first page that is not there, however short the new history is; a new connection is of it.
#[test]
fn r1_a_page_that_is_gone_tells_that_the_replica_was_begun_again() {
    for left in [0, 2] {
        let mut written = Written::new(1024);
        workload(&mut written, 5);
        let source = written.source();
        let connected = open(&source, Target::Latest).unwrap();
        (1..=5).for_each(|n| written.delete(0, n, n));
        written.states.truncate(1);
        workload(&mut written, left);
        let error = connected.read(3 * 1024, &mut [0; 1024], &|| false).unwrap_err();
        assert_eq!(error.kind(), Kind::Diverged, "{error}");
        assert!(source.follow.lock().restarted.is_some());
    }
}

/// R10: a snapshot that ends at the state's TXID is of a later time, and gives the same pages.
#[test]
fn r10_a_snapshot_takes_the_place_of_files_that_are_gone() {
    let mut written = Written::new(1024);
    workload(&mut written, 6);
    let connected = open(&written.source(), Target::Latest).unwrap();
    let snapshot = retimed(&written.file(1, 6), crate::time::Timestamp(Written::time(6).0 + 5000));
    written.store.put(&key(9, 1, 6), &snapshot, &Metadata::default()).unwrap();
    (1..=5).for_each(|n| written.delete(0, n, n));
    written.assert_sees(&connected, 6);
}

/// The file of a TXID with a timestamp of long ago.
fn older(written: &Written, n: u64) -> Vec<u8> {
    retimed(&written.file(n, n), crate::time::Timestamp(1))
}

fn retimed(bytes: &[u8], timestamp: crate::time::Timestamp) -> Vec<u8> {
    use crate::ltx::{Decoder, Encoder};
    let mut decoder = Decoder::new(bytes).unwrap();
    let mut header = *decoder.header();
    header.timestamp = timestamp;
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    let mut page = vec![0; header.page_size.bytes()];
    while let Some(pgno) = decoder.next_page(&mut page).unwrap() {
        encoder.page(pgno, &page).unwrap();
    }
    encoder.finish().unwrap().0
}

/// R9: what comes next is in compacted files only.
#[test]
fn r9_compaction_and_retention_ahead_of_a_reader() {
    let mut written = Written::new(1024);
    workload(&mut written, 3);
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    workload(&mut written, 12);
    written.put(1, 1, 10);
    (1..=9).for_each(|n| written.delete(0, n, n));
    source.follow.lock().expire();
    source.poll().unwrap();
    written.assert_sees(&connected, 15);
}

/// R2: wiped under a reader.
#[test]
fn r2_a_replica_that_was_wiped_is_noticed_by_the_next_listing() {
    let mut written = Written::new(1024);
    workload(&mut written, 5);
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    (1..=5).for_each(|n| written.delete(0, n, n));
    source.poll().unwrap();
    source.follow.lock().expire();
    assert_eq!(source.poll().unwrap_err().kind(), Kind::Diverged);
    assert_eq!(connected.begin().unwrap_err().kind(), Kind::Diverged);
}

#[test]
fn waiting_for_a_txid() {
    let mut written = Written::new(1024);
    workload(&mut written, 5);
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    assert_eq!(connected.wait(txid(4), Duration::ZERO, &|| false).unwrap(), txid(5));
    let error = connected.wait(txid(6), Duration::from_millis(30), &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    assert_eq!(connected.wait(txid(6), Duration::from_secs(60), &|| true).unwrap_err().kind(), Kind::Interrupted);
    written.ship("INSERT INTO t(b) VALUES (1);");
    assert_eq!(connected.wait(txid(6), Duration::from_secs(60), &|| false).unwrap(), txid(6));
}

/// R12.
#[test]
fn r12_lag_counts_from_the_last_proof() {
    let mut written = Written::new(1024);
    workload(&mut written, 5);
    let source = written.source();
    let past = open(&source, Target::Txid(txid(2))).unwrap();
    assert_eq!(past.lag(), None);
    let connected = open(&source, Target::Latest).unwrap();
    let lag = connected.lag().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(connected.lag().unwrap() > lag);
    source.poll().unwrap();
    assert!(connected.lag().unwrap() < Duration::from_secs(10));
}

/// Who opens and closes all the time lists once (R9, R16).
#[test]
fn a_replica_that_was_just_read_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(1024);
    workload(&mut written, 3);
    for n in 1..=3 {
        let (bytes, _) = written.store.get(&key(0, n, n), 1 << 30).unwrap().unwrap();
        let path = directory.path().join(key(0, n, n));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let url = format!("file://{}", directory.path().display());
    let settings = super::Settings { poll_interval: Duration::from_secs(3600), ..super::Settings::default() };
    let mut lists = None;
    for _ in 0..5 {
        let connected = crate::reader::connect("a.db", &url, Target::Latest, &settings, &|| false).unwrap();
        written.assert_sees(&connected, 3);
        let now = connected.status().counters.list;
        assert_eq!(*lists.get_or_insert(now), now);
    }
}

/// R12: an object that is there and may not be read proves nothing.
#[test]
fn r12_what_is_refused_is_no_proof() {
    let mut written = Written::new(1024);
    workload(&mut written, 3);
    let source = written.source();
    let connected = open(&source, Target::Latest).unwrap();
    let refused = crate::store::fault::Fault::Before(crate::error::Error::new(Kind::Denied, "403 Forbidden"));
    written.faults.always(Call::GetEnd, refused);
    // Nothing new: a key that may not list is told 403, too, and a listing that is answered proves it.
    source.poll().unwrap();
    written.ship("INSERT INTO t(b) VALUES (1);");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(source.poll().unwrap_err().kind(), Kind::Denied);
    assert!(connected.lag().unwrap() >= Duration::from_millis(20));
    assert_eq!(connected.status().state, "retrying");
    written.faults.clear();
    source.poll().unwrap();
    written.assert_sees(&connected, 4);
}

/// However many open at a time: the store is asked for news about once, and nobody waits for ever.
#[test]
fn many_that_open_at_a_time_ask_once() {
    let mut written = Written::new(1024);
    workload(&mut written, 3);
    let source = written.source();
    let _first = open(&source, Target::Latest).unwrap();
    workload(&mut written, 3);
    written.put(1, 1, 5);
    (1..=4).for_each(|n| written.delete(0, n, n));
    source.follow.lock().expire();
    let before = written.faults.count(Call::GetEnd);
    let settings = super::Settings { poll_interval: Duration::from_secs(3600), ..super::Settings::default() };
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let source = std::sync::Arc::clone(&source);
                let connected = super::connect_to("a.db", source, Target::Latest, &settings, &|| false).unwrap();
                assert_eq!(connected.position().unwrap().0, txid(6));
            });
        }
    });
    let asked = written.faults.count(Call::GetEnd) - before;
    // A few requests each time, and the news may come in two parts.
    assert!(asked < 50, "{asked}");
}

/// R9: the shortest interval that anybody asks for counts, as long as he follows.
#[test]
fn r9_who_wants_news_sooner_gets_them_sooner() {
    let mut written = Written::new(1024);
    workload(&mut written, 3);
    let source = written.source();
    let every = |interval| {
        let settings = super::Settings { poll_interval: interval, ..super::Settings::default() };
        super::connect_to("a.db", std::sync::Arc::clone(&source), Target::Latest, &settings, &|| false).unwrap()
    };
    let _slow = every(Duration::from_secs(3600));
    let quick = every(Duration::from_millis(5));
    written.ship("INSERT INTO t(b) VALUES (1);");
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while quick.position().unwrap().0 != txid(4) {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(quick);
    // A poll may be due, and another one under way.
    std::thread::sleep(Duration::from_millis(100));
    let before = written.faults.count(Call::GetEnd);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(written.faults.count(Call::GetEnd), before);
}
