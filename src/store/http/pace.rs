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

    /// P23, on a simulated clock: a thousand databases that always want to send get 500 requests a second together, in
    /// the order in which they asked, and none of them starves.
    #[test]
    fn p23_a_thousand_databases_share_the_pace_of_their_endpoint() {
        const DATABASES: usize = 1000;
        let start = Instant::now();
        let (endpoint, other) = (Pace::of("https://p23.example"), Pace::of("https://p23-other.example"));
        endpoint.0.lock().1 = start;
        let mut next_at = [start; DATABASES];
        let mut sent_at = Vec::new();
        let mut counts = [0u32; DATABASES];
        for round in 0..60 {
            for (database, at) in next_at.iter_mut().enumerate() {
                // Each asks as soon as its last request has gone, through its own handle of the shared bucket.
                let now = (*at).max(start + Duration::from_secs(round));
                *at = now + Pace::of("https://p23.example").take(now);
                if *at < start + Duration::from_secs(60) {
                    sent_at.push(*at);
                    counts[database] += 1;
                }
            }
        }
        sent_at.sort_unstable();
        let in_second = |second: u64| {
            let from = start + Duration::from_secs(second);
            sent_at.iter().filter(|at| (from..from + Duration::from_secs(1)).contains(at)).count()
        };
        assert!(in_second(0) <= 1000, "the burst and a second's share: {}", in_second(0));
        for second in 1..59 {
            assert!((490..=510).contains(&in_second(second)), "second {second}: {}", in_second(second));
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least >= 28 && most - least <= 2, "{least} to {most}");
        assert_eq!(other.take(start), Duration::ZERO, "another endpoint has its own");
    }
}
