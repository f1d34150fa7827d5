/*
 * scheduling_watch.h - a task that notices when it was off the CPU: what it writes down.
 *
 * A window, for one task, is made of
 *     first part | run, gap | run, gap | ... | last part
 * A gap is the time between two readings of the clock that lie further apart than gap_ns, in which the
 * scheduler took the CPU away; a run the time between two gaps. Where the readings lie as far apart and the
 * task was not switched, something else took the CPU, an interrupt or the hypervisor: that time is foreign,
 * no part of the run, and the run goes on after it. The first part goes from the start of the window to the
 * end of the first gap, as the run before it may have been cut short by the start; the last part likewise
 * holds the run that was cut short by the end.
 */
#ifndef C10K_SCHEDULING_WATCH_H
#define C10K_SCHEDULING_WATCH_H

#include "scheduling.h"
#include "scheduling_gang.h"

enum { WATCH_EDGES_MAX = 64 };

struct run {
    int64_t run_ns;
    int64_t foreign_ns; /* taken in the midst of it */
    int64_t end_ns;     /* the last reading before the gap */
    int64_t gap_ns;     /* that ended the run */
    int64_t run_switches_count; /* from its start to the end of the gap */
};

/* Shared; written by its task. `runs` has room for runs_max. */
struct watcher {
    _Alignas(LINE_BYTES) int64_t gap_ns;
    struct run *runs;
    size_t runs_max;
    size_t runs_count;
    int64_t dropped_count; /* runs without room */
    int64_t first_part_ns;
    int64_t last_part_ns;
    int64_t longest_wait_ns;
    int64_t cpu_ns;
    struct switches switches;
    int64_t edges_ns[WATCH_EDGES_MAX]; /* the reading before the coarse clock was seen to have moved */
    size_t edges_count;
};

/* Faults in, in this process, what the watcher writes to. */
void watcher_touch(struct watcher *watcher);

/* Reads the clock until the window is over. */
void watcher_run(struct watcher *watcher, struct gang_window window);

#endif
