//! The companion index (R6): what is built is parsed, and nothing else is.

use crate::error::{Kind, Result};
use crate::ltx::{
    Checksum, Encoder, HEADER_SIZE, Header, Level, PageSize, Pgno, TAIL_SIZE, Tail, Txid, TxidRange, WalSpan,
    count_index, decode_frame, page_checksum, parse_index,
};
use crate::replica::companion::{Builder, CompanionEntry, Head, InteriorPages, key, of_file, parse_key};
use crate::replica::{FileInfo, Layout, Listing};
use crate::store::{ETag, Entry};
use crate::time::Timestamp;
use proptest::prelude::*;

const KEY: &str = "ltx/0/0000000000000007-0000000000000007.ltx";

fn range(txid: u64) -> TxidRange {
    TxidRange::single(Txid::new(txid).unwrap())
}

fn header(page_size: u32, commit: u32, txid: u64) -> Header {
    Header {
        page_size: PageSize::new(page_size).unwrap(),
        commit,
        txids: range(txid),
        timestamp: Timestamp(1_795_370_133_964),
        wal: WalSpan::default(),
        node: 1,
        pre_apply: None,
    }
}

fn etag() -> ETag {
    ETag("\"an-etag-2\"".to_owned())
}

/// Pages by number, frame length and checksum; the rest of the file is an end of 100 bytes.
fn build(header: &Header, pages: &[(u32, u32)]) -> Option<Vec<u8>> {
    build_with(header, pages, InteriorPages::default())
}

/// The same, with copies of interior pages.
fn build_with(header: &Header, pages: &[(u32, u32)], interior: InteriorPages) -> Option<Vec<u8>> {
    let mut builder = Builder::new(header, pages.len());
    let mut size = HEADER_SIZE as u64 + 100;
    for (pgno, len) in pages {
        builder.push(Pgno::new(*pgno).unwrap(), *len, checksum_of(*pgno));
        size += u64::from(*len);
    }
    builder.finish(interior, (KEY, &etag()), size, Checksum::from_u64(u64::MAX).unwrap()).unwrap()
}

/// An interior page of a table.
fn interior(header: &Header, children: &[u32]) -> Vec<u8> {
    let mut page = vec![0; header.page_size.bytes()];
    let (last, others) = children.split_last().unwrap();
    page[0] = 5;
    page[3..5].copy_from_slice(&(others.len() as u16).to_be_bytes());
    page[8..12].copy_from_slice(&last.to_be_bytes());
    for (n, child) in others.iter().enumerate() {
        let at = page.len() - 5 * (n + 1);
        page[12 + 2 * n..][..2].copy_from_slice(&(at as u16).to_be_bytes());
        page[at..at + 4].copy_from_slice(&child.to_be_bytes());
    }
    page
}

/// Two trees of three levels whose pages lie in disorder, and one of two; also a page that looks like an interior one.
const TREES: [(u32, &[u32]); 8] = [
    (5, &[8, 11, 14]),
    (17, &[302, 101, 401]),
    (101, &[20, 23, 26, 29]),
    (200, &[32, 35]),
    (302, &[38, 41, 999]),
    (401, &[44]),
    (500, &[704, 200]),
    (704, &[47, 50]),
];

fn trees(header: &Header) -> InteriorPages {
    let mut pages = InteriorPages::default();
    for (pgno, children) in TREES {
        pages.see(Pgno::new(pgno).unwrap(), &interior(header, children)).unwrap();
        pages.see(Pgno::new(pgno + 1).unwrap(), &vec![7; header.page_size.bytes()]).unwrap();
    }
    pages
}

/// A page, its bytes, and its children.
type Record = (u32, Vec<u8>, Vec<CompanionEntry>);

