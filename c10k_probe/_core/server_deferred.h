/*
 * server_deferred.h - an event loop that does not do the work of a request by itself: an answer is made, kept, and sent
 * when a `way` says that the work was done. Meanwhile nothing is read from that connection. Requests without work are
 * answered at once. All of it runs in the main thread. Source: epoll(7).
 */
#ifndef C10K_SERVER_DEFERRED_H
#define C10K_SERVER_DEFERRED_H

#include "server.h"

/* A connection whose work is under way, as long as `id` is that of what is kept for fd. */
struct ticket {
    int fd;
    uint32_t id;
    int64_t put_ns; /* into a queue */
};

/* How the work of one request is done. */
struct deferred_way {
    void (*begin)(struct ticket ticket);   /* ends in deferred_done, at once or later */
    void (*abandon)(struct ticket ticket); /* NULL, or: the client is gone; deferred_done may come or not */
    bool (*on_event)(int fd, uint32_t events); /* of what deferred_watch watches; false: not one of those */
};

/* For the parts of a model. */
void deferred_prepare(const struct deferred_way *way);
void deferred_loop(void);
void deferred_serve(int fd);
void deferred_watch_listener(bool is_on);
void deferred_stop(void);

/* The work of one request was done: 200, or the status that says why not. An old ticket is let go. */
void deferred_done(struct ticket ticket, int status);

/* What went by before the work began was waiting in a queue, not time in the handler. */
void deferred_waited(struct ticket ticket, int64_t waited_ns);

/* True while the client waits. */
bool deferred_is_waiting(struct ticket ticket);

/* EPOLL_CTL_ADD or _MOD. False: no memory, and errno. */
bool deferred_watch(int operation, int fd, uint32_t events);

/* ---- tickets in a ring that grows ---- */

struct ticket_queue {
    struct ticket *tickets;
    size_t first, count, room;
};

void ticket_put(struct ticket_queue *queue, struct ticket ticket);
struct ticket ticket_take(struct ticket_queue *queue); /* there must be one */

#endif
