#define _GNU_SOURCE
#include "threads.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "room.h"

#if defined(_WIN32)
#include <process.h>
#include <windows.h>
#else
#include <pthread.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* phase << 40 | end << 20 | next: one word, one truth. The phase's lower 24 bits are enough to tell a late thread. */
typedef struct { _Alignas(LINE) _Atomic uint64_t word; } Share;

typedef struct { Team *team; int me; } Start;

struct Team {
    int threads, started;
    Start start[MOST_THREADS];
#if defined(_WIN32)
    HANDLE thread[MOST_THREADS];
#else
    pthread_t thread[MOST_THREADS];
#endif
#if !defined(_WIN32) && !defined(__linux__)
    pthread_mutex_t lock;
    pthread_cond_t changed;
#endif
    _Alignas(LINE) _Atomic uint32_t phase; /* the one under way; it never falls, over all work */
    _Alignas(LINE) _Atomic int left;       /* units of it that are not done */
    _Alignas(LINE) _Atomic int sleepers;
    _Alignas(LINE) _Atomic uint32_t job; /* odd: what follows is being written */
    _Atomic int stop;
    Work *work;
    uint32_t first; /* phase of the work */
    _Alignas(16) unsigned char context[TEAM_CONTEXT];
    Share share[MOST_THREADS];
};

enum { SPINS = 3000 }; /* looks before sleeping: some microseconds, about as long as threads differ in a phase */

static void relax(void) {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_on(Team *t, _Atomic uint32_t *word, uint32_t value) {
#if defined(__linux__)
    (void)t, syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
#elif defined(_WIN32)
    (void)t, WaitOnAddress((volatile void *)word, &value, sizeof value, INFINITE);
#else
    pthread_mutex_lock(&t->lock);
    if (atomic_load(word) == value) pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
#endif
}

static void wake_all(Team *t, _Atomic uint32_t *word) {
#if defined(__linux__)
    (void)t, syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, MOST_THREADS, 0, 0, 0);
#elif defined(_WIN32)
    (void)t, WakeByAddressAll((void *)word);
#else
    (void)word;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
#endif
}

/* Until `word` is no longer `value`: awake for a while, then asleep. */
static void wait_change(Team *t, _Atomic uint32_t *word, uint32_t value) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        relax();
    }
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(word) == value) sleep_on(t, word, value);
    atomic_fetch_sub(&t->sleepers, 1);
}

/* Sequentially consistent, as the count of sleepers is: one of both sees the other. */
static void change(Team *t, _Atomic uint32_t *word) {
    atomic_fetch_add(word, 1);
    if (atomic_load(&t->sleepers)) wake_all(t, word);
}

static void share_out(Team *t, uint32_t phase, int units) {
    uint64_t tag = (uint64_t)(phase & 0xffffff) << 40;
    atomic_store_explicit(&t->left, units, memory_order_relaxed);
    for (int i = 0; i < t->threads; i++) {
        uint64_t from = (uint64_t)units * (uint64_t)i / (uint64_t)t->threads;
        uint64_t to = (uint64_t)units * (uint64_t)(i + 1) / (uint64_t)t->threads;
        atomic_store_explicit(&t->share[i].word, tag | to << UNIT_BITS | from, memory_order_release);
    }
}

int take(Turn *turn, int chunk, int *from, int *to) {
    Team *t = turn->team;
    for (int i = 0; i < t->threads; i++) {
        _Atomic uint64_t *word = &t->share[(turn->me + i) % t->threads].word;
        uint64_t now = atomic_load_explicit(word, memory_order_acquire);
        for (;;) {
            int next = (int)(now & MOST_UNITS), end = (int)(now >> UNIT_BITS & MOST_UNITS);
            int size = end - next < chunk ? end - next : chunk;
            if (now >> 40 != (turn->phase & 0xffffff) || size <= 0) break;
            if (atomic_compare_exchange_weak_explicit(word, &now, now + (uint64_t)size, memory_order_acq_rel,
                                                      memory_order_acquire)) {
                *from = next, *to = next + size, turn->mine += size;
                return 1;
            }
        }
    }
    return 0;
}

