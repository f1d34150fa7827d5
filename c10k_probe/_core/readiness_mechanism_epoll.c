/*
 * readiness_mechanism_epoll.c - epoll as it is by default, level-triggered: a socket is reported for as long as
 * something can be read, so the kernel looks at each reported one again in the next call. Source: epoll(7).
 */
#include "readiness_epoll.h"

static void watch(uint32_t position)
{
    epoll_control(EPOLL_CTL_ADD, position, EPOLLIN);
}

const struct mechanism mechanism_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .watch = watch,
    .unwatch = epoll_unwatch,
    .wait = epoll_collect,
    .close = epoll_close,
};
