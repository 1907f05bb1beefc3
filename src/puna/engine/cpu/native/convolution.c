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

void convolve_row(const Convolution *c, const Mixed *mixed, int position, int hidden, const float *after, const Rows *to,
                  int row) {
    const uint8_t *token[MOST_TAPS];
    int first = position + 1 < c->taps ? c->taps - 1 - position : 0;
    for (int i = first; i < c->taps; i++) {
        int at = position - c->taps + 1 + i;
        token[i] = mixed->cache + mixed->blocks[at / BLOCK] * mixed->stride + (int64_t)(at % BLOCK) * hidden * 2;
    }
    for (int d = 0; d < hidden; d += GROUP) {
        vf a = f_set(0), b = f_set(0);
        for (int i = first; i < c->taps; i++) { /* the oldest first */
            const float *w = c->filter + (int64_t)i * hidden + d;
            a = f_fma(f_half(token[i] + 2 * d), f_load(w), a);
            b = f_fma(f_half(token[i] + 2 * (d + LANES)), f_load(w + LANES), b);
        }
        put_group(to, row, d / GROUP, a * f_load(after + d), b * f_load(after + d + LANES));
    }
}
