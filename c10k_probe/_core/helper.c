/*
 * helper.c - the part common to all helpers; the contract is in helper.h.
 *
 * Timed here: the clock itself. 101 batches of 100 calls of clock_gettime(CLOCK_MONOTONIC); the cost of one
 * call is the median batch divided by 100, in ns. The median leaves out batches hit by an interrupt; the loop
 * around the call (about 1 ns) is included.
 */
#include "helper.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)

#if defined(__clang__)
#define COMPILER "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__)
#elif defined(__GNUC__)
#define COMPILER "gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__)
#else
#define COMPILER "unknown"
#endif

enum { CLOCK_BATCHES = 101, CLOCK_CALLS = 100 };

static const char *helper_name; /* NULL until helper_parse() or helper_start() */
static pid_t process_id; /* of the process whose children call helper_die_with_parent() */

/* ---- failures ---- */

const char *errno_name(int error_number)
{
    const char *name = strerrorname_np(error_number);
    return name != NULL ? name : "unknown";
}

static void (*tidy_before_failing)(void);
static pid_t tidying_process;

void helper_tidy_before_failing(void (*tidy)(void))
{
    tidy_before_failing = tidy;
    tidying_process = getpid();
}

/* At most once: what tidies may fail as well. */
static void tidy_up(void)
{
    void (*tidy)(void) = tidy_before_failing;
    tidy_before_failing = NULL;
    if (tidy != NULL && getpid() == tidying_process) {
        tidy();
    }
}

void fail_call(const char *call, const char *arguments, int error_number)
{
    tidy_up();
    emit_begin("{\"type\":\"error\",\"helper\":");
    emit_string(helper_name);
    emit_part(",\"call\":");
    emit_string(call);
    emit_part(",\"arguments\":");
    emit_string(arguments);
    emit_part(",");
    emit_errno(error_number);
    emit_finish("}");
    _exit(HELPER_EXIT_FAILED);
}

void fail_expression(const char *expression, int error_number)
{
    char call[64];
    char arguments[512] = "";
    const char *open = strchr(expression, '(');
    const char *close = strrchr(expression, ')');
    if (open == NULL || close == NULL || close < open) {
        fail_call(expression, "", error_number);
    }
    snprintf(call, sizeof(call), "%.*s", (int)(open - expression), expression);
    snprintf(arguments, sizeof(arguments), "%.*s", (int)(close - open - 1), open + 1);
    fail_call(call, arguments, error_number);
}

void helper_path_beside(const char *file, char *path)
{
    int64_t length = CHECK(readlink("/proc/self/exe", path, PATH_MAX - 1));
    path[length] = '\0';
    char *name = strrchr(path, '/') + 1;
    size_t room = PATH_MAX - (size_t)(name - path);
    if ((size_t)snprintf(name, room, "%s", file) >= room) {
        fail_call("readlink", "/proc/self/exe", ENAMETOOLONG);
    }
}

void unsupported(const char *reason)
{
    tidy_up();
    emit_begin("{\"type\":\"unsupported\",\"reason\":");
    emit_string(reason);
    emit_finish("}");
    _exit(HELPER_EXIT_UNSUPPORTED);
}

void usage(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", helper_name != NULL ? helper_name : program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(HELPER_EXIT_USAGE);
}

/* ---- output ---- */

void emit_begin(const char *format, ...)
{
    va_list arguments;
    flockfile(stdout);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}

void emit_part(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}

void emit_finish(const char *after)
{
    fputs(after, stdout);
    putchar('\n');
    if (fflush(stdout) == EOF || ferror(stdout)) { /* the reader is gone: nobody is left to measure for */
        fprintf(stderr, "%s: cannot write to standard output: %s\n", helper_name, strerror(errno));
        _exit(HELPER_EXIT_FAILED);
    }
    funlockfile(stdout);
}

void emit(const char *format, ...)
{
    va_list arguments;
    flockfile(stdout);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    emit_finish("");
}

void emit_string(const char *text)
{
    if (text == NULL) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            printf("\\%c", *at);
        } else if (*at < 0x20) {
            printf("\\u%04x", *at);
        } else {
            putchar(*at);
        }
    }
    putchar('"');
}

void emit_int64_array(const char *before, const int64_t *values, size_t count)
{
    printf("%s[", before);
    for (size_t i = 0; i < count; i++) {
        printf(i == 0 ? "%" PRId64 : ",%" PRId64, values[i]);
    }
    putchar(']');
}

void emit_errno(int error_number)
{
    printf("\"errno\":%d,\"name\":", error_number);
    emit_string(errno_name(error_number));
    fputs(",\"message\":", stdout);
    emit_string(strerror(error_number));
}

/* ---- life ---- */

static void ask_for_death_with(pid_t parent)
{
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL));
    if (getppid() != parent) { /* it ended between its fork and our prctl: no signal will come */
        _exit(HELPER_EXIT_FAILED);
    }
}

void helper_die_with_parent(void)
{
    ask_for_death_with(process_id);
    process_id = getpid(); /* so that children of this child may call it too */
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit));
}

