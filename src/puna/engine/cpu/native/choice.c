#include "choice.h"

#include <math.h>
#include <stdio.h>

enum { STRETCH = 256 }; /* values whose largest are found, or weights summed, together */
enum { MIROSTAT_TERMS = 100, CELLS_A_PLACE = 8, WORTH_NARROWING = 1024 };
#define MOST_SURPRISE 1e6

/* ------------------------------------------------------------------------------------------------ rows and what is left */

typedef struct { /* one thread's room; all of it [padded] but the sums */
    float *row;       /* logits after what is asked was done to them */
    float *values;    /* those that are left, with their ids */
    int32_t *ids;
    int32_t *keys;    /* and their order */
    float *weights;
    int32_t *places;  /* of values whose order is not decided yet; or how often a token came */
    double *sums;     /* [padded / 256] */
} Scratch;

typedef struct { /* tokens that are left, by id */
    const float *values;
    const int32_t *ids; /* NULL: 0, 1, 2 … */
    int n;
} Left;

static int32_t id_at(const Left *left, int place) { return left->ids ? left->ids[place] : place; }

static int64_t padded(int32_t vocabulary) { return ((int64_t)vocabulary + 255) / 256 * 256; }

static int64_t room_for(int32_t vocabulary) { return padded(vocabulary) * 24 + padded(vocabulary) / 256 * 8 + 64; }

static Scratch scratch_at(uint8_t *p, int32_t vocabulary) {
    int64_t n = padded(vocabulary);
    p = (uint8_t *)(((uintptr_t)p + 63) & ~(uintptr_t)63);
    Scratch s = {(float *)p, (float *)p + n, (int32_t *)p + 2 * n, (int32_t *)p + 3 * n, (float *)p + 4 * n,
                 (int32_t *)p + 5 * n, (double *)((float *)p + 6 * n)};
    return s;
}

/* 16 values from i on; behind the last of n, `fill`. */
INLINE vf values_at(const float *values, int i, int n, float fill) {
    if (n - i >= 16) return f_load(values + i);
    vf rest = f_set(fill);
    memcpy(&rest, values + i, (size_t)(n - i) * 4);
    return rest;
}

/* Whether any lane of a mask is set. */
INLINE int any(vi mask) {
    typedef int64_t v8 __attribute__((vector_size(64), may_alias));
    v8 m = (v8)mask;
    return ((m[0] | m[1]) | (m[2] | m[3]) | (m[4] | m[5]) | (m[6] | m[7])) != 0;
}

/* The largest; 0 if there is one that is not a number, or is infinite. */
static int survey(const float *values, int n, float *peak) {
    vf most[4] = {f_set(-INFINITY), f_set(-INFINITY), f_set(-INFINITY), f_set(-INFINITY)};
    vi fine[4] = {i_set(-1), i_set(-1), i_set(-1), i_set(-1)};
    int i = 0;
    for (; i + 64 <= n; i += 64)
        UNROLL for (int j = 0; j < 4; j++) {
            vf v = f_load(values + i + 16 * j);
            most[j] = f_max(most[j], v), fine[j] &= v < f_set(INFINITY);
        }
    for (; i < n; i += 16) {
        vf v = values_at(values, i, n, -INFINITY);
        most[0] = f_max(most[0], v), fine[0] &= v < f_set(INFINITY);
    }
    *peak = f_most(f_max(f_max(most[0], most[1]), f_max(most[2], most[3])));
    return !any(~(fine[0] & fine[1] & fine[2] & fine[3]));
}

static int first_of(const float *values, int n, float value) {
    int i = 0;
    for (; i + 64 <= n; i += 64) {
        vi found = i_set(0);
        UNROLL for (int j = 0; j < 4; j++) found |= f_load(values + i + 16 * j) == f_set(value);
        if (any(found)) break;
    }
    while (i < n - 1 && values[i] != value) i++;
    return i;
}

static float peak_of(const Left *left) {
    float peak;
    survey(left->values, left->n, &peak);
    return peak;
}

