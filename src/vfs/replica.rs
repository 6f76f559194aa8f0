//! Replicas that are opened through the VFS `litestream`: which one a URI or Litestream's variables name, and the
//! PRAGMAs of its connection.

use crate::config::ReplicaOptions;
use crate::error::{Error, Kind, Result};
use crate::lock::{Mutex, PerProcess};
use crate::ltx::Txid;
use crate::reader::{self, Connected, Settings, Status};
use crate::replica::{Target, parse_when};
use crate::sqlite::{self, Connection, PragmaAnswer, ReplicaFile, ReplicaVfs};
use crate::store::Counters;
use crate::time::{SystemClock, Timestamp};
use std::any::Any;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many opens that failed `litestream_status` remembers.
const FAILED_OPENS_MAX: usize = 16;

/// A replica that could not be opened.
#[derive(Clone)]
struct FailedOpen {
    path: String,
    url: String,
    error: Error,
    at: Timestamp,
}

/// The last ones, by path and URL; SQLite gives whoever opens no more than a code.
static FAILED_OPENS: PerProcess<Mutex<VecDeque<FailedOpen>>> = PerProcess::new();

/// Registers the VFS.
///
/// # Errors
/// The process has another one of that name.
pub fn install() -> Result<()> {
    sqlite::install_read_vfs(Arc::new(Replicas))
}

/// Logs as Litestream's variables say. Its default, stdout, is the host's.
///
/// # Errors
/// LITESTREAM_LOG_FILE cannot be opened.
pub fn log_as_asked() -> Result<()> {
    if variable("LITESTREAM_LOG_LEVEL").is_some_and(|level| level.eq_ignore_ascii_case("debug")) {
        log::set_max_level(log::LevelFilter::Debug);
    }
    variable("LITESTREAM_LOG_FILE").map_or(Ok(()), |path| sqlite::log_to_file(Path::new(&path)))
}

/// Refuses what Litestream's VFS does on request, and this one does not.
///
/// # Errors
/// LITESTREAM_WRITE_ENABLED is set.
pub fn check_environment() -> Result<()> {
    if variable("LITESTREAM_WRITE_ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(Error::invalid(format!("LITESTREAM_WRITE_ENABLED is set: {READ_ONLY}; unset it")));
    }
    Ok(())
}

const READ_ONLY: &str = "a replica is read-only, since two writers would fork its history: write to the primary \
     (litestream_replicate), or to a copy (litestream_restore)";

/// A variable of the environment; empty is unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

struct Replicas;

impl ReplicaVfs for Replicas {
    fn identity(&self, parameters: &[(String, String)]) -> Option<u64> {
        let value = |name| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let url = value("replica").or_else(|| variable("LITESTREAM_REPLICA_URL"))?;
        let mut hasher = DefaultHasher::new();
        (url, value("at")).hash(&mut hasher);
        Some(hasher.finish())
    }

    fn open(
        &self,
        path: &str,
        parameters: &[(String, String)],
        is_there: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<dyn ReplicaFile>>> {
        let url = || parameters.iter().find(|(key, _)| key == "replica").map(|(_, value)| value.clone());
        let options = ReplicaOptions::from_parameters(parameters, variable);
        let url = match &options {
            Ok(None) if is_there() => return Ok(None),
            Ok(None) => None,
            Ok(Some(options)) => Some(options.url.clone()),
            Err(_) => url().or_else(|| variable("LITESTREAM_REPLICA_URL")),
        };
        let opened = options.and_then(|options| Opened::open(path, &options.ok_or_else(no_replica)?));
        let url = shown(&url.unwrap_or_default());
        let opened = opened.map_err(|error| match error.to_string().contains(&url) || url.is_empty() {
            true => error.context(path),
            false => error.context(format!("{path} from {url}")),
        });
        let mut failed = FAILED_OPENS.get().lock();
        failed.retain(|failed| (failed.path.as_str(), failed.url.as_str()) != (path, url.as_str()));
        if let Err(error) = &opened {
            if failed.len() == FAILED_OPENS_MAX {
                failed.pop_front();
            }
            failed.push_back(FailedOpen { path: path.to_owned(), url, error: error.clone(), at: Timestamp::now() });
        }
        Ok(Some(Arc::new(opened?) as Arc<dyn ReplicaFile>))
    }
}

fn no_replica() -> Error {
    Error::invalid(
        "it names no replica, and there is no such file: open 'file:NAME?vfs=litestream&replica=URL', or set \
         LITESTREAM_REPLICA_URL; a local database is made with vfs=unix",
    )
}

/// A URL that may be none, without its parameters and whatever may be a secret.
pub(super) fn shown(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let secret = url.rfind('@').map(|at| at + 1).zip(url.find("://").map(|at| at + 3));
    match secret.and_then(|(end, start)| Some((url.get(..start)?, url.get(end..)?))) {
        Some((scheme, rest)) => format!("{scheme}***@{rest}"),
        None => url.to_owned(),
    }
}

/// One open replica.
pub struct Opened {
    path: String,
    /// The process that opened it. A forked child has none of its threads, and copies of its locks.
    pid: u32,
    connected: Arc<Connected>,
    /// A transaction holds its state (R10).
    reading: AtomicBool,
    /// So does the whole connection.
    held: AtomicBool,
}

impl Opened {
    fn open(path: &str, options: &ReplicaOptions) -> Result<Self> {
        check_environment()?;
        let target = options.at.as_deref().map_or(Ok(Target::Latest), |at| parse_when(at, &SystemClock))?;
        let settings = Settings {
            poll_interval: options.poll_interval,
            cache_size: options.cache_size,
            cache_dir: options.cache_dir.clone(),
            cache_dir_size: options.cache_dir_size,
            hydrate: options.hydrate.clone(),
        };
        let connected = Arc::new(reader::connect(path, &options.url, target, &settings, &|| false)?);
        log::debug!("{path} is opened from {}", shown(&options.url));
        Ok(Self {
            path: path.to_owned(),
            pid: std::process::id(),
            connected,
            reading: AtomicBool::new(false),
            held: AtomicBool::new(false),
        })
    }

