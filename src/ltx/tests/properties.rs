//! What holds for any pages, and that no bytes make a parser panic.

use super::vectors::decode_by_index;
use super::{Pages, decode, encode, header, pgno};
use crate::ltx::{
    Decoder, HEADER_SIZE, Header, PageSize, SegmentHash, TAIL_SIZE, Tail, Txid, TxidRange, WalSpan, decode_frame,
    file_checksum, parse_index,
};
use crate::time::Timestamp;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn page_size() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 9..=13u32, 1 => 14..=16u32].prop_map(|shift| 1 << shift)
}

/// From all zeros over text to noise, which no compressor shortens.
fn page(size: u32) -> impl Strategy<Value = Vec<u8>> {
    let size = size as usize;
    prop_oneof![
        any::<u8>().prop_map(move |byte| vec![byte; size]),
        vec(any::<u8>(), 1..40).prop_map(move |text| text.iter().copied().cycle().take(size).collect()),
        any::<u64>().prop_map(move |seed| noise(seed, size)),
    ]
}

/// xorshift64.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(size)
    .collect()
}

/// A file of changed pages, some of them around the lock page.
fn changes() -> impl Strategy<Value = (Header, Pages)> {
    (page_size(), 2..u64::MAX, 0..=u64::MAX >> 1, any::<i64>()).prop_flat_map(|(size, txid, node, time)| {
        let lock = PageSize::new(size).unwrap().lock_page().get();
        let number = prop_oneof![1..50u32, lock - 3..lock, lock + 1..lock + 4];
        btree_set(number, 0..12).prop_flat_map(move |numbers| {
            let commit = numbers.last().copied().unwrap_or(1);
            let wal = WalSpan { offset: 32, size: node, salt1: txid as u32, salt2: time as u32 };
            let header = Header { timestamp: Timestamp(time), node, wal, ..header(size, commit, txid) };
            let pages = numbers.into_iter().map(|n| (Just(pgno(n)), page(size))).collect::<Vec<_>>();
            (Just(header), pages)
        })
    })
}

/// A snapshot.
fn snapshot() -> impl Strategy<Value = (Header, Pages)> {
    (page_size(), 1..8u32, 1..u64::MAX).prop_flat_map(|(size, commit, max)| {
        let txids = TxidRange::new(Txid::FIRST, Txid::new(max).unwrap()).unwrap();
        let pages = (1..=commit).map(|n| (Just(pgno(n)), page(size))).collect::<Vec<_>>();
        (Just(Header { txids, ..header(size, commit, 1) }), pages)
    })
}

/// Bytes into everything that parses, as if each were at the place where it is due.
fn parse_everything(bytes: &[u8], header: &Header) {
    let _ = Header::parse(bytes);
    let _ = decode(bytes);
    let mut with_header = header.to_bytes().to_vec();
    with_header.extend_from_slice(bytes);
    let _ = decode(&with_header);
    let _ = parse_index(bytes, header, bytes.len() as u64);
    if let Some(tail) = bytes.last_chunk::<TAIL_SIZE>()
        && let Ok(tail) = Tail::parse(tail, bytes.len() as u64)
    {
        let range = tail.index_range(bytes.len() as u64);
        assert!(bytes.get(range.start as usize..range.end as usize).is_some());
        assert!(tail.pages_end(bytes.len() as u64) >= HEADER_SIZE as u64);
    }
    let mut page = vec![0; header.page_size.bytes()];
    let _ = decode_frame(bytes, pgno(1), &mut page);
    for flags in [0u16, 1] {
        let mut frame = vec![0, 0, 0, 1];
        frame.extend_from_slice(&flags.to_be_bytes());
        frame.extend_from_slice(bytes);
        let _ = decode_frame(&frame, pgno(1), &mut page);
    }
    let mut block = vec![0, 0, 0, 1, 0, 1];
    block.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    block.extend_from_slice(bytes);
    let _ = decode_frame(&block, pgno(1), &mut page);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded((header, pages) in prop_oneof![changes(), snapshot()]) {
        let bytes = encode(header, &pages).unwrap();
        prop_assert_eq!(Header::parse(&bytes).unwrap(), header);
        let whole = decode(&bytes).unwrap();
        prop_assert_eq!(&decode_by_index(&bytes).unwrap(), &whole);
        prop_assert_eq!(whole.0, header);
        prop_assert_eq!(whole.1, pages);
    }

    #[test]
    fn the_file_checksum_does_not_depend_on_how_a_file_is_split(
        (header, pages) in changes(),
        splits in vec(any::<bool>(), 12),
    ) {
        let bytes = encode(header, &pages).unwrap();
        let size = bytes.len() as u64;
        let tail = Tail::parse(bytes.last_chunk::<TAIL_SIZE>().unwrap(), size).unwrap();
        let range = tail.index_range(size);
        let index = &bytes[range.start as usize..range.end as usize];
        let mut whole = SegmentHash::of_header(&header.to_bytes());
        let mut segment = SegmentHash::new();
        for ((entry, (_, page)), split) in
            parse_index(index, &header, tail.pages_end(size)).unwrap().iter().zip(&pages).zip(splits)
        {
            if split {
                whole.combine(&std::mem::take(&mut segment));
            }
            segment.update_page(&bytes[entry.offset as usize..], page);
        }
        whole.combine(&segment);
        let checksum = file_checksum(&whole, index, 0);
        prop_assert_eq!(checksum, tail.trailer.file_checksum);
    }

    #[test]
    fn no_bytes_make_a_parser_panic(
        bytes in vec(any::<u8>(), 0..2000),
        size in page_size(),
        commit in any::<u32>(),
        txid in 1..3u64,
    ) {
        parse_everything(&bytes, &header(size, commit, txid));
    }

    #[test]
    fn no_damage_makes_a_parser_panic(
        (header, pages) in prop_oneof![changes(), snapshot()],
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(header, &pages).unwrap();
        for (position, value) in damage {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        parse_everything(&bytes, &header);
        let body = &bytes[HEADER_SIZE..];
        if let Ok(mut decoder) = Decoder::new(body) {
            let _ = decoder.next_page(&mut vec![0; header.page_size.bytes()]);
        }
    }
}
