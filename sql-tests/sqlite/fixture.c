/* What is linked into SQLite's test fixture, so that its tests run with the extension. Controlled by the environment:
**
**   FIXTURE_LIBRARY   the extension; loaded when SQLite is first initialized. Absent: SQLite alone.
**   FIXTURE_REPLICAS  a directory: every database is opened with ?replica=file://DIRECTORY/<process>-<n>, so that it is
**                     replicated while it is in WAL mode. Absent: nothing is replicated.
**   FIXTURE_OPTIONS   further URI parameters of such a database, as in close_timeout=5s&sync_interval=100ms
**   FIXTURE_CLAIMS    at most so many last closes of a process are kept for the runner to check (see keep_claim)
**
** SQLite ends and begins again within a process, which makes "unix" the default VFS each time, and the tests start child
** processes; so this hangs on sqlite3_initialize(), as SQLITE_EXTRA_INIT, and not on the Tcl side.
**
** With FIXTURE_REPLICAS the extension's VFS stands between two thin ones:
**
**   "above", the default      adds the parameters; lets PRAGMA journal_mode and the exclusive lock pass the extension, which
**                             would refuse to leave WAL mode; keeps what was claimed at a last close
**   the extension's           is what is tested
**   "below"                   tells the files that SQLite opens from those that the library opens for itself. What is done
**                             with the latter is neither counted nor made to fail (fixture_quiet): the tests mean the
**                             n-th thing that SQLite does.
*/
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "sqlite3.h"

/* Not zero while the library does something for itself. Tested where the fixture counts and injects. */
__thread int fixture_quiet = 0;
/* SQLite asks for a file, and "below" has not been reached yet. */
static __thread int asked_by_sqlite = 0;

typedef struct File File;
struct File {
  sqlite3_file base;
  sqlite3_io_methods methods; /* what the file below has, and no more */
  int own;                    /* opened by the library for itself */
  int is_above;
  sqlite3_filename name;      /* with the parameters that were added; until the close */
  char *path;                 /* of a replicated database */
  struct Known *known;
  int replica;
};

static sqlite3_vfs above, below;
static sqlite3_vfs *extension = 0;
static const char *replicas = 0;

static sqlite3_file *real(sqlite3_file *f){ return (sqlite3_file*)(((File*)f)+1); }

/* Each method goes to the real file, quietly if the file is the library's own. */
#define METHOD(NAME, DECL, ARGS) \
  static int f_##NAME DECL { \
    int own = ((File*)f)->own, rc; \
    fixture_quiet += own; \
    rc = real(f)->pMethods->NAME ARGS; \
    fixture_quiet -= own; \
    return rc; \
  }
METHOD(xRead, (sqlite3_file *f, void *p, int n, sqlite3_int64 at), (real(f), p, n, at))
METHOD(xWrite, (sqlite3_file *f, const void *p, int n, sqlite3_int64 at), (real(f), p, n, at))
METHOD(xTruncate, (sqlite3_file *f, sqlite3_int64 n), (real(f), n))
METHOD(xSync, (sqlite3_file *f, int flags), (real(f), flags))
METHOD(xFileSize, (sqlite3_file *f, sqlite3_int64 *n), (real(f), n))
METHOD(xUnlock, (sqlite3_file *f, int lock), (real(f), lock))
METHOD(xCheckReservedLock, (sqlite3_file *f, int *out), (real(f), out))
METHOD(xSectorSize, (sqlite3_file *f), (real(f)))
METHOD(xDeviceCharacteristics, (sqlite3_file *f), (real(f)))
METHOD(xShmMap, (sqlite3_file *f, int i, int n, int extend, void volatile **out), (real(f), i, n, extend, out))
METHOD(xShmLock, (sqlite3_file *f, int at, int n, int flags), (real(f), at, n, flags))
METHOD(xShmUnmap, (sqlite3_file *f, int del), (real(f), del))
METHOD(xFetch, (sqlite3_file *f, sqlite3_int64 at, int n, void **out), (real(f), at, n, out))
METHOD(xUnfetch, (sqlite3_file *f, sqlite3_int64 at, void *p), (real(f), at, p))
static void f_xShmBarrier(sqlite3_file *f){ real(f)->pMethods->xShmBarrier(real(f)); }

