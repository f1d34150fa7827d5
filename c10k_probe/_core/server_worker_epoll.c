/*
 * server_worker_epoll.c - the life of a worker process that accepts by itself and serves by an event loop of its own:
 * level-triggered epoll, non-blocking sockets, one buffer. The contract is in server_workers.h. Sources: epoll(7),
 * epoll_ctl(2) (EPOLLEXCLUSIVE), signalfd(2).
 */
#include "server_stalled.h"
#include "server_work.h"
#include "server_workers.h"

#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { EVENTS_COUNT = 256 };

static int epoll_fd = -1, stop_fd = -1; /* stop_fd: a signalfd for SIGTERM */
static uint32_t listener_events;

static void accept_batch(void)
{
    server_accept_batch();
}

static void (*take)(void) = accept_batch;

void worker_epoll_take_by(void (*new_take)(void))
{
    take = new_take;
}

void worker_epoll_choose_count(void)
{
    if (server.workers_count == 0) {
        cpu_set_t set[HELPER_CPU_SETS];
        CHECK(sched_getaffinity(0, sizeof set, set));
        server.workers_count = CPU_COUNT_S(sizeof set, set);
    }
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    CHECK(epoll_ctl(epoll_fd, operation, fd, &event));
}

/* Taken out and put in: a watch with EPOLLEXCLUSIVE cannot be changed. */
void worker_epoll_watch_listener(bool is_on)
{
    watch(is_on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server.listener_fd, listener_events);
}

void worker_epoll_serve(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        server_refuse(fd, "epoll_ctl", errno);
        return;
    }
    server_count_opened();
}

/* One that was passed is open in the master for a moment longer, and as long stays in the epoll (epoll(7), Q6). */
static void close_connection(int fd)
{
    if (take != accept_batch) {
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
    close(fd);
    server_count_closed();
}

static void serve_event(int fd)
{
    const bool was_stalled = stalled_has(fd);
    const enum server_interest interest = server_on_event(fd);
    if (interest == SERVER_OVER) {
        close_connection(fd);
    } else if (was_stalled != (interest == SERVER_WRITE)) {
        watch(EPOLL_CTL_MOD, fd, interest == SERVER_WRITE ? EPOLLOUT : EPOLLIN);
    }
}

static void quit(void)
{
    server.is_quitting = true;
}

static void dispatch(int fd)
{
    if (fd == server.listener_fd) {
        take();
    } else if (fd == stop_fd) {
        quit();
    } else {
        serve_event(fd);
    }
}

static void loop(void)
{
    struct epoll_event events[EVENTS_COUNT];
    while (!server.is_quitting) {
        const int count = epoll_wait(epoll_fd, events, EVENTS_COUNT, server_retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !server.is_quitting; i++) {
            dispatch(events[i].data.fd);
        }
        server_resume_if_possible(count == 0);
        workers_publish();
    }
}

void worker_epoll_run(uint32_t listener_flags)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    CHECK(sigprocmask(SIG_BLOCK, &stop, NULL));
    stop_fd = (int)CHECK(signalfd(-1, &stop, SFD_NONBLOCK | SFD_CLOEXEC));
    backend_hear(stop_fd, quit);
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    watch(EPOLL_CTL_ADD, stop_fd, EPOLLIN);
    listener_events = EPOLLIN | listener_flags;
    worker_epoll_watch_listener(true);
    workers_say_ready();
    loop();
    close(server.listener_fd);
    server_stop_connections(close_connection);
    stalled_forget_all();
    workers_publish();
}
