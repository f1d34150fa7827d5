/*
 * readiness_tokens.c - writing tokens, and waiting for them: the part of the timed loop that both workloads and
 * all mechanisms share. The mechanism is called once for a wait and not once for an event. The contract is in
 * readiness_parts.h. Sources: read(2), write(2), setitimer(2), signal(7) (which calls a handler interrupts).
 */
#include "readiness_parts.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

enum { GUARD_S = 5 };

struct counts counts;
struct tokens tokens;

void tokens_prepare(const struct mechanism *mechanism)
{
    tokens.mechanism = mechanism;
    tokens.room = sockets.active_count;
    tokens.events = touched_memory(tokens.room * sizeof(tokens.events[0]));
    tokens.arrivals = touched_memory(tokens.room * sizeof(tokens.arrivals[0]));
}

void tokens_write(int fd, uint32_t position)
{
    static const char token = TOKEN;
    counts.written_sum += position_mark(position);
    if (COUNTED(write, fd, &token, sizeof token) != sizeof token) {
        fail_call("write", "one byte to a connected socket", errno);
    }
}

/* ---- the guard ---- */

static volatile sig_atomic_t ticks_count;
static int64_t arrived_at_tick_count;
static int silent_ticks_count;

static void tick(int signal_number)
{
    (void)signal_number;
    ticks_count = 1;
}

void tokens_guard(bool is_on)
{
    const time_t period_s = is_on ? GUARD_S : 0;
    const struct sigaction action = {.sa_handler = tick};
    const struct itimerval timer = {{.tv_sec = period_s}, {.tv_sec = period_s}};
    CHECK(sigaction(SIGALRM, &action, NULL));
    CHECK(setitimer(ITIMER_REAL, &timer, NULL));
    silent_ticks_count = 0;
    arrived_at_tick_count = -1;
}

/* A wait was interrupted. Twice in a row with nothing read: the mechanism has lost an event. */
static void look_at_the_clock(uint32_t missing_count)
{
    char text[96];
    if (ticks_count == 0) {
        return;
    }
    ticks_count = 0;
    silent_ticks_count = counts.arrived_count == arrived_at_tick_count ? silent_ticks_count + 1 : 0;
    arrived_at_tick_count = counts.arrived_count;
    if (silent_ticks_count >= 2) {
        snprintf(text, sizeof text, "no event for %d s, but %u tokens are on their way", 2 * GUARD_S,
                 missing_count);
        fail_call(tokens.mechanism->name, text, ETIMEDOUT);
    }
}

/* ---- collecting ---- */

/* How many tokens one event brings. The buffer is larger than what can be there, so that after a read nothing is
 * left and no edge is needed for it. */
static inline uint32_t tokens_of(const struct event *event)
{
    char buffer[READ_BYTES];
    if (tokens.mechanism->carries_data) {
        return event->bytes_count;
    }
    const ssize_t bytes_count = COUNTED(read, sockets.ends[event->position].read_fd, buffer, sizeof buffer);
    if (bytes_count < 0 && errno != EAGAIN) {
        fail_call("read", "from a connected socket", errno);
    }
    return bytes_count > 0 ? (uint32_t)bytes_count : 0;
}

/* It was for nothing: what was to come there is still to come. */
static void watch_on(const struct event *event)
{
    counts.spurious_count++;
    if (tokens.mechanism->rearm != NULL) {
        tokens.mechanism->rearm(event, 1);
    }
}

/* Returns how many arrivals there are now; those beyond `count` are surplus and only counted. */
static inline uint32_t arrive(const struct event *event, uint32_t arrived_count, uint32_t count)
{
    const uint32_t tokens_count = tokens_of(event);
    counts.arrived_count += tokens_count;
    if (tokens_count == 0) {
        watch_on(event);
    }
    for (uint32_t i = 0; i < tokens_count; i++) {
        counts.arrived_sum += position_mark(event->position);
        if (arrived_count < count) {
            tokens.arrivals[arrived_count++] = event->position;
        }
    }
    return arrived_count;
}

void tokens_collect(uint32_t count, bool are_watched_again)
{
    const struct mechanism *mechanism = tokens.mechanism;
    for (uint32_t arrived_count = 0; arrived_count < count;) {
        const int events_count = mechanism->wait(tokens.events, tokens.room);
        counts.waits_count++;
        for (int i = 0; i < events_count; i++) {
            arrived_count = arrive(&tokens.events[i], arrived_count, count);
        }
        if (events_count > 0 && are_watched_again && mechanism->rearm != NULL) {
            mechanism->rearm(tokens.events, (uint32_t)events_count);
        }
        if (events_count < 0) {
            look_at_the_clock(count - arrived_count);
        }
    }
}
