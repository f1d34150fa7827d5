/*
 * holder_ramp.c - the command `ramp`: opens connections, each counted after its first echo, or (`idle`) when the
 * server has accepted it. What is timed is said in connection_holder.c.
 *
 * No more than a window of connections is without its first echo at any time, and the window is at most what the
 * server's accept queue takes: so it cannot overflow, however slow the server is. Without an echo it is the length of
 * the queue itself that is asked for.
 */
#include "holder.h"

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SPARE_DESCRIPTORS = 16, /* of each table, for what other commands open */
    PAUSE_NS = 50 * 1000,   /* between two looks at the accept queue */
    BATCH_WAIT_MS = 5,
    TAKEN_AT_ONCE = 32,
    SMALL_COUNT = 2000,
};

/* What the lanes of one command share: threads that open connections at the same time, each in a table of its own. */
static struct {
    pthread_mutex_t lock; /* of the tables that are taken */
    int64_t next_table;
    int64_t missing_count;
    _Atomic int64_t left_count; /* connections that no lane has taken to open */
    atomic_bool has_failed;
    int64_t window_count; /* of each lane */
    bool is_idle;
    int64_t start_ns;
} ramp = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct lane {
    pthread_t thread;
    bool is_anywhere; /* on any CPU, and not only on those of this process */
    int64_t taken_count; /* to open, of what was left */
    int64_t opened_count;
    struct samples connect_ns; /* of those that came to count as open, in the order of opening */
    int64_t last_ns;
    bool is_table_full;
    struct failure failure;
    /* of the connections behind the held ones, which wait for their first echo */
    int64_t pending_count;
    uint64_t first_counter; /* of the message on the first of them, and its index */
    int64_t first_index;
    uint64_t pending_counter[WINDOW_MAX]; /* rings, from next_place */
    int64_t pending_connect_ns[WINDOW_MAX];
    int64_t next_place;
};

static struct lane lanes[LANES_MAX]; /* large for a stack */

/* ---- opening ---- */

static void fail(struct lane *lane, const char *call, int number)
{
    note_failure(&lane->failure, call, number);
    atomic_store(&ramp.has_failed, true);
}

/* Sends the first message on a new connection. False, with the failure noted, when it is broken. */
static bool send_first(struct lane *lane, int fd, int64_t index, int64_t ring_place)
{
    char message[MESSAGE_BYTES_MAX];
    const uint64_t counter = take_counters(1);
    lane->pending_counter[ring_place] = counter;
    lane->first_index = lane->pending_count == 0 ? index : lane->first_index;
    build_message(message, index, counter);
    int number = send_message(fd, message);
    if (number == ETIMEDOUT) { /* the socket takes nothing yet */
        number = finish_connection(fd);
        number = number == 0 ? send_message(fd, message) : number;
    }
    if (number != 0) {
        fail(lane, number == ECONNREFUSED || number == ETIMEDOUT ? "connect" : "send", number);
    }
    return number == 0;
}

/* One more behind the others. A table without a descriptor left is full, which is no failure. */
static void open_next(struct table *table, struct lane *lane)
{
    struct failure failure = {0};
    const int64_t place = table->held.count + lane->pending_count;
    const int64_t ring_place = (lane->next_place + lane->pending_count) % WINDOW_MAX;
    const int fd = (ramp.is_idle ? open_connection : begin_connection)(
        (uint16_t)settings.port, &lane->pending_connect_ns[ring_place], &failure);
    if (fd < 0) {
        lane->is_table_full = failure.number == EMFILE && strcmp(failure.call, "socket") == 0;
        if (!lane->is_table_full) {
            fail(lane, failure.call, failure.number);
        }
        return;
    }
    if (!ramp.is_idle && !send_first(lane, fd, table_index(table, place), ring_place)) {
        close(fd);
        return;
    }
    table->held.fds[place] = fd;
    lane->pending_count++;
    lane->taken_count--;
}

/* The first pending one counts as open from now on. */
static void take_first(struct lane *lane)
{
    samples_add(&lane->connect_ns, lane->pending_connect_ns[lane->next_place]);
    lane->opened_count++;
}

