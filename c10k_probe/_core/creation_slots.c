/*
 * creation_slots.c - the words that a child writes for its parent, and the gate at which it can be held. The contract
 * is in creation.h.
 *
 * Sources: memfd_create(2), mmap(2), futex(2).
 */
#include "creation.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct slot *slots;
static int slots_descriptor;

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

void creation_name_slot(const struct slot *slot, char descriptor[16], char offset[24])
{
    snprintf(descriptor, 16, "%d", slots_descriptor);
    snprintf(offset, 24, "%td", (const char *)slot - (const char *)slots);
}
