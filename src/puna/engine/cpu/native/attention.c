#include "attention.h"

#define NOTHING (-1e30f) /* a score that weighs nothing beside any other */

INLINE vf finite(vf v) { return f_min(f_max(v, f_set(-65504)), f_set(65504)); } /* 0 * it must be 0 */

void put_key(uint8_t *block, int head, int place, int d, vf v) {
    uint16_t half[LANES], *to = (uint16_t *)block;
    (void)head;
    f_to_half(half, finite(v));
    for (int i = 0; i < LANES; i++) to[(d + i) * BLOCK + place] = half[i];
}

void put_value(uint8_t *block, int head, int place, int d, vf v) {
    f_to_half((uint16_t *)block + BLOCK * head + place * head + d, finite(v));
}

/* Blocks are walked in order with a running maximum. A position that a query may not see weighs exactly 0. */
INLINE void attend_n(const int N, const float *const *query, const int *from, const int *to, int segment,
                     const Keys *keys, Seen *seen) {
    enum { IN_FLIGHT = 2 }; /* blocks between what is computed and what is asked for */
    float weight[QUERIES][BLOCK] __attribute__((aligned(64)));
    float most[QUERIES];
    vf total[QUERIES];
    int D = keys->head, first = SEGMENT_BLOCKS, last = 0;
    float *out[QUERIES];
    for (int i = 0; i < N; i++) {
        out[i] = seen[i].values, most[i] = NOTHING, total[i] = f_set(0);
        for (int d = 0; d < D; d += LANES) f_store(out[i] + d, f_set(0));
        if (from[i] >= to[i]) continue;
        first = from[i] / BLOCK < first ? from[i] / BLOCK : first;
        last = (to[i] + BLOCK - 1) / BLOCK > last ? (to[i] + BLOCK - 1) / BLOCK : last;
    }
    const int32_t *blocks = keys->blocks + segment * SEGMENT_BLOCKS;
    for (int b = first; b < last; b++) {
        const uint16_t *k = (const uint16_t *)(keys->cache + blocks[b] * keys->stride), *v = k + BLOCK * D;
        const uint16_t *later = (const uint16_t *)(b + IN_FLIGHT < last
                                                       ? keys->cache + blocks[b + IN_FLIGHT] * keys->stride
                                                       : keys->later);
        vf x[QUERIES], y[QUERIES];
        UNROLL for (int i = 0; i < N; i++) x[i] = y[i] = f_set(0);
        for (int d = 0; d < D; d++) { /* scores of 32 tokens, a lane each */
            __builtin_prefetch(later + d * BLOCK);
            vf k0 = f_half(k + d * BLOCK), k1 = f_half(k + d * BLOCK + LANES);
            UNROLL for (int i = 0; i < N; i++) {
                vf q = f_set(query[i][d]);
                x[i] = f_fma(k0, q, x[i]), y[i] = f_fma(k1, q, y[i]);
            }
        }
        int end = 0; /* positions of this block that anybody sees: what was never written is never read */
        UNROLL for (int i = 0; i < N; i++) {
            int least = from[i] - b * BLOCK, past = to[i] - b * BLOCK, all = least <= 0 && past >= BLOCK;
            if (past <= 0 || least >= BLOCK || past <= least) {
                f_store(weight[i], f_set(0)), f_store(weight[i] + LANES, f_set(0));
                continue;
            }
            end = past >= BLOCK ? BLOCK : past > end ? past : end;
            if (keys->cap > 0) x[i] = f_capped(x[i], keys->cap), y[i] = f_capped(y[i], keys->cap);
            if (!all)
                x[i] = f_between(least, past, x[i], NOTHING),
                y[i] = f_between(least - LANES, past - LANES, y[i], NOTHING);
            float here = f_most(f_max(x[i], y[i]));
            if (here > most[i]) { /* else the factor would be exactly 1 */
                vf less = f_exp(f_set(most[i] - here));
                total[i] *= less;
                for (int d = 0; d < D; d += LANES) f_store(out[i] + d, f_load(out[i] + d) * less);
                most[i] = here;
            }
            vf e = f_exp(x[i] - f_set(most[i])), f = f_exp(y[i] - f_set(most[i]));
            if (!all) e = f_between(least, past, e, 0), f = f_between(least - LANES, past - LANES, f, 0);
            total[i] += e + f;
            f_store(weight[i], e), f_store(weight[i] + LANES, f);
        }
        for (int d = 0; d < D; d += 2 * LANES) {
            UNROLL for (int i = 0; i < N; i++) x[i] = f_load(out[i] + d), y[i] = f_load(out[i] + d + LANES);
            for (int t = 0; t < end; t++) {
                vf v0 = f_half(v + t * D + d), v1 = f_half(v + t * D + d + LANES);
                __builtin_prefetch(later + BLOCK * D + t * D + d);
                UNROLL for (int i = 0; i < N; i++) {
                    vf w = f_set(weight[i][t]);
                    x[i] = f_fma(v0, w, x[i]), y[i] = f_fma(v1, w, y[i]);
                }
            }
            UNROLL for (int i = 0; i < N; i++) f_store(out[i] + d, x[i]), f_store(out[i] + d + LANES, y[i]);
        }
    }
    for (int i = 0; i < N; i++) seen[i].most = most[i], seen[i].total = f_sum(total[i]);
}

typedef void Attend(const float *const *, const int *, const int *, int, const Keys *, Seen *);
#define ATTEND(N) \
    static void attend_##N(const float *const *q, const int *from, const int *to, int s, const Keys *k, Seen *o) { \
        attend_n(N, q, from, to, s, k, o); \
    }
ATTEND(1) ATTEND(2)
#if QUERIES > 2
ATTEND(3)
#endif
#if QUERIES > 3
ATTEND(4) ATTEND(5) ATTEND(6) ATTEND(7) ATTEND(8) ATTEND(9) ATTEND(10) ATTEND(11) ATTEND(12)
#endif
static Attend *const attends[QUERIES] = {
    attend_1, attend_2,
#if QUERIES > 2
    attend_3,
#endif
#if QUERIES > 3
    attend_4, attend_5, attend_6, attend_7, attend_8, attend_9, attend_10, attend_11, attend_12,
#endif
};

void attend(int count, const float *const *query, const int *from, const int *to, int segment, const Keys *keys,
            Seen *seen) {
    attends[count - 1](query, from, to, segment, keys, seen);
}

void merge(Seen *seen, const Seen *next, int head) {
    float most = seen->most > next->most ? seen->most : next->most;
    vf a = f_exp(f_set(seen->most - most)), b = f_exp(f_set(next->most - most));
    seen->total = __builtin_fmaf(seen->total, a[0], next->total * b[0]), seen->most = most;
    for (int d = 0; d < head; d += LANES)
        f_store(seen->values + d, f_fma(f_load(seen->values + d), a, f_load(next->values + d) * b));
}
