/* Stands between a process and its file system (LD_PRELOAD): every call that changes a file below one directory is a
** step, which can be counted, be the last one, be written to a journal, or fail. What is not below the directory, and
** everything while nothing is armed, is passed through.
**
**   kill     the process ends (SIGKILL) before its n-th step, or, if that is a write, after half of it; each step is a
**            line of a file, so that the last line says where it ended
**   journal  each step is appended to a file with its data, so that any moment of power loss can be made of it
**   fail     from the n-th step on, a number of steps of the files that match return an error
**
** The wal-index is written through a mapping and is not seen: after a crash SQLite makes it anew.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { OFF, KILL, JOURNAL, FAIL };
enum step { CREATE, WRITE, TRUNCATE, SYNC, SYNCED, RENAME, LINK, UNLINK, MKDIR, TIMES, MARK };
static const char *names[] = {"create", "write", "truncate", "sync", "synced", "rename", "link", "unlink", "mkdir",
                              "times", "mark"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum mode mode;
static char root[PATH_MAX]; /* with a slash at its end */
static char match[PATH_MAX];
static long counted, at, failures;
static int half, error, journal = -1;
static useconds_t sync_us;

#define REAL(result, name, ...)                                   \
    static result (*real_##name)(__VA_ARGS__);                    \
    if (!real_##name) real_##name = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t put(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real_write(fd, data, size);
}

/* Whether the path is below the directory. */
static int below(const char *path) { return strncmp(path, root, strlen(root)) == 0; }

/* The path of an open file, also of one that has none any more, or "". */
static const char *path_of(int fd, char *path) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
    char *gone = size < 0 ? NULL : strstr(path, " (deleted)");
    if (gone) *gone = 0;
    return path;
}

/* A path that may be relative to an open directory. */
static const char *path_at(int dir, const char *name, char *path) {
    if (name[0] == '/' || dir == AT_FDCWD) return name;
    size_t size = strlen(path_of(dir, path));
    snprintf(path + size, PATH_MAX - size, "/%s", name);
    return path;
}

struct record {
    uint32_t step, path_size, to_size, zero;
    uint64_t inode, offset, size, first;
};

/* Appends to the journal. `first` is what a SYNCED refers to. */
static void note(enum step step, uint64_t inode, const char *path, const char *to, uint64_t offset, const void *data,
                 uint64_t size, uint64_t first) {
    struct record record = {step, strlen(path), strlen(to), 0, inode, offset, size, first};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path_size}, {(void *)to, record.to_size},
                            {(void *)data, data ? size : 0}};
    REAL(ssize_t, writev, int, const struct iovec *, int);
    real_writev(journal, parts, 4);
    counted++;
}

static uint64_t inode_at(const char *path) {
    struct stat stat;
    return lstat(path, &stat) == 0 ? stat.st_ino : 0;
}

static uint64_t inode_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_ino : 0;
}

/* Where a step begins. 0: go on; 1: do half of it, if it can be halved, and call again; -1: fail with errno. */
static int begin(enum step step, const char *path) {
    if (mode == KILL) {
        char line[PATH_MAX + 32];
        put(journal, line, snprintf(line, sizeof line, "%s %s\n", names[step], path + strlen(root)));
        if (++counted == at) {
            if (half) return 1;
            kill(getpid(), SIGKILL);
        }
    } else if (mode == FAIL && strncmp(path + strlen(root), match, strlen(match)) == 0) {
        counted++;
        if (counted >= at && failures != 0) {
            if (half) {
                half = 0;
                return 1;
            }
            if (error == ENOSPC && (step == UNLINK || step == TIMES)) return 0; /* these need no room */
            if (failures > 0) failures--;
            errno = error;
            return -1;
        }
    }
    return 0;
}

static void ended_half(void) {
    if (mode == KILL) kill(getpid(), SIGKILL);
}

/* Arms a mode for this process. */
void faults_arm(const char *directory, int new_mode, long step, int in_half, int errno_value, long how_many,
                const char *matching, int journal_fd, int sync_takes_us) {
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s/", directory);
    snprintf(match, sizeof match, "%s", matching);
    counted = 0, at = step, half = in_half, error = errno_value, failures = how_many, journal = journal_fd;
    sync_us = sync_takes_us;
    mode = new_mode;
    pthread_mutex_unlock(&lock);
}

/* Steps since arming. */
long faults_counted(void) { return counted; }

