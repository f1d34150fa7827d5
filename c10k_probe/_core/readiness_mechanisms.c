/*
 * readiness_mechanisms.c - the table of mechanisms. A new one is a file, readiness_mechanism_NAME.c, that defines
 * mechanism_NAME, and one row here.
 */
#include "readiness_parts.h"

#define MECHANISMS(ROW)          \
    ROW(select)                  \
    ROW(poll)                    \
    ROW(epoll)                   \
    ROW(epoll_edge)              \
    ROW(epoll_oneshot)           \
    ROW(io_uring_poll)           \
    ROW(io_uring_poll_multishot) \
    ROW(io_uring_recv)

#define DECLARATION(name) extern const struct mechanism mechanism_##name;
#define ADDRESS(name) &mechanism_##name,

MECHANISMS(DECLARATION)

const struct mechanism *const mechanisms[] = {MECHANISMS(ADDRESS) NULL};
