/* Each kernel is one inline function over R rows, instantiated for R = 1 … ROWS: rows only share loads, so a row's sums
 * have the same order whatever R is. Sums of bytes are exact; sums of floats go through the groups in order. */
#include "products.h"

#include "packing.h"

/* Bytes of weights asked for ahead (beyond the tile's end comes the next one): into the second cache, which waits for more
 * lines at once than the first does. */
enum { AHEAD = 8192 };
#define FETCH(w, lines) for (int i = 0; i < (lines); i++) __builtin_prefetch((w) + AHEAD + LINE * i, 0, 2)

#define EACH(R) UNROLL for (int r = 0; r < (R); r++)

/* What stands behind the bytes of a group of R rows. */
INLINE vf act_scale(const uint8_t *a, int R, int r) { return f_set(((const f32_at *)(a + R * 32))[r]); }
INLINE vf act_sum(const uint8_t *a, int R, int r) { return f_set(((const f32_at *)(a + R * 36))[r]); }
INLINE int32_t act_bias(const uint8_t *a, int R, int r) { return ((const i32_at *)(a + R * 40))[r]; }
INLINE int32_t act_half(const uint8_t *a, int R, int r, int h) { return ((const i16_at *)(a + R * 44))[2 * r + h]; }
INLINE vi act_word(const uint8_t *a, int r, int j) { return i_set((int32_t)((const u32_at *)(a + r * 32))[j]); }

/* Two words of nibbles from vector v; with fifth bits from `high` (or no `high`). */
INLINE void words_of(const uint8_t *w, int v, const vi *high, vi *even, vi *odd) {
    vi both = i_load(w + LINE * v), low = i_set(0x0f0f0f0f);
    *even = both & low, *odd = (vi)((vu)both >> 4) & low;
    if (high) {
        const vi bit = i_set(0x10101010);
        int j = 2 * v;
        *even |= (j < 4 ? *high << (4 - j) : (vi)((vu)*high >> (j - 4))) & bit;
        j++;
        *odd |= (j < 4 ? *high << (4 - j) : (vi)((vu)*high >> (j - 4))) & bit;
    }
}

/* FOUR and FIVE: two sums of floats a row, of scales and of minima, so that neither waits for the other. */
INLINE void with_minima(const int R, const int five, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS], least[ROWS];
    EACH(R) sum[r] = least[r] = f_set(0);
    for (int g = 0; g < groups; g++, w += five ? 384 : 320, a += R * ROW_GROUP) {
        vi s[ROWS], high = five ? i_load(w + 256) : i_set(0), x, y;
        const uint8_t *scales = w + (five ? 320 : 256);
        FETCH(w, five ? 6 : 5);
        EACH(R) s[r] = i_set(0);
        UNROLL for (int v = 0; v < 4; v++) {
            words_of(w, v, five ? &high : 0, &x, &y);
            EACH(R) s[r] = i_dot4(s[r], x, act_word(a, r, 2 * v));
            EACH(R) s[r] = i_dot4(s[r], y, act_word(a, r, 2 * v + 1));
        }
        vf scale = f_half(scales), minimum = f_half(scales + 32);
        EACH(R) {
            sum[r] = f_fma(f_of(s[r]) * act_scale(a, R, r), scale, sum[r]);
            least[r] = f_fma(minimum, act_sum(a, R, r), least[r]);
        }
    }
    EACH(R) out[r] = sum[r] + least[r];
}

/* FOUR_0 and FIVE_0: what is taken off each weight is taken off the sum it starts with. */
INLINE void around_zero(const int R, const int five, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS];
    const uint8_t *scales = w + groups * (five ? 320 : 256);
    EACH(R) sum[r] = f_set(0);
    for (int g = 0; g < groups; g++, w += five ? 320 : 256, scales += 32, a += R * ROW_GROUP) {
        vi s[ROWS], high = five ? i_load(w + 256) : i_set(0), x, y;
        FETCH(w, five ? 5 : 4);
        EACH(R) s[r] = i_set(act_bias(a, R, r) / (five ? 8 : 16));
        UNROLL for (int v = 0; v < 4; v++) {
            words_of(w, v, five ? &high : 0, &x, &y);
            EACH(R) s[r] = i_dot4(s[r], x, act_word(a, r, 2 * v));
            EACH(R) s[r] = i_dot4(s[r], y, act_word(a, r, 2 * v + 1));
        }
        vf scale = f_half(scales);
        EACH(R) sum[r] = f_fma(f_of(s[r]) * act_scale(a, R, r), scale, sum[r]);
    }
    EACH(R) out[r] = sum[r];
}

