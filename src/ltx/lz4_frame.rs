//! Pages as LZ4 frames, which Litestream wrote before 0.5.16. Read only: everybody writes LZ4 blocks now.

use super::stream::read_exact;
use crate::error::{Error, Result};
use lz4_flex::frame::FrameDecoder;
use std::io::Read;

/// The one kind of frame that was written: version 1, independent blocks of at most 64 KiB, a content checksum, no
/// block checksums, no size, no dictionary; the last byte is the header's own checksum. Others are refused, so a file
/// cannot ask for larger buffers.
const PROLOGUE: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
/// Set in a block's size when its bytes are stored as they are.
const STORED: u32 = 1 << 31;
const PART: &str = "an LZ4 frame";

/// Reads one frame to its end, which only walking its blocks finds, into `frame`; at most `limit` bytes.
pub(super) fn read(reader: &mut impl Read, frame: &mut Vec<u8>, limit: usize) -> Result<()> {
    frame.clear();
    append(reader, frame, PROLOGUE.len(), limit)?;
    if *frame != PROLOGUE {
        return Err(Error::corrupt("LTX page: an LZ4 frame with unknown options"));
    }
    loop {
        let mut size = [0; 4];
        read_exact(reader, &mut size, PART)?;
        frame.extend_from_slice(&size);
        let size = u32::from_le_bytes(size);
        if size == 0 {
            // The end mark; the content checksum follows.
            return append(reader, frame, 4, limit);
        }
        append(reader, frame, (size & !STORED) as usize, limit)?;
    }
}

/// Expands a frame that [`read`] returned into exactly one page and checks its content checksum.
pub(super) fn decode(frame: &[u8], page: &mut [u8]) -> Result<()> {
    let damaged = |e: std::io::Error| Error::corrupt(format!("LTX page: LZ4 frame: {e}"));
    let mut decoder = FrameDecoder::new(frame);
    decoder.read_exact(page).map_err(damaged)?;
    // Only reading to the end mark makes the decoder compare the checksum.
    let more = decoder.read(&mut [0]).map_err(damaged)?;
    if more != 0 || !decoder.get_ref().is_empty() {
        return Err(Error::corrupt("LTX page: LZ4 frame: longer than a page"));
    }
    Ok(())
}

fn append(reader: &mut impl Read, frame: &mut Vec<u8>, len: usize, limit: usize) -> Result<()> {
    let start = frame.len();
    let end = start.saturating_add(len);
    if end > limit {
        return Err(Error::corrupt(format!("LTX page: an LZ4 frame of more than {limit} bytes")));
    }
    frame.resize(end, 0);
    read_exact(reader, frame.get_mut(start..).unwrap_or_default(), PART)
}
