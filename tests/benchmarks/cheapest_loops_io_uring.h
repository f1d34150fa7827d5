/*
 * cheapest_loops_io_uring.h - the loop of io_uring, of which cheapest_loops.c makes three mechanisms: requests to poll,
 * once or for good, and requests to receive into a ring of buffers.
 */
#pragma once

#include "cheapest_loops.h"

#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { SQ_ENTRIES = 256 };

static int ring_fd = -1;
static unsigned *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask, pending_count;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static int is_recv, is_multishot;
static struct io_uring_buf_ring *buffers;
static char *buffers_memory;
static unsigned buffers_count = 16;
static uint16_t buffers_tail;

static void *map(size_t bytes, int64_t offset)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_fd, offset);
    return memory != MAP_FAILED ? memory : (die("mmap"), NULL);
}

static inline void enter(unsigned least)
{
    if (syscall(SYS_io_uring_enter, ring_fd, pending_count, least, least > 0 ? IORING_ENTER_GETEVENTS : 0, NULL, 0) !=
        (long)pending_count) {
        die("io_uring_enter");
    }
    pending_count = 0;
}

static inline void put_buffer(unsigned number)
{
    struct io_uring_buf *buffer = &buffers->bufs[buffers_tail++ & (buffers_count - 1)];
    buffer->addr = (uintptr_t)(buffers_memory + number * BUFFER_BYTES);
    buffer->len = BUFFER_BYTES;
    buffer->bid = (uint16_t)number;
}

static void uring_open_buffers(void)
{
    while (buffers_count < (unsigned)active_count && buffers_count < 32768) {
        buffers_count *= 2;
    }
    buffers = mmap(NULL, buffers_count * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    buffers_memory = get(buffers_count * BUFFER_BYTES);
    struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)buffers, .ring_entries = buffers_count};
    if (syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_PBUF_RING, &group, 1) != 0) {
        die("io_uring_register");
    }
    for (unsigned i = 0; i < buffers_count; i++) {
        put_buffer(i);
    }
    __atomic_store_n(&buffers->tail, buffers_tail, __ATOMIC_RELEASE);
}

static void uring_open(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN,
                                     .cq_entries = active_count > 400 ? 2u * (unsigned)active_count : 1024};
    ring_fd = (int)syscall(SYS_io_uring_setup, SQ_ENTRIES, &params);
    if (ring_fd < 0) {
        die("io_uring_setup");
    }
    char *rings = map(params.cq_off.cqes + params.cq_entries * sizeof cqes[0] + params.sq_off.array + 4 * SQ_ENTRIES,
                      IORING_OFF_SQ_RING);
    sqes = map(SQ_ENTRIES * sizeof sqes[0], IORING_OFF_SQES);
    cqes = (void *)(rings + params.cq_off.cqes);
    sq_tail = (void *)(rings + params.sq_off.tail);
    cq_head = (void *)(rings + params.cq_off.head);
    cq_tail = (void *)(rings + params.cq_off.tail);
    sq_mask = params.sq_entries - 1;
    cq_mask = params.cq_entries - 1;
    for (unsigned i = 0; i < SQ_ENTRIES; i++) {
        ((unsigned *)(void *)(rings + params.sq_off.array))[i] = i;
    }
    if (is_recv) {
        uring_open_buffers();
    }
}

static inline void uring_arm(int position)
{
    if (pending_count == SQ_ENTRIES) {
        enter(0);
    }
    struct io_uring_sqe *sqe = &sqes[*sq_tail & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->fd = fd_of[position];
    sqe->user_data = (uint64_t)position;
    if (is_recv) {
        sqe->opcode = IORING_OP_RECV;
        sqe->ioprio = IORING_RECV_MULTISHOT;
        sqe->flags = IOSQE_BUFFER_SELECT;
    } else {
        sqe->opcode = IORING_OP_POLL_ADD;
        sqe->len = is_multishot ? IORING_POLL_ADD_MULTI : 0;
        sqe->poll32_events = POLLIN;
    }
    __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
    pending_count++;
}

static void uring_watch(int position)
{
    if (ring_fd < 0) {
        uring_open();
    }
    uring_arm(position);
}

static inline void uring_loop(int carries_data)
{
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        for (int n = 0; n < travelling;) {
            unsigned head = *cq_head, tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
            if (head == tail) {
                enter(1);
                continue;
            }
            for (; head != tail; head++) {
                const struct io_uring_cqe *cqe = &cqes[head & cq_mask];
                arrivals[n++] = (int)cqe->user_data;
                if (carries_data) {
                    if (cqe->res != 1) {
                        die("receive");
                    }
                    put_buffer(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
                } else {
                    take((int)cqe->user_data);
                }
                if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
                    uring_arm((int)cqe->user_data);
                }
            }
            __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
            if (carries_data) {
                __atomic_store_n(&buffers->tail, buffers_tail, __ATOMIC_RELEASE);
            }
        }
    }
}

static void uring_poll_pass(void)
{
    uring_loop(0);
}

static void uring_recv_pass(void)
{
    uring_loop(1);
}
