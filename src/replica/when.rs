//! What users may write for a moment of a database: `latest`, a TXID, or a time.
//!
//! Litestream's read VFS hands relative times to a date parser in which `yesterday` is this time of day one day ago
//! (its `vfs.go`, `litestream_set_time`); so it is here.

use crate::error::{Error, Result};
use crate::ltx::Txid;
use crate::time::{Clock, Timestamp};
use jiff::civil;
use jiff::tz::TimeZone;

/// Which state of a replica is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest there is.
    Latest,
    /// Exactly this TXID.
    Txid(Txid),
    /// The newest with a timestamp before this one.
    Before(Timestamp),
}

/// The accepted forms, for the error and for the documentation.
const FORMS: &str = "write 'latest', a TXID of 16 hex digits, a time such as '2026-11-22T17:58:23Z', \
     '2026-11-22 17:58:23.5+01:00' or '2026-11-22' (UTC where no offset is given), or a relative time such as \
     '5 minutes ago', '30s ago', '2 days ago', 'yesterday' (24 hours ago) or 'now'";

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Understands a moment as users write it; upper and lower case and surrounding blanks do not matter.
/// Relative times count back from the clock's now. Digits beyond milliseconds are dropped.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), with the accepted forms in its message.
pub fn parse_when(text: &str, clock: &dyn Clock) -> Result<Target> {
    let wanted = text.trim().to_ascii_lowercase();
    if wanted == "latest" {
        return Ok(Target::Latest);
    }
    if let Some(txid) = Txid::parse(&wanted) {
        return Ok(Target::Txid(txid));
    }
    absolute(&wanted)
        .or_else(|| Some(Timestamp(clock.now().0.checked_sub(age_ms(&wanted)?)?)))
        .map(Target::Before)
        .ok_or_else(|| Error::invalid(format!("'{}' is not a moment: {FORMS}", text.trim())))
}

/// RFC 3339, with a blank for the T, without an offset (UTC), or the date alone (its first moment, UTC).
fn absolute(text: &str) -> Option<Timestamp> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.contains('-') {
        return None;
    }
    let text = text.to_ascii_uppercase();
    // jiff also takes the annotations of RFC 9557 ("[Europe/Berlin]"), which would need a time zone database.
    if text.contains('[') {
        return None;
    }
    if let Some(time) = Timestamp::parse_rfc3339(&text) {
        return Some(time);
    }
    let civil = match text.parse::<civil::DateTime>() {
        Ok(time) => time,
        Err(_) => text.parse::<civil::Date>().ok()?.to_datetime(civil::Time::midnight()),
    };
    Some(Timestamp(TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond()))
}

/// How long ago a relative time is, in milliseconds.
fn age_ms(text: &str) -> Option<i64> {
    match text {
        "now" | "today" => return Some(0),
        "yesterday" => return Some(DAY_MS),
        _ => {}
    }
    let span = text.strip_suffix("ago")?;
    let digits = span.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = span.split_at_checked(digits)?;
    let (count, unit) = match (number, unit.trim()) {
        ("", unit) => {
            let unit = unit.strip_prefix("an ").or_else(|| unit.strip_prefix("a "))?;
            (1, unit.trim())
        }
        (number, unit) => (number.parse::<i64>().ok()?, unit),
    };
    count.checked_mul(unit_ms(unit)?)
}

fn unit_ms(unit: &str) -> Option<i64> {
    Some(match unit {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND_MS,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE_MS,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR_MS,
        "d" | "day" | "days" => DAY_MS,
        "w" | "week" | "weeks" => 7 * DAY_MS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Stands at 2026-11-22T12:00:00Z.
    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::parse_rfc3339("2026-11-22T12:00:00Z").unwrap()
        }
        fn monotonic(&self) -> Instant {
            Instant::now()
        }
    }

    #[track_caller]
    fn is_before(text: &str, rfc3339: &str) {
        let expected = Target::Before(Timestamp::parse_rfc3339(rfc3339).unwrap());
        assert_eq!(parse_when(text, &Noon).unwrap(), expected, "{text}");
    }

    #[test]
    fn latest_and_txids() {
        assert_eq!(parse_when(" Latest ", &Noon).unwrap(), Target::Latest);
        let txid = Txid::new(0xab).unwrap();
        assert_eq!(parse_when("00000000000000ab", &Noon).unwrap(), Target::Txid(txid));
        assert_eq!(parse_when("00000000000000AB", &Noon).unwrap(), Target::Txid(txid));
    }

    #[test]
    fn absolute_times_in_all_their_forms() {
        is_before("2026-11-22T17:58:23.145Z", "2026-11-22T17:58:23.145Z");
        is_before("2026-11-22 17:58:23Z", "2026-11-22T17:58:23Z");
        is_before("2026-11-22T17:58:23.5+01:00", "2026-11-22T16:58:23.5Z");
        is_before("2026-11-22 17:58:23 ", "2026-11-22T17:58:23Z");
        is_before("2026-11-22 17:58", "2026-11-22T17:58:00Z");
        is_before("2026-11-22", "2026-11-22T00:00:00Z");
        is_before("2026-11-22t17:58:23.1456z", "2026-11-22T17:58:23.145Z");
    }

    #[test]
    fn relative_times_count_back_from_now() {
        is_before("5 minutes ago", "2026-11-22T11:55:00Z");
        is_before("1 hour ago", "2026-11-22T11:00:00Z");
        is_before("an hour ago", "2026-11-22T11:00:00Z");
        is_before("30s ago", "2026-11-22T11:59:30Z");
        is_before("90 m ago", "2026-11-22T10:30:00Z");
        is_before("2 Days Ago", "2026-11-20T12:00:00Z");
        is_before("500ms ago", "2026-11-22T11:59:59.5Z");
        is_before("a week ago", "2026-11-15T12:00:00Z");
        is_before("yesterday", "2026-11-21T12:00:00Z");
        is_before("today", "2026-11-22T12:00:00Z");
        is_before("now", "2026-11-22T12:00:00Z");
    }

    #[test]
    fn anything_else_is_refused_with_the_accepted_forms() {
        for text in [
            "",
            "later",
            "ago",
            "a ago",
            "5 ago",
            "minutes ago",
            "five minutes ago",
            "5 minutes",
            "-5 minutes ago",
            "in 5 minutes",
            "5 fortnights ago",
            "99999999999999999999 days ago",
            "9999999999999999 days ago",
            "0000000000000000",
            "123",
            "2026-13-01",
            "2026-11-22T25:00:00Z",
            "20261122",
            "22/11/2026",
            "2026-11-22T",
            "2026-11-22T12:00:00+00:00[UTC]",
            "00000000000000xy",
        ] {
            let error = parse_when(text, &Noon).expect_err(text);
            assert_eq!(error.kind(), crate::error::Kind::Invalid);
            assert!(error.to_string().contains("5 minutes ago"), "{error}");
        }
    }
}
