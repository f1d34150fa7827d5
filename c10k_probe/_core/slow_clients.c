/*
 * slow_clients.c - plays many clients that are slow, to see what becomes of a server's other clients. It
 * connects to 127.0.0.1 and nowhere else: there is no option for an address.
 *
 * Kinds (--kind), each with one connection a client, kept as long as the server keeps it:
 *   head   a request whose header comes a byte at a time, the first at once, and is not whole before
 *          --request-bytes
 *   body   a whole header that announces a body, which comes a byte at a time; --request-bytes in all
 *   read   --request-bytes of whole requests at once, without a pause, whose answers are read a byte at a
 *          time with the smallest receive buffer and segments of 536 bytes, so that the server cannot get rid
 *          of them
 *   idle   says nothing
 * A byte is due every --interval-ms for each client, and the clients' turns are spread evenly over the
 * interval. What is not sent as the socket takes no more is tried again at the next turn.
 *
 * A client whose connection the server ends, or refuses, opens another at its next turn, as does one whose
 * request came to its end: their number stays what it was set to. A client that cannot get a descriptor, port
 * or memory is a failure on this side, told in every answer.
 *
 * Commands, one a line on stdin:
 *   clients N   so many from now on, answered when each new one has asked for its connection; with 0 all leave
 *   status      how it stands
 *   quit        or end of file
 * The first two answer `clients`, with the counts since the start and
 *   open_count, pending_count: connections that stand, and those whose handshake is not over: the server's
 *                              accept queue is full
 *   latest_turn_ns:            how late the most belated turn was
 *   cpu_ns:                    CPU time of this process
 *
 * Timed: latest_turn_ns, from the moment at which a turn was due to its beginning. Not timed: all else. Clock:
 * CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID. Units: nanoseconds (_ns), bytes of payload (_bytes), the others
 * counts.
 *
 * User memory for a client is 12 bytes. Connections come from 127.15.0.1, with ports of the kernel's choice.
 * Every socket has SO_LINGER 0: closing sends a reset and leaves no TIME_WAIT, also after kill -9.
 *
 * Known bias: turns are looked at each hundredth of the interval, but no sooner than after 5 ms and no later than
 * after 10, so that bytes go in small groups. `read` asks by many small requests on one connection (pipelining,
 * RFC 9112, 9.3.2), as not every server has a large answer.
 *
 * The parts: slow_clients.h (what they share), slow_clients_crowd.c (all of them), slow_clients_wire.c (one).
 *
 * Sources: tcp(7) (TCP_MAXSEG), socket(7) (SO_RCVBUF, SO_LINGER), epoll(7) (EPOLLET), connect(2), RFC 9112.
 */
#include "slow_clients.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LINE_BYTES = 128,
    INTERVAL_MS_MAX = 3600 * 1000,
};

struct slow_settings slow_settings = {.kind = SLOW_HEAD, .interval_ms = 1000, .request_bytes = 4096};
struct slow_counts slow_counts;
struct slow_failure slow_failure;

static int64_t cpu_time_ns(void)
{
    struct timespec spent;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent));
    return (int64_t)spent.tv_sec * 1000000000 + spent.tv_nsec;
}

static void emit_clients(void)
{
    int64_t open_count, pending_count;
    crowd_count(&open_count, &pending_count);
    emit_begin("{\"type\":\"clients\",\"clients_count\":%" PRId64 ",\"open_count\":%" PRId64
               ",\"pending_count\":%" PRId64,
               crowd_clients_count(), open_count, pending_count);
    emit_part(",\"connected_count\":%" PRId64 ",\"ended_count\":%" PRId64 ",\"refused_count\":%" PRId64
              ",\"whole_count\":%" PRId64,
              slow_counts.connected_count, slow_counts.ended_count, slow_counts.refused_count,
              slow_counts.whole_count);
    emit_part(",\"sent_bytes\":%" PRId64 ",\"slow_bytes\":%" PRId64 ",\"received_bytes\":%" PRId64
              ",\"latest_turn_ns\":%" PRId64 ",\"cpu_ns\":%" PRId64 ",\"failure\":",
              slow_counts.sent_bytes, slow_counts.slow_bytes, slow_counts.received_bytes,
              slow_counts.latest_turn_ns, cpu_time_ns());
    if (slow_failure.call == NULL) {
        emit_finish("null}");
        return;
    }
    emit_part("{\"call\":");
    emit_string(slow_failure.call);
    emit_part(",");
    emit_errno(slow_failure.number);
    emit_finish("}}");
}

static int64_t read_count(const char *word)
{
    char *end;
    errno = 0;
    const int64_t value = strtoll(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || value < 0 || value > SLOW_CLIENTS_MAX) {
        usage("\"%s\" is not a number of clients in 0..%d", word, SLOW_CLIENTS_MAX);
    }
    return value;
}

/* False for `quit`. */
static bool obey_line(char *line)
{
    char *rest = NULL;
    const char *name = strtok_r(line, " ", &rest);
    const char *argument = name == NULL ? NULL : strtok_r(NULL, " ", &rest);
    if (name == NULL) {
        return true;
    }
    if (strcmp(name, "quit") == 0) {
        return false;
    }
    const bool is_setting = strcmp(name, "clients") == 0;
    if (!is_setting && strcmp(name, "status") != 0) {
        usage("unknown command \"%s\"; known: clients, status, quit", name);
    }
    if (is_setting != (argument != NULL) || (argument != NULL && strtok_r(NULL, " ", &rest) != NULL)) {
        usage("%s takes %s", name, is_setting ? "one argument" : "no argument");
    }
    if (is_setting) {
        crowd_set(read_count(argument));
    }
    emit_clients();
    return true;
}

/* What stdin has now, once it has something. False at its end and for `quit`. */
static bool obey_commands(void)
{
    static char text[LINE_BYTES];
    static size_t used;
    const ssize_t got = read(STDIN_FILENO, text + used, sizeof text - used);
    if (got <= 0) {
        return got < 0 && errno == EINTR;
    }
    used += (size_t)got;
    for (char *end; (end = memchr(text, '\n', used)) != NULL;) {
        *end = '\0';
        if (!obey_line(text)) {
            return false;
        }
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used);
    }
    if (used == sizeof text) {
        usage("a command is at most %d bytes", LINE_BYTES - 1);
    }
    return true;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"head", "body", "read", "idle", NULL};
    const struct helper_option options[] = {
        {.name = "--port",
         .number = &slow_settings.port,
         .minimum = 1,
         .maximum = UINT16_MAX,
         .required = true},
        {.name = "--kind", .number = &slow_settings.kind, .choices = kinds},
        {.name = "--interval-ms",
         .number = &slow_settings.interval_ms,
         .minimum = SLOW_INTERVAL_MS_MIN,
         .maximum = INTERVAL_MS_MAX},
        {.name = "--request-bytes",
         .number = &slow_settings.request_bytes,
         .minimum = SLOW_REQUEST_BYTES_MIN,
         .maximum = SLOW_REQUEST_BYTES_MAX},
    };
    helper_parse("slow_clients", argc, argv, options, ARRAY_COUNT(options));
    helper_start("slow_clients");
    wire_start();
    crowd_start();
    do {
        while (!crowd_step()) {
        }
    } while (obey_commands());
    crowd_set(0);
    helper_end(slow_counts.slow_bytes, 0);
    return 0;
}
