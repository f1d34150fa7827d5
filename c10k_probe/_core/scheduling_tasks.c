/*
 * scheduling_tasks.c - starts, watches and ends the tasks, processes or threads.
 *
 * A task that ends before it may would leave the others waiting for ever: SIGCHLD ends the whole helper
 * then, and the rest of the children by PR_SET_PDEATHSIG.
 *
 * Sources: fork(2), pthread_create(3), futex(2), waitpid(2), signal-safety(7).
 */
#include "scheduling.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_BYTES = 128 * 1024, READY_TIMEOUT_S = 60 };

/* What a thread is started with; a process has it on its stack. */
struct start {
    int cpu;
    task_body *body;
    void *context;
    size_t index;
};

struct tasks {
    enum scheduling_kind kind;
    size_t count; /* started */
    size_t capacity;
    _Atomic uint32_t *ready_count; /* shared */
    pid_t *processes;
    pthread_t *threads;
    struct start *starts;
};

int futex_wait(_Atomic uint32_t *word, uint32_t value, bool is_shared)
{
    int operation = is_shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE;
    return (int)syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word, int count, bool is_shared)
{
    CHECK(syscall(SYS_futex, word, is_shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0));
}

/* ---- switches ---- */

struct switches switches_now(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage));
    return (struct switches){.voluntary_count = usage.ru_nvcsw, .involuntary_count = usage.ru_nivcsw};
}

struct switches switches_between(struct switches before, struct switches after)
{
    return (struct switches){
        .voluntary_count = after.voluntary_count - before.voluntary_count,
        .involuntary_count = after.involuntary_count - before.involuntary_count,
    };
}

void switches_add(struct switches *sum, struct switches some)
{
    sum->voluntary_count += some.voluntary_count;
    sum->involuntary_count += some.involuntary_count;
}

/* ---- start ---- */

/* Only calls that are safe in a handler. A child that failed has printed its own line. */
static void child_ended(int signal_number)
{
    static const char line[] =
        "{\"type\":\"error\",\"helper\":\"scheduling\",\"call\":\"waitpid\",\"arguments\":\"a task that was killed\","
        "\"errno\":10,\"name\":\"ECHILD\",\"message\":\"a task ended before the measurement\"}\n";
    int status = 0;
    (void)signal_number;
    if (waitpid(-1, &status, WNOHANG) > 0) {
        if (!(WIFEXITED(status) && WEXITSTATUS(status) == HELPER_EXIT_FAILED) &&
            write(STDOUT_FILENO, line, sizeof(line) - 1) == -1) {
            _exit(HELPER_EXIT_FAILED);
        }
        _exit(HELPER_EXIT_FAILED);
    }
}

struct tasks *tasks_prepare(enum scheduling_kind kind, size_t count)
{
    struct sigaction action = {.sa_handler = child_ended};
    struct tasks *tasks = CHECK_POINTER(calloc(1, sizeof(*tasks)));
    tasks->kind = kind;
    tasks->capacity = count;
    tasks->ready_count = memory_shared(sizeof(*tasks->ready_count));
    tasks->processes = CHECK_POINTER(calloc(count, sizeof(*tasks->processes)));
    tasks->threads = CHECK_POINTER(calloc(count, sizeof(*tasks->threads)));
    tasks->starts = CHECK_POINTER(calloc(count, sizeof(*tasks->starts)));
    CHECK(sigaction(SIGCHLD, &action, NULL));
    return tasks;
}

static void run_body(const struct start *start)
{
    helper_pin_to_cpu(start->cpu);
    start->body(start->context, start->index);
}

static void *thread_main(void *start)
{
    run_body(start);
    return NULL;
}

static void start_thread(struct tasks *tasks, struct start *start)
{
    pthread_attr_t attributes;
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, STACK_BYTES));
    CHECK_PTHREAD(pthread_create(&tasks->threads[tasks->count], &attributes, thread_main, start));
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
}

static void start_process(struct tasks *tasks, struct start *start)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGCHLD, SIG_DFL);
        helper_die_with_parent();
        run_body(start);
        _exit(EXIT_SUCCESS);
    }
    if (child == -1) {
        int error_number = errno;
        tasks_let_end();
        for (size_t i = 0; i < tasks->count; i++) {
            kill(tasks->processes[i], SIGKILL);
        }
        tasks_join(tasks);
        fail_call("fork", "", error_number);
    }
    tasks->processes[tasks->count] = child;
}

void tasks_start(struct tasks *tasks, int cpu, task_body *body, void *context, size_t index)
{
    struct start *start = &tasks->starts[tasks->count];
    *start = (struct start){.cpu = cpu, .body = body, .context = context, .index = index};
    if (tasks->kind == KIND_THREADS) {
        start_thread(tasks, start);
    } else {
        start_process(tasks, start);
    }
    tasks->count++;
}

void tasks_say_ready(struct tasks *tasks)
{
    atomic_fetch_add(tasks->ready_count, 1);
    futex_wake(tasks->ready_count, 1, true);
}

void tasks_await_ready(struct tasks *tasks)
{
    uint32_t ready_count = atomic_load(tasks->ready_count);
    while (ready_count < tasks->count) {
        struct timespec patience = {.tv_sec = READY_TIMEOUT_S};
        if (syscall(SYS_futex, tasks->ready_count, FUTEX_WAIT, ready_count, &patience, NULL, 0) == -1 &&
            errno == ETIMEDOUT) {
            fail_call("futex", "the tasks to be ready", ETIMEDOUT);
        }
        ready_count = atomic_load(tasks->ready_count);
    }
}

/* ---- end ---- */

void tasks_let_end(void)
{
    signal(SIGCHLD, SIG_DFL);
}

void tasks_join(struct tasks *tasks)
{
    for (size_t i = 0; i < tasks->count; i++) {
        if (tasks->kind == KIND_THREADS) {
            CHECK_PTHREAD(pthread_join(tasks->threads[i], NULL));
        } else {
            while (waitpid(tasks->processes[i], NULL, 0) == -1 && errno == EINTR) {
            }
        }
    }
    munmap((void *)tasks->ready_count, sizeof(*tasks->ready_count));
    free(tasks->processes);
    free(tasks->threads);
    free(tasks->starts);
    free(tasks);
}
