/*
 * reference_server.c - one server in many models: the ways in which the literature on connection scaling serves a
 * connection, with the same handler in each. It is the system under test: what does one more held connection cost,
 * and which wall is met first?
 *
 * Timed: nothing in here, but for the work of a request (below). The client times connect() and the echo; observers read /proc from outside. The
 * server only counts, in connections and tasks.
 * Clock: CLOCK_MONOTONIC, read for `hello` only. Units: counts, and bytes for --stack.
 *
 * The handler (--protocol): `echo` receives what is there (at most 4 KiB) and sends all of it back; `http` answers each
 * request with the same few bytes (server_http.h). It closes at the end of the stream or on an error. TCP_NODELAY is
 * on. Listens on 127.0.0.1 only, at a port of the kernel's choice. The models (--model), each said in its own file:
 *   epoll, select, poll, io_uring: one thread for all connections.
 *   epoll-await, epoll-pool: the same by epoll, but what a request waits for is waited for by the loop, or by a pool of
 *     --workers threads behind it.
 *   thread, fork: a thread or a process for each connection.
 *   thread-pool, prefork: the same, but a fixed number (--workers) of them, made at the start.
 *   epoll-reuseport, epoll-exclusive: some processes (--workers), each with an event loop.
 *
 * Work of a request (server_work.h): --work-cpu-ns spins, --work-sleep-ns sleeps, --backend-port asks a backend (backend.c)
 * and waits for it, at most --backend-timeout-ns; all in the task that serves the connection, so that an event loop
 * stands still meanwhile (not epoll-await and epoll-pool). A request for /plain is answered without. With any of them, also 0, `status` has `work`: the sums, and how long requests
 * were in the queue and in the handler. Time in the server is only then measured.
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
 *   - prefork, thread-pool: the workers are there before the first connection, so a connection costs no task.
 *   - client and server share the machine, and its cores unless they are pinned apart.
 *
 * The parts: server.h (what they share), server_models.c (the table of models), server_model_NAME.c (one
 * each), server_listener.c, server_accept.c, server_connections.c (the handler), server_http.c and
 * server_http_request.c, server_work.c, server_backend.c, server_walls.c, server_commands.c; and what only some models use:
 * server_poll_loop.c, server_stalled.c, server_kept.c, server_stop_threads.c, server_workers.c, server_worker_epoll.c,
 * server_deferred.c.
 *
 * Sources: tcp(7), socket(7), accept(2), listen(2), and those of each part.
 */
#include "server.h"
#include "server_work.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MODELS_MAX = 16,
    BACKLOG_MAX = 65535,
    STACK_BYTES_MAX = 1 << 30,
    WORKERS_MAX = 10 * 1000,
    CAPACITY_MAX = 10 * 1000 * 1000,
};
static const int64_t WORK_NS_MAX = 60LL * 1000 * 1000 * 1000;

struct server server = {.backlog_asked_count = 4096, .listener_fd = -1, .self_status_fd = -1};

static void open_listener(void)
{
    server.listener_fd = server_bind(0, server.model->is_port_shared);
    server.port = server_local_port(server.listener_fd);
    if (!server.model->is_port_shared) {
        CHECK(listen(server.listener_fd, (int)server.backlog_asked_count));
    }
}

/* First, so that nobody new comes while the others are closed. */
static void close_listener(void)
{
    close(server.listener_fd);
    server.listener_fd = -1;
}

static void refuse_useless(const char *option, const char *word, bool is_given)
{
    if (is_given && strstr(server.model->takes, word) == NULL) {
        usage("%s does nothing for the model %s; leave it out", option, server.model->name);
    }
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
        {.name = "--work-cpu-ns", .number = &work_options.cpu_ns, .maximum = WORK_NS_MAX},
        {.name = "--work-sleep-ns", .number = &work_options.sleep_ns, .maximum = WORK_NS_MAX},
        {.name = "--backend-port", .number = &work_options.backend_port, .minimum = 1, .maximum = UINT16_MAX},
        {.name = "--backend-timeout-ns",
         .number = &work_options.backend_timeout_ns,
         .minimum = 1000,
         .maximum = WORK_NS_MAX},
    };
    for (int i = 0; i < MODELS_MAX && server_models[i] != NULL; i++) {
        names[i] = server_models[i]->name;
    }
    helper_parse("reference_server", argc, argv, options, ARRAY_COUNT(options));
    server.model = server_models[model];
    if (work_options.backend_port != 0 && server.protocol != SERVER_HTTP) {
        usage("--backend-port needs --protocol http: an echo cannot say that the backend failed");
    }
    refuse_useless("--stack", "stack", server.stack_bytes != 0);
    refuse_useless("--workers", "workers", server.workers_count != 0);
    refuse_useless("--edge", "edge", server.is_edge_triggered);
    refuse_useless("--capacity", "capacity", server.capacity_count != 0);
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    helper_start("reference_server");
    open_listener();
    work_prepare(server.listener_fd);
    backend_hear(STDIN_FILENO, server_read_commands);
    server.self_status_fd = (int)CHECK(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    server.model->prepare();
    emit("{\"type\":\"ready\",\"port\":%u,\"backlog\":%" PRId64 ",\"pid\":%d,\"model\":\"%s\"}", server.port,
         server_backlog_in_force(), getpid(), server.model->name);
    server.model->loop();
    close_listener();
    server.model->stop();
    helper_end(server.accepted_count, server.dropped_count);
    return 0;
}
