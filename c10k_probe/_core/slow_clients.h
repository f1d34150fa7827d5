/*
 * slow_clients.h - what the parts of slow_clients share: settings, the clients, what each does at its turn.
 */
#ifndef C10K_SLOW_CLIENTS_H
#define C10K_SLOW_CLIENTS_H

#include "helper.h"

enum {
    SLOW_CLIENTS_MAX = 20 * 1000,
    SLOW_INTERVAL_MS_MIN = 5,
    SLOW_REQUEST_BYTES_MIN = 256,      /* holds what comes before the slow part, and something slow */
    SLOW_REQUEST_BYTES_MAX = 1 << 20,
};

enum slow_kind { SLOW_HEAD, SLOW_BODY, SLOW_READ, SLOW_IDLE };

struct slow_settings {
    int64_t port, kind, interval_ms, request_bytes;
};

/* One client: all that is kept of it. fd -1: it has no connection now, and opens one at its turn. */
struct slow_client {
    int fd;
    int32_t sent_bytes; /* of its request */
    bool is_connected;
    bool has_answer; /* some of one */
};

/* Since the start. */
struct slow_counts {
    int64_t connected_count; /* connections that came about */
    int64_t ended_count;     /* that the server ended before the request was whole or the answer read */
    int64_t refused_count;   /* that it, or the kernel in its place, refused, let time out, or reset at once */
    int64_t whole_count;     /* requests that were sent, and answered, to their end */
    int64_t sent_bytes, received_bytes;
    int64_t slow_bytes;      /* of these, that went one by one */
    int64_t latest_turn_ns;  /* by how much the most belated turn was late */
};

/* The first failure on our side; call is NULL while there is none. */
struct slow_failure {
    const char *call;
    int number;
};

extern struct slow_settings slow_settings;
extern struct slow_counts slow_counts;
extern struct slow_failure slow_failure;

/* ---- slow_clients_crowd.c: all clients, and whose turn it is ---- */

/* Room for all, and the epoll instance; once. */
void crowd_start(void);

/* The number of clients that there are to be from now on: new ones open a connection at once, surplus ones
 * leave. */
void crowd_set(int64_t clients_count);

/* Waits a moment for what happens on connections, and has those act that are due. True: stdin has something. */
bool crowd_step(void);

/* Connections that stand, and those that are asked for and not yet there. */
void crowd_count(int64_t *open_count, int64_t *pending_count);
int64_t crowd_clients_count(void);

/* ---- slow_clients_wire.c: one client ---- */

void wire_start(void);

/* Asks for a connection; is_connected says whether it is there. Notes a failure that is ours. */
void client_open(struct slow_client *client, int epoll_fd, uint32_t place);

/* It is there: sends what goes before the slow part. */
void client_begin(struct slow_client *client);

/* Its next byte, to or from the server. */
void client_turn(struct slow_client *client);

/* Something came, or the other end closed; is_broken: neither end can send any more. */
void client_hear(struct slow_client *client, bool is_broken);

/* With a reset, so that no TIME_WAIT is left. */
void client_leave(struct slow_client *client);

#endif