    /// The connection to the replica, unless this is a forked child.
    fn connected(&self) -> Result<&Connected> {
        if self.pid == std::process::id() {
            return Ok(&self.connected);
        }
        Err(Error::invalid(format!("{} was opened before the process forked: open it again in the child", self.path)))
    }

    /// Moves to another moment, from the next transaction on. `keeps_reading`: why a transaction that is open now outlives
    /// the statement that asks, if it does, and what to do.
    ///
    /// # Errors
    /// A moment that is none, or not there; a transaction that is open, since it keeps its state.
    pub fn travel(&self, when: &str, keeps_reading: Option<&str>, cancelled: &dyn Fn() -> bool) -> Result<()> {
        let target = parse_when(when, &SystemClock)?;
        self.refuse_inside_a_transaction(keeps_reading)?;
        self.connected()?.travel(target, cancelled)
    }

    fn refuse_inside_a_transaction(&self, keeps_reading: Option<&str>) -> Result<()> {
        let held = self.held.load(Ordering::Acquire);
        let keeps_reading = keeps_reading.filter(|_| self.reading.load(Ordering::Acquire));
        let text = |txid| match keeps_reading {
            _ if held => Some(format!("this connection was opened with nolock or immutable, and keeps TXID {txid}")),
            Some(way_out) => Some(format!("a read transaction is open, and keeps TXID {txid}: {way_out}")),
            None => None,
        };
        match text(self.position()?.0) {
            Some(text) => Err(Error::new(Kind::Busy, text)),
            None => Ok(()),
        }
    }

    /// The TXID of what is seen, and its time.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn position(&self) -> Result<(Txid, Timestamp)> {
        self.connected()?.position()
    }

    /// Seconds since what is seen was last proven current; -1 before, and for a moment of the past (R12).
    pub fn lag_seconds(&self) -> i64 {
        self.connected()
            .ok()
            .and_then(Connected::lag)
            .map_or(-1, |lag| i64::try_from(lag.as_secs()).unwrap_or(i64::MAX))
    }

