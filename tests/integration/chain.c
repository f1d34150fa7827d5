/*
 * chain.c - an independent measurement of poll(2) and epoll(7), in the manner of libevent's bench.c: PAIRS socket
 * pairs, of which one end each is watched and the other one written to. One byte travels over all of them: its reader
 * writes it to the next pair. It shares nothing with the program that it is compared with.
 *
 *     chain poll|epoll PAIRS WRITES PASSES CPU
 *
 * Prints the time of each pass, in ns by CLOCK_MONOTONIC, one a line; a pass has WRITES + 1 events. The first is
 * dropped. Exit 1 when a call fails.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 16 };

static int pairs_count, epoll_fd;
static int (*pairs)[2]; /* watched, written to */
static int *next_of;
static struct pollfd *slots;

static void check(long result, const char *call)
{
    if (result < 0) {
        perror(call);
        exit(1);
    }
}

static long long now_ns(void)
{
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Which pair has something to read. */
static int wait_poll(void)
{
    check(poll(slots, (nfds_t)pairs_count, -1), "poll");
    for (int i = 0;; i++) {
        if (slots[i].revents != 0) {
            return i;
        }
    }
}

static int wait_epoll(void)
{
    struct epoll_event events[AT_ONCE];
    check(epoll_wait(epoll_fd, events, AT_ONCE, -1), "epoll_wait");
    return events[0].data.fd;
}

static void open_pairs(int is_poll)
{
    int *order = calloc((size_t)pairs_count, sizeof(order[0]));
    for (int i = 0; i < pairs_count; i++) {
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pairs[i]), "socketpair");
        slots[i] = (struct pollfd){.fd = pairs[i][0], .events = POLLIN};
        struct epoll_event event = {.events = EPOLLIN, .data.fd = i};
        check(is_poll ? 0 : epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pairs[i][0], &event), "epoll_ctl");
        int other = rand() % (i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    for (int i = 0; i < pairs_count; i++) {
        next_of[order[i]] = order[(i + 1) % pairs_count];
    }
    free(order);
}

static long long pass(int (*wait)(void), int writes_count)
{
    char byte[2];
    long long start_ns = now_ns();
    check(write(pairs[rand() % pairs_count][1], "e", 1), "write");
    for (int written = 0;; written++) {
        int ready = wait();
        check(read(pairs[ready][0], byte, sizeof byte), "read");
        if (written == writes_count) {
            return now_ns() - start_ns;
        }
        check(write(pairs[next_of[ready]][1], "e", 1), "write");
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        return 2;
    }
    int is_poll = strcmp(argv[1], "poll") == 0;
    int (*wait)(void) = is_poll ? wait_poll : wait_epoll;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(atoi(argv[5]), &cpus);
    check(sched_setaffinity(0, sizeof cpus, &cpus), "sched_setaffinity");
    pairs_count = atoi(argv[2]);
    pairs = calloc((size_t)pairs_count, sizeof(pairs[0]));
    next_of = calloc((size_t)pairs_count, sizeof(next_of[0]));
    slots = calloc((size_t)pairs_count, sizeof(slots[0]));
    check(epoll_fd = epoll_create1(0), "epoll_create1");
    open_pairs(is_poll);
    for (int i = 0, count = atoi(argv[4]); i <= count; i++) {
        long long ns = pass(wait, atoi(argv[3]));
        if (i > 0) {
            printf("%lld\n", ns);
        }
    }
    return 0;
}
