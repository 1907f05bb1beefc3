#include "step.h"

#include <stdatomic.h>

#include "angles.h"
#include "attention.h"
#include "convolution.h"
#include "delta.h"
#include "mixture.h"
#include "norms.h"
#include "packing.h"
#include "products.h"
#include "rows.h"

typedef struct { /* `count` queries of a sequence for one head of keys; `segment` -1: all of the context */
    int32_t sequence, head, first, count, segment, group, slot;
} Task;

typedef struct { _Atomic int32_t left; int32_t pieces, slot; } Group; /* a task cut into segments; who is last merges */

typedef struct { _Alignas(LINE) uint64_t spent[T_KINDS]; uint64_t since; Rows rows; float *matrix; } Own; /* a thread's own */

typedef struct { int32_t kv_heads, begin, count; } List; /* tasks of the layers with so many heads of keys */

typedef struct { const float *norm; float times; } Owed; /* a norm still owed to the last part's outcome, then a factor */

enum { LONE = 1, SLOTS = 8192 }; /* rows that each thread norms for itself; queries of cut tasks */

struct Engine {
    const Model *m;
    Team *team;
    Own own[MOST_THREADS];
    float *x, *tail, *apart, *queries, *gates, *cosines, *sines; /* gates: what multiplies the outcome of a layer's look */
    int gated; /* numbers of a row of gates */
    int8_t *query_bytes; /* the same heads, where the cache is of bytes */
    float *query_scales;
    int32_t *query_biases;
    float *inputs, *mixed; /* of each layer's additions; heads that are not whole groups */
    Rows hidden, heads, between, narrow, routed; /* routed: what a router of its own norm reads */
    float *beside;                               /* the plain part's outcome, where experts add theirs */
    int32_t *sequence_of, *want, *place; /* place: of each row behind the last keys, -1: nobody wants it */
    Task *task;
    Group *group;
    Seen *seen;
    float *seen_values;
    Pairs pairs;
    int rotated, turned; /* 32-bit numbers of angles a row, and of one rotation */
    int last_keys;       /* the last layer with keys of its own: behind it only the wanted rows go on */
    int kinds;           /* how many different numbers of heads of keys layers have */
    int32_t kind[MOST_KINDS];
};

typedef struct { /* what a step is told; each thread has a copy, as one may still be in the step before */
    Engine *e;
    Step s;
    List all[MOST_KINDS], few[MOST_KINDS]; /* of all rows, of the wanted ones */
    int32_t cut;                           /* the layer from whose attention on only the wanted rows go on, in `tail` */
} Job;

typedef struct { /* matrices over the same activations, one after another; `width` tiles a unit */
    const Matrix *part[4];
    int parts, width;
} Product;

/* ------------------------------------------------------------------------------------------------------- helpers */

static uint64_t ticks(void) {
#if defined(__x86_64__) || defined(_M_X64)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return 0;
#endif
}

static void spent(Engine *e, const Turn *t, int kind) {
    Own *own = &e->own[t->me];
    uint64_t now = ticks();
    own->spent[kind] += now - own->since, own->since = now;
}

static void next_phase(Engine *e, Turn *t, int units) {
    meet(t, units);
    spent(e, t, T_WAIT);
}

INLINE int units_of(const Product *p) {
    int n = 0;
    for (int i = 0; i < p->parts; i++) n += matrix_tiles(p->part[i]) / p->width;
    return n;
}

/* The matrix of a unit; the unit becomes the first of its tiles there. */
INLINE int part_of(const Product *p, int *unit) {
    int i = 0;
    while (*unit >= matrix_tiles(p->part[i]) / p->width) *unit -= matrix_tiles(p->part[i++]) / p->width;
    *unit *= p->width;
    return i;
}

/* Units taken at once: a tenth of a share at most, and no more than stays in the near cache while all rows go by. */
INLINE int chunk_of(const Engine *e, int units, int64_t unit_bytes) {
    int64_t share = units / (team_threads(e->team) * 10), most = (192 << 10) / unit_bytes;
    share = share > most ? most : share;
    return share < 1 ? 1 : (int)share;
}

/* So many rows of k numbers in room that is made for the most of both. */
INLINE Rows sized(Rows all, int rows, int k) {
    all.rows = rows, all.groups = k / GROUP;
    return all;
}
/* What a layer's output is made of: heads, or channels. */
INLINE Rows inner(const Engine *e, const Layer *layer, int rows) {
    return sized(e->heads, rows, layer->output.k);
}
INLINE Trail trail_of(const Step *s, const Layer *layer, int q) {
    return (Trail){layer->cache, layer->cache_stride, s->blocks + s->block_begins[q]};
}
INLINE float *row_at(float *all, int64_t row, const Model *m) { return all + row * m->hidden; }

/* -------------------------------------------------------------------------------------------------------- phases */

static void embed_row(Engine *e, const Step *s, int row) {
    const Model *m = e->m;
    float *x = e->x + (int64_t)row * m->hidden;
    int q = e->sequence_of[row], position = s->past[q] + row - s->begins[q];
    unpack_row(m->embedding_type, m->embedding + s->ids[row] * row_bytes(m->embedding_type, m->hidden), m->hidden, x);
    if (m->embedding_scale != 1)
        for (int i = 0; i < m->hidden; i += LANES) f_store(x + i, f_load(x + i) * f_set(m->embedding_scale));
    for (int i = 0; i < m->ropes; i++) {
        float *c = e->cosines + (int64_t)row * e->rotated + i * e->turned, *n = e->sines + (c - e->cosines);
        for (int j = 0; j < e->turned / 2; j++) {
            float cosine = 1, sine = 0;
            if (j < m->rope[i].pairs) {
                angle((double)position * (double)m->rope[i].speeds[j], &cosine, &sine);
                cosine *= m->rope[i].magnitude, sine *= m->rope[i].magnitude;
            }
            c[2 * j] = c[2 * j + 1] = cosine, n[2 * j] = -sine, n[2 * j + 1] = sine;
        }
    }
}

