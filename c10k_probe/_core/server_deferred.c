/*
 * server_deferred.c - the loop and the answers that wait. The contract is in server_deferred.h.
 */
#include "server_deferred.h"

#include "server_http.h"
#include "server_kept.h"
#include "server_stalled.h"
#include "server_work.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_COUNT = 256, ROOM_LEAST = 256 };

/* An answer that waits for its work. */
struct pending {
    struct kept kept;
    uint32_t id;
    int64_t requests_left_count; /* more than one where the client sent several at once */
    struct work_receipt receipt;
    struct server_answer answer;
    char bytes[];
};

static const struct deferred_way *way;
static struct kept_table pendings;
static uint32_t last_id;
static int epoll_fd = -1;

/* ---- tickets ---- */

static void make_room(struct ticket_queue *queue)
{
    const size_t room = queue->room == 0 ? ROOM_LEAST : queue->room * 2;
    struct ticket *tickets = CHECK_POINTER(reallocarray(NULL, room, sizeof tickets[0]));
    for (size_t i = 0; i < queue->count; i++) {
        tickets[i] = queue->tickets[(queue->first + i) % queue->room];
    }
    free(queue->tickets);
    *queue = (struct ticket_queue){.tickets = tickets, .count = queue->count, .room = room};
}

void ticket_put(struct ticket_queue *queue, struct ticket ticket)
{
    if (queue->count == queue->room) {
        make_room(queue);
    }
    ticket.put_ns = now_ns();
    queue->tickets[(queue->first + queue->count++) % queue->room] = ticket;
}

struct ticket ticket_take(struct ticket_queue *queue)
{
    const struct ticket ticket = queue->tickets[queue->first];
    queue->first = (queue->first + 1) % queue->room;
    queue->count--;
    return ticket;
}

/* ---- connections ---- */

bool deferred_watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll_fd, operation, fd, &event) == 0;
}

static void watch(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event));
}

void deferred_watch_listener(bool is_on)
{
    watch(server.listener_fd, is_on ? EPOLLIN : 0);
}

void deferred_serve(int fd)
{
    if (!deferred_watch(EPOLL_CTL_ADD, fd, EPOLLIN)) {
        server_refuse(fd, "epoll_ctl", errno);
        return;
    }
    server_count_opened();
}

static struct pending *pending_of(int fd)
{
    return (struct pending *)kept_find(&pendings, fd);
}

static void close_connection(int fd)
{
    const struct pending *pending = pending_of(fd);
    if (pending != NULL) {
        const struct ticket ticket = {.fd = fd, .id = pending->id};
        kept_forget(&pendings, fd);
        if (way->abandon != NULL) {
            way->abandon(ticket);
        }
    }
    close(fd);
    server_count_closed();
}

/* ---- answers ---- */

/* events: what is watched now. */
static void send_answer(int fd, const char *bytes, struct server_answer answer, uint32_t events)
{
    if (!server_send_answer(fd, bytes, answer, stalled_keep)) {
        server_forget(fd);
        close_connection(fd);
        return;
    }
    const uint32_t due = stalled_has(fd) ? EPOLLOUT : EPOLLIN;
    if (due != events) {
        watch(fd, due);
    }
}

/* The answer is over with, unless the client does not read it. */
static void finish(struct pending *pending, int status)
{
    const int fd = pending->kept.fd;
    const struct work_receipt receipt = pending->receipt;
    struct server_answer answer = pending->answer;
    char bytes[SERVER_BUFFER_BYTES];
    memcpy(bytes, pending->bytes, answer.count);
    if (status != 200) {
        answer = (struct server_answer){.count = http_failure(bytes, status), .is_last = true};
    }
    kept_forget(&pendings, fd);
    send_answer(fd, bytes, answer, 0);
    work_record(&receipt);
}

bool deferred_is_waiting(struct ticket ticket)
{
    const struct pending *pending = pending_of(ticket.fd);
    return pending != NULL && pending->id == ticket.id;
}

