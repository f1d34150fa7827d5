/*
 * holder_pump.c - the command `pump`: a closed loop over several connections at once, each with one message
 * under way. What is timed is said in connection_holder.c.
 *
 * Three phases: warm-up, counted, drain. An answer belongs to the phase in which it was received whole, and
 * the first one at or after a boundary starts the new phase: n answers are n intervals. In the drain nothing
 * is sent.
 *
 * Sources: epoll(7), epoll_wait(2), recv(2), clock_gettime(2) (CLOCK_PROCESS_CPUTIME_ID).
 */
#include "holder.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    SCANS_PER_TIMEOUT = 8, /* a message is found to be late by an eighth of the time-out at most */
    NS_PER_MS = 1000 * 1000,
};

enum phase { WARMUP, COUNTED, DRAIN, PHASES_COUNT };

/* One connection's message under way. */
struct exchange {
    int64_t sent_ns;
    uint64_t counter;
    struct answer answer;
    bool is_under_way;
};

struct pump {
    int epoll_fd;
    struct exchange *exchanges; /* of the first held connections */
    struct http_answer *http;   /* of each of them; NULL where answers are echoes */
    int64_t concurrency_count, under_way_count, failed_count;
    enum phase phase;
    int64_t boundary_ns; /* the phase ends with the first moment at or after it */
    int64_t asked_duration_ns, next_scan_ns;
    int64_t answers_count[PHASES_COUNT];
    int64_t start_ns, end_ns, start_cpu_ns, end_cpu_ns; /* of the counted phase */
    int64_t first_send_ns, last_answer_ns;
    struct samples latency_ns;
    struct failure failure;
};

/* ---- time ---- */

static int64_t own_cpu_ns(void)
{
    struct timespec used;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used));
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static void start_counting(struct pump *pump, int64_t at_ns)
{
    pump->phase = COUNTED;
    pump->start_ns = at_ns;
    pump->boundary_ns = at_ns + pump->asked_duration_ns;
    pump->start_cpu_ns = own_cpu_ns();
}

static void stop_counting(struct pump *pump, int64_t at_ns)
{
    pump->phase = DRAIN;
    pump->end_ns = at_ns;
    pump->boundary_ns = INT64_MAX;
    pump->end_cpu_ns = own_cpu_ns();
}

static void follow_clock(struct pump *pump, int64_t at_ns)
{
    if (at_ns < pump->boundary_ns) {
        return;
    }
    if (pump->phase == WARMUP) {
        start_counting(pump, at_ns);
    } else {
        stop_counting(pump, at_ns);
    }
}

