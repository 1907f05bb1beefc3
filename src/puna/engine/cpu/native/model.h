/* What Python tells the library: a model, and one step of it. Mirrored field for field by engine/cpu/forward.py. */
#ifndef PUNA_MODEL_H
#define PUNA_MODEL_H

#include "layout.h"

enum { ABI = 5 };
enum { MOST_ROPES = 2, MOST_HEAD = 512, MOST_THREADS = 64, MOST_EXPERTS = 1024, MOST_USED = 32, MOST_TAPS = 16, MOST_KINDS = 4 };

typedef enum { SILU, GELU, CLAMPED_SWIGLU } Activation;
typedef enum { CACHE_HALVES, CACHE_BYTES } CacheType; /* keys and values as f16; as bytes, one scale a token and head */

typedef struct { /* a mixture of experts in place of one feed-forward part */
    Matrix router;         /* [experts][hidden], of floats */
    const Matrix *gate, *up, *down; /* one each an expert */
    int32_t experts, used; /* how many there are; how many a row takes */
    int32_t renormalise;   /* 1: shares are the softmax of the chosen ones' scores; 0: of all experts' scores */
    float share_scale;     /* shares are multiplied by it */
    int32_t between, unused; /* an expert's width between gate and down; 0: the layer's */
    const float *norm;     /* [hidden] of what experts read; NULL: they are in place of the plain part, and read as it */
    const float *router_norm, *post_norm, *plain_post_norm; /* with it: of what the router reads, of both outcomes */
} Mixture;

typedef struct { /* a short convolution in place of attention: after * filter(before * input), channel by channel */
    Matrix before, after, input; /* [hidden][hidden] each */
    const float *filter;         /* [taps][hidden], the oldest token's first */
    int32_t taps, unused;        /* tokens that a row sees, itself included */
} Convolution;

typedef struct { /* linear attention in place of attention: see delta.h */
    Matrix mixed;        /* [channels][hidden]: queries and keys of `keys` heads each, values of `values` heads */
    Matrix gate;         /* [values * size][hidden]: its sigmoid times itself multiplies what was found */
    Matrix beta, alpha;  /* [values][hidden] each */
    const float *filter; /* [taps][channels], the oldest token's first */
    const float *decay;  /* [values up to 16]: the matrix is multiplied by e^(decay * log(1 + e^alpha)) */
    const float *norm;   /* [size] */
    uint8_t *states;     /* this layer's of the first of the model's states */
    int64_t states_bytes, states_stride;
    int32_t taps, keys, values, size; /* value head i goes with key head i % keys */
} Delta;

typedef struct { /* what a layer adds of its own to each token: output * (gelu(gate * row) times the token's input here) */
    Matrix gate, output; /* [inputs' width][hidden], [hidden][inputs' width] */
    const float *norm;   /* [hidden] of what is added */
} Addition;

typedef struct { /* each token's inputs for such additions: (norm(projection * its embedding) + its own row) * share */
    const uint8_t *rows;  /* the file's own, [vocabulary][layers * width] */
    int64_t rows_bytes;
    Matrix projection;    /* [layers * width][hidden] */
    const float *norm;    /* [width] */
    int32_t type, width;  /* the rows' type, ggml's; numbers of a layer */
    float scale, share;   /* rows are multiplied by the first */
} Inputs;

typedef struct {
    const float *attention_norm, *post_attention_norm; /* [hidden]; the second may be NULL: no norm there */
    const float *feed_norm, *post_feed_norm;           /* the same */
    const float *query_norm, *key_norm, *value_norm;   /* [head] of each head, filled up to whole groups, or NULL */
    const float *sinks;                                /* [heads]: a score that takes weight and has no value, or NULL */
    Matrix query, key, value;                          /* rows of query and key in the order that rotates neighbours; no
                                                          data of key and value: they are another layer's, in its cache */
    Matrix output;                                     /* of attention, or of what is in its place */
    Matrix attention_gate;                             /* its sigmoid multiplies what was seen; no data: none does */
    Matrix gate, up, down;                             /* not looked at if there is a mixture in their place */
    const Mixture *mixture;                            /* or NULL */
    const Convolution *convolution;                    /* or NULL; with one, nothing of attention is looked at */
    const Delta *delta;                                /* or NULL; the same */
    const Addition *addition;                          /* or NULL */
    uint8_t *cache;                                    /* this layer's blocks */
    int64_t cache_bytes, cache_stride;                 /* from its first block's begin on; from block to block */
    int32_t rope;   /* which of the model's; -1: positions are not told */
    int32_t window; /* how many positions a row sees, itself included; 0: all */
    int32_t kv_heads, head, between; /* 0: the model's, which are the most that any layer has */
    float scale;    /* of what leaves the layer; 0: as it is */
} Layer;

typedef struct { /* angle of pair i at position p: p * speeds[i]; beyond `pairs` a head is not turned */
    const float *speeds;
    int32_t pairs;
    float magnitude; /* of cosine and sine */
} Rope;

typedef struct { /* `head`: elements; queries, keys and values have as many as whole groups, 0 beyond */
    int32_t layers, hidden, heads, kv_heads, head, between, vocabulary;
    int32_t most_rows, context, blocks; /* of one step; positions; blocks in the cache */
    int32_t activation, ropes, cache_type;
    int32_t states;                       /* how many sequences may each have one, where a layer has them */
    float epsilon, attention_scale, attention_cap, logit_cap; /* caps: 0 for none */
    float embedding_scale;
    int32_t embedding_type; /* ggml's */
    Rope rope[MOST_ROPES];
    const uint8_t *embedding; /* the file's own rows */
    int64_t embedding_bytes;
    const float *output_norm;
    Matrix output;
    const Layer *layer;
    const Inputs *inputs; /* or NULL */
} Model;

INLINE int kv_heads_of(const Model *m, const Layer *y) { return y->kv_heads ? y->kv_heads : m->kv_heads; }
INLINE int head_of(const Model *m, const Layer *y) { return y->head ? y->head : m->head; }
INLINE int between_of(const Model *m, const Layer *y) { return y->between ? y->between : m->between; }
INLINE int experts_between(const Model *m, const Layer *y) {
    return y->mixture->between ? y->mixture->between : between_of(m, y);
}
INLINE int has_plain_part(const Layer *y) { return !y->mixture || y->mixture->norm; }
INLINE int whole(int head) { return (head + GROUP - 1) / GROUP * GROUP; }

typedef struct { /* Sequence i has rows begins[i] … begins[i+1]-1; past[i] of its tokens are in the cache already; its
                    blocks, those to be written among them, are block_begins[i] … of `blocks`. */
    int32_t rows, sequences, wanted;
    const int32_t *ids, *past, *begins, *blocks, *block_begins;
    const int32_t *want; /* [wanted]: rows whose logits are asked for */
    float *logits;       /* [wanted][vocabulary rounded up to 16] */
    /* Of models with states, each may be NULL with `state`: the state that a sequence has to itself, or -1; how many of
       its tokens that one has absorbed, at most `past`; and how many it shall have absorbed after the step. */
    const int32_t *state, *absorbed, *keep;
} Step;

#endif
