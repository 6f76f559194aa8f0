//! R14: pages on disk.

use super::super::connected::{Settings, connect_to};
use super::{Written, txid};
use crate::replica::Target;
use crate::store::fault::Call;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn opened(written: &Written, directory: &Path, limit: u64) -> super::Connected {
    let source = written.source();
    let settings =
        Settings { cache_dir: Some(directory.to_owned()), cache_dir_size: limit, cache_size: 0, ..Settings::default() };
    connect_to("a.db", source, Target::Txid(txid(1)), &settings, &|| false).unwrap()
}

fn sample() -> Written {
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, randomblob(3000000));");
    written
}

fn read_one(connected: &super::Connected, written: &Written, number: usize) {
    let mut page = vec![0; 4096];
    connected.read(number as u64 * 4096, &mut page, &|| false).unwrap();
    assert!(page == written.states[1][number * 4096..(number + 1) * 4096], "page {number}");
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).unwrap().map(|row| row.unwrap().path()).collect()
}

/// A new connection reads everything; the requests that it makes after the opening. What came with that is in memory
/// only, and other tests forget it at any time: so it is forgotten here.
fn see_all(written: &Written, directory: &Path) -> usize {
    let connected = opened(written, directory, 1 << 30);
    let opening = written.faults.count(Call::GetRange);
    super::super::flight::forget_pages();
    written.assert_sees(&connected, 1);
    written.faults.count(Call::GetRange) - opening
}

#[test]
fn r14_what_was_read_is_read_from_disk_later() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    see_all(&written, directory.path());
    assert_eq!(see_all(&written, directory.path()), 0);
}

/// A run of which only the page that was wanted is on disk, while somebody else waits for another page of it.
#[test]
fn r14_a_page_that_is_not_on_disk_is_fetched_beside_one_that_is() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    let connected = opened(&written, directory.path(), 1 << 30);
    for number in (3..700).step_by(9) {
        super::super::flight::forget_pages();
        read_one(&connected, &written, number);
    }
    super::super::flight::forget_pages();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            for skip in 0..4 {
                let (connected, written) = (&connected, &written);
                scope.spawn(move || (3 + skip..700).step_by(3).for_each(|number| read_one(connected, written, number)));
            }
        });
    }
}

/// Whatever the files hold: a miss, never another page.
#[test]
fn r14_what_is_damaged_is_a_miss() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    written.assert_sees(&opened(&written, directory.path(), 1 << 30), 1);
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x10),
        |bytes| bytes.clear(),
        |bytes| bytes.insert(0, 7),
        |bytes| *bytes = vec![0; 100_000],
    ];
    for damage in damages {
        for path in files(directory.path()) {
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
        super::super::flight::forget_pages();
        written.assert_sees(&opened(&written, directory.path(), 1 << 30), 1);
    }
}

#[test]
fn r14_the_directory_keeps_its_bound() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    for number in (1..600).rev() {
        super::super::flight::forget_pages();
        read_one(&opened(&written, directory.path(), 400_000), &written, number);
        let bytes: u64 = files(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes < 500_000, "{bytes}");
    }
}

/// A process was killed in the middle of a write: what comes after that is kept, at once or a minute later.
#[test]
fn r14_a_torn_record_does_not_spoil_what_comes_after_it() {
    for age in [0, 120] {
        let (written, directory) = (sample(), tempfile::tempdir().unwrap());
        read_one(&opened(&written, directory.path(), 1 << 30), &written, 300);
        let torn = files(directory.path());
        assert!(!torn.is_empty());
        for path in torn {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 5).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        for _ in 0..2 {
            see_all(&written, directory.path());
        }
        // It may be that somebody was writing.
        if age == 0 {
            for path in files(directory.path()) {
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
            }
            see_all(&written, directory.path());
        }
        assert_eq!(see_all(&written, directory.path()), 0, "age {age}");
    }
}

/// Somebody's large file under our name is not read.
#[test]
fn r14_a_file_that_is_too_long_is_made_anew() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    written.assert_sees(&opened(&written, directory.path(), 1 << 30), 1);
    for path in files(directory.path()) {
        fs::File::options().write(true).open(&path).unwrap().set_len(100 << 20).unwrap();
    }
    for _ in 0..2 {
        super::super::flight::forget_pages();
        written.assert_sees(&opened(&written, directory.path(), 1 << 30), 1);
    }
    for path in files(directory.path()) {
        assert!(fs::metadata(&path).unwrap().len() < 32 << 20);
    }
}

/// Bytes that were read, and then changed on the disk.
#[test]
fn r14_what_is_damaged_later_is_fetched_once_more_only() {
    let (written, directory) = (sample(), tempfile::tempdir().unwrap());
    let connected = opened(&written, directory.path(), 1 << 30);
    written.assert_sees(&connected, 1);
    for path in files(directory.path()) {
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x10);
        std::os::unix::fs::FileExt::write_all_at(&fs::File::options().write(true).open(&path).unwrap(), &bytes, 0)
            .unwrap();
    }
    for _ in 0..2 {
        super::super::flight::forget_pages();
        written.assert_sees(&connected, 1);
    }
    super::super::flight::forget_pages();
    let before = written.faults.count(Call::GetRange);
    written.assert_sees(&connected, 1);
    assert_eq!(written.faults.count(Call::GetRange), before);
}
