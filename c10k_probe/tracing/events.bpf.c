/* Counts what the tasks of one process tree do: system calls, context switches, run-queue waits, new and ended
 * tasks, page faults. Compiled by bcc in the kernel-side half of a tracer (bcc_helper.py), with tcp.bpf.c behind it.
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
 * arch/x86/include/asm/segment.h, arch/arm64/include/uapi/asm/ptrace.h (what tells a 32-bit task).
 */
#include <uapi/asm-generic/errno-base.h>
#include <uapi/linux/ptrace.h>
#include <uapi/linux/sched.h>

#define NO_CALL (~0U)
#define OTHER_CALLS (CALLS_MAX - 1)  /* numbers beyond the table */
#define COMPAT_CALLS (CALLS_MAX - 2) /* calls of 32-bit programs, whose numbers mean other calls */
#define WIDTH_UNKNOWN 0
#define WIDTH_NATIVE 1
#define WIDTH_COMPAT 2
#define ERRNO_MAX 4095
#define TCP_STATES 16
#define MMAPABLE (1U << 10) /* BPF_F_MMAPABLE; older headers do not have it */

/* The order is known to bcc_programs.py (_COUNTERS). */
enum counter {
    SWITCHES_VOLUNTARY,
    SWITCHES_INVOLUNTARY,
    FORKS,
    THREADS,
    EXITS,
    FAULTS,
    ACCEPTS,
    DROPPED_TASKS,
    DROPPED_EVENTS,
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
    u32 width;    /* WIDTH_*, of the program that it runs */
    u32 unused;   /* no padding: the verifier refuses to copy bytes that nobody has set */
};

BPF_F_TABLE("array", int, struct cpu_counts, counts, CPUS_MAX, MMAPABLE);
/* Of each CPU CALLS_MAX elements, the last two for what has no number of its own (OTHER_CALLS, COMPAT_CALLS). Not an array inside cpu_counts, which
 * the compiler would take a second to lay out. */
BPF_F_TABLE("array", int, struct call, calls, CPUS_MAX *CALLS_MAX, MMAPABLE);
BPF_TABLE("hash", u32, struct task, tasks, TASKS_MAX);
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

/* The helper may have put the same task there a moment before, and has counted it then. */
static __always_inline void follow(u32 tid, u32 active)
{
    struct task task = {.call = NO_CALL, .active = active};
    int failed = tasks.insert(&tid, &task);
    if (failed != -EEXIST) {
        count(failed ? DROPPED_TASKS : TASKS_ADDED);
    }
}

#ifdef PIDNS_DEV
/* Inside a pid namespace the helper knows other numbers than the kernel: a task it named is recognised when it
 * enters or leaves a system call. */
BPF_TABLE("hash", u32, u32, named, TASKS_MAX); /* thread id in the namespace -> active */
BPF_TABLE("array", int, u64, named_counts, 2);  /* named by the helper and not forgotten; recognised here */

/* Also when the task is followed already, as a child that was named just after its parent had created it. */
static __always_inline void recognise(void)
{
    int first = 0, second = 1;
    u64 *named_count = named_counts.lookup(&first), *recognised_count = named_counts.lookup(&second);
    if (!named_count || !recognised_count || *named_count == *recognised_count) {
        return;
    }
    struct bpf_pidns_info inside = {};
    if (bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &inside, sizeof(inside))) {
        return;
    }
    u32 name = inside.pid;
    u32 *active = named.lookup(&name);
    if (active) {
        follow(bpf_get_current_pid_tgid(), *active);
        if (!named.delete(&name)) {
            __sync_fetch_and_add(recognised_count, 1);
        }
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

/* Whether the running task, entering a call with these registers, runs a 32-bit program: by its code segment
 * (__USER32_CS) or its processor state (PSR_MODE32_BIT). int 0x80 in a 64-bit program is not told apart. */
static __always_inline u32 width_of(u64 registers)
{
    u64 state = 0;
#if defined(__x86_64__)
    bpf_probe_read_kernel(&state, sizeof(state), &((struct pt_regs *)registers)->cs);
    return (state & 0xffff) == 0x23 ? WIDTH_COMPAT : WIDTH_NATIVE;
#elif defined(__aarch64__)
    bpf_probe_read_kernel(&state, sizeof(state), &((struct user_pt_regs *)registers)->pstate);
    return state & 0x10 ? WIDTH_COMPAT : WIDTH_NATIVE;
#else
    return WIDTH_NATIVE;
#endif
}

RAW_TRACEPOINT_PROBE(sys_enter)
{
#ifdef PIDNS_DEV
    recognise();
#endif
    struct task *task = current_task();
    if (!task) {
        return 0;
    }
    if (task->width == WIDTH_UNKNOWN) { /* once for each program */
        task->width = width_of(ctx->args[0]);
    }
    u64 number = ctx->args[1];
    number = number < COMPAT_CALLS ? number : OTHER_CALLS;
    if (task->width == WIDTH_COMPAT) {
        number = COMPAT_CALLS;
    }
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
    recognise();
#endif
    struct task *task = current_task();
    if (!task) {
        return 0;
    }
    s64 result = ctx->args[1];
    if (task->call == NO_CALL) { /* it began before the task was followed */
        if (result >= 0 && is_accept(number_of_call(ctx->args[0])) && width_of(ctx->args[0]) == WIDTH_NATIVE) {
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
    task->width = WIDTH_UNKNOWN;
    if (tid != old_tid) { /* a thread other than the first one has called exec, and takes the first one's id */
        struct task copy = *task;
        if (tasks.update(&tid, &copy)) {
            count(DROPPED_TASKS);
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
