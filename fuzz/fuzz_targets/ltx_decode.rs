//! A file read front to back. One that passes says the same after it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use litestream::error::{Kind, Result};
use litestream::ltx::{Decoder, Encoder, Header, Pgno};

type Pages = Vec<(Pgno, Vec<u8>)>;

fn decode(bytes: &[u8]) -> Result<(Header, Pages)> {
    let mut decoder = Decoder::new(bytes)?;
    let header = *decoder.header();
    let mut page = vec![0; header.page_size.bytes()];
    let mut pages = Pages::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, page.clone()));
    }
    decoder.finish()?;
    Ok((header, pages))
}

fuzz_target!(|bytes: &[u8]| {
    let (header, pages) = match decode(bytes) {
        Ok(file) => file,
        Err(e) => return assert_eq!(e.kind(), Kind::Corrupt, "{e}"),
    };
    // What only other writers make is read, not written.
    if header.pre_apply.is_some() || header.commit == 0 {
        return;
    }
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    for (pgno, page) in &pages {
        encoder.page(*pgno, page).unwrap();
    }
    let (again, _) = encoder.finish().unwrap();
    assert_eq!(decode(&again).unwrap(), (header, pages));
});
