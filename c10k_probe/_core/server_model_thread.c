/*
 * server_model_thread.c - a detached thread for each connection, its buffer on the thread's stack; default
 * attributes unless --stack is given. Sources: pthread_create(3), eventfd(2).
 */
#include "server.h"
#include "server_work.h"

#include <pthread.h>
#include <sys/eventfd.h>

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
    backend_leave();
    server_count_closed();
    if (server_is_paused()) {
        (void)eventfd_write(wake_fd, 1);
    }
    return NULL;
}

static void serve(int fd)
{
    pthread_t thread;
    server_count_opened(); /* before: the thread may end before pthread_create returns */
    int error_number = pthread_create(&thread, &attributes, thread_main, (void *)(intptr_t)fd);
    if (error_number != 0) {
        atomic_fetch_sub(&server.open_count, 1);
        server_refuse(fd, "pthread_create", error_number);
    }
}

/* A detached thread goes on for a moment after it has counted its connection as closed. */
static bool is_alone(void)
{
    return server_count_own_threads() == 1;
}

/* Threads that are still there after the last wait end with the process. */
static void stop(void)
{
    if (server_stop_threads()) {
        (void)server_wait_until(is_alone);
    }
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
}

const struct server_model server_model_thread = {
    .name = "thread",
    .takes = "stack",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
