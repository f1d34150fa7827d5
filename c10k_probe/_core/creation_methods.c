/*
 * creation_methods.c - the table of methods, and whether one of them did what it promises.
 */
#include "creation.h"

/* copies_memory, has_started and has_exec of a row */
enum { SHARES = false, COPIES = true, NO_START = false, STARTED = true, NO_EXEC = false, EXEC = true };

const struct method creation_methods[] = {
    {"fork", "fork", "", COPIES, STARTED, NO_EXEC, &process_ending, prepare_nothing, create_fork},
    {"vfork", "vfork", "", SHARES, STARTED, NO_EXEC, &process_ending, prepare_nothing, create_vfork},
    {"posix_spawn", "posix_spawn", NULL, SHARES, NO_START, EXEC, &process_ending, prepare_target_alike,
     create_posix_spawn},
    {"clone3", "clone3", "CLONE_VM | CLONE_VFORK, SIGCHLD", SHARES, STARTED, NO_EXEC, &process_ending,
     prepare_clone3, create_clone3},
    {"pthread_create", "pthread_create", "default attributes", SHARES, STARTED, NO_EXEC, &thread_ending,
     prepare_default_stack, create_thread},
    {"pthread_create_64k", "pthread_create", "stack of 65536 bytes", SHARES, STARTED, NO_EXEC, &thread_ending,
     prepare_small_stack, create_thread},
    {"pthread_create_detached", "pthread_create", "detached", SHARES, STARTED, NO_EXEC, &detached_ending,
     prepare_detached, create_thread},
    {"fork_exec_static", "fork", "", COPIES, STARTED, EXEC, &process_ending, prepare_target_static,
     create_fork_exec},
    {"fork_exec_dynamic", "fork", "", COPIES, STARTED, EXEC, &process_ending, prepare_target_dynamic,
     create_fork_exec},
    {"posix_spawn_static", "posix_spawn", NULL, SHARES, NO_START, EXEC, &process_ending,
     prepare_target_static, create_posix_spawn},
    {"posix_spawn_dynamic", "posix_spawn", NULL, SHARES, NO_START, EXEC, &process_ending,
     prepare_target_dynamic, create_posix_spawn},
};
const size_t creation_methods_count = ARRAY_COUNT(creation_methods);

void prepare_nothing(void)
{
}

static bool lies_within(int64_t moment_ns, const struct creation *creation)
{
    return creation->before_ns <= moment_ns && moment_ns <= creation->gone_ns;
}

bool creation_is_stamped(const struct method *method, const struct creation *creation)
{
    return (!method->has_started || lies_within(creation->slot->child_ns, creation)) &&
           (!method->has_exec || lies_within(creation->slot->program_ns, creation));
}

void creation_fail(const struct method *method, int error_number)
{
    if (error_number == ENOSYS) {
        unsupported("this kernel, or a filter on system calls, does not offer the call (clone3: Linux 5.3)");
    }
    fail_call(method->call, method->arguments != NULL ? method->arguments : creation_target(), error_number);
}
