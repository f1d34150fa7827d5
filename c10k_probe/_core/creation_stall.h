/*
 * creation_stall.h - how long the parent's own work waits while it creates at a steady rate.
 */
#ifndef C10K_CREATION_STALL_H
#define C10K_CREATION_STALL_H

#include "creation.h"

#include <stddef.h>
#include <stdint.h>

enum { STALL_TICK_PAGES = 16, STALL_TICKS_MAX = 1000000, STALL_SPAWNS_MAX = 1000000 };

struct stall_plan {
    int64_t rate_per_s; /* 0: nothing is created, the baseline */
    int64_t duration_ms;
    int64_t tick_us;
    size_t warmup_count; /* creations before the loop */
};

size_t stall_ticks_count(const struct stall_plan *plan);
size_t stall_spawns_count(const struct stall_plan *plan); /* at most */

/* Memory for a whole run, made before the facts are read. */
struct stall;
struct stall *stall_prepare(const struct stall_plan *plan);

/* Runs the loop, then waits for every child. 0, or the error number of the creation that failed; then nothing
 * more was created. */
int stall_run(struct stall *stall, const struct method *method);

/* The `stall` line and the counts for `end`. */
void stall_emit(const struct stall *stall, const struct method *method);
int64_t stall_samples_count(const struct stall *stall);
int64_t stall_dropped_count(const struct stall *stall);

#endif
