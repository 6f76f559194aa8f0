//! Replicas in directories, as they are opened by their URLs.

use super::super::connected::{Settings, connect, is_remembered};
use super::super::hydrating::frames;
use super::super::source::Source;
use super::hydrating::state;
use super::{Connected, Written, key, txid, workload};
use crate::error::Kind;
use crate::ltx::{Level, TxidRange};
use crate::replica::{Layout, Replica, Target, companion};
use crate::store::{FileStore, Metadata, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn url(root: &Path) -> String {
    format!("file://{}", root.display())
}

/// Puts what is in memory into a directory.
fn put(root: &Path, written: &Written) {
    let store = FileStore::new(root);
    for n in 1..=written.txid() {
        let (bytes, _) = written.store.get(&key(0, n, n), u64::MAX).unwrap().unwrap();
        let metadata = Metadata { timestamp: Some(Written::time(n)), pairs: Vec::new() };
        store.put(&Layout::of(&url(root)).key(Level::L0, TxidRange::single(txid(n))), &bytes, &metadata).unwrap();
    }
}

fn opened(root: &Path) -> crate::error::Result<Connected> {
    let settings = Settings { poll_interval: Duration::from_secs(3600), ..Settings::default() };
    connect("a.db", &url(root), Target::Latest, &settings, &|| false)
}

fn sample() -> Written {
    let mut written = Written::new(4096);
    workload(&mut written, 3);
    written
}

/// The next try may come with other credentials.
#[test]
fn what_could_not_be_opened_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("replica");
    opened(&root).map(|_| ()).unwrap_err();
    assert!(!is_remembered(&url(&root)));
    let written = sample();
    put(&root, &written);
    written.assert_sees(&opened(&root).unwrap(), 3);
    assert!(is_remembered(&url(&root)));
}

/// The directory is moved aside, and another replica begins at its URL.
#[test]
fn r1_a_local_replica_that_was_begun_again_is_told_from_one_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let [root, aside, mounted] = ["replica", "aside", "mounted"].map(|name| directory.path().join(name));
    let (former, next) = (sample(), sample());
    put(&root, &former);
    let old = opened(&root).unwrap();
    former.assert_sees(&old, 3);
    std::fs::rename(&root, &aside).unwrap();
    // As below a mount point without its disk.
    std::fs::create_dir(&root).unwrap();
    super::super::flight::forget_pages();
    let error = old.read(8192, &mut [0; 4096], &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    opened(&root).map(|_| ()).unwrap_err();
    std::fs::rename(&root, &mounted).unwrap();
    std::fs::rename(&aside, &root).unwrap();
    old.begin().unwrap();
    former.assert_sees(&old, 3);
    old.end();

    std::fs::rename(&root, &aside).unwrap();
    put(&root, &next);
    next.assert_sees(&opened(&root).unwrap(), 3);
    let error = old.wait(txid(4), Duration::from_secs(60), &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged, "{error}");
    super::super::flight::forget_pages();
    let error = old.read(8192, &mut [0; 4096], &|| false).unwrap_err();
    assert!(error.kind() == Kind::Diverged && error.to_string().contains("begun again"), "{error}");
    assert_eq!(old.begin().unwrap_err().kind(), Kind::Diverged);
    assert_eq!(old.travel(Target::Latest, &|| false).unwrap_err().kind(), Kind::Diverged);
    next.assert_sees(&opened(&root).unwrap(), 3);
}

/// Its files have other ETags then, and the same checksums.
#[test]
fn r6_a_companion_counts_in_a_replica_that_was_copied() {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, randomblob(600000));");
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &written);
    let name = companion::key(Level::L0, TxidRange::single(txid(1)));
    let store = FileStore::new(directory.path());
    let sums = |written: &Written| {
        store.put(&name, &companion_of(written, directory.path()), &Metadata::default()).unwrap();
        let source = Arc::new(Source::new(Replica::new(Arc::new(FileStore::new(directory.path()))), "a copy"));
        let frames = frames(&source, &state(&source, 1)).map_err(|failed| failed.error).unwrap();
        frames.iter().filter(|frame| frame.sum.is_some()).count()
    };
    assert_eq!(sums(&written), written.states[1].len() / 4096);
    // Another content of the same size.
    let mut other = Written::new(4096);
    other.ship("INSERT INTO t VALUES (1, randomblob(600000));");
    assert_eq!(sums(&other), 0);
}

fn companion_of(written: &Written, root: &Path) -> Vec<u8> {
    let key = Layout::of(&url(root)).key(Level::L0, TxidRange::single(txid(1)));
    let bytes = written.file(1, 1);
    let etag = crate::store::ETag("of the place where it was made".to_owned());
    let pages = written.states[1].len() / written.page_size;
    companion::of_file(bytes.as_slice(), bytes.len() as u64, pages, &key, &etag).unwrap().unwrap()
}
