/*
 * server_connections.c - the handler of a connection, the same code in each model, and the end of all of
 * them. The contract is in server.h. Sources: tcp(7), socket(7) (SO_LINGER), recv(2).
 */
#include "server.h"
#include "server_http.h"
#include "server_stalled.h"
#include "server_work.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the handler ---- */

struct server_answer server_answer(int fd, char buffer[static SERVER_BUFFER_BYTES], size_t received)
{
    if (server.protocol == SERVER_HTTP) {
        return http_answer(fd, buffer, received);
    }
    (void)work_do(); /* an echo has no backend */
    return (struct server_answer){.count = received}; /* the echo: as it came */
}

size_t server_receive_bytes(void)
{
    return server.protocol == SERVER_HTTP ? HTTP_RECEIVE_BYTES : SERVER_BUFFER_BYTES;
}

void server_forget(int fd)
{
    if (server.protocol == SERVER_HTTP) {
        http_forget(fd);
    }
}

bool server_send_answer(int fd, const char *buffer, struct server_answer answer, server_keep_rest keep_rest)
{
    const ssize_t sent = server_send_what_fits(fd, buffer, answer.count);
    work_finish();
    if (sent < 0) {
        return false;
    }
    const size_t rest = answer.count - (size_t)sent;
    if (rest > 0) { /* never of a blocking socket */
        if (keep_rest == NULL || !keep_rest(fd, buffer + sent, rest)) {
            return false;
        }
        if (answer.is_last) {
            stalled_close_after(fd);
        }
        return true;
    }
    if (answer.is_last) {
        server_say_goodbye(fd);
    }
    return !answer.is_last;
}

ssize_t server_receive(int fd, char buffer[static SERVER_BUFFER_BYTES])
{
    const size_t bytes = server_receive_bytes();
    return work_is_timed() ? work_receive(fd, buffer, bytes) : recv(fd, buffer, bytes, 0);
}

bool server_step(int fd, char buffer[static SERVER_BUFFER_BYTES], server_keep_rest keep_rest)
{
    const ssize_t received = server_receive(fd, buffer);
    if (received < 0 && (errno == EINTR || errno == EAGAIN)) {
        return true;
    }
    if (received > 0 && server_send_answer(fd, buffer, server_answer(fd, buffer, (size_t)received), keep_rest)) {
        return true;
    }
    server_forget(fd);
    return false;
}

void server_serve_until_closed(int fd)
{
    char buffer[SERVER_BUFFER_BYTES];
    while (server_step(fd, buffer, NULL)) {
    }
    close(fd);
}

static enum server_interest go_on_sending(int fd)
{
    switch (stalled_send(fd)) {
    case STALLED_WAITING:
        return SERVER_WRITE;
    case STALLED_SENT:
        return SERVER_READ;
    case STALLED_OVER:
        server_forget(fd);
        break;
    }
    return SERVER_OVER;
}

enum server_interest server_on_event(int fd)
{
    static char buffer[SERVER_BUFFER_BYTES];
    if (stalled_has(fd)) {
        return go_on_sending(fd);
    }
    if (!server_step(fd, buffer, stalled_keep)) {
        return SERVER_OVER;
    }
    return stalled_has(fd) ? SERVER_WRITE : SERVER_READ;
}

/* ---- counts and the end ---- */

void server_count_opened(void)
{
    atomic_fetch_add(&server.open_count, 1);
}

void server_count_closed(void)
{
    atomic_fetch_sub(&server.open_count, 1);
    atomic_fetch_add(&server.closed_count, 1);
}

uint16_t server_local_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 || address.sin_family != AF_INET) {
        return 0;
    }
    return ntohs(address.sin_port);
}

/* No list of connections is kept, the descriptors are the list. */
void server_stop_connections(void (*stop)(int fd))
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    for (int fd = 0; fd <= server.highest_fd; fd++) {
        if (fd != server.listener_fd && server_local_port(fd) == server.port) {
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            stop(fd);
        }
    }
}
