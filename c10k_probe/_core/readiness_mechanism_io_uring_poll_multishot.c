/*
 * readiness_mechanism_io_uring_poll_multishot.c - io_uring with one poll request for each socket, which completes
 * again and again: edge-triggered, nothing is armed anew. Source: io_uring_enter(2) (IORING_POLL_ADD_MULTI).
 */
#include "readiness_uring.h"

#include <poll.h>

#if C10K_HAVE_URING
static void prepare(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->len = IORING_POLL_ADD_MULTI;
    sqe->poll32_events = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? POLLIN : POLLIN << 16;
}

static const struct uring_kind kind = {
    .operation = "IORING_OP_POLL_ADD, IORING_POLL_ADD_MULTI",
    .needs = "io_uring: multishot polling needs Linux 5.13 or later",
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

const struct mechanism mechanism_io_uring_poll_multishot = {
    .name = "io_uring_poll_multishot",
    .open = open_mechanism,
    .flags = uring_flags,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .flush = uring_flush,
    .wait = uring_wait,
    .rearm = uring_rearm, /* where the kernel has ended a request by itself, as it may */
    .close = uring_close,
};
