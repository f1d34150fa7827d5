/*
 * holder_ramp.h - what the two parts of the command `ramp` share: holder_ramp.c (the command, and who fills
 * which table) and holder_fill.c (how a table is filled).
 */
#ifndef C10K_HOLDER_RAMP_H
#define C10K_HOLDER_RAMP_H

#include "holder.h"

#include <stdatomic.h>

/* What the lanes of one command share: threads that open connections at the same time, each in a table of
 * its own. */
struct ramp {
    pthread_mutex_t lock; /* of the tables that are taken */
    int64_t next_table;
    int64_t missing_count;
    _Atomic int64_t left_count; /* connections that no lane has taken to open */
    atomic_bool has_failed;
    int64_t window_count; /* of each lane */
    bool is_idle;
    int64_t start_ns;
};

struct lane {
    pthread_t thread;
    bool is_elsewhere; /* on other CPUs than those of this process */
    int64_t taken_count; /* to open, of what was left */
    int64_t opened_count;
    struct samples connect_ns; /* of those that came to count as open, in the order of opening */
    int64_t last_ns;
    bool is_table_full;
    struct failure failure;
    /* of the connections behind the held ones, which wait for their first echo */
    int64_t pending_count;
    uint64_t first_counter; /* of the message on the first of them, and its index */
    int64_t first_index;
    uint64_t pending_counter[WINDOW_MAX]; /* rings, from next_place */
    int64_t pending_connect_ns[WINDOW_MAX];
    int64_t next_place;
};

extern struct ramp ramp;

/* Keeps the first failure of a lane; the others stop as well. */
void lane_fail(struct lane *lane, const char *call, int number);

/* Whether there is one more to open; takes it from what is left to all. */
bool lane_has_next(struct lane *lane);

/* Opens connections in this table, in its thread, until it is full, or none is left to open, or one
 * failed. */
void lane_fill(struct table *table, struct lane *lane);

#endif
