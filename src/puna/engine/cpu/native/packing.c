#include "packing.h"

/* Tensor types by ggml's numbers. Their blocks: ggml's common.h and quants.c. */
enum {
    G_F32 = 0, G_F16 = 1, G_Q4_0 = 2, G_Q4_1 = 3, G_Q5_0 = 6, G_Q5_1 = 7, G_Q8_0 = 8, G_Q2_K = 10, G_Q3_K = 11,
    G_Q4_K = 12, G_Q5_K = 13, G_Q6_K = 14, G_IQ4_NL = 20, G_IQ4_XS = 23, G_BF16 = 30, G_MXFP4 = 39, G_TYPES = 40
};

typedef struct { int8_t known, format; int16_t weights, bytes; } Type; /* weights and bytes of a block */

static const Type types[G_TYPES] = {
    [G_F32] = {1, SINGLE, 1, 4},       [G_F16] = {1, HALF, 1, 2},        [G_BF16] = {1, BRAIN, 1, 2},
    [G_Q4_0] = {1, FOUR_0, 32, 18},   [G_Q4_1] = {1, FOUR, 32, 20},     [G_Q5_0] = {1, FIVE_0, 32, 22},
    [G_Q5_1] = {1, FIVE, 32, 24},     [G_Q8_0] = {1, EIGHT, 32, 34},    [G_Q2_K] = {1, TWO, 256, 84},
    [G_Q3_K] = {1, SIX, 256, 110},    [G_Q4_K] = {1, FOUR, 256, 144},   [G_Q5_K] = {1, FIVE, 256, 176},
    [G_Q6_K] = {1, SIX, 256, 210},    [G_IQ4_NL] = {1, CURVE, 32, 18},  [G_IQ4_XS] = {1, CURVE, 256, 136},
    [G_MXFP4] = {1, MX, 32, 17},
};

const int8_t curve_values[2][16] = {
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
};

int format_of(int type) { return type >= 0 && type < G_TYPES && types[type].known ? types[type].format : -1; }

int64_t row_bytes(int type, int64_t k) {
    if (format_of(type) < 0 || k <= 0 || k > INT32_MAX || k % types[type].weights) return -1;
    return k / types[type].weights * types[type].bytes;
}

int64_t packed_bytes(int type, int64_t outputs, int64_t k) {
    if (row_bytes(type, k) < 0 || outputs <= 0 || outputs > INT32_MAX - LANES) return -1;
    return (outputs + LANES - 1) / LANES * tile_bytes((Format)format_of(type), (k + GROUP - 1) / GROUP);
}

/* Rows are read 16 at once, one to a lane: as they lie in a tile. All that is known of a type is in the two functions
 * that read a block's head and a group; they are inlined for each type. */
typedef struct { const uint8_t *row[LANES]; } Sixteen;

typedef uint32_t v4_at __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t v16 __attribute__((vector_size(32), may_alias));

#define MIX(a, b, A, B, C, D) \
    __builtin_shufflevector(a, b, A, B, C, D, A + 4, B + 4, C + 4, D + 4, A + 8, B + 8, C + 8, D + 8, A + 12, B + 12, \
                            C + 12, D + 12)

/* Four words of each row, from byte `at` on: vector j gets the j-th of every row. */
INLINE void four_words(const Sixteen *s, int64_t at, vu *to) {
    vu x[4]; /* rows i, i + 4, i + 8, i + 12 */
    UNROLL for (int i = 0; i < 4; i++) {
        v4_at a = *(const v4_at *)(s->row[i] + at), b = *(const v4_at *)(s->row[i + 4] + at);
        v4_at c = *(const v4_at *)(s->row[i + 8] + at), d = *(const v4_at *)(s->row[i + 12] + at);
        x[i] = __builtin_shufflevector(__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7),
                                       __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7), 0, 1, 2, 3, 4, 5, 6, 7, 8,
                                       9, 10, 11, 12, 13, 14, 15);
    }
    vu low = MIX(x[0], x[1], 0, 16, 1, 17), more = MIX(x[2], x[3], 0, 16, 1, 17);
    to[0] = MIX(low, more, 0, 1, 16, 17), to[1] = MIX(low, more, 2, 3, 18, 19);
    low = MIX(x[0], x[1], 2, 18, 3, 19), more = MIX(x[2], x[3], 2, 18, 3, 19);
    to[2] = MIX(low, more, 0, 1, 16, 17), to[3] = MIX(low, more, 2, 3, 18, 19);
}

