/*
 * server_work.c - the work of a request, its sums and its histograms. The contract is in server_work.h.
 */
#include "server_work.h"

#include "helper.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A histogram has 16 buckets in each octave: none is wider than a sixteenth of its lower bound. */
enum { OCTAVE_BITS = 4, OCTAVE_BUCKETS = 1 << OCTAVE_BITS, BUCKETS_COUNT = (63 - OCTAVE_BITS + 1) * OCTAVE_BUCKETS };

enum { SPIN_STEPS = 256 }; /* between two looks at the CPU clock, which costs a system call: below 1 us */

#define NS_PER_S INT64_C(1000000000)
#define STAMPS_WITHIN_NS (2 * NS_PER_S)

struct distribution {
    _Atomic int64_t count, sum_ns, longest_ns;
    _Atomic int64_t buckets[BUCKETS_COUNT];
};

/* Shared memory. */
static struct totals {
    _Atomic int64_t requests_count, cpu_ns, sleep_ns;
    struct distribution handler, queue;
    struct backend_totals backend;
} *totals;

struct work_options work_options = {.cpu_ns = -1, .sleep_ns = -1, .backend_timeout_ns = 60 * NS_PER_S};

static _Thread_local struct work_receipt receipt_of_thread;
static _Atomic int64_t own_requests_count; /* not shared */
static _Thread_local bool is_deferring;

/* ---- distributions ---- */

static size_t bucket_of(int64_t value_ns)
{
    const uint64_t value = value_ns > 0 ? (uint64_t)value_ns : 0;
    if (value < OCTAVE_BUCKETS) {
        return value;
    }
    const int octave = 63 - __builtin_clzll(value);
    return (size_t)(octave - OCTAVE_BITS) * OCTAVE_BUCKETS + (value >> (octave - OCTAVE_BITS));
}

static int64_t lower_bound_ns(size_t bucket)
{
    if (bucket < OCTAVE_BUCKETS) {
        return (int64_t)bucket;
    }
    return (int64_t)(bucket % OCTAVE_BUCKETS + OCTAVE_BUCKETS) << (bucket / OCTAVE_BUCKETS - 1);
}

static void add(_Atomic int64_t *sum, int64_t value)
{
    atomic_fetch_add_explicit(sum, value, memory_order_relaxed);
}

static void record(struct distribution *distribution, int64_t value_ns)
{
    add(&distribution->count, 1);
    add(&distribution->sum_ns, value_ns);
    add(&distribution->buckets[bucket_of(value_ns)], 1);
    int64_t longest_ns = atomic_load_explicit(&distribution->longest_ns, memory_order_relaxed);
    while (value_ns > longest_ns &&
           !atomic_compare_exchange_weak(&distribution->longest_ns, &longest_ns, value_ns)) {
    }
}

static void emit_distribution(const char *name, const struct distribution *distribution)
{
    const char *separator = "";
    emit_part(",\"%s_count\":%" PRId64 ",\"%s_ns\":%" PRId64 ",\"%s_longest_ns\":%" PRId64 ",\"%s_histogram\":[", name,
              atomic_load(&distribution->count), name, atomic_load(&distribution->sum_ns), name,
              atomic_load(&distribution->longest_ns), name);
    for (size_t i = 0; i < BUCKETS_COUNT; i++) {
        const int64_t count = atomic_load(&distribution->buckets[i]);
        if (count > 0) {
            emit_part("%s[%" PRId64 ",%" PRId64 "]", separator, lower_bound_ns(i), count);
            separator = ",";
        }
    }
    emit_part("]");
}

/* ---- arrival ---- */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

bool work_is_timed(void)
{
    return totals != NULL;
}

/* What is accepted has it, too (net/core/sock.c, sk_clone_lock). */
void work_stamp_arrivals(int listener_fd)
{
    const int on = 1;
    if (work_is_timed()) {
        CHECK(setsockopt(listener_fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on));
    }
}

/* Since the kernel received the last of the bytes; -1: it did not say. */
static int64_t waited_ns(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec arrived;
            memcpy(&arrived, CMSG_DATA(part), sizeof arrived);
            const int64_t waited = clock_ns(CLOCK_REALTIME) - ((int64_t)arrived.tv_sec * NS_PER_S + arrived.tv_nsec);
            return waited > 0 ? waited : 0;
        }
    }
    return -1;
}

