/* Vectors of 16 lanes, the one width in which this library thinks.
 *
 * AVX-512 holds such a vector in one register, AVX2 in two, NEON in four, and the portable form leaves it to the
 * compiler. Every operation on floats gives the same bits in all of them: that is what makes answers equal on every
 * machine, and why multiplications and additions are never contracted (`-ffp-contract=off`) and sums have one tree.
 */
#ifndef PUNA_VECTORS_H
#define PUNA_VECTORS_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vf __attribute__((vector_size(64), may_alias));
typedef int32_t vi __attribute__((vector_size(64), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), may_alias));

/* The same types anywhere in memory. */
typedef float vf_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t vi_at __attribute__((vector_size(64), aligned(1), may_alias));
typedef int8_t v8_at __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t v16_at __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint32_t u32_at __attribute__((aligned(1), may_alias));
typedef int32_t i32_at __attribute__((aligned(1), may_alias));
typedef int16_t i16_at __attribute__((aligned(1), may_alias));
typedef uint16_t u16_at __attribute__((aligned(1), may_alias));
typedef float f32_at __attribute__((aligned(1), may_alias));

INLINE vf f_load(const float *p) { return *(const vf_at *)p; }
INLINE void f_store(float *p, vf v) { *(vf_at *)p = v; }
INLINE vi i_load(const void *p) { return *(const vi_at *)p; }
INLINE vf f_set(float x) { return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE vi i_set(int32_t x) { return (vi){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE vf f_pick(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
INLINE vi i_lanes(void) { return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

/* What each variant has of its own:
 *
 *   VARIANT   its name
 *   ROWS      rows of activations in one tile of a product: as many sums as the registers hold
 *   QUERIES   queries of one tile of attention
 *   BIASED    1: i_dot8 reads its weights as bytes + 128, so a sum starts at -128 times the sum of the other side;
 *             0: i_dot8 takes the 128 off itself, and a sum starts at 0
 *   i_dot4    sum += four products a lane of unsigned bytes (at most 127) with signed ones
 *   i_dot8    the same with weights of the whole range, kept as bytes + 128
 *   i_bytes   16 bytes looked up by the low four bits of each of 64
 */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__) && !defined(PUNA_PORTABLE)
#define VARIANT "avx512vnni"
#define ROWS 8
#define QUERIES 12
#define BIASED 1
INLINE vf f_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf f_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf f_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf f_of(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
INLINE vf f_half(const void *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(p)); }
INLINE void f_to_half(void *p, vf v) { _mm256_storeu_si256(p, _mm512_cvtps_ph((__m512)v, 0)); }
INLINE vi i_dot4(vi sum, vi w, vi a) { return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)a); }
INLINE vi i_dot8(vi sum, vi w, vi a) { return i_dot4(sum, w, a); }
INLINE vi i_bytes(const uint8_t *table, vi at) {
    return (vi)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), (__m512i)at);
}

#else
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(PUNA_PORTABLE)
#define ROWS 3
#define QUERIES 3
typedef union { vi v; __m256i half[2]; } vi_halves;
INLINE vf f_half(const void *p) {
    union { vf v; __m256 half[2]; } r;
    r.half[0] = _mm256_cvtph_ps(_mm_loadu_si128(p));
    r.half[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1));
    return r.v;
}
INLINE void f_to_half(void *p, vf v) {
    union { vf v; __m256 half[2]; } r = {v};
    _mm_storeu_si128(p, _mm256_cvtps_ph(r.half[0], 0));
    _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(r.half[1], 0));
}
INLINE vi i_bytes(const uint8_t *table, vi at) {
    vi_halves x = {at};
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table));
    x.half[0] = _mm256_shuffle_epi8(t, x.half[0]), x.half[1] = _mm256_shuffle_epi8(t, x.half[1]);
    return x.v;
}
#if defined(__AVXVNNI__)
#define VARIANT "avxvnni"
#define BIASED 1
INLINE vi i_dot4(vi sum, vi w, vi a) {
    vi_halves s = {sum}, x = {w}, y = {a};
    s.half[0] = _mm256_dpbusd_avx_epi32(s.half[0], x.half[0], y.half[0]);
    s.half[1] = _mm256_dpbusd_avx_epi32(s.half[1], x.half[1], y.half[1]);
    return s.v;
}
INLINE vi i_dot8(vi sum, vi w, vi a) { return i_dot4(sum, w, a); }
#else
#define VARIANT "avx2"
#define BIASED 0
INLINE __m256i dot_pairs(__m256i s, __m256i w, __m256i a) { /* two products in 16 bits: 2 * 127 * 127 fits */
    return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)));
}
INLINE vi i_dot4(vi sum, vi w, vi a) {
    vi_halves s = {sum}, x = {w}, y = {a};
    s.half[0] = dot_pairs(s.half[0], x.half[0], y.half[0]), s.half[1] = dot_pairs(s.half[1], x.half[1], y.half[1]);
    return s.v;
}
INLINE vi i_dot8(vi sum, vi w, vi a) { /* 2 * 255 * 127 would not fit: the weight's sign goes to the other side */
    vi_halves s = {sum}, x = {w ^ i_set((int32_t)0x80808080)}, y = {a};
    UNROLL for (int i = 0; i < 2; i++)
        s.half[i] = dot_pairs(s.half[i], _mm256_abs_epi8(x.half[i]), _mm256_sign_epi8(y.half[i], x.half[i]));
    return s.v;
}
#endif

