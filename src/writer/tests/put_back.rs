//! A database that was put back, or exchanged, is refused (P12).

use super::refusal::OLDER;
use super::*;
use crate::error::Kind;
use crate::ltx::Txid;
use crate::store::MemoryStore;
use crate::store::fault::{Call, Fault, FaultStore};
use crate::writer::State;
use std::fs;

pub(super) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

pub(super) fn sync(primary: &Arc<Primary>) -> Txid {
    primary.sync(TIMEOUT, &|| false).unwrap().unwrap()
}

/// A database whose file alone holds everything, closed: it may be copied and put back.
pub(super) fn close(source: Source) -> (TempDir, PathBuf) {
    let Source { directory, path, db, .. } = source;
    drop(db);
    assert!(!beside(&path, "-wal").exists());
    (directory, path)
}

pub(super) fn reopen((directory, path): (TempDir, PathBuf)) -> Source {
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA wal_autocheckpoint=0; SELECT count(*) FROM t").unwrap();
    Source { directory, path, db, broken: Arc::default(), host: Arc::default() }
}

/// Replicates until `rows` more are durable, then closes everything.
pub(super) fn replicated(source: &Source, store: &Arc<dyn Store>, rows: u32) -> Txid {
    let primary = source.start(store).unwrap();
    let mut txid = sync(&primary);
    if rows > 0 {
        source.commit(&primary, rows);
        txid = sync(&primary);
    }
    primary.stop(&|| false).unwrap();
    txid
}

