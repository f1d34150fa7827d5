/*
 * reference_server - the same echo server in three models: one thread with epoll, a thread for each
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
 * Sources: epoll(7), tcp(7), socket(7), accept(2), listen(2), clone(2), pthread_create(3), signalfd(2),
 * eventfd(2), Documentation/networking/ip-sysctl.rst (somaxconn).
 */
#include "helper.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum model { MODEL_EPOLL, MODEL_THREAD, MODEL_FORK };

enum {
    BUFFER_BYTES = 4096,
    LINE_BYTES = 128,
    EVENTS_COUNT = 256,
    ACCEPT_BATCH_COUNT = 256, /* then look at stdin and at the ended tasks again */
    WALLS_COUNT = 16,
    RETRY_MS = 1000,          /* for walls that other processes can lift */
    STOP_POLL_US = 1000,
    STOP_ROUNDS = 2000, /* 2 s at least: for the mild request to threads, and again for the hard one */
    PIDS_COUNT = 4 * 1024 * 1024, /* PID_MAX_LIMIT of include/linux/threads.h: cannot overflow */
    STACK_BYTES_MAX = 1 << 30,
    BACKLOG_MAX = 65535,
};

/* The rest of an echo whose client does not read (epoll only). */
struct stalled {
    struct stalled *next;
    int fd;
    size_t used_bytes, total_bytes;
    char bytes[BUFFER_BYTES];
};

static const char *const model_names[] = {"epoll", "thread", "fork", NULL};
static int64_t model = MODEL_EPOLL, backlog_asked = 4096;
static int64_t stack_bytes; /* 0: the default attributes */

static int listener_fd = -1, epoll_fd = -1, wake_fd = -1, self_status_fd = -1, highest_fd;
static uint16_t port;
static pthread_attr_t thread_attributes;
static bool is_quitting;

static _Atomic int64_t open_count, closed_count;
static atomic_bool is_paused;
static int64_t closed_at_pause_count;
static int pause_errno;
static int64_t accepted_count, dropped_count, accept_errors_count;

/* The first open_count are alive or not yet reaped. Pages that were never touched cost nothing. */
static pid_t child_pids[PIDS_COUNT];
static volatile sig_atomic_t child_connection_fd = -1;
static struct stalled *stalled_list;

/* ---- walls ---- */

static bool is_wall(int number)
{
    static const int walls[] = {EMFILE, ENFILE, EAGAIN, ENOMEM, ENOBUFS,
                                ENOSPC}; /* the last one: epoll_ctl and fs.epoll.max_user_watches */
    for (size_t i = 0; i < ARRAY_COUNT(walls); i++) {
        if (number == walls[i]) {
            return true;
        }
    }
    return false;
}

static bool is_first_time(const char *call, int number)
{
    static struct {
        const char *call;
        int number;
    } seen[WALLS_COUNT];
    for (size_t i = 0; i < WALLS_COUNT; i++) {
        if (seen[i].call == NULL) {
            seen[i].call = call;
            seen[i].number = number;
            return true;
        }
        if (strcmp(seen[i].call, call) == 0 && seen[i].number == number) {
            return false;
        }
    }
    return false;
}

static void report_wall(const char *call, int number)
{
    accept_errors_count++;
    if (!is_first_time(call, number)) {
        return;
    }
    emit_begin("{\"type\":\"wall\",\"call\":\"%s\",", call);
    emit_errno(number);
    emit_part(",\"open_count\":%" PRId64, atomic_load(&open_count));
    emit_finish("}");
}

/* An accepted connection for which there is no task (or no watch): the client must see that. */
static void refuse(int fd, const char *call, int number)
{
    if (!is_wall(number)) {
        fail_call(call, "for a new connection", number);
    }
    close(fd);
    dropped_count++;
    report_wall(call, number);
}

/* ---- watching the listener, or not ---- */

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    CHECK(epoll_ctl(epoll_fd, operation, fd, &event));
}

/* closed_before: closed_count as it was before the call that failed. A thread that closes counts first and
 * looks at is_paused then; here it is the other way round, so a close in between cannot be missed. */
