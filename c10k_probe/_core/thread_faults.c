/*
 * thread_faults.c - two faults that threads can have, made on purpose and as small as they get.
 *
 * --fault lost-update: two threads add to one counter, reading and writing it in two steps. `updates` tells how many
 * additions were made and how many are missing; it goes on for --rounds at most, until one is.
 * --fault lock-order: two threads take two mutexes in opposite order, each when the other has its first. `waits` tells
 * of each what it is about to wait for, and who has that; nothing follows it.
 * --care on: the same with a mutex around the addition, with one order for both: nothing is lost, and it ends.
 *
 * A data race is undefined behaviour in C (C17 5.1.2.4): `volatile` only keeps the compiler from making one addition of
 * all. Sources: pthread_mutex_lock(3p), pthread_barrier_wait(3p).
 */
#include "helper.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>

enum fault { LOST_UPDATE, LOCK_ORDER };
enum { THREADS_COUNT = 2 };

static int64_t fault, is_careful, updates_count = 1000000, rounds_count = 100;
static volatile int64_t counter;
static pthread_mutex_t mutexes[THREADS_COUNT] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static pthread_barrier_t together;
static int holder_of[THREADS_COUNT], wanted_by[THREADS_COUNT]; /* thread by mutex, mutex by thread */

static void wait_for_the_other(void)
{
    (void)pthread_barrier_wait(&together); /* it only tells which thread was last */
}

static void *add(void *unused)
{
    wait_for_the_other();
    for (int64_t i = 0; i < updates_count; i++) {
        if (is_careful) {
            CHECK_PTHREAD(pthread_mutex_lock(&mutexes[0]));
        }
        const int64_t seen = counter;
        counter = seen + 1;
        if (is_careful) {
            CHECK_PTHREAD(pthread_mutex_unlock(&mutexes[0]));
        }
    }
    return unused;
}

static void tell_waits(void)
{
    emit_part("{\"type\":\"waits\",\"waits\":[");
    for (int i = 0; i < THREADS_COUNT; i++) {
        emit_part("%s[\"thread %d\",\"mutex %d\",\"thread %d\"]", i > 0 ? "," : "", i + 1, wanted_by[i] + 1,
                  holder_of[wanted_by[i]] + 1);
    }
    emit("]}");
}

static void *take_both(void *number)
{
    const int self = (int)(intptr_t)number, first = is_careful ? 0 : self;
    CHECK_PTHREAD(pthread_mutex_lock(&mutexes[first]));
    if (!is_careful) {
        holder_of[first] = self;
        wanted_by[self] = 1 - first;
        wait_for_the_other();
        if (first == 0) {
            tell_waits();
        }
    }
    CHECK_PTHREAD(pthread_mutex_lock(&mutexes[1 - first]));
    CHECK_PTHREAD(pthread_mutex_unlock(&mutexes[1 - first]));
    CHECK_PTHREAD(pthread_mutex_unlock(&mutexes[first]));
    return number;
}

static void run(void *(*work)(void *))
{
    pthread_t threads[THREADS_COUNT];
    for (intptr_t i = 0; i < THREADS_COUNT; i++) {
        CHECK_PTHREAD(pthread_create(&threads[i], NULL, work, (void *)i));
    }
    for (int i = 0; i < THREADS_COUNT; i++) {
        CHECK_PTHREAD(pthread_join(threads[i], NULL));
    }
}

static void lose_updates(void)
{
    int64_t made_count = 0, lost_count = 0;
    for (int64_t round = 0; round < rounds_count && lost_count == 0; round++) {
        counter = 0;
        run(add);
        made_count += THREADS_COUNT * updates_count;
        lost_count += THREADS_COUNT * updates_count - counter;
    }
    emit("{\"type\":\"updates\",\"updates_count\":%" PRId64 ",\"lost_count\":%" PRId64 "}", made_count, lost_count);
}

int main(int argc, char **argv)
{
    static const char *const faults[] = {[LOST_UPDATE] = "lost-update", [LOCK_ORDER] = "lock-order", NULL};
    static const char *const switches[] = {"off", "on", NULL};
    const struct helper_option options[] = {
        {.name = "--fault", .number = &fault, .choices = faults, .required = true},
        {.name = "--care", .number = &is_careful, .choices = switches},
        {.name = "--updates", .number = &updates_count, .minimum = 1, .maximum = INT_MAX},
        {.name = "--rounds", .number = &rounds_count, .minimum = 1, .maximum = INT_MAX},
    };
    helper_parse("thread_faults", argc, argv, options, ARRAY_COUNT(options));
    helper_start("thread_faults");
    CHECK_PTHREAD(pthread_barrier_init(&together, NULL, THREADS_COUNT));
    if (fault == LOST_UPDATE) {
        lose_updates();
    } else {
        run(take_both);
        emit("{\"type\":\"done\"}");
    }
    helper_end(1, 0);
    return 0;
}
