//! What only `file://` has: layout, leftovers, permissions.

use litestream::error::{Error, Kind};
use litestream::store::{self, FileStore, Metadata, Put, Store};
use litestream::time::Timestamp;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

fn pairs(value: &str) -> Metadata {
    Metadata { timestamp: Some(Timestamp(1_795_370_133_964)), pairs: vec![("k".to_owned(), value.to_owned())] }
}

#[test]
fn the_layout_is_litestreams_and_the_mtime_is_the_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(&format!("file://{}/a%20b", dir.path().display())).unwrap();
    store.put_if_absent("ltx/0/1.ltx", b"x", &pairs("v")).unwrap();
    let stat = fs::metadata(dir.path().join("a b/ltx/0/1.ltx")).unwrap();
    assert_eq!(stat.modified().unwrap(), UNIX_EPOCH + Duration::from_millis(1_795_370_133_964));
    let mut names: Vec<_> =
        fs::read_dir(dir.path().join("a b/ltx/0")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".lock", "1.ltx", "1.ltx.meta"]);
}

/// A disk may go before anything was written there.
#[test]
fn p12_a_directory_that_was_there_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("replica");
    fs::create_dir(&root).unwrap();
    let store = FileStore::new(&root);
    fs::remove_dir(&root).unwrap();
    let error = store.put_if_absent("x", b"x", &pairs("v")).unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.to_string().contains("is gone"), "{error}");
    assert!(!root.exists());
}

/// A writer that died between the pairs and the object leaves a `.meta`; another program's object of that name must not
/// get them, and ours replaces them.
#[test]
fn pairs_of_a_dead_writer_are_not_those_of_another_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    store.put_if_absent("x", b"content", &pairs("dead")).unwrap();
    fs::remove_file(dir.path().join("x")).unwrap();
    fs::write(dir.path().join("x"), b"CONTENT").unwrap();
    assert_eq!(store.head("x").unwrap().unwrap().metadata.pairs, []);
    fs::write(dir.path().join("x.meta"), b"{damaged").unwrap();
    assert_eq!(store.head("x").unwrap().unwrap().metadata.pairs, []);
    fs::remove_file(dir.path().join("x")).unwrap();
    store.put_if_absent("x", b"content", &pairs("alive")).unwrap();
    assert_eq!(store.head("x").unwrap().unwrap().metadata, pairs("alive"));
}

#[test]
fn leftovers_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    for name in ["a.ltx.tmp", "a.ltx.meta", ".lock", ".1-2-3.tmp"] {
        fs::write(dir.path().join(name), b"").unwrap();
        assert_eq!(store.put(name, b"", &Metadata::default()).unwrap_err().kind(), Kind::Invalid);
    }
    assert_eq!(store.list("").unwrap(), []);
}

#[test]
fn a_place_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("plain"), b"").unwrap();
    let store = FileStore::new(dir.path().join("plain/below"));
    let error = store.put("x", b"", &Metadata::default()).unwrap_err();
    assert!(error.to_string().contains("cannot create directory"), "{error}");
    let error = FileStore::new("/proc/nowhere").put("x", b"", &Metadata::default()).unwrap_err();
    assert!(error.to_string().contains("cannot create directory /proc/nowhere"), "{error}");
    assert!(FileStore::new(dir.path().join("plain")).list("").is_err());
}

/// P29 between processes: the record lock keeps apart what threads' mutexes cannot.
#[test]
fn processes_that_replace_the_same_object_lose_no_replacement() {
    let dir = tempfile::tempdir().unwrap();
    FileStore::new(dir.path()).put("counter", b"0", &Metadata::default()).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "file::child_counts", "--ignored"]).env("COUNTER_DIR", dir.path());
            child.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(FileStore::new(dir.path()).get("counter", 9).unwrap().unwrap().0, b"100");
}

#[test]
#[ignore = "the child of the test above"]
fn child_counts() {
    let store = FileStore::new(std::env::var_os("COUNTER_DIR").unwrap());
    let metadata = Metadata { timestamp: None, pairs: vec![("pid".to_owned(), std::process::id().to_string())] };
    for _ in 0..25 {
        loop {
            let (bytes, etag) = store.get("counter", 9).unwrap().unwrap();
            let next = String::from_utf8(bytes).unwrap().parse::<u32>().unwrap() + 1;
            let put = store.put_if_match("counter", next.to_string().as_bytes(), &metadata, &etag).unwrap();
            if matches!(put, Put::Done(_)) {
                break;
            }
        }
    }
}

/// P24.
#[test]
fn the_gate_is_asked_before_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let closed: store::Gate = Arc::new(|| Err(Error::new(Kind::Conflict, "the lease is not fresh")));
    FileStore::new(dir.path()).put("a", b"1", &Metadata::default()).unwrap();
    let store = FileStore::new(dir.path()).with_gate(Some(closed));
    let none = Metadata::default();
    for error in [
        store.put("a", b"2", &none).unwrap_err(),
        store.put_if_absent("b", b"2", &none).unwrap_err(),
        store.copy("a", "b", &none).unwrap_err(),
        store.delete("a").unwrap_err(),
        store.upload("b", &none, 1).unwrap().finish_if_absent().unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Conflict);
    }
    assert_eq!(store.list("").unwrap().len(), 1);
    assert_eq!(store.get("a", 1).unwrap().unwrap().0, b"1");
}