/* CURVE and MX: nibbles choose bytes. */
INLINE void looked_up(const int R, const int8_t *values, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS];
    const uint8_t *scales = w + groups * 256;
    uint8_t table[16];
    for (int i = 0; i < 16; i++) table[i] = (uint8_t)values[i] ^ 0x80;
    EACH(R) sum[r] = f_set(0);
    for (int g = 0; g < groups; g++, w += 256, scales += 32, a += R * ROW_GROUP) {
        vi s[ROWS], x, y;
        FETCH(w, 4);
        EACH(R) s[r] = i_set(BIASED ? act_bias(a, R, r) : 0);
        UNROLL for (int v = 0; v < 4; v++) {
            words_of(w, v, 0, &x, &y);
            x = i_bytes(table, x), y = i_bytes(table, y);
            EACH(R) s[r] = i_dot8(s[r], x, act_word(a, r, 2 * v));
            EACH(R) s[r] = i_dot8(s[r], y, act_word(a, r, 2 * v + 1));
        }
        vf scale = f_half(scales);
        EACH(R) sum[r] = f_fma(f_of(s[r]) * act_scale(a, R, r), scale, sum[r]);
    }
    EACH(R) out[r] = sum[r];
}

INLINE void eight(const int R, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS];
    const uint8_t *scales = w + groups * 512;
    EACH(R) sum[r] = f_set(0);
    for (int g = 0; g < groups; g++, w += 512, scales += 32, a += R * ROW_GROUP) {
        vi s[ROWS];
        FETCH(w, 8);
        EACH(R) s[r] = i_set(BIASED ? act_bias(a, R, r) : 0);
        UNROLL for (int j = 0; j < 8; j++) {
            vi x = i_load(w + LINE * j);
            EACH(R) s[r] = i_dot8(s[r], x, act_word(a, r, j));
        }
        vf scale = f_half(scales);
        EACH(R) sum[r] = f_fma(f_of(s[r]) * act_scale(a, R, r), scale, sum[r]);
    }
    EACH(R) out[r] = sum[r];
}

INLINE void six(const int R, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS];
    EACH(R) sum[r] = f_set(0);
    for (int g = 0; g < groups; g += SUPER, w += 3392) {
        vf d = f_load((const float *)(w + SUPER * 416));
        for (int i = 0; i < SUPER; i++, a += R * ROW_GROUP) {
            const uint8_t *at = w + i * 384, *steps = w + SUPER * 384 + i * 32;
            vi s[ROWS], x, y;
            vf both[ROWS];
            FETCH(at, 6);
            UNROLL for (int h = 0; h < 2; h++) {
                vi upper = i_load(at + 256 + LINE * h), bits = i_set(0x30303030);
                vf step = f_of(i_of_bytes(steps + 16 * h));
                EACH(R) s[r] = i_set(-32 * act_half(a, R, r, h));
                words_of(at, 2 * h, 0, &x, &y);
                x |= upper << 4 & bits, y |= upper << 2 & bits;
                EACH(R) s[r] = i_dot4(s[r], x, act_word(a, r, 4 * h));
                EACH(R) s[r] = i_dot4(s[r], y, act_word(a, r, 4 * h + 1));
                words_of(at, 2 * h + 1, 0, &x, &y);
                x |= upper & bits, y |= (vi)((vu)upper >> 2) & bits;
                EACH(R) s[r] = i_dot4(s[r], x, act_word(a, r, 4 * h + 2));
                EACH(R) s[r] = i_dot4(s[r], y, act_word(a, r, 4 * h + 3));
                if (h) EACH(R) both[r] = f_fma(f_of(s[r]), step, both[r]);
                else EACH(R) both[r] = f_of(s[r]) * step;
            }
            EACH(R) sum[r] = f_fma(both[r] * act_scale(a, R, r), d, sum[r]);
        }
    }
    EACH(R) out[r] = sum[r];
}

INLINE void two(const int R, const uint8_t *w, const uint8_t *a, int groups, vf *out) {
    vf sum[ROWS];
    EACH(R) sum[r] = f_set(0);
    for (int g = 0; g < groups; g++, w += 256, a += R * ROW_GROUP) {
        FETCH(w, 4);
        UNROLL for (int h = 0; h < 2; h++) {
            vi s[ROWS], fields = i_load(w + LINE * h), low = i_set(0x03030303);
            vf scale = f_half(w + 128 + 32 * h), minimum = f_half(w + 192 + 32 * h);
            EACH(R) s[r] = i_set(0);
            UNROLL for (int j = 0; j < 4; j++) {
                vi x = (vi)((vu)fields >> (2 * j)) & low;
                EACH(R) s[r] = i_dot4(s[r], x, act_word(a, r, 4 * h + j));
            }
            EACH(R) {
                vf weighted = f_fma(f_of(s[r]), scale, minimum * f_of(i_set(act_half(a, R, r, h))));
                sum[r] = f_fma(weighted, act_scale(a, R, r), sum[r]);
            }
        }
    }
    EACH(R) out[r] = sum[r];
}

