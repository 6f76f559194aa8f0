//! The bound of the spool while the store is away (P18).

use super::*;
use crate::error::{Error, Kind};
use crate::store::MemoryStore;
use crate::store::fault::{Call, Fault, FaultStore, Hold};
use crate::writer::spool::FileNumber;
use std::fs;

fn away() -> Fault {
    Fault::Before(Error::new(Kind::Unavailable, "the store is away"))
}

/// A source whose store is away since TXID 1. The upload of TXID 2 has begun.
fn outage() -> (Source, Arc<FaultStore>, Arc<dyn Store>) {
    let source = Source::new();
    source.insert(20);
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
    let store = Arc::clone(&faults) as Arc<dyn Store>;
    let primary = source.start_with(&store, brief(0)).unwrap();
    primary.sync(TIMEOUT, &|| false).unwrap();
    for call in [Call::List, Call::Head, Call::Get, Call::GetRange, Call::PutIfAbsent, Call::Upload] {
        faults.always(call, away());
    }
    source.commit(&primary, 3);
    while faults.count(Call::PutIfAbsent) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    primary.stop(&|| false).unwrap_err();
    (source, faults, store)
}

/// Opens, commits and closes with a store that is away.
fn round(source: &Source, store: &Arc<dyn Store>, options: Options) {
    let primary = source.start_with(store, options).unwrap();
    source.commit(&primary, 3);
    primary.stop(&|| false).unwrap_err();
}

fn brief(spool_max: u64) -> Options {
    let close_timeout = Duration::from_millis(50);
    Options { sync_interval: Duration::from_millis(1), close_timeout, spool_max: Some(spool_max), ..Options::default() }
}

fn metadata_directory(source: &Source) -> PathBuf {
    source.directory.path().join(".app.db-litestream")
}

