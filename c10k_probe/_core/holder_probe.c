/*
 * holder_probe.c - the command `probe`: echoes on random held connections, each at a moment that was fixed
 * before, however late the answers to the others are (an open loop). What is timed is said in
 * connection_holder.c.
 *
 * The plan is one for all tables: the n-th message is due n / RATE after the start, on a connection drawn
 * from all that are held. Each table's thread draws the same numbers and sends what falls to its own. A
 * connection that still waits for an answer, or that broke, is passed over for the next one of its table.
 *
 * Sources: epoll(7), epoll_pwait2(2), recv(2), prctl(2) (PR_SET_TIMERSLACK).
 */
#include "holder.h"

#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 64,
    UNDER_WAY_MAX = 4096, /* of one table */
    SCANS_PER_TIMEOUT = 8,
    HEAD_START_NS = 2 * 1000 * 1000, /* for the threads to be there when the first message is due */
    NS_PER_S = 1000 * 1000 * 1000,
};

/* The same for all tables. */
static struct {
    int64_t rate_per_s, intended_count, held_count, start_ns;
    int64_t every; /* the latency of one message in so many is kept */
    uint64_t seed;
} plan;

struct exchange {
    int64_t due_ns;
    uint64_t counter;
    int64_t place; /* of the connection in its table; -1: free */
    struct answer answer;
    bool is_kept; /* its latency */
};

/* One table's part. */
struct prober {
    struct table *table;
    int64_t first_place; /* of its first connection among all that are held */
    int epoll_fd;
    struct exchange *exchanges;
    struct http_answer *http; /* of each exchange; NULL where answers are echoes */
    char *is_busy;            /* for each connection of the table */
    int64_t usable_count, under_way_count, next_scan_ns;
    int64_t sent_count, ok_count, failed_count, longest_late_ns;
    int64_t *latency_ns;
    int64_t kept_count, latency_count; /* kept_count: room in latency_ns */
    struct failure failure;
    /* where the plan was read up to */
    uint64_t random;
    int64_t next, next_place; /* next: number of the message, plan.intended_count at the end */
};

/* ---- the plan ---- */

/* Goes on to the next message of this table. */
static void read_on(struct prober *prober)
{
    while (++prober->next < plan.intended_count) {
        const int64_t drawn = (int64_t)random_below(&prober->random, (uint64_t)plan.held_count);
        prober->next_place = drawn - prober->first_place;
        if (prober->next_place >= 0 && prober->next_place < prober->table->held.count) {
            return;
        }
    }
}

static void read_from_start(struct prober *prober)
{
    prober->random = plan.seed;
    prober->next = -1;
    read_on(prober);
}

static int64_t due_ns(int64_t message)
{
    return plan.start_ns + message * NS_PER_S / plan.rate_per_s;
}

/* How many latencies of this table will be kept. */
static void count_kept(struct table *table, void *argument)
{
    struct prober *prober = argument;
    prober->table = table;
    for (read_from_start(prober); prober->next < plan.intended_count; read_on(prober)) {
        prober->kept_count += prober->next % plan.every == 0;
    }
}

/* ---- messages ---- */

static void free_exchange(struct prober *prober, struct exchange *exchange)
{
    prober->is_busy[exchange->place] = false;
    exchange->place = -1;
    prober->under_way_count--;
}

/* The connection is closed: what may still come on it would be taken for another answer. */
static void give_up(struct prober *prober, struct exchange *exchange, const char *call, int number)
{
    int *fd = &prober->table->held.fds[exchange->place];
    note_failure(&prober->failure, call, number);
    close(*fd); /* epoll forgets it by that */
    *fd = -1;
    prober->failed_count++;
    prober->usable_count--;
    free_exchange(prober, exchange);
}

/* From the drawn place on, one that is neither busy nor broken; -1 when there is none. */
static int64_t find_place(const struct prober *prober)
{
    const struct descriptors *held = &prober->table->held;
    for (int64_t i = 0; i < held->count; i++) {
        const int64_t place = (prober->next_place + i) % held->count;
        if (held->fds[place] >= 0 && !prober->is_busy[place]) {
            return place;
        }
    }
    return -1;
}

static struct exchange *find_exchange(const struct prober *prober)
{
    for (int64_t i = 0; i < UNDER_WAY_MAX; i++) {
        if (prober->exchanges[i].place < 0) {
            return &prober->exchanges[i];
        }
    }
    return NULL;
}

