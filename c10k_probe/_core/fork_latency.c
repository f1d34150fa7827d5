/*
 * fork_latency.c - what does it cost to create one more task, in each of the ways Linux offers, and what does
 * the state of the parent change about it?
 *
 *     fork_latency --method METHOD --samples N [--warmup W] [--aftershock N] [--stack-probe N] [--budget-ms M]
 *                  [--placement any-cpu|one-cpu] [--cpu K] [--spawn-target PATH] [STATE]
 *     fork_latency --method METHOD --stall RATE [--warmup W] [--duration-ms D] [--tick-us T] [the rest of it]
 *     STATE: --rss BYTES [--huge-pages off|on] --file-rss BYTES --mappings N --descriptors N --libraries K
 *            --alive N [--alive-kind children|threads] [--alive-stack BYTES]
 *
 * One launch is one process and one method. Clock: CLOCK_MONOTONIC. Unit: ns, int64. Each sample starts at
 * t0, a reading of the clock directly before the creating call, and gives up to four intervals that are never
 * mixed; one that a method does not have is null:
 *   return   t0 until the first reading in the parent after the call came back;
 *   started  t0 until the first instruction of ours in the child: a reading of the clock, which the child
 *            writes to a page that is shared (MAP_SHARED);
 *   exec     t0 until the first statement of main of the executed program: exec, loading and the start of the
 *            C library are in it;
 *   cycle    t0 until the first reading in the parent after wait4 or pthread_join came back. It includes the
 *            reading that ended `return`.
 * child_faults_count: minor faults of a child process from its creation to its end (wait4), exec included.
 *
 * METHOD; the methods differ in what the child is and where its first instruction lies:
 *   fork            glibc's fork(): a copy of this process; copies page tables, shares pages copy-on-write.
 *   vfork           the child borrows this address space, the parent sleeps until it has left: `return`
 *                   contains the child's whole life and is larger than `started`.
 *   clone3          the raw system call with CLONE_VM | CLONE_VFORK, exit signal SIGCHLD and a stack of its
 *                   own, faulted in beforehand: vfork without glibc's wrapper.
 *   posix_spawn, posix_spawn_static, posix_spawn_dynamic
 *                   glibc's posix_spawn() of `spawn_target`, linked like this program, static or dynamic,
 *                   with an empty environment. Nothing of ours runs before exec: no `started`. `return` ends
 *                   when exec has succeeded and may lie before or after `exec`. glibc maps and unmaps a stack
 *                   for the child and blocks signals: included.
 *   fork_exec_static, fork_exec_dynamic
 *                   fork(), and execve() of the same program in the child, which stamps `started` before.
 *   pthread_create, pthread_create_64k
 *                   default attributes, or a stack of 64 KiB. glibc keeps the stacks of joined threads and
 *                   hands them out again: all but the first creation reuse a stack, so mapping it and its
 *                   first faults are in the first sample only, or in none if there are warm-ups.
 *   pthread_create_detached
 *                   as pthread_create, but nobody joins it: no `cycle`. It is gone before the next sample.
 *
 * --aftershock N: a second pass, for what a creation leaves behind. The parent writes to all pages of 1 MiB
 * (anonymous, no huge pages), creates, and writes to each of them again at once: aftershock_ns from before
 * the first of these writes until after the last, and parent_faults_count, the creating thread's minor faults
 * from before the call until after the writes. The child is alive meanwhile: it sleeps after its stamp
 * (before execve with fork_exec_*) until the parent is done. Children of vfork, clone3 and posix_spawn* cannot
 * wait there; theirs are over or have executed, as they are in use.
 *
 * STATE of the parent, made and verified in /proc before the first sample (creation_state.c, creation_alive.c;
 * bytes are rounded up to pages). With fork and fork_exec_* the --rss pages are written before each creation,
 * outside the timed region, so that none is shared with an earlier child; with the others none ever is.
 *   --rss           anonymous memory, all pages written; MADV_NOHUGEPAGE, or with --huge-pages on aligned and
 *                   MADV_HUGEPAGE.
 *   --file-rss      a private mapping of an unlinked file in TMPDIR or /var/tmp, all pages read.
 *   --mappings      more mappings, without pages. --descriptors: more open files (/dev/null), inherited.
 *   --libraries     shared libraries loaded by dlopen; dynamic builds only.
 *   --alive         children or threads that are blocked in read. The children are forked while this process is
 *                   still small. Two descriptors belong to them.
 *
 * --stack-probe N: afterwards, untimed, what the stacks of N more threads add (creation_stacks.c).
 *
 * --budget-ms M: no more samples once so long has passed since the state was made, but at least three of each
 * pass. Warm-ups have a third of it and are one at least; where nothing is copied none is ever cut. Of what is
 * left after them, each pass has its share by its number of samples. warmups_count says how many were made.
 *
 * The facts are read when the state is made and nothing is mapped yet for the samples, `main_...` of them
 * before anything else is done: they do not depend on the number of samples.
 *
 * --stall: see creation_stall.c. Ticks write to the --rss region, which has 16 pages at least then.
 *
 * Not timed: warm-ups (--warmup, dropped by declaration), clearing the stamp, writing the --rss pages, storing
 * the sample, the facts. In the timed region nothing is allocated or printed. The samples lie in pages faulted
 * in beforehand and marked MADV_DONTFORK, so that their number does not change the price of fork.
 *
 * A sample whose stamp is missing or lies outside t0..gone is dropped and counted in `dropped_count`.
 *
 * Known bias:
 *   - Each interval contains about one clock reading (`clock_cost_ns` in hello).
 *   - Copy-on-write faults are part of the subject: the child's on its stack before its reading, the parent's
 *     on its stack after fork (in `return` and `cycle`), and in the child of fork the fault on the shared
 *     page, whose entries fork does not copy (in `cycle`).
 *   - With any-cpu the child may start on another CPU while the parent goes on; with one-cpu it has to wait
 *     until the parent sleeps, so `started` of fork and pthread_create mostly contains the parent's return
 *     and its wait.
 *   - Writing a large --rss before each fork leaves its lines, not the kernel's, in the caches.
 *   - Measured children are not given PR_SET_PDEATHSIG unless they wait: it would be timed, and they leave at
 *     once by themselves.
 *
 * Sources: fork(2), vfork(2), posix_spawn(3), execve(2), clone(2) (clone3), pthread_create(3), madvise(2)
 * (MADV_DONTFORK), sched_setaffinity(2); kernel/fork.c (copy_process, vma_needs_copy in mm/memory.c); glibc
 * nptl/allocatestack.c (stack cache).
 */