/* A row as it is, in the forms that products read. */
INLINE void put_row(const float *x, int k, const Rows *to, int row) {
    for (int i = 0; i < k; i += GROUP) put_group(to, row, i / GROUP, f_load(x + i), f_load(x + i + LANES));
}

/* Every row's inputs of one layer's addition. */
static void put_inputs(Engine *e, const Step *s, int layer, const Rows *rows) {
    const Model *m = e->m;
    const Inputs *in = m->inputs;
    int width = in->width / LANES;
    int64_t stride = (int64_t)m->layers * in->width, part = row_bytes(in->type, in->width);
    float own[MOST_HEAD] __attribute__((aligned(64)));
    vf out[MOST_HEAD / LANES][ROWS], v[MOST_HEAD / LANES];
    for (int row = 0; row < rows->rows; row += ROWS) {
        for (int i = 0; i < width; i++) product_tile(&in->projection, layer * width + i, rows, row, out[i]);
        for (int r = 0; r < rows_of_tile(rows, row); r++) {
            for (int i = 0; i < width; i++) v[i] = out[i][r];
            norm_head(v, width, in->width, in->norm, m->epsilon);
            unpack_row(in->type, in->rows + ((int64_t)s->ids[row + r] * m->layers + layer) * part, in->width, own);
            float *to = e->inputs + (row + r) * stride + (int64_t)layer * in->width;
            for (int i = 0; i < width; i++)
                f_store(to + i * LANES, f_fma(f_load(own + i * LANES), f_set(in->scale), v[i]) * f_set(in->share));
        }
    }
}

/* One row's head of queries, keys or values: normed, turned, and to where attention finds it. */
static void put_head(Engine *e, const Step *s, const Layer *layer, int part, int tile, int width, int row, vf *v) {
    const Model *m = e->m;
    int size = head_of(m, layer), D = whole(size), head = tile * LANES / D, from = tile * LANES % D, q = e->sequence_of[row];
    if (part == 3) {
        for (int i = 0; i < width; i++) f_store(e->gates + (int64_t)row * e->gated + (tile + i) * LANES, v[i]);
        return;
    }
    const float *norm = part == 0 ? layer->query_norm : part == 1 ? layer->key_norm : layer->value_norm;
    if (norm) norm_head(v, width, size, norm, m->epsilon);
    if (part < 2 && layer->rope >= 0) {
        int64_t at = (int64_t)row * e->rotated + layer->rope * e->turned + from;
        for (int i = 0; i < width; i++)
            v[i] = f_fma(f_swapped(v[i]), f_load(e->sines + at + i * LANES), v[i] * f_load(e->cosines + at + i * LANES));
    }
    if (part == 0) {
        int64_t at = (int64_t)row * m->heads + head;
        for (int i = 0; i < width; i++)
            v[i] *= f_set(m->attention_scale), f_store(e->queries + at * D + from + i * LANES, v[i]);
        if (m->cache_type != CACHE_BYTES) return;
        int8_t *bytes = e->query_bytes + at * D;
        int32_t sum = 0;
        e->query_scales[at] = to_bytes(v, width, bytes);
        for (int i = 0; i < D; i++) sum += bytes[i];
        e->query_biases[at] = -128 * sum;
        return;
    }
    int place = s->past[q] + row - s->begins[q];
    int64_t block = s->blocks[s->block_begins[q] + place / BLOCK];
    uint8_t *to = layer->cache + block * layer->cache_stride + head * keys_bytes((CacheType)m->cache_type, D);
    (part == 1 ? put_key : put_value)((CacheType)m->cache_type, to, D, place % BLOCK, from, width, v);
}

/* 16 of a row's numbers that change a state, to where it finds them. */
static void put_change(Engine *e, const Step *s, const Layer *layer, int part, int tile, int width, int row, vf *v) {
    int q = e->sequence_of[row], place = s->past[q] + row - s->begins[q];
    uint8_t *block = layer->cache + s->blocks[s->block_begins[q] + place / BLOCK] * layer->cache_stride;
    place %= BLOCK;
    if (part == 0) put_channels(layer->delta, block, place, tile, v);
    else if (part == 1) put_betas(layer->delta, block, place, tile, v);
    else if (part == 2) put_decays(layer->delta, block, place, tile, v);
    else put_head(e, s, layer, part, tile, width, row, v);
}

/* `pick`: which of the step's rows these are, NULL: all. */
static void project(Engine *e, const Step *s, Turn *t, const Product *p, const Rows *rows, const Layer *layer,
                    const int32_t *pick) {
    int from, to, chunk = chunk_of(e, units_of(p), matrix_tile_bytes(p->part[0]) * p->width);
    vf out[MOST_HEAD / LANES][ROWS], head[MOST_HEAD / LANES];
    while (take(t, chunk, &from, &to))
        for (int row = 0; row < rows->rows; row += ROWS) /* a chunk's tiles stay near while all rows go by */
            for (int unit = from; unit < to; unit++) {
                int tile = unit, part = part_of(p, &tile), R = rows_of_tile(rows, row);
                for (int i = 0; i < p->width; i++) product_tile(p->part[part], tile + i, rows, row, out[i]);
                for (int r = 0; r < R; r++) {
                    for (int i = 0; i < p->width; i++) head[i] = out[i][r];
                    (layer->delta ? put_change : put_head)(e, s, layer, part, tile, p->width, pick ? pick[row + r] : row + r, head);
                }
            }
}

