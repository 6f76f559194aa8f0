//! R7: what is copied is what was written; R13: what was copied is what is there.

use super::super::hydrate::{Failed, Hydration};
use super::super::hydrating::frames;
use super::super::index::Frame;
use super::super::source::Source;
use super::super::state::State;
use super::super::verified::{batches, is_streamed, parts};
use super::hydrating::{assert_right, become_state, copy, put_companion, state};
use super::{Written, key, open, run_sql, txid};
use crate::error::Kind;
use crate::replica::Target;
use crate::store::fault::Call;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Files that come whole when a replica is opened, that are larger, and that are not held in memory.
const SIZES: [u64; 3] = [100_000, 600_000, 5_000_000];

pub(super) fn of_size(bytes: u64) -> Written {
    let mut written = Written::new(4096);
    written.ship(&format!("INSERT INTO t VALUES (1, randomblob({bytes}));"));
    written
}

pub(super) fn all_frames(source: &Arc<Source>, state: &State) -> Vec<Frame> {
    frames(source, state).map_err(|failed| failed.error).unwrap()
}

/// Changes a byte of a page, which decompresses all the same.
fn damage(written: &Written, source: &Arc<Source>, state: &State) {
    let all = all_frames(source, state);
    let frame = &all[all.len() / 2];
    let at = (frame.offset + u64::from(frame.len) / 2) as usize;
    written.store.damage(&frame.object.info.key, |bytes| bytes[at] ^= 0x10).unwrap();
    if frame.sum.is_none() {
        source.fetch_run(std::slice::from_ref(frame)).unwrap();
    }
}

pub(super) fn copied(copy: &Hydration, source: &Arc<Source>, state: &Arc<State>) -> Result<(), Failed> {
    copy.become_state(source, state, &|| true)
}

#[test]
fn r7_a_damaged_file_is_neither_copied_nor_reported_complete() {
    for size in SIZES {
        let (written, directory) = (of_size(size), tempfile::tempdir().unwrap());
        let source = written.source();
        let state = state(&source, 1);
        let connected = open(&source, Target::Txid(txid(1))).unwrap();
        let copy = copy(&source, &directory.path().join("copy.db"), 1);
        damage(&written, &source, &state);
        let failed = copied(&copy, &source, &state).unwrap_err();
        assert_eq!(failed.error.kind(), Kind::Corrupt, "{}", failed.error);
        let error = connected.read(40_960, &mut [0; 4096], &|| false).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "it is not shown either: {error}");
        assert!(failed.error.to_string().contains("checksum"), "{}", failed.error);
        assert!(copy.txid().is_none() && copy.progress() < 1.0);
        assert!(all_frames(&source, &state).iter().all(|frame| copy.get(frame).is_none()), "{size}");
        // It is not read over and over.
        let before = written.faults.count(Call::GetRange);
        copied(&copy, &source, &state).unwrap_err();
        assert_eq!(written.faults.count(Call::GetRange), before, "{size}");
    }
}

/// Newer files have all that is damaged, or another file has it.
#[test]
fn r7_a_damaged_file_is_found_out_whichever_pages_are_wanted_and_done_without() {
    for size in SIZES {
        let (mut written, directory) = (of_size(size), tempfile::tempdir().unwrap());
        written.ship("INSERT INTO t VALUES (2, randomblob(20000));");
        written.put(1, 1, 1);
        let path = directory.path().join("copy.db");
        let source = written.source();
        let newest = state(&source, 2);
        let connected = open(&source, Target::Txid(txid(2))).unwrap();
        assert!(newest.objects().any(|object| object.info.key == key(1, 1, 1)));
        let copy = copy(&source, &path, 2);
        damage(&written, &source, &state(&source, 1));
        let failed = copied(&copy, &source, &newest).unwrap_err();
        let other = source.copied_elsewhere(&newest, &failed).expect("level 0 has it");
        copied(&copy, &source, &other).map_err(|failed| failed.error).unwrap();
        assert!(std::fs::read(&path).unwrap() == written.states[2], "{size}");
        written.assert_sees(&connected, 2);
    }
}

