/*
 * holder_tables.c - descriptor tables: RLIMIT_NOFILE bounds each of them and not the process, so that one
 * process holds as many connections as it has tables for. A descriptor is good in its own table only, so each
 * has a thread that works in it. The contract is in holder.h.
 *
 * /proc/PID/fd shows the table of the first thread; that of another is in /proc/PID/task/TID/fd.
 *
 * Sources: clone(2) (CLONE_FILES), close_range(2) (CLOSE_RANGE_UNSHARE), getrlimit(2), sem_wait(3).
 */
#include "holder.h"

#include <limits.h>
#include <linux/close_range.h>
#include <unistd.h>

enum { STACK_BYTES = 128 * 1024 }; /* only what is touched is taken: three pages or so */

struct table tables[TABLES_MAX];
int64_t tables_count = 1;

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) { /* EINTR: stopped and continued */
    }
}

/* CLOSE_RANGE_UNSHARE: a table of its own, in which nothing but the standard streams is open. */
static void *work(void *argument)
{
    struct table *table = argument;
    CHECK(close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_UNSHARE));
    for (;;) {
        wait_for(&table->wanted);
        if (table->job == NULL) {
            return NULL;
        }
        table->job(table, table->argument);
        sem_post(&table->done);
    }
}

int table_thread_new(pthread_t *thread, void *(*start_routine)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, STACK_BYTES));
    const int number = pthread_create(thread, &attributes, start_routine, argument);
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
    return number;
}

bool tables_add(int *number)
{
    struct table *table = &tables[tables_count];
    *number = 0;
    if (tables_count == settings.tables_count) {
        return false;
    }
    *table = (struct table){.number = tables_count};
    CHECK(sem_init(&table->wanted, 0, 0));
    CHECK(sem_init(&table->done, 0, 0));
    *number = table_thread_new(&table->thread, work, table);
    tables_count += *number == 0;
    return *number == 0;
}

static void start(struct table *table, void (*job)(struct table *, void *), void *argument)
{
    table->job = job;
    table->argument = argument;
    sem_post(&table->wanted);
}

void table_run(struct table *table, void (*job)(struct table *table, void *argument), void *argument)
{
    if (table == tables) {
        job(table, argument);
        return;
    }
    start(table, job, argument);
    wait_for(&table->done);
}

void tables_run(void (*job)(struct table *table, void *argument), void *arguments, size_t argument_bytes)
{
    char *argument = arguments;
    for (int64_t i = 1; i < tables_count; i++) {
        start(&tables[i], job, argument == NULL ? NULL : argument + (size_t)i * argument_bytes);
    }
    job(tables, argument);
    for (int64_t i = 1; i < tables_count; i++) {
        wait_for(&tables[i].done);
    }
}

void tables_end(void)
{
    for (; tables_count > 1; tables_count--) {
        struct table *table = &tables[tables_count - 1];
        start(table, NULL, NULL);
        CHECK_PTHREAD(pthread_join(table->thread, NULL));
    }
}

int64_t tables_held_count(void)
{
    int64_t count = 0;
    for (int64_t i = 0; i < tables_count; i++) {
        count += tables[i].held.count;
    }
    return count;
}

/* By differences of the rounded sums up to each table, so that they add up. */
void tables_share(int64_t asked_count, int64_t *shares)
{
    const int64_t total_count = tables_held_count();
    int64_t before_count = 0, given_count = 0;
    for (int64_t i = 0; i < tables_count; i++) {
        before_count += tables[i].held.count;
        const int64_t due_count = total_count == 0 ? 0 : asked_count * before_count / total_count;
        shares[i] = due_count - given_count;
        given_count = due_count;
    }
}

int64_t table_index(const struct table *table, int64_t place)
{
    return table->number << 32 | place;
}
