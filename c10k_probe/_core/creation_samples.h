/*
 * creation_samples.h - the two passes of samples of one launch, and their report.
 */
#ifndef C10K_CREATION_SAMPLES_H
#define C10K_CREATION_SAMPLES_H

#include "creation.h"

#include <stddef.h>
#include <stdint.h>

enum { SAMPLES_LEAST = 3 }; /* taken whatever the deadline */

/* Columns of equally many values, in pages faulted in beforehand and marked MADV_DONTFORK, so that their
 * number does not change the price of fork. */
struct samples {
    int64_t *return_ns;
    int64_t *started_ns;
    int64_t *exec_ns;
    int64_t *cycle_ns;
    int64_t *child_faults;
    size_t capacity;
    size_t count;
    size_t warmups_count;
    int64_t dropped_count;
};

/* The second pass; `aftershock_ns` NULL when there is none. */
struct shocks {
    int64_t *aftershock_ns;
    int64_t *parent_faults;
    size_t capacity;
    size_t count;
};

/* `bytes` of zeroed pages of that kind. */
void *allocate_values(size_t bytes);

struct samples allocate_samples(size_t capacity);

/* Creations that are thrown away, one at least whatever the deadline; counted in `samples`. 0, or the error
 * number of the one that failed. */
int warm_up(const struct method *method, struct slot *slot, struct samples *samples, size_t count,
            int64_t deadline_ns);

/* Fills `samples` until it is full or the deadline (CLOCK_MONOTONIC, ns; 0: none) has passed. */
int take_samples(const struct method *method, struct slot *slot, struct samples *samples, int64_t deadline_ns);

/* The same for the second pass, whose children stay alive until the parent has written to 1 MiB. */
int take_shocks(const struct method *method, struct slot *slot, struct shocks *shocks, size_t capacity,
                int64_t deadline_ns);

/* Keeps a creation that is over, or counts it as dropped. */
void store_sample(const struct method *method, struct samples *samples, const struct creation *creation);

/* ",\"name\":[...]", or null for what the method does not have. */
void emit_values(const char *name, const int64_t *values, size_t count, bool applies);

void emit_samples(const struct method *method, const struct samples *samples, const struct shocks *shocks);

#endif
