/*
 * scheduling_token.c - giving and taking the token; the contract is in scheduling_token.h.
 */
#include "scheduling_token.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct place place_open(enum token_kind kind, enum scheduling_kind tasks, _Atomic uint32_t *word)
{
    int ends[2] = {-1, -1};
    if (kind == TOKEN_PIPE) {
        CHECK(pipe2(ends, O_CLOEXEC));
    } else if (kind == TOKEN_EVENTFD) {
        ends[0] = (int)CHECK(eventfd(0, EFD_CLOEXEC));
        ends[1] = (int)CHECK(fcntl(ends[0], F_DUPFD_CLOEXEC, 0)); /* so that both ends close alike */
    }
    return (struct place){
        .kind = kind,
        .take_fd = ends[0],
        .give_fd = ends[1],
        .word = word,
        .is_shared = tasks == KIND_PROCESSES,
    };
}

static void close_one(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

void place_close_take(struct place *place)
{
    close_one(&place->take_fd);
}

void place_close_give(struct place *place)
{
    close_one(&place->give_fd);
}

void place_give(const struct place *place)
{
    static const uint64_t one = 1;
    if (place->kind == TOKEN_FUTEX) {
        atomic_store_explicit(place->word, 1, memory_order_release);
        futex_wake(place->word, 1, place->is_shared);
    } else {
        CHECK(write(place->give_fd, &one, place->kind == TOKEN_PIPE ? 1 : sizeof(one)));
    }
}

static void take_word(const struct place *place)
{
    do {
        if (futex_wait(place->word, 0, place->is_shared) == -1 && errno != EAGAIN && errno != EINTR) {
            fail_call("futex", "FUTEX_WAIT", errno);
        }
    } while (atomic_load_explicit(place->word, memory_order_acquire) == 0);
    atomic_store_explicit(place->word, 0, memory_order_relaxed);
}

void place_take(const struct place *place)
{
    uint64_t value = 0;
    if (place->kind == TOKEN_FUTEX) {
        take_word(place);
    } else if (CHECK(read(place->take_fd, &value, place->kind == TOKEN_PIPE ? 1 : sizeof(value))) == 0) {
        fail_call("read", "the token: the task before has ended", EPIPE);
    }
}
