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
    /// The last object that was seen in it: key, size, mtime in seconds and nanoseconds.
    object: Option<(String, Object)>,
}

type Object = (u64, i64, i64);

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        let number = directory_number(&path).ok().flatten();
        Self { path, seen: Mutex::new(Seen { number, object: None }) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An object that is there.
    pub(super) fn saw(&self, key: &str) {
        let mut seen = self.seen.lock();
        if let Some(object) = self.object(key) {
            seen.object = Some((key.to_owned(), object));
        }
        seen.number = seen.number.or_else(|| directory_number(&self.path).ok().flatten());
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
                if seen.object.as_ref().is_some_and(|(key, object)| self.object(key).as_ref() == Some(object)) {
                    seen.number = Some(now);
                    return Ok(());
                }
                "is another directory than before, without the newest object"
            }
            (None, Some(_)) => "is gone",
        };
        let text = format!("{} {what}: a disk that is not mounted? Nothing is written there", self.path.display());
        Err(Error::new(Kind::Unavailable, text))
    }

    fn object(&self, key: &str) -> Option<Object> {
        fs::metadata(self.path.join(key)).ok().map(|stat| (stat.size(), stat.mtime(), stat.mtime_nsec()))
    }
}

/// Device and inode; `None` if there is no directory.
fn directory_number(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(stat) => Ok(stat.is_dir().then(|| (stat.dev(), stat.ino()))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
