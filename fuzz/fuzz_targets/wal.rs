//! A WAL read frame by frame, and the same bytes as a wal-index.

#![no_main]

use libfuzzer_sys::fuzz_target;
use litestream::ltx::PageSize;
use litestream::wal::{FrameHeader, IndexHeader, WalHeader, frame_offset};

fuzz_target!(|bytes: &[u8]| {
    if let Some(copies) = bytes.first_chunk::<{ 2 * IndexHeader::SIZE }>() {
        let _ = IndexHeader::parse_both(copies, None);
    }
    if let Some(first) = bytes.first_chunk() {
        let _ = IndexHeader::parse(first);
    }
    let Some(first) = bytes.first_chunk() else { return };
    // Without a sound header, which its checksum makes rare, frames are read as if there were one.
    let header = WalHeader::parse(first).ok();
    let page_size = header.map_or_else(|| PageSize::new(512).unwrap(), |h| h.page_size);
    let mut checksum = header.map_or_else(Default::default, |h| h.checksum);
    let mut frame = 1;
    while let Some((head, page)) =
        bytes.get(frame_offset(frame, page_size) as usize..).and_then(<[u8]>::split_first_chunk)
        && let Some(page) = page.get(..page_size.bytes())
    {
        checksum = checksum.update_frame(header.is_some_and(|h| h.big_endian), head, page);
        if FrameHeader::parse(head).is_ok_and(|parsed| header.is_some() && parsed.checksum != checksum) {
            break;
        }
        frame += 1;
    }
});
