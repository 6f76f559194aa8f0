//! The file checksum from parts: runs of consecutive page frames are hashed apart and then joined in order.

use super::checksum::digest;
use super::frame::{BLOCK_SIZE_SIZE, FLAG_BLOCK, FRAME_HEADER_SIZE};
use super::{Checksum, END_MARKER_SIZE, HEADER_SIZE};
use crc_fast::Digest;

/// The CRC of a run of page frames, the first one behind the header, and how many bytes went into it.
#[derive(Clone, Copy, Debug)]
pub struct SegmentHash(Digest);

impl SegmentHash {
    /// Of no frame.
    pub fn new() -> Self {
        Self(digest())
    }

    /// Of the header as stored: what the first run begins with.
    pub fn of_header(header: &[u8; HEADER_SIZE]) -> Self {
        let mut digest = digest();
        digest.update(header);
        Self(digest)
    }

    /// Takes in the next frame: its header, its block length if it has one, and the page uncompressed. `frame` is the
    /// whole frame or at least its first 10 bytes; the compressed bytes are in no checksum.
    pub fn update_page(&mut self, frame: &[u8], page: &[u8]) {
        self.0.update(hashed_prefix(frame));
        self.0.update(page);
    }

    /// Takes in the run that follows this one. Costs as much as hashing some hundred pages: for runs of more.
    pub fn combine(&mut self, next: &Self) {
        self.0.combine(&next.0);
    }
}

impl Default for SegmentHash {
    fn default() -> Self {
        Self::new()
    }
}

/// The part of a frame that the checksum covers as it stands in the file.
pub(super) fn hashed_prefix(frame: &[u8]) -> &[u8] {
    let block = frame.get(4..FRAME_HEADER_SIZE) == Some(&FLAG_BLOCK.to_be_bytes());
    let len = FRAME_HEADER_SIZE + if block { BLOCK_SIZE_SIZE } else { 0 };
    frame.get(..len).unwrap_or(frame)
}

/// The checksum that the trailer must have: `segments` over the header and all frames, `index` as stored with its
/// terminator, and the trailer's first field.
pub fn file_checksum(segments: &SegmentHash, index: &[u8], post_apply: u64) -> Checksum {
    end(segments.0, index, post_apply)
}

/// What follows the pages, in file order.
pub(super) fn end(mut digest: Digest, index: &[u8], post_apply: u64) -> Checksum {
    digest.update(&[0; END_MARKER_SIZE]);
    digest.update(index);
    digest.update(&(index.len() as u64).to_be_bytes());
    digest.update(&post_apply.to_be_bytes());
    Checksum::of(&digest)
}
