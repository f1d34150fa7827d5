/* Counts what the tasks of one process tree do: system calls, context switches, run-queue waits, new and ended
 * tasks, page faults, TCP state changes. Compiled by bcc in the kernel-side half of a tracer (bcc_helper.py).
 *
 * Tracepoints only, no kprobes; their structures come from tracefs, so no header of the running kernel is needed.
 * Those whose fields are not needed, or are plain numbers, are attached raw (BPF_PROG_TYPE_RAW_TRACEPOINT): these skip
 * the perf buffer, and the kernel does not leave one out because another BPF program or map call is active on the CPU
 * (kernel/trace/bpf_trace.c: trace_call_bpf, __bpf_trace_run). What is left to lose is a wake-up or TCP change in an
 * interrupt that comes while a task is being created or a TCP state changes; the kernel counts these.
 *
 * A task is followed when `tasks` has its global thread id: put there by the helper, or by task_newtask when its
 * parent is followed, which is before the child's first instruction. It leaves at its exit.
 * Everything is added up in `counts`, one element per CPU, which the helper reads through mmap(2): a map read by
 * bpf(2) would hold up the other tracepoints of its CPU.
 *
 * Parameters, all by -D: TASKS_MAX, CPUS_MAX, CALLS_MAX, SLOTS_MAX; LATENCY (0: counts only);
 * NR_ACCEPT, NR_ACCEPT4 (-1: none); PREEMPTED_STATE; HAVE_FAULTS, HAVE_TCP (1 where the kernel has the tracepoints);
 * PIDNS_DEV, PIDNS_INO (only inside a pid namespace: device and inode of /proc/self/ns/pid).
 *
 * Sources: bpf-helpers(7), sched/core.c (__schedule: what counts as voluntary), include/trace/events/sched.h,
 * net/ipv4/af_inet.c (inet_sk_state_store).
 */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/sched.h>

#define NO_CALL (~0U)
#define ERRNO_MAX 4095
#define TCP_PROTOCOL 6
#define TCP_SYN_SENT_STATE 2
#define TCP_CLOSE_STATE 7
#define TCP_LISTEN_STATE 10
#define TCP_STATES 16
#define MMAPABLE (1U << 10) /* BPF_F_MMAPABLE; older headers do not have it */

/* The order is known to bcc_helper.py (COUNTERS). */
enum counter {
    SWITCHES_VOLUNTARY,
    SWITCHES_INVOLUNTARY,
    FORKS,
    THREADS,
    EXITS,
    FAULTS,
    ACCEPTS,
    DROPPED,
    TASKS_ADDED,
    TASKS_REMOVED,
    RUNQUEUE_NS,
    COUNTERS_MAX = 16,
};

struct call {
    u64 count;
    u64 errors;
    u64 total_ns;
    u64 slots[SLOTS_MAX];
};

struct cpu_counts {
    u64 counters[COUNTERS_MAX];
    u64 runqueue[SLOTS_MAX];
    u64 tcp[TCP_STATES * TCP_STATES]; /* old state * TCP_STATES + new state */
};

struct task {
    u64 enter_ns; /* when the present call began */
    u64 woken_ns; /* since when it waits for a CPU; 0: it does not */
    u32 call;     /* number of the present call, or NO_CALL */
    u32 active;   /* 0: counts from its next exec on */
};

BPF_F_TABLE("array", int, struct cpu_counts, counts, CPUS_MAX, MMAPABLE);
/* Of each CPU CALLS_MAX elements, the last of them for numbers beyond the table. Not an array inside cpu_counts, which
 * the compiler would take a second to lay out. */
BPF_F_TABLE("array", int, struct call, calls, CPUS_MAX *CALLS_MAX, MMAPABLE);
BPF_TABLE("hash", u32, struct task, tasks, TASKS_MAX);
#if HAVE_TCP
BPF_TABLE("hash", u16, u8, ports, 1024);         /* local ports that the tree listens on */
BPF_TABLE("hash", u64, u8, sockets, TASKS_MAX); /* sockets that the tree is connecting or has connected */
#endif

/* What a program on a tracepoint gives back: 0 would hide the event from perf and everybody else who listens there
 * (trace_call_bpf and perf_trace_run_bpf_submit, kernel/trace/bpf_trace.c and kernel/events/core.c). */
#define PASS_ON 1

static __always_inline struct cpu_counts *here(void)
{
    int cpu = bpf_get_smp_processor_id();
    return counts.lookup(&cpu);
}