/* The sum of the weights of depths up to `deepest`; `sums`: of each 256 of them too, if it is not NULL. */
static double total_of(const Left *left, float peak, float coolness, float deepest, double *sums) {
    Sum all = {{0}, {0}};
    for (int i = 0; i < left->n; i += STRETCH) {
        Sum sum = {{0}, {0}};
        int end = left->n - i < STRETCH ? left->n : i + STRETCH;
        for (int j = i; j < end; j += 16) {
            vf depth = (f_set(peak) - values_at(left->values, j, left->n, -INFINITY)) * f_set(coolness);
            sum_add(&sum, f_pick(depth <= f_set(deepest), f_weight(depth), f_set(0)));
        }
        all.lower += sum.lower, all.upper += sum.upper;
        if (sums) sums[i / STRETCH] = sum_of(&sum);
    }
    return sum_of(&all);
}

/* Those of depths up to `deepest`. */
static Left shallow(const Left *left, const Scratch *s, float peak, float coolness, float deepest) {
    int kept = 0;
    for (int i = 0; i < left->n; i += 64) {
        vi in[4], some = i_set(0);
        UNROLL for (int j = 0; j < 4; j++) {
            int at = i + 16 * j;
            in[j] = i_set(0);
            if (at < left->n)
                in[j] = (f_set(peak) - values_at(left->values, at, left->n, -INFINITY)) * f_set(coolness) <=
                        f_set(deepest);
            some |= in[j];
        }
        if (!any(some)) continue;
        int end = left->n - i < 64 ? left->n - i : 64;
        for (int j = 0; j < end; j++)
            if (in[j / 16][j % 16]) {
                float value = left->values[i + j];
                s->ids[kept] = id_at(left, i + j), s->values[kept] = value;
                kept++;
            }
    }
    return (Left){s->values, s->ids, kept};
}

/* ------------------------------------------------------------------------------------------------ the fewest that weigh */

/* Whole numbers in the order of floats; both zeros are one. */
INLINE vi keys_of(vf v) {
    vi bits = (vi)(v + f_set(0.0f));
    return bits ^ ((bits >> 31) & i_set(0x7fffffff));
}

/* What those with keys from `bound` on weigh together; without weights, how many they are. */
static double weigh(const int32_t *keys, const float *weights, int n, int32_t bound) {
    if (!weights) {
        vi count = i_set(0);
        for (int i = 0; i < n; i += 16) count -= i_load(keys + i) >= i_set(bound);
        return i_sum(count);
    }
    Sum sum = {{0}, {0}};
    for (int i = 0; i < n; i += 16)
        sum_add(&sum, f_pick(i_load(keys + i) >= i_set(bound), f_load(weights + i), f_set(0)));
    return sum_of(&sum);
}

/* Keys and weights are made whole vectors by what weighs nothing and comes last. */
static void pad(int32_t *keys, float *weights, int n) {
    for (; n % 16; n++) {
        keys[n] = INT32_MIN;
        if (weights) weights[n] = 0;
    }
}

/* The largest bound from which on keys weigh `goal` or more; INT32_MIN if all of them do not. Bit by bit: no order of
 * the values makes it slow. */
static int32_t bound_for(const int32_t *keys, const float *weights, int n, double goal) {
    uint32_t found = 0;
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t tried = found | 1u << bit;
        if (weigh(keys, weights, n, (int32_t)(tried ^ 0x80000000u)) >= goal) found = tried;
    }
    return (int32_t)(found ^ 0x80000000u);
}

/* The fewest with the largest keys that weigh `goal`; of equals those with the smallest ids. */
static Left fewest(const Left *left, const Scratch *s, const float *weights, double goal) {
    pad(s->keys, weights ? s->weights : NULL, left->n);
    int32_t bound = bound_for(s->keys, weights, left->n, goal);
    double sum = bound == INT32_MAX ? 0 : weigh(s->keys, weights, left->n, bound + 1);
    int kept = 0;
    for (int i = 0; i < left->n; i++) {
        if (s->keys[i] < bound) continue;
        if (s->keys[i] == bound) {
            if (sum >= goal) continue;
            sum += weights ? (double)weights[i] : 1;
        }
        float value = left->values[i];
        s->ids[kept] = id_at(left, i), s->values[kept] = value;
        kept++;
    }
    return (Left){s->values, s->ids, kept};
}

