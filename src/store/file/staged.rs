//! A file on its way to becoming an object.

use super::lock::DirectoryLock;
use super::{etag, failed, is_absent, sidecar};
use crate::error::{Error, Result};
use crate::store::{ETag, Metadata, Put};
use crate::time::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the names of temporary files end in, as Litestream's do.
pub(super) const SUFFIX: &str = ".tmp";

/// What must hold of the place that the object takes.
pub(super) enum Condition<'a> {
    None,
    Absent,
    Match(&'a ETag),
}

/// A temporary file beside its target; removed when dropped.
pub(super) struct Staged {
    file: File,
    tmp: PathBuf,
    target: PathBuf,
    dir: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename it is gone, after a link it is a second name; if this fails, only a hidden file stays.
        let _ = fs::remove_file(&self.tmp);
    }
}

impl Staged {
    /// Creates the directory, where missing, and the temporary file.
    pub(super) fn create(target: PathBuf) -> Result<Self> {
        let dir = target.parent().ok_or_else(|| Error::bug("an object without a directory"))?.to_owned();
        create_dir(&dir)?;
        let tmp = dir.join(unique_name());
        let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&tmp);
        let file = opened.map_err(|e| failed("cannot write in the directory of", &target, &e))?;
        Ok(Self { file, tmp, target, dir })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.target, &e))
    }

    /// Appends all of `source`.
    pub(super) fn fill(&mut self, mut source: File) -> Result<()> {
        io::copy(&mut source, &mut self.file).map_err(|e| failed("copy to", &self.target, &e))?;
        Ok(())
    }

    /// Makes it the object, if the condition holds.
    pub(super) fn publish(self, metadata: &Metadata, condition: Condition<'_>) -> Result<Put> {
        let target = &self.target;
        if let Some(timestamp) = metadata.timestamp {
            self.file.set_modified(timestamp.to_system()).map_err(|e| failed("set the time of", target, &e))?;
        }
        self.file.sync_all().map_err(|e| failed("sync", target, &e))?;
        let stat = self.file.metadata().map_err(|e| failed("stat", target, &e))?;
        let pairs = &metadata.pairs;
        // link(2) alone is exclusive; the lock is for what takes more than one step.
        let lock = match (&condition, pairs.is_empty()) {
            (Condition::Absent, true) => None,
            _ => Some(DirectoryLock::take(&self.dir)?),
        };
        let there = stat_object(target)?;
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => there.is_none(),
            Condition::Match(expected) => there.is_some_and(|there| etag(&there) == *expected),
        };
        if !holds {
            return Ok(Put::Refused);
        }
        if !pairs.is_empty() {
            sidecar::write(target, &self.file, stat.size(), pairs)?;
        } else if lock.is_some() {
            // The same content may come again without pairs: then the content does not tell the two apart.
            remove_file(&sidecar::path(target))?;
        }
        if matches!(condition, Condition::Absent) {
            if !self.link(&stat)? {
                return Ok(Put::Refused);
            }
        } else {
            fs::rename(&self.tmp, target).map_err(|e| failed("rename to", target, &e))?;
        }
        sync_dir(&self.dir)?;
        Ok(Put::Done(etag(&stat)))
    }

    /// Gives the file its name if nothing has it: P20 rests on this.
    fn link(&self, stat: &fs::Metadata) -> Result<bool> {
        match fs::hard_link(&self.tmp, &self.target) {
            Ok(()) => Ok(true),
            // NFS may have done it and lost the answer: our own inode under that name is success (P27).
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = stat_object(&self.target)?;
                Ok(there.is_some_and(|there| (there.dev(), there.ino()) == (stat.dev(), stat.ino())))
            }
            Err(error) => self.rename_if_absent().map_err(|second| match second {
                // The file system knows neither way; the first error is the telling one.
                rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL => failed("create", &self.target, &error),
                other => failed("create", &self.target, &other.into()),
            }),
        }
    }

    /// For file systems without hard links.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn rename_if_absent(&self) -> rustix::io::Result<bool> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, &self.tmp, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    fn rename_if_absent(&self) -> rustix::io::Result<bool> {
        Err(rustix::io::Errno::NOSYS)
    }
}

/// Removes an object and its pairs; absent is success.
pub(super) fn remove(target: &Path) -> Result<()> {
    let Some(dir) = target.parent() else { return Ok(()) };
    if stat_object(target)?.is_none() {
        return Ok(());
    }
    let _lock = DirectoryLock::take(dir)?;
    remove_file(target)?;
    remove_file(&sidecar::path(target))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Replaces a small file of the store's own, synced, without syncing the directory.
pub(super) fn replace_small(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut staged = Staged::create(target.to_owned())?;
    staged.write(bytes)?;
    staged.file.sync_all().map_err(|e| failed("sync", target, &e))?;
    fs::rename(&staged.tmp, target).map_err(|e| failed("rename to", target, &e))
}

fn stat_object(target: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(target) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed("stat", target, &error)),
    }
}

/// Unique among threads, processes and machines that share the directory, and short, whatever the key's length.
fn unique_name() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let serial = SERIAL.fetch_add(1, Relaxed);
    format!(".{:x}-{nanos:x}-{serial:x}{SUFFIX}", std::process::id())
}

/// Whether [`unique_name`] made the name: Litestream's own end alike, and do not begin with a dot.
fn is_unique_name(name: &str) -> bool {
    let Some(parts) = name.strip_prefix('.').and_then(|name| name.strip_suffix(SUFFIX)) else { return false };
    let mut parts = parts.split('-');
    let is_hex = |part: Option<&str>| part.is_some_and(|part| u128::from_str_radix(part, 16).is_ok());
    is_hex(parts.next()) && is_hex(parts.next()) && is_hex(parts.next()) && parts.next().is_none()
}

/// Removes temporary files that were last written before `before`: their writers died. Says how many. What cannot be
/// read or removed stays.
pub(super) fn remove_older(dir: &Path, before: Timestamp, depth: usize) -> Result<usize> {
    let mut removed = 0;
    let rows = match fs::read_dir(dir) {
        Ok(rows) => rows,
        Err(error) if is_absent(&error) => return Ok(0),
        Err(error) => return Err(failed("list", dir, &error)),
    };
    for row in rows.flatten() {
        let Ok(kind) = row.file_type() else { continue };
        let is_ours = row.file_name().to_str().is_some_and(is_unique_name);
        if kind.is_dir() && depth < super::DEPTH_MAX {
            removed += remove_older(&row.path(), before, depth + 1)?;
        } else if kind.is_file() && is_ours && row.metadata().is_ok_and(|stat| super::modified(&stat) < before) {
            removed += usize::from(fs::remove_file(row.path()).is_ok());
        }
    }
    Ok(removed)
}

/// Creates `dir` and what is missing above it, each made durable in its parent.
fn create_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().ok_or_else(|| failed("create", dir, &error))?;
            create_dir(parent)?;
            match fs::create_dir(dir) {
                Ok(()) => sync_dir(parent),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(failed("cannot create directory", dir, &error)),
            }
        }
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(failed("cannot create directory", dir, &error)),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    match File::open(dir).and_then(|d| d.sync_all()) {
        // Some FUSE file systems cannot sync a directory; there is nothing else to ask them for.
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(failed("sync directory", dir, &error))
        }
        _ => Ok(()),
    }
}
