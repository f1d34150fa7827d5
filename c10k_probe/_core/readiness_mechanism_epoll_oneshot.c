/*
 * readiness_mechanism_epoll_oneshot.c - epoll with EPOLLONESHOT: after one event a socket is silent until it is
 * armed again, which is a system call for each event. Source: epoll(7), EPOLLONESHOT in epoll_ctl(2).
 */
#include "readiness_epoll.h"

static void watch(uint32_t position)
{
    epoll_control(EPOLL_CTL_ADD, position, EPOLLIN | EPOLLONESHOT);
}

static void rearm(const struct event *events, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        epoll_control(EPOLL_CTL_MOD, events[i].position, EPOLLIN | EPOLLONESHOT);
    }
}

const struct mechanism mechanism_epoll_oneshot = {
    .name = "epoll_oneshot",
    .open = epoll_open,
    .watch = watch,
    .unwatch = epoll_unwatch,
    .wait = epoll_collect,
    .rearm = rearm,
    .close = epoll_close,
};
