/*
 * http_sender_answer.c - reads an HTTP/1.1 answer as it comes, in pieces of any size: its status, where it ends, and
 * whether the connection goes on. The contract is in http_sender.h.
 *
 * Sources: RFC 9112 (4 status line, 6.3 length of the body, 7.1 chunks, 9.3 persistence).
 */
#include "http_sender.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum part { STATUS_LINE, HEADERS, BODY, BODY_TO_CLOSE, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, WHOLE };

enum { BODY_BYTES_MAX = 1 << 30, STATUS_AT = 9, STATUS_DIGITS = 3 };

/* The status line, "HTTP/1.x 200 ..."; 1.0 does not keep a connection unless it says so. */
static bool take_status(struct answer *answer)
{
    const char *line = answer->line;
    if (strncmp(line, "HTTP/1.", 7) != 0 || answer->line_bytes < STATUS_AT + STATUS_DIGITS || line[8] != ' ') {
        return false;
    }
    answer->status = (int16_t)strtol(line + STATUS_AT, NULL, 10);
    answer->is_last = line[7] == '0';
    answer->part = HEADERS;
    return answer->status >= 100 && answer->status <= 999;
}

/* What stands behind "Name:", or NULL. */
static const char *value_of(const char *line, const char *name)
{
    const size_t bytes = strlen(name);
    if (strncasecmp(line, name, bytes) != 0 || line[bytes] != ':') {
        return NULL;
    }
    return line + bytes + 1 + strspn(line + bytes + 1, " \t");
}

static bool take_number(const char *text, int base, int64_t *number)
{
    char *end;
    *number = strtoll(text, &end, base);
    return end != text && *number >= 0 && *number <= BODY_BYTES_MAX;
}

static bool take_header(struct answer *answer)
{
    const char *value;
    if ((value = value_of(answer->line, "Content-Length")) != NULL) {
        answer->has_length = true;
        return take_number(value, 10, &answer->left_bytes);
    }
    if ((value = value_of(answer->line, "Transfer-Encoding")) != NULL) {
        answer->is_chunked = strcasestr(value, "chunked") != NULL;
    } else if ((value = value_of(answer->line, "Connection")) != NULL) {
        answer->is_last = strcasestr(value, "close") != NULL ||
                          (answer->is_last && strcasestr(value, "keep-alive") == NULL);
    }
    return true;
}

/* After the empty line. */
static void begin_body(struct answer *answer)
{
    if (answer->status < 200) { /* 100 Continue and the like: the answer itself is still to come */
        *answer = (struct answer){0};
    } else if (answer->status == 204 || answer->status == 304) {
        answer->part = WHOLE;
    } else if (answer->is_chunked) {
        answer->part = CHUNK_SIZE;
    } else if (answer->has_length) {
        answer->part = answer->left_bytes > 0 ? BODY : WHOLE;
    } else {
        answer->is_last = true;
        answer->part = BODY_TO_CLOSE;
    }
}

static bool take_line(struct answer *answer)
{
    const bool is_empty = answer->line_bytes == 0;
    switch (answer->part) {
    case STATUS_LINE:
        return is_empty || take_status(answer); /* an empty line before it is let pass (RFC 9112, 2.2) */
    case HEADERS:
        if (!is_empty) {
            return take_header(answer);
        }
        begin_body(answer);
        return true;
    case CHUNK_SIZE:
        if (!take_number(answer->line, 16, &answer->left_bytes)) {
            return false;
        }
        answer->part = answer->left_bytes > 0 ? CHUNK : TRAILER;
        return true;
    case CHUNK_END:
        answer->part = CHUNK_SIZE;
        return is_empty;
    default: /* TRAILER */
        answer->part = is_empty ? WHOLE : TRAILER;
        return true;
    }
}

/* Up to the end of the line; how many bytes it were. */
static size_t gather_line(struct answer *answer, const char *bytes, size_t count, bool *is_right)
{
    const char *end = memchr(bytes, '\n', count);
    const size_t taken = end == NULL ? count : (size_t)(end - bytes) + 1;
    const size_t room = sizeof answer->line - 1 - (size_t)answer->line_bytes;
    const size_t kept = end == NULL ? taken : taken - 1;
    memcpy(answer->line + answer->line_bytes, bytes, kept < room ? kept : room);
    answer->line_bytes += (int32_t)(kept < room ? kept : room);
    if (end != NULL) {
        if (answer->line_bytes > 0 && answer->line[answer->line_bytes - 1] == '\r') {
            answer->line_bytes--;
        }
        answer->line[answer->line_bytes] = '\0';
        *is_right = take_line(answer);
        answer->line_bytes = 0;
    }
    return taken;
}

static size_t skip_body(struct answer *answer, size_t count)
{
    if (answer->part == BODY_TO_CLOSE) {
        return count;
    }
    const size_t taken = (int64_t)count < answer->left_bytes ? count : (size_t)answer->left_bytes;
    answer->left_bytes -= (int64_t)taken;
    if (answer->left_bytes == 0) {
        answer->part = answer->part == CHUNK ? CHUNK_END : WHOLE;
    }
    return taken;
}

enum reading answer_take(struct answer *answer, const char *bytes, size_t count)
{
    bool is_right = true;
    while (count > 0 && is_right && answer->part != WHOLE) {
        const bool is_body = answer->part == BODY || answer->part == BODY_TO_CLOSE || answer->part == CHUNK;
        const size_t taken = is_body ? skip_body(answer, count) : gather_line(answer, bytes, count, &is_right);
        bytes += taken;
        count -= taken;
    }
    if (!is_right || count > 0) {
        return READING_WRONG;
    }
    return answer->part == WHOLE ? READING_WHOLE : READING_MORE;
}

bool answer_ends_by_close(const struct answer *answer)
{
    return answer->part == BODY_TO_CLOSE;
}