/* Until the next moment at which something is due without an event; rounded up, so that it is not before. */
static int wait_ms(const struct pump *pump)
{
    const int64_t due_ns = pump->boundary_ns < pump->next_scan_ns ? pump->boundary_ns : pump->next_scan_ns;
    const int64_t left_ns = due_ns - now_ns();
    const int64_t left_ms = left_ns <= 0 ? 0 : (left_ns + NS_PER_MS - 1) / NS_PER_MS;
    return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

/* ---- messages ---- */

static void give_up(struct pump *pump, int64_t index, const char *call, int number)
{
    note_failure(&pump->failure, call, number);
    close(tables[0].held.fds[index]); /* epoll forgets it by that */
    tables[0].held.fds[index] = -1;
    pump->exchanges[index].is_under_way = false;
    pump->under_way_count--;
    pump->failed_count++;
}

static void send_next(struct pump *pump, int64_t index)
{
    char message[MESSAGE_BYTES_MAX];
    struct exchange *exchange = &pump->exchanges[index];
    exchange->counter = take_counters(1);
    exchange->answer = (struct answer){.http = pump->http == NULL ? NULL : &pump->http[index]};
    if (pump->http != NULL) {
        pump->http[index] = (struct http_answer){0};
    }
    build_message(message, index, exchange->counter);
    exchange->sent_ns = now_ns();
    const int number = send_message(tables[0].held.fds[index], message);
    if (number != 0) {
        give_up(pump, index, "send", number);
    }
}

/* What comes after the last answer is no answer to anything: it is left to the next command to find. */
static void rest(struct pump *pump, int64_t index)
{
    CHECK(epoll_ctl(pump->epoll_fd, EPOLL_CTL_DEL, tables[0].held.fds[index], NULL));
    pump->exchanges[index].is_under_way = false;
    pump->under_way_count--;
}

static void take_answer(struct pump *pump, int64_t index, int64_t at_ns)
{
    follow_clock(pump, at_ns);
    pump->answers_count[pump->phase]++;
    pump->last_answer_ns = at_ns;
    if (pump->phase == COUNTED) {
        samples_add(&pump->latency_ns, at_ns - pump->exchanges[index].sent_ns);
    }
    if (pump->phase == DRAIN) {
        rest(pump, index);
    } else {
        send_next(pump, index);
    }
}

static void receive_piece(struct pump *pump, int64_t index)
{
    char piece[PIECE_BYTES_MAX], message[MESSAGE_BYTES_MAX];
    struct exchange *exchange = &pump->exchanges[index];
    const size_t room = (size_t)answer_room(&exchange->answer);
    const ssize_t got = recv(tables[0].held.fds[index], piece, room, MSG_DONTWAIT);
    int number = got > 0 ? 0 : got == 0 ? END_OF_STREAM : errno;
    const int64_t at_ns = now_ns();
    if (number == EAGAIN || number == EINTR) {
        return;
    }
    if (number == 0) {
        build_message(message, index, exchange->counter);
        number = answer_take(&exchange->answer, message, piece, got);
    }
    if (number != 0) {
        give_up(pump, index, "recv", number);
    } else if (answer_is_whole(&exchange->answer)) {
        take_answer(pump, index, at_ns);
    }
}

/* After this process was stopped for long, every message looks late: what has come is taken first. */
static void drop_late(struct pump *pump, int64_t at_ns)
{
    const int64_t timeout_ns = settings.timeout_ms * NS_PER_MS;
    for (int64_t i = 0; i < pump->concurrency_count; i++) {
        const struct exchange *exchange = &pump->exchanges[i];
        if (!exchange->is_under_way || at_ns - exchange->sent_ns < timeout_ns) {
            continue;
        }
        receive_piece(pump, i);
        if (exchange->is_under_way && at_ns - exchange->sent_ns >= timeout_ns) {
            give_up(pump, i, "recv", ETIMEDOUT);
        }
    }
    pump->next_scan_ns = at_ns + timeout_ns / SCANS_PER_TIMEOUT;
}

/* ---- the loop ---- */

/* Watches up to asked_count of the held connections; fewer, with the failure noted, at a limit of epoll. */
static void watch(struct pump *pump, int64_t asked_count)
{
    pump->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pump->epoll_fd < 0) {
        note_failure(&pump->failure, "epoll_create1", errno);
        return;
    }
    for (int64_t i = 0; i < asked_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        if (epoll_ctl(pump->epoll_fd, EPOLL_CTL_ADD, tables[0].held.fds[i], &event) != 0) {
            note_failure(&pump->failure, "epoll_ctl", errno);
            return;
        }
        pump->concurrency_count++;
    }
}

static void start_all(struct pump *pump, int64_t warmup_ns)
{
    pump->first_send_ns = now_ns();
    pump->boundary_ns = pump->first_send_ns + warmup_ns;
    pump->next_scan_ns = pump->first_send_ns + settings.timeout_ms * NS_PER_MS / SCANS_PER_TIMEOUT;
    follow_clock(pump, pump->first_send_ns);
    for (int64_t i = 0; i < pump->concurrency_count; i++) {
        pump->exchanges[i].is_under_way = true;
        pump->under_way_count++;
        send_next(pump, i);
    }
}

