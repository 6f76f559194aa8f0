//! The page index: where each page's frame is, as tuples of varints and a final 0.

use super::order::PageOrder;
use super::{HEADER_SIZE, Header, Pgno, max_frame_len};
use crate::error::{Error, Result};

/// Where one page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The page.
    pub pgno: Pgno,
    /// The frame's first byte in the file.
    pub offset: u64,
    /// Bytes of the frame, its header included.
    pub len: u32,
}

/// Parses the index as stored, terminator included. `pages_end` is the byte after the last frame
/// ([`Tail::pages_end`](super::Tail::pages_end)): the frames fill the file from the header to there, so an index that
/// passes names every frame. Page numbers obey the header.
pub fn parse_index(bytes: &[u8], header: &Header, pages_end: u64) -> Result<Vec<IndexEntry>> {
    let (terminator, mut rest) = bytes.split_last().ok_or_else(|| corrupt("empty"))?;
    if *terminator != 0 {
        return Err(corrupt("not terminated"));
    }
    let longest = max_frame_len(header.page_size) as u64;
    let mut order = PageOrder::new(header);
    let mut end = HEADER_SIZE as u64;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (pgno, offset, len) = (uvarint(&mut rest)?, uvarint(&mut rest)?, uvarint(&mut rest)?);
        let pgno = u32::try_from(pgno).ok().and_then(Pgno::new).ok_or_else(|| corrupt(format!("page {pgno}")))?;
        order.accept(pgno).map_err(corrupt)?;
        if offset != end || len > longest {
            return Err(corrupt(format!("page {pgno} at {offset} with {len} bytes, expected at {end}")));
        }
        let len = u32::try_from(len).map_err(|_| corrupt("frame length"))?;
        end = end.saturating_add(u64::from(len));
        if len == 0 || end > pages_end {
            return Err(corrupt(format!("page {pgno} ends at {end}, the pages at {pages_end}")));
        }
        entries.push(IndexEntry { pgno, offset, len });
    }
    order.end().map_err(corrupt)?;
    if end != pages_end {
        return Err(corrupt(format!("the last page ends at {end}, the pages at {pages_end}")));
    }
    Ok(entries)
}

/// How many pages an index names, without a look at what it says of them.
pub fn count_index(bytes: &[u8]) -> usize {
    let ends = bytes.iter().filter(|byte| **byte < 0x80).count();
    ends.saturating_sub(1) / 3
}

/// The index of a file being written, or the one a file being read must have.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    bytes: Vec<u8>,
}

impl IndexBuilder {
    pub fn push(&mut self, entry: IndexEntry) {
        for value in [u64::from(entry.pgno.get()), entry.offset, u64::from(entry.len)] {
            put_uvarint(&mut self.bytes, value);
        }
    }

    /// With the terminator, as stored.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

/// Unsigned LEB128, as Go's `binary.PutUvarint`.
fn put_uvarint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one varint from the front. Only the shortest form of a number is accepted, as writers make it, so that an
/// index has one encoding.
fn uvarint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| corrupt("ends inside a number"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(corrupt("a number is too long"))
}

fn corrupt(reason: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("LTX index: {reason}"))
}
