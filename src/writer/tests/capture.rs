//! What capture takes, and what it refuses to take.

use super::*;
use crate::ltx::Pgno;
use crate::wal::{FRAME_HEADER_SIZE, frame_offset};
use crate::writer::capture::{Capture, Captured};
use crate::writer::image::Image;
use std::collections::BTreeMap;
use std::time::Instant;

fn capture_of(source: &Source) -> Capture {
    let files = Arc::new(PlainFiles(source.path.clone(), Arc::default(), Arc::default()));
    let mut capture = Capture::new(files, source.directory.path().to_owned(), PageSize::new(PAGE_SIZE).unwrap());
    assert!(capture.rebase(Some(&source.header())).unwrap());
    capture
}

fn run(capture: &mut Capture, header: &IndexHeader) {
    capture.run(header, 1, Instant::now()).unwrap();
}

/// The pages of the batch.
fn pages(capture: &mut Capture) -> BTreeMap<u32, Vec<u8>> {
    let frozen = capture.freeze().unwrap();
    let mut pages = BTreeMap::new();
    for pgno in frozen.pages {
        let mut page = vec![0; PAGE_SIZE as usize];
        capture.read_frozen(pgno, &mut page).unwrap();
        pages.insert(pgno, page);
    }
    capture.frozen = None;
    pages
}

fn page_of(image: &[u8], pgno: u32) -> &[u8] {
    let at = (pgno as usize - 1) * PAGE_SIZE as usize;
    &image[at..at + PAGE_SIZE as usize]
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn p2_frames_beyond_the_published_end_are_not_read() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    let published = source.header();
    source.insert(50);
    run(&mut capture, &published);
    assert!(capture.batch.is_empty(), "a commit frame that was not published was taken");
    run(&mut capture, &source.header());
    assert!(!capture.batch.is_empty());
}

#[test]
fn p6_a_batch_holds_the_newest_image_of_each_page() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    for _ in 0..5 {
        source.insert(20);
        run(&mut capture, &source.header());
    }
    let image = source.image();
    let pages = pages(&mut capture);
    assert!(pages.len() > 5);
    // Page 1 has the counters that a backup changes.
    for (pgno, page) in pages.iter().filter(|(pgno, _)| **pgno != 1) {
        assert!(page.as_slice() == page_of(&image, *pgno), "page {pgno}");
    }
}

#[test]
fn p7_another_frame_before_the_position_is_a_gap() {
    let source = Source::new();
    source.insert(10);
    let mut capture = capture_of(&source);
    let last = source.header().max_frame;
    source.insert(10);
    // The checksum of the captured frame is in its header's last 8 bytes.
    let at = frame_offset(last, PageSize::new(PAGE_SIZE).unwrap()) + FRAME_HEADER_SIZE - 8;
    overwrite(&beside(&source.path, "-wal"), at, &[1, 2, 3, 4, 5, 6, 7, 8]);
    run(&mut capture, &source.header());
    assert_eq!(capture.captured, Captured::Gap);
    assert!(capture.batch.is_empty());
}

#[test]
fn p7_a_damaged_frame_discards_the_batch() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    let first_new = source.header().max_frame + 1;
    source.insert(30);
    let at = frame_offset(first_new, PageSize::new(PAGE_SIZE).unwrap()) + FRAME_HEADER_SIZE + 100;
    overwrite(&beside(&source.path, "-wal"), at, b"damage");
    run(&mut capture, &source.header());
    assert_eq!(capture.captured, Captured::Gap);
    assert!(capture.batch.is_empty());
}

/// P7: the count of commits in the wal-index tells whether a restart that nobody saw has destroyed any.
#[test]
fn p7_a_restart_that_nobody_witnessed_is_a_gap_unless_no_commit_is_missing() {
    for (missing, witnessed) in [(false, false), (false, true), (true, false)] {
        let source = Source::new();
        source.insert(10);
        let mut capture = capture_of(&source);
        if missing {
            source.insert(10);
        }
        source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        if witnessed {
            capture.evacuate().unwrap();
            capture.restarted(&source.header());
        }
        for _ in 0..3 {
            source.insert(10);
        }
        if witnessed {
            capture.salts_drawn(source.header().salts);
        }
        run(&mut capture, &source.header());
        assert_eq!(capture.captured == Captured::Gap, missing, "missing: {missing}, witnessed: {witnessed}");
    }
}

#[test]
fn p7_of_two_restarts_that_nobody_witnessed_what_the_first_began_is_missing() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    for _ in 0..2 {
        source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        source.insert(10);
    }
    run(&mut capture, &source.header());
    assert_eq!(capture.captured, Captured::Gap);
}

