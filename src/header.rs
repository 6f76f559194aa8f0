//! The header of a database file, which page 1 begins with (SQLite's fileformat, section 1.3). Numbers are big-endian.

use std::ops::Range;

/// Its bytes.
pub const SIZE: usize = 100;
/// What it begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The page size, u16; 1 stands for 65536.
pub const PAGE_SIZE: Range<usize> = 16..18;
/// The file format versions of who writes, and of who reads, a byte each: [`ROLLBACK`] or [`WAL`].
pub const VERSIONS: Range<usize> = 18..20;
/// The version of a database in rollback mode.
pub const ROLLBACK: u8 = 1;
/// The version of a database in WAL mode.
pub const WAL: u8 = 2;
/// The change counter, u32: counted up when page 1 is written.
pub const CHANGE_COUNTER: Range<usize> = 24..28;
/// The size in pages, u32.
pub const PAGES: Range<usize> = 28..32;
/// The schema cookie, u32: counted up at each change of the schema.
pub const SCHEMA_COOKIE: Range<usize> = 40..44;
/// The change counter for which the size in pages is valid, u32.
pub const VALID_FOR: Range<usize> = 92..96;
