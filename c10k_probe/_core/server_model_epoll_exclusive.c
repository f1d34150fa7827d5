/*
 * server_model_epoll_exclusive.c - some worker processes, each with an epoll of its own in which the one listener of all
 * of them is watched with EPOLLEXCLUSIVE: a new connection wakes one of those that wait, and not all of them. The kernel
 * prefers the one that waits at the head of its list, so one worker may get most. Sources: epoll_ctl(2), fs/eventpoll.c.
 */
#include "server_workers.h"

#include <sys/epoll.h>
#include <sys/socket.h>

static void run(int64_t number)
{
    (void)number;
    worker_epoll_run(EPOLLEXCLUSIVE);
}

static void prepare(void)
{
    worker_epoll_choose_count();
    workers_prepare();
    workers_start(run);
}

static void loop(void)
{
    workers_loop(NULL);
}

const struct server_model server_model_epoll_exclusive = {
    .name = "epoll-exclusive",
    .takes = "workers",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = loop,
    .serve = worker_epoll_serve,
    .watch_listener = worker_epoll_watch_listener,
    .count_tasks = workers_count_tasks,
    .emit_status = workers_emit_status,
    .stop = workers_stop,
};