/* Appends a text of the test's own to the journal. */
void faults_mark(const char *text) {
    pthread_mutex_lock(&lock);
    if (mode == JOURNAL) note(MARK, 0, text, "", 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
}

/* Runs `call` as a step on `path`; `journaled` when it succeeded. */
#define STEP(kind, on, call, journaled)                     \
    do {                                                    \
        const char *step_path = (on);                       \
        if (mode == OFF || !below(step_path)) return call;  \
        pthread_mutex_lock(&lock);                          \
        int how = begin(kind, step_path);                   \
        if (how == 1) {                                     \
            ended_half();                                   \
            how = begin(kind, step_path);                   \
        }                                                   \
        __auto_type result = how < 0 ? -1 : call;           \
        int saved = errno;                                  \
        if (mode == JOURNAL && result >= 0) journaled;      \
        pthread_mutex_unlock(&lock);                        \
        errno = saved;                                      \
        return result;                                      \
    } while (0)

static int opened(const char *path, int flags, int fd, int existed, uint64_t size) {
    if (mode == JOURNAL && fd >= 0) {
        if (!existed) note(CREATE, inode_of(fd), path, "", 0, 0, 0, 0);
        else if ((flags & O_TRUNC) && size) note(TRUNCATE, inode_of(fd), path, "", 0, 0, 0, 0);
    }
    return fd;
}

#define OPEN(name, declared, used, where)                                                   \
    int name declared {                                                                     \
        mode_t permissions = 0;                                                             \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                              \
            va_list more;                                                                   \
            va_start(more, flags);                                                          \
            permissions = va_arg(more, mode_t);                                             \
            va_end(more);                                                                   \
        }                                                                                   \
        char full[PATH_MAX];                                                                \
        (void)full;                                                                         \
        const char *there = where;                                                          \
        if (mode == OFF || !(flags & (O_CREAT | O_TRUNC)) || !below(there)) return used;    \
        pthread_mutex_lock(&lock);                                                          \
        struct stat stat;                                                                   \
        int existed = lstat(there, &stat) == 0;                                             \
        int is_step = !existed || (flags & O_TRUNC);                                        \
        int how = is_step ? begin(existed ? TRUNCATE : CREATE, there) : 0;                  \
        if (how == 1) {                                                                     \
            ended_half();                                                                   \
            how = begin(CREATE, there);                                                     \
        }                                                                                   \
        int fd = how < 0 ? -1 : opened(there, flags, used, existed, existed ? stat.st_size : 0); \
        int saved = errno;                                                                  \
        pthread_mutex_unlock(&lock);                                                        \
        errno = saved;                                                                      \
        return fd;                                                                          \
    }

#define OPEN_BY_PATH(name)                                                                             \
    static int real_##name(const char *path, int flags, mode_t permissions) {                          \
        static int (*real)(const char *, int, ...);                                                    \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                    \
        return real(path, flags, permissions);                                                         \
    }                                                                                                  \
    OPEN(name, (const char *path, int flags, ...), real_##name(path, flags, permissions), path)

#define OPEN_AT(name)                                                                                  \
    static int real_##name(int dir, const char *path, int flags, mode_t permissions) {                 \
        static int (*real)(int, const char *, int, ...);                                               \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name);               \
        return real(dir, path, flags, permissions);                                                    \
    }                                                                                                  \
    OPEN(name, (int dir, const char *path, int flags, ...), real_##name(dir, path, flags, permissions), \
         path_at(dir, path, full))

