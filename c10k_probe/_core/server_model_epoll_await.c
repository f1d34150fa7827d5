/*
 * server_model_epoll_await.c - one thread for all connections, whose loop also waits for what requests wait for: a sleep
 * is a timer, and the exchange with a backend is two more events, over a connection that no other request uses
 * meanwhile. These are kept open for the next request. Where no more can be opened (descriptors) a request waits until
 * one is free. Only --work-cpu-ns still makes the loop stand still.
 * Sources: epoll(7), timerfd_create(2), connect(2) (EINPROGRESS).
 */
#include "backend_due.h"
#include "server_deferred.h"
#include "server_work.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { LINKS_LEAST = 1024 };

static const int64_t NS_PER_S = 1000000000;

enum link_state { NO_LINK, CONNECTING, ASKED, FREE };

/* A connection to the backend, by its descriptor. */
struct link {
    enum link_state state;
    struct ticket ticket; /* of who waits for the answer */
    int64_t began_ns;
    int next_free;
    int earlier, later; /* while somebody waits for it: by the moment at which it began; -1: none */
};

static struct link *links;
static int links_count, first_free = -1, timer_fd = -1;
static int oldest = -1, newest = -1; /* of links that somebody waits for; all have the same time-out */
static struct ticket_queue queue; /* without a link */
static int64_t next_look_ns = INT64_MAX; /* for a time-out; not later than the oldest's, MAX: none is waited for */

static void ask_backend(struct ticket ticket);

/* ---- the timer: sleeps, and the time-out of exchanges ---- */

static void arm_timer(void)
{
    const struct due *first = due_first();
    int64_t at_ns = first != NULL ? first->at_ns : INT64_MAX;
    if (next_look_ns < at_ns) {
        at_ns = next_look_ns;
    }
    struct itimerspec setting = {{0, 0}, {0, 0}};
    if (at_ns != INT64_MAX) {
        setting.it_value = (struct timespec){.tv_sec = at_ns / NS_PER_S, .tv_nsec = at_ns % NS_PER_S};
    }
    CHECK(timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &setting, NULL));
}

static void slept(struct ticket ticket)
{
    if (work_backend() != NULL) {
        ask_backend(ticket);
    } else {
        deferred_done(ticket, 200);
    }
}

static void begin(struct ticket ticket)
{
    work_spin();
    if (work_options.sleep_ns <= 0) {
        slept(ticket);
        return;
    }
    due_add((struct due){.at_ns = now_ns() + work_options.sleep_ns, .fd = ticket.fd, .generation = ticket.id});
    arm_timer();
}

/* ---- links ---- */

static struct link *make_link(int fd)
{
    if (fd >= links_count) {
        const int count = fd < LINKS_LEAST ? LINKS_LEAST : 2 * fd;
        links = CHECK_POINTER(reallocarray(links, (size_t)count, sizeof links[0]));
        memset(links + links_count, 0, (size_t)(count - links_count) * sizeof links[0]);
        links_count = count;
    }
    return &links[fd];
}

static void forget_link(int fd)
{
    links[fd].state = NO_LINK;
    close(fd);
}

static void add_newest(int fd)
{
    links[fd].earlier = newest;
    links[fd].later = -1;
    *(newest >= 0 ? &links[newest].later : &oldest) = fd;
    newest = fd;
}

static void take_out(int fd)
{
    const int earlier = links[fd].earlier, later = links[fd].later;
    *(earlier >= 0 ? &links[earlier].later : &oldest) = later;
    *(later >= 0 ? &links[later].earlier : &newest) = earlier;
}

/* The exchange is over; 200: the link can be used again. */
static void end_exchange(int fd, int status)
{
    const struct link ended = links[fd];
    struct backend_totals *totals = work_backend();
    take_out(fd);
    atomic_fetch_add(&totals->wait_ns, now_ns() - ended.began_ns);
    if (status == 200) {
        links[fd].state = FREE;
        links[fd].next_free = first_free;
        first_free = fd;
    } else {
        atomic_fetch_add(status == 504 ? &totals->timed_out_count : &totals->failed_count, 1);
        forget_link(fd);
    }
    deferred_done(ended.ticket, status);
    while (queue.count > 0 && (first_free >= 0 || oldest < 0)) { /* nobody's end would wake them any more */
        ask_backend(ticket_take(&queue));
    }
}

static void ask_over(int fd)
{
    if (send(fd, "?", 1, MSG_NOSIGNAL) != 1) {
        end_exchange(fd, 502);
        return;
    }
    links[fd].state = ASKED;
    atomic_fetch_add(&work_backend()->asked_count, 1);
}

