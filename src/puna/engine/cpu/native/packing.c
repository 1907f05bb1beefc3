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

/* 32 weights as a file keeps them: a weight is scale[half] * q + minimum[half], or scale[half] * curve[q]. For SIX a
 * scale is d * step[half]. */
typedef struct {
    uint8_t q[GROUP];
    float scale[2], minimum[2], d;
    int8_t step[2];
} Group;

static void nibbles(const uint8_t *from, uint8_t *q) { /* the older types: 16 low ones, then 16 high ones */
    for (int i = 0; i < 16; i++) q[i] = from[i] & 15, q[16 + i] = from[i] >> 4;
}

static void one_scale(Group *g, float scale, float minimum) {
    g->scale[0] = g->scale[1] = scale, g->minimum[0] = g->minimum[1] = minimum;
}

/* Scale and minimum of part j in the 12 bytes that Q4_K and Q5_K share: six bits each. */
static void six_bits(const uint8_t *s, int j, int *scale, int *minimum) {
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

static float power_of_two(int exponent) { /* as far down as floats go */
    uint32_t bits = exponent >= -126 ? (uint32_t)(exponent + 127) << 23 : exponent >= -149 ? 1u << (exponent + 149) : 0;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static void read_group(int type, const uint8_t *row, int64_t index, Group *g) {
    const uint8_t *b = row + index / (types[type].weights / GROUP) * types[type].bytes;
    int part = (int)(index % SUPER), scale, minimum;
    switch (type) {
    case G_Q4_0: one_scale(g, half(b), -8 * half(b)), nibbles(b + 2, g->q); break;
    case G_Q4_1: one_scale(g, half(b), half(b + 2)), nibbles(b + 4, g->q); break;
    case G_Q5_0:
    case G_Q5_1: {
        const uint8_t *bits = type == G_Q5_0 ? b + 2 : b + 4;
        uint32_t high = *(const u32_at *)bits;
        one_scale(g, half(b), type == G_Q5_0 ? -16 * half(b) : half(b + 2)), nibbles(bits + 4, g->q);
        for (int i = 0; i < GROUP; i++) g->q[i] |= (uint8_t)((high >> i & 1) << 4);
        break;
    }
    case G_Q8_0:
        one_scale(g, half(b), -128 * half(b));
        for (int i = 0; i < GROUP; i++) g->q[i] = b[2 + i] ^ 0x80;
        break;
    case G_Q2_K:
        for (int h = 0; h < 2; h++)
            g->scale[h] = half(b + 80) * (float)(b[2 * part + h] & 15),
            g->minimum[h] = -half(b + 82) * (float)(b[2 * part + h] >> 4);
        for (int i = 0; i < GROUP; i++) g->q[i] = b[16 + part / 4 * 32 + i] >> part % 4 * 2 & 3;
        break;
    case G_Q3_K:
        g->d = half(b + 108);
        for (int h = 0; h < 2; h++) {
            int j = 2 * part + h, low = j < 8 ? b[96 + j] & 15 : b[96 + j - 8] >> 4;
            g->step[h] = (int8_t)((low | (b[104 + j % 4] >> j / 4 * 2 & 3) << 4) - 32);
        }
        for (int i = 0; i < GROUP; i++)
            g->q[i] = (uint8_t)((b[32 + part / 4 * 32 + i] >> part % 4 * 2 & 3) + (b[i] >> part & 1 ? 32 : 28));
        break;
    case G_Q4_K:
    case G_Q5_K: {
        const uint8_t *q = b + (type == G_Q4_K ? 16 : 48) + part / 2 * 32;
        six_bits(b + 4, part, &scale, &minimum);
        one_scale(g, half(b) * (float)scale, -half(b + 2) * (float)minimum);
        for (int i = 0; i < GROUP; i++) g->q[i] = q[i] >> part % 2 * 4 & 15;
        if (type == G_Q5_K)
            for (int i = 0; i < GROUP; i++) g->q[i] |= (uint8_t)((b[16 + i] >> part & 1) << 4);
        break;
    }
    case G_Q6_K: {
        const uint8_t *low = b + part / 4 * 64 + part % 2 * 32, *high = b + 128 + part / 4 * 32;
        g->d = half(b + 208);
        g->step[0] = (int8_t)b[192 + 2 * part], g->step[1] = (int8_t)b[193 + 2 * part];
        for (int i = 0; i < GROUP; i++)
            g->q[i] = (uint8_t)((low[i] >> part % 4 / 2 * 4 & 15) | (high[i] >> part % 4 * 2 & 3) << 4);
        break;
    }
    case G_IQ4_NL: one_scale(g, half(b), 0), nibbles(b + 2, g->q); break;
    case G_IQ4_XS:
        scale = (b[4 + part / 2] >> part % 2 * 4 & 15) | (*(const u16_at *)(b + 2) >> 2 * part & 3) << 4;
        one_scale(g, half(b) * (float)(scale - 32), 0), nibbles(b + 8 + part * 16, g->q);
        break;
    case G_MXFP4: one_scale(g, power_of_two(b[0] - 128), 0), nibbles(b + 1, g->q); break;
    }
    if (types[type].format == SIX)
        for (int h = 0; h < 2; h++) g->scale[h] = g->d * (float)g->step[h], g->minimum[h] = -32 * g->scale[h];
}

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

void unpack_row(int type, const uint8_t *row, int64_t k, float *to) {
    Format f = (Format)types[type].format;
    Group g;
    if (is_float(f)) {
        for (int64_t i = 0; i < k; i++) to[i] = float_at(type, row, i);
        for (int64_t i = k; i % GROUP; i++) to[i] = 0;
        return;
    }
    for (int64_t index = 0; index < k / GROUP; index++, to += GROUP) {
        read_group(type, row, index, &g);
        for (int i = 0; i < GROUP; i++)
            to[i] = f == CURVE || f == MX ? g.scale[i / 16] * (float)curve_values[f == MX][g.q[i]]
                                          : __builtin_fmaf(g.scale[i / 16], (float)g.q[i], g.minimum[i / 16]);
    }
}

/* Types whose scales are products, or powers of two, and so may not fit f16: these are divided by a power of two that
 * puts the row's largest at the upper end of f16's range, where it has all its bits. */
static int scales_are_products(int type) {
    return type == G_Q2_K || type == G_Q4_K || type == G_Q5_K || type == G_IQ4_XS || type == G_MXFP4;
}

static float row_factor(int type, const uint8_t *row, int64_t groups) {
    float most = 0;
    uint32_t bits;
    Group g;
    if (!scales_are_products(type)) return 1;
    for (int64_t i = 0; i < groups; i++) {
        read_group(type, row, i, &g);
        for (int h = 0; h < 2; h++) {
            float a = __builtin_fabsf(g.scale[h]), b = __builtin_fabsf(g.minimum[h]);
            most = a > most ? a : most, most = b > most ? b : most;
        }
    }
    memcpy(&bits, &most, 4);
    int exponent = (int)(bits >> 23) - 127 - 14;
    if (most == 0 || exponent > 112) return 1;
    return power_of_two(exponent < -126 ? -126 : exponent);
}

static void put_half(uint8_t *at, int lane, float x) { ((u16_at *)at)[lane] = to_half(x); }

/* The group's weights as words of four, and how they share vectors: `fields` of them in each word, `bits` apart. */
static void put_words(uint8_t *at, int lane, const uint8_t *q, int fields, int bits) {
    uint32_t w[8];
    memcpy(w, q, GROUP);
    for (int v = 0; v < 8 / fields; v++) {
        uint32_t word = 0;
        for (int j = 0; j < fields; j++) word |= w[v * fields + j] << j * bits;
        ((u32_at *)at)[v * LANES + lane] = word;
    }
}

static void put_part(uint8_t *at, int lane, const uint8_t *q, int shift, int mask, int fields, int bits) {
    uint8_t part[GROUP];
    for (int i = 0; i < GROUP; i++) part[i] = (uint8_t)(q[i] >> shift & mask);
    put_words(at, lane, part, fields, bits);
}

static void put_packed(Format f, uint8_t *tile, int64_t groups, int64_t index, int lane, const Group *g, float factor) {
    uint8_t *first = tile + LINE, *at = first + index * group_bytes(f);
    uint8_t *scales = first + groups * group_bytes(f) + index * 32;
    switch (f) {
    case TWO:
        put_words(at, lane, g->q, 4, 2);
        for (int h = 0; h < 2; h++)
            put_half(at + 128 + 32 * h, lane, g->scale[h] / factor),
            put_half(at + 192 + 32 * h, lane, g->minimum[h] / factor);
        break;
    case FOUR:
    case FIVE:
        put_part(at, lane, g->q, 0, 15, 2, 4);
        if (f == FIVE) put_part(at + 256, lane, g->q, 4, 1, 8, 1);
        at += f == FIVE ? 320 : 256;
        put_half(at, lane, g->scale[0] / factor), put_half(at + 32, lane, g->minimum[0] / factor);
        break;
    case FOUR_0:
    case FIVE_0:
    case CURVE:
    case MX:
        put_part(at, lane, g->q, 0, 15, 2, 4);
        if (f == FIVE_0) put_part(at + 256, lane, g->q, 4, 1, 8, 1);
        put_half(scales, lane, g->scale[0] / factor);
        break;
    case SIX:
        first += index / SUPER * group_bytes(f), at = first + index % SUPER * 384;
        put_part(at, lane, g->q, 0, 15, 2, 4);
        put_part(at + 256, lane, g->q, 4, 3, 4, 2);
        for (int h = 0; h < 2; h++) first[SUPER * 384 + index % SUPER * 32 + h * 16 + lane] = (uint8_t)g->step[h];
        memcpy(first + SUPER * 416 + 4 * lane, &g->d, 4);
        break;
    default: put_words(at, lane, g->q, 1, 0), put_half(scales, lane, g->scale[0] / factor);
    }
}

static void put_floats(int type, uint8_t *tile, int lane, const uint8_t *row, int64_t k) {
    uint8_t *at = tile + LINE;
    for (int64_t i = 0; i < k; i++) {
        if (type == G_F32) memcpy(at + (i * LANES + lane) * 4, row + 4 * i, 4);
        else memcpy(at + (i * LANES + lane) * 2, row + 2 * i, 2);
    }
}

void pack_tiles(int type, const uint8_t *source, int64_t outputs, int64_t k, const int32_t *order, float scale,
                uint8_t *target, int64_t from, int64_t to) {
    Format f = (Format)types[type].format;
    int64_t groups = (k + GROUP - 1) / GROUP, size = tile_bytes(f, groups), row_size = row_bytes(type, k);
    Group g;
    for (int64_t i = from; i < to; i++) {
        uint8_t *tile = target + i * size;
        memset(tile, 0, (size_t)size);
        for (int lane = 0; lane < LANES && i * LANES + lane < outputs; lane++) {
            int64_t output = i * LANES + lane;
            const uint8_t *row = source + (order ? order[output] : output) * row_size;
            float factor = row_factor(type, row, groups);
            ((f32_at *)tile)[lane] = factor * scale;
            if (is_float(f)) put_floats(type, tile, lane, row, k);
            else
                for (int64_t index = 0; index < groups; index++) {
                    read_group(type, row, index, &g);
                    put_packed(f, tile, groups, index, lane, &g, factor);
                }
        }
    }
}
