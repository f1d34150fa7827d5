/*
 * spawn_target.c - the program that `fork_latency --method posix_spawn` executes.
 *
 * Usage: spawn_target DESCRIPTOR, where DESCRIPTOR is the number of an inherited descriptor of a shared
 * memory file of at least eight bytes. The first statement of main reads CLOCK_MONOTONIC; the reading, an
 * int64 in ns, is written to the start of the file. Everything before main (exec, loading, relocation, the C
 * library's own start) lies before the reading; mapping the file and leaving lie after it.
 *
 * Exit status: 0 stamp written; 1 the mapping failed; 2 bad arguments. It prints nothing: its parent takes a
 * missing stamp for a dropped sample. Sources: execve(2), mmap(2), memfd_create(2).
 */
#include "helper.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int read_descriptor(const char *text)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < 0 || number > INT_MAX) {
        usage("the descriptor must be a whole number from 0 on, not '%s'", text);
    }
    return (int)number;
}

int main(int argc, char **argv)
{
    int64_t started_ns = now_ns();
    if (argc != 2 || strcmp(argv[1], "--hello") == 0) {
        helper_parse("spawn_target", argc, argv, NULL, 0); /* answers --hello, refuses all else */
        usage("one argument is needed: the descriptor of the shared page");
    }
    int descriptor = read_descriptor(argv[1]);
    int64_t *stamp_ns = mmap(NULL, sizeof(*stamp_ns), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (stamp_ns == MAP_FAILED) {
        _exit(HELPER_EXIT_FAILED);
    }
    *stamp_ns = started_ns;
    _exit(EXIT_SUCCESS);
}
