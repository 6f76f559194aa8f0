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
    /// Counts the commits since the wal-index was made or recovered, over restarts of the WAL; `None` where there is no
    /// wal-index (P4).
    pub change: Option<u32>,
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
        Self::parse_of(first, None)
    }

    fn parse_of(first: &[u8; Self::SIZE], empty: Option<PageSize>) -> Option<Self> {
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
        let page_size = match empty {
            Some(empty) if page_size == 0 && max_frame == 0 => empty,
            _ => PageSize::from_u16(page_size).ok()?,
        };
        let big_endian_checksum = big_endian_checksum != 0;
        let change = Some(change);
        Some(Self { change, big_endian_checksum, page_size, max_frame, page_count, frame_checksum, salts })
    }

    /// From both copies, which SQLite writes one after the other: `None` if they differ. The index of a WAL that never
    /// had a frame names no page size; it is taken for `page_size`, the database's.
    pub fn parse_both(copies: &[u8; 2 * Self::SIZE], page_size: Option<PageSize>) -> Option<Self> {
        let (first, second) = copies.split_first_chunk::<{ Self::SIZE }>()?;
        if first.as_slice() != second {
            return None;
        }
        Self::parse_of(first, page_size)
    }
}

/// SQLite's `WalCkptInfo`, which follows the two copies of the header: how far the WAL was copied to the database, and
/// up to where readers read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// `nBackfill`: frames that are in the database file.
    pub backfilled: u32,
    /// `nBackfillAttempted`: frames that may be.
    pub attempted: u32,
    /// `aReadMark`: the last frame that the readers of each lock read; [`CheckpointInfo::UNUSED`] where there are none.
    pub marks: [u32; 5],
}

impl CheckpointInfo {
    /// A mark that holds no checkpoint up.
    pub const UNUSED: u32 = u32::MAX;

    /// From what follows the two copies: `nBackfill`, the marks, the bytes that are locked, `nBackfillAttempted`.
    pub fn parse(bytes: &[u8; 40]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let backfilled = native(&mut fields)?;
        let mut marks = [0; 5];
        for mark in &mut marks {
            *mark = native(&mut fields)?;
        }
        let _locks: [u8; 8] = fields.array().ok()?;
        Some(Self { backfilled, attempted: native(&mut fields)?, marks })
    }
}

fn native(fields: &mut Fields<'_>) -> Option<u32> {
    fields.array().ok().map(u32::from_ne_bytes)
}
