/*
 * scheduling_yield.c - many runnable tasks: `scheduling --mode yield --kind processes|threads --tasks N
 * --budget-ms B [--cpu C]`.
 *
 * Question: does a switch cost more the more tasks are runnable? N tasks, all runnable, on one CPU, read the
 * clock and call sched_yield in a loop. Per window (a pass): pass_ns; yields_count, calls that came back in
 * it; switches_count, the switches in it. Not each call is a switch (the caller may be picked again; a task
 * that is alone always is), so a switch costs pass_ns over switches_count.
 *
 * Each task reads its own counts of switches (getrusage; sched_yield's are involuntary in the kernel's
 * books, as the caller goes on) and its CPU time once before the window, when all are yielding already, and
 * once after it. counted_yields_count, counted_switches_count and counted_cpu_ns are the sums between these
 * readings. Of a task's counted switches, switches_count has the part that its calls in the window are of
 * its counted calls: that is all of them where each call is a switch. With other tasks on the CPU,
 * counted_cpu_ns over counted_switches_count is a switch's cost without theirs.
 *
 * Why they yield: the other way to ask is how much less N tasks get done than one, over their switches,
 * while none gives way. They are then switched once a slice, of some ms: a switch of 1 to 2 us is 0.04 % of
 * the work between, far less than the work itself varies by.
 *
 * Windows: one pass dropped, 5 passes in B ms. Each pass and each lead is at least 10 us a task, which is
 * two rounds and more.
 *
 * A task writes to one line of its own, after the window; between there is only its stack.
 *
 * Known bias: a yield contains one clock reading (clock_cost_ns in hello). Each task has a stack of its own,
 * in user space and in the kernel: what of it a switch touches is in the caches while the tasks are few, and
 * no longer when they are many. There is no control for that.
 *
 * Clock: CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID; unit ns. Sources: sched_yield(2), getrusage(2);
 * kernel/sched/fair.c (yield_task_fair), kernel/sched/core.c (__schedule).
 */
#include "scheduling.h"
#include "scheduling_gang.h"

#include <inttypes.h>
#include <sched.h>

enum {
    PASSES = 5,
    TASK_LEAST_NS = 10000,
    WINDOW_LEAST_NS = 1000000,
};

/* What one task did the last time; shared, written by its task. */
struct deed {
    _Alignas(LINE_BYTES) int64_t yields_count; /* in the window */
    int64_t counted_count;                    /* between the two readings */
    int64_t switches_count;
    int64_t cpu_ns;
};

/* The same of all, pass by pass. */
struct column {
    int64_t window_ns[PASSES];
    int64_t yields_count[PASSES];
    int64_t window_switches_count[PASSES];
    int64_t counted_count[PASSES];
    int64_t switches_count[PASSES];
    int64_t cpu_ns[PASSES];
    size_t count;
};

struct runnable {
    struct gang *gang;
    size_t tasks_count;
    int cpu;
    struct deed *deeds;
};

/* ---- in the tasks ---- */

static int64_t own_cpu_ns(void)
{
    struct timespec time;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time));
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t own_switches(void)
{
    struct switches switches = switches_now();
    return switches.voluntary_count + switches.involuntary_count;
}

static struct deed begin(void)
{
    struct deed deed = {.switches_count = -own_switches()};
    deed.cpu_ns = -own_cpu_ns();
    return deed;
}

static void finish(struct deed *deed)
{
    deed->cpu_ns += own_cpu_ns();
    deed->switches_count += own_switches();
}

static void prepare(void *context, size_t index)
{
    const struct runnable *runnable = context;
    struct deed deed = begin();
    finish(&deed);
    runnable->deeds[index] = deed;
}

static int64_t yield_until(int64_t end_ns)
{
    int64_t yields_count = 0;
    while (now_ns() < end_ns) {
        sched_yield();
        yields_count++;
    }
    return yields_count;
}

static void yield_job(void *context, size_t index, struct gang_window window)
{
    const struct runnable *runnable = context;
    struct deed deed = begin();
    deed.counted_count = yield_until(window.start_ns);
    deed.yields_count = yield_until(window.end_ns);
    deed.counted_count += deed.yields_count;
    finish(&deed);
    runnable->deeds[index] = deed;
}

/* ---- windows ---- */

static double switches_in_window(const struct deed *deed)
{
    if (deed->counted_count == 0) {
        return 0;
    }
    return (double)deed->switches_count * (double)deed->yields_count / (double)deed->counted_count;
}

static void run_window(const struct runnable *runnable, int64_t lead_ns, int64_t duration_ns, struct column *column)
{
    struct gang_window window = gang_run(runnable->gang, yield_job, lead_ns, duration_ns);
    size_t at = column->count++;
    double switches = 0;
    column->window_ns[at] = window.end_ns - window.start_ns;
    for (size_t i = 0; i < runnable->tasks_count; i++) {
        const struct deed *deed = &runnable->deeds[i];
        switches += switches_in_window(deed);
        column->yields_count[at] += deed->yields_count;
        column->counted_count[at] += deed->counted_count;
        column->switches_count[at] += deed->switches_count;
        column->cpu_ns[at] += deed->cpu_ns;
    }
    column->window_switches_count[at] = (int64_t)(switches + 0.5);
}

static int64_t at_least(int64_t value, int64_t least)
{
    return value > least ? value : least;
}

static void run_passes(const struct runnable *runnable, int64_t budget_ns, struct column *yields)
{
    const int64_t least_ns = at_least((int64_t)runnable->tasks_count * TASK_LEAST_NS, WINDOW_LEAST_NS);
    const int64_t pass_ns = at_least(budget_ns / (PASSES + 1), least_ns);
    run_window(runnable, least_ns, pass_ns, yields);
    *yields = (struct column){.count = 0};
    while (yields->count < PASSES) {
        run_window(runnable, least_ns, pass_ns, yields);
    }
}

/* ---- the report ---- */

static void emit_passes(const struct column *yields)
{
    emit_int64_array(",\"pass_ns\":", yields->window_ns, yields->count);
    emit_int64_array(",\"yields_count\":", yields->yields_count, yields->count);
    emit_int64_array(",\"switches_count\":", yields->window_switches_count, yields->count);
    emit_int64_array(",\"counted_yields_count\":", yields->counted_count, yields->count);
    emit_int64_array(",\"counted_switches_count\":", yields->switches_count, yields->count);
    emit_int64_array(",\"counted_cpu_ns\":", yields->cpu_ns, yields->count);
}

void yield_run(const struct scheduling_plan *plan)
{
    static struct column yields;
    static struct runnable runnable;
    runnable.tasks_count = (size_t)plan->tasks_count;
    cpus_choose(plan->cpu, 1, &runnable.cpu);
    cpus_leave(runnable.cpu);
    runnable.deeds = memory_shared(runnable.tasks_count * sizeof(*runnable.deeds));
    runnable.gang =
        gang_start((enum scheduling_kind)plan->kind, runnable.tasks_count, runnable.cpu, prepare, &runnable);
    run_passes(&runnable, plan->budget_ms * 1000000, &yields);
    gang_stop(runnable.gang);
    emit_begin("{\"type\":\"yield\",\"tasks_count\":%zu,\"cpu\":%d", runnable.tasks_count, runnable.cpu);
    emit_passes(&yields);
    emit_finish("}");
    helper_end((int64_t)yields.count, 0);
}
