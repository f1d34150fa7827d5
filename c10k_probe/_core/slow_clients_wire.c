/*
 * slow_clients_wire.c - one slow client: its socket, its request, its next byte. The contract is in
 * slow_clients.h; what each kind does is told in slow_clients.c. Sources: tcp(7), socket(7), ip(7)
 * (IP_BIND_ADDRESS_NO_PORT), RFC 9112.
 */
#include "slow_clients.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SOURCE_ADDRESS = 127 << 24 | 15 << 16 | 1, /* clear of the clients that are measured */
    SEGMENT_BYTES = 536,                       /* RFC 9293, 3.7.1: what every peer takes */
    RECEIVE_BUFFER_BYTES = 1,                  /* the kernel makes its least of it */
    RECEIVE_BYTES = 4096,
};

#define HEAD_START "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
#define HEAD_END "\r\n\r\n"
#define BODY_HEAD                                                                                         \
    "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"            \
    "Content-Length: %" PRId64 "\r\n\r\n"
#define ONE_REQUEST "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

static char *request;         /* the same for every client */
static int32_t request_bytes; /* all of it */
static int32_t swift_bytes;   /* its first so many go at once */

/* The header tells the length of the body, and its own length has a part in that: the digits settle at once. */
static int32_t write_body_request(void)
{
    char header[SLOW_REQUEST_BYTES_MIN];
    int64_t body_bytes = request_bytes;
    int header_bytes = 0;
    for (int tries = 0; tries < 3; tries++) {
        header_bytes = snprintf(header, sizeof header, BODY_HEAD, body_bytes);
        body_bytes = request_bytes - header_bytes;
    }
    header_bytes = snprintf(header, sizeof header, BODY_HEAD, body_bytes);
    request_bytes = header_bytes + (int32_t)body_bytes;
    memcpy(request, header, (size_t)header_bytes);
    return header_bytes;
}

void wire_start(void)
{
    const size_t start_bytes = sizeof HEAD_START - 1, end_bytes = sizeof HEAD_END - 1;
    const size_t one_bytes = sizeof ONE_REQUEST - 1;
    request_bytes = (int32_t)slow_settings.request_bytes;
    request = CHECK_POINTER(malloc((size_t)request_bytes + 1));
    memset(request, 'a', (size_t)request_bytes);
    switch ((enum slow_kind)slow_settings.kind) {
    case SLOW_HEAD:
        memcpy(request, HEAD_START, start_bytes);
        memcpy(request + request_bytes - end_bytes, HEAD_END, end_bytes);
        swift_bytes = 1; /* a connection that has said nothing may be kept from the server (TCP_DEFER_ACCEPT) */
        break;
    case SLOW_BODY:
        swift_bytes = write_body_request();
        break;
    case SLOW_READ:
        request_bytes -= request_bytes % (int32_t)one_bytes;
        for (size_t at = 0; at < (size_t)request_bytes; at += one_bytes) {
            memcpy(request + at, ONE_REQUEST, one_bytes);
        }
        swift_bytes = request_bytes;
        break;
    case SLOW_IDLE:
        request_bytes = 0;
        break;
    }
}

static void note_failure(const char *call, int number)
{
    if (slow_failure.call == NULL) {
        slow_failure = (struct slow_failure){.call = call, .number = number};
    }
}

/* Of connect(2): whether it is the server's, or the kernel's that speaks for it, and not ours. */
static bool is_theirs(int number)
{
    return number == ECONNREFUSED || number == ECONNRESET || number == ETIMEDOUT || number == ECONNABORTED;
}

static void set_option(int fd, int level, int option, const void *value, socklen_t bytes)
{
    CHECK(setsockopt(fd, level, option, value, bytes));
}

static void prepare(int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const int on = 1, segment_bytes = SEGMENT_BYTES, buffer_bytes = RECEIVE_BUFFER_BYTES;
    set_option(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a byte goes when it is due */
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (slow_settings.kind == SLOW_READ) {
        set_option(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
        set_option(fd, IPPROTO_TCP, TCP_MAXSEG, &segment_bytes, sizeof segment_bytes);
    }
}

/* 0 or errno, and then *call is the one that failed; EINPROGRESS is no failure. */
static int bind_and_connect(int fd, const char **call)
{
    const struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(SOURCE_ADDRESS)};
    const struct sockaddr_in server = {.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)slow_settings.port),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *call = "bind";
    if (bind(fd, (const struct sockaddr *)&source, sizeof source) != 0) {
        return errno;
    }
    *call = "connect";
    return connect(fd, (const struct sockaddr *)&server, sizeof server) == 0 ? 0 : errno;
}

