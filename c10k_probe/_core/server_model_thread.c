/*
 * server_model_thread.c - a detached thread for each connection, its buffer on the thread's stack; default
 * attributes unless --stack is given. Sources: pthread_create(3), eventfd(2), shutdown(2).
 */
#include "server.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STOP_POLL_US = 1000,
    STOP_ROUNDS = 2000, /* 2 s at least: for the mild request to threads, and again for the hard one */
};

static pthread_attr_t attributes;
static int wake_fd = -1; /* an eventfd: a connection has closed while accepting was paused */

static void prepare(void)
{
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    CHECK_PTHREAD(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED));
    if (server.stack_bytes > 0) {
        CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, (size_t)server.stack_bytes));
    }
}

static void loop(void)
{
    server_poll_loop(wake_fd, NULL);
}

/* Counts, then looks: see server_pause_accepting. */
static void *thread_main(void *argument)
{
    server_serve_until_closed((int)(intptr_t)argument);
    server_count_closed();
    if (server_is_paused()) {
        (void)eventfd_write(wake_fd, 1);
    }
    return NULL;
}

static void serve(int fd)
{
    pthread_t thread;
    atomic_fetch_add(&server.open_count, 1); /* before: the thread may end before pthread_create returns */
    int error_number = pthread_create(&thread, &attributes, thread_main, (void *)(intptr_t)fd);
    if (error_number != 0) {
        atomic_fetch_sub(&server.open_count, 1);
        server_refuse(fd, "pthread_create", error_number);
    }
}

/* ---- the end ---- */

/* Wakes a thread that receives (it sees the end of the stream), without telling the client. */
static void shut_receiving(int fd)
{
    (void)shutdown(fd, SHUT_RD);
}

/* Wakes one that is blocked in send, too. */
static void shut_both(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

static bool is_nothing_open(void)
{
    return atomic_load(&server.open_count) == 0;
}

/* A detached thread goes on for a moment after it has counted its connection as closed. */
static bool is_alone(void)
{
    return is_nothing_open() && server_count_own_threads() == 1;
}

static bool wait_until(bool (*is_reached)(void))
{
    for (int i = 0; i < STOP_ROUNDS; i++) {
        if (is_reached()) {
            return true;
        }
        usleep(STOP_POLL_US);
    }
    return false;
}

/* Threads that are still there after the last wait end with the process. */
static void stop(void)
{
    server_stop_connections(shut_receiving);
    if (!wait_until(is_nothing_open)) {
        server_stop_connections(shut_both);
    }
    (void)wait_until(is_alone);
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
}

const struct server_model server_model_thread = {
    .name = "thread",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