/* ------------------------------------------------------------------------------------------------------- filters */

/* The `count` largest. The largest of many cells, of a few values each, say from where on to look. */
static Left largest(const Left *left, const Scratch *s, int count) {
    if (count >= left->n) return *left;
    float *cells = s->weights;
    int rows = 0;
    for (int i = 0; i < left->n; i += STRETCH, rows++) {
        vf most = f_set(-INFINITY);
        int end = left->n - i < STRETCH ? left->n : i + STRETCH;
        for (int j = i; j < end; j += 16) most = f_max(most, values_at(left->values, j, left->n, -INFINITY));
        f_store(cells + 16 * rows, most);
    }
    while (rows / 2 * 16 >= CELLS_A_PLACE * count) {
        int half = rows / 2;
        for (int j = 0; j < half; j++)
            f_store(cells + 16 * j, f_max(f_load(cells + 16 * j), f_load(cells + 16 * (rows - half + j))));
        rows -= half;
    }
    Left found = *left;
    if (rows * 16 >= 2 * count) {
        for (int j = 0; j < rows; j++) *(vi_at *)(s->keys + 16 * j) = keys_of(f_load(cells + 16 * j));
        int32_t bound = bound_for(s->keys, NULL, 16 * rows, count);
        int32_t bits = bound ^ ((bound >> 31) & 0x7fffffff);
        float least;
        memcpy(&least, &bits, 4);
        found = shallow(left, s, 0, 1, -least);
    }
    for (int i = 0; i < found.n; i += 16)
        *(vi_at *)(s->keys + i) = keys_of(values_at(found.values, i, found.n, -INFINITY));
    return fewest(&found, s, NULL, count);
}

/* Weights of all that is left, and `keys` by depth: the sum. */
static double weigh_all(const Left *left, const Scratch *s, float peak) {
    Sum sum = {{0}, {0}};
    for (int i = 0; i < left->n; i += 16) {
        vf depth = f_set(peak) - values_at(left->values, i, left->n, -INFINITY), weight = f_weight(depth);
        f_store(s->weights + i, weight);
        sum_add(&sum, weight);
    }
    return sum_of(&sum);
}

/* The least double above one that is not negative. */
static double above(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    bits = x > 0 ? bits + 1 : 1;
    memcpy(&x, &bits, 8);
    return x;
}

/* Those whose surprise is nearest to the entropy, which is depth and mean depth but for a sum in both. */
static Left typical(const Left *left, const Scratch *s, double mass) {
    float peak = peak_of(left);
    double total = weigh_all(left, s, peak);
    Sum sum = {{0}, {0}};
    for (int i = 0; i < left->n; i += 16) {
        vf depth = f_set(peak) - values_at(left->values, i, left->n, -INFINITY);
        sum_add(&sum, f_in_grains(f_load(s->weights + i) * f_min(depth, f_set(DEEPEST))));
    }
    float mean = (float)(sum_of(&sum) / total);
    for (int i = 0; i < left->n; i += 16) {
        vf depth = f_set(peak) - values_at(left->values, i, left->n, -INFINITY);
        *(vi_at *)(s->keys + i) = keys_of(-f_abs(depth - f_set(mean)));
    }
    return fewest(left, s, s->weights, above((mass > 0 ? mass : 0) * total));
}

/* The fewest largest whose probability reaches `mass`; at least one. */
static Left nucleus(const Left *left, const Scratch *s, double mass) {
    float peak = peak_of(left);
    double goal = mass * total_of(left, peak, 1, INFINITY, NULL);
    if (!(goal > 0)) goal = above(0);
    Left found = *left;
    if (left->n > WORTH_NARROWING)
        for (float deepest = 4; deepest <= 16; deepest += 4)
            if (total_of(left, peak, 1, deepest, NULL) >= goal) {
                found = shallow(left, s, peak, 1, deepest);
                break;
            }
    weigh_all(&found, s, peak);
    for (int i = 0; i < found.n; i += 16)
        *(vi_at *)(s->keys + i) = keys_of(values_at(found.values, i, found.n, -INFINITY));
    return fewest(&found, s, s->weights, goal);
}