/// The LTX files of the spool, ascending.
fn spooled(source: &Source) -> Vec<PathBuf> {
    let directory = fs::read_dir(metadata_directory(source).join("ltx/0")).unwrap();
    let mut files: Vec<_> = directory.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn recovers(source: &Source, faults: &FaultStore, store: &Arc<dyn Store>) {
    faults.clear();
    let primary = source.start(store).unwrap();
    primary.sync(TIMEOUT, &|| false).unwrap();
    assert_same(&source.restored(store, Target::Latest), &source.image());
    source.commit(&primary, 1);
    primary.sync(TIMEOUT, &|| false).unwrap();
    assert_same(&source.restored(store, Target::Latest), &source.image());
    primary.stop(&|| false).unwrap();
}

#[test]
fn p18_below_the_bound_each_close_leaves_a_file_and_at_the_bound_the_newest_takes_more() {
    for (spool_max, files) in [(1 << 30, 8), (0, 2)] {
        let (source, faults, store) = outage();
        for _ in 0..7 {
            round(&source, &store, brief(spool_max));
        }
        assert!(spooled(&source).len() <= files, "{:?}", spooled(&source));
        assert!(spool_max == 0 || spooled(&source).len() == files);
        recovers(&source, &faults, &store);
    }
}

/// A default bound holds whatever the number of closes: files are counted too.
#[test]
fn p18_the_number_of_files_is_bounded() {
    let (source, faults, store) = outage();
    for _ in 0..80 {
        round(&source, &store, Options { spool_max: None, ..brief(0) });
    }
    assert!(spooled(&source).len() <= 66, "{} files", spooled(&source).len());
    recovers(&source, &faults, &store);
}

/// A file whose upload began is never changed: the store may have it, although every answer was lost.
#[test]
fn p18_a_file_whose_upload_began_is_frozen() {
    let (source, faults, store) = outage();
    let first = spooled(&source).remove(0);
    let before = fs::read(&first).unwrap();
    // Its upload takes effect, and nobody is told.
    faults.clear();
    faults.always(Call::List, away());
    faults.always(Call::Head, away());
    faults.always(Call::PutIfAbsent, Fault::After(Error::new(Kind::Unavailable, "the answer was lost")));
    for _ in 0..3 {
        round(&source, &store, brief(0));
    }
    assert!(fs::read(&first).unwrap() == before, "the file was changed");
    recovers(&source, &faults, &store);
}

/// A merge is a few steps on disk; a stop between any two of them ships nothing twice in another form, and nothing old
/// after new. The states between are made of the files before and after.
#[test]
fn p18_a_stop_at_any_step_of_a_merge_loses_nothing() {
    let steps: &[&[&str]] = &[&[], &["temporary"], &["file"], &["file", "record"], &["file", "record", "history"]];
    for step in steps {
        let (source, faults, store) = outage();
        round(&source, &store, brief(0));
        round(&source, &store, brief(0));
        let newest = spooled(&source).pop().unwrap();
        let directory = metadata_directory(&source);
        let aside = source.directory.path().join("before");
        copy(&directory, &aside);
        round(&source, &store, brief(0));
        assert_eq!(spooled(&source).pop().unwrap(), newest, "no merge");
        let after = source.directory.path().join("after");
        fs::rename(&directory, &after).unwrap();
        fs::rename(&aside, &directory).unwrap();
        let name = newest.file_name().unwrap();
        for part in *step {
            match *part {
                "temporary" => {
                    let half = fs::read(after.join("ltx/0").join(name)).unwrap();
                    fs::write(newest.with_extension("ltx.tmp"), &half[..half.len() / 2]).unwrap();
                }
                "file" => fs::copy(after.join("ltx/0").join(name), &newest).map(|_| ()).unwrap(),
                part => fs::copy(after.join(part), directory.join(part)).map(|_| ()).unwrap(),
            }
        }
        // Further closes while the store is away, then everything arrives.
        round(&source, &store, brief(0));
        assert!(spooled(&source).iter().all(|path| path.extension().unwrap() == "ltx"), "after {step:?}");
        recovers(&source, &faults, &store);
    }
}

/// The mark that lets a file be merged into is taken away before its upload begins, and a file without it is frozen.
#[test]
fn p18_the_mark_is_gone_before_the_upload_begins() {
    let (source, faults, store) = outage();
    round(&source, &store, brief(0));
    let mark = metadata_directory(&source).join("open");
    let (first, second) = (Hold::default(), Hold::default());
    faults.clear();
    faults.at(Call::PutIfAbsent, 1, Fault::Hold(first.clone()));
    faults.at(Call::PutIfAbsent, 2, Fault::Hold(second.clone()));
    let primary = source.start_with(&store, brief(0)).unwrap();
    first.wait_for(1);
    assert!(mark.exists());
    first.release();
    second.wait_for(1);
    assert!(!mark.exists());
    second.release();
    let _ = primary.stop(&|| false);
    drop(primary);
    recovers(&source, &faults, &store);
}

/// The inode of a file that was removed is soon another file's; a device's number may change, and a record may be older
/// than the births in it.
#[test]
fn p12_a_file_is_told_by_its_inode_and_its_birth() {
    let number = |text: &str| serde_json::from_str::<FileNumber>(text).unwrap();
    for (before, now, is_another) in [
        ("[1,2,3]", "[1,2,3]", false),
        ("[1,2,3]", "[1,2,4]", true),
        ("[1,2,3]", "[1,9,3]", true),
        ("[1,2,3]", "[9,2,3]", false),
        ("[1,2]", "[1,2,3]", false),
        ("[1,2]", "[9,2,3]", true),
        ("[1,2,null]", "[1,2,null]", false),
    ] {
        assert_eq!(number(now).is_another_than(&number(before)), is_another, "{before} {now}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "1").unwrap();
    let before = FileNumber::of(&path).unwrap();
    std::fs::write(&path, "2").unwrap();
    assert!(!FileNumber::of(&path).unwrap().is_another_than(&before));
    assert_eq!(number(&serde_json::to_string(&before).unwrap()), before);
}