/* One word, half word or byte of each row. */
#define GATHER(NAME, TYPE) \
    INLINE vu NAME(const Sixteen *s, int64_t at) { \
        uint32_t x[LANES] __attribute__((aligned(64))); \
        UNROLL for (int i = 0; i < LANES; i++) x[i] = *(const TYPE *)(s->row[i] + at); \
        return *(const vu *)x; \
    }
GATHER(a_word, u32_at)
GATHER(a_half, u16_at)
GATHER(a_byte, uint8_t)

INLINE vf f_of_half(vu bits) { /* of the lower 16 */
    v16 h = __builtin_convertvector(bits, v16);
    return f_half(&h);
}
INLINE vu u_set(uint32_t x) { return (vu)i_set((int32_t)x); }
INLINE vu byte_of(const vu *words, int i) { return words[i / 4] >> (i % 4 * 8) & u_set(255); }
INLINE vf f_of_bits(vu small) { return f_of((vi)small); }

typedef struct { vf d, least; vu word[4]; } Head; /* what is before the groups of a block, as far as it is scales */

typedef struct { /* 32 weights of each row: scale[half] * q + minimum[half], or scale[half] * curve[q] */
    vu q[8];     /* bytes, four to a word */
    vf scale[2], minimum[2];
    vi step[2];  /* SIX: a scale is d * step[half] */
} Group;

INLINE void read_head(const int type, const Sixteen *s, int64_t at, Head *h) {
    vu both;
    switch (type) {
    case G_Q4_1:
    case G_Q5_1: both = a_word(s, at), h->d = f_of_half(both), h->least = f_of_half(both >> 16); break;
    case G_Q2_K:
        four_words(s, at, h->word), both = a_word(s, at + 80);
        h->d = f_of_half(both), h->least = f_of_half(both >> 16);
        break;
    case G_Q3_K: { /* two bytes of weights, the twelve of the scales, d */
        vu x[4];
        four_words(s, at + 94, x);
        for (int i = 0; i < 3; i++) h->word[i] = x[i] >> 16 | x[i + 1] << 16;
        h->d = f_of_half(x[3] >> 16);
        break;
    }
    case G_Q4_K:
    case G_Q5_K:
        four_words(s, at, h->word);
        h->d = f_of_half(h->word[0]), h->least = f_of_half(h->word[0] >> 16);
        break;
    case G_Q6_K: four_words(s, at + 192, h->word), h->d = f_of_half(a_half(s, at + 208)); break;
    case G_IQ4_XS: four_words(s, at, h->word), h->d = f_of_half(h->word[0]); break;
    case G_MXFP4: { /* a power of two, as far down as floats go */
        vu e = a_byte(s, at), small = u_set(0x200000) + e * u_set(0x200000);
        h->d = f_pick((vi)e > i_set(1), (vf)((e - u_set(1)) << 23), (vf)small);
        break;
    }
    default: h->d = f_of_half(a_half(s, at));
    }
}

INLINE void one_scale(Group *g, vf scale, vf minimum) {
    g->scale[0] = g->scale[1] = scale, g->minimum[0] = g->minimum[1] = minimum;
}

/* 16 bytes of nibbles: the older types keep 16 weights in the low ones, then 16 in the high ones. */
INLINE void nibbles(const Sixteen *s, int64_t at, vu *q) {
    vu x[4];
    four_words(s, at, x);
    UNROLL for (int i = 0; i < 4; i++) q[i] = x[i] & u_set(0x0f0f0f0f), q[4 + i] = x[i] >> 4 & u_set(0x0f0f0f0f);
}