/* --------------------------------------------------------------------------------------------------------- draws */

/* The place where `number` falls when each has its share; the sum of the weights. */
static int draw(const Left *left, const Scratch *s, float peak, float coolness, double number, double *total) {
    *total = total_of(left, peak, coolness, INFINITY, s->sums);
    double share = number * *total, sum = 0;
    int block = 0, i = 0;
    while ((block + 1) * STRETCH < left->n && sum + s->sums[block] <= share) sum += s->sums[block++];
    for (i = block * STRETCH; i < left->n; i += 16) {
        float weight[16];
        f_store(weight, f_weight((f_set(peak) - values_at(left->values, i, left->n, -INFINITY)) * f_set(coolness)));
        for (int j = 0; j < 16 && i + j < left->n; j++)
            if ((sum += (double)weight[j]) > share) return i + j;
    }
    return left->n - 1; /* not reached: the sum of all is more than any share of it */
}

static int32_t chain(const Wishes *w, const Scratch *s, Left left, float peak, double number) {
    if (w->greedy && !(w->typical < 1)) return first_of(left.values, left.n, peak); /* no other filter takes it away */
    if (w->top_k > 0) left = largest(&left, s, w->top_k);
    if (w->typical < 1) left = typical(&left, s, w->typical), peak = peak_of(&left);
    if (w->nucleus < 1) left = nucleus(&left, s, w->nucleus);
    if (w->deepest < INFINITY) left = shallow(&left, s, peak, 1, w->deepest);
    double total;
    int place = w->greedy ? first_of(left.values, left.n, peak) : draw(&left, s, peak, w->coolness, number, &total);
    return id_at(&left, place);
}

/* How many of the largest the first Mirostat keeps, were the vocabulary distributed by Zipf's law. */
static int ranks(const Left *left, const Scratch *s, float peak, float coolness, double limit) {
    Left head = largest(left, s, MIROSTAT_TERMS);
    float depth[MIROSTAT_TERMS];
    int n = 0;
    for (int i = 0; i < head.n; i++) {
        float new = (peak - head.values[i]) * coolness;
        if (!(new < INFINITY)) continue;
        int j = n++;
        for (; j > 0 && depth[j - 1] > new; j--) depth[j] = depth[j - 1];
        depth[j] = new;
    }
    double products = 0, squares = 0;
    for (int rank = 1; rank < n; rank++) {
        double step = logarithm((double)(rank + 1) / rank);
        products += step * ((double)depth[rank] - (double)depth[rank - 1]);
        squares += step * step;
    }
    if (squares == 0) return 1;
    double slope = products / squares, excess = slope - 1.0;
    double rest = 1.0 - exponential(-excess * logarithm(left->n));
    if (slope <= 0 || excess == 0 || rest == 0) return left->n;
    double count = exponential((logarithm(fabs(excess)) + limit * LN2 - logarithm(fabs(rest))) / slope);
    return (int)(count < 1 ? 1 : count > left->n ? left->n : count);
}

static int32_t mirostat(Choice *c, const Scratch *s, Left left, float peak) {
    const Wishes *w = c->wishes;
    if (w->greedy) return first_of(left.values, left.n, peak);
    if (w->mirostat == 1)
        left = largest(&left, s, ranks(&left, s, peak, w->coolness, c->limit));
    else {
        float deepest = (float)(c->limit * LN2 - logarithm(total_of(&left, peak, w->coolness, INFINITY, NULL)));
        left = shallow(&left, s, peak, w->coolness, deepest > 0 ? deepest : 0);
    }
    double total;
    int place = draw(&left, s, peak, w->coolness, c->number, &total);
    double surprise = (logarithm(total) + (double)((peak - left.values[place]) * w->coolness)) / LN2;
    double limit = c->limit - w->eta * (surprise - w->tau);
    c->limit = limit < -MOST_SURPRISE ? -MOST_SURPRISE : limit > MOST_SURPRISE ? MOST_SURPRISE : limit;
    return id_at(&left, place);
}

/* ----------------------------------------------------------------------------------------------------- one choice */

