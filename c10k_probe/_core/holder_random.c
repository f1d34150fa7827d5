/*
 * holder_random.c - random numbers that are the same for the same seed on every machine. The contract is in
 * holder.h. Source: splitmix64 (Steele, Lea, Flood 2014).
 */
#include "holder.h"

uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebU;
    return mixed ^ mixed >> 31;
}

uint64_t random_below(uint64_t *state, uint64_t limit)
{
    const uint64_t uneven = (0 - limit) % limit;
    uint64_t value;
    do {
        value = next_random(state);
    } while (value < uneven);
    return value % limit;
}
