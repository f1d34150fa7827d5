/*
 * server.h - what the parts of reference_server share: its state, the interface of a model, and what a model
 * calls. One model is one file, server_model_NAME.c, and one row of the table in server_models.c.
 */
#ifndef C10K_SERVER_H
#define C10K_SERVER_H

#include "helper.h"

#include <stdatomic.h>
#include <sys/types.h>

enum { SERVER_BUFFER_BYTES = 4096 }; /* most that the handler receives at once, and most that it answers to it */

/* Workers of a pool that serves a connection with each, unless --workers says otherwise: as many as Apache's prefork
 * has by default (MaxRequestWorkers). */
enum { SERVER_POOL_COUNT = 256 };

enum server_protocol { SERVER_ECHO, SERVER_HTTP };

/* One way to serve connections. All of it runs in the main thread. */
struct server_model {
    const char *name;                   /* as --model and `ready` have it */
    const char *takes;                  /* of the options stack, workers, edge, capacity: those that it obeys */
    int accept_flags;                   /* of accept4, besides SOCK_CLOEXEC: 0 or SOCK_NONBLOCK */
    bool is_port_shared;                /* it opens listeners of its own: server.listener_fd holds the port only */
    void (*prepare)(void);              /* once: the listener is open, `ready` is not yet printed */
    void (*loop)(void);                 /* accepts, serves and obeys until server.is_quitting */
    void (*serve)(int fd);              /* one just accepted: count it as open, or server_refuse() it */
    void (*watch_listener)(bool is_on); /* NULL where the loop asks server_is_paused() by itself */
    int64_t (*count_tasks)(void);       /* processes and threads, all of the server's */
    void (*emit_status)(void);          /* NULL, or: prints more parts of `status` */
    void (*stop)(void);                 /* the listener is closed: close, end and reap the rest */
};

extern const struct server_model *const server_models[]; /* NULL-terminated */

struct server {
    const struct server_model *model;
    int64_t backlog_asked_count, stack_bytes; /* stack_bytes 0: the default attributes */
    int64_t workers_count;                    /* of a pool; 0: as many as the model thinks fit */
    int64_t capacity_count;                   /* connections that it must be able to hold; 0: as it comes */
    int64_t is_edge_triggered, protocol;      /* protocol: enum server_protocol */
    int listener_fd, self_status_fd;
    uint16_t port;
    atomic_bool is_quitting;
    atomic_int highest_fd;                    /* of all descriptor tables */
    _Atomic int64_t open_count, closed_count, accepted_count, dropped_count, accept_errors_count;
};

extern struct server server;

/* ---- server_listener.c ---- */

/* A socket at 127.0.0.1 and a port, 0 for any, with SO_REUSEPORT if several are to share it. Does not listen yet. What
 * it accepts has its TCP_NODELAY. */
int server_bind(uint16_t port, bool is_shared);

/* What is in force: the kernel cuts the backlog at somaxconn without a word (listen(2)). */
int64_t server_backlog_in_force(void);

/* ---- server_accept.c ---- */

/* Accepts what waits, up to a batch, and gives each to the model. False: none waits, or there is a wall. */
bool server_accept_batch(void);

/* The parts of it, for a model that does not call accept4: one was accepted; accepting failed (true: try again at
 * once; closed_before: as for server_pause_accepting). */
void server_accepted(int fd);
bool server_accept_failed(int error_number, int64_t closed_before);

/* The listener is to block: a request to accept that is handed to the kernel, or a task, waits there. */
void server_let_listener_block(void);

/* The same, but no more than most_count; how many it were. */
int64_t server_accept_up_to(int64_t most_count);

/* ---- server_walls.c ---- */

/* No descriptor, task or memory: a reason to say so and go on. */
bool server_is_wall(int error_number);

/* Prints a `wall` line; why: in words, NULL for the error's own message. */
void server_tell(const char *call, int error_number, const char *why);

/* The same, but only for a new pair of call and error. */
void server_tell_wall(const char *call, int error_number, const char *why);

/* Has walls told to somebody else: by a process that does not print. `call` is a constant. */
void server_tell_walls_to(void (*teller)(const char *call, int error_number));

