//! The WAL's own header, 32 bytes.

use super::{FrameChecksum, Salts, WAL_HEADER_SIZE};
use crate::error::{Error, Result};
use crate::ltx::{Fields, PageSize};

/// With its last bit set, checksums take words as big-endian; otherwise as little-endian.
const MAGIC: u32 = 0x377f_0682;
/// The only version there has been; the wal-index has the same.
pub(super) const VERSION: u32 = 3_007_000;
/// The header's bytes that its checksum covers.
const COVERED: usize = 24;

/// What the first 32 bytes of a WAL say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalHeader {
    /// The byte order of the words that are summed up; the fields themselves are always big-endian.
    pub big_endian: bool,
    /// Of the database.
    pub page_size: PageSize,
    /// How often the WAL was restarted, by its writer's count.
    pub checkpoint_seq: u32,
    /// Frames of this run of the WAL have the same.
    pub salts: Salts,
    /// Of this header; the first frame's continues from here.
    pub checksum: FrameChecksum,
}

impl WalHeader {
    /// Parses and checks the checksum.
    pub fn parse(bytes: &[u8; WAL_HEADER_SIZE as usize]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        if magic & !1 != MAGIC {
            return Err(Error::corrupt(format!("WAL header: magic {magic:#010x}")));
        }
        let big_endian = magic & 1 == 1;
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Error::corrupt(format!("WAL header: version {version}")));
        }
        let page_size = PageSize::new(fields.u32()?).map_err(|e| e.context("WAL header"))?;
        let checkpoint_seq = fields.u32()?;
        let salts = Salts(fields.u32()?, fields.u32()?);
        let checksum = FrameChecksum(fields.u32()?, fields.u32()?);
        let (covered, _) = bytes.split_at(COVERED);
        if FrameChecksum::default().update(big_endian, covered) != checksum {
            return Err(Error::corrupt("WAL header: checksum mismatch"));
        }
        Ok(Self { big_endian, page_size, checkpoint_seq, salts, checksum })
    }
}