static void pause_accepting(int64_t closed_before, int number)
{
    closed_at_pause_count = closed_before;
    pause_errno = number;
    atomic_store(&is_paused, true);
    if (model == MODEL_EPOLL) {
        watch(EPOLL_CTL_MOD, listener_fd, 0);
    }
}

static void resume_accepting(void)
{
    atomic_store(&is_paused, false);
    if (model == MODEL_EPOLL) {
        watch(EPOLL_CTL_MOD, listener_fd, EPOLLIN);
    }
}

/* EMFILE is this process's own affair: only a close of ours lifts it. */
static int retry_timeout_ms(void)
{
    return atomic_load(&is_paused) && pause_errno != EMFILE ? RETRY_MS : -1;
}

static void resume_if_possible(bool is_retry_due)
{
    if (!atomic_load(&is_paused)) {
        return;
    }
    if (atomic_load(&closed_count) != closed_at_pause_count || (is_retry_due && pause_errno != EMFILE)) {
        resume_accepting();
    }
}

static void count_closed(void)
{
    atomic_fetch_sub(&open_count, 1);
    atomic_fetch_add(&closed_count, 1);
    if (model == MODEL_THREAD && atomic_load(&is_paused)) {
        (void)eventfd_write(wake_fd, 1);
    }
}

/* ---- the handler ---- */

/* Keeps the rest of an echo until the client reads; meanwhile nothing more is received from it. */
static bool set_aside(int fd, const char *bytes, size_t count)
{
    struct stalled *stalled = malloc(sizeof *stalled);
    if (stalled == NULL) {
        return false;
    }
    *stalled = (struct stalled){.next = stalled_list, .fd = fd, .total_bytes = count};
    memcpy(stalled->bytes, bytes, count);
    stalled_list = stalled;
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    return true;
}

/* Bytes sent, fewer than asked only where a non-blocking socket is full; -1 when the connection is over. */
static ssize_t send_what_fits(int fd, const char *bytes, size_t count)
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

/* One step: receive, send back. False when the connection is over. */
static bool echo_step(int fd, char buffer[static BUFFER_BYTES])
{
    ssize_t received = recv(fd, buffer, BUFFER_BYTES, 0);
    if (received <= 0) {
        return received < 0 && (errno == EINTR || errno == EAGAIN);
    }
    ssize_t sent = send_what_fits(fd, buffer, (size_t)received);
    if (sent < 0) {
        return false;
    }
    return sent == received || set_aside(fd, buffer + sent, (size_t)(received - sent));
}

static void echo_until_closed(int fd)
{
    char buffer[BUFFER_BYTES];
    while (echo_step(fd, buffer)) {
    }
    close(fd);
}

/* ---- a new connection in each model ---- */

static void serve_by_epoll(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        refuse(fd, "epoll_ctl", errno);
        return;
    }
    atomic_fetch_add(&open_count, 1);
}

static void *thread_main(void *argument)
{
    echo_until_closed((int)(intptr_t)argument);
    count_closed();
    return NULL;
}

static void serve_by_thread(int fd)
{
    pthread_t thread;
    atomic_fetch_add(&open_count, 1); /* before: the thread may end before pthread_create returns */
    int number = pthread_create(&thread, &thread_attributes, thread_main, (void *)(intptr_t)fd);
    if (number != 0) {
        atomic_fetch_sub(&open_count, 1);
        refuse(fd, "pthread_create", number);
    }
}