void deferred_waited(struct ticket ticket, int64_t waited_ns)
{
    if (deferred_is_waiting(ticket)) {
        struct work_receipt *receipt = &pending_of(ticket.fd)->receipt;
        receipt->received_ns += waited_ns;
        receipt->queue_ns += receipt->queue_ns >= 0 ? waited_ns : 0;
    }
}

void deferred_done(struct ticket ticket, int status)
{
    if (!deferred_is_waiting(ticket)) {
        return;
    }
    struct pending *pending = pending_of(ticket.fd);
    pending->requests_left_count--;
    if (status == 200 && pending->requests_left_count > 0) {
        way->begin(ticket);
    } else {
        finish(pending, status);
    }
}

static bool keep(int fd, const char *buffer, struct server_answer answer)
{
    struct pending *pending = (struct pending *)kept_add(&pendings, fd, sizeof *pending + answer.count);
    if (pending == NULL) {
        return false;
    }
    pending->id = ++last_id;
    pending->receipt = *work_receipt();
    pending->requests_left_count = pending->receipt.requests_count;
    pending->answer = answer;
    memcpy(pending->bytes, buffer, answer.count);
    watch(fd, 0); /* but for its end */
    return true;
}

/* ---- events ---- */

static void read_requests(int fd)
{
    static char buffer[SERVER_BUFFER_BYTES];
    const ssize_t received = server_receive(fd, buffer);
    if (received < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (received <= 0) {
        server_forget(fd);
        close_connection(fd);
        return;
    }
    const struct server_answer answer = server_answer(fd, buffer, (size_t)received);
    if (!work_is_timed() || work_receipt()->requests_count == 0) {
        send_answer(fd, buffer, answer, EPOLLIN);
    } else if (keep(fd, buffer, answer)) {
        work_receipt()->requests_count = 0;
        way->begin((struct ticket){.fd = fd, .id = pending_of(fd)->id});
    } else {
        server_forget(fd);
        close_connection(fd);
    }
}

static void serve_event(int fd)
{
    if (pending_of(fd) != NULL) { /* only its end is watched */
        server_forget(fd);
        close_connection(fd);
        return;
    }
    if (!stalled_has(fd)) {
        read_requests(fd);
        return;
    }
    switch (stalled_send(fd)) {
    case STALLED_OVER:
        server_forget(fd);
        close_connection(fd);
        break;
    case STALLED_SENT:
        watch(fd, EPOLLIN);
        break;
    case STALLED_WAITING:
        break;
    }
}

static void dispatch(int fd, uint32_t events)
{
    if (fd == server.listener_fd) {
        server_accept_batch();
    } else if (fd == STDIN_FILENO) {
        server_read_commands();
    } else if (!way->on_event(fd, events)) {
        serve_event(fd);
    }
}

/* What one event has closed may have been opened again for something else: later events of the batch for that
 * descriptor are of the old one, and do no harm: reading then finds nothing. */
void deferred_loop(void)
{
    struct epoll_event events[EVENTS_COUNT];
    while (!server.is_quitting) {
        const int count = epoll_wait(epoll_fd, events, EVENTS_COUNT, server_retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !server.is_quitting; i++) {
            dispatch(events[i].data.fd, events[i].events);
        }
        server_resume_if_possible(count == 0);
    }
}

/* ---- life ---- */

/* epoll refuses regular files and /dev/null (EPERM): always ready, so they are read to their end. */
static void watch_stdin(void)
{
    if (deferred_watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN)) {
        return;
    }
    if (errno != EPERM) {
        fail_call("epoll_ctl", "EPOLL_CTL_ADD, stdin", errno);
    }
    while (!server.is_quitting) {
        server_read_commands();
    }
}

void deferred_prepare(const struct deferred_way *chosen)
{
    way = chosen;
    work_defer();
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, server.listener_fd, &(struct epoll_event){.data.fd = server.listener_fd}));
    deferred_watch_listener(true);
    watch_stdin();
}

void deferred_stop(void)
{
    server_stop_connections(close_connection);
    kept_forget_all(&pendings);
    stalled_forget_all();
    close(epoll_fd);
}
