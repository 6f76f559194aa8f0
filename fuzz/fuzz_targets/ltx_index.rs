//! A file read by ranges: tail, then index, then each page's frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use litestream::error::Result;
use litestream::ltx::{HEADER_SIZE, Header, SegmentHash, TAIL_SIZE, Tail, decode_frame, file_checksum, parse_index};

fn read(bytes: &[u8], header_bytes: &[u8; HEADER_SIZE], tail: &[u8; TAIL_SIZE]) -> Result<()> {
    let size = bytes.len() as u64;
    let header = Header::parse(header_bytes)?;
    let tail = Tail::parse(tail, size)?;
    let range = tail.index_range(size);
    let index = &bytes[range.start as usize..range.end as usize];
    let mut page = vec![0; header.page_size.bytes()];
    let mut hash = SegmentHash::of_header(header_bytes);
    for entry in parse_index(index, &header, tail.pages_end(size))? {
        // Entries that pass lie within the file.
        let frame = &bytes[entry.offset as usize..][..entry.len as usize];
        if decode_frame(frame, entry.pgno, &mut page).is_ok() {
            hash.update_page(frame, &page);
        }
    }
    file_checksum(&hash, index, tail.trailer.post_apply);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    if let (Some(header), Some(tail)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let _ = read(bytes, header, tail);
    }
});
