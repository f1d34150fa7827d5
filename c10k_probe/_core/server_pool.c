/*
 * server_pool.c - threads that wait for work. The contract is in server_pool.h.
 */
#include "server_pool.h"

#include <stdlib.h>

struct pool pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

void pool_lock(void)
{
    CHECK_PTHREAD(pthread_mutex_lock(&pool.mutex));
}

void pool_unlock(void)
{
    CHECK_PTHREAD(pthread_mutex_unlock(&pool.mutex));
}

void pool_wait(bool (*is_there)(void))
{
    pool.idle_count++;
    while (!is_there() && !pool.is_ending) {
        CHECK_PTHREAD(pthread_cond_wait(&pool.changed, &pool.mutex));
    }
    pool.idle_count--;
}

void pool_wake_one(void)
{
    CHECK_PTHREAD(pthread_cond_signal(&pool.changed));
}

void pool_end(void)
{
    pool.is_ending = true;
    CHECK_PTHREAD(pthread_cond_broadcast(&pool.changed));
}

static bool is_everyone_idle(void)
{
    pool_lock();
    const bool is_it = pool.idle_count == (size_t)server.workers_count;
    pool_unlock();
    return is_it;
}

/* Threads that still start are not busy: nobody must be told so. */
void pool_start(void *(*thread_main)(void *argument))
{
    pthread_attr_t attributes;
    CHECK_PTHREAD(pthread_attr_init(&attributes));
    if (server.stack_bytes > 0) {
        CHECK_PTHREAD(pthread_attr_setstacksize(&attributes, (size_t)server.stack_bytes));
    }
    pool.threads = CHECK_POINTER(calloc((size_t)server.workers_count, sizeof pool.threads[0]));
    for (int64_t i = 0; i < server.workers_count; i++) {
        CHECK_PTHREAD(pthread_create(&pool.threads[i], &attributes, thread_main, NULL));
    }
    CHECK_PTHREAD(pthread_attr_destroy(&attributes));
    (void)server_wait_until(is_everyone_idle);
}
