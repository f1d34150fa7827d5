/*
 * server_model_epoll.c - one thread for all connections, as far as its descriptor table goes: epoll, level-
 * triggered or edge-triggered, non-blocking sockets, one buffer. No user memory for a connection, except for
 * one whose client does not read its echo (the rest of that echo is set aside, at most 4 KiB).
 *
 * RLIMIT_NOFILE bounds a table. Where --capacity needs more than one there are as many threads as that takes,
 * each with a table, an epoll and a buffer of its own, and nothing shared but the listener and the counts.
 * One of them accepts, until its table is full; then the next one that has room does. So /proc/PID/fd shows
 * only the connections of the first thread; those of another are in /proc/PID/task/TID/fd.
 *
 * Sources: epoll(7), unshare(2) (CLONE_FILES), eventfd(2), getrlimit(2) (RLIMIT_NOFILE).
 */
#include "server.h"
#include "server_stalled.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS_COUNT = 256,
    SPARE_DESCRIPTORS = 16, /* of each table: what it has besides connections, and some to spare */
    STACK_BYTES = 128 * 1024,
    LOOPS_MAX = 1024,
};

/* A thread, its table and its epoll. The first one is the main thread. */
struct event_loop {
    pthread_t thread;
    int wake_fd; /* in every table: an eventfd for those who have something to say to it */
    _Atomic int64_t room_count;
};

static struct event_loop loops[LOOPS_MAX];
static int64_t loops_count = 1;
static atomic_int accepting; /* whose turn it is */

static _Thread_local int own_number, epoll_fd = -1;
static _Thread_local bool is_watching_listener;

/* ---- watching ---- */

static uint32_t with_trigger(uint32_t events)
{
    return server.is_edge_triggered ? events | EPOLLET : events;
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    CHECK(epoll_ctl(epoll_fd, operation, fd, &event));
}

/* Level-triggered in any case: a batch may leave some in the queue. */
static void watch_listener(bool is_on)
{
    if (is_on != is_watching_listener) {
        watch(EPOLL_CTL_MOD, server.listener_fd, is_on ? EPOLLIN : 0);
        is_watching_listener = is_on;
    }
}

static void open_epoll(void)
{
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    watch(EPOLL_CTL_ADD, server.listener_fd, 0);
    if (loops_count > 1) {
        watch(EPOLL_CTL_ADD, loops[own_number].wake_fd, EPOLLIN);
    }
}

static void wake(int number)
{
    const uint64_t one = 1;
    (void)!write(loops[number].wake_fd, &one, sizeof one); /* fails only where it is awake already */
}

/* ---- connections ---- */

static void serve(int fd)
{
    struct epoll_event event = {.events = with_trigger(EPOLLIN), .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        server_refuse(fd, "epoll_ctl", errno);
        return;
    }
    atomic_fetch_sub(&loops[own_number].room_count, 1);
    atomic_fetch_add(&server.open_count, 1);
}

static bool keep_rest(int fd, const char *bytes, size_t count)
{
    if (!stalled_keep(fd, bytes, count)) {
        return false;
    }
    watch(EPOLL_CTL_MOD, fd, with_trigger(EPOLLOUT));
    return true;
}

/* False when the connection is over. */
static bool send_rest(int fd)
{
    const enum stalled_state state = stalled_send(fd);
    if (state == STALLED_SENT) {
        watch(EPOLL_CTL_MOD, fd, with_trigger(EPOLLIN)); /* an edge too, where something is there already */
    }
    if (state == STALLED_OVER) {
        server_forget(fd);
    }
    return state != STALLED_OVER;
}

/* Whoever accepts may have left the listener alone for want of a descriptor: it is told of this one. */
static void close_connection(int fd)
{
    close(fd);
    atomic_fetch_add(&loops[own_number].room_count, 1);
    server_count_closed();
    if (server_is_paused() && own_number != atomic_load(&accepting)) {
        wake(atomic_load(&accepting));
    }
}

/* Until nothing is there any more: no second edge would come for what is left. */
static bool step_all(int fd, char buffer[static SERVER_BUFFER_BYTES])
{
    do {
        errno = 0;
        if (!server_step(fd, buffer, keep_rest)) {
            return false;
        }
    } while (errno != EAGAIN && !stalled_has(fd));
    return true;
}

static bool step(int fd)
{
    static _Thread_local char buffer[SERVER_BUFFER_BYTES];
    return server.is_edge_triggered ? step_all(fd, buffer) : server_step(fd, buffer, keep_rest);
}

static void serve_event(int fd)
{
    if (!(stalled_has(fd) ? send_rest(fd) : step(fd))) {
        close_connection(fd);
    }
}

/* ---- who accepts ---- */

/* The next one that has room, or -1. */
static int find_room(void)
{
    for (int64_t i = 1; i < loops_count; i++) {
        const int number = (int)((own_number + i) % loops_count);
        if (atomic_load(&loops[number].room_count) > 0) {
            return number;
        }
    }
    return -1;
}