/* To rows of `stride` floats: added to what is there, or in its place; `cap` as the model's. */
static void product_to(Engine *e, Turn *t, const Matrix *m, const Rows *rows, float *to, int64_t stride, int add,
                       float cap) {
    int from, end, chunk = chunk_of(e, matrix_tiles(m), matrix_tile_bytes(m));
    vf out[ROWS];
    while (take(t, chunk, &from, &end))
        for (int row = 0; row < rows->rows; row += ROWS)
            for (int tile = from; tile < end; tile++) {
                product_tile(m, tile, rows, row, out);
                for (int r = 0; r < rows_of_tile(rows, row); r++) {
                    float *at = to + (row + r) * stride + tile * LANES;
                    vf v = cap > 0 ? f_capped(out[r], cap) : out[r];
                    if (add) v += f_load(at);
                    f_store(at, v);
                }
            }
}

/* The first half of a convolution: what is convolved goes into the cache, what multiplies its outcome apart. */
static void split(Engine *e, const Step *s, Turn *t, const Layer *layer, const Rows *rows) {
    const Convolution *c = layer->convolution;
    int from, to, hidden = e->m->hidden;
    int64_t bytes = 2 * (matrix_tile_bytes(&c->before) + matrix_tile_bytes(&c->input) + matrix_tile_bytes(&c->after));
    int chunk = chunk_of(e, hidden / GROUP, bytes);
    vf mixed[2][ROWS], after[2][ROWS];
    while (take(t, chunk, &from, &to))
        for (int row = 0; row < rows->rows; row += ROWS)
            for (int unit = from; unit < to; unit++) {
                split_group(c, unit, rows, row, mixed, after);
                for (int r = 0; r < rows_of_tile(rows, row); r++) {
                    int q = e->sequence_of[row + r], place = s->past[q] + row + r - s->begins[q];
                    int64_t block = s->blocks[s->block_begins[q] + place / BLOCK];
                    float *gate = e->gates + (int64_t)(row + r) * e->gated + unit * GROUP;
                    put_mixed(layer->cache + block * layer->cache_stride, hidden, place % BLOCK, unit, mixed[0][r], mixed[1][r]);
                    f_store(gate, after[0][r]), f_store(gate + LANES, after[1][r]);
                }
            }
}

/* The second half, row by row, once all rows of the step are in the cache. */
static void convolve_rows(Engine *e, const Job *job, Turn *t, const Layer *layer, int last) {
    const Step *s = &job->s;
    Rows rows = inner(e, layer, last ? s->wanted : s->rows);
    Filter filter = {layer->convolution->filter, layer->convolution->taps, e->m->hidden};
    int from, to;
    while (take(t, 1, &from, &to)) {
        int row = last ? s->want[from] : from, q = e->sequence_of[row];
        Trail tokens = trail_of(s, layer, q);
        convolve_row(&filter, &tokens, s->past[q] + row - s->begins[q], e->gates + (int64_t)row * e->gated, &rows, from);
    }
}

/* A head of a sequence a unit: its matrix absorbs all tokens that it has not, and rows look into it. */
static void look(Engine *e, const Job *job, Turn *t, const Layer *layer, int last) {
    const Step *s = &job->s;
    const Delta *d = layer->delta;
    Rows rows = inner(e, layer, last ? s->wanted : s->rows);
    int64_t bytes = (int64_t)d->size * d->size * 4;
    int unit, to;
    vf out[MOST_HEAD / LANES];
    while (take(t, 1, &unit, &to)) {
        int q = unit / d->values, head = unit % d->values, past = s->past[q], end = past + s->begins[q + 1] - s->begins[q];
        int state = s->state ? s->state[q] : -1, at = state < 0 ? 0 : s->absorbed[q], keep = state < 0 ? end : s->keep[q];
        float *own = e->own[t->me].matrix, *matrix = own;
        Trail tokens = trail_of(s, layer, q);
        if (state >= 0) matrix = (float *)(d->states + state * d->states_stride + head * bytes);
        if (at == 0) memset(matrix, 0, (size_t)bytes);
        for (; at < end; at++) {
            int row = at - past + s->begins[q], place = at < past ? -1 : last ? e->place[row] : row;
            if (at == keep && matrix != own) memcpy(own, matrix, (size_t)bytes), matrix = own; /* what follows is a guess */
            absorb(d, &tokens, head, at, e->m->epsilon, matrix, place < 0 ? NULL : out);
            if (place < 0) continue;
            const float *gate = e->gates + (int64_t)row * e->gated + head * d->size;
            for (int i = 0; i < d->size; i += GROUP) {
                vf x = f_load(gate + i), y = f_load(gate + i + LANES);
                put_group(&rows, place, (head * d->size + i) / GROUP, out[i / LANES] * x * f_sigmoid(x),
                          out[i / LANES + 1] * y * f_sigmoid(y));
            }
        }
    }
}

static void gated(Engine *e, Turn *t, const Layer *layer, const Rows *rows, const Rows *between) {
    int64_t bytes = 2 * (matrix_tile_bytes(&layer->gate) + matrix_tile_bytes(&layer->up));
    int from, to, chunk = chunk_of(e, between->groups, bytes);
    while (take(t, chunk, &from, &to))
        for (int row = 0; row < rows->rows; row += ROWS)
            for (int unit = from; unit < to; unit++)
                gate_group(&layer->gate, &layer->up, unit, (Activation)e->m->activation, rows, row, between);
}

/* What query `i` of a task sees of a segment: positions from … to-1 of it. */
INLINE void sight(const Step *s, const Layer *layer, const Task *t, int i, int share, int segment, int *from, int *to) {
    int end = s->past[t->sequence] + (t->first + i) / share + 1;
    int begin = layer->window && end > layer->window ? end - layer->window : 0;
    begin -= segment * SEGMENT, end -= segment * SEGMENT;
    *from = begin < 0 ? 0 : begin > SEGMENT ? SEGMENT : begin;
    *to = end < 0 ? 0 : end > SEGMENT ? SEGMENT : end;
}

