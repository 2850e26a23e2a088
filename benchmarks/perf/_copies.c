/* Counts what a process copies. Preloaded, it stands before the C library's functions that copy memory and
 * before the calls that hand memory to the kernel; store_bytes.py compiles it and reads its counters.
 * Copies of fewer than SMALLEST bytes are left out: they are headers and texts, not arrays of tokens. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SMALLEST = 512 };

static _Atomic uint64_t in_memory, through_sockets;

uint64_t bytes_in_memory(void) { return in_memory; }
uint64_t bytes_through_sockets(void) { return through_sockets; }

/* Written out, as the real function is found by dlsym, which copies memory itself. */
static void *copy(void *restrict to, const void *restrict from, size_t size) {
    char *target = to;
    const char *source = from;
    for (size_t at = 0; at < size; at++) target[at] = source[at];
    return to;
}

void *memcpy(void *to, const void *from, size_t size) {
    if (size >= SMALLEST) in_memory += size;
    return copy(to, from, size);
}

void *mempcpy(void *to, const void *from, size_t size) { return (char *)memcpy(to, from, size) + size; }

void *memmove(void *to, const void *from, size_t size) {
    if (size >= SMALLEST) in_memory += size;
    if ((uintptr_t)to - (uintptr_t)from >= size) return copy(to, from, size);
    const char *source = from;
    while (size--) ((volatile char *)to)[size] = source[size];
    return to;
}

void *__memcpy_chk(void *to, const void *from, size_t size, size_t room) {
    (void)room;
    return memcpy(to, from, size);
}

void *__memmove_chk(void *to, const void *from, size_t size, size_t room) {
    (void)room;
    return memmove(to, from, size);
}

#define COUNTED(name, ...)                                                             \
    static __typeof__(&name) real;                                                     \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                      \
    ssize_t done = real(__VA_ARGS__);                                                  \
    if (done > 0) through_sockets += (uint64_t)done;                                   \
    return done

ssize_t send(int to, const void *from, size_t size, int flags) { COUNTED(send, to, from, size, flags); }
ssize_t recv(int from, void *to, size_t size, int flags) { COUNTED(recv, from, to, size, flags); }
ssize_t sendmsg(int to, const struct msghdr *message, int flags) { COUNTED(sendmsg, to, message, flags); }
ssize_t recvmsg(int from, struct msghdr *message, int flags) { COUNTED(recvmsg, from, message, flags); }
