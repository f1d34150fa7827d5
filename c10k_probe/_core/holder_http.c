/*
 * holder_http.c - reads the answer to a request over HTTP/1.1, piece by piece as it comes, and judges it: a status
 * of 2xx, a body whose length is told or that comes in chunks, the expected text where there is one, and a
 * connection that stays open. The contract is in holder.h.
 *
 * Sources: RFC 9112 (status line, field lines, message body length, chunked, persistence), RFC 9110 (status codes).
 */
#include "holder.h"

#include <string.h>
#include <strings.h>

enum state { STATUS, FIELDS, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, WHOLE };

enum {
    NO_LENGTH = 0, /* else one more than the length */
    STATUS_PLACE = 9,
    VERSION_PLACE = 7,
    NO_CONTENT = 204,
    LENGTH_MAX = 1 << 30,
};

bool http_is_whole(const struct http_answer *answer)
{
    return answer->state == WHOLE;
}

/* ---- lines ---- */

/* Takes bytes up to the end of the line. True when the line is there, without its end; what it has beyond the
 * room is dropped. */
static bool take_line(struct http_answer *answer, const char **piece, int64_t *bytes)
{
    const char *end = memchr(*piece, '\n', (size_t)*bytes);
    const int64_t taken = end == NULL ? *bytes : end - *piece;
    const int64_t room = HTTP_LINE_BYTES - 1 - answer->line_bytes;
    const int64_t kept = taken < room ? taken : room;
    memcpy(answer->line + answer->line_bytes, *piece, (size_t)kept);
    answer->line_bytes = (uint8_t)(answer->line_bytes + kept);
    *piece += taken + (end != NULL);
    *bytes -= taken + (end != NULL);
    if (end == NULL) {
        return false;
    }
    if (answer->line_bytes > 0 && answer->line[answer->line_bytes - 1] == '\r') {
        answer->line_bytes--;
    }
    answer->line[answer->line_bytes] = '\0';
    answer->line_bytes = 0;
    return true;
}

/* Digits of this base at the start of a text; -1 when there are none, or the number is absurd. */
static int64_t read_number(const char *text, int base)
{
    int64_t value = 0;
    bool has_digits = false;
    for (;; text++) {
        const char lower = (char)(*text | 0x20);
        const bool is_letter = base == 16 && lower >= 'a' && lower <= 'f';
        if (!is_letter && (*text < '0' || *text > '9')) {
            return has_digits ? value : -1;
        }
        value = value * base + (is_letter ? lower - 'a' + 10 : *text - '0');
        has_digits = true;
        if (value > LENGTH_MAX) {
            return -1;
        }
    }
}

/* The value of a field line when it has this name; else NULL. */
static const char *value_of(const char *line, const char *name)
{
    const size_t bytes = strlen(name);
    if (strncasecmp(line, name, bytes) != 0 || line[bytes] != ':') {
        return NULL;
    }
    return line + bytes + 1 + strspn(line + bytes + 1, " \t");
}

static int read_status(struct http_answer *answer)
{
    const char *line = answer->line;
    const int64_t status = strlen(line) > STATUS_PLACE ? read_number(line + STATUS_PLACE, 10) : -1;
    if (strncmp(line, "HTTP/1.", VERSION_PLACE) != 0 || status < 100 || status > 999) {
        return EBADMSG;
    }
    answer->closes = line[VERSION_PLACE] == '0'; /* unless it says otherwise */
    answer->length_plus_one = status == NO_CONTENT ? 1 : NO_LENGTH;
    answer->state = FIELDS;
    return status / 100 == 2 ? 0 : HTTP_STATUS + (int)status;
}

static int read_field(struct http_answer *answer)
{
    const char *value;
    if ((value = value_of(answer->line, "Content-Length")) != NULL) {
        answer->length_plus_one = read_number(value, 10) + 1;
        return answer->length_plus_one > 0 ? 0 : EBADMSG;
    }
    if ((value = value_of(answer->line, "Transfer-Encoding")) != NULL) {
        answer->is_chunked = strncasecmp(value, "chunked", strlen("chunked")) == 0;
    } else if ((value = value_of(answer->line, "Connection")) != NULL) {
        answer->closes = strncasecmp(value, "close", strlen("close")) == 0;
    }
    return 0;
}

/* ---- the body ---- */

static int end_body(struct http_answer *answer)
{
    answer->state = WHOLE;
    return settings.body == NULL || answer->body_bytes == (int64_t)strlen(settings.body) ? 0 : EBADMSG;
}

/* After the empty line. A body that the end of the connection ends is one whose connection is not kept. */
static int begin_body(struct http_answer *answer)
{
    if (answer->closes || (!answer->is_chunked && answer->length_plus_one == NO_LENGTH)) {
        return CLOSES;
    }
    answer->missing_bytes = answer->is_chunked ? 0 : answer->length_plus_one - 1;
    answer->state = answer->is_chunked ? CHUNK_SIZE : BODY;
    return answer->state == BODY && answer->missing_bytes == 0 ? end_body(answer) : 0;
}

static int begin_chunk(struct http_answer *answer)
{
    answer->missing_bytes = read_number(answer->line, 16);
    answer->state = answer->missing_bytes == 0 ? TRAILERS : CHUNK;
    return answer->missing_bytes < 0 ? EBADMSG : 0;
}

static int take_body(struct http_answer *answer, const char **piece, int64_t *bytes)
{
    const int64_t taken = *bytes < answer->missing_bytes ? *bytes : answer->missing_bytes;
    const int64_t known_bytes = settings.body == NULL ? 0 : (int64_t)strlen(settings.body);
    if (settings.body != NULL && (answer->body_bytes + taken > known_bytes ||
                                  memcmp(settings.body + answer->body_bytes, *piece, (size_t)taken) != 0)) {
        return EBADMSG;
    }
    answer->body_bytes += taken;
    answer->missing_bytes -= taken;
    *piece += taken;
    *bytes -= taken;
    if (answer->missing_bytes > 0) {
        return 0;
    }
    if (answer->state == BODY) {
        return end_body(answer);
    }
    answer->state = CHUNK_END;
    return 0;
}

/* ---- the whole ---- */

static int obey_line(struct http_answer *answer)
{
    const bool is_empty = answer->line[0] == '\0';
    switch ((enum state)answer->state) {
    case STATUS:
        return read_status(answer);
    case FIELDS:
        return is_empty ? begin_body(answer) : read_field(answer);
    case CHUNK_SIZE:
        return begin_chunk(answer);
    case CHUNK_END:
        answer->state = CHUNK_SIZE;
        return is_empty ? 0 : EBADMSG;
    case TRAILERS:
        return is_empty ? end_body(answer) : 0;
    case BODY:
    case CHUNK:
    case WHOLE:
        break;
    }
    return EBADMSG; /* more than was asked for */
}

int http_take(struct http_answer *answer, const char *piece, int64_t bytes)
{
    int number = 0;
    while (number == 0 && bytes > 0) {
        if (answer->state == BODY || answer->state == CHUNK) {
            number = take_body(answer, &piece, &bytes);
        } else if (answer->state == WHOLE) {
            number = EBADMSG;
        } else if (take_line(answer, &piece, &bytes)) {
            number = obey_line(answer);
        }
    }
    return number;
}
