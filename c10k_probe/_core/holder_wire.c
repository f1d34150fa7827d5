/*
 * holder_wire.c - messages, what may become of them, and how a failure is reported. The contract is in
 * holder.h. Sources: send(2), recv(2), socket(7) (SO_RCVTIMEO).
 */
#include "holder.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

/* ---- messages ---- */

uint64_t take_counters(int64_t count)
{
    static _Atomic uint64_t given_count;
    return atomic_fetch_add(&given_count, (uint64_t)count);
}

void build_message(char message[static MESSAGE_BYTES_MAX], int64_t index, uint64_t counter)
{
    memcpy(message, &index, sizeof index);
    memcpy(message + sizeof index, &counter, sizeof counter);
    for (int64_t i = MESSAGE_BYTES_MIN; i < settings.message_bytes; i++) {
        message[i] = (char)(counter + (uint64_t)i);
    }
}

/* A message fits the socket buffer, so a short send means that the connection is broken. */
int send_message(int fd, const char *message)
{
    ssize_t sent = send(fd, message, (size_t)settings.message_bytes, MSG_NOSIGNAL);
    if (sent == settings.message_bytes) {
        return 0;
    }
    return sent >= 0 || errno == EAGAIN ? ETIMEDOUT : errno;
}

/* Why fewer bytes came than asked for. SO_RCVTIMEO shows as EAGAIN, or as a part of the message. */
static int why_short(int fd, ssize_t received)
{
    char next;
    if (received > 0) {
        received = recv(fd, &next, 1, MSG_DONTWAIT | MSG_PEEK);
    }
    if (received == 0) {
        return END_OF_STREAM;
    }
    return received > 0 || errno == EAGAIN ? ETIMEDOUT : errno;
}

/* MSG_WAITALL: the time-out holds for the message, not for each of its pieces. EINTR comes without a
 * handler too, when a call with a time-out was stopped and continued (signal(7)): a debugger or a frozen
 * control group is no failure. */
int receive_message(int fd, char *message, int flags)
{
    ssize_t received;
    do {
        received = recv(fd, message, (size_t)settings.message_bytes, MSG_WAITALL | flags);
    } while (received < 0 && errno == EINTR);
    return received == settings.message_bytes ? 0 : why_short(fd, received);
}

bool wait_for_events(int fd, short events, int64_t most_ms)
{
    const int64_t deadline_ns = now_ns() + most_ms * 1000000;
    struct pollfd watched = {.fd = fd, .events = events};
    int64_t left_ms = most_ms;
    int ready_count;
    while ((ready_count = poll(&watched, 1, (int)left_ms)) < 0 && errno == EINTR) {
        left_ms = (deadline_ns - now_ns()) / 1000000;
        left_ms = left_ms > 0 ? left_ms : 0;
    }
    return ready_count > 0;
}

/* The pieces of a message need not come together. */
int receive_when_there(int fd, char *message, bool is_waiting)
{
    int64_t got_bytes = 0;
    for (;;) {
        const size_t missing_bytes = (size_t)(settings.message_bytes - got_bytes);
        const ssize_t got = recv(fd, message + got_bytes, missing_bytes, MSG_DONTWAIT);
        got_bytes += got > 0 ? got : 0;
        if (got_bytes == settings.message_bytes) {
            return 0;
        }
        if (got == 0) {
            return END_OF_STREAM;
        }
        if (got < 0 && errno != EAGAIN && errno != EINTR) {
            return errno;
        }
        if (got < 0 && errno == EAGAIN && !(is_waiting && wait_for_events(fd, POLLIN, settings.timeout_ms))) {
            return ETIMEDOUT;
        }
    }
}

int compare_messages(const char *sent, const char *received)
{
    return memcmp(sent, received, (size_t)settings.message_bytes) == 0 ? 0 : EBADMSG;
}

/* ---- failures ---- */

void note_failure(struct failure *failure, const char *call, int number)
{
    if (failure->call == NULL) {
        *failure = (struct failure){.call = call, .number = number};
    }
}

void emit_failure(const struct failure *failure, int64_t at_count)
{
    if (failure->call == NULL) {
        emit_part(",\"failure\":null");
        return;
    }
    emit_part(",\"failure\":{\"call\":\"%s\",", failure->call);
    if (failure->number == END_OF_STREAM) {
        emit_part("\"errno\":null,\"name\":\"EOF\",\"message\":\"Connection closed by the server\"");
    } else {
        emit_errno(failure->number);
    }
    emit_part(",\"at_count\":%" PRId64 "}", at_count);
}
