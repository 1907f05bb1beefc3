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

typedef struct { /* one head of keys, and which of its positions a query may see */
    const uint8_t *cache;   /* the layer's, at this head */
    const int32_t *blocks;  /* the sequence's */
    int64_t stride;         /* bytes from block to block */
    int head;               /* its size */
    float cap;              /* scores are cap * tanh(score / cap); 0: as they are */
    const uint8_t *later;   /* what will be read next: asked for while the last block is computed */
} Keys;

INLINE int64_t keys_bytes(int head) { return (int64_t)BLOCK * head * 4; } /* of one block and head, values included */

/* `count` (at most QUERIES) queries over the positions of one segment. Query i, already scaled, sees the positions
 * from[i] … to[i]-1 of it. A query's result does not depend on the others. */
void attend(int count, const float *const *query, const int *from, const int *to, int segment, const Keys *keys,
            Seen *seen);

/* `seen` and the segment after it, into `seen`. Merging with nothing seen changes no bit. */
void merge(Seen *seen, const Seen *next, int head);

/* Keys and values of one token into its place of a block, 16 elements at `d`. */
void put_key(uint8_t *block, int head, int place, int d, vf v);
void put_value(uint8_t *block, int head, int place, int d, vf v);

#endif
