/*
 * http_sender_closed.c - the command `pump`: on each connection the next request goes out when the answer to the last
 * has come (a closed loop). What is timed is said in http_sender.c.
 */
#include "http_sender.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PAUSE_NS = 100 * NS_PER_MS }; /* after a failure: a server that refuses is not to be hammered */

static struct {
    int64_t from_ns, until_ns; /* what ends in between counts */
    int64_t before_ns, last_ns, longest_gap_ns; /* answers: the last one before, the last one in between; -1: none */
    int64_t every, seen_count, kept_count, kept_next;
    int64_t counts[OUTCOMES_COUNT], before_counts[OUTCOMES_COUNT], after_counts[OUTCOMES_COUNT];
    int64_t *latency_ns;
    int32_t *paused; /* a ring of connections that failed, in the order in which they may go on */
    int64_t *paused_until_ns, paused_first, paused_count;
    bool *has_failed;
    uint64_t random;
} loop;

/* As many as there is room for: when it is full, every second one goes. */
static void keep(int64_t latency_ns)
{
    if (loop.seen_count++ != loop.kept_next) {
        return;
    }
    if (loop.kept_count == asked.samples_count) {
        for (int64_t i = 0; i < loop.kept_count / 2; i++) {
            loop.latency_ns[i] = loop.latency_ns[2 * i + (int64_t)(next_random(&loop.random) >> 63)];
        }
        loop.kept_count /= 2;
        loop.every *= 2;
    } else {
        loop.latency_ns[loop.kept_count++] = latency_ns;
    }
    loop.kept_next = loop.kept_count * loop.every;
    loop.kept_next += (int64_t)random_below(&loop.random, (uint64_t)loop.every);
    if (loop.kept_next < loop.seen_count) {
        loop.kept_next = loop.seen_count;
    }
}

static void note_moment(int64_t at_ns)
{
    const int64_t earlier_ns = loop.last_ns >= 0 ? loop.last_ns : loop.before_ns;
    if (earlier_ns >= 0 && at_ns - earlier_ns > loop.longest_gap_ns) {
        loop.longest_gap_ns = at_ns - earlier_ns;
    }
    loop.last_ns = at_ns;
}

static void note(int32_t place, enum outcome outcome, int64_t request, int64_t due_ns, int64_t at_ns)
{
    (void)request;
    if (at_ns < loop.from_ns) {
        loop.before_counts[outcome]++;
        loop.before_ns = outcome == ANSWERED ? at_ns : loop.before_ns;
    } else if (at_ns >= loop.until_ns) {
        loop.after_counts[outcome]++;
    } else {
        loop.counts[outcome]++;
        if (outcome == ANSWERED) {
            places[place].has_answered = true;
            note_moment(at_ns);
            keep(at_ns - due_ns);
        }
    }
    loop.has_failed[place] = outcome != ANSWERED && outcome != WRONG;
}

static void pause_place(int32_t place, int64_t at_ns)
{
    const int64_t end = (loop.paused_first + loop.paused_count++) % asked.connections_count;
    loop.has_failed[place] = false;
    loop.paused[end] = place;
    loop.paused_until_ns[end] = at_ns + PAUSE_NS;
}

static void end_pauses(int64_t at_ns)
{
    while (loop.paused_count > 0 && loop.paused_until_ns[loop.paused_first] <= at_ns) {
        places_give_back(loop.paused[loop.paused_first]);
        loop.paused_first = (loop.paused_first + 1) % asked.connections_count;
        loop.paused_count--;
    }
}

static void send_on_free(void)
{
    static int64_t request;
    for (int32_t place; (place = places_take()) >= 0;) {
        const int64_t at_ns = now_ns();
        if (loop.has_failed[place]) {
            pause_place(place, at_ns);
        } else {
            place_send(place, request++, at_ns);
        }
    }
}

/* Until the window is over; then what is under way is waited for, but nothing new is sent. */
static void turn(int64_t *cpu_from_ns, int64_t *cpu_until_ns)
{
    *cpu_from_ns = *cpu_until_ns = -1;
    for (int64_t at_ns = now_ns(); at_ns < loop.until_ns; at_ns = now_ns()) {
        if (*cpu_from_ns < 0 && at_ns >= loop.from_ns) {
            *cpu_from_ns = cpu_ns();
        }
        end_pauses(at_ns);
        send_on_free();
        const int64_t end_ns = at_ns < loop.from_ns ? loop.from_ns : loop.until_ns;
        const int64_t resume_ns = loop.paused_count > 0 ? loop.paused_until_ns[loop.paused_first] : INT64_MAX;
        places_wait(resume_ns < end_ns ? resume_ns : end_ns);
    }
    *cpu_until_ns = cpu_ns();
    while (places_busy_count() > 0) {
        places_wait(INT64_MAX);
    }
    end_pauses(INT64_MAX);
}

