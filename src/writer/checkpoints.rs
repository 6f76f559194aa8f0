//! Checkpoints of other processes while an image is read (P10): they write to the database file, and no tap tells.
//!
//! Checkpoints exclude each other by a lock, and those of this process are told when they have it. So what the
//! wal-index says of checkpoints changes between two looks only by them, or by another process: then the image begins
//! again, and holds a read mark this time, beyond which nothing is copied.

use super::follow::{Follow, Hold, parse};
use super::primary::Primary;
use crate::ltx::PageSize;
use crate::wal::{IndexHeader, Salts};

/// How far checkpoints were, as far as this process has seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    salts: Salts,
    backfilled: u32,
    attempted: u32,
}

impl Copied {
    fn of(bytes: &[u8; 136], page_size: PageSize) -> Option<Self> {
        let (header, info) = parse(bytes, page_size)?;
        Some(Self { salts: header.salts, backfilled: info.backfilled, attempted: info.attempted })
    }

    /// Whether a checkpoint that was not seen has run since `before`; a restart that was told sets all back.
    fn is_unseen_after(&self, before: &Self, told: Option<&IndexHeader>) -> bool {
        let restarted =
            self.salts != before.salts && self.attempted == 0 && told.is_some_and(|told| told.salts == self.salts);
        self != before && !restarted
    }
}

impl Follow {
    /// Keeps checkpoints from copying frames beyond the published end, for an image that reads the state up to there.
    fn hold_for_image(&mut self) {
        let page_size = self.page_size;
        let marks = self.read().flatten().map(|(header, info)| (header.max_frame, info.marks));
        let (Some((end, marks)), Some(index)) = (marks, self.index()) else { return };
        // A mark is changed under its exclusive lock only, so what it is under the shared one it stays.
        for mark in [1, 2, 3, 4_u8] {
            if marks[usize::from(mark)] <= end && index.hold(mark) {
                let stands =
                    parse(&index.read(), page_size).is_some_and(|(_, info)| info.marks[usize::from(mark)] <= end);
                if stands {
                    self.image_hold = Some(mark);
                    return;
                }
                index.release(mark);
            }
        }
    }

    fn release_image(&mut self) {
        let kept = self.hold;
        if let (Some(mark), Some(index)) = (self.image_hold.take(), &mut self.index)
            && kept != Hold::Restart(mark)
        {
            index.release(mark);
        }
    }
}

impl Primary {
    /// P10: an image of what is published begins. Whether it may: the database file holds nothing newer.
    pub(super) fn image_begins(&self) -> bool {
        let mut follow = self.follow.lock();
        if std::mem::take(&mut follow.overtaken) {
            follow.hold_for_image();
        }
        let Some(index) = follow.index() else { return true };
        let Some(copied) = Copied::of(&index.read(), self.page_size) else { return false };
        follow.copied = Some(copied);
        let told = self.published.lock().header;
        follow.own_checkpoint
            || told.is_none_or(|told| told.max_frame == 0 && copied.attempted == 0)
            || told.is_some_and(|told| told.salts == copied.salts && copied.attempted <= told.max_frame)
    }

    /// Pages of the image were read: whether a checkpoint that no tap has seen may have written over them.
    pub(super) fn image_is_overtaken(&self) -> bool {
        let mut follow = self.follow.lock();
        let Some(seen) = follow.copied else { return false };
        if follow.own_checkpoint || follow.overtaken {
            return follow.overtaken;
        }
        let Some(index) = follow.index() else { return false };
        let Some(now) = (0..100).find_map(|_| Copied::of(&index.read(), self.page_size)) else { return true };
        let told = self.published.lock().header;
        follow.overtaken = now.is_unseen_after(&seen, told.as_ref());
        follow.copied = Some(now);
        follow.overtaken
    }

    /// It has ended, in whatever way.
    pub(super) fn image_ends(&self) {
        let mut follow = self.follow.lock();
        follow.copied = None;
        follow.release_image();
    }

    /// A checkpoint of ours begins, or ends; its writes are told one by one.
    pub fn checkpoint(&self, begins: bool, index: &[u8; 136]) {
        let mut follow = self.follow.lock();
        follow.own_checkpoint = begins;
        if let (Some(seen), Some(now)) = (follow.copied, Copied::of(index, self.page_size)) {
            let told = self.published.lock().header;
            follow.overtaken |= begins && now.is_unseen_after(&seen, told.as_ref());
            follow.copied = Some(now);
        }
    }
}
