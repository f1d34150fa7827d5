/*
 * server_http.c - cuts what comes into requests and writes the answers. The contract is in server_http.h.
 * Sources: RFC 9112, 2.1 (message format), 9.3 and 9.6 (persistence, closing); RFC 9110, 6.6.1 (Date), 9.3.2 (HEAD).
 */
#include "server_http.h"

#include "server_kept.h"
#include "server_work.h"

#include <string.h>

#define BODY "hello from c10k-probe\n"
#define BODY_FIELDS "Content-Type: text/plain\r\nContent-Length: 22\r\n"
_Static_assert(sizeof BODY - 1 == 22, "as BODY_FIELDS says");

enum {
    HEADER_BYTES_MAX = 8192,
    ANSWER_BYTES_MAX = 160,
    /* "GET / HTTP/1.1\r\nHost:\r\n\r\n" is the shortest request after which another one is answered. One more may have
     * begun before, and one may be refused in the end. */
    REQUEST_BYTES_MIN = 25,
    ANSWERS_MAX = HTTP_RECEIVE_BYTES / REQUEST_BYTES_MIN + 2,
    DATE_BYTES = 40,
};
_Static_assert((int)ANSWERS_MAX * (int)ANSWER_BYTES_MAX <= (int)SERVER_BUFFER_BYTES,
               "the answers to all that may come at once fit into the buffer");

/* What is kept of a connection whose request has not come whole. */
struct partial {
    struct kept kept;
    int64_t body_bytes; /* still to come and be skipped; the header was answered then */
    size_t used;        /* bytes of the header so far */
    char header[HEADER_BYTES_MAX];
};

static _Thread_local struct kept_table partials;

void http_forget(int fd)
{
    kept_forget(&partials, fd);
}

static struct partial *partial_of(int fd)
{
    return (struct partial *)kept_find(&partials, fd);
}

/* ---- the answer ---- */

static const char *status_line(int status)
{
    switch (status) {
    case 200:
        return "HTTP/1.1 200 OK\r\n";
    case 431:
        return "HTTP/1.1 431 Request Header Fields Too Large\r\n";
    case 501:
        return "HTTP/1.1 501 Not Implemented\r\n";
    case 502:
        return "HTTP/1.1 502 Bad Gateway\r\n";
    case 503:
        return "HTTP/1.1 503 Service Unavailable\r\n";
    case 504:
        return "HTTP/1.1 504 Gateway Timeout\r\n";
    case 505:
        return "HTTP/1.1 505 HTTP Version Not Supported\r\n";
    default:
        return "HTTP/1.1 400 Bad Request\r\n";
    }
}

/* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", made once a second in each thread. */
static const char *date_line(void)
{
    static _Thread_local time_t made_for = -1;
    static _Thread_local char text[DATE_BYTES];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != made_for) {
        struct tm parts;
        gmtime_r(&now.tv_sec, &parts);
        strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
        made_for = now.tv_sec;
    }
    return text;
}

static const char *connection_line(const struct http_request *request)
{
    if (!request->is_kept_alive) {
        return "Connection: close\r\n";
    }
    return request->is_old ? "Connection: keep-alive\r\n" : "";
}

/* Returns where it ends. */
static char *put_answer(char *at, const struct http_request *request)
{
    const bool is_ok = request->status == 200;
    at = stpcpy(at, status_line(request->status));
    at = stpcpy(at, date_line());
    at = stpcpy(at, is_ok ? BODY_FIELDS : "Content-Length: 0\r\n");
    at = stpcpy(at, connection_line(request));
    at = stpcpy(at, "\r\n");
    return is_ok && !request->is_head ? stpcpy(at, BODY) : at;
}

size_t http_failure(char buffer[static SERVER_BUFFER_BYTES], int status)
{
    const struct http_request request = {.status = status};
    return (size_t)(put_answer(buffer, &request) - buffer);
}

/* ---- cutting ---- */

struct input {
    const char *at, *end;
};

