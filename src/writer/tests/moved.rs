//! Files that are moved or removed while they are open (P9).

use super::*;
use crate::store::MemoryStore;
use crate::writer::State;
use std::fs;

fn running() -> (Source, Arc<dyn Store>, Arc<Primary>) {
    let (source, store) = (Source::new(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    source.insert(20);
    let primary = source.start(&store).unwrap();
    primary.sync(TIMEOUT, &|| false).unwrap();
    (source, store, primary)
}

/// After one more commit. What is in the store stays as it was, and the error stays the last one.
fn ends(store: &Arc<dyn Store>, primary: &Arc<Primary>, header: &IndexHeader, parts: &[&str]) {
    let before = store.list("").unwrap().len();
    primary.published(header);
    primary.wake();
    let error = primary.sync(TIMEOUT, &|| false).unwrap_err();
    assert_eq!((error.kind(), primary.status().state), (Kind::Invalid, State::Error), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    primary.capture_task();
    let last = primary.status().last_error.map(|(error, _)| error.to_string());
    assert_eq!(last, Some(error.to_string()));
    primary.stop(&|| false).unwrap();
    assert_eq!(store.list("").unwrap().len(), before, "something was shipped");
}

#[test]
fn p9_a_database_that_is_moved_while_it_is_open_ends_replication() {
    let happens: [fn(&Path); 4] = [
        |path| fs::rename(path, path.with_file_name("elsewhere.db")).unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| {
            fs::rename(path, path.with_file_name("elsewhere.db")).unwrap();
            fs::copy(path.with_file_name("elsewhere.db"), path).unwrap();
        },
        |path| {
            for suffix in ["", "-wal", "-shm"] {
                fs::rename(beside(path, suffix), beside(&path.with_file_name("elsewhere.db"), suffix)).unwrap();
            }
        },
    ];
    for happens in happens {
        let (source, store, primary) = running();
        source.insert(3);
        let header = source.header();
        happens(&source.path);
        ends(&store, &primary, &header, &["was moved, removed or replaced", "app.db", "litestream_stop()"]);
    }
}

#[test]
fn p9_a_wal_that_is_moved_while_it_is_mapped_ends_replication() {
    for removed in [true, false] {
        let (source, store, primary) = running();
        source.map_index();
        primary.index_mapped();
        assert!(primary.follow.lock().index().is_some());
        source.insert(3);
        let (header, wal) = (source.header(), beside(&source.path, "-wal"));
        if removed {
            fs::remove_file(&wal).unwrap();
        } else {
            fs::rename(&wal, beside(&source.path, "-away")).unwrap();
            fs::write(&wal, "another").unwrap();
        }
        ends(&store, &primary, &header, &["app.db-wal was moved, removed or replaced"]);
    }
}

/// The last connection of whichever process deletes the WAL. Nobody has the wal-index mapped then.
#[test]
fn p9_a_wal_that_a_last_close_deletes_was_not_moved() {
    let (source, _, primary) = running();
    source.map_index();
    primary.index_mapped();
    assert!(primary.follow.lock().index().is_some());
    primary.barrier(Some(&source.header()));
    *source.host.mapped.lock() = None;
    primary.last_close();
    let Source { directory, path, db, .. } = source;
    drop(db);
    assert!(!beside(&path, "-wal").exists());
    primary.refuse_moved().unwrap();
    primary.sync(TIMEOUT, &|| false).unwrap();
    primary.all_closed();
    // An application may remove its database once it has closed it.
    fs::remove_file(&path).unwrap();
    primary.refuse_moved().unwrap();
    drop(directory);
}

#[test]
fn p9_a_metadata_directory_that_was_removed_ends_replication() {
    for anew in [false, true] {
        let (source, store, primary) = running();
        let directory = source.directory.path().join(".app.db-litestream");
        fs::remove_dir_all(&directory).unwrap();
        if anew {
            fs::create_dir_all(directory.join("ltx/0")).unwrap();
            fs::write(directory.join("claim"), "").unwrap();
        }
        source.insert(3);
        let parts = [".app.db-litestream", "was removed", "litestream_stop()", "empty URL"];
        ends(&store, &primary, &source.header(), &parts);
    }
    // What the replica holds is gone on from; what it does not hold is refused.
    let (source, store, primary) = running();
    fs::remove_dir_all(source.directory.path().join(".app.db-litestream")).unwrap();
    // An error, unless a step has found it first: stopping what has ended succeeds.
    let _ = primary.stop(&|| false);
    drop(primary);
    let primary = source.start(&store).unwrap();
    source.commit(&primary, 3);
    primary.sync(TIMEOUT, &|| false).unwrap();
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}
