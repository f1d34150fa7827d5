/*
 * server_listener.c - the socket that clients connect to. The contract is in server.h. Sources: socket(7)
 * (SO_REUSEPORT), tcp(7), listen(2), fcntl(2), Documentation/networking/ip-sysctl.rst (somaxconn).
 */
#include "server.h"

#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

int server_bind(uint16_t port, bool is_shared)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1, shared = is_shared;
    const int fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared));
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    CHECK(bind(fd, (const struct sockaddr *)&address, sizeof address));
    return fd;
}

void server_let_listener_block(void)
{
    const int flags = (int)CHECK(fcntl(server.listener_fd, F_GETFL));
    CHECK(fcntl(server.listener_fd, F_SETFL, flags & ~O_NONBLOCK));
}

int64_t server_backlog_in_force(void)
{
    const int64_t asked_count = server.backlog_asked_count;
    int64_t most_count = asked_count;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNd64, &most_count) != 1) {
            most_count = asked_count;
        }
        fclose(file);
    }
    return most_count < asked_count ? most_count : asked_count;
}