static void pass_first(struct lane *lane)
{
    lane->next_place = (lane->next_place + 1) % WINDOW_MAX;
    lane->first_index++;
    lane->pending_count--;
}

/* Whether there is one more to open; takes it from what is left to all. */
static bool has_next(struct lane *lane)
{
    if (lane->taken_count > 0) {
        return true;
    }
    int64_t left_count = atomic_load(&ramp.left_count);
    do {
        lane->taken_count = left_count < TAKEN_AT_ONCE ? left_count : TAKEN_AT_ONCE;
    } while (!atomic_compare_exchange_weak(&ramp.left_count, &left_count, left_count - lane->taken_count));
    return lane->taken_count > 0;
}

static bool is_filling(const struct table *table, struct lane *lane)
{
    return table->held.count + lane->pending_count < table->held.capacity && !lane->is_table_full &&
           !atomic_load(&ramp.has_failed) && has_next(lane);
}

/* ---- first echoes ---- */

/* Once an echo failed to come, nothing is waited for any more: whatever stopped the server stopped it for all. A
 * socket() or connect() that failed says nothing of those that are connected already. */
static bool is_waiting(const struct failure *failure)
{
    return failure->call == NULL || strcmp(failure->call, "recv") != 0;
}

/* Receives on the first pending connection. True when the echo was right. */
static bool receive_one(struct lane *lane, int fd)
{
    char expected[MESSAGE_BYTES_MAX], received[MESSAGE_BYTES_MAX];
    int number = receive_when_there(fd, received, is_waiting(&lane->failure));
    if (number == 0) {
        build_message(expected, lane->first_index, lane->pending_counter[lane->next_place]);
        number = compare_messages(expected, received);
    }
    if (number != 0) {
        fail(lane, "recv", number);
    }
    return number == 0;
}

/* The first echoes of the count oldest. The last of them is waited for at first: the server answers about in order, and
 * one sleep instead of many leaves the CPU to it. Those that echoed move up to the held ones, the others are closed. */
static void receive_oldest(struct table *table, struct lane *lane, int64_t count)
{
    const int64_t start = table->held.count, behind_count = lane->pending_count - count;
    int *fds = table->held.fds;
    if (is_waiting(&lane->failure)) {
        (void)wait_for_events(fds[start + count - 1], POLLIN, BATCH_WAIT_MS);
    }
    for (int64_t i = 0; i < count; i++) {
        const int fd = fds[start + i];
        if (receive_one(lane, fd)) {
            fds[table->held.count++] = fd;
            take_first(lane);
        } else {
            close(fd);
        }
        pass_first(lane);
    }
    lane->last_ns = lane->opened_count > 0 ? now_ns() : lane->last_ns;
    memmove(&fds[table->held.count], &fds[start + count], (size_t)behind_count * sizeof *fds);
}

static void fill_with_echoes(struct table *table, struct lane *lane)
{
    while (is_filling(table, lane)) {
        open_next(table, lane);
        if (lane->pending_count == ramp.window_count) {
            receive_oldest(table, lane, (lane->pending_count + 1) / 2);
        }
    }
    if (lane->pending_count > 0) {
        receive_oldest(table, lane, lane->pending_count);
    }
}

/* ---- without an echo ---- */

/* Until the server has accepted all, or accepts none for the time-out. How many wait, -1 where it is not told. */
static int64_t wait_until_accepted(void)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    struct accept_queue queue;
    int64_t fewest_count = INT64_MAX, since_ns = now_ns();
    while (read_accept_queue(&queue)) {
        if (queue.waiting_count < fewest_count) {
            fewest_count = queue.waiting_count;
            since_ns = now_ns();
        }
        if (queue.waiting_count == 0 || now_ns() - since_ns > settings.timeout_ms * 1000000) {
            return queue.waiting_count;
        }
        nanosleep(&pause, NULL);
    }
    return -1;
}