static __always_inline struct call *call_here(u32 number)
{
    int place = bpf_get_smp_processor_id() * CALLS_MAX + number;
    return calls.lookup(&place);
}

/* Atomic, since not every kernel keeps a second tracepoint from coming in between. */
static __always_inline void count(enum counter counter)
{
    struct cpu_counts *sums = here();
    if (sums) {
        __sync_fetch_and_add(&sums->counters[counter], 1);
    }
}

static __always_inline u32 slot_of(u64 duration_ns)
{
    u32 slot = duration_ns ? bpf_log2l(duration_ns) : 0;
    return slot < SLOTS_MAX ? slot : SLOTS_MAX - 1;
}

static __always_inline void follow(u32 tid, u32 active)
{
    struct task task = {.call = NO_CALL, .active = active};
    count(tasks.update(&tid, &task) ? DROPPED : TASKS_ADDED);
}

#ifdef PIDNS_DEV
/* Inside a pid namespace the helper knows other numbers than the kernel: a task it named is recognised when it
 * enters or leaves a system call. */
BPF_TABLE("hash", u32, u32, named, TASKS_MAX); /* thread id in the namespace -> active */
BPF_TABLE("array", int, u32, any_named, 1);

static __always_inline void recognise(u32 tid)
{
    int first = 0;
    u32 *any = any_named.lookup(&first);
    if (!any || !*any) {
        return;
    }
    struct bpf_pidns_info inside = {};
    if (bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &inside, sizeof(inside))) {
        return;
    }
    u32 name = inside.pid;
    u32 *active = named.lookup(&name);
    if (active) {
        follow(tid, *active);
        named.delete(&name);
    }
}
#endif

/* The entry of the running task, if it is followed and counts already. */
static __always_inline struct task *current_task(void)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct task *task = tasks.lookup(&tid);
    return task && task->active ? task : 0;
}

/* ---- system calls ---- */

RAW_TRACEPOINT_PROBE(sys_enter)
{
#ifdef PIDNS_DEV
    u32 tid = bpf_get_current_pid_tgid();
    if (!tasks.lookup(&tid)) {
        recognise(tid);
    }
#endif
    struct task *task = current_task();
    if (!task) {
        return 0;
    }
    u64 number = ctx->args[1];
    number = number < CALLS_MAX ? number : CALLS_MAX - 1;
    struct call *call = call_here(number);
    if (call) {
        __sync_fetch_and_add(&call->count, 1);
    }
#if LATENCY
    task->call = number;
    task->enter_ns = bpf_ktime_get_ns();
#endif
    return 0;
}

#if LATENCY
static __always_inline int is_accept(u32 number)
{
    return number == NR_ACCEPT || number == NR_ACCEPT4;
}

/* Of a call that is ending, from its registers; NO_CALL where they do not tell in the same way on every kernel. */
static __always_inline u32 number_of_call(u64 registers)
{
    u64 number = NO_CALL;
#ifdef __x86_64__
    bpf_probe_read_kernel(&number, sizeof(number), &((struct pt_regs *)registers)->orig_ax);
#endif
    return number;
}

RAW_TRACEPOINT_PROBE(sys_exit)
{
#ifdef PIDNS_DEV
    u32 tid = bpf_get_current_pid_tgid();
    if (!tasks.lookup(&tid)) {
        recognise(tid);
    }
#endif
    struct task *task = current_task();
    if (!task) {
        return 0;
    }
    s64 result = ctx->args[1];
    if (task->call == NO_CALL) { /* it began before the task was followed */
        if (result >= 0 && is_accept(number_of_call(ctx->args[0]))) {
            count(ACCEPTS);
        }
        return 0;
    }
    u64 took_ns = bpf_ktime_get_ns() - task->enter_ns;
    u32 number = task->call;
    task->call = NO_CALL;
    struct call *call = call_here(number);
    u32 slot = slot_of(took_ns);
    if (!call) {
        return 0;
    }
    if (slot < SLOTS_MAX) {
        __sync_fetch_and_add(&call->slots[slot], 1);
    }
    __sync_fetch_and_add(&call->total_ns, took_ns);
    if (result < 0 && result >= -ERRNO_MAX) {
        __sync_fetch_and_add(&call->errors, 1);
    } else if (is_accept(number)) {
        count(ACCEPTS);
    }
    return 0;
}
#endif

