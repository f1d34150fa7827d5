/*
 * server_model_thread_pool.c - a fixed number of threads, made at the start, each of which serves one connection at a
 * time, its buffer on its stack. The main thread accepts and puts what it accepts into a queue.
 *
 * With more connections than threads the next ones wait in the queue, accepted and without an answer, until a thread
 * is free: the wall of this model, which is told. Sources: pthread_create(3), pthread_cond_wait(3), eventfd(2).
 */
#include "server.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_ROOM_LEAST = 256 };

/* Accepted connections that no thread has taken yet: a ring of `room` places. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int *fds;
    size_t first, count, room;
    size_t idle_count; /* threads that wait for one */
    bool is_ending;
} queue = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static pthread_t *threads;
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

/* -1: it is over. */
static int wait_for_connection(void)
{
    int fd = -1;
    CHECK_PTHREAD(pthread_mutex_lock(&queue.mutex));
    queue.idle_count++;
    while (queue.count == 0 && !queue.is_ending) {
        CHECK_PTHREAD(pthread_cond_wait(&queue.changed, &queue.mutex));
    }
    queue.idle_count--;
    if (queue.count > 0) {
        fd = take();
    }
    CHECK_PTHREAD(pthread_mutex_unlock(&queue.mutex));
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

static bool is_everyone_idle(void)
{
    CHECK_PTHREAD(pthread_mutex_lock(&queue.mutex));
    const bool is_it = queue.idle_count == (size_t)server.workers_count;
    CHECK_PTHREAD(pthread_mutex_unlock(&queue.mutex));
    return is_it;
}

static void start_threads(void)
{
    pthread_attr_t attributes;
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    if (server.stack_bytes > 0) {
        CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, (size_t)server.stack_bytes));
    }
    threads = CHECK_POINTER(calloc((size_t)server.workers_count, sizeof threads[0]));
    for (int64_t i = 0; i < server.workers_count; i++) {
        CHECK_PTHREAD(pthread_create(&threads[i], &attributes, thread_main, NULL));
    }
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
}

/* Threads that still start are not busy: nobody must be told so. */
static void prepare(void)
{
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (server.workers_count == 0) {
        server.workers_count = SERVER_POOL_COUNT;
    }
    start_threads();
    (void)server_wait_until(is_everyone_idle);
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
    CHECK_PTHREAD(pthread_mutex_lock(&queue.mutex));
    const bool is_put = put(fd), has_to_wait = queue.count > queue.idle_count;
    if (is_put) {
        server_count_opened();
        CHECK_PTHREAD(pthread_cond_signal(&queue.changed));
    }
    CHECK_PTHREAD(pthread_mutex_unlock(&queue.mutex));
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
    CHECK_PTHREAD(pthread_mutex_lock(&queue.mutex));
    queue.is_ending = true;
    while (queue.count > 0) {
        const int fd = take();
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        server_count_closed();
    }
    CHECK_PTHREAD(pthread_cond_broadcast(&queue.changed));
    CHECK_PTHREAD(pthread_mutex_unlock(&queue.mutex));
}

/* Threads that do not let go of their connection end with the process. */
static void stop(void)
{
    close_waiting();
    if (!server_stop_threads()) {
        return;
    }
    for (int64_t i = 0; i < server.workers_count; i++) {
        CHECK_PTHREAD(pthread_join(threads[i], NULL));
    }
    free(threads);
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
