//! What reaches the store, when the store does not always answer.

use super::*;
use crate::ltx::Txid;
use crate::store::MemoryStore;
use crate::store::fault::{Call, Fault, FaultStore};
use crate::writer::primary::State;
use crate::writer::spool::Spool;

fn faulty() -> (Arc<FaultStore>, Arc<dyn Store>) {
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
    let store = Arc::clone(&faults) as Arc<dyn Store>;
    (faults, store)
}

fn away() -> crate::error::Error {
    crate::error::Error::new(Kind::Unavailable, "the store is away")
}

fn sync(primary: &Arc<Primary>) -> Txid {
    primary.sync(TIMEOUT, &|| false).unwrap().unwrap()
}

#[test]
fn p17_the_first_txid_is_a_complete_image_and_the_next_ones_follow_without_a_gap() {
    let source = Source::new();
    source.insert(100);
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    assert_eq!(sync(&primary), Txid::FIRST);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    for n in 2..6 {
        source.commit(&primary, 10);
        assert_eq!(sync(&primary).get(), n);
        assert_same(&source.restored(&store, Target::Latest), &source.image());
    }
}

/// Frames that were spilled and rolled back, in a WAL of which nothing is published: the wal-index says so.
#[test]
fn p2_a_wal_of_which_nothing_is_published_is_not_waited_for() {
    let source = Source::new();
    source.insert(10);
    let Source { directory, path, db, broken, host } = source;
    drop(db);
    let source = Source { db: Connection::open(&path).unwrap(), directory, path, broken, host };
    source.db.execute_batch("PRAGMA cache_size = 5; BEGIN").unwrap();
    source.insert(1000);
    source.db.execute_batch("ROLLBACK").unwrap();
    assert!(std::fs::metadata(beside(&source.path, "-wal")).unwrap().len() > 100_000);
    assert_eq!(source.published(), None);
    source.map_index();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    assert_eq!(sync(&primary), Txid::FIRST);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    // The copy of the wal-index grows old.
    *source.host.mapped.lock() = None;
    primary.index_unmapped();
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 2);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// Between the last close and the end of the mapping a thread looks at the wal-index once more. What it says is known, and
/// the WAL that it speaks of is gone.
#[test]
fn p33_the_wal_index_says_nothing_new_after_the_last_close() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 10);
    let expected = source.image();
    source.map_index();
    primary.index_mapped();
    primary.barrier(Some(&source.header()));
    primary.last_close();
    let _ = primary.sync(Duration::ZERO, &|| false);
    primary.index_unmapped();
    let Source { directory, path, db, broken, host } = source;
    drop(db);
    assert!(!beside(&path, "-wal").exists());
    primary.all_closed();
    sync(&primary);
    let source = Source { db: Connection::open(&path).unwrap(), directory, path, broken, host };
    assert_same(&source.restored(&store, Target::Latest), &expected);
}

/// The wal-index is unmapped while it is followed, and with it goes what kept the WAL: what another process writes until
/// the next opening is found.
#[test]
fn p15_nothing_is_held_once_the_wal_index_is_unmapped() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 10);
    sync(&primary);
    // Another process commits; the last connection here closes while that is captured.
    source.insert(20);
    source.map_index();
    let (host, unmapped) = (Arc::clone(&source.host), Arc::downgrade(&primary));
    *source.host.at_next_read.lock() = Some(Box::new(move || {
        *host.mapped.lock() = None;
        unmapped.upgrade().unwrap().index_unmapped();
    }));
    primary.foreign_commit();
    let end = std::time::Instant::now() + TIMEOUT;
    while source.host.at_next_read.lock().is_some() || primary.look_due.lock().is_some() {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    }
    primary.all_closed();
    primary.rest();
    source.insert(30);
    source.db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    source.insert(5);
    primary.resume();
    primary.reopened();
    primary.wal_opened();
    source.map_index();
    primary.index_mapped();
    primary.reading(&source.header());
    primary.write_locked(&source.header());
    source.commit(&primary, 1);
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P8: what could not be synced here is not shipped; afterwards it is.
#[test]
fn p8_nothing_is_shipped_before_the_wal_is_on_the_disk() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    source.broken.store(true, Ordering::Relaxed);
    source.commit(&primary, 10);
    assert_it_says(&primary, "(P8)");
    assert_eq!(primary.status().state, State::Retrying);
    assert_eq!(store.list("ltx/").unwrap().len(), 1);
    assert_eq!(primary.status().spool_files, 0);
    source.broken.store(false, Ordering::Relaxed);
    assert_eq!(sync(&primary).get(), 2);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// A record that cannot be written costs continuity at the next start, and does not ship the batch a second time.
