//! A connection of the host, as far as we use it: only on the thread that called us, during that call.

use super::api::{call, text_of};
use super::fork::unforked;
use super::lifetime::{Ticket, has_connections, unseen};
use super::read_file::ReplicaFile;
use super::shim::BaseVfs;
use super::tap::{Observer, TapRole, WalIndexHeader, is_tapped, published_header, tap};
use crate::error::{Error, Kind, Result};
use sqlite3ext_sys as ffi;
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The host's SQLite has mutexes: known while a connection is open.
pub(super) static HAS_MUTEXES: AtomicBool = AtomicBool::new(false);

/// A borrowed connection. Not `Send`: it belongs to the call that it came with.
#[derive(Clone, Copy)]
pub struct Connection(*mut ffi::sqlite3);

impl Connection {
    pub(super) fn new(db: *mut ffi::sqlite3) -> Self {
        Self(db)
    }

    pub(super) fn raw(self) -> *mut ffi::sqlite3 {
        self.0
    }

    /// The full path of a schema's database; empty for an in-memory or temporary one.
    pub fn file_name(self, schema: &str) -> String {
        let Ok(schema) = CString::new(schema) else { return String::new() };
        // SAFETY: the connection is open; the name is terminated. The result is SQLite's.
        unsafe { text_of(call!(db_filename(self.0, schema.as_ptr()))) }
    }

    /// The schema names of this connection, `main` first.
    pub fn schemas(self) -> Result<Vec<String>> {
        self.query("SELECT name FROM pragma_database_list ORDER BY seq")
    }

    /// Whether the schema was opened read-only.
    pub fn is_read_only(self, schema: &str) -> bool {
        let Ok(schema) = CString::new(schema) else { return false };
        // SAFETY: the connection is open.
        unsafe { call!(db_readonly(self.0, schema.as_ptr())) == 1 }
    }

    /// Whether a transaction was begun with BEGIN.
    pub fn in_transaction(self) -> bool {
        // SAFETY: the connection is open.
        unsafe { call!(get_autocommit(self.0)) == 0 }
    }

    /// What to do where a transaction has not ended.
    pub const UNFINISHED: &str = "finish all statements, and COMMIT, first";