/* ---- tasks ---- */

TRACEPOINT_PROBE(task, task_newtask)
{
    if (current_task()) {
        follow(args->pid, 1);
        count(args->clone_flags & CLONE_THREAD ? THREADS : FORKS);
    }
    return PASS_ON;
}

RAW_TRACEPOINT_PROBE(sched_process_exec)
{
    u32 tid = bpf_get_current_pid_tgid(), old_tid = ctx->args[1]; /* task, old_pid, bprm */
    struct task *task = tasks.lookup(&old_tid);
    if (!task) {
        return 0;
    }
    task->active = 1;
    if (tid != old_tid) { /* a thread other than the first one has called exec, and takes the first one's id */
        struct task copy = *task;
        if (tasks.update(&tid, &copy)) {
            count(DROPPED);
        }
        tasks.delete(&old_tid);
    }
    return 0;
}

RAW_TRACEPOINT_PROBE(sched_process_exit)
{
    u32 tid = bpf_get_current_pid_tgid();
    struct task *task = tasks.lookup(&tid);
    if (task) {
        if (task->active) {
            count(EXITS);
        }
        tasks.delete(&tid);
        count(TASKS_REMOVED);
    }
    return 0;
}

/* ---- switches ---- */

#if LATENCY
static __always_inline void woken(u32 tid)
{
    struct task *task = tasks.lookup(&tid);
    if (task) {
        task->woken_ns = bpf_ktime_get_ns();
    }
}

TRACEPOINT_PROBE(sched, sched_wakeup)
{
    woken(args->pid);
    return PASS_ON;
}

TRACEPOINT_PROBE(sched, sched_wakeup_new)
{
    woken(args->pid);
    return PASS_ON;
}

static __always_inline void switched_in(u32 tid)
{
    struct task *task = tasks.lookup(&tid);
    if (!task || !task->woken_ns) {
        return;
    }
    u64 waited_ns = bpf_ktime_get_ns() - task->woken_ns;
    task->woken_ns = 0;
    struct cpu_counts *sums = here();
    u32 slot = slot_of(waited_ns);
    if (task->active && sums && slot < SLOTS_MAX) {
        __sync_fetch_and_add(&sums->runqueue[slot], 1);
        __sync_fetch_and_add(&sums->counters[RUNQUEUE_NS], waited_ns);
    }
}
#endif

/* As the kernel counts: voluntary when the task slept by itself, involuntary when it could have gone on. */
static __always_inline void switched_out(u32 tid, long state)
{
    struct task *task = tasks.lookup(&tid);
    if (!task) {
        return;
    }
    int voluntary = state != 0 && state != PREEMPTED_STATE;
    if (task->active) {
        count(voluntary ? SWITCHES_VOLUNTARY : SWITCHES_INVOLUNTARY);
    }
#if LATENCY
    task->woken_ns = voluntary ? 0 : bpf_ktime_get_ns();
#endif
}

TRACEPOINT_PROBE(sched, sched_switch)
{
    u32 prev = args->prev_pid, next = args->next_pid;
    if (prev) {
        switched_out(prev, args->prev_state);
    }
#if LATENCY
    if (next) {
        switched_in(next);
    }
#endif
    return PASS_ON;
}

/* ---- faults ---- */

#if HAVE_FAULTS
RAW_TRACEPOINT_PROBE(page_fault_user)
{
    if (current_task()) {
        count(FAULTS);
    }
    return 0;
}

RAW_TRACEPOINT_PROBE(page_fault_kernel)
{
    if (current_task()) {
        count(FAULTS);
    }
    return 0;
}
#endif

/* ---- TCP ---- */

/* A state often changes in a soft interrupt, where the running task is anybody. So a change belongs to the tree when
 * the socket's local port is one that the tree listens on, or when the tree itself began to connect the socket. */
#if HAVE_TCP
TRACEPOINT_PROBE(sock, inet_sock_set_state)
{
    u64 socket = (u64)args->skaddr;
    u16 port = args->sport;
    u8 yes = 1;
    if (args->protocol != TCP_PROTOCOL) {
        return PASS_ON;
    }
    if (args->newstate == TCP_LISTEN_STATE && current_task() && ports.update(&port, &yes)) {
        count(DROPPED);
    }
    if (args->newstate == TCP_SYN_SENT_STATE && current_task() && sockets.update(&socket, &yes)) {
        count(DROPPED);
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