static void attend_segment(Engine *e, const Step *s, const Layer *layer, const Task *t, int segment, Keys *keys,
                           Seen *seen) {
    const Model *m = e->m;
    int share = m->heads / kv_heads_of(m, layer), D = whole(head_of(m, layer)), from[QUERIES], to[QUERIES], any = 0;
    Query query[QUERIES];
    for (int i = 0; i < t->count; i++) {
        int row = s->begins[t->sequence] + (t->first + i) / share, head = t->head * share + (t->first + i) % share;
        int64_t at = (int64_t)row * m->heads + head;
        query[i] = (Query){e->queries + at * D, NULL, 0, 0};
        if (m->cache_type == CACHE_BYTES)
            query[i] = (Query){NULL, e->query_bytes + at * D, e->query_scales[at], e->query_biases[at]};
        sight(s, layer, t, i, share, segment, &from[i], &to[i]);
        any |= from[i] < to[i];
    }
    if (any) attend(t->count, query, from, to, segment, keys, seen);
    else
        for (int i = 0; i < t->count; i++) {
            seen[i].most = -1e30f, seen[i].total = 0;
            memset(seen[i].values, 0, (size_t)D * 4);
        }
}

/* The first `count` of 32 numbers of a head: another head shares the last group. */
INLINE void put_mixed_head(float *to, vf a, vf b, int count) {
    for (int i = 0; i < GROUP && i < count; i++) to[i] = i < LANES ? a[i] : b[i - LANES];
}

/* `few`: only the wanted rows go on, each to its place among them. */
static void finish_queries(Engine *e, const Step *s, const Layer *layer, const Task *t, const Seen *seen, int few) {
    const Model *m = e->m;
    Rows to = inner(e, layer, few ? s->wanted : s->rows);
    int share = m->heads / kv_heads_of(m, layer), size = head_of(m, layer);
    for (int i = 0; i < t->count; i++) {
        int row = s->begins[t->sequence] + (t->first + i) / share, head = t->head * share + (t->first + i) % share;
        float total = seen[i].total, less = 1;
        if (layer->sinks) { /* one more score, without a value */
            float sink = layer->sinks[head], most = sink > seen[i].most ? sink : seen[i].most;
            less = f_exp(f_set(seen[i].most - most))[0];
            total = __builtin_fmaf(total, less, f_exp(f_set(sink - most))[0]);
        }
        vf part = f_set(less / total);
        const float *gate = layer->attention_gate.data ? e->gates + (int64_t)row * e->gated + head * whole(size) : NULL;
        if (few) row = e->place[row];
        for (int d = 0; d < size; d += GROUP) {
            vf x = f_load(seen[i].values + d) * part, y = f_load(seen[i].values + d + LANES) * part;
            if (gate) x *= f_sigmoid(f_load(gate + d)), y *= f_sigmoid(f_load(gate + d + LANES));
            if (size % GROUP) put_mixed_head(e->mixed + ((int64_t)row * m->heads + head) * size + d, x, y, size - d);
            else put_group(&to, row, (head * size + d) / GROUP, x, y);
        }
    }
}

static Keys keys_of(Engine *e, const Step *s, const Layer *layer, const Task *t, const Task *next) {
    const Model *m = e->m;
    int D = whole(head_of(m, layer));
    int64_t size = keys_bytes((CacheType)m->cache_type, D), stride = layer->cache_stride;
    const int32_t *blocks = s->blocks + s->block_begins[t->sequence];
    int32_t later = s->blocks[s->block_begins[next->sequence]];
    return (Keys){layer->cache + t->head * size, blocks, stride, D, (CacheType)m->cache_type, m->attention_cap,
                  layer->cache + later * stride + next->head * size};
}

static void whole_task(Engine *e, const Step *s, const Layer *layer, const Task *t, const Task *next, int few) {
    float values[2][QUERIES][MOST_HEAD] __attribute__((aligned(64)));
    Seen seen[QUERIES], further[QUERIES];
    Keys keys = keys_of(e, s, layer, t, next);
    int share = e->m->heads / kv_heads_of(e->m, layer), past = s->past[t->sequence], segment = 0;
    int begin = past + t->first / share + 1 - layer->window, last = past + (t->first + t->count - 1) / share;
    for (int i = 0; i < t->count; i++) seen[i].values = values[0][i], further[i].values = values[1][i];
    if (layer->window && begin > 0) segment = begin / SEGMENT; /* nobody sees what lies before */
    attend_segment(e, s, layer, t, segment, &keys, seen);
    while (++segment <= last / SEGMENT) {
        attend_segment(e, s, layer, t, segment, &keys, further);
        for (int i = 0; i < t->count; i++) merge(&seen[i], &further[i], keys.head);
    }
    finish_queries(e, s, layer, t, seen, few);
}

static void cut_task(Engine *e, const Step *s, const Layer *layer, const Task *t, const Task *next, int few) {
    Keys keys = keys_of(e, s, layer, t, next);
    Group *group = &e->group[t->group];
    attend_segment(e, s, layer, t, t->segment, &keys, e->seen + t->slot);
    if (atomic_fetch_sub(&group->left, 1) != 1) return;
    atomic_store_explicit(&group->left, group->pieces, memory_order_relaxed); /* for the next layer */
    for (int piece = 1; piece < group->pieces; piece++)
        for (int i = 0; i < t->count; i++)
            merge(&e->seen[group->slot + i], &e->seen[group->slot + piece * t->count + i], keys.head);
    finish_queries(e, s, layer, t, e->seen + group->slot, few);
}

static const List *tasks_of(const Engine *e, const Job *job, const Layer *layer, int few) {
    const List *list = few ? job->few : job->all;
    while (list->kv_heads != kv_heads_of(e->m, layer)) list++;
    return list;
}

