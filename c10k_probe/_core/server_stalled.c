/*
 * server_stalled.c - the rests of answers; the contract is in server_stalled.h.
 */
#include "server_stalled.h"

#include "server.h"
#include "server_kept.h"

#include <string.h>

struct stalled {
    struct kept kept;
    size_t used_bytes, total_bytes;
    bool is_last; /* the connection is over then */
    char bytes[SERVER_BUFFER_BYTES];
};

static _Thread_local struct kept_table rests;

bool stalled_keep(int fd, const char *bytes, size_t count)
{
    struct stalled *stalled = (struct stalled *)kept_add(&rests, fd, sizeof *stalled);
    if (stalled == NULL) {
        return false;
    }
    stalled->total_bytes = count;
    memcpy(stalled->bytes, bytes, count);
    return true;
}

void stalled_close_after(int fd)
{
    ((struct stalled *)kept_find(&rests, fd))->is_last = true;
}

bool stalled_has(int fd)
{
    return kept_find(&rests, fd) != NULL;
}

enum stalled_state stalled_send(int fd)
{
    struct stalled *stalled = (struct stalled *)kept_find(&rests, fd);
    ssize_t sent = server_send_what_fits(fd, stalled->bytes + stalled->used_bytes,
                                         stalled->total_bytes - stalled->used_bytes);
    if (sent >= 0) {
        stalled->used_bytes += (size_t)sent;
        if (stalled->used_bytes < stalled->total_bytes) {
            return STALLED_WAITING;
        }
    }
    const bool is_over = sent < 0 || stalled->is_last;
    kept_forget(&rests, fd);
    if (!is_over) {
        return STALLED_SENT;
    }
    server_say_goodbye(fd); /* where it was reset, this does nothing */
    return STALLED_OVER;
}

void stalled_forget_all(void)
{
    kept_forget_all(&rests);
}