void client_open(struct slow_client *client, int epoll_fd, uint32_t place)
{
    const char *call = "socket";
    *client = (struct slow_client){.fd = -1};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        note_failure(call, errno);
        return;
    }
    prepare(fd);
    int number = bind_and_connect(fd, &call);
    client->is_connected = number == 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = place};
    if (number == 0 || number == EINPROGRESS) {
        call = "epoll_ctl";
        number = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
    }
    if (number == 0) {
        client->fd = fd;
        slow_counts.connected_count += client->is_connected;
        return;
    }
    client->is_connected = false;
    close(fd);
    if (is_theirs(number)) {
        slow_counts.refused_count++;
    } else {
        note_failure(call, number);
    }
}

void client_leave(struct slow_client *client)
{
    if (client->fd >= 0) {
        close(client->fd); /* and epoll forgets it */
    }
    *client = (struct slow_client){.fd = -1};
}

/* The server, or the kernel for it, has ended it. */
static void lose(struct slow_client *client)
{
    if (client->is_connected) {
        slow_counts.ended_count++;
    } else {
        slow_counts.refused_count++;
    }
    client_leave(client);
}

static void send_some(struct slow_client *client, int32_t bytes)
{
    const ssize_t sent = send(client->fd, request + client->sent_bytes, (size_t)bytes, MSG_NOSIGNAL);
    if (sent > 0) {
        client->sent_bytes += (int32_t)sent;
        slow_counts.sent_bytes += sent;
    } else if (errno == ENOMEM || errno == ENOBUFS) {
        note_failure("send", errno);
    } else if (errno != EAGAIN && errno != EINTR) {
        lose(client);
    }
}

/* Returns what recv(2) does, errno with it. Counts. */
static ssize_t receive(struct slow_client *client, size_t most_bytes)
{
    char rubbish[RECEIVE_BYTES];
    const ssize_t got = recv(client->fd, rubbish, most_bytes, 0);
    if (got > 0) {
        client->has_answer = true;
        slow_counts.received_bytes += got;
    }
    return got;
}

static bool is_over(ssize_t got)
{
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

void client_begin(struct slow_client *client)
{
    if (swift_bytes > 0) {
        send_some(client, swift_bytes);
    }
}

static void read_slowly(struct slow_client *client)
{
    if (client->sent_bytes < request_bytes) {
        send_some(client, request_bytes - client->sent_bytes);
    }
    if (client->fd < 0) {
        return;
    }
    const ssize_t got = receive(client, 1);
    if (got > 0) {
        slow_counts.slow_bytes += got;
    } else if (is_over(got)) {
        lose(client);
    }
}

static void write_slowly(struct slow_client *client)
{
    if (client->sent_bytes < swift_bytes) { /* the start did not fit */
        send_some(client, swift_bytes - client->sent_bytes);
    } else if (client->sent_bytes < request_bytes) {
        const int64_t before = slow_counts.sent_bytes;
        send_some(client, 1);
        slow_counts.slow_bytes += slow_counts.sent_bytes - before;
    } else if (client->has_answer) {
        slow_counts.whole_count++;
        client_leave(client);
    }
}

void client_turn(struct slow_client *client)
{
    switch ((enum slow_kind)slow_settings.kind) {
    case SLOW_READ:
        read_slowly(client);
        break;
    case SLOW_HEAD:
    case SLOW_BODY:
        write_slowly(client);
        break;
    case SLOW_IDLE:
        break;
    }
}

/* Of a pending connection that failed: the end is that of connect(2). */
static void give_up(struct slow_client *client)
{
    int number = 0;
    socklen_t bytes = sizeof number;
    CHECK(getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &number, &bytes));
    if (is_theirs(number)) {
        slow_counts.refused_count++;
    } else if (number != 0) {
        note_failure("connect", number);
    } else {
        return;
    }
    client_leave(client);
}

/* A slow reader reads at its turn only; what the server reset can be read for long after, and holds nothing up. */
static void hear_while_reading(struct slow_client *client, bool is_broken)
{
    if (is_broken) {
        lose(client);
    }
}

void client_hear(struct slow_client *client, bool is_broken)
{
    if (!client->is_connected) {
        give_up(client);
        return;
    }
    if (slow_settings.kind == SLOW_READ) {
        hear_while_reading(client, is_broken);
        return;
    }
    ssize_t got;
    do {
        got = receive(client, RECEIVE_BYTES);
    } while (got > 0);
    if (!is_over(got)) {
        return;
    }
    if (client->sent_bytes == request_bytes && client->has_answer) {
        slow_counts.whole_count++;
        client_leave(client);
    } else {
        lose(client);
    }
}