#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD) && !defined(PUNA_PORTABLE)
#define VARIANT "dotprod"
#define ROWS 4
#define QUERIES 3
#define BIASED 0
typedef union { vi v; int32x4_t words[4]; int8x16_t bytes[4]; uint8x16_t ubytes[4]; } vi_quarters;
typedef union { vf v; float32x4_t words[4]; } vf_quarters;
INLINE vf f_half(const void *p) {
    vf_quarters r;
    UNROLL for (int i = 0; i < 4; i++)
        r.words[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p + 4 * i)));
    return r.v;
}
INLINE void f_to_half(void *p, vf v) {
    vf_quarters r = {v};
    UNROLL for (int i = 0; i < 4; i++)
        vst1_u16((uint16_t *)p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(r.words[i])));
}
INLINE vi i_bytes(const uint8_t *table, vi at) {
    vi_quarters x = {at};
    uint8x16_t t = vld1q_u8(table);
    UNROLL for (int i = 0; i < 4; i++) x.ubytes[i] = vqtbl1q_u8(t, x.ubytes[i]);
    return x.v;
}
INLINE vi i_dot4(vi sum, vi w, vi a) {
    vi_quarters s = {sum}, x = {w}, y = {a};
    UNROLL for (int i = 0; i < 4; i++) s.words[i] = vdotq_s32(s.words[i], x.bytes[i], y.bytes[i]);
    return s.v;
}
INLINE vi i_dot8(vi sum, vi w, vi a) { return i_dot4(sum, w ^ i_set((int32_t)0x80808080), a); }

