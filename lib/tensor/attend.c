/* attend.c - softmax(q k^T / sqrt(d) + bias) v by a tier's products, a tile at a time.
 *
 * A task is a tile of queries of one head of one sample. It walks the keys in tiles too, keeping
 * for each query the largest score so far, the sum of exponentials and the weighted sum of values.
 * When a later tile brings a larger score, what was summed before is scaled down (Milakov and
 * Gimelshein, Online normalizer calculation for softmax, 2018). So 64 x 64 latents never need their
 * 4096 x 4096 scores in memory: a worker holds one tile of QUERIES x KEYS.
 *
 * The last segment may be that of another sample (StyleAligned), with scores of another scale, or
 * of none. Each segment of keys begins a tile of its own. Two segments therefore give the bits of
 * one if the first one's length is a multiple of KEYS, and else the same within rounding. */
#include <math.h>

#include "tensor/product.h"

enum { QUERIES = WF_ATTEND_QUERIES, KEYS = 512 };

typedef struct job {
    const wf_products  *tier;
    const wf_kernels   *k;
    const wf_attention *a;
    float              *o;
    size_t              width; /* heads * d                */
    size_t              lk;    /* keys of all segments     */
    size_t              tiles;
} job;

/* One tile of queries on its way over the keys. */
typedef struct softmax {
    float top[QUERIES], sum[QUERIES];
    bool  seen[QUERIES]; /* some key: top and sum are set */
} softmax;

/* s_r (cols) = exp(scale s_r - top), with what was summed before brought to the same top. `seen`
 * keys of the tile count. */
static void take_scores(const job *j, softmax *m, size_t r, float *o_r, float *s_r, size_t seen,
                        float scale)
{
    const wf_kernels *k = j->k;
    float high = k->max(s_r, seen) * scale;
    bool first = !m->seen[r];
    if (first || high > m->top[r]) {
        if (!first) {
            float shrink = expf(m->top[r] - high);
            m->sum[r] *= shrink;
            k->scale(o_r, shrink, (size_t)j->a->d);
        }
        m->top[r] = high;
    }
    float part = k->exp_sum(s_r, scale, m->top[r], seen);
    m->sum[r] = first ? part : m->sum[r] + part;
    m->seen[r] = true;
}

/* The same with a bias: a key is hidden where it is -INFINITY. */
static void take_biased(const job *j, softmax *m, size_t r, float *o_r, float *s_r, size_t seen,
                        float scale, const float *bias)
{
    bool any = false;
    for (size_t i = 0; i < seen; i++) {
        s_r[i] = s_r[i] * scale + bias[i];
        any = any || bias[i] != -INFINITY;
    }
    if (any) take_scores(j, m, r, o_r, s_r, seen, 1.0f);
    for (size_t i = 0; i < seen; i++)
        if (bias[i] == -INFINITY) s_r[i] = 0; /* a kernel's smallest exponential is not 0 */
}

/* The same where the query sees only keys of its own group and of none. */
static void take_grouped(const job *j, softmax *m, size_t r, float *o_r, float *s_r, size_t seen,
                         float scale, int32_t own, const int32_t *group)
{
    bool any = false;
    for (size_t i = 0; i < seen; i++) {
        bool hidden = group[i] > 0 && group[i] != own;
        if (hidden) s_r[i] = -INFINITY;
        any = any || !hidden;
    }
    if (any) take_scores(j, m, r, o_r, s_r, seen, scale);
    for (size_t i = 0; i < seen; i++)
        if (group[i] > 0 && group[i] != own) s_r[i] = 0;
}

static void attend(const job *j, size_t task, float *s)
{
    const wf_attention *a = j->a;
    size_t heads = (size_t)a->heads, d = (size_t)a->d, lq = (size_t)a->lq, width = j->width;
    size_t tile = task % j->tiles, head = task / j->tiles % heads, n = task / j->tiles / heads;
    size_t row = tile * QUERIES, rows = WF_MIN((size_t)QUERIES, lq - row), base = 0;
    size_t keys = a->causal ? WF_MIN(j->lk, row + rows) : j->lk;
    float *o = j->o + (n * lq + row) * width + head * d;
    const float *q = a->q + (n * lq + row) * width + head * d;
    const float *bias = a->bias != NULL ? a->bias + n * a->bias_sample + head * a->bias_head : NULL;
    float root = (float)(1.0 / sqrt((double)a->d));
    softmax m = { .seen = { false } };
    bool any = false;

    for (int32_t g = 0; g < a->segments && base < keys; g++) {
        size_t length = (size_t)a->keys[g].length, of = wf_keys_sample(a, g, n);
        bool weighed = wf_keys_weighed(a, g);
        float scale = weighed ? 1.0f : root;
        for (size_t from = 0; of != SIZE_MAX && from < length && base + from < keys; from += KEYS) {
            size_t at = base + from; /* of the tile's first key among all */
            size_t cols = WF_MIN(WF_MIN((size_t)KEYS, length - from), keys - at);
            const float *k = a->keys[g].k + (of * length + from) * width + head * d;
            const float *v = a->keys[g].v + (of * length + from) * width + head * d;
            j->tier->nt(s, cols, q, width, k, width, rows, cols, d, 0.0f);
            for (size_t i = 0; i < rows * cols && weighed; i++)
                s[i] = s[i] * root * a->factor + a->shift;
            for (size_t r = 0; r < rows; r++) {
                float *s_r = s + r * cols, *o_r = o + r * width;
                size_t seen = cols;
                if (a->causal) { /* keys after the query count for nothing */
                    seen = row + r + 1 > at ? WF_MIN(cols, row + r + 1 - at) : 0;
                    memset(s_r + seen, 0, (cols - seen) * sizeof *s_r);
                    if (seen == 0) continue;
                }
                int32_t own = a->group != NULL ? a->group[row + r] : 0;
                if (own > 0) take_grouped(j, &m, r, o_r, s_r, seen, scale, own, a->group + from);
                else if (bias == NULL) take_scores(j, &m, r, o_r, s_r, seen, scale);
                else take_biased(j, &m, r, o_r, s_r, seen, scale, bias + (row + r) * j->lk + at);
            }
            j->tier->nn(o, width, s, cols, v, width, rows, d, cols, any ? 1.0f : 0.0f);
            any = true;
        }
        base += length;
    }
    for (size_t r = 0; r < rows; r++)
        if (m.seen[r]) j->k->scale(o + r * width, 1.0f / m.sum[r], d);
}

size_t wf_keys_sample(const wf_attention *a, int32_t g, size_t n)
{
    if (a->shared <= 0 || g + 1 < a->segments) return n;
    size_t first = n - n % (size_t)a->shared;
    return first == n ? SIZE_MAX : first;
}

bool wf_keys_weighed(const wf_attention *a, int32_t g)
{
    return a->shared > 0 && g + 1 == a->segments && (a->factor != 1.0f || a->shift != 0.0f);
}

void wf_attend_by_products(const wf_products *tier, float *o, const wf_attention *a,
                           const wf_kernels *k, size_t task, float *scratch)
{
    job j = { .tier = tier, .k = k, .a = a, .o = o, .width = (size_t)a->heads * (size_t)a->d };
    for (int32_t g = 0; g < a->segments; g++) j.lk += (size_t)a->keys[g].length;
    j.tiles = ((size_t)a->lq + QUERIES - 1) / QUERIES;
    attend(&j, task, scratch); /* scores (rows, KEYS) */
}

size_t wf_attend_by_products_scratch(const wf_attention *a)
{
    (void)a;
    return QUERIES * KEYS * sizeof(float);
}
