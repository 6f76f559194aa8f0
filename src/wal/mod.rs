//! SQLite's WAL file and the header of its index: pure, bytes in, values out.
//!
//! Sources: "Database File Format" section 4 (the WAL file and its checksums) and "WAL-mode File Format" (the
//! wal-index) in SQLite's documentation.
//!
//! Architecture Invariant: nothing here decides what is committed. That is the published wal-index header alone;
//! a frame's checksum says only that the frame is whole and follows the one before.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod checksum;
mod frame;
mod header;
mod index;

#[cfg(test)]
mod tests;

pub use checksum::FrameChecksum;
pub use frame::{FrameHeader, frame_offset};
pub use header::WalHeader;
pub use index::{CheckpointInfo, IndexHeader};

/// Bytes of the header, at the start of a WAL.
pub const WAL_HEADER_SIZE: u64 = 32;
/// Bytes of the header before each page.
pub const FRAME_HEADER_SIZE: u64 = 24;

/// The two numbers that name one run of a WAL: the first grows by one at each restart, the second is random. A frame
/// with other salts is left over from an earlier run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Salts(pub u32, pub u32);
