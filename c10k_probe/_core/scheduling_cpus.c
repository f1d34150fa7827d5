/*
 * scheduling_cpus.c - which CPUs to measure on. Sources: sched_setaffinity(2), CPU_SET(3).
 */
#include "scheduling.h"

#include <sched.h>
#include <stdio.h>

/* The last CPU of a set that is not `except`; -1 if there is none. */
static int last_cpu(const cpu_set_t *set, size_t bytes, int except)
{
    for (int cpu = HELPER_CPUS_MAX - 1; cpu >= 0; cpu--) {
        if (CPU_ISSET_S((size_t)cpu, bytes, set) && cpu != except) {
            return cpu;
        }
    }
    return -1;
}

void cpus_choose(int64_t cpu, size_t count, int cpus[])
{
    cpu_set_t allowed[HELPER_CPU_SETS];
    CPU_ZERO_S(sizeof(allowed), allowed);
    CHECK(sched_getaffinity(0, sizeof(allowed), allowed));
    cpus[0] = cpu >= 0 ? (int)cpu : last_cpu(allowed, sizeof(allowed), -1);
    if (count > 1) {
        cpus[1] = last_cpu(allowed, sizeof(allowed), cpus[0]);
        if (cpus[1] < 0) {
            unsupported("two CPUs are needed and only one is allowed");
        }
    }
}

void cpus_leave(int cpu)
{
    cpu_set_t allowed[HELPER_CPU_SETS];
    CPU_ZERO_S(sizeof(allowed), allowed);
    CHECK(sched_getaffinity(0, sizeof(allowed), allowed));
    helper_pin_to_cpu(cpu); /* says so if there is no such CPU */
    if (last_cpu(allowed, sizeof(allowed), cpu) >= 0) {
        CPU_CLR_S((size_t)cpu, sizeof(allowed), allowed);
        CHECK(sched_setaffinity(0, sizeof(allowed), allowed));
    }
}
