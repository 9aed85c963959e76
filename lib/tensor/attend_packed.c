/* attend_packed.c - softmax(q k^T / sqrt(d) + bias) v with queries along the vectors.
 *
 * A task has some panels of queries of one head of one sample: q transposed, (d, m->cols), and
 * scaled so that the scores are exponents of two. It walks the keys in blocks, copied next to each
 * other once for all its panels, and for each panel makes the scores (keys, queries), their
 * exponentials, and their product with the values, (d, queries). So keys and values are read as
 * they lie, one value at a time, maxima and sums of the softmax run down the vectors, and no vector
 * is left half empty by a head of 40.
 *
 * For each query it keeps about the largest score so far, the sum of exponentials and the weighted
 * sum of values; when a later block brings one much larger, what was summed before is scaled down
 * (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018).
 *
 * With pairs of bfloat16 both products take them, and exponentials are rounded once they are
 * summed.
 *
 * The last segment may be that of another sample (StyleAligned), with scores of another scale, or
 * of none. Each segment of keys begins a block of its own. Two segments therefore give the bits of
 * one if the first one's length is a multiple of KEYS, and else the same within rounding. */
#include <math.h>

#include "tensor/packed.h"

enum { KEYS = 128, QUERIES = WF_PACKED_QUERIES };

static const float LOG2_E = 1.44269504f;

typedef struct job {
    const wf_packed    *m;
    const wf_pairs     *pairs;    /* NULL: in float32                       */
    const wf_attention *a;
    size_t              d, width; /* width: from one row of q to the next   */
    size_t              ld;       /* from one copied key to the next        */
    size_t              lk;       /* keys of all segments                   */
    size_t              sample, head, row, rows;
    float              *q;        /* (panels, d, m->cols), times log2 e / sqrt(d) */
    float              *o;        /* (panels, d, m->cols)                   */
    float              *k, *v;    /* (KEYS, ld)                             */
    float              *s;        /* (KEYS, m->cols)                        */
    float              *back;     /* (m->cols, whole vectors of d)          */
    float top[QUERIES], sum[QUERIES];
} job;

/* Some keys of a segment. */
typedef struct block {
    size_t keys;
    size_t at, from; /* the first of them among all, and in its segment */
    bool   weighed;
} block;

static bool masked(const wf_attention *a)
{
    return a->causal || a->bias != NULL || a->group != NULL;
}

/* What bias, groups and order make of the scores s (keys, width); `row` is the panel's first
 * query. */
static void mask_scores(const job *j, float *s, size_t width, const block *b, size_t row,
                        size_t rows)
{
    const wf_attention *a = j->a;
    const float *bias = a->bias != NULL
                            ? a->bias + j->sample * a->bias_sample + j->head * a->bias_head
                            : NULL;
    for (size_t i = 0; i < b->keys; i++)
        for (size_t r = 0; r < width; r++) {
            float *one = &s[i * width + r];
            if (r >= rows) continue;
            int32_t own = a->group != NULL ? a->group[row + r] : 0;
            int32_t theirs = own > 0 ? a->group[b->from + i] : 0;
            bool hidden = (a->causal && b->at + i > row + r) || (theirs > 0 && theirs != own);
            float more = bias != NULL ? bias[(row + r) * j->lk + b->at + i] : 0;
            *one = hidden || more == -INFINITY ? -INFINITY : *one + LOG2_E * more;
        }
}

/* A panel of queries, `first` its first row of q: turned and scaled. */
static void take_queries(job *j, size_t row, size_t rows, const float *first)
{
    size_t width = wf_round_up(rows, j->m->lanes), n = width * j->d;
    float scale = (float)(1.44269504088896341 / sqrt((double)j->d)); /* e^x = 2^(x log2 e) */
    float *q = j->q + row * j->d, *o = j->o + row * j->d, *to = j->pairs != NULL ? o : q;
    j->m->pack(to, width, first, WF_F32, j->width, rows, j->d, 1);
    for (size_t i = 0; i < n; i++) to[i] *= scale;
    if (j->pairs != NULL) j->pairs->weave(q, width, o, width, j->d, width);
    memset(o, 0, n * sizeof *o);
    for (size_t r = row; r < row + width; r++) j->top[r] = -INFINITY, j->sum[r] = 0;
}

/* The next keys and values. */
static void take_keys(job *j, const float *k, const float *v, size_t keys)
{
    if (j->pairs != NULL) {
        j->pairs->narrow(j->k, j->ld, k, j->width, keys, j->d);
        j->pairs->weave(j->v, j->ld, v, j->width, keys, j->d);
        return;
    }
    for (size_t i = 0; i < keys; i++) {
        memcpy(j->k + i * j->ld, k + i * j->width, j->d * sizeof *k);
        memcpy(j->v + i * j->ld, v + i * j->width, j->d * sizeof *v);
    }
}

