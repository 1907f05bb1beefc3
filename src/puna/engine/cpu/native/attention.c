#include "attention.h"

#define NOTHING (-1e30f) /* a score that weighs nothing beside any other */

/* Where the parts of a block of bytes begin. */
INLINE int64_t key_scales(int D) { return (int64_t)BLOCK * D; }
INLINE int64_t byte_values(int D) { return key_scales(D) + BLOCK * 4; }
INLINE int64_t value_scales(int D) { return byte_values(D) + (int64_t)BLOCK * D; }

float to_bytes(const vf *v, int width, int8_t *to) {
    vf most = f_set(0);
    for (int i = 0; i < width; i++) most = f_max(most, f_abs(v[i]));
    float whole = f_most(most), back = whole > 1e-30f ? 127.0f / whole : 0;
    for (int i = 0; i < width; i++) {
        vi x = (vi)f_fma(v[i], f_set(back), f_set(ROUNDER)) - i_set(ROUNDER_BITS);
        *(v8_at *)(to + i * LANES) = __builtin_convertvector(x, v8_at);
    }
    return whole * (1.0f / 127);
}

void put_key(CacheType type, uint8_t *block, int head, int place, int d, int width, const vf *v) {
    if (type == CACHE_BYTES) {
        int8_t bytes[MOST_HEAD];
        ((float *)(block + key_scales(head)))[place] = to_bytes(v, width, bytes);
        for (int j = 0; j < head / 4; j++)
            *(u32_at *)(block + (j * BLOCK + place) * 4) = *(const u32_at *)(bytes + 4 * j) ^ 0x80808080u;
        return;
    }
    uint16_t half[LANES], *to = (uint16_t *)block;
    for (int w = 0; w < width; w++, d += LANES) {
        f_to_half(half, f_finite(v[w]));
        for (int i = 0; i < LANES; i++) to[(d + i) * BLOCK + place] = half[i];
    }
}

void put_value(CacheType type, uint8_t *block, int head, int place, int d, int width, const vf *v) {
    if (type == CACHE_BYTES) {
        int8_t *to = (int8_t *)block + byte_values(head) + place * head;
        ((float *)(block + value_scales(head)))[place] = to_bytes(v, width, to);
        return;
    }
    for (int w = 0; w < width; w++)
        f_to_half((uint16_t *)block + (BLOCK + place) * head + d + w * LANES, f_finite(v[w]));
}

/* Scores of 32 tokens, a lane each. */
INLINE void scores(const int N, const CacheType type, const Query *query, const uint8_t *block, const uint8_t *later,
                   int D, vf *x, vf *y) {
    if (type == CACHE_HALVES) {
        UNROLL for (int i = 0; i < N; i++) x[i] = y[i] = f_set(0);
        for (int d = 0; d < D; d++) {
            const uint8_t *k = block + (int64_t)d * BLOCK * 2;
            __builtin_prefetch(later + (int64_t)d * BLOCK * 2);
            vf k0 = f_half(k), k1 = f_half(k + LANES * 2);
            UNROLL for (int i = 0; i < N; i++) {
                vf q = f_set(query[i].floats[d]);
                x[i] = f_fma(k0, q, x[i]), y[i] = f_fma(k1, q, y[i]);
            }
        }
        return;
    }
    vi s[QUERIES], u[QUERIES];
    UNROLL for (int i = 0; i < N; i++) s[i] = u[i] = i_set(BIASED ? query[i].bias : 0);
    for (int j = 0; j < D / 4; j++) {
        const uint8_t *k = block + (int64_t)j * BLOCK * 4;
        __builtin_prefetch(later + (int64_t)j * BLOCK * 4), __builtin_prefetch(later + (int64_t)j * BLOCK * 4 + LINE);
        vi k0 = i_load(k), k1 = i_load(k + LINE);
        UNROLL for (int i = 0; i < N; i++) {
            vi q = i_set((int32_t) * (const u32_at *)(query[i].bytes + 4 * j));
            s[i] = i_dot8(s[i], k0, q), u[i] = i_dot8(u[i], k1, q);
        }
    }
    const float *scale = (const float *)(block + key_scales(D));
    vf first = f_load(scale), second = f_load(scale + LANES);
    UNROLL for (int i = 0; i < N; i++) {
        vf q = f_set(query[i].scale);
        x[i] = f_of(s[i]) * first * q, y[i] = f_of(u[i]) * second * q;
    }
}

