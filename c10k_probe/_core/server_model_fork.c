/*
 * server_model_fork.c - a child process for each connection, its buffer on the child's stack; the parent
 * closes its copy of the descriptor and reaps. Sources: fork(2), waitpid(2), signalfd(2).
 */
#include "server.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIDS_COUNT = 4 * 1024 * 1024 }; /* PID_MAX_LIMIT of include/linux/threads.h: cannot overflow */

/* The first open_count are alive or not yet reaped. Pages that were never touched cost nothing. */
static pid_t child_pids[PIDS_COUNT];
static int wake_fd = -1; /* a signalfd: a child has ended */
static volatile sig_atomic_t child_connection_fd = -1;

static void prepare(void)
{
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &ended, NULL));
    wake_fd = (int)CHECK(signalfd(-1, &ended, SFD_NONBLOCK | SFD_CLOEXEC));
}

/* ---- the child ---- */

/* Leaves at once, with a reset instead of the orderly end, so that no TIME_WAIT stays. */
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
    struct sigaction stop_child = {.sa_handler = on_stop_child};
    sigset_t none;
    sigemptyset(&none);
    CHECK(sigaction(SIGTERM, &stop_child, NULL));
    CHECK(sigprocmask(SIG_SETMASK, &none, NULL));
    const int parents[] = {server.listener_fd, wake_fd, server.self_status_fd, STDIN_FILENO, STDOUT_FILENO};
    for (size_t i = 0; i < ARRAY_COUNT(parents); i++) {
        close(parents[i]);
    }
    server_serve_until_closed(fd);
    _exit(0);
}

/* ---- the parent ---- */

static void serve(int fd)
{
    pid_t child = fork();
    if (child == 0) {
        child_main(fd);
    }
    if (child < 0) {
        server_refuse(fd, "fork", errno);
        return;
    }
    child_pids[atomic_fetch_add(&server.open_count, 1)] = child;
    close(fd);
}

static void forget_child(pid_t child)
{
    int64_t count = atomic_load(&server.open_count);
    for (int64_t i = 0; i < count; i++) {
        if (child_pids[i] == child) {
            child_pids[i] = child_pids[count - 1];
            server_count_closed();
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

static void loop(void)
{
    server_poll_loop(wake_fd, reap_ended);
}

static int64_t count_tasks(void)
{
    reap_ended();
    return 1 + atomic_load(&server.open_count);
}

static void stop(void)
{
    int64_t count = atomic_load(&server.open_count);
    for (int64_t i = 0; i < count; i++) {
        (void)kill(child_pids[i], SIGTERM); /* not yet reaped, so the pid is still this child's */
    }
    for (pid_t child; (child = waitpid(-1, NULL, 0)) > 0 || errno == EINTR;) {
        if (child > 0) {
            forget_child(child);
        }
    }
}

const struct server_model server_model_fork = {
    .name = "fork",
    .takes = "",
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .count_tasks = count_tasks,
    .stop = stop,
};
