/*
 * creation.h - one creation of a process or a thread, from the call until nothing of it is left. The parts of
 * fork_latency share it: the methods (creation_methods.c and the families it lists), the samples
 * (creation_samples.c) and the stall (creation_stall.c).
 */
#ifndef C10K_CREATION_H
#define C10K_CREATION_H

#include "helper.h" /* before any header of the C library: it sets _GNU_SOURCE */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a child writes for its parent, in memory shared by both; all 0 before the creation. spawn_target knows
 * the first word only. Readings of CLOCK_MONOTONIC in ns. */
struct slot {
    volatile int64_t program_ns; /* first statement of main of an executed program */
    volatile int64_t child_ns;   /* first instruction of ours in the child or thread */
    volatile int32_t task;       /* number of a detached thread, written as its last act */
    volatile uint32_t gate;      /* a held child sleeps (futex) while this is 0 */
    int64_t unused;              /* 32 bytes: no slot lies across two pages */
};

/* `slot` and `is_held` are set before, the rest is filled by `create` and by `await` or `poll`. A thread gets
 * the address, so it must stay valid until the thread is gone. */
struct creation {
    struct slot *slot;
    bool is_held; /* the child waits at the gate after its stamp; methods whose child cannot wait ignore it */
    int64_t before_ns;
    int64_t returned_ns;
    int64_t gone_ns;            /* 0 until it is gone */
    int64_t child_faults_count; /* minor faults of a child process, from wait4 */
    pid_t child;
    pthread_t thread;
};

/* How the end of a child is noticed. */
struct ending {
    bool has_cycle;                           /* gone_ns follows the end at once and is worth reporting */
    bool has_child_faults;                    /* child_faults_count is filled */
    void (*await)(struct creation *creation); /* blocks until it is gone */
    bool (*poll)(struct creation *creation);  /* whether it is gone, without blocking */
};

extern const struct ending process_ending;  /* wait4 */
extern const struct ending thread_ending;   /* pthread_join */
extern const struct ending detached_ending; /* until the kernel knows no such thread */

/* A row of the table of methods. `create` makes one child, fills before_ns and returned_ns and gives 0, or
 * the error number when nothing was created. */
struct method {
    const char *name;
    const char *call;      /* for the error line */
    const char *arguments; /* likewise; NULL: the path of the executed program */
    bool copies_memory;    /* the child shares the parent's pages copy-on-write */
    bool has_started;      /* the child stamps child_ns */
    bool has_exec;         /* the executed program stamps program_ns */
    const struct ending *ending;
    void (*prepare)(void);
    int (*create)(struct creation *creation);
};

extern const struct method creation_methods[];
extern const size_t creation_methods_count;

/* Maps `count` slots, cleared. A memory file without O_CLOEXEC, as an executed program has to find it; all
 * methods use it alike. */
struct slot *creation_map_slots(size_t count);

/* Clears a slot nobody writes to any more. */
void creation_clear(struct slot *slot);

/* For the child: sleeps until the parent releases the slot. */
void creation_wait_at_gate(struct slot *slot);

/* Lets a held child go on. */
void creation_release(struct slot *slot);

/* Whether all stamps that the method promises are there, in an order that can be. */
bool creation_is_stamped(const struct method *method, const struct creation *creation);

/* Reports the failed creation as an `error` line, after the state of the parent was cleaned up. */
_Noreturn void creation_fail(const struct method *method, int error_number);

/* ---- the families; a method is one function and one row of the table ---- */

void prepare_nothing(void);
int create_fork(struct creation *creation);
int create_vfork(struct creation *creation);
void prepare_clone3(void);
int create_clone3(struct creation *creation);

void prepare_default_stack(void);
void prepare_small_stack(void);
void prepare_detached(void);
int create_thread(struct creation *creation);

/* The program that the exec methods run: set once from the command line, or found beside this program. */
void creation_set_target(const char *path);
const char *creation_target(void);
void prepare_target_alike(void); /* linked like this program */
void prepare_target_static(void);
void prepare_target_dynamic(void);
int create_posix_spawn(struct creation *creation);
int create_fork_exec(struct creation *creation);

/* Number and place of a slot as text for an executed program: its descriptor, its offset in the file. */
void creation_name_slot(const struct slot *slot, char descriptor[16], char offset[24]);

#endif
