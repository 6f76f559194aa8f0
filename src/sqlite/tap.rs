//! Taps: how SQLite's calls on an open file are seen.
//!
//! A tap is a copy of the file's own method table, in which only the methods that we listen to are ours; `pMethods` of
//! the file points to the copy. The file object itself stays the base VFS's, so every other method (xRead, xFetch,
//! xLock ...) is called directly and costs nothing, and a connection that was opened before the extension was loaded
//! is adopted in the same way (P14). A tap lives from there until the file's xClose.
//!
//! Every database of the process pays for its taps, whether it is replicated or not. So the methods on the commit path
//! are two functions each: a short one, which looks at the observer's flag and goes on to the base VFS's method, and,
//! for a database of which something is to be told, the whole one. Both take the method's own arguments in its own
//! order, so that the short one is a few instructions and a jump.

use super::shared_index::WalIndexStart;
use crate::header;
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The first copy of the wal-index header, 48 bytes in the host's byte order (SQLite's walformat, section 2.1).
pub type WalIndexHeader = [u8; 48];

/// What an observer makes of a PRAGMA.
pub enum PragmaAnswer {
    /// Not ours: SQLite goes on with it.
    Forward,
    /// Ours: one row with this text, or no row.
    Row(Option<String>),
    /// Ours or forbidden: the statement fails with this message.
    Refuse(String),
    /// It fails as `sqlite3_interrupt` says.
    Interrupted,
}

/// Who is told what happens on the files of one database. Calls come on the threads that use the database, often under
/// SQLite's locks: they are quick, take no lock of SQLite, and never fail SQLite's call (P5).
pub trait Observer: Send + Sync {
    /// Whether anything is to be told. Asked first, on every call: the tap keeps a pointer to it.
    fn active(&self) -> &AtomicBool;
    /// The WAL write lock is being given back, or an exclusive connection has committed: what is published (P1, P4).
    /// Told under the lock, so in the order of commits. Whether it is news with content, for which `wake` is to be
    /// called once the lock is given back.
    fn published(&self, header: &WalIndexHeader) -> bool;
    /// The connection holds a read lock for the first time, and this is what is published.
    fn reading(&self, header: &WalIndexHeader);
    /// There is something to capture.
    fn wake(&self);
    /// WAL content is about to be destroyed: all that is published must be captured before this returns (P3), whichever
    /// process captures (P13): told also where nothing is active.
    fn barrier(&self, header: Option<&WalIndexHeader>);
    /// The exclusive read locks of a restart are being given back: the header as the restart left it.
    fn restarted(&self, header: &WalIndexHeader);
    /// Bytes are about to be written to the WAL.
    fn wal_write(&self, offset: u64, bytes: &[u8]);
    /// The WAL is about to be truncated.
    fn wal_truncate(&self);
    /// The WAL is about to be closed. An exclusive connection deletes it then, and has no shared memory to unmap (P4).
    fn wal_closing(&self);
    /// The write lock was just taken: what is published now, by whomever.
    fn write_locked(&self, header: &WalIndexHeader);
    /// It is about to be given back, after what it has published was told.
    fn write_unlocking(&self);
    /// An exclusive connection, which takes no locks and may have no shared memory, has committed (P4). As `published`.
    fn committed_exclusively(&self, header: Option<&WalIndexHeader>) -> bool;
    /// It takes locks again.
    fn exclusive_ended(&self);
    /// Bytes of the database are about to be overwritten, as by a checkpoint.
    fn database_write(&self, offset: u64, length: u64);
    /// The shared memory is being given up by the database's last connection.
    fn last_close(&self);
    /// A connection has closed the database file.
    fn closed(&self);
    /// The connection has the wal-index mapped from here on.
    fn index_mapped(&self);
    /// It is about to unmap it.
    fn index_unmapping(&self);
    /// A checkpoint is about to ask for the lock under which it writes to the database.
    fn backfilling(&self);
    /// A checkpoint of this process begins, or ends: the wal-index under the checkpoint lock.
    fn checkpoint(&self, begins: bool, index: &WalIndexStart);
    /// A write to the WAL, or its sync, has failed: what was written is no commit (P4).
    fn wal_failed(&self);
    /// A lock of the database file is asked for, by `lock`. `begins`: the connection has none yet.
    fn locking(&self, begins: bool, lock: &mut dyn FnMut());
    /// The database is about to leave WAL mode. Whether that is refused (P16).
    fn refuses_to_leave_wal(&self) -> bool;
    /// A commit in rollback mode is being written to the database (P16).
    fn rollback_commit(&self);
    /// A PRAGMA was given for this database. `cancelled` is asked while something is waited for.
    fn pragma(&self, name: &str, argument: Option<&str>, cancelled: &dyn Fn() -> bool) -> PragmaAnswer;
}

