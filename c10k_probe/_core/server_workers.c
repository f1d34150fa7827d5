/*
 * server_workers.c - master and worker processes. The contract is in server_workers.h.
 */
#include "server_workers.h"

#include "server_work.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CACHE_LINE_BYTES = 64,
    WORKER_WALLS_COUNT = 16, /* as many as a process tells at most */
    START_POLL_US = 500,
};

/* A worker as all see it; it writes, but for the pid. No two share a cache line. */
struct worker {
    _Alignas(CACHE_LINE_BYTES) pid_t pid; /* 0: it is dead */
    _Atomic int64_t accepted_count, open_count, closed_count, dropped_count, accept_errors_count, requests_count;
    atomic_bool is_ready;
    _Atomic int walls_count;
    struct {
        const char *call; /* a constant, at the same address in all that were forked */
        int error_number;
    } walls[WORKER_WALLS_COUNT];
};

static struct worker *workers; /* shared memory */
static struct worker *self;    /* NULL in the master */
static pid_t master_pid;
static int64_t alive_count;
static int signal_fd = -1; /* a worker has ended (SIGCHLD), or wants to be heard (SIGUSR1) */

/* ---- a worker ---- */

void workers_publish(void)
{
    atomic_store(&self->open_count, atomic_load(&server.open_count));
    atomic_store(&self->accepted_count, atomic_load(&server.accepted_count));
    atomic_store(&self->closed_count, atomic_load(&server.closed_count));
    atomic_store(&self->dropped_count, atomic_load(&server.dropped_count));
    atomic_store(&self->accept_errors_count, atomic_load(&server.accept_errors_count));
    atomic_store(&self->requests_count, work_own_requests_count());
}

void workers_say_ready(void)
{
    atomic_store(&self->is_ready, true);
}

void workers_wake_master(void)
{
    (void)kill(master_pid, SIGUSR1); /* it cannot be gone: this process would be dead, too */
}

static void tell_master(const char *call, int error_number)
{
    const int count = atomic_load(&self->walls_count);
    if (count < WORKER_WALLS_COUNT) {
        self->walls[count].call = call;
        self->walls[count].error_number = error_number;
        atomic_store(&self->walls_count, count + 1);
        workers_publish();
        workers_wake_master();
    }
}

static _Noreturn void worker_main(int64_t number, void (*run)(int64_t number))
{
    sigset_t none;
    helper_die_with_parent();
    self = &workers[number];
    sigemptyset(&none);
    CHECK(sigprocmask(SIG_SETMASK, &none, NULL));
    const int masters[] = {signal_fd, server.self_status_fd, STDIN_FILENO};
    for (size_t i = 0; i < ARRAY_COUNT(masters); i++) {
        close(masters[i]);
    }
    server_tell_walls_to(tell_master);
    run(number);
    _exit(0);
}

/* ---- the master ---- */

