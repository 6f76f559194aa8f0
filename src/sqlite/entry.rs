//! The entry points that SQLite calls by name.

use super::api::{self, call};
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::panic::{guard, silence};
use sqlite_loadable::entrypoints::register_entrypoint_load_permanently;
use sqlite3ext_sys as ffi;
use std::ffi::{c_char, c_int};

const OK_LOAD_PERMANENTLY: c_int = 256;

/// The entry point of `liblitestream`: registers the shim, and the SQL surface on this and all later connections.
///
/// # Safety
/// Called by SQLite, with the arguments of an extension's entry point.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_litestream_init(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    table: *mut ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { init(db, message, table, || Ok(())) }
}

/// The entry point of Litestream's VFS extension, in whose place this library may be loaded: the same load. What
/// Litestream does and we do not is refused here, where there is a message.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_litestreamvfs_init(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    table: *mut ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { init(db, message, table, crate::vfs::replica::check_environment) }
}

/// # Safety
/// Called with the arguments of an extension's entry point.
unsafe fn init(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    table: *mut ffi::sqlite3_api_routines,
    check: impl FnOnce() -> Result<()>,
) -> c_int {
    silence();
    let outcome = guard(|| {
        api::set(table)?;
        check()?;
        register_entrypoint_load_permanently(db.cast(), message, table.cast(), |_| Ok(()));
        let db = Connection::new(db);
        check_host(db)?;
        crate::load(db)?;
        register_for_later_connections()
    });
    match outcome.and_then(|r| r) {
        Ok(()) => OK_LOAD_PERMANENTLY,
        Err(error) => {
            // SAFETY: SQLite gives a place for a message, which it frees.
            unsafe {
                if !message.is_null() && guard(api::table).is_ok() {
                    *message = api::sqlite_text(&error.to_string());
                }
            }
            ffi::SQLITE_ERROR as c_int
        }
    }
}

/// The API table must be that of the SQLite to which the connection belongs.
fn check_host(db: Connection) -> Result<()> {
    // SAFETY: no arguments; the result is static.
    let table = unsafe { api::text_of(call!(sourceid())) };
    let host = db.query("SELECT sqlite_source_id()")?;
    if host.first() != Some(&table) {
        return Err(Error::invalid(
            "the API table is not that of this connection's SQLite: two SQLites in one process",
        ));
    }
    Ok(())
}

/// Functions are defined on every connection that is opened from now on. Told at each load: `sqlite3_shutdown` forgets
/// it, and SQLite takes it once only (P33).
fn register_for_later_connections() -> Result<()> {
    type Plain = unsafe extern "C" fn();
    type Entry = unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;
    let entry: Entry = later_connection;
    // SAFETY: SQLite calls it as an entry point, whatever its declared type.
    let rc = unsafe { call!(auto_extension(Some(std::mem::transmute::<Entry, Plain>(entry)))) };
    if rc == 0 { Ok(()) } else { Err(Error::bug(format!("sqlite3_auto_extension gave {rc}"))) }
}

/// A failure here would fail the host's open, so there is none: what cannot be defined is logged.
unsafe extern "C" fn later_connection(
    db: *mut ffi::sqlite3,
    _message: *mut *mut c_char,
    _table: *const ffi::sqlite3_api_routines,
) -> c_int {
    if super::lifetime::is_unseen() {
        return ffi::SQLITE_OK as c_int;
    }
    let outcome = guard(|| crate::sql::define(Connection::new(db)));
    if let Err(error) = outcome.and_then(|r| r) {
        let _ = guard(|| api::log(ffi::SQLITE_WARNING as c_int, &format!("litestream: {error}")));
    }
    ffi::SQLITE_OK as c_int
}
