/*
 * readiness.c - what does it cost to be told that something can be read, by select, poll, epoll or io_uring, with
 * this many sockets watched and this many of them active?
 *
 * Timed: whole passes of a workload (readiness_chain.c, readiness_short.c), each from before its first system call
 * until after its last, and the time to register all sockets once (setup_ns). Clock: CLOCK_MONOTONIC, ns.
 * Not timed: opening and closing the watched sockets, warm-up passes, getrusage, drawing lots. In the timed region
 * nothing is allocated or printed, and all arrays have been written to before. The first passes of a level warm
 * the kernel's memory; --warmup of them are thrown away.
 *
 * --watched N sockets are both ends of N/2 connected pairs (of an odd number, one end is not watched): distinct
 * sockets, non-blocking, registered in random order, visited in another random order. --active LIST: for each
 * count in it, in this order, one measurement on the same sockets. --writes W: tokens sent on in a pass of the
 * chain beyond the first ones, or connections in a pass of `short` (rounded up to whole rounds); by default 1000,
 * or one for each active socket if that is more. --pass-us T instead: whole rounds, as many as take about T; the
 * passes that find out how many are the warm-up.
 *
 * --budget-ms M: all levels together, from the first pass on; what is left is divided evenly among the levels that
 * are left. Passes are whole, and each level has at least one (and its warm-up), at most --passes.
 *
 * --pause: waits for a line `watch` on stdin after `opened`, and for `run` after `watching`, so that others can look
 * at the kernel's memory in between. End of file there: leaves at once, with `end`.
 *
 * A pass in which not every byte was read once, and where it was written to, is dropped and counted. An event that
 * never comes ends the helper with an error after ten to fifteen seconds.
 *
 * Known bias:
 *   - The cost of an event contains reading and writing its byte, which are the same for all mechanisms, except
 *     that those that carry the data do not call read.
 *   - A write wakes nobody but the mechanism: there is one thread, which never sleeps in a wait.
 *   - Reading a byte tells the peer that there is room again. It is watched too, as in a server, so what watches it
 *     is called, and finds that it is not interested.
 *
 * The parts: readiness_parts.h (what they share), readiness_mechanisms.c (the table of mechanisms),
 * readiness_mechanism_NAME.c (one each), readiness_epoll.c and readiness_uring.c (what some of them share),
 * readiness_sockets.c, readiness_tokens.c, readiness_chain.c, readiness_short.c, readiness_passes.c.
 *
 * Sources: select(2), poll(2), epoll(7), io_uring(7), socketpair(2), unix(7), sched_setaffinity(2).
 */
#include "readiness_parts.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>

enum {
    MECHANISMS_MAX = 32,
    LEVELS_MAX = 64,
    WATCHED_MAX = 10000000,
    WRITES_MAX = 100000000,
    PASSES_MAX = 100000,
};

struct plan {
    const struct mechanism *mechanism;
    int64_t watched_count;
    uint32_t levels[LEVELS_MAX]; /* active counts */
    size_t levels_count;
    uint32_t active_count; /* the largest of them */
    bool is_short;
    struct passes_plan passes;
    int64_t budget_ms, seed;
    int64_t is_any_cpu, cpu; /* cpu -1: none given */
    bool is_paused;
};

/* ---- the run ---- */

/* False at the end of file, or when another line came. */
static bool is_told_to(const char *word, const struct plan *plan)
{
    char line[64];
    if (!plan->is_paused) {
        return true;
    }
    if (fgets(line, sizeof line, stdin) == NULL) {
        return false;
    }
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, word) != 0) {
        usage("expected the command '%s', not '%s'", word, line);
    }
    return true;
}

/* The wall of select: so many descriptors have no room below FD_SETSIZE. */
static void stop_at_wall(const char *name, int64_t asked_count, int64_t largest_count)
{
    char reason[160];
    emit("{\"type\":\"wall\",\"wall\":\"FD_SETSIZE\",\"limit_count\":%d,\"largest_%s_count\":%" PRId64 "}",
         FD_SETSIZE, name, largest_count);
    snprintf(reason, sizeof reason,
             "select takes descriptors below FD_SETSIZE (%d) only: at most %" PRId64 " %s, not %" PRId64, FD_SETSIZE,
             largest_count, name, asked_count);
    unsupported(reason);
}

/* Of `count` descriptors opened now, those with the numbers 0, stride, 2 x stride ... are to be watched. */
static void check_room(const struct plan *plan, const char *name, int64_t count, int64_t stride)
{
    if (plan->mechanism->room == NULL) {
        return;
    }
    const int64_t largest_count = (plan->mechanism->room() + stride - 1) / stride;
    if (count > largest_count) {
        stop_at_wall(name, count, largest_count);
    }
}

static void watch_all(const struct plan *plan)
{
    uint32_t *order = touched_memory(sockets.watched_count * sizeof(order[0]));
    sockets_shuffle(order, sockets.watched_count);
    const int64_t start_ns = now_ns();
    for (uint32_t i = 0; i < sockets.watched_count; i++) {
        plan->mechanism->watch(order[i]);
    }
    if (plan->mechanism->flush != NULL) {
        plan->mechanism->flush();
    }
    const int64_t setup_ns = now_ns() - start_ns;
    free(order);
    emit_begin("{\"type\":\"watching\",\"setup_ns\":%" PRId64 ",\"watched_count\":%" PRIu32 ",\"mechanism\":\"%s\"",
               setup_ns, sockets.watched_count, plan->mechanism->name);
    emit_part(",\"flags\":");
    emit_string(plan->mechanism->flags != NULL ? plan->mechanism->flags() : NULL);
    emit_finish("}");
}