#[test]
fn p11_a_batch_whose_record_cannot_be_written_is_one_object() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let in_the_way = source.directory.path().join(".app.db-litestream/record.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 2);
    assert!(primary.status().last_error.unwrap().0.to_string().contains("record"));
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(sync(&primary).get(), 2);
    assert_eq!(store.list("ltx/").unwrap().len(), 2);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P1: one publication per commit. Told again, told late, or told of a restart it is none.
#[test]
fn p1_a_commit_is_published_once() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    let before = source.header();
    assert!(!primary.published(&before));
    source.insert(1);
    let after = source.header();
    assert!(primary.published(&after));
    assert!(!primary.published(&after));
    assert!(!primary.published(&before));
    assert!(!primary.published(&IndexHeader { max_frame: 0, ..after }));
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P19: a PUT whose answer is lost has happened; the next attempt finds its own bytes and goes on.
#[test]
fn p19_a_lost_answer_is_resolved_with_the_same_bytes() {
    let source = Source::new();
    let (faults, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    faults.at(Call::PutIfAbsent, 1, Fault::After(away()));
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 2);
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 3);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P20: an object that somebody else made is never overwritten; shipping ends, and says so.
#[test]
fn p20_a_foreign_object_ends_shipping_and_stays() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let key = "ltx/0/0000000000000002-0000000000000002.ltx";
    store.put(key, b"of another primary", &crate::store::Metadata::default()).unwrap();
    source.commit(&primary, 10);
    let error = primary.sync(TIMEOUT, &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("was created by another primary"), "{error}");
    assert_eq!(primary.status().state, State::Fenced);
    assert_eq!(store.get(key, 100).unwrap().unwrap().0, b"of another primary");
}

/// P18: while the store is away, commits go on in one open batch, and afterwards everything arrives.
#[test]
fn p18_an_outage_leaves_one_file_in_the_spool_and_then_everything_arrives() {
    let source = Source::new();
    let (faults, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    faults.always(Call::PutIfAbsent, Fault::Before(away()));
    for _ in 0..20 {
        source.commit(&primary, 5);
    }
    assert_it_says(&primary, "commits after TXID 0000000000000001");
    while primary.status().last_error.is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = primary.status();
    assert_eq!((status.state, status.spool_files), (State::Retrying, 1));
    assert!(status.last_error.is_some() && status.lag > Duration::ZERO);
    faults.clear();
    assert_eq!(sync(&primary).get(), 3);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    assert_eq!((primary.status().state, primary.lag()), (State::Running, Duration::ZERO));
}

/// P22: timestamps rise with the TXIDs, also when the clock of the store is behind.
#[test]
fn p22_timestamps_never_go_back() {
    let source = Source::new();
    let memory = Arc::new(MemoryStore::new());
    let store = Arc::clone(&memory) as Arc<dyn Store>;
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let mut last = primary.durable_txid().unwrap().1;
    for offset in [0, -60_000, 60_000, 0] {
        memory.set_clock_offset_ms(offset);
        source.commit(&primary, 1);
        sync(&primary);
        let now = primary.durable_txid().unwrap().1;
        assert!(now > last, "{now} after {last}");
        last = now;
    }
}

/// P21: the rolling checksums in the metadata chain the objects together.
#[test]
fn p21_each_object_begins_with_the_checksum_with_which_the_one_before_ended() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    for _ in 0..3 {
        source.commit(&primary, 50);
        sync(&primary);
    }
    let metadata = |n: u64, name: &str| {
        let object = store.head(&format!("ltx/0/{n:016x}-{n:016x}.ltx")).unwrap().unwrap();
        object.metadata.pairs.into_iter().find(|(key, _)| key == name).unwrap().1
    };
    assert_eq!(metadata(2, "liblitestream-after"), metadata(3, "liblitestream-before"));
    assert_eq!(metadata(3, "liblitestream-after"), metadata(4, "liblitestream-before"));
    let sums = crate::replica::page_checksums(&Replica::new(Arc::clone(&store)), Target::Latest, &|| false).unwrap();
    assert_eq!(metadata(4, "liblitestream-after"), format!("{:016x}", sums.rolling.get()));
}

/// P12: after a gap only the pages that differ are shipped.
#[test]
fn p12_a_gap_is_healed_with_the_pages_that_differ() {
    let source = Source::new();
    source.insert(2000);
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    primary.stop(&|| false).unwrap();
    drop(primary);
    // Unseen: a commit, a checkpoint, a new generation of the WAL.
    source.insert(1);
    source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    source.insert(1);
    let primary = source.start(&store).unwrap();
    assert_eq!(sync(&primary).get(), 2);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    let size = |n: u64| store.head(&format!("ltx/0/{n:016x}-{n:016x}.ltx")).unwrap().unwrap().size;
    assert!(size(2) * 20 < size(1), "{} bytes for a row, {} for the image", size(2), size(1));
}

/// A start while the store is away needs a local record; then it goes on where it was.
#[test]
fn a_start_without_the_store_needs_a_local_record() {
    let source = Source::new();
    let (faults, store) = faulty();
    faults.always(Call::List, Fault::Before(away()));
    assert_eq!(source.start(&store).map(|_| ()).unwrap_err().kind(), Kind::Unavailable);
    faults.clear();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    source.commit(&primary, 3);
    sync(&primary);
    primary.stop(&|| false).unwrap();
    drop(primary);
    faults.always(Call::List, Fault::Before(away()));
    faults.always(Call::PutIfAbsent, Fault::Before(away()));
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 3);
    assert!(primary.sync(Duration::from_millis(300), &|| false).is_err());
    faults.clear();
    assert_eq!(sync(&primary).get(), 3);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// A process that dies between an upload and its record finds its own object, and goes on.
