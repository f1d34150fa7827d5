/*
 * readiness_mechanism_select.c - select(2): one bit for each descriptor number, up to FD_SETSIZE. The set is copied
 * before each call, as the kernel overwrites it, and read word by word after it.
 *
 * The C library's fd_set holds FD_SETSIZE bits; FD_SET beyond it writes to memory of others. room() is asked before
 * anything is watched, so that it does not come to that.
 */
#include "readiness_parts.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/select.h>

enum { WORD_BITS = sizeof(fd_mask) * CHAR_BIT, WORDS_COUNT = FD_SETSIZE / WORD_BITS };

static fd_set watched, ready;
static uint32_t position_of[FD_SETSIZE]; /* by descriptor */
static int highest_fd = -1;

static void open_mechanism(void)
{
    FD_ZERO(&watched);
    FD_ZERO(&ready);
    memset(position_of, 0, sizeof position_of);
}

/* Descriptor numbers under FD_SETSIZE that are not yet in use: new descriptors get the lowest ones (open(2)). */
static int64_t room(void)
{
    int64_t free_count = 0;
    for (int fd = 0; fd < FD_SETSIZE; fd++) {
        free_count += fcntl(fd, F_GETFD) == -1;
    }
    return free_count;
}

static void watch(uint32_t position)
{
    const int fd = sockets.ends[position].read_fd;
    if (fd >= FD_SETSIZE) {
        fail_call("FD_SET", "a descriptor of FD_SETSIZE or more", EBADF);
    }
    FD_SET(fd, &watched);
    position_of[fd] = position;
    highest_fd = fd > highest_fd ? fd : highest_fd;
}

static void unwatch(uint32_t position)
{
    FD_CLR(sockets.ends[position].read_fd, &watched);
    while (highest_fd >= 0 && !FD_ISSET(highest_fd, &watched)) {
        highest_fd--;
    }
}

static uint32_t take_word(unsigned long bits, int first_fd, struct event *events, uint32_t count, uint32_t most)
{
    for (; bits != 0 && count < most; bits &= bits - 1) {
        events[count++].position = position_of[first_fd + __builtin_ctzl(bits)];
    }
    return count;
}

static int wait_for_events(struct event *events, uint32_t most)
{
    ready = watched;
    const int ready_count = COUNTED(select, highest_fd + 1, &ready, NULL, NULL, NULL);
    if (ready_count < 0 && errno != EINTR) {
        fail_call("select", "all watched, no time-out", errno);
    }
    if (ready_count < 0) {
        return -1;
    }
    const uint32_t wanted_count = (uint32_t)ready_count < most ? (uint32_t)ready_count : most;
    uint32_t count = 0;
    for (int word = 0; count < wanted_count; word++) {
        count = take_word((unsigned long)__FDS_BITS(&ready)[word], word * WORD_BITS, events, count, wanted_count);
    }
    return (int)count;
}

static void close_mechanism(void)
{
    FD_ZERO(&watched);
}

const struct mechanism mechanism_select = {
    .name = "select",
    .open = open_mechanism,
    .room = room,
    .watch = watch,
    .unwatch = unwatch,
    .wait = wait_for_events,
    .close = close_mechanism,
};
