/* What the draw of a token is made of, operation by operation as engine/cpu/odds.py specifies it: additions,
 * multiplications and divisions alone, none of them fused, so that Python and every set of instructions get the same
 * bits. A weight is a whole number of 2^-34: sums of up to MOST_TOKENS of them are exact, in any order.
 */
#ifndef PUNA_ODDS_H
#define PUNA_ODDS_H

#include "vectors.h"

enum { MOST_TOKENS = 1 << 19 };

#define DEEPEST 25.0f
#define GRAIN 0x1p-11f
#define LN2 0.6931471805599453

typedef double vd __attribute__((vector_size(64)));
INLINE vd d_lower(vf v) { return __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), vd); }
INLINE vd d_upper(vf v) {
    return __builtin_convertvector(__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15), vd);
}
INLINE double d_sum(vd v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }

/* An exact sum of weights. */
typedef struct { vd lower, upper; } Sum;
INLINE void sum_add(Sum *sum, vf grains) { sum->lower += d_lower(grains), sum->upper += d_upper(grains); }
INLINE double sum_of(const Sum *sum) { return d_sum(sum->lower + sum->upper); }

/* Values from 0 to 1 as whole numbers of 2^-34. */
INLINE vf f_in_grains(vf v) { return (v + f_set(GRAIN)) - f_set(GRAIN); }

/* e^-depth. */
INLINE vf f_weight(vf depth) {
    vf x = -f_min(depth, f_set(DEEPEST));
    vf t = x * f_set(1.44269504f) + f_set(ROUNDER), n = t - f_set(ROUNDER);
    vf r = (x - n * f_set(0.693359375f)) + n * f_set(2.12194440e-4f);
    vf p = f_set(1.9875691e-4f);
    p = p * r + f_set(1.3981999e-3f);
    p = p * r + f_set(8.3334519e-3f);
    p = p * r + f_set(4.1665796e-2f);
    p = p * r + f_set(1.6666666e-1f);
    p = p * r + f_set(5.0000001e-1f);
    p = (p * (r * r) + r) + f_set(1.0f);
    return f_in_grains((vf)((vi)p + (vi)((vu)t << 23)));
}

/* ln x of a finite x above 0. */
static inline double logarithm(double x) {
    uint64_t bits;
    int exponent = 0;
    if (x < 0x1p-1022) x *= 0x1p64, exponent = -64;
    memcpy(&bits, &x, 8);
    exponent += (int)(bits >> 52) - 1022;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1022 << 52;
    memcpy(&x, &bits, 8);
    if (x < 0.7071067811865476) x *= 2, exponent--;
    double s = (x - 1) / (x + 1), z = s * s, p = 1.0 / 23;
    for (int odd = 21; odd > 1; odd -= 2) p = p * z + 1.0 / odd;
    return exponent * LN2 + 2 * (s + s * z * p);
}

/* e^x; x is cut to -700 … 700. */
static inline double exponential(double x) {
    x = x < -700.0 ? -700.0 : x > 700.0 ? 700.0 : x;
    int n = (int)(x / LN2 + (x >= 0 ? 0.5 : -0.5));
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10, p = 1.0, power;
    for (int k = 14; k > 0; k--) p = p * r / k + 1;
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    memcpy(&power, &bits, 8);
    return p * power;
}

#endif
