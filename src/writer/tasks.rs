//! What the threads of the pools do for a primary: follow the writer, and ship.

use super::capture::{Capture, Captured};
use super::encode::{Into, Work};
use super::primary::{Phase, Primary};
use crate::error::{Error, Kind, Result};
use crate::pool::Pool;
use crate::wal::IndexHeader;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Capture follows a busy writer at this distance, so that it finds little at a barrier (P12a).
const FOLLOW_INTERVAL: Duration = Duration::from_millis(2);
/// How long the step under way is given before another one looks.
const STEP_UNDER_WAY: Duration = Duration::from_millis(20);
/// After a failure the next attempt waits this long at first, and at most.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

impl Primary {
    pub(super) fn schedule_capture(self: &Arc<Self>, due: Instant) {
        if !self.capture_scheduled.swap(true, Ordering::AcqRel)
            && !self.run_at(&self.pools.capture, due, Self::capture_task)
        {
            self.capture_scheduled.store(false, Ordering::Release);
        }
    }

    /// An earlier moment than the one that is scheduled counts: the later step then finds nothing to do.
    pub(super) fn schedule_ship(self: &Arc<Self>, due: Instant) {
        let mut scheduled = self.ship_due.lock();
        if scheduled.is_none_or(|before| due < before) {
            *scheduled = self.run_at(&self.pools.ship, due, Self::ship_task).then_some(due);
        }
    }

    /// A task does not keep a primary that was stopped, and with it the claim of its directory. `false`: there is no
    /// thread to run it, which the status shows; the next commit asks again.
    pub(super) fn run_at(self: &Arc<Self>, pool: &Arc<Pool>, due: Instant, body: fn(&Arc<Self>)) -> bool {
        let primary = Arc::downgrade(self);
        let scheduled = pool.run_at(due, move || {
            if let Some(primary) = primary.upgrade() {
                primary.guarded(body);
            }
        });
        if let Err(error) = &scheduled {
            self.failed(error);
        }
        scheduled.is_ok()
    }

    /// No panic ends a thread of the pool: it becomes the primary's error.
    pub(super) fn guarded(self: &Arc<Self>, body: fn(&Arc<Self>)) {
        if let Err(error) = crate::panic::guard(|| body(self)) {
            self.missed.store(true, Ordering::Release);
            self.capture_scheduled.store(false, Ordering::Release);
            self.failed(&error);
        }
    }

    /// Follows the writer: captures, and comes back soon as long as there is something new.
    pub(super) fn capture_task(self: &Arc<Self>) {
        if !self.files.may_be_opened() {
            return self.capture_scheduled.store(false, Ordering::Release);
        }
        let before = self.published.lock().sequence;
        let outcome = {
            let mut capture = self.capture.lock();
            self.capture_now(&mut capture)
        };
        if let Err(error) = &outcome {
            self.fail_visibly(error);
        }
        self.schedule_ship_after_capture();
        let news = self.followed.swap(before, Ordering::AcqRel) != before;
        self.capture_scheduled.store(false, Ordering::Release);
        // Who has just committed may commit again: looked at after a while, he need not wake this thread each time.
        if news || self.published.lock().sequence != before {
            self.schedule_capture(self.now() + FOLLOW_INTERVAL);
        }
    }

    /// At the pace of P23, unless a retry is under way.
    pub(super) fn schedule_ship_after_capture(self: &Arc<Self>) {
        let due = if self.progress.lock().failures > 0 { None } else { Some(*self.next_object_at.lock()) };
        if let Some(due) = due {
            self.schedule_ship(if self.is_hurried() { self.now() } else { due });
        }
    }

