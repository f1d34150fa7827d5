/*
 * connection_holder - opens TCP connections to a server on 127.0.0.1, holds them and exchanges echoes on
 * them. It is the client of the reference server, or of anything that echoes.
 *
 * Timed:
 *   connect_ns: from just before connect(2) to just after it, one value for each new connection. socket(),
 *               the socket options and bind() are outside. On loopback the whole handshake, the server's
 *               softirq part included, runs inside this call; accept() by the server does not.
 *   ramp_s:     from the first socket() to the last first echo that came back whole; building and checking
 *               of messages are inside, arrays and printing are not.
 *   echo_ns:    from just before send(2) to just after the recv(2) that completed the message.
 *   wall_s:     all echoes of one command, with building and checking.
 * Not timed: arrays, shuffling, printing, closing.
 * Clock: CLOCK_MONOTONIC. Units: nanoseconds (_ns), seconds (_s), connections (_count).
 *
 * A connection counts as open only after its first echo. A message carries the connection's index and a
 * counter that is used once, and the rest of its bytes depend on the counter: an answer that was mixed up is
 * noticed. In a window that fails, those that have echoed stay open, the others are closed.
 * Connections come from 127.(16+K).a.b, at most 2,000 from each address, to stay far from the end of the port
 * range; the kernel picks the port at connect() (IP_BIND_ADDRESS_NO_PORT), so bind() reserves none.
 * Every socket has SO_LINGER 0 from the start: closing sends a reset and leaves no TIME_WAIT, also after
 * kill -9.
 * User memory for a held connection is 4 bytes (its descriptor). While a command runs, its samples take 8
 * bytes each (and the order of echoes 4); these arrays are mapped and touched before, and unmapped after.
 *
 * Commands, one a line on stdin:
 *   ramp N             until N are open; in windows: connect all, send on all, receive on all
 *   echo [COUNT SEED]  on each, or on COUNT of them (0: all), one after another, shuffled by SEED
 *   pairs N / unpair   both ends of N connections in this process, without a server and without epoll: the
 *                      calibration of what the kernel keeps for a connection
 *   status, close, quit (or end of file)
 *
 * Known bias:
 *   - one connection is active at a time in `echo`: this is latency of an idle server, never of a loaded one.
 *   - a closed loop: while one echo is late, none is sent (coordinated omission); time-outs are losses.
 *   - client and server share the machine, and its cores unless they are pinned apart.
 *   - connect() also contains the search for a free port, which grows with the ports in use.
 *   - a window keeps the server's accept queue filled, and connect() competes with the server for the cores.
 *
 * Sources: tcp(7), socket(7) (SO_LINGER, SO_SNDTIMEO), ip(7) (IP_BIND_ADDRESS_NO_PORT), connect(2),
 * net/ipv4/inet_hashtables.c (choice of the port), epoll(7) and clone(2) for the server's side.
 */
#include "helper.h"

#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINE_BYTES = 128,
    ARGUMENTS_MAX = 2,
    CONNECTIONS_MAX = 1000 * 1000,
    MESSAGE_BYTES_MIN = 16, /* index and counter */
    MESSAGE_BYTES_MAX = 4096, /* fits any socket buffer: a send never waits for the server to read */
    WINDOW_MAX = 4096,
    TIMEOUT_MS_MAX = 600 * 1000,
    SOURCE_NET = 127,
    SOURCE_BASE_FIRST = 16, /* 127.16.0.0: clear of 127.0.0.1 and of 127.0.0.53 and the like */
    SOURCE_BASE_MAX = 200,
    SOURCES_IN_ROW = 250,
    SOURCES_COUNT = 256 * SOURCES_IN_ROW,
    CONNECTIONS_PER_SOURCE = 2000,
    PAIRS_BACKLOG = 16,
    TIMEOUTS_MAX = 50,   /* then `echo` gives up */
    END_OF_STREAM = -1,  /* where an errno is expected: the server closed the connection */
};

/* Descriptors, in a mapping of their own so that neither the heap nor a page fault takes part. */
struct descriptors {
    int *fds;
    int64_t count, capacity;
};