static void attention(Engine *e, const Job *job, Turn *turn, const Layer *layer, int few) {
    const List *list = tasks_of(e, job, layer, few);
    const Task *task = e->task + list->begin, *end = task + list->count;
    int from, to, count = few ? job->s.wanted : job->s.rows;
    Rows heads = inner(e, layer, count);
    while (take(turn, 1, &from, &to)) {
        const Task *t = task + from, *next = t + 1 < end ? t + 1 : t;
        (t->segment < 0 ? whole_task : cut_task)(e, &job->s, layer, t, next, few);
    }
    if (head_of(e->m, layer) % GROUP) {
        next_phase(e, turn, count);
        while (take(turn, 1, &from, &to)) put_row(e->mixed + (int64_t)from * layer->output.k, layer->output.k, &heads, from);
    }
}

/* Norm of rows, or without a weight the rows themselves, in the forms that products read. What is owed is done first: the
 * norm of what lies apart is added to the row.
 * `lone` rows are normed by every thread for itself, which spares a phase: a late thread may then read what others
 * change already, but will find no unit to use it on. They serve this phase alone. */
static Rows normed(Engine *e, Turn *t, int lone, float *all, Owed owed, const float *weight,
                   const int32_t *pick, int count, int next) {
    const Model *m = e->m;
    int from, to;
    if (lone) {
        Rows rows = sized(e->own[t->me].rows, count, m->hidden);
        if (under_way(t))
            for (int r = 0; r < count; r++)
                norm_row(all + (int64_t)(pick ? pick[r] : r) * m->hidden, weight, m->hidden, m->epsilon, &rows, r);
        spent(e, t, T_NORM);
        return rows;
    }
    Rows rows = sized(e->hidden, count, m->hidden);
    while (take(t, count > 32 ? 8 : 2, &from, &to))
        for (int r = from; r < to; r++) {
            float *x = all + (int64_t)(pick ? pick[r] : r) * m->hidden;
            if (owed.norm) norm_add(x, row_at(e->apart, r, m), owed.norm, m->hidden, m->epsilon, owed.times);
            if (weight) norm_row(x, weight, m->hidden, m->epsilon, &rows, r);
            else put_row(x, m->hidden, &rows, r);
        }
    spent(e, t, T_NORM);
    next_phase(e, t, next);
    return rows;
}

static void feed_forward(Engine *e, Turn *t, const Layer *layer, const Rows *rows, float *x, int count) {
    const Model *m = e->m;
    Rows between = sized(e->between, count, between_of(m, layer));
    gated(e, t, layer, rows, &between);
    spent(e, t, T_GATED);
    next_phase(e, t, matrix_tiles(&layer->down));
    product_to(e, t, &layer->down, &between, layer->post_feed_norm ? e->apart : x, m->hidden,
               !layer->post_feed_norm, 0);
    spent(e, t, T_DOWN);
}

/* Rows choose their experts; pairs of a row and an expert are gathered by expert; then each row sums its own. `routed`:
 * the same rows as the router reads them. */
static void mixture(Engine *e, Turn *t, const Layer *layer, const Rows *rows, const Rows *routed, float *x, int count) {
    const Model *m = e->m;
    const Mixture *mix = layer->mixture;
    Pairs *pairs = &e->pairs;
    int from, to, after = layer->post_feed_norm != NULL;
    product_to(e, t, &mix->router, routed, pairs->scores, pairs->stride, 0, 0);
    next_phase(e, t, count);
    while (take(t, 1, &from, &to)) choose_experts(pairs, mix, from);
    if (ended(t)) {
        sort_pairs(pairs, mix, count);
        begin(t, count * mix->used);
    }
    while (take(t, 4, &from, &to))
        for (int i = from; i < to; i++) gather_pair(pairs, rows, i);
    next_phase(e, t, pairs->active * pairs->between.groups);
    while (take(t, 1, &from, &to)) gate_pairs(pairs, mix, from, pairs->between.groups, (Activation)m->activation);
    spent(e, t, T_GATED);
    next_phase(e, t, pairs->active * (m->hidden / LANES));
    while (take(t, 4, &from, &to))
        for (int i = from; i < to; i++) down_pairs(pairs, mix, i, m->hidden / LANES);
    next_phase(e, t, count);
    while (take(t, 1, &from, &to))
        sum_pairs(pairs, mix, from, (after ? e->apart : x) + (int64_t)from * m->hidden, m->hidden, !after);
    spent(e, t, T_DOWN);
}

/* Experts beside the plain part, whose outcome lies apart: each has norms of its own, before and behind. */
static void mixture_beside(Engine *e, Turn *t, const Layer *layer, float *x, int count) {
    const Model *m = e->m;
    const Mixture *mix = layer->mixture;
    Rows rows = sized(e->hidden, count, m->hidden), routed = sized(e->routed, count, m->hidden);
    size_t bytes = (size_t)m->hidden * 4;
    int from, to;
    next_phase(e, t, count);
    while (take(t, 2, &from, &to))
        for (int r = from; r < to; r++) {
            memset(row_at(e->beside, r, m), 0, bytes);
            norm_add(row_at(e->beside, r, m), row_at(e->apart, r, m), mix->plain_post_norm, m->hidden, m->epsilon, 1);
            norm_row(row_at(x, r, m), mix->norm, m->hidden, m->epsilon, &rows, r);
            norm_row(row_at(x, r, m), mix->router_norm, m->hidden, m->epsilon, &routed, r);
        }
    spent(e, t, T_NORM);
    next_phase(e, t, matrix_tiles(&mix->router));
    mixture(e, t, layer, &rows, &routed, x, count);
    next_phase(e, t, count);
    while (take(t, 2, &from, &to))
        for (int r = from; r < to; r++) {
            norm_add(row_at(e->beside, r, m), row_at(e->apart, r, m), mix->post_norm, m->hidden, m->epsilon, 1);
            memcpy(row_at(e->apart, r, m), row_at(e->beside, r, m), bytes);
        }
    spent(e, t, T_NORM);
}

