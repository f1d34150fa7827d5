/*
 * server_connections.c - the handler of a connection, the same code in each model, and the end of all of
 * them. The contract is in server.h. Sources: tcp(7), socket(7) (SO_LINGER), recv(2), send(2).
 */
#include "server.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t server_send_what_fits(int fd, const char *bytes, size_t count)
{
    size_t sent_bytes = 0;
    while (sent_bytes < count) {
        ssize_t sent = send(fd, bytes + sent_bytes, count - sent_bytes, MSG_NOSIGNAL);
        if (sent >= 0) {
            sent_bytes += (size_t)sent;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return (ssize_t)sent_bytes;
}

bool server_echo_step(int fd, char buffer[static SERVER_BUFFER_BYTES], server_keep_rest keep_rest)
{
    ssize_t received = recv(fd, buffer, SERVER_BUFFER_BYTES, 0);
    if (received <= 0) {
        return received < 0 && (errno == EINTR || errno == EAGAIN);
    }
    ssize_t sent = server_send_what_fits(fd, buffer, (size_t)received);
    if (sent < 0) {
        return false;
    }
    return sent == received ||
           (keep_rest != NULL && keep_rest(fd, buffer + sent, (size_t)(received - sent)));
}

void server_echo_until_closed(int fd)
{
    char buffer[SERVER_BUFFER_BYTES];
    while (server_echo_step(fd, buffer, NULL)) { /* blocking: a rest never stays */
    }
    close(fd);
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
