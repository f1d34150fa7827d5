/*
 * server_model_io_uring.c - one thread for all connections: requests to accept, receive and send are handed to the
 * kernel and their completions are read, by one system call for all that is due. One request accepts again and
 * again, one for each connection receives again and again into buffers that all share (multishot, Linux 6.0; else
 * each time a new one).
 *
 * A connection takes 20 bytes of user memory, by descriptor, and no buffer while it is idle. A client that does not
 * read holds the answers that wait; at CHAIN_MOST of them its receiving is cancelled until they have gone out.
 *
 * The limit of descriptors that a request to accept obeys is the one of when it was made. A descriptor is closed
 * only when no request for it is under way, so a completion is never another connection's.
 * Sources: io_uring(7), io_uring_enter(2) (IORING_ACCEPT_MULTISHOT, IORING_RECV_MULTISHOT), io_uring_register(2).
 */
#include "server.h"
#include "server_uring_buffers.h"
#include "server_work.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#if C10K_HAVE_URING

enum {
    SUBMISSIONS_COUNT = 1024,
    COMPLETIONS_COUNT = 8192,
    ROOM_LEAST = 1024,
    CHAIN_MOST = 4,
    STOP_MS = 2000,
    NOBODY = -1,
};

/* In user_data, above the descriptor. */
enum operation { ACCEPT, WAIT_FOR_CLIENT, COMMANDS, RECEIVE, SEND, CANCEL };

struct connection {
    struct answer_chain answers;
    int next_starved;
    bool is_starved;   /* it is in the list of those for which no buffer was free */
    bool is_receiving; /* such a request is under way */
    bool is_sending;
    bool is_ending;    /* what comes is not answered any more */
    bool has_last;     /* the last answer was given: the client has not ended it */
    bool is_stopped;   /* receiving was cancelled or shut down: once is enough */
};

static struct ring ring;
static struct connection *connections; /* by descriptor */
static int room_count, first_starved = NOBODY;
static bool is_multishot_accept = true, is_multishot_receive = true, is_accepting;
static int64_t requests_count; /* under way: what was asked for and has not had its last completion */

/* ---- requests ---- */

static struct io_uring_sqe *next_request(enum operation operation, int fd)
{
    struct io_uring_sqe *sqe;
    while ((sqe = ring_next(&ring, (uint64_t)operation << 32 | (uint32_t)fd)) == NULL) {
        if (ring_enter(&ring, 0, -1) != 0 && errno != EINTR) {
            fail_call("io_uring_enter", "", errno);
        }
    }
    sqe->fd = fd;
    requests_count++;
    return sqe;
}

static void accept_next(void)
{
    struct io_uring_sqe *sqe = next_request(ACCEPT, server.listener_fd);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->ioprio = is_multishot_accept ? IORING_ACCEPT_MULTISHOT : 0;
    sqe->accept_flags = SOCK_CLOEXEC;
    ring_queue(&ring);
    is_accepting = true;
}

static void wait_readable(enum operation operation, int fd)
{
    struct io_uring_sqe *sqe = next_request(operation, fd);
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->poll32_events = POLLIN;
    ring_queue(&ring);
}

static void receive(int fd)
{
    struct io_uring_sqe *sqe = next_request(RECEIVE, fd);
    sqe->opcode = IORING_OP_RECV;
    sqe->ioprio = is_multishot_receive ? IORING_RECV_MULTISHOT : 0;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
    ring_queue(&ring);
    connections[fd].is_receiving = true;
    connections[fd].is_stopped = false;
}

static void send_first(int fd)
{
    struct connection *connection = &connections[fd];
    const struct answer_chain *answers = &connection->answers;
    struct io_uring_sqe *sqe = next_request(SEND, fd);
    sqe->opcode = IORING_OP_SEND;
    sqe->addr = (uintptr_t)(buffer_memory(answers->first) + answers->sent_bytes);
    sqe->len = (uint32_t)(chain_first_bytes(answers) - answers->sent_bytes);
    sqe->msg_flags = MSG_NOSIGNAL;
    ring_queue(&ring);
    connection->is_sending = true;
}

