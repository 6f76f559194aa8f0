//! A file that the VFS `litestream` has opened: a replica, read-only, as a database file in rollback mode.
//!
//! Its method table is that of version 1: without shared memory SQLite does not take it for WAL mode, and without
//! xFetch `mmap_size` does nothing. SQLite's SHARED lock pins a state, the end of the lock lets it go (R10).

use super::api::{self, sqlite_text};
use super::connection::Connection;
use super::control::pragma;
use super::tap::PragmaAnswer;
use crate::error::{Error, Kind, Result};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::any::Any;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One open replica. SQLite uses it by one thread at a time; SQL functions of its connection come in between.
pub trait ReplicaFile: Any + Send + Sync {
    /// A read transaction begins: until its end, one state is read.
    ///
    /// # Errors
    /// No state can be read.
    fn begin(&self) -> Result<()>;
    /// It ends.
    fn end(&self);
    /// SQLite takes no lock on the file, so nothing tells where a transaction ends: one state is read for good.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn hold(&self) -> Result<()>;
    /// Bytes of the state.
    fn size(&self) -> u64;
    /// Fills `into`, which is all zeros, from `offset`. `false`: it goes beyond the end. `cancelled` is asked while
    /// something is waited for.
    ///
    /// # Errors
    /// What cannot be had, or is damaged; [`Kind::Interrupted`].
    fn read(&self, offset: u64, into: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result<bool>;
    /// A PRAGMA was given for this database. `cancelled` as for [`read`](Self::read).
    fn pragma(&self, name: &str, argument: Option<&str>, cancelled: &dyn Fn() -> bool) -> PragmaAnswer;
}

/// Result codes of ours are SQLITE_IOERR with these numbers, far above those that SQLite uses; `include/litestream.h`
/// names them.
const fn io_error(number: c_int) -> c_int {
    ffi::SQLITE_IOERR as c_int | number << 8
}

const GONE: c_int = io_error(200);
const RESTARTED: c_int = io_error(201);
const CORRUPT: c_int = io_error(202);
const UNAVAILABLE: c_int = io_error(203);
/// SQLITE_IOERR_READ.
const READ: c_int = io_error(1);
/// SQLITE_IOERR_SHORT_READ.
const SHORT_READ: c_int = io_error(2);
const OK: c_int = ffi::SQLITE_OK as c_int;
const READONLY: c_int = ffi::SQLITE_READONLY as c_int;

/// What SQLite is told. The sentence stands in the log and in the status.
fn code_of(error: &Error) -> c_int {
    match error.kind() {
        Kind::NotFound => GONE,
        Kind::Conflict | Kind::Diverged => RESTARTED,
        Kind::Corrupt => CORRUPT,
        Kind::Unavailable | Kind::Denied | Kind::Timeout => UNAVAILABLE,
        Kind::Interrupted => ffi::SQLITE_INTERRUPT as c_int,
        _ => READ,
    }
}

/// The file object, as SQLite has allocated it.
#[repr(C)]
pub(super) struct ReadFile {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    file: Arc<dyn ReplicaFile>,
    /// Where SQLite keeps the connection that is using the file (SQLITE_FCNTL_PDB); null before the open is through.
    db: *mut *mut ffi::sqlite3,
    level: c_int,
    /// A nested statement may be stepped while SQLite is inside a read. With a shared cache it may not: preparing it can
    /// give up the mutex of the very cache that is being read into.
    may_nest: bool,
}

/// Makes `file` a replica.
///
/// # Safety
/// `file` has the bytes of a [`ReadFile`], and is not open.
pub(super) unsafe fn set_up(file: *mut ffi::sqlite3_file, replica: Arc<dyn ReplicaFile>, shares_cache: bool) {
    let open = Open { file: replica, db: std::ptr::null_mut(), level: 0, may_nest: !shares_cache };
    // SAFETY: the caller's promise.
    unsafe {
        (*file.cast::<ReadFile>()).open = Box::into_raw(Box::new(open));
        (*file).pMethods = &raw const METHODS;
    }
}

/// The replica behind an open file; `None` for a file of another VFS.
///
/// # Safety
/// `file` is null, or a file that nobody uses during the call.
pub(super) unsafe fn replica_of(file: *mut ffi::sqlite3_file) -> Option<Arc<dyn ReplicaFile>> {
    // SAFETY: the caller's promise; no other table is ours.
    unsafe {
        let is_ours = !file.is_null() && std::ptr::eq((*file).pMethods, &raw const METHODS);
        is_ours.then(|| Arc::clone(&open_of(file).file))
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `file` was set up, and is open. SQLite serialises the calls on one file.
unsafe fn open_of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<ReadFile>()).open }
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: called by SQLite on a file of ours; nobody uses it after this.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let open = std::mem::replace(&mut (*file.cast::<ReadFile>()).open, std::ptr::null_mut());
        let _ = guard(|| drop(Box::from_raw(open)));
    }
    OK
}

