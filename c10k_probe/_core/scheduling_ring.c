/*
 * scheduling_ring.c - the switch: `scheduling --mode ring`.
 *
 *     --token pipe|futex|eventfd --kind processes|threads --tasks 2..4096 --working-set BYTES
 *     --quantum-ns Q --placement one-cpu|two-cpus --hops H --budget-ms B [--cpu C]
 *
 * Question: what does it cost that one task sleeps and another runs? A token travels round a ring. A task
 * that gets it adds 1 to a word in each cache line of its own working set, does the work of the quantum,
 * and wakes the next one with the token; then it waits again. One task at a time has work: on one CPU each
 * hop is a switch, and two tasks are a ping-pong, whose round trip is two hops and two switches.
 *
 * Timed, by the first task, which is this process: a pass of H hops, rounded up to whole laps
 * (hops_per_pass_count), from before it gives the token away until it has done its own work of the last
 * lap.
 *   pass_ns                     the ring;
 *   harness_pass_ns             the same without switching: one task gives to a place of its own and takes
 *                               from it at once, as often, with the same work, on as many working sets, one
 *                               after the other: the caches hold as much in both, and the difference is the
 *                               switch;
 *   harness_single_set_pass_ns  the same on one working set only: the difference between the two harnesses
 *                               is the refilling of the caches. null when the working set is 0.
 * One of each in turn, at least 3 of each, until the budget (which counts from the launch) is used up. Each
 * is preceded by one lap that is not timed, as the one before has emptied the caches; and the first by a
 * whole pass of each, dropped.
 *
 * Switches (getrusage of every task, itself) are those of counted_hops_count hops: all from the first timed
 * pass to the last, the laps between them included. Each task reads its own counts in one lap before and
 * one after; the first task leaves out what happened to it in the harness. A task blocks at most once a
 * hop, so voluntary <= hops but for rare waits elsewhere (a pipe's mutex); on one CPU each hop takes at
 * least one switch away from the task that gave, so voluntary + involuntary >= hops. Where the task that
 * was woken runs at once, the switch of the one that woke it is involuntary, and with more than two tasks it
 * may have to come back only to block: then a hop is more than one switch (divide by the switches, not by the
 * hops, where one switch is the question). hops_count is all hops since the tasks began.
 *
 * work_iterations_per_hop_count is counted by the tasks: iterations done in the counted hops over these
 * hops.
 *
 * two-cpus: tasks alternate between two CPUs; the harness is on the CPU of the first task. A task may then
 * still be on its way to sleep when the token comes back, and a CPU without work may be idle: waking it is
 * in the hop.
 *
 * Known bias: a pass contains one clock reading. The harness does not wake anybody, and does not enter the
 * scheduler: both are counted as the switch. Working sets are walked in order, on small pages, those of the
 * harness in one mapping. A hop costs the same look at the command (one shared line) in all three.
 *
 * Clock: CLOCK_MONOTONIC; unit ns. Sources: getrusage(2); kernel/sched/core.c (__schedule: nvcsw, nivcsw);
 * L. McVoy and C. Staelin, "lmbench" (1996), lat_ctx; C. Li, C. Ding and K. Shen, "Quantifying the cost of
 * context switch" (2007).
 */
#include "scheduling.h"
#include "scheduling_token.h"

#include <inttypes.h>

enum { PASSES_LEAST = 3, PASSES_MAX = 1000 };

enum command { COMMAND_RUN, COMMAND_COUNT_BEFORE, COMMAND_COUNT_AFTER, COMMAND_STOP };

/* One a task, on lines of its own; written in the counting laps. */
struct slot {
    _Alignas(LINE_BYTES) struct switches before;
    struct switches after;
    int64_t iterations_before;
    int64_t iterations_after;
};

struct word_line {
    _Alignas(LINE_BYTES) _Atomic uint32_t word;
};

struct member {
    struct place own;
    struct place next;
    volatile uint64_t *set;
    uint64_t state;
    int64_t iterations_done;
};

struct passes {
    int64_t *ring_ns;
    int64_t *harness_ns;
    int64_t *single_ns;
    size_t count;
};

struct ring {
    const struct scheduling_plan *plan;
    int cpus[2];
    size_t cpus_count;
    struct calibration calibration;
    int64_t quantum_iterations;
    int64_t laps_count;          /* of a pass */
    _Atomic uint32_t *command;   /* shared, as are the next two */
    struct word_line *words;
    struct slot *slots;
    struct tasks *tasks;
    struct member *members;      /* one a task; of the other processes only their own copy is in use */
    struct member harness;       /* its set is all working sets, one after the other */
    struct place solo;
    struct passes passes;
    int64_t laps_done;
    int64_t counted_laps;
    struct switches first_task;
};

/* ---- a hop ---- */

static void do_share(const struct ring *ring, struct member *member, volatile uint64_t *set)
{
    work_touch(set, ring->plan->working_set_bytes);
    member->state = work(member->state, ring->quantum_iterations);
    member->iterations_done += ring->quantum_iterations;
}

