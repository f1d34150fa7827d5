/*
 * server_commands.c - obeys the commands on stdin: `status`, `quit`. The contract is in server.h.
 * Source: proc(5) (/proc/PID/status).
 */
#include "server.h"
#include "server_work.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 128 };

int64_t server_count_own_threads(void)
{
    char text[4096];
    ssize_t length = pread(server.self_status_fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    const char *line = strstr(text, "\nThreads:");
    return line == NULL ? 1 : strtoll(line + strlen("\nThreads:"), NULL, 10);
}

static void print_status(void)
{
    const int64_t tasks_count = server.model->count_tasks(); /* first: it may find connections that ended */
    const int64_t open_count = atomic_load(&server.open_count);
    emit_begin("{\"type\":\"status\",\"accepted_count\":%" PRId64 ",\"open_count\":%" PRId64
               ",\"tasks_count\":%" PRId64 ",\"accept_errors_count\":%" PRId64,
               atomic_load(&server.accepted_count), open_count, tasks_count, atomic_load(&server.accept_errors_count));
    if (server.model->emit_status != NULL) {
        server.model->emit_status();
    }
    work_emit_status();
    emit_finish("}");
}

static void obey(const char *command)
{
    if (strcmp(command, "status") == 0) {
        print_status();
    } else if (strcmp(command, "quit") == 0) {
        server.is_quitting = true;
    } else if (*command != '\0') {
        usage("unknown command \"%s\"; known: status, quit", command);
    }
}

void server_read_commands(void)
{
    static char text[LINE_BYTES];
    static size_t used;
    ssize_t got = read(STDIN_FILENO, text + used, sizeof text - used);
    if (got <= 0) {
        server.is_quitting = !(got < 0 && (errno == EINTR || errno == EAGAIN));
        return;
    }
    used += (size_t)got;
    for (char *end; !server.is_quitting && (end = memchr(text, '\n', used)) != NULL;) {
        *end = '\0';
        obey(text);
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used);
    }
    if (used == sizeof text) {
        usage("a command is at most %d bytes", LINE_BYTES - 1);
    }
}