/* Some bits of 32 bytes: `mask` of them from `shift` on. */
INLINE void fields(const Sixteen *s, int64_t at, int shift, uint32_t mask, vu *q) {
    four_words(s, at, q), four_words(s, at + 16, q + 4);
    UNROLL for (int i = 0; i < 8; i++) q[i] = q[i] >> shift & u_set(mask * 0x01010101u);
}

/* Scale and minimum of part j in the 12 bytes that Q4_K and Q5_K share: six bits each. */
INLINE void six_bits(const vu *words, int j, vu *scale, vu *minimum) {
    vu first = byte_of(words, j % 4), second = byte_of(words, 4 + j % 4), third = byte_of(words, 8 + j % 4);
    if (j < 4) *scale = first & u_set(63), *minimum = second & u_set(63);
    else *scale = (third & u_set(15)) | first >> 6 << 4, *minimum = third >> 4 | second >> 6 << 4;
}

/* Group `part` of the block that begins at byte `at`. */
INLINE void read_group(const int type, const Sixteen *s, int64_t at, const Head *h, int part, Group *g) {
    vu more[8], scale, minimum;
    switch (type) {
    case G_Q4_0: one_scale(g, h->d, h->d * f_set(-8)), nibbles(s, at + 2, g->q); break;
    case G_Q4_1: one_scale(g, h->d, h->least), nibbles(s, at + 4, g->q); break;
    case G_Q5_0:
    case G_Q5_1: {
        int64_t bits = at + (type == G_Q5_0 ? 2 : 4);
        vu high = a_word(s, bits);
        one_scale(g, h->d, type == G_Q5_0 ? (vf)(h->d * f_set(-16)) : h->least), nibbles(s, bits + 4, g->q);
        UNROLL for (int i = 0; i < 8; i++) { /* four bits to the fifth bit of four bytes: no two meet */
            vu four = high >> (4 * i) & u_set(15);
            g->q[i] |= (four * u_set(0x00204081) & u_set(0x01010101)) << 4;
        }
        break;
    }
    case G_Q8_0:
        one_scale(g, h->d, h->d * f_set(-128));
        four_words(s, at + 2, g->q), four_words(s, at + 18, g->q + 4);
        UNROLL for (int i = 0; i < 8; i++) g->q[i] ^= u_set(0x80808080);
        break;
    case G_Q2_K:
        for (int i = 0; i < 2; i++) {
            vu both = byte_of(h->word, 2 * part + i);
            g->scale[i] = h->d * f_of_bits(both & u_set(15)), g->minimum[i] = -h->least * f_of_bits(both >> 4);
        }
        fields(s, at + 16 + part / 4 * 32, part % 4 * 2, 3, g->q);
        break;
    case G_Q3_K:
        for (int i = 0; i < 2; i++) {
            int j = 2 * part + i;
            vu low = byte_of(h->word, j % 8) >> (j / 8 * 4) & u_set(15);
            vu high = byte_of(h->word, 8 + j % 4) >> (j / 4 * 2) & u_set(3);
            g->step[i] = (vi)(low | high << 4) - i_set(32);
        }
        fields(s, at + 32 + part / 4 * 32, part % 4 * 2, 3, g->q), fields(s, at, part, 1, more);
        UNROLL for (int i = 0; i < 8; i++) g->q[i] = (g->q[i] | more[i] << 2) + u_set(0x1c1c1c1c);
        break;
    case G_Q4_K:
    case G_Q5_K:
        six_bits(h->word + 1, part, &scale, &minimum);
        one_scale(g, h->d * f_of_bits(scale), -h->least * f_of_bits(minimum));
        fields(s, at + (type == G_Q4_K ? 16 : 48) + part / 2 * 32, part % 2 * 4, 15, g->q);
        if (type == G_Q4_K) break;
        fields(s, at + 16, part, 1, more);
        UNROLL for (int i = 0; i < 8; i++) g->q[i] |= more[i] << 4;
        break;
    case G_Q6_K:
        for (int i = 0; i < 2; i++) g->step[i] = (vi)(byte_of(h->word, 2 * part + i) << 24) >> 24;
        fields(s, at + part / 4 * 64 + part % 2 * 32, part % 4 / 2 * 4, 15, g->q);
        fields(s, at + 128 + part / 4 * 32, part % 4 * 2, 3, more);
        UNROLL for (int i = 0; i < 8; i++) g->q[i] |= more[i] << 4;
        break;
    case G_IQ4_XS:
        scale = (h->word[1] >> (4 * part) & u_set(15)) | (h->word[0] >> (16 + 2 * part) & u_set(3)) << 4;
        one_scale(g, h->d * f_of((vi)scale - i_set(32)), f_set(0)), nibbles(s, at + 8 + part * 16, g->q);
        break;
    case G_IQ4_NL: one_scale(g, h->d, f_set(0)), nibbles(s, at + 2, g->q); break;
    case G_MXFP4: one_scale(g, h->d, f_set(0)), nibbles(s, at + 1, g->q); break;
    }
    if (types[type].format == SIX)
        for (int i = 0; i < 2; i++) g->scale[i] = h->d * f_of(g->step[i]), g->minimum[i] = g->scale[i] * f_set(-32);
}

