/*
 * helper.h - what every measuring helper of c10k-probe shares: the JSON lines on stdout, the checking of
 * system calls, the ties between parent and child, the limits, the clock and the command line.
 *
 * Protocol: one JSON object a line, flushed after each. First `hello`, last `end`; no `end` means that the
 * measurement failed. Exit status: 0 ok, 1 a call failed (an `error` line says which), 2 bad arguments
 * (one line on stderr), 77 not supported on this machine (an `unsupported` line says why).
 *
 * Typical use:
 *     helper_parse("name", argc, argv, options, ARRAY_COUNT(options));   // answers --hello by itself
 *     helper_start("name");
 *     ...
 *     helper_end(samples, dropped);
 *     return 0;
 *
 * Sources: clock_gettime(2), vdso(7), prctl(2) (PR_SET_PDEATHSIG), getrlimit(2), strerrorname_np(3).
 */
#ifndef C10K_HELPER_H
#define C10K_HELPER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum {
    HELPER_PROTOCOL = 1,
    HELPER_EXIT_FAILED = 1,
    HELPER_EXIT_USAGE = 2,
    HELPER_EXIT_UNSUPPORTED = 77,
    HELPER_CPU_SETS = 8, /* cpu_set_t of 1024 CPUs each: the kernel refuses a mask that is smaller than its own */
    HELPER_CPUS_MAX = HELPER_CPU_SETS * 1024,
};

/* Facts that differ between the dynamic and the static build (linking.c, compiled once for each). */
extern const char *const helper_linking; /* "dynamic", "static" or "static-pie" */
extern const char *const helper_flags;   /* the compiler's flags, as given by CMake */

/* ---- life ---- */

/* Dies with the parent, raises the soft RLIMIT_NOFILE to the hard one, ignores SIGPIPE, gives SIGCHLD its
 * default action (an inherited SIG_IGN would make waitpid fail), measures the cost of the clock and prints
 * `hello`. Call it once, from the main thread, after the arguments are known good. */
void helper_start(const char *name);

/* Prints `end`: how many samples were delivered, how many were thrown away. The caller then exits 0. */
void helper_end(int64_t samples_count, int64_t dropped_count);

/* First thing in a forked child: SIGKILL when the parent ends, also when it ended before we could ask for it.
 * Not for vfork children (it writes memory that would be the parent's). The kernel sends the signal when the
 * *thread* that forked ends, so fork from the main thread. */
void helper_die_with_parent(void);

/* Pins the calling thread, and what it starts from now on, to one CPU and returns its number; -1 means the last one
 * that it may use now. Source: sched_setaffinity(2). */
int helper_pin_to_cpu(int cpu);

/* ---- clock ---- */

/* CLOCK_MONOTONIC in nanoseconds. Answered by the vDSO, without entering the kernel, on common clocks. */
static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- failures ---- */

/* Prints an `error` line (call, arguments, errno, its name and message) and leaves with 1 by _exit, so that
 * it may be used in a forked child or a thread too. */
_Noreturn void fail_call(const char *call, const char *arguments, int error_number);

/* `file` in the folder of this program, into path[PATH_MAX]. */
void helper_path_beside(const char *file, char *path);

/* Has `tidy` called before fail_call or unsupported tells, by this process and not by a child of it: whoever reads the
 * line finds nothing left. */
void helper_tidy_before_failing(void (*tidy)(void));

/* The same from the text of an expression, "fork()" or "close(fd)": the part before '(' is the call, the part
 * between the outer parentheses is the arguments. */
_Noreturn void fail_expression(const char *expression, int error_number);

/* Prints an `unsupported` line and leaves with 77. */
_Noreturn void unsupported(const char *reason);

/* Prints "NAME: text" on stderr and leaves with 2. printf-style. */
_Noreturn void usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "EAGAIN" for EAGAIN; "unknown" for a number without a name. Never NULL. */
const char *errno_name(int error_number);

static inline int64_t check_result(int64_t result, const char *expression)
{
    if (result == -1) {
        fail_expression(expression, errno);
    }
    return result;
}

static inline void *check_address(void *address, const char *expression)
{
    if (address == NULL || address == (void *)-1) { /* malloc's and mmap's ways of saying no */
        fail_expression(expression, errno);
    }
    return address;
}

static inline void check_number(int error_number, const char *expression)
{
    if (error_number != 0) {
        fail_expression(expression, error_number);
    }
}

/* CHECK: a call that returns -1 and sets errno; gives back its result. In every build type.
 * CHECK_POINTER: one that returns NULL or MAP_FAILED; gives back the pointer (void *).
 * CHECK_PTHREAD: one that returns the error number (pthread_*, posix_spawn*). */
#define CHECK(expression) check_result((expression), #expression)
#define CHECK_POINTER(expression) check_address((expression), #expression)
#define CHECK_PTHREAD(expression) check_number((expression), #expression)

/* ---- output ---- */

/* One whole line, printf-style, without the newline: emit("{\"type\":\"ready\",\"port\":%d}", port). */
void emit(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line in parts: begin (takes stdout's lock), any of the emit_... below, finish (newline, flush, unlock).
 *     emit_begin("{\"type\":\"samples\",\"method\":");
 *     emit_string(method);
 *     emit_int64_array(",\"return_ns\":", values, count);
 *     emit_finish("}");                                                            */
void emit_begin(const char *format, ...) __attribute__((format(printf, 1, 2)));
void emit_part(const char *format, ...) __attribute__((format(printf, 1, 2)));
void emit_string(const char *text); /* quoted and escaped; NULL becomes null */
void emit_int64_array(const char *before, const int64_t *values, size_t count); /* before, then [1,2,3] */
void emit_errno(int error_number); /* "errno":11,"name":"EAGAIN","message":"...", nothing around */
void emit_finish(const char *after);

/* ---- command line ---- */

/* `--name value`. Exactly one of the three forms:
 *   integer: number set, choices NULL; minimum..maximum inclusive, decimal digits and an optional sign
 *   choice:  number and choices set (NULL-terminated list of words); *number becomes the word's index
 *   text:    text set; *text points into argv
 * What the variable held before is the default. `required` options must be given. */
struct helper_option {
    const char *name; /* with the dashes: "--samples" */
    int64_t *number;
    int64_t minimum;
    int64_t maximum;
    const char *const *choices;
    const char **text;
    bool required;
};

/* Reads argv into the options' variables; anything wrong is a usage error (exit 2). `--hello` alone prints
 * hello and end and exits 0. An option given twice: the last one counts. */
void helper_parse(const char *name, int argc, char **argv, const struct helper_option *options, size_t count);

#endif
