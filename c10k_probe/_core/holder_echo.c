/*
 * holder_echo.c - the command `echo`: one timed echo after another, in shuffled order. What is timed is said
 * in connection_holder.c.
 */
#include "holder.h"

#include <inttypes.h>
#include <unistd.h>

enum { TIMEOUTS_MAX = 3 }; /* then `echo` gives up */

struct echoes {
    int64_t share_count; /* of the table whose turn it is */
    uint64_t seed;
    struct samples echo_ns;
    int64_t ok_count, failed_count, timeouts_count;
};

/* The first asked_count places become a random sample of 0..count-1 in random order (Fisher-Yates). */
static void shuffle(int32_t *order, int64_t count, int64_t asked_count, uint64_t seed)
{
    for (int64_t i = 0; i < count; i++) {
        order[i] = (int32_t)i;
    }
    for (int64_t i = 0; i < asked_count; i++) {
        const int64_t other = i + (int64_t)random_below(&seed, (uint64_t)(count - i));
        const int32_t taken = order[other];
        order[other] = order[i];
        order[i] = taken;
    }
}

/* One timed echo: 0, errno or END_OF_STREAM. */
static int echo_once(int fd, int64_t index, int64_t *echo_ns)
{
    char sent[MESSAGE_BYTES_MAX];
    build_message(sent, index, take_counters(1));
    make_blocking(fd); /* one call to sleep in, and not two: they would be part of the time */
    const int64_t before_ns = now_ns();
    int number = send_message(fd, sent);
    if (number == 0) {
        number = receive_answer(fd, sent);
    }
    *echo_ns = now_ns() - before_ns;
    return number;
}

static void echo_counted(struct table *table, struct echoes *echoes, int64_t place)
{
    int64_t echo_ns;
    const int number = echo_once(table->held.fds[place], table_index(table, place), &echo_ns);
    if (number == 0) {
        samples_add(&echoes->echo_ns, echo_ns);
        echoes->ok_count++;
        echoes->timeouts_count = 0; /* what counts is how many in a row */
        return;
    }
    echoes->failed_count++;
    echoes->timeouts_count += number == ETIMEDOUT;
    close(table->held.fds[place]);
    table->held.fds[place] = -1;
}

/* After too many time-outs the rest is not tried: counted as failed, left open (nothing is known of it). */
static void echo_table(struct table *table, void *argument)
{
    struct echoes *echoes = argument;
    const int64_t order_bytes = table->held.count * (int64_t)sizeof(int32_t);
    int32_t *order = array_new(order_bytes);
    shuffle(order, table->held.count, echoes->share_count, echoes->seed + (uint64_t)table->number);
    for (int64_t i = 0; i < echoes->share_count && echoes->timeouts_count < TIMEOUTS_MAX; i++) {
        echo_counted(table, echoes, order[i]);
    }
    compact(&table->held);
    array_free(order, order_bytes);
}

static void emit_echoed(const struct echoes *echoes, int64_t asked_count, int64_t wall_ns)
{
    const int64_t untried_count = asked_count - echoes->ok_count - echoes->failed_count;
    emit_begin("{\"type\":\"echoed\",\"asked_count\":%" PRId64 ",\"ok_count\":%" PRId64
               ",\"failed_count\":%" PRId64 ",\"untried_count\":%" PRId64,
               asked_count, echoes->ok_count, asked_count - echoes->ok_count, untried_count);
    emit_int64_array(",\"echo_ns\":", echoes->echo_ns.values, (size_t)echoes->echo_ns.count);
    emit_part(",\"echo_samples_every\":%" PRId64 ",\"wall_s\":%.9f", echoes->echo_ns.every,
              (double)wall_ns / 1e9);
    emit_finish("}");
}

/* A table's connections before those of the next one: the threads of two tables would disturb each other. */
void command_echo(const int64_t *arguments)
{
    refuse_while_backlogged("echo");
    const int64_t held_count = tables_held_count();
    const int64_t asked_count = arguments[0] > 0 && arguments[0] < held_count ? arguments[0] : held_count;
    int64_t shares[TABLES_MAX], wall_ns = 0;
    struct echoes echoes = {.seed = (uint64_t)arguments[1], .echo_ns = samples_new(samples_room(asked_count))};
    tables_share(asked_count, shares);
    for (int64_t i = 0; i < tables_count; i++) {
        const int64_t start_ns = now_ns();
        echoes.share_count = shares[i];
        table_run(&tables[i], echo_table, &echoes);
        wall_ns += now_ns() - start_ns;
    }
    emit_echoed(&echoes, asked_count, wall_ns);
    totals.samples_count += echoes.ok_count;
    totals.dropped_count += asked_count - echoes.ok_count;
    samples_free(&echoes.echo_ns);
}
