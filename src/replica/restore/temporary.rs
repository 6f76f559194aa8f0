//! The file that a restore writes, before it has its name.

use crate::error::{Context, Error, Result};
use crate::ltx::{PageSize, Pgno};
use crate::replica::apply::{PageSink, Shape};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells the temporary files of one process apart.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A new name beside `path`: `<file name><suffix>-<process>-<number>`.
pub(super) fn name_beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{suffix}-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

/// `path` with something at its end, as SQLite names what belongs to a database.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removed when dropped, with what SQLite may have put beside it, unless it was given its name.
pub(super) struct Temporary {
    path: PathBuf,
    sink: Arc<DatabaseFile>,
}

/// The open file; the threads of an interrupted restore may hold it for a while.
pub(super) struct DatabaseFile {
    file: File,
    page_size: PageSize,
    path: PathBuf,
}

impl Temporary {
    /// Creates it beside the target, with its full size: a lack of room shows now. What no page is written to (the lock
    /// page) reads as zeros.
    pub fn create(target: &Path, shape: Shape) -> Result<Self> {
        let path = name_beside(target, ".restore");
        let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = opened.with_context(|| format!("create {}", path.display()))?;
        let sink = DatabaseFile { file, page_size: shape.page_size, path: path.clone() };
        let temporary = Self { path, sink: Arc::new(sink) };
        if let Ok(existing) = fs::metadata(target) {
            let copied = temporary.sink.file.set_permissions(existing.permissions());
            copied.with_context(|| format!("set the permissions of {}", temporary.path.display()))?;
        }
        temporary.sink.reserve(shape.bytes())?;
        Ok(temporary)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn sink(&self) -> Arc<DatabaseFile> {
        Arc::clone(&self.sink)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After it got its name nothing is found here. Nobody can be told of a failure.
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(with_suffix(&self.path, suffix));
        }
    }
}

impl DatabaseFile {
    fn reserve(&self, bytes: u64) -> Result<()> {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // Not every file system can.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(self.failed("reserve room for", &error.into())),
        }
        self.file.set_len(bytes).map_err(|error| self.failed("set the length of", &error))
    }

    /// Until it is on the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("sync", &error))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        Error::io(format!("{what} {}", self.path.display()), error)
    }
}

impl PageSink for DatabaseFile {
    fn write_run(&self, first: Pgno, pages: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(pages, self.page_size.offset_of(first));
        written.map_err(|error| self.failed("write", &error))
    }
}
