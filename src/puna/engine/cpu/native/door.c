/* What Python calls. Every size and pointer is looked at here, once; what is behind may trust them. */
#include <stdio.h>

#include "angles.h"
#include "attention.h"
#include "choice.h"
#include "convolution.h"
#include "delta.h"
#include "export.h"
#include "packing.h"
#include "products.h"
#include "room.h"
#include "step.h"

enum { MOST_WIDTH = 1 << 20 };

/* Says why not, and is 0. */
#define NO(...) (snprintf(why, (size_t)why_bytes, __VA_ARGS__), 0)

EXPORT int32_t puna_abi(void) { return ABI; }
EXPORT const char *puna_variant(void) { return VARIANT; }

EXPORT int64_t puna_struct_bytes(int32_t which) {
    static const int64_t size[] = {sizeof(Matrix), sizeof(Mixture), sizeof(Layer), sizeof(Rope), sizeof(Model), sizeof(Step),
                                   sizeof(Wishes), sizeof(Choice), sizeof(Convolution), sizeof(Delta), sizeof(Addition),
                                   sizeof(Inputs)};
    return which >= 0 && which < (int32_t)(sizeof size / sizeof *size) ? size[which] : -1;
}

/* ------------------------------------------------------------------------------------------------------- packing */

EXPORT int32_t puna_format(int32_t type) { return format_of(type); }
EXPORT int64_t puna_packed_bytes(int32_t type, int64_t outputs, int64_t k) { return packed_bytes(type, outputs, k); }

/* Bytes of a block of the cache over `kv_heads` heads, in one layer; -1 where that cannot be. */
EXPORT int64_t puna_block_bytes(int32_t cache_type, int32_t kv_heads, int32_t head) {
    if ((cache_type != CACHE_HALVES && cache_type != CACHE_BYTES) || kv_heads < 1) return -1;
    if (head < 2 || head > MOST_HEAD || head % 2) return -1;
    return kv_heads * keys_bytes((CacheType)cache_type, whole(head));
}

/* The same in a layer of convolutions. */
EXPORT int64_t puna_convolution_bytes(int32_t hidden) {
    return hidden < GROUP || hidden % GROUP || hidden > MOST_WIDTH ? -1 : convolution_bytes(hidden);
}

/* The same in a layer of linear attention; and of one of its states. */
static int delta_heads_fit(int32_t keys, int32_t values, int32_t size) {
    return keys > 0 && values > 0 && values <= 4096 && values % keys == 0 && size >= GROUP && size % GROUP == 0 && size <= MOST_HEAD;
}
EXPORT int64_t puna_delta_bytes(int32_t keys, int32_t values, int32_t size) {
    return delta_heads_fit(keys, values, size) ? delta_bytes(keys, values, size) : -1;
}
EXPORT int64_t puna_state_bytes(int32_t values, int32_t size) {
    return delta_heads_fit(1, values, size) ? state_bytes(values, size) : -1;
}

EXPORT int32_t puna_pack(int32_t type, const uint8_t *source, int64_t source_bytes, int64_t outputs, int64_t k,
                         const int32_t *order, float scale, uint8_t *target, int64_t target_bytes, int64_t from, int64_t to) {
    int64_t row = row_bytes(type, k), size = packed_bytes(type, outputs, k);
    if (row < 0 || size < 0) return 1;
    if (!source || source_bytes < 0) return 2;
    if (!target || (uintptr_t)target % LINE || target_bytes < size || from < 0 || from > to || to > (outputs + LANES - 1) / LANES) return 3;
    if (!order && source_bytes / row < outputs) return 4;
    if (order && source_bytes < row) return 4;
    if (order)
        for (int64_t i = from * LANES; i < outputs && i < to * LANES; i++)
            if (order[i] < -1 || order[i] >= source_bytes / row) return 4;
    pack_tiles(type, source, outputs, k, order, scale, target, from, to);
    return 0;
}

EXPORT int32_t puna_unpack(int32_t type, const uint8_t *source, int64_t source_bytes, int64_t rows, int64_t k, float *target) {
    int64_t row = row_bytes(type, k), padded = (k + GROUP - 1) / GROUP * GROUP;
    if (row < 0) return 1;
    if (!source || rows < 0 || source_bytes / row < rows) return 2;
    if (!target) return 3;
    for (int64_t i = 0; i < rows; i++) unpack_row(type, source + i * row, k, target + i * padded);
    return 0;
}

/* -------------------------------------------------------------------------------------------------------- a model */

