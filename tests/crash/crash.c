/* Kill a process, or have a call fail, at its n-th call that changes files: loaded with LD_PRELOAD, told by variables.

   CRASH_STATE  a file of 4,096 bytes, zero at first: the count, and whether it struck
   CRASH_LOG    a file to which each counted call is appended, one a line
   CRASH_BELOW  only paths in this folder count, itself included (several: separated by colons)
   CRASH_AT     n, from 1; 0 counts only
   CRASH_HOW    before, after: SIGKILL to the process's whole group before or after the call; of a write, in its middle
                full: the call fails with ENOSPC, and so does all after it that needs room; once: it alone */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define NEEDS_ROOM 1 /* fails on a full disk */

struct state {
    atomic_long calls;
    atomic_int struck;
};

static struct state *state;
static const char *below, *how = "";
static long at;
static int logged = -1;
static __thread int inside; /* fopen calls open */

/* Also called by who sets the variables in a process that runs already. */
__attribute__((constructor)) void crash_begin(void)
{
    const char *path = getenv("CRASH_STATE"), *log = getenv("CRASH_LOG"), *number = getenv("CRASH_AT");
    if (!path || !log)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    void *shared = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED)
        abort();
    syscall(SYS_close, fd);
    logged = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    below = getenv("CRASH_BELOW");
    how = getenv("CRASH_HOW") ? getenv("CRASH_HOW") : "";
    at = number ? atol(number) : 0;
    state = shared;
}

