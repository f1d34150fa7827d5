/*
 * creation_processes.c - fork, vfork and clone3, and the end of every child process.
 *
 * Sources: fork(2), vfork(2), clone(2) (clone3), wait4(2), getrusage(2).
 */
#include "clone3_call.h"
#include "creation.h"
#include "helper.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_STACK_BYTES = 64 * 1024 };

static char *child_stack;
static struct slot *clone3_slot; /* the child shares this memory, and its parent sleeps meanwhile */

int create_fork(struct creation *creation)
{
    struct slot *slot = creation->slot; /* read here: the child may not have *creation */
    bool is_held = creation->is_held;
    creation->before_ns = now_ns();
    pid_t child = fork();
    if (child == 0) {
        slot->child_ns = now_ns();
        if (is_held) {
            helper_die_with_parent();
            creation_wait_at_gate(slot);
        }
        _exit(EXIT_SUCCESS);
    }
    creation->returned_ns = now_ns();
    creation->child = child;
    return child == -1 ? errno : 0;
}

int create_vfork(struct creation *creation)
{
    struct slot *slot = creation->slot;
    creation->before_ns = now_ns();
    pid_t child = vfork();
    if (child == 0) { /* on the parent's stack: nothing but the stamp may be written */
        slot->child_ns = now_ns();
        _exit(EXIT_SUCCESS);
    }
    creation->returned_ns = now_ns();
    creation->child = child;
    return child == -1 ? errno : 0;
}

void prepare_clone3(void)
{
    if (!C10K_HAVE_CLONE3_CALL) {
        unsupported("clone3 is written here for x86_64 and aarch64 only");
    }
    child_stack = CHECK_POINTER(mmap(NULL, CHILD_STACK_BYTES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_POPULATE, -1, 0));
}

static void clone3_child(void)
{
    clone3_slot->child_ns = now_ns();
    _exit(EXIT_SUCCESS); /* exit_group of the child alone: it is a thread group of its own */
}

int create_clone3(struct creation *creation)
{
    struct clone_args arguments = {
        .flags = CLONE_VM | CLONE_VFORK,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)child_stack,
        .stack_size = CHILD_STACK_BYTES,
    };
    clone3_slot = creation->slot;
    creation->before_ns = now_ns();
    long child = clone3_call(&arguments, clone3_child);
    creation->returned_ns = now_ns();
    creation->child = (pid_t)child;
    return child < 0 ? (int)-child : 0;
}

/* ---- the end of a child process ---- */

static bool reap(struct creation *creation, int options)
{
    struct rusage usage;
    pid_t reaped;
    do {
        reaped = wait4(creation->child, NULL, options, &usage);
    } while (reaped == -1 && errno == EINTR);
    if (reaped == 0) {
        return false;
    }
    creation->gone_ns = now_ns();
    if (reaped == -1) {
        fail_call("wait4", "child", errno);
    }
    creation->child_faults_count = usage.ru_minflt;
    return true;
}

static void await_process(struct creation *creation)
{
    reap(creation, 0);
}

static bool poll_process(struct creation *creation)
{
    return reap(creation, WNOHANG);
}

const struct ending process_ending = {
    .has_cycle = true,
    .has_child_faults = true,
    .await = await_process,
    .poll = poll_process,
};
