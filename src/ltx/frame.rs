//! One page in a file: a 6-byte header and the compressed page, in either of the two encodings.

use super::{Fields, PageSize, Pgno, lz4_frame};
use crate::error::{Error, Result};

/// Page number and flags.
pub(super) const FRAME_HEADER_SIZE: usize = 6;
/// The length of an LZ4 block, where there is one.
pub(super) const BLOCK_SIZE_SIZE: usize = 4;
/// The page is an LZ4 block and its length precedes it; otherwise it is an LZ4 frame.
pub(super) const FLAG_BLOCK: u16 = 1;

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A raw LZ4 block behind its length: Litestream since 0.5.16, and we.
    Block,
    /// A complete LZ4 frame: Litestream before that.
    Lz4Frame,
}

/// A parsed page header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub pgno: Pgno,
    pub encoding: Encoding,
}

impl FrameHeader {
    /// `None` for the end marker, which is all zeros.
    pub fn parse(bytes: &[u8; FRAME_HEADER_SIZE]) -> Result<Option<Self>> {
        let mut fields = Fields(bytes);
        let pgno = Pgno::new(fields.u32()?);
        let flags = u16::from_be_bytes(fields.array()?);
        match (pgno, flags) {
            (None, 0) => Ok(None),
            (Some(pgno), FLAG_BLOCK) => Ok(Some(Self { pgno, encoding: Encoding::Block })),
            (Some(pgno), 0) => Ok(Some(Self { pgno, encoding: Encoding::Lz4Frame })),
            (None, _) => Err(Error::corrupt(format!("LTX page header: flags {flags:#x} without a page"))),
            (Some(pgno), _) => Err(Error::corrupt(format!("LTX page {pgno}: unknown flags {flags:#x}"))),
        }
    }
}

/// The longest block that any LZ4 compressor makes of a page: LZ4's published worst case.
pub(super) fn max_block_len(page_size: PageSize) -> usize {
    page_size.bytes() + page_size.bytes() / 255 + 16
}

/// The longest frame of a page, its header included, in either encoding.
pub fn max_frame_len(page_size: PageSize) -> usize {
    FRAME_HEADER_SIZE + BLOCK_SIZE_SIZE + max_block_len(page_size)
}

/// Decodes the frame that the index names for page `expect`: all of its bytes, header included. `page` has the page
/// size. A block carries no checksum, so only the whole file's checksum proves the page; an LZ4 frame's own is checked.
pub fn decode_frame(frame: &[u8], expect: Pgno, page: &mut [u8]) -> Result<()> {
    let page_size = u32::try_from(page.len()).map_err(|_| Error::bug("page buffer")).and_then(PageSize::new)?;
    let (header, body) = frame.split_first_chunk().ok_or_else(|| Error::corrupt("LTX page: shorter than 6 bytes"))?;
    let header = FrameHeader::parse(header)?
        .filter(|h| h.pgno == expect)
        .ok_or_else(|| Error::corrupt(format!("LTX page {expect}: the index points to another page")))?;
    match header.encoding {
        Encoding::Block => {
            let (len, block) =
                body.split_first_chunk().ok_or_else(|| Error::corrupt(format!("LTX page {expect}: no length")))?;
            if block.len() != block_len(*len, page_size)? {
                return Err(Error::corrupt(format!("LTX page {expect}: the lengths in index and frame differ")));
            }
            decode_block(block, page)
        }
        Encoding::Lz4Frame => {
            let (mut body, mut lz4) = (body, Vec::new());
            lz4_frame::read(&mut body, &mut lz4, max_block_len(page_size))?;
            if !body.is_empty() {
                return Err(Error::corrupt(format!("LTX page {expect}: bytes after its LZ4 frame")));
            }
            lz4_frame::decode(&lz4, page)
        }
    }
}

/// The length of a block, checked against what a page can need.
pub(super) fn block_len(field: [u8; BLOCK_SIZE_SIZE], page_size: PageSize) -> Result<usize> {
    let len = u32::from_be_bytes(field) as usize;
    if len > max_block_len(page_size) {
        return Err(Error::corrupt(format!("LTX page: {len} bytes compressed for a page of {}", page_size.get())));
    }
    Ok(len)
}

/// Expands a block into exactly one page.
pub(super) fn decode_block(block: &[u8], page: &mut [u8]) -> Result<()> {
    match lz4_flex::block::decompress_into(block, page) {
        Ok(len) if len == page.len() => Ok(()),
        Ok(len) => Err(Error::corrupt(format!("LTX page: {len} bytes in place of {}", page.len()))),
        Err(e) => Err(Error::corrupt(format!("LTX page: LZ4 block: {e}"))),
    }
}