/* Write to `out` the path that `path`, seen from the folder `at_fd`, is; the descriptor's own for NULL. */
static void full_path(int at_fd, const char *path, char out[PATH_MAX])
{
    char link[64];
    out[0] = 0;
    if (path && path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    snprintf(link, sizeof link, at_fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at_fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    n = n < 0 ? 0 : n;
    out[n] = 0;
    if (path)
        snprintf(out + n, (size_t)(PATH_MAX - n), "/%s", path);
}

static int counts(const char *path)
{
    if (!below || !*below)
        return 1;
    for (const char *one = below; *one;) {
        size_t n = strcspn(one, ":");
        if (n && !strncmp(path, one, n) && (path[n] == 0 || path[n] == '/'))
            return 1;
        one += n + (one[n] == ':');
    }
    return 0;
}

static void die(void)
{
    kill(0, SIGKILL);
    for (;;)
        pause();
}

enum verdict { GO_ON, KILL_AFTER, CUT, FAIL };

/* Count a call; say what becomes of it, or kill at once. `flags`: NEEDS_ROOM; `torn`: half of it can happen. */
static enum verdict call(const char *name, int fd, const char *path, int flags, int torn)
{
    char whole[PATH_MAX], line[PATH_MAX + 64];
    if (!state || inside)
        return GO_ON;
    int saved = errno;
    full_path(fd, path, whole);
    errno = saved;
    if (!counts(whole))
        return GO_ON;
    long n = atomic_fetch_add(&state->calls, 1) + 1;
    int length = snprintf(line, sizeof line, "%s %s\n", name, whole);
    syscall(SYS_write, logged, line, (size_t)length);
    if (!strcmp(how, "full") && at && n >= at && (flags & NEEDS_ROOM)) {
        atomic_store(&state->struck, 1);
        return FAIL;
    }
    if (n != at)
        return GO_ON;
    atomic_store(&state->struck, 1);
    if (!strcmp(how, "after"))
        return KILL_AFTER;
    if (!strcmp(how, "before")) {
        if (torn)
            return CUT;
        die();
    }
    return !strcmp(how, "once") ? FAIL : GO_ON;
}

#define DO(type, failed, told, real)                                                                                   \
    do {                                                                                                               \
        enum verdict what = told;                                                                                      \
        if (what == FAIL) {                                                                                            \
            errno = ENOSPC;                                                                                            \
            return failed;                                                                                             \
        }                                                                                                              \
        inside++;                                                                                                      \
        type result = real;                                                                                            \
        inside--;                                                                                                      \
        if (what == KILL_AFTER)                                                                                        \
            die();                                                                                                     \
        return result;                                                                                                 \
    } while (0)

#define ONE_PATH(name, flags)                                                                                          \
    int name(const char *path)                                                                                         \
    {                                                                                                                  \
        DO(int, -1, call(#name, AT_FDCWD, path, flags, 0), REAL(name)(path));                                          \
    }
ONE_PATH(unlink, 0)
ONE_PATH(rmdir, 0)
ONE_PATH(remove, 0)

int unlinkat(int fd, const char *path, int flags)
{
    DO(int, -1, call("unlinkat", fd, path, 0, 0), REAL(unlinkat)(fd, path, flags));
}

int mkdir(const char *path, mode_t mode)
{
    DO(int, -1, call("mkdir", AT_FDCWD, path, NEEDS_ROOM, 0), REAL(mkdir)(path, mode));
}

int mkdirat(int fd, const char *path, mode_t mode)
{
    DO(int, -1, call("mkdirat", fd, path, NEEDS_ROOM, 0), REAL(mkdirat)(fd, path, mode));
}

/* A call of two paths counts by the second, the one that comes to be. */
#define TWO_PATHS(name, flags)                                                                                         \
    int name(const char *from, const char *to)                                                                         \
    {                                                                                                                  \
        DO(int, -1, call(#name, AT_FDCWD, to, flags, 0), REAL(name)(from, to));                                        \
    }
TWO_PATHS(rename, 0)
TWO_PATHS(link, NEEDS_ROOM)
TWO_PATHS(symlink, NEEDS_ROOM)

int renameat(int old, const char *from, int new, const char *to)
{
    DO(int, -1, call("renameat", new, to, 0, 0), REAL(renameat)(old, from, new, to));
}

int renameat2(int old, const char *from, int new, const char *to, unsigned flags)
{
    DO(int, -1, call("renameat2", new, to, 0, 0), REAL(renameat2)(old, from, new, to, flags));
}

int linkat(int old, const char *from, int new, const char *to, int flags)
{
    DO(int, -1, call("linkat", new, to, NEEDS_ROOM, 0), REAL(linkat)(old, from, new, to, flags));
}

int symlinkat(const char *from, int new, const char *to)
{
    DO(int, -1, call("symlinkat", new, to, NEEDS_ROOM, 0), REAL(symlinkat)(from, new, to));
}

static enum verdict opened(const char *name, int fd, const char *path, int flags)
{
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    return writes ? call(name, fd, path, flags & O_CREAT ? NEEDS_ROOM : 0, 0) : GO_ON;
}

static int mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        int mode = mode_of(flags, arguments);                                                                          \
        va_end(arguments);                                                                                             \
        DO(int, -1, opened(#name, AT_FDCWD, path, flags), REAL(name)(path, flags, mode));                              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int fd, const char *path, int flags, ...)                                                                 \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        int mode = mode_of(flags, arguments);                                                                          \
        va_end(arguments);                                                                                             \
        DO(int, -1, opened(#name, fd, path, flags), REAL(name)(fd, path, flags, mode));                                \
    }
OPENAT(openat)
OPENAT(openat64)

#define CREAT(name)                                                                                                    \
    int name(const char *path, mode_t mode)                                                                            \
    {                                                                                                                  \
        DO(int, -1, call(#name, AT_FDCWD, path, NEEDS_ROOM, 0), REAL(name)(path, mode));                               \
    }
CREAT(creat)
CREAT(creat64)

#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode)                                                                     \
    {                                                                                                                  \
        int flags = mode[0] == 'r' ? (strchr(mode, '+') ? O_RDWR : O_RDONLY) : O_WRONLY | O_CREAT;                     \
        DO(FILE *, NULL, opened(#name, AT_FDCWD, path, flags), REAL(name)(path, mode));                                \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define TRUNCATE(name)                                                                                                 \
    int name(const char *path, off_t length)                                                                           \
    {                                                                                                                  \
        DO(int, -1, call(#name, AT_FDCWD, path, 0, 0), REAL(name)(path, length));                                      \
    }
TRUNCATE(truncate)
TRUNCATE(truncate64)

#define FTRUNCATE(name)                                                                                                \
    int name(int fd, off_t length)                                                                                     \
    {                                                                                                                  \
        DO(int, -1, call(#name, fd, NULL, 0, 0), REAL(name)(fd, length));                                              \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* Of a write that is struck before it is done, the first half happens. */
#define WRITE(name, declared, halved, given)                                                                           \
    ssize_t name declared                                                                                              \
    {                                                                                                                  \
        enum verdict found = call(#name, fd, NULL, NEEDS_ROOM, 1);                                                     \
        if (found == CUT) {                                                                                            \
            REAL(name) halved;                                                                                         \
            die();                                                                                                     \
        }                                                                                                              \
        DO(ssize_t, -1, found, REAL(name) given);                                                                      \
    }
WRITE(write, (int fd, const void *data, size_t n), (fd, data, n / 2), (fd, data, n))
WRITE(pwrite, (int fd, const void *data, size_t n, off_t to), (fd, data, n / 2, to), (fd, data, n, to))
WRITE(pwrite64, (int fd, const void *data, size_t n, off_t to), (fd, data, n / 2, to), (fd, data, n, to))
WRITE(writev, (int fd, const struct iovec *data, int n), (fd, data, n / 2), (fd, data, n))

/* A kill loses nothing that was written, so waiting for the disk would prove nothing; it takes most of the time. */
int fsync(int fd)
{
    return state ? 0 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return state ? 0 : REAL(fdatasync)(fd);
}