int under_way(const Turn *turn) {
    return atomic_load_explicit(&turn->team->phase, memory_order_acquire) == turn->phase;
}

int ended(Turn *turn) {
    Team *t = turn->team;
    int mine = turn->mine;
    turn->mine = 0;
    if (mine && atomic_fetch_sub(&t->left, mine) == mine) return 1;
    if (under_way(turn)) wait_change(t, &t->phase, turn->phase);
    turn->phase++;
    return 0;
}

void begin(Turn *turn, int units) {
    share_out(turn->team, turn->phase + 1, units);
    change(turn->team, &turn->team->phase);
    turn->phase++;
}

void meet(Turn *turn, int units) {
    if (ended(turn)) begin(turn, units);
}

void leave(Turn *turn) {
    if (ended(turn)) {
        atomic_store_explicit(&turn->team->left, 0, memory_order_relaxed);
        change(turn->team, &turn->team->phase);
        turn->phase++;
    }
}

static void serve(Start *start) {
    Team *t = start->team;
    unsigned char context[TEAM_CONTEXT] __attribute__((aligned(16)));
    for (uint32_t seen = 0;;) {
        wait_change(t, &t->job, seen);
        seen = atomic_load(&t->job);
        if (atomic_load(&t->stop)) return;
        if (seen & 1) {
            relax();
            continue;
        }
        Work *work = t->work;
        Turn turn = {t, start->me, t->first, 0};
        memcpy(context, t->context, TEAM_CONTEXT);
        /* Copied while the next job was being written: not this one's. Nothing was looked at. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load(&t->job) == seen) work(context, &turn);
    }
}

void team_run(Team *t, Work *work, const void *context, int size, int units) {
    Turn turn = {t, 0, atomic_load(&t->phase), 0};
    unsigned char own[TEAM_CONTEXT] __attribute__((aligned(16)));
    atomic_fetch_add(&t->job, 1);
    atomic_thread_fence(memory_order_release); /* nothing of this job is seen before its number */
    memcpy(t->context, context, (size_t)size);
    memcpy(own, context, (size_t)size);
    t->work = work, t->first = turn.phase;
    share_out(t, turn.phase, units);
    change(t, &t->job);
    work(own, &turn);
}

#if defined(_WIN32)
static unsigned __stdcall enter(void *start) { serve(start); return 0; }
#else
static void *enter(void *start) { serve(start); return NULL; }
#endif

static int start_thread(Team *t, int i) {
    t->start[i] = (Start){t, i};
#if defined(_WIN32)
    t->thread[i] = (HANDLE)_beginthreadex(NULL, 0, enter, &t->start[i], 0, NULL);
    return t->thread[i] != 0;
#else
    return pthread_create(&t->thread[i], NULL, enter, &t->start[i]) == 0;
#endif
}

Team *team_create(int threads) {
    Team *t = room(sizeof *t);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    t->threads = threads;
#if !defined(_WIN32) && !defined(__linux__)
    pthread_mutex_init(&t->lock, NULL), pthread_cond_init(&t->changed, NULL);
#endif
    for (t->started = 1; t->started < threads; t->started++)
        if (!start_thread(t, t->started)) {
            team_destroy(t);
            return NULL;
        }
    return t;
}

void team_destroy(Team *t) {
    atomic_store(&t->stop, 1);
    change(t, &t->job);
    change(t, &t->job);
    for (int i = 1; i < t->started; i++) {
#if defined(_WIN32)
        WaitForSingleObject(t->thread[i], INFINITE), CloseHandle(t->thread[i]);
#else
        pthread_join(t->thread[i], NULL);
#endif
    }
    give_back(t);
}

int team_threads(const Team *t) { return t->threads; }
