/*
 * server_uring_buffers.h - the buffers of the model io_uring: the kernel receives into one that is free, the answer takes
 * the place of what was received, and the buffer is free again when it has gone out. An idle connection has none.
 *
 * Answers that wait for their turn are chained. There are 256 buffers at first, more are made where they do not suffice,
 * up to 8,192 (32 MiB).
 */
#ifndef C10K_SERVER_URING_BUFFERS_H
#define C10K_SERVER_URING_BUFFERS_H

#include "ring.h"

#if C10K_HAVE_URING

enum { NO_BUFFER = UINT16_MAX };

/* Answers in their order. */
struct answer_chain {
    uint16_t first, last; /* NO_BUFFER: there is none */
    uint16_t count;
    uint16_t sent_bytes; /* of the first */
};

/* `unsupported` before Linux 5.19. */
void buffers_open(const struct ring *ring);
void buffers_close(void);

/* False: there are as many as there may be, or no memory. */
bool buffers_add_more(void);

char *buffer_memory(uint16_t number);
void buffer_free(uint16_t number);

/* What was freed is given to the kernel; true: there was something. */
bool buffers_give_back(void);

void chain_put(struct answer_chain *chain, uint16_t number, uint16_t bytes);
uint16_t chain_first_bytes(const struct answer_chain *chain);
void chain_drop_first(struct answer_chain *chain);
void chain_drop_all(struct answer_chain *chain);

#endif
#endif
