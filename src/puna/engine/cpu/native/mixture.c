#include "mixture.h"

#include "products.h"
#include "rows.h"

INLINE vf activated(Activation kind, vf gate, vf up) {
    if (kind == SILU) return gate * f_sigmoid(gate) * up;
    if (kind == GELU) { /* by tanh, which is a sigmoid of twice its argument */
        vf cube = f_fma(gate * gate * gate, f_set(0.044715f), gate);
        return gate * f_sigmoid(cube * f_set(1.5957691216057308f)) * up;
    }
    gate = f_min(gate, f_set(7)), up = f_min(f_max(up, f_set(-7)), f_set(7));
    return gate * f_sigmoid(gate * f_set(1.702f)) * (up + f_set(1));
}

void gate_group(const Matrix *gate, const Matrix *up, int unit, Activation kind, const Rows *rows, int row, const Rows *to) {
    vf g[2][ROWS], u[2][ROWS];
    for (int i = 0; i < 2; i++) product_tile(gate, 2 * unit + i, rows, row, g[i]);
    for (int i = 0; i < 2; i++) product_tile(up, 2 * unit + i, rows, row, u[i]);
    for (int r = 0; r < rows_of_tile(rows, row); r++)
        put_group(to, row + r, unit, activated(kind, g[0][r], u[0][r]), activated(kind, g[1][r], u[1][r]));
}

void gate_given(const Matrix *gate, const float *up, int64_t stride, const int32_t *pick, int unit, Activation kind,
                const Rows *rows, int row, const Rows *to) {
    vf g[2][ROWS];
    for (int i = 0; i < 2; i++) product_tile(gate, 2 * unit + i, rows, row, g[i]);
    for (int r = 0; r < rows_of_tile(rows, row); r++) {
        const float *u = up + (pick ? pick[row + r] : row + r) * stride + unit * GROUP;
        put_group(to, row + r, unit, activated(kind, g[0][r], f_load(u)), activated(kind, g[1][r], f_load(u + LANES)));
    }
}

int pairs_create(Pairs *p, int64_t rows, int experts, int used, int hidden, int between, int inner_bytes,
                 int inner_floats, int between_bytes, int between_floats) {
    int64_t pairs = rows * used;
    p->stride = (experts + LANES - 1) / LANES * LANES;
    p->scores = room(rows * p->stride * 4), p->chosen = room(pairs * 4), p->share = room(pairs * 4);
    p->place = room(pairs * 4), p->row = room(pairs * 4), p->expert = room(experts * 4);
    p->begin = room((experts + 1) * 4), p->out = room(pairs * hidden * 4);
    return p->scores && p->chosen && p->share && p->place && p->row && p->expert && p->begin && p->out &&
           rows_create(&p->in, pairs, hidden, inner_bytes, inner_floats) &&
           rows_create(&p->between, pairs, between, between_bytes, between_floats);
}

void pairs_destroy(Pairs *p) {
    give_back(p->scores), give_back(p->chosen), give_back(p->share), give_back(p->place), give_back(p->row);
    give_back(p->expert), give_back(p->begin), give_back(p->out), rows_destroy(&p->in);
    rows_destroy(&p->between);
}

INLINE float exponential(float x) { return f_exp(f_set(x))[0]; }

void choose_experts(Pairs *p, const Mixture *m, int row) {
    const float *scores = p->scores + (int64_t)row * p->stride;
    int32_t *chosen = p->chosen + (int64_t)row * m->used;
    float *share = p->share + (int64_t)row * m->used, most = 0, total = 0;
    uint8_t taken[MOST_EXPERTS] = {0};
    for (int i = 0; i < m->used; i++) { /* the largest first, equals by number */
        int best = -1;
        for (int j = 0; j < m->experts; j++)
            if (!taken[j] && (best < 0 || scores[j] > scores[best])) best = j;
        taken[best] = 1, chosen[i] = best;
    }
    most = scores[chosen[0]];
    for (int i = 0; i < m->used; i++) share[i] = exponential(scores[chosen[i]] - most);
    if (m->renormalise)
        for (int i = 0; i < m->used; i++) total += share[i];
    else
        for (int j = 0; j < m->experts; j++) total += exponential(scores[j] - most);
    for (int i = 0; i < m->used; i++) share[i] = share[i] / total * m->share_scale;
}

void sort_pairs(Pairs *p, const Mixture *m, int rows) {
    int32_t count[MOST_EXPERTS] = {0}, first[MOST_EXPERTS], pairs = rows * m->used, at = 0;
    for (int i = 0; i < pairs; i++) count[p->chosen[i]]++;
    p->active = 0;
    for (int j = 0; j < m->experts; j++) {
        first[j] = at;
        if (count[j]) p->expert[p->active] = j, p->begin[p->active++] = at;
        at += count[j];
    }
    p->begin[p->active] = at;
    for (int i = 0; i < pairs; i++) p->place[i] = first[p->chosen[i]]++, p->row[p->place[i]] = i / m->used;
}

/* The rows of active expert `i`, out of those of all pairs. */
INLINE Rows of_expert(const Pairs *p, const Rows *all, int i) {
    int64_t begin = p->begin[i];
    return (Rows){all->bytes ? all->bytes + begin * all->groups * ROW_GROUP : NULL,
                  all->floats ? all->floats + begin * all->groups * GROUP : NULL, all->groups,
                  p->begin[i + 1] - p->begin[i]};
}

void gather_pair(Pairs *p, const Rows *rows, int pair) {
    int i = 0, above = p->active; /* the expert whose pairs hold this one */
    while (above - i > 1) {
        int middle = (i + above) / 2;
        if (p->begin[middle] <= pair) i = middle;
        else above = middle;
    }
    Rows to = of_expert(p, &p->in, i);
    const float *from = floats_of_row(rows, p->row[pair]);
    for (int g = 0; g < rows->groups; g++)
        put_group(&to, pair - p->begin[i], g, f_load(from + g * GROUP), f_load(from + g * GROUP + LANES));
}

void gate_pairs(Pairs *p, const Mixture *m, int unit, int units_of_expert, Activation kind) {
    int i = unit / units_of_expert, expert = p->expert[i];
    Rows in = of_expert(p, &p->in, i), to = of_expert(p, &p->between, i);
    for (int row = 0; row < in.rows; row += ROWS)
        gate_group(&m->gate[expert], &m->up[expert], unit % units_of_expert, kind, &in, row, &to);
}

void down_pairs(Pairs *p, const Mixture *m, int unit, int units_of_expert) {
    int i = unit / units_of_expert, tile = unit % units_of_expert, hidden = units_of_expert * LANES;
    Rows in = of_expert(p, &p->between, i);
    vf out[ROWS];
    for (int row = 0; row < in.rows; row += ROWS) {
        product_tile(&m->down[p->expert[i]], tile, &in, row, out);
        for (int r = 0; r < rows_of_tile(&in, row); r++)
            f_store(p->out + (int64_t)(p->begin[i] + row + r) * hidden + tile * LANES, out[r]);
    }
}

void sum_pairs(const Pairs *p, const Mixture *m, int row, float *to, int hidden, int add) {
    for (int d = 0; d < hidden; d += LANES) {
        vf sum = f_set(0);
        for (int i = 0; i < m->used; i++) {
            int64_t at = (int64_t)row * m->used + i;
            sum = f_fma(f_load(p->out + (int64_t)p->place[at] * hidden + d), f_set(p->share[at]), sum);
        }
        if (add) sum += f_load(to + d);
        f_store(to + d, sum);
    }
}
