#include "convolution.h"

#include "products.h"

void split_group(const Convolution *c, int unit, const Rows *rows, int row, vf mixed[2][ROWS], vf after[2][ROWS]) {
    vf input[ROWS];
    for (int i = 0; i < 2; i++) {
        product_tile(&c->before, 2 * unit + i, rows, row, mixed[i]);
        product_tile(&c->input, 2 * unit + i, rows, row, input);
        product_tile(&c->after, 2 * unit + i, rows, row, after[i]);
        for (int r = 0; r < rows_of_tile(rows, row); r++) mixed[i][r] *= input[r];
    }
}

void convolve(const Filter *f, const Trail *tokens, int position, int first, int count, vf *out) {
    const uint16_t *token[MOST_TAPS];
    int skipped = position + 1 < f->taps ? f->taps - 1 - position : 0;
    for (int i = skipped; i < f->taps; i++) {
        int at = position - f->taps + 1 + i;
        token[i] = (const uint16_t *)block_of(tokens, at) + (int64_t)(at % BLOCK) * f->channels + first;
    }
    for (int j = 0; j < count; j++) {
        out[j] = f_set(0);
        for (int i = skipped; i < f->taps; i++) /* the oldest first */
            out[j] = f_fma(f_half(token[i] + j * LANES), f_load(f->weights + (int64_t)i * f->channels + first + j * LANES), out[j]);
    }
}

void convolve_row(const Filter *f, const Trail *tokens, int position, const float *after, const Rows *to, int row) {
    enum { AT_ONCE = 32 };
    vf out[AT_ONCE];
    for (int d = 0; d < f->channels; d += AT_ONCE * LANES) {
        int left = (f->channels - d) / LANES, count = left < AT_ONCE ? left : AT_ONCE;
        convolve(f, tokens, position, d, count, out);
        for (int j = 0; j < count; j += 2) {
            const float *by = after + d + j * LANES;
            put_group(to, row, (d + j * LANES) / GROUP, out[j] * f_load(by), out[j + 1] * f_load(by + LANES));
        }
    }
}
