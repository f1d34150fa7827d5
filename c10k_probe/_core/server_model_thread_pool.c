/*
 * server_model_thread_pool.c - a fixed number of threads, made at the start, each of which serves one connection at a
 * time, its buffer on its stack. The main thread accepts and puts what it accepts into a queue.
 *
 * With more connections than threads the next ones wait in the queue, accepted and without an answer, until a thread
 * is free: the wall of this model, which is told. Source: eventfd(2).
 */
#include "server_pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_ROOM_LEAST = 256 };

/* Accepted connections that no thread has taken yet: a ring of `room` places. */
static struct {
    int *fds;
    size_t first, count, room;
} queue; /* under the pool's mutex */

static int wake_fd = -1; /* an eventfd: a connection has closed while accepting was paused */

/* ---- the queue, under its mutex ---- */

static bool make_room(void)
{
    const size_t room = queue.room == 0 ? QUEUE_ROOM_LEAST : queue.room * 2;
    int *fds = reallocarray(NULL, room, sizeof fds[0]);
    if (fds == NULL) {
        return false;
    }
    for (size_t i = 0; i < queue.count; i++) {
        fds[i] = queue.fds[(queue.first + i) % queue.room];
    }
    free(queue.fds);
    queue.fds = fds;
    queue.room = room;
    queue.first = 0;
    return true;
}

static bool put(int fd)
{
    if (queue.count == queue.room && !make_room()) {
        return false;
    }
    queue.fds[(queue.first + queue.count++) % queue.room] = fd;
    return true;
}

static int take(void)
{
    const int fd = queue.fds[queue.first];
    queue.first = (queue.first + 1) % queue.room;
    queue.count--;
    return fd;
}

/* ---- a thread ---- */

static bool is_waiting(void)
{
    return queue.count > 0;
}

/* -1: it is over. */
static int wait_for_connection(void)
{
    int fd = -1;
    pool_lock();
    pool_wait(is_waiting);
    if (queue.count > 0) {
        fd = take();
    }
    pool_unlock();
    return fd;
}

/* Counts, then looks: see server_pause_accepting. */
static void *thread_main(void *argument)
{
    for (int fd; (fd = wait_for_connection()) >= 0;) {
        server_serve_until_closed(fd);
        server_count_closed();
        if (server_is_paused()) {
            (void)eventfd_write(wake_fd, 1);
        }
    }
    return argument;
}

/* ---- the main thread ---- */

static void prepare(void)
{
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (server.workers_count == 0) {
        server.workers_count = SERVER_POOL_COUNT;
    }
    pool_start(thread_main);
}

static void tell_that_it_waits(void)
{
    char why[96];
    snprintf(why, sizeof why, "each of the %" PRId64 " workers serves a connection: the next one waits",
             server.workers_count);
    server_tell_wall("worker", EAGAIN, why);
}

static void serve(int fd)
{
    pool_lock();
    const bool is_put = put(fd), has_to_wait = queue.count > pool.idle_count;
    if (is_put) {
        server_count_opened();
        pool_wake_one();
    }
    pool_unlock();
    if (!is_put) {
        server_refuse(fd, "reallocarray", ENOMEM);
    } else if (has_to_wait) {
        tell_that_it_waits();
    }
}

static void loop(void)
{
    server_poll_loop(wake_fd, NULL);
}

/* ---- the end ---- */

static void close_waiting(void)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    pool_lock();
    while (queue.count > 0) {
        const int fd = take();
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        server_count_closed();
    }
    pool_end();
    pool_unlock();
}

/* Threads that do not let go of their connection end with the process. */
static void stop(void)
{
    close_waiting();
    if (!server_stop_threads()) {
        return;
    }
    for (int64_t i = 0; i < server.workers_count; i++) {
        CHECK_PTHREAD(pthread_join(pool.threads[i], NULL));
    }
    free(pool.threads);
    free(queue.fds);
}

const struct server_model server_model_thread_pool = {
    .name = "thread-pool",
    .takes = "stack workers",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
