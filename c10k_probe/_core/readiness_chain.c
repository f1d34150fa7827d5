/*
 * readiness_chain.c - the workload `chain`: tokens that travel over the watched sockets.
 *
 * A pass begins with one byte written to each of `active` positions, evenly spaced in the order of travel, its
 * first one drawn anew for each pass. Then, in rounds: wait until every token has arrived and was read, then write
 * each to the next position. All are read before the first is written, so that no two tokens ever meet: in each
 * round exactly `active` sockets are readable and all others are not. When `writes` have been made beyond the
 * first ones, the last tokens are read and not sent on.
 *
 * Timed: from before the first write until after the last read.
 *
 * Source of the idea: bench.c of libevent (pipes there, and its handler writes at once, so that tokens merge).
 */
#include "readiness_parts.h"

static uint32_t active_count;
static int64_t writes_count;
static uint32_t first; /* in the order of travel, of this pass */

static void prepare(uint32_t new_active_count, int64_t new_writes_count)
{
    const int64_t usual_count = new_active_count > 1000 ? new_active_count : 1000;
    active_count = new_active_count;
    writes_count = new_writes_count > 0 ? new_writes_count : new_writes_count < 0 ? 0 : usual_count;
    workload_events_count = active_count + writes_count;
    workload_rounds_count = 1 + (writes_count + active_count - 1) / active_count;
}

static void before(void)
{
    first = sockets_random_below(sockets.watched_count);
}

static void start_tokens(void)
{
    for (uint32_t i = 0; i < active_count; i++) {
        const uint64_t step = (uint64_t)i * sockets.watched_count / active_count;
        const uint32_t position = sockets.travel[(first + step) % sockets.watched_count];
        tokens_write(sockets.ends[position ^ 1].read_fd, position);
    }
}

static int64_t pass(int64_t *register_ns)
{
    int64_t left_count = writes_count;
    uint32_t travelling_count = active_count;
    const int64_t start_ns = now_ns();
    (void)register_ns;
    start_tokens();
    while (travelling_count > 0) {
        tokens_collect(travelling_count, true);
        if (travelling_count > left_count) {
            travelling_count = (uint32_t)left_count;
        }
        left_count -= travelling_count;
        for (uint32_t i = 0; i < travelling_count; i++) {
            const struct end *end = &sockets.ends[tokens.arrivals[i]];
            tokens_write(end->write_fd, end->next);
        }
    }
    return now_ns() - start_ns;
}

const struct workload workload_chain = {.prepare = prepare, .before = before, .pass = pass, .first_rounds_count = 1};
