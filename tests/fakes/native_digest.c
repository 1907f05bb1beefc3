/* Tiny models of every type, made by a generator of numbers of our own, and a digest of their logits.
 *
 * Linked with the library. It prints the same on every machine, on those that have no Python too.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "model.h"
#include "room.h"

typedef struct Engine Engine;
Engine *puna_create(const Model *model, int32_t threads, char *why, int64_t why_bytes);
void puna_destroy(Engine *engine);
int32_t puna_step(Engine *engine, const Step *step, char *why, int64_t why_bytes);
int32_t puna_format(int32_t type);
int64_t puna_packed_bytes(int32_t type, int64_t outputs, int64_t k);
int32_t puna_pack(int32_t type, const uint8_t *source, int64_t source_bytes, int64_t outputs, int64_t k,
                  const int32_t *order, float scale, uint8_t *target, int64_t target_bytes, int64_t from, int64_t to);
int64_t puna_block_bytes(int32_t cache_type, int32_t kv_heads, int32_t head);

enum { HIDDEN = 256, HEADS = 8, KV_HEADS = 2, HEAD = 64, BETWEEN = 512, WORDS = 77, BLOCKS = 40, EXPERTS = 3, LAYERS = 2 };
enum { LONG = 1100, CHUNK = 64 };

static uint64_t state;

static uint32_t random_bits(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 32);
}
static float random_float(float size) { return ((float)(random_bits() >> 8) / (1 << 23) - 1) * size; }
static void fail(const char *why) {
    printf("failed: %s\n", why);
    exit(1);
}
static void *have(int64_t bytes) {
    void *p = room(bytes);
    if (!p) fail("memory");
    memset(p, 0, (size_t)bytes);
    return p;
}
static float *vector(int n, float mean, float size) {
    float *v = have(n * 4);
    for (int i = 0; i < n; i++) v[i] = mean + random_float(size);
    return v;
}

/* Bytes of a block, and where it keeps numbers of 16 bits that scale it, by how much. */
typedef struct { int type, weights, bytes, at[2]; float size; } Kind;
static const Kind kinds[] = {
    {0, 1, 4, {-1, -1}, 0},       {1, 1, 2, {-1, -1}, 0},       {30, 1, 2, {-1, -1}, 0},      {8, 32, 34, {0, -1}, 4e-4f},
    {2, 32, 18, {0, -1}, 6e-3f},  {3, 32, 20, {0, 2}, 6e-3f},   {6, 32, 22, {0, -1}, 6e-3f},  {7, 32, 24, {0, 2}, 6e-3f},
    {10, 256, 84, {80, 82}, 3e-3f}, {11, 256, 110, {108, -1}, 6e-4f}, {12, 256, 144, {0, 2}, 1e-4f},
    {13, 256, 176, {0, 2}, 6e-5f}, {14, 256, 210, {208, -1}, 3e-5f}, {20, 32, 18, {0, -1}, 6e-4f},
    {23, 256, 136, {0, -1}, 3e-5f}, {39, 32, 17, {-1, -1}, 0},
};

static int64_t bytes_of(const Kind *kind, int64_t weights) { return weights / kind->weights * kind->bytes; }

static uint8_t *raw(const Kind *kind, int64_t weights) {
    int64_t blocks = weights / kind->weights;
    uint8_t *p = have(bytes_of(kind, weights));
    for (int64_t i = 0; i < blocks; i++) {
        uint8_t *b = p + i * kind->bytes;
        float x = random_float(0.1f);
        uint16_t h = to_half(x);
        if (kind->type == 0) memcpy(b, &x, 4);
        else if (kind->type == 1) memcpy(b, &h, 2);
        else if (kind->type == 30) memcpy(b, (uint8_t *)&x + 2, 2);
        else
            for (int j = 0; j < kind->bytes; j++) b[j] = (uint8_t)random_bits();
        if (kind->type == 39) b[0] = (uint8_t)(119 + random_bits() % 4);
        for (int j = 0; j < 2 && kind->at[j] >= 0; j++) h = to_half(random_float(kind->size)), memcpy(b + kind->at[j], &h, 2);
    }
    return p;
}

static Matrix matrix(const Kind *kind, int outputs, int k) {
    int64_t size = puna_packed_bytes(kind->type, outputs, k), weights = (int64_t)outputs * k;
    if (size < 0) fail("a width");
    uint8_t *to = have(size);
    if (puna_pack(kind->type, raw(kind, weights), bytes_of(kind, weights), outputs, k, NULL, 1, to, size, 0, (outputs + 15) / 16))
        fail("packing");
    return (Matrix){to, vector((outputs + 15) / 16 * 16, 0, 0.2f), size, puna_format(kind->type), outputs, k, 0};
}

