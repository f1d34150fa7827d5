/*
 * server_model_epoll_passed.c - a master that accepts and hands each connection to one of some worker processes, in
 * turn, through a socket pair (SCM_RIGHTS); each worker has an event loop. What Node's cluster does by default. No
 * worker that is not meant wakes, and all get the same number of connections; each one costs the master four system
 * calls and the worker one more.
 *
 * A worker whose socket pair is full is passed over; where all are, connections wait in the accept queue. What was sent
 * to a worker that dies is closed by the kernel. Sources: unix(7), cmsg(3), recvmsg(2).
 */
#include "server_workers.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE_BATCH_COUNT = 256, RETRY_US = 1000 };

static int (*channels)[2]; /* by worker: the master's end and the worker's; -1 is closed */
static bool is_worker;
static int64_t next_worker; /* the next in turn */

/* What a message with one descriptor takes beside its byte. */
union rights {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* ---- a worker ---- */

/* A descriptor that finds no room here is closed by the kernel, and the message is marked as cut. */
static void take_received(struct msghdr *message)
{
    const struct cmsghdr *part = CMSG_FIRSTHDR(message);
    if (part != NULL && part->cmsg_type == SCM_RIGHTS) {
        int fd;
        memcpy(&fd, CMSG_DATA(part), sizeof fd);
        server_accepted(fd);
    } else if ((message->msg_flags & MSG_CTRUNC) != 0) {
        atomic_fetch_add(&server.dropped_count, 1);
        server_report_wall("recvmsg", EMFILE);
    }
}

static bool receive_one(void)
{
    char byte;
    union rights rights;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = rights.bytes, .msg_controllen = sizeof rights.bytes};
    const ssize_t received = recvmsg(server.listener_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (received < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            fail_call("recvmsg", "descriptors from the master", errno);
        }
        return false;
    }
    if (received == 0) {
        server.is_quitting = true; /* the master has gone */
        return false;
    }
    take_received(&message);
    return true;
}

static void receive_batch(void)
{
    for (int i = 0; i < RECEIVE_BATCH_COUNT && receive_one(); i++) {
    }
}

static void close_end(int64_t worker, int end)
{
    if (channels[worker][end] >= 0) {
        close(channels[worker][end]);
        channels[worker][end] = -1;
    }
}

static void run(int64_t number)
{
    is_worker = true;
    for (int64_t i = 0; i < server.workers_count; i++) {
        close_end(i, 0);
        if (i != number) {
            close_end(i, 1);
        }
    }
    close(server.listener_fd);
    server.listener_fd = channels[number][1];
    worker_epoll_take_by(receive_batch);
    worker_epoll_run(0);
}

/* ---- the master ---- */

/* Whether a worker can be sent one more; the pair of one that has died is closed. */
static bool has_room(int64_t worker)
{
    struct pollfd channel = {.fd = channels[worker][0], .events = POLLOUT};
    if (channel.fd < 0 || poll(&channel, 1, 0) <= 0) {
        return false;
    }
    if ((channel.revents & (POLLHUP | POLLERR)) != 0) {
        close_end(worker, 0);
        return false;
    }
    return true;
}

/* The next in turn that has room; -1: none has. */
static int64_t choose_worker(void)
{
    for (int64_t i = 0; i < server.workers_count; i++) {
        const int64_t worker = (next_worker + i) % server.workers_count;
        if (has_room(worker)) {
            return worker;
        }
    }
    return -1;
}

static void pass(int fd)
{
    char byte = 0;
    union rights rights = {.bytes = {0}};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = rights.bytes, .msg_controllen = sizeof rights.bytes};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(part), &fd, sizeof fd);
    const ssize_t sent = sendmsg(channels[next_worker][0], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    const int error = errno;
    close(fd);
    if (sent < 0 && error != EPIPE && error != ECONNRESET) { /* those: it has died since it had room */
        fail_call("sendmsg", "a descriptor to a worker", error);
    }
}

static void serve(int fd)
{
    if (is_worker) {
        worker_epoll_serve(fd);
        return;
    }
    pass(fd);
    next_worker = (next_worker + 1) % server.workers_count;
}

/* A client waits. Accepted is one at a time, and only for a worker that has room for it. */
static void on_waiting(void)
{
    for (int i = 0; i < RECEIVE_BATCH_COUNT; i++) {
        const int64_t worker = choose_worker();
        if (worker < 0 || server_is_paused()) {
            usleep(RETRY_US);
            server_resume_if_possible(true);
            return;
        }
        next_worker = worker;
        if (server_accept_up_to(1) == 0) {
            return;
        }
    }
}

static bool is_due(void)
{
    return true;
}

static void prepare(void)
{
    worker_epoll_choose_count();
    channels = CHECK_POINTER(calloc((size_t)server.workers_count, sizeof channels[0]));
    for (int64_t i = 0; i < server.workers_count; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channels[i]));
    }
    workers_prepare();
    workers_start(run);
    for (int64_t i = 0; i < server.workers_count; i++) {
        close_end(i, 1);
    }
}

static void loop(void)
{
    static const struct workers_watch watch = {.is_due = is_due, .on_ready = on_waiting};
    workers_loop(&watch);
}

static void stop(void)
{
    workers_stop();
    for (int64_t i = 0; i < server.workers_count; i++) {
        close_end(i, 0);
    }
    free(channels);
}

const struct server_model server_model_epoll_passed = {
    .name = "epoll-passed",
    .takes = "workers",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = workers_count_tasks,
    .emit_status = workers_emit_status,
    .stop = stop,
};
