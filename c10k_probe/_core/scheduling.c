/*
 * scheduling.c - what is a switch, a tick, a time slice on this machine? One launch answers one question:
 *
 *     --mode ring     a token round a ring of tasks: the cost of a switch (scheduling_ring.c)
 *     --mode tick     how often a running task is interrupted by the clockwork (scheduling_tick.c)
 *     --mode contend  CPU-bound tasks on one CPU: runs, waits, shares (scheduling_contend.c)
 *     --mode yield    the cost of a switch among many runnable tasks (scheduling_yield.c)
 *     --mode hog      a fresh task beside one that has used much CPU (scheduling_hog.c)
 *
 * Each mode's file says what is timed and what is not. Clock: CLOCK_MONOTONIC. Unit: ns, int64. The tasks
 * are pinned to the last CPU that this process may use, or to --cpu. All are in one session, and in one
 * group of the kernel's autogroup with it: no task's share depends on where it was started.
 */
#include "scheduling.h"

#include <stdlib.h>

enum mode { MODE_RING, MODE_TICK, MODE_CONTEND, MODE_YIELD, MODE_HOG, MODES_COUNT };

/* Bits of the modes that an option belongs to. */
enum {
    IN_RING = 1 << MODE_RING,
    IN_TICK = 1 << MODE_TICK,
    IN_CONTEND = 1 << MODE_CONTEND,
    IN_YIELD = 1 << MODE_YIELD,
    IN_HOG = 1 << MODE_HOG,
    IN_ALL = (1 << MODES_COUNT) - 1,
};

enum { HOUR_MS = 3600 * 1000 };

static void (*const runs[])(const struct scheduling_plan *plan) = {
    ring_run, tick_run, contend_run, yield_run, hog_run,
};
static const char *const modes[] = {"ring", "tick", "contend", "yield", "hog", NULL};
static const char *const tokens[] = {"pipe", "futex", "eventfd", NULL};
static const char *const kinds[] = {"processes", "threads", NULL};
static const char *const placements[] = {"one-cpu", "two-cpus", NULL};
static const char *const policies[] = {"other", "batch", NULL};

struct known_option {
    struct helper_option option;
    int needed_in;
    int allowed_in;
    int64_t otherwise; /* what it is when not given and not needed */
};

/* An option that a mode does not know is refused: it would have no effect. */
static void check_option(const struct known_option *known, enum mode mode)
{
    int64_t *number = known->option.number;
    bool is_given = *number != -1;
    if (is_given && (known->allowed_in >> mode & 1) == 0) {
        usage("%s does not go with --mode %s", known->option.name, modes[mode]);
    }
    if (!is_given && (known->needed_in >> mode & 1) != 0) {
        usage("--mode %s needs %s", modes[mode], known->option.name);
    }
    if (!is_given) {
        *number = known->otherwise;
    }
}

static void read_plan(int argc, char **argv, struct scheduling_plan *plan)
{
    const struct known_option known[] = {
        {{.name = "--mode", .number = &plan->mode, .choices = modes, .required = true}, 0, IN_ALL, 0},
        {{.name = "--token", .number = &plan->token, .choices = tokens}, 0, IN_RING, 0},
        {{.name = "--kind", .number = &plan->kind, .choices = kinds}, 0, IN_RING | IN_YIELD, 0},
        {{.name = "--tasks", .number = &plan->tasks_count, .minimum = 1, .maximum = SCHEDULING_TASKS_MAX},
         IN_RING | IN_CONTEND | IN_YIELD, IN_RING | IN_CONTEND | IN_YIELD, 0},
        {{.name = "--working-set", .number = &plan->working_set_bytes, .maximum = 1 << 30}, 0, IN_RING, 0},
        {{.name = "--quantum-ns", .number = &plan->quantum_ns, .maximum = 1000000000}, 0, IN_RING, 0},
        {{.name = "--placement", .number = &plan->placement, .choices = placements}, 0, IN_RING, 0},
        {{.name = "--hops", .number = &plan->hops_count, .minimum = 2, .maximum = 1000000000}, 0, IN_RING, 10000},
        {{.name = "--budget-ms", .number = &plan->budget_ms, .maximum = HOUR_MS}, 0, IN_RING | IN_YIELD, 1000},
        {{.name = "--duration-ms", .number = &plan->duration_ms, .minimum = 1, .maximum = HOUR_MS},
         IN_TICK | IN_CONTEND, IN_TICK | IN_CONTEND, 0},
        {{.name = "--policy", .number = &plan->policy, .choices = policies}, 0, IN_CONTEND, 0},
        {{.name = "--gap-us", .number = &plan->gap_us, .minimum = 2, .maximum = 1000000}, 0, IN_CONTEND, 50},
        {{.name = "--hog-ms", .number = &plan->hog_ms, .maximum = HOUR_MS}, IN_HOG, IN_HOG, 0},
        {{.name = "--trials", .number = &plan->trials_count, .minimum = 1, .maximum = 100000}, IN_HOG, IN_HOG, 0},
        {{.name = "--share-ms", .number = &plan->share_ms, .minimum = 1, .maximum = HOUR_MS}, IN_HOG, IN_HOG, 0},
        {{.name = "--cpu", .number = &plan->cpu, .maximum = HELPER_CPUS_MAX - 1}, 0, IN_ALL, -1},
    };
    struct helper_option options[ARRAY_COUNT(known)];
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        *known[i].option.number = -1;
        options[i] = known[i].option;
    }
    helper_parse("scheduling", argc, argv, options, ARRAY_COUNT(options));
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        check_option(&known[i], (enum mode)plan->mode);
    }
    if (plan->mode == MODE_RING && plan->tasks_count < 2) {
        usage("--mode ring needs at least 2 --tasks");
    }
}

int main(int argc, char **argv)
{
    struct scheduling_plan plan = {.started_ns = now_ns()};
    read_plan(argc, argv, &plan);
    helper_start("scheduling");
    runs[plan.mode](&plan);
    return EXIT_SUCCESS;
}
