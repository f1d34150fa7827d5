/*
 * server_stalled.c - a linked list of the rests of echoes; the contract is in server_stalled.h.
 */
#include "server_stalled.h"

#include "server.h"

#include <stdlib.h>
#include <string.h>

struct stalled {
    struct stalled *next;
    int fd;
    size_t used_bytes, total_bytes;
    char bytes[SERVER_BUFFER_BYTES];
};

static _Thread_local struct stalled *stalled_list; /* a descriptor means something in its thread's table only */

bool stalled_keep(int fd, const char *bytes, size_t count)
{
    struct stalled *stalled = malloc(sizeof *stalled);
    if (stalled == NULL) {
        return false;
    }
    *stalled = (struct stalled){.next = stalled_list, .fd = fd, .total_bytes = count};
    memcpy(stalled->bytes, bytes, count);
    stalled_list = stalled;
    return true;
}

/* The pointer that points to it, or the one at the end of the list. */
static struct stalled **find_link(int fd)
{
    struct stalled **link = &stalled_list;
    while (*link != NULL && (*link)->fd != fd) {
        link = &(*link)->next;
    }
    return link;
}

bool stalled_has(int fd)
{
    return *find_link(fd) != NULL;
}

enum stalled_state stalled_send(int fd)
{
    struct stalled **link = find_link(fd), *stalled = *link;
    ssize_t sent = server_send_what_fits(fd, stalled->bytes + stalled->used_bytes,
                                         stalled->total_bytes - stalled->used_bytes);
    if (sent >= 0) {
        stalled->used_bytes += (size_t)sent;
        if (stalled->used_bytes < stalled->total_bytes) {
            return STALLED_WAITING;
        }
    }
    *link = stalled->next;
    free(stalled);
    return sent < 0 ? STALLED_OVER : STALLED_SENT;
}

void stalled_forget_all(void)
{
    while (stalled_list != NULL) {
        struct stalled *next = stalled_list->next;
        free(stalled_list);
        stalled_list = next;
    }
}
