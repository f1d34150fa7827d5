/*
 * fork_latency.c - what does it cost to create one more task, in each of the ways Linux offers?
 *
 *     fork_latency --method fork|vfork|posix_spawn|clone3|pthread_create --samples N [--warmup W]
 *                  [--placement any-cpu|one-cpu] [--cpu K] [--spawn-target PATH]
 *
 * One launch is one process and one method. Clock: CLOCK_MONOTONIC. Unit: ns, int64. Each sample starts at
 * t0, a reading of the clock directly before the creating call, and gives three intervals that are never
 * mixed:
 *   return   t0 until the first reading in the parent after the call came back;
 *   started  t0 until the first instruction of ours in the child: a reading of the clock, which the child
 *            writes to a page that is shared (MAP_SHARED). What follows in the child is its end, nothing
 *            else;
 *   cycle    t0 until the first reading in the parent after waitpid or pthread_join came back. It includes
 *            the reading that ended `return`.
 *
 * The methods differ in what the child is and where its first instruction lies:
 *   fork            glibc's fork(): a copy of this process; copies page tables, shares pages copy-on-write.
 *   vfork           the child borrows this address space, the parent sleeps until it has left: `return`
 *                   contains the child's whole life and is larger than `started`.
 *   posix_spawn     glibc's posix_spawn() of `spawn_target` (same linking, empty environment). `started`
 *                   INCLUDES exec, loading and the C library's start, as its first instruction of ours is the
 *                   first of main; `return` ends when exec has succeeded and may lie before or after
 *                   `started`. glibc maps and unmaps a stack for the child and blocks signals: included.
 *   clone3          the raw system call with CLONE_VM | CLONE_VFORK, exit signal SIGCHLD and a stack of its
 *                   own, faulted in beforehand: vfork without glibc's wrapper.
 *   pthread_create  default attributes. glibc keeps the stacks of joined threads and hands them out again:
 *                   all but the first creation reuse a stack, so mapping 8 MiB and its first faults are in
 *                   the first sample only, or in none if there are warm-ups.
 *
 * Not timed: warm-ups (--warmup, dropped by declaration), clearing the stamp, storing the sample, the facts.
 * In the timed region nothing is allocated or printed. The samples lie in pages faulted in beforehand and
 * marked MADV_DONTFORK, so that their number does not change the price of fork; `rss_bytes` does contain
 * them.
 *
 * A sample whose stamp is missing or lies outside t0..reaped is dropped and counted in `dropped_count`.
 *
 * Known bias:
 *   - Each interval contains about one clock reading (`clock_cost_ns` in hello).
 *   - Copy-on-write faults are part of the subject: the child's on its stack before its reading, the parent's
 *     on its stack after fork (in `return` and `cycle`), and in the child of fork the fault on the shared
 *     page, whose entries fork does not copy (in `cycle`).
 *   - The process is small (see `facts`): fork of a large one costs more, the other methods do not.
 *   - With any-cpu the child may start on another CPU while the parent goes on; with one-cpu it has to wait
 *     until the parent sleeps, so `started` of fork and pthread_create mostly contains the parent's return
 *     and its wait.
 *   - Children are not given PR_SET_PDEATHSIG: it would be timed, and they leave at once by themselves.
 *   - A first sample after the facts were read is slower than the rest, the caches being cold.
 *
 * Sources: fork(2), vfork(2), posix_spawn(3), clone(2) (clone3), pthread_create(3), madvise(2)
 * (MADV_DONTFORK), sched_setaffinity(2); kernel/fork.c (copy_process, vma_needs_copy in mm/memory.c); glibc
 * nptl/allocatestack.c (stack cache).
 */
#include "clone3_call.h"
#include "helper.h"
#include "process_facts.h"

#include <inttypes.h>
#include <limits.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 1000000,
    CHILD_STACK_BYTES = 64 * 1024,
    CPU_SETS = 8, /* 8 x 1024 CPUs: the kernel refuses a mask that is smaller than its own */
};