/* In the child: leave at once, with a reset instead of the orderly end, so that no TIME_WAIT stays. */
static void on_stop_child(int signal_number)
{
    (void)signal_number;
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(child_connection_fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    _exit(0);
}

static _Noreturn void child_main(int fd)
{
    helper_die_with_parent();
    child_connection_fd = fd;
    struct sigaction stop = {.sa_handler = on_stop_child};
    sigset_t none;
    sigemptyset(&none);
    CHECK(sigaction(SIGTERM, &stop, NULL));
    CHECK(sigprocmask(SIG_SETMASK, &none, NULL));
    const int parents[] = {listener_fd, wake_fd, self_status_fd, STDIN_FILENO, STDOUT_FILENO};
    for (size_t i = 0; i < ARRAY_COUNT(parents); i++) {
        close(parents[i]);
    }
    echo_until_closed(fd);
    _exit(0);
}

static void serve_by_fork(int fd)
{
    pid_t child = fork();
    if (child == 0) {
        child_main(fd);
    }
    if (child < 0) {
        refuse(fd, "fork", errno);
        return;
    }
    child_pids[atomic_fetch_add(&open_count, 1)] = child;
    close(fd);
}

static void serve(int fd)
{
    switch (model) {
    case MODEL_THREAD:
        serve_by_thread(fd);
        break;
    case MODEL_FORK:
        serve_by_fork(fd);
        break;
    default:
        serve_by_epoll(fd);
    }
}

/* ---- accepting ---- */

/* accept4 takes a descriptor before it looks at the queue, so it says EMFILE also when nobody waits. */
static bool is_client_waiting(void)
{
    struct pollfd listener = {.fd = listener_fd, .events = POLLIN};
    return poll(&listener, 1, 0) > 0;
}

/* True: try again at once. The passing errors are the new connection's own (accept(2), "Error handling"). */
static bool after_failed_accept(int number, int64_t closed_before)
{
    static const int passing[] = {EINTR,     ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                  EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
    if (number == EAGAIN || (is_wall(number) && !is_client_waiting())) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_COUNT(passing); i++) {
        if (number == passing[i]) {
            accept_errors_count += number != EINTR;
            return true;
        }
    }
    if (!is_wall(number)) {
        fail_call("accept4", "listener", number);
    }
    report_wall("accept4", number);
    pause_accepting(closed_before, number);
    return false;
}

static bool accept_one(void)
{
    const int on = 1;
    int64_t closed_before = atomic_load(&closed_count);
    int fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC | (model == MODEL_EPOLL ? SOCK_NONBLOCK : 0));
    if (fd < 0) {
        return after_failed_accept(errno, closed_before);
    }
    accepted_count++;
    highest_fd = fd > highest_fd ? fd : highest_fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails only if it is reset already */
    serve(fd);
    return true;
}

static void accept_batch(void)
{
    for (int i = 0; i < ACCEPT_BATCH_COUNT && accept_one(); i++) {
    }
}

/* ---- ended children ---- */

static void forget_child(pid_t child)
{
    int64_t count = atomic_load(&open_count);
    for (int64_t i = 0; i < count; i++) {
        if (child_pids[i] == child) {
            child_pids[i] = child_pids[count - 1];
            count_closed();
            return;
        }
    }
}

static void reap_ended(void)
{
    pid_t child;
    while ((child = waitpid(-1, NULL, WNOHANG)) > 0) {
        forget_child(child);
    }
}

/* Empties the descriptor that woke us: eventfd (thread) or signalfd (fork), both non-blocking. */
static void on_wake(void)
{
    char ignored[sizeof(struct signalfd_siginfo)];
    while (read(wake_fd, ignored, sizeof ignored) > 0) {
    }
    if (model == MODEL_FORK) {
        reap_ended();
    }
}

/* ---- commands ---- */

/* Threads of this process, from the kernel, through a descriptor opened before any wall. */
static int64_t count_own_threads(void)
{
    char text[4096];
    ssize_t length = pread(self_status_fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    const char *line = strstr(text, "\nThreads:");
    return line == NULL ? 1 : strtoll(line + strlen("\nThreads:"), NULL, 10);
}

static void print_status(void)
{
    if (model == MODEL_FORK) {
        reap_ended();
    }
    int64_t open = atomic_load(&open_count);
    emit("{\"type\":\"status\",\"accepted_count\":%" PRId64 ",\"open_count\":%" PRId64
         ",\"tasks_count\":%" PRId64 ",\"accept_errors_count\":%" PRId64 "}",
         accepted_count, open, model == MODEL_FORK ? 1 + open : count_own_threads(), accept_errors_count);
}

static void obey(const char *command)
{
    if (strcmp(command, "status") == 0) {
        print_status();
    } else if (strcmp(command, "quit") == 0) {
        is_quitting = true;
    } else if (*command != '\0') {
        usage("unknown command \"%s\"; known: status, quit", command);
    }
}

/* One read of stdin; obeys every line that is complete. */
static void read_commands(void)
{
    static char text[LINE_BYTES];
    static size_t used;
    ssize_t got = read(STDIN_FILENO, text + used, sizeof text - used);
    if (got <= 0) {
        is_quitting = !(got < 0 && (errno == EINTR || errno == EAGAIN));
        return;
    }
    used += (size_t)got;
    for (char *end; !is_quitting && (end = memchr(text, '\n', used)) != NULL;) {
        *end = '\0';
        obey(text);
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used);
    }
    if (used == sizeof text) {
        usage("a command is at most %d bytes", LINE_BYTES - 1);
    }
}

