/*
 * server_kept.h - what a task keeps for few of its connections, found by descriptor: the rest of an answer that a
 * full socket did not take, a request that has not come whole. Nothing is allocated while nothing is kept, so a
 * connection without such costs no memory, and asking for it costs one comparison.
 *
 * A table belongs to one thread: declare it _Thread_local where several serve.
 */
#ifndef C10K_SERVER_KEPT_H
#define C10K_SERVER_KEPT_H

#include <stdbool.h>
#include <stddef.h>

/* The first member of what is kept; what is kept is one block of malloc. */
struct kept {
    struct kept *next;
    int fd;
};

struct kept_table {
    struct kept **buckets; /* NULL: nothing is kept */
    size_t count;
};

static inline bool kept_is_empty(const struct kept_table *table)
{
    return table->buckets == NULL;
}

/* NULL: nothing is kept for fd. */
struct kept *kept_find(const struct kept_table *table, int fd);

/* A zeroed block of `bytes` that begins with struct kept, for an fd without one. NULL: no memory. */
struct kept *kept_add(struct kept_table *table, int fd, size_t bytes);

/* Frees what is kept for fd, if anything is. */
void kept_forget(struct kept_table *table, int fd);
void kept_forget_all(struct kept_table *table);

#endif