static void count(struct slot *slot, const struct member *member, enum command command)
{
    if (command == COMMAND_COUNT_BEFORE) {
        slot->before = switches_now();
        slot->iterations_before = member->iterations_done;
    } else {
        slot->after = switches_now();
        slot->iterations_after = member->iterations_done;
    }
}

static void set_up_member(const struct ring *ring, struct member *member)
{
    if (ring->plan->working_set_bytes > 0) {
        member->set = memory_private((size_t)ring->plan->working_set_bytes);
    }
}

static void follow(void *context, size_t index)
{
    struct ring *ring = context;
    struct member *member = &ring->members[index];
    enum command command = COMMAND_RUN;
    set_up_member(ring, member);
    tasks_say_ready(ring->tasks);
    while (command != COMMAND_STOP) {
        place_take(&member->own);
        command = atomic_load_explicit(ring->command, memory_order_relaxed);
        if (command == COMMAND_RUN) {
            do_share(ring, member, member->set);
        } else if (command != COMMAND_STOP) {
            count(&ring->slots[index], member, command);
        }
        place_give(&member->next);
    }
}

/* ---- passes ---- */

static void lap(struct ring *ring, enum command command)
{
    struct member *first = &ring->members[0];
    atomic_store_explicit(ring->command, command, memory_order_relaxed);
    place_give(&first->next);
    place_take(&first->own);
    ring->laps_done++;
}

static int64_t ring_pass(struct ring *ring, int64_t laps)
{
    struct member *first = &ring->members[0];
    int64_t start_ns = now_ns();
    for (int64_t i = 0; i < laps; i++) {
        lap(ring, COMMAND_RUN);
        do_share(ring, first, first->set);
    }
    return now_ns() - start_ns;
}

/* As many hops as the ring has in these laps, on `sets_count` working sets in turn. */
static int64_t harness_pass(struct ring *ring, int64_t laps, int64_t sets_count)
{
    const int64_t set_words = ring->plan->working_set_bytes / (int64_t)sizeof(uint64_t);
    struct member *harness = &ring->harness;
    int64_t set = 0;
    int64_t start_ns = now_ns();
    for (int64_t hop = 0; hop < laps * ring->plan->tasks_count; hop++) {
        atomic_store_explicit(ring->command, COMMAND_RUN, memory_order_relaxed);
        place_give(&ring->solo);
        place_take(&ring->solo);
        do_share(ring, harness, harness->set + set * set_words);
        set = set + 1 == sets_count ? 0 : set + 1;
    }
    return now_ns() - start_ns;
}

/* One of each kind; `keep` false: a warm-up. */
static void run_round(struct ring *ring, bool keep)
{
    struct passes *passes = &ring->passes;
    const size_t at = passes->count;
    struct switches before = switches_now();
    ring_pass(ring, 1);
    passes->ring_ns[at] = ring_pass(ring, ring->laps_count);
    if (keep) {
        switches_add(&ring->first_task, switches_between(before, switches_now()));
        ring->counted_laps += ring->laps_count + 1;
    }
    harness_pass(ring, 1, ring->plan->tasks_count);
    passes->harness_ns[at] = harness_pass(ring, ring->laps_count, ring->plan->tasks_count);
    if (ring->plan->working_set_bytes > 0) {
        harness_pass(ring, 1, 1);
        passes->single_ns[at] = harness_pass(ring, ring->laps_count, 1);
    }
    passes->count += keep;
}

static void run_rounds(struct ring *ring)
{
    const int64_t deadline_ns = ring->plan->started_ns + ring->plan->budget_ms * 1000000;
    struct member *first = &ring->members[0];
    run_round(ring, false);
    ring->slots[0].iterations_before = first->iterations_done;
    lap(ring, COMMAND_COUNT_BEFORE);
    while (ring->passes.count < PASSES_LEAST || (ring->passes.count < PASSES_MAX && now_ns() < deadline_ns)) {
        run_round(ring, true);
    }
    ring->slots[0].iterations_after = first->iterations_done;
    lap(ring, COMMAND_COUNT_AFTER);
}

/* ---- set-up ---- */

/* Opens the places one by one and starts each task as soon as it has its two: a process inherits the ends
 * of few pipes and none that it does not need to keep open for long. */
static void start_followers(struct ring *ring)
{
    const struct scheduling_plan *plan = ring->plan;
    const size_t count_all = (size_t)plan->tasks_count;
    struct place first = place_open((enum token_kind)plan->token, (enum scheduling_kind)plan->kind,
                                    &ring->words[0].word);
    struct place own = place_open((enum token_kind)plan->token, (enum scheduling_kind)plan->kind,
                                  &ring->words[1].word);
    ring->members[0] = (struct member){.own = first, .next = own};
    for (size_t i = 1; i < count_all; i++) {
        struct place next = first;
        if (i + 1 < count_all) {
            next = place_open((enum token_kind)plan->token, (enum scheduling_kind)plan->kind,
                              &ring->words[i + 1].word);
        }
        ring->members[i] = (struct member){.own = own, .next = next};
        tasks_start(ring->tasks, ring->cpus[i % ring->cpus_count], follow, ring, i);
        if (plan->kind == KIND_PROCESSES) {
            place_close_take(&own);
            if (i > 1) {
                place_close_give(&own);
            }
        }
        own = next;
    }
}

