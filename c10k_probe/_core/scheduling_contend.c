/*
 * scheduling_contend.c - the slice: `scheduling --mode contend --tasks N --duration-ms D --policy
 * other|batch [--gap-us G] [--cpu C]`.
 *
 * Question: how long does a task run before another gets its turn, is it at the tick that it has to stop,
 * and is the CPU shared fairly? N processes that do nothing but read the clock are runnable on one CPU for
 * the same D ms; each writes down when it was off the CPU, that is when two readings lie more than G us
 * apart (50 unless given; scheduling_watch.c). They are in this process' session, so that autogroup does
 * not part them.
 *
 * Pooled, task after task, one entry a complete run (runs_count of each task says which are whose):
 *   run_ns              from the first reading after a gap to the last before the next, without
 *   foreign_ns          what interrupts or the hypervisor took in the midst of it, each time for over G;
 *   gap_ns              the gap that ended it, in which the task was switched;
 *   run_switches_count  switches of the task from the run's start to the gap's end. More than 1: it was
 *                       switched away from before, each time for less than G;
 *   edge_distance_ns    from the run's end to the nearest edge of the tick; null where no edge was seen.
 * One a task: runs_count, first_part_ns and last_part_ns (what runs, foreign time and gaps leave of the
 * window: together they are window_ns exactly, unless runs were dropped), cpu_ns (CLOCK_PROCESS_CPUTIME_ID,
 * from the task's first reading in the window to its first after it), longest_wait_ns (the waits at both
 * ends included, clipped to the window), voluntary_switches_count, involuntary_switches_count.
 *
 * The tick's edges: moments at which the coarse clock moved, as seen by a task that ran then, at most 64 a
 * task. The tick is a timer that expires every TICK_NSEC of CLOCK_MONOTONIC (= the coarse clock's
 * resolution, and the NTP slew is in both), so all edges lie on one grid; its phase is the median of the
 * observed edges modulo the tick. edge_offset_ns: how far the observed edges lie from that grid, in
 * ascending order; of more than 1,000, so many of them evenly. Known bias:
 *   - an observed edge is the reading before the tick, 0.1 us early at most, and the interrupt itself may
 *     be late;
 *   - a run's end is the reading before the interrupt, so that a run that the tick ended lies within that
 *     of the grid;
 *   - the coarse clock is moved by the one CPU that keeps the time. With skew_tick=1 (kernel command line)
 *     each CPU's tick is shifted by its own share of half a tick, and distances on a CPU that does not keep
 *     the time are those to the other CPU's tick. Without (the default) all CPUs tick at the same moments;
 *   - a CPU in nohz_full has no tick to be near to.
 *
 * Room for runs: four switches a ms on the whole CPU, four times a task's share, and 256; what is over is
 * counted in dropped_count.
 *
 * Clock: CLOCK_MONOTONIC; unit ns. Sources: sched(7) (SCHED_BATCH, autogroup), clock_gettime(2);
 * kernel/time/tick-sched.c (tick_setup_sched_timer, skew_tick), kernel/time/timekeeping.c.
 */
#include "scheduling.h"
#include "scheduling_gang.h"
#include "scheduling_watch.h"

#include <inttypes.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>

enum { RUNS_LEAST = 256, SWITCHES_PER_MS = 4, SHARES = 4, OFFSETS_MAX = 1000 };

struct contest {
    const struct scheduling_plan *plan;
    size_t tasks_count;
    int cpu;
    struct watcher *watchers; /* shared */
    struct gang_window window;
    int64_t tick_ns;
    int64_t *offsets_ns; /* of observed edges from the grid, sorted */
    size_t edges_count;
    int64_t phase_ns;
};

/* ---- in the tasks ---- */

static void prepare(void *context, size_t index)
{
    const struct contest *contest = context;
    const struct sched_param none = {.sched_priority = 0};
    if (contest->plan->policy == POLICY_BATCH) {
        CHECK(sched_setscheduler(0, SCHED_BATCH, &none));
    }
    watcher_touch(&contest->watchers[index]);
}

static void contend_job(void *context, size_t index, struct gang_window window)
{
    const struct contest *contest = context;
    watcher_run(&contest->watchers[index], window);
}

/* ---- the grid ---- */

static int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* How far a moment lies from the nearest point of the grid: -tick/2 .. tick/2. */
static int64_t offset_from_grid(const struct contest *contest, int64_t at_ns)
{
    int64_t remainder = (at_ns - contest->phase_ns) % contest->tick_ns;
    remainder += remainder < 0 ? contest->tick_ns : 0;
    return remainder > contest->tick_ns / 2 ? remainder - contest->tick_ns : remainder;
}

/* Lays the grid through the first edge, then shifts it by the median of all offsets from there. */
static void find_grid(struct contest *contest)
{
    const size_t tasks_count = contest->tasks_count;
    contest->offsets_ns = memory_private((tasks_count * WATCH_EDGES_MAX + 1) * sizeof(*contest->offsets_ns));
    for (size_t task = 0; task < tasks_count; task++) {
        const struct watcher *watcher = &contest->watchers[task];
        for (size_t i = 0; i < watcher->edges_count; i++) {
            if (contest->edges_count == 0) {
                contest->phase_ns = watcher->edges_ns[i];
            }
            contest->offsets_ns[contest->edges_count++] = offset_from_grid(contest, watcher->edges_ns[i]);
        }
    }
    qsort(contest->offsets_ns, contest->edges_count, sizeof(*contest->offsets_ns), compare_int64);
    int64_t median_ns = contest->offsets_ns[contest->edges_count / 2];
    contest->phase_ns += median_ns;
    for (size_t i = 0; i < contest->edges_count; i++) {
        contest->offsets_ns[i] -= median_ns;
    }
}

