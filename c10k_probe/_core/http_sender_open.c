/*
 * http_sender_open.c - the command `send`: requests at moments that were fixed before, however late the answers to the
 * others are (an open loop). What is timed is said in http_sender.c.
 *
 * A request whose moment has come and for which no connection is free waits, its time running; those that wait are
 * always the next ones in order, so that the queue is two numbers.
 *
 * A load has one stage or more, each with a rate of its own, without a pause between them.
 *
 * Sources: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale" (NSDI 2006); prctl(2)
 * (PR_SET_TIMERSLACK).
 */
#include "http_sender.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

enum { HEAD_START_NS = 2 * NS_PER_MS, RATE_UNITS = 1000, STAGES_MAX = 1024 }; /* the rate: requests in 1000 s */

/* One rate of a load. What this process took of it runs from the end of the stage before to its own. */
struct stage {
    int64_t rate_per_ks, duration_ns, end_ns; /* end_ns: from the start of the first */
    int64_t cpu_ns, longest_late_ns;
};

static struct stage stages[STAGES_MAX];
static int stages_count = 1; /* the first is the one of `send` itself */

static struct {
    int64_t *due_ns; /* from the start of the window */
    int64_t intended_count, start_ns, every;
    uint64_t seed;
    int64_t counts[OUTCOMES_COUNT];
    int64_t *kept_due_ns, *kept_latency_ns, *kept_outcome;
    int64_t kept_count, longest_late_ns, sent_count, last_end_ns;
    int ended_stages_count, due_stage; /* due_stage: of the last request that was due */
    int64_t ended_cpu_ns;
} loop;

/* Exponential gaps; 53 random bits, never 0. */
static double random_gap(uint64_t *random)
{
    return -log(((double)(next_random(random) >> 11) + 1.0) / 9007199254740993.0);
}

static void plan_one(int64_t count, int64_t *room, int64_t at_ns)
{
    if (count == REQUESTS_MAX) {
        usage("send plans at most %d requests", REQUESTS_MAX);
    }
    if (count == *room) {
        *room = *room > 0 ? 2 * *room : 4096;
        loop.due_ns = CHECK_POINTER(realloc(loop.due_ns, (size_t)*room * sizeof *loop.due_ns));
    }
    loop.due_ns[count] = at_ns;
}

/* One request after the other, evenly or as a Poisson process, until the stage is over. Returns how many there are now. */
static int64_t plan_stage(struct stage *stage, int64_t begin_ns, bool is_poisson, uint64_t *random, int64_t count,
                          int64_t *room)
{
    const double gap_ns = (double)NS_PER_S * RATE_UNITS / (double)stage->rate_per_ks; /* infinite of a pause */
    const int64_t earlier_count = count;
    double at_ns = is_poisson ? gap_ns * random_gap(random) : 0.0;
    while (stage->rate_per_ks > 0 && at_ns < (double)stage->duration_ns) {
        plan_one(count++, room, begin_ns + (int64_t)at_ns);
        at_ns = is_poisson ? at_ns + gap_ns * random_gap(random) : gap_ns * (double)(count - earlier_count);
    }
    stage->end_ns = begin_ns + stage->duration_ns;
    return count;
}

/* The burst at the first moment; then one stage after the other. Their schedule does not depend on the burst. Returns
 * how many. */
static int64_t plan(bool is_poisson, int64_t burst_count)
{
    uint64_t random = loop.seed;
    int64_t count = 0, room = 0, begin_ns = 0;
    while (count < burst_count) {
        plan_one(count++, &room, 0);
    }
    for (int i = 0; i < stages_count; i++) {
        count = plan_stage(&stages[i], begin_ns, is_poisson, &random, count, &room);
        begin_ns = stages[i].end_ns;
    }
    return count;
}

/* One of each `every` requests, at a random place among them. */
static bool is_kept(int64_t request)
{
    uint64_t random = loop.seed ^ (uint64_t)(request / loop.every) * 0x9e3779b97f4a7c15U;
    return (int64_t)random_below(&random, (uint64_t)loop.every) == request % loop.every;
}

