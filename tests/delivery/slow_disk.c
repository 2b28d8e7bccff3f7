// Preloaded into a gateway: while the file SLOW_WHILE exists, each write and each sync of a file below a directory
// `history` takes 100 ms, and appends a byte to the file SLOW_COUNT.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for_the_disk(int file) {
    const char *while_it_exists = getenv("SLOW_WHILE"), *count = getenv("SLOW_COUNT");
    char link[64], path[4096];
    if (!while_it_exists || !count || access(while_it_exists, F_OK) != 0) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (!strstr(path, "/history/")) return;
    usleep(100000);
    int counter = open(count, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (counter < 0) return;
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    (void)!real(counter, "x", 1);
    close(counter);
}

#define SLOWED(type, name, parameters, ...)                         \
    type name parameters {                                          \
        static type (*real) parameters;                             \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);       \
        wait_for_the_disk(file);                                    \
        return real(__VA_ARGS__);                                   \
    }

SLOWED(ssize_t, write, (int file, const void *bytes, size_t length), file, bytes, length)
SLOWED(ssize_t, pwrite, (int file, const void *bytes, size_t length, off_t at), file, bytes, length, at)
SLOWED(ssize_t, pwrite64, (int file, const void *bytes, size_t length, off64_t at), file, bytes, length, at)
SLOWED(int, fsync, (int file), file)
SLOWED(int, fdatasync, (int file), file)
