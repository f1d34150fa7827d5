/*
 * scheduling_hog.c - an old task beside a fresh one: `scheduling --mode hog --hog-ms H --trials T
 * --share-ms S`.
 *
 * Question: is a task that has used much CPU put behind one that has used none, as in a multilevel feedback
 * queue? One process, the hog, spins for H ms, pinned to one CPU. Then, T times, a process is forked, pins
 * itself to the same CPU and spins beside it for S ms; afterwards it is killed, and the hog is alone until
 * the next.
 *
 * A trial's window starts in the fresh process, before it asks to be moved to the hog's CPU (the wait for
 * its first turn is in the window), and ends when the coordinator has slept until S ms later. At both ends
 * the clocks are read in this order, one directly after the other: CLOCK_MONOTONIC (window_ns), the fresh
 * process' CPU time (fresh_cpu_ns), the hog's (hog_cpu_ns). What they have is what the scheduler shares out
 * by, se.sum_exec_runtime; /proc/PID/schedstat shows it as well, but for a running task as it was at its
 * last tick or switch. The CPU-time clock brings it up to date.
 *
 * hog_burned_ns: the hog's CPU time when the first trial began. The coordinator keeps off that CPU where it
 * may run on another.
 *
 * Each finished trial is a `progress` line with its numbers, so that those that were finished are known when
 * it is stopped; after the last comes `hog`, which has none of them.
 *
 * Known bias: both are in one session and cgroup, so neither autogroup nor weights part them; others on
 * that CPU take from both.
 *
 * Clock: CLOCK_MONOTONIC and clock_getcpuclockid(3); unit ns. Sources: sched(7) (autogroup);
 * kernel/sched/core.c (task_sched_runtime).
 */
#include "scheduling.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

struct reading {
    int64_t at_ns;
    int64_t fresh_cpu_ns;
    int64_t hog_cpu_ns;
};

/* Shared. */
struct stage {
    _Atomic uint32_t is_running; /* the process that was started last is at its work */
    struct reading start;
};

/* What all trials have in common. */
struct trials {
    const struct scheduling_plan *plan;
    struct stage *stage;
    int cpu;
    clockid_t hog_clock;
    int64_t burned_ns;
};

static int64_t read_clock(clockid_t clock)
{
    struct timespec time;
    CHECK(clock_gettime(clock, &time));
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static struct reading read_all(clockid_t fresh, clockid_t hog)
{
    struct reading reading = {.at_ns = now_ns()};
    reading.fresh_cpu_ns = read_clock(fresh);
    reading.hog_cpu_ns = read_clock(hog);
    return reading;
}

static void sleep_until(int64_t at_ns)
{
    const struct timespec at = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static _Noreturn void spin(void)
{
    for (uint64_t state = 1;;) {
        state = work(state, 1000);
    }
}

static void say_running(struct stage *stage)
{
    atomic_store(&stage->is_running, 1);
    futex_wake(&stage->is_running, 1, true);
}

static void await_running(struct stage *stage)
{
    while (atomic_load(&stage->is_running) == 0) {
        futex_wait(&stage->is_running, 0, true);
    }
    atomic_store(&stage->is_running, 0);
}

static pid_t start_hog(struct stage *stage, int cpu)
{
    pid_t child = (pid_t)CHECK(fork());
    if (child == 0) {
        helper_die_with_parent();
        helper_pin_to_cpu(cpu);
        say_running(stage);
        spin();
    }
    return child;
}

static pid_t start_fresh(struct stage *stage, int cpu, clockid_t hog)
{
    pid_t child = (pid_t)CHECK(fork());
    if (child == 0) {
        helper_die_with_parent();
        stage->start = read_all(CLOCK_PROCESS_CPUTIME_ID, hog);
        say_running(stage);
        helper_pin_to_cpu(cpu);
        spin();
    }
    return child;
}

static void end_process(pid_t process)
{
    CHECK(kill(process, SIGKILL));
    while (waitpid(process, NULL, 0) == -1 && errno == EINTR) {
    }
}

static clockid_t cpu_clock_of(pid_t process)
{
    clockid_t clock = 0;
    CHECK_PTHREAD(clock_getcpuclockid(process, &clock));
    return clock;
}

static void report_trial(const struct trials *trials, int64_t index, struct reading start, struct reading end)
{
    emit_begin("{\"type\":\"progress\",\"done\":%" PRId64 ",\"total\":%" PRId64, index + 1,
               trials->plan->trials_count);
    emit_part(",\"hog_burned_ns\":%" PRId64 ",\"window_ns\":%" PRId64, trials->burned_ns, end.at_ns - start.at_ns);
    emit_part(",\"fresh_cpu_ns\":%" PRId64 ",\"hog_cpu_ns\":%" PRId64, end.fresh_cpu_ns - start.fresh_cpu_ns,
              end.hog_cpu_ns - start.hog_cpu_ns);
    emit_finish("}");
}

static void run_trial(const struct trials *trials, int64_t index)
{
    pid_t fresh = start_fresh(trials->stage, trials->cpu, trials->hog_clock);
    await_running(trials->stage);
    sleep_until(trials->stage->start.at_ns + trials->plan->share_ms * NS_PER_MS);
    struct reading end = read_all(cpu_clock_of(fresh), trials->hog_clock);
    end_process(fresh);
    report_trial(trials, index, trials->stage->start, end);
}

void hog_run(const struct scheduling_plan *plan)
{
    struct trials trials = {.plan = plan, .stage = memory_shared(sizeof(*trials.stage)), .cpu = -1};
    cpus_choose(plan->cpu, 1, &trials.cpu);
    cpus_leave(trials.cpu);
    pid_t hog = start_hog(trials.stage, trials.cpu);
    await_running(trials.stage);
    sleep_until(now_ns() + plan->hog_ms * NS_PER_MS);
    trials.hog_clock = cpu_clock_of(hog);
    trials.burned_ns = read_clock(trials.hog_clock);
    for (int64_t i = 0; i < plan->trials_count; i++) {
        run_trial(&trials, i);
    }
    end_process(hog);
    emit("{\"type\":\"hog\",\"hog_burned_ns\":%" PRId64 ",\"cpu\":%d}", trials.burned_ns, trials.cpu);
    helper_end(plan->trials_count, 0);
}
