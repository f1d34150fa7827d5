/*
 * cheapest_loops.c - for each mechanism the shortest loop that does the chain workload of `readiness`, and nothing
 * else: no counting, no checking, one function for each. It shares no code with the helper, so that the difference
 * between the two is what the helper's generality costs.
 *
 *     cheapest_loops MECHANISM WATCHED ACTIVE WRITES PASSES SEED      prints one line a pass: ns
 *
 * WATCHED is even. Pinned to the last CPU it may use. Clock: CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SQ_ENTRIES = 256, BUFFER_BYTES = 64 };

static int watched_count, active_count, writes_count;
static int *fd_of, *write_fd_of, *travel, *arrivals;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *get(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL) {
        die("malloc");
    }
    return memset(memory, 1, bytes);
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void shuffle(int *numbers, int count)
{
    for (int i = 0; i < count; i++) {
        const int other = (int)(random() % (i + 1));
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
}

static void open_sockets(void)
{
    fd_of = get((size_t)watched_count * sizeof(int));
    write_fd_of = get((size_t)watched_count * sizeof(int));
    travel = get((size_t)watched_count * sizeof(int));
    arrivals = get((size_t)watched_count * sizeof(int));
    for (int i = 0; i < watched_count; i += 2) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &fd_of[i]) != 0) {
            die("socketpair");
        }
    }
    shuffle(travel, watched_count);
    for (int i = 0; i < watched_count; i++) {
        write_fd_of[travel[i]] = fd_of[travel[(i + 1) % watched_count] ^ 1];
    }
}

/* ---- what all loops do with a token ---- */

static inline void start(void)
{
    const int first = (int)(random() % watched_count);
    for (int i = 0; i < active_count; i++) {
        const int64_t step = (int64_t)i * watched_count / active_count;
        if (write(fd_of[travel[(first + step) % watched_count] ^ 1], "e", 1) != 1) {
            die("write");
        }
    }
}

static inline void take(int position)
{
    char buffer[BUFFER_BYTES];
    if (read(fd_of[position], buffer, sizeof buffer) != 1) {
        die("read");
    }
}

/* Sends on what has arrived, and returns how many those are. */
static inline int send_on(int arrived_count, int *left_count)
{
    const int count = arrived_count < *left_count ? arrived_count : *left_count;
    *left_count -= count;
    for (int i = 0; i < count; i++) {
        if (write(write_fd_of[arrivals[i]], "e", 1) != 1) {
            die("write");
        }
    }
    return count;
}

/* ---- select ---- */

static fd_set watched_set;
static int position_of[FD_SETSIZE];
static int highest_fd;

static void select_watch(int position)
{
    FD_SET(fd_of[position], &watched_set);
    position_of[fd_of[position]] = position;
    highest_fd = fd_of[position] > highest_fd ? fd_of[position] : highest_fd;
}

static void select_pass(void)
{
    const int word_bits = 8 * sizeof(long);
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        fd_set ready = watched_set;
        if (select(highest_fd + 1, &ready, NULL, NULL, NULL) != travelling) {
            die("select");
        }
        for (int word = 0, n = 0; n < travelling; word++) {
            for (unsigned long bits = ((unsigned long *)&ready)[word]; bits != 0; bits &= bits - 1) {
                take(arrivals[n++] = position_of[word * word_bits + __builtin_ctzl(bits)]);
            }
        }
    }
}

/* ---- poll ---- */

static struct pollfd *polled;
static int *polled_position;
static int polled_count;

static void poll_watch(int position)
{
    if (polled == NULL) {
        polled = get((size_t)watched_count * sizeof(polled[0]));
        polled_position = get((size_t)watched_count * sizeof(int));
    }
    polled[polled_count] = (struct pollfd){.fd = fd_of[position], .events = POLLIN};
    polled_position[polled_count++] = position;
}

static void poll_pass(void)
{
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        if (poll(polled, (nfds_t)polled_count, -1) != travelling) {
            die("poll");
        }
        for (int slot = 0, n = 0; n < travelling; slot++) {
            if (polled[slot].revents != 0) {
                take(arrivals[n++] = polled_position[slot]);
            }
        }
    }
}

