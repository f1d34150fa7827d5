/*
 * server_model_epoll_pool.c - an event loop for all connections, and a pool of threads that do the work of requests
 * with blocking calls: the way of libuv's file operations and of asyncio's run_in_executor. With more requests under way
 * than threads the next ones wait in the queue, and their connections cost no more than idle ones.
 * Sources: epoll(7), eventfd(2), pthread_timedjoin_np(3); libuv's documentation, "Thread pool work scheduling".
 */
#include "server_deferred.h"
#include "server_pool.h"
#include "server_work.h"

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
    struct ticket_queue asked;
    struct result *results;
    size_t results_count, results_room;
} work; /* under the pool's mutex */

static int wake_fd = -1;

/* ---- a thread ---- */

static bool is_asked(void)
{
    return work.asked.count > 0;
}

static bool take(struct ticket *ticket)
{
    pool_lock();
    pool_wait(is_asked);
    const bool is_there = !pool.is_ending;
    if (is_there) {
        *ticket = ticket_take(&work.asked);
    }
    pool_unlock();
    return is_there;
}

static void give_back(struct result result)
{
    pool_lock();
    if (work.results_count == work.results_room) {
        work.results_room = work.results_room == 0 ? 256 : 2 * work.results_room;
        work.results = CHECK_POINTER(reallocarray(work.results, work.results_room, sizeof work.results[0]));
    }
    work.results[work.results_count++] = result;
    pool_unlock();
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
    pool_lock();
    ticket_put(&work.asked, ticket);
    pool_wake_one();
    pool_unlock();
}

static bool on_event(int fd, uint32_t events)
{
    (void)events;
    if (fd != wake_fd) {
        return false;
    }
    eventfd_t ignored;
    (void)eventfd_read(wake_fd, &ignored);
    pool_lock();
    struct result *results = work.results;
    const size_t count = work.results_count;
    work.results = NULL;
    work.results_count = work.results_room = 0;
    pool_unlock();
    for (size_t i = 0; i < count; i++) {
        deferred_waited(results[i].ticket, results[i].waited_ns);
        deferred_done(results[i].ticket, results[i].status);
    }
    free(results);
    return true;
}

/* ---- life ---- */

static void prepare(void)
{
    static const struct deferred_way way = {.begin = begin, .on_event = on_event};
    if (server.workers_count == 0) {
        server.workers_count = DEFAULT_WORKERS_COUNT;
    }
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    pool_start(thread_main);
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
        const int number = pthread_timedjoin_np(pool.threads[i], NULL, &until);
        if (number != ETIMEDOUT) {
            CHECK_PTHREAD(number);
        }
    }
    free(pool.threads);
}

static void stop(void)
{
    pool_lock();
    pool_end();
    pool_unlock();
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