/* What they add for every panel. */
static void add_keys(job *j, const block *some)
{
    const wf_packed *m = j->m;
    const wf_pairs *b = j->pairs;
    size_t d = j->d, keys = some->keys;
    float factor = j->a->factor, shift = LOG2_E * j->a->shift;
    for (size_t row = 0; row < j->rows; row += m->cols) {
        size_t rows = WF_MIN(m->cols, j->rows - row), width = wf_round_up(rows, m->lanes);
        float *q = j->q + row * d, *o = j->o + row * d, *s = j->s;
        float *top = j->top + row, *sum = j->sum + row, shrink[WF_PACKED_MOST_COLS];
        if (b != NULL)
            b->multiply(s, width, j->k, j->ld, q, width, (d + 1) / 2, keys, width, NULL, false);
        else m->multiply(s, width, j->k, j->ld, q, width, d, keys, width, NULL, false);
        for (size_t i = 0; i < keys * width && some->weighed; i++) s[i] = s[i] * factor + shift;
        if (masked(j->a)) mask_scores(j, s, width, some, j->row + row, rows);
        if ((b != NULL ? b->softmax : m->softmax)(s, width, keys, top, sum, shrink))
            for (size_t i = 0; i < d; i++)
                for (size_t r = 0; r < width; r++) o[i * width + r] *= shrink[r];
        if (b != NULL)
            b->multiply_turned(o, width, j->v, j->ld, s, width, (keys + 1) / 2, d, width, true);
        else m->multiply_turned(o, width, j->v, j->ld, s, width, keys, d, width, true);
    }
}

/* o's rows from what was summed: turned back and divided. */
static void finish(const job *j, float *to)
{
    size_t cols = wf_round_up(j->d, j->m->lanes);
    for (size_t row = 0; row < j->rows; row += j->m->cols) {
        size_t rows = WF_MIN(j->m->cols, j->rows - row), width = wf_round_up(rows, j->m->lanes);
        for (size_t c = 0; c < cols; c += j->m->cols) {
            size_t some = WF_MIN(j->m->cols, cols - c), n = WF_MIN(some, j->d - c);
            j->m->pack(j->back, some, j->o + row * j->d + c * width, WF_F32, width, n, rows, 1);
            for (size_t r = 0; r < rows; r++) {
                float sum = j->sum[row + r], inverse = sum == 0 ? 0 : 1 / sum;
                float *y = to + (row + r) * j->width + c;
                for (size_t i = 0; i < n; i++) y[i] = j->back[r * some + i] * inverse;
            }
        }
    }
}

size_t wf_packed_attend_scratch(const wf_packed *m, const wf_attention *a)
{
    size_t d = (size_t)a->d;
    return (2 * QUERIES * d + 2 * KEYS * wf_odd_lines(d) + KEYS * m->cols + m->cols * m->cols) *
           sizeof(float);
}

void wf_packed_attend(const wf_packed *m, const wf_pairs *pairs, float *o, const wf_attention *a,
                      size_t task, float *scratch)
{
    size_t heads = (size_t)a->heads, lq = (size_t)a->lq, tiles = (lq + QUERIES - 1) / QUERIES;
    job j = { .m = m, .pairs = pairs, .a = a, .d = (size_t)a->d, .width = heads * (size_t)a->d,
              .ld = wf_odd_lines((size_t)a->d), .sample = task / tiles / heads,
              .head = task / tiles % heads, .row = task % tiles * QUERIES };
    size_t base = 0, from = j.head * j.d, first = j.sample * lq + j.row;
    j.rows = WF_MIN((size_t)QUERIES, lq - j.row);
    for (int32_t g = 0; g < a->segments; g++) j.lk += (size_t)a->keys[g].length;
    j.q = scratch;
    j.o = j.q + QUERIES * j.d;
    j.k = j.o + QUERIES * j.d;
    j.v = j.k + KEYS * j.ld;
    j.s = j.v + KEYS * j.ld;
    j.back = j.s + KEYS * m->cols;

    for (size_t row = 0; row < j.rows; row += m->cols)
        take_queries(&j, row, WF_MIN(m->cols, j.rows - row),
                     a->q + (first + row) * j.width + from);
    size_t seen = a->causal ? WF_MIN(j.lk, j.row + j.rows) : j.lk; /* by any query of the task */
    for (int32_t g = 0; g < a->segments; g++) {
        size_t length = (size_t)a->keys[g].length, of = wf_keys_sample(a, g, j.sample);
        for (size_t i = 0; of != SIZE_MAX && i < length && base + i < seen; i += KEYS) {
            block b = { WF_MIN((size_t)KEYS, length - i), base + i, i, wf_keys_weighed(a, g) };
            size_t at = (of * length + i) * j.width + from;
            take_keys(&j, a->keys[g].k + at, a->keys[g].v + at, b.keys);
            add_keys(&j, &b);
        }
        base += length;
    }
    finish(&j, o + first * j.width + from);
}
