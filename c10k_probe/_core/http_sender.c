/*
 * http_sender.c - sends HTTP/1.1 requests to a server on 127.0.0.1, on a schedule (an open loop) or as fast as answers
 * come (a closed loop), on kept connections or on a new one for each request.
 *
 * Timed:
 *   latency_ns: of `send`, from the moment at which a request was due, whenever it was sent, to just after the recv(2)
 *               that completed the answer: waiting for a free connection, connecting and a dropped SYN are inside.
 *               Of `pump`, from just before the request was sent (and, without --keep-alive, the connection opened).
 *   longest_late_ns: of `send`, from the moment at which a request was due to the moment at which this process saw that
 *               it was: what is late is late by the sender's fault.
 *   client_cpu_ns: of this process, in the window; of `send` until the last request has ended.
 * Not timed: opening of the connections that are kept, before the window; printing.
 * Clock: CLOCK_MONOTONIC; CLOCK_PROCESS_CPUTIME_ID for client_cpu_ns. Units: nanoseconds (_ns), requests and
 * connections (_count).
 *
 * Every request ends in one way: answered (whole, status 2xx), wrong (whole with another status, or not HTTP), refused,
 * reset (broken before it was whole), timed out (--timeout-ms after it was due, or at the end of the load; its
 * connection is closed), unsent (no connection was free for that long, or this process could open none: own_failure says
 * why). Their sum is intended_count.
 *
 * Commands, one a line on stdin; send and pump are answered by `began` (start_ns) and then their own line:
 *   send RATE_PER_KS DURATION_MS SEED ARRIVALS BURST_COUNT WAIT_MS
 *                      BURST_COUNT requests at the first moment, and besides them RATE_PER_KS requests in 1000 s for
 *                      DURATION_MS; ARRIVALS 0: evenly, 1: a Poisson process by SEED. WAIT_MS after DURATION_MS all
 *                      that has not ended is given up: as timed out what had a connection, else as unsent.
 *                      due_ns (since start_ns), latency_ns (-1: not answered) and outcome are of the same requests, one
 *                      of each samples_every, in the order in which they ended.
 *                      stage_*: of each stage, from the end of the one before to its own; longest_late_ns of what was
 *                      due in it.
 *   stage RATE_PER_KS DURATION_MS
 *                      the next send goes on like this after its own DURATION_MS; several follow each other. A rate of
 *                      0 is a pause. Not answered.
 *   pump DURATION_MS WARMUP_MS
 *                      what ends in DURATION_MS after WARMUP_MS is counted; then those under way are waited for.
 *                      spanned_ns: from the last answer before to the last one in that time, which is what the counted
 *                      answers took; DURATION_MS where a request failed or the answers stopped.
 *                      connections_count: of those connected at the end; served_connections_count: of those with an
 *                      answer in the window. After a failure a connection pauses for 100 ms.
 *   quit (or end of file)
 *
 * Connections come from 127.(16+K).a.b with K of --source-base, and close with a reset: no TIME_WAIT stays.
 * A request goes to the connection that has been free for longest.
 *
 * Known bias:
 *   - one thread: with client_cpu_ns near duration_ns it is the limit, and not the server.
 *   - a server that closes a kept connection just as a request comes on it has reset that request: none is sent again.
 *   - a closed loop hides what clients on a schedule of their own would meet (coordinated omission).
 *   - client and server share the machine; the loopback's soft interrupts run in whoever sends.
 *
 * The parts: http_sender_answer.c (reading), http_sender_connections.c, http_sender_places.c (who is free, who is busy),
 * http_sender_open.c, http_sender_closed.c, holder_random.c.
 */
#include "http_sender.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIMEOUT_MS_MAX = 600 * 1000,
    SOURCE_BASE_MAX = 200,
    SAMPLES_MIN = 2,
    SAMPLES_MAX = 1000 * 1000,
    SAMPLES_DEFAULT = 100 * 1000,
    ARGUMENTS_MAX = 6,
    COMMAND_BYTES = 128,
    DURATION_MS_MAX = 3600 * 1000,
};

struct sender_settings asked = {.connections_count = 64,
                                .keeps_alive = 1,
                                .timeout_ms = 5000,
                                .samples_count = SAMPLES_DEFAULT,
                                .source_base = 100, /* beside a connection holder */
                                .path = "/"};

