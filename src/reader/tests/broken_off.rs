//! R13: copies that were broken off, and what is beside them.

use super::super::hydrate::Hydration;
use super::super::index::Frame;
use super::super::sidecar::with_suffix;
use super::hydrating::{assert_right, become_state, copy, put_companion_of, state};
use super::verifying::{all_frames, copied, of_size};
use super::{Written, key, random_below};
use crate::config::Hydrate;
use crate::error::{Error, Kind};
use crate::store::fault::{Call, Fault};
use std::path::Path;

/// What a process that is killed now leaves of a copy, at another place.
fn left_by_a_kill(path: &Path) -> std::path::PathBuf {
    let left = path.with_extension("left");
    for suffix in ["", ".hydration"] {
        std::fs::copy(with_suffix(path, suffix), with_suffix(&left, suffix)).unwrap();
    }
    left
}

fn count_there(copy: &Hydration, frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| copy.get(frame).is_some()).count()
}

/// Nothing but the files tells what was copied, though none has a companion.
#[test]
fn r13_a_first_copy_that_was_killed_goes_on_where_it_was() {
    let (mut written, directory) = (of_size(600_000), tempfile::tempdir().unwrap());
    for size in [300_000, 5_000_000, 400_000] {
        written.ship(&format!("CREATE TABLE a{size}(b); INSERT INTO a{size} VALUES (randomblob({size}));"));
    }
    let path = directory.path().join("copy.db");
    let source = written.source();
    let newest = state(&source, 4);
    let all = all_frames(&source, &newest);
    let first = copy(&source, &path, 4);
    // The fault comes to the large file, after what is copied at once.
    let fails = Fault::Before(Error::new(Kind::Unavailable, "killed"));
    written.faults.at(Call::GetRange, 5, fails);
    copied(&first, &source, &newest).unwrap_err();
    let there = count_there(&first, &all);
    assert!(there > 0 && there < all.len(), "{there} of {}", all.len());
    let left = left_by_a_kill(&path);
    let again = copy(&source, &left, 4);
    assert_eq!(count_there(&again, &all), there);
    let before = written.store_bytes();
    become_state(&again, &source, 4, true).unwrap();
    let missing: u64 = all.iter().filter(|frame| first.get(frame).is_none()).map(|frame| u64::from(frame.len)).sum();
    let opening = 4 * (256 << 10);
    assert!(written.store_bytes() - before < missing + opening, "{missing}");
    assert!(std::fs::read(&left).unwrap() == written.states[4]);
}

