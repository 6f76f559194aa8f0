//! The store's clock minus ours, from the Date headers of its answers (P22).
//!
//! A Date is truncated to a second, and the answer was on its way for some time: one answer only bounds the difference,
//! `[date - received, date + 999 ms - sent]`. Answers are combined by intersection, so the bounds tighten to the true
//! value; when they contradict each other, a clock was set, and the last answer stands. If zero is possible, the
//! difference is zero: clocks that agree are not corrected by noise.

use crate::lock::Mutex;
use crate::time::Timestamp;

/// The bounds, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct StoreClock(Mutex<Option<(i64, i64)>>);

impl StoreClock {
    /// Takes a Date header into account.
    pub(super) fn observe(&self, date: &str, sent: Timestamp, received: Timestamp) {
        let Some(date) = parse_http_date(date) else { return };
        let (low, high) = (date.0.saturating_sub(received.0), date.0.saturating_add(999).saturating_sub(sent.0));
        let mut bounds = self.0.lock();
        let (former_low, former_high) = bounds.unwrap_or((low, high));
        let both = (low.max(former_low), high.min(former_high));
        *bounds = Some(if both.0 <= both.1 { both } else { (low, high) });
    }

    /// The smallest difference that the answers allow; 0 before the first.
    pub(super) fn offset_ms(&self) -> i64 {
        match *self.0.lock() {
            Some((low, _)) if low > 0 => low,
            Some((_, high)) if high < 0 => high,
            _ => 0,
        }
    }
}

/// A date as HTTP has it (RFC 9110 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. The zone's name counts as an offset of 0.
pub(in crate::store) fn parse_http_date(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.trim().split_once(", ")?;
    let mut parts = rest.split([' ', ':']);
    let number = |parts: &mut dyn Iterator<Item = &str>| parts.next()?.parse::<i64>().ok();
    let day = number(&mut parts)?;
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = parts.next()?;
    let month = names.iter().position(|known| *known == name)? + 1;
    let (year, hour, minute, second) =
        (number(&mut parts)?, number(&mut parts)?, number(&mut parts)?, number(&mut parts)?);
    Timestamp::parse_rfc3339(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const DATE_MS: i64 = 784_111_777_000;

    fn offset(answers: &[(i64, i64)]) -> i64 {
        let clock = StoreClock::default();
        for (sent, received) in answers {
            clock.observe(DATE, Timestamp(DATE_MS + sent), Timestamp(DATE_MS + received));
        }
        clock.offset_ms()
    }

    #[test]
    fn clocks_that_agree_are_not_corrected() {
        assert_eq!(offset(&[]), 0);
        assert_eq!(offset(&[(990, 1020)]), 0);
        assert_eq!(offset(&[(-20, 5), (500, 510), (999, 1001)]), 0);
    }

    #[test]
    fn a_difference_is_found_and_tightened() {
        assert_eq!(offset(&[(-10_000, -9_990)]), 9_990);
        assert_eq!(offset(&[(10_000, 10_010)]), -9_001);
        assert_eq!(offset(&[(10_000, 10_010), (10_900, 10_910)]), -9_901);
        // The second answer contradicts the first: the clock was set.
        assert_eq!(offset(&[(10_000, 10_010), (-10_000, -9_990)]), 9_990);
    }

    #[test]
    fn only_dates_of_http_are_taken() {
        assert_eq!(parse_http_date(DATE), Some(Timestamp(DATE_MS)));
        for bad in ["", "Sun", "Sun, 06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }
}