static int is_token(int32_t id, int32_t vocabulary) { return id >= 0 && id < vocabulary; }

/* Lower what the last tokens held; 0 if one of them is none. */
static int penalise(float *row, int32_t vocabulary, const Wishes *w, const int32_t *history, int64_t length, int32_t *seen) {
    if (w->last >= 0 && w->last < length) history += length - w->last, length = w->last;
    for (int64_t i = 0; i < length; i++) {
        if (!is_token(history[i], vocabulary)) return 0;
        seen[history[i]] = 0;
    }
    for (int64_t i = 0; i < length; i++) seen[history[i]]++;
    for (int64_t i = 0; i < length; i++) {
        int32_t id = history[i];
        if (!seen[id]) continue;
        float value = row[id] <= 0 ? row[id] * w->repeat : row[id] / w->repeat;
        row[id] = value - (float)seen[id] * w->frequency - w->presence;
        seen[id] = 0;
    }
    return 1;
}

static void forbid(float *row, int32_t vocabulary, const uint32_t *mask) {
    vi lanes = i_lanes() & i_set(15), one = i_set(1);
    for (int i = 0; i < vocabulary; i += 16) {
        vi bits = i_set((int32_t)(mask[i / 32] >> (i % 32)));
        f_store(row + i, f_pick(((bits >> lanes) & one) != i_set(0), f_load(row + i), f_set(-INFINITY)));
    }
}

/* The row with all that is asked done to it: a copy, or itself if nothing is. NULL: an id is none. */
static const float *adjusted(const Choice *c, const Scratch *s, const float *row, int32_t vocabulary) {
    const Wishes *w = c->wishes;
    int penalties = !w->mirostat && w->last && c->length && (w->repeat != 1 || w->frequency != 0 || w->presence != 0);
    if (!w->biases && !w->bans && !penalties && !c->mask) return row;
    memcpy(s->row, row, (size_t)vocabulary * 4);
    for (int i = 0; i < w->biases; i++) {
        if (!is_token(w->bias_ids[i], vocabulary)) return NULL;
        s->row[w->bias_ids[i]] += w->bias[i];
    }
    for (int i = 0; i < w->bans; i++) {
        if (!is_token(w->banned[i], vocabulary)) return NULL;
        s->row[w->banned[i]] = -INFINITY;
    }
    if (penalties && !penalise(s->row, vocabulary, w, c->history, c->length, s->places)) return NULL;
    if (c->mask) forbid(s->row, vocabulary, c->mask);
    return s->row;
}

/* Of the row as it came from the model: the log-probability of the token, and the likeliest. */
static void tell(Choice *c, const Scratch *s, const float *row, int32_t vocabulary, float peak) {
    Left left = {row, NULL, vocabulary};
    double normaliser = (double)peak + logarithm(total_of(&left, peak, 1, INFINITY, NULL));
    c->logprob = (double)row[c->token] - normaliser;
    c->tops = 0;
    if (!c->top) return;
    Left head = largest(&left, s, c->top);
    for (int i = 0; i < head.n; i++) {
        int j = c->tops++;
        for (; j > 0 && c->top_logprobs[j - 1] < (double)head.values[i]; j--)
            c->top_logprobs[j] = c->top_logprobs[j - 1], c->top_ids[j] = c->top_ids[j - 1];
        c->top_logprobs[j] = (double)head.values[i], c->top_ids[j] = id_at(&head, i);
    }
    for (int j = 0; j < c->tops; j++) c->top_logprobs[j] -= normaliser;
}

static int choose_token(Choice *c, const Scratch *s, const float *row, int32_t vocabulary) {
    float peak, raw_peak;
    if (!survey(row, vocabulary, &raw_peak)) return NOT_NUMBERS;
    if (c->given >= 0)
        c->token = c->given;
    else {
        const float *values = adjusted(c, s, row, vocabulary);
        if (!values) return NO_TOKEN;
        peak = raw_peak;
        if (values != row && !survey(values, vocabulary, &peak)) return NOT_NUMBERS;
        if (!(peak > -INFINITY)) return NOTHING_LEFT;
        Left left = {values, NULL, vocabulary};
        c->token = c->wishes->mirostat ? mirostat(c, s, left, peak) : chain(c->wishes, s, left, peak, c->number);
    }
    if (c->top >= 0) {
        if (!(raw_peak > -INFINITY)) return NOTHING_LEFT;
        tell(c, s, row, vocabulary, raw_peak);
    }
    return DRAWN;
}