static void note(int32_t place, enum outcome outcome, int64_t request, int64_t due_ns, int64_t at_ns)
{
    (void)place;
    loop.counts[outcome]++;
    loop.last_end_ns = at_ns;
    if (is_kept(request)) {
        loop.kept_due_ns[loop.kept_count] = due_ns - loop.start_ns;
        loop.kept_latency_ns[loop.kept_count] = outcome == ANSWERED ? at_ns - due_ns : -1;
        loop.kept_outcome[loop.kept_count++] = outcome;
    }
}

/* Sends what can be; `head` is the first request that still waits, `next` the first whose moment has not come. */
static int64_t send_waiting(int64_t head, int64_t next)
{
    for (; head < next; head++) {
        const int64_t due_ns = loop.start_ns + loop.due_ns[head], at_ns = now_ns();
        if (at_ns - due_ns >= asked.timeout_ms * NS_PER_MS) {
            note(-1, UNSENT, head, due_ns, at_ns);
            continue;
        }
        const int32_t place = places_take();
        if (place < 0) {
            break;
        }
        loop.sent_count++;
        place_send(place, head, due_ns);
    }
    return head;
}

static int64_t next_moment_ns(int64_t head, int64_t next)
{
    const int64_t next_ns = next < loop.intended_count ? loop.start_ns + loop.due_ns[next] : INT64_MAX;
    const int64_t old_ns =
        head < next ? loop.start_ns + loop.due_ns[head] + asked.timeout_ms * NS_PER_MS : INT64_MAX;
    return next_ns < old_ns ? next_ns : old_ns;
}

/* The load is over: whatever has no answer yet will not have one. All of it is due. */
static void give_up(int64_t head, int64_t at_ns)
{
    for (; head < loop.intended_count; head++) {
        note(-1, UNSENT, head, loop.start_ns + loop.due_ns[head], at_ns);
    }
    places_give_up(at_ns);
}

static void end_stage(void)
{
    struct stage *stage = &stages[loop.ended_stages_count++];
    const int64_t used_cpu_ns = cpu_ns();
    stage->cpu_ns = used_cpu_ns - loop.ended_cpu_ns;
    loop.ended_cpu_ns = used_cpu_ns;
}

/* Ends the stages whose time is over; when the one that runs does. */
static int64_t stage_end_ns(int64_t at_ns)
{
    for (; loop.ended_stages_count < stages_count; end_stage()) {
        const int64_t end_ns = loop.start_ns + stages[loop.ended_stages_count].end_ns;
        if (at_ns < end_ns) {
            return end_ns;
        }
    }
    return INT64_MAX;
}

static void note_due(int64_t request, int64_t at_ns)
{
    const int64_t due_ns = loop.due_ns[request], late_ns = at_ns - loop.start_ns - due_ns;
    while (loop.due_stage < stages_count - 1 && due_ns >= stages[loop.due_stage].end_ns) {
        loop.due_stage++;
    }
    struct stage *stage = &stages[loop.due_stage];
    stage->longest_late_ns = late_ns > stage->longest_late_ns ? late_ns : stage->longest_late_ns;
    loop.longest_late_ns = late_ns > loop.longest_late_ns ? late_ns : loop.longest_late_ns;
}

static void turn(int64_t end_ns)
{
    int64_t head = 0, next = 0;
    while (head < loop.intended_count || places_busy_count() > 0) {
        const int64_t at_ns = now_ns(), stage_ns = stage_end_ns(at_ns);
        for (; next < loop.intended_count && loop.start_ns + loop.due_ns[next] <= at_ns; next++) {
            note_due(next, at_ns);
        }
        if (at_ns >= end_ns) {
            give_up(head, at_ns);
            return;
        }
        head = send_waiting(head, next);
        if (head < loop.intended_count || places_busy_count() > 0) { /* a request may have ended as it was sent */
            const int64_t due_ns = next_moment_ns(head, next), moment_ns = due_ns < stage_ns ? due_ns : stage_ns;
            places_wait(moment_ns < end_ns ? moment_ns : end_ns);
        }
    }
}

