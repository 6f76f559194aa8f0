//! How far shipping is, and waiting for it.

use super::capture::Captured;
use super::primary::{Phase, Primary, Progress, State};
use crate::error::{Error, Kind, Result};
use crate::lock::MutexGuard;
use crate::ltx::Txid;
use crate::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long stopping waits for the step that ships.
const STEP_ENDS: Duration = Duration::from_secs(5);
/// A wait looks this often whether it was interrupted.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// Somebody waits until this is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Primary {
    /// Everything up to publication `sequence` is in the store.
    pub(super) fn durable(&self, txid: Txid, timestamp: Timestamp, sequence: u64) {
        let mut progress = self.progress.lock();
        progress.durable = Some((txid, timestamp));
        progress.txid = progress.txid.max(Some(txid));
        progress.durable_sequence = progress.durable_sequence.max(sequence);
        let failures = std::mem::take(&mut progress.failures);
        if !progress.state.is_final() && progress.phase == Phase::Running {
            progress.state = State::Running;
        }
        drop(progress);
        self.tell_recovery(failures);
        let next = self.capture.lock().batch.first;
        let mut published = self.published.lock();
        published.oldest = if published.sequence > sequence { next.or(published.oldest) } else { None };
        drop(published);
        self.progressed.notify_all();
    }

    pub(super) fn nothing_pending(&self, sequence: u64) {
        {
            let mut progress = self.progress.lock();
            progress.durable_sequence = progress.durable_sequence.max(sequence);
        }
        let mut published = self.published.lock();
        if published.sequence <= sequence {
            published.oldest = None;
        }
        drop(published);
        self.progressed.notify_all();
    }

    pub(super) fn recovered(&self) {
        let mut progress = self.progress.lock();
        let failures = std::mem::take(&mut progress.failures);
        if !progress.state.is_final() {
            progress.state = if progress.phase == Phase::Running { State::Running } else { State::Starting };
        }
        drop(progress);
        self.tell_recovery(failures);
        self.progressed.notify_all();
    }

    fn tell_recovery(&self, failures: u32) {
        if failures > 0 {
            log::info!("{}: shipping again, after {failures} failed attempts", self.path.display());
        }
    }

    pub(super) fn failed(&self, error: &Error) {
        let mut progress = self.progress.lock();
        progress.failures = progress.failures.saturating_add(1);
        progress.state = match error.kind() {
            _ if progress.state.is_final() => progress.state,
            Kind::Conflict => State::Fenced,
            Kind::Diverged | Kind::Bug | Kind::Invalid => State::Error,
            _ => State::Retrying,
        };
        let level = if progress.state.is_final() { log::Level::Error } else { log::Level::Warn };
        drop(progress);
        match error.kind() {
            Kind::Full => self.tell(&error.clone().advise("make room there"), level),
            _ => self.tell(error, level),
        }
    }

    /// Into the status, and into the host's log. What ended shipping stays in the status.
    pub(super) fn fail_visibly(&self, error: &Error) {
        if self.is_final() {
            return log::warn!("{}: {error}", self.path.display());
        }
        self.tell(error, log::Level::Warn);
    }

    fn tell(&self, error: &Error, level: log::Level) {
        log::log!(level, "{}: {error}", self.path.display());
        self.progress.lock().last_error = Some((error.clone(), self.pools.clock.now()));
        self.progressed.notify_all();
    }

    /// Why nothing is shipped any more, if that is so.
    pub fn failure(&self) -> Option<Error> {
        let progress = self.progress.lock();
        progress.last_error.as_ref().filter(|_| progress.state.is_final()).map(|(error, _)| error.clone())
    }

    /// Nothing is shipped any more.
    pub(super) fn is_final(&self) -> bool {
        self.progress.lock().state.is_final()
    }

    /// Waits until all that was committed before the call is in the store; the TXID that is durable then.
    ///
    /// # Errors
    /// [`Kind::Timeout`], naming what is missing; [`Kind::Interrupted`]; what ended shipping.
    pub fn sync(self: &Arc<Self>, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        self.wait_for_all(timeout, cancelled).map_err(|error| match error.kind() {
            Kind::Timeout => error.advise("the commits are safe here and go on being shipped"),
            _ => error,
        })
    }

    fn wait_for_all(self: &Arc<Self>, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        self.look_now();
        let wanted = self.published.lock().sequence;
        let deadline = self.now() + timeout;
        let _waits = Waits::begin(&self.waiting);
        self.schedule_ship(self.now());
        let mut progress = self.progress.lock();
        loop {
            if progress.durable_sequence >= wanted && progress.phase == Phase::Running {
                return Ok(progress.durable.map(|(txid, _)| txid));
            }
            self.still_ships(&progress)?;
            if self.now() >= deadline {
                return Err(self.sync_timeout(&progress, timeout));
            }
            if MutexGuard::unlocked(&mut progress, cancelled) {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            self.pools.wait(&self.progressed, &mut progress, INTERRUPT_INTERVAL);
            // A step that began before the call may have ended without seeing it.
            if progress.failures == 0 {
                MutexGuard::unlocked(&mut progress, || self.schedule_ship(self.now()));
            }
        }
    }

    /// Waits until a TXID is in the store, also one that is not made yet; the last one that is then.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn wait(self: &Arc<Self>, txid: Txid, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Txid> {
        self.look_now();
        let deadline = self.now() + timeout;
        let _waits = Waits::begin(&self.waiting);
        self.schedule_ship(self.now());
        let mut progress = self.progress.lock();
        loop {
            if let Some((durable, _)) = progress.durable.filter(|(durable, _)| *durable >= txid) {
                return Ok(durable);
            }
            self.still_ships(&progress)?;
            if self.now() >= deadline {
                let durable = progress.durable.map_or_else(|| "none".to_owned(), |(txid, _)| txid.to_string());
                let (url, state) = (self.url(), progress.state.name());
                let text = format!(
                    "TXID {txid} is not in {url} after {timeout:?}: the last one there is {durable} (state {state})"
                );
                return Err(Error::new(Kind::Timeout, text));
            }
            if MutexGuard::unlocked(&mut progress, cancelled) {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            self.pools.wait(&self.progressed, &mut progress, INTERRUPT_INTERVAL);
        }
    }

    /// Whether there is something to wait for.
    fn still_ships(&self, progress: &Progress) -> Result<()> {
        match (progress.state, &progress.last_error) {
            (State::Fenced | State::Error, Some((error, _))) => Err(error.clone()),
            (State::Stopped, _) => {
                Err(Error::new(Kind::NotFound, format!("replication of {} was stopped", self.path.display())))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sync_timeout(&self, progress: &Progress, timeout: Duration) -> Error {
        let missing = match progress.durable {
            Some((txid, _)) => format!("commits after TXID {txid}"),
            None => "what was committed".to_owned(),
        };
        let why = progress.last_error.as_ref().map_or_else(String::new, |(e, _)| format!("; last error: {e}"));
        let state = progress.state.name();
        Error::new(
            Kind::Timeout,
            format!(
                "not in {} after {:?}: {} of {} (state {state}){why}",
                self.url(),
                timeout,
                missing,
                self.path.display()
            ),
        )
    }

    /// Ships what there is, then leaves everything ready for the next start.
    pub(super) fn drain(self: &Arc<Self>, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        // What cannot come is not waited for: a step that began after this found that SQLite must publish first, as of a
        // database that is empty now, or whose WAL could not be recovered.
        let begun = self.steps.load(Ordering::Acquire);
        let stalled = || self.stalled_step.load(Ordering::Acquire) > begun;
        let deadline = self.now() + timeout;
        let outcome = self.wait_for_all(timeout, &|| cancelled() || stalled()).map_err(|error| match error.kind() {
            Kind::Interrupted if stalled() => {
                let text = format!("{}: nothing can be shipped before the next commit", self.path.display());
                Error::new(Kind::Unavailable, text)
            }
            _ => error,
        });
        // The step under way, whose news this may have been, ends first: then nothing holds the files.
        let _only_one = self.shipping.try_lock_for(deadline.saturating_duration_since(self.now()));
        let spooled = self.work.try_lock_for(timeout).map(|mut work| match work.as_mut() {
            // What the record of a former start says is not known to be wrong yet.
            Some(_) if self.phase() == Phase::Decide => Ok(()),
            Some(work) => {
                if self.phase() == Phase::Running {
                    self.encode_rest(work)?;
                    self.write_sums(work)?;
                }
                let all_staged = {
                    let capture = self.capture.lock();
                    capture.captured == Captured::Fresh
                        && capture.batch.is_empty()
                        && capture.frozen.is_none()
                        && self.phase() == Phase::Running
                        && !self.missed_barrier()
                };
                work.record.closed = self.closed.lock().clone().filter(|_| all_staged);
                self.spool.write_record(&work.record)
            }
            None => Ok(()),
        });
        self.release_files();
        self.await_companions(deadline, cancelled);
        match spooled.unwrap_or(Ok(())) {
            // What ended shipping tells more than what follows from it.
            Err(error) if outcome.is_ok() || !self.is_final() => Err(self.refuse_moved().err().unwrap_or(error)),
            _ => outcome,
        }
    }

    /// Closes the handles of the database's files, unless something still has to be read through them.
    pub(super) fn release_files(&self) {
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout)
            && capture.batch.is_empty()
            && capture.frozen.is_none()
            && capture.image.is_none()
            && !self.image_active.load(Ordering::Acquire)
        {
            capture.close_files();
        }
    }

    /// Drains, and stops shipping. What could not be shipped stays in the spool. What had ended shipping is no failure
    /// of this.
    ///
    /// # Errors
    /// [`Kind::Timeout`], naming what is missing; [`Kind::Interrupted`]. It is stopped all the same.
    pub fn stop(self: &Arc<Self>, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        let deadline = Instant::now() + self.options.close_timeout;
        let outcome = self.drain(self.options.close_timeout, cancelled);
        let had_ended = self.is_final();
        self.abandon();
        self.pools.sessions.leave(self, deadline, cancelled);
        match outcome {
            Err(_) if had_ended => Ok(self.durable_txid().map(|(txid, _)| txid)),
            Err(error) if error.kind() == Kind::Timeout => Err(error.advise(
                "replication is stopped; what is missing is kept beside the database and shipped after the next \
                 litestream_replicate",
            )),
            outcome => outcome,
        }
    }

    /// Stops shipping at once.
    pub fn abandon(&self) {
        self.stopped.store(true, Ordering::Release);
        self.end_following();
        let _ = self.state_file.tell(false, None);
        self.progress.lock().state = State::Stopped;
        self.progressed.notify_all();
        // The step that may still be running ends before the directory can be claimed anew.
        drop(self.shipping.try_lock_for(STEP_ENDS));
    }
}