enum { MOST_OUTPUTS = (1 << 24) - LANES, MOST_K = 1 << 22 };

static int matrix_fits(const Matrix *m, int32_t outputs, int32_t k) {
    if (!m->data || (uintptr_t)m->data % LINE || m->format < 0 || m->format >= FORMATS) return 0;
    if (m->outputs != outputs || m->k != k || outputs < 1 || outputs > MOST_OUTPUTS || k < 1 || k > MOST_K) return 0;
    if (!is_float((Format)m->format) && k % (m->format == SIX ? SUPER * GROUP : GROUP)) return 0;
    return m->bytes >= matrix_tiles(m) * matrix_tile_bytes(m);
}

static int mixture_fits(const Layer *y, const Model *m) {
    const Mixture *x = y->mixture;
    int32_t between = experts_between(m, y);
    if (between < GROUP || between % GROUP || between > MOST_WIDTH) return 0;
    if (x->norm && (!x->router_norm || !x->post_norm || !x->plain_post_norm || !y->post_feed_norm)) return 0;
    if (x->experts < 1 || x->experts > MOST_EXPERTS || x->used < 1 || x->used > x->experts || x->used > MOST_USED) return 0;
    if (!x->gate || !x->up || !x->down || !matrix_fits(&x->router, x->experts, m->hidden)) return 0;
    if (!is_float((Format)x->router.format)) return 0;
    if ((int64_t)x->experts * (between > m->hidden ? between : m->hidden) / LANES > MOST_UNITS) return 0;
    if ((int64_t)m->most_rows * x->used > MOST_UNITS) return 0;
    for (int i = 0; i < x->experts; i++)
        if (!matrix_fits(&x->gate[i], between, m->hidden) || !matrix_fits(&x->up[i], between, m->hidden) ||
            !matrix_fits(&x->down[i], m->hidden, between))
            return 0;
    return 1;
}

static int attention_fits(const Layer *y, const Model *m) {
    int32_t head = head_of(m, y), queries = m->heads * whole(head), keys = kv_heads_of(m, y) * whole(head);
    if (!matrix_fits(&y->query, queries, m->hidden) || !matrix_fits(&y->output, m->hidden, m->heads * head)) return 0;
    if (m->heads * head % GROUP || (y->attention_gate.data && !matrix_fits(&y->attention_gate, queries, m->hidden))) return 0;
    if (!y->key.data && !y->value.data) return !y->attention_gate.data; /* another layer's */
    return matrix_fits(&y->key, keys, m->hidden) && matrix_fits(&y->value, keys, m->hidden);
}

static int delta_fits(const Layer *y, const Model *m) {
    const Delta *d = y->delta;
    if (y->convolution || !delta_heads_fit(d->keys, d->values, d->size) || d->taps < 1 || d->taps > MOST_TAPS) return 0;
    if (!d->filter || !d->decay || !d->norm || m->most_rows > MOST_UNITS / d->values) return 0;
    int64_t found = d->values * d->size, state = state_bytes(d->values, d->size);
    if (m->states && (!d->states || (uintptr_t)d->states % LINE || d->states_stride % LINE || d->states_stride < state ||
                      d->states_bytes < state || (d->states_bytes - state) / d->states_stride < m->states - 1))
        return 0;
    return matrix_fits(&d->mixed, delta_channels(d), m->hidden) && matrix_fits(&d->gate, (int32_t)found, m->hidden) &&
           matrix_fits(&d->beta, d->values, m->hidden) && matrix_fits(&d->alpha, d->values, m->hidden) &&
           matrix_fits(&y->output, m->hidden, (int32_t)found);
}

static int convolution_fits(const Layer *y, const Model *m) {
    const Convolution *c = y->convolution;
    return matrix_fits(&c->before, m->hidden, m->hidden) && matrix_fits(&c->after, m->hidden, m->hidden) &&
           matrix_fits(&c->input, m->hidden, m->hidden) && matrix_fits(&y->output, m->hidden, m->hidden) && c->filter &&
           c->taps > 0 && c->taps <= MOST_TAPS;
}

