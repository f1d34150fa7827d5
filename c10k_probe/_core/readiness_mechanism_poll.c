/*
 * readiness_mechanism_poll.c - poll(2): the whole array goes into the kernel and comes back with each call. The
 * array is dense, in the order of registration; what is removed is replaced by the last one.
 */
#include "readiness_parts.h"

#include <poll.h>
#include <stdlib.h>

static struct pollfd *slots;
static uint32_t *positions; /* by slot */
static uint32_t *slot_of;   /* by position */
static nfds_t slots_count;

static void open_mechanism(void)
{
    slots = touched_memory(sockets.positions_count * sizeof(slots[0]));
    positions = touched_memory(sockets.positions_count * sizeof(positions[0]));
    slot_of = touched_memory(sockets.positions_count * sizeof(slot_of[0]));
}

static void put(uint32_t slot, uint32_t position, int fd)
{
    slots[slot] = (struct pollfd){.fd = fd, .events = POLLIN};
    positions[slot] = position;
    slot_of[position] = slot;
}

static void watch(uint32_t position)
{
    put((uint32_t)slots_count++, position, sockets.ends[position].read_fd);
}

static void unwatch(uint32_t position)
{
    const nfds_t last = --slots_count;
    put(slot_of[position], positions[last], slots[last].fd);
}

static int wait_for_events(struct event *events, uint32_t room)
{
    const int ready_count = COUNTED(poll, slots, slots_count, -1);
    if (ready_count < 0 && errno != EINTR) {
        fail_call("poll", "all watched, -1", errno);
    }
    if (ready_count < 0) {
        return -1;
    }
    const uint32_t wanted_count = (uint32_t)ready_count < room ? (uint32_t)ready_count : room;
    uint32_t count = 0;
    for (const struct pollfd *slot = slots; count < wanted_count; slot++) {
        if (slot->revents != 0) {
            events[count++].position = positions[slot - slots];
        }
    }
    return (int)count;
}

static void close_mechanism(void)
{
    free(slots);
    free(positions);
    free(slot_of);
}

const struct mechanism mechanism_poll = {
    .name = "poll",
    .open = open_mechanism,
    .watch = watch,
    .unwatch = unwatch,
    .wait = wait_for_events,
    .close = close_mechanism,
};