    /// Waits until a TXID is visible to the next transaction; the one that is then. `keeps_reading` as above.
    ///
    /// # Errors
    /// [`Kind::Timeout`], [`Kind::Interrupted`]; a transaction that is open, since it never sees it.
    pub fn wait(
        &self,
        txid: Txid,
        timeout: Duration,
        keeps_reading: Option<&str>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Txid> {
        let (seen, _) = self.position()?;
        if seen >= txid {
            return Ok(seen);
        }
        self.refuse_inside_a_transaction(keeps_reading)?;
        self.connected()?.wait(txid, timeout, cancelled)
    }

    /// How much of the replica is in the local file, from 0 to 1, and its name, if the user gave it one; `None` if it is
    /// not hydrated.
    pub fn hydration(&self) -> Option<(f64, Option<PathBuf>)> {
        self.connected().ok()?.hydration()
    }

    fn answer(&self, name: &str, argument: Option<&str>, cancelled: &dyn Fn() -> bool) -> Result<PragmaAnswer> {
        let text = match name {
            "litestream_time" => {
                if let Some(when) = argument {
                    // While SQLite prepares the PRAGMA, nothing that is open is its own.
                    self.travel(when, Some(Connection::UNFINISHED), cancelled)?;
                    return Ok(PragmaAnswer::Row(None));
                }
                self.position()?.1.to_string()
            }
            "litestream_write_enabled" => match argument.map(str::to_ascii_lowercase).as_deref() {
                None => "0".to_owned(),
                Some("0" | "false" | "off") => return Ok(PragmaAnswer::Row(None)),
                Some("1" | "true" | "on") => return Err(Error::invalid(READ_ONLY)),
                Some(other) => return Err(Error::invalid(format!("{name} is 0 or 1, not {other}"))),
            },
            "litestream_sync" => return Err(Error::invalid(NOTHING_TO_SHIP)),
            _ if !READ_ONLY_PRAGMAS.contains(&name) => return Ok(PragmaAnswer::Forward),
            _ if argument.is_some() => return Err(Error::invalid(format!("{name} is read-only"))),
            "litestream_txid" => self.position()?.0.to_string(),
            "litestream_lag" => self.lag_seconds().to_string(),
            "litestream_hydration_progress" => {
                self.hydration().map_or("0".to_owned(), |(part, _)| format!("{:.1}", part * 100.0))
            }
            // Of a file without a name nothing.
            _ => self.hydration().and_then(|(_, path)| path).map_or(String::new(), |path| path.display().to_string()),
        };
        Ok(PragmaAnswer::Row(Some(text)))
    }
}

/// Who asks a replica to ship.
pub const NOTHING_TO_SHIP: &str = "litestream_sync: this connection reads a replica, which has nothing to ship; \
                                   SELECT litestream_wait(TXID) waits until a TXID is visible here";
/// Those that only tell.
const READ_ONLY_PRAGMAS: [&str; 4] =
    ["litestream_txid", "litestream_lag", "litestream_hydration_progress", "litestream_hydration_file"];

impl ReplicaFile for Opened {
    fn begin(&self) -> Result<()> {
        self.connected().and_then(Connected::begin).inspect_err(|error| self.tell(error))?;
        self.reading.store(true, Ordering::Release);
        Ok(())
    }

    fn end(&self) {
        self.reading.store(false, Ordering::Release);
        if let Ok(connected) = self.connected() {
            connected.end();
        }
    }

    fn hold(&self) -> Result<()> {
        self.held.store(true, Ordering::Release);
        self.begin()
    }

    fn size(&self) -> u64 {
        self.connected().map_or(0, Connected::size)
    }

    fn read(&self, offset: u64, into: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result<bool> {
        let read = self.connected().and_then(|connected| connected.read(offset, into, cancelled));
        read.inspect_err(|error| self.tell(error))
    }

    fn pragma(&self, name: &str, argument: Option<&str>, cancelled: &dyn Fn() -> bool) -> PragmaAnswer {
        match self.answer(&name.to_ascii_lowercase(), argument, cancelled) {
            Ok(answer) => answer,
            Err(error) if error.kind() == Kind::Interrupted => PragmaAnswer::Interrupted,
            Err(error) => PragmaAnswer::Refuse(error.to_string()),
        }
    }
}

impl Opened {
    /// SQLite has a code only.
    fn tell(&self, error: &Error) {
        if error.kind() != Kind::Interrupted {
            log::warn!("{}: {error}", self.path);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.connected().is_err() {
            // To disconnect would take locks that nobody in a forked child gives back.
            std::mem::forget(Arc::clone(&self.connected));
        }
    }
}

/// The replica of a connection's main database, if it was opened from one.
pub fn of(connection: Connection) -> Option<Arc<Opened>> {
    let file: Arc<dyn Any + Send + Sync> = connection.replica("main")?;
    file.downcast().ok()
}

/// A row of `litestream_status` for each open replica, and for each that could not be opened.
pub fn statuses() -> Vec<Status> {
    let failed = FAILED_OPENS.get().lock().clone().into_iter().map(|failed| Status {
        path: failed.path,
        url: failed.url,
        state: "error",
        txid: None,
        lag: None,
        data_age: None,
        primary: None,
        primary_seen: None,
        last_error: Some((failed.error, failed.at)),
        counters: Counters::default(),
        cache_hits: 0,
        cache_misses: 0,
        pages_prefetched: 0,
        pages_prefetch_used: 0,
    });
    reader::statuses().into_iter().chain(failed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        for (url, expected) in [
            ("s3://b/p?endpoint=http://h&x=hush", "s3://b/p"),
            ("s3://key:hush@b/p", "s3://***@b/p"),
            ("no url", "no url"),
            ("a@b", "a@b"),
            ("", ""),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