/* The server takes the oldest first: those that it did not take are the last ones, and are closed. */
static void hold_accepted(struct table *table, struct lane *lane)
{
    const int64_t waiting_count = wait_until_accepted(), pending_count = lane->pending_count;
    if (waiting_count != 0) {
        fail(lane, "accept", waiting_count < 0 ? EOPNOTSUPP : ETIMEDOUT);
    }
    const int64_t left_count = waiting_count < 0 || waiting_count > pending_count ? pending_count : waiting_count;
    for (; lane->pending_count > left_count; table->held.count++) {
        take_first(lane);
        pass_first(lane);
    }
    for (; lane->pending_count > 0; pass_first(lane)) {
        close(table->held.fds[table->held.count + lane->pending_count - 1]);
    }
    lane->last_ns = lane->opened_count > 0 ? now_ns() : lane->last_ns;
}

static void fill_idle(struct table *table, struct lane *lane)
{
    while (is_filling(table, lane)) {
        while (lane->pending_count < ramp.window_count && is_filling(table, lane)) {
            open_next(table, lane);
        }
        if (lane->pending_count > 0) {
            hold_accepted(table, lane);
        }
    }
}

/* ---- tables and lanes ---- */

/* How many a table may hold: all that is missing where there is only one, which then meets its limit itself. */
static int64_t room_of(const struct table *table)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit));
    const int64_t used_count = SPARE_DESCRIPTORS + (table->number == 0 ? 2 * count_pairs() : 0);
    const int64_t room_count = (int64_t)limit.rlim_cur - used_count;
    return settings.tables_count == 1 ? INT64_MAX : room_count;
}

/* A table with room, of which this lane has the use; NULL when there is none. */
static struct table *take_table(struct lane *lane)
{
    struct table *taken = NULL;
    int number = 0;
    CHECK_PTHREAD(pthread_mutex_lock(&ramp.lock));
    while (taken == NULL && (ramp.next_table < tables_count || tables_add(&number))) {
        struct table *table = &tables[ramp.next_table++];
        const int64_t room_count = room_of(table);
        const int64_t wanted_count = table->held.count + ramp.missing_count;
        if (table->held.count < room_count) {
            reserve(&table->held, wanted_count < room_count ? wanted_count : room_count);
            taken = table;
        }
    }
    CHECK_PTHREAD(pthread_mutex_unlock(&ramp.lock));
    if (number != 0) {
        fail(lane, "pthread_create", number);
    }
    return taken;
}

/* The threads of the second lane may run where the server does, as it leaves much of its CPU: else the client alone
 * decides the rate. */
static void fill_table(struct table *table, void *argument)
{
    struct lane *lane = argument;
    cpu_set_t own[HELPER_CPU_SETS], all[HELPER_CPU_SETS];
    lane->is_table_full = false;
    if (lane->is_anywhere) {
        memset(all, 0xff, sizeof all);
        CHECK(sched_getaffinity(0, sizeof own, own));
        CHECK(sched_setaffinity(0, sizeof all, all));
    }
    (ramp.is_idle ? fill_idle : fill_with_echoes)(table, lane);
    if (lane->is_anywhere) {
        CHECK(sched_setaffinity(0, sizeof own, own));
    }
}

static void *run_lane(void *argument)
{
    struct lane *lane = argument;
    struct table *table;
    while (!atomic_load(&ramp.has_failed) && has_next(lane) && (table = take_table(lane)) != NULL) {
        table_run(table, fill_table, lane);
    }
    atomic_fetch_add(&ramp.left_count, lane->taken_count); /* for the other lanes, which may have room */
    return NULL;
}

/* ---- the command ---- */

/* At most what the accept queue takes at once, for all lanes together; as asked for where the kernel does not tell. */
static int64_t window_in_force(int64_t lanes_count)
{
    struct accept_queue queue;
    int64_t window_count = settings.window_count;
    if (read_accept_queue(&queue) && queue.most_count / lanes_count < window_count) {
        window_count = queue.most_count / lanes_count;
    }
    return window_count > 0 ? window_count : 1;
}

