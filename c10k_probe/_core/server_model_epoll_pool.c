/*
 * server_model_epoll_pool.c - an event loop for all connections, and a pool of threads that do the work of requests with
 * blocking calls: the way of libuv's file operations and of asyncio's run_in_executor. With more requests under way
 * than threads the next ones wait in the queue, and their connections cost no more than idle ones.
 * Sources: epoll(7), eventfd(2), pthread_cond_wait(3), pthread_timedjoin_np(3); libuv's documentation, "Thread pool work scheduling".
 */
#include "server_deferred.h"
#include "server_work.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEFAULT_WORKERS_COUNT = 4 }; /* as libuv has, UV_THREADPOOL_SIZE */

struct result {
    struct ticket ticket;
    int64_t waited_ns; /* for a thread */
    int status;
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct ticket_queue asked;
    struct result *results;
    size_t results_count, results_room;
    size_t idle_count;
    bool is_ending;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static pthread_t *threads;
static int wake_fd = -1;

/* ---- a thread ---- */

static bool take(struct ticket *ticket)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    pool.idle_count++;
    while (pool.asked.count == 0 && !pool.is_ending) {
        CHECK_PTHREAD(pthread_cond_wait(&pool.changed, &pool.mutex));
    }
    pool.idle_count--;
    const bool is_there = !pool.is_ending;
    if (is_there) {
        *ticket = ticket_take(&pool.asked);
    }
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
    return is_there;
}

static void give_back(struct result result)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    if (pool.results_count == pool.results_room) {
        pool.results_room = pool.results_room == 0 ? 256 : 2 * pool.results_room;
        pool.results = CHECK_POINTER(reallocarray(pool.results, pool.results_room, sizeof pool.results[0]));
    }
    pool.results[pool.results_count++] = result;
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
    (void)eventfd_write(wake_fd, 1);
}

static void *thread_main(void *argument)
{
    for (struct ticket ticket; take(&ticket);) {
        const int64_t waited_ns = now_ns() - ticket.put_ns;
        give_back((struct result){ticket, waited_ns, work_do_now()});
    }
    backend_leave();
    return argument;
}

/* ---- the loop ---- */

static void begin(struct ticket ticket)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    ticket_put(&pool.asked, ticket);
    CHECK_PTHREAD(pthread_cond_signal(&pool.changed));
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
}

static bool on_event(int fd, uint32_t events)
{
    (void)events;
    if (fd != wake_fd) {
        return false;
    }
    eventfd_t ignored;
    (void)eventfd_read(wake_fd, &ignored);
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    struct result *results = pool.results;
    const size_t count = pool.results_count;
    pool.results = NULL;
    pool.results_count = pool.results_room = 0;
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
    for (size_t i = 0; i < count; i++) {
        deferred_waited(results[i].ticket, results[i].waited_ns);
        deferred_done(results[i].ticket, results[i].status);
    }
    free(results);
    return true;
}

/* ---- life ---- */

static bool is_everyone_idle(void)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    const bool is_it = pool.idle_count == (size_t)server.workers_count;
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
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

static void prepare(void)
{
    static const struct deferred_way way = {.begin = begin, .on_event = on_event};
    if (server.workers_count == 0) {
        server.workers_count = DEFAULT_WORKERS_COUNT;
    }
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    start_threads();
    (void)server_wait_until(is_everyone_idle);
    deferred_prepare(&way);
    CHECK(deferred_watch(EPOLL_CTL_ADD, wake_fd, EPOLLIN) ? 0 : -1);
}

/* Those that come back from their work soon; the others end with the process. */
static void join_threads(void)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until));
    until.tv_sec++; /* patience, not expectation */
    for (int64_t i = 0; i < server.workers_count; i++) {
        const int number = pthread_timedjoin_np(threads[i], NULL, &until);
        if (number != ETIMEDOUT) {
            CHECK_PTHREAD(number);
        }
    }
    free(threads);
}

static void stop(void)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
    pool.is_ending = true;
    CHECK_PTHREAD(pthread_cond_broadcast(&pool.changed));
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
    backend_abandon_all();
    join_threads();
    deferred_stop();
}

const struct server_model server_model_epoll_pool = {
    .name = "epoll-pool",
    .takes = "stack workers",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = deferred_loop,
    .serve = deferred_serve,
    .watch_listener = deferred_watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
