/*
 * reference_server.c - the same echo server in three models: one thread with epoll, a thread for each
 * connection, a process for each connection. It is the system under test: what does one more held
 * connection cost, and which wall is met first?
 *
 * Timed: nothing in here. The client times connect() and the echo; observers read /proc from outside. The
 * server only counts, in connections and tasks.
 * Clock: CLOCK_MONOTONIC, read for `hello` only. Units: counts, and bytes for --stack.
 *
 * The handler is the same code in each model: receive what is there (at most 4 KiB), send all of it back,
 * close at the end of the stream or on an error. TCP_NODELAY is on. Listens on 127.0.0.1 only, at a port of
 * the kernel's choice.
 *   epoll:  level-triggered, non-blocking, one buffer for all; no user memory for a connection, except for
 *           one whose client does not read its echo (the rest of that echo is set aside, at most 4 KiB).
 *   thread: one detached thread each, the buffer is on its stack; default attributes unless --stack is given.
 *   fork:   one child each, the buffer is on its stack; the parent closes its copy of the descriptor.
 *
 * Commands, one a line on stdin: `status`, `quit` (or end of file).
 * A wall (no descriptor, no task, no memory) is printed once for each pair of call and error, and the server
 * goes on. A connection that was accepted but cannot be served is closed. Where accept4 itself meets the wall
 * the connection stays in the kernel's queue, and the listener is not watched until another one closes.
 *
 * Known bias:
 *   - thread: glibc keeps up to 40 MiB of stacks of ended threads for new ones, so memory after closing is an
 *     upper bound; touched pages of a stack are part of the price of a connection, by design.
 *   - fork: the parent's table of child pids (4 bytes each) is copied on write by the parent while it grows.
 *   - client and server share the machine, and its cores unless they are pinned apart.
 *
 * The parts: server.h (what they share), server_models.c (the table of models), server_model_NAME.c (one
 * each), server_accept.c, server_connections.c (the handler), server_walls.c, server_commands.c,
 * server_poll_loop.c and server_stalled.c (what only some models use).
 *
 * Sources: epoll(7), tcp(7), socket(7), accept(2), listen(2), clone(2), pthread_create(3), signalfd(2),
 * eventfd(2), Documentation/networking/ip-sysctl.rst (somaxconn).
 */
#include "server.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MODELS_MAX = 16,
    BACKLOG_MAX = 65535,
    STACK_BYTES_MAX = 1 << 30,
    WORKERS_MAX = 10 * 1000,
    CAPACITY_MAX = 10 * 1000 * 1000,
};

struct server server = {.backlog_asked_count = 4096, .listener_fd = -1, .self_status_fd = -1};

/* What is accepted has the listener's TCP_NODELAY: no call for each connection. */
static void open_listener(void)
{
    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server.listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(bind(server.listener_fd, (struct sockaddr *)&address, sizeof address));
    CHECK(setsockopt(server.listener_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    CHECK(listen(server.listener_fd, (int)server.backlog_asked_count));
    server.port = server_local_port(server.listener_fd);
}

/* First, so that nobody new comes while the others are closed. */
static void close_listener(void)
{
    close(server.listener_fd);
    server.listener_fd = -1;
}

/* What is in force: the kernel cuts the backlog at somaxconn without a word (listen(2)). */
static int64_t backlog_in_force(void)
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

static void read_arguments(int argc, char **argv)
{
    const char *names[MODELS_MAX + 1] = {NULL};
    int64_t model = 0;
    static const char *const off_on[] = {"off", "on", NULL}, *const protocols[] = {"echo", "http", NULL};
    const struct helper_option options[] = {
        {.name = "--model", .number = &model, .choices = names, .required = true},
        {.name = "--backlog", .number = &server.backlog_asked_count, .minimum = 1, .maximum = BACKLOG_MAX},
        {.name = "--stack",
         .number = &server.stack_bytes,
         .minimum = PTHREAD_STACK_MIN,
         .maximum = STACK_BYTES_MAX},
        {.name = "--workers", .number = &server.workers_count, .minimum = 1, .maximum = WORKERS_MAX},
        {.name = "--capacity", .number = &server.capacity_count, .minimum = 1, .maximum = CAPACITY_MAX},
        {.name = "--edge", .number = &server.is_edge_triggered, .choices = off_on},
        {.name = "--protocol", .number = &server.protocol, .choices = protocols},
    };
    for (int i = 0; i < MODELS_MAX && server_models[i] != NULL; i++) {
        names[i] = server_models[i]->name;
    }
    helper_parse("reference_server", argc, argv, options, ARRAY_COUNT(options));
    server.model = server_models[model];
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    helper_start("reference_server");
    open_listener();
    server.self_status_fd = (int)CHECK(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    server.model->prepare();
    emit("{\"type\":\"ready\",\"port\":%u,\"backlog\":%" PRId64 ",\"pid\":%d,\"model\":\"%s\"}", server.port,
         backlog_in_force(), getpid(), server.model->name);
    server.model->loop();
    close_listener();
    server.model->stop();
    helper_end(server.accepted_count, server.dropped_count);
    return 0;
}
