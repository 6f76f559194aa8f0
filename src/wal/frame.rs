//! The header before each page in a WAL, 24 bytes.

use super::{FRAME_HEADER_SIZE, FrameChecksum, Salts, WAL_HEADER_SIZE};
use crate::error::{Error, Result};
use crate::ltx::{Fields, PageSize, Pgno};

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The page that follows.
    pub pgno: Pgno,
    /// In a transaction's last frame the database's size in pages after it; 0 in all others.
    pub commit: u32,
    /// Those of the WAL's header, or the frame is left over.
    pub salts: Salts,
    /// Of everything up to and with this frame's page.
    pub checksum: FrameChecksum,
}

impl FrameHeader {
    /// Parses; whether salts and checksum fit is the caller's to check ([`FrameChecksum::update_frame`]).
    pub fn parse(bytes: &[u8; FRAME_HEADER_SIZE as usize]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let pgno = Pgno::new(fields.u32()?).ok_or_else(|| Error::corrupt("WAL frame: page 0"))?;
        Ok(Self {
            pgno,
            commit: fields.u32()?,
            salts: Salts(fields.u32()?, fields.u32()?),
            checksum: FrameChecksum(fields.u32()?, fields.u32()?),
        })
    }
}

/// The byte of the WAL at which a frame's header starts. Frames count from 1, as `mxFrame` does: frame `mxFrame + 1`
/// gives the end of the published WAL.
pub fn frame_offset(frame: u32, page_size: PageSize) -> u64 {
    WAL_HEADER_SIZE + u64::from(frame.saturating_sub(1)) * (FRAME_HEADER_SIZE + u64::from(page_size.get()))
}
