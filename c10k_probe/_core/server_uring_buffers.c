/*
 * server_uring_buffers.c - buffers in slabs of 256. The contract is in server_uring_buffers.h.
 */
#include "server_uring_buffers.h"

#if C10K_HAVE_URING

#include "server.h"

#include <stdlib.h>

enum { SLAB_COUNT = 256, BUFFERS_MOST = 8192, SLABS_MOST = BUFFERS_MOST / SLAB_COUNT };

static struct ring_buffers buffers;
static char *slabs[SLABS_MOST];
static int slabs_count;
static bool has_freed;

/* Of each buffer that is in a chain. */
static struct {
    uint16_t next, bytes;
} links[BUFFERS_MOST];

char *buffer_memory(uint16_t number)
{
    return slabs[number / SLAB_COUNT] + (size_t)(number % SLAB_COUNT) * SERVER_BUFFER_BYTES;
}

void buffer_free(uint16_t number)
{
    ring_put_buffer(&buffers, number, buffer_memory(number), (uint32_t)server_receive_bytes());
    has_freed = true;
}

bool buffers_give_back(void)
{
    const bool had_freed = has_freed;
    if (had_freed) {
        ring_give_buffers(&buffers);
        has_freed = false;
    }
    return had_freed;
}

bool buffers_add_more(void)
{
    char *slab = slabs_count < SLABS_MOST ? malloc((size_t)SLAB_COUNT * SERVER_BUFFER_BYTES) : NULL;
    if (slab == NULL) {
        return false;
    }
    const int first = slabs_count * SLAB_COUNT;
    slabs[slabs_count++] = slab;
    for (int number = first; number < first + SLAB_COUNT; number++) {
        buffer_free((uint16_t)number);
    }
    (void)buffers_give_back();
    return true;
}

void buffers_open(const struct ring *ring)
{
    if (ring_open_buffers(&buffers, ring, BUFFERS_MOST) < 0) {
        if (errno == EINVAL) {
            unsupported("io_uring: a ring of buffers that the kernel chooses from needs Linux 5.19 or later");
        }
        fail_call("io_uring_register", "IORING_REGISTER_PBUF_RING", errno);
    }
    if (!buffers_add_more()) {
        fail_call("malloc", "buffers", ENOMEM);
    }
}

void buffers_close(void)
{
    ring_close_buffers(&buffers);
    while (slabs_count > 0) {
        free(slabs[--slabs_count]);
    }
}

void chain_put(struct answer_chain *chain, uint16_t number, uint16_t bytes)
{
    links[number].next = NO_BUFFER;
    links[number].bytes = bytes;
    if (chain->count == 0) {
        chain->first = number;
        chain->sent_bytes = 0;
    } else {
        links[chain->last].next = number;
    }
    chain->last = number;
    chain->count++;
}

uint16_t chain_first_bytes(const struct answer_chain *chain)
{
    return links[chain->first].bytes;
}

void chain_drop_first(struct answer_chain *chain)
{
    const uint16_t number = chain->first;
    chain->first = links[number].next;
    chain->sent_bytes = 0;
    chain->count--;
    buffer_free(number);
}

void chain_drop_all(struct answer_chain *chain)
{
    while (chain->count > 0) {
        chain_drop_first(chain);
    }
}

#endif