static int layer_fits(const Layer *y, const Model *m, int number, char *why, int64_t why_bytes) {
    const char *look = y->delta ? "linear attention" : y->convolution ? "convolution" : "attention";
    int32_t kv_heads = kv_heads_of(m, y), head = head_of(m, y), between = between_of(m, y), attends = !y->delta && !y->convolution;
    if (kv_heads < 1 || kv_heads > m->kv_heads || m->heads % kv_heads || head < 2 || head > m->head || head % 2 ||
        between < GROUP || between > m->between || between % GROUP)
        return NO("layer %d has %d heads of keys, heads of %d, a feed-forward width of %d", number, kv_heads, head, between);
    int64_t block = y->convolution ? convolution_bytes(m->hidden) : kv_heads * keys_bytes((CacheType)m->cache_type, whole(head));
    if (!y->attention_norm || !y->feed_norm) return NO("layer %d lacks a norm", number);
    if (attends && ((!y->query_norm != !y->key_norm && y->key.data) || (y->value_norm && !y->query_norm)))
        return NO("layer %d norms queries or keys alone", number);
    if (!(y->delta ? delta_fits : y->convolution ? convolution_fits : attention_fits)(y, m))
        return NO("a matrix of layer %d's %s has another shape", number, look);
    if (y->delta) block = delta_bytes(y->delta->keys, y->delta->values, y->delta->size);
    if ((y->mixture && !mixture_fits(y, m)) ||
        (has_plain_part(y) && (!matrix_fits(&y->gate, between, m->hidden) || !matrix_fits(&y->up, between, m->hidden) ||
                               !matrix_fits(&y->down, m->hidden, between))))
        return NO("a matrix of layer %d's feed-forward part has another shape", number);
    const Addition *a = y->addition;
    if (a && (!m->inputs || !a->norm || !matrix_fits(&a->gate, m->inputs->width, m->hidden) ||
              !matrix_fits(&a->output, m->hidden, m->inputs->width)))
        return NO("layer %d's addition has another shape", number);
    if (y->scale && !a && !y->post_feed_norm) return NO("layer %d cannot be scaled", number);
    if (!y->cache || (uintptr_t)y->cache % LINE || y->cache_stride % LINE || y->cache_stride < block ||
        (y->cache_bytes - block) / y->cache_stride < m->blocks - 1 || y->cache_bytes < block)
        return NO("layer %d's cache is too small", number);
    if (y->rope >= m->ropes || y->window < 0) return NO("layer %d has no such rotation or window", number);
    return 1;
}

static int rope_fits(const Rope *r, const Model *m) {
    if (!r->speeds || r->pairs < 1 || r->pairs > whole(m->head) / 2) return 0;
    for (int i = 0; i < r->pairs; i++) /* no number is not less either */
        if (!(__builtin_fabsf(r->speeds[i]) * (float)m->context < MOST_ANGLE)) return 0;
    return 1;
}

static int inputs_fit(const Inputs *in, const Model *m) {
    if (in->width < GROUP || in->width > MOST_HEAD || in->width % GROUP || !in->norm) return 0;
    int64_t row = row_bytes(in->type, in->width) * m->layers;
    return row > 0 && in->rows && in->rows_bytes / row >= m->vocabulary &&
           matrix_fits(&in->projection, m->layers * in->width, m->hidden);
}

/* Layers have few different numbers of heads of keys, and experts of one width. */
static int few_kinds(const Model *m) {
    int32_t kind[MOST_KINDS], kinds = 0, width = 0, i;
    for (int l = 0; l < m->layers; l++) {
        if (m->layer[l].mixture && width && experts_between(m, &m->layer[l]) != width) return 0;
        if (m->layer[l].mixture) width = experts_between(m, &m->layer[l]);
        for (i = 0; i < kinds && kind[i] != kv_heads_of(m, &m->layer[l]); i++) {}
        if (i == MOST_KINDS) return 0;
        if (i == kinds) kind[kinds++] = kv_heads_of(m, &m->layer[l]);
    }
    return 1;
}

