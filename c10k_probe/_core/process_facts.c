/*
 * process_facts.c - the size of this process, from /proc/self; the contract is in process_facts.h.
 */
#include "process_facts.h"

#include "helper.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ITEM_MAX_BYTES = PATH_MAX + 256 }; /* of a line of maps, which may end with a path */

static const char LIBRARIES_FOLDER[] = "/libraries/libc10k_";

typedef void item_user(const char *item, void *context);

/* Calls `use` for each item that begins in `text` and ends with `separator`, and moves the rest to the start
 * of it; its length. */
static size_t use_items(char *text, size_t used, char separator, item_user *use, void *context)
{
    char *start = text;
    char *end = NULL;
    while ((end = memchr(start, separator, used - (size_t)(start - text))) != NULL) {
        *end = '\0';
        use(start, context);
        start = end + 1;
    }
    size_t rest = used - (size_t)(start - text);
    memmove(text, start, rest);
    return rest;
}

/* Calls `use` for every item of a file of /proc, however long the file; false when it cannot be read. No stdio
 * and no buffer of our own: they would be pages of the very process whose pages are counted. */
static bool for_each_item(const char *path, char separator, item_user *use, void *context)
{
    char text[ITEM_MAX_BYTES];
    size_t used = 0;
    ssize_t got = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor == -1) {
        return false;
    }
    while ((got = read(descriptor, text + used, sizeof(text) - used)) > 0) {
        used = use_items(text, used + (size_t)got, separator, use, context);
    }
    close(descriptor);
    return got == 0;
}

/* ---- values ---- */

struct value {
    const char *name;
    int64_t *bytes;
};

struct values {
    const struct value *list;
    size_t count;
};

static void take_value(const char *line, void *context)
{
    const struct values *values = context;
    for (size_t i = 0; i < values->count; i++) {
        size_t length = strlen(values->list[i].name);
        if (strncmp(line, values->list[i].name, length) == 0) {
            *values->list[i].bytes = strtoll(line + length, NULL, 10) * 1024;
        }
    }
}

int64_t read_proc_bytes(const char *path, const char *name)
{
    int64_t bytes = -1;
    const struct value wanted[] = {{name, &bytes}};
    for_each_item(path, '\n', take_value, &(struct values){wanted, ARRAY_COUNT(wanted)});
    return bytes;
}

/* VmRSS comes from per-CPU counters and may be off by hundreds of kB; smaps_rollup walks the tables. */
static void read_memory(struct process_facts *facts)
{
    const struct value wanted[] = {
        {"Rss:", &facts->rss_bytes},
        {"Anonymous:", &facts->anonymous_bytes},
        {"Private_Dirty:", &facts->private_dirty_bytes},
        {"AnonHugePages:", &facts->anon_huge_bytes},
    };
    for_each_item("/proc/self/smaps_rollup", '\n', take_value, &(struct values){wanted, ARRAY_COUNT(wanted)});
    if (facts->anonymous_bytes != -1) {
        facts->file_rss_bytes = facts->rss_bytes - facts->anonymous_bytes;
    }
    if (facts->rss_bytes == -1) {
        facts->rss_bytes = read_proc_bytes("/proc/self/status", "VmRSS:");
    }
    facts->page_table_bytes = read_proc_bytes("/proc/self/status", "VmPTE:");
}

/* ---- counts ---- */

static void count_item(const char *item, void *context)
{
    (void)item;
    (*(int64_t *)context)++;
}

struct mappings {
    int64_t mappings_count;
    int64_t libraries_count;
    int64_t last_library; /* its number in its name */
};

/* The mappings of one library follow each other. [vsyscall] is shown in every process but is no mapping of
 * this one. */
static void count_mapping(const char *line, void *context)
{
    struct mappings *mappings = context;
    const char *library = strstr(line, LIBRARIES_FOLDER);
    mappings->mappings_count += strstr(line, "[vsyscall]") == NULL;
    if (library != NULL) {
        int64_t number = strtoll(library + strlen(LIBRARIES_FOLDER), NULL, 10);
        mappings->libraries_count += number != mappings->last_library;
        mappings->last_library = number;
    }
}

static void read_mappings(struct process_facts *facts)
{
    struct mappings mappings = {.last_library = -1};
    if (for_each_item("/proc/self/maps", '\n', count_mapping, &mappings)) {
        facts->mappings_count = mappings.mappings_count;
        facts->libraries_count = mappings.libraries_count;
    }
}

/* The number of entries of a directory, "." and ".." left out; -1 if it cannot be read. */
static int64_t count_entries(const char *path)
{
    int64_t count = 0;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count;
}

static int64_t count_children(void) /* the file is "17 23 42 "; kernels without CONFIG_PROC_CHILDREN lack it */
{
    int64_t count = 0;
    return for_each_item("/proc/thread-self/children", ' ', count_item, &count) ? count : -1;
}

static const struct process_facts UNKNOWN = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

struct process_facts read_memory_facts(void)
{
    struct process_facts facts = UNKNOWN;
    read_mappings(&facts);
    read_memory(&facts);
    return facts;
}

struct process_facts read_process_facts(void)
{
    struct process_facts facts = read_memory_facts(); /* first: counting entries allocates */
    int64_t descriptors = count_entries("/proc/self/fd");
    int64_t tasks = count_entries("/proc/self/task");
    facts.descriptors_count = descriptors == -1 ? -1 : descriptors - 1; /* without the one that reads */
    facts.threads_count = tasks == -1 ? -1 : tasks - 1;
    facts.children_count = count_children();
    return facts;
}

int64_t read_mapped_bytes(void)
{
    return read_proc_bytes("/proc/self/status", "VmSize:");
}
