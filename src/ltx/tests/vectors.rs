//! Every file that the real Litestream wrote, and every way of damaging one.

use super::{Pages, decode, encode};
use crate::error::{Kind, Result};
use crate::ltx::{
    HEADER_SIZE, Header, SegmentHash, TAIL_SIZE, Tail, Trailer, TxidRange, decode_frame, file_checksum, parse_index,
};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "ltx") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/vectors"), &mut found);
    found.sort();
    assert!(found.len() > 100, "{} files", found.len());
    found
}

/// By ranges, with the frames hashed in three runs.
pub(super) fn decode_by_index(bytes: &[u8]) -> Result<(Header, Pages, Trailer)> {
    let size = bytes.len() as u64;
    let header = Header::parse(bytes)?;
    let tail = Tail::parse(bytes.last_chunk::<TAIL_SIZE>().unwrap(), size)?;
    let range = tail.index_range(size);
    let index = &bytes[range.start as usize..range.end as usize];
    let entries = parse_index(index, &header, tail.pages_end(size))?;
    let mut pages = Vec::new();
    let mut whole = SegmentHash::of_header(bytes.first_chunk::<HEADER_SIZE>().unwrap());
    for run in entries.chunks(entries.len() / 3 + 1) {
        let mut segment = SegmentHash::new();
        for entry in run {
            let frame = &bytes[entry.offset as usize..][..entry.len as usize];
            let mut page = vec![0; header.page_size.bytes()];
            decode_frame(frame, entry.pgno, &mut page)?;
            segment.update_page(frame, &page);
            pages.push((entry.pgno, page));
        }
        whole.combine(&segment);
    }
    let checksum = file_checksum(&whole, index, tail.trailer.post_apply);
    assert_eq!(checksum, tail.trailer.file_checksum);
    Ok((header, pages, tail.trailer))
}

#[test]
fn every_file_decodes_front_to_back_and_by_ranges() {
    for path in files() {
        let bytes = std::fs::read(&path).unwrap();
        let whole = decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let ranged = decode_by_index(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(whole, ranged, "{}", path.display());
        let (header, pages, _) = whole;
        assert_eq!(TxidRange::parse_file_name(path.file_name().unwrap().to_str().unwrap()), Some(header.txids));
        assert_eq!(header.to_bytes(), bytes[..HEADER_SIZE]);
        assert!(!pages.is_empty());
    }
}

#[test]
fn every_file_survives_encoding_again() {
    for path in files() {
        let (header, pages, _) = decode(&std::fs::read(&path).unwrap()).unwrap();
        let bytes = encode(header, &pages).unwrap();
        let (header_again, pages_again, _) = decode(&bytes).unwrap();
        assert_eq!((header, &pages), (header_again, &pages_again));
        assert_eq!(decode_by_index(&bytes).unwrap().1, pages);
    }
}

/// Evenly spaced positions, all of them in small files: the work per file stays below a megabyte.
fn positions(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let count = (400_000 / bytes.len()).max(16);
    (0..bytes.len()).step_by(bytes.len().div_ceil(count).max(1))
}

#[test]
fn a_cut_file_is_corrupt_wherever_it_is_cut() {
    for path in files() {
        let bytes = std::fs::read(&path).unwrap();
        for len in positions(&bytes).chain(bytes.len().saturating_sub(64)..bytes.len()) {
            let error = decode(&bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{} cut to {len}: {error}", path.display());
        }
    }
}

#[test]
fn a_flipped_bit_is_corrupt_wherever_it_is() {
    for path in files() {
        let mut bytes = std::fs::read(&path).unwrap();
        for position in positions(&bytes.clone()) {
            let bit = 1 << (position % 8);
            bytes[position] ^= bit;
            if let Ok((_, pages, _)) = decode(&bytes) {
                // The compressed bytes are in no checksum, and two of them may mean the same page.
                bytes[position] ^= bit;
                assert_eq!(pages, decode(&bytes).unwrap().1, "{}: bit {bit} of byte {position}", path.display());
                continue;
            }
            bytes[position] ^= bit;
        }
    }
}

#[test]
fn a_byte_after_the_trailer_is_corrupt() {
    let mut bytes = std::fs::read(&files()[0]).unwrap();
    bytes.push(0);
    assert_eq!(decode(&bytes).unwrap_err().kind(), Kind::Corrupt);
}