/* One iteration, all in ns of CLOCK_MONOTONIC. */
struct moments {
    int64_t before;
    int64_t returned;
    int64_t started;
    int64_t reaped;
};

struct samples {
    int64_t *return_ns; /* each of `capacity` elements, `count` filled */
    int64_t *started_ns;
    int64_t *cycle_ns;
    size_t capacity;
    size_t count;
    int64_t dropped_count;
};

/* `measure` creates one child, waits for its end and fills all of `moments` but `started`. It returns 0, or
 * the error number when nothing was created. */
struct method {
    const char *name;
    const char *arguments; /* for the error line; NULL: the path of the spawned program */
    void (*prepare)(void);
    int (*measure)(struct moments *moments);
};

static volatile int64_t *stamp_ns; /* on the shared page; 0 = not written */
static int stamp_descriptor;
static char *child_stack;
static char spawn_path[PATH_MAX];
static char spawn_argument[16];

/* ---- the methods ---- */

static void reap(pid_t child)
{
    while (waitpid(child, NULL, 0) == -1) {
        if (errno != EINTR) {
            fail_call("waitpid", "child", errno);
        }
    }
}

static int measure_fork(struct moments *moments)
{
    moments->before = now_ns();
    pid_t child = fork();
    if (child == 0) {
        *stamp_ns = now_ns();
        _exit(EXIT_SUCCESS);
    }
    moments->returned = now_ns();
    if (child == -1) {
        return errno;
    }
    reap(child);
    moments->reaped = now_ns();
    return 0;
}

static int measure_vfork(struct moments *moments)
{
    moments->before = now_ns();
    pid_t child = vfork();
    if (child == 0) { /* on the parent's stack: nothing but the stamp may be written */
        *stamp_ns = now_ns();
        _exit(EXIT_SUCCESS);
    }
    moments->returned = now_ns();
    if (child == -1) {
        return errno;
    }
    reap(child);
    moments->reaped = now_ns();
    return 0;
}

static int measure_posix_spawn(struct moments *moments)
{
    char *arguments[] = {spawn_path, spawn_argument, NULL};
    char *environment[] = {NULL}; /* its size would be part of what exec costs */
    pid_t child;
    moments->before = now_ns();
    int error_number = posix_spawn(&child, spawn_path, NULL, NULL, arguments, environment);
    moments->returned = now_ns();
    if (error_number != 0) {
        return error_number;
    }
    reap(child);
    moments->reaped = now_ns();
    return 0;
}

static void *thread_main(void *unused)
{
    *stamp_ns = now_ns();
    return unused;
}

static int measure_pthread_create(struct moments *moments)
{
    pthread_t thread;
    moments->before = now_ns();
    int error_number = pthread_create(&thread, NULL, thread_main, NULL);
    moments->returned = now_ns();
    if (error_number != 0) {
        return error_number;
    }
    CHECK_PTHREAD(pthread_join(thread, NULL));
    moments->reaped = now_ns();
    return 0;
}

static void clone3_child(void)
{
    *stamp_ns = now_ns();
    _exit(EXIT_SUCCESS); /* exit_group of the child alone: it is a thread group of its own */
}

static int measure_clone3(struct moments *moments)
{
    struct clone_args arguments = {
        .flags = CLONE_VM | CLONE_VFORK,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)child_stack,
        .stack_size = CHILD_STACK_BYTES,
    };
    moments->before = now_ns();
    long child = clone3_call(&arguments, clone3_child);
    moments->returned = now_ns();
    if (child < 0) {
        return (int)-child;
    }
    reap((pid_t)child);
    moments->reaped = now_ns();
    return 0;
}

/* ---- before the samples ---- */

static void prepare_nothing(void)
{
}

static void prepare_clone3(void)
{
    if (!C10K_HAVE_CLONE3_CALL) {
        unsupported("clone3 is written here for x86_64 and aarch64 only");
    }
    child_stack = CHECK_POINTER(mmap(NULL, CHILD_STACK_BYTES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_POPULATE, -1, 0));
}

