//! The numbers of the format as types: parsing yields a type or an error, past that nothing is checked twice.

use crate::error::{Error, Result};
use std::fmt;

/// A transaction id: one shipped object (P17). Never 0. As text: 16 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(u64);

impl Txid {
    /// The first one: a file that starts here holds every page (a "snapshot" to the format).
    pub const FIRST: Self = Self(1);

    /// `None` for 0.
    pub fn new(value: u64) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after this. Saturates, which no chain reaches.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Exactly 16 lower-case or upper-case hex digits, not all zero.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().and_then(Self::new)
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The TXIDs that a file covers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxidRange {
    /// The first TXID covered.
    pub min: Txid,
    /// The last TXID covered; at least `min`.
    pub max: Txid,
}

impl TxidRange {
    /// `None` if `min` is larger than `max`.
    pub fn new(min: Txid, max: Txid) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// A single TXID, as at level 0.
    pub fn single(txid: Txid) -> Self {
        Self { min: txid, max: txid }
    }

    /// Parses a file name, `<min>-<max>.ltx`; anything else is `None` and none of our business.
    pub fn parse_file_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".ltx")?;
        let (min, max) = stem.split_once('-')?;
        if stem.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        Self::new(Txid::parse(min)?, Txid::parse(max)?)
    }

    /// `<min>-<max>.ltx`.
    pub fn file_name(self) -> String {
        format!("{self}.ltx")
    }
}

impl fmt::Display for TxidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// A page number. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pgno(u32);

impl Pgno {
    /// The page with the database header.
    pub const FIRST: Self = Self(1);

    /// `None` for 0.
    pub fn new(value: u32) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Its index in a table that starts with page 1.
    pub fn index(self) -> usize {
        self.0 as usize - 1
    }
}

impl fmt::Display for Pgno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A page size: a power of two from 512 to 65536 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// Checks that it is a legal one.
    pub fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Error::corrupt(format!("page size {bytes} is not a power of two from 512 to 65536")))
        }
    }

    /// From a 16-bit field (database header, wal-index header), where 1 means 65536.
    pub fn from_u16(field: u16) -> Result<Self> {
        Self::new(if field == 1 { 65536 } else { u32::from(field) })
    }

    /// In bytes.
    pub fn get(self) -> u32 {
        self.0
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        self.0 as usize
    }

    /// The page at byte 0x40000000, which SQLite locks and never stores data in.
    /// Never in an LTX file, in no checksum, zeros in a restored database.
    pub fn lock_page(self) -> Pgno {
        Pgno(0x4000_0000 / self.0 + 1)
    }

    /// The page's first byte in the database file.
    pub fn offset_of(self, pgno: Pgno) -> u64 {
        u64::from(pgno.0 - 1) * u64::from(self.0)
    }
}

/// A level of the replica: 0 as shipped, 1 to 8 compacted, 9 snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// As shipped.
    pub const L0: Self = Self(0);
    /// Snapshots.
    pub const SNAPSHOT: Self = Self(9);

    /// `None` above 9.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 9).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// 0 to 9.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=9).map(Self)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