static ssize_t receive(int fd, char *buffer, size_t bytes, int64_t *queue_ns)
{
    _Alignas(struct cmsghdr) char control[128];
    struct iovec part = {.iov_base = buffer, .iov_len = bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    const ssize_t received = recvmsg(fd, &message, 0);
    *queue_ns = received > 0 ? waited_ns(&message) : -1;
    return received;
}

ssize_t work_receive(int fd, char *buffer, size_t bytes)
{
    int64_t queue_ns;
    const ssize_t received = receive(fd, buffer, bytes, &queue_ns);
    if (received > 0) {
        receipt_of_thread = (struct work_receipt){.received_ns = now_ns(), .queue_ns = queue_ns};
    }
    return received;
}

void work_begin(void)
{
    if (work_is_timed()) {
        receipt_of_thread = (struct work_receipt){.received_ns = now_ns(), .queue_ns = -1};
    }
}

struct work_receipt *work_receipt(void)
{
    return &receipt_of_thread;
}

/* A byte over a connection of our own, reset at the end: nothing lingers. */
static bool is_stamped(int sender_fd, int receiver_fd)
{
    int64_t queue_ns = -1;
    char byte = 0;
    CHECK(send(sender_fd, &byte, sizeof byte, MSG_NOSIGNAL));
    CHECK(receive(receiver_fd, &byte, sizeof byte, &queue_ns));
    return queue_ns >= 0;
}

/* The kernel begins to stamp in a kworker, some time after the first socket has asked for it (net/core/dev.c,
 * net_enable_timestamp): the first requests would have none. Not for ever: the rest of the server works without. */
static void await_stamps(void)
{
    const struct linger resets = {.l_onoff = 1, .l_linger = 0};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(bind(listener_fd, (struct sockaddr *)&address, length));
    CHECK(listen(listener_fd, 1));
    CHECK(getsockname(listener_fd, (struct sockaddr *)&address, &length));
    work_stamp_arrivals(listener_fd);
    const int sender_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(connect(sender_fd, (struct sockaddr *)&address, length));
    const int receiver_fd = (int)CHECK(accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC));
    const int64_t until_ns = now_ns() + STAMPS_WITHIN_NS;
    while (!is_stamped(sender_fd, receiver_fd) && now_ns() < until_ns) {
        sched_yield();
    }
    CHECK(setsockopt(sender_fd, SOL_SOCKET, SO_LINGER, &resets, sizeof resets));
    close(sender_fd);
    close(receiver_fd);
    close(listener_fd);
}

/* ---- work ---- */

static void spin(int64_t asked_ns)
{
    const int64_t began_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t spent_ns = 0;
    while (spent_ns < asked_ns) {
        for (volatile int i = 0; i < SPIN_STEPS; i++) {
        }
        spent_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns;
    }
    add(&totals->cpu_ns, spent_ns);
}

void work_slept(int64_t began_ns)
{
    add(&totals->sleep_ns, now_ns() - began_ns);
}

static void sleep_for(int64_t asked_ns)
{
    const int64_t began_ns = now_ns(), until_ns = began_ns + asked_ns;
    const struct timespec until = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
    work_slept(began_ns);
}

int work_do(void)
{
    if (!work_is_timed()) {
        return 200;
    }
    add(&totals->requests_count, 1);
    add(&own_requests_count, 1);
    receipt_of_thread.requests_count++;
    return is_deferring ? 200 : work_do_now();
}

void work_defer(void)
{
    is_deferring = true;
}

struct backend_totals *work_backend(void)
{
    return work_options.backend_port > 0 ? &totals->backend : NULL;
}

void work_spin(void)
{
    if (work_options.cpu_ns > 0) {
        spin(work_options.cpu_ns);
    }
}

int work_do_now(void)
{
    work_spin();
    if (work_options.sleep_ns > 0) {
        sleep_for(work_options.sleep_ns);
    }
    return work_options.backend_port > 0 ? backend_ask(&totals->backend) : 200;
}

int64_t work_own_requests_count(void)
{
    return atomic_load(&own_requests_count);
}

void work_record(const struct work_receipt *receipt)
{
    record(&totals->handler, now_ns() - receipt->received_ns);
    if (receipt->queue_ns >= 0) {
        record(&totals->queue, receipt->queue_ns);
    }
}

void work_finish(void)
{
    if (work_is_timed() && receipt_of_thread.requests_count > 0) {
        work_record(&receipt_of_thread);
        receipt_of_thread.requests_count = 0;
    }
}

/* ---- life ---- */

/* Without the slack a sleep of 1 ms would be 50 us too long; what is forked or started inherits this. */
void work_prepare(int listener_fd)
{
    if (work_options.cpu_ns < 0 && work_options.sleep_ns < 0 && work_options.backend_port == 0) {
        return;
    }
    totals = CHECK_POINTER(mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHECK(prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0));
    work_stamp_arrivals(listener_fd);
    await_stamps();
}

void work_emit_status(void)
{
    if (!work_is_timed()) {
        return;
    }
    emit_part(",\"work\":{\"requests_count\":%" PRId64 ",\"cpu_ns\":%" PRId64 ",\"sleep_ns\":%" PRId64,
              atomic_load(&totals->requests_count), atomic_load(&totals->cpu_ns), atomic_load(&totals->sleep_ns));
    emit_distribution("handler", &totals->handler);
    emit_distribution("queue", &totals->queue);
    if (work_options.backend_port > 0) {
        emit_part(",\"backend_asked_count\":%" PRId64 ",\"backend_failed_count\":%" PRId64
                  ",\"backend_timed_out_count\":%" PRId64 ",\"backend_connections_count\":%" PRId64
                  ",\"backend_wait_ns\":%" PRId64,
                  atomic_load(&totals->backend.asked_count), atomic_load(&totals->backend.failed_count),
                  atomic_load(&totals->backend.timed_out_count), atomic_load(&totals->backend.connections_count),
                  atomic_load(&totals->backend.wait_ns));
    }
    emit_part("}");
}
