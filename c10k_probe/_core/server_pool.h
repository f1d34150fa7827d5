/*
 * server_pool.h - the threads of a model that has a fixed number of them: server.workers_count, made at the start, each
 * of which waits until there is something to take. One pool in a process. Sources: pthread_create(3),
 * pthread_cond_wait(3).
 */
#ifndef C10K_SERVER_POOL_H
#define C10K_SERVER_POOL_H

#include "server.h"

#include <pthread.h>

extern struct pool {
    pthread_mutex_t mutex;  /* of all here, and of what the model has its threads take */
    pthread_cond_t changed; /* there is something to take, or it is over */
    size_t idle_count;      /* threads that wait */
    bool is_ending;
    pthread_t *threads;
} pool;

/* Makes them, with the stack that was asked for, and returns when all wait. */
void pool_start(void *(*thread_main)(void *argument));

void pool_lock(void);
void pool_unlock(void);

/* In a thread, locked: until there is something to take or it is over. */
void pool_wait(bool (*is_there)(void));

/* Locked: one thread looks again, or all of them do, for the last time. */
void pool_wake_one(void);
void pool_end(void);

#endif
