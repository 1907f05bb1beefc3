#include "angles.h"

#include <stdint.h>

/* pi/2 in three parts; the first two have trailing zeros, so that their multiples are exact. (Cody and Waite.) */
#define PART_1 1.57079632673412561417e+00
#define PART_2 6.07710050630396597660e-11
#define PART_3 2.02226624879595063154e-21

void angle(double x, float *cosine, float *sine) {
    double turns = x * 0.63661977236758134308;
    int64_t n = (int64_t)(turns < 0 ? turns - 0.5 : turns + 0.5);
    double r = __builtin_fma(-(double)n, PART_1, x);
    r = __builtin_fma(-(double)n, PART_2, r);
    r = __builtin_fma(-(double)n, PART_3, r);
    double z = r * r; /* Taylor's series: |r| <= pi/4, so the next terms are under 1e-14 */
    double s = __builtin_fma(z, -1.0 / 39916800, 1.0 / 362880);
    s = __builtin_fma(z, s, -1.0 / 5040), s = __builtin_fma(z, s, 1.0 / 120), s = __builtin_fma(z, s, -1.0 / 6);
    s = __builtin_fma(r * z, s, r);
    double c = __builtin_fma(z, 1.0 / 479001600, -1.0 / 3628800);
    c = __builtin_fma(z, c, 1.0 / 40320), c = __builtin_fma(z, c, -1.0 / 720), c = __builtin_fma(z, c, 1.0 / 24);
    c = __builtin_fma(z, c, -0.5), c = __builtin_fma(z, c, 1.0);
    switch (n & 3) {
    case 0: *cosine = (float)c, *sine = (float)s; break;
    case 1: *cosine = (float)-s, *sine = (float)c; break;
    case 2: *cosine = (float)-c, *sine = (float)-s; break;
    default: *cosine = (float)s, *sine = (float)-c;
    }
}
