/*
 * server_accept.c - takes connections from the listener and gives them to the model. The contract is in
 * server.h. Source: accept(2).
 */
#include "server.h"

#include <poll.h>
#include <sys/socket.h>

enum { ACCEPT_BATCH_COUNT = 256 }; /* then look at stdin and at the ended tasks again */

/* accept4 takes a descriptor before it looks at the queue, so it says EMFILE also when nobody waits. */
static bool is_client_waiting(void)
{
    struct pollfd listener = {.fd = server.listener_fd, .events = POLLIN};
    return poll(&listener, 1, 0) > 0;
}

/* The passing errors are the new connection's own (accept(2), "Error handling"). */
bool server_accept_failed(int error_number, int64_t closed_before)
{
    static const int passing[] = {EINTR,     ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                  EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
    if (error_number == EAGAIN || (server_is_wall(error_number) && !is_client_waiting())) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_COUNT(passing); i++) {
        if (error_number == passing[i]) {
            atomic_fetch_add(&server.accept_errors_count, error_number != EINTR);
            return true;
        }
    }
    if (!server_is_wall(error_number)) {
        fail_call("accept4", "listener", error_number);
    }
    server_report_wall("accept4", error_number);
    server_pause_accepting(closed_before, error_number);
    return false;
}

void server_accepted(int fd)
{
    atomic_fetch_add(&server.accepted_count, 1);
    server.highest_fd = fd > server.highest_fd ? fd : server.highest_fd;
    server.model->serve(fd);
}

static bool accept_one(void)
{
    const int64_t closed_before = atomic_load(&server.closed_count);
    const int fd = accept4(server.listener_fd, NULL, NULL, SOCK_CLOEXEC | server.model->accept_flags);
    if (fd < 0) {
        return server_accept_failed(errno, closed_before);
    }
    server_accepted(fd);
    return true;
}

bool server_accept_batch(void)
{
    int count = 0;
    while (count < ACCEPT_BATCH_COUNT && accept_one()) {
        count++;
    }
    return count == ACCEPT_BATCH_COUNT;
}
