//! Checksums: CRC-64/ISO with bit 63 always set, so that 0 can mean "absent".

use super::Pgno;
use crc_fast::{CrcAlgorithm, Digest};
use std::fmt;

/// Set in every stored checksum; 63 bits carry the CRC.
pub(super) const CHECKSUM_FLAG: u64 = 1 << 63;

/// The running CRC-64/ISO, as Go's `hash/crc64` with its ISO table computes it.
pub(super) fn digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc64GoIso)
}

/// A checksum as a file stores it: bit 63 is set. Of a file's bytes, or of a database's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(u64);

impl Checksum {
    /// Of a database without pages.
    pub const EMPTY: Self = Self(CHECKSUM_FLAG);

    /// `None` without bit 63.
    pub fn from_u64(value: u64) -> Option<Self> {
        (value & CHECKSUM_FLAG != 0).then_some(Self(value))
    }

    /// Of bytes that are not of the format, all parts one after another.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut digest = digest();
        parts.iter().for_each(|part| digest.update(part));
        Self::of(&digest)
    }

    /// Ends a running CRC.
    pub(super) fn of(digest: &Digest) -> Self {
        Self(digest.finalize() | CHECKSUM_FLAG)
    }

    /// As stored, bit 63 included.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The checksum of one page: its number (4 bytes, big-endian) and its bytes. Bit 63 is set.
pub fn page_checksum(pgno: Pgno, page: &[u8]) -> u64 {
    let mut digest = digest();
    digest.update(&pgno.get().to_be_bytes());
    digest.update(page);
    Checksum::of(&digest).get()
}

/// The checksum of a whole database, kept up to date page by page: the XOR of its page checksums, without the lock
/// page. The order of pages does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rolling(u64);

impl Rolling {
    /// Of a database without pages.
    pub const EMPTY: Self = Self(CHECKSUM_FLAG);

    /// Takes a page's [`page_checksum`] in.
    pub fn add(&mut self, page_checksum: u64) {
        self.0 = (self.0 ^ page_checksum) | CHECKSUM_FLAG;
    }

    /// Takes a page's [`page_checksum`] out: the old one, before a new one is added or when the page is gone.
    pub fn remove(&mut self, page_checksum: u64) {
        self.add(page_checksum);
    }

    /// As stored; bit 63 is set.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<Checksum> for Rolling {
    fn from(checksum: Checksum) -> Self {
        Self(checksum.get())
    }
}

impl From<Rolling> for Checksum {
    fn from(rolling: Rolling) -> Self {
        Self(rolling.0)
    }
}
