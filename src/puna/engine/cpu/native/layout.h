/* How weights, activations and the cache lie in memory. The same for every instruction set.
 *
 * Weights. A tile is 16 rows of a matrix (outputs), one to a lane, over all of K in groups of 32. It begins with a line
 * of 16 floats, a factor for each row; then come the groups, then, in some formats, the scales of all groups; it ends on
 * a cache line, and tiles follow each other, so that a thread's share is one stream. Vector j of a group holds in lane l
 * the four weights 4j … 4j+3 of row l, a byte each, which is what a dot product of bytes wants; where weights are
 * narrower than a byte, two or four such vectors share one.
 *
 *   format  a weight is                 a group of 16 rows by 32 weights
 *   TWO     scale * q + minimum         2 vectors of four 2-bit fields; two scales, two minima (halves of 16 weights)
 *   FOUR    scale * q + minimum         4 vectors of two nibbles; scales, minima
 *   FOUR_0  scale * (q - 8)             4 vectors of two nibbles                            | scales behind
 *   FIVE    scale * q + minimum         as FOUR, and a vector of fifth bits: bit j of a byte belongs to vector j
 *   FIVE_0  scale * (q - 16)            as FOUR_0, and the fifth bits                       | scales behind
 *   SIX     d * scale * (q - 32)        4 vectors of nibbles, 2 of upper bits; scales of 16 weights are bytes, d of
 *                                       256 weights a float: 8 groups lie together
 *   EIGHT   scale * (q - 128)           8 vectors of bytes                                  | scales behind
 *   CURVE   scale * curve[q]            4 vectors of two nibbles (IQ4_NL, IQ4_XS)           | scales behind
 *   MX      scale * mx[q]               the same with MXFP4's values                        | scales behind
 *   HALF, BRAIN, SINGLE                 32 vectors, one a weight, in f16, bfloat16 or float
 *
 * Scales and minima are f16 after the row's factor was taken out of them.
 *
 * Activations. Rows in tiles of ROWS, the last one smaller. The R rows of a tile lie together group by group:
 *   R * 32 bytes q | R floats: scale | R floats: scale * sum(q) | R i32: -128 * sum(q) | R pairs of i16: sums of 16
 * Formats of floats read rows of floats instead, one after another.
 *
 * Cache. Blocks may follow each other or lie apart: a layer's are one stride from each other. For a layer, a block of 32 tokens and a head of keys, either
 *   keys transposed [D][32], then values [32][D], in f16, or
 *   keys in bytes, four elements of a token together: [D/4][32][4], plus 128; 32 scales (floats); values [32][D] in
 *   signed bytes; 32 scales.
 * For a layer of convolutions, a block of 32 tokens is what of them is convolved, [32][hidden] in f16. For one of linear
 * attention, it begins with what of them is convolved, [32][channels] in f16; then come [32][betas, decays], floats.
 */
#ifndef PUNA_LAYOUT_H
#define PUNA_LAYOUT_H

#include "vectors.h"

enum { GROUP = 32, LANES = 16, BLOCK = 32, SUPER = 8, LINE = 64 };
enum { ROW_GROUP = 48 }; /* bytes of a group of one row of activations */

typedef enum { TWO, FOUR, FOUR_0, FIVE, FIVE_0, SIX, EIGHT, CURVE, MX, HALF, BRAIN, SINGLE, FORMATS } Format;

/* Bytes of a group, and of its scales if they lie behind all groups. For SIX: of eight groups. */
INLINE int64_t group_bytes(Format f) {
    static const int16_t size[FORMATS] = {256, 320, 256, 384, 320, 3392, 512, 256, 256, 1024, 1024, 2048};
    return size[f];
}
INLINE int scales_behind(Format f) { return f == FOUR_0 || f == FIVE_0 || f == EIGHT || f == CURVE || f == MX; }
INLINE int is_float(Format f) { return f >= HALF; }
INLINE int64_t tile_bytes(Format f, int64_t groups) {
    int64_t bytes = LINE + (f == SIX ? (groups + SUPER - 1) / SUPER : groups) * group_bytes(f);
    return scales_behind(f) ? bytes + (groups * 32 + LINE - 1) / LINE * LINE : bytes;
}

typedef struct { /* one packed matrix. `bias`: one a row, or NULL */
    const uint8_t *data;
    const float *bias;
    int64_t bytes;
    int32_t format, outputs, k, unused;
} Matrix;

INLINE int matrix_tiles(const Matrix *m) { return (m->outputs + LANES - 1) / LANES; }
INLINE int matrix_groups(const Matrix *m) { return (m->k + GROUP - 1) / GROUP; }
INLINE int64_t matrix_tile_bytes(const Matrix *m) { return tile_bytes((Format)m->format, matrix_groups(m)); }

typedef struct { /* activations of some rows of `groups` * 32 numbers; either form may be missing */
    uint8_t *bytes;
    float *floats;
    int32_t groups, rows;
} Rows;

INLINE int rows_of_tile(const Rows *a, int row) {
    int left = a->rows - row / ROWS * ROWS;
    return left < ROWS ? left : ROWS;
}
INLINE uint8_t *tile_of_row(const Rows *a, int row) {
    return a->bytes + (int64_t)(row / ROWS * ROWS) * a->groups * ROW_GROUP;
}
INLINE float *floats_of_row(const Rows *a, int row) { return a->floats + (int64_t)row * a->groups * GROUP; }

/* 32 numbers into a group of a row, in whatever forms it has. The bytes depend on these 32 numbers alone. */
INLINE void put_group(const Rows *to, int row, int group, vf a, vf b) {
    if (to->floats) {
        float *f = floats_of_row(to, row) + group * GROUP;
        f_store(f, a), f_store(f + LANES, b);
    }
    if (!to->bytes) return;
    int R = rows_of_tile(to, row), r = row % ROWS;
    uint8_t *at = tile_of_row(to, row) + (int64_t)group * R * ROW_GROUP;
    float most = f_most(f_max(f_abs(a), f_abs(b)));
    float scale = most * (1.0f / 127), back = most > 1e-30f ? 127.0f / most : 0;
    vi x = (vi)f_fma(a, f_set(back), f_set(ROUNDER)) - i_set(ROUNDER_BITS);
    vi y = (vi)f_fma(b, f_set(back), f_set(ROUNDER)) - i_set(ROUNDER_BITS);
    int first = i_sum(x), second = i_sum(y), sum = (int)((uint32_t)first + (uint32_t)second);
    *(v8_at *)(at + r * 32) = __builtin_convertvector(x, v8_at);
    *(v8_at *)(at + r * 32 + 16) = __builtin_convertvector(y, v8_at);
    ((f32_at *)(at + R * 32))[r] = scale;
    ((f32_at *)(at + R * 36))[r] = scale * (float)sum;
    ((i32_at *)(at + R * 40))[r] = (int32_t)(-128u * (uint32_t)sum);
    ((i16_at *)(at + R * 44))[2 * r] = (int16_t)first;
    ((i16_at *)(at + R * 44))[2 * r + 1] = (int16_t)second;
}

typedef struct { /* one sequence's tokens in a layer's cache */
    const uint8_t *cache;
    int64_t stride;
    const int32_t *blocks;
} Trail;

INLINE const uint8_t *block_of(const Trail *t, int position) { return t->cache + t->blocks[position / BLOCK] * t->stride; }

#endif
