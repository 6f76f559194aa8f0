//! What users can set, as validated values. Options are JSON; an unknown key is an error that lists the known ones.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// How long `litestream_sync()` waits without an argument.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// The smallest default of `spool_max`, in bytes.
pub const SPOOL_MIN: u64 = 64 << 20;

/// An LTX file of so many pages, or more, gets a companion index (R6). The index of a smaller one comes with its end.
pub const COMPANION_PAGES_MIN: usize = 4096;

/// The same for a first image, which is made once: most pages of a database come from it, and with a companion each of
/// them is verified alone (R7).
pub const IMAGE_COMPANION_PAGES_MIN: usize = 64;

/// Each sign of life is a request, and the next one must come before somebody asks.
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// The options of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// At most one object per this span (P23). Default 1 s.
    pub sync_interval: Duration,
    /// How long closing the last connection waits for what is not shipped. Default 10 s.
    pub close_timeout: Duration,
    /// How long SQLite's restart of the WAL may wait for capture (P5). Default 500 ms.
    pub barrier_timeout: Duration,
    /// Bytes of files that wait for the store, beyond which closes merge into the newest of them (P18). Default: the
    /// database's size, at least [`SPOOL_MIN`].
    pub spool_max: Option<u64>,
    /// How often the process gives a sign of life (P28); zero: never. Default 10 s.
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(1),
            close_timeout: Duration::from_secs(10),
            barrier_timeout: Duration::from_millis(500),
            spool_max: None,
            heartbeat: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// The longest span that is taken; more is a mistyped unit.
    const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// From JSON text such as `{"sync_interval":"500ms"}`; empty text is no options.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid): no JSON object, an unknown key, or a value out of bounds.
    pub fn parse(text: &str) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in object(text)? {
            if key == "spool_max" {
                let text = value.as_str().ok_or_else(|| not_a(&key, "a size such as '64MiB'", &value))?;
                options.spool_max = Some(size(text).map_err(|e| e.context("option spool_max"))?);
                continue;
            }
            let Some(place) = options.place(&key) else {
                return Err(unknown(&key, "sync_interval, close_timeout, barrier_timeout, spool_max, heartbeat"));
            };
            let text = value.as_str().ok_or_else(|| not_a(&key, "a duration such as '500ms'", &value))?;
            *place = duration(text).map_err(|e| e.context(format!("option {key}")))?;
        }
        options.checked()
    }

    /// From the parameters of a URI. Others are SQLite's, or another VFS's.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid): a value out of bounds.
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<Self> {
        let mut options = Self::default();
        for (key, text) in parameters {
            if let Some(place) = options.place(key) {
                *place = duration(text).map_err(|e| e.context(format!("option {key}")))?;
            }
        }
        options.checked()
    }

    fn checked(self) -> Result<Self> {
        if self.heartbeat.is_zero() || HEARTBEAT.contains(&self.heartbeat) {
            return Ok(self);
        }
        Err(Error::invalid("option heartbeat is from '1s' to '1h', or '0s' for none"))
    }

    fn place(&mut self, key: &str) -> Option<&mut Duration> {
        match key {
            "sync_interval" => Some(&mut self.sync_interval),
            "close_timeout" => Some(&mut self.close_timeout),
            "barrier_timeout" => Some(&mut self.barrier_timeout),
            "heartbeat" => Some(&mut self.heartbeat),
            _ => None,
        }
    }
}

/// The options of a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Replaces an existing database.
    pub force: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// Runs PRAGMA integrity_check before the file takes its name.
    pub integrity_check: bool,
}

impl RestoreOptions {
    /// From JSON text such as `{"force":true}`.
    ///
    /// # Errors
    /// As [`Options::parse`].
    pub fn parse(text: &str) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in object(text)? {
            let place = match key.as_str() {
                "force" => &mut options.force,
                "dry_run" => &mut options.dry_run,
                "integrity_check" => &mut options.integrity_check,
                _ => return Err(unknown(&key, "force, dry_run, integrity_check")),
            };
            *place = value.as_bool().ok_or_else(|| not_a(&key, "true or false", &value))?;
        }
        Ok(options)
    }
}

/// The options of a replica that is opened through the VFS `litestream`: parameters of a URI, and Litestream's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// `replica`, LITESTREAM_REPLICA_URL.
    pub url: String,
    /// `at`: which state, as users write it; without it, the newest one, which is followed.
    pub at: Option<String>,
    /// `poll_interval`: how often the store is asked for news. Default 1 s, at least [`Self::POLL_INTERVAL_MIN`].
    pub poll_interval: Duration,
    /// `cache_size`: of the process's page cache, in bytes. Default 64 MiB.
    pub cache_size: u64,
    /// `cache_dir`: where pages are kept between processes. Default: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// `cache_dir_size`: of that directory, in bytes. Default 1 GiB.
    pub cache_dir_size: u64,
    /// `hydrate` and `hydrate_path`, LITESTREAM_HYDRATION_ENABLED and _PATH. Default: off.
    pub hydrate: Option<Hydrate>,
}

