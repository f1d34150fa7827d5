/*
 * server_http.h - the handler of `--protocol http`: a minimal HTTP/1.1 with keep-alive. It answers each request
 * with 200 and the same few bytes.
 *
 * What it does: any path (/plain is answered without work, server_work.h); GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH; bodies with Content-Length are skipped;
 * requests may come split at any byte or many at once; `Connection: close` and `keep-alive`; HTTP/1.0 closes unless
 * asked not to. What it refuses, and then closes: a bad request 400, a header of over 8 KiB 431, another method or
 * a transfer coding (chunked) 501, another major version 505.
 *
 * A connection whose request has come whole, or that is idle, takes no memory.
 * Sources: RFC 9110 (HTTP Semantics), RFC 9112 (HTTP/1.1).
 */
#ifndef C10K_SERVER_HTTP_H
#define C10K_SERVER_HTTP_H

#include "server.h"

/* Most that may be received at once: so little that the answers to the shortest requests fit into the buffer. */
enum { HTTP_RECEIVE_BYTES = 512 };

/* See server_answer. */
struct server_answer http_answer(int fd, char buffer[static SERVER_BUFFER_BYTES], size_t received);

/* The answer where the work of a request failed, with this status; the connection is over then. Bytes. */
size_t http_failure(char buffer[static SERVER_BUFFER_BYTES], int status);

/* Forgets what was kept of a request that has not come whole. */
void http_forget(int fd);

/* ---- server_http_request.c ---- */

struct http_request {
    int status;         /* of the answer: 200, 400, 431, 501, 505; 0: there was no request, only empty lines */
    bool is_head;       /* the answer has no body */
    bool is_old;        /* HTTP/1.0 */
    bool is_plain;      /* for /plain: answered without the work that other requests are */
    bool is_kept_alive; /* never when the status is not 200 */
    int64_t body_bytes; /* that follow */
};

/* Reads one request header, with the empty line that ends it. */
struct http_request http_read_header(const char *header, size_t bytes);

#endif
