//! The VFS `litestream`: opens databases from their replicas. It is registered beside the default VFS, to which it
//! passes on whatever is no replica: temporary files, local databases that are attached, all other methods.
//!
//! A replica has no journal and no WAL, whatever lies on the disk under such a name. Its name in SQLite is the full path
//! of what the user wrote and the replica's identity: several replicas may be opened under one file name, and with
//! `cache=shared` SQLite takes two files for one if their names are the same.

use super::api::call;
use super::read_file::{self, ReadFile, ReplicaFile};
use super::shim;
use crate::error::{Error, Result};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::ffi::{CStr, c_char, c_int};
use std::sync::{Arc, OnceLock};

/// The name under which it is registered: Litestream's.
pub(super) const VFS_NAME: &str = "litestream";
const VFS_NAME_C: &CStr = c"litestream";

/// Between a path and the identity of the replica, 16 hex digits.
const IDENTITY: &str = "-replica-";
const IDENTITY_DIGITS: usize = 16;

const OK: c_int = ffi::SQLITE_OK as c_int;
const CANTOPEN: c_int = ffi::SQLITE_CANTOPEN as c_int;

/// Who opens replicas.
pub trait ReplicaVfs: Send + Sync {
    /// What tells the replica of these parameters of a URI from others; `None`: they name none.
    fn identity(&self, parameters: &[(String, String)]) -> Option<u64>;
    /// Opens the replica that the parameters name; `None` if they name none, and a local file `is_there`: whoever
    /// forgets to name a replica does not want an empty database. `path` is the full path of what the user wrote.
    ///
    /// # Errors
    /// The open fails with SQLITE_CANTOPEN, for the reason that stands in `sqlite3_log`.
    fn open(
        &self,
        path: &str,
        parameters: &[(String, String)],
        is_there: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<dyn ReplicaFile>>>;
}

struct Registered {
    vfs: ffi::sqlite3_vfs,
    replicas: Arc<dyn ReplicaVfs>,
}

// SAFETY: the struct is written once, before it is registered; SQLite changes only pNext, under its own mutex.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

static REGISTERED: OnceLock<Box<Registered>> = OnceLock::new();

/// As [`shim::refuse_another`].
///
/// # Errors
/// Another copy of the library is loaded, or another VFS of that name: Litestream's own extension.
pub fn refuse_others() -> Result<()> {
    shim::refuse_another()?;
    // SAFETY: the name is terminated.
    if REGISTERED.get().is_none() && unsafe { !call!(vfs_find(VFS_NAME_C.as_ptr())).is_null() } {
        return Err(Error::invalid(
            "another extension has registered the VFS 'litestream' in this process (Litestream's own?): load one of the \
             two",
        ));
    }
    Ok(())
}

/// Registers the VFS, after the shim. Called at each load (P33).
pub fn install(replicas: Arc<dyn ReplicaVfs>) -> Result<()> {
    if REGISTERED.get().is_none() {
        let base = shim::registered().ok_or_else(|| Error::bug("the shim is not registered"))?;
        // SAFETY: the shim is static; the copy is changed before anybody sees it.
        let mut vfs = unsafe { shim::copy_vfs(base) };
        vfs.szOsFile = vfs.szOsFile.max(size_of::<ReadFile>() as c_int);
        vfs.zName = VFS_NAME_C.as_ptr();
        vfs.pAppData = base.cast();
        vfs.xOpen = Some(x_open);
        vfs.xDelete = Some(x_delete);
        vfs.xAccess = Some(x_access);
        vfs.xFullPathname = Some(x_full_pathname);
        let _ = REGISTERED.set(Box::new(Registered { vfs, replicas }));
    }
    let registered = REGISTERED.get().ok_or_else(|| Error::bug("the VFS is not registered"))?;
    // SAFETY: the struct is static from here on.
    match unsafe { call!(vfs_register(std::ptr::from_ref(&registered.vfs).cast_mut(), 0)) } {
        0 => Ok(()),
        rc => Err(Error::invalid(format!("the VFS {VFS_NAME} cannot be registered (SQLite result {rc})"))),
    }
}

/// The VFS that is passed on to.
///
/// # Safety
/// `vfs` is ours.
unsafe fn base_of<'a>(vfs: *mut ffi::sqlite3_vfs) -> (*mut ffi::sqlite3_vfs, &'a ffi::sqlite3_vfs) {
    // SAFETY: the shim is static.
    unsafe {
        let base = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        (base, &*base)
    }
}

