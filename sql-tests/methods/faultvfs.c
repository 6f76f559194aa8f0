/* A VFS over the default one whose methods fail when a test says so: the n-th call of a method, on files of a kind.
**
** Loaded before liblitestream it lies below it: SQLite's calls come through our taps, and the handles that the library
** opens for itself come here too. The two are told apart by the flags of xOpen: SQLite opens to create, the library
** never does. The functions at the end are called by ctypes.
**
** A method that gives something back (unlock, unmap, close) does so before it reports its failure: what fails is its
** answer. Otherwise the test would show leaks that are its own.
*/
#include <pthread.h>
#include <sqlite3ext.h>
#include <stdio.h>
#include <string.h>
SQLITE_EXTENSION_INIT1

enum Kind { DATABASE, WAL, OTHER, OUR_DATABASE, OUR_WAL, WHOLE, KINDS };
enum Method {
  OPEN, CLOSE, READ, WRITE, TRUNCATE, SYNC, FILE_SIZE, LOCK, UNLOCK, CHECK_RESERVED, CONTROL,
  SHM_MAP, SHM_LOCK, SHM_UNLOCK, SHM_UNMAP, FETCH, UNFETCH, DELETE, ACCESS, FULL_PATHNAME, METHODS
};

typedef struct File {
  sqlite3_file base;
  int kind;
  sqlite3_file real[1];  /* the file of the VFS below, with its own size */
} File;

static sqlite3_vfs *below;
static sqlite3_vfs vfs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int calls[KINDS][METHODS];  /* since the last fault_arm or fault_reset */
static int open_files[KINDS];
static struct { int kind, method, first, last, result, hits; } armed = {-1, -1, 0, 0, 0, 0};

/* Counts a call; the result with which it is to fail, or 0. */
static int failing(int kind, int method) {
  pthread_mutex_lock(&lock);
  int n = ++calls[kind][method], rc = 0;
  if (armed.kind == kind && armed.method == method && n >= armed.first && n <= armed.last) {
    armed.hits++;
    rc = armed.result;
  }
  pthread_mutex_unlock(&lock);
  return rc;
}

#define REAL(f) (((File *)(f))->real)
#define KIND(f) (((File *)(f))->kind)
/* Fails before the call, or passes it on. */
#define PASS(f, method, call) { int rc = failing(KIND(f), method); return rc ? rc : REAL(f)->pMethods->call; }
/* Does what it gives back, and then fails. */
#define AFTER(f, method, call) { int rc = failing(KIND(f), method), done = REAL(f)->pMethods->call; return rc ? rc : done; }

static int f_close(sqlite3_file *f) {
  int rc = failing(KIND(f), CLOSE), done = REAL(f)->pMethods->xClose(REAL(f));
  pthread_mutex_lock(&lock);
  open_files[KIND(f)]--;
  pthread_mutex_unlock(&lock);
  return rc ? rc : done;
}
static int f_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
  int rc = failing(KIND(f), READ);
  if (!rc) return REAL(f)->pMethods->xRead(REAL(f), to, n, at);
  if (rc == SQLITE_IOERR_SHORT_READ) memset(to, 0, n);
  return rc;
}
static int f_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
  int rc = failing(KIND(f), WRITE);
  if (!rc) return REAL(f)->pMethods->xWrite(REAL(f), from, n, at);
  if (rc == SQLITE_IOERR) REAL(f)->pMethods->xWrite(REAL(f), from, n / 2, at);  /* a torn write */
  return rc;
}
static int f_truncate(sqlite3_file *f, sqlite3_int64 size) PASS(f, TRUNCATE, xTruncate(REAL(f), size))
static int f_sync(sqlite3_file *f, int flags) PASS(f, SYNC, xSync(REAL(f), flags))
static int f_size(sqlite3_file *f, sqlite3_int64 *out) PASS(f, FILE_SIZE, xFileSize(REAL(f), out))
static int f_lock(sqlite3_file *f, int level) PASS(f, LOCK, xLock(REAL(f), level))
static int f_unlock(sqlite3_file *f, int level) AFTER(f, UNLOCK, xUnlock(REAL(f), level))
static int f_reserved(sqlite3_file *f, int *out) PASS(f, CHECK_RESERVED, xCheckReservedLock(REAL(f), out))
static int f_control(sqlite3_file *f, int op, void *arg) PASS(f, CONTROL, xFileControl(REAL(f), op, arg))
static int f_sector(sqlite3_file *f) { return REAL(f)->pMethods->xSectorSize(REAL(f)); }
static int f_device(sqlite3_file *f) { return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f)); }
static int f_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **out)
    PASS(f, SHM_MAP, xShmMap(REAL(f), region, size, extend, out))
