/*
 * readiness_parts.h - what the parts of `readiness` share: the sockets, the interface of a mechanism, the counts, and
 * the two workloads. One mechanism is one file, readiness_mechanism_NAME.c, and one row of the table in
 * readiness_mechanisms.c.
 *
 * A position is the number of a socket that is or may be watched: 0..watched_count-1 for those that stay, and
 * the next ones for the short-lived connections.
 */
#ifndef C10K_READINESS_PARTS_H
#define C10K_READINESS_PARTS_H

#include "helper.h"

#include <sys/types.h>
#include <unistd.h>

enum { TOKEN = 'e', READ_BYTES = 64 }; /* a token is one byte; most that a handler reads at once */

/* ---- readiness_mechanisms.c: the ways to wait ---- */

/* Something can be read at a position; or, where the mechanism carries the data, that many bytes came. */
struct event {
    uint32_t position;
    uint32_t bytes_count;
};

/* All of it runs in the main thread. One mechanism is open in a process. */
struct mechanism {
    const char *name;
    bool carries_data;                /* events hold the bytes: nobody calls read */
    void (*open)(void);               /* once, after sockets_plan(): positions and events are bounded by it */
    const char *(*flags)(void);       /* NULL, or what was set up: "CQSIZE|..." */
    int64_t (*room)(void);            /* NULL, or how many descriptors it can watch from now on */
    void (*watch)(uint32_t position); /* reading is of interest */
    void (*unwatch)(uint32_t position);
    void (*flush)(void); /* NULL, or: what was watched and unwatched until now is in force afterwards */
    int (*wait)(struct event *events, uint32_t room); /* at least one, in the end; -1: a signal came */
    void (*rearm)(const struct event *events, uint32_t count); /* NULL, or: watch again what has fired */
    void (*close)(void);
};

extern const struct mechanism *const mechanisms[]; /* NULL-terminated */

/* ---- readiness_sockets.c: what is watched ---- */

/* One position: its own descriptor, and where the chain's handler writes. */
struct end {
    int read_fd;
    int write_fd;
    uint32_t next; /* the position that becomes readable when it writes */
};

struct sockets {
    uint32_t watched_count;   /* positions that stay */
    uint32_t positions_count; /* with those of short-lived connections */
    uint32_t active_count;    /* the largest active count */
    struct end *ends;         /* by position */
    uint32_t *travel;         /* a permutation: the order in which a token visits the watched positions */
    uint64_t dice;            /* state of the random numbers */
};

extern struct sockets sockets;

/* Room for the positions, touched. Nothing is opened. */
void sockets_plan(uint32_t watched_count, uint32_t active_count, uint32_t short_lived_count, uint64_t seed);

/* Opens the pairs and links them in the order of travel. Out of descriptors: closes all, then the error line. */
void sockets_open(void);
void sockets_close(void);

/* 0, 1, ... count-1 in random order. */
void sockets_shuffle(uint32_t *numbers, uint32_t count);
uint32_t sockets_random_below(uint32_t bound);

/* Zeroed memory whose pages have been written to. */
void *touched_memory(size_t bytes);

/* ---- the counts ---- */

/* System calls by the C library's names. */
#define READINESS_CALLS(ROW) \
    ROW(select)              \
    ROW(poll)                \
    ROW(epoll_wait)          \
    ROW(epoll_ctl)           \
    ROW(io_uring_enter)      \
    ROW(read)                \
    ROW(write)               \
    ROW(socketpair)          \
    ROW(close)
#define CALL_NUMBER(name) CALL_##name,
enum call { READINESS_CALLS(CALL_NUMBER) CALLS_COUNT };

/* Plain counters; a pass that is thrown away has them put back. The sums are over positions, one summand for
 * each byte written to, or read at, a position: equal sums mean that each byte was read where it was written to,
 * once. */
struct counts {
    int64_t calls[CALLS_COUNT];
    int64_t waits_count;
    int64_t spurious_count; /* events without a byte to read */
    int64_t arrived_count;  /* bytes read */
    uint64_t written_sum, arrived_sum;
};

extern struct counts counts;

#define COUNTED(name, ...) (counts.calls[CALL_##name]++, name(__VA_ARGS__))

/* The summand of a position: not linear, so that two wrong ones do not make up for each other. */
static inline uint64_t position_mark(uint32_t position)
{
    const uint64_t product = (position + UINT64_C(1)) * UINT64_C(0x9E3779B97F4A7C15);
    return product ^ (product >> 29);
}

/* ---- readiness_tokens.c: what both workloads do with events ---- */

struct tokens {
    const struct mechanism *mechanism;
    struct event *events;   /* of one wait */
    uint32_t *arrivals;     /* the positions where tokens are, `room` at most */
    uint32_t room;          /* of both arrays */
};

extern struct tokens tokens;

void tokens_prepare(const struct mechanism *mechanism);

/* Makes `position` readable by a write to `fd`. */
void tokens_write(int fd, uint32_t position);

/* Waits until `count` tokens were read; where they were is in tokens.arrivals. */
void tokens_collect(uint32_t count, bool are_watched_again);

/* A timer that interrupts waits. Two of its ticks without a token in between: the error line. */
void tokens_guard(bool is_on);

/* ---- the workloads ---- */

/* A pass is the smallest unit that is timed. */
struct workload {
    int64_t first_rounds_count; /* rounds that need no writes of writes_count */
    void (*prepare)(uint32_t active_count, int64_t writes_count); /* of one level; not timed; 0: as usual, -1: none */
    void (*before)(void);                                         /* of each pass; not timed */
    int64_t (*pass)(int64_t *register_ns);                        /* ns of the pass */
    bool has_register_ns;
};

extern const struct workload workload_chain, workload_short;
extern int64_t workload_events_count; /* of a pass, as last prepared */
extern int64_t workload_rounds_count;

/* ---- readiness_passes.c ---- */

struct passes_plan {
    const struct workload *workload;
    int64_t warmup_count, passes_count; /* passes_count: at most */
    int64_t writes_count;               /* 0: by the active count */
    int64_t pass_ns;                    /* how long a pass is to be, in whole rounds; 0: by writes_count */
};

/* Allocates, once. */
void passes_prepare(const struct passes_plan *plan);

/* Measures one active level until `deadline_ns`, at least one pass, and prints `passes`. */
void passes_run(uint32_t active_count, int64_t deadline_ns);

int64_t passes_samples_count(void);
int64_t passes_dropped_count(void);

#endif