static void set_up(struct ring *ring)
{
    const struct scheduling_plan *plan = ring->plan;
    const size_t count_all = (size_t)plan->tasks_count;
    ring->cpus_count = plan->placement == PLACEMENT_TWO_CPUS ? 2 : 1;
    cpus_choose(plan->cpu, ring->cpus_count, ring->cpus);
    memory_check(2 * plan->tasks_count * plan->working_set_bytes);
    helper_pin_to_cpu(ring->cpus[0]);
    ring->calibration = work_calibrate();
    ring->quantum_iterations = work_iterations(&ring->calibration, plan->quantum_ns);
    ring->laps_count = (plan->hops_count + plan->tasks_count - 1) / plan->tasks_count;
    ring->command = memory_shared(sizeof(*ring->command));
    ring->words = memory_shared(count_all * sizeof(*ring->words));
    ring->slots = memory_shared(count_all * sizeof(*ring->slots));
    ring->members = memory_private(count_all * sizeof(*ring->members));
    ring->tasks = tasks_prepare((enum scheduling_kind)plan->kind, count_all - 1);
    start_followers(ring);
}

/* After the children were forked: what is touched here is not shared with them, and faults no more. */
static void set_up_first(struct ring *ring)
{
    const size_t bytes = PASSES_MAX * sizeof(int64_t);
    int64_t *values = memory_private(3 * bytes);
    ring->passes = (struct passes){
        .ring_ns = values, .harness_ns = values + PASSES_MAX, .single_ns = values + 2 * PASSES_MAX};
    set_up_member(ring, &ring->members[0]);
    if (ring->plan->working_set_bytes > 0) {
        ring->harness.set = memory_private((size_t)(ring->plan->tasks_count * ring->plan->working_set_bytes));
    }
    ring->solo = place_open((enum token_kind)ring->plan->token, (enum scheduling_kind)ring->plan->kind,
                            &((struct word_line *)memory_shared(sizeof(struct word_line)))->word);
}

/* ---- the report ---- */

/* Sums over all tasks; returns the iterations. */
static int64_t sum_slots(const struct ring *ring, struct switches *sum)
{
    int64_t iterations = ring->slots[0].iterations_after - ring->slots[0].iterations_before;
    *sum = ring->first_task;
    for (int64_t i = 1; i < ring->plan->tasks_count; i++) {
        const struct slot *slot = &ring->slots[i];
        switches_add(sum, switches_between(slot->before, slot->after));
        iterations += slot->iterations_after - slot->iterations_before;
    }
    return iterations;
}

/* The followers' counts begin and end just after taking the token in a counting lap: they have waited once
 * more than they were in laps that count. The first task's do not. */
static int64_t counted_hops(const struct ring *ring)
{
    return ring->counted_laps * ring->plan->tasks_count + ring->plan->tasks_count - 1;
}

static void emit_passes(const struct ring *ring)
{
    const struct passes *passes = &ring->passes;
    emit_int64_array(",\"pass_ns\":", passes->ring_ns, passes->count);
    emit_int64_array(",\"harness_pass_ns\":", passes->harness_ns, passes->count);
    emit_part(",\"harness_single_set_pass_ns\":");
    if (ring->plan->working_set_bytes > 0) {
        emit_int64_array("", passes->single_ns, passes->count);
    } else {
        emit_part("null");
    }
}

static void report(const struct ring *ring)
{
    const int64_t cpus[2] = {ring->cpus[0], ring->cpus[1]};
    struct switches sum;
    int64_t iterations = sum_slots(ring, &sum);
    emit_begin("{\"type\":\"ring\",\"hops_per_pass_count\":%" PRId64, ring->laps_count * ring->plan->tasks_count);
    emit_passes(ring);
    emit_part(",\"voluntary_switches_count\":%" PRId64 ",\"involuntary_switches_count\":%" PRId64,
              sum.voluntary_count, sum.involuntary_count);
    emit_part(",\"counted_hops_count\":%" PRId64 ",\"hops_count\":%" PRId64, counted_hops(ring),
              ring->laps_done * ring->plan->tasks_count);
    emit_part(",\"quantum_iterations_count\":%" PRId64 ",\"work_iterations_per_hop_count\":%" PRId64,
              ring->quantum_iterations, iterations / (ring->counted_laps * ring->plan->tasks_count));
    emit_calibration(&ring->calibration);
    emit_part(",\"tasks_count\":%" PRId64, ring->plan->tasks_count);
    emit_int64_array(",\"cpus\":", cpus, ring->cpus_count);
    emit_finish("}");
}

void ring_run(const struct scheduling_plan *plan)
{
    static struct ring ring;
    ring.plan = plan;
    set_up(&ring);
    set_up_first(&ring);
    tasks_await_ready(ring.tasks);
    run_rounds(&ring);
    report(&ring);
    tasks_let_end();
    lap(&ring, COMMAND_STOP);
    tasks_join(ring.tasks);
    helper_end((int64_t)ring.passes.count, 0);
}