/* What the layer adds of its own goes apart. */
static void addition(Engine *e, Turn *t, const Layer *layer, const Rows *rows, const int32_t *pick) {
    const Model *m = e->m;
    const Addition *a = layer->addition;
    int width = m->inputs->width, from, to;
    int64_t stride = (int64_t)m->layers * width;
    const float *own = e->inputs + (layer - m->layer) * width;
    Rows narrow = sized(e->narrow, rows->rows, width);
    while (take(t, 1, &from, &to))
        for (int row = 0; row < rows->rows; row += ROWS)
            gate_given(&a->gate, own, stride, pick, from, (Activation)m->activation, rows, row, &narrow);
    next_phase(e, t, matrix_tiles(&a->output));
    product_to(e, t, &a->output, &narrow, e->apart, m->hidden, 0, 0);
    spent(e, t, T_DOWN);
}

static void run(void *context, Turn *t) {
    const Job *job = context;
    Engine *e = job->e;
    const Step *s = &job->s;
    const Model *m = e->m;
    int from, to, count = s->rows;
    float *x = e->x;
    const Owed nothing = {NULL, 1};
    Owed owed = nothing;
    const int32_t *pick = NULL; /* which of the step's rows these are; NULL: all */
    Rows rows, heads;
    e->own[t->me].since = ticks();
    while (take(t, 1, &from, &to)) embed_row(e, s, from);
    spent(e, t, T_EMBED);
    if (m->inputs) {
        next_phase(e, t, count);
        rows = normed(e, t, 0, x, nothing, NULL, NULL, count, m->layers);
        while (take(t, 1, &from, &to)) put_inputs(e, s, from, &rows);
        spent(e, t, T_EMBED);
    }
    for (int l = 0; l < m->layers; l++) {
        const Layer *layer = &m->layer[l];
        int whole_heads = layer->query_norm || m->cache_type == CACHE_BYTES;
        const Delta *delta = layer->delta;
        Product qkv = {{&layer->query, &layer->key, &layer->value, &layer->attention_gate},
                       !layer->key.data ? 1 : layer->attention_gate.data ? 4 : 3,
                       whole_heads ? whole(head_of(m, layer)) / LANES : 1};
        if (delta) qkv = (Product){{&delta->mixed, &delta->beta, &delta->alpha, &delta->gate}, 4, 1};
        int lone = count <= LONE && !owed.norm, units = layer->convolution ? m->hidden / GROUP : units_of(&qkv);
        int gate_units = has_plain_part(layer) ? between_of(m, layer) / GROUP : matrix_tiles(&layer->mixture->router);
        next_phase(e, t, lone ? units : count);
        rows = normed(e, t, lone, x, owed, layer->attention_norm, NULL, count, units);
        if (layer->convolution) split(e, s, t, layer, &rows);
        else project(e, s, t, &qkv, &rows, layer, pick);
        spent(e, t, T_QKV);
        if (l == job->cut) { /* from here on only what is wanted */
            if (!s->wanted && delta) {
                next_phase(e, t, s->sequences * delta->values);
                look(e, job, t, layer, 1);
            }
            if (!s->wanted) break;
            next_phase(e, t, s->wanted);
            while (take(t, 1, &from, &to)) memcpy(row_at(e->tail, from, m), row_at(e->x, e->want[from], m), (size_t)m->hidden * 4);
            x = e->tail, count = s->wanted, pick = e->want;
        }
        next_phase(e, t, delta                ? s->sequences * delta->values
                         : layer->convolution ? count
                                              : tasks_of(e, job, layer, pick != NULL)->count);
        (delta ? look : layer->convolution ? convolve_rows : attention)(e, job, t, layer, pick != NULL);
        spent(e, t, T_ATTEND);
        next_phase(e, t, matrix_tiles(&layer->output));
        owed = (Owed){layer->post_attention_norm, 1};
        heads = inner(e, layer, count);
        product_to(e, t, &layer->output, &heads, owed.norm ? e->apart : x, m->hidden, !owed.norm, 0);
        spent(e, t, T_OUTPUT);
        lone = count <= LONE && !owed.norm && !layer->mixture;
        next_phase(e, t, lone ? gate_units : count);
        rows = normed(e, t, lone, x, owed, layer->feed_norm, NULL, count, gate_units);
        if (has_plain_part(layer)) feed_forward(e, t, layer, &rows, x, count);
        else mixture(e, t, layer, &rows, &rows, x, count);
        if (layer->mixture && layer->mixture->norm) mixture_beside(e, t, layer, x, count);
        owed.norm = layer->post_feed_norm;
        if (layer->addition) {
            next_phase(e, t, count);
            rows = normed(e, t, 0, x, owed, NULL, NULL, count, matrix_tiles(&layer->addition->gate) * LANES / GROUP);
            addition(e, t, layer, &rows, pick);
            owed.norm = layer->addition->norm;
        }
        owed.times = layer->scale ? layer->scale : 1;
    }
    if (owed.norm && s->wanted) {
        next_phase(e, t, count);
        while (take(t, 2, &from, &to))
            for (int r = from; r < to; r++)
                norm_add(row_at(x, r, m), row_at(e->apart, r, m), owed.norm, m->hidden, m->epsilon, owed.times);
    }
    if (s->wanted) {
        int units = matrix_tiles(&m->output);
        next_phase(e, t, s->wanted <= LONE ? units : s->wanted);
        rows = normed(e, t, s->wanted <= LONE, x, nothing, m->output_norm, pick ? NULL : e->want, s->wanted, units);
        product_to(e, t, &m->output, &rows, s->logits, (int64_t)units * LANES, 0, m->logit_cap);
        spent(e, t, T_HEAD);
    }
    leave(t);
    spent(e, t, T_WAIT);
}

