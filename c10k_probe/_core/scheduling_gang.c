/*
 * scheduling_gang.c - wakes a gang of tasks, gives them a window, waits for them; see scheduling_gang.h.
 *
 * The window starts when the coordinator has woken the last one, or later, so that all are runnable for all
 * of it: those woken first spin until then, which is not counted. Each waits on a word of its own: one is
 * woken at a time.
 *
 * Sources: futex(2).
 */
#include "scheduling_gang.h"

#include <limits.h>
#include <stdlib.h>

struct seat {
    _Alignas(LINE_BYTES) _Atomic uint32_t turn; /* changes when its task has something to do */
};

/* Shared. The addresses of functions are the same in all processes, which were forked from one. */
struct orders {
    _Alignas(LINE_BYTES) gang_job *job; /* NULL: end */
    int64_t end_ns;
    _Atomic int64_t start_ns; /* 0 until all are awake */
    _Alignas(LINE_BYTES) _Atomic uint32_t busy_count;
};

struct gang {
    struct tasks *tasks;
    size_t count;
    bool is_shared;
    gang_prepare *prepare;
    void *context;
    struct orders *orders;
    struct seat *seats;
};

/* ---- in a task ---- */

static void await_turn(const struct gang *gang, struct seat *seat, uint32_t seen)
{
    while (atomic_load_explicit(&seat->turn, memory_order_acquire) == seen) {
        futex_wait(&seat->turn, seen, gang->is_shared);
    }
}

static void take_part(const struct gang *gang, size_t index)
{
    struct orders *orders = gang->orders;
    struct gang_window window = {.start_ns = 0};
    while ((window.start_ns = atomic_load_explicit(&orders->start_ns, memory_order_acquire)) == 0) {
    }
    window.end_ns = orders->end_ns;
    orders->job(gang->context, index, window);
    if (atomic_fetch_sub(&orders->busy_count, 1) == 1) {
        futex_wake(&orders->busy_count, 1, gang->is_shared);
    }
}

static void run_task(void *context, size_t index)
{
    const struct gang *gang = context;
    struct seat *seat = &gang->seats[index];
    uint32_t seen = 0;
    gang->prepare(gang->context, index);
    tasks_say_ready(gang->tasks);
    for (;;) {
        await_turn(gang, seat, seen);
        seen++;
        if (gang->orders->job == NULL) {
            return;
        }
        take_part(gang, index);
    }
}

/* ---- in the coordinator ---- */

struct gang *gang_start(enum scheduling_kind kind, size_t count, int cpu, gang_prepare *prepare, void *context)
{
    struct gang *gang = CHECK_POINTER(calloc(1, sizeof(*gang)));
    *gang = (struct gang){
        .tasks = tasks_prepare(kind, count),
        .count = count,
        .is_shared = kind == KIND_PROCESSES,
        .prepare = prepare,
        .context = context,
        .orders = memory_shared(sizeof(*gang->orders)),
        .seats = memory_shared(count * sizeof(*gang->seats)),
    };
    for (size_t i = 0; i < count; i++) {
        tasks_start(gang->tasks, cpu, run_task, gang, i);
    }
    tasks_await_ready(gang->tasks);
    return gang;
}

static void wake_all(struct gang *gang)
{
    for (size_t i = 0; i < gang->count; i++) {
        atomic_fetch_add_explicit(&gang->seats[i].turn, 1, memory_order_release);
        futex_wake(&gang->seats[i].turn, 1, gang->is_shared);
    }
}

struct gang_window gang_run(struct gang *gang, gang_job *job, int64_t lead_ns, int64_t duration_ns)
{
    struct orders *orders = gang->orders;
    uint32_t busy_count = 0;
    orders->job = job;
    atomic_store(&orders->start_ns, 0);
    atomic_store(&orders->busy_count, (uint32_t)gang->count);
    wake_all(gang);
    int64_t start_ns = now_ns() + lead_ns;
    orders->end_ns = start_ns + duration_ns;
    atomic_store_explicit(&orders->start_ns, start_ns, memory_order_release);
    while ((busy_count = atomic_load(&orders->busy_count)) != 0) {
        futex_wait(&orders->busy_count, busy_count, gang->is_shared);
    }
    return (struct gang_window){.start_ns = start_ns, .end_ns = start_ns + duration_ns};
}

void gang_stop(struct gang *gang)
{
    tasks_let_end();
    gang->orders->job = NULL;
    wake_all(gang);
    tasks_join(gang->tasks);
    free(gang);
}
