//! What happens at the target: nothing but the whole database, ever.

use super::history::sample;
use super::{Scratch, restore_to};
use crate::error::{Error, Kind};
use crate::replica::{Options, Replica, Target, restore};
use crate::store::fault::{Call, Fault, FaultStore, Hold};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FILES: &[(u8, u64, u64)] = &[(9, 1, 8), (0, 9, 9), (0, 10, 10)];
const FORCE: Options<'_> = Options { force: true, dry_run: false, integrity_check: None };

fn replica() -> Replica {
    sample().replica(FILES).0
}

#[test]
fn an_existing_file_is_refused_and_untouched() {
    let scratch = Scratch::new();
    let path = scratch.join("app.db");
    fs::write(&path, "precious").unwrap();
    let error = restore_to(&replica(), Target::Latest, &path).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("force"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(scratch.names(), ["app.db"]);
}

/// SQLite would apply it to the restored file.
#[test]
fn an_old_wal_without_its_database_is_refused() {
    for suffix in ["-wal", "-journal"] {
        let scratch = Scratch::new();
        fs::write(scratch.join(&format!("app.db{suffix}")), "old").unwrap();
        let error = restore_to(&replica(), Target::Latest, &scratch.join("app.db")).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert_eq!(scratch.names(), [format!("app.db{suffix}")]);
        restore(&replica(), Target::Latest, &scratch.join("app.db"), FORCE, &|| false).unwrap();
        assert_eq!(scratch.names(), ["app.db"]);
    }
}

#[test]
fn force_replaces_the_file_and_what_belongs_to_it() {
    let scratch = Scratch::new();
    for name in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal", "app.db-other"] {
        fs::write(scratch.join(name), "old").unwrap();
    }
    fs::create_dir_all(scratch.join(".app.db-litestream/ltx/0")).unwrap();
    fs::write(scratch.join(".app.db-litestream/ltx/0/x"), "old").unwrap();
    let restored = restore(&replica(), Target::Latest, &scratch.join("app.db"), FORCE, &|| false).unwrap();
    assert_eq!((restored.txid.get(), restored.pages, restored.files.len()), (10, 28, 3));
    assert_eq!(scratch.names(), ["app.db", "app.db-other"]);
    assert!(fs::read(scratch.join("app.db")).unwrap() == sample().database(10));
}

/// The old file stays whole, with all that belongs to it, if the restore fails at any point before its end.
#[test]
fn a_failed_force_leaves_everything_as_it_was() {
    let scratch = Scratch::new();
    let names = [".app.db-litestream", "app.db", "app.db-shm", "app.db-wal"];
    fs::create_dir(scratch.join(names[0])).unwrap();
    names[1..].iter().for_each(|name| fs::write(scratch.join(name), name).unwrap());
    let (replica, store) = sample().replica(FILES);
    let refuse = |_: &Path| Err(Error::corrupt("not a database"));
    let options = Options { integrity_check: Some(&refuse), ..FORCE };
    let error = restore(&replica, Target::Latest, &scratch.join("app.db"), options, &|| false).unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
    store.damage(&super::history::key(0, 9, 9), |bytes| bytes[150] ^= 1).unwrap();
    restore(&replica, Target::Latest, &scratch.join("app.db"), FORCE, &|| false).unwrap_err();
    assert_eq!(scratch.names(), names);
    names[1..].iter().for_each(|name| assert_eq!(fs::read_to_string(scratch.join(name)).unwrap(), *name));
}

/// Without a WAL or journal the old file is replaced by one rename: it is never absent.
#[test]
fn force_keeps_permissions_and_follows_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("data")).unwrap();
    fs::write(scratch.join("data/real.db"), "old").unwrap();
    fs::write(scratch.join("data/real.db-wal"), "old").unwrap();
    fs::set_permissions(scratch.join("data/real.db"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink(scratch.join("data/real.db"), scratch.join("app.db")).unwrap();
    restore(&replica(), Target::Latest, &scratch.join("app.db"), FORCE, &|| false).unwrap();
    assert!(fs::symlink_metadata(scratch.join("app.db")).unwrap().is_symlink());
    assert!(fs::read(scratch.join("data/real.db")).unwrap() == sample().database(10));
    assert_eq!(fs::metadata(scratch.join("data/real.db")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!scratch.join("data/real.db-wal").exists());
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let scratch = Scratch::new();
    let path = scratch.join("app.db");
    let options = Options { dry_run: true, ..Options::default() };
    let dry = restore(&replica(), Target::Latest, &path, options, &|| false).unwrap();
    assert!(scratch.names().is_empty());
    let mut real = restore_to(&replica(), Target::Latest, &path).unwrap();
    // Two stores: the time of the put and the ETags differ.
    for (real, dry) in real.files.iter_mut().zip(&dry.files) {
        (real.created_at, real.etag) = (dry.created_at, dry.etag.clone());
    }
    assert_eq!(dry, real);
    let error = restore(&replica(), Target::Latest, &path, options, &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
}

/// What SQLite leaves beside the temporary file goes with it.
#[test]
fn the_check_sees_the_finished_file() {
    let scratch = Scratch::new();
    let seen = Cell::new(false);
    let check = |path: &Path| {
        assert!(fs::read(path).unwrap() == sample().database(10));
        assert_ne!(path, scratch.join("app.db"));
        fs::write(format!("{}-shm", path.display()), "").unwrap();
        seen.set(true);
        Ok(())
    };
    let options = Options { integrity_check: Some(&check), ..Options::default() };
    restore(&replica(), Target::Latest, &scratch.join("app.db"), options, &|| false).unwrap();
    assert!(seen.get());
    assert_eq!(scratch.names(), ["app.db"]);
}

/// Also while the store does not answer.
#[test]
fn an_interruption_ends_the_restore_at_once_and_leaves_nothing() {
    // The listing, the newest file's header, and files.
    for (call, nth) in [(Call::List, 1), (Call::GetRange, 1), (Call::GetRange, 2)] {
        let scratch = Scratch::new();
        let faulty = FaultStore::new(Arc::new(sample().replica(FILES).1));
        let hold = Hold::default();
        faulty.at(call, nth, Fault::Hold(hold.clone()));
        let replica = Replica::new(Arc::new(faulty));
        let start = Instant::now();
        let cancelled = || start.elapsed() > Duration::from_millis(100);
        let path = scratch.join("app.db");
        let error = restore(&replica, Target::Latest, &path, Options::default(), &cancelled).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
        assert!(scratch.names().is_empty());
        hold.release();
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let scratch = Scratch::new();
    let error = restore_to(&replica(), Target::Latest, &scratch.join("none/app.db")).unwrap_err();
    assert!(error.to_string().contains("none/app.db"), "{error}");
    assert!(scratch.names().is_empty());
    let error = restore(&replica(), Target::Latest, &scratch.0, FORCE, &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

/// No room: a process whose files may not grow past 4 KiB stands for a full disk.
#[test]
fn no_room_is_an_error_that_leaves_nothing() {
    const INNER: &str = "LITESTREAM_TEST_NO_ROOM";
    if std::env::var_os(INNER).is_some() {
        let scratch = Scratch::new();
        let error = restore_to(&replica(), Target::Latest, &scratch.join("app.db")).unwrap_err();
        assert!(matches!(error.kind(), Kind::Io | Kind::Full), "{error}");
        assert!(scratch.names().is_empty());
        return;
    }
    let name = "replica::tests::output::no_room_is_an_error_that_leaves_nothing";
    let script = r#"trap "" XFSZ; ulimit -f 8 || exit 1; exec "$0" --exact "$1" --nocapture"#;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INNER, "1")
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