/* ---- the report ---- */

/* One 64-bit member of every run of every task, by its place in struct run. */
static void emit_runs(const struct contest *contest, const char *name, size_t place)
{
    const char *separator = "";
    emit_part(",\"%s\":[", name);
    for (size_t task = 0; task < contest->tasks_count; task++) {
        const struct watcher *watcher = &contest->watchers[task];
        for (size_t i = 0; i < watcher->runs_count; i++) {
            const char *run = (const char *)&watcher->runs[i];
            emit_part("%s%" PRId64, separator, *(const int64_t *)(run + place));
            separator = ",";
        }
    }
    emit_part("]");
}

/* The same of every task, by its place in struct watcher. */
static void emit_tasks(const struct contest *contest, const char *name, size_t place)
{
    emit_part(",\"%s\":[", name);
    for (size_t task = 0; task < contest->tasks_count; task++) {
        const char *watcher = (const char *)&contest->watchers[task];
        emit_part(task == 0 ? "%" PRId64 : ",%" PRId64, *(const int64_t *)(watcher + place));
    }
    emit_part("]");
}

static void emit_edges(const struct contest *contest)
{
    size_t kept_count = contest->edges_count < OFFSETS_MAX ? contest->edges_count : OFFSETS_MAX;
    for (size_t i = 0; i < kept_count; i++) {
        contest->offsets_ns[i] = contest->offsets_ns[i * contest->edges_count / kept_count];
    }
    emit_part(",\"edges_count\":%zu", contest->edges_count);
    emit_int64_array(",\"edge_offset_ns\":", contest->offsets_ns, kept_count);
    if (contest->edges_count == 0) {
        emit_part(",\"edge_distance_ns\":null");
    } else {
        emit_runs(contest, "edge_distance_ns", offsetof(struct run, end_ns));
    }
}

/* Puts the distance in the place of the end, which is not reported. */
static void measure_distances(const struct contest *contest)
{
    for (size_t task = 0; task < contest->tasks_count; task++) {
        struct watcher *watcher = &contest->watchers[task];
        for (size_t i = 0; i < watcher->runs_count; i++) {
            watcher->runs[i].end_ns = llabs(offset_from_grid(contest, watcher->runs[i].end_ns));
        }
    }
}

static void report(const struct contest *contest)
{
    emit_begin("{\"type\":\"contend\",\"tasks_count\":%zu,\"cpu\":%d", contest->tasks_count, contest->cpu);
    emit_part(",\"window_ns\":%" PRId64, contest->window.end_ns - contest->window.start_ns);
    emit_part(",\"gap_limit_ns\":%" PRId64 ",\"coarse_resolution_ns\":%" PRId64, contest->plan->gap_us * 1000,
              contest->tick_ns);
    emit_runs(contest, "run_ns", offsetof(struct run, run_ns));
    emit_runs(contest, "foreign_ns", offsetof(struct run, foreign_ns));
    emit_runs(contest, "gap_ns", offsetof(struct run, gap_ns));
    emit_runs(contest, "run_switches_count", offsetof(struct run, run_switches_count));
    emit_edges(contest);
    emit_tasks(contest, "runs_count", offsetof(struct watcher, runs_count));
    emit_tasks(contest, "first_part_ns", offsetof(struct watcher, first_part_ns));
    emit_tasks(contest, "last_part_ns", offsetof(struct watcher, last_part_ns));
    emit_tasks(contest, "cpu_ns", offsetof(struct watcher, cpu_ns));
    emit_tasks(contest, "longest_wait_ns", offsetof(struct watcher, longest_wait_ns));
    emit_tasks(contest, "voluntary_switches_count", offsetof(struct watcher, switches.voluntary_count));
    emit_tasks(contest, "involuntary_switches_count", offsetof(struct watcher, switches.involuntary_count));
    emit_finish("}");
}

/* ---- the whole ---- */

static void make_watchers(struct contest *contest)
{
    const struct scheduling_plan *plan = contest->plan;
    size_t runs_max = (size_t)(plan->duration_ms * SWITCHES_PER_MS * SHARES / plan->tasks_count) + RUNS_LEAST;
    struct run *runs = memory_shared(contest->tasks_count * runs_max * sizeof(*runs));
    contest->watchers = memory_shared(contest->tasks_count * sizeof(*contest->watchers));
    for (size_t i = 0; i < contest->tasks_count; i++) {
        contest->watchers[i] = (struct watcher){
            .gap_ns = plan->gap_us * 1000,
            .runs = runs + i * runs_max,
            .runs_max = runs_max,
        };
    }
}

void contend_run(const struct scheduling_plan *plan)
{
    static struct contest contest;
    int64_t runs_count = 0;
    int64_t dropped_count = 0;
    contest.plan = plan;
    contest.tasks_count = (size_t)plan->tasks_count;
    contest.tick_ns = coarse_resolution_ns();
    cpus_choose(plan->cpu, 1, &contest.cpu);
    cpus_leave(contest.cpu);
    make_watchers(&contest);
    struct gang *gang = gang_start(KIND_PROCESSES, contest.tasks_count, contest.cpu, prepare, &contest);
    contest.window = gang_run(gang, contend_job, 0, plan->duration_ms * 1000000);
    gang_stop(gang);
    find_grid(&contest);
    measure_distances(&contest);
    report(&contest);
    for (size_t i = 0; i < contest.tasks_count; i++) {
        runs_count += (int64_t)contest.watchers[i].runs_count;
        dropped_count += contest.watchers[i].dropped_count;
    }
    helper_end(runs_count, dropped_count);
}
