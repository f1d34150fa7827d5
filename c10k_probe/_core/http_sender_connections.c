/*
 * http_sender_connections.c - the connections of http_sender: opening, sending, receiving, and what is too old. The
 * contract is in http_sender.h.
 *
 * Sources: epoll(7) (edge-triggered: read until EAGAIN), connect(2) (EINPROGRESS), socket(7) (SO_LINGER), ip(7)
 * (IP_BIND_ADDRESS_NO_PORT), RFC 9112.
 */
#include "http_sender.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    READ_BYTES = 16 * 1024,
    REQUEST_BYTES_MAX = 2048,
    SOURCE_NET = 127,
    SOURCE_BASE_FIRST = 16, /* 127.16.0.0 and on, as the connection holder has it */
    SOURCES_IN_ROW = 250,
    PORT_FIRST = 32768,
    PORTS_COUNT = 28 * 1000,
    BIND_TRIES_MAX = 1000,
};

struct own_failure own_failure;

static char request[REQUEST_BYTES_MAX];
static int32_t request_bytes;
static int epoll_fd = -1;
static ended *on_ended;
static int64_t opened_count, next_source;

void request_build(void)
{
    const char *close_line = asked.keeps_alive ? "" : "Connection: close\r\n";
    const int bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", asked.path,
                               (int)asked.port, close_line);
    if (bytes >= (int)sizeof request) {
        usage("--path is too long");
    }
    request_bytes = bytes;
}

/* ---- opening ---- */

static bool note_own_failure(const char *call, int number)
{
    if (own_failure.call == NULL) {
        own_failure = (struct own_failure){.call = call, .number = number};
    }
    return false;
}

/* 127.(16+K).a.b, one after the other: no port comes back before all others were used. Where to begin is the process's
 * own, so that two senders that run at once do not pass over each other's ports. */
static bool bind_source(int fd)
{
    for (int tries = 0; tries < BIND_TRIES_MAX; tries++) {
        const int64_t serial = next_source++;
        const uint32_t row = (uint32_t)((getpid() + serial / PORTS_COUNT) % ((int64_t)256 * SOURCES_IN_ROW));
        const uint32_t host = (uint32_t)SOURCE_NET << 24 | (uint32_t)(SOURCE_BASE_FIRST + asked.source_base) << 16 |
                              row / SOURCES_IN_ROW << 8 | (row % SOURCES_IN_ROW + 1);
        const uint16_t port = (uint16_t)(PORT_FIRST + serial % PORTS_COUNT);
        const struct sockaddr_in source = {
            .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
        if (port == asked.port) {
            continue; /* an end of a connection is told from the other by its port */
        }
        if (bind(fd, (const struct sockaddr *)&source, sizeof source) == 0) {
            return true;
        }
        if (errno != EADDRINUSE) {
            break;
        }
    }
    return note_own_failure("bind", errno);
}

static int open_socket(void)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT stays */
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        note_own_failure("socket", errno);
        return -1;
    }
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
    if (!bind_source(fd)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* 0, or the errno of the server's refusal, or -1: this process could open none. */
static int place_open(int32_t number)
{
    struct place *place = &places[number];
    const struct sockaddr_in server = {.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)asked.port),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = open_socket();
    if (fd < 0) {
        return -1;
    }
    opened_count++;
    const int result = connect(fd, (const struct sockaddr *)&server, sizeof server);
    if (result != 0 && errno != EINPROGRESS) {
        const int error_number = errno;
        close(fd);
        return error_number;
    }
    place->fd = fd;
    place->generation++;
    place->is_connected = result == 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u64 = (uint64_t)place->generation << 32 | (uint32_t)number};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
    return 0;
}

static void place_close(struct place *place)
{
    if (place->fd >= 0) {
        close(place->fd); /* epoll forgets it by that */
        place->fd = -1;
        place->is_connected = false;
    }
}

/* ---- a request's end ---- */

/* The request is over; the connection goes on only after a good answer on a connection that is to be kept. */
static void end_request(int32_t number, enum outcome outcome, int64_t at_ns)
{
    struct place *place = &places[number];
    const bool is_kept = asked.keeps_alive && !place->answer.is_last && (outcome == ANSWERED || outcome == WRONG) &&
                         place->answer.status != 0;
    places_leave_busy(number);
    if (!is_kept) {
        place_close(place);
    }
    places_give_back(number);
    on_ended(number, outcome, place->request, place->due_ns, at_ns);
}

/* ---- sending and receiving ---- */

static enum outcome outcome_of(int error_number)
{
    return error_number == ECONNREFUSED ? REFUSED : error_number == ETIMEDOUT ? TIMED_OUT : RESET;
}

/* False: the request has ended by it. */
static bool send_rest(int32_t number)
{
    struct place *place = &places[number];
    while (place->sent_bytes < request_bytes) {
        const ssize_t sent = send(place->fd, request + place->sent_bytes, (size_t)(request_bytes - place->sent_bytes),
                                  MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN || errno == ENOTCONN) {
                return true;
            }
            end_request(number, outcome_of(errno), now_ns());
            return false;
        }
        place->is_connected = true;
        place->sent_bytes += (int32_t)sent;
    }
    return true;
}

void place_send(int32_t number, int64_t request_number, int64_t due_ns)
{
    struct place *place = &places[number];
    place->request = request_number;
    place->due_ns = due_ns;
    place->sent_bytes = 0;
    place->answer = (struct answer){0};
    places_join_busy(number);
    const int result = place->fd >= 0 ? 0 : place_open(number);
    if (result != 0) {
        end_request(number, result < 0 ? UNSENT : outcome_of(result), now_ns());
        return;
    }
    send_rest(number);
}

