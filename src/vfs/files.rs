//! The files of a database, for the writer: through the base VFS.

use crate::error::Result;
use crate::sqlite::{BaseFile, BaseVfs, FileRole, SharedIndex, WalIndexStart};
use crate::writer::{self, DatabaseFile, Files};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What the connections of this process do with a database.
#[derive(Default)]
pub(super) struct Usage {
    /// How many have the wal-index mapped.
    pub(super) mapped: AtomicUsize,
    /// Counts the WAL write lock, taken and given back.
    pub(super) writes: AtomicU64,
}

/// Opens the files of a database through the base VFS.
pub(super) struct BaseFiles {
    pub(super) vfs: BaseVfs,
    pub(super) path: String,
    pub(super) usage: Arc<Usage>,
}

impl Files for BaseFiles {
    fn open_database(&self) -> Result<Box<dyn DatabaseFile>> {
        Ok(Box::new(BaseFile::open(self.vfs, &self.path, FileRole::Database)?))
    }
    fn open_wal(&self) -> Result<Box<dyn DatabaseFile>> {
        Ok(Box::new(BaseFile::open(self.vfs, &format!("{}-wal", self.path), FileRole::Wal)?))
    }
    fn may_be_opened(&self) -> bool {
        crate::sqlite::has_connections()
    }
    fn open_index(&self) -> Result<Option<Box<dyn writer::SharedIndex>>> {
        if self.usage.mapped.load(Ordering::SeqCst) == 0 {
            return Ok(None);
        }
        Ok(SharedIndex::open(self.vfs, &self.path)?.map(|index| Box::new(index) as Box<dyn writer::SharedIndex>))
    }
    fn own_writes(&self) -> u64 {
        self.usage.writes.load(Ordering::SeqCst)
    }
}

impl writer::SharedIndex for SharedIndex {
    fn read(&self) -> WalIndexStart {
        Self::read(self)
    }
    fn hold(&mut self, mark: u8) -> bool {
        Self::hold(self, mark)
    }
    fn release(&mut self, mark: u8) {
        Self::release(self, mark);
    }
}

impl DatabaseFile for BaseFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        Self::read_at(self, buffer, offset)
    }
    fn size(&self) -> Result<u64> {
        Self::size(self)
    }
    fn sync(&self) -> Result<()> {
        Self::sync(self)
    }
}
