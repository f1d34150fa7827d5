/*
 * holder_samples.c - some of a stream of values whose length is not known before, in room that is. The
 * contract is in holder.h.
 *
 * One of each `every` values is kept, at a random place among them: a fixed place would always meet the same
 * connection wherever their number divides `every`, as epoll gives them in turn.
 */
#include "holder.h"

#include <string.h>

/* Which value is kept next; the first of its block when there is no room for it yet. */
static void choose_next(struct samples *samples)
{
    samples->next = samples->count * samples->every;
    if (samples->count < samples->capacity) {
        samples->next += (int64_t)random_below(&samples->random, (uint64_t)samples->every);
    }
}

int64_t samples_room(int64_t values_count)
{
    return values_count < settings.samples_count ? values_count + 1 : settings.samples_count;
}

struct samples samples_new(int64_t capacity)
{
    capacity = capacity < 2 ? 2 : capacity - capacity % 2; /* they are halved */
    return (struct samples){
        .values = array_new(capacity * (int64_t)sizeof(int64_t)), .capacity = capacity, .every = 1};
}

void samples_free(struct samples *samples)
{
    array_free(samples->values, samples->capacity * (int64_t)sizeof(int64_t));
    *samples = (struct samples){0};
}

/* Of each two neighbours one stays. */
static void halve(struct samples *samples)
{
    for (int64_t i = 0; i < samples->count / 2; i++) {
        samples->values[i] = samples->values[2 * i + (int64_t)(next_random(&samples->random) >> 63)];
    }
    samples->count /= 2;
    samples->every *= 2;
}

void samples_add(struct samples *samples, int64_t value)
{
    const int64_t place = samples->seen_count++;
    if (place != samples->next) {
        return;
    }
    if (samples->count == samples->capacity) {
        halve(samples);
        choose_next(samples);
    }
    if (place == samples->next) {
        samples->values[samples->count++] = value;
        choose_next(samples);
    }
}

void samples_join(struct samples *into, struct samples *from)
{
    while (into->every < from->every) {
        halve(into);
    }
    while (from->every < into->every) {
        halve(from);
    }
    const int64_t item_bytes = (int64_t)sizeof(int64_t), count = into->count + from->count;
    struct samples joined = *into;
    joined.capacity = count + 2;
    joined.values = array_new(joined.capacity * item_bytes);
    memcpy(joined.values, into->values, (size_t)(into->count * item_bytes));
    memcpy(joined.values + into->count, from->values, (size_t)(from->count * item_bytes));
    joined.count = count;
    joined.seen_count += from->seen_count;
    samples_free(into);
    *into = joined;
}