/* The stream is over, well or badly. */
static void take_end(int32_t number, int error_number, int64_t at_ns)
{
    struct place *place = &places[number];
    if (!place->is_busy) {
        place_close(place); /* the server does not keep what is idle: opened again when it is needed */
    } else if (error_number == 0 && answer_ends_by_close(&place->answer)) {
        end_request(number, place->answer.status / 100 == 2 ? ANSWERED : WRONG, at_ns);
    } else {
        end_request(number, outcome_of(error_number), at_ns);
    }
}

/* Until EAGAIN, or the end of the answer or of the stream. */
static void receive(int32_t number)
{
    struct place *place = &places[number];
    char bytes[READ_BYTES];
    for (;;) {
        const ssize_t got = recv(place->fd, bytes, sizeof bytes, 0);
        const int error_number = got < 0 ? errno : 0;
        const int64_t at_ns = now_ns();
        if (error_number == EAGAIN) {
            return;
        }
        if (error_number == EINTR) {
            continue;
        }
        if (got <= 0) {
            take_end(number, error_number, at_ns);
            return;
        }
        if (!place->is_busy) {
            place_close(place); /* an answer that nobody asked for */
            return;
        }
        const enum reading reading = answer_take(&place->answer, bytes, (size_t)got);
        if (reading == READING_WRONG) {
            place->answer.is_last = true;
            end_request(number, WRONG, at_ns);
            return;
        }
        if (reading == READING_WHOLE) {
            end_request(number, place->answer.status / 100 == 2 ? ANSWERED : WRONG, at_ns);
            return;
        }
    }
}

static void take_event(const struct epoll_event *event)
{
    const int32_t number = (int32_t)(uint32_t)event->data.u64;
    struct place *place = &places[number];
    if (place->fd < 0 || place->generation != (uint32_t)(event->data.u64 >> 32)) {
        return; /* of a connection that was closed meanwhile */
    }
    if (!place->is_connected && (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
        int error_number = 0;
        socklen_t bytes = sizeof error_number;
        CHECK(getsockopt(place->fd, SOL_SOCKET, SO_ERROR, &error_number, &bytes));
        if (error_number != 0) {
            take_end(number, error_number, now_ns());
            return;
        }
        place->is_connected = true;
    }
    if (place->is_busy && place->sent_bytes < request_bytes && !send_rest(number)) {
        return;
    }
    if ((event->events & ~(uint32_t)EPOLLOUT) != 0) {
        const uint32_t generation = place->generation;
        receive(number);
        if ((event->events & EPOLLRDHUP) != 0 && place->generation == generation && !place->is_busy) {
            place_close(place); /* the end of the stream came with the answer, and is not told again */
        }
    }
}

/* What is that old has timed out. What has come is taken first: this process may have been stopped. */
static void end_old(int64_t at_ns, int64_t age_ns)
{
    for (int32_t number; (number = places_oldest()) >= 0;) {
        if (at_ns - places[number].due_ns < age_ns) {
            return;
        }
        const uint32_t generation = places[number].generation;
        const int64_t request_number = places[number].request;
        if (places[number].is_connected && places[number].sent_bytes == request_bytes) {
            receive(number);
        }
        const struct place *place = &places[number];
        if (place->is_busy && place->generation == generation && place->request == request_number) {
            end_request(number, TIMED_OUT, at_ns);
        }
    }
}

static int64_t first_end_ns(int64_t until_ns)
{
    const int32_t oldest = places_oldest();
    if (oldest < 0) {
        return until_ns;
    }
    const int64_t end_ns = places[oldest].due_ns + asked.timeout_ms * NS_PER_MS;
    return end_ns < until_ns ? end_ns : until_ns;
}

void places_wait(int64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];
    const int64_t left_ns = first_end_ns(until_ns) - now_ns();
    const struct timespec left = {.tv_sec = left_ns > 0 ? left_ns / NS_PER_S : 0,
                                  .tv_nsec = left_ns > 0 ? left_ns % NS_PER_S : 0};
    const int ready_count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, &left, NULL);
    if (ready_count < 0 && errno != EINTR) { /* EINTR: stopped and continued */
        fail_call("epoll_pwait2", "epoll_fd", errno);
    }
    for (int i = 0; i < ready_count; i++) {
        take_event(&events[i]);
    }
    end_old(now_ns(), asked.timeout_ms * NS_PER_MS);
}

void places_give_up(int64_t at_ns)
{
    end_old(at_ns, 0);
}

/* ---- a load ---- */

void places_begin(ended *when_ended)
{
    on_ended = when_ended;
    opened_count = 0;
    own_failure = (struct own_failure){0};
    if (epoll_fd >= 0) {
        return;
    }
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    places_new();
}

int64_t places_opened_count(void)
{
    return opened_count;
}

void places_open(void)
{
    const int64_t until_ns = now_ns() + asked.timeout_ms * NS_PER_MS;
    if (!asked.keeps_alive) {
        return;
    }
    for (int32_t i = 0; i < asked.connections_count; i++) {
        if (places[i].fd < 0 && place_open(i) != 0) {
            break; /* a request will meet the same, and have it as its outcome */
        }
    }
    for (int32_t i = 0; i < asked.connections_count && now_ns() < until_ns; i++) {
        while (places[i].fd >= 0 && !places[i].is_connected && now_ns() < until_ns) {
            places_wait(until_ns);
        }
    }
}
