//! One token bucket per endpoint (P23): so that many databases together stay a polite client.

use crate::lock::{Mutex, PerProcess};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const REQUESTS_PER_SECOND: f64 = 500.0;
/// What may go at once after quiet.
const BURST: f64 = 500.0;

static BUCKETS: PerProcess<Mutex<HashMap<String, Arc<Pace>>>> = PerProcess::new();

/// The bucket of an endpoint.
#[derive(Debug)]
pub(super) struct Pace(Mutex<(f64, Instant)>);

impl Pace {
    /// The process's bucket of that endpoint.
    pub(super) fn of(endpoint: &str) -> Arc<Self> {
        Arc::clone(
            BUCKETS.get().lock().entry(endpoint.to_owned()).or_insert_with(|| Arc::new(Self::new(Instant::now()))),
        )
    }

    fn new(now: Instant) -> Self {
        Self(Mutex::new((BURST, now)))
    }

    /// Waits until the next request may go.
    pub(super) fn wait(&self) {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// Takes a token, in advance if there is none, and says how long to wait for it: in the order of arrival.
    fn take(&self, now: Instant) -> Duration {
        let mut bucket = self.0.lock();
        let (tokens, last) = *bucket;
        let refilled = now.saturating_duration_since(last).as_secs_f64().mul_add(REQUESTS_PER_SECOND, tokens);
        let left = refilled.min(BURST) - 1.0;
        *bucket = (left, now.max(last));
        Duration::from_secs_f64((-left).max(0.0) / REQUESTS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_the_burst_are_spread_over_time() {
        let start = Instant::now();
        let pace = Pace::new(start);
        for _ in 0..500 {
            assert_eq!(pace.take(start), Duration::ZERO);
        }
        assert_eq!(pace.take(start), Duration::from_millis(2));
        assert_eq!(pace.take(start), Duration::from_millis(4));
        assert_eq!(pace.take(start + Duration::from_secs(1)), Duration::ZERO);
    }
}
