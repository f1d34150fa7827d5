/*
 * http_sender_places.c - which connections are free and which wait for an answer. The contract is in http_sender.h.
 *
 * Requests are given to connections in their order, so those that wait for an answer stand in the order of their
 * moments: the oldest is the first of a list, and time-outs cost nothing until they happen.
 */
#include "http_sender.h"

#include <stdlib.h>

struct place *places;

static int32_t oldest = -1, newest = -1; /* of those that are busy */
static int32_t *free_places, free_first; /* a ring: who has been free for longest is the next */
static int64_t free_count, busy_count;

void places_new(void)
{
    places = CHECK_POINTER(calloc((size_t)asked.connections_count, sizeof *places));
    free_places = CHECK_POINTER(calloc((size_t)asked.connections_count, sizeof *free_places));
    for (int32_t i = 0; i < asked.connections_count; i++) {
        places[i].fd = -1;
        places_give_back(i);
    }
}

void places_give_back(int32_t place)
{
    free_places[(free_first + free_count++) % asked.connections_count] = place;
}

int32_t places_take(void)
{
    if (free_count == 0) {
        return -1;
    }
    const int32_t place = free_places[free_first];
    free_first = (int32_t)((free_first + 1) % asked.connections_count);
    free_count--;
    return place;
}

void places_join_busy(int32_t number)
{
    struct place *place = &places[number];
    place->is_busy = true;
    place->earlier = newest;
    place->later = -1;
    *(newest < 0 ? &oldest : &places[newest].later) = number;
    newest = number;
    busy_count++;
}

void places_leave_busy(int32_t number)
{
    struct place *place = &places[number];
    place->is_busy = false;
    *(place->earlier < 0 ? &oldest : &places[place->earlier].later) = place->later;
    *(place->later < 0 ? &newest : &places[place->later].earlier) = place->earlier;
    busy_count--;
}

int32_t places_oldest(void)
{
    return oldest;
}

int64_t places_busy_count(void)
{
    return busy_count;
}

int64_t places_connected_count(void)
{
    int64_t count = 0;
    for (int32_t i = 0; i < asked.connections_count; i++) {
        count += places[i].is_connected;
    }
    return count;
}
