/*
 * server_models.c - the table of models. A new one is a file, server_model_NAME.c, that defines
 * server_model_NAME, and one row here.
 */
#include "server.h"

#define MODELS(ROW)      \
    ROW(epoll)           \
    ROW(thread)          \
    ROW(fork)            \
    ROW(prefork)         \
    ROW(thread_pool)     \
    ROW(select)          \
    ROW(poll)            \
    ROW(epoll_reuseport) \
    ROW(epoll_exclusive) \
    ROW(io_uring)        \
    ROW(epoll_await)     \
    ROW(epoll_pool)

#define DECLARATION(name) extern const struct server_model server_model_##name;
#define ADDRESS(name) &server_model_##name,

MODELS(DECLARATION)

const struct server_model *const server_models[] = {MODELS(ADDRESS) NULL};
