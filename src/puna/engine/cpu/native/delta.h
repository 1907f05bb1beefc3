/* Linear attention by a gated delta rule: each head keeps a matrix that every token changes, in place of all keys and
 * values. What a token changes it by lies in the cache, so the matrix can always be computed anew from there. */
#ifndef PUNA_DELTA_H
#define PUNA_DELTA_H

#include "model.h"

/* Queries, keys and values of a token, all heads, before they are convolved. */
INLINE int delta_channels(const Delta *d) { return (2 * d->keys + d->values) * d->size; }

/* Numbers of a token's betas, and as many of its decays. */
INLINE int delta_rates(const Delta *d) { return (d->values + LANES - 1) / LANES * LANES; }

/* Bytes of a block: [32][channels] in f16, then [32][betas, decays] in floats. And of a state: a square matrix a head. */
INLINE int64_t delta_bytes(int keys, int values, int size) {
    return (int64_t)BLOCK * ((2 * keys + values) * (int64_t)size * 2 + (values + LANES - 1) / LANES * LANES * 8);
}
INLINE int64_t state_bytes(int values, int size) { return (int64_t)values * size * size * 4; }

/* 16 channels, betas or rates of decay of one token, as the products give them, into its place of a block. */
void put_channels(const Delta *d, uint8_t *block, int place, int tile, const vf *v);
void put_betas(const Delta *d, uint8_t *block, int place, int tile, const vf *v);
void put_decays(const Delta *d, uint8_t *block, int place, int tile, const vf *v);

/* Let the matrix of head `head` absorb the token at `position`. `out`: [size], what its query then finds there, normed;
 * or NULL. */
void absorb(const Delta *d, const Trail *tokens, int head, int position, float epsilon, float *matrix, vf *out);

#endif