/// The parameters of a URI, which stand behind a name: keys and values in turns, up to an empty key. SQLite has them
/// there for xOpen, and also for xFullPathname: it copies them from behind the same name right after that call
/// (`sqlite3PagerOpen`). `sqlite3_uri_parameter` would look in front of the name too, where there is less to rely on.
///
/// # Safety
/// `name` is what SQLite gave to xOpen of a main database, or to xFullPathname.
unsafe fn parameters_behind(name: *const c_char) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // SAFETY: the caller's promise: each text is terminated, and an empty one ends the list.
    unsafe {
        let mut at = after(name);
        while *at != 0 {
            let value = after(at);
            found.push((super::api::text_of(at), super::api::text_of(value)));
            at = after(value);
        }
    }
    found
}

/// What comes after a terminated text.
///
/// # Safety
/// `text` is terminated, and something follows it.
unsafe fn after(text: *const c_char) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { text.add(CStr::from_ptr(text).count_bytes() + 1) }
}

/// The path that a replica's name was made of; `None` for other names.
fn path_of(name: &[u8]) -> Option<&[u8]> {
    let (rest, digits) = name.split_at_checked(name.len().checked_sub(IDENTITY_DIGITS)?)?;
    rest.strip_suffix(IDENTITY.as_bytes()).filter(|_| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether the name is that of a replica's journal or WAL.
///
/// # Safety
/// `name` is null, or a terminated text.
unsafe fn is_beside_a_replica(name: *const c_char) -> bool {
    if name.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let database = name.strip_suffix(b"-journal").or_else(|| name.strip_suffix(b"-wal"));
    database.and_then(path_of).is_some()
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    n: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: called by SQLite with xFullPathname's arguments; `out` has `n` bytes.
    unsafe {
        let (base, methods) = base_of(vfs);
        let rc = methods.xFullPathname.map_or(CANTOPEN, |full| full(base, name, n, out));
        let identity = guard(|| REGISTERED.get()?.replicas.identity(&parameters_behind(name)));
        let Ok(Some(identity)) = identity else { return rc };
        // A replica's name is a label: there need be no such directory.
        let path = if rc & 0xff == 0 { CStr::from_ptr(out).to_bytes() } else { CStr::from_ptr(name).to_bytes() };
        let full = [path, format!("{IDENTITY}{identity:0width$x}\0", width = IDENTITY_DIGITS).as_bytes()].concat();
        if full.len() > usize::try_from(n).unwrap_or(0) {
            return CANTOPEN;
        }
        out.cast::<u8>().copy_from_nonoverlapping(full.as_ptr(), full.len());
        OK
    }
}

unsafe extern "C" fn x_access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: called by SQLite with xAccess's arguments.
    unsafe {
        if is_beside_a_replica(name) {
            *out = 0;
            return OK;
        }
        let (base, methods) = base_of(vfs);
        methods.xAccess.map_or(ffi::SQLITE_IOERR as c_int, |access| access(base, name, flags, out))
    }
}

unsafe extern "C" fn x_delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: called by SQLite with xDelete's arguments.
    unsafe {
        if is_beside_a_replica(name) {
            return OK;
        }
        let (base, methods) = base_of(vfs);
        methods.xDelete.map_or(ffi::SQLITE_IOERR as c_int, |delete| delete(base, name, sync))
    }
}

