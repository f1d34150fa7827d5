/*
 * holder.h - what the parts of connection_holder share: settings, the held connections, messages, failures.
 */
#ifndef C10K_HOLDER_H
#define C10K_HOLDER_H

#include "helper.h"

#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>

enum {
    TABLES_MAX = 1024,
    LANES_MAX = 8,
    PORTS_MAX = 28 * 1000, /* of one source address: up to 60,767, as net.ipv4.ip_local_port_range by default */
    WINDOW_MAX = 4096,
    PROBES_MAX = 1000 * 1000, /* of one command */
    MESSAGE_BYTES_MIN = 16,   /* index and counter */
    MESSAGE_BYTES_MAX = 4096, /* fits any socket buffer: a send never waits for the server to read */
    END_OF_STREAM = -1,       /* where an errno is expected: the server closed the connection */
    CLOSES = -2,              /* there, too: it answered rightly and said that it will close it */
    HTTP_STATUS = 1000,       /* there, too: it answered with this status beyond 1000 */
    HTTP_LINE_BYTES = 48,     /* of a line of an answer's head, for as much of it as matters */
};

/* From the command line. */
struct settings {
    int64_t port, source_base, ports_count, window_count, timeout_ms, message_bytes, samples_count;
    int64_t tables_count, lanes_count;
    const char *path; /* asked for over HTTP; NULL: echoes */
    const char *body; /* of the right answer; NULL: any */
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

/* A descriptor table, and the thread that works in it: RLIMIT_NOFILE bounds a table, not a process. The
 * first is the main thread's. */
struct table {
    int64_t number;
    struct descriptors held;  /* client ends that count as open, in the order of opening */
    int64_t backlogged_count; /* the first so many of them have unread answers */
    pthread_t thread;
    sem_t wanted, done;
    void (*job)(struct table *table, void *argument);
    void *argument;
};

extern struct settings settings;
extern struct totals totals;

/* ---- holder_tables.c ---- */

extern struct table tables[TABLES_MAX];
extern int64_t tables_count; /* those in use: one at least */

/* One more, with a thread of its own; false where settings or the kernel allow no more: *number is the
 * errno, or 0. */
bool tables_add(int *number);

/* A thread with a small stack; 0 or errno. */
int table_thread_new(pthread_t *thread, void *(*work)(void *argument), void *argument);

/* Runs the job in the table's own thread, and comes back when it is done. */
void table_run(struct table *table, void (*job)(struct table *table, void *argument), void *argument);

/* The same in all tables at once; the arguments are argument_bytes apart. */
void tables_run(void (*job)(struct table *table, void *argument), void *arguments, size_t argument_bytes);

/* Ends the threads of all tables but the first; what they hold must be closed. */
void tables_end(void);

/* How many are held in all tables. */
int64_t tables_held_count(void);

/* The share of each table in asked_count, by what it holds: exact in sum, never more than it holds. */
void tables_share(int64_t asked_count, int64_t *shares);

/* The number by which a message names the connection at this place of a table. */
int64_t table_index(const struct table *table, int64_t place);

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

/* The capacity that takes all of so many values, as far as the settings allow. */
int64_t samples_room(int64_t values_count);
void samples_free(struct samples *samples);

/* Allocates nothing. When the room is full, one of each two values is dropped: tens of microseconds for
 * 100,000. */
void samples_add(struct samples *samples, int64_t value);

/* Puts the values of another stream behind, both thinned out alike; nothing can be added any more. */
void samples_join(struct samples *into, struct samples *from);

/* ---- holder_http.c ---- */

/* An answer over HTTP/1.1 as far as it has come; all 0 at its start. */
struct http_answer {
    int64_t length_plus_one, missing_bytes; /* missing: of the body, or of this chunk */
    int64_t body_bytes;                     /* that have come */
    uint8_t state, line_bytes;
    bool is_chunked, closes;
    char line[HTTP_LINE_BYTES]; /* the one that is being read */
};

/* 0 as long as it may become the right answer, else as answer_take() says. */
int http_take(struct http_answer *answer, const char *piece, int64_t bytes);
bool http_is_whole(const struct http_answer *answer);

/* ---- holder_wire.c ---- */

enum { PIECE_BYTES_MAX = MESSAGE_BYTES_MAX + 1 };

/* What is sent, from the settings: once, before anything else here. */
void prepare_wire(void);

/* A number for each of count messages, none of which was ever given; the first of them. From any thread. */
uint64_t take_counters(int64_t count);

void build_message(char message[static MESSAGE_BYTES_MAX], int64_t index, uint64_t counter);

/* How much of the answer to one message has come. */
struct answer {
    int64_t received_bytes;
    struct http_answer *http; /* NULL where answers are echoes */
};

/* What recv(2) is to be asked for: one byte more than an echo lacks, so that one that is too long is noticed at once;
 * at most PIECE_BYTES_MAX. */
int64_t answer_room(const struct answer *answer);

/* 0 as long as it may become the right answer to this message, else EBADMSG, CLOSES or HTTP_STATUS + status. */
int answer_take(struct answer *answer, const char *message, const char *piece, int64_t bytes);
bool answer_is_whole(const struct answer *answer);

/* Each: 0, or errno, or (receiving only) END_OF_STREAM or what answer_take() says. A time-out is ETIMEDOUT. */
int send_message(int fd, const char *message);

/* The answer to this message, on a blocking socket. */
int receive_answer(int fd, const char *message);

/* The same without the need of one; is_waiting: else what is not there is late. */
int receive_when_there(int fd, const char *message, bool is_waiting);

/* The message itself, at the other end, on a blocking socket. */
int receive_message(int fd, const char *message);

/* Of poll(2), for patience_ms(most_ms); false when there was none. */
bool wait_for_events(int fd, short events, int64_t most_ms);

/* After SIGUSR1, until wait_patiently(), nothing is waited for longer than a second: whoever asked knows that the
 * server has met a limit. A ramp that still gets its answers goes on. */
void heed_impatience(void);
void wait_patiently(void);
int64_t patience_ms(int64_t most_ms);

/* Keeps the first one. */
void note_failure(struct failure *failure, const char *call, int number);

/* The part of a line that says ,"failure":...; at_count: how many were open then. */
void emit_failure(const struct failure *failure, int64_t at_count);

/* ---- holder_connections.c ---- */

struct sockaddr_in loopback_address(uint16_t port);

/* From its opening on: no TIME_WAIT stays, however it is closed. */
void reset_on_close(int fd);

/* For receive_message(): with the time-out of the settings. */
void make_blocking(int fd);

/* A non-blocking socket that connects to 127.0.0.1:port, and most likely has done so; or -1 with the
 * failure noted. */
int begin_connection(uint16_t port, int64_t *connect_ns, struct failure *failure);

/* Waits until it is connected: 0 or errno. */
int finish_connection(int fd);

/* The two in one. */
int open_connection(uint16_t port, int64_t *connect_ns, struct failure *failure);

/* ---- holder_backlog.c ---- */

/* A usage error where a connection has unread answers, which this command would take for its own. */
void refuse_while_backlogged(const char *command);

/* ---- holder_queue.c ---- */

/* The accept queue of whatever listens at the port, over all listeners that share it. */
struct accept_queue {
    int64_t waiting_count, most_count; /* most_count: of the smallest */
};

/* False where the kernel does not tell. */
bool read_accept_queue(struct accept_queue *queue);

/* ---- the commands, each in its file: answers with one line ---- */

void command_ramp(const int64_t *arguments);
void command_echo(const int64_t *arguments);
void command_pump(const int64_t *arguments);
void command_probe(const int64_t *arguments);
void command_backlog(const int64_t *arguments);
void command_drain(const int64_t *arguments);
void command_pairs(const int64_t *arguments);
void command_unpair(const int64_t *arguments);

/* ---- holder_pairs.c ---- */

int64_t count_pairs(void);

/* Closes all pairs and their listener. Returns how many pairs there were. */
int64_t close_pairs(void);

/* ---- holder_commands.c ---- */

/* Closes what is held in all tables. Returns how many. */
int64_t close_held(void);

/* Until `quit` or the end of stdin. */
void obey_commands(void);

#endif
