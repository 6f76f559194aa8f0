//! The fixed number of threads that run the tasks of all primaries, and their clock.

use super::notify::Notifier;
use super::session::Sessions;
use crate::lock::{Condvar, MutexGuard};
use crate::pool::Pool;
use crate::time::{Clock, SystemClock};
use std::sync::Arc;
use std::time::Duration;

/// Threads that capture, and threads that ship. One follows all writers: what it does is bounded and local.
const CAPTURE_THREADS: usize = 1;
const SHIP_THREADS: usize = 4;
/// One thread suffices for the signs of life of all places that answer.
const SESSION_THREADS: usize = 4;

/// The threads of the process, and the clock by which they work.
#[derive(Clone)]
pub struct Pools {
    pub(super) capture: Arc<Pool>,
    pub(super) ship: Arc<Pool>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) clock: Arc<dyn Clock>,
    /// In a simulation there are no threads: who waits does what is due, or moves the clock.
    #[cfg(test)]
    pub(super) instead_of_waiting: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Pools {
    /// No thread is started before the first task.
    pub fn new() -> Self {
        Self {
            capture: Pool::new("capture", CAPTURE_THREADS),
            ship: Pool::new("ship", SHIP_THREADS),
            notifier: Arc::default(),
            sessions: Sessions::new(SESSION_THREADS),
            clock: Arc::new(SystemClock),
            #[cfg(test)]
            instead_of_waiting: None,
        }
    }

    /// Waits for `condition`, for at most `span`.
    pub(super) fn wait<T>(&self, condition: &Condvar, guard: &mut MutexGuard<'_, T>, span: Duration) {
        #[cfg(test)]
        if let Some(step) = &self.instead_of_waiting {
            return MutexGuard::unlocked(guard, || step());
        }
        condition.wait_for(guard, span);
    }
}