/* ---------------------------------------------------------------------------------------------------------- steps */

typedef struct { int tasks, groups, slots, cut; } Planned; /* cut: long contexts go by segment */

/* Tasks of the queries first … first+count-1 of a sequence, last positions first, as theirs take longest. */
static void plan_queries(Engine *e, const Step *s, Planned *p, int kv_heads, int q, int first, int count) {
    int share = e->m->heads / kv_heads;
    while (count > 0) {
        int part = count % QUERIES ? count % QUERIES : QUERIES;
        count -= part;
        int pieces = (s->past[q] + (first + count + part - 1) / share) / SEGMENT + 1;
        for (int head = 0; head < kv_heads; head++) {
            if (!p->cut || pieces == 1 || p->slots + pieces * part > SLOTS) {
                e->task[p->tasks++] = (Task){q, head, first + count, part, -1, 0, 0};
                continue;
            }
            Group *group = &e->group[p->groups];
            atomic_store_explicit(&group->left, pieces, memory_order_relaxed);
            group->pieces = pieces, group->slot = p->slots;
            for (int i = 0; i < pieces; i++, p->slots += part)
                e->task[p->tasks++] = (Task){q, head, first + count, part, i, p->groups, p->slots};
            p->groups++;
        }
    }
}

/* Whether to cut contexts: with few tasks and a long context some threads would have nothing to do. */
static int worth_cutting(Engine *e, const Step *s, int kv_heads) {
    int share = e->m->heads / kv_heads, tasks = 0, longest = 0, threads = team_threads(e->team);
    for (int q = 0; q < s->sequences; q++) {
        int rows = s->begins[q + 1] - s->begins[q];
        tasks += (rows * share + QUERIES - 1) / QUERIES * kv_heads;
        longest = s->past[q] + rows > longest ? s->past[q] + rows : longest;
    }
    return tasks < 4 * threads && longest > SEGMENT && threads > 1;
}

/* Each wanted row's place; whether what follows the last keys is to be cut down to them. */
static int plan_places(Engine *e, const Step *s) {
    if (s->wanted == s->rows) return 0;
    for (int r = 0; r < s->rows; r++) e->place[r] = -1;
    for (int i = 0; i < s->wanted; i++) {
        if (e->place[s->want[i]] >= 0) return 0; /* wanted twice */
        e->place[s->want[i]] = i;
    }
    return 1;
}

static void plan(Engine *e, Job *job) {
    const Step *s = &job->s;
    Planned p = {0, 0, 0, 0};
    int cut = plan_places(e, s);
    job->cut = cut ? e->last_keys : -1;
    for (int q = 0; q < s->sequences; q++)
        for (int r = s->begins[q]; r < s->begins[q + 1]; r++) e->sequence_of[r] = q;
    for (int i = 0; i < e->kinds; i++) {
        int kv_heads = e->kind[i], share = e->m->heads / kv_heads, begin = p.tasks;
        p.cut = worth_cutting(e, s, kv_heads);
        for (int q = s->sequences - 1; q >= 0; q--) plan_queries(e, s, &p, kv_heads, q, 0, (s->begins[q + 1] - s->begins[q]) * share);
        job->all[i] = (List){kv_heads, begin, p.tasks - begin}, begin = p.tasks;
        for (int j = 0; cut && j < s->wanted; j++) {
            int q = e->sequence_of[s->want[j]];
            plan_queries(e, s, &p, kv_heads, q, (s->want[j] - s->begins[q]) * share, share);
        }
        job->few[i] = (List){kv_heads, begin, p.tasks - begin};
    }
}

void engine_step(Engine *e, const Step *step) {
    Job job = {.e = e, .s = *step};
    if (step->wanted) memcpy(e->want, step->want, (size_t)step->wanted * 4); /* a late thread may look there */
    job.s.want = e->want;
    plan(e, &job);
    team_run(e->team, run, &job, sizeof job, step->rows);
}

/* ---------------------------------------------------------------------------------------------------- the engine */

typedef struct { int bytes, floats; } Needs;

static void need(Needs *n, const Matrix *m) {
    if (is_float((Format)m->format)) n->floats = 1;
    else n->bytes = 1;
}

static void add_kind(Engine *e, int kv_heads) {
    for (int i = 0; i < e->kinds; i++)
        if (e->kind[i] == kv_heads) return;
    e->kind[e->kinds++] = kv_heads;
}

