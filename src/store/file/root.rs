//! Which directory a store is in. Below the mount point of a disk that is gone, another replica would begin.

use super::{failed, is_absent};
use crate::error::{Error, Kind, Result};
use crate::lock::Mutex;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory, which the first write makes.
pub(super) struct Root {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Device and inode, once it was there.
    number: Option<(u64, u64)>,
    /// The newest LTX file that was seen in it.
    newest: Option<Newest>,
}

#[derive(PartialEq, Eq)]
struct Newest {
    /// Its last TXID, as its name has it.
    last: String,
    key: String,
    size: u64,
    /// In seconds, and nanoseconds.
    modified: (i64, i64),
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        let number = directory_number(&path).ok().flatten();
        Self { path, seen: Mutex::new(Seen { number, newest: None }) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Objects that are there.
    pub(super) fn saw<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        let newest = keys.filter_map(|key| Some((last_txid(key)?, key))).max();
        let mut seen = self.seen.lock();
        let is_newer = |(last, _): &(&str, &str)| seen.newest.as_ref().is_none_or(|seen| *last >= seen.last.as_str());
        let newest = newest.filter(is_newer).and_then(|(_, key)| self.object(key));
        let number = directory_number(&self.path).ok().flatten();
        if seen.number.is_none() || seen.number == number {
            seen.number = number;
            seen.newest = newest.or_else(|| seen.newest.take());
        }
    }

    /// It is the one that it was, or a copy of it: a disk that is back may have another number.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: it is gone, or is another one.
    pub(super) fn check(&self) -> Result<()> {
        let mut seen = self.seen.lock();
        let now = directory_number(&self.path).map_err(|error| failed("stat", &self.path, &error))?;
        let what = match (now, seen.number) {
            (now, None) => {
                seen.number = now;
                return Ok(());
            }
            (Some(now), Some(before)) if now == before => return Ok(()),
            (Some(now), Some(_)) => {
                if seen.newest.as_ref().is_some_and(|newest| self.object(&newest.key).as_ref() == Some(newest)) {
                    seen.number = Some(now);
                    return Ok(());
                }
                "is another directory than before, without the newest LTX file"
            }
            (None, Some(_)) => "is gone",
        };
        let text = format!("{} {what}: a disk that is not mounted? Nothing is written there", self.path.display());
        Err(Error::new(Kind::Unavailable, text))
    }

    fn object(&self, key: &str) -> Option<Newest> {
        let stat = fs::metadata(self.path.join(key)).ok()?;
        let (last, key) = (last_txid(key)?.to_owned(), key.to_owned());
        Some(Newest { last, key, size: stat.size(), modified: (stat.mtime(), stat.mtime_nsec()) })
    }
}

/// Of an LTX file, `<first>-<last>.ltx` in 16 hex digits each.
fn last_txid(key: &str) -> Option<&str> {
    let (_, last) = key.rsplit('/').next()?.strip_suffix(".ltx")?.split_once('-')?;
    (last.len() == 16).then_some(last)
}

/// Device and inode; `None` if there is no directory.
fn directory_number(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(stat) => Ok(stat.is_dir().then(|| (stat.dev(), stat.ino()))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