/* Until nothing is under way. */
static void turn(struct pump *pump)
{
    struct epoll_event events[EVENTS_MAX];
    while (pump->under_way_count > 0) {
        const int ready_count = epoll_wait(pump->epoll_fd, events, EVENTS_MAX, wait_ms(pump));
        if (ready_count < 0 && errno != EINTR) { /* EINTR: stopped and continued, as in receive_message() */
            fail_call("epoll_wait", "pump->epoll_fd", errno);
        }
        for (int i = 0; i < ready_count; i++) {
            receive_piece(pump, (int64_t)events[i].data.u64);
        }
        const int64_t at_ns = now_ns();
        if (pump->under_way_count > 0) {
            follow_clock(pump, at_ns);
        }
        if (at_ns >= pump->next_scan_ns) {
            drop_late(pump, at_ns);
        }
    }
    if (pump->phase == COUNTED) { /* the last connection broke */
        stop_counting(pump, now_ns());
    }
}

static void emit_known(const char *before, bool is_known, int64_t value)
{
    if (is_known) {
        emit_part("%s%" PRId64, before, value);
    } else {
        emit_part("%snull", before);
    }
}

static void emit_pumped(const struct pump *pump, int64_t target_count)
{
    const bool was_counted = pump->phase == DRAIN, has_answers = pump->last_answer_ns > 0;
    emit_begin("{\"type\":\"pumped\",\"target_count\":%" PRId64 ",\"concurrency_count\":%" PRId64, target_count,
               pump->concurrency_count);
    emit_known(",\"duration_ns\":", was_counted, pump->end_ns - pump->start_ns);
    emit_part(",\"requests_count\":%" PRId64 ",\"warmup_count\":%" PRId64 ",\"drained_count\":%" PRId64
              ",\"failed_count\":%" PRId64,
              pump->answers_count[COUNTED], pump->answers_count[WARMUP], pump->answers_count[DRAIN],
              pump->failed_count);
    emit_known(",\"client_cpu_ns\":", was_counted, pump->end_cpu_ns - pump->start_cpu_ns);
    emit_known(",\"first_send_ns\":", pump->concurrency_count > 0, pump->first_send_ns);
    emit_known(",\"last_answer_ns\":", has_answers, pump->last_answer_ns);
    emit_int64_array(",\"latency_ns\":", pump->latency_ns.values, (size_t)pump->latency_ns.count);
    emit_part(",\"latency_samples_every\":%" PRId64, pump->latency_ns.every);
    emit_failure(&pump->failure, tables[0].held.count);
    emit_finish("}");
}

void command_pump(const int64_t *arguments)
{
    refuse_while_backlogged("pump");
    const int64_t held_count = tables[0].held.count;
    const int64_t asked_count = arguments[0] > 0 && arguments[0] < held_count ? arguments[0] : held_count;
    const int64_t target_count = arguments[0] > 0 ? arguments[0] : held_count;
    const int64_t exchanges_bytes = asked_count * (int64_t)sizeof(struct exchange);
    const int64_t http_bytes = asked_count * (int64_t)sizeof(struct http_answer);
    if (arguments[1] == 0) {
        usage("pump counts for 1 ms at least");
    }
    struct pump pump = {.asked_duration_ns = arguments[1] * NS_PER_MS,
                        .exchanges = array_new(exchanges_bytes),
                        .http = settings.path == NULL ? NULL : array_new(http_bytes),
                        .latency_ns = samples_new(settings.samples_count)};
    watch(&pump, asked_count);
    if (pump.concurrency_count > 0) {
        start_all(&pump, arguments[2] * NS_PER_MS);
        turn(&pump);
    }
    if (pump.epoll_fd >= 0) {
        close(pump.epoll_fd);
    }
    compact(&tables[0].held);
    emit_pumped(&pump, target_count);
    totals.samples_count += pump.latency_ns.count;
    totals.dropped_count += pump.failed_count;
    samples_free(&pump.latency_ns);
    array_free(pump.exchanges, exchanges_bytes);
    if (pump.http != NULL) {
        array_free(pump.http, http_bytes);
    }
}