/* -1: there is none. */
static int take_free(void)
{
    const int fd = first_free;
    if (fd >= 0) {
        first_free = links[fd].next_free;
    }
    return fd;
}

/* A free one that broke. */
static void forget_free(int fd)
{
    int *place = &first_free;
    while (*place != fd) {
        place = &links[*place].next_free;
    }
    *place = links[fd].next_free;
    forget_link(fd);
}

/* -1 and errno. Connecting is waited for as an event, too. */
static int open_link(void)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)work_options.backend_port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) ||
        !deferred_watch(EPOLL_CTL_ADD, fd, EPOLLOUT)) {
        const int error_number = errno;
        close(fd);
        errno = error_number;
        return -1;
    }
    return fd;
}

static void ask_backend(struct ticket ticket)
{
    if (!deferred_is_waiting(ticket)) {
        return;
    }
    int fd = take_free();
    const bool is_new = fd < 0;
    if (is_new && (fd = open_link()) < 0) {
        if (oldest >= 0 && server_is_wall(errno)) {
            ticket_put(&queue, ticket);
        } else {
            atomic_fetch_add(&work_backend()->failed_count, 1);
            deferred_done(ticket, 502);
        }
        return;
    }
    *make_link(fd) = (struct link){.state = CONNECTING, .ticket = ticket, .began_ns = now_ns()};
    add_newest(fd);
    if (next_look_ns == INT64_MAX) {
        next_look_ns = links[fd].began_ns + work_options.backend_timeout_ns;
        arm_timer();
    }
    if (!is_new) {
        ask_over(fd);
    }
}

static void on_connected(int fd)
{
    int error_number = 0;
    socklen_t length = sizeof error_number;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error_number, &length));
    if (error_number != 0 || !deferred_watch(EPOLL_CTL_MOD, fd, EPOLLIN)) {
        end_exchange(fd, 502);
        return;
    }
    atomic_fetch_add(&work_backend()->connections_count, 1);
    ask_over(fd);
}

static void on_readable(int fd)
{
    char byte;
    const ssize_t count = recv(fd, &byte, 1, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (links[fd].state == ASKED) {
        end_exchange(fd, count == 1 ? 200 : 502);
    } else {
        forget_free(fd);
    }
}

/* Whose answer is too late; then the next look is when that of the oldest will be. */
static void give_up_late(void)
{
    const int64_t now = now_ns();
    while (oldest >= 0 && links[oldest].began_ns + work_options.backend_timeout_ns <= now) {
        end_exchange(oldest, 504);
    }
    next_look_ns = oldest >= 0 ? links[oldest].began_ns + work_options.backend_timeout_ns : INT64_MAX;
}

/* ---- events ---- */

static void on_timer(void)
{
    uint64_t ignored;
    (void)!read(timer_fd, &ignored, sizeof ignored);
    while (due_first() != NULL && due_first()->at_ns <= now_ns()) {
        const struct due due = due_take();
        work_slept(due.at_ns - work_options.sleep_ns);
        slept((struct ticket){.fd = due.fd, .id = due.generation});
    }
    if (next_look_ns <= now_ns()) {
        give_up_late();
    }
    arm_timer();
}

static bool on_event(int fd, uint32_t events)
{
    if (fd == timer_fd) {
        on_timer();
        return true;
    }
    if (fd >= links_count || links[fd].state == NO_LINK) {
        return false;
    }
    if (links[fd].state == CONNECTING) {
        if ((events & EPOLLOUT) != 0) { /* or else it is of what had this descriptor before */
            on_connected(fd);
        }
    } else {
        on_readable(fd);
    }
    return true;
}

/* ---- life ---- */

static void prepare(void)
{
    static const struct deferred_way way = {.begin = begin, .on_event = on_event};
    timer_fd = (int)CHECK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    deferred_prepare(&way);
    CHECK(deferred_watch(EPOLL_CTL_ADD, timer_fd, EPOLLIN) ? 0 : -1);
}

static void stop(void)
{
    for (int fd = 0; fd < links_count; fd++) {
        if (links[fd].state != NO_LINK) {
            forget_link(fd);
        }
    }
    deferred_stop();
    free(links);
}

const struct server_model server_model_epoll_await = {
    .name = "epoll-await",
    .takes = "",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = deferred_loop,
    .serve = deferred_serve,
    .watch_listener = deferred_watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
