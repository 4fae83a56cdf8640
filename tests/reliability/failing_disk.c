/* A disk that fails on the Nth call, for LD_PRELOAD.

   FAILING_DISK names a file of one struct `control`, mapped by every process: whoever runs the trial says there
   which calls fail, and reads how many there were. Only calls on paths below `folder` count. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum call { WRITE, SYNC, TRUNCATE, RENAME, LOCK, UNLINK, MKDIR, CREATE, KINDS };

struct control {
    char folder[512];       /* empty: nothing counts */
    int64_t fail_at;        /* the first call that fails, from 1; 0: none */
    int64_t for_good;       /* 0: that one alone; 1: it and all after it */
    int64_t kinds;          /* bit n: calls of kind n count */
    int64_t error;          /* errno; 0: a write that writes half and then succeeds */
    int64_t calls;          /* counted so far */
    int64_t failed;         /* calls that were made to fail */
    int64_t by_kind[KINDS];
};

static struct control *control;

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("FAILING_DISK");
    if (!path) return;
    int fd = REAL(open)(path, O_RDWR);
    if (fd < 0) return;
    void *place = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (place != MAP_FAILED) control = place;
}

static int below(const char *path)
{
    size_t length = strlen(control->folder);
    return !strncmp(path, control->folder, length) && (path[length] == '/' || !path[length]);
}

/* Whether this call, on an absolute path of the folder, fails; errno is set then. */
static int fails(enum call kind, const char *path)
{
    if (!control || !control->folder[0] || !(control->kinds >> kind & 1) || !below(path)) return 0;
    int64_t number = __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&control->by_kind[kind], 1, __ATOMIC_SEQ_CST);
    if (!control->fail_at || number < control->fail_at) return 0;
    if (number > control->fail_at && !control->for_good) return 0;
    if (!control->error && kind != WRITE) return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = (int) control->error;
    return 1;
}

static int fails_fd(enum call kind, int fd)
{
    if (!control || !control->folder[0]) return 0;
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

/* Paths are made absolute by their folder alone: what is created has no name of its own yet. */
static int fails_at(enum call kind, int folder, const char *path)
{
    if (!control || !control->folder[0]) return 0;
    if (path[0] == '/') return fails(kind, path);
    char link[64], whole[2 * PATH_MAX];
    int before = errno;
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, whole, PATH_MAX);
    errno = before;
    if (length < 0) return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return fails(kind, whole);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    if (fails_fd(WRITE, fd)) {
        if (control->error) return -1;
        count = count > 1 ? count / 2 : count;
    }
    return REAL(write)(fd, bytes, count);
}

#define PWRITE(name, offset_type)                                                   \
    ssize_t name(int fd, const void *bytes, size_t count, offset_type offset)       \
    {                                                                               \
        if (fails_fd(WRITE, fd)) {                                                  \
            if (control->error) return -1;                                          \
            count = count > 1 ? count / 2 : count;                                  \
        }                                                                           \
        return REAL(name)(fd, bytes, count, offset);                                \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

int fsync(int fd) { return fails_fd(SYNC, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_fd(SYNC, fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails_fd(TRUNCATE, fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails_fd(TRUNCATE, fd) ? -1 : REAL(ftruncate64)(fd, size); }
int flock(int fd, int how);
int flock(int fd, int how) { return fails_fd(LOCK, fd) ? -1 : REAL(flock)(fd, how); }

int rename(const char *old, const char *new)
{
    return fails_at(RENAME, AT_FDCWD, new) ? -1 : REAL(rename)(old, new);
}
int renameat(int from, const char *old, int to, const char *new)
{
    return fails_at(RENAME, to, new) ? -1 : REAL(renameat)(from, old, to, new);
}
int unlink(const char *path) { return fails_at(UNLINK, AT_FDCWD, path) ? -1 : REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags)
{
    return fails_at(UNLINK, folder, path) ? -1 : REAL(unlinkat)(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) { return fails_at(MKDIR, AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode)
{
    return fails_at(MKDIR, folder, path) ? -1 : REAL(mkdirat)(folder, path, mode);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                               \
        if (flags & O_CREAT && fails_at(CREATE, AT_FDCWD, path)) return -1;         \
        return REAL(name)(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                \
    int name(int folder, const char *path, int flags, ...)                          \
    {                                                                               \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                               \
        if (flags & O_CREAT && fails_at(CREATE, folder, path)) return -1;           \
        return REAL(name)(folder, path, flags, mode);                               \
    }
OPENAT(openat)
OPENAT(openat64)

#define FCNTL(name)                                                                 \
    int name(int fd, int command, ...)                                              \
    {                                                                               \
        va_list rest;                                                               \
        va_start(rest, command);                                                    \
        void *argument = va_arg(rest, void *);                                      \
        va_end(rest);                                                               \
        if ((command == F_SETLK || command == F_SETLKW) && fails_fd(LOCK, fd)) return -1; \
        return REAL(name)(fd, command, argument);                                   \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
