/*
 * readiness_mechanism_io_uring_recv.c - io_uring with one receive request for each socket, which completes again and
 * again, each time with the data in a buffer from a ring that all share: nobody calls read. Sources:
 * io_uring_enter(2) (IORING_RECV_MULTISHOT), io_uring_register(2) (IORING_REGISTER_PBUF_RING).
 *
 * There are as many buffers as sockets can be active at once, 32,768 at most. Where they do not suffice, the kernel
 * ends a request with ENOBUFS, and it is armed again.
 */
#include "readiness_uring.h"

#include <stdlib.h>
#include <sys/socket.h>

#if C10K_HAVE_URING
enum { BUFFERS_LEAST = 16, BUFFERS_MOST = 32768 };

static struct ring_buffers buffers;
static char *memory;

static void prepare(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_RECV;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
}

static void put_buffer(uint16_t number)
{
    ring_put_buffer(&buffers, number, memory + (size_t)number * READ_BYTES, READ_BYTES);
}

static void give_back(void)
{
    ring_give_buffers(&buffers);
}

/* Bytes that are no tokens do not count. */
static uint32_t take(const struct io_uring_cqe *cqe)
{
    uint32_t tokens_count = 0;
    if (!ring_has_buffer(cqe)) {
        return 0;
    }
    const uint16_t number = ring_buffer_number(cqe);
    const char *bytes = memory + (size_t)number * READ_BYTES;
    for (int i = 0; i < cqe->res; i++) {
        tokens_count += bytes[i] == TOKEN;
    }
    put_buffer(number);
    return tokens_count;
}

static const struct uring_kind kind = {
    .operation = "IORING_OP_RECV, IORING_RECV_MULTISHOT",
    .needs = "io_uring: multishot receive with a ring of buffers needs Linux 6.0 or later",
    .prepare = prepare,
    .take = take,
    .give_back = give_back,
};

static void open_mechanism(void)
{
    uint16_t count = BUFFERS_LEAST;
    while (count < sockets.active_count && count < BUFFERS_MOST) {
        count = (uint16_t)(count * 2);
    }
    uring_open(&kind);
    uring_open_buffers(&buffers, count);
    memory = touched_memory((size_t)count * READ_BYTES);
    for (uint16_t number = 0; number < count; number++) {
        put_buffer(number);
    }
    give_back();
}

static void close_mechanism(void)
{
    uring_close();
    ring_close_buffers(&buffers);
    free(memory);
}
#else
static void open_mechanism(void)
{
    uring_open(NULL);
}
#define close_mechanism uring_close
#endif

const struct mechanism mechanism_io_uring_recv = {
    .name = "io_uring_recv",
    .carries_data = true,
    .open = open_mechanism,
    .flags = uring_flags,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .flush = uring_flush,
    .wait = uring_wait,
    .rearm = uring_rearm, /* where the kernel has ended a request by itself, as it may */
    .close = close_mechanism,
};
