/*
 * holder_fill.c - fills a table of descriptors with connections, each counted after its first echo, or
 * (`idle`) when the server has accepted it. The contract is in holder_ramp.h, and what is timed in
 * connection_holder.c.
 *
 * No more than a window of connections is without its first echo at any time, and the window is at most what
 * the server's accept queue takes: so it cannot overflow, however slow the server is. Without an echo it is
 * the length of the queue itself that is asked for.
 */
#include "holder_ramp.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

enum {
    PAUSE_NS = 50 * 1000, /* between two looks at the accept queue */
    BATCH_WAIT_MS = 5,
    TAKEN_AT_ONCE = 32,
};

/* ---- opening ---- */

void lane_fail(struct lane *lane, const char *call, int number)
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
        lane_fail(lane, number == ECONNREFUSED || number == ETIMEDOUT ? "connect" : "send", number);
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
            lane_fail(lane, failure.call, failure.number);
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

bool lane_has_next(struct lane *lane)
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
           !atomic_load(&ramp.has_failed) && lane_has_next(lane);
}

/* ---- first echoes ---- */

/* Once an echo failed to come, nothing is waited for any more: whatever stopped the server stopped it for
 * all. A socket() or connect() that failed says nothing of those that are connected already. */
static bool is_waiting(const struct failure *failure)
{
    return failure->call == NULL || strcmp(failure->call, "recv") != 0;
}

/* Receives on the first pending connection. True when the echo was right. */
static bool receive_one(struct lane *lane, int fd)
{
    char sent[MESSAGE_BYTES_MAX];
    build_message(sent, lane->first_index, lane->pending_counter[lane->next_place]);
    const int number = receive_when_there(fd, sent, is_waiting(&lane->failure));
    if (number != 0) {
        lane_fail(lane, "recv", number);
    }
    return number == 0;
}

/* The first echoes of the count oldest. The last of them is waited for at first: the server answers about
 * in order, and one sleep instead of many leaves the CPU to it. Those that echoed move up to the held
 * ones, the others are closed. */
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

/* Until the server has accepted all, or accepts none for the time-out. How many wait, -1 where it is not
 * told. */
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
        if (queue.waiting_count == 0 || now_ns() - since_ns > patience_ms(settings.timeout_ms) * 1000000) {
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
        lane_fail(lane, "accept", waiting_count < 0 ? EOPNOTSUPP : ETIMEDOUT);
    }
    const bool is_known = waiting_count >= 0 && waiting_count < pending_count;
    const int64_t left_count = is_known ? waiting_count : pending_count;
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

void lane_fill(struct table *table, struct lane *lane)
{
    lane->is_table_full = false;
    (ramp.is_idle ? fill_idle : fill_with_echoes)(table, lane);
}
