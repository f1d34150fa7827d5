/*
 * holder_arrays.c - arrays that live in mappings of their own, and lists of descriptors in them. The contract
 * is in holder.h. Source: mmap(2).
 */
#include "holder.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *array_new(int64_t bytes)
{
    return CHECK_POINTER(mmap(NULL, (size_t)bytes + 1, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
}

void array_free(void *array, int64_t bytes)
{
    CHECK(munmap(array, (size_t)bytes + 1));
}

void reserve(struct descriptors *list, int64_t capacity)
{
    const int64_t item_bytes = (int64_t)sizeof *list->fds;
    if (capacity <= list->capacity) {
        return;
    }
    int *grown = array_new(capacity * item_bytes);
    if (list->fds != NULL) {
        memcpy(grown, list->fds, (size_t)(list->count * item_bytes));
        array_free(list->fds, list->capacity * item_bytes);
    }
    list->fds = grown;
    list->capacity = capacity;
}

void compact(struct descriptors *list)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < list->count; i++) {
        if (list->fds[i] >= 0) {
            list->fds[kept++] = list->fds[i];
        }
    }
    list->count = kept;
}

int64_t close_all(struct descriptors *list)
{
    const int64_t closed_count = list->count;
    for (int64_t i = 0; i < list->count; i++) {
        close(list->fds[i]);
    }
    if (list->fds != NULL) {
        array_free(list->fds, list->capacity * (int64_t)sizeof *list->fds);
    }
    *list = (struct descriptors){0};
    return closed_count;
}
