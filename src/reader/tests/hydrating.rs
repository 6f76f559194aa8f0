//! R13: the local copy.

use super::super::connected::{Connected, Settings, connect_to};
use super::super::hydrate::Hydration;
use super::super::hydrating::frames;
use super::super::source::Source;
use super::super::state::State;
use super::{Written, key, random_below, txid, workload};
use crate::config::Hydrate;
use crate::error::{Error, Kind};
use crate::ltx::{Decoder, Level, TxidRange};
use crate::replica::{Target, companion};
use crate::store::fault::{Call, Fault};
use crate::store::{Metadata, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) fn opened(source: &Arc<Source>, path: Option<&Path>) -> crate::error::Result<Connected> {
    let hydrate = Some(Hydrate { path: path.map(Path::to_owned) });
    let settings = Settings { poll_interval: Duration::from_secs(3600), hydrate, ..Settings::default() };
    connect_to("a.db", Arc::clone(source), Target::Latest, &settings, &|| false)
}

#[track_caller]
pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn until_it_is(path: &Path, written: &Written) {
    until("the file is the newest state", || std::fs::read(path).unwrap() == written.states[written.txid() as usize]);
}

#[test]
fn r13_the_file_becomes_each_state_and_is_read() {
    for page_size in [512, 4096] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new(page_size);
        workload(&mut written, 5);
        let source = written.source();
        let connected = opened(&source, Some(&path)).unwrap();
        for _ in 0..14 {
            until_it_is(&path, &written);
            until("it is whole", || {
                source.hydration.read().as_ref().is_some_and(|hydration| hydration.txid() == Some(written.txid()))
            });
            super::super::flight::forget_pages();
            let before = written.faults.count(Call::GetRange);
            written.assert_sees(&connected, written.txid());
            assert_eq!(written.faults.count(Call::GetRange), before, "nothing is fetched");
            // A transaction of before still sees its own state.
            connected.begin().unwrap();
            let former = written.txid();
            workload(&mut written, 7);
            source.poll().unwrap();
            until_it_is(&path, &written);
            written.assert_sees(&connected, former);
            connected.end();
        }
    }
}

#[test]
fn r13_a_copy_is_resumed_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    let mut written = Written::new(4096);
    workload(&mut written, 6);
    let connected = opened(&written.source(), Some(&path)).unwrap();
    until_it_is(&path, &written);
    until("it is whole", || connected.hydration().is_some_and(|(part, _)| part >= 1.0));
    drop(connected);
    written.ship("UPDATE t SET b = 7 WHERE a = 1;");
    let before = written.store_bytes();
    let connected = opened_again(&written, &path);
    until_it_is(&path, &written);
    until("it is whole", || connected.hydration().is_some_and(|(part, _)| part >= 1.0));
    // The files that came whole to be opened, and what the last one changed.
    let files: u64 = (1..=written.txid()).map(|n| written.file(n, n).len() as u64).sum();
    let fetched = written.store_bytes() - before;
    assert!(fetched < 3 * files, "{fetched} of {files}");
}

/// The thread of before gives the file back when it looks.
fn opened_again(written: &Written, path: &Path) -> Connected {
    loop {
        match opened(&written.source(), Some(path)) {
            Err(error) if error.kind() == Kind::Busy => std::thread::sleep(Duration::from_millis(20)),
            outcome => return outcome.unwrap(),
        }
    }
}

/// Stopped anywhere: what is served then is right, and the copy is made to the end.
#[test]
fn r13_a_copy_that_was_broken_off_serves_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    let mut written = Written::new(512);
    workload(&mut written, 3);
    for stop in 1..12 {
        workload(&mut written, 2);
        let source = written.source();
        let refused = Fault::Before(Error::new(Kind::Unavailable, "broken off"));
        for nth in stop..stop + 50 {
            written.faults.at(Call::GetRange, nth, refused.clone());
        }
        let opened_before = opened(&source, Some(&path));
        std::thread::sleep(Duration::from_millis(20));
        drop(opened_before);
        drop(source);
        written.faults.clear();
        let connected = opened_again(&written, &path);
        super::super::flight::forget_pages();
        written.assert_sees(&connected, written.txid());
        until_it_is(&path, &written);
    }
}