static int model_fits(const Model *m, char *why, int64_t why_bytes) {
    if (m->layers < 1 || m->layers > 4096 || !m->layer) return NO("%d layers", m->layers);
    if (m->hidden < GROUP || m->hidden % GROUP || m->hidden > MOST_WIDTH) return NO("a width of %d", m->hidden);
    if (m->between < GROUP || m->between % GROUP || m->between > MOST_WIDTH) return NO("a feed-forward width of %d", m->between);
    if (m->head < 2 || m->head % 2 || m->head > MOST_HEAD) return NO("heads of %d", m->head);
    if (m->heads < 1 || m->heads > 4096 || m->kv_heads < 1 || m->heads % m->kv_heads)
        return NO("%d heads that share %d", m->heads, m->kv_heads);
    if (m->vocabulary < 1 || m->vocabulary > MOST_OUTPUTS) return NO("a vocabulary of %d", m->vocabulary);
    if (m->most_rows < 1 || (int64_t)m->most_rows * m->heads > 1 << 19) return NO("steps of %d rows", m->most_rows);
    if (m->blocks < 1 || m->context < 1 || m->context > 1 << 28) return NO("%d blocks", m->blocks);
    if (m->activation < SILU || m->activation > CLAMPED_SWIGLU) return NO("no activation %d", m->activation);
    if (m->cache_type != CACHE_HALVES && m->cache_type != CACHE_BYTES) return NO("no cache of type %d", m->cache_type);
    if (m->states < 0 || m->states > 4096) return NO("%d states", m->states);
    if (m->ropes < 0 || m->ropes > MOST_ROPES) return NO("%d rotations", m->ropes);
    for (int i = 0; i < m->ropes; i++)
        if (!rope_fits(&m->rope[i], m)) return NO("rotation %d", i);
    int64_t row = row_bytes(m->embedding_type, m->hidden);
    if (row < 0 || !m->embedding || m->embedding_bytes / row < m->vocabulary) return NO("the embedding is too small");
    if (!m->output_norm || !matrix_fits(&m->output, m->vocabulary, m->hidden)) return NO("the head has another shape");
    if (m->inputs && !inputs_fit(m->inputs, m)) return NO("what layers add of their own has another shape");
    if (!few_kinds(m)) return NO("more than %d numbers of heads of keys, or experts of several widths", MOST_KINDS);
    for (int l = 0; l < m->layers; l++)
        if (!layer_fits(&m->layer[l], m, l, why, why_bytes)) return 0;
    return 1;
}

EXPORT Engine *puna_create(const Model *model, int32_t threads, char *why, int64_t why_bytes) {
    if (!model || !why || why_bytes < 1) return NULL;
    if (threads < 1 || threads > MOST_THREADS) return (Engine *)(intptr_t)NO("%d threads", threads);
    if (!model_fits(model, why, why_bytes)) return NULL;
    Engine *e = engine_create(model, threads);
    if (!e) (void)NO("no memory or no thread to be had");
    return e;
}

EXPORT void puna_destroy(Engine *engine) {
    if (engine) engine_destroy(engine);
}

/* --------------------------------------------------------------------------------------------------------- a step */

static int sequence_fits(const Model *m, const Step *s, int q, char *why, int64_t why_bytes) {
    int64_t rows = (int64_t)s->begins[q + 1] - s->begins[q], end = s->past[q] + rows;
    int64_t blocks = (int64_t)s->block_begins[q + 1] - s->block_begins[q];
    if (rows < 1 || s->begins[q + 1] > s->rows || s->past[q] < 0 || end > m->context)
        return NO("sequence %d has %d tokens after %d", q, (int)rows, s->past[q]);
    if (s->block_begins[q] < 0 || blocks < (end + BLOCK - 1) / BLOCK) return NO("sequence %d lacks blocks", q);
    for (int64_t i = 0; i < (end + BLOCK - 1) / BLOCK; i++) {
        int32_t block = s->blocks[s->block_begins[q] + i];
        if (block < 0 || block >= m->blocks) return NO("there is no block %d", block);
    }
    return 1;
}

static int states_fit(const Model *m, const Step *s, char *why, int64_t why_bytes) {
    if (!s->absorbed || !s->keep) return NO("a list of states is missing");
    for (int q = 0; q < s->sequences; q++) {
        int64_t end = (int64_t)s->past[q] + s->begins[q + 1] - s->begins[q];
        if (s->state[q] < 0) continue;
        if (s->state[q] >= m->states) return NO("there is no state %d", s->state[q]);
        if (s->absorbed[q] < 0 || s->absorbed[q] > s->past[q] || s->keep[q] < s->past[q] || s->keep[q] > end)
            return NO("sequence %d has a state of %d tokens, to become %d", q, s->absorbed[q], s->keep[q]);
        for (int other = 0; other < q; other++)
            if (s->state[other] == s->state[q]) return NO("two sequences have the state %d", s->state[q]);
    }
    return 1;
}

