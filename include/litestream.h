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
** The entry point. Adds the SQL functions and tables to db and to each connection opened later, and makes the VFS
** "litestream-primary" the default one. Returns SQLITE_OK_LOAD_PERMANENTLY, or an error code with *pzErrMsg set,
** to be freed with sqlite3_free.
*/
int sqlite3_litestream_init(sqlite3 *db, char **pzErrMsg, const sqlite3_api_routines *pApi);

/*
** Result codes. A failing SQL function gives SQLITE_ERROR and a sentence. A failure inside the VFS has a code only;
** its sentence stands in the column last_error of the table litestream_status, and in sqlite3_log. Codes of this
** library are extended forms of SQLITE_IOERR, so that a program that knows only the primary codes handles them as
** what they are. This version defines none: the VFS passes on the codes of the VFS below it.
*/

#ifdef __cplusplus
}
#endif

#endif /* LITESTREAM_H */