#[test]
fn r13_a_file_that_is_not_ours_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious.db");
    std::fs::write(&path, b"precious").unwrap();
    let mut written = Written::new(4096);
    workload(&mut written, 1);
    let error = opened(&written.source(), Some(&path)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("name another hydrate_path"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

/// One copy serves all; where it lies is the wish of who reads, not of who has read.
#[test]
fn r13_who_wants_the_copy_elsewhere_is_told_and_gets_it_once_he_is_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    let mut written = Written::new(4096);
    workload(&mut written, 2);
    let source = written.source();
    let first = opened(&source, None).unwrap();
    let second = opened(&source, Some(&path)).unwrap();
    let (error, _) = source.last_error.lock().clone().unwrap();
    assert!(error.to_string().contains("another connection of this process has it hydrated"), "{error}");
    assert!(!path.exists());
    drop((first, second));
    let alone = opened(&source, Some(&path)).unwrap();
    until_it_is(&path, &written);
    written.assert_sees(&alone, written.txid());
}

/// However the process ends.
#[test]
fn r13_without_a_path_nothing_is_left() {
    let mut written = Written::new(4096);
    workload(&mut written, 3);
    let source = written.source();
    let connected = opened(&source, None).unwrap();
    assert_eq!(connected.hydration().unwrap().1, None);
    until("it is whole", || connected.hydration().is_some_and(|(part, _)| part >= 1.0));
    assert_eq!(source.hydration.read().as_ref().map(|hydration| hydration.links()), Some(0));
    super::super::flight::forget_pages();
    let before = written.faults.count(Call::GetRange);
    written.assert_sees(&connected, 3);
    assert_eq!(written.faults.count(Call::GetRange), before, "nothing is fetched");
}

pub(super) fn state(source: &Arc<Source>, n: u64) -> Arc<State> {
    Arc::new(source.state_at(Target::Txid(txid(n)), &|| false).unwrap().0)
}

pub(super) fn copy(source: &Arc<Source>, path: &Path, n: u64) -> Hydration {
    Hydration::open(&Hydrate { path: Some(path.to_owned()) }, &state(source, n)).unwrap()
}

/// What the file is said to have of each state is what the state has.
#[track_caller]
pub(super) fn assert_right(copy: &Hydration, written: &Written, source: &Arc<Source>, what: &str) {
    for n in 1..=written.txid() {
        let Ok((state, _)) = source.state_at(Target::Txid(txid(n)), &|| false) else { continue };
        for frame in frames(source, &state).map_err(|failed| failed.error).unwrap() {
            let at = frame.pgno.index() * written.page_size;
            let expected = &written.states[n as usize][at..at + written.page_size];
            assert!(copy.get(&frame).is_none_or(|page| page == expected), "{what}: page {} of {n}", frame.pgno);
        }
    }
}

pub(super) fn become_state(copy: &Hydration, source: &Arc<Source>, n: u64, is_wanted: bool) -> Result<(), Error> {
    copy.become_state(source, &state(source, n), &|| is_wanted).map_err(|failed| failed.error)
}

/// Between two states: twice in a row the process ends before a page of the second one came.
#[test]
fn r13_only_what_is_there_counts() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new(512);
        workload(&mut written, 6);
        let n = written.txid();
        written.ship("UPDATE t SET b = hex(randomblob(30)) WHERE a % 5 = 3;");
        written.ship("UPDATE t SET b = hex(randomblob(30)) WHERE a % 4 = 1;");
        let source = written.source();
        become_state(&copy(&source, &path, n), &source, n, true).unwrap();
        for (round, towards) in [n + 1, n + 1, n + 2, n + 1, n + 2].into_iter().enumerate() {
            let copy = copy(&source, &path, towards);
            assert_right(&copy, &written, &source, &format!("round {round}"));
            become_state(&copy, &source, towards, false).unwrap_err();
        }
        let copy = copy(&source, &path, n + 2);
        assert_right(&copy, &written, &source, "at the end");
        // What no state on the way changes is not copied again.
        let before = written.store_bytes();
        let newest = state(&source, n + 2);
        let opening = written.store_bytes() - before;
        become_state(&copy, &source, n + 2, true).unwrap();
        let changed = (written.file(n + 1, n + 1).len() + written.file(n + 2, n + 2).len()) as u64;
        assert!(written.store_bytes() - before <= 2 * opening + changed, "{}", newest.txid);
        assert!(std::fs::read(&path).unwrap() == written.states[n as usize + 2]);
    }
}

