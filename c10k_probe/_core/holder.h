/*
 * holder.h - what the parts of connection_holder share: settings, the held connections, messages, failures.
 */
#ifndef C10K_HOLDER_H
#define C10K_HOLDER_H

#include "helper.h"

#include <netinet/in.h>

enum {
    MESSAGE_BYTES_MIN = 16,   /* index and counter */
    MESSAGE_BYTES_MAX = 4096, /* fits any socket buffer: a send never waits for the server to read */
    END_OF_STREAM = -1,       /* where an errno is expected: the server closed the connection */
};

/* From the command line. */
struct settings {
    int64_t port, source_base, window_count, timeout_ms, message_bytes, samples_count;
};

/* For `end`. */
struct totals {
    int64_t samples_count, dropped_count;
};

/* Descriptors, in a mapping of their own so that neither the heap nor a page fault takes part. */
struct descriptors {
    int *fds;
    int64_t count, capacity;
};

/* The first failure of a command; call is NULL while there is none. */
struct failure {
    const char *call;
    int number; /* errno or END_OF_STREAM */
};

extern struct settings settings;
extern struct totals totals;
extern struct descriptors held; /* client ends that have echoed, in the order of opening */

/* ---- holder_arrays.c ---- */

/* Zeroed and touched, at least one page. */
void *array_new(int64_t bytes);
void array_free(void *array, int64_t bytes);

/* Room for capacity descriptors at least. */
void reserve(struct descriptors *list, int64_t capacity);

/* Takes out the -1 left by connections that failed; the order stays. */
void compact(struct descriptors *list);

/* Closes all (with a reset, as prepare_socket asked for) and gives the memory back. Returns how many. */
int64_t close_all(struct descriptors *list);

/* ---- holder_random.c ---- */

uint64_t next_random(uint64_t *state);

/* 0..limit-1, without the bias of a plain remainder. */
uint64_t random_below(uint64_t *state, uint64_t limit);

/* ---- holder_samples.c ---- */

/* At most capacity values of a stream, one of each `every` (a power of two), in their order. */
struct samples {
    int64_t *values;
    int64_t count, capacity, every;
    int64_t seen_count, next; /* next: which of the stream is kept next */
    uint64_t random;
};

/* Room for capacity values, or one fewer where it is odd; two at least. */
struct samples samples_new(int64_t capacity);
void samples_free(struct samples *samples);

/* Allocates nothing. When the room is full, one of each two values is dropped: tens of microseconds for 100,000. */
void samples_add(struct samples *samples, int64_t value);

/* ---- holder_wire.c ---- */

extern uint64_t message_counter; /* of messages sent */

void build_message(char message[static MESSAGE_BYTES_MAX], int64_t index, uint64_t counter);

/* Each: 0, or errno, or END_OF_STREAM (receiving only). A time-out is ETIMEDOUT. flags: of recv(2). */
int send_message(int fd, const char *message);
int receive_message(int fd, char *message, int flags);

/* 0, or EBADMSG when they differ. */
int compare_messages(const char *sent, const char *received);

/* Keeps the first one. */
void note_failure(struct failure *failure, const char *call, int number);

/* The part of a line that says ,"failure":...; at_count: how many were open then. */
void emit_failure(const struct failure *failure, int64_t at_count);

/* ---- holder_connections.c ---- */

struct sockaddr_in loopback_address(uint16_t port);

/* What both ends have: time-outs and reset on close. */
void prepare_socket(int fd);

/* A descriptor connected to 127.0.0.1:port, or -1 with the failure noted. */
int open_connection(uint16_t port, int64_t *connect_ns, struct failure *failure);

/* ---- the commands, each in its file: answers with one line ---- */

void command_ramp(const int64_t *arguments);
void command_echo(const int64_t *arguments);
void command_pump(const int64_t *arguments);
void command_pairs(const int64_t *arguments);
void command_unpair(const int64_t *arguments);

/* ---- holder_pairs.c ---- */

int64_t count_pairs(void);

/* Closes all pairs and their listener. Returns how many pairs there were. */
int64_t close_pairs(void);

/* ---- holder_commands.c ---- */

/* Until `quit` or the end of stdin. */
void obey_commands(void);

#endif
