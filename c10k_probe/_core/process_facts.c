/*
 * process_facts.c - the size of this process, from /proc/self; the contract is in process_facts.h.
 */
#include "process_facts.h"

#include "helper.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char proc_text[64 * 1024]; /* no stdio here: its buffers would be one more allocation */

/* The start of a file of /proc as a string in proc_text; empty when the file cannot be read. */
static void read_proc(const char *path)
{
    size_t used = 0;
    ssize_t got = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor != -1) {
        while ((got = read(descriptor, proc_text + used, sizeof(proc_text) - 1 - used)) > 0) {
            used += (size_t)got;
        }
        close(descriptor);
    }
    proc_text[used] = '\0';
}

/* The value of a line "name:   123 kB" in bytes, -1 if the file or the line is missing. */
static int64_t read_proc_bytes(const char *path, const char *name)
{
    read_proc(path);
    const char *line = strstr(proc_text, name);
    return line == NULL ? -1 : strtoll(line + strlen(name), NULL, 10) * 1024;
}

static int64_t count_mappings(void)
{
    int64_t count = 0;
    read_proc("/proc/self/maps");
    for (const char *at = proc_text; (at = strchr(at, '\n')) != NULL; at++) {
        count++;
    }
    /* [vsyscall] is shown in every process but is no mapping of this one. */
    return count - (strstr(proc_text, "[vsyscall]") != NULL);
}

static int64_t count_descriptors(void)
{
    int64_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) {
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count - 1; /* without the one that reads */
}

struct process_facts read_process_facts(void)
{
    struct process_facts facts;
    facts.descriptors_count = count_descriptors();
    facts.mappings_count = count_mappings();
    /* VmRSS comes from per-CPU counters and may be off by hundreds of kB; smaps_rollup walks the tables. */
    facts.rss_bytes = read_proc_bytes("/proc/self/smaps_rollup", "\nRss:");
    if (facts.rss_bytes == -1) {
        facts.rss_bytes = read_proc_bytes("/proc/self/status", "\nVmRSS:");
    }
    facts.page_table_bytes = read_proc_bytes("/proc/self/status", "\nVmPTE:");
    return facts;
}
