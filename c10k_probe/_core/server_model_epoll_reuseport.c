/*
 * server_model_epoll_reuseport.c - some worker processes, each with a listener of its own at the same port
 * (SO_REUSEPORT) and an epoll of its own. The kernel gives a new connection to one of the listeners by a hash of its
 * addresses, whether that worker is busy or not. The backlog holds for each listener.
 *
 * The listeners are opened before the workers are started, so that all are there when the server is ready.
 * Sources: socket(7), net/core/sock_reuseport.c.
 */
#include "server_work.h"
#include "server_workers.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int *listener_fds; /* by worker */

static void close_listeners_but(int64_t kept)
{
    for (int64_t i = 0; i < server.workers_count; i++) {
        if (i != kept) {
            close(listener_fds[i]);
        }
    }
}

static void run(int64_t number)
{
    close_listeners_but(number);
    close(server.listener_fd); /* the master's, which only holds the port */
    server.listener_fd = listener_fds[number];
    worker_epoll_run(0);
}

static void prepare(void)
{
    worker_epoll_choose_count();
    listener_fds = CHECK_POINTER(calloc((size_t)server.workers_count, sizeof listener_fds[0]));
    for (int64_t i = 0; i < server.workers_count; i++) {
        listener_fds[i] = server_bind(server.port, true);
        work_stamp_arrivals(listener_fds[i]);
        CHECK(listen(listener_fds[i], (int)server.backlog_asked_count));
    }
    workers_prepare();
    workers_start(run);
    close_listeners_but(-1);
}

static void loop(void)
{
    workers_loop(NULL);
}

static void stop(void)
{
    workers_stop();
    free(listener_fds);
}

const struct server_model server_model_epoll_reuseport = {
    .name = "epoll-reuseport",
    .takes = "workers",
    .accept_flags = SOCK_NONBLOCK,
    .is_port_shared = true,
    .prepare = prepare,
    .loop = loop,
    .serve = worker_epoll_serve,
    .watch_listener = worker_epoll_watch_listener,
    .count_tasks = workers_count_tasks,
    .emit_status = workers_emit_status,
    .stop = stop,
};