static int64_t count_all(const int64_t counts[OUTCOMES_COUNT], bool is_answered)
{
    int64_t sum = 0;
    for (int i = 0; i < OUTCOMES_COUNT; i++) {
        sum += (i == ANSWERED) == is_answered ? counts[i] : 0;
    }
    return sum;
}

/* The time in which the counted answers came: from the last answer before the window to the last one in it. Where many
 * come at once (all wait for the same delay) the window itself holds one batch more or less by chance. It is the window
 * where requests failed, or where answers stopped before its end: a silence of twice the longest gap between them. */
static int64_t spanned_ns(int64_t duration_ns)
{
    const bool is_steady = loop.before_ns >= 0 && loop.last_ns >= 0 && count_all(loop.counts, false) == 0 &&
                           loop.until_ns - loop.last_ns <= 2 * loop.longest_gap_ns;
    return is_steady ? loop.last_ns - loop.before_ns : duration_ns;
}

static void emit_pumped(int64_t duration_ns, int64_t connected_count, int64_t used_cpu_ns)
{
    int64_t served_count = 0;
    for (int32_t i = 0; i < asked.connections_count; i++) {
        served_count += places[i].has_answered;
    }
    emit_begin("{\"type\":\"pumped\",\"duration_ns\":%" PRId64 ",\"spanned_ns\":%" PRId64
               ",\"connections_count\":%" PRId64 ",\"served_connections_count\":%" PRId64
               ",\"opened_connections_count\":%" PRId64,
               duration_ns, spanned_ns(duration_ns), connected_count, served_count,
               places_opened_count());
    emit_outcomes(loop.counts);
    emit_part(",\"warmup_count\":%" PRId64 ",\"drained_count\":%" PRId64 ",\"failed_outside_count\":%" PRId64
              ",\"client_cpu_ns\":%" PRId64 ",\"samples_every\":%" PRId64,
              loop.before_counts[ANSWERED], loop.after_counts[ANSWERED],
              count_all(loop.before_counts, false) + count_all(loop.after_counts, false), used_cpu_ns, loop.every);
    emit_int64_array(",\"latency_ns\":", loop.latency_ns, (size_t)loop.kept_count);
    emit_own_failure();
    emit_finish("}");
}

void command_pump(const int64_t *arguments)
{
    const size_t places_count = (size_t)asked.connections_count;
    int64_t cpu_from_ns, cpu_until_ns;
    if (arguments[0] == 0) {
        usage("pump needs a duration above 0");
    }
    memset(&loop, 0, sizeof loop);
    loop.every = 1;
    loop.before_ns = loop.last_ns = -1;
    loop.latency_ns = CHECK_POINTER(calloc((size_t)asked.samples_count, sizeof *loop.latency_ns));
    loop.paused = CHECK_POINTER(calloc(places_count, sizeof *loop.paused));
    loop.paused_until_ns = CHECK_POINTER(calloc(places_count, sizeof *loop.paused_until_ns));
    loop.has_failed = CHECK_POINTER(calloc(places_count, sizeof *loop.has_failed));
    places_begin(note);
    places_open();
    for (size_t i = 0; i < places_count; i++) {
        places[i].has_answered = false;
    }
    loop.from_ns = now_ns() + arguments[1] * NS_PER_MS;
    loop.until_ns = loop.from_ns + arguments[0] * NS_PER_MS;
    emit("{\"type\":\"began\",\"start_ns\":%" PRId64 ",\"connected_count\":%" PRId64 "}", loop.from_ns,
         places_connected_count());
    turn(&cpu_from_ns, &cpu_until_ns);
    emit_pumped(arguments[0] * NS_PER_MS, places_connected_count(), cpu_until_ns - cpu_from_ns);
    count_samples(loop.kept_count, count_all(loop.counts, false));
    free(loop.latency_ns);
    free(loop.paused);
    free(loop.paused_until_ns);
    free(loop.has_failed);
}
