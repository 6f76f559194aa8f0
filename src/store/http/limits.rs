//! How long, how often and how fast requests are made.

use std::time::Duration;

/// Time to connect, TLS included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An error's text longer than that is cut.
pub(super) const ERROR_BODY_BYTES_MAX: u64 = 64 * 1024;

/// The bounds of a request; the defaults are for production, tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the start of an attempt to its answer's head, for a request without a body; also the longest silence within
    /// an answer's body. P24 counts on it.
    pub request_timeout: Duration,
    /// The slowest transfer that is waited for: a body of n bytes adds n / this to the timeouts.
    pub bytes_per_second_min: u64,
    /// From the start to the end of the last attempt, waits included.
    pub overall_timeout: Duration,
    /// The same, while no connection was ever made: a wrong name shows soon to who waits.
    pub unreachable_timeout: Duration,
    /// The wait after the first failure; it doubles each time, and a random half of it is left out.
    pub backoff_first: Duration,
    /// The longest such wait. A store's Retry-After may be longer.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            bytes_per_second_min: 256 * 1024,
            overall_timeout: Duration::from_secs(60),
            unreachable_timeout: Duration::from_secs(3),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// For who begins again by itself, and has other work meanwhile: only a hiccup is bridged inside a call. A part of
    /// an upload has more patience, by its size: an upload that fails begins anew.
    pub fn of_background() -> Self {
        Self { overall_timeout: Duration::from_secs(5), ..Self::default() }
    }

    /// What a body of that many bytes adds.
    pub(super) fn transfer_time(&self, bytes: u64) -> Duration {
        Duration::from_secs(bytes / self.bytes_per_second_min.max(1))
    }

    /// The wait after the `attempt`th failure, counted from 0; `random` is any number.
    pub(super) fn backoff(&self, attempt: u32, random: u64) -> Duration {
        let whole = self.backoff_first.saturating_mul(1 << attempt.min(16)).min(self.backoff_max);
        let half = whole / 2;
        half + half.mul_f64((random % 1024) as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_is_spread() {
        let limits = Limits::default();
        for attempt in 0..40 {
            let (low, high) = (limits.backoff(attempt, 0), limits.backoff(attempt, 1023));
            assert!(low < high && high <= limits.backoff_max, "{attempt}: {low:?} {high:?}");
            assert!(low >= limits.backoff_first / 2);
        }
        assert!(limits.backoff(39, 0) == limits.backoff_max / 2);
    }
}
