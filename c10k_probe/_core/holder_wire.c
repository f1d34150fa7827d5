/*
 * holder_wire.c - messages, what may become of them, and how a failure is reported. The contract is in
 * holder.h. Sources: send(2), recv(2), socket(7) (SO_RCVTIMEO), sigaction(2).
 */
#include "holder.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    LOOK_MS = 50,        /* a waiting thread that got no signal itself looks so often whether patience has ended */
    IMPATIENT_MS = 1000, /* an answer that is on its way has come by then */
};

static char request[MESSAGE_BYTES_MAX]; /* over HTTP every message is the same */
static atomic_bool is_impatient;

/* ---- messages ---- */

void prepare_wire(void)
{
    if (settings.path == NULL) {
        if (settings.body != NULL) {
            usage("--body is of an answer over HTTP; add --path");
        }
        return;
    }
    const int bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%" PRId64 "\r\n\r\n",
                               settings.path, settings.port);
    if (settings.path[0] != '/' || strpbrk(settings.path, " \r\n\t") != NULL || bytes >= (int)sizeof request) {
        usage("--path \"%s\" is not a path that begins with / and has no blanks", settings.path);
    }
    settings.message_bytes = bytes;
}

uint64_t take_counters(int64_t count)
{
    static _Atomic uint64_t given_count;
    return atomic_fetch_add(&given_count, (uint64_t)count);
}

void build_message(char message[static MESSAGE_BYTES_MAX], int64_t index, uint64_t counter)
{
    if (settings.path != NULL) {
        memcpy(message, request, (size_t)settings.message_bytes);
        return;
    }
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

/* ---- answers ---- */

int64_t answer_room(const struct answer *answer)
{
    return answer->http == NULL ? settings.message_bytes - answer->received_bytes + 1 : PIECE_BYTES_MAX;
}

int answer_take(struct answer *answer, const char *message, const char *piece, int64_t bytes)
{
    const int64_t had_bytes = answer->received_bytes;
    answer->received_bytes += bytes;
    if (answer->http != NULL) {
        return http_take(answer->http, piece, bytes);
    }
    const bool is_right = answer->received_bytes <= settings.message_bytes &&
                          memcmp(message + had_bytes, piece, (size_t)bytes) == 0;
    return is_right ? 0 : EBADMSG;
}

bool answer_is_whole(const struct answer *answer)
{
    return answer->http == NULL ? answer->received_bytes == settings.message_bytes : http_is_whole(answer->http);
}

/* MSG_WAITALL: the time-out holds for the message, not for each of its pieces. EINTR comes without a
 * handler too, when a call with a time-out was stopped and continued (signal(7)): a debugger or a frozen
 * control group is no failure. */
int receive_message(int fd, const char *message)
{
    char received[MESSAGE_BYTES_MAX];
    ssize_t got;
    do {
        got = recv(fd, received, (size_t)settings.message_bytes, MSG_WAITALL);
    } while (got < 0 && errno == EINTR);
    if (got != settings.message_bytes) {
        return why_short(fd, got);
    }
    return memcmp(message, received, (size_t)settings.message_bytes) == 0 ? 0 : EBADMSG;
}

/* Pieces as they come, until the answer is whole: what to do when nothing is there decides `flags` and
 * `is_waiting`. */
static int receive_pieces(int fd, const char *message, int flags, bool is_waiting)
{
    char piece[PIECE_BYTES_MAX];
    struct http_answer http = {0};
    struct answer answer = {.http = settings.path == NULL ? NULL : &http};
    while (!answer_is_whole(&answer)) {
        const ssize_t got = recv(fd, piece, (size_t)answer_room(&answer), flags);
        int number = got > 0 ? answer_take(&answer, message, piece, got) : got == 0 ? END_OF_STREAM : errno;
        if (got < 0 && number == EINTR) {
            continue;
        }
        if (got < 0 && number == EAGAIN) {
            number = is_waiting && wait_for_events(fd, POLLIN, settings.timeout_ms) ? 0 : ETIMEDOUT;
        }
        if (number != 0) {
            return number;
        }
    }
    return 0;
}

int receive_answer(int fd, const char *message)
{
    return settings.path == NULL ? receive_message(fd, message) : receive_pieces(fd, message, 0, false);
}

/* The pieces of a message need not come together. */
int receive_when_there(int fd, const char *message, bool is_waiting)
{
    return receive_pieces(fd, message, MSG_DONTWAIT, is_waiting);
}

/* ---- waiting ---- */

static void lose_patience(int number)
{
    (void)number;
    atomic_store(&is_impatient, true);
}

void heed_impatience(void)
{
    const struct sigaction action = {.sa_handler = lose_patience, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL));
}

void wait_patiently(void)
{
    atomic_store(&is_impatient, false);
}

int64_t patience_ms(int64_t most_ms)
{
    return atomic_load(&is_impatient) && most_ms > IMPATIENT_MS ? IMPATIENT_MS : most_ms;
}

bool wait_for_events(int fd, short events, int64_t most_ms)
{
    const int64_t start_ns = now_ns();
    struct pollfd watched = {.fd = fd, .events = events};
    int64_t left_ms = most_ms;
    do {
        if (poll(&watched, 1, (int)(left_ms < LOOK_MS ? left_ms : LOOK_MS)) > 0) {
            return true;
        }
        left_ms = patience_ms(most_ms) - (now_ns() - start_ns) / 1000000;
    } while (left_ms > 0);
    return false;
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
    } else if (failure->number == CLOSES) {
        emit_part("\"errno\":null,\"name\":\"CLOSES\",\"message\":\"Answered, and closes the connection\"");
    } else if (failure->number >= HTTP_STATUS) {
        const int status = failure->number - HTTP_STATUS;
        emit_part("\"errno\":null,\"name\":\"HTTP\",\"message\":\"Answered with status %d\"", status);
    } else {
        emit_errno(failure->number);
    }
    emit_part(",\"at_count\":%" PRId64 "}", at_count);
}