static size_t bytes_left(const struct input *input)
{
    return (size_t)(input->end - input->at);
}

/* Behind the empty line; NULL: it has not come. */
static const char *end_of_header(const char *text, size_t bytes)
{
    const char *end = memmem(text, bytes, "\r\n\r\n", 4);
    return end != NULL ? end + 4 : NULL;
}

/* Skips what belongs to the body of the request before. */
static void skip_body(int fd, struct partial *partial, struct input *input)
{
    const int64_t left = (int64_t)bytes_left(input);
    const int64_t skipped = partial->body_bytes < left ? partial->body_bytes : left;
    input->at += skipped;
    partial->body_bytes -= skipped;
    if (partial->body_bytes == 0) {
        http_forget(fd);
    }
}

/* A header that began before: true when it is whole, or refused. */
static bool complete_header(struct partial *partial, struct input *input, struct http_request *request)
{
    const size_t before = partial->used, room = HEADER_BYTES_MAX - before;
    const size_t taken = bytes_left(input) < room ? bytes_left(input) : room;
    memcpy(partial->header + before, input->at, taken);
    partial->used += taken;
    const size_t searched = before > 3 ? before - 3 : 0; /* the empty line may have begun before */
    const char *end = end_of_header(partial->header + searched, partial->used - searched);
    if (end == NULL) {
        input->at += taken;
        request->status = 431;
        return partial->used == HEADER_BYTES_MAX;
    }
    const size_t header_bytes = (size_t)(end - partial->header);
    input->at += header_bytes - before;
    *request = http_read_header(partial->header, header_bytes);
    return true;
}

static bool keep_partial(int fd, const char *text, size_t bytes, int64_t body_bytes)
{
    struct partial *partial = (struct partial *)kept_add(&partials, fd, sizeof *partial);
    if (partial == NULL) {
        return false;
    }
    memcpy(partial->header, text, bytes);
    partial->used = bytes;
    partial->body_bytes = body_bytes;
    return true;
}

/* A header that begins here: true when it is whole, or refused. */
static bool begin_header(int fd, struct input *input, struct http_request *request)
{
    const char *end = end_of_header(input->at, bytes_left(input));
    if (end != NULL) {
        *request = http_read_header(input->at, (size_t)(end - input->at));
        input->at = end;
        return true;
    }
    request->status = 503;
    const bool is_kept = keep_partial(fd, input->at, bytes_left(input), 0);
    input->at = input->end;
    return !is_kept;
}

/* The next request of the input; false: all of it is used up. */
static bool next_request(int fd, struct input *input, struct http_request *request)
{
    struct partial *partial = partial_of(fd);
    *request = (struct http_request){0};
    if (partial != NULL && partial->body_bytes > 0) {
        skip_body(fd, partial, input);
        partial = NULL;
    }
    if (bytes_left(input) == 0) {
        return false;
    }
    if (partial == NULL) {
        return begin_header(fd, input, request);
    }
    if (!complete_header(partial, input, request)) {
        return false;
    }
    http_forget(fd);
    return true;
}

struct server_answer http_answer(int fd, char buffer[static SERVER_BUFFER_BYTES], size_t received)
{
    char copy[HTTP_RECEIVE_BYTES]; /* the answers go where the requests were */
    struct input input = {copy, copy + received};
    struct http_request request;
    char *at = buffer;
    memcpy(copy, buffer, received);
    while (next_request(fd, &input, &request)) {
        if (request.status == 0) {
            continue;
        }
        if (request.status == 200 && !request.is_plain && (request.status = work_do()) != 200) {
            request.is_kept_alive = false;
        }
        at = put_answer(at, &request);
        if (!request.is_kept_alive) {
            return (struct server_answer){.count = (size_t)(at - buffer), .is_last = true};
        }
        if (request.body_bytes > 0 && !keep_partial(fd, input.at, 0, request.body_bytes)) {
            return (struct server_answer){.count = (size_t)(at - buffer), .is_last = true};
        }
    }
    return (struct server_answer){.count = (size_t)(at - buffer)};
}
