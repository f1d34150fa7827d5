/*
 * holder_ramp.c - the command `ramp`: opens connections in windows, each counted after its first echo. What
 * is timed is said in connection_holder.c.
 */
#include "holder.h"

#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct ramp {
    int64_t *connect_ns; /* of those that are open now, in the order of opening */
    int64_t opened_count;
    int64_t start_ns, last_echo_ns;
    struct failure failure;
};

/* Connects up to asked_count; the new ones stand behind the held ones. Returns how many. */
static int64_t connect_window(struct ramp *ramp, int64_t asked_count)
{
    int64_t connected = 0;
    while (connected < asked_count) {
        int fd = open_connection((uint16_t)settings.port, &ramp->connect_ns[ramp->opened_count + connected],
                                 &ramp->failure);
        if (fd < 0) {
            break;
        }
        held.fds[held.count + connected++] = fd;
    }
    return connected;
}

static void send_window(struct ramp *ramp, int64_t connected_count)
{
    char message[MESSAGE_BYTES_MAX];
    for (int64_t i = 0; i < connected_count; i++) {
        int *fd = &held.fds[held.count + i];
        build_message(message, held.count + i, message_counter + (uint64_t)i);
        const int number = send_message(*fd, message);
        if (number != 0) {
            note_failure(&ramp->failure, "send", number);
            close(*fd);
            *fd = -1;
        }
    }
}

/* Once an echo failed to come, nothing is waited for any more: whatever stopped the server stopped it for all. A
 * socket() or connect() that failed says nothing of those that are connected already. */
static int receive_flags(const struct failure *failure)
{
    return failure->call != NULL && strcmp(failure->call, "recv") == 0 ? MSG_DONTWAIT : 0;
}

/* One first echo: 0, errno or END_OF_STREAM. */
static int receive_first(const struct ramp *ramp, int fd, int64_t index, uint64_t counter)
{
    char expected[MESSAGE_BYTES_MAX], received[MESSAGE_BYTES_MAX];
    const int number = receive_message(fd, received, receive_flags(&ramp->failure));
    if (number != 0) {
        return number;
    }
    build_message(expected, index, counter);
    return compare_messages(expected, received);
}

/* Those that echoed move up to the held ones, their samples with them; the others are closed. */
static void receive_window(struct ramp *ramp, int64_t connected_count)
{
    const int64_t first_index = held.count, first_sample = ramp->opened_count;
    for (int64_t i = 0; i < connected_count; i++) {
        const int fd = held.fds[first_index + i];
        if (fd < 0) {
            continue;
        }
        const int number = receive_first(ramp, fd, first_index + i, message_counter + (uint64_t)i);
        if (number != 0) {
            note_failure(&ramp->failure, "recv", number);
            close(fd);
            continue;
        }
        ramp->last_echo_ns = now_ns();
        held.fds[held.count++] = fd;
        ramp->connect_ns[ramp->opened_count++] = ramp->connect_ns[first_sample + i];
    }
    message_counter += (uint64_t)connected_count;
}

static void emit_ramped(const struct ramp *ramp, int64_t target_count)
{
    const double ramp_s = (double)(ramp->last_echo_ns - ramp->start_ns) / 1e9;
    emit_begin("{\"type\":\"ramped\",\"target_count\":%" PRId64 ",\"open_count\":%" PRId64
               ",\"opened_count\":%" PRId64,
               target_count, held.count, ramp->opened_count);
    if (ramp->opened_count > 0) {
        const double rate_per_s = (double)ramp->opened_count / ramp_s;
        emit_part(",\"ramp_s\":%.9f,\"connect_rate_per_s\":%.3f", ramp_s, rate_per_s);
    } else {
        emit_part(",\"ramp_s\":null,\"connect_rate_per_s\":null");
    }
    emit_int64_array(",\"connect_ns\":", ramp->connect_ns, (size_t)ramp->opened_count);
    emit_failure(&ramp->failure, held.count);
    emit_finish("}");
}

void command_ramp(const int64_t *arguments)
{
    const int64_t target_count = arguments[0];
    const int64_t missing_count = target_count > held.count ? target_count - held.count : 0;
    const int64_t bytes = missing_count * (int64_t)sizeof(int64_t);
    struct ramp ramp = {.connect_ns = array_new(bytes)};
    reserve(&held, target_count);
    ramp.start_ns = ramp.last_echo_ns = now_ns();
    while (held.count < target_count && ramp.failure.call == NULL) {
        const int64_t left_count = target_count - held.count;
        const int64_t asked_count = left_count < settings.window_count ? left_count : settings.window_count;
        const int64_t connected = connect_window(&ramp, asked_count);
        send_window(&ramp, connected);
        receive_window(&ramp, connected);
    }
    emit_ramped(&ramp, target_count);
    totals.samples_count += ramp.opened_count;
    totals.dropped_count += ramp.failure.call != NULL;
    array_free(ramp.connect_ns, bytes);
}
