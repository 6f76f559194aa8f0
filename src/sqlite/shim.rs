//! The VFS `litestream-primary`: the default VFS of the host, wrapped. It opens files through the base VFS, and puts
//! taps on databases and their WALs; everything else is the base VFS's.

use super::api::call;
use super::tap::{Observer, TapRole, tap};
use crate::error::{Error, Kind, Result};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

/// The name under which the shim is registered.
pub(super) const VFS_NAME: &str = "litestream-primary";
const VFS_NAME_C: &std::ffi::CStr = c"litestream-primary";

/// Who is told of files that are opened through the shim.
pub trait Shim: Send + Sync {
    /// A database is about to be opened by a URI with these parameters; `path` is its full path. `is_read_only`: it is
    /// opened for reading alone.
    ///
    /// # Errors
    /// The open fails with SQLITE_CANTOPEN, for the reason that stands in `sqlite3_log`.
    fn opening(&self, path: &str, parameters: &[(String, String)], is_read_only: bool) -> Result<()>;
    /// A database was opened; `path` is its full path. Who listens to it?
    fn database_opened(&self, path: &str) -> Option<Arc<dyn Observer>>;
    /// The WAL of the database at `database` was opened.
    fn wal_opened(&self, database: &str) -> Option<Arc<dyn Observer>>;
}

struct Registered {
    vfs: ffi::sqlite3_vfs,
    base: BaseVfs,
    shim: Arc<dyn Shim>,
}

// SAFETY: the struct is written once, before it is registered; SQLite changes only pNext, under its own mutex.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

static REGISTERED: OnceLock<Box<Registered>> = OnceLock::new();

/// The VFS below the shim: the default one at load.
#[derive(Clone, Copy)]
pub struct BaseVfs(*mut ffi::sqlite3_vfs);

// SAFETY: a registered VFS is static, and its methods may be called from any thread.
unsafe impl Send for BaseVfs {}
// SAFETY: as above.
unsafe impl Sync for BaseVfs {}

impl BaseVfs {
    fn get(&self) -> &ffi::sqlite3_vfs {
        // SAFETY: a registered VFS is not freed.
        unsafe { &*self.0 }
    }

    /// The name under which it is registered.
    pub(super) fn name(&self) -> *const c_char {
        self.get().zName
    }

    /// Bytes of a file object.
    pub(super) fn file_size(&self) -> usize {
        usize::try_from(self.get().szOsFile).unwrap_or(0)
    }

    /// xOpen.
    ///
    /// # Safety
    /// As SQLite calls xOpen: `file` has `file_size` bytes, `name` outlives the file and has zeros around it.
    pub(super) unsafe fn open(
        &self,
        name: *const c_char,
        file: *mut ffi::sqlite3_file,
        flags: c_int,
        out: *mut c_int,
    ) -> c_int {
        match self.get().xOpen {
            // SAFETY: the caller's promise.
            Some(open) => unsafe { open(self.0, name, file, flags, out) },
            None => ffi::SQLITE_CANTOPEN as c_int,
        }
    }

    /// The path as xOpen will see it: absolute, links resolved as the base VFS does.
    pub fn full_path(&self, path: &str) -> Result<String> {
        let text = CString::new(path).map_err(|_| Error::invalid("a path with a zero byte"))?;
        let mut out = vec![0_u8; usize::try_from(self.get().mxPathname).unwrap_or(512) + 1];
        let Some(full) = self.get().xFullPathname else { return Ok(path.to_owned()) };
        // SAFETY: the buffer has the length that is passed.
        let rc = unsafe { full(self.0, text.as_ptr(), out.len() as c_int, out.as_mut_ptr().cast()) };
        // SQLITE_OK_SYMLINK is a success.
        if rc & 0xff != 0 {
            return Err(Error::invalid(format!("{path}: no full path can be made of it (SQLite result {rc})")));
        }
        let end = out.iter().position(|b| *b == 0).unwrap_or(out.len());
        out.truncate(end);
        String::from_utf8(out).map_err(|_| Error::invalid(format!("{path}: its full path is not UTF-8")))
    }
}

/// To be asked before anything is registered: what a load that fails leaves behind is in a library that is unloaded.
///
/// # Errors
/// Another copy of the library is loaded.
pub(super) fn refuse_another() -> Result<()> {
    // SAFETY: the name is terminated.
    if REGISTERED.get().is_none() && unsafe { !call!(vfs_find(VFS_NAME_C.as_ptr())).is_null() } {
        return Err(Error::invalid(
            "another copy of liblitestream is loaded in this process, from another file: two of them would ship the same \
             database twice; load the one that is there",
        ));
    }
    Ok(())
}

