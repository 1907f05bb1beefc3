/* Short convolutions: what a layer has in place of attention. A row sees itself and the few tokens before it. */
#ifndef PUNA_CONVOLUTION_H
#define PUNA_CONVOLUTION_H

#include "model.h"

/* What a token leaves in the cache for those after it: [hidden] in f16, tokens of a block one after another. */
INLINE int64_t convolution_bytes(int hidden) { return (int64_t)BLOCK * hidden * 2; }

/* Of group `unit` and the rows that share a tile with `row`: what is convolved, 2 vectors a row, and what multiplies its
 * outcome. */
void split_group(const Convolution *c, int unit, const Rows *rows, int row, vf mixed[2][ROWS], vf after[2][ROWS]);

/* A group of one token into its place of a block. */
INLINE void put_mixed(uint8_t *block, int hidden, int place, int group, vf a, vf b) {
    uint16_t *to = (uint16_t *)block + (int64_t)place * hidden + group * GROUP;
    f_to_half(to, f_finite(a)), f_to_half(to + LANES, f_finite(b));
}

typedef struct { /* weights [taps][channels], the oldest token's first */
    const float *weights;
    int taps, channels;
} Filter;

/* `count` vectors of the token at `position`, from channel `first` on. Its block begins with [32][channels] in f16, as those
 * of the tokens before it do. Before the first token there is nothing, which weighs nothing. */
void convolve(const Filter *f, const Trail *tokens, int position, int first, int count, vf *out);

/* All channels of a token, multiplied by after [hidden], into row `row`. */
void convolve_row(const Filter *f, const Trail *tokens, int position, const float *after, const Rows *to, int row);

#endif
