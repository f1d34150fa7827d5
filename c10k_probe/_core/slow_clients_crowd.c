/*
 * slow_clients_crowd.c - all clients in one array, one epoll instance, and a hand that goes round the array
 * once in an interval: the client that it points at has its turn. So a turn costs no search, and a client no
 * timer. The contract is in slow_clients.h. Sources: epoll(7), mmap(2).
 */
#include "slow_clients.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    NS_PER_MS = 1000 * 1000,
    STDIN_PLACE = SLOW_CLIENTS_MAX, /* no client's */
    TICK_MS_MIN = 5,
    TICK_MS_MAX = 10,
    TICKS_COUNT = 100, /* in an interval, within these bounds */
};

static struct slow_client *clients;
static int64_t clients_count;
static int epoll_fd;
/* The hand: at origin_ns it pointed at the first client, and turns_count clients have had their turn since. */
static int64_t origin_ns, turns_count;

void crowd_start(void)
{
    clients = CHECK_POINTER(mmap(NULL, SLOW_CLIENTS_MAX * sizeof *clients, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN_PLACE};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0) {
        if (errno == EPERM) { /* a file, as no shell or program has it */
            usage("commands are to come from a pipe");
        }
        fail_call("epoll_ctl", "EPOLL_CTL_ADD, stdin", errno);
    }
}

static void open_one(int64_t place)
{
    client_open(&clients[place], epoll_fd, (uint32_t)place);
    if (clients[place].is_connected) {
        client_begin(&clients[place]);
    }
}

void crowd_set(int64_t wanted_count)
{
    const int64_t old_count = clients_count;
    for (int64_t place = wanted_count; place < old_count; place++) {
        client_leave(&clients[place]);
    }
    clients_count = wanted_count;
    for (int64_t place = old_count; place < wanted_count; place++) {
        clients[place] = (struct slow_client){.fd = -1};
        open_one(place);
    }
    origin_ns = now_ns();
    turns_count = 0;
}

static void hear(const struct epoll_event *event)
{
    struct slow_client *client = &clients[event->data.u32];
    if (client->fd < 0) {
        return;
    }
    if (!client->is_connected && !(event->events & (EPOLLERR | EPOLLHUP)) && event->events & EPOLLOUT) {
        client->is_connected = true;
        slow_counts.connected_count++;
        client_begin(client);
    }
    if (client->fd >= 0 && event->events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
        client_hear(client, event->events & (EPOLLERR | EPOLLHUP));
    }
}

static int64_t interval_ns(void)
{
    return slow_settings.interval_ms * NS_PER_MS;
}

/* When the turn of this number is due: exact, as the remainder is not lost. */
static int64_t due_ns(int64_t turn)
{
    const int64_t rounds_count = turn / clients_count, place = turn % clients_count;
    return origin_ns + rounds_count * interval_ns() + place * interval_ns() / clients_count;
}

static void take_turn(struct slow_client *client, int64_t place)
{
    if (client->fd < 0) {
        open_one(place);
    } else if (client->is_connected) {
        client_turn(client);
    }
}

/* All that are due; a hand that has fallen behind goes on from where it is, and says how late it was. */
static void take_turns(void)
{
    const int64_t now = now_ns();
    for (int64_t most = clients_count; most > 0 && due_ns(turns_count) <= now; most--, turns_count++) {
        const int64_t late_ns = now_ns() - due_ns(turns_count);
        if (late_ns > slow_counts.latest_turn_ns) {
            slow_counts.latest_turn_ns = late_ns;
        }
        const int64_t place = turns_count % clients_count;
        take_turn(&clients[place], place);
    }
}

/* How often turns are looked at: a byte in a larger group costs less CPU time. */
static int tick_ms(void)
{
    const int64_t share_ms = slow_settings.interval_ms / TICKS_COUNT;
    return share_ms < TICK_MS_MIN ? TICK_MS_MIN : share_ms > TICK_MS_MAX ? TICK_MS_MAX : (int)share_ms;
}

bool crowd_step(void)
{
    struct epoll_event events[EVENTS_MAX];
    const int count = epoll_wait(epoll_fd, events, EVENTS_MAX, clients_count > 0 ? tick_ms() : -1);
    bool has_command = false;
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == STDIN_PLACE) {
            has_command = true;
        } else {
            hear(&events[i]);
        }
    }
    if (clients_count > 0) {
        take_turns();
    }
    return has_command;
}

void crowd_count(int64_t *open_count, int64_t *pending_count)
{
    *open_count = *pending_count = 0;
    for (int64_t place = 0; place < clients_count; place++) {
        if (clients[place].fd >= 0) {
            (*(clients[place].is_connected ? open_count : pending_count))++;
        }
    }
}

int64_t crowd_clients_count(void)
{
    return clients_count;
}