/// By its companion each page is proven alone.
#[test]
fn r7_a_file_with_a_companion_is_read_in_parts() {
    let (written, directory) = (of_size(5_000_000), tempfile::tempdir().unwrap());
    put_companion(&written, 1);
    let source = written.source();
    let state = state(&source, 1);
    let all = all_frames(&source, &state);
    assert!(all.iter().all(|frame| frame.sum.is_some()));
    assert!(parts(all).iter().all(|part| !is_streamed(part)));
    let copy = copy(&source, &directory.path().join("copy.db"), 1);
    damage(&written, &source, &state);
    let failed = copied(&copy, &source, &state).unwrap_err();
    assert_eq!(failed.error.kind(), Kind::Corrupt);
    let there = all_frames(&source, &state).iter().filter(|frame| copy.get(frame).is_some()).count();
    assert!(there > 0, "what is proven is copied");
    assert_right(&copy, &written, &source, "the other pages");
}

/// Frames of a damaged index may overlap.
#[test]
fn r13_frames_that_overlap_are_fetched_each() {
    let written = of_size(600_000);
    put_companion(&written, 1);
    let source = written.source();
    let mut frames = all_frames(&source, &state(&source, 1));
    frames[1].offset = frames[0].end() - 1;
    assert_eq!(parts(frames)[0].len(), 1);
}

#[test]
fn r7_a_file_that_is_streamed_comes_alone() {
    let mut written = of_size(100_000);
    for size in [5_000_000, 90_000, 80_000, 5_000_001, 70_000] {
        written.ship(&format!("CREATE TABLE a{size}(b); INSERT INTO a{size} VALUES (randomblob({size}));"));
    }
    let source = written.source();
    let all = all_frames(&source, &state(&source, 6));
    let batches = batches(parts(all.clone()), 2);
    assert!(
        batches.iter().all(|batch| batch.len() <= 2 && (batch.len() == 1 || !batch.iter().any(|p| is_streamed(p))))
    );
    assert_eq!(batches.iter().filter(|batch| is_streamed(&batch[0])).count(), 2);
    assert_eq!(batches.iter().flatten().map(Vec::len).sum::<usize>(), all.len());
}

/// Each by somebody who knows nothing of us.
const CHANGES: [fn(&Path); 3] = [
    |path| std::fs::File::options().write(true).open(path).unwrap().write_all_at(b"else", 300_000).unwrap(),
    |path| {
        let other = path.with_extension("other");
        std::fs::copy(path, &other).unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().write_all_at(b"else", 300_000).unwrap();
        std::fs::rename(other, path).unwrap();
    },
    |path| run_sql(path, "PRAGMA user_version = 7;"),
];

#[test]
fn r13_a_file_that_somebody_changed_is_not_trusted() {
    for has_companion in [false, true] {
        for change in CHANGES {
            let (written, directory) = (of_size(600_000), tempfile::tempdir().unwrap());
            if has_companion {
                put_companion(&written, 1);
            }
            let path = directory.path().join("copy.db");
            let source = written.source();
            become_state(&copy(&source, &path, 1), &source, 1, true).unwrap();
            // Times of files are coarse.
            std::thread::sleep(Duration::from_millis(20));
            change(&path);
            let copy = copy(&source, &path, 1);
            assert!(copy.txid().is_none() && copy.progress() < 1.0);
            assert_right(&copy, &written, &source, "after a change");
            let all = all_frames(&source, &state(&source, 1));
            let kept = all.iter().filter(|frame| copy.get(frame).is_some()).count();
            assert!(kept < all.len() && kept > 0, "{kept} of {}", all.len());
            become_state(&copy, &source, 1, true).unwrap();
            assert!(std::fs::read(&path).unwrap() == written.states[1]);
        }
    }
}

/// A file of zeros is a small file.
#[test]
fn r7_what_inflates_is_not_held_in_memory() {
    let mut written = Written::new(65536);
    written.ship("INSERT INTO t VALUES (1, zeroblob(40000000));");
    let source = written.source();
    let newest = state(&source, 1);
    let object = newest.objects().next().unwrap();
    assert!(object.info.size < 1 << 20, "{}", object.info.size);
    let (_, _, pages) = {
        let bytes = written.file(1, 1);
        source.whole(object.info.clone(), object.etag.clone(), &bytes, 1 << 20).unwrap()
    };
    assert_eq!(pages.len(), 16);
    let all = all_frames(&source, &newest);
    assert!(is_streamed(&parts(all.clone())[0]));
    put_companion(&written, 1);
    let all = all_frames(&source, &state(&source, 1));
    if all[0].sum.is_some() {
        assert!(parts(all).iter().all(|part| part.len() * 65536 <= 8 << 20));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.db");
    become_state(&copy(&source, &path, 1), &source, 1, true).unwrap();
    assert!(std::fs::read(&path).unwrap() == written.states[1]);
}
