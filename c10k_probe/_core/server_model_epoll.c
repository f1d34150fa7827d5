/*
 * server_model_epoll.c - one thread for all connections: level-triggered epoll, non-blocking sockets, one
 * buffer. No user memory for a connection, except for one whose client does not read its echo (the rest of
 * that echo is set aside, at most 4 KiB). Source: epoll(7).
 */
#include "server.h"
#include "server_stalled.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_COUNT = 256 };

static int epoll_fd = -1;

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    CHECK(epoll_ctl(epoll_fd, operation, fd, &event));
}

static void watch_listener(bool is_on)
{
    watch(EPOLL_CTL_MOD, server.listener_fd, is_on ? EPOLLIN : 0);
}

static void prepare(void)
{
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    watch(EPOLL_CTL_ADD, server.listener_fd, EPOLLIN);
}

static void serve(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        server_refuse(fd, "epoll_ctl", errno);
        return;
    }
    atomic_fetch_add(&server.open_count, 1);
}

/* ---- events ---- */

static bool keep_rest(int fd, const char *bytes, size_t count)
{
    if (!stalled_keep(fd, bytes, count)) {
        return false;
    }
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    return true;
}

/* False when the connection is over. */
static bool send_rest(int fd)
{
    const enum stalled_state state = stalled_send(fd);
    if (state == STALLED_SENT) {
        watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
    return state != STALLED_OVER;
}

static void close_connection(int fd)
{
    close(fd);
    server_count_closed();
}

static void serve_event(int fd)
{
    static char buffer[SERVER_BUFFER_BYTES];
    if (!(stalled_has(fd) ? send_rest(fd) : server_step(fd, buffer, keep_rest))) {
        close_connection(fd);
    }
}

static void dispatch(int fd)
{
    if (fd == server.listener_fd) {
        server_accept_batch();
    } else if (fd == STDIN_FILENO) {
        server_read_commands();
    } else {
        serve_event(fd);
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
    struct epoll_event events[EVENTS_COUNT];
    watch_stdin();
    while (!server.is_quitting) {
        int count = epoll_wait(epoll_fd, events, EVENTS_COUNT, server_retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !server.is_quitting; i++) {
            dispatch(events[i].data.fd);
        }
        server_resume_if_possible(count == 0);
    }
}

static void stop(void)
{
    server_stop_connections(close_connection);
    stalled_forget_all();
    close(epoll_fd);
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