/* ---- epoll ---- */

static int epoll_fd = -1;
static uint32_t epoll_flags;
static struct epoll_event *epoll_events;

static void epoll_change(int operation, int position)
{
    struct epoll_event event = {.events = EPOLLIN | epoll_flags, .data.u32 = (uint32_t)position};
    if (epoll_ctl(epoll_fd, operation, fd_of[position], &event) != 0) {
        die("epoll_ctl");
    }
}

static void epoll_watch(int position)
{
    if (epoll_fd < 0) {
        epoll_fd = epoll_create1(0);
        epoll_events = get((size_t)active_count * sizeof(epoll_events[0]));
    }
    epoll_change(EPOLL_CTL_ADD, position);
}

static inline void epoll_loop(int is_oneshot)
{
    int left = writes_count;
    start();
    for (int travelling = active_count; travelling > 0; travelling = send_on(travelling, &left)) {
        if (epoll_wait(epoll_fd, epoll_events, active_count, -1) != travelling) {
            die("epoll_wait");
        }
        for (int n = 0; n < travelling; n++) {
            take(arrivals[n] = (int)epoll_events[n].data.u32);
            if (is_oneshot) {
                epoll_change(EPOLL_CTL_MOD, arrivals[n]);
            }
        }
    }
}

static void epoll_pass(void)
{
    epoll_loop(0);
}

static void epoll_oneshot_pass(void)
{
    epoll_loop(1);
}

/* ---- io_uring ---- */

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

/* ---- main ---- */

static const struct {
    const char *name;
    void (*watch)(int position);
    void (*pass)(void);
    uint32_t epoll_flags;
    int is_multishot, is_recv;
} mechanisms[] = {
    {"select", select_watch, select_pass, 0, 0, 0},
    {"poll", poll_watch, poll_pass, 0, 0, 0},
    {"epoll", epoll_watch, epoll_pass, 0, 0, 0},
    {"epoll_edge", epoll_watch, epoll_pass, EPOLLET, 0, 0},
    {"epoll_oneshot", epoll_watch, epoll_oneshot_pass, EPOLLONESHOT, 0, 0},
    {"io_uring_poll", uring_watch, uring_poll_pass, 0, 0, 0},
    {"io_uring_poll_multishot", uring_watch, uring_poll_pass, 0, 1, 0},
    {"io_uring_recv", uring_watch, uring_recv_pass, 0, 1, 1},
};

static void pin(void)
{
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int cpu = CPU_SETSIZE - 1;
    while (!CPU_ISSET(cpu, &allowed)) {
        cpu--;
    }
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    sched_setaffinity(0, sizeof allowed, &allowed);
}

static void run(size_t which, int passes_count)
{
    int *order = get((size_t)watched_count * sizeof(int));
    epoll_flags = mechanisms[which].epoll_flags;
    is_multishot = mechanisms[which].is_multishot;
    is_recv = mechanisms[which].is_recv;
    shuffle(order, watched_count);
    for (int i = 0; i < watched_count; i++) {
        mechanisms[which].watch(order[i]);
    }
    if (pending_count > 0) {
        enter(0); /* requests that see their data only when they are submitted are another workload */
    }
    for (int i = -1; i < passes_count; i++) {
        const int64_t start_ns = clock_ns();
        mechanisms[which].pass();
        const int64_t pass_ns = clock_ns() - start_ns;
        if (i >= 0) {
            printf("%lld\n", (long long)pass_ns);
        }
    }
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    if (argc != 7) {
        fprintf(stderr, "usage: %s MECHANISM WATCHED ACTIVE WRITES PASSES SEED\n", argv[0]);
        return 2;
    }
    watched_count = atoi(argv[2]);
    active_count = atoi(argv[3]);
    writes_count = atoi(argv[4]);
    srandom((unsigned)atoi(argv[6]));
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    pin();
    open_sockets();
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
        if (strcmp(mechanisms[i].name, argv[1]) == 0) {
            run(i, atoi(argv[5]));
            return 0;
        }
    }
    fprintf(stderr, "no such mechanism: %s\n", argv[1]);
    return 2;
}
