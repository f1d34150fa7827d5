/*
 * creation_alive.c - children or threads that do nothing but live: each blocked in read(2) on one pipe.
 *
 * Each says that it runs by one byte on a second pipe before it reads; the parent goes on when all have. They
 * end when the first pipe's writing end is closed. Children die with the parent; their copies of the pipes'
 * other ends are closed, so that the end of file reaches them. Their pipes have O_CLOEXEC: an executed program
 * does not hold them open.
 *
 * Sources: pipe(7), fork(2), pthread_create(3), poll(2).
 */
#include "creation_state.h"
#include "helper.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_TIMEOUT_MS = 30 * 1000, READING = 0, WRITING = 1 };

static int gate[2] = {-1, -1};  /* its end of file ends the tasks */
static int ready[2] = {-1, -1}; /* one byte from each */
static enum alive_kind alive_kind;
static int64_t alive_count;
static pthread_t *threads; /* NULL for children */

static void say_ready_and_wait(void)
{
    char byte = 0;
    while (write(ready[WRITING], &byte, 1) == -1 && errno == EINTR) {
    }
    while (read(gate[READING], &byte, 1) == -1 && errno == EINTR) {
    }
}

static void *thread_main(void *unused)
{
    say_ready_and_wait();
    return unused;
}

static int start_child(void)
{
    pid_t child = fork();
    if (child == 0) {
        helper_die_with_parent();
        close(gate[WRITING]);
        close(ready[READING]);
        say_ready_and_wait();
        _exit(EXIT_SUCCESS);
    }
    return child == -1 ? errno : 0;
}

static int start_children(int64_t count)
{
    int error_number = 0;
    while (alive_count < count && (error_number = start_child()) == 0) {
        alive_count++;
    }
    return error_number;
}

static int start_threads(int64_t count, int64_t stack_bytes)
{
    int error_number = 0;
    pthread_attr_t attributes;
    size_t list_bytes = (size_t)count * sizeof(*threads);
    threads = CHECK_POINTER(mmap(NULL, list_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(madvise(threads, list_bytes, MADV_DONTFORK));
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    if (stack_bytes > 0) {
        CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, (size_t)stack_bytes));
    }
    while (alive_count < count &&
           (error_number = pthread_create(&threads[alive_count], &attributes, thread_main, NULL)) == 0) {
        alive_count++;
    }
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
    return error_number;
}

static void await_ready(void)
{
    char bytes[4096];
    struct pollfd readable = {.fd = ready[READING], .events = POLLIN};
    for (int64_t missing = alive_count; missing > 0;) {
        int polled = poll(&readable, 1, READY_TIMEOUT_MS);
        if (polled == 0 || (polled == -1 && errno != EINTR)) {
            fail_call("poll", "the tasks to be kept alive", polled == 0 ? ETIMEDOUT : errno);
        }
        if (polled == 1) {
            missing -= CHECK(read(ready[READING], bytes, sizeof(bytes)));
        }
    }
}

static void close_both(int ends[2])
{
    for (int i = READING; i <= WRITING; i++) {
        if (ends[i] != -1) {
            close(ends[i]);
            ends[i] = -1;
        }
    }
}

int alive_start(enum alive_kind kind, int64_t count, int64_t stack_bytes)
{
    CHECK(pipe2(gate, O_CLOEXEC));
    CHECK(pipe2(ready, O_CLOEXEC));
    alive_kind = kind;
    int error_number = kind == ALIVE_THREADS ? start_threads(count, stack_bytes) : start_children(count);
    if (error_number == 0) {
        await_ready();
        close_both(ready);
    }
    return error_number;
}

void alive_end(void)
{
    close_both(ready); /* first, as one may still be blocked in writing to it */
    if (gate[WRITING] != -1) {
        close(gate[WRITING]);
        gate[WRITING] = -1;
    }
    for (; alive_count > 0; alive_count--) {
        if (alive_kind == ALIVE_THREADS) {
            CHECK_PTHREAD(pthread_join(threads[alive_count - 1], NULL));
        } else {
            while (waitpid(-1, NULL, 0) == -1 && errno == EINTR) {
            }
        }
    }
    close_both(gate);
}