/* The message that is due. Where nothing is free to send it with it is left out: intended, but not sent. */
static void send_due(struct prober *prober)
{
    char message[MESSAGE_BYTES_MAX];
    struct exchange *exchange = find_exchange(prober);
    const int64_t place = exchange == NULL ? -1 : find_place(prober), due = due_ns(prober->next);
    if (place < 0) {
        return;
    }
    struct http_answer *http = prober->http == NULL ? NULL : &prober->http[exchange - prober->exchanges];
    *exchange = (struct exchange){.due_ns = due,
                                  .counter = take_counters(1),
                                  .place = place,
                                  .answer.http = http,
                                  .is_kept = prober->next % plan.every == 0};
    if (http != NULL) {
        *http = (struct http_answer){0};
    }
    prober->is_busy[place] = true;
    prober->under_way_count++;
    const int fd = prober->table->held.fds[place];
    build_message(message, table_index(prober->table, place), exchange->counter);
    const int64_t late_ns = now_ns() - due;
    const int number = send_message(fd, message);
    prober->longest_late_ns = late_ns > prober->longest_late_ns ? late_ns : prober->longest_late_ns;
    if (number != 0) {
        give_up(prober, exchange, "send", number);
        return;
    }
    prober->sent_count++;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(exchange - prober->exchanges)};
    /* after sending, so that the message is not kept waiting for it */
    if (epoll_ctl(prober->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        give_up(prober, exchange, "epoll_ctl", errno);
    }
}

static void take_answer(struct prober *prober, struct exchange *exchange, int64_t at_ns)
{
    CHECK(epoll_ctl(prober->epoll_fd, EPOLL_CTL_DEL, prober->table->held.fds[exchange->place], NULL));
    if (exchange->is_kept) {
        prober->latency_ns[prober->latency_count++] = at_ns - exchange->due_ns;
    }
    prober->ok_count++;
    free_exchange(prober, exchange);
}

static void receive_piece(struct prober *prober, struct exchange *exchange)
{
    char piece[PIECE_BYTES_MAX], message[MESSAGE_BYTES_MAX];
    const size_t room = (size_t)answer_room(&exchange->answer);
    const ssize_t got = recv(prober->table->held.fds[exchange->place], piece, room, MSG_DONTWAIT);
    int number = got > 0 ? 0 : got == 0 ? END_OF_STREAM : errno;
    const int64_t at_ns = now_ns();
    if (number == EAGAIN || number == EINTR) {
        return;
    }
    if (number == 0) {
        build_message(message, table_index(prober->table, exchange->place), exchange->counter);
        number = answer_take(&exchange->answer, message, piece, got);
    }
    if (number != 0) {
        give_up(prober, exchange, "recv", number);
    } else if (answer_is_whole(&exchange->answer)) {
        take_answer(prober, exchange, at_ns);
    }
}

/* What has come is taken first: this process may have been stopped. */
static void drop_late(struct prober *prober, int64_t at_ns)
{
    const int64_t timeout_ns = settings.timeout_ms * 1000000;
    for (int64_t i = 0; i < UNDER_WAY_MAX; i++) {
        struct exchange *exchange = &prober->exchanges[i];
        if (exchange->place < 0 || at_ns - exchange->due_ns < timeout_ns) {
            continue;
        }
        receive_piece(prober, exchange);
        if (exchange->place >= 0) {
            give_up(prober, exchange, "recv", ETIMEDOUT);
        }
    }
    prober->next_scan_ns = at_ns + timeout_ns / SCANS_PER_TIMEOUT;
}

/* ---- the loop ---- */

static void wait_and_receive(struct prober *prober, int64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];
    const int64_t left_ns = until_ns - now_ns();
    const struct timespec left = {.tv_sec = left_ns > 0 ? left_ns / NS_PER_S : 0,
                                  .tv_nsec = left_ns > 0 ? left_ns % NS_PER_S : 0};
    const int ready_count = epoll_pwait2(prober->epoll_fd, events, EVENTS_MAX, &left, NULL);
    if (ready_count < 0 && errno != EINTR) { /* EINTR: stopped and continued */
        fail_call("epoll_pwait2", "prober->epoll_fd", errno);
    }
    for (int i = 0; i < ready_count; i++) {
        struct exchange *exchange = &prober->exchanges[events[i].data.u64];
        if (exchange->place >= 0) {
            receive_piece(prober, exchange);
        }
    }
}

/* What is due goes before what has come: the answers of one wait are taken, then the clock is looked at
 * again. */
static void turn(struct prober *prober)
{
    while ((prober->next < plan.intended_count && prober->usable_count > 0) || prober->under_way_count > 0) {
        const bool has_next = prober->next < plan.intended_count;
        const int64_t next_ns = has_next ? due_ns(prober->next) : INT64_MAX, at_ns = now_ns();
        if (at_ns >= next_ns) {
            send_due(prober);
            read_on(prober);
            wait_and_receive(prober, at_ns);
        } else {
            wait_and_receive(prober, next_ns < prober->next_scan_ns ? next_ns : prober->next_scan_ns);
        }
        if (at_ns >= prober->next_scan_ns) {
            drop_late(prober, at_ns);
        }
    }
}