static int step_fits(const Model *m, const Step *s, char *why, int64_t why_bytes) {
    if (s->rows < 1 || s->rows > m->most_rows || s->sequences < 1 || s->sequences > s->rows)
        return NO("%d rows of %d sequences", s->rows, s->sequences);
    if (!s->ids || !s->past || !s->begins || !s->blocks || !s->block_begins) return NO("a list is missing");
    if (s->wanted < 0 || s->wanted > s->rows || (s->wanted && (!s->want || !s->logits))) return NO("%d rows wanted", s->wanted);
    for (int i = 0; i < s->rows; i++)
        if (s->ids[i] < 0 || s->ids[i] >= m->vocabulary) return NO("there is no token %d", s->ids[i]);
    for (int i = 0; i < s->wanted; i++)
        if (s->want[i] < 0 || s->want[i] >= s->rows) return NO("there is no row %d", s->want[i]);
    if (s->begins[0] != 0 || s->begins[s->sequences] != s->rows || s->block_begins[0] != 0) return NO("rows that belong to no sequence");
    for (int q = 0; q < s->sequences; q++)
        if (!sequence_fits(m, s, q, why, why_bytes)) return 0;
    return !s->state || states_fit(m, s, why, why_bytes);
}

EXPORT int32_t puna_step(Engine *engine, const Step *step, char *why, int64_t why_bytes) {
    if (!engine || !step || !why || why_bytes < 1) return 1;
    if (!step_fits(engine_model(engine), step, why, why_bytes)) return 1;
    engine_step(engine, step);
    return 0;
}

EXPORT int32_t puna_spent(Engine *engine, int32_t thread, uint64_t *spent) {
    if (!engine || !spent || thread < 0 || thread >= team_threads(engine_team(engine))) return 1;
    engine_spent(engine, thread, spent);
    return 0;
}

/* ------------------------------------------------------------------------------------------- for tests and benches */

/* x [rows][k rounded up to 32] times one matrix, by one thread: out [rows][outputs rounded up to 16]. */
EXPORT int32_t puna_product(const Matrix *m, const float *x, int32_t rows, float *out) {
    if (!m || !x || !out || rows < 1 || rows > 1 << 16 || !matrix_fits(m, m->outputs, m->k)) return 1;
    int64_t groups = matrix_groups(m), stride = (int64_t)matrix_tiles(m) * LANES;
    Rows r = {room(rows * groups * ROW_GROUP), room(rows * groups * GROUP * 4), (int32_t)groups, rows};
    int failed = !r.bytes || !r.floats;
    vf tile[ROWS];
    for (int i = 0; i < rows && !failed; i++)
        for (int g = 0; g < groups; g++, x += GROUP) put_group(&r, i, g, f_load(x), f_load(x + LANES));
    for (int t = 0; t < matrix_tiles(m) && !failed; t++)
        for (int i = 0; i < rows; i += ROWS) {
            product_tile(m, t, &r, i, tile);
            for (int j = 0; j < rows_of_tile(&r, i); j++) f_store(out + (i + j) * stride + t * LANES, tile[j]);
        }
    give_back(r.bytes), give_back(r.floats);
    return failed;
}

/* Cosines and sines of angles that are less than MOST_ANGLE. */
EXPORT int32_t puna_angles(const double *radians, int64_t count, float *cosines, float *sines) {
    if (!radians || !cosines || !sines) return 1;
    for (int64_t i = 0; i < count; i++) {
        if (!(__builtin_fabs(radians[i]) < MOST_ANGLE)) return 1;
        angle(radians[i], &cosines[i], &sines[i]);
    }
    return 0;
}

typedef struct { const uint8_t *from; int64_t bytes; _Alignas(8) uint64_t *sum; } Reading;

static void read_part(void *context, Turn *t) {
    const Reading *r = context;
    int from, to;
    while (take(t, 1, &from, &to)) {
        vi sum[4] = {i_set(0), i_set(0), i_set(0), i_set(0)};
        const uint8_t *p = r->from + (int64_t)from * (1 << 20);
        for (int i = 0; i < 1 << 20; i += 4 * LINE)
            for (int j = 0; j < 4; j++) {
                __builtin_prefetch(p + i + 8192 + j * LINE, 0, 0);
                sum[j] ^= i_load(p + i + j * LINE);
            }
        r->sum[from % 64] = (uint64_t)i_sum(sum[0] ^ sum[1] ^ sum[2] ^ sum[3]);
    }
    leave(t);
}

/* All threads read `bytes` from `p` once, a megabyte at a time, as a step reads its weights. */
EXPORT int32_t puna_read(Engine *engine, const uint8_t *p, int64_t bytes) {
    uint64_t sum[64];
    Reading r = {p, bytes, sum};
    if (!engine || !p || bytes < 1 << 20 || bytes >> 20 > 1 << 19) return 1;
    team_run(engine_team(engine), read_part, &r, sizeof r, (int)(bytes >> 20));
    return 0;
}