#include "creation.h"
#include "creation_samples.h"
#include "creation_stacks.h"
#include "creation_stall.h"
#include "creation_state.h"
#include "helper.h"
#include "process_facts.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 1000000,
    METHODS_MAX = 32,
    ALIVE_MAX = 1000000,
    COUNT_MAX = 10000000,
    STACK_PROBE_MAX = 1000,
    WARM_UP_PART = 3, /* of the budget: its third at most */
};
static const int64_t BYTES_MAX = INT64_C(1) << 46;

struct plan {
    const struct method *method;
    int64_t samples_count;
    int64_t warmup_count;
    int64_t aftershock_count;
    int64_t stack_probe_count;
    int64_t budget_ms; /* 0: none */
    int64_t ready_ns; /* when the state was made */
    int64_t is_one_cpu;
    int64_t cpu; /* -1: none given */
    struct state state;
    bool is_stall;
    struct stall_plan stall;
    struct process_facts at_main; /* before anything was done */
};

/* ---- the facts ---- */

static void emit_fact(const char *name, int64_t value)
{
    if (value < 0) {
        emit_part(",\"%s\":null", name);
    } else {
        emit_part(",\"%s\":%" PRId64, name, value);
    }
}

static void emit_stack_facts(const struct stack_facts *stacks)
{
    emit_fact("stack_bytes", stacks->stack_bytes);
    emit_fact("probed_threads_count", stacks->threads_count);
    emit_fact("probe_creations_count", stacks->creations_count);
    emit_fact("kept_mapped_bytes", stacks->kept_mapped_bytes);
    emit_fact("kept_mappings_count", stacks->kept_mappings_count);
    emit_fact("kept_anonymous_bytes", stacks->kept_anonymous_bytes);
    emit_fact("joined_mapped_bytes", stacks->joined_mapped_bytes);
}

static void emit_facts(const struct process_facts *facts, const struct plan *plan,
                       const struct stack_facts *stacks)
{
    const struct state *state = &plan->state;
    bool are_threads = state->alive_kind == ALIVE_THREADS;
    int64_t alive_count = are_threads ? facts->threads_count : facts->children_count;
    emit_begin("{\"type\":\"facts\"");
    emit_fact("main_mappings_count", plan->at_main.mappings_count);
    emit_fact("main_anonymous_bytes", plan->at_main.anonymous_bytes);
    emit_fact("main_page_table_bytes", plan->at_main.page_table_bytes);
    emit_fact("rss_bytes", facts->rss_bytes);
    emit_fact("anonymous_bytes", facts->anonymous_bytes);
    emit_fact("private_dirty_bytes", facts->private_dirty_bytes);
    emit_fact("anon_huge_bytes", facts->anon_huge_bytes);
    emit_fact("file_rss_bytes", facts->file_rss_bytes);
    emit_fact("page_table_bytes", facts->page_table_bytes);
    emit_fact("mappings_count", facts->mappings_count);
    emit_fact("libraries_count", facts->libraries_count);
    emit_fact("descriptors_count", facts->descriptors_count);
    emit_fact("alive_count", state->alive_count == 0 ? 0 : alive_count);
    emit_part(",\"alive_kind\":");
    emit_string(state->alive_count == 0 ? NULL : are_threads ? "threads" : "children");
    emit_fact("cpu", plan->cpu);
    emit_stack_facts(stacks);
    emit_finish("}");
}

