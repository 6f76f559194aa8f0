//! Taps on shared memory: the locks by which a commit, a restart and a checkpoint are seen.

use super::tap::{Tap, read_words};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::ffi::{c_int, c_void};
use std::sync::atomic::AtomicBool;

/// The flag of a write whose end is to be told even if nothing is active by then.
static TOLD: AtomicBool = AtomicBool::new(true);

const SHM_UNLOCK: c_int = 1;
const SHM_LOCK: c_int = 2;
const SHM_EXCLUSIVE: c_int = 8;
const WRITE_LOCK: c_int = 0;
/// WAL_READ_LOCK(1), the first of the four that a restart holds.
const RESTART_LOCK: c_int = 4;
const RESTART_LOCKS: c_int = 4;
const CHECKPOINT_LOCK: c_int = 1;
/// WAL_READ_LOCK(0): readers that read the database file alone.
const BACKFILL_LOCK: c_int = 3;

pub(super) unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: called by SQLite on a tapped file, with xShmMap's arguments.
    unsafe {
        let tap = Tap::of(file);
        let Some(map) = tap.base().xShmMap else { return ffi::SQLITE_IOERR as c_int };
        let rc = map(file, region, size, extend, out);
        if region == 0 && rc == 0 {
            tap.mapped((*out).cast::<u8>());
        }
        rc
    }
}

pub(super) unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    n: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: called by SQLite on a tapped file; calls are forwarded as they came.
    unsafe {
        let tap = Tap::of(file);
        if tap.is_active() {
            return shm_lock(file, offset, n, flags);
        }
        if flags & SHM_EXCLUSIVE != 0 {
            // A restart is told whatever the flag says (P13).
            if n == RESTART_LOCKS {
                return shm_lock(file, offset, n, flags);
            }
        } else {
            // A shared lock is counted in any case.
            if flags & SHM_LOCK != 0 {
                return share(file, offset, n, flags);
            }
            tap.read_locks = tap.read_locks.saturating_sub(1);
        }
        (tap.base_shm_lock)(file, offset, n, flags)
    }
}

/// A shared lock is asked for.
///
/// # Safety
/// `file` is tapped.
#[inline(never)]
unsafe extern "C" fn share(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let tap = Tap::of(file);
        let rc = (tap.base_shm_lock)(file, offset, n, flags);
        tap.read_locks += u32::from(rc == 0);
        rc
    }
}

/// # Safety
/// `file` is tapped.
#[inline(never)]
unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let tap = unsafe { Tap::of(file) };
    let lock = tap.base_shm_lock;
    if std::mem::take(&mut tap.exclusive) {
        let _ = guard(|| tap.observer.exclusive_ended());
    }
    if flags & SHM_EXCLUSIVE == 0 {
        // SAFETY: the caller's promise.
        return unsafe { shared_lock(tap, file, offset, n, flags) };
    }
    let is_restart = offset == RESTART_LOCK && n == RESTART_LOCKS;
    let active = tap.is_active();
    if flags & SHM_LOCK != 0 {
        if is_restart {
            let header = tap.header();
            let _ = guard(|| tap.observer.barrier(header.as_ref()));
        }
        if offset == BACKFILL_LOCK && n == 1 && active {
            let _ = guard(|| tap.observer.backfilling());
        }
        // SAFETY: forwarded as it came.
        let rc = unsafe { lock(file, offset, n, flags) };
        if rc == 0 {
            tap.holds_restart_locks |= is_restart;
            if offset == CHECKPOINT_LOCK {
                tell_checkpoint(tap, true);
            }
            if offset == WRITE_LOCK
                && active
                && let Some(header) = tap.header()
            {
                tap.writing = true;
                tap.active = &raw const TOLD;
                let _ = guard(|| tap.observer.write_locked(&header));
            }
        }
        return rc;
    }
    debug_assert!(flags & SHM_UNLOCK != 0);
    // P1: copied and told before forwarding, so that no later commit is told first; a thread is woken after it, so that
    // nobody waits for that. The unlock's own result is ignored by SQLite and so says nothing.
    if offset == CHECKPOINT_LOCK {
        tell_checkpoint(tap, false);
    }
    let publishes = offset == WRITE_LOCK;
    let restarts = is_restart && std::mem::take(&mut tap.holds_restart_locks);
    let header = if active && (publishes || restarts) { tap.header() } else { None };
    if let (true, Some(header)) = (restarts, &header) {
        let _ = guard(|| tap.observer.restarted(header));
    }
    let mut news = false;
    if let (true, Some(header)) = (publishes, &header) {
        news = guard(|| tap.observer.published(header)).unwrap_or(false);
    }
    if publishes && std::mem::take(&mut tap.writing) {
        tap.active = tap.observer.active();
        let _ = guard(|| tap.observer.write_unlocking());
    }
    // SAFETY: forwarded as it came.
    let rc = unsafe { lock(file, offset, n, flags) };
    if news {
        let _ = guard(|| tap.observer.wake());
    }
    rc
}

/// # Safety
/// `file` is tapped by `tap`.
unsafe fn shared_lock(tap: &mut Tap, file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    if flags & SHM_LOCK == 0 {
        tap.read_locks = tap.read_locks.saturating_sub(1);
    }
    // SAFETY: forwarded as it came.
    let rc = unsafe { (tap.base_shm_lock)(file, offset, n, flags) };
    if flags & SHM_LOCK != 0 && rc == 0 {
        tap.read_locks += 1;
        if !tap.told_reading && tap.is_active() {
            tell_reading(tap);
        }
    }
    rc
}

/// A primary may have begun without a connection, by which it would know what is published. Under a read lock the
/// wal-index is valid, after SQLite's recovery if there had to be one (P2).
fn tell_reading(tap: &mut Tap) {
    if let Some(header) = tap.header() {
        tap.told_reading = guard(|| tap.observer.reading(&header)).is_ok();
    }
}

fn tell_checkpoint(tap: &Tap, begins: bool) {
    if tap.is_active() && !tap.shm.is_null() {
        let mut index = [0; 136];
        // SAFETY: the region has 32 KiB, and is mapped while `shm` is set.
        unsafe { read_words(tap.shm, &mut index) };
        let _ = guard(|| tap.observer.checkpoint(begins, &index));
    }
}

pub(super) unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe {
        let tap = Tap::of(file);
        if delete != 0 {
            let header = tap.header();
            let _ = guard(|| {
                tap.observer.barrier(header.as_ref());
                tap.observer.last_close();
            });
        }
        tap.told_reading = false;
        tap.unmapping();
        match tap.base().xShmUnmap {
            Some(unmap) => unmap(file, delete),
            None => 0,
        }
    }
}
