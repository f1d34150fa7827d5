/*
 * holder_backlog.c - the commands `backlog` and `drain`: answers that lie unread at the client's end of every
 * held connection, and their reading. Whether they are there is asked of the kernel. The contract is in
 * holder.h.
 *
 * Sources: tcp(7) (SIOCINQ, tcp_rmem, tcp_mem), socket(7) (SO_RCVBUF), recv(2).
 */
#include "holder.h"

#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 64 * 1024,
    AHEAD_COUNT = 32, /* connections that were sent to and whose answers were not yet looked for */
    PAUSE_NS = 50 * 1000,
    FILL = 0x5a,
};

static int64_t backlog_bytes; /* of each connection of which table.backlogged_count tells */
static char fill[PIECE_BYTES];

/* Of one command, over the tables in turn. */
struct backlog {
    int64_t done_count, done_bytes, failed_count;
    int64_t buffer_bytes; /* the largest receive buffer that had to be set; 0: none */
    struct failure failure;
};

void refuse_while_backlogged(const char *command)
{
    for (int64_t i = 0; i < tables_count; i++) {
        if (tables[i].backlogged_count > 0) {
            usage("%s would meet unread answers: drain first", command);
        }
    }
}

/* ---- filling ---- */

/* 0, errno or END_OF_STREAM. */
static int send_all(int fd, int64_t bytes)
{
    while (bytes > 0) {
        const size_t piece_bytes = bytes < PIECE_BYTES ? (size_t)bytes : PIECE_BYTES;
        const ssize_t sent = send(fd, fill, piece_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            if (!wait_for_events(fd, POLLOUT, settings.timeout_ms)) {
                return ETIMEDOUT;
            }
        } else if (sent < 0 && errno != EINTR) {
            return errno;
        }
        bytes -= sent > 0 ? sent : 0;
    }
    return 0;
}

static int64_t unread_bytes(int fd)
{
    int bytes;
    CHECK(ioctl(fd, SIOCINQ, &bytes));
    return bytes;
}

/* Half of a buffer holds payload in any case (tcp_adv_win_scale); only what needs more gets more. */
static void make_room(struct backlog *backlog, int fd)
{
    int had_bytes;
    socklen_t length = sizeof had_bytes;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &had_bytes, &length));
    if (backlog_bytes <= had_bytes / 2) {
        return;
    }
    const int asked_bytes = (int)backlog_bytes; /* the kernel doubles it */
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &asked_bytes, sizeof asked_bytes));
    CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &had_bytes, &length));
    backlog->buffer_bytes = had_bytes > backlog->buffer_bytes ? had_bytes : backlog->buffer_bytes;
}

/* Until all is there; ETIMEDOUT when nothing more comes, END_OF_STREAM or errno when the connection is
 * over. */