/* ---- the two ways to measure ---- */

/* When `part` of `whole` samples should be over: that share of what is left of the budget; 0 without one. */
static int64_t deadline(const struct plan *plan, int64_t part, int64_t whole)
{
    int64_t now = now_ns();
    int64_t end_ns = plan->ready_ns + plan->budget_ms * 1000000;
    if (plan->budget_ms == 0) {
        return 0;
    }
    return end_ns <= now ? now : now + (int64_t)((double)(end_ns - now) * (double)part / (double)whole);
}

/* After a creation that failed, what was taken until then is reported before the error. The facts are read
 * before anything is mapped for the samples: they are of the parent, whatever the number of its samples. */
static void run_samples(struct plan *plan)
{
    const struct method *method = plan->method;
    struct process_facts facts = read_process_facts();
    struct slot *slot = creation_map_slots(1);
    struct samples samples = allocate_samples((size_t)plan->samples_count);
    struct shocks shocks = {.aftershock_ns = NULL};
    struct stack_facts stacks = NO_STACK_FACTS;
    int64_t warm_up_end_ns = method->copies_memory ? deadline(plan, 1, WARM_UP_PART) : 0;
    int error_number = warm_up(method, slot, &samples, (size_t)plan->warmup_count, warm_up_end_ns);
    if (error_number == 0) {
        int64_t deadline_ns = deadline(plan, plan->samples_count, plan->samples_count + plan->aftershock_count);
        error_number = take_samples(method, slot, &samples, deadline_ns);
    }
    if (error_number == 0 && plan->aftershock_count > 0) {
        error_number = take_shocks(method, slot, &shocks, (size_t)plan->aftershock_count, deadline(plan, 1, 1));
    }
    if (error_number == 0 && plan->stack_probe_count > 0) {
        error_number = probe_stacks(method, (size_t)plan->stack_probe_count, &stacks);
    }
    if (error_number != ENOSYS) {
        emit_facts(&facts, plan, &stacks);
        emit_samples(method, &samples, &shocks);
    }
    if (error_number != 0) {
        creation_fail(method, error_number);
    }
    state_tear_down();
    helper_end((int64_t)samples.count, samples.dropped_count);
}

static void run_stall(struct plan *plan)
{
    const struct method *method = plan->method;
    struct process_facts facts = read_process_facts();
    struct stack_facts stacks = NO_STACK_FACTS;
    struct stall *stall = stall_prepare(&plan->stall);
    int error_number = stall_run(stall, method);
    if (error_number != ENOSYS) {
        emit_facts(&facts, plan, &stacks);
        stall_emit(stall, method);
    }
    if (error_number != 0) {
        creation_fail(method, error_number);
    }
    state_tear_down();
    helper_end(stall_samples_count(stall), stall_dropped_count(stall));
}

/* ---- the command line ---- */

static void refuse_state(const struct state *state)
{
    if (state->libraries_count > 0 && linking_load_library == NULL) {
        usage("--libraries needs the dynamic build: a %s program loads no shared libraries", helper_linking);
    }
    if (state->huge_pages && state->rss_bytes < STATE_HUGE_PAGE_BYTES) {
        usage("--huge-pages on needs --rss of at least %d", STATE_HUGE_PAGE_BYTES);
    }
    if (state->alive_stack_bytes > 0 && state->alive_kind != ALIVE_THREADS) {
        usage("--alive-stack needs --alive-kind threads");
    }
    if (state->alive_stack_bytes > 0 && state->alive_stack_bytes < sysconf(_SC_THREAD_STACK_MIN)) {
        usage("--alive-stack must be at least %ld on this machine", sysconf(_SC_THREAD_STACK_MIN));
    }
}