/// Of what was written since a sync, a disk that lost power has any sectors.
#[test]
fn r13_whatever_a_power_cut_leaves_nothing_wrong_is_shown() {
    for seed in 1..40_u64 {
        let mut below = random_below(seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let mut written = Written::new([512, 1024, 4096][seed as usize % 3]);
        for _ in 0..4 {
            written.ship("INSERT INTO t(b) SELECT randomblob(3000) FROM t LIMIT 20; INSERT INTO t(b) VALUES (randomblob(20000));");
            written.ship(
                "UPDATE t SET b = randomblob(2000) WHERE a % 3 = abs(random()) % 3; DELETE FROM t WHERE a % 7 = 1;",
            );
        }
        let source = written.source();
        let (from, to) = (1 + below(4), 5 + below(4));
        become_state(&copy(&source, &path, from), &source, from, true).unwrap();
        let read = |suffix| std::fs::read(with_suffix(&path, suffix)).unwrap();
        let former = [read(""), read(".hydration")];
        let copying = copy(&source, &path, to);
        become_state(&copying, &source, to, true).unwrap();
        for (suffix, former) in ["", ".hydration"].into_iter().zip(former) {
            let mut bytes = read(suffix);
            for (number, sector) in bytes.chunks_mut(512).enumerate() {
                if below(2) == 0 {
                    let there = former.get(number * 512..).unwrap_or_default();
                    let there = &there[..there.len().min(sector.len())];
                    sector.fill(0);
                    sector[..there.len()].copy_from_slice(there);
                }
            }
            std::fs::write(with_suffix(&path.with_extension("left"), suffix), bytes).unwrap();
        }
        let left = copy(&source, &path.with_extension("left"), to);
        assert_right(&left, &written, &source, &format!("seed {seed}"));
        become_state(&left, &source, to, true).unwrap();
        assert!(std::fs::read(path.with_extension("left")).unwrap() == written.states[to as usize], "seed {seed}");
    }
}

/// A companion tells that they are the same pages.
#[test]
fn r13_what_was_only_compacted_is_not_copied_again() {
    let (mut written, directory) = (of_size(5_000_000), tempfile::tempdir().unwrap());
    written.ship("INSERT INTO t VALUES (2, 7);");
    let path = directory.path().join("copy.db");
    let source = written.source();
    become_state(&copy(&source, &path, 2), &source, 2, true).unwrap();
    written.put(1, 1, 2);
    (1..=2).for_each(|n| written.delete(0, n, n));
    put_companion_of(&written, 1, 1, 2);
    let copy = copy(&source, &path, 2);
    let newest = state(&source, 2);
    assert!(newest.objects().all(|object| object.info.key == key(1, 1, 2)));
    all_frames(&source, &newest);
    let before = written.store_bytes();
    copied(&copy, &source, &newest).map_err(|failed| failed.error).unwrap();
    assert_eq!(written.store_bytes() - before, 0);
    assert_right(&copy, &written, &source, "after a compaction");
}

/// The pages that came are in the file, and the former ones are not.
#[test]
fn r13_a_large_file_that_was_broken_off_leaves_nothing_wrong() {
    let (mut written, directory) = (of_size(26_000_000), tempfile::tempdir().unwrap());
    written.ship("UPDATE t SET b = randomblob(26000000);");
    let path = directory.path().join("copy.db");
    let source = written.source();
    let copying = copy(&source, &path, 1);
    become_state(&copying, &source, 1, true).unwrap();
    let second = state(&source, 2);
    written.faults.at(Call::GetRange, 7, Fault::Before(Error::new(Kind::Unavailable, "broken off")));
    assert_eq!(copied(&copying, &source, &second).unwrap_err().error.kind(), Kind::Unavailable);
    drop(copying);
    let copying = copy(&source, &path, 1);
    let all = all_frames(&source, &state(&source, 1));
    let wrong = all.iter().filter(|frame| {
        let at = frame.pgno.index() * 4096;
        copying.get(frame).is_some_and(|page| page != written.states[1][at..at + 4096])
    });
    assert_eq!(wrong.count(), 0, "of {}", all.len());
}

/// It is damaged, and later it is whole.
#[test]
fn r7_a_large_file_that_was_damaged_leaves_nothing_wrong() {
    let (mut written, directory) = (of_size(5_000_000), tempfile::tempdir().unwrap());
    written.ship("UPDATE t SET b = randomblob(5000000);");
    let path = directory.path().join("copy.db");
    let source = written.source();
    let copying = copy(&source, &path, 1);
    become_state(&copying, &source, 1, true).unwrap();
    let second = state(&source, 2);
    let frame = all_frames(&source, &second)[500].clone();
    let at = (frame.offset + u64::from(frame.len) / 2) as usize;
    written.store.damage(&frame.object.info.key, |bytes| bytes[at] ^= 0x10).unwrap();
    assert_eq!(copied(&copying, &source, &second).unwrap_err().error.kind(), Kind::Corrupt);
    assert_right(&copying, &written, &source, "before the close");
    drop(copying);
    written.store.damage(&frame.object.info.key, |bytes| bytes[at] ^= 0x10).unwrap();
    let source = written.source();
    assert_right(&copy(&source, &path, 1), &written, &source, "after the close");
}

/// Somebody removed it while it was followed, and opened another one.
#[test]
fn r13_a_copy_that_was_removed_is_another_one() {
    let (mut written, directory) = (of_size(600_000), tempfile::tempdir().unwrap());
    written.ship("UPDATE t SET b = randomblob(600000);");
    let path = directory.path().join("copy.db");
    let source = written.source();
    let first = copy(&source, &path, 1);
    become_state(&first, &source, 1, true).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = copy(&source, &path, 1);
    become_state(&second, &source, 1, true).unwrap();
    drop(second);
    become_state(&first, &source, 2, true).unwrap();
    assert_right(&copy(&source, &path, 1), &written, &source, "the other one");
    std::mem::forget(first);
}

/// The database shrank and grew.
#[test]
fn r13_what_lies_beyond_the_file_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(4096);
    written.ship("INSERT INTO t VALUES (1, 7), (2, randomblob(400000)), (3, 8);");
    written.ship("DELETE FROM t WHERE a = 2;");
    written.ship("INSERT INTO t VALUES (4, randomblob(200000));");
    written.ship("INSERT INTO t VALUES (5, randomblob(200000));");
    assert!(written.states[2].len() < 100_000 && written.states[4].len() > 400_000);
    let path = directory.path().join("copy.db");
    let source = written.source();
    become_state(&copy(&source, &path, 1), &source, 1, true).unwrap();
    // Somebody, or a power cut.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(written.states[2].len() as u64).unwrap();
    become_state(&copy(&source, &path, 2), &source, 2, true).unwrap();
    let copying = copy(&source, &path, 2);
    written.faults.at(Call::GetRange, 7, Fault::Before(Error::new(Kind::Unavailable, "broken off")));
    let outcome = become_state(&copying, &source, 4, true);
    written.faults.clear();
    outcome.unwrap_err();
    assert_right(&copying, &written, &source, "in holes");
}

/// A sidecar that is cut, and one that cannot be had.
#[test]
fn r13_a_sidecar_that_is_no_whole_one() {
    let (written, directory) = (of_size(100_000), tempfile::tempdir().unwrap());
    let source = written.source();
    let path = directory.path().join("copy.db");
    become_state(&copy(&source, &path, 1), &source, 1, true).unwrap();
    let sidecar = std::fs::File::options().write(true).open(with_suffix(&path, ".hydration")).unwrap();
    sidecar.set_len(16 + 16 * 10 + 7).unwrap();
    assert_right(&copy(&source, &path, 1), &written, &source, "short");
    become_state(&copy(&source, &path, 1), &source, 1, true).unwrap();
    assert!(std::fs::read(&path).unwrap() == written.states[1]);
    let path = directory.path().join("dir.db");
    std::fs::create_dir(with_suffix(&path, ".hydration")).unwrap();
    let error = Hydration::open(&Hydrate { path: Some(path.clone()) }, &state(&source, 1)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("dir.db.hydration"), "{error}");
}

/// Nor does a replica overwrite what bears the name of one.
#[test]
fn r13_what_hydration_has_not_made_stays_as_it_is() {
    let (written, directory) = (of_size(100_000), tempfile::tempdir().unwrap());
    let source = written.source();
    for (name, content) in
        [("a.db", "somebody's database"), ("b.db.hydration", "notes of somebody who is learning to swim")]
    {
        let theirs = directory.path().join(name);
        std::fs::write(&theirs, content).unwrap();
        let path = theirs.with_file_name(name.trim_end_matches(".hydration"));
        let error = Hydration::open(&Hydrate { path: Some(path) }, &state(&source, 1)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("was not made by hydration"), "{error}");
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), content);
    }
}
