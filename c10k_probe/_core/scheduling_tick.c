/*
 * scheduling_tick.c - the tick: `scheduling --mode tick --duration-ms D [--cpu C]`.
 *
 * Question: how often is a running task interrupted for the kernel's clockwork? Two ways, beside the
 * kernel's configuration, while this process does nothing but read the clocks, pinned to one CPU, for D ms:
 *   coarse_resolution_ns    clock_getres(CLOCK_MONOTONIC_COARSE), the kernel's TICK_NSEC;
 *   coarse_steps_ns         by how much that clock was further each time it changed, the first 1,000 times
 *                           that the loop ran all the time since the change before: it moves only when a
 *                           tick on some CPU updates the time. A task that shares its CPU may be put off it
 *                           at each tick, and then every change that it sees is of several ticks at least:
 *                           those count in steps_count alone;
 *   timer_interrupts_count  local timer interrupts of this CPU in /proc/interrupts (LOC; arch_timer on
 *                           aarch64) from before the loop until after; null where there is no such line or
 *                           no such column.
 * duration_ns is the time between the two readings of /proc/interrupts, taken at the end of the first and
 * at the beginning of the second.
 *
 * Known bias: timers of programs (hrtimers) interrupt too and count in timer_interrupts_count: it is the
 * tick's rate or more. A virtual machine may not show them.
 *
 * Clock: CLOCK_MONOTONIC; unit ns. Sources: clock_getres(2), proc(5); kernel/time/timekeeping.c
 * (timekeeping_advance), kernel/time/tick-sched.c.
 */
#include "scheduling.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 1000 };

/* The place of "CPU<cpu>" among the columns of the first line; -1 without it. CPUs that are offline have
 * none. */
static int column_of(char *header, int cpu)
{
    char *rest = NULL;
    int column = 0;
    for (char *word = strtok_r(header, " \n", &rest); word != NULL; word = strtok_r(NULL, " \n", &rest)) {
        if (strncmp(word, "CPU", 3) == 0 && atoi(word + 3) == cpu) {
            return column;
        }
        column++;
    }
    return -1;
}

static int64_t number_in(const char *line, int column)
{
    const char *at = strchr(line, ':');
    int64_t value = -1;
    for (int i = 0; at != NULL && i <= column; i++) {
        char *end = NULL;
        at += i == 0;
        value = strtoll(at, &end, 10);
        at = end != at ? end : NULL;
    }
    return at == NULL ? -1 : value;
}

static bool is_local_timer(const char *line)
{
    return strncmp(line + strspn(line, " "), "LOC:", 4) == 0 || strstr(line, "arch_timer") != NULL;
}

/* -1 where it cannot be read. */
static int64_t read_timer_interrupts(int cpu)
{
    char *line = NULL;
    size_t capacity = 0;
    int64_t count = -1;
    FILE *file = fopen("/proc/interrupts", "re");
    if (file == NULL) {
        return -1;
    }
    int column = getline(&line, &capacity, file) > 0 ? column_of(line, cpu) : -1;
    while (column >= 0 && getline(&line, &capacity, file) > 0) {
        int64_t number = is_local_timer(line) ? number_in(line, column) : -1;
        if (number >= 0) {
            count = (count < 0 ? 0 : count) + number;
        }
    }
    free(line);
    fclose(file);
    return count;
}

struct steps {
    int64_t *ns; /* those during which the loop ran all the time, at most STEPS_MAX */
    size_t kept_count;
    size_t count; /* all of them */
};

/* A turn of the loop takes some 0.1 us; where one took a quarter of a tick, something else ran. The clock is
 * read between the two ends of its turn: a task put off before or after that reading is seen either way. */
static void watch(int64_t end_ns, struct steps *steps)
{
    int64_t gap_ns = coarse_resolution_ns() / 4;
    int64_t step_from_ns = coarse_now_ns();
    bool is_whole = false; /* the first is seen from its middle on */
    for (int64_t last_ns = now_ns(), turn_ns = last_ns; turn_ns < end_ns; last_ns = turn_ns) {
        int64_t coarse_ns = coarse_now_ns();
        turn_ns = now_ns();
        bool is_unbroken = turn_ns - last_ns < gap_ns;
        is_whole = is_whole && is_unbroken;
        if (coarse_ns != step_from_ns) {
            if (is_whole && steps->kept_count < STEPS_MAX) {
                steps->ns[steps->kept_count++] = coarse_ns - step_from_ns;
            }
            steps->count++;
            step_from_ns = coarse_ns;
            is_whole = is_unbroken; /* put off after the reading: the next change is of several ticks */
        }
    }
}

void tick_run(const struct scheduling_plan *plan)
{
    int cpu = -1;
    struct steps steps = {.ns = memory_private(STEPS_MAX * sizeof(int64_t))};
    cpus_choose(plan->cpu, 1, &cpu);
    helper_pin_to_cpu(cpu);
    int64_t before_count = read_timer_interrupts(cpu);
    int64_t start_ns = now_ns();
    watch(start_ns + plan->duration_ms * 1000000, &steps);
    int64_t duration_ns = now_ns() - start_ns;
    int64_t after_count = read_timer_interrupts(cpu);
    emit_begin("{\"type\":\"tick\",\"coarse_resolution_ns\":%" PRId64 ",\"timer_interrupts_count\":",
               coarse_resolution_ns());
    if (before_count < 0 || after_count < 0) {
        emit_part("null");
    } else {
        emit_part("%" PRId64, after_count - before_count);
    }
    emit_part(",\"duration_ns\":%" PRId64 ",\"steps_count\":%zu,\"cpu\":%d", duration_ns, steps.count, cpu);
    emit_int64_array(",\"coarse_steps_ns\":", steps.ns, steps.kept_count);
    emit_finish("}");
    helper_end((int64_t)steps.kept_count, 0);
}
