//! What the layers say by the `log` facade goes to the host's `sqlite3_log`, and to a file if the user names one.
//!
//! `sqlite3_log` may be called by any thread, with no database open and after `sqlite3_shutdown`: it does nothing where
//! the host has set no SQLITE_CONFIG_LOG. A cdylib has its own copy of the facade, so a host in Rust keeps its logger.
//! Architecture invariant: nobody logs under the capture lock, for a host's logger may be slow.

use super::api;
use crate::error::{Context, Result};
use crate::lock::{Mutex, PerProcess};
use crate::time::Timestamp;
use ::log::{Level, LevelFilter, Log, Metadata, Record};
use sqlite3ext_sys as ffi;
use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The same message goes to the host at most once per this span.
const INTERVAL: Duration = Duration::from_secs(60);
/// Messages that are remembered for that.
const REMEMBERED: usize = 64;

/// A message that was passed on.
struct Said {
    text: String,
    at: Instant,
    kept_back: u32,
}

/// The messages of the last minute.
#[derive(Default)]
struct Pace(Vec<Said>);

impl Pace {
    /// How often the message was kept back since it was last said; `None`: it is kept back now.
    fn take(&mut self, text: &str, now: Instant) -> Option<u32> {
        // Counts and times differ from one attempt to the next.
        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if let Some(said) = self.0.iter_mut().find(|said| said.text == text) {
            if now.saturating_duration_since(said.at) < INTERVAL {
                said.kept_back += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.kept_back));
        }
        if self.0.len() == REMEMBERED {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, said)| said.at).map(|(at, _)| at);
            self.0.swap_remove(oldest.unwrap_or_default());
        }
        self.0.push(Said { text, at: now, kept_back: 0 });
        Some(0)
    }
}

struct HostLog(PerProcess<Mutex<Pace>>);

static HOST_LOG: HostLog = HostLog(PerProcess::new());

/// Each line is one write, which appends.
static FILE: OnceLock<File> = OnceLock::new();

/// Sends the facade's messages to the host. Later calls change nothing.
pub fn log_to_host() {
    if ::log::set_logger(&HOST_LOG).is_ok() {
        ::log::set_max_level(LevelFilter::Info);
    }
}

/// Sends them to the end of this file too. Later calls change nothing.
///
/// # Errors
/// It cannot be opened or made.
pub fn log_to_file(path: &Path) -> Result<()> {
    if FILE.get().is_none() {
        let file = File::options().append(true).create(true).open(path);
        let _ = FILE.set(file.with_context(|| format!("the log file {}", path.display()))?);
    }
    Ok(())
}

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries that we use have much to say.
        metadata.level() <= ::log::max_level() && metadata.target().split("::").next() == Some("litestream")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let code = match record.level() {
            Level::Error => ffi::SQLITE_ERROR,
            Level::Warn => ffi::SQLITE_WARNING,
            _ => ffi::SQLITE_NOTICE,
        };
        let mut text = format!("litestream: {}", record.args());
        match self.0.get().lock().take(&text, Instant::now()) {
            None => return,
            Some(0) => {}
            Some(times) => text = format!("{text} ({times} more since this was last said)"),
        }
        if let Some(mut file) = FILE.get() {
            let line = format!("time={} level={} msg={:?}\n", Timestamp::now(), record.level(), text);
            // There is nobody to tell.
            let _ = file.write_all(line.as_bytes());
        }
        // A panic must not leave a logger.
        let _ = crate::panic::guard(|| api::log(code as c_int, &text));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_message_is_said_once_a_minute_with_how_often_it_was_kept_back() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.take("away (attempts: 3)", start), Some(0));
        for n in 1..10 {
            assert_eq!(pace.take(&format!("away (attempts: {n})"), start + Duration::from_secs(n)), None);
        }
        assert_eq!(pace.take("another", start), Some(0));
        assert_eq!(pace.take("away (attempts: 3)", start + INTERVAL), Some(9));
        for n in 0..10_000 {
            pace.take(&"x".repeat(n), start);
        }
        assert_eq!(pace.0.len(), REMEMBERED);
    }
}
