/* The gated part between two products; and mixtures of experts, in which rows go through a few of many such parts. */
#ifndef PUNA_MIXTURE_H
#define PUNA_MIXTURE_H

#include "model.h"

/* 32 numbers of activation(gate) * up, into group `unit` of the rows that share a tile with `row`. */
void gate_group(const Matrix *gate, const Matrix *up, int unit, Activation kind, const Rows *rows, int row, const Rows *to);

/* The same with numbers that are there in place of `up`: row r's begin at up + (pick ? pick[r] : r) * stride. */
void gate_given(const Matrix *gate, const float *up, int64_t stride, const int32_t *pick, int unit, Activation kind,
                const Rows *rows, int row, const Rows *to);

typedef struct { /* pairs of a row and one of its experts, in order of experts */
    int32_t stride, active; /* floats of a row of scores; experts that have a row */
    float *scores;          /* [row][stride] */
    int32_t *chosen;        /* [row][used] experts, best first */
    float *share;           /* [row][used] */
    int32_t *place;         /* [row][used] where the pair lies */
    int32_t *row;           /* [pair] */
    int32_t *expert, *begin; /* [active] which; [active + 1] its first pair */
    Rows in, between;       /* of all pairs: an expert's are tiled from its first on */
    float *out;             /* [pair][hidden] */
} Pairs;

/* 0 if there is no memory. `inner` are the rows that experts read, `between` what lies between their products. */
int pairs_create(Pairs *p, int64_t rows, int experts, int used, int hidden, int between, int inner_bytes,
                 int inner_floats, int between_bytes, int between_floats);
void pairs_destroy(Pairs *p);

/* The phases of a mixture, unit by unit, after the router's scores. `sort_pairs` is one thread's alone. */
void choose_experts(Pairs *p, const Mixture *m, int row);
void sort_pairs(Pairs *p, const Mixture *m, int rows);
void gather_pair(Pairs *p, const Rows *rows, int pair);
void gate_pairs(Pairs *p, const Mixture *m, int unit, int units_of_expert, Activation kind);
void down_pairs(Pairs *p, const Mixture *m, int unit, int units_of_expert);
void sum_pairs(const Pairs *p, const Mixture *m, int row, float *to, int hidden, int add);

#endif