static void cancel_receiving(int fd)
{
    struct io_uring_sqe *sqe = next_request(CANCEL, -1);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->addr = (uint64_t)RECEIVE << 32 | (uint32_t)fd; /* the user_data of the request */
    ring_queue(&ring);
    connections[fd].is_stopped = true;
}

/* ---- a connection ---- */

static void serve(int fd)
{
    if (fd >= room_count) {
        const int room = fd < ROOM_LEAST ? ROOM_LEAST : fd * 2;
        struct connection *moved = reallocarray(connections, (size_t)room, sizeof connections[0]);
        if (moved == NULL) {
            server_refuse(fd, "reallocarray", ENOMEM);
            return;
        }
        connections = moved;
        room_count = room;
    }
    connections[fd] = (struct connection){0};
    server_count_opened();
    receive(fd);
}

static void close_connection(int fd)
{
    server_forget(fd);
    close(fd);
    server_count_closed();
}

/* After any completion: the next thing to do for a connection. */
static void go_on(int fd)
{
    struct connection *connection = &connections[fd];
    if (server.is_quitting || connection->is_sending || connection->is_starved) {
        return;
    }
    if (connection->answers.count > 0) {
        send_first(fd);
    } else if (!connection->is_ending) {
        if (!connection->is_receiving) {
            receive(fd);
        }
    } else if (!connection->is_receiving) {
        if (connection->has_last) {
            server_say_goodbye(fd);
        }
        close_connection(fd);
    } else if (!connection->is_stopped) {
        (void)shutdown(fd, SHUT_RDWR); /* ends the request */
        connection->is_stopped = true;
    }
}

static void answer(int fd, uint16_t number, size_t received)
{
    struct connection *connection = &connections[fd];
    work_begin();
    const struct server_answer answer = server_answer(fd, buffer_memory(number), received);
    work_finish();
    connection->is_ending = connection->has_last = answer.is_last;
    if (answer.count == 0) {
        buffer_free(number);
        return;
    }
    chain_put(&connection->answers, number, (uint16_t)answer.count);
    if (connection->answers.count >= CHAIN_MOST && connection->is_receiving && !connection->is_stopped) {
        cancel_receiving(fd);
    }
}

/* No buffer was free. With more of them it can go on at once, else when one is given back. */
static void starve(int fd)
{
    if (!buffers_add_more()) {
        server_tell_wall("recv", ENOBUFS, "every buffer holds an answer that its client does not read");
        connections[fd].is_starved = true;
        connections[fd].next_starved = first_starved;
        first_starved = fd;
    }
}

static void feed_starved(void)
{
    while (first_starved != NOBODY) {
        const int fd = first_starved;
        first_starved = connections[fd].next_starved;
        connections[fd].is_starved = false;
        go_on(fd);
    }
}

/* ---- completions ---- */

static void on_received(int fd, const struct io_uring_cqe *cqe)
{
    struct connection *connection = &connections[fd];
    connection->is_receiving = (cqe->flags & IORING_CQE_F_MORE) != 0;
    if (cqe->res > 0 && !connection->is_ending) {
        answer(fd, ring_buffer_number(cqe), (size_t)cqe->res);
    } else if (ring_has_buffer(cqe)) {
        buffer_free(ring_buffer_number(cqe));
    }
    if (cqe->res == -EINVAL && is_multishot_receive) {
        is_multishot_receive = false; /* before Linux 6.0 */
    } else if (cqe->res == -ENOBUFS) {
        starve(fd);
    } else if (cqe->res <= 0 && cqe->res != -ECANCELED && cqe->res != -EINTR && cqe->res != -EAGAIN) {
        connection->is_ending = true;
    }
    go_on(fd);
}

static void on_sent(int fd, int result)
{
    struct connection *connection = &connections[fd];
    struct answer_chain *answers = &connection->answers;
    connection->is_sending = false;
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -ECANCELED) {
        chain_drop_all(answers);
        connection->is_ending = true;
    } else if (result > 0) {
        answers->sent_bytes = (uint16_t)(answers->sent_bytes + result);
        if (answers->sent_bytes == chain_first_bytes(answers)) {
            chain_drop_first(answers);
        }
    }
    go_on(fd);
}

