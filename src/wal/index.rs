//! The header of the wal-index, with which SQLite publishes commits: 48 bytes, twice, at the start of shared memory.
//!
//! It is written by machines of one kind for themselves: all integers but the salts are in the machine's byte order.

use super::header::VERSION;
use super::{FrameChecksum, Salts};
use crate::ltx::{Fields, PageSize};

/// The bytes that the header's checksum covers.
const COVERED: usize = 40;

/// SQLite's `WalIndexHdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// Counts the header's changes.
    pub change: u32,
    /// The byte order of the WAL's checksums.
    pub big_endian_checksum: bool,
    /// Of the database.
    pub page_size: PageSize,
    /// `mxFrame`: the last frame that is published, 0 if none is.
    pub max_frame: u32,
    /// `nPage`: the database's size in pages after that frame.
    pub page_count: u32,
    /// The running checksum of that frame.
    pub frame_checksum: FrameChecksum,
    /// Those of the WAL's header.
    pub salts: Salts,
}

impl IndexHeader {
    /// Bytes of one copy.
    pub const SIZE: usize = 48;

    /// `None` if it is not initialised, of another version, or does not have its own checksum: not valid now, as while
    /// it is being written or after a crash.
    pub fn parse(first: &[u8; Self::SIZE]) -> Option<Self> {
        let mut fields = Fields(first);
        let version = native(&mut fields)?;
        let _unused = native(&mut fields)?;
        let change = native(&mut fields)?;
        let [is_init, big_endian_checksum] = fields.array().ok()?;
        let page_size = u16::from_ne_bytes(fields.array().ok()?);
        let (max_frame, page_count) = (native(&mut fields)?, native(&mut fields)?);
        let frame_checksum = FrameChecksum(native(&mut fields)?, native(&mut fields)?);
        // Copied as they stand in the WAL's header, which is big-endian.
        let salts = Salts(fields.u32().ok()?, fields.u32().ok()?);
        let checksum = FrameChecksum(native(&mut fields)?, native(&mut fields)?);
        let (covered, _) = first.split_at(COVERED);
        let sound = FrameChecksum::default().update(cfg!(target_endian = "big"), covered) == checksum;
        if is_init == 0 || version != VERSION || !sound {
            return None;
        }
        let page_size = PageSize::from_u16(page_size).ok()?;
        let big_endian_checksum = big_endian_checksum != 0;
        Some(Self { change, big_endian_checksum, page_size, max_frame, page_count, frame_checksum, salts })
    }

    /// From both copies, which SQLite writes one after the other: `None` if they differ.
    pub fn parse_both(copies: &[u8; 2 * Self::SIZE]) -> Option<Self> {
        let (first, second) = copies.split_first_chunk::<{ Self::SIZE }>()?;
        if first.as_slice() != second {
            return None;
        }
        Self::parse(first)
    }
}

fn native(fields: &mut Fields<'_>) -> Option<u32> {
    fields.array().ok().map(u32::from_ne_bytes)
}
