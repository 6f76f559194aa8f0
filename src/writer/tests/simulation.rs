//! The primary without threads, in a time of its own: what is due runs on the test's thread, and an hour passes at once.

use crate::pool::Pool;
use crate::time::{Clock, Timestamp};
use crate::writer::Pools;
use crate::writer::session::Sessions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A numbers' source that a seed determines (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Time that passes when it is told to.
pub(super) struct SimulatedClock {
    start: Instant,
    wall: Timestamp,
    passed_ms: AtomicU64,
}

impl SimulatedClock {
    pub(super) fn pass(&self, span: Duration) {
        self.passed_ms.fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.0 + self.passed_ms.load(Ordering::SeqCst) as i64)
    }
    fn monotonic(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }
}

/// Pools without threads, and their clock.
#[derive(Clone)]
pub(super) struct Simulation {
    pub(super) clock: Arc<SimulatedClock>,
    capture: Arc<Pool>,
    ship: Arc<Pool>,
    sessions: Arc<Sessions>,
}

impl Simulation {
    pub(super) fn new() -> Self {
        let clock = SimulatedClock { start: Instant::now(), wall: Timestamp::now(), passed_ms: AtomicU64::new(0) };
        Self {
            clock: Arc::new(clock),
            capture: Pool::new("capture", 0),
            ship: Pool::new("ship", 0),
            sessions: Sessions::new(0),
        }
    }

    pub(super) fn pools(&self) -> Pools {
        let simulation = self.clone();
        Pools {
            notifier: Arc::default(),
            sessions: Arc::clone(&self.sessions),
            capture: Arc::clone(&self.capture),
            ship: Arc::clone(&self.ship),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            instead_of_waiting: Some(Arc::new(move || simulation.step())),
        }
    }

    /// The next sign of life, which no other step gives; when it is due.
    pub(super) fn beat(&self) -> Option<Duration> {
        let due = self.sessions.pool.next_due()?.saturating_duration_since(self.clock.monotonic());
        self.clock.pass(due + Duration::from_millis(1));
        self.sessions.pool.run_next();
        Some(due)
    }

    /// Runs the next task, after the time until it is due; without a task, only time passes.
    pub(super) fn step(&self) {
        let next = [&self.capture, &self.ship].into_iter().filter_map(|pool| Some((pool.next_due()?, pool)));
        let Some((due, pool)) = next.min_by_key(|(due, _)| *due) else {
            return self.clock.pass(Duration::from_millis(50));
        };
        self.clock.pass(due.saturating_duration_since(self.clock.monotonic()) + Duration::from_millis(1));
        pool.run_next();
    }

    /// Runs what is due until the span is over.
    pub(super) fn run_for(&self, span: Duration) {
        let end = self.clock.monotonic() + span;
        while self.clock.monotonic() < end {
            let due = [&self.capture, &self.ship].into_iter().filter_map(|pool| pool.next_due()).min();
            match due {
                Some(due) if due < end => self.step(),
                _ => self.clock.pass(end.saturating_duration_since(self.clock.monotonic())),
            }
        }
    }
}
