//! Places in the WAL, and what proves that nothing lies between two of them.

use crate::wal::{FRAME_HEADER_SIZE, FrameChecksum, FrameHeader, IndexHeader, Salts};

/// A place in the WAL up to which everything is captured. It proves itself: the frame before it must have these salts
/// and this running checksum (P7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) salts: Salts,
    /// The last captured frame, 0 before the first.
    pub(super) frame: u32,
    /// That frame's running checksum; meaningless for frame 0.
    pub(super) checksum: FrameChecksum,
}

impl Position {
    /// Whether this is where the published WAL ends.
    pub(super) fn is_end_of(&self, published: &IndexHeader) -> bool {
        (self.salts, self.frame, self.checksum) == (published.salts, published.max_frame, published.frame_checksum)
    }
}

/// Counts commits in frames. With `psow=0` SQLite repeats a commit's last frame up to the end of a sector: frames that
/// are alike count once, so that the count is never too large.
#[derive(Default)]
pub(super) struct Commits {
    pub(super) count: u32,
    last: Vec<u8>,
    last_pgno: u32,
}

impl Commits {
    pub(super) fn add(&mut self, pgno: u32, page: &[u8]) {
        if pgno != self.last_pgno || page != self.last {
            self.count += 1;
            self.last_pgno = pgno;
            self.last.clear();
            self.last.extend_from_slice(page);
        }
    }
}

/// How far capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captured {
    /// Up to here.
    At(Position),
    /// Everything is in the database file, and the next generation of the WAL continues from it: after the last close,
    /// or before the first write.
    Fresh,
    /// Not known: to be healed.
    Gap,
}

impl Captured {
    /// Whether more was captured of the same WAL, which proves that its database is the same, too.
    pub(super) fn goes_on_in_the_wal_of(self, before: Self) -> bool {
        matches!((before, self), (Self::At(before), Self::At(now)) if before.salts == now.salts && now.frame > before.frame)
    }

    /// Whether everything published is captured.
    pub(super) fn is_end_of(self, published: &IndexHeader) -> bool {
        matches!(self, Self::At(at) if at.is_end_of(published))
    }
}

/// The running checksum after a frame, if it is the one that follows the position.
///
/// SQLite 3.40.1 (3.53.4 no more) may publish a frame whose salts and checksum are zeros: it writes them so after it has
/// rewritten an earlier frame of the transaction, to be mended at the commit, and forgets some of them if a savepoint is
/// rolled back in between (`iReCksum` is not taken back with `mxFrame`). The frame after it is summed up from those
/// zeros. The page is committed and is read by everybody, so it is taken; the frames around it are still checked, and so
/// is the end, unless it is such a frame: the checksum that is published goes on from there.
pub(super) fn follows(
    position: &Position,
    frame: &FrameHeader,
    big_endian: bool,
    head: &[u8; FRAME_HEADER_SIZE as usize],
    page: &[u8],
) -> Option<FrameChecksum> {
    if is_forgotten(frame) {
        return Some(FrameChecksum::default());
    }
    let checksum = position.checksum.update_frame(big_endian, head, page);
    (frame.salts == position.salts && frame.checksum == checksum).then_some(checksum)
}

/// Whether this is such a frame.
pub(super) fn is_forgotten(frame: &FrameHeader) -> bool {
    frame.salts == Salts::default() && frame.checksum == FrameChecksum::default()
}
