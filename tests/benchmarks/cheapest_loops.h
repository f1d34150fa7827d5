/*
 * cheapest_loops.h - sockets in shuffled order, and what all loops of cheapest_loops.c do with a token. All of it is
 * static: one translation unit, so that nothing stands between a loop and what it calls.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 };

static int watched_count, active_count, writes_count;
static int *fd_of, *write_fd_of, *travel, *arrivals;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *get(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL) {
        die("malloc");
    }
    return memset(memory, 1, bytes);
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void shuffle(int *numbers, int count)
{
    for (int i = 0; i < count; i++) {
        const int other = (int)(random() % (i + 1));
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
}

static void open_sockets(void)
{
    fd_of = get((size_t)watched_count * sizeof(int));
    write_fd_of = get((size_t)watched_count * sizeof(int));
    travel = get((size_t)watched_count * sizeof(int));
    arrivals = get((size_t)watched_count * sizeof(int));
    for (int i = 0; i < watched_count; i += 2) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &fd_of[i]) != 0) {
            die("socketpair");
        }
    }
    shuffle(travel, watched_count);
    for (int i = 0; i < watched_count; i++) {
        write_fd_of[travel[i]] = fd_of[travel[(i + 1) % watched_count] ^ 1];
    }
}

/* ---- what all loops do with a token ---- */

static inline void start(void)
{
    const int first = (int)(random() % watched_count);
    for (int i = 0; i < active_count; i++) {
        const int64_t step = (int64_t)i * watched_count / active_count;
        if (write(fd_of[travel[(first + step) % watched_count] ^ 1], "e", 1) != 1) {
            die("write");
        }
    }
}

static inline void take(int position)
{
    char buffer[BUFFER_BYTES];
    if (read(fd_of[position], buffer, sizeof buffer) != 1) {
        die("read");
    }
}

/* Sends on what has arrived, and returns how many those are. */
static inline int send_on(int arrived_count, int *left_count)
{
    const int count = arrived_count < *left_count ? arrived_count : *left_count;
    *left_count -= count;
    for (int i = 0; i < count; i++) {
        if (write(write_fd_of[arrivals[i]], "e", 1) != 1) {
            die("write");
        }
    }
    return count;
}
