//! What a tap makes of file controls, the publication of an exclusive connection (P4), PRAGMAs, the name of the VFS, of
//! a database that is about to leave WAL mode (P16), and of a WAL that cannot be synced.

use super::read_file::Waiting;
use super::tap::{PragmaAnswer, Tap};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::ffi::{c_int, c_void};

pub(super) unsafe extern "C" fn x_file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe {
        let tap = Tap::of(file);
        let is_plain =
            !matches!(op as u32, ffi::SQLITE_FCNTL_VFSNAME | ffi::SQLITE_FCNTL_PRAGMA | ffi::SQLITE_FCNTL_PDB);
        if is_plain && !tap.is_active() {
            return (tap.base_file_control)(file, op, arg);
        }
        file_control(file, op, arg)
    }
}

/// # Safety
/// `file` is tapped; `arg` is what the opcode says.
#[inline(never)]
unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let tap = Tap::of(file);
        tap.closing = op as u32 == ffi::SQLITE_FCNTL_HAS_MOVED;
        match op as u32 {
            // P4: the locks are not used, so the connection is exclusive, and the header is its own.
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO if tap.read_locks == 0 && tap.is_active() => {
                let header = tap.header();
                tap.exclusive = true;
                let _ = guard(|| {
                    if tap.observer.committed_exclusively(header.as_ref()) {
                        tap.observer.wake();
                    }
                });
            }
            ffi::SQLITE_FCNTL_PRAGMA => {
                let waiting = Waiting::in_pragma(tap.db);
                let answer = |name: &str, argument: Option<&str>| {
                    tap.observer.pragma(name, argument, &|| waiting.is_interrupted())
                };
                if let Some(rc) = pragma(arg.cast(), answer) {
                    return rc;
                }
            }
            ffi::SQLITE_FCNTL_PDB => tap.db = arg.cast(),
            _ => {}
        }
        let rc = (tap.base_file_control)(file, op, arg);
        if op as u32 == ffi::SQLITE_FCNTL_VFSNAME && rc == 0 && !arg.is_null() {
            let name = arg.cast::<*mut std::os::raw::c_char>();
            let below = super::api::text_of(*name);
            super::api::call!(free((*name).cast()));
            *name = super::api::sqlite_text(&format!("{}/{below}", super::shim::VFS_NAME));
        }
        rc
    }
}

/// SQLITE_FCNTL_PRAGMA: `[result, name, argument]`. `None`: SQLite goes on.
///
/// # Safety
/// `args` is what SQLite gave with the opcode.
pub(super) unsafe fn pragma(
    args: *mut *mut std::os::raw::c_char,
    answer: impl FnOnce(&str, Option<&str>) -> PragmaAnswer,
) -> Option<c_int> {
    // SAFETY: the opcode's array has at least three entries; the first is where a result or message goes.
    unsafe {
        let name = super::api::text_of(*args.add(1));
        let argument = *args.add(2);
        let argument = (!argument.is_null()).then(|| super::api::text_of(argument));
        match guard(|| answer(&name, argument.as_deref())) {
            Ok(PragmaAnswer::Forward) => None,
            Ok(PragmaAnswer::Row(Some(text))) => {
                *args = super::api::sqlite_text(&text);
                Some(0)
            }
            // Done. SQLite would make a column without a name of it, which bindings take for a lack of memory; a
            // PRAGMA that nobody knows has no column.
            Ok(PragmaAnswer::Row(None)) => Some(ffi::SQLITE_NOTFOUND as c_int),
            Ok(PragmaAnswer::Refuse(message)) => {
                *args = super::api::sqlite_text(&message);
                Some(ffi::SQLITE_ERROR as c_int)
            }
            Ok(PragmaAnswer::Interrupted) => {
                *args = super::api::sqlite_text("interrupted");
                Some(ffi::SQLITE_INTERRUPT as c_int)
            }
            Err(error) => {
                *args = super::api::sqlite_text(&error.to_string());
                Some(ffi::SQLITE_ERROR as c_int)
            }
        }
    }
}

/// The lock by which a transaction begins, or goes on.
///
/// P16: `PRAGMA journal_mode` without a schema takes attached databases out of WAL mode, and asks only for `main`. It
/// takes the exclusive lock of the database file for it, with the WAL open. So do a last close, which has asked whether
/// the file was moved, and a connection that becomes exclusive, which is in a transaction.
pub(super) unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe {
        let tap = Tap::of(file);
        let closing = std::mem::take(&mut tap.closing);
        if level == ffi::SQLITE_LOCK_EXCLUSIVE as c_int
            && !closing
            && tap.read_locks == 0
            && !tap.shm.is_null()
            && tap.is_active()
            && guard(|| tap.observer.refuses_to_leave_wal()).unwrap_or(false)
        {
            return ffi::SQLITE_BUSY as c_int;
        }
        let Some(lock) = tap.base().xLock else { return ffi::SQLITE_IOERR as c_int };
        if !tap.is_active() {
            return lock(file, level);
        }
        let (begins, mut rc) = (level == ffi::SQLITE_LOCK_SHARED as c_int, None);
        let _ = guard(|| tap.observer.locking(begins, &mut || rc = Some(lock(file, level))));
        rc.unwrap_or_else(|| lock(file, level))
    }
}

pub(super) unsafe extern "C" fn x_sync_wal(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe {
        let tap = Tap::of(file);
        let rc = match tap.base().xSync {
            Some(sync) => sync(file, flags),
            None => ffi::SQLITE_IOERR as c_int,
        };
        tell_failure(tap, rc)
    }
}

/// P4: what could not be written or synced is no commit.
pub(super) fn tell_failure(tap: &Tap, rc: c_int) -> c_int {
    if rc != 0 && tap.is_active() {
        let _ = guard(|| tap.observer.wal_failed());
    }
    rc
}