/* Leaving WAL mode takes the exclusive lock. The extension refuses that (P16), but not to a last close, which has asked
** whether the file was moved. */
static int f_xLock(sqlite3_file *f, int level){
  File *file = (File*)f;
  int rc, moved = 0;
  fixture_quiet += file->own;
  if( file->is_above && level==SQLITE_LOCK_EXCLUSIVE ){
    fixture_quiet++;
    real(f)->pMethods->xFileControl(real(f), SQLITE_FCNTL_HAS_MOVED, &moved);
    fixture_quiet--;
  }
  rc = real(f)->pMethods->xLock(real(f), level);
  fixture_quiet -= file->own;
  return rc;
}

static int f_xFileControl(sqlite3_file *f, int op, void *arg){
  File *file = (File*)f;
  int rc;
  if( file->is_above && op==SQLITE_FCNTL_PRAGMA ){
    const char *pragma = ((char**)arg)[1];
    if( pragma && strcasecmp(pragma, "journal_mode")==0 ) return SQLITE_NOTFOUND;
  }
  fixture_quiet += file->own;
  rc = real(f)->pMethods->xFileControl(real(f), op, arg);
  fixture_quiet -= file->own;
  return rc;
}

/* The databases that were opened, by what tells a file from another that has its name later; under `lock`. */
#define KNOWN 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct Known { dev_t device; ino_t inode; int replica, open; char path[512]; } known[KNOWN];
static int known_count = 0, replica_count = 0;

static struct Known *known_file(const char *path){
  struct stat st;
  int i;
  if( stat(path, &st)!=0 ) return 0;
  for(i=known_count-1; i>=0; i--){
    if( known[i].device==st.st_dev && known[i].inode==st.st_ino ) return &known[i];
  }
  i = known_count<KNOWN ? known_count++ : KNOWN-1;
  known[i].device = st.st_dev;
  known[i].inode = st.st_ino;
  known[i].open = 0;
  snprintf(known[i].path, sizeof known[i].path, "%s", path);
  known[i].replica = __atomic_add_fetch(&replica_count, 1, __ATOMIC_SEQ_CST);
  return &known[i];
}

static int run(const char *const *argv){
  extern char **environ;
  pid_t pid;
  int status = -1;
  if( posix_spawnp(&pid, argv[0], 0, 0, (char *const*)argv, environ)!=0 ) return -1;
  while( waitpid(pid, &status, 0)<0 && errno==EINTR ){}
  return status;
}

/* After the last close of a database the extension's record may claim that the database file, as it is now, is what its
** newest TXID holds. The file and the record are kept as <replica>.<n>.db and .record, for the runner to compare the file
** with a restore. Another process copies: closing the file here would drop locks that this process has on it. */
static void keep_claim(const char *path, int replica){
  static int kept = 0;
  const char *most = getenv("FIXTURE_CLAIMS");
  const char *name = strrchr(path, '/');
  char record[2000], to_db[2000], to_record[2000], note[2000];
  struct stat before, after;
  FILE *out;
  if( !most || kept>=atoi(most) || !name ) return;
  snprintf(record, sizeof record, "%.*s.%s-litestream/record", (int)(name+1-path), path, name+1);
  if( access(record, R_OK)!=0 ) return;
  kept++;
  snprintf(to_db, sizeof to_db, "%s/%d-%d.%d.db", replicas, getpid(), replica, kept);
  snprintf(to_record, sizeof to_record, "%s/%d-%d.%d.record", replicas, getpid(), replica, kept);
  snprintf(note, sizeof note, "%s/%d-%d.%d.stat", replicas, getpid(), replica, kept);
  const char *copy_record[] = {"cp", record, to_record, 0};
  const char *copy_database[] = {"cp", path, to_db, 0};
  run(copy_record);
  if( stat(path, &before)!=0 ) return;
  run(copy_database);
  /* A thread or process that opened it meanwhile may have written to it. */
  if( stat(path, &after)!=0 || before.st_ino!=after.st_ino || before.st_size!=after.st_size
   || memcmp(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim)!=0 || (out = fopen(note, "w"))==0 ) return;
  fprintf(out, "%lu %lu %ld %ld%09ld %ld%09ld\n", (unsigned long)after.st_dev, (unsigned long)after.st_ino,
      (long)after.st_size, (long)after.st_mtim.tv_sec, (long)after.st_mtim.tv_nsec, (long)after.st_ctim.tv_sec,
      (long)after.st_ctim.tv_nsec);
  fclose(out);
}

