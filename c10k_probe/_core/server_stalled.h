/*
 * server_stalled.h - answers whose client does not read, kept by a model with non-blocking sockets until the
 * socket takes the rest. While one is kept, the model waits until fd can be written, and reads nothing. Each thread
 * has its own.
 */
#ifndef C10K_SERVER_STALLED_H
#define C10K_SERVER_STALLED_H

#include <stdbool.h>
#include <stddef.h>

enum stalled_state {
    STALLED_OVER,    /* the connection is over, forget and close it; nothing is kept any more */
    STALLED_WAITING, /* some bytes are left */
    STALLED_SENT,    /* all went out; nothing is kept any more */
};

/* Keeps at most SERVER_BUFFER_BYTES, one rest for each fd. False: no memory. */
bool stalled_keep(int fd, const char *bytes, size_t count);

/* The connection is over when the rest kept for fd has gone out; there must be one. */
void stalled_close_after(int fd);

/* Nothing is kept in all ordinary runs, and then asking is cheap. */
bool stalled_has(int fd);

/* Sends what the socket takes of the rest kept for fd; there must be one. */
enum stalled_state stalled_send(int fd);

void stalled_forget_all(void);

#endif