/// A replica is copied to a local file in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hydrate {
    /// The file, which stays; else a temporary one.
    pub path: Option<PathBuf>,
}

impl ReplicaOptions {
    /// Each poll is a request.
    pub const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);

    /// The replica that these parameters name, or, where they name none, the variables; `None` if neither does. Other
    /// parameters are SQLite's, or another VFS's. Hydration by variable is of the replica that a variable names: the
    /// file is one.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid): a value that is none.
    pub fn from_parameters(
        parameters: &[(String, String)],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        let mut options = Self {
            url: String::new(),
            at: None,
            poll_interval: Duration::from_secs(1),
            cache_size: 64 << 20,
            cache_dir: None,
            cache_dir_size: 1 << 30,
            hydrate: None,
        };
        if let Some(url) = parameter(parameters, "replica") {
            url.clone_into(&mut options.url);
        } else if let Some(url) = variable("LITESTREAM_REPLICA_URL") {
            options.url = url;
            if variable("LITESTREAM_HYDRATION_ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                options.hydrate = Some(Hydrate { path: variable("LITESTREAM_HYDRATION_PATH").map(PathBuf::from) });
            }
        } else {
            return Ok(None);
        }
        // The first of several with one name counts, as it does for SQLite.
        for (key, text) in parameters.iter().rev() {
            options.set(key, text).map_err(|error| error.context(format!("parameter {key}")))?;
        }
        match (&mut options.hydrate, parameter(parameters, "hydrate_path")) {
            (Some(hydrate), Some(path)) => hydrate.path = Some(PathBuf::from(path)),
            (None, Some(_)) if parameter(parameters, "hydrate").is_none() => {
                return Err(Error::invalid("parameter hydrate_path: it is nothing without hydrate=1"));
            }
            _ => {}
        }
        Ok(Some(options))
    }

    fn set(&mut self, key: &str, text: &str) -> Result<()> {
        match key {
            "at" => self.at = Some(text.to_owned()),
            "poll_interval" => {
                self.poll_interval = duration(text)?;
                if self.poll_interval < Self::POLL_INTERVAL_MIN {
                    return Err(Error::invalid(format!("'{text}' is shorter than {:?}", Self::POLL_INTERVAL_MIN)));
                }
            }
            "cache_size" => self.cache_size = size(text)?,
            "cache_dir_size" => self.cache_dir_size = size(text)?,
            "cache_dir" if text.is_empty() => return Err(Error::invalid("it is empty: name a directory")),
            "cache_dir" => self.cache_dir = Some(PathBuf::from(text)),
            "hydrate" => self.hydrate = switch(text)?.then_some(Hydrate { path: None }),
            "hydrate_path" if text.is_empty() => return Err(Error::invalid("it is empty: name a file")),
            "replica" | "hydrate_path" => {}
            _ if is_anothers(key) => {}
            _ => {
                let known = "replica, at, poll_interval, cache_size, cache_dir, cache_dir_size, hydrate, hydrate_path";
                return Err(Error::invalid(format!("there is none of this name; known are: {known}")));
            }
        }
        Ok(())
    }
}

/// Whether a parameter of a URI is SQLite's own, or a driver's.
fn is_anothers(key: &str) -> bool {
    ["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "8_3_names"].contains(&key)
        || key.starts_with('_')
}

fn parameter<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Whether a parameter is on; if it is not there, `absent`.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid): it says neither.
pub fn parameter_is_on(parameters: &[(String, String)], name: &str, absent: bool) -> Result<bool> {
    let is_on = |text: &str| switch(text).map_err(|error| error.context(format!("parameter {name}")));
    parameter(parameters, name).map_or(Ok(absent), is_on)
}

/// On or off, as in a parameter of SQLite's own.
fn switch(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err(Error::invalid(format!("'{text}' is neither on nor off: write 1 or 0"))),
    }
}

/// A duration: '500ms', '30s', '5m', '24h'.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid(format!("'{text}' is not a duration: write '500ms', '30s', '5m' or '24h'"));
    let text_ = text.trim();
    let unit_at = text_.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text_.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let span = Duration::from_millis(number.saturating_mul(unit_ms));
    if span > Options::LONGEST {
        return Err(Error::invalid(format!("'{text}' is longer than 24h")));
    }
    Ok(span)
}

/// A size in bytes: '64MiB', '1GiB', '500KiB', '0'.
pub fn size(text: &str) -> Result<u64> {
    let wrong = || Error::invalid(format!("'{text}' is not a size: write '500KiB', '64MiB' or '1GiB'"));
    let trimmed = text.trim();
    let unit_at = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_bytes = match unit {
        "" if number == 0 => 1,
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    Ok(number.saturating_mul(unit_bytes))
}

fn object(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::invalid(format!("options are a JSON object, as in {{\"key\":\"value\"}}, not {text}"))),
        Err(error) => Err(Error::invalid(format!("options are not JSON: {error}"))),
    }
}

fn unknown(key: &str, known: &str) -> Error {
    Error::invalid(format!("unknown option '{key}'; known are: {known}"))
}