/// Every record: its frame makes the page, and its children are where the blocks say.
fn records(bytes: &[u8], head: &Head) -> Result<Vec<Record>> {
    let record = |number| {
        let (it, range) = (head.interior(number).unwrap(), head.record_range(number));
        let record = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
        let (frame, behind) = record.split_at_checked(it.len as usize).unwrap_or_default();
        let mut page = vec![0; head.page_size.bytes()];
        decode_frame(frame, it.pgno, &mut page)?;
        if page_checksum(it.pgno, &page) != it.checksum {
            return Err(crate::error::Error::corrupt("another page"));
        }
        let children = crate::btree::children(it.pgno, &page).unwrap_or_default();
        let entries = head.parse_children(number, behind, &children)?;
        Ok((it.pgno.get(), page, entries))
    };
    (0..head.interiors()).map(record).collect()
}

fn checksum_of(pgno: u32) -> u64 {
    page_checksum(Pgno::FIRST, &pgno.to_be_bytes())
}

fn blocks(bytes: &[u8], head: &Head) -> Result<Vec<Vec<CompanionEntry>>> {
    let block = |number| {
        let range = head.block_range(number);
        let bytes = bytes.get(range.start as usize..range.end as usize);
        head.parse_block(number, bytes.unwrap_or_default())
    };
    (0..head.blocks()).map(block).collect()
}

