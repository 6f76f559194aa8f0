//! A primary by URI, `file:app.db?replica=URL`: an application replicates by how it opens its database, without SQL.
//!
//! The URL is proven when the database is opened; replication begins when SQLite opens the WAL, so a database that is
//! not in WAL mode waits until it is, and is put into it ([`super::wal_mode`], P16). There it is under SQLite's locks, without a connection that could be asked:
//! the page size comes from the file, what is published from the taps, and where to go on is found out on a thread of
//! ours.

use super::by_sql::Stores;
use super::files::BaseFiles;
use super::primary::{Database, base, database, pools};
use crate::config::{self, Options};
use crate::error::{Error, Kind, Result};
use crate::store::{Counters, Store};
use crate::time::Timestamp;
use crate::writer::{self, Files, Parts, Primary, State, Status};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The parameter that names the replica.
const PARAMETER: &str = "replica";

/// How long the opening of a WAL waits for another opening that looks at the same database.
const CONTROL_TIMEOUT: Duration = Duration::from_millis(50);

/// The replica that a database is to have.
#[derive(Clone)]
pub(super) struct Wanted {
    store: Arc<dyn Store>,
    options: Options,
    /// Why it has not begun though the WAL was opened.
    failure: Option<(Error, Timestamp)>,
}

/// An open that failed because of its replica.
#[derive(Clone)]
pub(super) struct Refused {
    /// Without secrets.
    url: String,
    error: Error,
    at: Timestamp,
}

/// A database is about to be opened with these parameters of a URI. What fails stands in the status until it is opened
/// with a replica that does not: the caller of xOpen gets a code only.
///
/// # Errors
/// A URL or an option that is none; those of the store's first answer; another replica than the one it has.
pub(super) fn opening(path: &str, parameters: &[(String, String)], is_read_only: bool) -> Result<()> {
    let Some((_, url)) = parameters.iter().find(|(name, _)| name == PARAMETER) else { return Ok(()) };
    let outcome = refuse_unfit(path, parameters, is_read_only).and_then(|()| begin(path, url, parameters));
    let refused = outcome.as_ref().err().map(|error| Refused {
        url: super::replica::shown(url),
        error: error.clone(),
        at: Timestamp::now(),
    });
    *database(path).refused.lock() = refused;
    outcome
}

/// What cannot be written to is not replicated, and what takes no locks has no WAL.
fn refuse_unfit(path: &str, parameters: &[(String, String)], is_read_only: bool) -> Result<()> {
    let is_on = |name: &str| config::parameter_is_on(parameters, name, false);
    if is_read_only || is_on("immutable")? {
        return Err(Error::invalid(format!("{path} is opened read-only: replicate it where it is written to")));
    }
    if is_on("nolock")? {
        return Err(Error::invalid(format!("{path} is opened with nolock=1, and so cannot be in WAL mode")));
    }
    Ok(())
}

fn begin(path: &str, url: &str, parameters: &[(String, String)]) -> Result<()> {
    crate::sqlite::Connection::need_mutexes()?;
    let options = Options::from_parameters(parameters)?;
    let sets_wal = config::parameter_is_on(parameters, "set_wal", true)?;
    let stores = Stores::open(url)?;
    let database = database(path);
    if !needs_proof(&database, path, &stores)? {
        return Ok(());
    }
    // Without the lock: whoever opens the WAL meanwhile does not wait for the store.
    writer::prove(Path::new(path), &stores.prove, &|| false)?;
    let _control = database.control.lock();
    if database.primary().is_none() {
        *database.wanted.lock() = Some(Wanted { store: stores.ship, options, failure: None });
        database.wal_mode.begin(sets_wal);
        database.set_primary(None);
    }
    Ok(())
}

