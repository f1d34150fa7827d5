/*
 * server_model_epoll_inherited.c - some worker processes, each with an epoll of its own in which the one listener of
 * all of them is watched, level-triggered and without EPOLLEXCLUSIVE: what a program gets that listens, then forks. A
 * new connection wakes every worker that waits (the thundering herd); one takes it, the others find nothing.
 * Sources: epoll(7), epoll_ctl(2), fs/eventpoll.c.
 */
#include "server_workers.h"

#include <sys/socket.h>

static void run(int64_t number)
{
    (void)number;
    worker_epoll_run(0);
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

const struct server_model server_model_epoll_inherited = {
    .name = "epoll-inherited",
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