static int f_xClose(sqlite3_file *f){
  File *file = (File*)f;
  int rc;
  fixture_quiet += file->own;
  rc = real(f)->pMethods->xClose(real(f));
  fixture_quiet -= file->own;
  if( file->known ){
    pthread_mutex_lock(&lock);
    if( --file->known->open==0 ) keep_claim(file->path, file->replica);
    pthread_mutex_unlock(&lock);
  }
  fixture_quiet++;
  sqlite3_free_filename(file->name);
  fixture_quiet--;
  free(file->path);
  return rc;
}

/* SQLite learns what a file can do from the version of its methods and from those that are absent. */
static void wrap(File *file){
  const sqlite3_io_methods *r = real((sqlite3_file*)file)->pMethods;
  sqlite3_io_methods *m = &file->methods;
  if( r==0 ) return;
  memset(m, 0, sizeof *m);
  m->iVersion = r->iVersion;
#define HAS(NAME) m->NAME = r->NAME ? f_##NAME : 0
  HAS(xClose); HAS(xRead); HAS(xWrite); HAS(xTruncate); HAS(xSync); HAS(xFileSize); HAS(xLock); HAS(xUnlock);
  HAS(xCheckReservedLock); HAS(xFileControl); HAS(xSectorSize); HAS(xDeviceCharacteristics);
  if( r->iVersion>=2 ){ HAS(xShmMap); HAS(xShmLock); HAS(xShmBarrier); HAS(xShmUnmap); }
  if( r->iVersion>=3 ){ HAS(xFetch); HAS(xUnfetch); }
  file->base.pMethods = m;
}

static int below_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out){
  sqlite3_vfs *base = (sqlite3_vfs*)v->pAppData;
  File *file = (File*)f;
  int rc;
  memset(file, 0, sizeof *file);
  file->own = !asked_by_sqlite;
  asked_by_sqlite = 0;
  fixture_quiet += file->own;
  rc = base->xOpen(base, name, real(f), flags, out);
  fixture_quiet -= file->own;
  wrap(file);
  return rc;
}

/* The name with the parameters that make the extension replicate it, and those it had. */
static sqlite3_filename with_replica(const char *name, int flags, int replica){
  char url[2000], options[2000], *rest = 0;
  const char *parameters[2*40];
  const char *more = getenv("FIXTURE_OPTIONS");
  char *key;
  sqlite3_filename made;
  int n = 0, i;
  if( flags & SQLITE_OPEN_URI ){
    for(i=0; n<30 && sqlite3_uri_key(name, i); i++){
      parameters[2*n] = sqlite3_uri_key(name, i);
      parameters[2*n+1] = sqlite3_uri_parameter(name, parameters[2*n]);
      n++;
    }
  }
  snprintf(url, sizeof url, "file://%s/%d-%d", replicas, getpid(), replica);
  parameters[2*n] = "replica";
  parameters[2*n+1] = url;
  n++;
  snprintf(options, sizeof options, "%s", more ? more : "");
  for(key=strtok_r(options, "&", &rest); key && n<40; key=strtok_r(0, "&", &rest)){
    char *value = strchr(key, '=');
    if( value==0 ) continue;
    *value = 0;
    parameters[2*n] = key;
    parameters[2*n+1] = value+1;
    n++;
  }
  fixture_quiet++;
  made = sqlite3_create_filename(name, "", "", n, parameters);
  fixture_quiet--;
  return made;
}

