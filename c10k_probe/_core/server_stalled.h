/*
 * server_stalled.h - echoes whose client does not read, kept by a model with non-blocking sockets until the
 * socket takes the rest. While one is kept, the model waits until fd can be written, and reads nothing.
 */
#ifndef C10K_SERVER_STALLED_H
#define C10K_SERVER_STALLED_H

#include <stdbool.h>
#include <stddef.h>

enum stalled_state {
    STALLED_OVER,    /* the connection is over; nothing is kept any more */
    STALLED_WAITING, /* some bytes are left */
    STALLED_SENT,    /* all went out; nothing is kept any more */
};

/* Keeps at most SERVER_BUFFER_BYTES, one rest for each fd. False: no memory. */
bool stalled_keep(int fd, const char *bytes, size_t count);

/* The list is empty in all ordinary runs, so asking is cheap. */
bool stalled_has(int fd);

/* Sends what the socket takes of the rest kept for fd; there must be one. */
enum stalled_state stalled_send(int fd);

void stalled_forget_all(void);

#endif