static void find_spawn_target(void)
{
    char directory[PATH_MAX];
    const char *program = strcmp(helper_linking, "static") == 0 ? "spawn_target-static" : "spawn_target";
    int64_t length = CHECK(readlink("/proc/self/exe", directory, sizeof(directory) - 1));
    directory[length] = '\0';
    *strrchr(directory, '/') = '\0';
    if (snprintf(spawn_path, sizeof(spawn_path), "%s/%s", directory, program) >= (int)sizeof(spawn_path)) {
        fail_call("readlink", "/proc/self/exe", ENAMETOOLONG);
    }
}

static void prepare_posix_spawn(void)
{
    if (spawn_path[0] == '\0') {
        find_spawn_target();
    }
    if (access(spawn_path, X_OK) == -1) {
        fail_call("access", spawn_path, errno);
    }
    snprintf(spawn_argument, sizeof(spawn_argument), "%d", stamp_descriptor);
}

static const struct method methods[] = {
    {"fork", "", prepare_nothing, measure_fork},
    {"vfork", "", prepare_nothing, measure_vfork},
    {"posix_spawn", NULL, prepare_posix_spawn, measure_posix_spawn},
    {"clone3", "CLONE_VM | CLONE_VFORK, SIGCHLD", prepare_clone3, measure_clone3},
    {"pthread_create", "default attributes", prepare_nothing, measure_pthread_create},
};

/* A memory file, without O_CLOEXEC, as a spawned program has to find it. All methods use it alike. */
static void map_stamp(void)
{
    stamp_descriptor = (int)CHECK(memfd_create("stamp", 0));
    CHECK(ftruncate(stamp_descriptor, sizeof(*stamp_ns)));
    stamp_ns = CHECK_POINTER(mmap(NULL, sizeof(*stamp_ns), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                                  stamp_descriptor, 0));
}

