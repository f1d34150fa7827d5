/*
 * readiness_epoll.c - what the three ways to use epoll share. The contract is in readiness_epoll.h.
 */
#include "readiness_epoll.h"

#include <stdlib.h>

static int epoll_fd = -1;
static struct epoll_event *reported;

void epoll_open(void)
{
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    reported = touched_memory(sockets.active_count * sizeof(reported[0]));
}

void epoll_control(int operation, uint32_t position, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.u32 = position};
    if (COUNTED(epoll_ctl, epoll_fd, operation, sockets.ends[position].read_fd, &event) != 0) {
        fail_call("epoll_ctl", "a watched socket", errno);
    }
}

void epoll_unwatch(uint32_t position)
{
    epoll_control(EPOLL_CTL_DEL, position, 0);
}

int epoll_collect(struct event *events, uint32_t room)
{
    const int count = COUNTED(epoll_wait, epoll_fd, reported, (int)room, -1);
    if (count < 0 && errno != EINTR) {
        fail_call("epoll_wait", "-1", errno);
    }
    for (int i = 0; i < count; i++) {
        events[i].position = reported[i].data.u32;
    }
    return count;
}

void epoll_close(void)
{
    close(epoll_fd);
    free(reported);
}