unsafe extern "C" fn x_read(file: *mut ffi::sqlite3_file, out: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: called by SQLite on a file of ours; `out` has `n` bytes, which are zeros before they are a slice. What is
    // not read stays so.
    unsafe {
        let length = usize::try_from(n).unwrap_or(0);
        out.cast::<u8>().write_bytes(0, length);
        let into = std::slice::from_raw_parts_mut(out.cast::<u8>(), length);
        let open = open_of(file);
        let waiting = Waiting::of(open);
        let read = guard(|| open.file.read(u64::try_from(at).unwrap_or(0), into, &|| waiting.is_interrupted()));
        match read.and_then(|read| read) {
            Ok(true) => OK,
            Ok(false) => SHORT_READ,
            Err(error) => code_of(&error),
        }
    }
}

/// Somebody inside a read, or a PRAGMA, waits for the store.
pub(super) struct Waiting {
    db: *mut *mut ffi::sqlite3,
    may_nest: bool,
    /// When a nested statement may ask next.
    next: Cell<Option<Instant>>,
}

impl Waiting {
    /// The application's hooks see nested statements: there are none in a short wait, and few in a long one.
    const NEST_INTERVAL: Duration = Duration::from_millis(100);

    fn of(open: &Open) -> Self {
        Self { db: open.db, may_nest: open.may_nest, next: Cell::new(None) }
    }

    /// While a PRAGMA is prepared nothing runs: a nested statement would take the interruption back. `db` is null, or
    /// where SQLite keeps the connection that uses the file.
    pub(super) fn in_pragma(db: *mut *mut ffi::sqlite3) -> Self {
        Self { db, may_nest: false, next: Cell::new(None) }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        if self.db.is_null() {
            return false;
        }
        // SAFETY: SQLite keeps the place as long as the file is open. The thread that reads has that connection's mutex.
        let db = unsafe { *self.db };
        if db.is_null() {
            return false;
        }
        let connection = Connection::new(db);
        if api::is_interrupted().is_some() {
            return connection.is_interrupted();
        }
        let (now, due) = (Instant::now(), self.next.get());
        if due.is_some_and(|due| now < due) {
            return false;
        }
        self.next.set(Some(now + Self::NEST_INTERVAL));
        // The first question only starts the clock.
        due.is_some() && self.may_nest && connection.is_interrupted()
    }
}

unsafe extern "C" fn x_write(_: *mut ffi::sqlite3_file, _: *const c_void, _: c_int, _: i64) -> c_int {
    READONLY
}

unsafe extern "C" fn x_truncate(_: *mut ffi::sqlite3_file, _: i64) -> c_int {
    READONLY
}

unsafe extern "C" fn x_sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    OK
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: called by SQLite on a file of ours.
    unsafe {
        match guard(|| open_of(file).file.size()) {
            Ok(bytes) => {
                *out = i64::try_from(bytes).unwrap_or(i64::MAX);
                OK
            }
            Err(_) => READ,
        }
    }
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: called by SQLite on a file of ours.
    let open = unsafe { open_of(file) };
    if level > ffi::SQLITE_LOCK_SHARED as c_int {
        return READONLY;
    }
    if level <= open.level {
        return OK;
    }
    match guard(|| open.file.begin()).and_then(|begun| begun) {
        Ok(()) => {
            open.level = level;
            OK
        }
        Err(error) => code_of(&error),
    }
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: called by SQLite on a file of ours.
    let open = unsafe { open_of(file) };
    if level == ffi::SQLITE_LOCK_NONE as c_int && open.level != level {
        open.level = level;
        let _ = guard(|| open.file.end());
    }
    OK
}

unsafe extern "C" fn x_check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: called by SQLite, with a place for the answer.
    unsafe { *out = 0 };
    OK
}

unsafe extern "C" fn x_file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    let not_found = ffi::SQLITE_NOTFOUND as c_int;
    // SAFETY: called by SQLite on a file of ours; `arg` is what the opcode says.
    unsafe {
        let open = open_of(file);
        match op as u32 {
            ffi::SQLITE_FCNTL_PRAGMA => {
                let waiting = Waiting::in_pragma(open.db);
                let answer =
                    |name: &str, argument: Option<&str>| open.file.pragma(name, argument, &|| waiting.is_interrupted());
                pragma(arg.cast(), answer).unwrap_or(not_found)
            }
            ffi::SQLITE_FCNTL_VFSNAME => {
                *arg.cast() = sqlite_text(super::read_vfs::VFS_NAME);
                OK
            }
            ffi::SQLITE_FCNTL_PDB => {
                open.db = arg.cast();
                OK
            }
            ffi::SQLITE_FCNTL_HAS_MOVED => {
                *arg.cast::<c_int>() = 0;
                OK
            }
            _ => not_found,
        }
    }
}

unsafe extern "C" fn x_sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// Not immutable: it follows its primary.
unsafe extern "C" fn x_device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}