    /// Captures up to the last publication.
    pub(super) fn capture_now(&self, capture: &mut Capture) -> Result<()> {
        capture.held = self.holding.load(Ordering::Acquire);
        if self.clear_missed() && capture.captured != Captured::Gap {
            capture.gap("the WAL was restarted without our barrier: past barrier_timeout, or by a connection without the extension");
        }
        let (header, sequence, noticed) = {
            let published = self.published.lock();
            (published.header, published.sequence, published.oldest.unwrap_or_else(|| self.now()))
        };
        match header {
            Some(header) if capture.captured != Captured::Gap => {
                let before = capture.captured;
                let outcome = capture.run(&header, sequence, noticed);
                // While a gap is healed it says nothing of what was before.
                let is_healing = matches!(self.phase(), Phase::Decide | Phase::Heal);
                if !is_healing && capture.captured.goes_on_in_the_wal_of(before) {
                    self.unproven.store(false, Ordering::Release);
                }
                outcome
            }
            // Nothing was published since the last close, so nothing is missing.
            None if capture.captured != Captured::Gap => {
                capture.batch.sequence = capture.batch.sequence.max(sequence);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn ship_task(self: &Arc<Self>) {
        *self.ship_due.lock() = None;
        let Some(_only_one) = self.shipping.try_lock() else {
            // The step under way may have looked already.
            return self.schedule_ship(self.now() + STEP_UNDER_WAY);
        };
        if self.is_stopped() || self.is_final() {
            return;
        }
        let outcome = self.ship_all();
        if self.is_unused() {
            self.release_files();
        }
        match outcome {
            Ok(None) => {
                let failed_before = self.progress.lock().failures > 0;
                self.recovered();
                if failed_before {
                    // What was committed before this moment waited for the retry, which was this.
                    self.schedule_ship(self.now());
                }
            }
            Ok(Some(due)) => {
                self.recovered();
                self.schedule_ship(due);
            }
            Err(error) => {
                self.failed(&error);
                if !self.is_final() {
                    let failures = self.progress.lock().failures.min(10);
                    self.schedule_ship(self.now() + (RETRY_FIRST * 2_u32.pow(failures - 1)).min(RETRY_MOST));
                }
            }
        }
    }

    /// Ships until nothing is left (`None`) or the pace asks to wait until a moment (P23).
    pub(super) fn ship_all(self: &Arc<Self>) -> Result<Option<Instant>> {
        let step = self.steps.fetch_add(1, Ordering::AcqRel) + 1;
        let mut overtaken = false;
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            self.refuse_moved()?;
            if self.with_work(|work| Ok(!work.staged.is_empty()))? {
                self.look_behind()?;
            }
            self.prove_later()?;
            if let Some(staged) = self.with_work(|work| self.next_to_ship(work))? {
                *self.next_object_at.lock() = self.now() + self.options.sync_interval;
                let shipped = self.ship(&staged)?;
                self.with_work(|work| {
                    work.staged.pop_front();
                    self.durable(staged.txid, staged.timestamp, staged.sequence);
                    self.prune(work)
                })?;
                self.leave_companion(staged.txid, shipped);
                continue;
            }
            if !self.files.may_be_opened() {
                return Ok(None);
            }
            if self.capture.lock().captured == Captured::Gap && self.phase() == Phase::Running {
                self.set_phase(Phase::Heal);
            }
            if self.phase() != Phase::Running {
                self.look_now();
                match self.run_phase() {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.stalled_step.store(step, Ordering::Release);
                        return Ok(None);
                    }
                    // The state was overtaken by a gap, or by more than an image can save: begun anew at once, but not
                    // forever without a pause.
                    Err(error) if matches!(error.kind(), Kind::Busy | Kind::Overtaken) && !overtaken => {
                        log::info!("{}: {error}", self.path.display());
                        overtaken = true;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let (empty, sequence) = {
                let mut capture = self.capture.lock();
                self.capture_now(&mut capture)?;
                (capture.batch.is_empty(), capture.batch.sequence)
            };
            if self.capture.lock().captured == Captured::Gap {
                continue;
            }
            if empty {
                self.nothing_pending(sequence);
                return Ok(None);
            }
            let due = *self.next_object_at.lock();
            if due > self.now() && !self.is_hurried() {
                return Ok(Some(due));
            }
            self.with_work(|work| {
                self.encode_batch(work, Into::Next)?;
                self.progress.lock().txid = work.head;
                Ok(())
            })?;
        }
    }

    pub(super) fn with_work<T>(&self, body: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        body(self.work.lock().as_mut().ok_or_else(|| Error::bug("a primary that has not started"))?)
    }

    fn is_hurried(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub(super) fn phase(&self) -> Phase {
        self.progress.lock().phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.progress.lock().phase = phase;
        if phase == Phase::Running {
            // It has been judged, or there was nothing to judge it by.
            *self.as_opened.lock() = None;
        }
    }

    /// The published header, and the publication that it is.
    pub(super) fn last_published(&self) -> (Option<IndexHeader>, u64) {
        let published = self.published.lock();
        (published.header, published.sequence)
    }
}
