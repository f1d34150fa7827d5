/*
 * readiness_uring.h - what the three ways to use io_uring share: a ring (ring.h), a request for each watched position,
 * and their completions. Sources: io_uring(7), io_uring_enter(2).
 *
 * A mechanism has one kind of request. Its position is armed from then on until a completion comes without
 * IORING_CQE_F_MORE; uring_rearm() arms again what is not.
 */
#ifndef C10K_READINESS_URING_H
#define C10K_READINESS_URING_H

#include "readiness_parts.h"
#include "ring.h"

struct io_uring_sqe;
struct io_uring_cqe;

struct uring_kind {
    const char *operation; /* for messages */
    const char *needs;     /* for `unsupported`, where the kernel does not know it */
    void (*prepare)(struct io_uring_sqe *sqe); /* all but the descriptor and user_data; it is zeroed */
    /* NULL, or: how many bytes a completion has brought; the buffer goes back. */
    uint32_t (*take)(const struct io_uring_cqe *cqe);
    void (*give_back)(void); /* NULL, or: after the completions of one wait: the kernel may use their buffers */
};

/* `unsupported`, exit 77, where the kernel lacks it or forbids it, and for NULL. */
void uring_open(const struct uring_kind *kind);
const char *uring_flags(void);
void uring_watch(uint32_t position);
void uring_unwatch(uint32_t position);
void uring_flush(void);
int uring_wait(struct event *events, uint32_t room);
void uring_rearm(const struct event *events, uint32_t count);
void uring_close(void);

#if C10K_HAVE_URING
/* A ring of buffers for this ring; a kernel without them is `unsupported`. */
void uring_open_buffers(struct ring_buffers *buffers, uint16_t count);
#endif

#endif
