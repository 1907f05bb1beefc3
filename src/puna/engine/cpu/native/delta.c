#include "delta.h"

#include "convolution.h"
#include "norms.h"

/* Where in a block a token's betas are; its decays follow. */
INLINE int64_t rates_at(const Delta *d, int place) {
    return (int64_t)BLOCK * delta_channels(d) * 2 + (int64_t)place * delta_rates(d) * 8;
}

void put_channels(const Delta *d, uint8_t *block, int place, int tile, const vf *v) {
    f_to_half((uint16_t *)block + (int64_t)place * delta_channels(d) + tile * LANES, f_finite(*v));
}

void put_betas(const Delta *d, uint8_t *block, int place, int tile, const vf *v) {
    f_store((float *)(block + rates_at(d, place)) + tile * LANES, f_sigmoid(*v));
}

/* log(1 + e^x): the larger of x and 0, and the logarithm of 1 + t with t in 0 … 1, by the series of the inverse of tanh. */
INLINE vf softplus(vf x) {
    vf t = f_exp(-f_abs(x)), u = t / (t + f_set(2)), z = u * u, p = f_set(1.0f / 15);
    p = f_fma(p, z, f_set(1.0f / 13)), p = f_fma(p, z, f_set(1.0f / 11)), p = f_fma(p, z, f_set(1.0f / 9));
    p = f_fma(p, z, f_set(1.0f / 7)), p = f_fma(p, z, f_set(1.0f / 5)), p = f_fma(p, z, f_set(1.0f / 3));
    p = f_fma(p, z, f_set(1));
    return f_max(x, f_set(0)) + f_set(2) * u * p;
}

void put_decays(const Delta *d, uint8_t *block, int place, int tile, const vf *v) {
    float *decays = (float *)(block + rates_at(d, place)) + delta_rates(d) + tile * LANES;
    f_store(decays, f_exp(softplus(*v) * f_load(d->decay + tile * LANES)));
}

/* A head's channels from `first` on, convolved and activated. */
static void activated(const Delta *d, const Trail *tokens, int position, int first, vf *out) {
    Filter filter = {d->filter, d->taps, delta_channels(d)};
    convolve(&filter, tokens, position, first, d->size / LANES, out);
    for (int i = 0; i < d->size / LANES; i++) out[i] *= f_sigmoid(out[i]);
}

/* To length `length`. */
static void stretch(vf *v, int width, float epsilon, float length, float *to) {
    vf s = f_set(0);
    for (int i = 0; i < width; i++) s = f_fma(v[i], v[i], s);
    float root = __builtin_sqrtf(f_sum(s));
    vf scale = f_set(length / (root > epsilon ? root : epsilon));
    for (int i = 0; i < width; i++) f_store(to + i * LANES, v[i] * scale);
}

/* 32 columns of a matrix, row by row [size][32]: even and odd rows are summed apart. `query` may be NULL. */
INLINE void change(float *m, int size, const float *key, const float *query, const vf *value, float decay, float beta, vf *out) {
    vf a = f_set(0), b = a, c = a, e = a, by = f_set(decay);
    for (int i = 0; i < size; i += 2) {
        vf k = f_set(key[i]), l = f_set(key[i + 1]);
        a = f_fma(f_load(m + i * GROUP), k, a), b = f_fma(f_load(m + i * GROUP + LANES), k, b);
        c = f_fma(f_load(m + (i + 1) * GROUP), l, c), e = f_fma(f_load(m + (i + 1) * GROUP + LANES), l, e);
    }
    vf x = (value[0] - (a + c) * by) * f_set(beta), y = (value[1] - (b + e) * by) * f_set(beta);
    a = b = c = e = f_set(0);
    for (int i = 0; i < size; i++) {
        float *row = m + i * GROUP;
        vf k = f_set(key[i]), v = f_fma(k, x, f_load(row) * by), w = f_fma(k, y, f_load(row + LANES) * by);
        f_store(row, v), f_store(row + LANES, w);
        if (!query) continue;
        vf q = f_set(query[i]);
        if (i % 2) c = f_fma(v, q, c), e = f_fma(w, q, e);
        else a = f_fma(v, q, a), b = f_fma(w, q, b);
    }
    if (query) out[0] = a + c, out[1] = b + e;
}

void absorb(const Delta *d, const Trail *tokens, int head, int position, float epsilon, float *matrix, vf *out) {
    float key[MOST_HEAD], query[MOST_HEAD];
    vf value[MOST_HEAD / LANES];
    int size = d->size, width = size / LANES, shared = head % d->keys;
    const float *rates = (const float *)(block_of(tokens, position) + rates_at(d, position % BLOCK));
    float beta = rates[head], decay = rates[delta_rates(d) + head];
    if (out) {
        activated(d, tokens, position, shared * size, value);
        stretch(value, width, epsilon, 1.0f / __builtin_sqrtf((float)size), query);
    }
    activated(d, tokens, position, (d->keys + shared) * size, value);
    stretch(value, width, epsilon, 1, key);
    activated(d, tokens, position, (2 * d->keys + head) * size, value);
    for (int i = 0; i < width; i += 2)
        change(matrix + (int64_t)i * LANES * size, size, key, out ? query : NULL, value + i, decay, beta, out ? out + i : NULL);
    if (out) norm_head(out, width, d->size, d->norm, epsilon);
}
