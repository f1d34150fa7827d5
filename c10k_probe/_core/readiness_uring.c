/*
 * readiness_uring.c - what the three ways to use io_uring share. The contract is in readiness_uring.h.
 *
 * Requests are put into the submission ring and go to the kernel with the next wait, in the same system call, or when
 * the ring is full. A wait first takes what lies in the completion ring and enters the kernel only if there is
 * nothing. It asks for one completion, as epoll_wait does, since a server cannot know how many will come; with
 * DEFER_TASKRUN the kernel then handles at most 20 in one call (IO_LOCAL_TW_DEFAULT_MAX in io_uring/io_uring.c).
 */
#include "readiness_uring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#if C10K_HAVE_URING

enum {
    SUBMISSIONS_COUNT = 256,
    COMPLETIONS_LEAST = 1024,
    COMPLETIONS_MOST = 65536, /* IORING_MAX_CQ_ENTRIES */
    SETUPS_COUNT = 3,
    ENDS_COUNT = 64,          /* taken at a time */
};
static const uint64_t CANCEL = UINT64_C(1) << 63; /* in user_data: a cancellation and not a request */

static const struct setup {
    unsigned flags;
    const char *names;
} setups[SETUPS_COUNT] = {
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
     "CQSIZE|CLAMP|SINGLE_ISSUER|DEFER_TASKRUN"},
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN, "CQSIZE|CLAMP|COOP_TASKRUN"},
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, "CQSIZE|CLAMP"},
};

static struct ring {
    int fd;
    const struct setup *setup;
    void *memory; /* of both rings */
    size_t memory_bytes, sqes_bytes;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask, sq_entries;
    unsigned tail;         /* of submissions, ours */
    unsigned queued_count; /* in the ring, not yet known to the kernel */
} ring = {.fd = -1};

static const struct uring_kind *kind;
static bool *is_armed;        /* by position */
static uint32_t ending_count; /* completions still to come for what was cancelled, and of the cancellations */

/* ---- system calls ---- */

static int io_uring_enter(unsigned submit_count, unsigned least_count, unsigned flags)
{
    return (int)syscall(SYS_io_uring_enter, ring.fd, submit_count, least_count, flags, NULL, 0);
}

/* Hands over what is queued. Returns -1 when a signal came first. */
static int enter(unsigned least_count)
{
    const unsigned flags = least_count > 0 ? IORING_ENTER_GETEVENTS : 0;
    const int submitted_count = COUNTED(io_uring_enter, ring.queued_count, least_count, flags);
    if (submitted_count >= 0) {
        ring.queued_count -= (unsigned)submitted_count;
        return 0;
    }
    if (errno != EINTR) {
        fail_call("io_uring_enter", kind->operation, errno);
    }
    return -1;
}

void uring_register(unsigned operation, void *argument, unsigned count)
{
    if (syscall(SYS_io_uring_register, ring.fd, operation, argument, count) < 0) {
        if (errno == EINVAL) {
            unsupported(kind->needs);
        }
        fail_call("io_uring_register", kind->operation, errno);
    }
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

/* With the best of the flags that this kernel takes. */
static void set_up(struct io_uring_params *params)
{
    for (const struct setup *setup = setups; setup < setups + SETUPS_COUNT; setup++) {
        *params = (struct io_uring_params){.flags = setup->flags, .cq_entries = completions_count()};
        ring.fd = (int)syscall(SYS_io_uring_setup, SUBMISSIONS_COUNT, params);
        ring.setup = setup;
        if (ring.fd >= 0) {
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

static void *map(size_t bytes, off_t offset)
{
    return CHECK_POINTER(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, offset));
}

static void map_rings(const struct io_uring_params *params)
{
    const size_t sq_bytes = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    const size_t cq_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    ring.memory_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    ring.sqes_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
    char *memory = ring.memory = map(ring.memory_bytes, IORING_OFF_SQ_RING);
    ring.sqes = map(ring.sqes_bytes, IORING_OFF_SQES);
    ring.cqes = (void *)(memory + params->cq_off.cqes);
    ring.sq_head = (void *)(memory + params->sq_off.head);
    ring.sq_tail = (void *)(memory + params->sq_off.tail);
    ring.cq_head = (void *)(memory + params->cq_off.head);
    ring.cq_tail = (void *)(memory + params->cq_off.tail);
    ring.sq_mask = params->sq_entries - 1;
    ring.cq_mask = params->cq_entries - 1;
    ring.sq_entries = params->sq_entries;
    ring.tail = *ring.sq_tail;
    unsigned *array = (void *)(memory + params->sq_off.array);
    for (unsigned i = 0; i < params->sq_entries; i++) {
        array[i] = i; /* entries are used in order */
    }
}

void uring_open(const struct uring_kind *new_kind)
{
    struct io_uring_params params;
    kind = new_kind;
    set_up(&params);
    if ((params.features & IORING_FEAT_SINGLE_MMAP) == 0 || (params.features & IORING_FEAT_NODROP) == 0) {
        unsupported("io_uring: needs Linux 5.5 or later");
    }
    map_rings(&params);
    is_armed = touched_memory(sockets.positions_count * sizeof(is_armed[0]));
}

const char *uring_flags(void)
{
    return ring.setup->names;
}

void uring_close(void)
{
    close(ring.fd);
    munmap(ring.memory, ring.memory_bytes);
    munmap(ring.sqes, ring.sqes_bytes);
    free(is_armed);
}

/* ---- submissions ---- */

/* The next free entry, zeroed; it counts as queued. */
static struct io_uring_sqe *next_submission(uint64_t user_data)
{
    while (ring.tail - __atomic_load_n(ring.sq_head, __ATOMIC_ACQUIRE) == ring.sq_entries) {
        enter(0);
    }
    struct io_uring_sqe *sqe = &ring.sqes[ring.tail & ring.sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->user_data = user_data;
    return sqe;
}

/* After the entry is complete. */
static void queue_submission(void)
{
    __atomic_store_n(ring.sq_tail, ++ring.tail, __ATOMIC_RELEASE);
    ring.queued_count++;
}

void uring_watch(uint32_t position)
{
    struct io_uring_sqe *sqe = next_submission(position);
    kind->prepare(sqe);
    sqe->fd = sockets.ends[position].read_fd;
    queue_submission();
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
    queue_submission();
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

static unsigned ready_count(void)
{
    return __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) - *ring.cq_head;
}

int uring_wait(struct event *events, uint32_t room)
{
    uint32_t count = 0;
    if (ready_count() == 0 && enter(1) != 0) {
        return -1;
    }
    unsigned head = *ring.cq_head;
    for (unsigned left = ready_count(); left > 0 && count < room; left--) {
        count += take_completion(&ring.cqes[head++ & ring.cq_mask], &events[count]);
    }
    __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
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
    unsupported("built with kernel headers older than Linux 6.1, without all of io_uring");
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
