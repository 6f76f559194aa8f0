//! What identifies a file, once it stays so.
//!
//! Litestream gives a file its time after its name (FORMATS 9): between the two it has the time of its writing, by which
//! it would be another object than a moment later. So a file whose time is not the whole millisecond that ours and
//! Litestream's have, and is of just now, is looked at until it is, or is old.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// A file that was written longer ago keeps the time that it has: a copy, for example.
const OLD: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(5);

/// What `stat` tells of an LTX file, at last; of other files, at once.
pub(super) fn settled(key: &str, stat: impl Fn() -> io::Result<Metadata>) -> io::Result<Metadata> {
    loop {
        let now = stat()?;
        let is_whole = now.mtime_nsec() % 1_000_000 == 0 || !key.ends_with(".ltx") || !now.is_file();
        let age = now.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
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
        for round in 0..3 {
            let key = format!("{round}.ltx");
            let file = File::create(directory.path().join(&key)).unwrap();
            let seen = std::thread::scope(|scope| {
                let seen = scope.spawn(|| match round {
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
