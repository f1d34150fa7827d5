/*
 * creation_threads.c - pthread_create with its default stack, a stack of 64 KiB, or detached.
 *
 * The end of a detached thread is announced to nobody: it writes its number as its last act, and is gone when
 * the kernel knows no such thread any more (tgkill gives ESRCH). Asking takes turns with giving up the CPU,
 * so the moment is not worth reporting; there is no `cycle`.
 *
 * Sources: pthread_create(3), pthread_attr_setstacksize(3), pthread_tryjoin_np(3), tgkill(2).
 */
#include "creation.h"
#include "helper.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { SMALL_STACK_BYTES = 64 * 1024 };

static pthread_attr_t small_stack;
static pthread_attr_t detached;
static const pthread_attr_t *attributes; /* NULL: the default */
static bool is_detached;

void prepare_default_stack(void)
{
    attributes = NULL;
}

void prepare_small_stack(void)
{
    CHECK_PTHREAD(pthread_attr_init(&small_stack));
    if (pthread_attr_setstacksize(&small_stack, SMALL_STACK_BYTES) != 0) {
        char reason[96];
        snprintf(reason, sizeof(reason), "a stack must have %ld bytes at least here, 65536 are too few",
                 sysconf(_SC_THREAD_STACK_MIN));
        unsupported(reason);
    }
    attributes = &small_stack;
}

void prepare_detached(void)
{
    CHECK_PTHREAD(pthread_attr_init(&detached));
    CHECK_PTHREAD(pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED));
    attributes = &detached;
    is_detached = true;
}

static void *thread_main(void *argument)
{
    int64_t started_ns = now_ns();
    struct creation *creation = argument;
    struct slot *slot = creation->slot;
    slot->child_ns = started_ns;
    if (creation->is_held) {
        creation_wait_at_gate(slot);
    }
    if (is_detached) {
        slot->task = gettid();
    }
    return NULL;
}

int create_thread(struct creation *creation)
{
    creation->before_ns = now_ns();
    int error_number = pthread_create(&creation->thread, attributes, thread_main, creation);
    creation->returned_ns = now_ns();
    return error_number;
}

/* ---- the end of a thread ---- */

static void await_thread(struct creation *creation)
{
    CHECK_PTHREAD(pthread_join(creation->thread, NULL));
    creation->gone_ns = now_ns();
}

static bool poll_thread(struct creation *creation)
{
    int error_number = pthread_tryjoin_np(creation->thread, NULL);
    if (error_number == EBUSY) {
        return false;
    }
    creation->gone_ns = now_ns();
    check_number(error_number, "pthread_tryjoin_np(creation->thread, NULL)");
    return true;
}

static bool poll_detached(struct creation *creation)
{
    pid_t task = creation->slot->task;
    if (task == 0 || tgkill(getpid(), task, 0) == 0) {
        return false;
    }
    creation->gone_ns = now_ns();
    return true;
}

static void await_detached(struct creation *creation)
{
    while (!poll_detached(creation)) {
        sched_yield();
    }
}

const struct ending thread_ending = {.has_cycle = true, .await = await_thread, .poll = poll_thread};
const struct ending detached_ending = {.await = await_detached, .poll = poll_detached};
