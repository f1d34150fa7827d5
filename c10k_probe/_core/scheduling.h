/*
 * scheduling.h - what the parts of `scheduling` share: the plan, CPUs, the work loop, tasks and shared
 * memory.
 *
 * Sources: sched_setaffinity(2), futex(2), getrusage(2) (RUSAGE_THREAD), mmap(2).
 */
#ifndef C10K_SCHEDULING_H
#define C10K_SCHEDULING_H

#include "helper.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

enum {
    SCHEDULING_TASKS_MAX = 4096,
    LINE_BYTES = 128, /* two lines of 64: neighbours are fetched in pairs */
};

enum scheduling_kind { KIND_PROCESSES, KIND_THREADS };
enum scheduling_placement { PLACEMENT_ONE_CPU, PLACEMENT_TWO_CPUS };
enum scheduling_policy { POLICY_OTHER, POLICY_BATCH };

/* The command line; -1 for what was not given and has no default. */
struct scheduling_plan {
    int64_t mode;
    int64_t token;
    int64_t kind;
    int64_t tasks_count;
    int64_t working_set_bytes;
    int64_t quantum_ns;
    int64_t placement;
    int64_t hops_count;
    int64_t budget_ms;
    int64_t duration_ms;
    int64_t policy;
    int64_t gap_us;
    int64_t hog_ms;
    int64_t trials_count;
    int64_t share_ms;
    int64_t cpu;
    int64_t started_ns; /* of the launch: what --budget-ms counts from */
};

/* One function a mode: measures, prints its message and `end`. */
void ring_run(const struct scheduling_plan *plan);
void tick_run(const struct scheduling_plan *plan);
void contend_run(const struct scheduling_plan *plan);
void yield_run(const struct scheduling_plan *plan);
void hog_run(const struct scheduling_plan *plan);

/* ---- CPUs (scheduling_cpus.c) ---- */

/* The CPUs to measure on: `cpu`, or the last allowed one for -1, and for `count` 2 the last allowed one
 * besides. Prints `unsupported` where there is no second one. */
void cpus_choose(int64_t cpu, size_t count, int cpus[]);

/* For one that only coordinates: keeps the calling thread off that CPU where it may run on another. */
void cpus_leave(int cpu);

/* ---- the coarse clock ---- */

/* CLOCK_MONOTONIC as it was at the last tick that updated it: no call of the kernel, no reading of
 * hardware. */
static inline int64_t coarse_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* TICK_NSEC of the kernel. */
static inline int64_t coarse_resolution_ns(void)
{
    struct timespec resolution;
    clock_getres(CLOCK_MONOTONIC_COARSE, &resolution);
    return (int64_t)resolution.tv_sec * 1000000000 + resolution.tv_nsec;
}

/* ---- work (scheduling_work.c) ---- */

/* A chain of multiplications, each needing the one before, that no compiler can shorten. Returns its state. */
uint64_t work(uint64_t state, int64_t iterations);

struct calibration {
    int64_t iterations_count; /* of one batch */
    int64_t batch_ns;         /* the median batch */
};

/* Times the work loop here and now, on the CPU that the caller is pinned to. */
struct calibration work_calibrate(void);

/* How many iterations take about this long; at least 1 unless quantum_ns is 0. */
int64_t work_iterations(const struct calibration *calibration, int64_t quantum_ns);

/* `,"calibration_iterations_count":..,"calibration_ns":..` */
void emit_calibration(const struct calibration *calibration);

/* Adds 1 to a word in each cache line of a working set, one after the other. */
void work_touch(volatile uint64_t *set, int64_t bytes);

/* ---- memory ---- */

/* Anonymous, zeroed, every page present in this process. Small pages, so that all have the same. */
void *memory_private(size_t bytes);

/* The same, shared with the children; they fault the pages in again, one minor fault each. */
void *memory_shared(size_t bytes);

/* Prints `error` (ENOMEM) where the kernel says that this much is not available: better than an OOM kill. */
void memory_check(int64_t bytes);

/* ---- tasks (scheduling_tasks.c) ---- */

struct switches {
    int64_t voluntary_count;
    int64_t involuntary_count;
};

/* Of the calling thread, since it began. */
struct switches switches_now(void);
struct switches switches_between(struct switches before, struct switches after);
void switches_add(struct switches *sum, struct switches some);

struct tasks;
typedef void task_body(void *context, size_t index);

/* Room for `count` tasks; none is started. Task numbers are the caller's own. */
struct tasks *tasks_prepare(enum scheduling_kind kind, size_t count);

/* Starts one task, pinned to `cpu`. A process or thread too many is an `error`. */
void tasks_start(struct tasks *tasks, int cpu, task_body *body, void *context, size_t index);

/* A task says that its set-up is over. */
void tasks_say_ready(struct tasks *tasks);

/* Returns when all that were started have said so. */
void tasks_await_ready(struct tasks *tasks);

/* From now on tasks may end. Call it before telling them to. */
void tasks_let_end(void);

/* Waits for the end of all. */
void tasks_join(struct tasks *tasks);

/* FUTEX_WAIT while *word is `value` (once: it may return early), and FUTEX_WAKE. */
int futex_wait(_Atomic uint32_t *word, uint32_t value, bool is_shared);
void futex_wake(_Atomic uint32_t *word, int count, bool is_shared);

#endif
