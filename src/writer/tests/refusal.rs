//! What becomes of a database that was refused (P12).

use super::put_back::{
    close, closed_for_a_while, elsewhere, ends_in_an_error, memory, refused, reopen, replicated, sync,
};
use super::*;
use std::fs;

/// A database, closed, that was put back to TXID 1, and its store at TXID 2. Its newest state is kept.
fn put_back(store: &Arc<dyn Store>) -> (TempDir, PathBuf) {
    let source = Source::new();
    source.insert(100);
    replicated(&source, store, 0);
    let closed = close(source);
    fs::copy(&closed.1, beside(&closed.1, ".backup")).unwrap();
    let source = reopen(closed);
    source.db.execute_batch("UPDATE t SET v = hex(randomblob(100))").unwrap();
    replicated(&source, store, 0);
    let closed = close(source);
    fs::copy(&closed.1, beside(&closed.1, ".newest")).unwrap();
    fs::copy(beside(&closed.1, ".backup"), &closed.1).unwrap();
    closed
}

pub(super) const OLDER: [&str; 3] = ["is at TXID 0000000000000001", "is at TXID 0000000000000002", "put back"];

/// The application goes on with the database, and begins again.
#[test]
fn p12_a_refusal_outlasts_commits_and_restarts() {
    let store = memory();
    let mut closed = put_back(&store);
    for is_judged_first in [true, false, true, false] {
        let source = reopen(closed);
        if is_judged_first {
            refused(&source, &store, &OLDER);
        }
        source.insert(3);
        if is_judged_first {
            refused(&source, &store, &OLDER);
        }
        closed = close(source);
    }
    // Another way to write the URL, and a place where others are.
    let others = Arc::new(crate::store::FileStore::new(closed.0.path().join("others"))) as Arc<dyn Store>;
    replicated(&Source::new(), &others, 1);
    let source = reopen(closed);
    source.start(&others).map(|_| ()).unwrap_err();
    refused(&source, &store, &OLDER);
    // It is moved, with its directory.
    let (directory, path) = close(source);
    let aside = beside(&path, ".aside");
    fs::copy(&path, &aside).unwrap();
    fs::rename(&aside, &path).unwrap();
    refused(&reopen((directory, path)), &store, &OLDER);
    assert_eq!(store.list("").unwrap().len(), 2);
}

/// Into the file that is there.
fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

/// The newest state is there again: in another file, or written into this one.
type Restore = fn(&Path, &Path);

#[test]
fn p12_a_refusal_ends_with_a_restore() {
    let restores: [Restore; 3] = [
        |newest, path| fs::rename(newest, path).unwrap(),
        |newest, path| copy(newest, path),
        |newest, path| {
            let (from, mut to) = (Connection::open(newest).unwrap(), Connection::open(path).unwrap());
            rusqlite::backup::Backup::new(&from, &mut to)
                .unwrap()
                .run_to_completion(1000, Duration::ZERO, None)
                .unwrap();
        },
    ];
    for (restore, more) in restores.iter().flat_map(|restore| [(restore, 0), (restore, 3)]) {
        let store = memory();
        let source = reopen(put_back(&store));
        refused(&source, &store, &OLDER);
        source.insert(3);
        let (directory, path) = close(source);
        restore(&beside(&path, ".newest"), &path);
        for _ in 0..more {
            elsewhere(&path, "INSERT INTO t(v) VALUES ('before it is replicated')");
        }
        let source = reopen((directory, path));
        replicated(&source, &store, 5);
        assert_same(&source.restored(&store, Target::Latest), &source.image());
        elsewhere(&source.path, "INSERT INTO t(v) VALUES ('a gap')");
        replicated(&source, &store, 5);
        assert_same(&source.restored(&store, Target::Latest), &source.image());
    }
}

/// What is committed while the gap is healed says nothing of what was there before.
#[test]
fn p12_a_backup_is_refused_beside_a_busy_writer() {
    let (source, store) = (Source::new(), memory());
    source.insert(20_000);
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let backup = beside(&source.path, ".backup");
    let source = closed_for_a_while(source, &primary, |path| copy(path, &backup));
    source.commit(&primary, 3);
    sync(&primary);
    let source = closed_for_a_while(source, &primary, |path| copy(&backup, path));
    for _ in 0..60 {
        source.commit(&primary, 1);
        std::thread::sleep(Duration::from_millis(1));
    }
    ends_in_an_error(&source, &primary, &store, &["put back"]);
}

/// Another place takes it as it is, and what was refused says nothing of that place.
#[test]
fn p12_a_refused_database_is_replicated_to_an_empty_place() {
    let former = memory();
    let source = reopen(put_back(&former));
    let store = Arc::new(crate::store::FileStore::new(source.directory.path().join("anew"))) as Arc<dyn Store>;
    refused(&source, &former, &["put back"]);
    source.insert(3);
    assert_eq!(replicated(&source, &store, 5).get(), 2);
    let (directory, path) = close(source);
    elsewhere(&path, "INSERT INTO t(v) VALUES ('a gap')");
    let source = reopen((directory, path));
    replicated(&source, &store, 5);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}
