/*
 * backend.c - a TCP service for servers to wait for: whoever asks is answered after a delay, or never. One thread, an
 * event loop and a heap of what is due, so that the service itself is no queue: ten thousand may wait at once.
 *
 * Timed: late_ns, from the moment at which an answer was due to just after it was sent: what this service adds to the
 * delay that was asked for. Clock: CLOCK_MONOTONIC. Units: ns and counts.
 *
 * A question is one byte, its answer one byte; questions on a connection may overlap. Listens on 127.0.0.1, at a port
 * of the kernel's choice. --delay-ns is the delay, or its mean, and --delay its kind:
 *   fixed     always the same
 *   jittered  uniform, from a half to three halves of it
 *   pareto    heavy-tailed: shape 1.5, whose variance is infinite, cut at 100 times the mean (which the cut lowers by
 *             4 %)
 *   never     no answer
 * drawn by --seed. --fault, from question number --fault-after on (0: from the first): `hang` answers none, also not
 * those that wait, `reset` resets the connection, `die` ends the process as if it were killed. It is for tests of what
 * depends on a backend.
 *
 * Commands, one a line on stdin: `status`, `quit` (or end of file), and three that set the pace, each answered by a
 * status: `hold` answers nobody until further notice, so that whoever asks goes on waiting; `hurry` answers whoever
 * waits, and whoever comes, at once, or resets the connection where there would be no answer: what has queued before a
 * server is gone in no time; `resume` goes back to the delay. asked_count = answered_count + waiting_count + lost_count
 * (the connection was over before the answer).
 *
 * Known bias: one thread: with thousands of answers due at once the last of them are late, which late_ns says.
 * Sources: epoll(7), timerfd_create(2), socket(7) (SO_LINGER), tcp(7); N. L. Johnson et al., Continuous Univariate
 * Distributions, ch. 20 (Pareto).
 */
#include "helper.h"

#include "backend_due.h"
#include "holder.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS_COUNT = 256, BACKLOG_COUNT = 4096, LINE_BYTES = 64, QUESTIONS_AT_ONCE = 256 };
enum delay { FIXED, JITTERED, PARETO, NEVER };
enum fault { NO_FAULT, HANG, RESET, DIE };
enum pace { AS_ASKED, HELD, HURRIED };

static const int64_t NS_PER_S = 1000000000, DELAY_NS_MAX = 60LL * 1000000000, COUNT_MAX = 1LL << 40;
static const double PARETO_SHAPE = 1.5, PARETO_CUT = 100;

static struct {
    int64_t delay, delay_ns, seed, fault, fault_after_count;
    int epoll_fd, listener_fd, timer_fd;
    uint64_t random;
    uint32_t *generations; /* by descriptor: how many connections it has been */
    int *waiting_counts;   /* by descriptor: questions without an answer */
    int rooms_count;
    int64_t accepted_count, open_count, asked_count, answered_count, lost_count, late_ns, longest_late_ns;
    enum pace pace;
    bool is_hanging, is_quitting;
} backend;

/* ---- the delay ---- */

/* In (0, 1]. */
static double draw(void)
{
    return (double)((next_random(&backend.random) >> 11) + 1) / 9007199254740992.0;
}

static int64_t draw_delay_ns(void)
{
    const double mean_ns = (double)backend.delay_ns;
    if (backend.delay == JITTERED) {
        return (int64_t)(mean_ns * (0.5 + draw()));
    }
    if (backend.delay == PARETO) {
        const double least_ns = mean_ns * (PARETO_SHAPE - 1) / PARETO_SHAPE;
        return (int64_t)fmin(least_ns * pow(draw(), -1 / PARETO_SHAPE), mean_ns * PARETO_CUT);
    }
    return backend.delay_ns;
}

/* ---- connections ---- */

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    CHECK(epoll_ctl(backend.epoll_fd, EPOLL_CTL_ADD, fd, &event));
}

static void make_room(int fd)
{
    if (fd < backend.rooms_count) {
        return;
    }
    const int count = fd < 1024 ? 1024 : 2 * fd;
    backend.generations =
        CHECK_POINTER(reallocarray(backend.generations, (size_t)count, sizeof backend.generations[0]));
    backend.waiting_counts =
        CHECK_POINTER(reallocarray(backend.waiting_counts, (size_t)count, sizeof backend.waiting_counts[0]));
    for (int i = backend.rooms_count; i < count; i++) {
        backend.generations[i] = 0;
        backend.waiting_counts[i] = 0;
    }
    backend.rooms_count = count;
}

