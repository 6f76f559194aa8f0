//! What only `file://` has: layout, leftovers, permissions.

use litestream::error::Kind;
use litestream::store::{self, FileStore, Metadata, Store};
use litestream::time::Timestamp;
use std::fs;
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
