/*
 * server_model_select.c - one thread for all connections: select on the set of all descriptors. Non-blocking sockets;
 * no user memory for a connection, its place is a bit of sets of a fixed size.
 *
 * That size is this model's wall: a descriptor of FD_SETSIZE (1024) or more would be a bit behind the end of the set.
 * Such a connection is closed, and the wall is told. Source: select(2).
 */
#include "server.h"
#include "server_stalled.h"

#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static fd_set to_read, to_write; /* what to wait for */
static int most_fd;              /* the highest that was ever in them */

static void put(fd_set *set, int fd)
{
    FD_SET(fd, set);
    most_fd = fd > most_fd ? fd : most_fd;
}

static void watch_listener(bool is_on)
{
    if (is_on) {
        put(&to_read, server.listener_fd);
    } else {
        FD_CLR(server.listener_fd, &to_read);
    }
}

static void prepare(void)
{
    if (server.listener_fd >= FD_SETSIZE) {
        fail_call("select", "the listener's descriptor is not below FD_SETSIZE", EINVAL);
    }
    watch_listener(true);
    put(&to_read, STDIN_FILENO);
}

static void refuse(int fd)
{
    char why[96];
    snprintf(why, sizeof why, "descriptor %d does not fit into an fd_set: FD_SETSIZE is %d", fd, FD_SETSIZE);
    server_refuse_because(fd, "select", EINVAL, why);
}

static void serve(int fd)
{
    if (fd >= FD_SETSIZE) {
        refuse(fd);
        return;
    }
    put(&to_read, fd);
    server_count_opened();
}

static void close_connection(int fd)
{
    FD_CLR(fd, &to_read);
    FD_CLR(fd, &to_write);
    close(fd);
    server_count_closed();
}

static void serve_event(int fd)
{
    const enum server_interest interest = server_on_event(fd);
    if (interest == SERVER_OVER) {
        close_connection(fd);
        return;
    }
    const bool is_to_write = interest == SERVER_WRITE;
    if (is_to_write != (FD_ISSET(fd, &to_write) != 0)) {
        FD_CLR(fd, is_to_write ? &to_read : &to_write);
        put(is_to_write ? &to_write : &to_read, fd);
    }
}

static bool take(fd_set *ready, int fd)
{
    const bool is_ready = FD_ISSET(fd, ready) != 0;
    FD_CLR(fd, ready);
    return is_ready;
}

/* Of `count` descriptors that are ready; the listener comes after the connections, which it adds to. */
static void dispatch(fd_set *readable, fd_set *writable, int count)
{
    const bool is_listener_ready = take(readable, server.listener_fd), is_stdin_ready = take(readable, STDIN_FILENO);
    count -= is_listener_ready + is_stdin_ready;
    for (int fd = 0; count > 0 && fd <= most_fd; fd++) {
        if (FD_ISSET(fd, readable) || FD_ISSET(fd, writable)) {
            count--;
            serve_event(fd);
        }
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
        fd_set readable = to_read, writable = to_write;
        const int retry_ms = server_retry_timeout_ms();
        struct timeval patience = {.tv_sec = retry_ms / 1000, .tv_usec = retry_ms % 1000 * 1000};
        const int count = select(most_fd + 1, &readable, &writable, NULL, retry_ms < 0 ? NULL : &patience);
        if (count < 0 && errno != EINTR) {
            fail_call("select", "all connections", errno);
        }
        if (count > 0) {
            dispatch(&readable, &writable, count);
        }
        server_resume_if_possible(count == 0);
    }
}

static void stop(void)
{
    server_stop_connections(close_connection);
    stalled_forget_all();
}

const struct server_model server_model_select = {
    .name = "select",
    .takes = "",
    .accept_flags = SOCK_NONBLOCK,
    .prepare = prepare,
    .loop = loop,
    .serve = serve,
    .watch_listener = watch_listener,
    .count_tasks = server_count_own_threads,
    .stop = stop,
};
