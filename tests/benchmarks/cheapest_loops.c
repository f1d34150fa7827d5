/*
 * cheapest_loops.c - for each mechanism the shortest loop that does the chain workload of `readiness`, and nothing
 * else: no counting, no checking, one function for each. It shares no code with the helper, so that the difference
 * between the two is what the helper's generality costs.
 *
 *     cheapest_loops MECHANISM WATCHED ACTIVE WRITES PASSES SEED      prints one line a pass: ns
 *
 * WATCHED is even. Pinned to the last CPU it may use. Clock: CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include "cheapest_loops.h"
#include "cheapest_loops_io_uring.h"

#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>

/* ---- select ---- */

static fd_set watched_set;
static int position_of[FD_SETSIZE];
static int highest_fd;

static void select_watch(int position)
{
    FD_SET(fd_of[position], &watched_set);
    position_of[fd_of[position]] = position;
    highest_fd = fd_of[position] > highest_fd ? fd_of[position] : highest_fd;
}

static void select_pass(void)
{
    const int word_bits = 8 * sizeof(long);
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        fd_set ready = watched_set;
        if (select(highest_fd + 1, &ready, NULL, NULL, NULL) != travelling) {
            die("select");
        }
        for (int word = 0, n = 0; n < travelling; word++) {
            for (unsigned long bits = ((unsigned long *)&ready)[word]; bits != 0; bits &= bits - 1) {
                take(arrivals[n++] = position_of[word * word_bits + __builtin_ctzl(bits)]);
            }
        }
    }
}

/* ---- poll ---- */

static struct pollfd *polled;
static int *polled_position;
static int polled_count;

static void poll_watch(int position)
{
    if (polled == NULL) {
        polled = get((size_t)watched_count * sizeof(polled[0]));
        polled_position = get((size_t)watched_count * sizeof(int));
    }
    polled[polled_count] = (struct pollfd){.fd = fd_of[position], .events = POLLIN};
    polled_position[polled_count++] = position;
}

static void poll_pass(void)
{
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        if (poll(polled, (nfds_t)polled_count, -1) != travelling) {
            die("poll");
        }
        for (int slot = 0, n = 0; n < travelling; slot++) {
            if (polled[slot].revents != 0) {
                take(arrivals[n++] = polled_position[slot]);
            }
        }
    }
}

/* ---- epoll ---- */

static int epoll_fd = -1;
static uint32_t epoll_flags;
static struct epoll_event *epoll_events;

static void epoll_change(int operation, int position)
{
    struct epoll_event event = {.events = EPOLLIN | epoll_flags, .data.u32 = (uint32_t)position};
    if (epoll_ctl(epoll_fd, operation, fd_of[position], &event) != 0) {
        die("epoll_ctl");
    }
}

static void epoll_watch(int position)
{
    if (epoll_fd < 0) {
        epoll_fd = epoll_create1(0);
        epoll_events = get((size_t)active_count * sizeof(epoll_events[0]));
    }
    epoll_change(EPOLL_CTL_ADD, position);
}

static inline void epoll_loop(int is_oneshot)
{
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        if (epoll_wait(epoll_fd, epoll_events, active_count, -1) != travelling) {
            die("epoll_wait");
        }
        for (int n = 0; n < travelling; n++) {
            take(arrivals[n] = (int)epoll_events[n].data.u32);
            if (is_oneshot) {
                epoll_change(EPOLL_CTL_MOD, arrivals[n]);
            }
        }
    }
}

static void epoll_pass(void)
{
    epoll_loop(0);
}

static void epoll_oneshot_pass(void)
{
    epoll_loop(1);
}

/* ---- main ---- */

static const struct {
    const char *name;
    void (*watch)(int position);
    void (*pass)(void);
    uint32_t epoll_flags;
    int is_multishot, is_recv;
} mechanisms[] = {
    {"select", select_watch, select_pass, 0, 0, 0},
    {"poll", poll_watch, poll_pass, 0, 0, 0},
    {"epoll", epoll_watch, epoll_pass, 0, 0, 0},
    {"epoll_edge", epoll_watch, epoll_pass, EPOLLET, 0, 0},
    {"epoll_oneshot", epoll_watch, epoll_oneshot_pass, EPOLLONESHOT, 0, 0},
    {"io_uring_poll", uring_watch, uring_poll_pass, 0, 0, 0},
    {"io_uring_poll_multishot", uring_watch, uring_poll_pass, 0, 1, 0},
    {"io_uring_recv", uring_watch, uring_recv_pass, 0, 1, 1},
};

static void pin(void)
{
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int cpu = CPU_SETSIZE - 1;
    while (!CPU_ISSET(cpu, &allowed)) {
        cpu--;
    }
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    sched_setaffinity(0, sizeof allowed, &allowed);
}

static void run(size_t which, int passes_count)
{
    int *order = get((size_t)watched_count * sizeof(int));
    epoll_flags = mechanisms[which].epoll_flags;
    is_multishot = mechanisms[which].is_multishot;
    is_recv = mechanisms[which].is_recv;
    shuffle(order, watched_count);
    for (int i = 0; i < watched_count; i++) {
        mechanisms[which].watch(order[i]);
    }
    if (pending_count > 0) {
        enter(0); /* requests that see their data only when they are submitted are another workload */
    }
    for (int i = -1; i < passes_count; i++) {
        const int64_t start_ns = clock_ns();
        mechanisms[which].pass();
        const int64_t pass_ns = clock_ns() - start_ns;
        if (i >= 0) {
            printf("%lld\n", (long long)pass_ns);
        }
    }
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    if (argc != 7) {
        fprintf(stderr, "usage: %s MECHANISM WATCHED ACTIVE WRITES PASSES SEED\n", argv[0]);
        return 2;
    }
    watched_count = atoi(argv[2]);
    active_count = atoi(argv[3]);
    writes_count = atoi(argv[4]);
    srandom((unsigned)atoi(argv[6]));
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    pin();
    open_sockets();
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
        if (strcmp(mechanisms[i].name, argv[1]) == 0) {
            run(i, atoi(argv[5]));
            return 0;
        }
    }
    fprintf(stderr, "no such mechanism: %s\n", argv[1]);
    return 2;
}
