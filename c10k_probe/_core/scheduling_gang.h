/*
 * scheduling_gang.h - tasks on one CPU that do something together for a fixed time.
 *
 * The coordinator (this process, on another CPU where there is one) wakes them; they spin until all are
 * awake, and then all do the job until end_ns, each whenever it gets the CPU. The window may start later
 * than that, so that a job can come into its stride first.
 */
#ifndef C10K_SCHEDULING_GANG_H
#define C10K_SCHEDULING_GANG_H

#include "scheduling.h"

struct gang;
struct gang_window {
    int64_t start_ns;
    int64_t end_ns;
};

/* In a task, before it says that it is ready: faults its pages in, sets its policy. */
typedef void gang_prepare(void *context, size_t index);

/* In a task: returns at its first reading of the clock that is not before the window's end. */
typedef void gang_job(void *context, size_t index, struct gang_window window);

/* Starts `count` tasks on `cpu`; they sleep until there is something to do. */
struct gang *gang_start(enum scheduling_kind kind, size_t count, int cpu, gang_prepare *prepare, void *context);

/* All do the job; the window starts lead_ns after all are awake. Returns when all are done, and says which
 * window it was. */
struct gang_window gang_run(struct gang *gang, gang_job *job, int64_t lead_ns, int64_t duration_ns);

void gang_stop(struct gang *gang);

#endif
