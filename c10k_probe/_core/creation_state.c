/*
 * creation_state.c - makes and verifies the state of the parent; the contract is in creation_state.h.
 *
 * Tasks that are kept alive come first: a child forked later would share the memory made here, and the
 * parent's next writes would copy all of it.
 *
 * Every step is counted in /proc before and after. The differences must be what was asked for; memory may be
 * up to 256 KiB more, as reading /proc touches pages too.
 *
 * Sources: mmap(2), madvise(2) (MADV_NOHUGEPAGE, MADV_HUGEPAGE), mprotect(2), open(2) (O_TMPFILE),
 * dlopen(3), proc(5); Documentation/admin-guide/mm/transhuge.rst.
 */
#include "creation_state.h"

#include "creation.h"
#include "helper.h"
#include "process_facts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY_SLACK_BYTES = 256 * 1024 };

static volatile char *rss_region; /* NULL without --rss */
static size_t rss_bytes;
static size_t rss_position; /* of state_dirty_some */
static char written;

/* ---- failures ---- */

static void fail_count(const char *call, const char *what, int64_t count, int error_number)
{
    char text[96];
    snprintf(text, sizeof(text), "%s %" PRId64, what, count);
    fail_call(call, text, error_number);
}

/* A `found` below 0 means that /proc does not tell. */
static void verify(const char *option, int64_t asked, int64_t before, int64_t after, int64_t slack)
{
    char text[128];
    int64_t found = after - before;
    if (before < 0 || after < 0 || (found >= asked && found <= asked + slack)) {
        return;
    }
    snprintf(text, sizeof(text), "%s %" PRId64 ", but /proc shows %" PRId64, option, asked, found);
    fail_call("verify", text, ERANGE);
}

/* Touching more than there is would not fail but call the kernel's OOM killer. */
static void refuse_too_much(const char *option, int64_t bytes)
{
    int64_t available = read_proc_bytes("/proc/meminfo", "MemAvailable:");
    if (available >= 0 && bytes > available) {
        fail_count("mmap", option, bytes, ENOMEM);
    }
}

/* ---- memory ---- */

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void state_dirty_region(volatile char *region, size_t bytes)
{
    const size_t step = page_bytes();
    written++;
    for (size_t at = 0; at < bytes; at += step) {
        region[at] = written;
    }
}

void state_dirty(void)
{
    state_dirty_region(rss_region, rss_bytes);
}

void state_dirty_some(size_t pages_count)
{
    const size_t step = page_bytes();
    written++;
    for (size_t i = 0; i < pages_count && rss_bytes > 0; i++) {
        rss_region[rss_position] = written;
        rss_position = rss_position + step < rss_bytes ? rss_position + step : 0;
    }
}

static void *map_anonymous(size_t bytes, int protection)
{
    void *region = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED) {
        fail_count("mmap", "anonymous bytes", (int64_t)bytes, errno);
    }
    return region;
}

/* Kernels without huge pages answer EINVAL to both kinds of advice. */
static void advise(void *region, size_t bytes, int advice)
{
    if (madvise(region, bytes, advice) == -1 && !(errno == EINVAL && advice == MADV_NOHUGEPAGE)) {
        if (errno == EINVAL) {
            unsupported("this kernel has no transparent huge pages");
        }
        fail_count("madvise", "bytes", (int64_t)bytes, errno);
    }
}

volatile char *state_map_touched(size_t bytes)
{
    char *region = map_anonymous(bytes, PROT_READ | PROT_WRITE);
    advise(region, bytes, MADV_NOHUGEPAGE);
    state_dirty_region(region, bytes);
    return region;
}

/* Starts on a border of huge pages; what lies before and behind is given back. */
static char *map_huge(size_t bytes)
{
    const size_t huge = STATE_HUGE_PAGE_BYTES;
    char *reserved = map_anonymous(bytes + huge, PROT_READ | PROT_WRITE);
    size_t before = (huge - (uintptr_t)reserved % huge) % huge;
    if (before > 0) {
        CHECK(munmap(reserved, before));
    }
    size_t behind = (before + bytes + page_bytes() - 1) / page_bytes() * page_bytes();
    if (behind < bytes + huge) {
        CHECK(munmap(reserved + behind, bytes + huge - behind));
    }
    advise(reserved + before, bytes, MADV_HUGEPAGE);
    return reserved + before;
}

static void verify_huge(size_t bytes, int64_t before, int64_t after)
{
    if (before >= 0 && after == before) {
        unsupported("no huge page was given; see /sys/kernel/mm/transparent_hugepage/enabled");
    }
    int64_t whole = (int64_t)(bytes / STATE_HUGE_PAGE_BYTES * STATE_HUGE_PAGE_BYTES);
    verify("--huge-pages on: AnonHugePages", whole, before, after, 0);
}

