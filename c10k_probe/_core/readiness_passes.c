/*
 * readiness_passes.c - runs the passes of one active level, throws away those that are not whole, and prints the
 * rest. The contract is in readiness_parts.h.
 *
 * CPU time and switches are read before and after each pass, outside of what is timed. The CPU time is that of
 * CLOCK_THREAD_CPUTIME_ID. How much of it was spent in user mode the kernel guesses from where its ticks fell, so
 * it is a rough share (getrusage, RUSAGE_THREAD): of the level's passes, or, where no tick fell into them, of the
 * thread's life.
 * Sources: getrusage(2), clock_gettime(2); kernel/sched/cputime.c (cputime_adjust).
 */
#include "readiness_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

enum { PASSES_LEAST = 1, THROWN_AWAY_MOST = 3, ROUNDS_MOST = 1 << 20 };

int64_t workload_events_count, workload_rounds_count;

static struct passes_plan plan;
static int64_t *pass_ns, *register_ns;
static int64_t samples_count, dropped_count;

struct usage_sum {
    int64_t cpu_ns;             /* exact */
    int64_t user_ns, system_ns; /* by ticks */
    int64_t voluntary_count, involuntary_count;
};

void passes_prepare(const struct passes_plan *new_plan)
{
    plan = *new_plan;
    pass_ns = touched_memory((size_t)plan.passes_count * sizeof(pass_ns[0]));
    register_ns = touched_memory((size_t)plan.passes_count * sizeof(register_ns[0]));
}

int64_t passes_samples_count(void)
{
    return samples_count;
}

int64_t passes_dropped_count(void)
{
    return dropped_count;
}

/* ---- one pass ---- */

static int64_t nanoseconds(const struct timeval *time)
{
    return (int64_t)time->tv_sec * 1000000000 + (int64_t)time->tv_usec * 1000;
}

static void add_usage(struct usage_sum *sum, int sign)
{
    struct rusage usage_now;
    struct timespec cpu_now;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_now));
    sum->cpu_ns += sign * ((int64_t)cpu_now.tv_sec * 1000000000 + cpu_now.tv_nsec);
    CHECK(getrusage(RUSAGE_THREAD, &usage_now));
    sum->user_ns += sign * nanoseconds(&usage_now.ru_utime);
    sum->system_ns += sign * nanoseconds(&usage_now.ru_stime);
    sum->voluntary_count += sign * usage_now.ru_nvcsw;
    sum->involuntary_count += sign * usage_now.ru_nivcsw;
}

/* Every byte of the pass was read, once, and where it was written to. */
static bool is_whole(const struct counts *before)
{
    return counts.arrived_count - before->arrived_count == workload_events_count &&
           counts.arrived_sum - before->arrived_sum == counts.written_sum - before->written_sum;
}

/* Runs one pass and stores it at `index`. False, and as if it had not been, when the pass was not whole. */
static bool measure(int64_t index, struct usage_sum *usage_sum)
{
    const struct counts counts_before = counts;
    const struct usage_sum usage_before = *usage_sum;
    plan.workload->before();
    add_usage(usage_sum, -1);
    pass_ns[index] = plan.workload->pass(&register_ns[index]);
    add_usage(usage_sum, 1);
    if (is_whole(&counts_before)) {
        return true;
    }
    counts = counts_before;
    *usage_sum = usage_before;
    dropped_count++;
    return false;
}

/* ---- one level ---- */

static void emit_calls(void)
{
#define CALL_NAME(name) #name,
    static const char *const names[] = {READINESS_CALLS(CALL_NAME)};
    const char *separator = "";
    emit_part(",\"calls_count\":{");
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (counts.calls[i] > 0) {
            emit_part("%s\"%s\":%" PRId64, separator, names[i], counts.calls[i]);
            separator = ",";
        }
    }
    emit_part("}");
}

static void emit_usage(const struct usage_sum *sum)
{
    struct usage_sum life = {0};
    add_usage(&life, 1);
    const struct usage_sum *known = sum->user_ns + sum->system_ns > 0 ? sum : &life;
    const int64_t by_ticks_ns = known->user_ns + known->system_ns;
    const double user_share = by_ticks_ns > 0 ? (double)known->user_ns / (double)by_ticks_ns : 0;
    const int64_t user_ns = (int64_t)((double)sum->cpu_ns * user_share);
    emit_part(",\"cpu_user_ns\":%" PRId64 ",\"cpu_system_ns\":%" PRId64, user_ns, sum->cpu_ns - user_ns);
    emit_part(",\"voluntary_switches_count\":%" PRId64 ",\"involuntary_switches_count\":%" PRId64,
              sum->voluntary_count, sum->involuntary_count);
}

static void emit_passes(uint32_t active_count, int64_t count, const struct usage_sum *sum)
{
    emit_begin("{\"type\":\"passes\",\"active_count\":%" PRIu32 ",\"events_per_pass_count\":%" PRId64
               ",\"rounds_per_pass_count\":%" PRId64,
               active_count, workload_events_count, workload_rounds_count);
    emit_int64_array(",\"pass_ns\":", pass_ns, (size_t)count);
    if (plan.workload->has_register_ns) {
        emit_int64_array(",\"register_ns\":", register_ns, (size_t)count);
    } else {
        emit_part(",\"register_ns\":null");
    }
    emit_part(",\"waits_count\":%" PRId64 ",\"spurious_count\":%" PRId64, counts.waits_count,
              counts.spurious_count);
    emit_calls();
    emit_usage(sum);
    emit_finish("}");
}

static void prepare_rounds(uint32_t active_count, int64_t rounds_count)
{
    const int64_t further_count = rounds_count - plan.workload->first_rounds_count;
    plan.workload->prepare(active_count, further_count > 0 ? further_count * active_count : -1);
}

/* Whole rounds, as many as take about the time that a pass is to take, so that a pass of each mechanism is as long and
 * no round is of fewer than `active`. The passes that find it out are the warm-up. */
static void fit_rounds(uint32_t active_count, struct usage_sum *usage_sum)
{
    int64_t rounds_count = 1;
    prepare_rounds(active_count, rounds_count);
    while (measure(0, usage_sum) && pass_ns[0] * 4 < plan.pass_ns && rounds_count < ROUNDS_MOST) {
        rounds_count *= 2;
        prepare_rounds(active_count, rounds_count);
    }
    rounds_count = rounds_count * plan.pass_ns / (pass_ns[0] > 0 ? pass_ns[0] : 1);
    prepare_rounds(active_count, rounds_count < 1 ? 1 : rounds_count > ROUNDS_MOST ? ROUNDS_MOST : rounds_count);
}

void passes_run(uint32_t active_count, int64_t deadline_ns)
{
    struct usage_sum usage_sum = {0};
    int64_t count = 0, thrown_away_count = 0;
    tokens_guard(true);
    if (plan.pass_ns > 0) {
        fit_rounds(active_count, &usage_sum);
    } else {
        plan.workload->prepare(active_count, plan.writes_count);
        for (int64_t i = 0; i < plan.warmup_count; i++) {
            measure(0, &usage_sum);
        }
    }
    counts = (struct counts){.calls = {0}};
    usage_sum = (struct usage_sum){0};
    while (count < plan.passes_count && thrown_away_count < THROWN_AWAY_MOST &&
           (count < PASSES_LEAST || now_ns() < deadline_ns)) {
        const bool is_stored = measure(count, &usage_sum);
        count += is_stored;
        thrown_away_count += !is_stored;
    }
    tokens_guard(false);
    samples_count += count;
    emit_passes(active_count, count, &usage_sum);
}