unsafe extern "C" fn x_open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: called by SQLite with xOpen's arguments: `file` has szOsFile bytes, which serve both us and the base.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let is_database = flags as u32 & ffi::SQLITE_OPEN_MAIN_DB != 0 && !name.is_null();
        let opened = if is_database { guard(|| open_database(vfs, name)) } else { Ok(Ok(None)) };
        match opened.and_then(|opened| opened) {
            Ok(Some(replica)) => {
                read_file::set_up(file, replica, flags as u32 & ffi::SQLITE_OPEN_SHAREDCACHE != 0);
                if !out.is_null() {
                    let writing = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
                    *out = flags & !(writing as c_int) | ffi::SQLITE_OPEN_READONLY as c_int;
                }
                OK
            }
            Ok(None) => {
                let (base, methods) = base_of(vfs);
                methods.xOpen.map_or(CANTOPEN, |open| open(base, name, file, flags, out))
            }
            Err(error) => {
                let _ = guard(|| super::api::log(CANTOPEN, &format!("litestream: {error}")));
                CANTOPEN
            }
        }
    }
}

/// The replica of that name; `None` for a local database, which is there.
///
/// # Safety
/// `vfs` and `name` are what SQLite gave to xOpen of a main database.
unsafe fn open_database(vfs: *mut ffi::sqlite3_vfs, name: *const c_char) -> Result<Option<Arc<dyn ReplicaFile>>> {
    // SAFETY: the caller's promise.
    unsafe {
        let registered = REGISTERED.get().ok_or_else(|| Error::bug("the VFS is not registered"))?;
        let bytes = CStr::from_ptr(name).to_bytes();
        let path = String::from_utf8_lossy(path_of(bytes).unwrap_or(bytes)).into_owned();
        let is_there = || {
            let (base, methods) = base_of(vfs);
            let mut exists = 0;
            let exists_flag = ffi::SQLITE_ACCESS_EXISTS as c_int;
            methods.xAccess.is_some_and(|access| access(base, name, exists_flag, &mut exists) == OK && exists != 0)
        };
        let replica = registered.replicas.open(&path, &parameters_behind(name), &is_there)?;
        let unlocked = [c"nolock", c"immutable"];
        if let Some(replica) = &replica
            && unlocked.iter().any(|parameter| call!(uri_boolean(name, parameter.as_ptr(), 0)) != 0)
        {
            replica.hold()?;
        }
        Ok(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replicas_name_is_told_from_others() {
        assert_eq!(path_of(b"/a/b.db-replica-0123456789abcdef"), Some(b"/a/b.db".as_slice()));
        for other in ["/a/b.db", "", "-replica-", "/a-replica-0123456789abcdeg", "/a-replica-123456789abcdef"] {
            assert_eq!(path_of(other.as_bytes()), None, "{other}");
        }
        // SAFETY: the texts are terminated.
        unsafe {
            assert!(is_beside_a_replica(c"/a-replica-0123456789abcdef-journal".as_ptr()));
            assert!(is_beside_a_replica(c"/a-replica-0123456789abcdef-wal".as_ptr()));
            assert!(!is_beside_a_replica(c"/a-replica-0123456789abcdef".as_ptr()));
            assert!(!is_beside_a_replica(c"/a-wal".as_ptr()));
            assert!(!is_beside_a_replica(std::ptr::null()));
        }
    }

    #[test]
    fn parameters_are_read_from_behind_a_name() {
        let found = |name: &[u8]| {
            // SAFETY: each case ends with an empty key.
            unsafe { parameters_behind(name.as_ptr().cast()) }
        };
        assert_eq!(found(b"/a\0\0"), []);
        assert_eq!(
            found(b"/a\0vfs\0litestream\0at\0\0\0"),
            [("vfs".to_owned(), "litestream".to_owned()), ("at".to_owned(), String::new())]
        );
    }
}
