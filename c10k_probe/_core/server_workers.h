/*
 * server_workers.h - a fixed number of worker processes that accept and serve by themselves, and the master that
 * starts them, adds up what they count, tells of those that die, and ends them. The master accepts nothing, unless
 * a model gives it a watch that does.
 *
 * A worker counts in its own `struct server`, as every model does, and publishes the counts in memory that it shares
 * with the master. Sources: fork(2), mmap(2) (MAP_SHARED), signalfd(2), waitpid(2).
 */
#ifndef C10K_SERVER_WORKERS_H
#define C10K_SERVER_WORKERS_H

#include "server.h"

/* In the master, once, before anything is forked. */
void workers_prepare(void);

/* Forks server.workers_count workers and waits until all are ready; `run` is a worker's life and is given its number,
 * from 0. */
void workers_start(void (*run)(int64_t number));

/* What the master may have to watch the listener for, though it does not accept. */
struct workers_watch {
    bool (*is_due)(void);    /* the listener is to be watched now */
    void (*on_ready)(void);  /* a client waits there */
};

/* The master's loop. watch may be NULL. */
void workers_loop(const struct workers_watch *watch);

/* Workers that have not died. */
int64_t workers_alive_count(void);

/* The master, counted too. Adds up the counts. */
int64_t workers_count_tasks(void);

/* Each worker's share: accepted, open, and requests where the work of requests is timed. */
void workers_emit_status(void);

/* Ends them, by SIGTERM, and reaps them. */
void workers_stop(void);

/* In a worker: from now on it only waits for connections. */
void workers_say_ready(void);

/* In a worker: makes its counts known. Before it blocks, and before a client can know of what they count. */
void workers_publish(void);

/* In a worker: has the master look at its watch, and at what was published. */
void workers_wake_master(void);

/* ---- server_worker_epoll.c: workers with an event loop each ---- */

/* A worker's life; listener_flags: of its watch on the listener, besides EPOLLIN. */
void worker_epoll_run(uint32_t listener_flags);

/* Before that, in the worker: what it does when server.listener_fd is readable, instead of accepting. */
void worker_epoll_take_by(void (*take)(void));

/* For a worker's `struct server_model`, which is the master's, too. */
void worker_epoll_serve(int fd);
void worker_epoll_watch_listener(bool is_on);

/* In the master, first: one worker for each CPU that it may use, unless --workers says otherwise. */
void worker_epoll_choose_count(void);

#endif
