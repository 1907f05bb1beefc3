/* Root-mean-square norms of a row or a head. One order of sums for all. */
#ifndef PUNA_NORMS_H
#define PUNA_NORMS_H

#include "layout.h"

INLINE float norm_scale(const float *x, int k, float epsilon) {
    vf s = f_set(0), t = f_set(0);
    for (int i = 0; i < k; i += GROUP) {
        vf a = f_load(x + i), b = f_load(x + i + LANES);
        s = f_fma(a, a, s), t = f_fma(b, b, t);
    }
    return 1.0f / __builtin_sqrtf(f_sum(s + t) / (float)k + epsilon);
}

/* The norm of x into row `row`. */
static inline void norm_row(const float *x, const float *weight, int k, float epsilon, const Rows *to, int row) {
    vf scale = f_set(norm_scale(x, k, epsilon));
    for (int i = 0; i < k; i += GROUP)
        put_group(to, row, i / GROUP, f_load(x + i) * scale * f_load(weight + i),
                  f_load(x + i + LANES) * scale * f_load(weight + i + LANES));
}

/* The norm of y is added to x, which is then multiplied by `times`. */
static inline void norm_add(float *x, const float *y, const float *weight, int k, float epsilon, float times) {
    vf scale = f_set(norm_scale(y, k, epsilon));
    for (int i = 0; i < k; i += LANES)
        f_store(x + i, (f_load(x + i) + f_load(y + i) * scale * f_load(weight + i)) * f_set(times));
}

/* A head of `head` elements in `width` vectors, 0 beyond, in place. */
INLINE void norm_head(vf *v, int width, int head, const float *weight, float epsilon) {
    vf s = f_set(0);
    for (int i = 0; i < width; i++) s = f_fma(v[i], v[i], s);
    vf scale = f_set(1.0f / __builtin_sqrtf(f_sum(s) / (float)head + epsilon));
    for (int i = 0; i < width; i++) v[i] = v[i] * scale * f_load(weight + i * LANES);
}

#endif
