/* Attention of some queries over one head of keys and values in the paged cache. */
#ifndef PUNA_ATTENTION_H
#define PUNA_ATTENTION_H

#include "model.h"

/* A context is cut into segments of so many positions, each summed by itself, and segments are merged in order: so one
 * long row may be shared by several threads and has the same bits as on one. */
enum { SEGMENT = 512, SEGMENT_BLOCKS = SEGMENT / BLOCK };

typedef struct { /* what a query has seen so far: the largest score, the sum of weights, the weighted sum of values */
    float most, total;
    float *values; /* [head] */
} Seen;

typedef struct { /* one head of a row, scaled; as bytes only where the cache is of bytes */
    const float *floats;
    const int8_t *bytes;
    float scale;
    int32_t bias; /* -128 times the sum of the bytes */
} Query;

typedef struct { /* one head of keys and values */
    const uint8_t *cache;   /* the layer's, at this head */
    const int32_t *blocks;  /* the sequence's */
    int64_t stride;         /* bytes from block to block */
    int head;               /* its size */
    CacheType type;
    float cap;              /* scores are cap * tanh(score / cap); 0: as they are */
    const uint8_t *later;   /* what will be read next: asked for while the last block is computed */
} Keys;

/* Bytes of one block and head, values included. */
INLINE int64_t keys_bytes(CacheType type, int head) {
    return type == CACHE_BYTES ? (int64_t)BLOCK * (2 * head + 8) : (int64_t)BLOCK * head * 4;
}

/* `count` (at most QUERIES) queries over the positions of one segment. Query i, already scaled, sees the positions
 * from[i] … to[i]-1 of it. A query's result does not depend on the others. */
void attend(int count, const Query *query, const int *from, const int *to, int segment, const Keys *keys,
            Seen *seen);

/* `seen` and the segment after it, into `seen`. Merging with nothing seen changes no bit. */
void merge(Seen *seen, const Seen *next, int head);

/* Keys or values of one token into its place of a block: `width` vectors from element `d` on. To a cache of bytes a whole
 * head goes at once. */
void put_key(CacheType type, uint8_t *block, int head, int place, int d, int width, const vf *v);
void put_value(CacheType type, uint8_t *block, int head, int place, int d, int width, const vf *v);

/* A whole head as bytes; returns its scale. */
float to_bytes(const vf *v, int width, int8_t *to);

#endif