type Write = unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, i64) -> c_int;
type ShmLock = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int, c_int, c_int) -> c_int;
type FileControl = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int, *mut c_void) -> c_int;

#[repr(C)]
pub(super) struct Tap {
    /// First, so that `pMethods` is a pointer to the tap.
    methods: ffi::sqlite3_io_methods,
    base: *const ffi::sqlite3_io_methods,
    /// The observer's flag; [`TOLD`] while the beginning of a write was told and its end was not.
    pub(super) active: *const AtomicBool,
    // The base VFS's methods that the short paths go on to.
    base_write: Write,
    pub(super) base_shm_lock: ShmLock,
    pub(super) base_file_control: FileControl,
    pub(super) observer: Arc<dyn Observer>,
    /// The first region of the wal-index while it is mapped. Only the connection's own thread touches it (P1).
    pub(super) shm: *const u8,
    /// Read locks that the connection holds. In normal mode it has one at COMMIT_PHASETWO; an exclusive one takes none.
    pub(super) read_locks: u32,
    /// Its last commit was told as exclusive.
    pub(super) exclusive: bool,
    /// `reading` was told.
    pub(super) told_reading: bool,
    /// `write_locked` was told.
    pub(super) writing: bool,
    /// It holds the read locks of a restart (P3 a).
    pub(super) holds_restart_locks: bool,
    /// The last file control asked whether the file was moved, as SQLite does right before a last close.
    pub(super) closing: bool,
    /// Where SQLite keeps the connection that is using the file (SQLITE_FCNTL_PDB), as long as it is open; null of an
    /// adopted one: SQLite says it once, at the open.
    pub(super) db: *mut *mut ffi::sqlite3,
    role: TapRole,
}

impl Tap {
    /// The tap of a tapped file.
    pub(super) unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Self {
        // SAFETY: only methods of a tap call this, so pMethods points to the first field of a live Tap, and SQLite
        // serialises calls on one file.
        unsafe { &mut *(*file).pMethods.cast_mut().cast::<Self>() }
    }

    pub(super) fn base(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: the base VFS's table outlives its open files.
        unsafe { &*self.base }
    }

    /// Whether anything is to be told.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        // SAFETY: the flag is static, or the observer's, which the tap keeps alive.
        unsafe { (*self.active).load(Ordering::Acquire) }
    }

    /// The published header, if the wal-index is mapped.
    pub(super) fn header(&self) -> Option<WalIndexHeader> {
        if self.shm.is_null() {
            return None;
        }
        let mut copy = [0; 48];
        // SAFETY: the region has 32 KiB, and is mapped while `shm` is set.
        unsafe { read_words(self.shm, &mut copy) };
        Some(copy)
    }

    /// The first region of the wal-index is mapped.
    pub(super) fn mapped(&mut self, region: *const u8) {
        if self.shm.is_null() && !region.is_null() {
            let _ = guard(|| self.observer.index_mapped());
        }
        self.shm = region;
    }

    /// It is about to be unmapped.
    pub(super) fn unmapping(&mut self) {
        if !std::mem::replace(&mut self.shm, std::ptr::null()).is_null() {
            let _ = guard(|| self.observer.index_unmapping());
        }
    }
}