/* Where nobody waits and accepting fails nevertheless (EMFILE), somebody is waited for first. */
static void on_accepted(const struct io_uring_cqe *cqe, int64_t closed_before)
{
    is_accepting = (cqe->flags & IORING_CQE_F_MORE) != 0;
    if (server.is_quitting) {
        (void)close(cqe->res); /* or nothing was accepted */
        return;
    }
    if (cqe->res >= 0) {
        server_accepted(cqe->res);
    } else if (cqe->res == -EINVAL && is_multishot_accept) {
        is_multishot_accept = false; /* before Linux 5.19 */
    } else if (!server_accept_failed(-cqe->res, closed_before)) {
        if (!server_is_paused()) {
            wait_readable(WAIT_FOR_CLIENT, server.listener_fd);
        }
        return;
    }
    if (!is_accepting) {
        accept_next();
    }
}

static void watch_listener(bool is_on)
{
    if (is_on && !is_accepting) {
        accept_next();
    }
}

/* A descriptor that cannot be waited for is always ready. */
static void on_commands(int result)
{
    do {
        server_read_commands();
    } while (result < 0 && !server.is_quitting);
    if (!server.is_quitting) {
        wait_readable(COMMANDS, STDIN_FILENO);
    }
}

static void on_completion(const struct io_uring_cqe *cqe, int64_t closed_before)
{
    const int fd = (int)(uint32_t)cqe->user_data;
    requests_count -= (cqe->flags & IORING_CQE_F_MORE) == 0;
    switch ((enum operation)(cqe->user_data >> 32)) {
    case ACCEPT:
        on_accepted(cqe, closed_before);
        break;
    case WAIT_FOR_CLIENT:
        watch_listener(!server.is_quitting && !server_is_paused());
        break;
    case COMMANDS:
        if (!server.is_quitting) {
            on_commands(cqe->res);
        }
        break;
    case RECEIVE:
        on_received(fd, cqe);
        break;
    case SEND:
        on_sent(fd, cqe->res);
        break;
    case CANCEL:
        break; /* what was cancelled has a completion of its own */
    }
}

/* Waits, then looks at all that came. True: there was something. */
static bool handle_completions(int timeout_ms)
{
    if (ring_enter(&ring, 1, timeout_ms) != 0 && errno != EINTR && errno != ETIME) {
        fail_call("io_uring_enter", "", errno);
    }
    const unsigned count = ring_ready_count(&ring);
    const int64_t closed_before = atomic_load(&server.closed_count);
    for (unsigned i = 0; i < count; i++) {
        on_completion(ring_completion(&ring, i), closed_before);
    }
    ring_forget(&ring, count);
    if (buffers_give_back()) {
        feed_starved();
    }
    return count > 0;
}

/* ---- the model ---- */

static void prepare(void)
{
    ring_open(&ring, SUBMISSIONS_COUNT, COMPLETIONS_COUNT);
    buffers_open(&ring);
    server_let_listener_block(); /* a request for a non-blocking one would not wait */
}

static void loop(void)
{
    accept_next();
    wait_readable(COMMANDS, STDIN_FILENO);
    while (!server.is_quitting) {
        server_resume_if_possible(!handle_completions(server_retry_timeout_ms()));
    }
}

/* A request holds the socket open: first they all end, then the descriptors are closed. */
static void stop(void)
{
    struct io_uring_sqe *sqe = next_request(CANCEL, -1);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    ring_queue(&ring);
    while (requests_count > 0 && handle_completions(STOP_MS)) {
    }
    server_stop_connections(close_connection);
    ring_close(&ring);
    buffers_close();
    free(connections);
}

#else

static void prepare(void)
{
    unsupported(RING_NOT_BUILT);
}

static void loop(void)
{
}

static void serve(int fd)
{
    (void)fd;
}

static void watch_listener(bool is_on)
{
    (void)is_on;
}

static void stop(void)
{
}

#endif

const struct server_model server_model_io_uring = {
    .name = "io_uring",
    .takes = "",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .watch_listener = watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
