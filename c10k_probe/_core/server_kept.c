/*
 * server_kept.c - a hash table with chains whose buckets exist only while something is kept. The contract is in
 * server_kept.h.
 */
#include "server_kept.h"

#include <stdlib.h>

enum { BUCKETS_COUNT = 1024 }; /* a power of two; descriptors are dense, so their low bits spread well */

static struct kept **bucket_of(const struct kept_table *table, int fd)
{
    return &table->buckets[(unsigned)fd % BUCKETS_COUNT];
}

struct kept *kept_find(const struct kept_table *table, int fd)
{
    if (kept_is_empty(table)) {
        return NULL;
    }
    struct kept *kept = *bucket_of(table, fd);
    while (kept != NULL && kept->fd != fd) {
        kept = kept->next;
    }
    return kept;
}

static void free_buckets_if_unused(struct kept_table *table)
{
    if (table->count == 0) {
        free(table->buckets);
        table->buckets = NULL;
    }
}

struct kept *kept_add(struct kept_table *table, int fd, size_t bytes)
{
    if (kept_is_empty(table)) {
        table->buckets = calloc(BUCKETS_COUNT, sizeof table->buckets[0]);
    }
    struct kept *kept = table->buckets != NULL ? calloc(1, bytes) : NULL;
    if (kept != NULL) {
        struct kept **bucket = bucket_of(table, fd);
        *kept = (struct kept){.next = *bucket, .fd = fd};
        *bucket = kept;
        table->count++;
    }
    free_buckets_if_unused(table);
    return kept;
}

void kept_forget(struct kept_table *table, int fd)
{
    struct kept *kept = kept_find(table, fd);
    if (kept == NULL) {
        return;
    }
    struct kept **link = bucket_of(table, fd);
    while (*link != kept) {
        link = &(*link)->next;
    }
    *link = kept->next;
    free(kept);
    table->count--;
    free_buckets_if_unused(table);
}

void kept_forget_all(struct kept_table *table)
{
    for (int i = 0; i < BUCKETS_COUNT && !kept_is_empty(table); i++) {
        while (!kept_is_empty(table) && table->buckets[i] != NULL) {
            kept_forget(table, table->buckets[i]->fd);
        }
    }
}
