/*
 * holder_ramp.c - the command `ramp`: which thread opens how many connections in which table. The contract is
 * in holder.h and holder_ramp.h.
 */
#include "holder_ramp.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

enum {
    SPARE_DESCRIPTORS = 16, /* of each table, for what other commands open */
    SMALL_COUNT = 2000,     /* one lane opens fewer than that */
};

struct ramp ramp = {.lock = PTHREAD_MUTEX_INITIALIZER};
static struct lane lanes[LANES_MAX]; /* large for a stack */

/* ---- tables and lanes ---- */

/* How many a table may hold: all that is missing where there is only one, which then meets its limit
 * itself. */
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
        lane_fail(lane, "pthread_create", number);
    }
    return taken;
}

/* All that this process may have at most, without its own; false where there is no other. */
static bool find_other_cpus(const cpu_set_t *own, cpu_set_t *others)
{
    const size_t bytes = HELPER_CPU_SETS * sizeof *own;
    memset(others, 0xff, bytes);
    CHECK(sched_setaffinity(0, bytes, others)); /* the kernel takes away what is not there, or not allowed */
    CHECK(sched_getaffinity(0, bytes, others));
    CPU_XOR_S(bytes, others, others, own);
    return CPU_COUNT_S(bytes, others) > 0;
}

/* The threads of a further lane run where the client does not, beside the server, which leaves much of its CPU: else
 * the client alone decides the rate. Left to itself the scheduler does not move them, as the server's pauses are
 * short. */
static void fill_table(struct table *table, void *argument)
{
    struct lane *lane = argument;
    cpu_set_t own[HELPER_CPU_SETS], others[HELPER_CPU_SETS];
    if (lane->is_elsewhere) {
        CHECK(sched_getaffinity(0, sizeof own, own));
        const bool has_others = find_other_cpus(own, others);
        CHECK(sched_setaffinity(0, sizeof own, has_others ? others : own));
    }
    lane_fill(table, lane);
    if (lane->is_elsewhere) {
        CHECK(sched_setaffinity(0, sizeof own, own));
    }
}

static void *run_lane(void *argument)
{
    struct lane *lane = argument;
    struct table *table;
    while (!atomic_load(&ramp.has_failed) && lane_has_next(lane) && (table = take_table(lane)) != NULL) {
        table_run(table, fill_table, lane);
    }
    atomic_fetch_add(&ramp.left_count, lane->taken_count); /* for the other lanes, which may have room */
    return NULL;
}

/* ---- the command ---- */

/* At most what the accept queue takes at once, for all lanes together; as asked for where the kernel does
 * not tell. */
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
    const int64_t all_count = samples_room(missing_count), most_count = settings.samples_count / lanes_count;
    const int64_t room_count = all_count < most_count ? all_count : most_count;
    ramp.next_table = 0;
    ramp.missing_count = missing_count;
    atomic_store(&ramp.left_count, missing_count);
    atomic_store(&ramp.has_failed, false);
    ramp.window_count = window_in_force(lanes_count);
    ramp.is_idle = is_idle;
    for (int64_t i = 0; i < lanes_count; i++) {
        lanes[i] = (struct lane){.is_elsewhere = i > 0, .connect_ns = samples_new(room_count)};
    }
    ramp.start_ns = now_ns();
    return lanes_count;
}

/* All of them end; a lane that cannot be started is done without. Returns how many there were. */
static int64_t run_lanes(int64_t lanes_count)
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
    return started_count;
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

static void emit_ramped(const struct lane *sum, int64_t target_count, int64_t lanes_count)
{
    const int64_t open_count = tables_held_count();
    const double ramp_s = (double)(sum->last_ns - ramp.start_ns) / 1e9;
    emit_begin("{\"type\":\"ramped\",\"target_count\":%" PRId64 ",\"open_count\":%" PRId64
               ",\"opened_count\":%" PRId64 ",\"tables_count\":%" PRId64 ",\"lanes_count\":%" PRId64
               ",\"window_count\":%" PRId64,
               target_count, open_count, sum->opened_count, tables_count, lanes_count, ramp.window_count);
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
    const int64_t missing_count = target_count > held_count ? target_count - held_count : 0;
    const int64_t lanes_count = prepare_lanes(missing_count, arguments[1] != 0);
    struct lane *sum = &lanes[0];
    const int64_t run_count = run_lanes(lanes_count);
    add_up(lanes_count);
    if (tables_held_count() < target_count && sum->failure.call == NULL) {
        note_failure(&sum->failure, "socket", EMFILE);
    }
    emit_ramped(sum, target_count, run_count);
    totals.samples_count += sum->opened_count;
    totals.dropped_count += sum->failure.call != NULL;
    for (int64_t i = 0; i < lanes_count; i++) {
        samples_free(&lanes[i].connect_ns);
    }
}
