/*
 * holder_echo.c - the command `echo`: one timed echo after another, in shuffled order. What is timed is said
 * in connection_holder.c.
 */
#include "holder.h"

#include <inttypes.h>
#include <unistd.h>

enum { TIMEOUTS_MAX = 3 }; /* then `echo` gives up */

struct echoes {
    int64_t *echo_ns;
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
    char sent[MESSAGE_BYTES_MAX], received[MESSAGE_BYTES_MAX];
    build_message(sent, index, message_counter++);
    const int64_t before_ns = now_ns();
    int number = send_message(fd, sent);
    if (number == 0) {
        number = receive_message(fd, received, 0);
    }
    *echo_ns = now_ns() - before_ns;
    return number == 0 ? compare_messages(sent, received) : number;
}

static void echo_counted(struct echoes *echoes, int64_t index)
{
    const int number = echo_once(held.fds[index], index, &echoes->echo_ns[echoes->ok_count]);
    if (number == 0) {
        echoes->ok_count++;
        echoes->timeouts_count = 0; /* what counts is how many in a row */
        return;
    }
    echoes->failed_count++;
    echoes->timeouts_count += number == ETIMEDOUT;
    close(held.fds[index]);
    held.fds[index] = -1;
}

static void emit_echoed(const struct echoes *echoes, int64_t asked_count, int64_t wall_ns)
{
    const int64_t untried_count = asked_count - echoes->ok_count - echoes->failed_count;
    emit_begin("{\"type\":\"echoed\",\"asked_count\":%" PRId64 ",\"ok_count\":%" PRId64
               ",\"failed_count\":%" PRId64 ",\"untried_count\":%" PRId64,
               asked_count, echoes->ok_count, asked_count - echoes->ok_count, untried_count);
    emit_int64_array(",\"echo_ns\":", echoes->echo_ns, (size_t)echoes->ok_count);
    emit_part(",\"wall_s\":%.9f", (double)wall_ns / 1e9);
    emit_finish("}");
}

/* After too many time-outs the rest is not tried: counted as failed, left open (nothing is known of it). */
void command_echo(const int64_t *arguments)
{
    const int64_t asked_count = arguments[0] > 0 && arguments[0] < held.count ? arguments[0] : held.count;
    const int64_t order_bytes = held.count * (int64_t)sizeof(int32_t);
    const int64_t sample_bytes = asked_count * (int64_t)sizeof(int64_t);
    int32_t *order = array_new(order_bytes);
    struct echoes echoes = {.echo_ns = array_new(sample_bytes + (int64_t)sizeof(int64_t))};
    shuffle(order, held.count, asked_count, (uint64_t)arguments[1]);
    const int64_t start_ns = now_ns();
    for (int64_t i = 0; i < asked_count && echoes.timeouts_count < TIMEOUTS_MAX; i++) {
        echo_counted(&echoes, order[i]);
    }
    const int64_t wall_ns = now_ns() - start_ns;
    compact(&held);
    emit_echoed(&echoes, asked_count, wall_ns);
    totals.samples_count += echoes.ok_count;
    totals.dropped_count += asked_count - echoes.ok_count;
    array_free(order, order_bytes);
    array_free(echoes.echo_ns, sample_bytes + (int64_t)sizeof(int64_t));
}
