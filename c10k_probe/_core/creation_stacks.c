/*
 * creation_stacks.c - counts, untimed, what the stacks of new threads add to this process.
 *
 * First all threads live at the same time, after a few that take the stacks which the C library may have left
 * over. Then each is gone before the next is created, and the address space is read while it lives: what it
 * added is the stack that was mapped for it, nothing when it was given that of an earlier one. A stack is
 * counted by its size in the address space, since neighbours may be merged into one mapping.
 *
 * Sources: pthread_getattr_default_np(3), proc(5) (VmSize); glibc nptl/allocatestack.c (stack cache, 40 MiB).
 */
#include "creation_stacks.h"

#include "creation_samples.h"
#include "helper.h"
#include "process_facts.h"

#include <pthread.h>
#include <sched.h>

enum { FIRST_THREADS = 4 }; /* more than can have been left over by threads of which one at most was alive */

const struct stack_facts NO_STACK_FACTS = {-1, -1, -1, -1, -1, -1, -1};

static int64_t difference(int64_t before, int64_t after)
{
    return before < 0 || after < 0 ? -1 : after - before;
}

static int64_t default_stack_bytes(void)
{
    pthread_attr_t attributes;
    size_t bytes = 0;
    CHECK_PTHREAD(pthread_getattr_default_np(&attributes));
    CHECK_PTHREAD(pthread_attr_getstacksize(&attributes, &bytes));
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
    return (int64_t)bytes;
}

/* Until the new thread has stamped: what it needs is there. */
static void await_start(const struct creation *creation)
{
    while (creation->slot->child_ns == 0) {
        sched_yield();
    }
}

static int create_held(const struct method *method, struct creation *creation, struct stack_facts *facts)
{
    int error_number = method->create(creation);
    if (error_number == 0) {
        facts->creations_count++;
        await_start(creation);
    }
    return error_number;
}

static void end(const struct method *method, struct creation *creation)
{
    creation_release(creation->slot);
    method->ending->await(creation);
    creation_clear(creation->slot);
}

static int keep_all(const struct method *method, struct creation *creations, size_t count,
                    struct stack_facts *facts)
{
    struct process_facts before = {.mappings_count = -1};
    int64_t mapped_before = -1;
    size_t created = 0;
    int error_number = 0;
    while (created < FIRST_THREADS + count && error_number == 0) {
        if (created == FIRST_THREADS) {
            mapped_before = read_mapped_bytes();
            before = read_memory_facts();
        }
        error_number = create_held(method, &creations[created], facts);
        created += error_number == 0;
    }
    struct process_facts after = read_memory_facts();
    facts->kept_mapped_bytes = difference(mapped_before, read_mapped_bytes());
    facts->kept_mappings_count = difference(before.mappings_count, after.mappings_count);
    facts->kept_anonymous_bytes = difference(before.anonymous_bytes, after.anonymous_bytes);
    while (created > 0) {
        end(method, &creations[--created]);
    }
    return error_number;
}

static int join_each(const struct method *method, struct creation *creation, size_t count,
                     struct stack_facts *facts)
{
    facts->joined_mapped_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t before = read_mapped_bytes();
        int error_number = create_held(method, creation, facts);
        if (error_number != 0) {
            return error_number;
        }
        facts->joined_mapped_bytes += difference(before, read_mapped_bytes());
        end(method, creation);
    }
    return 0;
}

int probe_stacks(const struct method *method, size_t count, struct stack_facts *facts)
{
    size_t most = FIRST_THREADS + count;
    struct creation *creations = allocate_values(most * sizeof(*creations));
    struct slot *slots = creation_map_slots(most);
    for (size_t i = 0; i < most; i++) {
        creations[i] = (struct creation){.slot = &slots[i], .is_held = true};
    }
    facts->threads_count = (int64_t)count;
    facts->creations_count = 0;
    facts->stack_bytes = default_stack_bytes();
    int error_number = keep_all(method, creations, count, facts);
    return error_number != 0 ? error_number : join_each(method, &creations[0], count, facts);
}
