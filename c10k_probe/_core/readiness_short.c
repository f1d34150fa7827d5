/*
 * readiness_short.c - the workload `short`: connections that come, are read once, and go, while the watched ones
 * stay idle. What registering costs decides here.
 *
 * A pass is a number of rounds. In each, `active` new pairs are opened, one end of each is watched, a byte is
 * written to each peer, all are waited for and read, unwatched, and both ends are closed. The order in which they
 * are watched and written to is random, the same in all rounds of a level.
 *
 * Timed: from before the first pair is opened until after the last one is closed; register_ns, the part that is
 * spent in watching and unwatching, until both are in force. Known bias: four readings of the clock in each round,
 * of which about two are in register_ns (`clock_cost_ns` in hello). With io_uring both are handed over by calls of
 * their own, as a connection is registered before anybody knows when it will have data; a program that knows could
 * save one by registering with the wait.
 */
#include "readiness_parts.h"

#include <sys/socket.h>

static uint32_t active_count;
static uint32_t *order; /* of positions */

static void prepare(uint32_t new_active_count, int64_t writes_count)
{
    const int64_t wanted_count = writes_count > 0 ? writes_count : 1000;
    if (order == NULL) {
        order = touched_memory(sockets.active_count * sizeof(order[0]));
    }
    active_count = new_active_count;
    workload_rounds_count = (wanted_count + active_count - 1) / active_count;
    workload_events_count = workload_rounds_count * active_count;
    sockets_shuffle(order, active_count);
    for (uint32_t i = 0; i < active_count; i++) {
        order[i] += sockets.watched_count;
    }
}

static void before(void)
{
}

static void open_connections(void)
{
    for (uint32_t i = 0; i < active_count; i++) {
        int pair[2];
        struct end *end = &sockets.ends[sockets.watched_count + i];
        if (COUNTED(socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
            fail_call("socketpair", "for a short-lived connection", errno);
        }
        end->read_fd = pair[0];
        end->write_fd = pair[1];
    }
}

static void close_connections(void)
{
    for (uint32_t i = 0; i < active_count; i++) {
        const struct end *end = &sockets.ends[sockets.watched_count + i];
        COUNTED(close, end->read_fd);
        COUNTED(close, end->write_fd);
    }
}

/* Returns the ns that it took until `change` of every new position is in force. */
static int64_t register_all(void (*change)(uint32_t position))
{
    const struct mechanism *mechanism = tokens.mechanism;
    const int64_t start_ns = now_ns();
    for (uint32_t i = 0; i < active_count; i++) {
        change(order[i]);
    }
    if (mechanism->flush != NULL) {
        mechanism->flush();
    }
    return now_ns() - start_ns;
}

static int64_t pass(int64_t *register_ns)
{
    const int64_t start_ns = now_ns();
    *register_ns = 0;
    for (int64_t round = 0; round < workload_rounds_count; round++) {
        open_connections();
        *register_ns += register_all(tokens.mechanism->watch);
        for (uint32_t i = 0; i < active_count; i++) {
            tokens_write(sockets.ends[order[i]].write_fd, order[i]);
        }
        tokens_collect(active_count, false);
        *register_ns += register_all(tokens.mechanism->unwatch);
        close_connections();
    }
    return now_ns() - start_ns;
}

const struct workload workload_short = {
    .prepare = prepare,
    .before = before,
    .pass = pass,
    .has_register_ns = true,
};
