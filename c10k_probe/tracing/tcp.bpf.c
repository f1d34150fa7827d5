/* Counts TCP state changes; compiled behind events.bpf.c, whose tables and parameters it uses.
 *
 * A state often changes in a soft interrupt, where the running task is anybody, and the tracepoint tells the socket's
 * ports but not its owner. So a change is counted when the socket's local port is one that the tree listens on, whoever
 * else listens there (another network namespace, SO_REUSEPORT), or when the tree itself began to connect the socket.
 *
 * Source: net/ipv4/af_inet.c (inet_sk_state_store), include/trace/events/sock.h.
 */
#if HAVE_TCP
#define TCP_PROTOCOL 6
#define TCP_SYN_SENT_STATE 2
#define TCP_CLOSE_STATE 7
#define TCP_LISTEN_STATE 10

BPF_TABLE("hash", u16, u8, ports, 1024);        /* local ports that the tree listens on */
BPF_TABLE("hash", u64, u8, sockets, TASKS_MAX); /* sockets that the tree is connecting or has connected */

TRACEPOINT_PROBE(sock, inet_sock_set_state)
{
    u64 socket = (u64)args->skaddr;
    u16 port = args->sport;
    u8 yes = 1;
    if (args->protocol != TCP_PROTOCOL) {
        return PASS_ON;
    }
    /* listen(2) without bind(2) has no port yet, as every socket in its SYN_SENT: that of strangers too */
    if (args->newstate == TCP_LISTEN_STATE && port && current_task() && ports.update(&port, &yes)) {
        count(DROPPED_EVENTS);
    }
    if (args->newstate == TCP_SYN_SENT_STATE && current_task() && sockets.update(&socket, &yes)) {
        count(DROPPED_EVENTS);
    }
    u8 *connected = sockets.lookup(&socket);
    if (!connected && !ports.lookup(&port)) {
        return PASS_ON;
    }
    struct cpu_counts *sums = here();
    if (sums) {
        u32 change = (args->oldstate & (TCP_STATES - 1)) * TCP_STATES + (args->newstate & (TCP_STATES - 1));
        __sync_fetch_and_add(&sums->tcp[change & (TCP_STATES * TCP_STATES - 1)], 1);
    }
    if (connected && args->newstate == TCP_CLOSE_STATE) {
        sockets.delete(&socket);
    }
    return PASS_ON;
}
#endif
