/*
 * holder_queue.c - how full the accept queue of the server is, asked of the kernel. The contract is in
 * holder.h. Sources: sock_diag(7) (idiag_rqueue and idiag_wqueue of a listener), netlink(7).
 */
#include "holder.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES = 16 * 1024 };

static bool ask(int fd)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 body;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1U << TCP_LISTEN},
    };
    request.body.id.idiag_sport = htons((uint16_t)settings.port);
    return send(fd, &request, sizeof request, 0) == (ssize_t)sizeof request;
}

static void add_listener(struct accept_queue *queue, const struct nlmsghdr *header)
{
    const struct inet_diag_msg *listener = NLMSG_DATA(header);
    if (ntohs(listener->id.idiag_sport) != settings.port) {
        return;
    }
    queue->waiting_count += listener->idiag_rqueue;
    if (queue->most_count == 0 || listener->idiag_wqueue < queue->most_count) {
        queue->most_count = listener->idiag_wqueue;
    }
}

/* Datagrams of several messages each, the last one NLMSG_DONE. */
static bool receive_listeners(int fd, struct accept_queue *queue)
{
    union {
        struct nlmsghdr first;
        char bytes[ANSWER_BYTES];
    } answer;
    for (;;) {
        const ssize_t got = recv(fd, &answer, sizeof answer, 0);
        if (got <= 0) {
            return false;
        }
        int left = (int)got;
        for (const struct nlmsghdr *header = &answer.first; NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_type == NLMSG_DONE) {
                return true;
            }
            if (header->nlmsg_type == NLMSG_ERROR) {
                return false;
            }
            add_listener(queue, header);
        }
    }
}

bool read_accept_queue(struct accept_queue *queue)
{
    *queue = (struct accept_queue){0};
    const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0) {
        return false;
    }
    const bool is_told = ask(fd) && receive_listeners(fd, queue) && queue->most_count > 0;
    close(fd);
    return is_told;
}
