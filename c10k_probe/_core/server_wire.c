/*
 * server_wire.c - bytes to a connection, and its last moments. The contract is in server.h. Sources: send(2), recv(2),
 * shutdown(2).
 */
#include "server.h"

#include <sys/socket.h>

enum { GOODBYE_READS_MAX = 16 }; /* 64 KiB: nobody is served for ever by being ignored */

ssize_t server_send_what_fits(int fd, const char *bytes, size_t count)
{
    size_t sent_bytes = 0;
    while (sent_bytes < count) {
        ssize_t sent = send(fd, bytes + sent_bytes, count - sent_bytes, MSG_NOSIGNAL);
        if (sent >= 0) {
            sent_bytes += (size_t)sent;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return (ssize_t)sent_bytes;
}

void server_say_goodbye(int fd)
{
    char ignored[SERVER_BUFFER_BYTES];
    (void)shutdown(fd, SHUT_WR);
    for (int i = 0; i < GOODBYE_READS_MAX && recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0; i++) {
    }
}