static void probe_table(struct table *table, void *argument)
{
    struct prober *prober = argument;
    const int64_t exchanges_bytes = UNDER_WAY_MAX * (int64_t)sizeof(struct exchange);
    const int64_t http_bytes = UNDER_WAY_MAX * (int64_t)sizeof(struct http_answer);
    prober->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (prober->epoll_fd < 0) {
        note_failure(&prober->failure, "epoll_create1", errno);
        return;
    }
    prober->exchanges = array_new(exchanges_bytes);
    prober->http = settings.path == NULL ? NULL : array_new(http_bytes);
    prober->is_busy = array_new(table->held.count);
    prober->usable_count = table->held.count;
    for (int64_t i = 0; i < UNDER_WAY_MAX; i++) {
        prober->exchanges[i].place = -1;
    }
    CHECK(prctl(PR_SET_TIMERSLACK, 1)); /* nanosecond: by default a sleep may be 50 us longer */
    prober->next_scan_ns = plan.start_ns + settings.timeout_ms * 1000000 / SCANS_PER_TIMEOUT;
    read_from_start(prober);
    turn(prober);
    CHECK(prctl(PR_SET_TIMERSLACK, 0)); /* as it was */
    array_free(prober->is_busy, table->held.count);
    array_free(prober->exchanges, exchanges_bytes);
    if (prober->http != NULL) {
        array_free(prober->http, http_bytes);
    }
    close(prober->epoll_fd);
    compact(&table->held);
}

/* ---- the command ---- */

/* The latencies lie in one array, each table's at its place; they are moved together. */
static void add_up(struct prober *sum, const struct prober *prober)
{
    sum->sent_count += prober->sent_count;
    sum->ok_count += prober->ok_count;
    sum->failed_count += prober->failed_count;
    if (prober->longest_late_ns > sum->longest_late_ns) {
        sum->longest_late_ns = prober->longest_late_ns;
    }
    if (prober->failure.call != NULL) {
        note_failure(&sum->failure, prober->failure.call, prober->failure.number);
    }
    memmove(sum->latency_ns + sum->latency_count, prober->latency_ns,
            (size_t)prober->latency_count * sizeof *sum->latency_ns);
    sum->latency_count += prober->latency_count;
}

static void emit_probed(const struct prober *sum)
{
    emit_begin("{\"type\":\"probed\",\"intended_count\":%" PRId64 ",\"sent_count\":%" PRId64
               ",\"ok_count\":%" PRId64 ",\"failed_count\":%" PRId64,
               plan.intended_count, sum->sent_count, sum->ok_count, sum->failed_count);
    if (sum->sent_count > 0) {
        emit_part(",\"longest_late_ns\":%" PRId64, sum->longest_late_ns);
    } else {
        emit_part(",\"longest_late_ns\":null");
    }
    emit_int64_array(",\"latency_ns\":", sum->latency_ns, (size_t)sum->latency_count);
    emit_part(",\"latency_samples_every\":%" PRId64, plan.every);
    emit_failure(&sum->failure, tables_held_count());
    emit_finish("}");
}

/* Reads the plan once, so that there is room for every latency that will be kept. */
static int64_t prepare(struct prober *probers)
{
    int64_t first_place = 0, kept_count = 0;
    for (int64_t i = 0; i < tables_count; i++) {
        probers[i].first_place = first_place;
        first_place += tables[i].held.count;
    }
    tables_run(count_kept, probers, sizeof *probers);
    for (int64_t i = 0; i < tables_count; i++) {
        kept_count += probers[i].kept_count;
    }
    return kept_count;
}

void command_probe(const int64_t *arguments)
{
    refuse_while_backlogged("probe");
    const int64_t held_count = tables_held_count();
    const int64_t asked_count = arguments[0] * arguments[1] / 1000;
    const int64_t intended_count = held_count > 0 ? asked_count : 0;
    const int64_t probers_bytes = tables_count * (int64_t)sizeof(struct prober);
    if (arguments[0] == 0 || asked_count > PROBES_MAX) {
        usage("probe sends 1 message a second at least, and %d in all at most", PROBES_MAX);
    }
    plan.rate_per_s = arguments[0];
    plan.intended_count = intended_count;
    plan.held_count = held_count;
    plan.every = 1 + (intended_count - 1) / settings.samples_count;
    plan.seed = (uint64_t)arguments[2];
    struct prober *probers = array_new(probers_bytes);
    const int64_t kept_bytes = prepare(probers) * (int64_t)sizeof(int64_t);
    struct prober sum = {.latency_ns = array_new(kept_bytes)};
    int64_t *next_latency = sum.latency_ns;
    for (int64_t i = 0; i < tables_count; i++) {
        probers[i].latency_ns = next_latency;
        next_latency += probers[i].kept_count;
    }
    plan.start_ns = now_ns() + HEAD_START_NS;
    tables_run(probe_table, probers, sizeof *probers);
    for (int64_t i = 0; i < tables_count; i++) {
        add_up(&sum, &probers[i]);
    }
    emit_probed(&sum);
    totals.samples_count += sum.latency_count;
    totals.dropped_count += sum.failed_count;
    array_free(sum.latency_ns, kept_bytes);
    array_free(probers, probers_bytes);
}
