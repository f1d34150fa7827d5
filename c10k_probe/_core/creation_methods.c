/*
 * creation_methods.c - the table of methods, and what all of them share: the slots and the gate.
 *
 * Sources: memfd_create(2), mmap(2), futex(2).
 */
#include "creation.h"

#include "creation_state.h"
#include "helper.h"

#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static struct slot *slots;
static int slots_descriptor;

void prepare_nothing(void)
{
}

struct slot *creation_map_slots(size_t count)
{
    size_t bytes = count * sizeof(*slots);
    slots_descriptor = (int)CHECK(memfd_create("stamp", 0));
    CHECK(ftruncate(slots_descriptor, (off_t)bytes));
    slots = CHECK_POINTER(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, slots_descriptor, 0));
    return slots;
}

void creation_clear(struct slot *slot)
{
    slot->program_ns = 0;
    slot->child_ns = 0;
    slot->task = 0;
    slot->gate = 0;
}

/* Not the PRIVATE operations: the slot may belong to two processes. */
void creation_wait_at_gate(struct slot *slot)
{
    while (slot->gate == 0) {
        syscall(SYS_futex, &slot->gate, FUTEX_WAIT, 0, NULL, NULL, 0);
    }
}

void creation_release(struct slot *slot)
{
    slot->gate = 1;
    syscall(SYS_futex, &slot->gate, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
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
        state_tear_down();
        unsupported("this kernel, or a filter on system calls, does not offer the call (clone3: Linux 5.3)");
    }
    state_fail(method->call, method->arguments != NULL ? method->arguments : creation_target(), error_number);
}

void creation_path_beside(const char *file, char *path)
{
    int64_t length = CHECK(readlink("/proc/self/exe", path, PATH_MAX - 1));
    path[length] = '\0';
    char *name = strrchr(path, '/') + 1;
    size_t room = PATH_MAX - (size_t)(name - path);
    if ((size_t)snprintf(name, room, "%s", file) >= room) {
        state_fail("readlink", "/proc/self/exe", ENAMETOOLONG);
    }
}

void creation_name_slot(const struct slot *slot, char descriptor[16], char offset[24])
{
    snprintf(descriptor, 16, "%d", slots_descriptor);
    snprintf(offset, 24, "%td", (const char *)slot - (const char *)slots);
}