static int wait_until_unread(int fd)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int64_t most_bytes = 0, since_ns = now_ns(), bytes;
    while ((bytes = unread_bytes(fd)) < backlog_bytes) {
        struct pollfd watched = {.fd = fd, .events = POLLRDHUP};
        if (poll(&watched, 1, 0) > 0) {
            return watched.revents & POLLERR ? ECONNRESET : END_OF_STREAM;
        }
        if (bytes > most_bytes) {
            most_bytes = bytes;
            since_ns = now_ns();
        } else if (now_ns() - since_ns > settings.timeout_ms * 1000000) {
            return ETIMEDOUT;
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* Those before the first that fails are filled; the others that were sent to are closed, with what came on
 * them. */
static void fill_table(struct table *table, void *argument)
{
    struct backlog *backlog = argument;
    int64_t sent_to = table->backlogged_count;
    while (table->backlogged_count < table->held.count) {
        const char *call = "send";
        int number = 0;
        for (; number == 0 && sent_to < table->held.count && sent_to < table->backlogged_count + AHEAD_COUNT;
             sent_to++) {
            make_room(backlog, table->held.fds[sent_to]);
            number = send_all(table->held.fds[sent_to], backlog_bytes);
        }
        if (number == 0) {
            call = "recv";
            number = wait_until_unread(table->held.fds[table->backlogged_count]);
        }
        if (number != 0) {
            note_failure(&backlog->failure, call, number);
            for (int64_t i = table->backlogged_count; i < sent_to; i++) {
                close(table->held.fds[i]);
                table->held.fds[i] = -1;
                backlog->failed_count++;
            }
            compact(&table->held);
            return;
        }
        table->backlogged_count++;
    }
}

static void add_unread(struct table *table, void *argument)
{
    struct backlog *backlog = argument;
    for (int64_t i = 0; i < table->backlogged_count; i++) {
        backlog->done_bytes += unread_bytes(table->held.fds[i]);
    }
    backlog->done_count += table->backlogged_count;
}

static void emit_backlog(const char *type, const struct backlog *backlog)
{
    emit_begin("{\"type\":\"%s\",\"connections_count\":%" PRId64 ",\"%s_bytes\":%" PRId64
               ",\"failed_count\":%" PRId64,
               type, backlog->done_count, type, backlog->done_bytes, backlog->failed_count);
    if (backlog->buffer_bytes > 0) {
        emit_part(",\"receive_buffer_bytes\":%" PRId64, backlog->buffer_bytes);
    } else {
        emit_part(",\"receive_buffer_bytes\":null");
    }
    emit_failure(&backlog->failure, tables_held_count());
    emit_finish("}");
}

/* What has its bytes already keeps them: after a further ramp only the new ones are filled. */
void command_backlog(const int64_t *arguments)
{
    if (settings.path != NULL) {
        usage("backlog is of echoes; leave out --path");
    }
    struct backlog backlog = {0};
    if (arguments[0] == 0) {
        usage("backlog leaves 1 byte unread at least");
    }
    if (arguments[0] != backlog_bytes) {
        refuse_while_backlogged("another backlog");
    }
    backlog_bytes = arguments[0];
    memset(fill, FILL, sizeof fill);
    for (int64_t i = 0; i < tables_count && backlog.failure.call == NULL; i++) {
        table_run(&tables[i], fill_table, &backlog);
    }
    for (int64_t i = 0; i < tables_count; i++) {
        table_run(&tables[i], add_unread, &backlog);
    }
    emit_backlog("backlogged", &backlog);
    totals.dropped_count += backlog.failed_count;
}

/* ---- draining ---- */

/* 0, errno or END_OF_STREAM. */
static int read_all(int fd)
{
    static char piece[PIECE_BYTES]; /* one table at a time */
    int64_t left_bytes = backlog_bytes;
    while (left_bytes > 0) {
        const size_t asked_bytes = left_bytes < PIECE_BYTES ? (size_t)left_bytes : PIECE_BYTES;
        const ssize_t got = recv(fd, piece, asked_bytes, MSG_DONTWAIT);
        if (got == 0) {
            return END_OF_STREAM;
        }
        if (got < 0 && errno == EAGAIN) {
            if (!wait_for_events(fd, POLLIN, settings.timeout_ms)) {
                return ETIMEDOUT;
            }
        } else if (got < 0 && errno != EINTR) {
            return errno;
        }
        if (got > 0 && memcmp(piece, fill, (size_t)got) != 0) {
            return EBADMSG;
        }
        left_bytes -= got > 0 ? got : 0;
    }
    return 0;
}

static void drain_table(struct table *table, void *argument)
{
    struct backlog *backlog = argument;
    for (int64_t i = 0; i < table->backlogged_count; i++) {
        const int number = read_all(table->held.fds[i]);
        if (number == 0) {
            backlog->done_count++;
            backlog->done_bytes += backlog_bytes;
            continue;
        }
        note_failure(&backlog->failure, "recv", number);
        backlog->failed_count++;
        close(table->held.fds[i]);
        table->held.fds[i] = -1;
    }
    table->backlogged_count = 0;
    compact(&table->held);
}

void command_drain(const int64_t *arguments)
{
    struct backlog backlog = {0};
    (void)arguments;
    for (int64_t i = 0; i < tables_count; i++) {
        table_run(&tables[i], drain_table, &backlog);
    }
    emit_backlog("drained", &backlog);
    totals.dropped_count += backlog.failed_count;
}
