/* Preloaded into a process under test: the next sync of one file fails, as on a disk that lost what
 * it was given. KAPELL_TEST_SYNC_ARM names a file; when it is there, the next sync of a file whose name
 * ends as its content says fails with EIO, and the file is removed, so one sync fails for each time it
 * is made.
 *
 * After such a failure Linux calls the pages clean although they never reached the disk, and may drop
 * them. If the content ends in '!', the last write to the file is dropped too: zeros stand in its place. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 1024
static struct { off_t at; size_t length; } last[FILES];

static int ends_in(int fd, const char *ending) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t wanted = strlen(ending);
    return (size_t)length >= wanted && strcmp(path + length - wanted, ending) == 0;
}

static void wrote(int fd, off_t at, ssize_t length) {
    if (fd >= 0 && fd < FILES && length > 0) {
        last[fd].at = at;
        last[fd].length = (size_t)length;
    }
}

static int fails(int fd) {
    const char *arm = getenv("KAPELL_TEST_SYNC_ARM");
    if (!arm) return 0;
    int file = open(arm, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    char ending[64];
    ssize_t length = read(file, ending, sizeof ending - 1);
    close(file);
    if (length <= 0) return 0;
    int drops = ending[length - 1] == '!';
    ending[drops ? length - 1 : length] = 0;
    if (!ends_in(fd, ending) || unlink(arm) != 0) return 0;
    if (drops && fd < FILES) {
        ssize_t (*put)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
        char *zeros = calloc(1, last[fd].length);
        put(fd, zeros, last[fd].length, last[fd].at);
        free(zeros);
    }
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    return fails(fd) ? -1 : next(fd);
}

int fdatasync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd) ? -1 : next(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    ssize_t written = next(fd, bytes, count);
    if (written > 0 && fd > 2) wrote(fd, lseek(fd, 0, SEEK_CUR) - written, written);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    ssize_t written = next(fd, bytes, count, at);
    wrote(fd, at, written);
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    ssize_t (*next)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    ssize_t written = next(fd, bytes, count, at);
    wrote(fd, at, written);
    return written;
}