/* ---- the loops ---- */

/* Sends what was set aside; false when the connection is over. */
static bool send_stalled(struct stalled **link)
{
    struct stalled *stalled = *link;
    ssize_t sent = send_what_fits(stalled->fd, stalled->bytes + stalled->used_bytes,
                                  stalled->total_bytes - stalled->used_bytes);
    if (sent >= 0) {
        stalled->used_bytes += (size_t)sent;
        if (stalled->used_bytes < stalled->total_bytes) {
            return true;
        }
        watch(EPOLL_CTL_MOD, stalled->fd, EPOLLIN);
    }
    *link = stalled->next;
    free(stalled);
    return sent >= 0;
}

static struct stalled **find_stalled(int fd)
{
    struct stalled **link = &stalled_list;
    while (*link != NULL && (*link)->fd != fd) {
        link = &(*link)->next;
    }
    return link;
}

static void serve_event(int fd)
{
    static char buffer[BUFFER_BYTES];
    struct stalled **link = find_stalled(fd); /* the list is empty in all ordinary runs */
    if (*link != NULL ? send_stalled(link) : echo_step(fd, buffer)) {
        return;
    }
    close(fd);
    count_closed();
}

static void dispatch(int fd)
{
    if (fd == listener_fd) {
        accept_batch();
    } else if (fd == STDIN_FILENO) {
        read_commands();
    } else {
        serve_event(fd);
    }
}

/* epoll refuses regular files and /dev/null (EPERM): always ready, so they are read to their end. */
static void watch_stdin(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) == 0) {
        return;
    }
    if (errno != EPERM) {
        fail_call("epoll_ctl", "EPOLL_CTL_ADD, stdin", errno);
    }
    while (!is_quitting) {
        read_commands();
    }
}

static void loop_with_epoll(void)
{
    struct epoll_event events[EVENTS_COUNT];
    watch_stdin();
    while (!is_quitting) {
        int count = epoll_wait(epoll_fd, events, EVENTS_COUNT, retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !is_quitting; i++) {
            dispatch(events[i].data.fd);
        }
        resume_if_possible(count == 0);
    }
}

/* thread and fork: this loop accepts, the connections are served elsewhere. */
static void loop_with_poll(void)
{
    struct pollfd watched[] = {{.fd = wake_fd, .events = POLLIN},
                               {.fd = listener_fd, .events = POLLIN},
                               {.fd = STDIN_FILENO, .events = POLLIN}};
    while (!is_quitting) {
        watched[1].fd = atomic_load(&is_paused) ? -1 : listener_fd;
        int count = poll(watched, ARRAY_COUNT(watched), retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("poll", "listener, stdin", errno);
        }
        if (count > 0 && watched[0].revents != 0) {
            on_wake();
        }
        if (count > 0 && watched[1].revents != 0) {
            accept_batch();
        }
        if (count > 0 && watched[2].revents != 0) {
            read_commands();
        }
        resume_if_possible(count == 0);
    }
}

/* ---- the end ---- */

static uint16_t local_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 || address.sin_family != AF_INET) {
        return 0;
    }
    return ntohs(address.sin_port);
}

/* Calls stop for every connection. No list of them is kept, the descriptors are the list. Whoever closes
 * one of these then sends a reset, so that no TIME_WAIT stays behind. */
static void stop_connections(void (*stop)(int fd))
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    for (int fd = 0; fd <= highest_fd; fd++) {
        if (fd != listener_fd && local_port(fd) == port) {
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            stop(fd);
        }
    }
}

static void close_connection(int fd)
{
    close(fd);
    count_closed();
}

static void stop_epoll(void)
{
    stop_connections(close_connection);
    while (stalled_list != NULL) {
        struct stalled *next = stalled_list->next;
        free(stalled_list);
        stalled_list = next;
    }
    close(epoll_fd);
}

