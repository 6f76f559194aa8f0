//! What an exclusive connection publishes (P4): it may have no shared memory, so the WAL's writes tell.

use crate::ltx::PageSize;
use crate::wal::{FrameHeader, IndexHeader, Salts, WAL_HEADER_SIZE, WalHeader};

/// The last commit frame that was written to the WAL, and may be a commit.
#[derive(Default)]
pub(super) struct Exclusive {
    page_size: Option<PageSize>,
    big_endian: bool,
    salts: Salts,
    last_commit: Option<(u32, FrameHeader)>,
}

impl Exclusive {
    /// A generation of the WAL begins.
    pub(super) fn begin(header: &WalHeader) -> Self {
        Self {
            page_size: Some(header.page_size),
            big_endian: header.big_endian,
            salts: header.salts,
            last_commit: None,
        }
    }

    /// Bytes are about to be written to the WAL. What is written over was no commit: it had failed.
    pub(super) fn frame_write(&mut self, offset: u64, bytes: &[u8]) {
        let (Ok(bytes), Some(page_size)) = (<&[u8; 24]>::try_from(bytes), self.page_size) else { return };
        let frame_size = 24 + u64::from(page_size.get());
        let is_frame = offset >= WAL_HEADER_SIZE && (offset - WAL_HEADER_SIZE).is_multiple_of(frame_size);
        if let (true, Ok(header)) = (is_frame, FrameHeader::parse(bytes)) {
            let frame = u32::try_from((offset - WAL_HEADER_SIZE) / frame_size + 1).unwrap_or(u32::MAX);
            self.last_commit.take_if(|(last, _)| frame <= *last);
            if header.commit != 0 {
                self.last_commit = Some((frame, header));
            }
        }
    }

    /// A write to the WAL, or its sync, has failed: so did the commit. A later commit without frames publishes nothing.
    pub(super) fn failed(&mut self) {
        self.last_commit = None;
    }

    /// The end of the WAL, if a commit succeeds now.
    pub(super) fn published(&self) -> Option<IndexHeader> {
        let (frame, header) = self.last_commit?;
        Some(IndexHeader {
            change: None,
            big_endian_checksum: self.big_endian,
            page_size: self.page_size?,
            max_frame: frame,
            page_count: header.commit,
            frame_checksum: header.checksum,
            salts: self.salts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::FrameChecksum;

    fn generation() -> Exclusive {
        Exclusive::begin(&WalHeader {
            big_endian: false,
            page_size: PageSize::new(512).unwrap(),
            checkpoint_seq: 0,
            salts: Salts(1, 2),
            checksum: FrameChecksum(3, 4),
        })
    }

    /// The header of a frame of page 1, after which the database has `commit` pages.
    fn write(exclusive: &mut Exclusive, frame: u64, commit: u32) {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&1_u32.to_be_bytes());
        bytes[4..8].copy_from_slice(&commit.to_be_bytes());
        exclusive.frame_write(32 + (frame - 1) * (24 + 512), &bytes);
    }

    fn end(exclusive: &Exclusive) -> Option<u32> {
        exclusive.published().map(|header| header.max_frame)
    }

    /// An empty commit after one whose sync had failed published the failed one.
    #[test]
    fn p4_a_commit_that_failed_is_not_published_by_the_next_one() {
        let mut exclusive = generation();
        write(&mut exclusive, 1, 0);
        write(&mut exclusive, 2, 5);
        assert_eq!(end(&exclusive), Some(2));
        write(&mut exclusive, 3, 6);
        exclusive.failed();
        assert_eq!(end(&exclusive), None);
        write(&mut exclusive, 3, 6);
        assert_eq!(end(&exclusive), Some(3));
    }

    #[test]
    fn p4_a_commit_frame_that_is_written_over_was_none() {
        let mut exclusive = generation();
        write(&mut exclusive, 2, 5);
        write(&mut exclusive, 2, 0);
        assert_eq!(end(&exclusive), None);
        write(&mut exclusive, 3, 6);
        assert_eq!(end(&exclusive), Some(3));
    }
}