/* The number of the replica of a database that is about to be opened; 0: it is not there yet. The extension knows a
** database by its path, and gives it one replica at a time: one that was replaced while it is open keeps its number. */
static int replica_of(const char *path){
  struct Known *k;
  int replica = 0, i;
  pthread_mutex_lock(&lock);
  for(i=0; i<known_count && !replica; i++){
    if( known[i].open>0 && strcmp(known[i].path, path)==0 ) replica = known[i].replica;
  }
  if( !replica ){
    k = known_file(path);
    replica = k ? k->replica : 0;
  }
  pthread_mutex_unlock(&lock);
  return replica;
}

/* A file that was not there had its number before it had its inode, which a former one may have had. */
static void opened(File *file, const char *path, int is_new){
  struct Known *k;
  struct stat st;
  int i;
  pthread_mutex_lock(&lock);
  if( is_new && stat(path, &st)==0 ){
    for(i=0; i<known_count; i++){
      if( known[i].device==st.st_dev && known[i].inode==st.st_ino ) known[i].inode = 0;
    }
  }
  k = known_file(path);
  if( k ){
    k->replica = file->replica;
    k->open++;
    file->known = k;
    file->path = strdup(path);
  }
  pthread_mutex_unlock(&lock);
}

static int above_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out){
  File *file = (File*)f;
  int rc, is_new = 0;
  (void)v;
  memset(file, 0, sizeof *file);
  file->is_above = 1;
  /* With nolock=1 there is no WAL mode, with immutable=1 nothing to ship: there replica= is refused. */
  int is_unfit = name && (flags & SQLITE_OPEN_URI)
    && (sqlite3_uri_boolean(name, "nolock", 0) || sqlite3_uri_boolean(name, "immutable", 0));
  if( name && (flags & SQLITE_OPEN_MAIN_DB) && (flags & SQLITE_OPEN_READWRITE) && !is_unfit ){
    file->replica = replica_of(name);
    is_new = file->replica==0;
    if( is_new ) file->replica = __atomic_add_fetch(&replica_count, 1, __ATOMIC_SEQ_CST);
    file->name = with_replica(name, flags, file->replica);
  }
  asked_by_sqlite = 1;
  rc = extension->xOpen(extension, file->name ? file->name : name, real(f), file->name ? flags|SQLITE_OPEN_URI : flags, out);
  asked_by_sqlite = 0;
  wrap(file);
  if( file->base.pMethods==0 ){
    fixture_quiet++;
    sqlite3_free_filename(file->name);
    fixture_quiet--;
  }else if( file->name && rc==SQLITE_OK ){
    opened(file, name, is_new);
  }
  return rc;
}

