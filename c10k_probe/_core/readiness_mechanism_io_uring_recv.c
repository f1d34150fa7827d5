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
#include <sys/mman.h>
#include <sys/socket.h>

#if C10K_HAVE_URING
enum { BUFFERS_LEAST = 16, BUFFERS_MOST = 32768 };

static struct io_uring_buf_ring *buffers;
static char *memory;
static uint16_t buffers_count, tail;

static void prepare(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_RECV;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
}

static void put_buffer(uint16_t number)
{
    struct io_uring_buf *buffer = &buffers->bufs[tail++ & (buffers_count - 1)];
    buffer->addr = (uintptr_t)(memory + (size_t)number * READ_BYTES);
    buffer->len = READ_BYTES;
    buffer->bid = number;
}

static void give_back(void)
{
    __atomic_store_n(&buffers->tail, tail, __ATOMIC_RELEASE);
}

/* Bytes that are no tokens do not count. */
static uint32_t take(const struct io_uring_cqe *cqe)
{
    uint32_t tokens_count = 0;
    if ((cqe->flags & IORING_CQE_F_BUFFER) == 0) {
        return 0;
    }
    const uint16_t number = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
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

static size_t ring_bytes(void)
{
    return buffers_count * sizeof(struct io_uring_buf);
}

static void open_mechanism(void)
{
    buffers_count = BUFFERS_LEAST;
    while (buffers_count < sockets.active_count && buffers_count < BUFFERS_MOST) {
        buffers_count = (uint16_t)(buffers_count * 2);
    }
    uring_open(&kind);
    buffers = CHECK_POINTER(mmap(NULL, ring_bytes(), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    memory = touched_memory((size_t)buffers_count * READ_BYTES);
    struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)buffers, .ring_entries = buffers_count};
    uring_register(IORING_REGISTER_PBUF_RING, &group, 1);
    for (uint16_t number = 0; number < buffers_count; number++) {
        put_buffer(number);
    }
    give_back();
}

static void close_mechanism(void)
{
    uring_close();
    munmap(buffers, ring_bytes());
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
