/* A row of logits and what is asked of it, to a token. engine/cpu/sampler.py specifies it: the tokens are equal. */
#ifndef PUNA_CHOICE_H
#define PUNA_CHOICE_H

#include "export.h"
#include "odds.h"
#include "step.h"

typedef struct { /* what one request asks of all its tokens. Mirrored by engine/cpu/structures.py, as Choice is. */
    double typical, nucleus;             /* masses; from 1 on: off */
    double tau, eta;                     /* Mirostat's */
    const int32_t *bias_ids;             /* [biases] */
    const float *bias;                   /* [biases] */
    const int32_t *banned;               /* [bans] */
    int32_t biases, bans;
    float coolness;                      /* what depths are multiplied by: 1 / temperature */
    float deepest;                       /* min-p as a depth; infinite: off */
    float repeat, frequency, presence;   /* penalties */
    int32_t last;                        /* of how many of the last tokens; negative: of all; 0: none */
    int32_t top_k;                       /* below 1: off */
    int32_t mirostat;                    /* 0, 1 or 2 */
    int32_t greedy;                      /* the likeliest of what is left instead of a draw */
} Wishes;

enum { MOST_TOPS = 1024 };
enum { DRAWN, NOT_NUMBERS, NOTHING_LEFT, NO_TOKEN }; /* a choice's fault; the last: an id that is none */

typedef struct { /* one choice: what is asked, and below it what came of it */
    const Wishes *wishes;
    const int32_t *history; /* [length] prompt and answer so far; only its last tokens are looked at */
    const uint32_t *mask;   /* [mask_words] a bit for each token that may come; NULL: all may */
    double number;          /* in [0, 1): where the draw falls */
    double limit;           /* Mirostat's, in bits; it is moved */
    int64_t length;
    int32_t mask_words;
    int32_t row;
    int32_t given;          /* a token that is there already, whose log-probability alone is asked for; or -1 */
    int32_t top;            /* alternatives asked for, at most MOST_TOPS; -1: no log-probability either */
    int32_t *top_ids;       /* [top, or the vocabulary if that is less] likeliest first, */
    double *top_logprobs;   /* and their log-probabilities */
    double logprob;
    int32_t token;
    int32_t tops;           /* alternatives that there are */
    int32_t fault;
} Choice;

/* What one thread needs for a vocabulary of that size, in bytes; -1 for a size that cannot be. */
EXPORT int64_t puna_choose_room(int32_t vocabulary);

/* Rows of `logits` lie `stride` apart and are left as they are. Spread over the engine's threads if there is one:
 * `scratch` is puna_choose_room bytes for each of them, else for one. 0; or -1 and in `why` what of all this cannot be. */
EXPORT int32_t puna_choose(Engine *engine, const float *logits, int64_t rows, int64_t stride, int32_t vocabulary,
                           Choice *choices, int32_t count, void *scratch, int64_t scratch_bytes, char *why,
                           int64_t why_bytes);

#endif