/// Copies the start of a wal-index, word by word, as SQLite reads it.
///
/// # Safety
/// `region` is mapped, 4-byte aligned, and at least as long as `copy`, whose length is a multiple of 4.
pub(super) unsafe fn read_words(region: *const u8, copy: &mut [u8]) {
    fence(Ordering::SeqCst);
    for (word, out) in copy.chunks_exact_mut(4).enumerate() {
        // SAFETY: the caller's promise.
        let value = unsafe { region.cast::<u32>().add(word).read_volatile() };
        out.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Whether the file is tapped already: no other table has our xClose. (A list of taps would need a lock, which a forked
/// child could find held.)
pub(super) unsafe fn is_tapped(file: *mut ffi::sqlite3_file) -> bool {
    // SAFETY: the caller gives an open file, whose table is readable.
    let close = unsafe { (*file).pMethods.as_ref().and_then(|methods| methods.xClose) };
    close.is_some_and(|close| close as usize == x_close as *const () as usize)
}

/// What a tap listens to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TapRole {
    Database,
    Wal,
}

/// Puts a tap on an open file.
///
/// # Safety
/// `file` is open, and no other thread uses it during the call.
pub(super) unsafe fn tap(file: *mut ffi::sqlite3_file, role: TapRole, observer: Arc<dyn Observer>) {
    // SAFETY: the file is open, so pMethods is a table of at least iVersion 1.
    let (base, methods) = unsafe {
        let base = (*file).pMethods;
        (base, copy_methods(base))
    };
    let tap = Box::new(Tap {
        active: observer.active(),
        base_write: methods.xWrite.unwrap_or(no_write),
        base_shm_lock: methods.xShmLock.unwrap_or(no_shm_lock),
        base_file_control: methods.xFileControl.unwrap_or(no_file_control),
        methods: tapped(methods, role),
        base,
        observer,
        shm: std::ptr::null(),
        read_locks: 0,
        exclusive: false,
        told_reading: false,
        writing: false,
        holds_restart_locks: false,
        closing: false,
        db: std::ptr::null_mut(),
        role,
    });
    let tap = Box::into_raw(tap);
    // SAFETY: `tap` is live until x_close; it starts with a method table.
    unsafe { (*file).pMethods = tap.cast() };
}

/// The table with the methods that we listen to replaced. A method that the base lacks stays absent: its absence is how
/// SQLite learns what the file can do.
fn tapped(mut methods: ffi::sqlite3_io_methods, role: TapRole) -> ffi::sqlite3_io_methods {
    methods.xClose = Some(x_close);
    match role {
        TapRole::Database => {
            methods.xWrite = Some(x_write_database);
            methods.xTruncate = Some(x_truncate_database);
            methods.xLock = methods.xLock.map(|_| super::control::x_lock as _);
            methods.xFileControl = Some(super::control::x_file_control);
            methods.xShmMap = methods.xShmMap.map(|_| super::shm::x_shm_map as _);
            methods.xShmLock = methods.xShmLock.map(|_| super::shm::x_shm_lock as _);
            methods.xShmUnmap = methods.xShmUnmap.map(|_| super::shm::x_shm_unmap as _);
        }
        TapRole::Wal => {
            methods.xWrite = Some(x_write_wal);
            methods.xTruncate = Some(x_truncate_wal);
            methods.xSync = Some(super::control::x_sync_wal);
        }
    }
    methods
}

unsafe extern "C" fn no_write(_: *mut ffi::sqlite3_file, _: *const c_void, _: c_int, _: i64) -> c_int {
    ffi::SQLITE_IOERR as c_int
}

unsafe extern "C" fn no_shm_lock(_: *mut ffi::sqlite3_file, _: c_int, _: c_int, _: c_int) -> c_int {
    ffi::SQLITE_IOERR as c_int
}

unsafe extern "C" fn no_file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND as c_int
}

/// Copies a method table; fields beyond its iVersion are absent, in memory too.
unsafe fn copy_methods(base: *const ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods {
    // SAFETY: all-zero is valid for optional function pointers and integers; each field is read only if the table's
    // version has it.
    unsafe {
        let b = &raw const *base;
        let mut m: ffi::sqlite3_io_methods = std::mem::zeroed();
        m.iVersion = (*b).iVersion.min(3);
        m.xClose = (*b).xClose;
        m.xRead = (*b).xRead;
        m.xWrite = (*b).xWrite;
        m.xTruncate = (*b).xTruncate;
        m.xSync = (*b).xSync;
        m.xFileSize = (*b).xFileSize;
        m.xLock = (*b).xLock;
        m.xUnlock = (*b).xUnlock;
        m.xCheckReservedLock = (*b).xCheckReservedLock;
        m.xFileControl = (*b).xFileControl;
        m.xSectorSize = (*b).xSectorSize;
        m.xDeviceCharacteristics = (*b).xDeviceCharacteristics;
        if m.iVersion >= 2 {
            m.xShmMap = (*b).xShmMap;
            m.xShmLock = (*b).xShmLock;
            m.xShmBarrier = (*b).xShmBarrier;
            m.xShmUnmap = (*b).xShmUnmap;
        }
        if m.iVersion >= 3 {
            m.xFetch = (*b).xFetch;
            m.xUnfetch = (*b).xUnfetch;
        }
        m
    }
}

/// The published header of a tapped file. The tap of an adopted file learns here where its wal-index is: asking for the
/// first region again gives the address at which it is mapped already.
///
/// # Safety
/// `file` is tapped as a database, and its connection has the WAL open in normal locking mode.
pub(super) unsafe fn published_header(file: *mut ffi::sqlite3_file) -> Option<WalIndexHeader> {
    // SAFETY: the caller's promise; xShmMap of a mapped region returns its address.
    unsafe {
        let tap = Tap::of(file);
        if tap.shm.is_null() {
            let map = tap.base().xShmMap?;
            let mut region = std::ptr::null_mut();
            if map(file, 0, 32768, 0, &mut region) != 0 || region.is_null() {
                return None;
            }
            tap.mapped(region.cast::<u8>());
        }
        tap.header()
    }
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a tapped file once; after this nobody reaches the tap, so the box is ours again.
    unsafe {
        let tap = (*file).pMethods.cast_mut().cast::<Tap>();
        let is_database = (*tap).role == TapRole::Database;
        (*tap).unmapping();
        let observer = Arc::clone(&(*tap).observer);
        if !is_database && (*tap).is_active() {
            let _ = guard(|| observer.wal_closing());
        }
        (*file).pMethods = (*tap).base;
        drop(Box::from_raw(tap));
        let rc = match (*file).pMethods.as_ref().and_then(|m| m.xClose) {
            Some(close) => close(file),
            None => 0,
        };
        if is_database {
            let _ = guard(|| observer.closed());
        }
        rc
    }
}

unsafe extern "C" fn x_write_database(file: *mut ffi::sqlite3_file, data: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: called by SQLite on a tapped file, with xWrite's arguments.
    unsafe {
        let tap = Tap::of(file);
        if tap.is_active() {
            let version_at = header::VERSIONS.start;
            let version = (at == 0 && n as usize > version_at).then(|| *data.cast::<u8>().add(version_at));
            let _ = guard(|| {
                tap.observer.database_write(at as u64, n as u64);
                if version == Some(header::ROLLBACK) {
                    tap.observer.rollback_commit();
                }
            });
        }
        match tap.base().xWrite {
            Some(write) => write(file, data, n, at),
            None => ffi::SQLITE_IOERR as c_int,
        }
    }
}

unsafe extern "C" fn x_truncate_database(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe { truncate(file, size, |observer| observer.database_write(size as u64, u64::MAX)) }
}

unsafe extern "C" fn x_truncate_wal(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: called by SQLite on a tapped file.
    unsafe { truncate(file, size, |observer| observer.wal_truncate()) }
}

unsafe fn truncate(file: *mut ffi::sqlite3_file, size: i64, tell: impl FnOnce(&dyn Observer)) -> c_int {
    // SAFETY: the caller gives a tapped file.
    unsafe {
        let tap = Tap::of(file);
        if tap.is_active() {
            let _ = guard(|| tell(tap.observer.as_ref()));
        }
        match tap.base().xTruncate {
            Some(truncate) => truncate(file, size),
            None => ffi::SQLITE_IOERR as c_int,
        }
    }
}

unsafe extern "C" fn x_write_wal(file: *mut ffi::sqlite3_file, data: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: as above.
    unsafe {
        let tap = Tap::of(file);
        if tap.is_active() { write_wal(file, data, n, at) } else { (tap.base_write)(file, data, n, at) }
    }
}

/// # Safety
/// `file` is tapped; `data` has `n` bytes.
#[inline(never)]
unsafe extern "C" fn write_wal(file: *mut ffi::sqlite3_file, data: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let tap = Tap::of(file);
        // Only headers matter: the WAL's (32 bytes) and the frames' (24).
        if n == 24 || n == 32 {
            let bytes = std::slice::from_raw_parts(data.cast::<u8>(), n as usize);
            let _ = guard(|| tap.observer.wal_write(at as u64, bytes));
        }
        let rc = (tap.base_write)(file, data, n, at);
        super::control::tell_failure(tap, rc)
    }
}
