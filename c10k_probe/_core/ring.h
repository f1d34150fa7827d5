/*
 * ring.h - io_uring by raw system calls: the two rings, and a ring of buffers that the kernel chooses from. What is asked
 * for and what its completions mean is the user's affair. Sources: io_uring(7), io_uring_setup(2), io_uring_enter(2),
 * io_uring_register(2) (IORING_REGISTER_PBUF_RING).
 *
 * One thread opens a ring and uses it.
 */
#ifndef C10K_RING_H
#define C10K_RING_H

#include "helper.h"

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif

/* With headers older than Linux 6.1 all of this is left out, and its users say so at run time. */
#ifdef IORING_SETUP_DEFER_TASKRUN
#define C10K_HAVE_URING 1
#else
#define C10K_HAVE_URING 0
#endif

#define RING_NOT_BUILT "built with kernel headers older than Linux 6.1, without all of io_uring"

#if C10K_HAVE_URING

#include <string.h>

struct ring {
    int fd;
    const char *setup_names; /* "CQSIZE|CLAMP|...": what the kernel took */
    void *memory;            /* of both rings */
    size_t memory_bytes, sqes_bytes;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask, sq_entries;
    unsigned tail;         /* of submissions, ours */
    unsigned queued_count; /* in the ring, not yet known to the kernel */
};

/* `unsupported`, exit 77, where the kernel lacks io_uring or forbids it. The counts are cut at the kernel's limits. */
void ring_open(struct ring *ring, unsigned submissions_count, unsigned completions_count);
void ring_close(struct ring *ring);

/* Hands over what is queued and waits for least_count completions, timeout_ms at most unless it is -1. Returns -1 and
 * errno: EINTR, ETIME, or what is wrong. One system call. */
int ring_enter(struct ring *ring, unsigned least_count, int timeout_ms);

/* io_uring_register(2): -1 and errno. */
int ring_register(const struct ring *ring, unsigned operation, void *argument, unsigned count);

/* The next free entry, zeroed; NULL: the ring is full, enter it. Complete it, then queue it. */
static inline struct io_uring_sqe *ring_next(const struct ring *ring, uint64_t user_data)
{
    if (ring->tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) == ring->sq_entries) {
        return NULL;
    }
    struct io_uring_sqe *sqe = &ring->sqes[ring->tail & ring->sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->user_data = user_data;
    return sqe;
}

static inline void ring_queue(struct ring *ring)
{
    __atomic_store_n(ring->sq_tail, ++ring->tail, __ATOMIC_RELEASE);
    ring->queued_count++;
}

/* Completions that have come. */
static inline unsigned ring_ready_count(const struct ring *ring)
{
    return __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) - *ring->cq_head;
}

/* The n-th of those, from 0. */
static inline const struct io_uring_cqe *ring_completion(const struct ring *ring, unsigned n)
{
    return &ring->cqes[(*ring->cq_head + n) & ring->cq_mask];
}

/* The first `count` were looked at: the kernel may use their places. */
static inline void ring_forget(struct ring *ring, unsigned count)
{
    __atomic_store_n(ring->cq_head, *ring->cq_head + count, __ATOMIC_RELEASE);
}

/* ---- buffers ---- */

struct ring_buffers {
    struct io_uring_buf_ring *ring;
    size_t bytes;
    uint16_t mask, tail; /* tail: ours, the kernel knows it after ring_give_buffers */
};

/* A ring for `count` buffers, a power of two up to 32,768, as buffer group 0; it has none yet. -1 and errno: EINVAL before
 * Linux 5.19. */
int ring_open_buffers(struct ring_buffers *buffers, const struct ring *ring, uint16_t count);
void ring_close_buffers(struct ring_buffers *buffers);

static inline void ring_put_buffer(struct ring_buffers *buffers, uint16_t number, char *memory, uint32_t bytes)
{
    struct io_uring_buf *buffer = &buffers->ring->bufs[buffers->tail++ & buffers->mask];
    buffer->addr = (uintptr_t)memory;
    buffer->len = bytes;
    buffer->bid = number;
}

/* The kernel may use what was put. */
static inline void ring_give_buffers(struct ring_buffers *buffers)
{
    __atomic_store_n(&buffers->ring->tail, buffers->tail, __ATOMIC_RELEASE);
}

/* Whether a completion brings a buffer, and which. */
static inline bool ring_has_buffer(const struct io_uring_cqe *cqe)
{
    return (cqe->flags & IORING_CQE_F_BUFFER) != 0;
}

static inline uint16_t ring_buffer_number(const struct io_uring_cqe *cqe)
{
    return (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
}

#endif
#endif