#[test]
fn an_object_of_ours_that_the_record_does_not_know_is_recognised() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let record = source.directory.path().join(".app.db-litestream/record");
    let before = std::fs::read(&record).unwrap();
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 2);
    primary.stop(&|| false).unwrap();
    drop(primary);
    std::fs::write(&record, before).unwrap();
    std::fs::remove_file(
        source.directory.path().join(".app.db-litestream/ltx/0/0000000000000002-0000000000000002.ltx"),
    )
    .unwrap();
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 3);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P11: the record is not synced, so that a power cut may take it, or leave nothing of its content. Which objects are
/// ours is known nevertheless, by the record of the start, and the checksums are those that are here.
#[test]
fn p11_a_record_that_was_lost_with_the_power_costs_continuity_and_nothing_else() {
    for damage in [None, Some(&b""[..]), Some(&[0; 300][..])] {
        let source = Source::new();
        let (_, store) = faulty();
        let primary = source.start(&store).unwrap();
        sync(&primary);
        primary.stop(&|| false).unwrap();
        drop(primary);
        let record = source.directory.path().join(".app.db-litestream/record");
        match damage {
            None => std::fs::remove_file(&record).unwrap(),
            Some(bytes) => std::fs::write(&record, bytes).unwrap(),
        }
        source.insert(1);
        let got = store.counters().get;
        let primary = source.start(&store).unwrap();
        assert_eq!(sync(&primary).get(), 2);
        assert_eq!(store.counters().get - got, 2, "one header: whose it is, and of when");
        assert_same(&source.restored(&store, Target::Latest), &source.image());
    }
}

/// P11: a record that went back to that of an earlier process does not hide the objects of the last one.
#[test]
fn p11_an_older_record_than_that_of_the_start_does_not_count() {
    let source = Source::new();
    let (_, store) = faulty();
    let record = source.directory.path().join(".app.db-litestream/record");
    let mut former = Vec::new();
    for txid in 1..=2 {
        let primary = source.start(&store).unwrap();
        source.commit(&primary, 1);
        sync(&primary);
        primary.stop(&|| false).unwrap();
        if txid == 1 {
            former = std::fs::read(&record).unwrap();
        }
    }
    std::fs::write(&record, former).unwrap();
    for (txid, _) in Spool::open(&source.path).unwrap().files().unwrap() {
        Spool::open(&source.path).unwrap().remove(txid).unwrap();
    }
    source.insert(1);
    let primary = source.start(&store).unwrap();
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// DESIGN 7: a database that is not what the replica holds is refused, with both positions and the ways out.
#[test]
fn a_database_without_a_record_may_go_on_only_if_it_is_what_the_replica_holds() {
    let source = Source::new();
    source.insert(10);
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    primary.stop(&|| false).unwrap();
    drop(primary);
    std::fs::remove_dir_all(source.directory.path().join(".app.db-litestream")).unwrap();
    let primary = source.start(&store).unwrap();
    assert_eq!(sync(&primary), Txid::FIRST);
    primary.stop(&|| false).unwrap();
    drop(primary);
    std::fs::remove_dir_all(source.directory.path().join(".app.db-litestream")).unwrap();
    source.insert(1);
    let error = source.start(&store).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
    for part in ["no record", "TXID 0000000000000001", "litestream_restore", "empty URL"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

/// P5: a barrier that could not be had in time is not taken for one that ran.
#[test]
fn p5_a_restart_after_a_missed_barrier_is_a_gap_that_is_healed() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    source.insert(50);
    let held = primary.capture.lock();
    primary.barrier(Some(&source.header()));
    drop(held);
    source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    primary.restarted(&source.header());
    source.insert(1);
    primary.header_write(source.header().salts);
    primary.published(&source.header());
    primary.wake();
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// A connection without a tap writes and restarts the WAL: the next writer of ours sees other salts under its lock.
#[test]
fn a_restart_by_a_connection_without_a_tap_is_a_gap_that_is_healed() {
    let source = Source::new();
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 10);
    sync(&primary);
    source.insert(50);
    source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    primary.write_locked(&source.header());
    source.insert(1);
    primary.header_write(source.header().salts);
    primary.published(&source.header());
    primary.wake();
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P23: who waits is not paced, also if a step that began before him found nothing to ship and ends after he came.
#[test]
fn p23_a_step_that_found_nothing_does_not_end_the_hurry_of_who_came_meanwhile() {
    let source = Source::new();
    let (_, store) = faulty();
    let an_hour = Options { sync_interval: Duration::from_secs(3600), ..Options::default() };
    let primary = source.start_with(&store, an_hour).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                primary.schedule_ship(primary.now());
                std::thread::yield_now();
            }
        });
        let synced = (0..300).all(|_| {
            source.commit(&primary, 1);
            primary.sync(TIMEOUT, &|| false).is_ok()
        });
        ended.store(true, Ordering::Relaxed);
        assert!(synced);
    });
}
