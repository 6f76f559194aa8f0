//! Starts while the store is away, or has lost something, and ends.

use super::*;
use crate::ltx::{Level, Txid, TxidRange};
use crate::store::MemoryStore;
use crate::store::fault::{Fault, FaultStore};
use crate::writer::primary::State;
use crate::writer::spool::Spool;

/// A store, and whether it is away.
fn leaving() -> (Arc<dyn Store>, Arc<AtomicBool>) {
    let (faults, away) = (FaultStore::new(Arc::new(MemoryStore::new())), Arc::new(AtomicBool::new(false)));
    let is_away = Arc::clone(&away);
    faults.choose(Box::new(move |_| {
        let error = Error::new(Kind::Unavailable, "the store is away");
        is_away.load(Ordering::Relaxed).then_some(Fault::Before(error))
    }));
    (Arc::new(faults), away)
}

fn sync(primary: &Arc<Primary>) -> Txid {
    primary.sync(TIMEOUT, &|| false).unwrap().unwrap()
}

/// Nothing was committed, so nothing else would show it.
#[test]
fn a_start_without_the_store_says_so_until_the_store_was_seen() {
    let (source, (store, away)) = (Source::new(), leaving());
    source.insert(10);
    let primary = source.start(&store).unwrap();
    sync(&primary);
    primary.stop(&|| false).unwrap();
    drop(primary);
    away.store(true, Ordering::Relaxed);
    let primary = source.start(&store).unwrap();
    let deadline = std::time::Instant::now() + TIMEOUT;
    while primary.status().last_error.is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = primary.status();
    let why = status.last_error.map(|(error, _)| error.to_string()).unwrap_or_default();
    assert!(status.state == State::Retrying && why.contains("the store is away"), "{:?}: {why}", status.state);
    away.store(false, Ordering::Relaxed);
    source.commit(&primary, 10);
    assert_eq!(sync(&primary).get(), 2);
    assert_eq!(primary.status().state, State::Running);
}

/// What is added behind a hole could never be restored.
#[test]
fn a_replica_with_a_hole_is_not_continued() {
    let (source, (store, _)) = (Source::new(), leaving());
    let primary = source.start(&store).unwrap();
    for _ in 0..3 {
        source.commit(&primary, 10);
        sync(&primary);
    }
    primary.stop(&|| false).unwrap();
    let key = primary.replica.layout().key(Level::L0, TxidRange::single(Txid::FIRST.next()));
    drop(primary);
    store.delete(&key).unwrap();
    let error = source.start(&store).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
    for part in ["has a hole", "0000000000000002", "empty URL"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

/// Who follows the message of a primary that has ended, and stops it, gets no error for that.
#[test]
fn stopping_what_has_ended_succeeds_and_ends_all_waits() {
    let (source, (store, _)) = (Source::new(), leaving());
    source.insert(10);
    let primary = source.start(&store).unwrap();
    let durable = sync(&primary);
    primary.failed(&Error::new(Kind::Conflict, "another primary"));
    source.commit(&primary, 10);
    assert!(primary.sync(TIMEOUT, &|| false).unwrap_err().to_string().contains("another primary"));
    assert_eq!(primary.stop(&|| false).unwrap(), Some(durable));
    for error in
        [primary.sync(TIMEOUT, &|| false).unwrap_err(), primary.wait(durable.next(), TIMEOUT, &|| false).unwrap_err()]
    {
        assert!(error.to_string().contains("was stopped"), "{error}");
    }
}

/// The store has come back with less than it held, and what lies between is not here any more.
#[test]
fn a_start_without_the_store_does_not_make_a_hole() {
    let (source, (store, away)) = (Source::new(), leaving());
    let primary = source.start(&store).unwrap();
    for _ in 0..4 {
        source.commit(&primary, 10);
        sync(&primary);
    }
    primary.stop(&|| false).unwrap();
    let key = |txid| primary.replica.layout().key(Level::L0, TxidRange::single(Txid::new(txid).unwrap()));
    let lost: Vec<_> = (2..=5).map(key).filter(|key| store.head(key).unwrap().is_some()).collect();
    let spool = source.directory.path().join(".app.db-litestream/ltx/0");
    for name in std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::remove_file(name).unwrap();
    }
    drop(primary);
    away.store(true, Ordering::Relaxed);
    let primary = source.start(&store).unwrap();
    away.store(false, Ordering::Relaxed);
    lost.iter().for_each(|key| store.delete(key).unwrap());
    source.commit(&primary, 10);
    assert_it_says(&primary, "is neither in the replica");
    assert_eq!(store.list("ltx/").unwrap().len(), 1, "a file was added behind a hole");
}

/// P22: also where the image that was shipped last is in no spool, or the record is gone.
#[test]
fn p22_a_start_goes_on_from_the_time_of_the_newest_object() {
    for (commits, is_known_here) in [(0, true), (1, true), (1, false)] {
        let source = Source::new();
        let memory = Arc::new(MemoryStore::new());
        let store = Arc::clone(&memory) as Arc<dyn Store>;
        memory.set_clock_offset_ms(3_600_000);
        let primary = source.start(&store).unwrap();
        sync(&primary);
        for _ in 0..commits {
            source.commit(&primary, 1);
            sync(&primary);
        }
        let last = primary.durable_txid().unwrap().1;
        primary.stop(&|| false).unwrap();
        drop(primary);
        if !is_known_here {
            std::fs::remove_dir_all(Spool::directory_of(&source.path)).unwrap();
        }
        memory.set_clock_offset_ms(0);
        let primary = source.start(&store).unwrap();
        source.commit(&primary, 1);
        sync(&primary);
        let now = primary.durable_txid().unwrap().1;
        assert!(now > last, "{now} after {last}");
    }
}
