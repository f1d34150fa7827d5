/*
 * server_model_epoll_inherited.c - some worker processes, each with an epoll of its own in which the one listener of
 * all of them is watched. epoll-inherited: level-triggered, what a program gets that listens, then forks; a new
 * connection wakes every worker that waits (the thundering herd), one takes it, the others find nothing.
 * epoll-exclusive: with EPOLLEXCLUSIVE, which wakes one of those that wait; the kernel prefers the one at the head of
 * its list, so one worker may get most. Sources: epoll(7), epoll_ctl(2), fs/eventpoll.c.
 */
#include "server_workers.h"

#include <sys/epoll.h>
#include <sys/socket.h>

static uint32_t listener_flags;

static void run(int64_t number)
{
    (void)number;
    worker_epoll_run(listener_flags);
}

static void prepare(void)
{
    worker_epoll_choose_count();
    workers_prepare();
    workers_start(run);
}

static void prepare_exclusive(void)
{
    listener_flags = EPOLLEXCLUSIVE;
    prepare();
}

static void loop(void)
{
    workers_loop(NULL);
}

#define MODEL(its_name, its_prepare)                    \
    {                                                   \
        .name = (its_name),                             \
        .takes = "workers",                             \
        .accept_flags = SOCK_NONBLOCK,                  \
        .prepare = (its_prepare),                       \
        .loop = loop,                                   \
        .serve = worker_epoll_serve,                    \
        .watch_listener = worker_epoll_watch_listener,  \
        .count_tasks = workers_count_tasks,             \
        .emit_status = workers_emit_status,             \
        .stop = workers_stop,                           \
    }

const struct server_model server_model_epoll_inherited = MODEL("epoll-inherited", prepare);
const struct server_model server_model_epoll_exclusive = MODEL("epoll-exclusive", prepare_exclusive);
