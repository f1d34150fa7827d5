/*
 * scheduling_work.c - work of a known amount, and the memory that it is done on.
 *
 * The loop is one chain: each multiplication needs the one before. Its speed is that of the multiplier, a
 * few cycles an iteration whatever the alignment; the empty asm keeps the compiler from computing many at
 * once.
 *
 * Calibration: 101 batches of 10,000 iterations; the median batch, as some are hit by interrupts. Sources:
 * proc(5) (MemAvailable), madvise(2) (MADV_NOHUGEPAGE).
 */
#include "scheduling.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CALIBRATION_BATCHES = 101, CALIBRATION_ITERATIONS = 10000, CACHE_LINE_BYTES = 64 };

__attribute__((noinline)) uint64_t work(uint64_t state, int64_t iterations)
{
    for (int64_t i = 0; i < iterations; i++) {
        state = state * UINT64_C(6364136223846793005) + 1;
        __asm__ volatile("" : "+r"(state));
    }
    return state;
}

static int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

struct calibration work_calibrate(void)
{
    int64_t batch_ns[CALIBRATION_BATCHES];
    uint64_t state = 1;
    for (int batch = 0; batch < CALIBRATION_BATCHES; batch++) {
        int64_t start_ns = now_ns();
        state = work(state, CALIBRATION_ITERATIONS);
        batch_ns[batch] = now_ns() - start_ns;
    }
    qsort(batch_ns, CALIBRATION_BATCHES, sizeof(batch_ns[0]), compare_int64);
    return (struct calibration){
        .iterations_count = CALIBRATION_ITERATIONS,
        .batch_ns = batch_ns[CALIBRATION_BATCHES / 2],
    };
}

int64_t work_iterations(const struct calibration *calibration, int64_t quantum_ns)
{
    double iteration_ns = (double)calibration->batch_ns / (double)calibration->iterations_count;
    int64_t iterations = (int64_t)((double)quantum_ns / iteration_ns + 0.5);
    return quantum_ns > 0 && iterations == 0 ? 1 : iterations;
}

void emit_calibration(const struct calibration *calibration)
{
    emit_part(",\"calibration_iterations_count\":%" PRId64 ",\"calibration_ns\":%" PRId64,
              calibration->iterations_count, calibration->batch_ns);
}

/* In order, so that the hardware fetches ahead: what a program that walks its data pays, not one that
 * jumps. */
__attribute__((noinline)) void work_touch(volatile uint64_t *set, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += CACHE_LINE_BYTES) {
        set[at / (int64_t)sizeof(*set)]++;
    }
}

static void *map_present(size_t bytes, int sharing)
{
    void *memory = CHECK_POINTER(mmap(NULL, bytes, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0));
    madvise(memory, bytes, MADV_NOHUGEPAGE); /* EINVAL where the kernel has none */
    memset(memory, 0, bytes);
    return memory;
}

void *memory_private(size_t bytes)
{
    return map_present(bytes, MAP_PRIVATE);
}

void *memory_shared(size_t bytes)
{
    return map_present(bytes, MAP_SHARED);
}

void memory_check(int64_t bytes)
{
    char line[128];
    int64_t available_kib = INT64_MAX / 1024;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        sscanf(line, "MemAvailable: %" SCNd64, &available_kib);
    }
    if (file != NULL) {
        fclose(file);
    }
    if (bytes > available_kib * 1024) {
        char text[64];
        snprintf(text, sizeof(text), "%" PRId64 " bytes for the working sets", bytes);
        fail_call("mmap", text, ENOMEM);
    }
}