/// Whether the database has no primary. One that nobody has open is given up.
///
/// # Errors
/// It is replicated to another URL, or that has ended, and somebody has it open.
fn needs_proof(database: &Database, path: &str, stores: &Stores) -> Result<bool> {
    let _control = database.control.lock();
    if let Some(primary) = database.primary() {
        let is_same = primary.url() == stores.ship.url();
        let is_open = database.connections.load(Ordering::Acquire) > 0;
        if is_same && (is_open || primary.failure().is_none()) {
            return Ok(false);
        }
        if is_open {
            let text = format!("{path} is replicated to {} already: SELECT litestream_stop() first", primary.url());
            return Err(Error::new(Kind::Busy, text));
        }
        // Nobody has it open: it may be another database by now, so nothing more of it is shipped there.
        primary.abandon();
        database.set_primary(None);
    }
    Ok(true)
}

/// SQLite has opened the WAL, or is about to: begins the replication that is wanted, if there is any. Under SQLite's
/// locks, so nothing is waited for (P5); what fails shows in the status, and is tried again when the WAL is next opened.
pub(super) fn in_wal_mode(database: &Database) {
    // A start by SQL opens the WAL itself, and holds the lock.
    if database.wanted.lock().is_none() {
        return;
    }
    // Held for longer: somebody is starting or stopping it.
    let Some(_control) = database.control.try_lock_for(CONTROL_TIMEOUT) else { return };
    if database.primary().is_some() {
        return;
    }
    let Some(wanted) = database.wanted.lock().clone() else { return };
    match start(database, &wanted) {
        Ok(primary) => {
            database.set_primary(Some(Arc::clone(&primary)));
            primary.activated(None, None);
        }
        Err(error) => fail(database, &error),
    }
}

/// Why it has not begun.
pub(super) fn fail(database: &Database, error: &Error) {
    log::warn!("{}: {error}", database.path);
    if let Some(wanted) = database.wanted.lock().as_mut() {
        wanted.failure = Some((error.clone(), Timestamp::now()));
    }
}

fn start(database: &Database, wanted: &Wanted) -> Result<Arc<Primary>> {
    let files = BaseFiles { vfs: base()?, path: database.path.clone(), usage: Arc::clone(&database.usage) };
    // A database in WAL mode has a header: the mode stands in it too.
    let page_size = writer::page_size_of(files.open_database()?.as_ref())?;
    let page_size = page_size.ok_or_else(|| Error::corrupt(format!("{} has no sound header", database.path)))?;
    Primary::start_later(Parts {
        path: PathBuf::from(&database.path),
        store: Arc::clone(&wanted.store),
        page_size,
        files: Arc::new(files),
        options: wanted.options,
        published: None,
        listing: None,
        pools: pools(),
    })
}

/// Whether an open database waits for its replication to begin.
pub(super) fn is_wanted(database: &Database) -> bool {
    database.wanted.lock().is_some() && database.connections.load(Ordering::Acquire) > 0
}

/// What it waits for, if it does.
pub(super) fn waits_for(database: &Database) -> Option<String> {
    if database.primary().is_some() || !is_wanted(database) {
        return None;
    }
    let failure = database.wanted.lock().as_ref().and_then(|wanted| wanted.failure.clone());
    Some(match failure {
        Some((error, _)) => error.to_string(),
        None if database.wal_mode.awaits_commit() => "replication begins with its first commit".to_owned(),
        None => "replication begins at the next access in WAL mode (PRAGMA journal_mode = WAL)".to_owned(),
    })
}

/// The row of `litestream_status` of an open database whose replication has not begun, or of one that could not be
/// opened.
pub(super) fn status(database: &Database) -> Option<Status> {
    let wanted = database.wanted.lock().clone().filter(|_| database.connections.load(Ordering::Acquire) > 0);
    let (url, state, last_error, counters) = match (wanted, database.refused.lock().clone()) {
        (Some(Wanted { store, failure, .. }), _) => (store.url().to_owned(), State::Waiting, failure, store.counters()),
        (None, Some(Refused { url, error, at })) => (url, State::Error, Some((error, at)), Counters::default()),
        (None, None) => return None,
    };
    Some(Status {
        path: database.path.clone(),
        url,
        state,
        txid: None,
        durable: None,
        lag: Duration::ZERO,
        spool_bytes: 0,
        spool_files: 0,
        last_error,
        counters,
    })
}