static Matrix *matrices(const Kind *kind, int count, int outputs, int k) {
    Matrix *m = have(count * (int64_t)sizeof *m);
    for (int i = 0; i < count; i++) m[i] = matrix(kind, outputs, k);
    return m;
}

static Model model(const Kind *kind, int experts, int cache) {
    Layer *layers = have(LAYERS * (int64_t)sizeof *layers);
    Model m = {LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, BETWEEN, WORDS, CHUNK, BLOCKS * BLOCK, BLOCKS, experts ? 2 : cache,
               1, cache, 0, 1e-5f, 0.125f, cache ? 20 : 0, cache ? 0 : 10, 3, kind->type, {{NULL, HEAD / 2, 1}}, NULL,
               0, NULL, matrix(kind, WORDS, HIDDEN), layers};
    float *speeds = vector(HEAD / 2, 0, 1);
    m.rope[0].speeds = speeds, m.embedding = raw(kind, WORDS * HIDDEN);
    m.embedding_bytes = bytes_of(kind, WORDS * HIDDEN), m.output_norm = vector(HIDDEN, 1, 0.3f);
    for (int i = 0; i < LAYERS; i++) {
        Layer *y = &layers[i];
        y->attention_norm = vector(HIDDEN, 1, 0.3f), y->feed_norm = vector(HIDDEN, 1, 0.3f);
        if (cache) y->post_attention_norm = vector(HIDDEN, 1, 0.3f), y->post_feed_norm = vector(HIDDEN, 1, 0.3f);
        if (!cache) y->query_norm = vector(HEAD, 1, 0.3f), y->key_norm = vector(HEAD, 1, 0.3f);
        y->sinks = vector(HEADS, 0, 2), y->window = i ? 200 : 0;
        y->query = matrix(kind, HEADS * HEAD, HIDDEN), y->key = matrix(kind, KV_HEADS * HEAD, HIDDEN);
        y->value = matrix(kind, KV_HEADS * HEAD, HIDDEN), y->output = matrix(kind, HIDDEN, HEADS * HEAD);
        if (experts) {
            Mixture *x = have(sizeof *x);
            *x = (Mixture){matrix(&kinds[0], EXPERTS, HIDDEN), matrices(kind, EXPERTS, BETWEEN, HIDDEN),
                           matrices(kind, EXPERTS, BETWEEN, HIDDEN), matrices(kind, EXPERTS, HIDDEN, BETWEEN), EXPERTS, 2, 1, 1};
            y->mixture = x;
        } else y->gate = matrix(kind, BETWEEN, HIDDEN), y->up = matrix(kind, BETWEEN, HIDDEN), y->down = matrix(kind, HIDDEN, BETWEEN);
        y->cache_stride = puna_block_bytes(cache, KV_HEADS, HEAD);
        y->cache_bytes = BLOCKS * y->cache_stride, y->cache = have(y->cache_bytes);
    }
    return m;
}

static uint64_t digest;

static void step(Engine *e, const int32_t *ids, int rows, int past) {
    static int32_t blocks[BLOCKS], want[CHUNK];
    static float logits[CHUNK * 80];
    int32_t begins[2] = {0, rows}, block_begins[2] = {0, BLOCKS};
    char why[100] = "";
    for (int i = 0; i < BLOCKS; i++) blocks[i] = i * 7 % BLOCKS; /* 7 and BLOCKS share no factor: each once */
    for (int i = 0; i < rows; i++) want[i] = i;
    Step s = {rows, 1, rows, ids, &past, begins, blocks, block_begins, want, logits};
    if (puna_step(e, &s, why, sizeof why)) fail(why);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < WORDS; j++) {
            uint32_t bits;
            memcpy(&bits, &logits[i * 80 + j], 4);
            digest = (digest ^ bits) * 0x100000001b3u;
        }
}

int main(void) {
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int form = 0; form < 3; form++) {
            char why[100] = "";
            int32_t ids[LONG];
            int length = k == 5 && form < 2 ? LONG : 70;
            state = 0x9e3779b97f4a7c15u + k * 3 + (unsigned)form, digest = 0xcbf29ce484222325u;
            Model m = model(&kinds[k], form == 2, form == 1);
            Engine *e = puna_create(&m, 1 + (int)(k % 3), why, sizeof why);
            if (!e) fail(why);
            for (int i = 0; i < length; i++) ids[i] = (int32_t)(random_bits() % WORDS);
            for (int past = 0, rows; past < length; past += rows) {
                rows = past ? 1 + (int)(random_bits() % CHUNK) : CHUNK;
                rows = rows < length - past ? rows : length - past;
                step(e, ids + past, rows, past);
            }
            puna_destroy(e);
            printf("%d.%d %016llx\n", kinds[k].type, form, (unsigned long long)digest);
        }
    return 0;
}