static struct samples allocate_samples(size_t capacity)
{
    size_t bytes = 3 * capacity * sizeof(int64_t);
    int64_t *values = CHECK_POINTER(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    CHECK(madvise(values, bytes, MADV_DONTFORK));
    memset(values, 0, bytes); /* MAP_POPULATE is a request that may fail in silence */
    return (struct samples){
        .return_ns = values,
        .started_ns = values + capacity,
        .cycle_ns = values + 2 * capacity,
        .capacity = capacity,
    };
}

/* Pins this process to one CPU and returns its number; `cpu` -1 means the last one that it may use now. */
static int pin_to_cpu(int cpu)
{
    cpu_set_t allowed[CPU_SETS];
    const size_t bytes = sizeof(allowed);
    CPU_ZERO_S(bytes, allowed);
    if (cpu < 0) {
        CHECK(sched_getaffinity(0, bytes, allowed));
        for (cpu = CPU_SETS * CPU_SETSIZE - 1; !CPU_ISSET_S(cpu, bytes, allowed); cpu--) {
        }
    }
    CPU_ZERO_S(bytes, allowed);
    CPU_SET_S(cpu, bytes, allowed);
    if (sched_setaffinity(0, bytes, allowed) == -1) {
        char text[32];
        snprintf(text, sizeof(text), "0, CPU %d", cpu);
        fail_call("sched_setaffinity", text, errno);
    }
    return cpu;
}

/* ---- the report ---- */

static void emit_fact(const char *name, int64_t value)
{
    if (value < 0) {
        emit_part(",\"%s\":null", name);
    } else {
        emit_part(",\"%s\":%" PRId64, name, value);
    }
}

static void emit_facts(const struct process_facts *facts, int cpu)
{
    emit_begin("{\"type\":\"facts\"");
    emit_fact("rss_bytes", facts->rss_bytes);
    emit_fact("page_table_bytes", facts->page_table_bytes);
    emit_fact("mappings_count", facts->mappings_count);
    emit_fact("descriptors_count", facts->descriptors_count);
    emit_fact("alive_count", 0);
    emit_fact("cpu", cpu);
    emit_finish("}");
}

static void emit_samples(const struct method *method, const struct samples *samples)
{
    emit_begin("{\"type\":\"samples\",\"method\":\"%s\"", method->name);
    emit_int64_array(",\"return_ns\":", samples->return_ns, samples->count);
    emit_int64_array(",\"started_ns\":", samples->started_ns, samples->count);
    emit_int64_array(",\"cycle_ns\":", samples->cycle_ns, samples->count);
    emit_finish("}");
}

/* ---- the samples ---- */

static int measure_once(const struct method *method, struct moments *moments)
{
    *stamp_ns = 0;
    int error_number = method->measure(moments);
    moments->started = *stamp_ns;
    return error_number;
}

static int warm_up(const struct method *method, int64_t count)
{
    struct moments moments;
    int error_number = 0;
    for (int64_t i = 0; i < count && error_number == 0; i++) {
        error_number = measure_once(method, &moments);
    }
    return error_number;
}

static void store(struct samples *samples, const struct moments *moments)
{
    if (moments->started < moments->before || moments->started > moments->reaped) {
        samples->dropped_count++;
        return;
    }
    samples->return_ns[samples->count] = moments->returned - moments->before;
    samples->started_ns[samples->count] = moments->started - moments->before;
    samples->cycle_ns[samples->count] = moments->reaped - moments->before;
    samples->count++;
}

static int take_samples(const struct method *method, struct samples *samples)
{
    struct moments moments;
    for (size_t i = 0; i < samples->capacity; i++) {
        int error_number = measure_once(method, &moments);
        if (error_number != 0) {
            return error_number;
        }
        store(samples, &moments);
    }
    return 0;
}

/* Measures and reports. After a creation that failed, what was taken until then is reported before the error.
 * */
static void run(const struct method *method, int64_t warmup_count, int64_t samples_count, int cpu)
{
    map_stamp();
    method->prepare();
    struct samples samples = allocate_samples((size_t)samples_count);
    int error_number = warm_up(method, warmup_count);
    struct process_facts facts = read_process_facts();
    if (error_number == 0) {
        error_number = take_samples(method, &samples);
    }
    if (error_number == ENOSYS) {
        unsupported("this kernel, or a filter on system calls, does not offer the call (clone3: Linux 5.3)");
    }
    emit_facts(&facts, cpu);
    emit_samples(method, &samples);
    if (error_number != 0) {
        fail_call(method->name, method->arguments != NULL ? method->arguments : spawn_path, error_number);
    }
    helper_end((int64_t)samples.count, samples.dropped_count);
}

int main(int argc, char **argv)
{
    const char *method_names[ARRAY_COUNT(methods) + 1] = {NULL};
    static const char *const placements[] = {"any-cpu", "one-cpu", NULL};
    int64_t method = 0, samples = 0, warmup = 0, one_cpu = 0, cpu = -1;
    const char *target = "";
    const struct helper_option options[] = {
        {.name = "--method", .number = &method, .choices = method_names, .required = true},
        {.name = "--samples", .number = &samples, .minimum = 1, .maximum = SAMPLES_MAX, .required = true},
        {.name = "--warmup", .number = &warmup, .minimum = 0, .maximum = SAMPLES_MAX},
        {.name = "--placement", .number = &one_cpu, .choices = placements},
        {.name = "--cpu", .number = &cpu, .minimum = 0, .maximum = CPU_SETS * CPU_SETSIZE - 1},
        {.name = "--spawn-target", .text = &target},
    };
    for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
        method_names[i] = methods[i].name;
    }
    helper_parse("fork_latency", argc, argv, options, ARRAY_COUNT(options));
    if (cpu >= 0 && !one_cpu) {
        usage("--cpu needs --placement one-cpu");
    }
    if (snprintf(spawn_path, sizeof(spawn_path), "%s", target) >= (int)sizeof(spawn_path)) {
        usage("--spawn-target is too long");
    }
    helper_start("fork_latency");
    if (one_cpu) {
        cpu = pin_to_cpu((int)cpu);
    }
    run(&methods[method], warmup, samples, (int)cpu);
    return EXIT_SUCCESS;
}