void workers_prepare(void)
{
    sigset_t heard;
    workers = CHECK_POINTER(mmap(NULL, (size_t)server.workers_count * sizeof workers[0], PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    master_pid = getpid();
    sigemptyset(&heard);
    sigaddset(&heard, SIGCHLD);
    sigaddset(&heard, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &heard, NULL));
    signal_fd = (int)CHECK(signalfd(-1, &heard, SFD_NONBLOCK | SFD_CLOEXEC));
}

static bool are_all_ready(void)
{
    for (int64_t i = 0; i < server.workers_count; i++) {
        if (!atomic_load(&workers[i].is_ready)) {
            return false;
        }
    }
    return true;
}

static void wait_until_ready(void)
{
    while (!are_all_ready()) {
        if (waitpid(-1, NULL, WNOHANG) > 0) {
            fail_call("waitpid", "a worker ended before it was ready", ECHILD);
        }
        usleep(START_POLL_US);
    }
}

void workers_start(void (*run)(int64_t number))
{
    for (int64_t number = 0; number < server.workers_count; number++) {
        const pid_t pid = (pid_t)CHECK(fork());
        if (pid == 0) {
            worker_main(number, run);
        }
        workers[number].pid = pid;
        alive_count++;
    }
    wait_until_ready();
}

static void add_up(void)
{
    int64_t accepted = 0, open = 0, closed = 0, dropped = 0, errors = 0;
    for (const struct worker *worker = workers; worker < workers + server.workers_count; worker++) {
        accepted += atomic_load(&worker->accepted_count);
        open += atomic_load(&worker->open_count);
        closed += atomic_load(&worker->closed_count);
        dropped += atomic_load(&worker->dropped_count);
        errors += atomic_load(&worker->accept_errors_count);
    }
    atomic_store(&server.accepted_count, accepted);
    atomic_store(&server.open_count, open);
    atomic_store(&server.closed_count, closed);
    atomic_store(&server.dropped_count, dropped);
    atomic_store(&server.accept_errors_count, errors);
}

/* Its connections were closed by the kernel. */
static void bury(struct worker *worker)
{
    worker->pid = 0;
    alive_count--;
    atomic_fetch_add(&worker->closed_count, atomic_load(&worker->open_count));
    atomic_store(&worker->open_count, 0);
}

static struct worker *find_worker(pid_t pid)
{
    struct worker *worker = workers;
    while (worker->pid != pid) { /* the master has no other children */
        worker++;
    }
    return worker;
}

/* A worker does not end by itself: whatever is measured from now on is measured with one less. */
static void tell_death(const struct worker *worker, int status)
{
    char how[64], why[160];
    if (WIFSIGNALED(status)) {
        snprintf(how, sizeof how, "was killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    } else {
        snprintf(how, sizeof how, "exited with %d", WEXITSTATUS(status));
    }
    snprintf(why, sizeof why, "worker %td of %" PRId64 " %s: its connections are closed, it is not replaced",
             worker - workers + 1, server.workers_count, how);
    server_tell("worker", ECHILD, why);
}

static void reap_ended(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct worker *worker = find_worker(pid);
        bury(worker);
        add_up();
        tell_death(worker, status);
    }
    if (alive_count == 0) {
        fail_call("waitpid", "every worker has ended", ECHILD);
    }
}

/* What several workers have met is told once. */
static void tell_walls(void)
{
    for (const struct worker *worker = workers; worker < workers + server.workers_count; worker++) {
        for (int i = 0; i < atomic_load(&worker->walls_count); i++) {
            server_tell_wall(worker->walls[i].call, worker->walls[i].error_number, NULL);
        }
    }
}

static void hear_workers(void)
{
    struct signalfd_siginfo ignored;
    while (read(signal_fd, &ignored, sizeof ignored) > 0) {
    }
    reap_ended();
    add_up();
    tell_walls();
}

void workers_loop(const struct workers_watch *watch)
{
    struct pollfd watched[] = {
        {.fd = signal_fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
    while (!server.is_quitting) {
        watched[2].fd = watch != NULL && watch->is_due() ? server.listener_fd : -1;
        const int count = poll(watched, ARRAY_COUNT(watched), -1);
        if (count < 0) {
            if (errno != EINTR) {
                fail_call("poll", "signals, stdin, listener", errno);
            }
            continue;
        }
        if (watched[0].revents != 0) {
            hear_workers();
        }
        if (watched[1].revents != 0) {
            server_read_commands();
        }
        if (watched[2].revents != 0) {
            add_up();
            watch->on_ready();
        }
    }
}

int64_t workers_alive_count(void)
{
    return alive_count;
}

int64_t workers_count_tasks(void)
{
    hear_workers();
    return 1 + alive_count;
}

static void emit_shares(const char *before, size_t offset)
{
    const char *separator = "[";
    emit_part("%s", before);
    for (int64_t i = 0; i < server.workers_count; i++) {
        const _Atomic int64_t *count = (const void *)((const char *)&workers[i] + offset);
        emit_part("%s%" PRId64, separator, atomic_load(count));
        separator = ",";
    }
    emit_part("]");
}

void workers_emit_status(void)
{
    emit_shares(",\"worker_accepted_count\":", offsetof(struct worker, accepted_count));
    emit_shares(",\"worker_open_count\":", offsetof(struct worker, open_count));
    if (work_is_timed()) {
        emit_shares(",\"worker_requests_count\":", offsetof(struct worker, requests_count));
    }
}

void workers_stop(void)
{
    for (int64_t i = 0; i < server.workers_count; i++) {
        if (workers[i].pid != 0) {
            (void)kill(workers[i].pid, SIGTERM); /* not yet reaped, so the pid is still this worker's */
        }
    }
    for (pid_t pid; (pid = waitpid(-1, NULL, 0)) > 0 || errno == EINTR;) {
        if (pid > 0) {
            bury(find_worker(pid));
        }
    }
    add_up();
}
