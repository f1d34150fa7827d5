/*
 * readiness_sockets.c - the sockets that are watched: distinct connected pairs of AF_UNIX streams, both ends
 * watched, and the order in which tokens travel over them. The contract is in readiness_parts.h.
 *
 * Random numbers: SplitMix64 (Steele, Lea, Flood 2014); permutations: Fisher and Yates. Source: socketpair(2).
 */
#include "readiness_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct sockets sockets;

void *touched_memory(size_t bytes)
{
    void *memory = CHECK_POINTER(malloc(bytes > 0 ? bytes : 1));
    memset(memory, 0, bytes);
    return memory;
}

/* ---- random numbers ---- */

static uint64_t next_random(void)
{
    uint64_t value = sockets.dice += UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* By the upper half of a product: the bias is under bound / 2^32. */
uint32_t sockets_random_below(uint32_t bound)
{
    return (uint32_t)((next_random() >> 32) * bound >> 32);
}

void sockets_shuffle(uint32_t *numbers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t other = sockets_random_below(i + 1);
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
}

/* ---- sockets ---- */

void sockets_plan(uint32_t watched_count, uint32_t active_count, uint32_t short_lived_count, uint64_t seed)
{
    sockets.watched_count = watched_count;
    sockets.active_count = active_count;
    sockets.positions_count = watched_count + short_lived_count;
    sockets.dice = seed;
    /* One more: of an odd number the last pair has an end that is not watched. */
    sockets.ends = touched_memory((sockets.positions_count + 1) * sizeof(sockets.ends[0]));
    sockets.travel = touched_memory(watched_count * sizeof(sockets.travel[0]));
}

static void close_pairs(uint32_t opened_count)
{
    for (uint32_t i = 0; i < opened_count; i++) {
        close(sockets.ends[i].read_fd);
    }
}

static _Noreturn void give_up(uint32_t opened_count, int error_number)
{
    char text[64];
    close_pairs(opened_count);
    snprintf(text, sizeof text, "%u of %u descriptors are open", opened_count, sockets.watched_count);
    fail_call("socketpair", text, error_number);
}

static void link_in_order_of_travel(void)
{
    sockets_shuffle(sockets.travel, sockets.watched_count);
    for (uint32_t i = 0; i < sockets.watched_count; i++) {
        const uint32_t next = sockets.travel[(i + 1) % sockets.watched_count];
        struct end *end = &sockets.ends[sockets.travel[i]];
        end->next = next;
        end->write_fd = sockets.ends[next ^ 1].read_fd; /* its peer */
    }
}

void sockets_open(void)
{
    for (uint32_t i = 0; i < sockets.watched_count; i += 2) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
            give_up(i, errno);
        }
        sockets.ends[i].read_fd = pair[0];
        sockets.ends[i + 1].read_fd = pair[1];
    }
    link_in_order_of_travel();
}

void sockets_close(void)
{
    close_pairs(sockets.watched_count + sockets.watched_count % 2);
    free(sockets.ends);
    free(sockets.travel);
}
