//! What the format forbids, one rule a test.

use super::{Pages, decode, encode, header, pgno};
use crate::error::{Error, Kind, Result};
use crate::ltx::order::PageOrder;
use crate::ltx::{
    Checksum, Decoder, Encoder, HEADER_SIZE, Header, PageSize, Rolling, SegmentHash, TAIL_SIZE, Tail, WalSpan,
    file_checksum, page_checksum, parse_index,
};
use std::io;

fn kind_of<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|e| e.kind())
}

/// The kind of error of a file with these pages, if it is refused.
fn refused(header: Header, numbers: &[u32]) -> Option<Kind> {
    let pages = numbers.iter().map(|&n| (pgno(n), vec![n as u8; header.page_size.bytes()])).collect();
    kind_of(encode(header, &pages))
}

#[test]
fn pages_ascend_within_the_database() {
    let header = header(512, 9, 7);
    assert_eq!(refused(header, &[2, 5, 9]), None);
    assert_eq!(refused(header, &[]), None);
    assert_eq!(refused(header, &[5, 2]), Some(Kind::Bug));
    assert_eq!(refused(header, &[5, 5]), Some(Kind::Bug));
    assert_eq!(refused(header, &[10]), Some(Kind::Bug));
}

#[test]
fn a_snapshot_has_every_page() {
    let header = header(512, 3, 1);
    assert_eq!(refused(header, &[1, 2, 3]), None);
    assert_eq!(refused(header, &[1, 2]), Some(Kind::Bug));
    assert_eq!(refused(header, &[1, 3]), Some(Kind::Bug));
    assert_eq!(refused(header, &[2, 3]), Some(Kind::Bug));
    assert_eq!(refused(header, &[]), Some(Kind::Bug));
}

#[test]
fn the_lock_page_is_never_there_and_no_snapshot_misses_it() {
    for shift in 9..=16 {
        let lock = PageSize::new(1 << shift).unwrap().lock_page().get();
        let around = header(1 << shift, lock + 1, 7);
        assert_eq!(refused(around, &[lock - 1, lock + 1]), None);
        assert_eq!(refused(around, &[lock]), Some(Kind::Bug));
        for (commit, last) in [(lock - 1, lock - 1), (lock, lock - 1), (lock + 1, lock + 1)] {
            let mut order = PageOrder::new(&header(1 << shift, commit, 1));
            for n in (1..=last).filter(|&n| n != lock) {
                assert!(order.end().is_err());
                order.accept(pgno(n)).unwrap();
            }
            order.end().unwrap();
        }
    }
}

#[test]
fn a_page_has_the_page_size() {
    let mut encoder = Encoder::new(Vec::new(), header(1024, 3, 2)).unwrap();
    assert_eq!(kind_of(encoder.page(pgno(1), &[0; 512])), Some(Kind::Bug));
    let bytes = encode(header(1024, 3, 2), &Pages::new()).unwrap();
    let mut decoder = Decoder::new(bytes.as_slice()).unwrap();
    assert_eq!(kind_of(decoder.next_page(&mut [0; 512])), Some(Kind::Bug));
    assert_eq!(kind_of(decoder.finish()), Some(Kind::Bug), "its last page was not read");
}

#[test]
fn headers_that_break_a_rule_are_refused() {
    let sound = header(512, 3, 7).to_bytes();
    assert_eq!(Header::parse(&sound).unwrap(), header(512, 3, 7));
    for (offset, value, rule) in [
        (3, 0, "the magic"),
        (7, 3, "no flag but the second"),
        (7, 0, "with checksums, not without a pre-apply checksum"),
        (10, 1, "a page size is a power of two"),
        (23, 0, "no TXID is 0"),
        (31, 6, "TXIDs are a range"),
        (40, 0x80, "without checksums, no pre-apply checksum"),
        (48, 0x80, "no negative WAL offset"),
        (63, 1, "no WAL size without an offset"),
        (71, 1, "no salts without an offset"),
    ] {
        let mut bytes = sound;
        bytes[offset] = value;
        assert_eq!(kind_of(Header::parse(&bytes)), Some(Kind::Corrupt), "{rule}");
    }
    assert_eq!(kind_of(Header::parse(&sound[..99])), Some(Kind::Corrupt));
}

#[test]
fn nothing_is_written_that_litestream_refuses() {
    let with_checksums = Header { pre_apply: Some(Checksum::EMPTY), ..header(512, 3, 1) };
    assert_eq!(kind_of(Encoder::new(Vec::new(), with_checksums)), Some(Kind::Bug));
    assert_eq!(kind_of(Encoder::new(Vec::new(), header(512, 0, 2))), Some(Kind::Bug));
    let no_offset = Header { wal: WalSpan { size: 1, ..WalSpan::default() }, ..header(512, 3, 2) };
    assert_eq!(kind_of(Encoder::new(Vec::new(), no_offset)), Some(Kind::Bug));
}

/// A snapshot with database checksums, as other writers of the format make it; we only read them.
fn tracked_snapshot(post_apply: u64) -> Vec<u8> {
    let pages: Pages = (1..=3u8).map(|n| (pgno(n.into()), vec![n; 512])).collect();
    let mut bytes = encode(header(512, 3, 1), &pages).unwrap();
    bytes[7] = 0;
    let size = bytes.len() as u64;
    let tail = Tail::parse(bytes.last_chunk::<TAIL_SIZE>().unwrap(), size).unwrap();
    let range = tail.index_range(size);
    let index = bytes[range.start as usize..range.end as usize].to_vec();
    let header = *bytes.first_chunk::<HEADER_SIZE>().unwrap();
    let entries = parse_index(&index, &Header::parse(&header).unwrap(), tail.pages_end(size)).unwrap();
    let mut hash = SegmentHash::of_header(&header);
    for (entry, (_, page)) in entries.iter().zip(&pages) {
        hash.update_page(&bytes[entry.offset as usize..], page);
    }
    bytes.truncate(bytes.len() - 16);
    bytes.extend_from_slice(&post_apply.to_be_bytes());
    bytes.extend_from_slice(&file_checksum(&hash, &index, post_apply).get().to_be_bytes());
    bytes
}

#[test]
fn the_database_checksum_of_a_snapshot_is_verified_where_there_is_one() {
    let mut rolling = Rolling::EMPTY;
    (1..=3u8).for_each(|n| rolling.add(page_checksum(pgno(n.into()), &[n; 512])));
    let (header, _, trailer) = decode(&tracked_snapshot(rolling.get())).unwrap();
    assert_eq!(header.pre_apply, Some(Checksum::EMPTY));
    assert_eq!(trailer.post_apply, rolling.get());
    assert_eq!(header.to_bytes(), tracked_snapshot(rolling.get())[..HEADER_SIZE]);
    for wrong in [0, Checksum::EMPTY.get(), rolling.get() ^ 1] {
        assert_eq!(kind_of(decode(&tracked_snapshot(wrong))), Some(Kind::Corrupt));
    }
}

/// Fails as a store would, through `std::io`.
struct Away;

impl io::Read for Away {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(Error::new(Kind::Unavailable, "the store is away")))
    }
}

impl io::Write for Away {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failing_reader_or_writer_is_not_a_corrupt_file() {
    assert_eq!(kind_of(Decoder::new(Away)), Some(Kind::Unavailable));
    assert_eq!(kind_of(Encoder::new(Away, header(512, 1, 1))), Some(Kind::Full));
}
