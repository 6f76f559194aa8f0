//! The database and its WAL, as this layer reads them: through handles that take no locks (P9).

use crate::error::Result;
use crate::header;
use crate::ltx::PageSize;

/// An open file of the database. Used by one thread at a time.
pub trait DatabaseFile: Send {
    /// Fills `buffer` from `offset`; what lies past the end of the file reads as zeros, and `false` says so.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool>;
    /// In bytes.
    fn size(&self) -> Result<u64>;
    /// Makes the content durable (P8).
    fn sync(&self) -> Result<()>;
}

/// Opens the files of one database.
pub trait Files: Send + Sync {
    /// The database.
    fn open_database(&self) -> Result<Box<dyn DatabaseFile>>;
    /// Its WAL.
    fn open_wal(&self) -> Result<Box<dyn DatabaseFile>>;
    /// Whether files may be opened now: a thread of ours calls nothing of SQLite while no connection is open (P33).
    fn may_be_opened(&self) -> bool;
    /// The wal-index, which other processes use too, as long as a connection of this process has it mapped; else
    /// `None`.
    fn open_index(&self) -> Result<Option<Box<dyn SharedIndex>>>;
    /// How often connections of this process have taken or given back the WAL write lock: odd while one has it.
    fn own_writes(&self) -> u64;
}

/// The mapped wal-index of a database, and the locks of its read marks. Nothing here waits.
pub trait SharedIndex: Send {
    /// Both copies of the header, and the checkpoint information behind them.
    fn read(&self) -> [u8; 136];
    /// Takes the shared lock of a read mark, 0 to 4; whether it is held.
    fn hold(&mut self, mark: u8) -> bool;
    /// Gives it back.
    fn release(&mut self, mark: u8);
}

/// The page size that a database file names; `None` if it has no header, or no sound one.
pub fn page_size_of(database: &dyn DatabaseFile) -> Result<Option<PageSize>> {
    let mut size = [0; 2];
    let whole = database.read_at(&mut size, header::PAGE_SIZE.start as u64)?;
    let size = PageSize::from_u16(u16::from_be_bytes(size));
    Ok(size.ok().filter(|_| whole))
}