/* `WORK` with each quantised type as a constant. */
#define FOR_TYPE(type, WORK) \
    switch (type) { \
    case G_Q4_0: WORK(G_Q4_0); break; \
    case G_Q4_1: WORK(G_Q4_1); break; \
    case G_Q5_0: WORK(G_Q5_0); break; \
    case G_Q5_1: WORK(G_Q5_1); break; \
    case G_Q8_0: WORK(G_Q8_0); break; \
    case G_Q2_K: WORK(G_Q2_K); break; \
    case G_Q3_K: WORK(G_Q3_K); break; \
    case G_Q4_K: WORK(G_Q4_K); break; \
    case G_Q5_K: WORK(G_Q5_K); break; \
    case G_Q6_K: WORK(G_Q6_K); break; \
    case G_IQ4_NL: WORK(G_IQ4_NL); break; \
    case G_IQ4_XS: WORK(G_IQ4_XS); break; \
    case G_MXFP4: WORK(G_MXFP4); break; \
    }

/* ------------------------------------------------------------------------------------------------------ as floats */

static float float_at(int type, const uint8_t *row, int64_t i) {
    float x;
    if (type == G_F16) return half(row + 2 * i);
    if (type == G_F32) memcpy(&x, row + 4 * i, 4);
    else {
        uint32_t bits = (uint32_t)*(const u16_at *)(row + 2 * i) << 16;
        memcpy(&x, &bits, 4);
    }
    return x;
}

/* The lanes are up to 16 blocks of the row. */
INLINE void unpack_blocks(const int type, const uint8_t *row, int64_t blocks, float *to) {
    const int size = types[type].bytes, parts = types[type].weights / GROUP, form = types[type].format;
    for (int64_t first = 0; first < blocks; first += LANES) {
        int count = blocks - first < LANES ? (int)(blocks - first) : LANES;
        Sixteen s;
        Head h;
        Group g;
        for (int i = 0; i < LANES; i++) s.row[i] = row + (first + (i < count ? i : 0)) * size;
        read_head(type, &s, 0, &h);
        for (int part = 0; part < parts; part++) {
            read_group(type, &s, 0, &h, part, &g);
            for (int lane = 0; lane < count; lane++)
                for (int i = 0; i < GROUP; i++) {
                    int q = (int)(g.q[i / 4][lane] >> (i % 4 * 8) & 255);
                    to[((first + lane) * parts + part) * GROUP + i] =
                        form == CURVE || form == MX
                            ? g.scale[i / 16][lane] * (float)curve_values[form == MX][q]
                            : __builtin_fmaf(g.scale[i / 16][lane], (float)q, g.minimum[i / 16][lane]);
                }
        }
    }
}

