//! Against a WAL and a wal-index that SQLite wrote.

use super::*;
use crate::ltx::PageSize;
use std::path::{Path, PathBuf};

/// A directory of its own for one test.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("liblitestream-wal-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An open database with some transactions in its WAL.
fn database(dir: &Path, page_size: u32) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(dir.join("app.db")).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size = {page_size}; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);"
    ))
    .unwrap();
    for _ in 0..20 {
        db.execute("INSERT INTO t(data) VALUES (randomblob(3000))", []).unwrap();
    }
    db
}

fn index_header(dir: &Path) -> (Vec<u8>, Option<IndexHeader>) {
    let shm = std::fs::read(dir.join("app.db-shm")).unwrap();
    let header = IndexHeader::parse_both(shm.first_chunk().unwrap(), None);
    (shm, header)
}

#[test]
fn sqlites_wal_and_wal_index_agree_frame_by_frame() {
    for page_size in [512, 4096, 65536] {
        let dir = TempDir::new(&format!("frames-{page_size}"));
        let db = database(&dir.0, page_size);
        let wal = std::fs::read(dir.0.join("app.db-wal")).unwrap();
        let page_size = PageSize::new(page_size).unwrap();
        let header = WalHeader::parse(wal.first_chunk().unwrap()).unwrap();
        assert_eq!(header.page_size, page_size);
        let index = index_header(&dir.0).1.unwrap();
        assert_eq!((index.page_size, index.salts), (page_size, header.salts));
        assert_eq!(index.big_endian_checksum, header.big_endian);
        let mut checksum = header.checksum;
        let mut last_commit = 0;
        for frame in 1..=index.max_frame {
            let (head, page) = wal[frame_offset(frame, page_size) as usize..].split_first_chunk().unwrap();
            let parsed = FrameHeader::parse(head).unwrap();
            checksum = checksum.update_frame(header.big_endian, head, &page[..page_size.bytes()]);
            assert_eq!((parsed.salts, parsed.checksum), (header.salts, checksum), "frame {frame}");
            last_commit = parsed.commit;
        }
        assert_eq!(wal.len() as u64, frame_offset(index.max_frame + 1, page_size));
        assert_eq!((last_commit, checksum), (index.page_count, index.frame_checksum));
        let pages: u32 = db.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
        assert_eq!(index.page_count, pages);
    }
}

#[test]
fn a_restart_shows_in_the_wal_index_as_new_salts() {
    let dir = TempDir::new("restart");
    let db = database(&dir.0, 4096);
    let before = index_header(&dir.0).1.unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(RESTART); INSERT INTO t(data) VALUES ('x')").unwrap();
    let after = index_header(&dir.0).1.unwrap();
    assert_eq!(after.salts.0, before.salts.0.wrapping_add(1));
    assert!(after.max_frame < before.max_frame);
    let wal = std::fs::read(dir.0.join("app.db-wal")).unwrap();
    assert_eq!(WalHeader::parse(wal.first_chunk().unwrap()).unwrap().salts, after.salts);
}

#[test]
fn a_damaged_header_is_refused() {
    let dir = TempDir::new("damage");
    let _db = database(&dir.0, 4096);
    let wal = std::fs::read(dir.0.join("app.db-wal")).unwrap();
    let mut header: [u8; WAL_HEADER_SIZE as usize] = *wal.first_chunk().unwrap();
    for bit in 0..header.len() * 8 {
        header[bit / 8] ^= 1 << (bit % 8);
        assert!(WalHeader::parse(&header).is_err(), "bit {bit}");
        header[bit / 8] ^= 1 << (bit % 8);
    }
    let mut copies: [u8; 2 * IndexHeader::SIZE] = *index_header(&dir.0).0.first_chunk().unwrap();
    for bit in 0..copies.len() * 8 {
        copies[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(IndexHeader::parse_both(&copies, None), None, "bit {bit}");
        if bit < IndexHeader::SIZE * 8 {
            assert_eq!(IndexHeader::parse(copies.first_chunk().unwrap()), None, "bit {bit}");
        }
        copies[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(IndexHeader::parse(&[0; IndexHeader::SIZE]), None);
    assert!(FrameHeader::parse(&[0; FRAME_HEADER_SIZE as usize]).is_err());
}

#[test]
fn both_byte_orders_are_summed_up() {
    let bytes = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
    assert_eq!(FrameChecksum::default().update(true, &bytes), FrameChecksum(7, 14));
    let swapped: Vec<u8> = bytes.chunks(4).flat_map(|w| w.iter().rev().copied()).collect();
    assert_eq!(FrameChecksum::default().update(false, &swapped), FrameChecksum(7, 14));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(mut bytes: [u8; 96], magic: bool) {
        let _ = IndexHeader::parse_both(&bytes, None);
        let _ = IndexHeader::parse(bytes.first_chunk().unwrap());
        let _ = FrameHeader::parse(bytes.first_chunk().unwrap());
        let _ = WalHeader::parse(bytes.first_chunk().unwrap());
        bytes[..8].copy_from_slice(&[0x37, 0x7f, 0x06, 0x82 | u8::from(magic), 0x00, 0x2d, 0xe2, 0x18]);
        let _ = WalHeader::parse(bytes.first_chunk().unwrap());
    }

    #[test]
    fn a_checksum_continues_where_it_was_cut(bytes: [u8; 64], cut in 0..=8usize, big_endian: bool) {
        let (front, back) = bytes.split_at(cut * 8);
        let whole = FrameChecksum::default().update(big_endian, &bytes);
        let parts = FrameChecksum::default().update(big_endian, front).update(big_endian, back);
        assert_eq!(whole, parts);
    }
}
