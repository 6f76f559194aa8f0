//! The last 24 bytes: the size of the page index, and the trailer with the two checksums.

use super::{Checksum, END_MARKER_SIZE, Fields, HEADER_SIZE, TAIL_SIZE};
use crate::error::{Error, Result};
use std::ops::Range;

/// The last 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The database's checksum after the file is applied; 0 when the file carries none.
    pub post_apply: u64,
    /// Over the whole file, with pages uncompressed.
    pub file_checksum: Checksum,
}

/// What a reader by ranges fetches first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of the index, its terminator included.
    pub index_size: u64,
    /// The checksums.
    pub trailer: Trailer,
}

impl Tail {
    /// Parses the last 24 bytes of a file of `file_size` bytes; an index that does not fit in the file is corrupt.
    pub fn parse(bytes: &[u8; TAIL_SIZE], file_size: u64) -> Result<Self> {
        let mut fields = Fields(bytes);
        let index_size = fields.u64()?;
        let trailer = Trailer::from_fields(fields)?;
        let around = (HEADER_SIZE + END_MARKER_SIZE + TAIL_SIZE) as u64;
        if index_size == 0 || file_size.checked_sub(around).is_none_or(|room| index_size > room) {
            return Err(Error::corrupt(format!("LTX index of {index_size} bytes in a file of {file_size}")));
        }
        Ok(Self { index_size, trailer })
    }

    /// Where the index is, in bytes of the file, terminator included. `file_size` is the one given to [`Self::parse`].
    pub fn index_range(&self, file_size: u64) -> Range<u64> {
        let end = file_size.saturating_sub(TAIL_SIZE as u64);
        end.saturating_sub(self.index_size)..end
    }

    /// The byte after the last page frame, where the end marker starts.
    pub fn pages_end(&self, file_size: u64) -> u64 {
        self.index_range(file_size).start.saturating_sub(END_MARKER_SIZE as u64)
    }
}

impl Trailer {
    /// From the two last fields of a file.
    pub(super) fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        let post_apply = fields.u64()?;
        let file_checksum = Checksum::from_u64(fields.u64()?)
            .ok_or_else(|| Error::corrupt("LTX trailer: the file checksum is missing"))?;
        Ok(Self { post_apply, file_checksum })
    }
}