static void emit_stages(void)
{
    int64_t cpu[STAGES_MAX], late[STAGES_MAX];
    for (int i = 0; i < stages_count; i++) {
        cpu[i] = stages[i].cpu_ns;
        late[i] = stages[i].longest_late_ns;
    }
    emit_int64_array(",\"stage_cpu_ns\":", cpu, (size_t)stages_count);
    emit_int64_array(",\"stage_longest_late_ns\":", late, (size_t)stages_count);
}

static void emit_sent(int64_t duration_ns, int64_t used_cpu_ns)
{
    const size_t kept = (size_t)loop.kept_count;
    emit_begin("{\"type\":\"sent\",\"intended_count\":%" PRId64 ",\"sent_count\":%" PRId64
               ",\"opened_connections_count\":%" PRId64,
               loop.intended_count, loop.sent_count, places_opened_count());
    emit_outcomes(loop.counts);
    emit_part(",\"start_ns\":%" PRId64 ",\"duration_ns\":%" PRId64 ",\"taken_ns\":%" PRId64
              ",\"client_cpu_ns\":%" PRId64 ",\"longest_late_ns\":%" PRId64 ",\"samples_every\":%" PRId64,
              loop.start_ns, duration_ns, loop.last_end_ns - loop.start_ns, used_cpu_ns, loop.longest_late_ns,
              loop.every);
    emit_int64_array(",\"due_ns\":", loop.kept_due_ns, kept);
    emit_int64_array(",\"latency_ns\":", loop.kept_latency_ns, kept);
    emit_int64_array(",\"outcome\":", loop.kept_outcome, kept);
    emit_stages();
    emit_own_failure();
    emit_finish("}");
}

static int64_t *new_numbers(int64_t count)
{
    return CHECK_POINTER(calloc((size_t)count + 1, sizeof(int64_t)));
}

void command_stage(const int64_t *arguments)
{
    if (arguments[1] == 0) {
        usage("stage needs a duration above 0");
    }
    if (stages_count == STAGES_MAX) {
        usage("a load has at most %d stages", STAGES_MAX);
    }
    stages[stages_count++] = (struct stage){.rate_per_ks = arguments[0], .duration_ns = arguments[1] * NS_PER_MS};
}

void command_send(const int64_t *arguments)
{
    if (arguments[0] == 0 || arguments[1] == 0) {
        usage("send needs a rate and a duration above 0");
    }
    memset(&loop, 0, sizeof loop);
    loop.seed = (uint64_t)arguments[2];
    stages[0] = (struct stage){.rate_per_ks = arguments[0], .duration_ns = arguments[1] * NS_PER_MS};
    loop.intended_count = plan(arguments[3] != 0, arguments[4]);
    const int64_t duration_ns = stages[stages_count - 1].end_ns;
    loop.every = loop.intended_count > 0 ? 1 + (loop.intended_count - 1) / asked.samples_count : 1;
    const int64_t room = loop.intended_count / loop.every + 1;
    loop.kept_due_ns = new_numbers(room);
    loop.kept_latency_ns = new_numbers(room);
    loop.kept_outcome = new_numbers(room);
    places_begin(note);
    places_open();
    CHECK(prctl(PR_SET_TIMERSLACK, 1)); /* nanosecond: by default a sleep may be 50 us longer */
    loop.start_ns = loop.last_end_ns = now_ns() + HEAD_START_NS;
    emit("{\"type\":\"began\",\"start_ns\":%" PRId64 ",\"connected_count\":%" PRId64 "}", loop.start_ns,
         places_connected_count());
    const int64_t cpu_before_ns = loop.ended_cpu_ns = cpu_ns();
    turn(loop.start_ns + duration_ns + arguments[5] * NS_PER_MS);
    stage_end_ns(INT64_MAX); /* where all had ended before its time was over */
    const int64_t used_cpu_ns = cpu_ns() - cpu_before_ns;
    CHECK(prctl(PR_SET_TIMERSLACK, 0)); /* as it was */
    emit_sent(duration_ns, used_cpu_ns);
    count_samples(loop.kept_count, loop.intended_count - loop.counts[ANSWERED]);
    free(loop.due_ns);
    free(loop.kept_due_ns);
    free(loop.kept_latency_ns);
    free(loop.kept_outcome);
    stages_count = 1;
}