static int f_shm_lock(sqlite3_file *f, int slot, int n, int flags) {
  if (flags & SQLITE_SHM_UNLOCK) AFTER(f, SHM_UNLOCK, xShmLock(REAL(f), slot, n, flags))
  PASS(f, SHM_LOCK, xShmLock(REAL(f), slot, n, flags))
}
static void f_shm_barrier(sqlite3_file *f) { REAL(f)->pMethods->xShmBarrier(REAL(f)); }
static int f_shm_unmap(sqlite3_file *f, int delete) AFTER(f, SHM_UNMAP, xShmUnmap(REAL(f), delete))
static int f_fetch(sqlite3_file *f, sqlite3_int64 at, int n, void **out) {
  *out = 0;
  PASS(f, FETCH, xFetch(REAL(f), at, n, out))
}
static int f_unfetch(sqlite3_file *f, sqlite3_int64 at, void *p) AFTER(f, UNFETCH, xUnfetch(REAL(f), at, p))

static const sqlite3_io_methods methods = {
  3, f_close, f_read, f_write, f_truncate, f_sync, f_size, f_lock, f_unlock, f_reserved, f_control, f_sector,
  f_device, f_shm_map, f_shm_lock, f_shm_barrier, f_shm_unmap, f_fetch, f_unfetch
};

static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out) {
  File *f = (File *)file;
  int ours = !(flags & SQLITE_OPEN_CREATE);
  f->base.pMethods = 0;
  f->kind = flags & SQLITE_OPEN_MAIN_DB ? (ours ? OUR_DATABASE : DATABASE)
          : flags & SQLITE_OPEN_WAL     ? (ours ? OUR_WAL : WAL)
                                        : OTHER;
  int rc = failing(f->kind, OPEN);
  if (!rc) rc = below->xOpen(below, name, f->real, flags, out);
  if (rc) return rc;
  f->base.pMethods = &methods;
  pthread_mutex_lock(&lock);
  open_files[f->kind]++;
  pthread_mutex_unlock(&lock);
  return 0;
}
#define PASS_VFS(method, call) { int rc = failing(WHOLE, method); return rc ? rc : below->call; }
static int v_delete(sqlite3_vfs *v, const char *name, int sync) PASS_VFS(DELETE, xDelete(below, name, sync))
static int v_access(sqlite3_vfs *v, const char *name, int flags, int *out)
    PASS_VFS(ACCESS, xAccess(below, name, flags, out))
static int v_full(sqlite3_vfs *v, const char *name, int n, char *out)
    PASS_VFS(FULL_PATHNAME, xFullPathname(below, name, n, out))
static void *v_dlopen(sqlite3_vfs *v, const char *name) { return below->xDlOpen(below, name); }
static void v_dlerror(sqlite3_vfs *v, int n, char *out) { below->xDlError(below, n, out); }
static void (*v_dlsym(sqlite3_vfs *v, void *p, const char *name))(void) { return below->xDlSym(below, p, name); }
static void v_dlclose(sqlite3_vfs *v, void *p) { below->xDlClose(below, p); }
static int v_randomness(sqlite3_vfs *v, int n, char *out) { return below->xRandomness(below, n, out); }
/* SQLite gives up on a busy lock after ten seconds of sleep; nobody else holds one here, so there is nothing to wait for. */
static int v_sleep(sqlite3_vfs *v, int us) { return us; }
static int v_time(sqlite3_vfs *v, double *out) { return below->xCurrentTime(below, out); }
static int v_last_error(sqlite3_vfs *v, int n, char *out) { return below->xGetLastError(below, n, out); }
static int v_time64(sqlite3_vfs *v, sqlite3_int64 *out) { return below->xCurrentTimeInt64(below, out); }

/* Called by ctypes. */
void fault_arm(int kind, int method, int first, int last, int result) {
  pthread_mutex_lock(&lock);
  memset(calls, 0, sizeof(calls));
  armed.kind = kind, armed.method = method, armed.first = first, armed.last = last, armed.result = result;
  armed.hits = 0;
  pthread_mutex_unlock(&lock);
}
int fault_disarm(void) {
  pthread_mutex_lock(&lock);
  int hits = armed.hits;
  armed.kind = armed.method = -1;
  pthread_mutex_unlock(&lock);
  return hits;
}
int fault_calls(int kind, int method) { return calls[kind][method]; }
int fault_open_files(int kind) { return open_files[kind]; }

int sqlite3_faultvfs_init(sqlite3 *db, char **message, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  if (below) return SQLITE_OK_LOAD_PERMANENTLY;
  below = sqlite3_vfs_find(0);
  vfs = (sqlite3_vfs){
    .iVersion = 2, .szOsFile = sizeof(File) + below->szOsFile, .mxPathname = below->mxPathname, .zName = "faultvfs",
    .xOpen = v_open, .xDelete = v_delete, .xAccess = v_access, .xFullPathname = v_full, .xDlOpen = v_dlopen,
    .xDlError = v_dlerror, .xDlSym = v_dlsym, .xDlClose = v_dlclose, .xRandomness = v_randomness, .xSleep = v_sleep,
    .xCurrentTime = v_time, .xGetLastError = v_last_error, .xCurrentTimeInt64 = v_time64,
  };
  int rc = sqlite3_vfs_register(&vfs, 1);
  return rc ? rc : SQLITE_OK_LOAD_PERMANENTLY;
}
