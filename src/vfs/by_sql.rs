//! A primary by SQL: replication is started on a connection that is open, and stopped.

use super::files::BaseFiles;
use super::primary::{Database, base, database, known, pools};
use crate::config::Options;
use crate::error::{Error, Kind, Result};
use crate::ltx::{PageSize, Txid};
use crate::replica::Listing;
use crate::sqlite::{Connection, Observer};
use crate::store::{self, Limits, Store};
use crate::wal::IndexHeader;
use crate::writer::{self, Parts, Primary};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Stops a primary and forgets it.
pub fn stop(path: &str, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
    let database = known(path);
    if let Some(database) = &database {
        *database.wanted.lock() = None;
    }
    let not_there = || Error::new(Kind::NotFound, format!("{path} is not replicated by this process"));
    let database = database.ok_or_else(not_there)?;
    let _control = database.control.lock();
    database.wal_mode.settle();
    let Some(primary) = database.primary() else {
        database.set_primary(None);
        return Err(not_there());
    };
    let outcome = primary.stop(cancelled);
    database.set_primary(None);
    outcome
}

/// The store of a replica, twice: a user waits for the answer of the first, which gives up sooner.
pub struct Stores {
    pub prove: Arc<dyn Store>,
    pub ship: Arc<dyn Store>,
}

/// How long the user waits for the first answer of a store.
const PROVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a start is begun again that others overtake, and the pause between two attempts.
const OVERTAKEN_TIMEOUT: Duration = Duration::from_secs(10);
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(20);

impl Stores {
    /// No I/O yet.
    pub fn open(url: &str) -> Result<Self> {
        let limits = Limits { overall_timeout: PROVE_TIMEOUT, request_timeout: PROVE_TIMEOUT, ..Limits::default() };
        let background = store::Options { limits: Limits::of_background(), ..store::Options::default() };
        let prove = store::open_with(url, &store::Options { limits, ..store::Options::default() })?;
        Ok(Self { prove, ship: store::open_with(url, &background)? })
    }
}

/// Starts replicating a schema of an open connection, which is adopted if it was opened before the shim (P14).
pub fn replicate(
    connection: Connection,
    schema: &str,
    path: &str,
    stores: &Stores,
    options: Option<Options>,
) -> Result<Arc<Primary>> {
    let database = database(path);
    let _control = database.control.lock();
    if let Some(error) = database.primary().and_then(|p| p.failure()) {
        return Err(error.context("replication has ended; SELECT litestream_stop() before it is begun again"));
    }
    if let Some(primary) = database.primary() {
        let busy = |how: &str| {
            Err(Error::new(Kind::Busy, format!("{path} is replicated {how} already: SELECT litestream_stop() first")))
        };
        if primary.url() != stores.ship.url() {
            return busy(&format!("to {}", primary.url()));
        }
        if options.is_some_and(|options| options != primary.options()) {
            return busy("with other options");
        }
    }
    connection.refuse_moved(schema, path)?;
    let options = options.unwrap_or_default();
    // Proven first: a URL that is wrong leaves the database as it was.
    let listing = match database.primary() {
        Some(_) => None,
        None => writer::prove(Path::new(path), &stores.prove, &|| connection.is_interrupted())?,
    };
    let mode = connection.query(&format!("PRAGMA {}.journal_mode=WAL", quoted(schema)))?;
    if mode != ["wal"] {
        let mode = mode.join(" ");
        return Err(Error::invalid(format!("{path} cannot be set to WAL mode (its journal_mode stays '{mode}')")));
    }
    // Reading opens the WAL and recovers it if need be (P2).
    connection.query(&format!("SELECT count(*) FROM {}.sqlite_schema", quoted(schema)))?;
    let observer: Arc<dyn Observer> = Arc::clone(&database) as Arc<dyn Observer>;
    let adopted = connection.adopt(schema, &observer)?;
    if adopted {
        database.connections.fetch_add(1, Ordering::AcqRel);
    }
    let (primary, before) = match database.primary() {
        Some(primary) => (primary, None),
        None => {
            let (primary, before) = start_anew(connection, schema, &database, (&stores.ship, listing), options)?;
            database.set_primary(Some(Arc::clone(&primary)));
            (primary, before)
        }
    };
    // What was committed before the taps were active, or by a connection that is adopted only now.
    primary.activated(before.as_ref(), published_header(connection, schema)?.as_ref());
    Ok(primary)
}

/// Starts a primary, with what was published when it began. Others may write and checkpoint while the database is
/// compared with what is known of it: that is then begun again.
fn start_anew(
    connection: Connection,
    schema: &str,
    database: &Database,
    (store, listing): (&Arc<dyn Store>, Option<Listing>),
    options: Options,
) -> Result<(Arc<Primary>, Option<IndexHeader>)> {
    let deadline = Instant::now() + OVERTAKEN_TIMEOUT;
    loop {
        let before = published_header(connection, schema)?;
        match start(connection, schema, database, (Arc::clone(store), listing.clone()), options, before) {
            Err(error) if error.kind() == Kind::Overtaken && Instant::now() < deadline => {
                if connection.is_interrupted() {
                    return Err(Error::new(Kind::Interrupted, "interrupted"));
                }
                std::thread::sleep(OVERTAKEN_PAUSE);
            }
            Err(error) if error.kind() == Kind::Overtaken => {
                return Err(error.advise("it is written to all the time; try again, or when less is written"));
            }
            started => return started.map(|primary| (primary, before)),
        }
    }
}

fn start(
    connection: Connection,
    schema: &str,
    database: &Database,
    (store, listing): (Arc<dyn Store>, Option<Listing>),
    options: Options,
    published: Option<IndexHeader>,
) -> Result<Arc<Primary>> {
    let size = connection.query(&format!("PRAGMA {}.page_size", quoted(schema)))?;
    let page_size = PageSize::new(size.first().and_then(|s| s.parse().ok()).unwrap_or(0))?;
    if published.is_none() {
        // P4: without shared memory nothing tells the published end; after this it is the database file.
        connection.query(&format!("PRAGMA {}.wal_checkpoint(TRUNCATE)", quoted(schema)))?;
    }
    let (path, usage) = (database.path.clone(), Arc::clone(&database.usage));
    let files = Arc::new(BaseFiles { vfs: base()?, path: path.clone(), usage });
    let pools = pools();
    Primary::start_new(Parts { path: PathBuf::from(path), store, files, options, page_size, published, listing, pools })
}

fn published_header(connection: Connection, schema: &str) -> Result<Option<IndexHeader>> {
    Ok(connection.wal_index_header(schema)?.and_then(|h| IndexHeader::parse(&h)))
}

/// A name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
