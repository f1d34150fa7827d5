/*
 * server_poll_loop.c - the main loop of the models that serve each connection in a task of its own: it only
 * accepts, obeys and hears of ended tasks. The contract is in server.h. Source: poll(2).
 */
#include "server.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Room for what one read of an eventfd or a signalfd gives. */
static void empty_descriptor(int fd)
{
    char ignored[sizeof(struct signalfd_siginfo)];
    while (read(fd, ignored, sizeof ignored) > 0) {
    }
}

static void handle_wake(int wake_fd, void (*on_wake)(void))
{
    empty_descriptor(wake_fd);
    if (on_wake != NULL) {
        on_wake();
    }
}

void server_poll_loop(int wake_fd, void (*on_wake)(void))
{
    struct pollfd watched[] = {{.fd = wake_fd, .events = POLLIN},
                               {.fd = server.listener_fd, .events = POLLIN},
                               {.fd = STDIN_FILENO, .events = POLLIN}};
    while (!server.is_quitting) {
        watched[1].fd = server_is_paused() ? -1 : server.listener_fd;
        int count = poll(watched, ARRAY_COUNT(watched), server_retry_timeout_ms());
        if (count < 0 && errno != EINTR) {
            fail_call("poll", "listener, stdin", errno);
        }
        if (count > 0 && watched[0].revents != 0) {
            handle_wake(wake_fd, on_wake);
        }
        if (count > 0 && watched[1].revents != 0) {
            server_accept_batch();
        }
        if (count > 0 && watched[2].revents != 0) {
            server_read_commands();
        }
        server_resume_if_possible(count == 0);
    }
}
