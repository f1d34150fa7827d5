/*
 * server_model_poll.c - one thread for all connections: poll on an array of all descriptors, which is handed to the
 * kernel and searched anew each time. Non-blocking sockets; 8 bytes of user memory for a connection, its place in the
 * array, and the rest of an answer whose client does not read. Source: poll(2).
 */
#include "server.h"
#include "server_stalled.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTENER, STDIN, FIRST_CONNECTION, ROOM_LEAST = 1024 };

static struct pollfd *watched;
static size_t watched_count = FIRST_CONNECTION, room_count;

static bool make_room(size_t wanted_count)
{
    struct pollfd *moved = reallocarray(watched, wanted_count, sizeof watched[0]);
    if (moved != NULL) {
        watched = moved;
        room_count = wanted_count;
    }
    return moved != NULL;
}

static void prepare(void)
{
    if (!make_room(ROOM_LEAST)) {
        fail_call("reallocarray", "places for connections", ENOMEM);
    }
    watched[LISTENER] = (struct pollfd){.fd = server.listener_fd, .events = POLLIN};
    watched[STDIN] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
}

static void watch_listener(bool is_on)
{
    watched[LISTENER].fd = is_on ? server.listener_fd : -1;
}

static void serve(int fd)
{
    if (watched_count == room_count && !make_room(room_count * 2)) {
        server_refuse(fd, "reallocarray", ENOMEM);
        return;
    }
    watched[watched_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    server_count_opened();
}

static void close_connection(int fd)
{
    close(fd);
    server_count_closed();
}

/* True when the connection at this place is over; the last one then has its place. */
static bool serve_event(size_t place)
{
    const int fd = watched[place].fd;
    const enum server_interest interest = server_on_event(fd);
    if (interest == SERVER_OVER) {
        close_connection(fd);
        watched[place] = watched[--watched_count];
        return true;
    }
    watched[place].events = interest == SERVER_WRITE ? POLLOUT : POLLIN;
    watched[place].revents = 0;
    return false;
}

/* Of `count` places with events; the listener comes last, since it adds places. */
static void dispatch(int count)
{
    const bool is_listener_ready = watched[LISTENER].revents != 0, is_stdin_ready = watched[STDIN].revents != 0;
    count -= is_listener_ready + is_stdin_ready;
    for (size_t place = FIRST_CONNECTION; count > 0 && place < watched_count;) {
        if (watched[place].revents == 0) {
            place++;
            continue;
        }
        count--;
        place += !serve_event(place);
    }
    if (is_listener_ready) {
        server_accept_batch();
    }
    if (is_stdin_ready) {
        server_read_commands();
    }
}

static void loop(void)
{
    while (!server.is_quitting) {
        const int count = poll(watched, watched_count, server_retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("poll", "all connections", errno);
        }
        if (count > 0) {
            dispatch(count);
        }
        server_resume_if_possible(count == 0);
    }
}

static void stop(void)
{
    server_stop_connections(close_connection);
    stalled_forget_all();
    free(watched);
}

const struct server_model server_model_poll = {
    .name = "poll",
    .takes = "",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .watch_listener = watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
