/*
 * holder_connections.c - opens one connection: socket options, source address, the timed connect(). The
 * contract is in holder.h. Sources: ip(7), socket(7), connect(2) (EINPROGRESS), tcp(7), net/ipv4/af_inet.c.
 */
#include "holder.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    SOURCE_NET = 127,
    SOURCE_BASE_FIRST = 16, /* 127.16.0.0: clear of 127.0.0.1 and of 127.0.0.53 and the like */
    SOURCES_IN_ROW = 250,
    SOURCES_COUNT = 256 * SOURCES_IN_ROW,
    PORT_FIRST = 32768, /* above those of services, and as in net.ipv4.ip_local_port_range by default */
    BIND_TRIES_MAX = 1000,
    BUSY_IN_ROW_MAX = 16, /* ports of one address that are taken: somebody else is using it up */
};

static _Atomic int64_t next_serial; /* of connections tried: decides source address and port */

static void set_option(int fd, int level, int option, const void *value, socklen_t bytes)
{
    CHECK(setsockopt(fd, level, option, value, bytes));
}

void reset_on_close(int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    set_option(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void make_blocking(int fd)
{
    const struct timeval timeout = {.tv_sec = settings.timeout_ms / 1000,
                                    .tv_usec = settings.timeout_ms % 1000 * 1000};
    set_option(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    CHECK(fcntl(fd, F_SETFL, 0));
}

struct sockaddr_in loopback_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* 127.(16+K).a.b with b in 1..250, and one port after the other. Many addresses with few ports each, or
 * few with many: the kernel takes the same time for both. */
static struct sockaddr_in source_address(int64_t serial)
{
    const uint32_t source = (uint32_t)(serial / settings.ports_count % SOURCES_COUNT);
    const uint32_t second = (uint32_t)(SOURCE_BASE_FIRST + settings.source_base);
    const uint32_t host = (uint32_t)SOURCE_NET << 24 | second << 16 | source / SOURCES_IN_ROW << 8 |
                          (source % SOURCES_IN_ROW + 1);
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)(PORT_FIRST + serial % settings.ports_count)),
                                .sin_addr.s_addr = htonl(host)};
}

/* 0 or errno. A port that somebody else has (a listener on all addresses, say) is passed over, and so is that of the
 * server: an end of a connection is told from the other by its port. Another holder has many in a row: then the next
 * address is taken. */
static int bind_source(int fd, uint16_t server_port)
{
    for (int tries = 0; tries < BIND_TRIES_MAX; tries++) {
        const bool is_used_up = tries > 0 && tries % BUSY_IN_ROW_MAX == 0;
        const int64_t step = is_used_up ? settings.ports_count : 1;
        const struct sockaddr_in source = source_address(atomic_fetch_add(&next_serial, step));
        if (source.sin_port == htons(server_port)) {
            continue;
        }
        if (bind(fd, (const struct sockaddr *)&source, sizeof source) == 0) {
            return 0;
        }
        if (errno != EADDRINUSE) {
            return errno;
        }
    }
    return EADDRINUSE;
}

/* Over loopback the handshake is done when connect(2) returns, though it says EINPROGRESS: the answer to
 * the SYN comes within the call, and is taken as the socket is unlocked at its end. 0 or errno. */
static int connect_timed(int fd, uint16_t port, int64_t *connect_ns)
{
    const struct sockaddr_in server = loopback_address(port);
    const int64_t before_ns = now_ns();
    const int result = connect(fd, (const struct sockaddr *)&server, sizeof server);
    const int number = result == 0 || errno == EINPROGRESS ? 0 : errno;
    *connect_ns = now_ns() - before_ns;
    return number;
}

int begin_connection(uint16_t port, int64_t *connect_ns, struct failure *failure)
{
    const char *call = "bind";
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        note_failure(failure, "socket", errno);
        return -1;
    }
    reset_on_close(fd);
    int number = bind_source(fd, port);
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

int finish_connection(int fd)
{
    int number = 0;
    socklen_t bytes = sizeof number;
    if (!wait_for_events(fd, POLLOUT, settings.timeout_ms)) {
        return ETIMEDOUT;
    }
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &bytes));
    return number;
}

int open_connection(uint16_t port, int64_t *connect_ns, struct failure *failure)
{
    const int fd = begin_connection(port, connect_ns, failure);
    const int number = fd < 0 ? 0 : finish_connection(fd);
    if (number == 0) {
        return fd;
    }
    note_failure(failure, "connect", number);
    close(fd);
    return -1;
}
