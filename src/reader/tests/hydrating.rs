//! R13: the local copy.

use super::super::connected::{Connected, Settings, connect_to};
use super::super::source::Source;
use super::{Written, workload};
use crate::config::Hydrate;
use crate::error::{Error, Kind};
use crate::replica::Target;
use crate::store::fault::{Call, Fault};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn opened(source: &Arc<Source>, path: Option<&Path>) -> crate::error::Result<Connected> {
    let hydrate = Some(Hydrate { path: path.map(Path::to_owned) });
    let settings = Settings { poll_interval: Duration::from_secs(3600), hydrate, ..Settings::default() };
    connect_to("a.db", Arc::clone(source), Target::Latest, &settings, &|| false)
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
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

#[test]
fn r13_without_a_path_the_file_ends_with_the_connection() {
    let mut written = Written::new(4096);
    workload(&mut written, 3);
    let connected = opened(&written.source(), None).unwrap();
    let path = connected.hydration().unwrap().1;
    until_it_is(&path, &written);
    drop(connected);
    until("it is removed", || !path.exists());
}
