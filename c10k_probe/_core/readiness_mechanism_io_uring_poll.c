/*
 * readiness_mechanism_io_uring_poll.c - io_uring with one-shot poll requests: after its event a socket is polled
 * again by a new request, which goes to the kernel with the next wait. Source: io_uring_enter(2)
 * (IORING_OP_POLL_ADD).
 */
#include "readiness_uring.h"

#include <poll.h>

#if C10K_HAVE_URING
static void prepare(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->poll32_events = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? POLLIN : POLLIN << 16;
}

static const struct uring_kind kind = {
    .operation = "IORING_OP_POLL_ADD",
    .needs = "io_uring: polling needs Linux 5.1 or later",
    .prepare = prepare,
};
#define KIND (&kind)
#else
#define KIND NULL
#endif

static void open_mechanism(void)
{
    uring_open(KIND);
}

const struct mechanism mechanism_io_uring_poll = {
    .name = "io_uring_poll",
    .open = open_mechanism,
    .flags = uring_flags,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .flush = uring_flush,
    .wait = uring_wait,
    .rearm = uring_rearm,
    .close = uring_close,
};
