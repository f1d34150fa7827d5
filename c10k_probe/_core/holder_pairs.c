/*
 * holder_pairs.c - the commands `pairs` and `unpair`: both ends of a connection in this process, without a
 * server and without epoll. Sources: accept(2), listen(2).
 */
#include "holder.h"

#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS_BACKLOG = 16 };

static struct descriptors pair_ends; /* client, server, client, server, ... */
static int listener_fd = -1;
static uint16_t listener_port;

static void open_pairs_listener(void)
{
    struct sockaddr_in address = loopback_address(0);
    socklen_t bytes = sizeof address;
    listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(bind(listener_fd, (struct sockaddr *)&address, bytes));
    CHECK(listen(listener_fd, PAIRS_BACKLOG));
    CHECK(getsockname(listener_fd, (struct sockaddr *)&address, &bytes));
    listener_port = ntohs(address.sin_port);
}

/* One message from one end to the other: 0, errno or END_OF_STREAM. */
static int pass_message(int from_fd, int to_fd)
{
    char sent[MESSAGE_BYTES_MAX];
    build_message(sent, from_fd, take_counters(1));
    const int number = send_message(from_fd, sent);
    return number == 0 ? receive_message(to_fd, sent) : number;
}

/* The accepted end of the connection that was just opened, used once each way; -1 with the failure noted. */
static int accept_pair(int client_fd, struct failure *failure)
{
    const int fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        note_failure(failure, "accept4", errno);
        return -1;
    }
    reset_on_close(fd);
    make_blocking(fd);
    make_blocking(client_fd);
    int number = pass_message(client_fd, fd);
    if (number == 0) {
        number = pass_message(fd, client_fd);
    }
    if (number == 0) {
        return fd;
    }
    note_failure(failure, "recv", number);
    close(fd);
    return -1;
}

static void make_pair(struct failure *failure)
{
    int64_t connect_ns;
    const int client_fd = open_connection(listener_port, &connect_ns, failure);
    if (client_fd < 0) {
        return;
    }
    const int server_fd = accept_pair(client_fd, failure);
    if (server_fd < 0) {
        close(client_fd);
        return;
    }
    pair_ends.fds[pair_ends.count++] = client_fd;
    pair_ends.fds[pair_ends.count++] = server_fd;
}

void command_pairs(const int64_t *arguments)
{
    struct failure failure = {0};
    if (listener_fd < 0) {
        open_pairs_listener();
    }
    reserve(&pair_ends, 2 * arguments[0]);
    while (pair_ends.count < 2 * arguments[0] && failure.call == NULL) {
        make_pair(&failure);
    }
    emit_begin("{\"type\":\"paired\",\"target_count\":%" PRId64 ",\"pairs_count\":%" PRId64, arguments[0],
               pair_ends.count / 2);
    emit_failure(&failure, pair_ends.count / 2);
    emit_finish("}");
}

int64_t close_pairs(void)
{
    if (listener_fd >= 0) {
        close(listener_fd);
        listener_fd = -1;
    }
    return close_all(&pair_ends) / 2;
}

int64_t count_pairs(void)
{
    return pair_ends.count / 2;
}

void command_unpair(const int64_t *arguments)
{
    (void)arguments;
    emit("{\"type\":\"unpaired\",\"closed_count\":%" PRId64 "}", close_pairs());
}