/* Wakes a thread that receives (it sees the end of the stream), without telling the client. */
static void shut_receiving(int fd)
{
    (void)shutdown(fd, SHUT_RD);
}

/* Wakes one that is blocked in send, too. */
static void shut_both(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

static bool is_nothing_open(void)
{
    return atomic_load(&open_count) == 0;
}

/* A detached thread goes on for a moment after it has counted its connection as closed. */
static bool is_alone(void)
{
    return is_nothing_open() && count_own_threads() == 1;
}

static bool wait_until(bool (*is_reached)(void))
{
    for (int i = 0; i < STOP_ROUNDS; i++) {
        if (is_reached()) {
            return true;
        }
        usleep(STOP_POLL_US);
    }
    return false;
}

/* Threads that are still there after the last wait end with the process. */
static void stop_threads(void)
{
    stop_connections(shut_receiving);
    if (!wait_until(is_nothing_open)) {
        stop_connections(shut_both);
    }
    (void)wait_until(is_alone);
    CHECK_PTHREAD(pthread_attr_destroy(&thread_attributes));
}

static void stop_children(void)
{
    int64_t count = atomic_load(&open_count);
    for (int64_t i = 0; i < count; i++) {
        (void)kill(child_pids[i], SIGTERM); /* not yet reaped, so the pid is still this child's */
    }
    for (pid_t child; (child = waitpid(-1, NULL, 0)) > 0 || errno == EINTR;) {
        if (child > 0) {
            forget_child(child);
        }
    }
}

/* ---- the start ---- */

static void open_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(bind(listener_fd, (struct sockaddr *)&address, sizeof address));
    CHECK(listen(listener_fd, (int)backlog_asked));
    port = local_port(listener_fd);
}

/* What is in force: the kernel cuts the backlog at somaxconn without a word (listen(2)). */
static int64_t backlog_in_force(void)
{
    int64_t most = backlog_asked;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNd64, &most) != 1) {
            most = backlog_asked;
        }
        fclose(file);
    }
    return most < backlog_asked ? most : backlog_asked;
}

static void prepare_epoll(void)
{
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    watch(EPOLL_CTL_ADD, listener_fd, EPOLLIN);
}

static void prepare_threads(void)
{
    wake_fd = (int)CHECK(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK_PTHREAD(pthread_attr_init(&thread_attributes));
    CHECK_PTHREAD(pthread_attr_setdetachstate(&thread_attributes, PTHREAD_CREATE_DETACHED));
    if (stack_bytes > 0) {
        CHECK_PTHREAD(pthread_attr_setstacksize(&thread_attributes, (size_t)stack_bytes));
    }
}

static void prepare_children(void)
{
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &ended, NULL));
    wake_fd = (int)CHECK(signalfd(-1, &ended, SFD_NONBLOCK | SFD_CLOEXEC));
}

int main(int argc, char **argv)
{
    static void (*const prepare[])(void) = {prepare_epoll, prepare_threads, prepare_children};
    static void (*const loop[])(void) = {loop_with_epoll, loop_with_poll, loop_with_poll};
    static void (*const stop[])(void) = {stop_epoll, stop_threads, stop_children};
    const struct helper_option options[] = {
        {.name = "--model", .number = &model, .choices = model_names, .required = true},
        {.name = "--backlog", .number = &backlog_asked, .minimum = 1, .maximum = BACKLOG_MAX},
        {.name = "--stack", .number = &stack_bytes, .minimum = PTHREAD_STACK_MIN, .maximum = STACK_BYTES_MAX},
    };
    helper_parse("reference_server", argc, argv, options, ARRAY_COUNT(options));
    helper_start("reference_server");
    open_listener();
    self_status_fd = (int)CHECK(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    prepare[model]();
    emit("{\"type\":\"ready\",\"port\":%u,\"backlog\":%" PRId64 ",\"pid\":%d,\"model\":\"%s\"}", port,
         backlog_in_force(), getpid(), model_names[model]);
    loop[model]();
    close(listener_fd); /* first, so that nobody new comes while the others are closed */
    listener_fd = -1;
    stop[model]();
    helper_end(accepted_count, dropped_count);
    return 0;
}
