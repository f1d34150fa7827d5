/*
 * http_sender.h - what the parts of http_sender share: settings, connections, answers, the one loop of both loads.
 */
#ifndef C10K_HTTP_SENDER_H
#define C10K_HTTP_SENDER_H

#include "helper.h"

enum {
    CONNECTIONS_MAX = 60 * 1000,
    REQUESTS_MAX = 20 * 1000 * 1000, /* of one command */
    LINE_BYTES_MAX = 128,            /* of a header line; what is longer is cut, and none that matters is */
    NS_PER_MS = 1000 * 1000,
    NS_PER_S = 1000 * 1000 * 1000,
};

/* From the command line. */
struct sender_settings {
    int64_t port, connections_count, keeps_alive, timeout_ms, samples_count, source_base;
    const char *path;
};

extern struct sender_settings asked;

/* How a request ended. `emit_outcomes` names them. */
enum outcome {
    ANSWERED,  /* whole, with a status of 200 to 299 */
    WRONG,     /* whole, with another status, or not HTTP */
    REFUSED,   /* connect(2): ECONNREFUSED */
    RESET,     /* the connection broke before the answer was whole */
    TIMED_OUT, /* sent, or about to be: the handshake too is waited for */
    UNSENT,    /* no connection was free within the time-out, or this process could open none */
    OUTCOMES_COUNT,
};

/* ---- http_sender_answer.c ---- */

/* How far an answer has been read. All zero: nothing has come. */
struct answer {
    char line[LINE_BYTES_MAX];
    int32_t line_bytes;
    int16_t status; /* 0: not known yet */
    uint8_t part;   /* enum part */
    bool is_chunked, is_last, has_length;
    int64_t left_bytes; /* of the body, or of the chunk */
};

enum reading {
    READING_MORE,  /* to come */
    READING_WHOLE, /* nothing is missing, and nothing came behind it */
    READING_WRONG, /* not HTTP, or more than an answer */
};

/* Takes the next bytes of a connection. answer->is_last: the server closes after it. */
enum reading answer_take(struct answer *answer, const char *bytes, size_t count);

/* The server has closed its end: true where this is how the body ends (RFC 9112, 6.3, no length given). */
bool answer_ends_by_close(const struct answer *answer);

/* ---- http_sender_connections.c ---- */

/* Builds the bytes of a request once. */
void request_build(void);

/* One connection's place. A request has it from its sending to its end. */
struct place {
    int fd; /* -1: closed */
    uint32_t generation;
    bool is_busy, is_connected;
    bool has_answered;          /* in the counted part of a closed loop */
    int64_t request, due_ns;    /* while it is busy; request: its number */
    int32_t sent_bytes;         /* of the request */
    int32_t earlier, later;     /* those that are busy, in the order of their requests; -1: none */
    struct answer answer;
};

/* What a load does when a request has ended; at_ns: when. The place is free again. */
typedef void ended(int32_t place, enum outcome outcome, int64_t request, int64_t due_ns, int64_t at_ns);

extern struct place *places;

/* What kept this process from opening connections; call is NULL while nothing did. */
extern struct own_failure {
    const char *call;
    int number;
} own_failure;

/* Before the first request of a load. What is kept alive stays for the next. */
void places_begin(ended *on_ended);

/* With keep-alive: opens the connections that are not, and waits for them, no longer than the time-out. */
void places_open(void);

/* Sends; how it ends is told by `ended`, perhaps before this returns. */
void place_send(int32_t place, int64_t request, int64_t due_ns);

/* Waits for what comes, until that moment at most, and ends what is then too old. */
void places_wait(int64_t until_ns);

/* Ends all that are under way and due, as timed out. */
void places_give_up(int64_t at_ns);

int64_t places_opened_count(void); /* connect(2) calls of this load */

/* ---- http_sender_places.c ---- */

/* All of them, closed and free. */
void places_new(void);

/* The place that has been free for longest, or -1; taken: it is not free any more. */
int32_t places_take(void);

/* One that was taken and is used no more. */
void places_give_back(int32_t place);

/* Those that have a request, in the order of the requests. */
void places_join_busy(int32_t number);
void places_leave_busy(int32_t number);
int32_t places_oldest(void); /* -1: none */

int64_t places_busy_count(void);
int64_t places_connected_count(void);

/* ---- http_sender_open.c, http_sender_closed.c: each answers with one line ---- */

void command_send(const int64_t *arguments);
void command_stage(const int64_t *arguments); /* but this one, which is part of the next send */
void command_pump(const int64_t *arguments);

/* ---- http_sender.c ---- */

extern const char *const outcome_names[OUTCOMES_COUNT];

/* For the end message. */
void count_samples(int64_t samples_count, int64_t dropped_count);

/* ,"answered_count":1,... for all outcomes */
void emit_outcomes(const int64_t counts[OUTCOMES_COUNT]);

/* ,"own_failure":{...} or null */
void emit_own_failure(void);

int64_t cpu_ns(void); /* of this process so far */

/* ---- holder_random.c ---- */

uint64_t next_random(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t limit);

#endif
