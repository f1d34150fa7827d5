/*
 * creation_state.h - the state of the parent while children are created: its memory, mappings, descriptors,
 * libraries and the tasks that are already alive. All of it is made before the first sample and counted in
 * /proc afterwards.
 */
#ifndef C10K_CREATION_STATE_H
#define C10K_CREATION_STATE_H

#include "helper.h" /* before any header of the C library: it sets _GNU_SOURCE */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum alive_kind { ALIVE_CHILDREN, ALIVE_THREADS };

struct state { /* what is asked for; 0: none of it */
    int64_t rss_bytes;
    int64_t huge_pages; /* 0 off, 1 on */
    int64_t file_rss_bytes;
    int64_t mappings_count;
    int64_t descriptors_count;
    int64_t libraries_count;
    int64_t alive_count;
    int64_t alive_kind; /* enum alive_kind */
    int64_t alive_stack_bytes; /* 0: the default */
};

enum { LIBRARIES_MAX = 128, STATE_HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/* Makes all of it. A limit that is hit, or a count in /proc that differs, is an `error` line and exit 1. Whatever fails
 * from now on tears it down first. */
void state_set_up(const struct state *asked);

/* Writes one byte to every page of the --rss region, so that none is shared with an earlier forked child. */
void state_dirty(void);

/* Writes one byte to each of the next `pages_count` pages of the --rss region, going round. */
void state_dirty_some(size_t pages_count);

/* Releases and reaps what was kept alive; may be called more than once. */
void state_tear_down(void);

/* A touched private anonymous region without huge pages. */
volatile char *state_map_touched(size_t bytes);

/* Writes one byte to every page. */
void state_dirty_region(volatile char *region, size_t bytes);

/* ---- creation_alive.c ---- */

/* `count` tasks that are blocked in read(2) on one pipe when this comes back. 0, or the error number of the
 * creation that failed; those created before it are alive then. */
int alive_start(enum alive_kind kind, int64_t count, int64_t stack_bytes);
void alive_end(void);

/* ---- linking.c ---- */

/* dlopen(RTLD_NOW | RTLD_LOCAL); NULL in static builds, which cannot load a library. */
extern bool (*const linking_load_library)(const char *path);

#endif
