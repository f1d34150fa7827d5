/*
 * scheduling_watch.c - the gap detector; what it writes down is in scheduling_watch.h.
 *
 * One turn of the loop reads CLOCK_MONOTONIC and CLOCK_MONOTONIC_COARSE, both in the vDSO, and takes well
 * under 0.1 us. Interrupts that are shorter than the gap go unnoticed; longer ones, and a hypervisor that
 * takes the CPU, look like a switch, but the task's own count of switches (getrusage, read after each gap)
 * does not move then. A switch away that is shorter than the gap does not end the run, but is in that count,
 * so that foreign time in the same run after it is taken for a switch. Reading the count belongs to the next
 * run.
 *
 * Edges: the coarse clock moves when a tick updates the time. Where two turns of the loop, without a gap
 * between, see it at different values, the tick came between them, and the first of the two readings is
 * written down. The tick came after it: by less than one turn of the loop where another CPU keeps the time,
 * and where this one does the interrupt began right after it.
 */
#include "scheduling_watch.h"

#include <string.h>

/* The state of the loop. */
struct sight {
    int64_t run_start_ns; /* 0 in the first part */
    int64_t foreign_ns;   /* in this run, so far */
    int64_t last_ns;
    int64_t coarse_ns;
    int64_t switches_count;
};

static int64_t own_cpu_ns(void)
{
    struct timespec time;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time));
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t own_switches(void)
{
    struct switches switches = switches_now();
    return switches.voluntary_count + switches.involuntary_count;
}

void watcher_touch(struct watcher *watcher)
{
    memset(watcher->runs, 0, watcher->runs_max * sizeof(*watcher->runs));
    memset(watcher->edges_ns, 0, sizeof(watcher->edges_ns));
    coarse_now_ns();
    own_cpu_ns();
    watcher->switches = switches_now();
}

static void note_wait(struct watcher *watcher, int64_t wait_ns)
{
    if (wait_ns > watcher->longest_wait_ns) {
        watcher->longest_wait_ns = wait_ns;
    }
}

static void note_run(struct watcher *watcher, const struct sight *sight, int64_t gap_ns, int64_t switches_count)
{
    if (watcher->runs_count == watcher->runs_max) {
        watcher->dropped_count++;
        return;
    }
    watcher->runs[watcher->runs_count++] = (struct run){
        .run_ns = sight->last_ns - sight->run_start_ns - sight->foreign_ns,
        .foreign_ns = sight->foreign_ns,
        .end_ns = sight->last_ns,
        .gap_ns = gap_ns,
        .run_switches_count = switches_count,
    };
}

/* A task that was off the CPU when the window began starts with a run: it waited for its turn, and that
 * switch is not in its count, which is read in that turn. */
static void begin(struct watcher *watcher, struct sight *sight, struct gang_window window)
{
    int64_t now = now_ns();
    if (now - window.start_ns <= watcher->gap_ns || now >= window.end_ns) {
        return;
    }
    watcher->first_part_ns = now - window.start_ns;
    note_wait(watcher, watcher->first_part_ns);
    sight->run_start_ns = now;
    sight->last_ns = now;
}

/* The reading that ended the gap is the first of the next run. */
static void end_gap(struct watcher *watcher, struct sight *sight, int64_t now, int64_t window_start_ns)
{
    int64_t gap_ns = now - sight->last_ns;
    int64_t switches_count = own_switches() - sight->switches_count;
    sight->coarse_ns = coarse_now_ns();
    if (switches_count == 0) {
        sight->foreign_ns += gap_ns;
        return;
    }
    note_wait(watcher, gap_ns);
    if (sight->run_start_ns == 0) {
        watcher->first_part_ns = now - window_start_ns;
    } else {
        note_run(watcher, sight, gap_ns, switches_count);
    }
    sight->switches_count += switches_count;
    sight->run_start_ns = now;
    sight->foreign_ns = 0;
}

static void look_for_edge(struct watcher *watcher, struct sight *sight)
{
    int64_t coarse_ns = coarse_now_ns();
    if (coarse_ns != sight->coarse_ns) {
        if (watcher->edges_count < WATCH_EDGES_MAX) {
            watcher->edges_ns[watcher->edges_count++] = sight->last_ns;
        }
        sight->coarse_ns = coarse_ns;
    }
}

static void watch(struct watcher *watcher, struct sight *sight, struct gang_window window)
{
    for (;;) {
        int64_t now = now_ns();
        if (now >= window.end_ns) {
            return;
        }
        if (now - sight->last_ns > watcher->gap_ns) {
            end_gap(watcher, sight, now, window.start_ns);
        } else {
            look_for_edge(watcher, sight);
        }
        sight->last_ns = now;
    }
}

/* A wait that the window's end cuts short is as long as it was until then. */
static void close_books(struct watcher *watcher, const struct sight *sight, struct gang_window window)
{
    int64_t window_ns = window.end_ns - window.start_ns;
    if (window.end_ns - sight->last_ns > watcher->gap_ns) {
        note_wait(watcher, window.end_ns - sight->last_ns);
    }
    if (sight->run_start_ns == 0) {
        watcher->first_part_ns = window_ns;
    } else {
        watcher->last_part_ns = window.end_ns - sight->run_start_ns;
    }
}

void watcher_run(struct watcher *watcher, struct gang_window window)
{
    int64_t cpu_before_ns = own_cpu_ns();
    struct switches before = switches_now();
    struct sight sight = {
        .last_ns = window.start_ns,
        .coarse_ns = coarse_now_ns(),
        .switches_count = before.voluntary_count + before.involuntary_count,
    };
    begin(watcher, &sight, window);
    watch(watcher, &sight, window);
    close_books(watcher, &sight, window);
    watcher->switches = switches_between(before, switches_now());
    watcher->cpu_ns = own_cpu_ns() - cpu_before_ns;
}
