/*
 * backend_due.h - the answers that a backend owes, by the moment at which they are due: a binary heap.
 * Source: D. E. Knuth, The Art of Computer Programming, vol. 3, 5.2.3.
 */
#ifndef C10K_BACKEND_DUE_H
#define C10K_BACKEND_DUE_H

#include "helper.h"

#include <stdint.h>

struct due {
    int64_t at_ns; /* CLOCK_MONOTONIC */
    int fd;
    uint32_t generation; /* of the connection that fd was then */
};

void due_add(struct due due);

/* NULL: nothing is owed. */
const struct due *due_first(void);

/* Takes the first one out; there must be one. */
struct due due_take(void);

#endif