static int fill(Engine *e, int threads) {
    const Model *m = e->m;
    int64_t n = m->most_rows;
    Needs hidden = {0, 0}, heads = {0, 0}, between = {0, 0}, inner = {0, 0}, narrow = {0, 0}, narrower = {0, 0};
    int beside = 0, width = 0; /* experts beside the plain part; the widest expert */
    int experts = 0, used = 0, apart = 0, head = whole(m->head), broken = 0, wide = 0, size = 0; /* wide: of what outputs are made of */
    need(&hidden, &m->output);
    if (m->inputs) need(&hidden, &m->inputs->projection);
    for (int l = 0; l < m->layers; l++) {
        const Layer *y = &m->layer[l];
        const Convolution *c = y->convolution;
        const Delta *d = y->delta;
        if (c) need(&hidden, &c->before), need(&hidden, &c->after), need(&hidden, &c->input);
        else if (d) need(&hidden, &d->mixed), need(&hidden, &d->gate), need(&hidden, &d->beta), need(&hidden, &d->alpha);
        else {
            need(&hidden, &y->query), add_kind(e, kv_heads_of(m, y));
            if (y->key.data) need(&hidden, &y->key), need(&hidden, &y->value);
            if (y->attention_gate.data) need(&hidden, &y->attention_gate);
            broken |= head_of(m, y) % GROUP;
        }
        if (c || d || y->key.data) e->last_keys = l;
        if (y->addition) need(&hidden, &y->addition->gate), need(&narrow, &y->addition->output);
        need(&heads, &y->output);
        int given = c || d ? y->output.k : m->heads * whole(head_of(m, y));
        if ((c || d || y->attention_gate.data) && e->gated < given) e->gated = given;
        if (d && size < d->size) size = d->size;
        wide = wide > given ? wide : given;
        apart |= y->post_attention_norm || y->post_feed_norm || y->addition;
        if (has_plain_part(y)) need(&hidden, &y->gate), need(&hidden, &y->up), need(&between, &y->down);
        if (!y->mixture) continue;
        hidden.floats = 1, beside |= y->mixture->norm != NULL;
        width = experts_between(m, y) > width ? experts_between(m, y) : width;
        for (int i = 0; i < y->mixture->experts; i++)
            need(&inner, &y->mixture->gate[i]), need(&inner, &y->mixture->up[i]), need(&narrower, &y->mixture->down[i]);
        experts = y->mixture->experts > experts ? y->mixture->experts : experts;
        used = y->mixture->used > used ? y->mixture->used : used;
    }
    e->turned = head, e->rotated = m->ropes * head;
    e->team = team_create(threads);
    e->x = room(n * m->hidden * 4), e->queries = room(n * m->heads * head * 4);
    e->gates = e->gated ? room(n * e->gated * 4) : NULL;
    e->mixed = broken ? room(n * m->heads * head * 4) : NULL;
    e->apart = apart ? room(n * m->hidden * 4) : NULL;
    e->cosines = room(n * e->rotated * 4), e->sines = room(n * e->rotated * 4);
    e->sequence_of = room(n * 4), e->want = room(n * 4), e->place = room(n * 4);
    e->tail = room(n * m->hidden * 4);
    e->task = room(e->kinds * (2 * n * m->heads + SLOTS) * (int64_t)sizeof(Task)); /* of all rows, of wanted ones */
    e->group = room(SLOTS * (int64_t)sizeof(Group));
    e->seen = room(SLOTS * (int64_t)sizeof(Seen)), e->seen_values = room((int64_t)SLOTS * head * 4);
    if (!(e->team && e->x && e->queries && (e->apart || !apart) && (e->gates || !e->gated) && e->cosines && e->sines && e->sequence_of && e->want && e->place &&
          e->tail && e->task && e->group && e->seen && e->seen_values && (e->mixed || !broken)))
        return 0;
    if (m->cache_type == CACHE_BYTES) {
        e->query_bytes = room(n * m->heads * head), e->query_scales = room(n * m->heads * 4);
        e->query_biases = room(n * m->heads * 4);
        if (!(e->query_bytes && e->query_scales && e->query_biases)) return 0;
    }
    for (int i = 0; i < SLOTS; i++) e->seen[i].values = e->seen_values + (int64_t)i * head;
    for (int i = 0; size && i < threads; i++)
        if (!(e->own[i].matrix = room((int64_t)size * size * 4))) return 0;
    for (int i = 0; i < threads; i++)
        if (!rows_create(&e->own[i].rows, LONE, m->hidden, hidden.bytes, hidden.floats)) return 0;
    if (!rows_create(&e->hidden, n, m->hidden, hidden.bytes, hidden.floats) ||
        !rows_create(&e->heads, n, wide, heads.bytes, heads.floats))
        return 0;
    if (m->inputs && (!(e->inputs = room(n * m->layers * m->inputs->width * 4)) ||
                      !rows_create(&e->narrow, n, m->inputs->width, narrow.bytes, narrow.floats)))
        return 0;
    if (experts && !pairs_create(&e->pairs, n, experts, used, m->hidden, width, inner.bytes, inner.floats,
                                 narrower.bytes, narrower.floats))
        return 0;
    if (beside && (!(e->beside = room(n * m->hidden * 4)) || !rows_create(&e->routed, n, m->hidden, 0, 1))) return 0;
    return rows_create(&e->between, n, m->between, between.bytes, between.floats);
}

Engine *engine_create(const Model *m, int threads) {
    Engine *e = room(sizeof *e);
    if (!e) return NULL;
    memset(e, 0, sizeof *e);
    e->m = m;
    if (fill(e, threads)) return e;
    engine_destroy(e);
    return NULL;
}

void engine_destroy(Engine *e) {
    if (e->team) team_destroy(e->team);
    for (int i = 0; i < MOST_THREADS; i++) rows_destroy(&e->own[i].rows), give_back(e->own[i].matrix);
    rows_destroy(&e->hidden), rows_destroy(&e->heads), rows_destroy(&e->between), rows_destroy(&e->narrow), rows_destroy(&e->routed);
    pairs_destroy(&e->pairs), give_back(e->inputs), give_back(e->mixed);
    give_back(e->beside);
    give_back(e->x), give_back(e->apart), give_back(e->queries), give_back(e->gates), give_back(e->cosines), give_back(e->sines);
    give_back(e->sequence_of), give_back(e->want), give_back(e->place), give_back(e->tail), give_back(e->task), give_back(e->group);
    give_back(e->seen), give_back(e->seen_values), give_back(e->query_bytes), give_back(e->query_scales);
    give_back(e->query_biases), give_back(e);
}

const Model *engine_model(const Engine *e) { return e->m; }
Team *engine_team(Engine *e) { return e->team; }

void engine_spent(Engine *e, int thread, uint64_t *to) {
    memcpy(to, e->own[thread].spent, sizeof e->own[thread].spent);
    memset(e->own[thread].spent, 0, sizeof e->own[thread].spent);
}
