//! The database and its WAL, as this layer reads them: through handles that take no locks (P9).

use crate::error::Result;

/// An open file of the database. Used by one thread at a time.
pub trait DatabaseFile: Send {
    /// Fills `buffer` from `offset`; what lies past the end of the file reads as zeros, and `false` says so.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool>;
    /// In bytes.
    fn size(&self) -> Result<u64>;
    /// Makes the content durable (P8).
    fn sync(&self) -> Result<()>;
    /// Whether it was renamed or removed since it was opened.
    fn has_moved(&self) -> bool;
}

/// Opens the files of one database.
pub trait Files: Send + Sync {
    /// The database.
    fn open_database(&self) -> Result<Box<dyn DatabaseFile>>;
    /// Its WAL.
    fn open_wal(&self) -> Result<Box<dyn DatabaseFile>>;
    /// Whether files may be opened now: a thread of ours calls nothing of SQLite while no connection is open (P33).
    fn may_be_opened(&self) -> bool;
}
