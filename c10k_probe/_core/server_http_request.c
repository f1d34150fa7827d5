/*
 * server_http_request.c - reads the header of an HTTP/1.x request that has come whole. The contract is in
 * server_http.h. Sources: RFC 9112, 2.2 (empty lines), 3 (request line), 3.2 (Host), 5 (field lines), 6.3 (body
 * length), 9.3 (persistence); RFC 9110, 5.6.2 (tokens), 8.6 (Content-Length).
 */
#include "server_http.h"

#include <string.h>
#include <strings.h>

enum { DIGITS_MAX = 18 }; /* of a Content-Length: fits an int64_t */

/* Bytes that are not copied. */
struct span {
    const char *at;
    size_t count;
};

/* What the field lines say. */
struct fields {
    int hosts_count;
    bool is_bad, has_transfer_coding, says_close, says_keep_alive;
    int64_t length_bytes; /* -1: not said */
};

static bool is_same(struct span text, const char *word)
{
    return text.count == strlen(word) && strncasecmp(text.at, word, text.count) == 0;
}

static bool is_token_char(unsigned char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte != '\0' && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

static bool is_token(struct span text)
{
    for (size_t i = 0; i < text.count; i++) {
        if (!is_token_char((unsigned char)text.at[i])) {
            return false;
        }
    }
    return text.count > 0;
}

/* No control characters but the tab. */
static bool is_clean(struct span text)
{
    for (size_t i = 0; i < text.count; i++) {
        const unsigned char byte = (unsigned char)text.at[i];
        if ((byte < ' ' && byte != '\t') || byte == 0x7f) {
            return false;
        }
    }
    return true;
}

/* What stands before the first separator; `rest` goes on behind it, and is empty where there is none. */
static struct span take_until(struct span *rest, const char *separator)
{
    const size_t width = strlen(separator);
    const char *end = memmem(rest->at, rest->count, separator, width);
    const struct span taken = {rest->at, end != NULL ? (size_t)(end - rest->at) : rest->count};
    const size_t used = end != NULL ? taken.count + width : taken.count;
    *rest = (struct span){rest->at + used, rest->count - used};
    return taken;
}

static struct span trim(struct span text)
{
    while (text.count > 0 && strchr(" \t", text.at[0]) != NULL) {
        text = (struct span){text.at + 1, text.count - 1};
    }
    while (text.count > 0 && strchr(" \t", text.at[text.count - 1]) != NULL) {
        text.count--;
    }
    return text;
}

/* ---- field lines ---- */

static void read_length(struct fields *fields, struct span value)
{
    int64_t bytes = 0;
    fields->is_bad |= value.count == 0 || value.count > DIGITS_MAX;
    for (size_t i = 0; i < value.count && !fields->is_bad; i++) {
        fields->is_bad |= value.at[i] < '0' || value.at[i] > '9';
        bytes = bytes * 10 + (value.at[i] - '0');
    }
    fields->is_bad |= fields->length_bytes >= 0 && fields->length_bytes != bytes; /* said twice, differently */
    fields->length_bytes = bytes;
}

static void read_connection(struct fields *fields, struct span value)
{
    while (value.count > 0) {
        const struct span option = trim(take_until(&value, ","));
        fields->says_close |= is_same(option, "close");
        fields->says_keep_alive |= is_same(option, "keep-alive");
    }
}

static void read_field(struct fields *fields, struct span line)
{
    struct span value = line;
    const struct span name = take_until(&value, ":");
    if (name.count == line.count || !is_token(name) || !is_clean(value)) { /* no colon, or a folded line */
        fields->is_bad = true;
        return;
    }
    value = trim(value);
    if (is_same(name, "Host")) {
        fields->hosts_count++;
    } else if (is_same(name, "Content-Length")) {
        read_length(fields, value);
    } else if (is_same(name, "Transfer-Encoding")) {
        fields->has_transfer_coding = true;
    } else if (is_same(name, "Connection")) {
        read_connection(fields, value);
    }
}

static struct fields read_fields(struct span lines)
{
    struct fields fields = {.length_bytes = -1};
    while (lines.count > 0 && !fields.is_bad) {
        const struct span line = take_until(&lines, "\r\n");
        if (line.count > 0) { /* the last one is empty */
            read_field(&fields, line);
        }
    }
    return fields;
}

/* ---- the request line ---- */

static bool is_known_method(struct span method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        if (method.count == strlen(known[i]) && memcmp(method.at, known[i], method.count) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* 0: fine so far; else the status that refuses it. */
static int read_request_line(struct http_request *request, struct span line)
{
    const struct span method = take_until(&line, " "), target = take_until(&line, " "), version = line;
    if (!is_token(method) || target.count == 0 || !is_clean(target) || version.count != strlen("HTTP/1.1") ||
        memcmp(version.at, "HTTP/", 5) != 0 || !is_digit(version.at[5]) || version.at[6] != '.' ||
        !is_digit(version.at[7])) {
        return 400;
    }
    if (version.at[5] != '1') {
        return 505;
    }
    request->is_old = version.at[7] == '0';
    request->is_head = is_same(method, "HEAD");
    request->is_plain = is_same(target, "/plain");
    return is_known_method(method) ? 0 : 501;
}

struct http_request http_read_header(const char *header, size_t bytes)
{
    struct http_request request = {0};
    struct span rest = {header, bytes};
    struct span line = take_until(&rest, "\r\n");
    while (line.count == 0 && rest.count > 0) { /* empty lines before a request do not count */
        line = take_until(&rest, "\r\n");
    }
    if (line.count == 0) {
        return request;
    }
    const int refusal = read_request_line(&request, line);
    const struct fields fields = read_fields(rest);
    if (refusal != 0) {
        request.status = refusal;
    } else if (fields.is_bad || fields.hosts_count > 1 || (fields.hosts_count == 0 && !request.is_old)) {
        request.status = 400;
    } else if (fields.has_transfer_coding) {
        request.status = 501;
    } else {
        request.status = 200;
        request.is_kept_alive = !fields.says_close && (!request.is_old || fields.says_keep_alive);
        request.body_bytes = fields.length_bytes > 0 ? fields.length_bytes : 0;
    }
    return request;
}
