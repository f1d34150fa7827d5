/*
 * server_backend.c - asks a backend with blocking calls. The contract is in server_work.h. A question is one byte, its
 * answer one byte (backend.c). Sources: tcp(7), socket(7) (SO_RCVTIMEO), shutdown(2).
 */
#include "server.h"
#include "server_work.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static _Thread_local int own_fd = -1;
static atomic_int highest_fd;
static atomic_bool is_ending;
static struct {
    pid_t task; /* a process's first thread */
    int fd;
    void (*on_told)(void);
} hearing;

void backend_hear(int fd, void (*on_told)(void))
{
    hearing.task = getpid();
    hearing.fd = fd;
    hearing.on_told = on_told;
}

static void note_highest(int fd)
{
    int known = atomic_load(&highest_fd);
    while (fd > known && !atomic_compare_exchange_weak(&highest_fd, &known, fd)) {
    }
}

static struct sockaddr_in address_of_backend(void)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)work_options.backend_port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* -1 and errno. */
static int open_connection(struct backend_totals *totals)
{
    const struct sockaddr_in address = address_of_backend();
    const int64_t timeout_us = work_options.backend_timeout_ns / 1000;
    const struct timeval timeout = {.tv_sec = timeout_us / 1000000, .tv_usec = timeout_us % 1000000};
    const int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout); /* of connect, too */
    note_highest(fd);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        const int error_number = errno;
        close(fd);
        errno = error_number;
        return -1;
    }
    atomic_fetch_add(&totals->connections_count, 1);
    return fd;
}

/* Until the answer is there; false: it is too late. A task that is told to end by a descriptor goes on listening to
 * it; any other's recv says when it is too late. */
static bool wait_for_answer(int fd)
{
    const int64_t until_ns = now_ns() + work_options.backend_timeout_ns;
    struct pollfd watched[] = {{.fd = fd, .events = POLLIN}, {.fd = hearing.fd, .events = POLLIN}};
    while (getpid() == hearing.task && gettid() == hearing.task && !server.is_quitting && now_ns() < until_ns) {
        (void)poll(watched, ARRAY_COUNT(watched), (int)((until_ns - now_ns()) / 1000000) + 1);
        if (watched[0].revents != 0) {
            return true;
        }
        if (watched[1].revents != 0) {
            hearing.on_told();
        }
    }
    return now_ns() < until_ns;
}

static bool is_over(void)
{
    return atomic_load(&is_ending) || server.is_quitting;
}

/* One byte there, one byte back; 0 or the error. */
static int exchange(int fd)
{
    char byte = '?';
    ssize_t count;
    while ((count = send(fd, &byte, 1, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
    }
    if (!wait_for_answer(fd)) {
        return EAGAIN;
    }
    while (count == 1 && !is_over() && (count = recv(fd, &byte, 1, 0)) < 0 && errno == EINTR) {
        count = 1;
    }
    return count < 0 ? errno : count == 0 || is_over() ? ECONNRESET : 0;
}

int backend_ask(struct backend_totals *totals)
{
    const int64_t began_ns = now_ns();
    int error_number = 0;
    if (own_fd < 0 && (own_fd = open_connection(totals)) < 0) {
        error_number = errno;
    } else {
        atomic_fetch_add(&totals->asked_count, 1);
        error_number = exchange(own_fd);
    }
    atomic_fetch_add(&totals->wait_ns, now_ns() - began_ns);
    if (error_number == 0) {
        return 200;
    }
    backend_leave(); /* an answer that comes too late must not be taken for the next one */
    const bool is_late = error_number == EAGAIN || error_number == EINPROGRESS;
    atomic_fetch_add(is_late ? &totals->timed_out_count : &totals->failed_count, 1);
    return is_late ? 504 : 502;
}

void backend_leave(void)
{
    if (own_fd >= 0) {
        close(own_fd);
        own_fd = -1;
    }
}

void backend_abandon_all(void)
{
    const struct sockaddr_in address = address_of_backend();
    atomic_store(&is_ending, true);
    for (int fd = 0; work_options.backend_port > 0 && fd <= atomic_load(&highest_fd); fd++) {
        struct sockaddr_in peer = {0};
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sin_port == address.sin_port) {
            (void)shutdown(fd, SHUT_RDWR);
        }
    }
}
