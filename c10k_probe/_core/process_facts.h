/*
 * process_facts.h - what decides how much a fork of this process costs.
 *
 * Sources: proc(5) (/proc/PID/smaps_rollup, status, maps, fd, task/TID/children).
 */
#ifndef C10K_PROCESS_FACTS_H
#define C10K_PROCESS_FACTS_H

#include "helper.h" /* before any header of the C library: it sets _GNU_SOURCE */

#include <stdint.h>

struct process_facts {           /* -1 where /proc does not tell */
    int64_t rss_bytes;           /* resident pages, shared ones included */
    int64_t anonymous_bytes;     /* of these: anonymous ones */
    int64_t file_rss_bytes;      /* of these: all others, which are pages of files and of shared memory */
    int64_t private_dirty_bytes; /* pages that were written and belong to this process alone; pages of a file
                                    that lie unwritten in the page cache, as those of a program that has just
                                    been installed, count too */
    int64_t anon_huge_bytes;     /* anonymous memory in huge pages */
    int64_t page_table_bytes;    /* VmPTE: the page tables of this process */
    int64_t mappings_count;      /* lines of /proc/self/maps, without [vsyscall] */
    int64_t libraries_count;     /* libraries of the folder `libraries` that are mapped */
    int64_t descriptors_count;   /* open descriptors, without the one that reads /proc */
    int64_t children_count;      /* of the calling thread, zombies included */
    int64_t threads_count;       /* besides the first one */
};

/* Reads the numbers as they are now. Allocates and frees one directory buffer, after the memory was read. */
struct process_facts read_process_facts(void);

/* The same without descriptors, children and threads; allocates nothing. */
struct process_facts read_memory_facts(void);

/* VmSize: the address space that is mapped; -1 if /proc does not tell. */
int64_t read_mapped_bytes(void);

/* The value of a line "name   123 kB" of a file of /proc in bytes, -1 if file or line is missing; `name` with
 * its colon. */
int64_t read_proc_bytes(const char *path, const char *name);

#endif