void unpack_row(int type, const uint8_t *row, int64_t k, float *to) {
    if (is_float((Format)types[type].format)) {
        for (int64_t i = 0; i < k; i++) to[i] = float_at(type, row, i);
        for (int64_t i = k; i % GROUP; i++) to[i] = 0;
        return;
    }
#define UNPACK(T) unpack_blocks(T, row, k / types[T].weights, to)
    FOR_TYPE(type, UNPACK)
}

/* ------------------------------------------------------------------------------------------------------- as tiles */

/* Types whose scales are products, or powers of two, and so may not fit f16: these are divided by a power of two that
 * puts the row's largest at the upper end of f16's range, where it has all its bits. */
INLINE int scales_are_products(int type) {
    return type == G_Q2_K || type == G_Q4_K || type == G_Q5_K || type == G_IQ4_XS || type == G_MXFP4;
}

static float power_of_two(int exponent) { /* of a normal float */
    uint32_t bits = (uint32_t)(exponent + 127) << 23;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE vf row_factors(const int type, const Sixteen *s, int64_t blocks) {
    vf most = f_set(0), factor = f_set(1);
    if (!scales_are_products(type)) return factor;
    for (int64_t block = 0; block < blocks; block++) {
        Head h;
        Group g;
        read_head(type, s, block * types[type].bytes, &h);
        UNROLL for (int part = 0; part < types[type].weights / GROUP; part++) {
            read_group(type, s, block * types[type].bytes, &h, part, &g);
            for (int i = 0; i < 2; i++) most = f_max(f_abs(g.scale[i]), most), most = f_max(f_abs(g.minimum[i]), most);
        }
    }
    for (int i = 0; i < LANES; i++) {
        int exponent = (int)(((vu)most)[i] >> 23) - 127 - 14;
        if (most[i] != 0 && exponent <= 112) factor[i] = power_of_two(exponent < -126 ? -126 : exponent);
    }
    return factor;
}

/* How weights share vectors: `many` of them in each byte, `bits` apart, and of each its bits `mask` from `shift` on. */
INLINE void put_words(uint8_t *at, const vu *q, vi real, int shift, uint32_t mask, int many, int bits) {
    UNROLL for (int v = 0; v < 8 / many; v++) {
        vu word = u_set(0);
        UNROLL for (int j = 0; j < many; j++)
            word |= (q[v * many + j] >> shift & u_set(mask * 0x01010101u)) << (j * bits);
        *(vi_at *)(at + v * LINE) = (vi)word & real;
    }
}

INLINE void put_halves(uint8_t *at, vf v, vi real) { f_to_half(at, f_pick(real, v, f_set(0))); }

/* `real`: the lanes that are rows; the others get zeros. */
INLINE void put_packed(const Format f, uint8_t *first, int64_t groups, int64_t index, const Head *h, const Group *g,
                       vf back, vi real) {
    uint8_t *at = first + index * group_bytes(f), *scales = first + groups * group_bytes(f) + index * 32;
    switch (f) {
    case TWO:
        put_words(at, g->q, real, 0, 3, 4, 2);
        for (int i = 0; i < 2; i++)
            put_halves(at + 128 + 32 * i, g->scale[i] * back, real),
            put_halves(at + 192 + 32 * i, g->minimum[i] * back, real);
        break;
    case FOUR:
    case FIVE:
        put_words(at, g->q, real, 0, 15, 2, 4);
        if (f == FIVE) put_words(at + 256, g->q, real, 4, 1, 8, 1);
        at += f == FIVE ? 320 : 256;
        put_halves(at, g->scale[0] * back, real), put_halves(at + 32, g->minimum[0] * back, real);
        break;
    case FOUR_0:
    case FIVE_0:
    case CURVE:
    case MX:
        put_words(at, g->q, real, 0, 15, 2, 4);
        if (f == FIVE_0) put_words(at + 256, g->q, real, 4, 1, 8, 1);
        put_halves(scales, g->scale[0] * back, real);
        break;
    case SIX: {
        uint8_t *super = first + index / SUPER * group_bytes(f);
        at = super + index % SUPER * 384;
        put_words(at, g->q, real, 0, 15, 2, 4), put_words(at + 256, g->q, real, 4, 3, 4, 2);
        for (int i = 0; i < 2; i++)
            *(v8_at *)(super + SUPER * 384 + index % SUPER * 32 + i * 16) =
                __builtin_convertvector(g->step[i] & real, v8_at);
        f_store((float *)(super + SUPER * 416), f_pick(real, h->d, f_set(0)));
        break;
    }
    default: put_words(at, g->q, real, 0, 255, 1, 0), put_halves(scales, g->scale[0] * back, real);
    }
}

INLINE vf pack_blocks(const int type, const Sixteen *s, int64_t k, vi real, uint8_t *first) {
    const int size = types[type].bytes, parts = types[type].weights / GROUP;
    const Format f = (Format)types[type].format;
    int64_t blocks = k / types[type].weights;
    vf factor = row_factors(type, s, blocks), back = f_set(1) / factor;
    Head h;
    Group g;
    for (int64_t block = 0; block < blocks; block++) {
        read_head(type, s, block * size, &h);
        UNROLL for (int part = 0; part < parts; part++) {
            read_group(type, s, block * size, &h, part, &g);
            put_packed(f, first, blocks * parts, block * parts + part, &h, &g, back, real);
        }
    }
    return factor;
}

/* The same transposition of floats or of numbers of 16 bits, which come in pairs. */
INLINE void pack_floats(const int size, const Sixteen *s, int64_t k, vi real, uint8_t *to) {
    const int together = 16 / size;
    int64_t i = 0;
    for (; i + together <= k; i += together, to += together * LANES * size) {
        vu x[4];
        four_words(s, i * size, x);
        UNROLL for (int j = 0; j < 4; j++) {
            x[j] &= (vu)real;
            if (size == 4) *(vi_at *)(to + j * LINE) = (vi)x[j];
            else
                *(v16_at *)(to + j * LINE) = __builtin_convertvector(x[j] & u_set(0xffff), v16_at),
                *(v16_at *)(to + j * LINE + 32) = __builtin_convertvector(x[j] >> 16, v16_at);
        }
    }
    for (; i < k; i++)
        for (int lane = 0; lane < LANES; lane++, to += size)
            for (int b = 0; b < size; b++) to[b] = real[lane] ? s->row[lane][i * size + b] : 0;
}

void pack_tiles(int type, const uint8_t *source, int64_t outputs, int64_t k, const int32_t *order, float scale,
                uint8_t *target, int64_t from, int64_t to) {
    Format f = (Format)types[type].format;
    int64_t groups = (k + GROUP - 1) / GROUP, size = tile_bytes(f, groups), row_size = row_bytes(type, k);
    int64_t filled = is_float(f) ? LINE + k * LANES * types[type].bytes : scales_behind(f) ? size - LINE : size;
    for (int64_t i = from; i < to; i++) {
        uint8_t *tile = target + i * size, *first = tile + LINE;
        int count = outputs - i * LANES < LANES ? (int)(outputs - i * LANES) : LANES;
        vi real = i_lanes() < i_set(count);
        int some = 0; /* a row that is there, to be read for lanes that have none */
        for (int lane = 0; lane < count && order && order[i * LANES + some] < 0; lane++) some = lane;
        vf factor = f_set(1);
        Sixteen s;
        for (int lane = 0; lane < LANES; lane++) {
            int64_t output = i * LANES + (lane < count ? lane : some), from = order ? order[output] : output;
            if (from < 0) real[lane] = 0, from = order[i * LANES + some] < 0 ? 0 : order[i * LANES + some];
            s.row[lane] = source + from * row_size;
        }
        memset(tile + filled, 0, (size_t)(size - filled)); /* what is beyond the last weight or scale */
#define PACK(T) factor = pack_blocks(T, &s, k, real, first)
        FOR_TYPE(type, PACK)
        if (f == SINGLE) pack_floats(4, &s, k, real, first);
        else if (is_float(f)) pack_floats(2, &s, k, real, first);
        f_store((float *)tile, f_pick(real, factor * f_set(scale), f_set(0)));
    }
}
