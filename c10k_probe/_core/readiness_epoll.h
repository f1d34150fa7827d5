/*
 * readiness_epoll.h - what the three ways to use epoll share. Source: epoll(7), epoll_ctl(2).
 */
#ifndef C10K_READINESS_EPOLL_H
#define C10K_READINESS_EPOLL_H

#include "readiness_parts.h"

#include <sys/epoll.h>

void epoll_open(void);
void epoll_control(int operation, uint32_t position, uint32_t interest);
void epoll_unwatch(uint32_t position);
int epoll_collect(struct event *events, uint32_t room);
void epoll_close(void);

#endif