fn not_a(key: &str, wanted: &str, value: &Value) -> Error {
    Error::invalid(format!("option {key} is {wanted}, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let options = Options::parse(r#"{"sync_interval":"250ms"}"#).unwrap();
        assert_eq!(options.sync_interval, Duration::from_millis(250));
        assert_eq!(Options::parse("").unwrap(), Options::default());
        assert_eq!(Options::parse(r#"{"spool_max":"64MiB"}"#).unwrap().spool_max, Some(64 << 20));
        let of_a_uri = |value: &str| {
            Options::from_parameters(&[("cache".into(), "private".into()), ("sync_interval".into(), value.into())])
        };
        assert_eq!(of_a_uri("250ms").unwrap(), options);
        assert!(of_a_uri("soon").is_err());
        for (text, says) in [
            (r#"{"sync":1}"#, "unknown option 'sync'; known are: sync_interval"),
            (r#"{"sync_interval":1}"#, "a duration such as"),
            (r#"{"sync_interval":"1"}"#, "'1' is not a duration"),
            (r#"{"sync_interval":"99h"}"#, "longer than 24h"),
            (r#"{"heartbeat":"999ms"}"#, "from '1s' to '1h'"),
            (r#"{"heartbeat":"2h"}"#, "from '1s' to '1h'"),
            (r#"{"spool_max":64}"#, "a size such as '64MiB'"),
            (r#"{"spool_max":"64MB"}"#, "'64MB' is not a size"),
            ("[1]", "JSON object"),
            ("{", "not JSON"),
        ] {
            let message = Options::parse(text).unwrap_err().to_string();
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    fn replica(parameters: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Option<ReplicaOptions>> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = parameters.iter().map(owned).collect();
        let variables: std::collections::HashMap<_, _> = variables.iter().map(owned).collect();
        ReplicaOptions::from_parameters(&parameters, |name| variables.get(name).cloned())
    }

    #[test]
    fn a_replica_is_named_by_parameter_or_by_variable() {
        let variables = [("LITESTREAM_REPLICA_URL", "file:///v"), ("LITESTREAM_HYDRATION_ENABLED", "True")];
        assert_eq!(replica(&[("cache", "shared"), ("at", "latest")], &[]).unwrap(), None);
        let by_variable = replica(&[("at", "yesterday")], &variables).unwrap().unwrap();
        assert_eq!((by_variable.url.as_str(), by_variable.at.as_deref()), ("file:///v", Some("yesterday")));
        assert_eq!(by_variable.hydrate, Some(Hydrate { path: None }));
        let moved = replica(&[("hydrate_path", "/h")], &variables).unwrap().unwrap();
        assert_eq!(moved.hydrate, Some(Hydrate { path: Some("/h".into()) }));
        let by_parameter = replica(&[("replica", "file:///p"), ("replica", "file:///q")], &variables).unwrap().unwrap();
        assert_eq!((by_parameter.url.as_str(), by_parameter.hydrate), ("file:///p", None));
    }

    #[test]
    fn the_parameters_of_a_replica_are_read_and_others_refused() {
        let with = |key, value| replica(&[("replica", "file:///p"), (key, value)], &[]).map(Option::unwrap);
        assert_eq!(with("poll_interval", "250ms").unwrap().poll_interval, Duration::from_millis(250));
        assert_eq!(with("cache_size", "1MiB").unwrap().cache_size, 1 << 20);
        assert_eq!(with("cache_dir_size", "2GiB").unwrap().cache_dir_size, 2 << 30);
        assert_eq!(with("cache_dir", "/c").unwrap().cache_dir, Some("/c".into()));
        assert_eq!(with("hydrate", "on").unwrap().hydrate, Some(Hydrate { path: None }));
        let off =
            [("replica", "file:///p"), ("hydrate", "0"), ("hydrate_path", "/h"), ("mode", "ro"), ("_driver", "x")];
        assert_eq!(replica(&off, &[]).unwrap().unwrap().hydrate, None);
        for (key, value, says) in [
            ("poll_interval", "soon", "parameter poll_interval: 'soon' is not a duration"),
            ("poll_interval", "1ms", "shorter than 10ms"),
            ("cache_size", "64MB", "'64MB' is not a size"),
            ("cache_dir", "", "name a directory"),
            ("hydrate", "perhaps", "neither on nor off"),
            ("hydrate_path", "", "name a file"),
            ("hydrate_path", "/h", "nothing without hydrate=1"),
            ("At", "yesterday", "parameter At: there is none of this name; known are: replica, at, poll_interval"),
            ("cachesize", "1MiB", "parameter cachesize: there is none"),
        ] {
            let message = with(key, value).unwrap_err().to_string();
            assert!(message.contains(says), "{key}={value}: {message}");
        }
    }

    #[test]
    fn restore_options_are_read_and_others_refused() {
        assert!(RestoreOptions::parse(r#"{"force":true}"#).unwrap().force);
        assert!(RestoreOptions::parse(r#"{"force":"yes"}"#).is_err());
        assert!(RestoreOptions::parse(r#"{"fource":true}"#).unwrap_err().to_string().contains("force, dry_run"));
    }
}
