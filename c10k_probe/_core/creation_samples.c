/*
 * creation_samples.c - takes, keeps and reports the samples; the contract is in creation_samples.h.
 *
 * Not timed: clearing the slot, writing the --rss pages again, storing. Sources: madvise(2) (MADV_DONTFORK),
 * getrusage(2) (RUSAGE_THREAD: the faults of the creating thread alone).
 */
#include "creation_samples.h"

#include "creation_state.h"
#include "helper.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { SHOCK_BYTES = 1024 * 1024, SAMPLE_COLUMNS = 5 };

void *allocate_values(size_t bytes)
{
    void *values = CHECK_POINTER(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
    CHECK(madvise(values, bytes, MADV_DONTFORK));
    memset(values, 0, bytes); /* MAP_POPULATE is a request that may fail in silence */
    return values;
}

struct samples allocate_samples(size_t capacity)
{
    int64_t *values = allocate_values(SAMPLE_COLUMNS * capacity * sizeof(*values));
    return (struct samples){
        .return_ns = values,
        .started_ns = values + capacity,
        .exec_ns = values + 2 * capacity,
        .cycle_ns = values + 3 * capacity,
        .child_faults = values + 4 * capacity,
        .capacity = capacity,
    };
}

/* ---- the first pass ---- */

/* Where no child ever shared the pages copy-on-write they are as they were: writing them again would only empty
 * the caches, and the method would seem to cost more the more memory there is. */
static void make_ready(const struct method *method, struct creation *creation)
{
    creation_clear(creation->slot);
    if (method->copies_memory) {
        state_dirty();
    }
}

static int create_once(const struct method *method, struct creation *creation)
{
    make_ready(method, creation);
    int error_number = method->create(creation);
    if (error_number == 0) {
        method->ending->await(creation);
    }
    return error_number;
}

static bool is_over(int64_t deadline_ns)
{
    return deadline_ns != 0 && now_ns() >= deadline_ns;
}

int warm_up(const struct method *method, struct slot *slot, struct samples *samples, size_t count,
            int64_t deadline_ns)
{
    struct creation creation = {.slot = slot};
    int error_number = 0;
    for (size_t i = 0; i < count && error_number == 0 && !(i > 0 && is_over(deadline_ns)); i++) {
        error_number = create_once(method, &creation);
        samples->warmups_count += error_number == 0;
    }
    return error_number;
}

void store_sample(const struct method *method, struct samples *samples, const struct creation *creation)
{
    if (!creation_is_stamped(method, creation)) {
        samples->dropped_count++;
        return;
    }
    samples->return_ns[samples->count] = creation->returned_ns - creation->before_ns;
    samples->started_ns[samples->count] = creation->slot->child_ns - creation->before_ns;
    samples->exec_ns[samples->count] = creation->slot->program_ns - creation->before_ns;
    samples->cycle_ns[samples->count] = creation->gone_ns - creation->before_ns;
    samples->child_faults[samples->count] = creation->child_faults_count;
    samples->count++;
}

int take_samples(const struct method *method, struct slot *slot, struct samples *samples, int64_t deadline_ns)
{
    struct creation creation = {.slot = slot};
    for (size_t i = 0; i < samples->capacity; i++) {
        if (i >= SAMPLES_LEAST && is_over(deadline_ns)) {
            break;
        }
        int error_number = create_once(method, &creation);
        if (error_number != 0) {
            return error_number;
        }
        store_sample(method, samples, &creation);
    }
    return 0;
}

/* ---- the second pass ---- */

static int64_t own_faults(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage));
    return usage.ru_minflt;
}

static int shock_once(const struct method *method, struct creation *creation, volatile char *region,
                      struct shocks *shocks)
{
    make_ready(method, creation);
    state_dirty_region(region, SHOCK_BYTES);
    int64_t faults_before = own_faults();
    int error_number = method->create(creation);
    if (error_number != 0) {
        return error_number;
    }
    int64_t before_ns = now_ns();
    state_dirty_region(region, SHOCK_BYTES);
    int64_t after_ns = now_ns();
    shocks->parent_faults[shocks->count] = own_faults() - faults_before;
    shocks->aftershock_ns[shocks->count] = after_ns - before_ns;
    shocks->count++;
    creation_release(creation->slot);
    method->ending->await(creation);
    return 0;
}

int take_shocks(const struct method *method, struct slot *slot, struct shocks *shocks, size_t capacity,
                int64_t deadline_ns)
{
    struct creation creation = {.slot = slot, .is_held = true};
    volatile char *region = state_map_touched(SHOCK_BYTES);
    *shocks = (struct shocks){
        .aftershock_ns = allocate_values(2 * capacity * sizeof(int64_t)),
        .capacity = capacity,
    };
    shocks->parent_faults = shocks->aftershock_ns + capacity;
    int error_number = 0;
    for (size_t i = 0; i < capacity && error_number == 0; i++) {
        if (i >= SAMPLES_LEAST && is_over(deadline_ns)) {
            break;
        }
        error_number = shock_once(method, &creation, region, shocks);
    }
    return error_number;
}

/* ---- the report ---- */

void emit_values(const char *name, const int64_t *values, size_t count, bool applies)
{
    emit_part(",\"%s\":", name);
    if (applies) {
        emit_int64_array("", values, count);
    } else {
        emit_part("null");
    }
}

void emit_samples(const struct method *method, const struct samples *samples, const struct shocks *shocks)
{
    const struct ending *ending = method->ending;
    bool has_shocks = shocks->aftershock_ns != NULL;
    emit_begin("{\"type\":\"samples\",\"method\":\"%s\"", method->name);
    emit_part(",\"warmups_count\":%zu", samples->warmups_count);
    emit_values("return_ns", samples->return_ns, samples->count, true);
    emit_values("started_ns", samples->started_ns, samples->count, method->has_started);
    emit_values("exec_ns", samples->exec_ns, samples->count, method->has_exec);
    emit_values("cycle_ns", samples->cycle_ns, samples->count, ending->has_cycle);
    emit_values("child_faults_count", samples->child_faults, samples->count, ending->has_child_faults);
    emit_values("aftershock_ns", shocks->aftershock_ns, shocks->count, has_shocks);
    emit_values("parent_faults_count", shocks->parent_faults, shocks->count, has_shocks);
    emit_finish("}");
}
