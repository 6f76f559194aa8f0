//! A file handle of the base VFS, opened by us beside SQLite's own (P9).
//!
//! Files of the database are never opened through the operating system: closing such a descriptor drops the POSIX
//! locks that SQLite holds on the same inode. A handle of the base VFS shares the VFS's bookkeeping of locks. It takes
//! no lock and maps no shared memory, so it is invisible to the application.

use super::fork::unforked;
use super::lifetime::Ticket;
use super::shim::BaseVfs;
use crate::error::{Error, Kind, Result};
use sqlite3ext_sys as ffi;
use std::ffi::c_void;

/// SQLITE_IOERR_SHORT_READ.
const SHORT_READ: i32 = (ffi::SQLITE_IOERR | 2 << 8) as i32;

/// Which kind of file it is, for the base VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The database.
    Database,
    /// Its write-ahead log.
    Wal,
}

/// An open handle. Used by one thread at a time; the base VFS's read, size and sync calls may come from any.
pub struct BaseFile {
    /// The VFS's file object, at its size and alignment.
    file: Box<[u64]>,
    /// The VFS keeps a pointer to the name as long as the file is open.
    _name: Box<[u8]>,
    path: String,
    /// Given back after the file is closed (P33).
    _ticket: Ticket,
}

// SAFETY: the object is owned, and the unix and windows VFS files have no thread affinity.
unsafe impl Send for BaseFile {}

impl BaseFile {
    /// Opens an existing file, for reading and syncing. `path` is a full path as the VFS makes it.
    pub fn open(vfs: BaseVfs, path: &str, role: FileRole) -> Result<Self> {
        let ticket = Ticket::new()?;
        // A name for xOpen lies among zero bytes: the VFS may look for URI parameters behind it and, for a WAL, for the
        // database's name in front of it (sqlite3_create_filename).
        let mut name = vec![0_u8; 4];
        name.extend_from_slice(path.as_bytes());
        name.extend_from_slice(&[0; 4]);
        let name = name.into_boxed_slice();
        let kind = match role {
            FileRole::Database => ffi::SQLITE_OPEN_MAIN_DB,
            FileRole::Wal => ffi::SQLITE_OPEN_WAL,
        };
        let mut file = vec![0_u64; vfs.file_size().div_ceil(8)].into_boxed_slice();
        let mut out = 0;
        // SAFETY: `file` has szOsFile bytes, zeroed; `name` is terminated and outlives the file.
        let rc = unforked(|| unsafe {
            vfs.open(
                name.as_ptr().add(4).cast(),
                file.as_mut_ptr().cast(),
                (kind | ffi::SQLITE_OPEN_READWRITE) as i32,
                &mut out,
            )
        });
        let opened = Self { file, _name: name, path: path.to_owned(), _ticket: ticket };
        if rc == ffi::SQLITE_OK as i32 { Ok(opened) } else { Err(opened.error("open", rc)) }
    }

    pub(super) fn methods(&self) -> Option<&ffi::sqlite3_io_methods> {
        let file = self.file.as_ptr().cast::<ffi::sqlite3_file>();
        // SAFETY: the object starts with sqlite3_file; xOpen set pMethods to a static table or to null.
        unsafe { (*file).pMethods.as_ref() }
    }

    pub(super) fn raw(&self) -> *mut ffi::sqlite3_file {
        self.file.as_ptr().cast_mut().cast()
    }

    fn error(&self, what: &str, rc: i32) -> Error {
        let kind = if rc & 0xff == ffi::SQLITE_FULL as i32 { Kind::Full } else { Kind::Io };
        Error::new(kind, format!("{} {}: SQLite result {rc}", what, self.path))
    }

    /// Fills `buffer` from `offset`. What lies past the end of the file reads as zeros; `false` says that some did.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        let Some(read) = self.methods().and_then(|m| m.xRead) else { return Err(self.error("read", 1)) };
        // SAFETY: the file is open; the buffer has the given length.
        let rc = unsafe { read(self.raw(), buffer.as_mut_ptr().cast::<c_void>(), buffer.len() as i32, offset as i64) };
        match rc {
            0 => Ok(true),
            // Zeros where there is something would be shipped as if they were the page.
            SHORT_READ if self.size()? >= offset.saturating_add(buffer.len() as u64) => Err(self.error("read", rc)),
            SHORT_READ => Ok(false),
            rc => Err(self.error("read", rc)),
        }
    }

    /// In bytes.
    pub fn size(&self) -> Result<u64> {
        let Some(size) = self.methods().and_then(|m| m.xFileSize) else { return Err(self.error("size of", 1)) };
        let mut bytes = 0;
        // SAFETY: the file is open.
        match unsafe { size(self.raw(), &mut bytes) } {
            0 => Ok(bytes as u64),
            rc => Err(self.error("size of", rc)),
        }
    }

    /// Makes its content durable (P8).
    pub fn sync(&self) -> Result<()> {
        let Some(sync) = self.methods().and_then(|m| m.xSync) else { return Err(self.error("sync", 1)) };
        // SAFETY: the file is open.
        match unsafe { sync(self.raw(), (ffi::SQLITE_SYNC_NORMAL | ffi::SQLITE_SYNC_DATAONLY) as i32) } {
            0 => Ok(()),
            rc => Err(self.error("sync", rc)),
        }
    }

    /// Whether a connection holds a lock on the database, of this process or another. One in WAL mode does from its
    /// first read on, one in rollback mode only while it reads or writes. For a moment all others are locked out.
    pub fn is_locked(&self) -> bool {
        let Some((lock, unlock)) = self.methods().and_then(|m| m.xLock.zip(m.xUnlock)) else { return false };
        // SAFETY: the file is open. SQLite itself goes from SHARED to EXCLUSIVE when it rolls a journal back.
        unsafe {
            let free = lock(self.raw(), ffi::SQLITE_LOCK_SHARED as i32) == 0
                && lock(self.raw(), ffi::SQLITE_LOCK_EXCLUSIVE as i32) == 0;
            unlock(self.raw(), ffi::SQLITE_LOCK_NONE as i32);
            !free
        }
    }
}

impl Drop for BaseFile {
    fn drop(&mut self) {
        if let Some(close) = self.methods().and_then(|m| m.xClose) {
            // SAFETY: the file is open, and nobody uses it after this.
            unforked(|| unsafe { close(self.raw()) });
        }
    }
}
