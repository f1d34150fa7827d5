/*
 * scheduling_token.h - the token of the ring: what a task waits for and what it wakes the next one with.
 *
 * A place is where one task waits: a pipe, an eventfd or a futex word. Giving to a place and taking from it
 * is one system call each:
 *   pipe      write and read of one byte;
 *   eventfd   write and read of its counter;
 *   futex     store and FUTEX_WAKE; FUTEX_WAIT and store. FUTEX_WAIT is called also when the word already
 *             says that the token is there (the kernel then refuses with EAGAIN), as read is with the
 *             others: so all three enter the kernel twice a hop, waiting or not.
 *
 * Sources: pipe(7), eventfd(2), futex(2).
 */
#ifndef C10K_SCHEDULING_TOKEN_H
#define C10K_SCHEDULING_TOKEN_H

#include "scheduling.h"

enum token_kind { TOKEN_PIPE, TOKEN_FUTEX, TOKEN_EVENTFD };

struct place {
    enum token_kind kind;
    int take_fd; /* -1 with a futex, and where another process uses it */
    int give_fd;
    _Atomic uint32_t *word;
    bool is_shared; /* between processes */
};

/* `word`: zeroed, on a line of its own; only a futex uses it. */
struct place place_open(enum token_kind kind, enum scheduling_kind tasks, _Atomic uint32_t *word);

/* Both may be called twice. */
void place_close_take(struct place *place);
void place_close_give(struct place *place);

void place_give(const struct place *place);

/* Blocks until the token is there. */
void place_take(const struct place *place);

#endif