static void run_levels(const struct plan *plan)
{
    const int64_t end_ns = now_ns() + plan->budget_ms * 1000000;
    for (size_t i = 0; i < plan->levels_count; i++) {
        const int64_t start_ns = now_ns();
        const int64_t left_ns = end_ns > start_ns ? end_ns - start_ns : 0;
        if (plan->is_short) {
            check_room(plan, "active", plan->levels[i], 2);
        }
        passes_run(plan->levels[i], start_ns + left_ns / (int64_t)(plan->levels_count - i));
    }
}

static void run(const struct plan *plan)
{
    check_room(plan, "watched", plan->watched_count, 1);
    sockets_open();
    emit("{\"type\":\"opened\"}");
    if (is_told_to("watch", plan)) {
        watch_all(plan);
        if (is_told_to("run", plan)) {
            run_levels(plan);
        }
    }
    plan->mechanism->close();
    sockets_close();
    helper_end(passes_samples_count(), passes_dropped_count());
}

/* ---- the command line ---- */

static void read_levels(const char *list, struct plan *plan)
{
    for (const char *at = list;; at++) {
        char *end = NULL;
        errno = 0;
        const long long count = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : 0;
        if (count < 1 || count > plan->watched_count || errno != 0 || (*end != ',' && *end != '\0')) {
            usage("--active must be counts between 1 and --watched (%" PRId64 ") with commas between them, not '%s'",
                  plan->watched_count, list);
        }
        if (plan->levels_count == LEVELS_MAX) {
            usage("--active must have %d counts at most", LEVELS_MAX);
        }
        plan->levels[plan->levels_count++] = (uint32_t)count;
        plan->active_count = (uint32_t)count > plan->active_count ? (uint32_t)count : plan->active_count;
        at = end;
        if (*at == '\0') {
            return;
        }
    }
}

/* --pause has no value, all others have one. Returns how many arguments are left. */
static int take_pause(int argc, char **argv, struct plan *plan)
{
    int kept_count = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--pause") == 0) {
            plan->is_paused = true;
        } else {
            argv[kept_count++] = argv[i];
        }
    }
    return kept_count;
}

static void read_plan(int argc, char **argv, struct plan *plan)
{
    const char *names[MECHANISMS_MAX] = {NULL};
    static const char *const placements[] = {"one-cpu", "any-cpu", NULL};
    static const char *const workloads[] = {"chain", "short", NULL};
    int64_t mechanism = 0, workload = 0, pass_us = 0;
    const char *levels = NULL;
    struct passes_plan *passes = &plan->passes;
    const struct helper_option options[] = {
        {.name = "--mechanism", .number = &mechanism, .choices = names, .required = true},
        {.name = "--watched", .number = &plan->watched_count, .minimum = 1, .maximum = WATCHED_MAX, .required = true},
        {.name = "--active", .text = &levels, .required = true},
        {.name = "--workload", .number = &workload, .choices = workloads},
        {.name = "--writes", .number = &passes->writes_count, .minimum = 1, .maximum = WRITES_MAX},
        {.name = "--pass-us", .number = &pass_us, .minimum = 1, .maximum = 60 * 1000000},
        {.name = "--warmup", .number = &passes->warmup_count, .maximum = PASSES_MAX},
        {.name = "--passes", .number = &passes->passes_count, .minimum = 1, .maximum = PASSES_MAX},
        {.name = "--budget-ms", .number = &plan->budget_ms, .maximum = 3600 * 1000},
        {.name = "--seed", .number = &plan->seed, .maximum = INT64_MAX},
        {.name = "--placement", .number = &plan->is_any_cpu, .choices = placements},
        {.name = "--cpu", .number = &plan->cpu, .maximum = HELPER_CPUS_MAX - 1},
    };
    for (size_t i = 0; i < MECHANISMS_MAX - 1 && mechanisms[i] != NULL; i++) {
        names[i] = mechanisms[i]->name;
    }
    helper_parse("readiness", take_pause(argc, argv, plan), argv, options, ARRAY_COUNT(options));
    plan->mechanism = mechanisms[mechanism];
    plan->is_short = workload == 1;
    passes->pass_ns = pass_us * 1000;
    if (pass_us > 0 && passes->writes_count > 0) {
        usage("--pass-us does not go with --writes");
    }
    passes->workload = plan->is_short ? &workload_short : &workload_chain;
    read_levels(levels, plan);
    if (plan->cpu >= 0 && plan->is_any_cpu) {
        usage("--cpu needs --placement one-cpu");
    }
}

int main(int argc, char **argv)
{
    struct plan plan = {
        .passes = {.warmup_count = 1, .passes_count = 1000}, .budget_ms = 1000, .seed = 1, .cpu = -1};
    read_plan(argc, argv, &plan);
    helper_start("readiness");
    if (!plan.is_any_cpu) {
        helper_pin_to_cpu((int)plan.cpu);
    }
    sockets_plan((uint32_t)plan.watched_count, plan.active_count, plan.is_short ? plan.active_count : 0,
                 (uint64_t)plan.seed);
    tokens_prepare(plan.mechanism);
    passes_prepare(&plan.passes);
    plan.mechanism->open();
    run(&plan);
    return EXIT_SUCCESS;
}