static void set_up_rss(int64_t bytes, bool is_huge)
{
    refuse_too_much("--rss", bytes);
    struct process_facts before = read_process_facts();
    rss_bytes = (size_t)bytes;
    rss_region = is_huge ? map_huge(rss_bytes) : state_map_touched(rss_bytes);
    state_dirty();
    struct process_facts after = read_process_facts();
    verify("--rss", bytes, before.anonymous_bytes, after.anonymous_bytes, MEMORY_SLACK_BYTES);
    if (is_huge) {
        verify_huge(rss_bytes, before.anon_huge_bytes, after.anon_huge_bytes);
    }
}

/* ---- pages of a file ---- */

/* Not every filesystem can make a file without a name; then it gets one for a moment. */
static int open_temporary(void)
{
    char name[PATH_MAX];
    const char *given = getenv("TMPDIR");
    const char *folder = given != NULL && given[0] != '\0' ? given : "/var/tmp";
    int descriptor = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor == -1 && snprintf(name, sizeof(name), "%s/c10k-XXXXXX", folder) < (int)sizeof(name)) {
        descriptor = mkostemp(name, O_CLOEXEC);
        if (descriptor != -1) {
            unlink(name);
        }
    }
    if (descriptor == -1) {
        fail_call("open", folder, errno);
    }
    return descriptor;
}

/* The file is one hole: reading it fills the page cache, and nothing is written to a disk. */
static void set_up_file_rss(int64_t bytes)
{
    refuse_too_much("--file-rss", bytes);
    struct process_facts before = read_process_facts();
    int descriptor = open_temporary();
    if (ftruncate(descriptor, (off_t)bytes) == -1) {
        fail_count("ftruncate", "--file-rss", bytes, errno);
    }
    volatile char *region = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    if (region == MAP_FAILED) {
        fail_count("mmap", "--file-rss", bytes, errno);
    }
    close(descriptor);
    advise((void *)region, (size_t)bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < (size_t)bytes; at += page_bytes()) {
        (void)region[at];
    }
    struct process_facts after = read_process_facts();
    verify("--file-rss", bytes, before.file_rss_bytes, after.file_rss_bytes, MEMORY_SLACK_BYTES);
}

/* ---- counts ---- */

/* A row of pages, readable and not in turn, so that the kernel cannot merge two of them; nor the first or the
 * last with a neighbour, as a page beyond each is left free. They hold no pages. */
static void set_up_mappings(int64_t count)
{
    const size_t page = page_bytes();
    struct process_facts before = read_process_facts();
    char *row = map_anonymous((size_t)(count + 2) * page, PROT_NONE);
    CHECK(munmap(row, page));
    CHECK(munmap(row + (size_t)(count + 1) * page, page));
    for (int64_t i = 2; i <= count; i += 2) {
        if (mprotect(row + (size_t)i * page, page, PROT_READ) == -1) {
            fail_count("mprotect", "--mappings", count, errno);
        }
    }
    verify("--mappings", count, before.mappings_count, read_process_facts().mappings_count, 0);
}

static void set_up_descriptors(int64_t count)
{
    struct process_facts before = read_process_facts();
    for (int64_t i = 0; i < count; i++) {
        if (open("/dev/null", O_RDONLY) == -1) { /* without O_CLOEXEC: children inherit it */
            fail_count("open", "--descriptors", count, errno);
        }
    }
    verify("--descriptors", count, before.descriptors_count, read_process_facts().descriptors_count, 0);
}

static void set_up_libraries(int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        char path[PATH_MAX], file[64];
        snprintf(file, sizeof(file), "libraries/libc10k_%03" PRId64 ".so", i);
        helper_path_beside(file, path);
        if (access(path, R_OK) == -1) { /* dlopen does not leave an error number */
            fail_call("dlopen", path, errno);
        }
        if (!linking_load_library(path)) {
            fail_call("dlopen", path, ELIBACC);
        }
    }
    verify("--libraries", count, 0, read_process_facts().libraries_count, 0);
}

static void set_up_alive(const struct state *asked)
{
    enum alive_kind kind = (enum alive_kind)asked->alive_kind;
    bool are_threads = kind == ALIVE_THREADS;
    int error_number = alive_start(kind, asked->alive_count, asked->alive_stack_bytes);
    if (error_number != 0) {
        fail_count(are_threads ? "pthread_create" : "fork", "--alive", asked->alive_count, error_number);
    }
    struct process_facts facts = read_process_facts();
    verify("--alive", asked->alive_count, 0, are_threads ? facts.threads_count : facts.children_count, 0);
}

void state_tear_down(void)
{
    alive_end();
}

void state_set_up(const struct state *asked)
{
    helper_tidy_before_failing(state_tear_down);
    if (asked->alive_count > 0) {
        set_up_alive(asked);
    }
    if (asked->libraries_count > 0) {
        set_up_libraries(asked->libraries_count);
    }
    if (asked->rss_bytes > 0) {
        set_up_rss(asked->rss_bytes, asked->huge_pages != 0);
    }
    if (asked->file_rss_bytes > 0) {
        set_up_file_rss(asked->file_rss_bytes);
    }
    if (asked->descriptors_count > 0) {
        set_up_descriptors(asked->descriptors_count);
    }
    if (asked->mappings_count > 0) {
        set_up_mappings(asked->mappings_count);
    }
}
