//! R7, R10: other files are found for a page that is damaged.

use super::super::index::Frame;
use super::hydrating::{copy, state};
use super::verifying::{all_frames, copied, of_size};
use super::{key, open, txid};
use crate::error::Kind;
use crate::replica::Target;
use crate::store::fault::Call;

/// One damaged page after another, each in another file.
#[test]
fn r7_two_damaged_files_do_not_hide_a_third() {
    for size in [100_000, 600_000] {
        let mut written = of_size(size);
        written.ship("INSERT INTO t VALUES (2, 7);");
        let source = written.source();
        let connected = open(&source, Target::Txid(txid(2))).unwrap();
        written.put(1, 1, 1);
        written.put(2, 1, 1);
        // The number of a page, in front of it.
        let at = all_frames(&source, &state(&source, 1))[10].offset as usize;
        for level in [0, 2] {
            written.store.damage(&key(level, 1, 1), |bytes| bytes[at..at + 4].fill(0x55)).unwrap();
        }
        super::super::flight::forget_pages();
        written.assert_sees(&connected, 2);
    }
}

/// Listings are not asked for at each read.
#[test]
fn r7_two_damaged_files_and_none_that_is_whole() {
    let mut written = of_size(600_000);
    written.ship("INSERT INTO t VALUES (2, 7);");
    let source = written.source();
    let connected = open(&source, Target::Txid(txid(2))).unwrap();
    written.put(1, 1, 1);
    let frame = all_frames(&source, &state(&source, 1))[10].clone();
    let at = frame.offset as usize;
    for level in [0, 1] {
        written.store.damage(&key(level, 1, 1), |bytes| bytes[at..at + 4].fill(0x55)).unwrap();
    }
    super::super::flight::forget_pages();
    let offset = frame.pgno.index() as u64 * 4096;
    connected.read(offset, &mut [0; 4096], &|| false).unwrap_err();
    let before = written.faults.count(Call::List);
    for _ in 0..30 {
        connected.read(offset, &mut [0; 4096], &|| false).unwrap_err();
    }
    let listed = written.faults.count(Call::List) - before;
    assert!(listed < 30, "{listed} listings for 30 reads");
}

/// What came damaged once is the only file that is whole.
#[test]
fn r7_what_was_avoided_is_tried_again() {
    let mut written = of_size(600_000);
    written.ship("INSERT INTO t VALUES (2, 7);");
    let source = written.source();
    written.put(1, 1, 1);
    written.put(2, 1, 1);
    let connected = open(&source, Target::Txid(txid(2))).unwrap();
    let state = state(&source, 2);
    let of_2 = |frame: &Frame| frame.object.info.key == key(2, 1, 1) && frame.pgno.get() > 20;
    let frame = all_frames(&source, &state).into_iter().find(of_2).unwrap();
    let at = frame.offset as usize;
    let flip = |level| written.store.damage(&key(level, 1, 1), |bytes| bytes[at] ^= 0x55).unwrap();
    let offset = frame.pgno.index() as u64 * 4096;
    super::super::flight::forget_pages();
    flip(2);
    connected.read(offset, &mut [0; 4096], &|| false).unwrap();
    flip(2);
    assert!(source.avoided.lock().contains(&key(2, 1, 1)));
    flip(1);
    written.store.damage(&key(0, 1, 1), |bytes| bytes[0] ^= 0xff).unwrap();
    super::super::flight::forget_pages();
    connected.read(offset, &mut [0; 4096], &|| false).unwrap();
}

/// Whoever opens it brings page 1 along.
#[test]
fn r7_page_1_of_a_damaged_file_is_not_shown() {
    let (written, directory) = (of_size(600_000), tempfile::tempdir().unwrap());
    let source = written.source();
    let first = state(&source, 1);
    let copying = copy(&source, &directory.path().join("copy.db"), 1);
    let frame = all_frames(&source, &first)[50].clone();
    let at = (frame.offset + u64::from(frame.len) / 2) as usize;
    written.store.damage(&frame.object.info.key, |bytes| bytes[at] ^= 0x10).unwrap();
    copied(&copying, &source, &first).unwrap_err();
    let connected = open(&source, Target::Txid(txid(1))).unwrap();
    let error = connected.read(40_960, &mut [0; 4096], &|| false).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let error = connected.read(0, &mut [0; 4096], &|| false).map(|_| ()).expect_err("page 1 is shown");
    assert_eq!(error.kind(), Kind::Corrupt);
}