/// Any order of states, failures, ends of the process and compactions.
#[test]
fn r13_whatever_is_broken_off_nothing_wrong_is_trusted() {
    for seed in 1..25_u64 {
        let mut below = random_below(seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new(512);
        workload(&mut written, 2 + below(5));
        let source = written.source();
        let mut open = copy(&source, &path, written.txid());
        for step in 0..25 {
            let n = written.txid();
            match below(8) {
                0 => workload(&mut written, 1 + below(2)),
                1 | 2 => {
                    drop(open);
                    open = copy(&source, &path, n);
                }
                3 if below(3) == 0 => {
                    written.put(1, 1, n);
                    (1..n).for_each(|n| written.delete(0, n, n));
                }
                kind => {
                    let target = if below(4) == 0 { (1 + below(n)).max(n.saturating_sub(2)) } else { n };
                    let Ok((state, _)) = source.state_at(Target::Txid(txid(target)), &|| false) else { continue };
                    let refused = Fault::Before(Error::new(Kind::Unavailable, "broken off"));
                    for _ in 0..kind.saturating_sub(4) {
                        written.faults.at(Call::GetRange, 1 + below(4), refused.clone());
                    }
                    let outcome = open.become_state(&source, &Arc::new(state), &|| kind != 3);
                    written.faults.clear();
                    if outcome.is_ok() {
                        assert!(std::fs::read(&path).unwrap() == written.states[target as usize], "{seed} {step}");
                    }
                }
            }
            assert_right(&open, &written, &source, &format!("seed {seed}, step {step}"));
        }
    }
}

/// Other files may lead to the same state.
#[test]
fn r13_a_page_is_there_for_the_object_that_it_came_from() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new(512);
        workload(&mut written, 7);
        let source = written.source();
        let n = written.txid();
        let first = copy(&source, &path, n);
        let state = state(&source, n);
        written.faults.at(Call::GetRange, 3, Fault::Before(Error::new(Kind::Unavailable, "broken off")));
        first.become_state(&source, &state, &|| true).map_err(|failed| failed.error).unwrap_err();
        become_state(&first, &source, n, false).unwrap_err();
        drop(first);
        assert_right(&copy(&source, &path, n), &written, &source, "after a hole");
        written.put(1, 1, n - 1);
        (1..n).for_each(|n| written.delete(0, n, n));
        assert_right(&copy(&source, &path, n), &written, &source, "after a compaction");
    }
}

/// All files of the state are compacted away before they are copied.
#[test]
fn r13_a_copy_goes_on_by_other_files() {
    for is_past in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new(4096);
        workload(&mut written, 6);
        let n = written.txid();
        let source = written.source();
        let target = if is_past { Target::Txid(txid(n)) } else { Target::Latest };
        let connected = super::open(&source, target).unwrap();
        let state = state(&source, n);
        written.put(1, 1, n);
        (1..=n).for_each(|n| written.delete(0, n, n));
        let opened = if is_past { &state } else { &source.current.read().clone().unwrap() };
        source.start_hydrating(&Hydrate { path: Some(path.clone()) }, opened, false).unwrap();
        until_it_is(&path, &written);
        super::super::flight::forget_pages();
        written.assert_sees(&connected, n);
    }
}

