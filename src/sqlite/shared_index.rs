//! The wal-index of a database that other processes use too, through a handle of ours (P15).
//!
//! The handle takes no lock on the database file, so it is no obstacle to a last close; it holds at most read locks of
//! the wal-index. It may exist only while a tapped connection of this process has the wal-index mapped: a file that is
//! deleted under a mapping of ours would be taken for the new one by the process's next connection.

use super::base_file::{BaseFile, FileRole};
use super::shim::BaseVfs;
use super::tap::read_words;
use crate::error::Result;
use sqlite3ext_sys as ffi;
use std::ffi::c_int;

/// Both copies of the header, and what checkpoints and readers tell each other: 136 bytes in the host's byte order
/// (SQLite's walformat, section 2.1).
pub type WalIndexStart = [u8; 136];

/// Bytes of a region of the wal-index.
const REGION: c_int = 32768;
const SHM_UNLOCK: c_int = 1;
const SHM_LOCK: c_int = 2;
const SHM_SHARED: c_int = 4;
/// WAL_READ_LOCK(0).
const FIRST_READ_LOCK: c_int = 3;

/// An open mapping.
pub struct SharedIndex {
    file: BaseFile,
    region: *const u8,
    held: [bool; 5],
}

// SAFETY: the handle is owned and used by one thread at a time; the region is memory shared between processes.
unsafe impl Send for SharedIndex {}

impl SharedIndex {
    /// Joins the mapping that a connection of this process has. `None`: the VFS has no shared memory.
    pub fn open(vfs: BaseVfs, path: &str) -> Result<Option<Self>> {
        let file = BaseFile::open(vfs, path, FileRole::Database)?;
        let Some(map) = file.methods().and_then(|m| if m.iVersion >= 2 { m.xShmMap } else { None }) else {
            return Ok(None);
        };
        let mut region = std::ptr::null_mut();
        // SAFETY: the file is open; nothing is extended, so a wal-index that is not there gives null.
        let rc = unsafe { map(file.raw(), 0, REGION, 0, &mut region) };
        let opened = Self { file, region: region.cast::<u8>(), held: [false; 5] };
        Ok((rc == 0 && !opened.region.is_null()).then_some(opened))
    }

    /// What it holds now. While somebody writes to it the two copies of the header differ.
    pub fn read(&self) -> WalIndexStart {
        let mut copy = [0; 136];
        // SAFETY: the region has 32 KiB and is mapped until the drop.
        unsafe { read_words(self.region, &mut copy) };
        copy
    }

    /// Takes the shared lock of a read mark, at once or not at all.
    pub fn hold(&mut self, mark: u8) -> bool {
        let held = self.held[usize::from(mark)] || self.lock(mark, SHM_LOCK);
        self.held[usize::from(mark)] = held;
        held
    }

    /// Gives it back.
    pub fn release(&mut self, mark: u8) {
        if std::mem::take(&mut self.held[usize::from(mark)]) {
            self.lock(mark, SHM_UNLOCK);
        }
    }

    fn lock(&self, mark: u8, what: c_int) -> bool {
        let Some(lock) = self.file.methods().and_then(|m| m.xShmLock) else { return false };
        // SAFETY: the file is open and has its shared memory mapped. The call does not wait.
        unsafe {
            lock(self.file.raw(), FIRST_READ_LOCK + c_int::from(mark), 1, what | SHM_SHARED) == ffi::SQLITE_OK as c_int
        }
    }
}

impl Drop for SharedIndex {
    fn drop(&mut self) {
        (0..5).for_each(|mark| self.release(mark));
        if let Some(unmap) = self.file.methods().and_then(|m| m.xShmUnmap) {
            // SAFETY: the file is open; nothing is deleted.
            unsafe { unmap(self.file.raw(), 0) };
        }
    }
}