/* --------------------------------------------------------------------------------------------------------- the door */

typedef struct {
    const float *logits;
    int64_t stride, room;
    Choice *choices;
    uint8_t *scratch;
    int32_t vocabulary;
} Job;

static void choose_one(const Job *job, int i, int thread) {
    Choice *c = &job->choices[i];
    Scratch s = scratch_at(job->scratch + job->room * thread, job->vocabulary);
    c->fault = choose_token(c, &s, job->logits + c->row * job->stride, job->vocabulary);
}

static void work(void *context, Turn *turn) {
    const Job *job = context;
    for (int from, to; take(turn, 1, &from, &to);)
        for (; from < to; from++) choose_one(job, from, turn->me);
    leave(turn);
}

static const char *wrong_wishes(const Wishes *w) {
    if (!w) return "no wishes";
    if (w->biases < 0 || (w->biases && (!w->bias_ids || !w->bias))) return "biases";
    if (w->bans < 0 || (w->bans && !w->banned)) return "banned tokens";
    if (!(w->coolness > 0 && w->coolness < INFINITY)) return "the temperature";
    if (!(w->deepest >= 0)) return "min-p";
    if (w->mirostat < 0 || w->mirostat > 2) return "mirostat";
    if (w->mirostat && !(isfinite(w->tau) && isfinite(w->eta))) return "mirostat's goal or rate";
    return NULL;
}

static const char *wrong(const Choice *c, int64_t rows, int32_t vocabulary) {
    if (c->row < 0 || c->row >= rows) return "the row";
    if (c->given >= vocabulary) return "the given token";
    if (c->top < -1 || c->top > MOST_TOPS || (c->top > 0 && (!c->top_ids || !c->top_logprobs))) return "the alternatives";
    if (c->given >= 0) return NULL;
    if (c->length < 0 || (c->length && !c->history)) return "the history";
    if (c->mask && (int64_t)c->mask_words * 32 < vocabulary) return "the mask";
    if (!(c->number >= 0 && c->number < 1)) return "the number";
    const char *what = wrong_wishes(c->wishes);
    if (!what && c->wishes->mirostat && !(fabs(c->limit) <= MOST_SURPRISE)) return "mirostat's limit";
    return what;
}

EXPORT int64_t puna_choose_room(int32_t vocabulary) {
    return vocabulary < 1 || vocabulary > MOST_TOKENS ? -1 : room_for(vocabulary);
}

EXPORT int32_t puna_choose(Engine *engine, const float *logits, int64_t rows, int64_t stride, int32_t vocabulary,
                           Choice *choices, int32_t count, void *scratch, int64_t scratch_bytes, char *why,
                           int64_t why_bytes) {
    Team *team = engine ? engine_team(engine) : NULL;
    const char *what = NULL;
    int at = -1;
    int64_t threads = team ? team_threads(team) : 1;
    if (vocabulary < 1 || vocabulary > MOST_TOKENS) what = "the vocabulary";
    else if (rows < 0 || stride < vocabulary || (rows && !logits)) what = "the logits";
    else if (count < 0 || count > MOST_UNITS || (count && !choices)) what = "the choices";
    else if (!scratch || scratch_bytes < room_for(vocabulary) * threads) what = "the scratch";
    for (int i = 0; !what && i < count; i++) {
        what = wrong(&choices[i], rows, vocabulary);
        if (what) at = i;
    }
    if (what) {
        if (why && why_bytes > 0) snprintf(why, (size_t)why_bytes, "%s cannot be used (choice %d)", what, at);
        return -1;
    }
    Job job = {logits, stride, room_for(vocabulary), choices, scratch, vocabulary};
    if (team && count > 1) team_run(team, work, &job, sizeof job, count);
    else
        for (int i = 0; i < count; i++) choose_one(&job, i, 0);
    return 0;
}
