/*
 * creation_stacks.h - does every new thread map a new stack?
 */
#ifndef C10K_CREATION_STACKS_H
#define C10K_CREATION_STACKS_H

#include "creation.h"

#include <stddef.h>
#include <stdint.h>

struct stack_facts { /* sums over all threads; -1: not asked for, or /proc does not tell */
    int64_t stack_bytes; /* of one thread, without its guard */
    int64_t threads_count;
    int64_t creations_count;      /* of the whole probe */
    int64_t kept_mapped_bytes;    /* address space that threads added which were all kept alive */
    int64_t kept_mappings_count;  /* likewise mappings */
    int64_t kept_anonymous_bytes; /* likewise resident anonymous memory */
    int64_t joined_mapped_bytes;  /* address space that threads added of which each was joined before the next */
};
extern const struct stack_facts NO_STACK_FACTS;

/* Creates `count` threads that are alive together, and `count` more of which each is gone before the next. 0,
 * or the error number of the creation that failed. */
int probe_stacks(const struct method *method, size_t count, struct stack_facts *facts);

#endif
