/*
 * connection_holder.c - opens TCP connections to a server on 127.0.0.1, holds them and exchanges echoes on
 * them. It is the client of the reference server, or of anything that echoes; with --path of any server that speaks
 * HTTP/1.1, and then an echo is a GET of that path with its answer.
 *
 * Timed:
 *   connect_ns: from just before connect(2) to just after it, for each new connection. socket(), the socket
 *               option and bind() are outside. The socket is non-blocking, and yet on loopback the whole
 *               handshake, the server's softirq part included, runs inside this call; accept() by the server
 *               does not.
 *   ramp_s:     from the first socket() to the last first echo that came back whole (`idle`: to the moment at
 *               which the accept queue was seen to be empty); building and checking of messages, threads,
 *               their tables and the thinning out of samples are inside, printing is not.
 *   echo_ns:    from just before send(2) to just after the recv(2) that completed the message.
 *   wall_s:     all echoes of one command, with building and checking.
 *   latency_ns: of `pump`, as echo_ns, with several under way: what this one thread does for other
 *               connections between the answer's arrival and the recv(2) is inside.
 *               Of `probe`: from the moment at which the message was due, whenever it was sent, to just after
 *               the recv(2) that completed the answer.
 *   longest_late_ns: of `probe`, from the moment at which a message was due to just before its send(2).
 *   duration_ns, client_cpu_ns: the counted phase of `pump`; building and checking of messages and the
 *               thinning out of samples are inside, arrays and printing are not.
 * Not timed: shuffling, printing, closing, filling and draining of a backlog.
 * Clock: CLOCK_MONOTONIC; CLOCK_PROCESS_CPUTIME_ID for client_cpu_ns. Units: nanoseconds (_ns), seconds (_s),
 * connections and requests (_count), bytes of payload (_bytes).
 *
 * A connection counts as open only after its first echo. A message carries the connection's index and a
 * counter that is used once, and the rest of its bytes depend on the counter: an answer that was mixed up is
 * noticed. Opening goes on while first echoes are awaited, with a window of them under way, and never more
 * than the server's accept queue takes (read once for each ramp by sock_diag(7)): it does not overflow. Where
 * an echo fails those that have echoed stay open, the others are closed.
 *
 * Over HTTP a right answer has a status of 2xx, a body whose length is told or that comes in chunks and that is
 * --body where one is given, and leaves the connection open; every request is the same, so that an answer that was
 * mixed up with another is not noticed. `backlog` is of echoes alone. After SIGUSR1 the command under way waits no
 * longer than a second for anything.
 *
 * Descriptors: RLIMIT_NOFILE bounds a table of descriptors. With --tables N there may be N of them, each with a
 * thread; they are filled in the order of their numbers, and a command goes from one to the next (`probe` and
 * closing run in all at once). /proc/PID/fd shows the first one only. --lanes: how many are filled at a time
 * where there is much to open; the threads of the first lane run on the CPUs of this process, those of
 * another lane on the others (those of the server, if there are no more) while they open.
 * Connections come from 127.(16+K).a.b, with --ports ports from 32768 on of each address. They are named to
 * bind(2): the kernel's search for a free one takes the longer the fewer are left.
 * Every socket has SO_LINGER 0 from the start: closing sends a reset and leaves no TIME_WAIT, also after
 * kill -9.
 * User memory for a held connection is 4 bytes (its descriptor), and some pages for each table's thread. While
 * a command runs, its samples take 8 bytes each and are at most --samples, one of `..._samples_every` (the order
 * of echoes takes 4, a connection in `pump` 40, over HTTP 120 more, in `probe` 1).
 *
 * Commands, one a line on stdin:
 *   ramp N [idle]      until N are open. `idle`: nothing is sent; those that the server has accepted, as the
 *                      length of its accept queue tells, count as open
 *   echo [COUNT SEED]  on each, or on COUNT of them (0: all), one after another, shuffled by SEED within each
 *                      table, of which each has its share
 *   pump CONCURRENCY DURATION_MS [WARMUP_MS]
 *                      a closed loop over the first CONCURRENCY (0: all; fewer where fewer are held) of the
 *                      first table: each has one message under way, and when its answer is there, whole and
 *                      right, the next is sent. After WARMUP_MS the answers within DURATION_MS are counted, then
 *                      those under way are waited for: answers in all are warmup_count + requests_count +
 *                      drained_count. A connection with a wrong, late or missing answer is closed, as in `echo`,
 *                      and the others go on.
 *   probe RATE_PER_S DURATION_MS SEED
 *                      an open loop: RATE_PER_S messages a second, each on a connection drawn from all that are
 *                      held, and due at its moment however late other answers are. intended_count is the plan;
 *                      what could not be sent, as no connection was free, is not in sent_count; what was not
 *                      answered within the time-out is in failed_count, and its connection is closed
 *   backlog BYTES      an answer of so many bytes lies unread at the client's end of every connection: sent, and
 *                      then only looked for (SIOCINQ). A receive buffer is made larger where half of it does not
 *                      take that much, and then its size is told
 *   drain              reads what `backlog` left; needed before echo, pump and probe
 *   pairs N / unpair   both ends of N connections in this process, without a server and without epoll: the
 *                      calibration of what the kernel keeps for a connection
 *   status, close, quit (or end of file)
 *
 * Known bias:
 *   - one connection is active at a time in `echo`: this is latency of an idle server, never of a loaded one.
 *   - a closed loop: while one echo is late, none is sent (coordinated omission); time-outs are losses. In
 *     `pump` this holds for each connection: its latencies are those at the rate that the server lets through,
 *     and say nothing of what clients meet that come on a schedule of their own. That is what `probe` is for.
 *   - `pump` is one thread: with client_cpu_ns near duration_ns it is the limit, and not the server.
 *   - client and server share the machine, and its cores unless they are pinned apart; two lanes use the
 *     server's, so that the rate is that of the machine and not of one client thread.
 *   - the window keeps the server's accept queue filled, and connect() competes with the server for the cores.
 *
 * The parts: holder.h (what they share), holder_tables.c, holder_connections.c, holder_queue.c (the accept
 * queue), holder_wire.c (messages and failures), holder_http.c (answers over HTTP), holder_arrays.c, holder_ramp.c, holder_echo.c, holder_pump.c,
 * holder_probe.c, holder_backlog.c, holder_samples.c and holder_random.c (which latencies are kept, which
 * order), holder_pairs.c, holder_commands.c.
 *
 * Sources: tcp(7), socket(7) (SO_LINGER, SO_RCVTIMEO), connect(2), sock_diag(7), clone(2) (CLONE_FILES), RFC 9112,
 * net/ipv4/inet_hashtables.c (choice of the port), epoll(7).
 */