#[test]
fn p7_an_empty_wal_after_a_restart_that_nobody_witnessed_is_a_gap_if_a_commit_is_missing() {
    for missing in [false, true] {
        let source = Source::new();
        source.insert(10);
        let mut capture = capture_of(&source);
        if missing {
            source.insert(10);
        }
        source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        run(&mut capture, &source.header());
        assert_eq!(capture.captured == Captured::Gap, missing);
    }
}

/// P3: what is only in the WAL when it is restarted is kept, also what memory had no room for.
#[test]
fn p3_pages_survive_the_wal_that_they_were_in() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    source.insert(30_000);
    run(&mut capture, &source.header());
    capture.evacuate().unwrap();
    let image = source.image();
    source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let pages = pages(&mut capture);
    assert!(pages.len() * PAGE_SIZE as usize > 4 << 20, "the batch fits in memory: {} pages", pages.len());
    for (pgno, page) in pages.iter().filter(|(pgno, _)| **pgno != 1) {
        assert!(page.as_slice() == page_of(&image, *pgno), "page {pgno}");
    }
}

/// A database that shrinks and grows again within one batch has pages that no frame brought, or only an old one.
#[test]
fn a_batch_over_a_shrink_and_a_growth_has_every_page_beyond_the_smallest_size() {
    let source = Source::new();
    source.insert(200);
    let mut capture = capture_of(&source);
    let large = source.header().page_count;
    source.db.execute_batch("DELETE FROM t; VACUUM").unwrap();
    run(&mut capture, &source.header());
    let small = source.header().page_count;
    source.insert(300);
    run(&mut capture, &source.header());
    let commit = source.header().page_count;
    assert!(small < large && large < commit);
    let pages = pages(&mut capture);
    assert!((small + 1..=commit).all(|pgno| pages.contains_key(&pgno)));
}

/// P10: an image is the state at which it began, whatever commits and checkpoints do meanwhile.
#[test]
fn p10_an_image_is_the_state_at_which_it_began() {
    let source = Source::new();
    source.insert(500);
    source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    source.insert(100);
    let mut capture = capture_of(&source);
    let expected = source.image();
    let commit = capture.batch.commit;
    capture.image = Some(Image::new(capture.page_size, commit, capture.frames.clone(), capture.page_store()));

    let mut found = Vec::new();
    let mut buffers = vec![(0, vec![0; PAGE_SIZE as usize]); 16];
    loop {
        let read = capture.read_image(&mut buffers).unwrap();
        if read == 0 {
            break;
        }
        buffers[..read].iter().for_each(|(_, page)| found.extend_from_slice(page));
        // Every page changes and is checkpointed over, and the WAL begins anew: as the taps would tell it.
        source.db.execute_batch("UPDATE t SET v = hex(randomblob(100))").unwrap();
        run(&mut capture, &source.header());
        capture.evacuate().unwrap();
        for pgno in 1..=commit {
            let offset = PageSize::new(PAGE_SIZE).unwrap().offset_of(Pgno::new(pgno).unwrap());
            capture.save_for_image(offset, u64::from(PAGE_SIZE)).unwrap();
        }
        source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        capture.restarted(&source.header());
        source.insert(1);
        capture.salts_drawn(source.header().salts);
        run(&mut capture, &source.header());
    }
    assert_same(&found, &expected);
    assert_ne!(capture.captured, Captured::Gap);
}

/// What SQLite 3.40.1 leaves of a transaction: published frames without salts and checksums, the last one, too.
#[test]
fn p7_frames_whose_checksums_sqlite_forgot_are_taken_also_at_the_end() {
    let source = Source::new();
    let mut capture = capture_of(&source);
    run(&mut capture, &source.header());
    pages(&mut capture);
    let before = source.header().max_frame;
    source.insert(50);
    let published = source.header();
    let wal = beside(&source.path, "-wal");
    for frame in before..published.max_frame {
        overwrite(&wal, 32 + u64::from(frame) * u64::from(24 + PAGE_SIZE) + 8, &[0; 16]);
    }
    run(&mut capture, &published);
    assert!(capture.captured.is_end_of(&published));
    let image = source.image();
    for (pgno, page) in pages(&mut capture) {
        assert!(pgno == 1 || page == page_of(&image, pgno), "page {pgno}");
    }
    source.insert(5);
    run(&mut capture, &source.header());
    assert!(capture.captured.is_end_of(&source.header()));
}
