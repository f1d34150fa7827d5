/*
 * process_facts.h - what decides how much a fork of this process costs.
 *
 * Sources: proc(5) (/proc/PID/smaps_rollup, status, maps, fd).
 */
#ifndef C10K_PROCESS_FACTS_H
#define C10K_PROCESS_FACTS_H

#include <stdint.h>

struct process_facts {          /* -1 where /proc does not tell */
    int64_t rss_bytes;          /* resident pages, shared ones included */
    int64_t page_table_bytes;   /* VmPTE: the page tables of this process */
    int64_t mappings_count;     /* lines of /proc/self/maps, without [vsyscall] */
    int64_t descriptors_count;  /* open descriptors, without the one that reads /proc */
};

/* Reads the four numbers as they are now. Not thread-safe. Allocates and frees one directory buffer. */
struct process_facts read_process_facts(void);

#endif
