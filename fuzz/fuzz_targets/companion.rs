//! A companion index: the head, and each of its blocks and records, with checksums that are right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use litestream::ltx::{Checksum, Pgno};
use litestream::replica::companion::Head;

/// The head with its length and its checksum, as a writer of hostile bytes would make it.
fn sound(body: &[u8]) -> Vec<u8> {
    let mut head = [&b"LSIX"[..], &2u32.to_be_bytes(), &(body.len() as u32 + 20).to_be_bytes(), body].concat();
    let sum = Checksum::of_parts(&[&head]);
    head.extend_from_slice(&sum.get().to_be_bytes());
    head
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Head::parse(bytes);
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some((body, mut rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { return };
    let Ok(head) = Head::parse(&sound(body)) else { return };
    for block in 0..head.blocks() {
        let range = head.block_range(block);
        let length = (range.end - range.start) as usize - 8;
        let Some((entries, after)) = rest.split_at_checked(length) else { break };
        rest = after;
        let parts = [&head.file_checksum.get().to_be_bytes()[..], &(block as u32).to_be_bytes(), entries];
        let block_bytes = [entries, &Checksum::of_parts(&parts).get().to_be_bytes()].concat();
        for entry in head.parse_block(block, &block_bytes).unwrap_or_default() {
            assert!(entry.offset + u64::from(entry.len) <= head.pages_end);
            assert_eq!(head.block_of(entry.pgno), Some(block));
        }
    }
    for number in 0..head.interiors() {
        let (Some(it), range) = (head.interior(number), head.record_range(number)) else { unreachable!() };
        let length = (range.end - range.start) as usize - it.len as usize - 8;
        let Some((places, after)) = rest.split_at_checked(length) else { break };
        rest = after;
        let salt = [&head.file_checksum.get().to_be_bytes()[..], &(1 << 31 | number as u32).to_be_bytes()].concat();
        let behind = [places, &Checksum::of_parts(&[&salt, places]).get().to_be_bytes()].concat();
        let children: Vec<u32> = (2..).take(length / 16).collect();
        for entry in head.parse_children(number, &behind, &children).unwrap_or_default() {
            assert!(entry.offset + u64::from(entry.len) <= head.pages_end);
        }
        assert_eq!(head.interior_of(it.pgno), Some(number));
    }
    let _ = head.block_of(Pgno::FIRST);
});