#include "holder.h"

enum {
    TIMEOUT_MS_MAX = 600 * 1000,
    SOURCE_BASE_MAX = 200,
    SAMPLES_MIN = 2,
    SAMPLES_MAX = 100 * 1000,
};

struct settings settings = {.ports_count = PORTS_MAX,
                            .window_count = 256,
                            .timeout_ms = 10000,
                            .message_bytes = 64,
                            .samples_count = SAMPLES_MAX,
                            .tables_count = 1,
                            .lanes_count = 1};
struct totals totals;

int main(int argc, char **argv)
{
    const struct helper_option options[] = {
        {.name = "--port", .number = &settings.port, .minimum = 1, .maximum = UINT16_MAX, .required = true},
        {.name = "--source-base", .number = &settings.source_base, .minimum = 0, .maximum = SOURCE_BASE_MAX},
        {.name = "--window", .number = &settings.window_count, .minimum = 1, .maximum = WINDOW_MAX},
        {.name = "--timeout-ms", .number = &settings.timeout_ms, .minimum = 1, .maximum = TIMEOUT_MS_MAX},
        {.name = "--message-bytes",
         .number = &settings.message_bytes,
         .minimum = MESSAGE_BYTES_MIN,
         .maximum = MESSAGE_BYTES_MAX},
        {.name = "--tables", .number = &settings.tables_count, .minimum = 1, .maximum = TABLES_MAX},
        {.name = "--lanes", .number = &settings.lanes_count, .minimum = 1, .maximum = LANES_MAX},
        {.name = "--ports", .number = &settings.ports_count, .minimum = 1, .maximum = PORTS_MAX},
        {.name = "--samples",
         .number = &settings.samples_count,
         .minimum = SAMPLES_MIN,
         .maximum = SAMPLES_MAX},
        {.name = "--path", .text = &settings.path},
        {.name = "--body", .text = &settings.body},
    };
    helper_parse("connection_holder", argc, argv, options, ARRAY_COUNT(options));
    prepare_wire();
    helper_start("connection_holder");
    heed_impatience();
    obey_commands();
    close_held();
    tables_end();
    close_pairs();
    helper_end(totals.samples_count, totals.dropped_count);
    return 0;
}
