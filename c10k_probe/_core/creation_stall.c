/*
 * creation_stall.c - the parent's stall: `fork_latency --stall RATE --duration-ms D --tick-us T`.
 *
 * Question: what does an event loop notice of the children that its own process creates? One thread has a
 * tick due every T us, at absolute times. It reads the clock until a tick is due and then writes to 16 pages
 * of the --rss region, the next 16 each time; the lateness of a tick is the reading that found it due minus
 * its due time. Between ticks, when none is due, it creates (RATE a second, absolute times as well) or else
 * asks one child whether it has ended (WNOHANG).
 *
 * A loop that is held up does the ticks that it missed one after the other, each with its own lateness: none
 * is left out, so a long stall counts as long as it lasted. Creations that could not be made before the last
 * tick are not made; spawned_count says how many were.
 *
 * Most ticks meet no creation, so a quantile of all of them says more about RATE and T than about the method:
 * after_late_ns holds the lateness of those alone that are the first after a creation. Creations fall due at
 * all phases of a tick alike (multiples of the golden ratio); one that is over before the next tick is due
 * makes nothing late. Creations before the loop are warm-ups, dropped by declaration.
 *
 * Timed besides: `return`, `started` and `exec` of each creation, as in the samples. There is no `cycle`, as
 * the end is noticed only when asked for. With --placement one-cpu the loop and its children take turns on
 * one CPU, and a lateness contains their turns.
 *
 * Clock: CLOCK_MONOTONIC; unit ns. Sources: wait4(2), pthread_tryjoin_np(3); G. Tene, "How NOT to measure
 * latency" (coordinated omission).
 */
#include "creation_stall.h"

#include "creation_samples.h"
#include "creation_state.h"
#include "helper.h"

#include <inttypes.h>

struct stall {
    struct stall_plan plan;
    int64_t *late_ns; /* one a tick */
    size_t ticks_count;
    size_t ticks_done;
    int64_t *after_late_ns; /* of the first tick after a creation */
    size_t after_count;
    bool has_created; /* since the last tick */
    struct creation *creations; /* in the order of their creation */
    size_t creations_max;
    size_t created;
    size_t first_alive; /* all before it are gone */
    size_t asked;       /* the last one that was asked */
    struct samples samples;
};

static struct stall the_stall;

size_t stall_ticks_count(const struct stall_plan *plan)
{
    return (size_t)(plan->duration_ms * 1000 / plan->tick_us);
}

size_t stall_spawns_count(const struct stall_plan *plan)
{
    return (size_t)(plan->rate_per_s * plan->duration_ms / 1000);
}

struct stall *stall_prepare(const struct stall_plan *plan)
{
    struct stall *stall = &the_stall;
    stall->plan = *plan;
    stall->ticks_count = stall_ticks_count(plan);
    stall->late_ns = allocate_values(stall->ticks_count * sizeof(*stall->late_ns));
    stall->creations_max = stall_spawns_count(plan);
    if (stall->creations_max > 0) {
        struct slot *slots = creation_map_slots(stall->creations_max);
        stall->creations = allocate_values(stall->creations_max * sizeof(*stall->creations));
        stall->samples = allocate_samples(stall->creations_max);
        stall->after_late_ns = allocate_values(stall->creations_max * sizeof(*stall->after_late_ns));
        for (size_t i = 0; i < stall->creations_max; i++) {
            stall->creations[i].slot = &slots[i];
        }
    }
    return stall;
}

/* ---- the loop ---- */

/* Asks the next one in turn of those that may be alive. */
static void ask_one(struct stall *stall, const struct method *method)
{
    while (stall->first_alive < stall->created && stall->creations[stall->first_alive].gone_ns != 0) {
        stall->first_alive++;
    }
    if (stall->first_alive == stall->created) {
        return;
    }
    stall->asked = stall->asked + 1 < stall->created ? stall->asked + 1 : stall->first_alive;
    if (stall->asked < stall->first_alive) {
        stall->asked = stall->first_alive;
    }
    struct creation *creation = &stall->creations[stall->asked];
    if (creation->gone_ns == 0) {
        method->ending->poll(creation);
    }
}

static int create_next(struct stall *stall, const struct method *method)
{
    int error_number = method->create(&stall->creations[stall->created]);
    stall->has_created = error_number == 0;
    stall->created += stall->has_created;
    return error_number;
}

static void tick(struct stall *stall, int64_t late_ns)
{
    stall->late_ns[stall->ticks_done++] = late_ns;
    if (stall->has_created) {
        stall->after_late_ns[stall->after_count++] = late_ns;
        stall->has_created = false;
    }
    state_dirty_some(STALL_TICK_PAGES);
}

/* The part of a tick at which a creation falls due: the fractions of multiples of the golden ratio. */
static int64_t phase_ns(size_t index, int64_t tick_ns)
{
    double turns = (double)index * 0.6180339887498949;
    return (int64_t)((turns - (double)(int64_t)turns) * (double)tick_ns);
}

static int loop(struct stall *stall, const struct method *method)
{
    const int64_t tick_ns = stall->plan.tick_us * 1000;
    const int64_t spawn_ns = stall->creations_max > 0 ? 1000000000 / stall->plan.rate_per_s : 0;
    const int64_t start_ns = now_ns() + tick_ns;
    int error_number = 0;
    while (stall->ticks_done < stall->ticks_count && error_number == 0) {
        int64_t since_ns = now_ns() - start_ns;
        int64_t late_ns = since_ns - (int64_t)stall->ticks_done * tick_ns;
        if (late_ns >= 0) {
            tick(stall, late_ns);
        } else if (stall->created < stall->creations_max &&
                   since_ns >= (int64_t)stall->created * spawn_ns + phase_ns(stall->created, tick_ns)) {
            error_number = create_next(stall, method);
        } else {
            ask_one(stall, method);
        }
    }
    return error_number;
}

int stall_run(struct stall *stall, const struct method *method)
{
    int error_number = 0;
    if (stall->creations_max > 0) {
        error_number = warm_up(method, stall->creations[0].slot, &stall->samples, stall->plan.warmup_count, 0);
    }
    if (error_number == 0) {
        error_number = loop(stall, method);
    }
    for (size_t i = 0; i < stall->created; i++) {
        struct creation *creation = &stall->creations[i];
        if (creation->gone_ns == 0) {
            method->ending->await(creation);
        }
        store_sample(method, &stall->samples, creation);
    }
    return error_number;
}

/* ---- the report ---- */

void stall_emit(const struct stall *stall, const struct method *method)
{
    const struct samples *samples = &stall->samples;
    emit_begin("{\"type\":\"stall\",\"method\":\"%s\"", method->name);
    emit_part(",\"rate_per_s\":%" PRId64 ",\"spawned_count\":%zu", stall->plan.rate_per_s, stall->created);
    emit_values("tick_late_ns", stall->late_ns, stall->ticks_done, true);
    emit_values("after_late_ns", stall->after_late_ns, stall->after_count, true);
    emit_part(",\"warmups_count\":%zu", samples->warmups_count);
    emit_values("return_ns", samples->return_ns, samples->count, true);
    emit_values("started_ns", samples->started_ns, samples->count, method->has_started);
    emit_values("exec_ns", samples->exec_ns, samples->count, method->has_exec);
    emit_finish("}");
}

int64_t stall_samples_count(const struct stall *stall)
{
    return (int64_t)stall->samples.count;
}

int64_t stall_dropped_count(const struct stall *stall)
{
    return stall->samples.dropped_count;
}