pub(super) fn refused(source: &Source, store: &Arc<dyn Store>, parts: &[&str]) {
    let error = source.start(store).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged, "{error}");
    for part in ["litestream_restore", "empty URL"].iter().chain(parts) {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

/// A backup of the file is copied back, in place or under its name; the metadata directory stays.
#[test]
fn p12_a_backup_that_was_copied_back_is_refused_with_both_positions_and_the_ways_out() {
    for in_place in [true, false] {
        let (source, store) = (Source::new(), memory());
        source.insert(100);
        replicated(&source, &store, 0);
        let closed = close(source);
        let backup = closed.0.path().join("backup");
        fs::copy(&closed.1, &backup).unwrap();
        let source = reopen(closed);
        for _ in 0..3 {
            replicated(&source, &store, 5);
        }
        let closed = close(source);
        if in_place {
            fs::write(&closed.1, fs::read(&backup).unwrap()).unwrap();
        } else {
            fs::rename(&backup, &closed.1).unwrap();
        }
        let source = reopen(closed);
        let older = ["is at TXID 0000000000000001", "is at TXID 0000000000000004", "put back"];
        refused(&source, &store, &older);
        // Nothing was shipped, and it is refused again.
        refused(&source, &store, &older);
    }
}

/// The backup API writes the pages of an older state through a connection that nobody watches.
#[test]
fn p12_a_backup_restored_by_the_backup_api_is_refused() {
    let (source, store) = (Source::new(), memory());
    source.insert(100);
    replicated(&source, &store, 0);
    let closed = close(source);
    let backup = closed.0.path().join("backup");
    fs::copy(&closed.1, &backup).unwrap();
    let source = reopen(closed);
    replicated(&source, &store, 5);
    let (directory, path) = close(source);
    let mut db = Connection::open(&path).unwrap();
    let from = Connection::open(&backup).unwrap();
    rusqlite::backup::Backup::new(&from, &mut db).unwrap().run_to_completion(1000, Duration::ZERO, None).unwrap();
    drop((db, from));
    // The backup API counts its write in the header, so the content is not the older one's to the byte: it goes on.
    let source = reopen((directory, path));
    match source.start(&store) {
        Err(error) => assert_eq!(error.kind(), Kind::Diverged),
        Ok(primary) => {
            assert_eq!(sync(&primary).get(), 3);
            assert_same(&source.restored(&store, Target::Latest), &source.image());
        }
    }
}

fn copied(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Whole machines are put back too: the record knows no TXID beyond the backup, but the replica does.
#[test]
fn p12_a_backup_of_database_and_metadata_directory_is_refused() {
    let (source, store) = (Source::new(), memory());
    source.insert(100);
    replicated(&source, &store, 5);
    let closed = close(source);
    let kept = tempfile::tempdir().unwrap();
    copied(closed.0.path(), &kept.path().join("all"));
    let source = reopen(closed);
    replicated(&source, &store, 5);
    let (directory, path) = close(source);
    fs::remove_dir_all(directory.path()).unwrap();
    copied(&kept.path().join("all"), directory.path());
    let source = reopen((directory, path));
    let error = source.start(&store).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged, "{error}");
    for part in ["TXID 0000000000000002", "TXID 0000000000000003"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    source.insert(5);
    refused(&reopen(close(source)), &store, &["TXID 0000000000000002", "TXID 0000000000000003"]);
}

/// The local record began anew, as after a restore: the states before are those that the replica tells.
#[test]
fn p12_a_backup_from_before_a_restore_is_refused() {
    for backed_up_at in [1, 3] {
        let (source, inner) = (Source::new(), memory());
        let faults = FaultStore::new(Arc::clone(&inner));
        let store: Arc<dyn Store> = Arc::new(faults.clone());
        source.insert(100);
        replicated(&source, &store, 0);
        let mut closed = close(source);
        let backup = beside(&closed.1, ".backup");
        for txid in 1..=4 {
            if txid == backed_up_at {
                fs::copy(&closed.1, &backup).unwrap();
            }
            let source = reopen(closed);
            replicated(&source, &store, 5);
            closed = close(source);
        }
        fs::remove_dir_all(closed.0.path().join(".app.db-litestream")).unwrap();
        let source = reopen(closed);
        replicated(&source, &store, 5);
        let (directory, path) = close(source);
        fs::copy(&backup, &path).unwrap();
        let source = reopen((directory, path));
        let parts = [format!("is at TXID {backed_up_at:016x}"), "is at TXID 0000000000000006".to_owned()];
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        // A replica that does not answer tells nothing: it is asked again.
        faults.at(Call::Head, 1, Fault::Before(crate::error::Error::new(Kind::Denied, "refused")));
        let first = source.start(&store).map(|_| ());
        assert_eq!(first.unwrap_err().kind(), Kind::Denied);
        refused(&source, &store, &parts);
        assert_eq!(store.list("ltx/").unwrap().len(), 6);
    }
}

/// What stock SQLite does with a database, by connections that nobody watches.
pub(super) fn elsewhere(path: &Path, sql: &str) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(sql).unwrap();
}

/// Changes by others, of which some leave no page as it was.
const CHANGES: [&str; 6] = [
    "INSERT INTO t(v) VALUES('x')",
    "UPDATE t SET v = hex(randomblob(90))",
    "DELETE FROM t; VACUUM",
    "UPDATE t SET v = hex(randomblob(9)); VACUUM; PRAGMA user_version=7; PRAGMA application_id=8",
    "DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, v, more); INSERT INTO t(v) VALUES(hex(randomblob(900)))",
    "PRAGMA journal_mode=DELETE; UPDATE t SET v = 1; VACUUM; PRAGMA journal_mode=WAL",
];

/// What others write while nobody replicates goes forward, also much of it, also a rebuilt file.
#[test]
fn p12_what_others_wrote_is_healed_and_not_refused() {
    for (rows, change) in CHANGES.iter().flat_map(|change| [(1, change), (200, change)]) {
        let (source, store) = (Source::new(), memory());
        source.insert(rows);
        replicated(&source, &store, 5);
        let (directory, path) = close(source);
        elsewhere(&path, change);
        let source = reopen((directory, path));
        let primary = source.start(&store).unwrap();
        assert_eq!(sync(&primary).get(), 3, "{change}");
        assert_same(&source.restored(&store, Target::Latest), &source.image());
    }
}

/// The connection that replicated goes on without: SQLite leaves the change counter as it was, since nobody else wrote.
#[test]
fn p12_a_connection_that_goes_on_after_a_stop_is_healed() {
    let (source, store) = (Source::new(), memory());
    source.insert(1);
    replicated(&source, &store, 5);
    let counter = |source: &Source| source.image()[24..28].to_vec();
    let before = counter(&source);
    source.db.execute_batch("DELETE FROM t").unwrap();
    source.insert(10);
    source.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    source.insert(10);
    assert_eq!(counter(&source), before);
    let primary = source.start(&store).unwrap();
    assert_eq!(sync(&primary).get(), 3);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// Makes another database at the path, which is closed.
type Exchange = fn(&Path);

fn made(path: &Path, sql: &str) {
    elsewhere(path, &format!("PRAGMA page_size={PAGE_SIZE}; PRAGMA journal_mode=WAL; {sql}"));
}

/// `rm app.db`, and a new one. The system may give it the inode of the former one.
fn anew(path: &Path, sql: &str) {
    fs::remove_file(path).unwrap();
    made(path, sql);
}

/// `cp other.db app.db`.
fn over(path: &Path, sql: &str) {
    let other = path.with_file_name("other.db");
    made(&other, sql);
    fs::write(path, fs::read(&other).unwrap()).unwrap();
}

const MANY: &str = "CREATE TABLE other(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) \
                    INSERT INTO other SELECT hex(randomblob(900)) FROM n";
const FEW: &str = "CREATE TABLE other(x); INSERT INTO other VALUES(1), (2), (3)";

const EXCHANGES: [Exchange; 7] = [
    |path| anew(path, MANY),
    |path| anew(path, FEW),
    |path| anew(path, ""),
    |path| over(path, MANY),
    |path| over(path, FEW),
    // Emptied, and begun again by SQLite.
    |path| {
        fs::write(path, "").unwrap();
        made(path, "");
    },
    |path| {
        fs::rename(path, path.with_file_name("aside")).unwrap();
        made(path, MANY);
    },
];

#[test]
fn p12_another_database_at_the_same_path_is_refused() {
    for exchange in EXCHANGES {
        let (source, store) = (Source::new(), memory());
        source.insert(200);
        replicated(&source, &store, 5);
        let (directory, path) = close(source);
        exchange(&path);
        let db = Connection::open(&path).unwrap();
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
        let source = Source { directory, path, db, broken: Arc::default(), host: Arc::default() };
        refused(&source, &store, &["another database", "TXID 0000000000000002"]);
        assert_eq!(store.list("").unwrap().len(), 2);
        // Without the metadata directory nothing matches either.
        fs::remove_dir_all(source.directory.path().join(".app.db-litestream")).unwrap();
        refused(&source, &store, &["no record"]);
    }
}

/// The last connection of a process closes, something happens to the file, and the process opens it again.
pub(super) fn closed_for_a_while(source: Source, primary: &Arc<Primary>, happens: impl FnOnce(&Path)) -> Source {
    primary.barrier(source.published().filter(|header| header.max_frame > 0).as_ref());
    let (directory, path) = close(source);
    primary.last_close();
    primary.all_closed();
    happens(&path);
    primary.reopened();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA wal_autocheckpoint=0; SELECT count(*) FROM sqlite_schema").unwrap();
    primary.wal_opened();
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)").unwrap();
    Source { directory, path, db, broken: Arc::default(), host: Arc::default() }
}

pub(super) fn ends_in_an_error(source: &Source, primary: &Arc<Primary>, store: &Arc<dyn Store>, parts: &[&str]) {
    let before = store.list("").unwrap().len();
    source.commit(primary, 1);
    let error = primary.sync(TIMEOUT, &|| false).unwrap_err();
    assert_eq!((error.kind(), primary.status().state), (Kind::Diverged, State::Error), "{error}");
    for part in ["litestream_restore", "empty URL"].iter().chain(parts) {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(store.list("").unwrap().len(), before, "something was shipped");
}

/// A pool that has closed all its connections does not call `litestream_replicate` again.
#[test]
fn p12_a_backup_that_was_copied_back_while_it_was_closed_is_refused_at_the_reopening() {
    let (source, store) = (Source::new(), memory());
    source.insert(100);
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let backup = source.path.with_file_name("backup");
    let source = closed_for_a_while(source, &primary, |path| {
        fs::copy(path, &backup).unwrap();
    });
    source.commit(&primary, 3);
    assert_eq!(sync(&primary).get(), 2);
    let source = closed_for_a_while(source, &primary, |path| {
        fs::copy(&backup, path).unwrap();
    });
    ends_in_an_error(&source, &primary, &store, &OLDER);
    primary.stop(&|| false).unwrap();
    drop(primary);
    refused(&source, &store, &OLDER);
    source.insert(3);
    refused(&reopen(close(source)), &store, &OLDER);
}

#[test]
fn p12_another_database_is_refused_at_the_reopening() {
    for exchange in EXCHANGES {
        let (source, store) = (Source::new(), memory());
        source.insert(200);
        let primary = source.start(&store).unwrap();
        sync(&primary);
        let source = closed_for_a_while(source, &primary, exchange);
        ends_in_an_error(&source, &primary, &store, &["another database", "TXID 0000000000000001"]);
    }
}

/// What was there before the first image is a state of TXID 1; a gap much later does not find it put back.
#[test]
fn p12_what_was_there_before_the_first_image_is_not_judged_later() {
    let (source, faults) = (Source::new(), Arc::new(FaultStore::new(memory())));
    let store = Arc::clone(&faults) as Arc<dyn Store>;
    source.insert(100);
    let away = || Fault::Before(crate::error::Error::new(Kind::Unavailable, "the store is away"));
    faults.choose(Box::new(move |call| (call != Call::List).then(away)));
    let primary =
        source.start_with(&store, Options { close_timeout: Duration::from_millis(10), ..Options::default() }).unwrap();
    let source = closed_for_a_while(source, &primary, |path| elsewhere(path, "INSERT INTO t(v) VALUES ('unseen')"));
    faults.choose(Box::new(|_| None));
    sync(&primary);
    for _ in 0..2 {
        source.commit(&primary, 5);
        sync(&primary);
    }
    primary.missed.store(true, Ordering::Relaxed);
    source.commit(&primary, 5);
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// An opening that reads nothing opens no WAL, and says nothing of the file.
#[test]
fn p12_a_connection_that_reads_nothing_makes_no_gap() {
    let (source, store) = (Source::new(), memory());
    source.insert(100);
    let primary = source.start(&store).unwrap();
    sync(&primary);
    let source = closed_for_a_while(source, &primary, |_| {
        primary.reopened();
        primary.all_closed();
    });
    source.commit(&primary, 1);
    sync(&primary);
    assert!(primary.status().last_error.is_none(), "{:?}", primary.status().last_error);
}

/// Others may write while it is closed here, and nothing may happen.
#[test]
fn p12_what_others_wrote_while_it_was_closed_is_healed_at_the_reopening() {
    for change in CHANGES.iter().chain(&["SELECT 1"]) {
        let (source, store) = (Source::new(), memory());
        source.insert(100);
        let primary = source.start(&store).unwrap();
        sync(&primary);
        let source = closed_for_a_while(source, &primary, |path| elsewhere(path, change));
        source.commit(&primary, 1);
        sync(&primary);
        assert_same(&source.restored(&store, Target::Latest), &source.image());
        // What the claim of a close bears out is not asked again.
        let source = closed_for_a_while(source, &primary, |_| ());
        assert!(!primary.unproven.load(Ordering::Relaxed), "{change}");
        source.commit(&primary, 1);
        sync(&primary);
        assert_same(&source.restored(&store, Target::Latest), &source.image());
    }
}

/// An empty place where TXIDs were is no place to begin: a disk that is not mounted has them.
#[test]
fn a_replica_that_is_gone_is_not_begun_anew() {
    let source = Source::new();
    let root = source.directory.path().join("replica");
    let open = || Arc::new(crate::store::FileStore::new(&root)) as Arc<dyn Store>;
    assert_eq!(replicated(&source, &open(), 5).get(), 2);
    let away = source.directory.path().join("away");
    fs::rename(&root, &away).unwrap();
    for mount_point in [false, true] {
        if mount_point {
            fs::create_dir(&root).unwrap();
        }
        let error = source.start(&open()).map(|_| ()).unwrap_err();
        assert!(error.kind() == Kind::Diverged && error.to_string().contains("nothing is there"), "{error}");
    }
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert_eq!(replicated(&source, &open(), 5).get(), 3);
    // While it runs: the disk goes, and comes back.
    let store = open();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    source.commit(&primary, 5);
    assert_it_says(&primary, "another directory than before");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    // A copy of it takes its place, as a disk does that is mounted under another number.
    fs::rename(&root, &away).unwrap();
    copied(&away, &root);
    source.commit(&primary, 5);
    sync(&primary);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}