OPEN_BY_PATH(open)
OPEN_BY_PATH(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

/* A write at an offset; -1: where the file stands. */
static ssize_t write_at(int fd, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return offset < 0 ? put(fd, data, size) : real_pwrite64(fd, data, size, offset);
}

static ssize_t step_write(int fd, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    if (mode == OFF || !below(path_of(fd, path))) return write_at(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t result;
    int how = begin(WRITE, path);
    if (how == 1 && size > 1) {
        result = write_at(fd, data, size / 2, offset);
        ended_half();
    } else {
        if (how == 1) ended_half();
        off64_t place = offset >= 0 ? offset : lseek64(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
        result = how < 0 ? -1 : write_at(fd, data, size, offset);
        int saved = errno;
        if (mode == JOURNAL && result > 0) note(WRITE, inode_of(fd), path, "", place, data, result, 0);
        errno = saved;
    }
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

ssize_t write(int fd, const void *data, size_t size) { return step_write(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at_) { return step_write(fd, data, size, at_); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at_) { return step_write(fd, data, size, at_); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (mode == OFF || !below(path_of(fd, path))) return real_writev(fd, parts, count);
    /* A short write is a write: the caller goes on with the rest. */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return step_write(fd, parts[i].iov_base, parts[i].iov_len, -1);
    return 0;
}

/* In the kernel's own ways of copying the bytes are not seen: callers fall back to read and write. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    char path[PATH_MAX];
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    if (mode == OFF || !below(path_of(out, path))) return real_copy_file_range(in, in_at, out, out_at, size, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int out, int in, off64_t *in_at, size_t size) {
    char path[PATH_MAX];
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    if (mode == OFF || !below(path_of(out, path))) return real_sendfile64(out, in, in_at, size);
    errno = ENOSYS;
    return -1;
}

static int step_truncate(int fd, off64_t size) {
    char path[PATH_MAX];
    REAL(int, ftruncate64, int, off64_t);
    STEP(TRUNCATE, path_of(fd, path), real_ftruncate64(fd, size), note(TRUNCATE, inode_of(fd), path, "", size, 0, 0, 0));
}
int ftruncate(int fd, off_t size) { return step_truncate(fd, size); }
int ftruncate64(int fd, off64_t size) { return step_truncate(fd, size); }

/* A sync covers what was written before it began; what is written meanwhile is not waited for. */
static int step_sync(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    size_t size = strlen(path_of(fd, path));
    if (mode == OFF) return real(fd);
    if (size + 1 == strlen(root)) strcat(path, "/"); /* the directory itself */
    if (!below(path)) return real(fd);
    pthread_mutex_lock(&lock);
    int how = begin(SYNC, path);
    if (how == 1) {
        ended_half();
        how = begin(SYNC, path);
    }
    long first = counted;
    if (mode == JOURNAL) note(SYNC, inode_of(fd), path, "", 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    if (how < 0) return -1;
    if (mode == JOURNAL && sync_us) usleep(sync_us);
    int result = mode == KILL || mode == JOURNAL ? 0 : real(fd); /* the machine does not stop: nothing to wait for */
    if (mode == JOURNAL && result == 0) {
        pthread_mutex_lock(&lock);
        note(SYNCED, inode_of(fd), path, "", 0, 0, 0, first);
        pthread_mutex_unlock(&lock);
    }
    return result;
}
int fsync(int fd) {
    REAL(int, fsync, int);
    return step_sync(fd, real_fsync);
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return step_sync(fd, real_fdatasync);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    STEP(RENAME, to, real_rename(from, to), note(RENAME, inode_at(to), from, to, 0, 0, 0, 0));
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    REAL(int, renameat, int, const char *, int, const char *);
    STEP(RENAME, path_at(to_dir, to, b), real_renameat(from_dir, from, to_dir, to),
         note(RENAME, inode_at(path_at(to_dir, to, b)), path_at(from_dir, from, a), path_at(to_dir, to, b), 0, 0, 0, 0));
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    STEP(RENAME, path_at(to_dir, to, b), real_renameat2(from_dir, from, to_dir, to, flags),
         note(RENAME, inode_at(path_at(to_dir, to, b)), path_at(from_dir, from, a), path_at(to_dir, to, b), 0, 0, 0, 0));
}
int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    STEP(LINK, to, real_link(from, to), note(LINK, inode_at(to), from, to, 0, 0, 0, 0));
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    REAL(int, linkat, int, const char *, int, const char *, int);
    STEP(LINK, path_at(to_dir, to, b), real_linkat(from_dir, from, to_dir, to, flags),
         note(LINK, inode_at(path_at(to_dir, to, b)), path_at(from_dir, from, a), path_at(to_dir, to, b), 0, 0, 0, 0));
}
int unlink(const char *path) {
    REAL(int, unlink, const char *);
    STEP(UNLINK, path, real_unlink(path), note(UNLINK, 0, path, "", 0, 0, 0, 0));
}
int unlinkat(int dir, const char *path, int flags) {
    char full[PATH_MAX];
    REAL(int, unlinkat, int, const char *, int);
    STEP(UNLINK, path_at(dir, path, full), real_unlinkat(dir, path, flags),
         note(UNLINK, 0, path_at(dir, path, full), "", 0, 0, 0, 0));
}
int mkdir(const char *path, mode_t permissions) {
    REAL(int, mkdir, const char *, mode_t);
    STEP(MKDIR, path, real_mkdir(path, permissions), note(MKDIR, inode_at(path), path, "", 0, 0, 0, 0));
}
int futimens(int fd, const struct timespec times[2]) {
    char path[PATH_MAX];
    REAL(int, futimens, int, const struct timespec[2]);
    STEP(TIMES, path_of(fd, path), real_futimens(fd, times), note(TIMES, inode_of(fd), path, "", 0, 0, 0, 0));
}
int fallocate64(int fd, int how_, off64_t offset, off64_t size) {
    char path[PATH_MAX];
    REAL(int, fallocate64, int, int, off64_t, off64_t);
    if (mode == OFF || !below(path_of(fd, path))) return real_fallocate64(fd, how_, offset, size);
    errno = EOPNOTSUPP;
    return -1;
}