/* What it still waits for is dropped from the heap when it is due. */
static void close_connection(int fd)
{
    backend.lost_count += backend.waiting_counts[fd];
    backend.waiting_counts[fd] = 0;
    backend.generations[fd]++;
    backend.open_count--;
    close(fd);
}

static void reset_connection(int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_connection(fd);
}

static void accept_all(void)
{
    const int on = 1;
    for (int fd; (fd = accept4(backend.listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        make_room(fd);
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
        watch(fd);
        backend.accepted_count++;
        backend.open_count++;
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        fail_call("accept4", "", errno);
    }
}

/* ---- answers ---- */

static bool may_answer(void)
{
    return !backend.is_hanging && backend.pace != HELD;
}

static void arm_timer(void)
{
    struct itimerspec setting = {{0, 0}, {0, 0}}; /* disarmed where nothing is due */
    const struct due *first = due_first();
    if (first != NULL && may_answer()) {
        setting.it_value.tv_sec = first->at_ns / NS_PER_S;
        setting.it_value.tv_nsec = first->at_ns % NS_PER_S + (first->at_ns == 0);
    }
    CHECK(timerfd_settime(backend.timer_fd, TFD_TIMER_ABSTIME, &setting, NULL));
}

static void answer(const struct due *due)
{
    const int fd = due->fd;
    if (backend.generations[fd] != due->generation) {
        return; /* it is over, and its questions were counted as lost */
    }
    if (send(fd, "!", 1, MSG_NOSIGNAL) != 1) {
        reset_connection(fd);
        return;
    }
    const int64_t late_ns = now_ns() - due->at_ns;
    if (backend.pace == AS_ASKED) {
        backend.late_ns += late_ns;
        backend.longest_late_ns = late_ns > backend.longest_late_ns ? late_ns : backend.longest_late_ns;
    }
    backend.waiting_counts[fd]--;
    backend.answered_count++;
}

static void answer_due(void)
{
    uint64_t ignored;
    (void)!read(backend.timer_fd, &ignored, sizeof ignored);
    while (may_answer() && due_first() != NULL && due_first()->at_ns <= now_ns()) {
        const struct due due = due_take();
        answer(&due);
    }
    arm_timer();
}

/* ---- questions ---- */

static bool is_faulty(void)
{
    return backend.fault != NO_FAULT && backend.asked_count > backend.fault_after_count;
}

static bool gives_no_answer(void)
{
    return backend.delay == NEVER || backend.is_hanging;
}

static void wait_for(int fd)
{
    const int64_t at_ns = now_ns() + (backend.pace == HURRIED ? 0 : draw_delay_ns());
    const bool is_first = due_first() == NULL || at_ns < due_first()->at_ns;
    due_add((struct due){.at_ns = at_ns, .fd = fd, .generation = backend.generations[fd]});
    if (is_first) {
        arm_timer();
    }
}

/* False: the connection is over. */
static bool take_question(int fd)
{
    backend.asked_count++;
    backend.waiting_counts[fd]++;
    if (is_faulty() && backend.fault == DIE) {
        raise(SIGKILL);
    }
    if (is_faulty() && backend.fault == RESET) {
        reset_connection(fd);
        return false;
    }
    backend.is_hanging |= is_faulty();
    if (!gives_no_answer()) {
        wait_for(fd);
    } else if (backend.pace == HURRIED) {
        reset_connection(fd);
        return false;
    }
    return true;
}

static void receive(int fd)
{
    char questions[QUESTIONS_AT_ONCE];
    const ssize_t count = recv(fd, questions, sizeof questions, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (count <= 0) {
        close_connection(fd);
    }
    for (ssize_t i = 0; i < count && take_question(fd); i++) {
    }
}

/* ---- pace ---- */

/* All that wait have their end now. */
static void let_go(void)
{
    for (int fd = 0; gives_no_answer() && fd < backend.rooms_count; fd++) {
        if (backend.waiting_counts[fd] > 0) {
            reset_connection(fd);
        }
    }
    while (!gives_no_answer() && due_first() != NULL) {
        const struct due due = due_take();
        answer(&due);
    }
}

static void set_pace(enum pace pace)
{
    backend.pace = pace;
    if (pace == HURRIED) {
        let_go();
    }
    arm_timer();
}

/* ---- commands ---- */

static void print_status(void)
{
    emit("{\"type\":\"status\",\"accepted_count\":%" PRId64 ",\"open_count\":%" PRId64 ",\"asked_count\":%" PRId64
         ",\"answered_count\":%" PRId64 ",\"waiting_count\":%" PRId64 ",\"lost_count\":%" PRId64 ",\"late_ns\":%" PRId64
         ",\"longest_late_ns\":%" PRId64 "}",
         backend.accepted_count, backend.open_count, backend.asked_count, backend.answered_count,
         backend.asked_count - backend.answered_count - backend.lost_count, backend.lost_count, backend.late_ns,
         backend.longest_late_ns);
}

static void obey(const char *command)
{
    static const char *const paces[] = {[AS_ASKED] = "resume", [HELD] = "hold", [HURRIED] = "hurry"};
    for (size_t pace = 0; pace < ARRAY_COUNT(paces); pace++) {
        if (strcmp(command, paces[pace]) == 0) {
            set_pace((enum pace)pace);
            print_status();
            return;
        }
    }
    if (strcmp(command, "status") == 0) {
        print_status();
    } else if (strcmp(command, "quit") == 0) {
        backend.is_quitting = true;
    } else if (*command != '\0') {
        usage("unknown command \"%s\"; known: status, hold, hurry, resume, quit", command);
    }
}

static void read_commands(void)
{
    static char text[LINE_BYTES];
    static size_t used;
    const ssize_t got = read(STDIN_FILENO, text + used, sizeof text - used);
    if (got <= 0) {
        backend.is_quitting = !(got < 0 && (errno == EINTR || errno == EAGAIN));
        return;
    }
    used += (size_t)got;
    for (char *end; !backend.is_quitting && (end = memchr(text, '\n', used)) != NULL;) {
        *end = '\0';
        obey(text);
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used);
    }
    if (used == sizeof text) {
        usage("a command is at most %d bytes", LINE_BYTES - 1);
    }
}

/* ---- life ---- */

static void dispatch(int fd)
{
    if (fd == STDIN_FILENO) {
        read_commands();
    } else if (fd == backend.listener_fd) {
        accept_all();
    } else if (fd == backend.timer_fd) {
        answer_due();
    } else {
        receive(fd);
    }
}

static void loop(void)
{
    struct epoll_event events[EVENTS_COUNT];
    while (!backend.is_quitting) {
        const int count = epoll_wait(backend.epoll_fd, events, EVENTS_COUNT, -1);
        if (count < 0 && errno != EINTR) {
            fail_call("epoll_wait", "", errno);
        }
        for (int i = 0; i < count && !backend.is_quitting; i++) {
            dispatch(events[i].data.fd);
        }
    }
}

static uint16_t open_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    backend.listener_fd = (int)CHECK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(bind(backend.listener_fd, (const struct sockaddr *)&address, sizeof address));
    CHECK(listen(backend.listener_fd, BACKLOG_COUNT));
    CHECK(getsockname(backend.listener_fd, (struct sockaddr *)&address, &length));
    return ntohs(address.sin_port);
}

static void read_arguments(int argc, char **argv)
{
    static const char *const delays[] = {"fixed", "jittered", "pareto", "never", NULL};
    static const char *const faults[] = {"none", "hang", "reset", "die", NULL};
    const struct helper_option options[] = {
        {.name = "--delay", .number = &backend.delay, .choices = delays},
        {.name = "--delay-ns", .number = &backend.delay_ns, .maximum = DELAY_NS_MAX, .required = true},
        {.name = "--seed", .number = &backend.seed, .maximum = INT64_MAX},
        {.name = "--fault", .number = &backend.fault, .choices = faults},
        {.name = "--fault-after", .number = &backend.fault_after_count, .maximum = COUNT_MAX},
    };
    helper_parse("backend", argc, argv, options, ARRAY_COUNT(options));
}

int main(int argc, char **argv)
{
    read_arguments(argc, argv);
    helper_start("backend");
    backend.random = (uint64_t)backend.seed;
    backend.epoll_fd = (int)CHECK(epoll_create1(EPOLL_CLOEXEC));
    backend.timer_fd = (int)CHECK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    const uint16_t port = open_listener();
    watch(backend.listener_fd);
    watch(backend.timer_fd);
    watch(STDIN_FILENO);
    emit("{\"type\":\"ready\",\"port\":%u,\"pid\":%d}", port, getpid());
    loop();
    print_status();
    helper_end(backend.answered_count, backend.lost_count);
    return 0;
}