fn all(bytes: &[u8]) -> Result<(Head, Vec<CompanionEntry>)> {
    let head = Head::parse(bytes)?;
    let entries = blocks(bytes, &head)?.concat();
    records(bytes, &head)?;
    Ok((head, entries))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn r6_every_page_is_found_where_it_was_put(
        gaps in prop::collection::vec(prop_oneof![6 => Just(1u32), 2 => 2u32..50, 1 => 1000u32..5000], 1..5000),
        len in 11u32..500,
    ) {
        let mut pgno = 0;
        let pages: Vec<(u32, u32)> = gaps.iter().map(|gap| { pgno += gap; (pgno, len + gap % 7) }).collect();
        let header = header(512, pgno + 3, 7);
        let bytes = build(&header, &pages).unwrap();
        let head = Head::parse(&bytes).unwrap();
        prop_assert_eq!((head.page_size, head.commit, head.txids), (header.page_size, pgno + 3, range(7)));
        prop_assert_eq!((head.timestamp, head.entries as usize), (header.timestamp, pages.len()));
        prop_assert_eq!((head.key.as_str(), &head.etag), (KEY, &etag()));
        prop_assert_eq!(head.block_range(head.blocks() - 1).end, bytes.len() as u64);
        prop_assert!(head.block_range(head.blocks()).is_empty() && head.block_range(usize::MAX).is_empty());
        prop_assert_eq!(Head::length_of(&bytes[..12]).unwrap(), head.length());
        let blocks = blocks(&bytes, &head).unwrap();
        let (mut offset, mut former) = (HEADER_SIZE as u64, 0);
        for (pgno, len) in pages {
            let absent = (former + 1..pgno).next().and_then(Pgno::new);
            for (wanted, is_there) in [(Pgno::new(pgno), true), (absent, false)] {
                let Some(wanted) = wanted else { continue };
                let found = head.block_of(wanted).and_then(|number| {
                    let block = &blocks[number];
                    block.binary_search_by_key(&wanted, |entry| entry.pgno).ok().map(|at| block[at])
                });
                let expected = CompanionEntry { pgno: wanted, len, offset, checksum: checksum_of(wanted.get()) };
                prop_assert_eq!(found, is_there.then_some(expected));
            }
            (offset, former) = (offset + u64::from(len), pgno);
        }
        prop_assert_eq!(head.pages_end, offset);
        prop_assert_eq!(head.block_of(Pgno::new(head.commit + 1).unwrap()), None);
    }

    /// Hostile bytes: an error, never a panic, whatever follows a head that looks right.
    #[test]
    fn r6_random_bytes_are_errors(mut bytes in prop::collection::vec(any::<u8>(), 0..4000), fix in any::<bool>()) {
        prop_assert!(Head::parse(&bytes).is_err());
        if fix && bytes.len() > 100 {
            let length = bytes.len() as u32;
            bytes[..12].copy_from_slice(&[*b"LSIX", 2u32.to_be_bytes(), length.to_be_bytes()].concat());
            let (body, sum) = bytes.split_last_chunk_mut::<8>().unwrap();
            *sum = Checksum::of_parts(&[body]).get().to_be_bytes();
            prop_assert_eq!(Head::parse(&bytes).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Bytes that are wrong under checksums that are right: an error, or entries that obey the rules.
    #[test]
    fn r6_hostile_fields_under_right_checksums_are_errors_or_obey_the_rules(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_head in any::<bool>(),
    ) {
        let pages: Vec<_> = (0..1030).map(|n| (n * 3 + 5, 20 + n % 5)).collect();
        let header = header(4096, 5000, 7);
        let mut bytes = build_with(&header, &pages, trees(&header)).unwrap();
        let sound = Head::parse(&bytes).unwrap();
        let length = sound.length() as usize;
        // Behind magic, version and length; or in the last block, which is short, and the records behind it.
        let range = if is_head { 12..length - 8 } else { sound.block_range(1).start as usize..bytes.len() - 8 };
        for (index, byte) in changes {
            let at = range.start + index.index(range.len());
            bytes[at] = byte;
        }
        let sum = Checksum::of_parts(&[&bytes[..length - 8]]);
        bytes[length - 8..length].copy_from_slice(&sum.get().to_be_bytes());
        let Ok(head) = Head::parse(&bytes) else { return Ok(()) };
        for number in 0..head.blocks() {
            let range = head.block_range(number);
            let mut block = bytes.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec();
            if let Some((body, sum)) = block.split_last_chunk_mut::<8>() {
                let salt = [head.file_checksum.get().to_be_bytes().as_slice(), &(number as u32).to_be_bytes()].concat();
                *sum = Checksum::of_parts(&[&salt, body]).get().to_be_bytes();
            }
            for entry in head.parse_block(number, &block).unwrap_or_default() {
                prop_assert!(entry.offset >= HEADER_SIZE as u64 && entry.len > 0);
                prop_assert!(entry.offset + u64::from(entry.len) <= head.pages_end);
                prop_assert!(entry.pgno.get() <= head.commit && entry.pgno != head.page_size.lock_page());
                prop_assert_eq!(head.block_of(entry.pgno), Some(number));
            }
        }
        for number in 0..head.interiors() {
            let (it, range) = (*head.interior(number).unwrap(), head.record_range(number));
            prop_assert_eq!((it.start, head.interior_of(it.pgno)), (range.start, Some(number)));
            let behind = range.start as usize + it.len as usize..range.end as usize;
            let mut behind = bytes.get(behind).unwrap_or_default().to_vec();
            if let Some((body, sum)) = behind.split_last_chunk_mut::<8>() {
                let number = (1 << 31 | number as u32).to_be_bytes();
                let salt = [head.file_checksum.get().to_be_bytes().as_slice(), &number].concat();
                *sum = Checksum::of_parts(&[&salt, body]).get().to_be_bytes();
            }
            let children: Vec<u32> = (1..).take(behind.len() / 16).collect();
            for entry in head.parse_children(number, &behind, &children).unwrap_or_default() {
                prop_assert!(entry.offset >= HEADER_SIZE as u64 && entry.len > 0);
                prop_assert!(entry.offset + u64::from(entry.len) <= head.pages_end);
            }
        }
    }
}

/// Those above others come first, then siblings beside each other, in the order of their keys.
#[test]
fn r6_interior_pages_are_there_with_the_places_of_their_children() {
    let header = header(512, 2000, 7);
    let pages: Vec<_> = (0..600).map(|n| (n * 3 + 2, 20 + n % 5)).collect();
    let bytes = build_with(&header, &pages, trees(&header)).unwrap();
    let head = Head::parse(&bytes).unwrap();
    let entries = blocks(&bytes, &head).unwrap().concat();
    let records = records(&bytes, &head).unwrap();
    let numbers: Vec<u32> = records.iter().map(|(pgno, ..)| *pgno).collect();
    assert_eq!(numbers, [17, 500, 302, 101, 401, 704, 200, 5]);
    assert!(head.record_range(1).end == head.block_range(0).start && head.record_range(8).is_empty());
    assert_eq!(head.record_range(2).start, head.block_range(head.blocks() - 1).end);
    assert_eq!(head.record_range(7).end, bytes.len() as u64);
    for (number, (pgno, page, found)) in records.iter().enumerate() {
        let (_, children) = TREES.iter().find(|(parent, _)| parent == pgno).unwrap();
        assert_eq!((page, head.interior_of(Pgno::new(*pgno).unwrap())), (&interior(&header, children), Some(number)));
        let stored = |child: &u32| entries.iter().find(|entry| entry.pgno.get() == *child).copied();
        assert_eq!(*found, children.iter().filter_map(stored).collect::<Vec<_>>());
    }
    // Page 999 is not in the file, and 302 and 704 have children that are.
    assert_eq!(records[2].2.len(), 2);
    assert_eq!(head.interior_of(Pgno::FIRST), None);
}

/// Of more than there may be there are none, so that neither the head nor the memory for it grows without bound.
#[test]
fn r6_too_many_interior_pages_are_left_out() {
    for (page_size, wanted, expected) in [(512, 8192, 8192), (512, 8193, 0), (65536, 500, 0)] {
        let header = header(page_size, 20_000, 7);
        let mut pages = InteriorPages::default();
        // Of large pages the bytes are too many: they do not compress.
        let children = if page_size == 512 { vec![2] } else { (0..7000).map(|n| n * 77_777 % 1_000_003 + 2).collect() };
        let page = interior(&header, &children);
        (0..wanted).for_each(|n| pages.see(Pgno::new(n + 2).unwrap(), &page).unwrap());
        let bytes = build_with(&header, &[(1, 20), (2, 20)], pages).unwrap();
        assert_eq!(all(&bytes).unwrap().0.interiors(), expected, "{wanted} pages of {page_size} bytes");
    }
}

/// Every byte of a companion is checked.
#[test]
fn r6_a_flipped_byte_is_noticed() {
    for (count, step) in [(40, 1), (1030, 61)] {
        let pages: Vec<_> = (0..count).map(|n| (n * 3 + 5, 20 + n % 5)).collect();
        let header = header(4096, 5000, 7);
        let bytes = build_with(&header, &pages, trees(&header)).unwrap();
        let (head, entries) = all(&bytes).unwrap();
        assert_eq!(entries.len(), pages.len());
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            // Not every byte of a compressed page changes the page.
            let is_frame = (0..head.interiors()).any(|n| {
                let start = head.record_range(n).start as usize;
                (start..start + head.interior(n).unwrap().len as usize).contains(&at)
            });
            match all(&damaged) {
                Ok(_) => assert!(is_frame, "byte {at}"),
                Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "byte {at}"),
            }
            assert_eq!(all(&bytes[..at]).unwrap_err().kind(), Kind::Corrupt, "the first {at} bytes");
        }
    }
}

/// A block is that of its file and of its place.
#[test]
fn r6_a_block_of_another_file_or_place_is_noticed() {
    let pages: Vec<_> = (1..=2048).map(|pgno| (pgno, 20)).collect();
    let header = header(4096, 3000, 7);
    let bytes = build(&header, &pages).unwrap();
    let head = Head::parse(&bytes).unwrap();
    let part = |number: usize| {
        let range = head.block_range(number);
        &bytes[range.start as usize..range.end as usize]
    };
    assert_eq!(part(0).len(), part(1).len());
    assert_eq!(head.parse_block(1, part(0)).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(head.parse_block(2, part(1)).unwrap_err().kind(), Kind::Corrupt);
    let mut other = Builder::new(&header, pages.len());
    pages.iter().for_each(|(pgno, len)| other.push(Pgno::new(*pgno).unwrap(), *len, checksum_of(*pgno)));
    let other = other.finish(InteriorPages::default(), (KEY, &etag()), head.size, Checksum::EMPTY).unwrap().unwrap();
    let other_head = Head::parse(&other).unwrap();
    let foreign = &other[other_head.length() as usize..][..part(0).len()];
    other_head.parse_block(0, foreign).unwrap();
    assert_eq!(head.parse_block(0, foreign).unwrap_err().kind(), Kind::Corrupt);
}

/// What the format cannot say, or no file has, is not built: and what is not built is not parsed either.
#[test]
fn r6_what_no_file_has_is_refused() {
    let lock_page = PageSize::new(65536).unwrap().lock_page().get();
    let run = |from: u32, to: u32| (from..=to).filter(|p| *p != lock_page).map(|p| (p, 20)).collect::<Vec<_>>();
    let attempt = |header: Header, pages: &[(u32, u32)], size: u64| {
        let mut builder = Builder::new(&header, 0);
        pages.iter().for_each(|(pgno, len)| builder.push(Pgno::new(*pgno).unwrap(), *len, checksum_of(*pgno)));
        let built = builder.finish(InteriorPages::default(), (KEY, &etag()), size, Checksum::EMPTY);
        built.and_then(|bytes| bytes.map(|bytes| all(&bytes)).transpose())
    };
    let (no_pages, one) = (run(2, 1), run(1, 1));
    // A snapshot has every page, but never the lock page.
    let (_, entries) = attempt(header(65536, lock_page + 2, 1), &run(1, lock_page + 2), 1 << 39).unwrap().unwrap();
    assert_eq!(entries.len() as u32, lock_page + 1);
    assert!(attempt(header(512, 1, 7), &one, (1 << 40) - 1).unwrap().is_some());
    assert!(attempt(header(512, 1, 7), &one, 1 << 40).unwrap().is_none(), "1 TiB has none");
    for (header, pages, size) in [
        (header(512, 9, 7), no_pages, 1000),
        (header(512, 9, 1), run(1, 8), 1000),
        (header(512, 9, 7), run(1, 10), 1000),
        (header(512, 9, 7), one.clone(), 120),
        (header(512, 9, 7), vec![(9, 20), (9, 20)], 1000),
        (header(512, 9, 7), vec![(9, 20), (8, 20)], 1000),
        (header(512, 9, 7), vec![(1, 0)], 1000),
        (header(512, 9, 7), vec![(1, 2000)], 10_000),
        (header(65536, lock_page + 9, 7), vec![(lock_page, 20)], 1000),
        (header(65536, lock_page + 9, 7), vec![(5, 20), (lock_page, 20)], 1000),
        (header(512, 5000, 7), [run(1, 1024), run(1024, 1100)].concat(), 1 << 20),
    ] {
        let error = attempt(header, &pages, size).unwrap_err();
        assert!(matches!(error.kind(), Kind::Bug | Kind::Corrupt), "{pages:?}: {error}");
    }
    for name in ["", &"k".repeat(1025), &"k".repeat(70_000)] {
        let builder = || {
            let mut builder = Builder::new(&header(512, 9, 7), 1);
            builder.push(Pgno::FIRST, 20, checksum_of(1));
            builder
        };
        for (key, etag) in [(name, etag()), (KEY, ETag(name.to_owned()))] {
            let built = builder().finish(InteriorPages::default(), (key, &etag), 1000, Checksum::EMPTY);
            assert!(built.is_err());
        }
    }
}

/// Byte for byte what the LTX file itself says.
#[test]
fn r6_the_companion_of_a_file_agrees_with_its_index() {
    let header = header(1024, 6000, 7);
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    let page = |pgno: u32| (0..1024u32).map(|i| if i < pgno % 900 { (i * pgno) as u8 } else { 0 }).collect::<Vec<u8>>();
    let numbers: Vec<u32> = (1..5001).filter(|pgno| pgno % 11 != 0).collect();
    let mut lengths = Vec::new();
    for pgno in &numbers {
        lengths.push(encoder.page(Pgno::new(*pgno).unwrap(), &page(*pgno)).unwrap());
    }
    let (file, encoded) = encoder.finish().unwrap();
    let bytes = of_file(&file[..], encoded.size, numbers.len(), KEY, &etag()).unwrap().unwrap();
    let (head, entries) = all(&bytes).unwrap();
    let tail = Tail::parse(file.last_chunk::<TAIL_SIZE>().unwrap(), encoded.size).unwrap();
    let range = tail.index_range(encoded.size);
    let index = &file[range.start as usize..range.end as usize];
    let expected = parse_index(index, &header, tail.pages_end(encoded.size)).unwrap();
    assert_eq!((head.size, head.file_checksum), (encoded.size, encoded.file_checksum));
    assert_eq!(head.pages_end, tail.pages_end(encoded.size));
    assert_eq!((count_index(index), entries.len()), (numbers.len(), numbers.len()));
    for ((entry, in_file), (number, length)) in entries.iter().zip(&expected).zip(numbers.iter().zip(&lengths)) {
        assert_eq!((entry.pgno, entry.offset, entry.len), (in_file.pgno, in_file.offset, in_file.len));
        assert_eq!((entry.len, entry.checksum), (*length, page_checksum(entry.pgno, &page(*number))));
    }
    let mut damaged = file;
    damaged[200] ^= 1;
    assert!(of_file(&damaged[..], encoded.size, numbers.len(), KEY, &etag()).is_err());
}

/// R1: content, not name.
#[test]
fn r6_a_companion_describes_one_object() {
    let head = Head::parse(&build(&header(512, 9, 7), &[(3, 20)]).unwrap()).unwrap();
    let file = FileInfo {
        level: Level::L0,
        txids: range(7),
        size: head.size,
        created_at: Timestamp(0),
        key: KEY.to_owned(),
        etag: Some(etag()),
    };
    assert!(head.describes(&file));
    assert!(head.describes(&FileInfo { etag: None, ..file.clone() }));
    assert!(!head.describes(&FileInfo { etag: Some(ETag("\"another\"".to_owned())), ..file.clone() }));
    assert!(!head.describes(&FileInfo { size: head.size + 1, ..file.clone() }));
    assert!(!head.describes(&FileInfo { key: KEY.replace("ltx/0/", "ltx/1/"), ..file.clone() }));
    assert!(!head.describes(&FileInfo { txids: range(8), ..file }));
}

/// It lies where neither layout has files.
#[test]
fn r6_keys_are_of_no_level() {
    let txids = TxidRange::new(Txid::FIRST, Txid::new(255).unwrap()).unwrap();
    let found = key(Level::SNAPSHOT, txids);
    assert_eq!(found, "index/9/0000000000000001-00000000000000ff.idx");
    assert_eq!(parse_key(&found), Some((Level::SNAPSHOT, txids)));
    for layout in [Layout::Plain, Layout::S3] {
        assert_eq!(layout.parse(&found), None);
        assert!(!found.starts_with(layout.prefix()));
        let entry = Entry { key: found.clone(), size: 1, modified: Timestamp(0), etag: None };
        assert!(Listing::from_entries(layout, [entry]).is_empty());
        assert_eq!(parse_key(&layout.key(Level::SNAPSHOT, txids)), None);
    }
    for other in [
        "index/10/0000000000000001-00000000000000ff.idx",
        "index/09/0000000000000001-00000000000000ff.idx",
        "index/9/0000000000000001-00000000000000FF.idx",
        "index/9/0000000000000001-00000000000000ff.idx.tmp",
        "index/9/0000000000000001-00000000000000ff.ltx",
        "index/9/x.idx",
        "index/9",
        "",
    ] {
        assert_eq!(parse_key(other), None, "{other}");
    }
}
