//! R6: a companion's copies of interior pages, and where their children are.

use super::super::flight::{forget_blocks, forget_pages, kept_pages, settle};
use super::super::hydrating::frames;
use super::super::state::Place;
use super::ahead::{PAGE, Walker};
use super::hydrating::{put_companion, state};
use super::{Written, open, txid};
use crate::ltx::{Level, Pgno, TxidRange};
use crate::replica::Target;
use crate::replica::companion::{self, Head};
use crate::store::fault::Call;
use crate::store::{Metadata, Store};

/// One whose index is read block by block.
const ROWS: u32 = 12_000;

fn companion_key(n: u64) -> String {
    companion::key(Level::L0, TxidRange::single(txid(n)))
}

/// A table `x` of a page each row, and an index.
fn large() -> Written {
    let mut written = Written::new(PAGE);
    written.ship(&format!(
        "CREATE TABLE x(k, l, v); CREATE INDEX i ON x(k, l); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
         WHERE i < {ROWS}) INSERT INTO x SELECT (i * 7919) % 30011, hex(randomblob(25)), randomblob(650) FROM n;"
    ));
    put_companion(&written, 1);
    written
}

fn requests(walker: &Walker) -> usize {
    [Call::Get, Call::GetRange, Call::GetEnd, Call::Head, Call::List]
        .into_iter()
        .map(|call| walker.written.faults.count(call))
        .sum()
}

#[test]
fn r6_a_look_up_takes_two_requests_and_nothing_else_comes_with_the_first() {
    let walker = Walker::of(large());
    settle();
    let before = requests(&walker);
    walker.row(i64::from(ROWS) / 3);
    assert_eq!(requests(&walker) - before, 2, "the interior page above the leaf, and the leaf");
    // Its neighbours came with the interior page; those beside come along for who looks up more than one row.
    walker.counted();
    walker.row(i64::from(ROWS) / 3 + 150);
    assert_eq!(walker.counted().0, 1, "the leaf");
    walker.row(i64::from(ROWS) / 3 + 3000);
    walker.row(i64::from(ROWS) / 3 - 1500);
    assert_eq!(walker.counted().0, 2, "leaves");
    walker.row(i64::from(ROWS) * 9 / 10);
    assert!(walker.counted().0 <= 2);
    let head = Head::parse(&companion_bytes(&walker.written)).unwrap();
    assert!(head.interiors() > 50 && head.blocks() > 10);
    walker.written.assert_sees(&walker.connected, 1);
}

/// Siblings beside each other in the companion are not in the order of their numbers.
#[test]
fn r8_each_copy_is_found_in_what_comes_with_it() {
    let written = large();
    let connected = written.at(1).unwrap();
    let head = Head::parse(&companion_bytes(&written)).unwrap();
    let numbers: Vec<_> = (0..head.interiors()).map(|number| head.interior(number).unwrap().pgno).collect();
    assert!(!numbers[10..].is_sorted());
    for pgno in numbers.into_iter().skip(1).step_by(3) {
        forget_pages();
        let (from, mut page) = (pgno.index() * PAGE, vec![0; PAGE]);
        assert!(connected.read(from as u64, &mut page, &|| false).unwrap());
        assert!(page == written.states[1][from..from + PAGE], "page {pgno}");
    }
}

/// What a companion is for.
#[test]
fn r6_opening_and_a_look_up_take_few_bytes() {
    let written = large();
    let sent = |written: &Written| written.store.counters().bytes_in;
    let before = sent(&written);
    let walker = Walker::of(written);
    walker.row(77);
    let bytes = sent(&walker.written) - before;
    assert!(bytes < 256 << 10, "{bytes}");
    assert!(companion_bytes(&walker.written).len() > 512 << 10);
}

fn companion_bytes(written: &Written) -> Vec<u8> {
    written.store.get(&companion_key(1), u64::MAX).unwrap().unwrap().0
}

/// Newer files go over what a companion says, and its copies are pages of its own file only.
#[test]
fn r6_copies_are_those_of_their_file() {
    let mut written = large();
    written.ship("UPDATE x SET v = randomblob(900) WHERE rowid % 1000 < 300;");
    written.ship("DELETE FROM x WHERE rowid % 3 = 0; INSERT INTO x SELECT k, l, v FROM x LIMIT 1000;");
    written.ship("VACUUM;");
    for n in [1, 2, 3] {
        written.assert_sees(&written.at(n).unwrap(), n);
    }
    // Commits of many pages have companions, too, and trees that are in them in part.
    put_companion(&written, 2);
    put_companion(&written, 4);
    let source = written.source();
    for n in [1, 2, 3, 4] {
        let connected = open(&source, Target::Txid(txid(n))).unwrap();
        state(&source, n).objects().for_each(|object| forget_blocks(object.id));
        written.assert_sees(&connected, n);
    }
}