/* Values of token t, elements d … d+15. */
INLINE vf value(const CacheType type, const uint8_t *block, int D, int t, int d) {
    if (type == CACHE_HALVES) return f_half(block + ((int64_t)(BLOCK + t) * D + d) * 2);
    return f_of(i_of_bytes(block + byte_values(D) + t * D + d));
}

/* Blocks are walked in order with a running maximum. A position that a query may not see weighs exactly 0. */
INLINE void attend_n(const int N, const CacheType type, const Query *query, const int *from, const int *to, int segment,
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
        const uint8_t *block = keys->cache + blocks[b] * keys->stride;
        const uint8_t *later = b + IN_FLIGHT < last ? keys->cache + blocks[b + IN_FLIGHT] * keys->stride : keys->later;
        vf x[QUERIES], y[QUERIES];
        scores(N, type, query, block, later, D, x, y);
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
            if (type == CACHE_BYTES) {
                const float *scale = (const float *)(block + value_scales(D));
                e *= f_load(scale), f *= f_load(scale + LANES);
            }
            f_store(weight[i], e), f_store(weight[i] + LANES, f);
        }
        for (int d = 0; d < D; d += 2 * LANES) {
            UNROLL for (int i = 0; i < N; i++) x[i] = f_load(out[i] + d), y[i] = f_load(out[i] + d + LANES);
            for (int t = 0; t < end; t++) {
                vf v0 = value(type, block, D, t, d), v1 = value(type, block, D, t, d + LANES);
                if (type == CACHE_HALVES) __builtin_prefetch(later + ((int64_t)(BLOCK + t) * D + d) * 2);
                else if (d % LINE == 0) __builtin_prefetch(later + byte_values(D) + t * D + d);
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

typedef void Attend(const Query *, const int *, const int *, int, const Keys *, Seen *);
#define ATTEND(N) \
    static void halves_##N(const Query *q, const int *from, const int *to, int s, const Keys *k, Seen *o) { \
        attend_n(N, CACHE_HALVES, q, from, to, s, k, o); \
    } \
    static void bytes_##N(const Query *q, const int *from, const int *to, int s, const Keys *k, Seen *o) { \
        attend_n(N, CACHE_BYTES, q, from, to, s, k, o); \
    }
#if QUERIES == 12
#define ALL(NAME) {NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8, NAME##_9, NAME##_10, NAME##_11, NAME##_12}
ATTEND(1) ATTEND(2) ATTEND(3) ATTEND(4) ATTEND(5) ATTEND(6) ATTEND(7) ATTEND(8) ATTEND(9) ATTEND(10) ATTEND(11) ATTEND(12)
#elif QUERIES == 3
#define ALL(NAME) {NAME##_1, NAME##_2, NAME##_3}
ATTEND(1) ATTEND(2) ATTEND(3)
#else
#define ALL(NAME) {NAME##_1, NAME##_2}
ATTEND(1) ATTEND(2)
#endif
static Attend *const attends[2][QUERIES] = {[CACHE_HALVES] = ALL(halves), [CACHE_BYTES] = ALL(bytes)};

void attend(int count, const Query *query, const int *from, const int *to, int segment, const Keys *keys, Seen *seen) {
    attends[keys->type][count - 1](query, from, to, segment, keys, seen);
}

void merge(Seen *seen, const Seen *next, int head) {
    float most = seen->most > next->most ? seen->most : next->most;
    vf a = f_exp(f_set(seen->most - most)), b = f_exp(f_set(next->most - most));
    seen->total = __builtin_fmaf(seen->total, a[0], next->total * b[0]), seen->most = most;
    for (int d = 0; d < head; d += LANES)
        f_store(seen->values + d, f_fma(f_load(seen->values + d), a, f_load(next->values + d) * b));
}