#else
#define VARIANT "portable"
#define ROWS 2
#define QUERIES 2
#define BIASED 0
INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff, bits;
    float f;
    if (rest >= 0x7c00) bits = sign | 0x7f800000 | (rest & 0x3ff) << 13 | (uint32_t)(rest > 0x7c00) << 22;
    else if (rest >= 0x400) bits = sign | ((rest << 13) + 0x38000000);
    else {
        f = (float)rest * 5.9604644775390625e-8f; /* 2^-24 */
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    memcpy(&f, &bits, 4);
    return f;
}
INLINE uint16_t float_to_half(float f) { /* to nearest, ties to even, as the processors' own instructions do */
    uint32_t bits, sign, rest;
    memcpy(&bits, &f, 4);
    sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x1ff));
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) { /* a subnormal half: 0.5 puts its unit at the float's last bit */
        float shifted;
        memcpy(&shifted, &rest, 4);
        shifted += 0.5f;
        memcpy(&rest, &shifted, 4);
        return (uint16_t)(sign | (rest - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | ((rest - 0x38000000) >> 13));
}
INLINE vf f_half(const void *p) {
    vf r;
    for (int i = 0; i < 16; i++) r[i] = half_to_float(((const u16_at *)p)[i]);
    return r;
}
INLINE void f_to_half(void *p, vf v) {
    for (int i = 0; i < 16; i++) ((u16_at *)p)[i] = float_to_half(v[i]);
}
INLINE vi i_bytes(const uint8_t *table, vi at) {
    vi r = i_set(0);
    for (int i = 0; i < 16; i++)
        for (int b = 0; b < 32; b += 8) r[i] |= (int32_t)((uint32_t)table[at[i] >> b & 15] << b);
    return r;
}
INLINE vi i_dot4(vi sum, vi w, vi a) {
    UNROLL for (int b = 0; b < 32; b += 8) sum += ((w << (24 - b)) >> 24) * ((a << (24 - b)) >> 24);
    return sum;
}
INLINE vi i_dot8(vi sum, vi w, vi a) { return i_dot4(sum, w ^ i_set((int32_t)0x80808080), a); }
#endif

#if defined(__clang__)
INLINE vf f_fma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }
#else
INLINE vf f_fma(vf a, vf b, vf c) {
    UNROLL for (int i = 0; i < 16; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
#endif
INLINE vf f_max(vf a, vf b) { return f_pick(a > b, a, b); }
INLINE vf f_min(vf a, vf b) { return f_pick(a < b, a, b); }
INLINE vf f_of(vi a) { return __builtin_convertvector(a, vf); }
#endif

INLINE vf f_brain(const void *p) { /* bfloat16: a float's upper half */
    return (vf)(__builtin_convertvector(*(const v16_at *)p, vu) << 16);
}
INLINE vi i_of_bytes(const void *p) { return __builtin_convertvector(*(const v8_at *)p, vi); }
INLINE float half(const void *p) {
    uint16_t h[16] = {*(const u16_at *)p};
    return f_half(h)[0];
}
INLINE uint16_t to_half(float x) {
    uint16_t h[16];
    f_to_half(h, f_set(x));
    return h[0];
}

#define FOLD(v, OP) \
    v = OP(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
    v = OP(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
    v = OP(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13))
#define PLUS(a, b) ((a) + (b))
INLINE float f_sum(vf v) { FOLD(v, PLUS); return v[0] + v[1]; }
INLINE int32_t i_sum(vi of) { /* as if there were no end to numbers: what is no number may have become any */
    vu v = (vu)of;
    FOLD(v, PLUS);
    return (int32_t)(v[0] + v[1]);
}
INLINE float f_most(vf v) { FOLD(v, f_max); return v[0] > v[1] ? v[0] : v[1]; }
INLINE vf f_abs(vf v) { return (vf)((vi)v & i_set(0x7fffffff)); }
INLINE vf f_finite(vf v) { return f_min(f_max(v, f_set(-65504)), f_set(65504)); } /* as f16: 0 * it must be 0 */
INLINE vf f_swapped(vf v) { /* each pair's lanes the other way round */
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}
/* Lanes from … to-1 of v, `other` in the rest. */
INLINE vf f_between(int from, int to, vf v, float other) {
    vi lane = i_lanes();
    return f_pick((lane >= i_set(from)) & (lane < i_set(to)), v, f_set(other));
}

/* 1.5 * 2^23: added to a small float, the low bits of the sum are that float rounded to a whole number, ties to even. */
#define ROUNDER 12582912.0f
#define ROUNDER_BITS 0x4b400000
INLINE vi i_rounded(vf v) { return (vi)(v + f_set(ROUNDER)) - i_set(ROUNDER_BITS); }

/* e^x to about one unit in the last place; exactly 1 at 0. Arguments are cut to -86 … 88. */
INLINE vf f_exp(vf x) {
    x = f_min(f_max(x, f_set(-86.0f)), f_set(88.0f));
    vf t = f_fma(x, f_set(1.44269504f), f_set(ROUNDER)), n = t - f_set(ROUNDER);
    vf r = f_fma(n, f_set(2.12194440e-4f), f_fma(n, f_set(-0.693359375f), x));
    vf p = f_set(1.9875691e-4f);
    p = f_fma(p, r, f_set(1.3981999e-3f));
    p = f_fma(p, r, f_set(8.3334519e-3f));
    p = f_fma(p, r, f_set(4.1665796e-2f));
    p = f_fma(p, r, f_set(1.6666666e-1f));
    p = f_fma(p, r, f_set(5.0000001e-1f));
    p = f_fma(p, r * r, r) + f_set(1.0f);
    return (vf)((vi)p + (vi)((vu)t << 23));
}
INLINE vf f_sigmoid(vf x) { return f_set(1) / (f_set(1) + f_exp(-x)); }
/* limit * tanh(x / limit) */
INLINE vf f_capped(vf x, float limit) {
    return f_set(limit) - f_set(2 * limit) / (f_exp(x * f_set(2 / limit)) + f_set(1));
}

#endif
