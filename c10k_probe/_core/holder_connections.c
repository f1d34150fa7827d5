/*
 * holder_connections.c - opens one connection: socket options, source address, the timed connect(). The
 * contract is in holder.h. Sources: ip(7) (IP_BIND_ADDRESS_NO_PORT), socket(7), connect(2), tcp(7).
 */
#include "holder.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    SOURCE_NET = 127,
    SOURCE_BASE_FIRST = 16, /* 127.16.0.0: clear of 127.0.0.1 and of 127.0.0.53 and the like */
    SOURCES_IN_ROW = 250,
    SOURCES_COUNT = 256 * SOURCES_IN_ROW,
    CONNECTIONS_PER_SOURCE = 2000,
};

struct descriptors held;
static int64_t next_serial; /* of connections tried: decides the source address */

static void set_option(int fd, int level, int option, const void *value, socklen_t bytes)
{
    CHECK(setsockopt(fd, level, option, value, bytes));
}

void prepare_socket(int fd)
{
    const int on = 1;
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const struct timeval timeout = {.tv_sec = settings.timeout_ms / 1000,
                                    .tv_usec = settings.timeout_ms % 1000 * 1000};
    set_option(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    set_option(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    set_option(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

struct sockaddr_in loopback_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* 127.(16+K).a.b with b in 1..250; port 0: chosen at connect. */
static struct sockaddr_in source_address(int64_t serial)
{
    const uint32_t source = (uint32_t)(serial / CONNECTIONS_PER_SOURCE % SOURCES_COUNT);
    const uint32_t second = (uint32_t)(SOURCE_BASE_FIRST + settings.source_base);
    const uint32_t host = (uint32_t)SOURCE_NET << 24 | second << 16 | source / SOURCES_IN_ROW << 8 |
                          (source % SOURCES_IN_ROW + 1);
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
}

/* 0 or errno. */
static int bind_source(int fd)
{
    const int on = 1;
    const struct sockaddr_in source = source_address(next_serial++);
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, (const struct sockaddr *)&source, sizeof source) == 0 ? 0 : errno;
}

/* 0 or errno; SO_SNDTIMEO shows as EINPROGRESS (socket(7)). */
static int connect_timed(int fd, uint16_t port, int64_t *connect_ns)
{
    const struct sockaddr_in server = loopback_address(port);
    const int64_t before_ns = now_ns();
    const int result = connect(fd, (const struct sockaddr *)&server, sizeof server);
    const int number = result == 0 ? 0 : errno;
    *connect_ns = now_ns() - before_ns;
    return number == EINPROGRESS ? ETIMEDOUT : number;
}

int open_connection(uint16_t port, int64_t *connect_ns, struct failure *failure)
{
    const char *call = "bind";
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note_failure(failure, "socket", errno);
        return -1;
    }
    prepare_socket(fd);
    int number = bind_source(fd);
    if (number == 0) {
        call = "connect";
        number = connect_timed(fd, port, connect_ns);
    }
    if (number == 0) {
        return fd;
    }
    note_failure(failure, call, number);
    close(fd);
    return -1;
}