/* Formats of floats: even and odd weights are summed apart, so that no multiplication waits for the one before. */
INLINE vf float_weights(const Format f, const uint8_t *w) {
    return f == HALF ? f_half(w) : f == BRAIN ? f_brain(w) : f_load((const float *)w);
}
INLINE void floats(const int R, const Format f, const uint8_t *w, const uint8_t *rows, int groups, vf *out) {
    const int size = f == SINGLE ? 64 : 32;
    const float *a = (const float *)rows;
    vf sum[2][ROWS];
    EACH(R) sum[0][r] = sum[1][r] = f_set(0);
    for (int i = 0; i < groups * GROUP; i += 2, w += 2 * size) {
        __builtin_prefetch(w + AHEAD, 0, 0);
        if (f == SINGLE) __builtin_prefetch(w + AHEAD + LINE, 0, 0);
        vf x = float_weights(f, w), y = float_weights(f, w + size);
        EACH(R) {
            sum[0][r] = f_fma(x, f_set(a[r * groups * GROUP + i]), sum[0][r]);
            sum[1][r] = f_fma(y, f_set(a[r * groups * GROUP + i + 1]), sum[1][r]);
        }
    }
    EACH(R) out[r] = sum[0][r] + sum[1][r];
}

typedef void Kernel(const uint8_t *w, const uint8_t *a, int groups, vf *out);

#define KERNEL(NAME, R, CALL) \
    static void NAME##_##R(const uint8_t *w, const uint8_t *a, int groups, vf *out) { CALL; }
#define KERNELS(R) \
    KERNEL(two, R, two(R, w, a, groups, out)) \
    KERNEL(four, R, with_minima(R, 0, w, a, groups, out)) \
    KERNEL(four_0, R, around_zero(R, 0, w, a, groups, out)) \
    KERNEL(five, R, with_minima(R, 1, w, a, groups, out)) \
    KERNEL(five_0, R, around_zero(R, 1, w, a, groups, out)) \
    KERNEL(six, R, six(R, w, a, groups, out)) \
    KERNEL(eight, R, eight(R, w, a, groups, out)) \
    KERNEL(curve, R, looked_up(R, curve_values[0], w, a, groups, out)) \
    KERNEL(mx, R, looked_up(R, curve_values[1], w, a, groups, out)) \
    KERNEL(half, R, floats(R, HALF, w, a, groups, out)) \
    KERNEL(brain, R, floats(R, BRAIN, w, a, groups, out)) \
    KERNEL(single, R, floats(R, SINGLE, w, a, groups, out))

#if ROWS == 8
#define ALL(NAME) {NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8}
KERNELS(1) KERNELS(2) KERNELS(3) KERNELS(4) KERNELS(5) KERNELS(6) KERNELS(7) KERNELS(8)
#elif ROWS == 4
#define ALL(NAME) {NAME##_1, NAME##_2, NAME##_3, NAME##_4}
KERNELS(1) KERNELS(2) KERNELS(3) KERNELS(4)
#elif ROWS == 3
#define ALL(NAME) {NAME##_1, NAME##_2, NAME##_3}
KERNELS(1) KERNELS(2) KERNELS(3)
#else
#define ALL(NAME) {NAME##_1, NAME##_2}
KERNELS(1) KERNELS(2)
#endif

static Kernel *const kernels[FORMATS][ROWS] = {
    [TWO] = ALL(two),     [FOUR] = ALL(four), [FOUR_0] = ALL(four_0), [FIVE] = ALL(five),
    [FIVE_0] = ALL(five_0), [SIX] = ALL(six),   [EIGHT] = ALL(eight),   [CURVE] = ALL(curve),
    [MX] = ALL(mx),       [HALF] = ALL(half), [BRAIN] = ALL(brain),   [SINGLE] = ALL(single),
};

void product_tile(const Matrix *m, int tile, const Rows *rows, int row, vf *out) {
    int R = rows_of_tile(rows, row), groups = matrix_groups(m);
    const uint8_t *w = m->data + tile * matrix_tile_bytes(m);
    const uint8_t *a = is_float((Format)m->format) ? (const uint8_t *)floats_of_row(rows, row) : tile_of_row(rows, row);
    vf factor = f_load((const float *)w);
    kernels[m->format][R - 1](w + LINE, a, groups, out);
    if (m->bias) {
        vf bias = f_load(m->bias + tile * LANES);
        for (int r = 0; r < R; r++) out[r] = f_fma(out[r], factor, bias);
    } else
        for (int r = 0; r < R; r++) out[r] *= factor;
}
