/*
 * server_model_prefork.c - a fixed number of processes, made at the start, each of which blocks in accept and serves
 * one connection at a time, its buffer on its stack.
 *
 * With more connections than processes the next ones wait in the kernel's queue, connected and without an answer,
 * until a process is free: the wall of this model, which is told. Sources: fork(2), accept(2).
 */
#include "server_workers.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RETRY_US = 1000 * 1000 }; /* after a wall that other processes can lift */

/* Shared memory. */
static struct pool {
    _Atomic int64_t busy_count;
    atomic_bool has_lost; /* a worker has died, maybe while it was busy: busy_count cannot be relied on */
    atomic_bool is_told;  /* that somebody waits for a worker */
} *pool;

static volatile sig_atomic_t connection_fd = -1;

/* ---- a worker ---- */

/* Leaves at once, with a reset instead of the orderly end, so that no TIME_WAIT stays. */
static void on_stop(int signal_number)
{
    (void)signal_number;
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection_fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    _exit(0);
}

/* Called by server_accept_batch; comes back when the connection is over. */
static void serve(int fd)
{
    connection_fd = fd;
    server_count_opened();
    workers_publish();
    const bool is_last_one = atomic_fetch_add(&pool->busy_count, 1) + 1 == server.workers_count;
    if ((is_last_one || atomic_load(&pool->has_lost)) && !atomic_load(&pool->is_told)) {
        workers_wake_master();
    }
    server_serve_until_closed(fd);
    connection_fd = -1;
    atomic_fetch_sub(&pool->busy_count, 1);
    server_count_closed();
    workers_publish();
}

/* Out of descriptors, accept4 says so also while nobody waits, and does not block. */
static void wait_for_client(void)
{
    struct pollfd listener = {.fd = server.listener_fd, .events = POLLIN};
    (void)poll(&listener, 1, -1);
}

static void run(int64_t number)
{
    (void)number;
    const struct sigaction stop_worker = {.sa_handler = on_stop};
    CHECK(sigaction(SIGTERM, &stop_worker, NULL));
    for (;;) {
        if (server_accept_batch()) { /* it blocks */
            continue;
        }
        if (server_is_paused()) {
            usleep(RETRY_US);
            server_resume_if_possible(true);
        } else {
            wait_for_client();
        }
    }
}

/* ---- the master ---- */

static void prepare(void)
{
    if (server.workers_count == 0) {
        server.workers_count = SERVER_POOL_COUNT;
    }
    pool = CHECK_POINTER(mmap(NULL, sizeof *pool, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    server_let_listener_block();
    workers_prepare();
    workers_start(run);
}

/* Every worker has a connection. */
static bool is_full(void)
{
    const int64_t alive_count = workers_alive_count();
    if (alive_count < server.workers_count) {
        atomic_store(&pool->has_lost, true);
    }
    return !atomic_load(&pool->is_told) && atomic_load(&server.open_count) >= alive_count;
}

/* A client waits in the queue and nobody is there to accept it. */
static void on_waiting(void)
{
    char why[96];
    if (!is_full()) {
        return;
    }
    atomic_store(&pool->is_told, true);
    snprintf(why, sizeof why, "each of the %" PRId64 " workers serves a connection: the next one waits",
             workers_alive_count());
    server_tell_wall("worker", EAGAIN, why);
}

static void loop(void)
{
    static const struct workers_watch watch = {.is_due = is_full, .on_ready = on_waiting};
    workers_loop(&watch);
}

const struct server_model server_model_prefork = {
    .name = "prefork",
    .takes = "workers",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = workers_count_tasks,
    .stop = workers_stop,
};
