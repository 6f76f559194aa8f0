/*
** liblitestream: replicates SQLite databases to object storage from inside the process.
**
** The library is a SQLite loadable extension. Most programs need nothing of this file: they load the library by its
** name (sqlite3_load_extension, or their binding's load_extension) and work through SQL. It serves programs written
** in C that register the extension for every connection, before they open the first:
**
**     sqlite3_auto_extension((void (*)(void))sqlite3_litestream_init);
**
** The library uses the SQLite of its host, through the API table that it is given, and contains none of its own.
** Once loaded it stays loaded until the process ends.
*/
#ifndef LITESTREAM_H
#define LITESTREAM_H

#include <sqlite3ext.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
** The entry point. Adds the SQL functions and tables to db and to each connection opened later, makes the VFS
** "litestream-primary" the default one, and registers the VFS "litestream", which opens databases from their replicas:
** "file:NAME?vfs=litestream&replica=URL". Returns SQLITE_OK_LOAD_PERMANENTLY, or an error code with *pzErrMsg set, to
** be freed with sqlite3_free.
*/
int sqlite3_litestream_init(sqlite3 *db, char **pzErrMsg, const sqlite3_api_routines *pApi);

/*
** The same under the name that Litestream's own VFS extension has, in whose place this library may be loaded.
** LITESTREAM_REPLICA_URL names the replica of "file:NAME?vfs=litestream". LITESTREAM_WRITE_ENABLED is refused.
*/
int sqlite3_litestreamvfs_init(sqlite3 *db, char **pzErrMsg, const sqlite3_api_routines *pApi);

/*
** Result codes. A failing SQL function gives SQLITE_ERROR and a sentence. A failure inside the VFS has a code only;
** its sentence stands in the column last_error of the table litestream_status, and in sqlite3_log. Codes of this
** library are extended forms of SQLITE_IOERR, so that a program that knows only the primary codes handles them as
** what they are. They come from reading a replica; otherwise the codes of the VFS below are passed on.
*/

/* A file of the state that the transaction reads is gone, and no other one has the same pages: begin a new one. */
#define LITESTREAM_IOERR_GONE (SQLITE_IOERR | (200 << 8))

/* The replica was begun again, or overwritten: what was read belongs to another history. Close, and open again. */
#define LITESTREAM_IOERR_RESTARTED (SQLITE_IOERR | (201 << 8))

/* The store gave bytes that are not what was written, and no other file has the same pages. */
#define LITESTREAM_IOERR_CORRUPT (SQLITE_IOERR | (202 << 8))

/* The store is away, too slow, or refuses: the same statement may succeed later. */
#define LITESTREAM_IOERR_UNAVAILABLE (SQLITE_IOERR | (203 << 8))

#ifdef __cplusplus
}
#endif

#endif /* LITESTREAM_H */
