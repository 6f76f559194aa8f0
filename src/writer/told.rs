//! What a primary is told by the taps, on the threads that use the database and often under SQLite's locks.
//!
//! Each method takes the capture lock with a timeout at most (P5), and does bounded local work (P3).

use super::capture::{Capture, Captured};
use super::primary::{Phase, Primary};
use super::spool::FileIdentity;
use super::tasks::RETRY_FIRST;
use crate::error::{Error, Kind};
use crate::wal::{IndexHeader, Salts};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Primary {
    /// P1. Copies the header; whether there is something to capture, for which `wake` is to be called.
    pub fn published(&self, header: &IndexHeader) -> bool {
        let mut published = self.published.lock();
        if let Some(last) = &published.header {
            // An older one may come late from a connection that committed nothing.
            let older = last.salts == header.salts && header.max_frame < last.max_frame;
            if last == header || older {
                return false;
            }
        }
        published.header = Some(*header);
        if header.max_frame == 0 {
            // A restart: what was published before is in the database file now, and nothing is new.
            return false;
        }
        published.sequence += 1;
        published.oldest.get_or_insert_with(|| self.now());
        drop(published);
        self.exclusive.store(false, Ordering::Release);
        true
    }

    /// A connection has begun to read, and found this published: news if nothing was told yet, as after a start without a
    /// connection.
    pub fn reading(self: &Arc<Self>, header: &IndexHeader) {
        let mut published = self.published.lock();
        if published.header.is_some() {
            return;
        }
        published.header = Some(*header);
        if header.max_frame > 0 {
            published.sequence += 1;
            published.oldest.get_or_insert_with(|| self.now());
        }
        drop(published);
        self.wake();
    }

    /// P4. As `published`, by a connection that takes no locks.
    pub fn committed_exclusively(&self, header: &IndexHeader) -> bool {
        let news = self.published(header);
        self.exclusive.store(true, Ordering::Release);
        news
    }

    /// That connection takes locks again, or there is another one that does.
    pub fn exclusive_ended(&self) {
        self.exclusive.store(false, Ordering::Release);
    }

    /// Whether the last publication came from an exclusive connection.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Acquire)
    }

    /// The write lock was taken, and this is what is published. Anything else than what was told last is the work of a
    /// connection without a tap: its commits are news, and a restart by it was not witnessed.
    pub fn write_locked(self: &Arc<Self>, header: &IndexHeader) {
        let last = self.published.lock().header;
        let restarted = last.is_some_and(|last| last.salts != header.salts);
        // Without content it is no publication, but capture has to prove that nothing was lost.
        if (header.max_frame > 0 || restarted) && last != Some(*header) {
            if self.published_elsewhere(header) {
                self.wake();
            }
            self.foreign_commit();
        }
    }

    /// The taps are active. `before` was published when it was found out where to go on, `now` is.
    pub fn activated(self: &Arc<Self>, before: Option<&IndexHeader>, now: Option<&IndexHeader>) {
        self.note_files();
        // An unseen restart is a gap; an unseen checkpoint may have written over pages that an image reads.
        let restarted = before.zip(now).is_some_and(|(before, now)| before.salts != now.salts);
        let scanning = self.phase() == Phase::Scan && before != now;
        if restarted || (scanning && before.is_some()) {
            self.missed.store(true, Ordering::Release);
        }
        if let Some(now) = now {
            self.published(now);
        }
        self.schedule_capture(self.now());
        self.schedule_ship(self.now());
        self.index_mapped();
        self.tell_others(true);
        if let Err(error) = self.pools.sessions.join(self) {
            self.fail_visibly(&error);
        }
    }

    /// P13: tells processes with the extension whether their barriers are waited for.
    fn tell_others(&self, active: bool) {
        if let Err(error) = self.state_file.tell(active, None) {
            self.fail_visibly(&error);
        }
    }

    /// A barrier was missed, and no capture has taken note of it yet.
    pub(super) fn missed_barrier(&self) -> bool {
        self.missed.load(Ordering::Acquire)
    }

    /// Takes note of it.
    pub(super) fn clear_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// There is something to capture.
    pub fn wake(self: &Arc<Self>) {
        self.schedule_capture(self.now());
    }

    /// P3: captures to the end and leaves nothing only in the WAL. Never longer than `barrier_timeout` (P5); what could
    /// not be captured by then is a gap.
    pub fn barrier(self: &Arc<Self>, header: Option<&IndexHeader>) {
        if let Some(header) = header {
            self.published(header);
        }
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else {
            self.gap_pending("capture did not end within barrier_timeout");
            return;
        };
        self.take_note(&mut capture);
        if capture.captured == Captured::Gap {
            return;
        }
        let outcome = self.capture_now(&mut capture).and_then(|()| capture.evacuate());
        // The caller has the write lock: nobody publishes more before the WAL is destroyed.
        self.release_hold();
        if let Err(error) = outcome {
            capture.gap(format!("at a barrier: {error}"));
            drop(capture);
            self.failed(&error);
            self.schedule_ship(self.now() + RETRY_FIRST);
        }
    }

    /// A barrier that was missed is a gap.
    fn take_note(&self, capture: &mut Capture) {
        if self.clear_missed() && capture.captured != Captured::Gap {
            capture.gap("the WAL was restarted without our barrier: past barrier_timeout, or by a connection without the extension");
        }
    }

    /// The capture lock cannot be had: whoever has it next takes note.
    pub(super) fn gap_pending(&self, reason: &str) {
        self.missed.store(true, Ordering::Release);
        self.fail_visibly(&Error::new(Kind::Timeout, format!("{reason}; what differs is found and shipped")));
    }

    /// A WAL header with these salts is about to be written. The salts are told here once more, after the restart under
    /// its locks: a connection that did not restart the WAL itself draws new ones for its first frame.
    pub fn header_write(self: &Arc<Self>, salts: Salts) {
        self.unlocked_restart(salts);
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) {
            capture.salts_drawn(salts);
        }
    }

    /// The WAL is about to be truncated: after a restart under its locks, or by an exclusive connection. Which salts
    /// follow is told by the next header.
    pub fn wal_truncate(self: &Arc<Self>) {
        self.unlocked_restart(Salts::default());
    }

    /// P4: if what was published still stands, no restart ran under its locks: the connection is exclusive, and this is
    /// its barrier.
    pub(super) fn unlocked_restart(self: &Arc<Self>, salts: Salts) {
        let last = self.published.lock().header;
        let exclusive = self.exclusive.load(Ordering::Acquire);
        if let Some(last) = last.filter(|last| exclusive && last.max_frame > 0 && last.salts != salts) {
            self.barrier(None);
            self.restarted(&IndexHeader { salts, max_frame: 0, ..last });
        }
    }

    /// The restart that the barrier was for has run, under its locks.
    pub fn restarted(&self, header: &IndexHeader) {
        let capture = self.capture.try_lock_for(self.options.barrier_timeout);
        // What was published before is in the database file now.
        self.published.lock().header = Some(*header);
        match capture {
            Some(mut capture) => {
                self.take_note(&mut capture);
                capture.restarted(header);
            }
            None => self.missed.store(true, Ordering::Release),
        }
    }

    /// The WAL of the database was opened by SQLite (P9).
    pub fn wal_opened(&self) {
        self.note_wal(true);
        // The WAL was closed, and nobody reopened the database: its connection left WAL mode, and is back.
        if self.closed.lock().take().is_some_and(|closed| !self.is_unchanged(&closed)) {
            self.missed.store(true, Ordering::Release);
        }
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else { return };
        if std::mem::take(&mut capture.to_read) {
            self.read_as_opened(&mut capture);
        }
        if let Err(error) = capture.wal_opened() {
            drop(capture);
            self.fail_visibly(&error);
        }
    }

    /// The database file is about to be written to, or cut off: an image saves the pages that it still needs (P10).
    pub fn database_write(&self, offset: u64, length: u64) {
        if !self.image_active.load(Ordering::Acquire) {
            return;
        }
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else {
            self.image_active.store(false, Ordering::Release);
            return;
        };
        if let Err(error) = capture.save_for_image(offset, length) {
            capture.image = None;
            drop(capture);
            log::info!("{}: the image begins again: {error}", self.path.display());
        }
    }

    /// The last connection gives up the shared memory, after the barrier: it will delete the WAL. Everything is in the
    /// database file, which is remembered as it is now (P11): a later change, also one in another journal mode, is one
    /// that was not seen.
    pub fn last_close(&self) {
        self.give_index_up();
        self.note_wal(false);
        let capture = self.capture.try_lock_for(self.options.barrier_timeout);
        self.published.lock().header = None;
        match capture {
            Some(mut capture) => {
                self.take_note(&mut capture);
                capture.wal_deleted();
                *self.closed.lock() = FileIdentity::of(&self.path).ok();
            }
            None => self.missed.store(true, Ordering::Release),
        }
    }

    /// P16: what is committed without a WAL is not captured. Replication ends, and says so.
    pub fn rollback_commit(&self) {
        if self.is_final() {
            return;
        }
        self.missed.store(true, Ordering::Release);
        let text = format!(
            "{} has left WAL mode, without which nothing is captured: replication has ended. SELECT litestream_stop(), \
             then litestream_replicate again; what differs is found and shipped",
            self.path.display()
        );
        self.failed(&Error::invalid(text));
    }

    /// P16: somebody wants to leave WAL mode, and is told only that the database is locked.
    pub fn refuses_to_leave_wal(&self) -> bool {
        let text = format!(
            "a change of journal_mode was refused (SQLITE_BUSY) while {} is replicated: replication needs the WAL; \
             SELECT litestream_stop() first",
            self.path.display()
        );
        self.fail_visibly(&Error::invalid(text));
        true
    }

    pub(super) fn is_unchanged(&self, closed: &FileIdentity) -> bool {
        FileIdentity::of(&self.path).is_ok_and(|now| now == *closed)
    }

    /// No connection is left: drains for at most `close_timeout`, and leaves the rest in the spool.
    pub fn all_closed(self: &Arc<Self>) {
        self.unused.store(true, Ordering::Release);
        self.tell_others(false);
        if let Err(error) = self.drain(self.options.close_timeout, &|| false) {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    /// No connection is open in the process: nothing of SQLite is called until there is one (P33). What is staged is
    /// still shipped.
    pub fn rest(&self) {
        if let Some(mut capture) = self.capture.try_lock_for(self.options.close_timeout) {
            // Saved pages of it would be missing by the time it goes on.
            capture.image = None;
            capture.close_files();
        }
    }

    /// There is a connection again.
    pub fn resume(self: &Arc<Self>) {
        self.schedule_capture(self.now());
        self.schedule_ship(self.now());
    }

    /// The database is opened again after its last close: nobody may have touched it in between (P11).
    pub fn reopened(self: &Arc<Self>) {
        self.note_database();
        self.unused.store(false, Ordering::Release);
        self.tell_others(true);
        // It holds until the WAL is opened: who only opens the database, and closes it, changes nothing.
        let mut closed = self.closed.lock();
        if closed.as_ref().is_some_and(|closed| self.is_unchanged(closed)) {
            return;
        }
        *closed = None;
        drop(closed);
        // It may be another file by now (P12).
        self.unproven.store(true, Ordering::Release);
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else {
            return self.missed.store(true, Ordering::Release);
        };
        // Where another process had it open all the time, the WAL may prove the position.
        if capture.captured == Captured::Fresh || !self.wal_has_content() {
            self.clear_missed();
            capture.gap("the database file changed while it was closed here");
            capture.to_read = true;
            *self.as_opened.lock() = None;
            drop(capture);
            // What was written meanwhile is news that no publication told.
            self.published.lock().sequence += 1;
            if matches!(self.phase(), Phase::Running | Phase::Scan) {
                self.set_phase(Phase::Heal);
            }
            self.schedule_ship(self.now());
        }
    }
}
