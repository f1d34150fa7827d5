/*
 * readiness_uring.c - what the three ways to use io_uring share. The contract is in readiness_uring.h.
 *
 * Requests are put into the submission ring and go to the kernel with the next wait, in the same system call, or when
 * the ring is full. A wait first takes what lies in the completion ring and enters the kernel only if there is
 * nothing. It asks for one completion, as epoll_wait does, since a server cannot know how many will come; with
 * DEFER_TASKRUN the kernel then handles at most 20 in one call (IO_LOCAL_TW_DEFAULT_MAX in io_uring/io_uring.c).
 */
#include "readiness_uring.h"

#include <stdlib.h>

#if C10K_HAVE_URING

enum {
    SUBMISSIONS_COUNT = 256,
    COMPLETIONS_LEAST = 1024,
    COMPLETIONS_MOST = 65536, /* IORING_MAX_CQ_ENTRIES */
    ENDS_COUNT = 64,          /* taken at a time */
};
static const uint64_t CANCEL = UINT64_C(1) << 63; /* in user_data: a cancellation and not a request */

static struct ring ring;
static const struct uring_kind *kind;
static bool *is_armed;        /* by position */
static uint32_t ending_count; /* completions still to come for what was cancelled, and of the cancellations */

/* ---- system calls ---- */

/* Hands over what is queued. Returns -1 when a signal came first. */
static int enter(unsigned least_count)
{
    counts.calls[CALL_io_uring_enter]++;
    if (ring_enter(&ring, least_count, -1) == 0) {
        return 0;
    }
    if (errno != EINTR) {
        fail_call("io_uring_enter", kind->operation, errno);
    }
    return -1;
}

/* ---- opening ---- */

static unsigned completions_count(void)
{
    const uint64_t wanted_count = (uint64_t)sockets.active_count * 2 + SUBMISSIONS_COUNT;
    unsigned count = COMPLETIONS_LEAST;
    while (count < wanted_count && count < COMPLETIONS_MOST) {
        count *= 2;
    }
    return count;
}

void uring_open(const struct uring_kind *new_kind)
{
    kind = new_kind;
    ring_open(&ring, SUBMISSIONS_COUNT, completions_count());
    is_armed = touched_memory(sockets.positions_count * sizeof(is_armed[0]));
}

void uring_open_buffers(struct ring_buffers *buffers, uint16_t count)
{
    if (ring_open_buffers(buffers, &ring, count) < 0) {
        if (errno == EINVAL) {
            unsupported(kind->needs);
        }
        fail_call("io_uring_register", kind->operation, errno);
    }
}

const char *uring_flags(void)
{
    return ring.setup_names;
}

void uring_close(void)
{
    ring_close(&ring);
    free(is_armed);
}

/* ---- submissions ---- */

/* The next free entry, zeroed. */
static struct io_uring_sqe *next_submission(uint64_t user_data)
{
    struct io_uring_sqe *sqe;
    while ((sqe = ring_next(&ring, user_data)) == NULL) {
        enter(0);
    }
    return sqe;
}

void uring_watch(uint32_t position)
{
    struct io_uring_sqe *sqe = next_submission(position);
    kind->prepare(sqe);
    sqe->fd = sockets.ends[position].read_fd;
    ring_queue(&ring);
    is_armed[position] = true;
}

/* Two completions follow: the cancellation's own, and the last one of what it cancels. */
void uring_unwatch(uint32_t position)
{
    if (!is_armed[position]) {
        return;
    }
    struct io_uring_sqe *sqe = next_submission(position | CANCEL);
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = position; /* the user_data of the request */
    ring_queue(&ring);
    ending_count += 2;
}

void uring_rearm(const struct event *events, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!is_armed[events[i].position]) {
            uring_watch(events[i].position);
        }
    }
}

/* ---- completions ---- */

/* ENOBUFS: no buffer was free; the request is over, the data are still in the socket. */
static void check_completion(const struct io_uring_cqe *cqe)
{
    if (cqe->res >= 0 || cqe->res == -ENOBUFS || cqe->res == -ECANCELED) {
        return;
    }
    if (cqe->res == -EINVAL || cqe->res == -EOPNOTSUPP) {
        unsupported(kind->needs);
    }
    fail_call("io_uring_enter", kind->operation, -cqe->res);
}

/* False for the completion of a cancellation: no event. */
static inline bool take_completion(const struct io_uring_cqe *cqe, struct event *event)
{
    if ((cqe->user_data & CANCEL) != 0) {
        ending_count--; /* whether it found its request or not: that one ends with a completion of its own */
        return false;
    }
    const uint32_t position = (uint32_t)cqe->user_data;
    if (cqe->res < 0) {
        check_completion(cqe);
    }
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
        is_armed[position] = false;
    }
    event->position = position;
    event->bytes_count = kind->take != NULL ? kind->take(cqe) : 0;
    return true;
}

int uring_wait(struct event *events, uint32_t room)
{
    uint32_t count = 0;
    unsigned taken_count = 0;
    if (ring_ready_count(&ring) == 0 && enter(1) != 0) {
        return -1;
    }
    for (const unsigned ready_count = ring_ready_count(&ring); taken_count < ready_count && count < room;) {
        count += take_completion(ring_completion(&ring, taken_count++), &events[count]);
    }
    ring_forget(&ring, taken_count);
    if (kind->give_back != NULL) {
        kind->give_back();
    }
    return (int)count;
}

/* Of events nothing is awaited but the ends of what was cancelled; any other is one too many. */
static void wait_for_ends(void)
{
    struct event events[ENDS_COUNT];
    const int count = uring_wait(events, ENDS_COUNT);
    for (int i = 0; i < count; i++) {
        const bool is_end = !is_armed[events[i].position];
        ending_count -= is_end;
        counts.spurious_count += !is_end;
    }
}

void uring_flush(void)
{
    while (ending_count > 0) {
        wait_for_ends();
    }
    while (ring.queued_count > 0) {
        enter(0);
    }
}

#else

void uring_open(const struct uring_kind *new_kind)
{
    (void)new_kind;
    unsupported(RING_NOT_BUILT);
}

const char *uring_flags(void)
{
    return NULL;
}

void uring_watch(uint32_t position)
{
    (void)position;
}

void uring_unwatch(uint32_t position)
{
    (void)position;
}

void uring_flush(void)
{
}

int uring_wait(struct event *events, uint32_t room)
{
    (void)events;
    (void)room;
    return -1;
}

void uring_rearm(const struct event *events, uint32_t count)
{
    (void)events;
    (void)count;
}

void uring_close(void)
{
}

#endif
