//! What identifies a file, once it stays so.
//!
//! Litestream gives a file its time after its name (FORMATS 9): between the two it has the time of its writing, by which
//! it would be another object than a moment later. So a file whose time is not the whole millisecond that ours and
//! Litestream's have, and that was changed just now, is looked at until it is, or is old. That is told by the time of
//! the last change of the inode, which a new name is: between its writing and its name it may have been synced for long.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that got its name, or its time, longer ago keeps the time that it has: a copy, for example.
const OLD: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(5);

/// What `stat` tells of an LTX file, at last; of other files, at once.
pub(super) fn settled(key: &str, stat: impl Fn() -> io::Result<Metadata>) -> io::Result<Metadata> {
    loop {
        let now = stat()?;
        let is_whole = now.mtime_nsec() % 1_000_000 == 0 || !key.ends_with(".ltx") || !now.is_file();
        let changed = UNIX_EPOCH + Duration::new(now.ctime().max(0) as u64, now.ctime_nsec() as u32);
        let age = SystemTime::now().duration_since(changed).ok();
        if is_whole || age.is_none_or(|age| age > OLD) {
            return Ok(now);
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileStore;
    use crate::store::Store;
    use std::fs::File;
    use std::time::{Duration, Instant, SystemTime};

    #[test]
    fn a_file_that_gets_its_time_after_its_name_is_one_object() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path());
        for round in 0..6 {
            let key = format!("{round}.ltx");
            let file = File::create(directory.path().join(&key)).unwrap();
            // Syncing it took long.
            if round >= 3 {
                file.set_modified(SystemTime::now() - Duration::from_micros(1_500_001)).unwrap();
            }
            let seen = std::thread::scope(|scope| {
                let seen = scope.spawn(|| match round % 3 {
                    0 => store.head(&key).unwrap().unwrap().etag,
                    1 => store.get_end(&key, 10).unwrap().unwrap().object.etag,
                    _ => store.list(&key).unwrap()[0].etag.clone().unwrap(),
                });
                std::thread::sleep(Duration::from_millis(50));
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)).unwrap();
                seen.join().unwrap()
            });
            assert_eq!(seen, store.head(&key).unwrap().unwrap().etag, "{round}");
        }
    }

    #[test]
    fn a_copy_with_a_time_of_its_own_is_not_waited_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path());
        for n in 0..100 {
            std::fs::write(directory.path().join(format!("{n}.ltx")), "copied").unwrap();
        }
        let started = Instant::now();
        assert_eq!(store.list("").unwrap().len(), 100);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