/// Registers the shim as the default VFS. Called at each load: the second time it only makes it the default again,
/// which `sqlite3_shutdown` and `sqlite3_initialize` undo (P33).
pub fn install(shim: Arc<dyn Shim>) -> Result<BaseVfs> {
    if REGISTERED.get().is_none() {
        // SAFETY: null asks for the default VFS.
        let base = unsafe { call!(vfs_find(std::ptr::null())) };
        if base.is_null() {
            return Err(Error::invalid("this SQLite has no default VFS"));
        }
        // SAFETY: the base VFS is static; the copy is changed before anybody sees it.
        let mut vfs = unsafe { copy_vfs(base) };
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = VFS_NAME_C.as_ptr();
        vfs.pAppData = base.cast();
        let _ = REGISTERED.set(Box::new(Registered { vfs, base: BaseVfs(base), shim }));
    }
    let registered = REGISTERED.get().ok_or_else(|| Error::bug("the shim is not registered"))?;
    // SAFETY: the struct is static from here on.
    let rc = unsafe { call!(vfs_register(std::ptr::from_ref(&registered.vfs).cast_mut(), 1)) };
    if rc != 0 {
        return Err(Error::invalid(format!("the VFS {VFS_NAME} cannot be registered (SQLite result {rc})")));
    }
    Ok(registered.base)
}

/// The shim as a VFS, for one that is registered beside it and passes on to it what is not its own.
pub(super) fn registered() -> Option<*mut ffi::sqlite3_vfs> {
    REGISTERED.get().map(|registered| std::ptr::from_ref(&registered.vfs).cast_mut())
}

/// A VFS whose methods are the base's, called with the base as their first argument, but for xOpen, which is the shim's.
pub(super) unsafe fn copy_vfs(base: *mut ffi::sqlite3_vfs) -> ffi::sqlite3_vfs {
    // SAFETY: all-zero is valid for the struct; fields beyond the base's iVersion are not read.
    unsafe {
        let b = &raw const *base;
        let mut vfs: ffi::sqlite3_vfs = std::mem::zeroed();
        vfs.iVersion = (*b).iVersion.min(3);
        vfs.szOsFile = (*b).szOsFile;
        vfs.mxPathname = (*b).mxPathname;
        vfs.xOpen = Some(x_open);
        vfs.xDelete = (*b).xDelete.map(|_| x_delete as _);
        vfs.xAccess = (*b).xAccess.map(|_| x_access as _);
        vfs.xFullPathname = (*b).xFullPathname.map(|_| x_full_pathname as _);
        vfs.xDlOpen = (*b).xDlOpen.map(|_| x_dl_open as _);
        vfs.xDlError = (*b).xDlError.map(|_| x_dl_error as _);
        vfs.xDlSym = (*b).xDlSym.map(|_| x_dl_sym as _);
        vfs.xDlClose = (*b).xDlClose.map(|_| x_dl_close as _);
        vfs.xRandomness = (*b).xRandomness.map(|_| x_randomness as _);
        vfs.xSleep = (*b).xSleep.map(|_| x_sleep as _);
        vfs.xCurrentTime = (*b).xCurrentTime.map(|_| x_current_time as _);
        vfs.xGetLastError = (*b).xGetLastError.map(|_| x_get_last_error as _);
        if vfs.iVersion >= 2 {
            vfs.xCurrentTimeInt64 = (*b).xCurrentTimeInt64.map(|_| x_current_time_int64 as _);
        }
        if vfs.iVersion >= 3 {
            vfs.xSetSystemCall = (*b).xSetSystemCall.map(|_| x_set_system_call as _);
            vfs.xGetSystemCall = (*b).xGetSystemCall.map(|_| x_get_system_call as _);
            vfs.xNextSystemCall = (*b).xNextSystemCall.map(|_| x_next_system_call as _);
        }
        vfs
    }
}

unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: called by SQLite with xOpen's arguments; the shim's file object is the base's.
    unsafe {
        if let Err(error) = by_uri(name, flags as u32) {
            let rc = if error.kind() == Kind::Memory { ffi::SQLITE_NOMEM } else { ffi::SQLITE_CANTOPEN } as c_int;
            let _ = guard(|| super::api::log(rc, &format!("litestream: {error}")));
            // Nothing was opened, so there is nothing to close.
            (*file).pMethods = std::ptr::null();
            return rc;
        }
        let base = BaseVfs((*vfs).pAppData.cast());
        let rc = base.open(name, file, flags, out);
        let role = match flags as u32 {
            f if f & ffi::SQLITE_OPEN_MAIN_DB != 0 => TapRole::Database,
            f if f & ffi::SQLITE_OPEN_WAL != 0 => TapRole::Wal,
            _ => return rc,
        };
        if rc != 0 || name.is_null() || (*file).pMethods.is_null() {
            return rc;
        }
        let Some(registered) = REGISTERED.get() else { return rc };
        // Two names that are not UTF-8 could be taken for one.
        let Ok(path) = std::ffi::CStr::from_ptr(name).to_str() else { return rc };
        let observer = guard(|| match role {
            TapRole::Database => registered.shim.database_opened(path),
            TapRole::Wal => registered.shim.wal_opened(path.strip_suffix("-wal").unwrap_or(path)),
        });
        if let Ok(Some(observer)) = observer {
            tap(file, role, observer);
        }
        rc
    }
}

/// Tells the shim of a database that is about to be opened by a URI with parameters.
unsafe fn by_uri(name: *const c_char, flags: u32) -> Result<()> {
    let wanted = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_URI;
    let (Some(registered), false) = (REGISTERED.get(), name.is_null()) else { return Ok(()) };
    if flags & wanted != wanted {
        return Ok(());
    }
    // SAFETY: the name of a main database that was opened by URI has its parameters behind it; the texts are SQLite's.
    let (path, parameters) = unsafe {
        let mut parameters = Vec::new();
        let mut key = call!(uri_key(name, 0));
        while !key.is_null() {
            let value = call!(uri_parameter(name, key));
            parameters.push((super::api::text_of(key), super::api::text_of(value)));
            key = call!(uri_key(name, parameters.len() as c_int));
        }
        (std::ffi::CStr::from_ptr(name), parameters)
    };
    match path.to_str() {
        Ok(path) if !parameters.is_empty() => {
            guard(|| registered.shim.opening(path, &parameters, flags & ffi::SQLITE_OPEN_READONLY != 0))?
        }
        _ => Ok(()),
    }
}

/// A method that only replaces the shim by the base VFS.
macro_rules! forward {
    ($name:ident, $method:ident, ($($arg:ident : $type:ty),*) -> $ret:ty, $absent:expr) => {
        unsafe extern "C" fn $name(vfs: *mut ffi::sqlite3_vfs, $($arg: $type),*) -> $ret {
            // SAFETY: called by SQLite with the method's arguments; pAppData is the base VFS.
            unsafe {
                let base = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
                match (*base).$method {
                    Some(method) => method(base, $($arg),*),
                    None => $absent,
                }
            }
        }
    };
}

type Symbol = Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)>;
forward!(x_delete, xDelete, (name: *const c_char, sync: c_int) -> c_int, ffi::SQLITE_IOERR as c_int);
forward!(x_access, xAccess, (name: *const c_char, flags: c_int, out: *mut c_int) -> c_int, ffi::SQLITE_IOERR as c_int);
forward!(x_full_pathname, xFullPathname, (name: *const c_char, n: c_int, out: *mut c_char) -> c_int, ffi::SQLITE_IOERR as c_int);
forward!(x_dl_open, xDlOpen, (name: *const c_char) -> *mut c_void, std::ptr::null_mut());
forward!(x_dl_error, xDlError, (n: c_int, message: *mut c_char) -> (), ());
forward!(x_dl_sym, xDlSym, (handle: *mut c_void, symbol: *const c_char) -> Symbol, None);
forward!(x_dl_close, xDlClose, (handle: *mut c_void) -> (), ());
forward!(x_randomness, xRandomness, (n: c_int, out: *mut c_char) -> c_int, 0);
forward!(x_sleep, xSleep, (microseconds: c_int) -> c_int, 0);
forward!(x_current_time, xCurrentTime, (out: *mut f64) -> c_int, ffi::SQLITE_ERROR as c_int);
forward!(x_get_last_error, xGetLastError, (n: c_int, out: *mut c_char) -> c_int, 0);
forward!(x_current_time_int64, xCurrentTimeInt64, (out: *mut i64) -> c_int, ffi::SQLITE_ERROR as c_int);
forward!(x_set_system_call, xSetSystemCall, (name: *const c_char, call: ffi::sqlite3_syscall_ptr) -> c_int, ffi::SQLITE_NOTFOUND as c_int);
forward!(x_get_system_call, xGetSystemCall, (name: *const c_char) -> ffi::sqlite3_syscall_ptr, None);
forward!(x_next_system_call, xNextSystemCall, (name: *const c_char) -> *const c_char, std::ptr::null());
