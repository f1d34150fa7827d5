/*
 * server_work.h - what the handler does for a request besides answering it, and how long that takes. Without
 * --work-cpu-ns, --work-sleep-ns and --backend-port nothing is done and nothing is timed: a handler costs what it did before.
 *
 * Timed, where one of the options is given, also as 0: time in the handler, from the return of recv to the return of
 * send (for io_uring: until the answer is ready), CLOCK_MONOTONIC; time in the queue, from the kernel's reception of
 * the bytes to the return of recv, CLOCK_REALTIME (the clock of the kernel's stamps: a step of it while they wait is
 * in the number). All processes and threads of the server add to the same sums, in shared memory.
 * An answer is recorded after it went out, so a client may know of it a moment before `status` does. Units: ns, counts.
 *
 * Sources: clock_nanosleep(2), clock_gettime(2) (CLOCK_THREAD_CPUTIME_ID), socket(7) (SO_TIMESTAMPNS), mmap(2)
 * (MAP_SHARED), prctl(2) (PR_SET_TIMERSLACK), net/ipv4/tcp.c (tcp_recv_timestamp).
 */
#ifndef C10K_SERVER_WORK_H
#define C10K_SERVER_WORK_H

#include "helper.h" /* first: it says which functions the system's headers declare */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* -1: not given. */
struct work_options {
    int64_t cpu_ns, sleep_ns, backend_port, backend_timeout_ns;
};

extern struct work_options work_options;

/* Once, in the main thread, before anything is forked or started and before anybody connects to the listener. */
void work_prepare(int listener_fd);

/* False: nothing is timed. */
bool work_is_timed(void);

/* Listeners that are opened later. */
void work_stamp_arrivals(int listener_fd);

/* recv(fd, buffer, bytes, 0) that keeps how long the bytes have waited, and when they were received. */
ssize_t work_receive(int fd, char *buffer, size_t bytes);

/* Where something else received: from now on. What waited before is not known. */
void work_begin(void);

/* The work of one request, in the calling task: spins, sleeps, asks the backend. The status of the answer: 200, 502
 * where the backend failed, 504 where it was too slow. */
int work_do(void);

/* Requests that this process has worked on. */
int64_t work_own_requests_count(void);

/* The same for a model that has it done later: from now on this thread's work_do only counts it in the receipt. */
void work_defer(void);
int work_do_now(void); /* all of it, but for the counting */
void work_spin(void);    /* only the part that needs the CPU */
void work_slept(int64_t began_ns); /* the part that waits, which began then and is over now */
struct backend_totals *work_backend(void); /* NULL: no backend is asked */

/* The answer to what work_receive gave this thread last has gone out. Does nothing where no request was worked on. */
void work_finish(void);

/* The same in two parts, for a model that does not wait in the handler. Of the last work_receive of this thread: */
struct work_receipt {
    int64_t received_ns; /* CLOCK_MONOTONIC */
    int64_t queue_ns;    /* -1: the kernel did not say */
    int64_t requests_count;
};

/* Its own for each thread. */
struct work_receipt *work_receipt(void);
void work_record(const struct work_receipt *receipt);

/* ---- server_backend.c: a backend that is asked for each request (backend.c), with blocking calls ---- */

/* How it was asked, in all tasks. */
struct backend_totals {
    _Atomic int64_t asked_count, failed_count, timed_out_count, connections_count, wait_ns;
};

/* The first thread of this process calls on_told when fd is readable also while it waits for the backend. */
void backend_hear(int fd, void (*on_told)(void));

/* 200, 502 or 504. Over a connection that the calling thread keeps, which is opened when there is none. */
int backend_ask(struct backend_totals *totals);

/* Closes the calling thread's connection to the backend, if it has one. */
void backend_leave(void);

/* Wakes whoever waits for the backend, in this process: it fails. For the end. */
void backend_abandon_all(void);

/* A part of `status`. */
void work_emit_status(void);

#endif