static void set_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    CHECK(sigaction(SIGPIPE, &action, NULL));
    action.sa_handler = SIG_DFL;
    CHECK(sigaction(SIGCHLD, &action, NULL));
}

static int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double measure_clock_cost_ns(void)
{
    int64_t batch_ns[CLOCK_BATCHES];
    for (int batch = 0; batch < CLOCK_BATCHES; batch++) {
        int64_t start = now_ns();
        for (int call = 1; call < CLOCK_CALLS; call++) {
            now_ns();
        }
        batch_ns[batch] = now_ns() - start; /* from one read to another lie CLOCK_CALLS calls */
    }
    qsort(batch_ns, CLOCK_BATCHES, sizeof(batch_ns[0]), compare_int64);
    return (double)batch_ns[CLOCK_BATCHES / 2] / CLOCK_CALLS;
}

static void emit_hello(double clock_cost_ns)
{
    emit_begin("{\"type\":\"hello\",\"protocol\":%d,\"helper\":", HELPER_PROTOCOL);
    emit_string(helper_name);
    emit_part(",\"linking\":");
    emit_string(helper_linking);
    emit_part(",\"compiler\":");
    emit_string(COMPILER);
    emit_part(",\"flags\":");
    emit_string(helper_flags);
    emit_part(",\"clock\":\"CLOCK_MONOTONIC\",\"clock_cost_ns\":%.1f,\"pid\":%d", clock_cost_ns,
              (int)getpid());
    emit_finish("}");
}

void helper_start(const char *name)
{
    helper_name = name;
    ask_for_death_with(getppid()); /* a parent that ended even before this shows as EOF or EPIPE */
    process_id = getpid();
    raise_descriptor_limit();
    set_signals();
    emit_hello(measure_clock_cost_ns());
}

void helper_end(int64_t samples_count, int64_t dropped_count)
{
    emit("{\"type\":\"end\",\"samples_count\":%" PRId64 ",\"dropped_count\":%" PRId64 "}", samples_count,
         dropped_count);
}

/* ---- CPUs ---- */

int helper_pin_to_cpu(int cpu)
{
    cpu_set_t set[HELPER_CPU_SETS];
    const size_t bytes = sizeof(set);
    CPU_ZERO_S(bytes, set);
    if (cpu < 0) {
        CHECK(sched_getaffinity(0, bytes, set));
        for (cpu = HELPER_CPUS_MAX - 1; !CPU_ISSET_S((size_t)cpu, bytes, set); cpu--) {
        }
    }
    CPU_ZERO_S(bytes, set);
    CPU_SET_S((size_t)cpu, bytes, set);
    if (sched_setaffinity(0, bytes, set) == -1) {
        char text[32];
        snprintf(text, sizeof(text), "0, CPU %d", cpu);
        fail_call("sched_setaffinity", text, errno);
    }
    return cpu;
}

/* ---- command line ---- */

static int64_t read_integer(const struct helper_option *option, const char *value)
{
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    bool is_number = end != value && *end == '\0' && strchr("+-0123456789", value[0]) != NULL;
    if (!is_number) {
        usage("%s must be a whole number, not '%s'", option->name, value);
    }
    if (errno == ERANGE || number < option->minimum || number > option->maximum) {
        usage("%s must lie between %" PRId64 " and %" PRId64 ", not '%s'", option->name, option->minimum,
              option->maximum, value);
    }
    return number;
}

static int64_t read_choice(const struct helper_option *option, const char *value)
{
    char words[256] = "";
    size_t used = 0;
    for (int64_t i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(option->choices[i], value) == 0) {
            return i;
        }
        int length = snprintf(words + used, sizeof(words) - used, "%s%s", i == 0 ? "" : ", ",
                              option->choices[i]);
        used = length < (int)(sizeof(words) - used) ? used + (size_t)length : sizeof(words) - 1;
    }
    usage("%s must be one of %s, not '%s'", option->name, words, value);
}

static void read_option(const struct helper_option *option, const char *value)
{
    if (option->text != NULL) {
        *option->text = value;
    } else if (option->choices != NULL) {
        *option->number = read_choice(option, value);
    } else {
        *option->number = read_integer(option, value);
    }
}

static size_t find_option(const struct helper_option *options, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(options[i].name, name) == 0) {
            return i;
        }
    }
    usage("unknown argument '%s'", name);
}

static void hello_only(void)
{
    helper_start(helper_name);
    helper_end(0, 0);
    exit(EXIT_SUCCESS);
}

void helper_parse(const char *name, int argc, char **argv, const struct helper_option *options, size_t count)
{
    uint64_t seen = 0; /* one bit an option; a helper has far fewer than 64 */
    helper_name = name;
    if (argc == 2 && strcmp(argv[1], "--hello") == 0) {
        hello_only();
    }
    for (int i = 1; i < argc; i += 2) {
        size_t found = find_option(options, count, argv[i]);
        if (i + 1 == argc) {
            usage("%s needs a value", argv[i]);
        }
        read_option(&options[found], argv[i + 1]);
        seen |= UINT64_C(1) << found;
    }
    for (size_t i = 0; i < count; i++) {
        if (options[i].required && (seen >> i & 1) == 0) {
            usage("%s is missing", options[i].name);
        }
    }
}