/* Counts an error of accepting, and tells it. */
void server_report_wall(const char *call, int error_number);

/* Closes an accepted connection for which there is no task (or no watch): the client must see that. An error
 * that is no wall ends the server. */
void server_refuse(int fd, const char *call, int error_number);

/* The same for a wall of the model's own. */
void server_refuse_because(int fd, const char *call, int error_number, const char *why);

/* Leaves the listener alone until a connection closes. closed_before: server.closed_count as it was before
 * the call that failed. */
void server_pause_accepting(int64_t closed_before, int error_number);
bool server_is_paused(void);
void server_resume_if_possible(bool is_retry_due);

/* For poll and epoll_wait: -1, or how long to pause for a wall that other processes can lift. */
int server_retry_timeout_ms(void);

/* ---- server_wire.c ---- */

/* Bytes sent, fewer than asked only where a non-blocking socket is full; -1 when the connection is over. */
ssize_t server_send_what_fits(int fd, const char *bytes, size_t count);

/* Before fd is closed after the last answer: our end of the stream, then what has come after the last request is taken.
 * Closing with unread bytes would send a reset, which may overtake the answer (RFC 9112, 9.6). */
void server_say_goodbye(int fd);

/* ---- server_connections.c ---- */

/* Keeps the bytes that a full non-blocking socket did not take; false: cannot, the connection is over. */
typedef bool (*server_keep_rest)(int fd, const char *bytes, size_t count);

/* What the handler gives back for what came; both are in the same buffer. */
struct server_answer {
    size_t count; /* 0: more must come first */
    bool is_last; /* the connection is over when it has gone out */
};

/* The handler without its calls: `received` bytes that came on fd are in the buffer, the answer is put there. */
struct server_answer server_answer(int fd, char buffer[static SERVER_BUFFER_BYTES], size_t received);

/* Most that may be received at once for server_answer. */
size_t server_receive_bytes(void);

/* What was kept of fd's requests; whoever closes fd without server_step having said that it is over calls it. */
void server_forget(int fd);

/* The two ends of a step. What came, as recv has it; false: the connection is over, for whatever reason. */
ssize_t server_receive(int fd, char buffer[static SERVER_BUFFER_BYTES]);
bool server_send_answer(int fd, const char *buffer, struct server_answer answer, server_keep_rest keep_rest);

/* One step of the handler: receive, answer. False when the connection is over. */
bool server_step(int fd, char buffer[static SERVER_BUFFER_BYTES], server_keep_rest keep_rest);

/* The handler for a task of its own (blocking socket); closes fd. */
void server_serve_until_closed(int fd);

/* What an event loop has to wait for next. */
enum server_interest { SERVER_OVER, SERVER_READ, SERVER_WRITE };

/* One event on a non-blocking connection: goes on with a kept answer, or else one step of the handler. */
enum server_interest server_on_event(int fd);

/* One connection more. From any thread. */
void server_count_opened(void);

/* One connection fewer. From any thread. */
void server_count_closed(void);

/* The port of an IPv4 socket's own end; 0 for any other descriptor. */
uint16_t server_local_port(int fd);

/* Calls stop for every connection. Whoever closes one of these then sends a reset: no TIME_WAIT stays. */
void server_stop_connections(void (*stop)(int fd));

/* ---- server_commands.c ---- */

/* One read of stdin; obeys every line that is complete. End of file sets server.is_quitting. */
void server_read_commands(void);

/* Threads of this process, from the kernel, through a descriptor opened before any wall. */
int64_t server_count_own_threads(void);

/* ---- server_poll_loop.c ---- */

/* The loop of a model whose connections are served by other tasks. wake_fd: non-blocking, readable when one
 * of them has something to say; it is emptied, then on_wake (may be NULL) is called. */
void server_poll_loop(int wake_fd, void (*on_wake)(void));

/* ---- server_stop_threads.c ---- */

/* True when it is reached within 2 s or so. */
bool server_wait_until(bool (*is_reached)(void));

/* Has the threads that serve with blocking calls close all that is open; false: some did not. */
bool server_stop_threads(void);

#endif