/* The first failure of a command; call is NULL while there is none. */
struct failure {
    const char *call;
    int number; /* errno or END_OF_STREAM */
};

struct ramp {
    int64_t *connect_ns; /* of those that are open now, in the order of opening */
    int64_t opened_count;
    int64_t start_ns, last_echo_ns;
    struct failure failure;
};

struct echoes {
    int64_t *echo_ns;
    int64_t ok_count, failed_count, timeouts_count;
};

static int64_t server_port, source_base, window_count = 128, timeout_ms = 10000, message_bytes = 64;
static struct descriptors held, pair_ends;
static int pairs_listener_fd = -1;
static uint16_t pairs_port;
static int64_t next_serial;       /* of connections tried: decides the source address */
static uint64_t message_counter;  /* of messages sent */
static int64_t samples_count, dropped_count;

/* ---- arrays ---- */

/* Zeroed and touched, at least one page. */
static void *array_new(int64_t bytes)
{
    return CHECK_POINTER(mmap(NULL, (size_t)bytes + 1, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
}

static void array_free(void *array, int64_t bytes)
{
    CHECK(munmap(array, (size_t)bytes + 1));
}

static void reserve(struct descriptors *list, int64_t capacity)
{
    const int64_t item_bytes = (int64_t)sizeof *list->fds;
    if (capacity <= list->capacity) {
        return;
    }
    int *grown = array_new(capacity * item_bytes);
    if (list->fds != NULL) {
        memcpy(grown, list->fds, (size_t)(list->count * item_bytes));
        array_free(list->fds, list->capacity * item_bytes);
    }
    list->fds = grown;
    list->capacity = capacity;
}

/* Takes out the -1 left by connections that failed; the order stays. */
static void compact(struct descriptors *list)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < list->count; i++) {
        if (list->fds[i] >= 0) {
            list->fds[kept++] = list->fds[i];
        }
    }
    list->count = kept;
}

/* Closes all (reset, see SO_LINGER below) and gives the memory back. */
static int64_t close_all(struct descriptors *list)
{
    const int64_t closed_count = list->count;
    for (int64_t i = 0; i < list->count; i++) {
        close(list->fds[i]);
    }
    if (list->fds != NULL) {
        array_free(list->fds, list->capacity * (int64_t)sizeof *list->fds);
    }
    *list = (struct descriptors){0};
    return closed_count;
}

/* ---- failures ---- */

/* Keeps the first one. */
static void note_failure(struct failure *failure, const char *call, int number)
{
    if (failure->call == NULL) {
        *failure = (struct failure){.call = call, .number = number};
    }
}

static void emit_failure(const struct failure *failure, int64_t at_count)
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

/* ---- messages ---- */

static void build_message(char message[static MESSAGE_BYTES_MAX], int64_t index, uint64_t counter)
{
    memcpy(message, &index, sizeof index);
    memcpy(message + sizeof index, &counter, sizeof counter);
    for (int64_t i = MESSAGE_BYTES_MIN; i < message_bytes; i++) {
        message[i] = (char)(counter + (uint64_t)i);
    }
}

