/*
 * readiness_mechanism_epoll_edge.c - edge-triggered epoll: a socket is reported once when something new arrives.
 * Source: epoll(7), EPOLLET in epoll_ctl(2).
 */
#include "readiness_epoll.h"

static void watch(uint32_t position)
{
    epoll_control(EPOLL_CTL_ADD, position, EPOLLIN | EPOLLET);
}

const struct mechanism mechanism_epoll_edge = {
    .name = "epoll_edge",
    .open = epoll_open,
    .watch = watch,
    .unwatch = epoll_unwatch,
    .wait = epoll_collect,
    .close = epoll_close,
};
