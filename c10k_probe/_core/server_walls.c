/*
 * server_walls.c - the errors that must not end the server: said once, and the listener left alone while they
 * last. The contract is in server.h. Sources: accept(2), epoll_ctl(2), pthread_create(3), fork(2) (ERRORS).
 */
#include "server.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
    WALLS_COUNT = 16,
    RETRY_MS = 1000, /* for walls that other processes can lift */
};

static atomic_bool is_paused;
static int64_t closed_at_pause_count;
static int pause_errno;
static void (*teller)(const char *call, int error_number);

bool server_is_wall(int error_number)
{
    static const int walls[] = {EMFILE, ENFILE, EAGAIN, ENOMEM, ENOBUFS,
                                ENOSPC}; /* the last one: epoll_ctl and fs.epoll.max_user_watches */
    for (size_t i = 0; i < ARRAY_COUNT(walls); i++) {
        if (error_number == walls[i]) {
            return true;
        }
    }
    return false;
}

static bool is_first_time(const char *call, int error_number)
{
    static struct {
        const char *call;
        int error_number;
    } seen[WALLS_COUNT];
    for (size_t i = 0; i < WALLS_COUNT; i++) {
        if (seen[i].call == NULL) {
            seen[i].call = call;
            seen[i].error_number = error_number;
            return true;
        }
        if (strcmp(seen[i].call, call) == 0 && seen[i].error_number == error_number) {
            return false;
        }
    }
    return false;
}

void server_tell(const char *call, int error_number, const char *why)
{
    emit_begin("{\"type\":\"wall\",\"call\":\"%s\",\"errno\":%d,\"name\":\"%s\",\"message\":", call, error_number,
               errno_name(error_number));
    emit_string(why != NULL ? why : strerror(error_number));
    emit_part(",\"open_count\":%" PRId64, atomic_load(&server.open_count));
    emit_finish("}");
}

void server_tell_walls_to(void (*new_teller)(const char *call, int error_number))
{
    teller = new_teller;
}

void server_tell_wall(const char *call, int error_number, const char *why)
{
    if (!is_first_time(call, error_number)) {
        return;
    }
    if (teller != NULL) {
        teller(call, error_number);
    } else {
        server_tell(call, error_number, why);
    }
}

void server_report_wall(const char *call, int error_number)
{
    atomic_fetch_add(&server.accept_errors_count, 1);
    server_tell_wall(call, error_number, NULL);
}

void server_refuse_because(int fd, const char *call, int error_number, const char *why)
{
    close(fd);
    atomic_fetch_add(&server.dropped_count, 1);
    atomic_fetch_add(&server.accept_errors_count, 1);
    server_tell_wall(call, error_number, why);
}

void server_refuse(int fd, const char *call, int error_number)
{
    if (!server_is_wall(error_number)) {
        fail_call(call, "for a new connection", error_number);
    }
    server_refuse_because(fd, call, error_number, NULL);
}

static void set_paused(bool is_on)
{
    atomic_store(&is_paused, is_on);
    if (server.model->watch_listener != NULL) {
        server.model->watch_listener(!is_on);
    }
}

/* A thread that closes counts first and looks at is_paused then; here it is the other way round, so a close
 * in between cannot be missed. */
void server_pause_accepting(int64_t closed_before, int error_number)
{
    closed_at_pause_count = closed_before;
    pause_errno = error_number;
    set_paused(true);
}

bool server_is_paused(void)
{
    return atomic_load(&is_paused);
}

/* EMFILE is this process's own affair: only a close of ours lifts it. */
int server_retry_timeout_ms(void)
{
    return server_is_paused() && pause_errno != EMFILE ? RETRY_MS : -1;
}

void server_resume_if_possible(bool is_retry_due)
{
    if (!server_is_paused()) {
        return;
    }
    const bool has_closed = atomic_load(&server.closed_count) != closed_at_pause_count;
    if (has_closed || (is_retry_due && pause_errno != EMFILE)) {
        set_paused(false);
    }
}
