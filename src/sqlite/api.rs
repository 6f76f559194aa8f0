//! The host's API table: set once at load, read everywhere.

use crate::error::{Error, Result};
use sqlite3ext_sys as ffi;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicPtr, Ordering};

static TABLE: AtomicPtr<ffi::sqlite3_api_routines> = AtomicPtr::new(std::ptr::null_mut());

/// The oldest host: `sqlite3_database_file_object` and the rest of what we call are there since 3.32.
const OLDEST_HOST: i32 = 3_032_000;

/// The table. Callers are reached only after [`set`].
pub(super) fn table() -> &'static ffi::sqlite3_api_routines {
    let table = TABLE.load(Ordering::Acquire);
    assert!(!table.is_null(), "BUG: the API table is used before load");
    // SAFETY: `set` stored the pointer that SQLite gave to the entry point; that table is static in the host.
    unsafe { &*table }
}

/// Calls a routine of the table; a host that lacks it fails with a panic, which the guards turn into an error.
macro_rules! call {
    ($name:ident ( $($arg:expr),* $(,)? )) => {
        match $crate::sqlite::api::table().$name {
            Some(routine) => routine($($arg),*),
            None => panic!(concat!("this SQLite has no ", stringify!($name))),
        }
    };
}
pub(super) use call;

/// Remembers the table that an entry point was given.
///
/// # Errors
/// A host that is too old, or a second SQLite in the process: every table after the first must be the same one.
pub(super) fn set(table: *mut ffi::sqlite3_api_routines) -> Result<()> {
    if table.is_null() {
        return Err(Error::invalid("this SQLite gave no API table: it was built with SQLITE_OMIT_LOAD_EXTENSION"));
    }
    let before = TABLE.load(Ordering::Acquire);
    if !before.is_null() && before != table {
        return Err(Error::invalid(
            "liblitestream is already loaded by another copy of SQLite in this process: one process, one SQLite",
        ));
    }
    // SAFETY: libversion_number stands near the table's start, in every version of SQLite that loads extensions.
    let version = unsafe { (*table).libversion_number.map_or(0, |f| f()) };
    if version < OLDEST_HOST {
        return Err(Error::invalid(format!(
            "SQLite {}.{}.{} is too old for liblitestream: 3.32.0 or newer is needed",
            version / 1_000_000,
            version / 1000 % 1000,
            version % 1000
        )));
    }
    TABLE.store(table, Ordering::Release);
    Ok(())
}

type IsInterrupted = unsafe extern "C" fn(*mut ffi::sqlite3) -> std::ffi::c_int;

/// `sqlite3_is_interrupted`, which hosts have since 3.41. The table only ever grows; the layout that we compile against
/// ends two entries before it, behind which `sqlite3_value_encoding` of 3.40 comes first.
pub(super) fn is_interrupted() -> Option<IsInterrupted> {
    const SINCE: i32 = 3_041_000;
    // SAFETY: no arguments.
    if unsafe { call!(libversion_number()) } < SINCE {
        return None;
    }
    // SAFETY: a host of that version gave a table with this entry. The pointer is the host's own, not one to our type.
    unsafe { *TABLE.load(Ordering::Acquire).add(1).cast::<Option<IsInterrupted>>().add(1) }
}

/// A message for `sqlite3_log`, with SQLITE_NOTICE or the given result code.
pub fn log(code: i32, message: &str) {
    if let Ok(text) = CString::new(message.replace('\0', " ")) {
        // SAFETY: the format takes one string, which lives until the call returns.
        unsafe { call!(log(code, c"%s".as_ptr(), text.as_ptr())) }
    }
}

/// A copy of `text` in memory from `sqlite3_malloc`, for SQLite to free; null when there is none.
pub(super) fn sqlite_text(text: &str) -> *mut std::os::raw::c_char {
    let Ok(text) = CString::new(text.replace('\0', " ")) else { return std::ptr::null_mut() };
    // SAFETY: as in `log`.
    unsafe { call!(mprintf(c"%s".as_ptr(), text.as_ptr())) }
}

/// A borrowed C string as text, lossily; empty for null.
///
/// # Safety
/// `text` is null or points to a terminated string.
pub(super) unsafe fn text_of(text: *const std::os::raw::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