/// One object cannot be had: the others of the state are in the file all the same.
#[test]
fn r13_a_failure_leaves_what_came_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    let mut written = Written::new(512);
    workload(&mut written, 6);
    let source = written.source();
    let copy = copy(&source, &path, 6);
    let state = state(&source, 6);
    written.faults.at(Call::GetRange, 1, Fault::Before(Error::new(Kind::Unavailable, "refused")));
    let outcome = copy.become_state(&source, &state, &|| true).map_err(|failed| failed.error);
    assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable);
    let frames = frames(&source, &state).map_err(|failed| failed.error).unwrap();
    let there = frames.iter().filter(|frame| copy.get(frame).is_some()).count();
    assert!(there > 0 && there < frames.len(), "{there} of {}", frames.len());
}

pub(super) fn put_companion(written: &Written, n: u64) {
    put_companion_of(written, 0, n, n);
}

pub(super) fn put_companion_of(written: &Written, level: u8, min: u64, max: u64) {
    let (bytes, key) = (written.file(min, max), key(level, min, max));
    let etag = written.store.head(&key).unwrap().unwrap().etag;
    let (mut pages, mut page) = (0, vec![0; written.page_size]);
    let mut decoder = Decoder::new(bytes.as_slice()).unwrap();
    while decoder.next_page(&mut page).unwrap().is_some() {
        pages += 1;
    }
    let made = companion::of_file(bytes.as_slice(), bytes.len() as u64, pages, &key, &etag);
    let at = companion::key(Level::new(level).unwrap(), TxidRange::new(txid(min), txid(max)).unwrap());
    written.store.put(&at, &made.unwrap().unwrap(), &Metadata::default()).unwrap();
}

/// Two indexes of which nothing is in memory.
#[test]
fn r13_blocks_of_several_indexes_are_read_for_a_page() {
    let mut written = Written::new(512);
    written.ship(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t(b) SELECT randomblob(400) FROM n;",
    );
    for _ in 0..4 {
        written.ship("UPDATE t SET b = randomblob(400) WHERE a < 2990;");
    }
    for n in 1..=written.txid() {
        put_companion(&written, n);
    }
    let source = written.source();
    let state = state(&source, 5);
    assert_eq!(state.blocks_for_a_page(), 3 + 2 * 5);
    state.objects().for_each(|object| super::super::flight::forget_blocks(object.id));
    let found = frames(&source, &state).map_err(|failed| failed.error).unwrap();
    assert_eq!(found.len(), written.states[5].len() / 512);
}

/// A process of the same number was killed.
#[test]
fn r13_a_file_that_was_left_is_in_nobodys_way() {
    let left: Vec<_> = (0..200)
        .map(|number| std::env::temp_dir().join(format!("litestream-{}-{number}.db", std::process::id())))
        .filter(|path| std::fs::File::create_new(path).is_ok())
        .collect();
    let mut written = Written::new(4096);
    workload(&mut written, 1);
    let connected = opened(&written.source(), None).unwrap();
    until("it is whole", || connected.hydration().is_some_and(|(part, _)| part >= 1.0));
    for path in left {
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        std::fs::remove_file(path).unwrap();
    }
}

/// The file is given up by a replica that was begun again, though its connection is still open.
#[test]
fn r13_who_opens_a_replica_anew_gets_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    let mut written = Written::new(4096);
    workload(&mut written, 3);
    let source = written.source();
    let connected = opened(&source, Some(&path)).unwrap();
    until_it_is(&path, &written);
    let error = opened(&written.source(), Some(&path)).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "two at a time");
    source.follow.lock().restarted = Some(source.restarted("a test".to_owned()));
    let again = opened(&written.source(), Some(&path)).unwrap();
    assert!(again.hydration().is_some());
    drop((connected, again));
    // And who closes and opens again.
    opened(&written.source(), Some(&path)).unwrap();
}