    /// Whether a read transaction of the main database that is open now outlives the statement that calls us, and then
    /// what to do. It was begun with BEGIN; or another statement is not at its end; or SQLite keeps the file's lock.
    pub fn keeps_reading(self) -> Option<&'static str> {
        if self.in_transaction() || self.busy_statements() > 1 {
            return Some(Self::UNFINISHED);
        }
        let is_exclusive = || self.query("PRAGMA main.locking_mode").is_ok_and(|mode| mode == ["exclusive"]);
        let keeps_lock = self.is_without_transaction() || is_exclusive() || self.shares_its_cache();
        keeps_lock.then_some(
            "its lock outlives the statements: set PRAGMA locking_mode = NORMAL and read once, or with cache=shared finish \
             what reads through this cache, first",
        )
    }

    /// Whether the connection itself has no transaction of the main database, so that a lock on the file is not that of a
    /// statement. `false` of a host before 3.34, which cannot tell.
    fn is_without_transaction(self) -> bool {
        const SINCE: i32 = 3_034_000;
        // SAFETY: the connection is open; a host of that version has the routine.
        unsafe {
            call!(libversion_number()) >= SINCE
                && call!(txn_state(self.0, c"main".as_ptr())) == ffi::SQLITE_TXN_NONE as c_int
        }
    }

    fn busy_statements(self) -> u32 {
        let mut busy = 0;
        // SAFETY: the connection is open, and its statements are its own.
        unsafe {
            let mut statement = call!(next_stmt(self.0, std::ptr::null_mut()));
            while !statement.is_null() {
                busy += u32::from(call!(stmt_busy(statement)) != 0);
                statement = call!(next_stmt(self.0, statement));
            }
        }
        busy
    }

    /// Refuses a host whose SQLite has no mutexes (P33). `sqlite3_threadsafe` says 1 also after
    /// `sqlite3_config(SQLITE_CONFIG_SINGLETHREAD)`; a connection that asks for a mutex has one or not.
    pub fn need_mutexes() -> Result<()> {
        // It stays so while a connection is open.
        if HAS_MUTEXES.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut db = std::ptr::null_mut();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_FULLMUTEX;
        // SAFETY: a new connection, used by this thread only and closed before the return.
        let (rc, has_mutex) = unsafe {
            let rc = call!(open_v2(c":memory:".as_ptr(), &mut db, flags as c_int, std::ptr::null()));
            let has_mutex = rc == 0 && !call!(db_mutex(db)).is_null();
            call!(close_v2(db));
            (rc, has_mutex)
        };
        match (rc, has_mutex) {
            (0, true) => {
                HAS_MUTEXES.store(has_connections(), Ordering::Release);
                Ok(())
            }
            (0, false) => Err(Error::invalid(
                "this SQLite has no mutexes (SQLITE_CONFIG_SINGLETHREAD, or SQLITE_THREADSAFE=0), which replication \
                 needs: it reads the database on threads of its own",
            )),
            _ => Err(sql_error(rc, "open :memory:")),
        }
    }

    /// Whether another connection uses the page cache of one of this one's databases (`cache=shared`): of such a cache,
    /// each has its part only.
    fn shares_its_cache(self) -> bool {
        let used = |op: u32| {
            let (mut now, mut highest) = (0, 0);
            // SAFETY: the connection is open.
            unsafe { call!(db_status(self.0, op as c_int, &mut now, &mut highest, 0)) };
            now
        };
        used(ffi::SQLITE_DBSTATUS_CACHE_USED) != used(ffi::SQLITE_DBSTATUS_CACHE_USED_SHARED)
    }

    /// Runs one statement and gives the first column of its rows as text.
    pub fn query(self, sql: &str) -> Result<Vec<String>> {
        let text = CString::new(sql).map_err(|_| Error::invalid("SQL with a zero byte"))?;
        let mut statement = std::ptr::null_mut();
        let mut rows = Vec::new();
        // SAFETY: the connection is open and its thread is ours; the statement is finalized on every path.
        unsafe {
            let mut rc = call!(prepare_v2(self.0, text.as_ptr(), -1, &mut statement, std::ptr::null_mut()));
            while rc == 0 || rc == ffi::SQLITE_ROW as c_int {
                rc = call!(step(statement));
                if rc == ffi::SQLITE_ROW as c_int {
                    rows.push(text_of(call!(column_text(statement, 0)).cast()));
                }
            }
            let failed = rc != ffi::SQLITE_DONE as c_int;
            let message = if failed { text_of(call!(errmsg(self.0))) } else { String::new() };
            call!(finalize(statement));
            if failed {
                return Err(sql_error(rc, &format!("{sql}: {message}")));
            }
        }
        Ok(rows)
    }

    /// Whether `sqlite3_interrupt` was called on this connection. `sqlite3_is_interrupted` is younger than our oldest
    /// host; there a nested statement tells, which is interrupted when the flag is set.
    pub fn is_interrupted(self) -> bool {
        if let Some(is_interrupted) = super::api::is_interrupted() {
            // SAFETY: the connection is open.
            return unsafe { is_interrupted(self.0) } != 0;
        }
        matches!(self.query("SELECT 1"), Err(e) if e.kind() == Kind::Interrupted)
    }

    /// Opens the database at `path` through the default VFS, runs `body` on it, and closes it.
    pub fn with_own<T>(path: &str, body: impl FnOnce(Self) -> Result<T>) -> Result<T> {
        let name = CString::new(path).map_err(|_| Error::invalid("a path with a zero byte"))?;
        let mut db = std::ptr::null_mut();
        // SAFETY: a new connection, used by this thread only and closed before the return; `body` finalizes what it
        // prepares.
        unsafe {
            let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_PRIVATECACHE;
            let rc = call!(open_v2(name.as_ptr(), &mut db, flags as c_int, std::ptr::null()));
            let result = if rc == 0 {
                call!(busy_timeout(db, 5000));
                body(Self(db))
            } else {
                Err(sql_error(rc, &format!("open {path}: {}", text_of(call!(errmsg(db))))))
            };
            call!(close_v2(db));
            result
        }
    }

    /// Opens the database at `path` through the VFS below the shim, runs `body` on it, and closes it: on a thread of
    /// ours, while the host's own go on. No tap is told, nothing is waited for, and no fork happens meanwhile: each call
    /// takes mutexes of SQLite.
    ///
    /// # Errors
    /// Those of `body`; [`Kind::Busy`] without a connection in the process.
    pub fn with_unseen<T>(vfs: BaseVfs, path: &str, body: impl FnOnce(Self) -> Result<T>) -> Result<T> {
        let _ticket = Ticket::new()?;
        let name = CString::new(path).map_err(|_| Error::invalid("a path with a zero byte"))?;
        unforked(|| {
            let mut db = std::ptr::null_mut();
            // SAFETY: a new connection, used by this thread only and closed before the return; `body` finalizes what it
            // prepares.
            unsafe {
                let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_PRIVATECACHE;
                let rc = unseen(|| call!(open_v2(name.as_ptr(), &mut db, flags as c_int, vfs.name())));
                let result = if rc == 0 {
                    body(Self(db))
                } else {
                    Err(sql_error(rc, &format!("open {path}: {}", text_of(call!(errmsg(db))))))
                };
                call!(close_v2(db));
                result
            }
        })
    }

    /// Puts taps on the schema's open database and WAL files, if they have none (P14).
    /// Whether the database file had none.
    ///
    /// # Errors
    /// A cache that is shared: the files are then used under the mutex of the cache, which we cannot hold.
    pub fn adopt(self, schema: &str, observer: &Arc<dyn Observer>) -> Result<bool> {
        let database = self.file(schema, ffi::SQLITE_FCNTL_FILE_POINTER)?;
        let wal = self.file(schema, ffi::SQLITE_FCNTL_JOURNAL_POINTER)?;
        // SAFETY: the connection has the database open; a file that is not open has no methods.
        let is_new = unsafe { !database.is_null() && !(*database).pMethods.is_null() && !is_tapped(database) };
        if is_new && self.shares_its_cache() {
            return Err(Error::invalid(
                "this connection was opened before the extension was loaded, and shares its cache with another \
                 (cache=shared): close one of them, or load the extension before they are opened",
            ));
        }
        let mut adopted = false;
        for (file, role) in [(database, TapRole::Database), (wal, TapRole::Wal)] {
            // SAFETY: the pointers are this connection's files, which no other thread uses: the call came with the
            // connection's mutex held, and its cache is its own. A file that is not open has no methods.
            unsafe {
                if !file.is_null() && !(*file).pMethods.is_null() && !is_tapped(file) {
                    tap(file, role, Arc::clone(observer));
                    adopted |= role == TapRole::Database;
                }
            }
        }
        Ok(adopted)
    }

    /// The published wal-index header of an adopted schema; `None` without shared memory (P4).
    ///
    /// The connection must have read from the database in WAL mode.
    pub fn wal_index_header(self, schema: &str) -> Result<Option<WalIndexHeader>> {
        let file = self.file(schema, ffi::SQLITE_FCNTL_FILE_POINTER)?;
        if self.query(&format!("PRAGMA {}.locking_mode", quote(schema)))? == ["exclusive"] {
            return Ok(None);
        }
        // SAFETY: the file is tapped (`adopt`), and its WAL is open in normal mode.
        unsafe { if is_tapped(file) { Ok(published_header(file)) } else { Ok(None) } }
    }

    /// An error if the file was renamed, removed or replaced since this connection opened it (P9), where the VFS can tell.
    pub fn refuse_moved(self, schema: &str, path: &str) -> Result<()> {
        let name = CString::new(schema).map_err(|_| Error::invalid("a schema name with a zero byte"))?;
        let (op, mut moved) = (ffi::SQLITE_FCNTL_HAS_MOVED as c_int, 0_i32);
        // SAFETY: the connection is open, the name terminated, and the operation writes an int.
        let rc =
            unsafe { call!(file_control(self.0, name.as_ptr(), op, std::ptr::from_mut(&mut moved).cast::<c_void>())) };
        if rc != ffi::SQLITE_OK as c_int || moved == 0 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{path} was moved, removed or replaced while this connection has it open, and what it commits is in a file \
             without that name: close it, and open the database anew"
        )))
    }

    /// The replica that a schema was opened from through the VFS `litestream`; `None` for any other database.
    pub fn replica(self, schema: &str) -> Option<Arc<dyn ReplicaFile>> {
        let file = self.file(schema, ffi::SQLITE_FCNTL_FILE_POINTER).ok()?;
        // SAFETY: the pointer is this connection's file; the call came with the connection's mutex held.
        unsafe { super::read_file::replica_of(file) }
    }

    fn file(self, schema: &str, op: u32) -> Result<*mut ffi::sqlite3_file> {
        let name = CString::new(schema).map_err(|_| Error::invalid("a schema name with a zero byte"))?;
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        // SAFETY: both opcodes write one pointer.
        let rc = unsafe {
            call!(file_control(self.0, name.as_ptr(), op as c_int, std::ptr::from_mut(&mut file).cast::<c_void>()))
        };
        if rc == 0 { Ok(file) } else { Err(sql_error(rc, &format!("the files of schema {schema} cannot be reached"))) }
    }
}

/// A name in SQL.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql_error(rc: c_int, message: &str) -> Error {
    let kind = match (rc & 0xff) as u32 {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Kind::Busy,
        ffi::SQLITE_INTERRUPT => Kind::Interrupted,
        ffi::SQLITE_FULL => Kind::Full,
        ffi::SQLITE_NOMEM => Kind::Memory,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Kind::Corrupt,
        ffi::SQLITE_CANTOPEN => Kind::NotFound,
        _ => Kind::Io,
    };
    Error::new(kind, message)
}