static void refuse_mix(const struct plan *plan)
{
    if (plan->cpu >= 0 && !plan->is_one_cpu) {
        usage("--cpu needs --placement one-cpu");
    }
    bool has_passes = plan->samples_count > 0 || plan->aftershock_count > 0 || plan->stack_probe_count > 0;
    if (plan->is_stall && has_passes) {
        usage("--stall does not go with --samples, --aftershock or --stack-probe");
    }
    if (plan->stack_probe_count > 0 && plan->method->ending->has_child_faults) {
        usage("--stack-probe needs a method that creates threads");
    }
    if (!plan->is_stall && plan->samples_count == 0) {
        usage("--samples is missing");
    }
    if (plan->is_stall && stall_ticks_count(&plan->stall) > STALL_TICKS_MAX) {
        usage("--duration-ms over --tick-us must give %d ticks at most", STALL_TICKS_MAX);
    }
    if (plan->is_stall && stall_spawns_count(&plan->stall) > STALL_SPAWNS_MAX) {
        usage("--stall times --duration-ms must give %d creations at most", STALL_SPAWNS_MAX);
    }
    refuse_state(&plan->state);
}

static void read_plan(int argc, char **argv, struct plan *plan)
{
    const char *methods[METHODS_MAX] = {NULL};
    static const char *const placements[] = {"any-cpu", "one-cpu", NULL};
    static const char *const switches[] = {"off", "on", NULL};
    static const char *const kinds[] = {"children", "threads", NULL};
    struct state *state = &plan->state;
    int64_t method = 0;
    const char *target = "";
    plan->stall = (struct stall_plan){.rate_per_s = -1, .duration_ms = 1000, .tick_us = 100};
    const struct helper_option options[] = {
        {.name = "--method", .number = &method, .choices = methods, .required = true},
        {.name = "--samples", .number = &plan->samples_count, .minimum = 1, .maximum = SAMPLES_MAX},
        {.name = "--warmup", .number = &plan->warmup_count, .maximum = SAMPLES_MAX},
        {.name = "--aftershock", .number = &plan->aftershock_count, .maximum = SAMPLES_MAX},
        {.name = "--stack-probe", .number = &plan->stack_probe_count, .maximum = STACK_PROBE_MAX},
        {.name = "--budget-ms", .number = &plan->budget_ms, .maximum = 3600 * 1000},
        {.name = "--placement", .number = &plan->is_one_cpu, .choices = placements},
        {.name = "--cpu", .number = &plan->cpu, .maximum = HELPER_CPUS_MAX - 1},
        {.name = "--spawn-target", .text = &target},
        {.name = "--rss", .number = &state->rss_bytes, .maximum = BYTES_MAX},
        {.name = "--huge-pages", .number = &state->huge_pages, .choices = switches},
        {.name = "--file-rss", .number = &state->file_rss_bytes, .maximum = BYTES_MAX},
        {.name = "--mappings", .number = &state->mappings_count, .maximum = COUNT_MAX},
        {.name = "--descriptors", .number = &state->descriptors_count, .maximum = COUNT_MAX},
        {.name = "--libraries", .number = &state->libraries_count, .maximum = LIBRARIES_MAX},
        {.name = "--alive", .number = &state->alive_count, .maximum = ALIVE_MAX},
        {.name = "--alive-kind", .number = &state->alive_kind, .choices = kinds},
        {.name = "--alive-stack", .number = &state->alive_stack_bytes, .maximum = INT64_C(1) << 30},
        {.name = "--stall", .number = &plan->stall.rate_per_s, .maximum = 100000},
        {.name = "--duration-ms", .number = &plan->stall.duration_ms, .minimum = 1, .maximum = 600 * 1000},
        {.name = "--tick-us", .number = &plan->stall.tick_us, .minimum = 10, .maximum = 1000000},
    };
    for (size_t i = 0; i < creation_methods_count && i < METHODS_MAX - 1; i++) {
        methods[i] = creation_methods[i].name;
    }
    helper_parse("fork_latency", argc, argv, options, ARRAY_COUNT(options));
    plan->method = &creation_methods[method];
    plan->is_stall = plan->stall.rate_per_s >= 0;
    plan->stall.warmup_count = (size_t)plan->warmup_count;
    creation_set_target(target);
    refuse_mix(plan);
}

int main(int argc, char **argv)
{
    struct plan plan = {.at_main = read_memory_facts(), .cpu = -1};
    read_plan(argc, argv, &plan);
    if (plan.is_stall && plan.state.rss_bytes < STALL_TICK_PAGES * sysconf(_SC_PAGESIZE)) {
        plan.state.rss_bytes = STALL_TICK_PAGES * sysconf(_SC_PAGESIZE);
    }
    helper_start("fork_latency");
    if (plan.is_one_cpu) {
        plan.cpu = helper_pin_to_cpu((int)plan.cpu);
    }
    plan.method->prepare();
    state_set_up(&plan.state);
    plan.ready_ns = now_ns();
    if (plan.is_stall) {
        run_stall(&plan);
    } else {
        run_samples(&plan);
    }
    return EXIT_SUCCESS;
}
