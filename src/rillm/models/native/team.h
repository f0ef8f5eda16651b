/* The threads of a forward pass: those of torch's OpenMP, so that no second pool competes with it.
 *
 * Work is split by phases; every phase ends in a barrier at which all threads wait.
 */
#pragma once

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    SPINS_BEFORE_YIELD = 2000
};

/* GOMP_parallel: run a function on so many threads, the caller among them. */
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    _Alignas(64) atomic_int entered;
    _Alignas(64) atomic_int waiting;
    _Alignas(64) atomic_int phase;
    _Alignas(64) atomic_int size;
} Team;

typedef struct {
    int64_t begin, end;
} Range;

/* The part of [0, count) that is for one thread. */
static inline Range share(int64_t count, int thread, int threads) {
    return (Range){count * thread / threads, count * (thread + 1) / threads};
}

static inline void barrier(Team *team) {
    int size = atomic_load_explicit(&team->size, memory_order_relaxed);
    if (size == 1) return;
    int phase = atomic_load_explicit(&team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->waiting, 1, memory_order_acq_rel) + 1 == size) {
        atomic_store_explicit(&team->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&team->phase, phase + 1, memory_order_release);
        return;
    }
    /* Yields after a while: on a busy machine the thread that is waited for may need this core. */
    for (int spins = 0; atomic_load_explicit(&team->phase, memory_order_acquire) == phase;
         spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            _mm_pause();
        else
            sched_yield();
    }
}