/* Accepts, or gives the turn away when this table is full. Where all are, accept4 meets the limit, and
 * says so. */
static void accept_in_turn(void)
{
    if (atomic_load(&accepting) != own_number) {
        watch_listener(false);
        return;
    }
    const int64_t room_count = atomic_load(&loops[own_number].room_count);
    const int next = room_count > 0 ? own_number : find_room();
    if (next < 0 || loops_count == 1) {
        server_accept_batch();
        return;
    }
    if (next == own_number) {
        server_accept_up_to(room_count);
        return;
    }
    watch_listener(false);
    atomic_store(&accepting, next);
    wake(next);
}

/* Somebody gave this thread the turn, or closed a connection while the listener was left alone, or all
 * end. */
static void hear(void)
{
    uint64_t ignored;
    (void)!read(loops[own_number].wake_fd, &ignored, sizeof ignored);
    if (atomic_load(&accepting) == own_number && !server_is_paused()) {
        watch_listener(true);
    }
}

/* ---- the loop ---- */

static void dispatch(int fd)
{
    if (fd == server.listener_fd) {
        accept_in_turn();
    } else if (fd == STDIN_FILENO) {
        server_read_commands();
    } else if (loops_count > 1 && fd == loops[own_number].wake_fd) {
        hear();
    } else {
        serve_event(fd);
    }
}

static void turn(void)
{
    struct epoll_event events[EVENTS_COUNT];
    while (!server.is_quitting) {
        const bool is_accepting = atomic_load(&accepting) == own_number;
        const int timeout_ms = is_accepting ? server_retry_timeout_ms() : -1;
        const int count = epoll_wait(epoll_fd, events, EVENTS_COUNT, timeout_ms);
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !server.is_quitting; i++) {
            dispatch(events[i].data.fd);
        }
        if (atomic_load(&accepting) == own_number) {
            server_resume_if_possible(count == 0);
        }
    }
}

/* epoll refuses regular files and /dev/null (EPERM): always ready, so they are read to their end. */
static void watch_stdin(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) == 0) {
        return;
    }
    if (errno != EPERM) {
        fail_call("epoll_ctl", "EPOLL_CTL_ADD, stdin", errno);
    }
    while (!server.is_quitting) {
        server_read_commands();
    }
}

static void loop(void)
{
    watch_stdin();
    turn();
}

static void close_all(void)
{
    server_stop_connections(close_connection);
    stalled_forget_all();
    close(epoll_fd);
}

/* ---- the other threads ---- */

struct start {
    int number, listener_fd;
    sem_t is_apart; /* the table is a copy, of what was open before the first connection */
};

/* Its copy of the listener is closed before its connections: it has the same port as they. */
static void *run_loop(void *argument)
{
    struct start *start = argument;
    const int listener_fd = start->listener_fd;
    own_number = start->number;
    CHECK(unshare(CLONE_FILES));
    sem_post(&start->is_apart); /* the end of `start` */
    close(server.self_status_fd);
    open_epoll();
    turn();
    close(listener_fd);
    close_all();
    return NULL;
}

static void start_loop(int number)
{
    struct start start = {.number = number, .listener_fd = server.listener_fd};
    pthread_attr_t attributes;
    CHECK(sem_init(&start.is_apart, 0, 0));
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, STACK_BYTES));
    CHECK_PTHREAD(pthread_create(&loops[number].thread, &attributes, run_loop, &start));
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
    while (sem_wait(&start.is_apart) != 0) { /* EINTR: stopped and continued */
    }
    CHECK(sem_destroy(&start.is_apart));
}

/* Of all tables together, when there are so many. */
static int64_t room_of(int64_t count)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit));
    const int64_t wake_fds_count = count > 1 ? count : 0;
    return count * ((int64_t)limit.rlim_cur - SPARE_DESCRIPTORS - wake_fds_count);
}

static void prepare(void)
{
    while (room_of(loops_count) < server.capacity_count && room_of(loops_count + 1) > room_of(loops_count) &&
           loops_count < LOOPS_MAX) {
        loops_count++;
    }
    for (int i = 0; i < loops_count; i++) {
        loops[i].room_count = room_of(loops_count) / loops_count;
        loops[i].wake_fd = loops_count > 1 ? (int)CHECK(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) : -1;
    }
    for (int i = 1; i < loops_count; i++) {
        start_loop(i);
    }
    open_epoll();
    watch_listener(true);
}

static void stop(void)
{
    for (int i = 1; i < loops_count; i++) {
        wake(i);
    }
    close_all();
    for (int i = 1; i < loops_count; i++) {
        CHECK_PTHREAD(pthread_join(loops[i].thread, NULL));
    }
}

const struct server_model server_model_epoll = {
    .name = "epoll",
    .takes = "edge capacity",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .watch_listener = watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
