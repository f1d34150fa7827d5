/*
 * backend_due.c - a binary heap in an array that grows. The contract is in backend_due.h.
 */
#include "backend_due.h"

#include <stdlib.h>

enum { ROOM_LEAST = 1024 };

static struct due *heap;
static size_t count, room;

static void swap(size_t one, size_t other)
{
    const struct due kept = heap[one];
    heap[one] = heap[other];
    heap[other] = kept;
}

void due_add(struct due due)
{
    if (count == room) {
        room = room == 0 ? ROOM_LEAST : 2 * room;
        heap = CHECK_POINTER(reallocarray(heap, room, sizeof heap[0]));
    }
    size_t at = count++;
    heap[at] = due;
    while (at > 0 && heap[at].at_ns < heap[(at - 1) / 2].at_ns) {
        swap(at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

const struct due *due_first(void)
{
    return count > 0 ? heap : NULL;
}

struct due due_take(void)
{
    const struct due first = heap[0];
    heap[0] = heap[--count];
    for (size_t at = 0, child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && heap[child + 1].at_ns < heap[child].at_ns;
        if (heap[at].at_ns <= heap[child].at_ns) {
            break;
        }
        swap(at, child);
    }
    return first;
}