/* 0 or errno. A message fits the socket buffer, so a short send means that the connection is broken. */
static int send_message(int fd, const char *message)
{
    ssize_t sent = send(fd, message, (size_t)message_bytes, MSG_NOSIGNAL);
    if (sent == message_bytes) {
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

/* 0, errno or END_OF_STREAM. MSG_WAITALL: the time-out holds for the message, not for each of its pieces. */
static int receive_message(int fd, char *message, int flags)
{
    ssize_t received = recv(fd, message, (size_t)message_bytes, MSG_WAITALL | flags);
    return received == message_bytes ? 0 : why_short(fd, received);
}

static int compare_messages(const char *sent, const char *received)
{
    return memcmp(sent, received, (size_t)message_bytes) == 0 ? 0 : EBADMSG;
}

/* ---- opening ---- */

static void set_option(int fd, int level, int option, const void *value, socklen_t bytes)
{
    CHECK(setsockopt(fd, level, option, value, bytes));
}

/* What both ends have: time-outs and reset on close. */
static void prepare_socket(int fd)
{
    const int on = 1;
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    set_option(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    set_option(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    set_option(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static struct sockaddr_in loopback_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* 127.(16+K).a.b with b in 1..250; port 0: chosen at connect. */
static struct sockaddr_in source_address(int64_t serial)
{
    const uint32_t source = (uint32_t)(serial / CONNECTIONS_PER_SOURCE % SOURCES_COUNT);
    const uint32_t second = (uint32_t)(SOURCE_BASE_FIRST + source_base);
    const uint32_t host = (uint32_t)SOURCE_NET << 24 | second << 16 | source / SOURCES_IN_ROW << 8 |
                          (source % SOURCES_IN_ROW + 1);
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
}

/* 0 or errno. */
static int bind_source(int fd)
{
    const int on = 1;
    const struct sockaddr_in source = source_address(next_serial++);
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (const struct sockaddr *)&source, sizeof source) == 0 ? 0 : errno;
}

/* 0 or errno; SO_SNDTIMEO shows as EINPROGRESS (socket(7)). */
static int connect_timed(int fd, uint16_t port, int64_t *connect_ns)
{
    const struct sockaddr_in server = loopback_address(port);
    const int64_t before_ns = now_ns();
    const int result = connect(fd, (const struct sockaddr *)&server, sizeof server);
    const int number = result == 0 ? 0 : errno;
    *connect_ns = now_ns() - before_ns;
    return number == EINPROGRESS ? ETIMEDOUT : number;
}

/* A connected descriptor, or -1 with the failure noted. */
static int open_connection(uint16_t port, int64_t *connect_ns, struct failure *failure)
{
    const char *call = "bind";
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note_failure(failure, "socket", errno);
        return -1;
    }
    prepare_socket(fd);
    int number = bind_source(fd);
    if (number == 0) {
        call = "connect";
        number = connect_timed(fd, port, connect_ns);
    }
    if (number == 0) {
        return fd;
    }
    note_failure(failure, call, number);
    close(fd);
    return -1;
}

/* ---- ramp ---- */

/* Connects up to asked_count; the new ones stand behind the held ones. Returns how many. */
static int64_t connect_window(struct ramp *ramp, int64_t asked_count)
{
    int64_t connected = 0;
    while (connected < asked_count) {
        int fd = open_connection((uint16_t)server_port, &ramp->connect_ns[ramp->opened_count + connected],
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

/* One first echo: 0, errno or END_OF_STREAM. After a failure nothing is waited for any more. */
static int receive_first(const struct ramp *ramp, int fd, int64_t index, uint64_t counter)
{
    char expected[MESSAGE_BYTES_MAX], received[MESSAGE_BYTES_MAX];
    const int number = receive_message(fd, received, ramp->failure.call == NULL ? 0 : MSG_DONTWAIT);
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

/* How many addresses the held connections have, as the kernel says. */
static int64_t count_sources(void)
{
    uint8_t *seen = array_new(SOURCES_COUNT);
    int64_t sources_count = 0;
    for (int64_t i = 0; i < held.count; i++) {
        struct sockaddr_in address = {0};
        socklen_t bytes = sizeof address;
        CHECK(getsockname(held.fds[i], (struct sockaddr *)&address, &bytes));
        const uint32_t host = ntohl(address.sin_addr.s_addr);
        const uint32_t source = (host >> 8 & 0xff) * SOURCES_IN_ROW + (host & 0xff) - 1;
        sources_count += !seen[source % SOURCES_COUNT];
        seen[source % SOURCES_COUNT] = 1;
    }
    array_free(seen, SOURCES_COUNT);
    return sources_count;
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
    emit_part(",\"source_addresses_count\":%" PRId64, count_sources());
    emit_failure(&ramp->failure, held.count);
    emit_finish("}");
}

static void command_ramp(const int64_t *arguments)
{
    const int64_t target_count = arguments[0];
    const int64_t missing_count = target_count > held.count ? target_count - held.count : 0;
    const int64_t bytes = missing_count * (int64_t)sizeof(int64_t);
    struct ramp ramp = {.connect_ns = array_new(bytes)};
    reserve(&held, target_count);
    ramp.start_ns = ramp.last_echo_ns = now_ns();
    while (held.count < target_count && ramp.failure.call == NULL) {
        const int64_t left_count = target_count - held.count;
        const int64_t asked_count = left_count < window_count ? left_count : window_count;
        const int64_t connected = connect_window(&ramp, asked_count);
        send_window(&ramp, connected);
        receive_window(&ramp, connected);
    }
    emit_ramped(&ramp, target_count);
    samples_count += ramp.opened_count;
    dropped_count += ramp.failure.call != NULL;
    array_free(ramp.connect_ns, bytes);
}

/* ---- echo ---- */

/* splitmix64 (Steele, Lea, Flood 2014): the same order for the same seed on every machine. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebU;
    return mixed ^ mixed >> 31;
}

/* 0..limit-1, without the bias of a plain remainder. */
static uint64_t random_below(uint64_t *state, uint64_t limit)
{
    const uint64_t uneven = (0 - limit) % limit;
    uint64_t value;
    do {
        value = next_random(state);
    } while (value < uneven);
    return value % limit;
}

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
static void command_echo(const int64_t *arguments)
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
    samples_count += echoes.ok_count;
    dropped_count += asked_count - echoes.ok_count;
    array_free(order, order_bytes);
    array_free(echoes.echo_ns, sample_bytes + (int64_t)sizeof(int64_t));
}

/* ---- pairs ---- */

static void open_pairs_listener(void)
{
    struct sockaddr_in address = loopback_address(0);
    socklen_t bytes = sizeof address;
    pairs_listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(bind(pairs_listener_fd, (struct sockaddr *)&address, bytes));
    CHECK(listen(pairs_listener_fd, PAIRS_BACKLOG));
    CHECK(getsockname(pairs_listener_fd, (struct sockaddr *)&address, &bytes));
    pairs_port = ntohs(address.sin_port);
}

/* One message from one end to the other: 0, errno or END_OF_STREAM. */
static int pass_message(int from_fd, int to_fd)
{
    char sent[MESSAGE_BYTES_MAX], received[MESSAGE_BYTES_MAX];
    build_message(sent, from_fd, message_counter++);
    int number = send_message(from_fd, sent);
    if (number == 0) {
        number = receive_message(to_fd, received, 0);
    }
    return number == 0 ? compare_messages(sent, received) : number;
}

/* The accepted end of the connection that was just opened, used once each way; -1 with the failure noted. */
static int accept_pair(int client_fd, struct failure *failure)
{
    const int fd = accept4(pairs_listener_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        note_failure(failure, "accept4", errno);
        return -1;
    }
    prepare_socket(fd);
    int number = pass_message(client_fd, fd);
    if (number == 0) {
        number = pass_message(fd, client_fd);
    }
    if (number == 0) {
        return fd;
    }
    note_failure(failure, "recv", number);
    close(fd);
    return -1;
}

static void make_pair(struct failure *failure)
{
    int64_t connect_ns;
    const int client_fd = open_connection(pairs_port, &connect_ns, failure);
    if (client_fd < 0) {
        return;
    }
    const int server_fd = accept_pair(client_fd, failure);
    if (server_fd < 0) {
        close(client_fd);
        return;
    }
    pair_ends.fds[pair_ends.count++] = client_fd;
    pair_ends.fds[pair_ends.count++] = server_fd;
}

static void command_pairs(const int64_t *arguments)
{
    struct failure failure = {0};
    if (pairs_listener_fd < 0) {
        open_pairs_listener();
    }
    reserve(&pair_ends, 2 * arguments[0]);
    while (pair_ends.count < 2 * arguments[0] && failure.call == NULL) {
        make_pair(&failure);
    }
    emit_begin("{\"type\":\"paired\",\"target_count\":%" PRId64 ",\"pairs_count\":%" PRId64, arguments[0],
               pair_ends.count / 2);
    emit_failure(&failure, pair_ends.count / 2);
    emit_finish("}");
}

static int64_t close_pairs(void)
{
    if (pairs_listener_fd >= 0) {
        close(pairs_listener_fd);
        pairs_listener_fd = -1;
    }
    return close_all(&pair_ends) / 2;
}

/* ---- commands ---- */

static void command_unpair(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"unpaired\",\"closed_count\":%" PRId64 "}", close_pairs());
}

static void command_status(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"status\",\"open_count\":%" PRId64 ",\"pairs_count\":%" PRId64 "}", held.count,
         pair_ends.count / 2);
}

static void command_close(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"closed\",\"closed_count\":%" PRId64 "}", close_all(&held));
}

static const struct command {
    const char *name;
    void (*obey)(const int64_t *arguments);
    int64_t first_maximum; /* of the first argument */
    int arguments_min, arguments_max;
} commands[] = {
    {"ramp", command_ramp, CONNECTIONS_MAX, 1, 1}, {"echo", command_echo, CONNECTIONS_MAX, 0, 2},
    {"pairs", command_pairs, CONNECTIONS_MAX / 2, 1, 1}, {"unpair", command_unpair, 0, 0, 0},
    {"status", command_status, 0, 0, 0}, {"close", command_close, 0, 0, 0},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    usage("unknown command \"%s\"; known: ramp, echo, pairs, unpair, status, close, quit", name);
}

static int64_t read_argument(const char *word, int64_t maximum)
{
    char *end;
    errno = 0;
    const int64_t value = strtoll(word, &end, 10);
    if (*end != '\0' || errno != 0 || value < 0 || value > maximum) {
        usage("argument \"%s\" is not a number in 0..%" PRId64, word, maximum);
    }
    return value;
}

/* One line, its words separated by blanks. False for `quit`. */
static bool obey_line(char *line)
{
    int64_t arguments[ARGUMENTS_MAX] = {0};
    int count = 0;
    char *rest = NULL;
    const char *name = strtok_r(line, " \n", &rest);
    if (name == NULL) {
        return true;
    }
    if (strcmp(name, "quit") == 0) {
        return false;
    }
    const struct command *command = find_command(name);
    for (const char *word; (word = strtok_r(NULL, " \n", &rest)) != NULL; count++) {
        if (count == command->arguments_max) {
            usage("%s takes at most %d arguments", name, command->arguments_max);
        }
        arguments[count] = read_argument(word, count == 0 ? command->first_maximum : INT64_MAX);
    }
    if (count < command->arguments_min) {
        usage("%s takes at least %d arguments", name, command->arguments_min);
    }
    command->obey(arguments);
    return true;
}

static void obey_commands(void)
{
    char line[LINE_BYTES];
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strchr(line, '\n') == NULL && !feof(stdin)) {
            usage("a command is at most %d bytes", LINE_BYTES - 2);
        }
        if (!obey_line(line)) {
            return;
        }
    }
}

int main(int argc, char **argv)
{
    const struct helper_option options[] = {
        {.name = "--port", .number = &server_port, .minimum = 1, .maximum = UINT16_MAX, .required = true},
        {.name = "--source-base", .number = &source_base, .minimum = 0, .maximum = SOURCE_BASE_MAX},
        {.name = "--window", .number = &window_count, .minimum = 1, .maximum = WINDOW_MAX},
        {.name = "--timeout-ms", .number = &timeout_ms, .minimum = 1, .maximum = TIMEOUT_MS_MAX},
        {.name = "--message-bytes",
         .number = &message_bytes,
         .minimum = MESSAGE_BYTES_MIN,
         .maximum = MESSAGE_BYTES_MAX},
    };
    helper_parse("connection_holder", argc, argv, options, ARRAY_COUNT(options));
    helper_start("connection_holder");
    obey_commands();
    close_all(&held);
    close_pairs();
    helper_end(samples_count, dropped_count);
    return 0;
}
