//! Tests of the format as a whole: the constants of upstream's tests, real files, rules, and properties.

mod constants;
mod properties;
mod rules;
mod vectors;

use super::{Decoder, Encoder, Header, PageSize, Pgno, Trailer, Txid, TxidRange, WalSpan};
use crate::error::Result;
use crate::time::Timestamp;

/// Page numbers and contents, in file order.
type Pages = Vec<(Pgno, Vec<u8>)>;

fn pgno(n: u32) -> Pgno {
    Pgno::new(n).unwrap()
}

/// A header as we write it, of a file that is a snapshot if `txid` is 1.
fn header(page_size: u32, commit: u32, txid: u64) -> Header {
    Header {
        page_size: PageSize::new(page_size).unwrap(),
        commit,
        txids: TxidRange::single(Txid::new(txid).unwrap()),
        timestamp: Timestamp(1_700_000_000_000),
        wal: WalSpan::default(),
        node: 0,
        pre_apply: None,
    }
}

fn encode(header: Header, pages: &Pages) -> Result<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new(), header)?;
    for (pgno, page) in pages {
        encoder.page(*pgno, page)?;
    }
    let (bytes, encoded) = encoder.finish()?;
    assert_eq!((encoded.size, encoded.pages as usize), (bytes.len() as u64, pages.len()));
    Ok(bytes)
}

/// Front to back.
fn decode(bytes: &[u8]) -> Result<(Header, Pages, Trailer)> {
    let mut decoder = Decoder::new(bytes)?;
    let header = *decoder.header();
    let mut page = vec![0; header.page_size.bytes()];
    let mut pages = Vec::new();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        pages.push((pgno, page.clone()));
    }
    Ok((header, pages, decoder.finish()?))
}
