/*
 * server_stop_threads.c - the end of the models whose threads serve with blocking calls. The contract is in server.h.
 * Source: shutdown(2).
 */
#include "server.h"
#include "server_work.h"

#include <sys/socket.h>
#include <unistd.h>

enum {
    STOP_POLL_US = 1000,
    STOP_ROUNDS = 2000, /* 2 s at least: for the mild request to threads, and again for the hard one */
};

/* Wakes a thread that receives (it sees the end of the stream), without telling the client. */
static void shut_receiving(int fd)
{
    (void)shutdown(fd, SHUT_RD);
}

/* Wakes one that is blocked in send, too. */
static void shut_both(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

static bool is_nothing_open(void)
{
    return atomic_load(&server.open_count) == 0;
}

bool server_wait_until(bool (*is_reached)(void))
{
    for (int i = 0; i < STOP_ROUNDS; i++) {
        if (is_reached()) {
            return true;
        }
        usleep(STOP_POLL_US);
    }
    return false;
}

bool server_stop_threads(void)
{
    server_stop_connections(shut_receiving);
    backend_abandon_all();
    if (server_wait_until(is_nothing_open)) {
        return true;
    }
    server_stop_connections(shut_both);
    return server_wait_until(is_nothing_open);
}
