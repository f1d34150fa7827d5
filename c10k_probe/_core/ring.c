/*
 * ring.c - opens io_uring's rings with the best of the flags that the kernel takes, and enters them. The contract is in
 * ring.h.
 */
#include "ring.h"

#if C10K_HAVE_URING

#include <linux/time_types.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SETUPS_COUNT = 3 };

static const struct setup {
    unsigned flags;
    const char *names;
} setups[SETUPS_COUNT] = {
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
     "CQSIZE|CLAMP|SINGLE_ISSUER|DEFER_TASKRUN"},
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN, "CQSIZE|CLAMP|COOP_TASKRUN"},
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, "CQSIZE|CLAMP"},
};

int ring_enter(struct ring *ring, unsigned least_count, int timeout_ms)
{
    struct __kernel_timespec patience = {timeout_ms / 1000, (long long)(timeout_ms % 1000) * 1000000};
    struct io_uring_getevents_arg argument = {.ts = (uintptr_t)&patience};
    const bool has_timeout = least_count > 0 && timeout_ms >= 0;
    const unsigned flags =
        (least_count > 0 ? IORING_ENTER_GETEVENTS : 0) | (has_timeout ? IORING_ENTER_EXT_ARG : 0);
    const int submitted_count =
        (int)syscall(SYS_io_uring_enter, ring->fd, ring->queued_count, least_count, flags,
                     has_timeout ? &argument : NULL, has_timeout ? sizeof argument : 0);
    if (submitted_count < 0) {
        return -1;
    }
    ring->queued_count -= (unsigned)submitted_count;
    return 0;
}

int ring_register(const struct ring *ring, unsigned operation, void *argument, unsigned count)
{
    return (int)syscall(SYS_io_uring_register, ring->fd, operation, argument, count);
}

static _Noreturn void refuse(int error_number)
{
    char reason[160];
    const char *why = error_number == ENOSYS ? "this kernel has no io_uring"
                                             : "forbidden, by kernel.io_uring_disabled or a seccomp filter";
    snprintf(reason, sizeof reason, "io_uring_setup: %s (%s): %s", errno_name(error_number), strerror(error_number),
             why);
    unsupported(reason);
}

/* With the best of the flags that this kernel takes. */
static void set_up(struct ring *ring, struct io_uring_params *params, unsigned submissions, unsigned completions)
{
    for (const struct setup *setup = setups; setup < setups + SETUPS_COUNT; setup++) {
        *params = (struct io_uring_params){.flags = setup->flags, .cq_entries = completions};
        ring->fd = (int)syscall(SYS_io_uring_setup, submissions, params);
        ring->setup_names = setup->names;
        if (ring->fd >= 0) {
            return;
        }
        if (errno == EPERM || errno == EACCES || errno == ENOSYS) {
            refuse(errno);
        }
        if (errno != EINVAL) {
            fail_call("io_uring_setup", setup->names, errno);
        }
    }
    unsupported("io_uring_setup: EINVAL: needs Linux 5.5 or later");
}

static void *map(const struct ring *ring, size_t bytes, off_t offset)
{
    return CHECK_POINTER(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, offset));
}

static void map_rings(struct ring *ring, const struct io_uring_params *params)
{
    const size_t sq_bytes = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    const size_t cq_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    ring->memory_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    ring->sqes_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
    char *memory = ring->memory = map(ring, ring->memory_bytes, IORING_OFF_SQ_RING);
    ring->sqes = map(ring, ring->sqes_bytes, IORING_OFF_SQES);
    ring->cqes = (void *)(memory + params->cq_off.cqes);
    ring->sq_head = (void *)(memory + params->sq_off.head);
    ring->sq_tail = (void *)(memory + params->sq_off.tail);
    ring->cq_head = (void *)(memory + params->cq_off.head);
    ring->cq_tail = (void *)(memory + params->cq_off.tail);
    ring->sq_mask = params->sq_entries - 1;
    ring->cq_mask = params->cq_entries - 1;
    ring->sq_entries = params->sq_entries;
    ring->tail = *ring->sq_tail;
    unsigned *array = (void *)(memory + params->sq_off.array);
    for (unsigned i = 0; i < params->sq_entries; i++) {
        array[i] = i; /* entries are used in order */
    }
}

void ring_open(struct ring *ring, unsigned submissions_count, unsigned completions_count)
{
    struct io_uring_params params;
    *ring = (struct ring){.fd = -1};
    set_up(ring, &params, submissions_count, completions_count);
    if ((params.features & IORING_FEAT_SINGLE_MMAP) == 0 || (params.features & IORING_FEAT_NODROP) == 0) {
        unsupported("io_uring: needs Linux 5.5 or later");
    }
    map_rings(ring, &params);
}

void ring_close(struct ring *ring)
{
    close(ring->fd);
    munmap(ring->memory, ring->memory_bytes);
    munmap(ring->sqes, ring->sqes_bytes);
}

int ring_open_buffers(struct ring_buffers *buffers, const struct ring *ring, uint16_t count)
{
    *buffers = (struct ring_buffers){.bytes = count * sizeof(struct io_uring_buf), .mask = count - 1};
    buffers->ring = CHECK_POINTER(mmap(NULL, buffers->bytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)buffers->ring, .ring_entries = count};
    return ring_register(ring, IORING_REGISTER_PBUF_RING, &group, 1);
}

void ring_close_buffers(struct ring_buffers *buffers)
{
    munmap(buffers->ring, buffers->bytes);
}

#endif