/* One lane where there is little to open, which a single table takes anyway. */
static int64_t prepare_lanes(int64_t missing_count, bool is_idle)
{
    const bool is_small = missing_count < SMALL_COUNT || settings.tables_count == 1 || is_idle;
    const int64_t lanes_count = is_small ? 1 : settings.lanes_count;
    const int64_t room_count = missing_count < settings.samples_count ? missing_count + 2 : settings.samples_count;
    ramp.next_table = 0;
    ramp.missing_count = missing_count;
    atomic_store(&ramp.left_count, missing_count);
    atomic_store(&ramp.has_failed, false);
    ramp.window_count = window_in_force(lanes_count);
    ramp.is_idle = is_idle;
    ramp.start_ns = now_ns();
    for (int64_t i = 0; i < lanes_count; i++) {
        lanes[i] = (struct lane){.is_anywhere = i > 0, .last_ns = ramp.start_ns};
        lanes[i].connect_ns = samples_new(i == 0 && lanes_count == 1 ? room_count : settings.samples_count / lanes_count);
    }
    return lanes_count;
}

/* All of them end; a lane that cannot be started is done without. */
static void run_lanes(int64_t lanes_count)
{
    int64_t started_count = 1;
    for (; started_count < lanes_count; started_count++) {
        struct lane *lane = &lanes[started_count];
        if (table_thread_new(&lane->thread, run_lane, lane) != 0) {
            break;
        }
    }
    run_lane(&lanes[0]);
    for (int64_t i = 1; i < started_count; i++) {
        CHECK_PTHREAD(pthread_join(lanes[i].thread, NULL));
    }
}

/* The lanes' results become those of the first one. */
static void add_up(int64_t lanes_count)
{
    struct lane *sum = &lanes[0];
    for (int64_t i = 1; i < lanes_count; i++) {
        const struct lane *lane = &lanes[i];
        sum->opened_count += lane->opened_count;
        sum->last_ns = lane->last_ns > sum->last_ns ? lane->last_ns : sum->last_ns;
        if (lane->failure.call != NULL) {
            note_failure(&sum->failure, lane->failure.call, lane->failure.number);
        }
        samples_join(&sum->connect_ns, &lanes[i].connect_ns);
    }
}

static void emit_ramped(const struct lane *sum, int64_t target_count)
{
    const int64_t open_count = tables_held_count();
    const double ramp_s = (double)(sum->last_ns - ramp.start_ns) / 1e9;
    emit_begin("{\"type\":\"ramped\",\"target_count\":%" PRId64 ",\"open_count\":%" PRId64
               ",\"opened_count\":%" PRId64 ",\"tables_count\":%" PRId64 ",\"window_count\":%" PRId64,
               target_count, open_count, sum->opened_count, tables_count, ramp.window_count);
    if (sum->opened_count > 0) {
        const double rate_per_s = (double)sum->opened_count / ramp_s;
        emit_part(",\"ramp_s\":%.9f,\"connect_rate_per_s\":%.3f", ramp_s, rate_per_s);
    } else {
        emit_part(",\"ramp_s\":null,\"connect_rate_per_s\":null");
    }
    emit_int64_array(",\"connect_ns\":", sum->connect_ns.values, (size_t)sum->connect_ns.count);
    emit_part(",\"connect_samples_every\":%" PRId64, sum->connect_ns.every);
    emit_failure(&sum->failure, open_count);
    emit_finish("}");
}

void command_ramp(const int64_t *arguments)
{
    const int64_t target_count = arguments[0], held_count = tables_held_count();
    const int64_t lanes_count = prepare_lanes(target_count > held_count ? target_count - held_count : 0, arguments[1] != 0);
    struct lane *sum = &lanes[0];
    run_lanes(lanes_count);
    add_up(lanes_count);
    if (tables_held_count() < target_count && sum->failure.call == NULL) {
        note_failure(&sum->failure, "socket", EMFILE);
    }
    emit_ramped(sum, target_count);
    totals.samples_count += sum->opened_count;
    totals.dropped_count += sum->failure.call != NULL;
    for (int64_t i = 0; i < lanes_count; i++) {
        samples_free(&lanes[i].connect_ns);
    }
}
