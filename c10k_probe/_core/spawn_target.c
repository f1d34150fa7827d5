/*
 * spawn_target.c - the program that the exec methods of `fork_latency` execute.
 *
 * Usage: spawn_target DESCRIPTOR [OFFSET], where DESCRIPTOR is the number of an inherited descriptor of a
 * shared memory file that has eight bytes at OFFSET (a multiple of 8; 0 unless given). The first statement of
 * main reads CLOCK_MONOTONIC; the reading, an int64 in ns, is written there. Everything before main (exec,
 * loading, relocation, the C library's own start) lies before the reading; mapping the file and leaving lie
 * after it.
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

static long read_number(const char *what, const char *text, long maximum)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < 0 || number > maximum) {
        usage("the %s must be a whole number from 0 on, not '%s'", what, text);
    }
    return number;
}

int main(int argc, char **argv)
{
    int64_t started_ns = now_ns();
    if (argc < 2 || argc > 3 || strcmp(argv[1], "--hello") == 0) {
        helper_parse("spawn_target", argc, argv, NULL, 0); /* answers --hello, refuses all else */
        usage("one argument is needed: the descriptor of the shared page");
    }
    int descriptor = (int)read_number("descriptor", argv[1], INT_MAX);
    long offset = argc == 3 ? read_number("offset", argv[2], LONG_MAX) : 0;
    if (offset % (long)sizeof(int64_t) != 0) {
        usage("the offset must be a multiple of 8, not %ld", offset);
    }
    long page_offset = offset % sysconf(_SC_PAGESIZE);
    char *page = mmap(NULL, (size_t)page_offset + sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED,
                      descriptor, offset - page_offset);
    if (page == MAP_FAILED) {
        _exit(HELPER_EXIT_FAILED);
    }
    *(volatile int64_t *)(page + page_offset) = started_ns;
    _exit(EXIT_SUCCESS);
}