/// What is copied elsewhere comes from the files, whose checksums it is compared with.
#[test]
fn r13_hydration_reads_no_copies() {
    let written = large();
    let source = written.source();
    let state = state(&source, 1);
    let found = frames(&source, &state).map_err(|failed| failed.error).unwrap();
    assert_eq!(found.len(), written.states[1].len() / PAGE);
    assert!(found.iter().all(|frame| frame.copy.is_none() && frame.object.info.key.starts_with("ltx/")));
}

/// R7: each byte of a record that says something else is noticed; then the file is read by its own index.
#[test]
fn r7_damaged_copies_are_done_without() {
    let mut written = large();
    written.ship("UPDATE x SET v = randomblob(700) WHERE rowid = 5;");
    let sound = companion_bytes(&written);
    let head = Head::parse(&sound).unwrap();
    let number = head.interiors() - 3;
    let (record, interior) = (head.record_range(number), *head.interior(number).unwrap());
    let frame_end = record.start + u64::from(interior.len);
    for at in [record.start + 3, (record.start + frame_end) / 2, frame_end + 5, record.end - 1] {
        let mut damaged = sound.clone();
        damaged[at as usize] ^= 0x10;
        written.store.put(&companion_key(1), &damaged, &Metadata::default()).unwrap();
        written.assert_sees(&written.at(2).unwrap(), 2);
    }
    // Of what comes when the replica is opened, too.
    let mut damaged = sound.clone();
    damaged[head.record_range(0).start as usize + 20] ^= 0x10;
    written.store.put(&companion_key(1), &damaged, &Metadata::default()).unwrap();
    written.assert_sees(&written.at(2).unwrap(), 2);
}

/// A companion is removed when its file is; the file may still be there.
#[test]
fn r10_a_companion_that_is_gone_or_another_one_is_done_without() {
    for is_gone in [true, false] {
        let written = large();
        let connected = written.at(1).unwrap();
        settle();
        if is_gone {
            written.store.delete(&companion_key(1)).unwrap();
        } else {
            written
                .store
                .put(&companion_key(1), &vec![7; companion_bytes(&written).len()], &Metadata::default())
                .unwrap();
        }
        written.assert_sees(&connected, 1);
    }
}

/// Wherever the reading ahead begins, each block is read once.
#[test]
fn r6_every_block_is_read_ahead_once() {
    let written = large();
    let source = written.source();
    let state = state(&source, 1);
    state.objects().for_each(|object| forget_blocks(object.id));
    let unread = |pgno: u32| match state.find_stored(Pgno::new(pgno).unwrap()) {
        Place::Unread(index, block) => Some((index, block)),
        _ => None,
    };
    let (index, last) = unread(state.commit).unwrap();
    for read in (0..=last).flat_map(|from| [from..from, from..from + 1, from..(from + 5).min(last + 1)]) {
        let mut blocks: Vec<_> = index.stretches(read.clone()).into_iter().flatten().collect();
        assert!(blocks.first().is_none_or(|first| *first == read.end || read.end > last));
        blocks.extend(read.clone());
        blocks.sort_unstable();
        assert_eq!(blocks, (0..=last).collect::<Vec<_>>(), "but for {read:?}");
    }
}

/// What is known of an object is known to all connections of the process.
#[test]
fn r6_what_one_connection_has_read_another_one_needs_no_request_for() {
    let _kept = kept_pages();
    let walker = Walker::of(large());
    let rows = [4000, 8000, 11_000];
    rows.into_iter().for_each(|row| walker.row(row));
    let (source, connected) = (walker.written.source(), walker.written.at(1).unwrap());
    let mut again = walker;
    (again.source, again.connected) = (source, connected);
    settle();
    let before = requests(&again);
    rows.into_iter().for_each(|row| again.row(row));
    assert_eq!(requests(&again) - before, 0);
}

/// What comes when a replica is opened is enough for page 1, also where there are more interior pages than come with the
/// first bytes.
#[test]
fn r5_page_1_is_there_however_long_the_head_is() {
    let mut written = Written::new(512);
    written.ship(
        "CREATE TABLE x(k PRIMARY KEY) WITHOUT ROWID; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE
         i < 40000) INSERT INTO x SELECT hex(randomblob(46)) FROM n;",
    );
    put_companion(&written, 1);
    let head = Head::parse(&companion_bytes(&written)).unwrap();
    assert!(head.length() > 24 << 10, "{}", head.length());
    let connected = written.at(1).unwrap();
    let before = written.faults.count(Call::GetRange);
    assert!(connected.read(0, &mut [0; 512], &|| false).unwrap());
    assert_eq!(written.faults.count(Call::GetRange), before);
    written.assert_sees(&connected, 1);
}