const char *const outcome_names[OUTCOMES_COUNT] = {"answered", "wrong", "refused", "reset", "timed_out", "unsent"};

static int64_t samples_total, dropped_total;

void count_samples(int64_t samples_count, int64_t dropped_count)
{
    samples_total += samples_count;
    dropped_total += dropped_count;
}

void emit_outcomes(const int64_t counts[OUTCOMES_COUNT])
{
    for (int i = 0; i < OUTCOMES_COUNT; i++) {
        emit_part(",\"%s_count\":%" PRId64, outcome_names[i], counts[i]);
    }
}

void emit_own_failure(void)
{
    if (own_failure.call == NULL) {
        emit_part(",\"own_failure\":null");
        return;
    }
    emit_part(",\"own_failure\":{\"call\":");
    emit_string(own_failure.call);
    emit_part(",");
    emit_errno(own_failure.number);
    emit_part("}");
}

int64_t cpu_ns(void)
{
    struct timespec used;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used));
    return (int64_t)used.tv_sec * NS_PER_S + used.tv_nsec;
}

static const struct command {
    const char *name;
    void (*obey)(const int64_t *arguments);
    int arguments_count;
    int64_t maxima[ARGUMENTS_MAX];
} commands[] = {
    {"send",
     command_send,
     6,
     {INT64_MAX / NS_PER_S, DURATION_MS_MAX, INT64_MAX, 1, REQUESTS_MAX, TIMEOUT_MS_MAX}},
    {"stage", command_stage, 2, {INT64_MAX / NS_PER_S, DURATION_MS_MAX}},
    {"pump", command_pump, 2, {DURATION_MS_MAX, DURATION_MS_MAX}},
};

static int64_t read_argument(const char *word, int64_t maximum)
{
    char *end = NULL;
    errno = 0;
    const int64_t value = word == NULL ? -1 : strtoll(word, &end, 10);
    if (value < 0 || value > maximum || errno != 0 || *end != '\0') {
        usage("argument \"%s\" is not a number in 0..%" PRId64, word == NULL ? "" : word, maximum);
    }
    return value;
}

/* False for `quit`. */
static bool obey_line(char *line)
{
    int64_t arguments[ARGUMENTS_MAX] = {0};
    char *rest = NULL;
    const char *name = strtok_r(line, " \n", &rest);
    if (name == NULL || strcmp(name, "quit") == 0) {
        return name == NULL;
    }
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            for (int j = 0; j < commands[i].arguments_count; j++) {
                arguments[j] = read_argument(strtok_r(NULL, " \n", &rest), commands[i].maxima[j]);
            }
            if (strtok_r(NULL, " \n", &rest) != NULL) {
                usage("%s takes %d arguments", name, commands[i].arguments_count);
            }
            commands[i].obey(arguments);
            return true;
        }
    }
    usage("unknown command \"%s\"; known: send, stage, pump, quit", name);
}

int main(int argc, char **argv)
{
    const struct helper_option options[] = {
        {.name = "--port", .number = &asked.port, .minimum = 1, .maximum = UINT16_MAX, .required = true},
        {.name = "--connections", .number = &asked.connections_count, .minimum = 1, .maximum = CONNECTIONS_MAX},
        {.name = "--keep-alive", .number = &asked.keeps_alive, .minimum = 0, .maximum = 1},
        {.name = "--timeout-ms", .number = &asked.timeout_ms, .minimum = 1, .maximum = TIMEOUT_MS_MAX},
        {.name = "--samples", .number = &asked.samples_count, .minimum = SAMPLES_MIN, .maximum = SAMPLES_MAX},
        {.name = "--source-base", .number = &asked.source_base, .minimum = 0, .maximum = SOURCE_BASE_MAX},
        {.name = "--path", .text = &asked.path},
    };
    char line[COMMAND_BYTES];
    helper_parse("http_sender", argc, argv, options, ARRAY_COUNT(options));
    if (asked.path[0] != '/' || strpbrk(asked.path, " \r\n\t") != NULL) {
        usage("--path must begin with / and hold no blank");
    }
    request_build();
    helper_start("http_sender");
    while (fgets(line, sizeof line, stdin) != NULL && obey_line(line)) {
    }
    helper_end(samples_total, dropped_total);
    return 0;
}
