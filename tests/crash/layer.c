/* A layer between a program and the file system (LD_PRELOAD): it writes down, in order, what the program does to the
 * files of one directory, so that a test can say what would be left after a power cut at any moment; and it can play a
 * full disk.
 *
 *   LAYER_DIR   the directory that is watched
 *   LAYER_LOG   where operations are written down: see struct record
 *   LAYER_FULL  while this file exists, the disk is full
 *
 * Syncs are written down and not done: what survives is decided from the log, and tests are quicker.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 65536

/* Followed by the path, then by the octets of a write, or by the new path of a rename. */
struct record {
    uint32_t kind; /* 'C' created, 'W' write, 'T' size, 'S' sync, 'R' rename, 'U' unlink */
    uint32_t path;
    uint64_t at; /* offset of a write, or the new size */
    uint64_t length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[MAX_FDS];
static int log_fd = -1;
static const char *watched, *full;

__attribute__((constructor)) static void start(void)
{
    const char *log = getenv("LAYER_LOG");
    watched = getenv("LAYER_DIR");
    full = getenv("LAYER_FULL");
    if (watched && log)
        log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_full(void)
{
    int before = errno;
    int yes = full && syscall(SYS_faccessat, AT_FDCWD, full, F_OK) == 0;
    errno = before;
    return yes;
}

static void note(char kind, const char *path, uint64_t at, const void *data, uint64_t length)
{
    struct record record = { kind, strlen(path), at, length };
    struct iovec parts[3] = { { &record, sizeof record }, { (void *)path, record.path }, { (void *)data, length } };
    int before = errno;
    syscall(SYS_writev, log_fd, parts, data ? 3 : 2);
    errno = before;
}

static int is_watched(const char *path)
{
    return log_fd >= 0 && strncmp(path, watched, strlen(watched)) == 0;
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < MAX_FDS ? paths[fd] : NULL;
}

static int opened(int fd, const char *path, int flags, int was_there)
{
    if (fd >= 0 && fd < MAX_FDS && is_watched(path)) {
        free(paths[fd]);
        paths[fd] = strdup(path);
        if (!was_there)
            note('C', path, 0, NULL, 0);
        else if (flags & O_TRUNC)
            note('T', path, 0, NULL, 0);
    }
    return fd;
}

static int do_open(int dir, const char *path, int flags, mode_t mode)
{
    pthread_mutex_lock(&lock);
    int was_there = is_watched(path) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int fd;
    if (is_watched(path) && !was_there && (flags & O_CREAT) && is_full()) {
        errno = ENOSPC;
        fd = -1;
    } else {
        fd = opened(syscall(SYS_openat, dir, path, flags, mode), path, flags, was_there);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                                                                                             \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, mode_t);                                                                                   \
        va_end(list);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return do_open(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, mode) return do_open(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, mode) return do_open(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd)
{
    pthread_mutex_lock(&lock);
    if (path_of(fd)) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static int duplicated(int from, int to)
{
    if (path_of(from) && to >= 0 && to < MAX_FDS) {
        free(paths[to]);
        paths[to] = strdup(paths[from]);
    }
    return to;
}

int dup(int fd)
{
    pthread_mutex_lock(&lock);
    int result = duplicated(fd, syscall(SYS_dup, fd));
    pthread_mutex_unlock(&lock);
    return result;
}

static int do_fcntl(int fd, int command, void *argument)
{
    if (command != F_DUPFD && command != F_DUPFD_CLOEXEC)
        return syscall(SYS_fcntl, fd, command, argument);
    pthread_mutex_lock(&lock);
    int result = duplicated(fd, syscall(SYS_fcntl, fd, command, argument));
    pthread_mutex_unlock(&lock);
    return result;
}

#define ARGUMENT(command, argument)                                                                                   \
    va_list list;                                                                                                      \
    va_start(list, command);                                                                                           \
    void *argument = va_arg(list, void *);                                                                             \
    va_end(list);

int fcntl(int fd, int command, ...) { ARGUMENT(command, argument) return do_fcntl(fd, command, argument); }
int fcntl64(int fd, int command, ...) { ARGUMENT(command, argument) return do_fcntl(fd, command, argument); }

static ssize_t do_pwrite(int fd, const void *data, size_t length, off64_t at, int seeks)
{
    const char *path = path_of(fd);
    if (!path)
        return seeks ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
    pthread_mutex_lock(&lock);
    ssize_t result;
    if (is_full()) {
        errno = ENOSPC;
        result = -1;
    } else {
        if (seeks)
            at = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND ? lseek64(fd, 0, SEEK_END) : lseek64(fd, 0, SEEK_CUR);
        result = seeks ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
        if (result > 0)
            note('W', path, at, data, result);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) { return do_pwrite(fd, data, length, 0, 1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return do_pwrite(fd, data, length, at, 0); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return do_pwrite(fd, data, length, at, 0); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!path_of(fd))
        return syscall(SYS_writev, fd, parts, count);
    /* A short write is allowed: the program goes on with the rest. */
    return count > 0 ? do_pwrite(fd, parts[0].iov_base, parts[0].iov_len, 0, 1) : 0;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    if (!path_of(fd))
        return syscall(SYS_pwritev, fd, parts, count, at, 0);
    return count > 0 ? do_pwrite(fd, parts[0].iov_base, parts[0].iov_len, at, 0) : 0;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

static int resize(int fd, off64_t size)
{
    const char *path = path_of(fd);
    if (!path)
        return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    struct stat now;
    int result = fstat(fd, &now);
    if (result == 0 && size > now.st_size && is_full()) {
        errno = ENOSPC;
        result = -1;
    } else if (result == 0) {
        result = syscall(SYS_ftruncate, fd, size);
        if (result == 0)
            note('T', path, size, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return resize(fd, size); }
int ftruncate64(int fd, off64_t size) { return resize(fd, size); }

static int allocate(int fd, int mode, off64_t at, off64_t length)
{
    const char *path = path_of(fd);
    if (!path)
        return syscall(SYS_fallocate, fd, mode, at, length);
    /* Not offered: the program falls back to writing. */
    errno = EOPNOTSUPP;
    return -1;
}

int fallocate(int fd, int mode, off_t at, off_t length) { return allocate(fd, mode, at, length); }
int fallocate64(int fd, int mode, off64_t at, off64_t length) { return allocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return allocate(fd, 0, at, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return allocate(fd, 0, at, length) == 0 ? 0 : errno; }

static int synced(int fd, long call)
{
    const char *path = path_of(fd);
    if (!path)
        return syscall(call, fd);
    pthread_mutex_lock(&lock);
    note('S', path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* It says nothing about metadata and does not flush the disk's cache (sync_file_range(2)): no promise at all. */
int sync_file_range(int fd, off64_t at, off64_t length, unsigned int flags)
{
    return path_of(fd) ? 0 : syscall(SYS_sync_file_range, fd, at, length, flags);
}

int rename(const char *from, const char *to)
{
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (result == 0 && is_watched(from)) {
        note('R', from, 0, to, strlen(to));
        /* What is open goes by its new name from here on. */
        for (int fd = 0; fd < MAX_FDS; fd++)
            if (paths[fd] && strcmp(paths[fd], from) == 0) {
                free(paths[fd]);
                paths[fd] = strdup(to);
            }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0 && is_watched(path))
        note('U', path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