/* The other methods of a VFS are those below. */
#define BASE ((sqlite3_vfs*)v->pAppData)
static int v_xDelete(sqlite3_vfs *v, const char *z, int sync){ return BASE->xDelete(BASE, z, sync); }
static int v_xAccess(sqlite3_vfs *v, const char *z, int flags, int *out){ return BASE->xAccess(BASE, z, flags, out); }
static int v_xFullPathname(sqlite3_vfs *v, const char *z, int n, char *out){ return BASE->xFullPathname(BASE, z, n, out); }
static void *v_xDlOpen(sqlite3_vfs *v, const char *z){ return BASE->xDlOpen(BASE, z); }
static void v_xDlError(sqlite3_vfs *v, int n, char *out){ BASE->xDlError(BASE, n, out); }
static void (*v_xDlSym(sqlite3_vfs *v, void *p, const char *z))(void){ return BASE->xDlSym(BASE, p, z); }
static void v_xDlClose(sqlite3_vfs *v, void *p){ BASE->xDlClose(BASE, p); }
static int v_xRandomness(sqlite3_vfs *v, int n, char *out){ return BASE->xRandomness(BASE, n, out); }
static int v_xSleep(sqlite3_vfs *v, int us){ return BASE->xSleep(BASE, us); }
static int v_xCurrentTime(sqlite3_vfs *v, double *out){ return BASE->xCurrentTime(BASE, out); }
static int v_xGetLastError(sqlite3_vfs *v, int n, char *out){ return BASE->xGetLastError(BASE, n, out); }
static int v_xCurrentTimeInt64(sqlite3_vfs *v, sqlite3_int64 *out){ return BASE->xCurrentTimeInt64(BASE, out); }
static int v_xSetSystemCall(sqlite3_vfs *v, const char *z, sqlite3_syscall_ptr p){ return BASE->xSetSystemCall(BASE, z, p); }
static sqlite3_syscall_ptr v_xGetSystemCall(sqlite3_vfs *v, const char *z){ return BASE->xGetSystemCall(BASE, z); }
static const char *v_xNextSystemCall(sqlite3_vfs *v, const char *z){ return BASE->xNextSystemCall(BASE, z); }

static void make_vfs(sqlite3_vfs *v, const char *name, sqlite3_vfs *base,
    int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*)){
  memset(v, 0, sizeof *v);
  v->iVersion = 3;
  v->szOsFile = sizeof(File) + base->szOsFile;
  v->mxPathname = base->mxPathname;
  v->zName = name;
  v->pAppData = base;
  v->xOpen = open;
  v->xDelete = v_xDelete; v->xAccess = v_xAccess; v->xFullPathname = v_xFullPathname; v->xDlOpen = v_xDlOpen;
  v->xDlError = v_xDlError; v->xDlSym = v_xDlSym; v->xDlClose = v_xDlClose; v->xRandomness = v_xRandomness;
  v->xSleep = v_xSleep; v->xCurrentTime = v_xCurrentTime; v->xGetLastError = v_xGetLastError;
  v->xCurrentTimeInt64 = v_xCurrentTimeInt64; v->xSetSystemCall = v_xSetSystemCall;
  v->xGetSystemCall = v_xGetSystemCall; v->xNextSystemCall = v_xNextSystemCall;
}

static void load(const char *library){
  sqlite3 *db = 0;
  char *error = 0;
  sqlite3_vfs *before = sqlite3_vfs_find(0);
  int rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, before->zName);
  if( rc==SQLITE_OK ){
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int*)0);
    rc = sqlite3_load_extension(db, library, "sqlite3_litestream_init", &error);
  }
  if( rc!=SQLITE_OK || sqlite3_vfs_find(0)==before ){
    fprintf(stderr, "fixture: %s was not loaded: %s\n", library, error ? error : "the default VFS is the same");
    exit(97);
  }
  sqlite3_close(db);
}

int fixture_init(const char *unused){
  const char *library = getenv("FIXTURE_LIBRARY");
  (void)unused;
  if( !library || !library[0] ) return SQLITE_OK;
  /* Later times there is no malloc here: some tests make it fail in sqlite3_initialize(). The tables that are registered
  ** are static, and so is the extension's. */
  if( extension==0 ){
    replicas = getenv("FIXTURE_REPLICAS");
    if( replicas ){
      make_vfs(&below, "below", sqlite3_vfs_find(0), below_open);
      sqlite3_vfs_register(&below, 1);
    }
    load(library);
    extension = sqlite3_vfs_find(0);
    if( replicas ) make_vfs(&above, "above", extension, above_open);
  }
  else if( replicas ){
    /* The extension knows by its functions on them which connections there are, and SQLite has forgotten to define them:
    ** a host that begins anew loads it again. */
    fixture_quiet++;
    sqlite3_vfs_register(&below, 1);
    load(library);
    fixture_quiet--;
  }
  sqlite3_vfs_register(extension, !replicas);
  if( replicas ) sqlite3_vfs_register(&above, 1);
  return SQLITE_OK;
}
