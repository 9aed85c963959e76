/* attention.c - attention over the workers: a task is some queries of one head of one sample.
 *
 * How many a task has and how it goes about them is the tier's business (tensor/product.h).
 *
 * On the way back a task is one head of one sample, so that gradients of keys and values, to which
 * all queries add, are added up in one order. It walks over tiles of queries and of keys, and makes
 * the probabilities p again from the scores; keys that fit one tile are gone over once, more keys a
 * first time for each query's largest score and sum of exponentials. With g the gradient of
 * o = p v, and D = sum over columns of g o, which is the mean of g v^T under p:
 *
 *     gv += p^T g,   s = p (g v^T - D) / sqrt d,   gq += s k,   gk += s^T q */
#include <math.h>

#include "nets/tape.h"

typedef struct job {
    wf_exec            *e;
    const wf_attention *a;
    float              *o;
} job;

static void attend_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    j->e->products->attend(j->o, j->a, j->e->k, task, (float *)(void *)j->e->scratch[worker]);
}

static void count(wf_exec *e, const wf_attention *a)
{
    double width = (double)a->heads * a->d, pairs = 0; /* of a sample and a key that it sees */
    for (int32_t g = 0; g < a->segments; g++) {
        bool lent = a->shared > 0 && g + 1 == a->segments;
        int32_t see = lent ? a->n - a->n / a->shared : a->n;
        pairs += (double)see * a->keys[g].length;
    }
    e->flops += 4.0 * width * a->lq * pairs;
    e->moved_bytes += 8.0 * width * ((double)a->n * a->lq + pairs);
}

/* ---- the way back ---- */

enum { QUERIES = 64, KEYS = 1024 }; /* of a tile */

typedef struct attend_entry {
    wf_exec     *e; /* of the task */
    int32_t      n, heads, d, lq, lk;
    bool         causal;
    const float *q, *k, *v, *o;
    float       *go, *gq, *gk, *gv; /* gq, gk, gv NULL: not wanted */
} attend_entry;

/* A worker's scratch. */
typedef struct attend_room {
    float s[QUERIES * KEYS]; /* scores, then probabilities  */
    float t[QUERIES * KEYS]; /* gradients of them           */
    float top[QUERIES];      /* largest score of each query */
    float sum[QUERIES];      /* and its exponentials' sum   */
} attend_room;

/* Keys [at, at + cols) that query `row` sees. */
static size_t keys_seen(const attend_entry *t, size_t row, size_t at, size_t cols)
{
    if (!t->causal) return cols;
    return row + 1 > at ? WF_MIN(cols, row + 1 - at) : 0;
}

/* The scores of a tile, which come without the root of d. */
static void score(const attend_entry *t, attend_room *m, size_t first, size_t key, size_t rows,
                  size_t cols)
{
    size_t width = (size_t)t->heads * (size_t)t->d;
    t->e->products->nt(m->s, cols, t->q + first, width, t->k + key, width, rows, cols,
                       (size_t)t->d, 0.0f);
}

/* s_r = exp(root s_r - top) of the keys that are seen, 0 of the others; their sum. */
static float exponentials(const attend_entry *t, float *s_r, size_t seen, size_t cols, float root,
                          float top)
{
    memset(s_r + seen, 0, (cols - seen) * sizeof *s_r);
    return seen > 0 ? t->e->k->exp_sum(s_r, root, top, seen) : 0;
}

/* Largest score and sum of exponentials of each query, over tiles of keys. */
static void find_sums(const attend_entry *t, attend_room *m, size_t row, size_t rows, size_t first,
                      size_t key, size_t keys, float root)
{
    size_t width = (size_t)t->heads * (size_t)t->d;
    for (size_t at = 0; at < keys; at += KEYS) {
        size_t cols = WF_MIN((size_t)KEYS, keys - at);
        score(t, m, first, key + at * width, rows, cols);
        for (size_t r = 0; r < rows; r++) {
            float *s_r = m->s + r * cols;
            size_t seen = keys_seen(t, row + r, at, cols);
            if (seen == 0) continue;
            float high = t->e->k->max(s_r, seen) * root, before = 0;
            if (at > 0 && m->top[r] >= high) high = m->top[r];
            if (at > 0) before = m->sum[r] * expf(m->top[r] - high);
            m->top[r] = high;
            if (keys > KEYS) m->sum[r] = before + exponentials(t, s_r, seen, cols, root, high);
        }
    }
}

/* One tile of queries, from its `row`, over all keys of its head: what they add to gq, gk, gv. */
static void back_tile(const attend_entry *t, attend_room *m, size_t sample, size_t head, size_t row)
{
    const wf_products *p = t->e->products;
    const wf_kernels *k = t->e->k;
    size_t d = (size_t)t->d, width = (size_t)t->heads * d;
    size_t rows = WF_MIN((size_t)QUERIES, (size_t)t->lq - row);
    size_t first = (sample * (size_t)t->lq + row) * width + head * d;
    size_t key = sample * (size_t)t->lk * width + head * d;
    size_t keys = t->causal ? WF_MIN((size_t)t->lk, row + rows) : (size_t)t->lk;
    float root = (float)(1.0 / sqrt((double)t->d));

    find_sums(t, m, row, rows, first, key, keys, root);
    for (size_t at = 0; at < keys; at += KEYS) {
        size_t cols = WF_MIN((size_t)KEYS, keys - at), to = key + at * width;
        if (keys > KEYS) score(t, m, first, to, rows, cols);
        for (size_t r = 0; r < rows; r++) {
            float *s_r = m->s + r * cols;
            size_t seen = keys_seen(t, row + r, at, cols);
            float sum = exponentials(t, s_r, seen, cols, root, m->top[r]);
            k->scale(s_r, 1.0f / (keys > KEYS ? m->sum[r] : sum), cols);
        }
        if (t->gv != NULL)
            p->tn(t->gv + to, width, m->s, cols, t->go + first, width, cols, d, rows, 1.0f);
        if (t->gq == NULL && t->gk == NULL) continue;
        p->nt(m->t, cols, t->go + first, width, t->v + to, width, rows, cols, d, 0.0f);
        for (size_t r = 0; r < rows; r++) {
            const float *g = t->go + first + r * width, *o = t->o + first + r * width;
            double mean = 0;
            for (size_t i = 0; i < d; i++) mean += (double)g[i] * (double)o[i];
            k->softmax_back(m->s + r * cols, m->t + r * cols, (float)mean, root, cols);
        }
        if (t->gq != NULL)
            p->nn(t->gq + first, width, m->s, cols, t->k + to, width, rows, d, cols, 1.0f);
        if (t->gk != NULL)
            p->tn(t->gk + to, width, m->s, cols, t->q + first, width, cols, d, rows, 1.0f);
    }
}

static void back_attend_task(void *user, size_t task, int32_t worker)
{
    const attend_entry *t = user;
    attend_room *m = (attend_room *)(void *)t->e->scratch[worker];
    for (size_t row = 0; row < (size_t)t->lq; row += QUERIES)
        back_tile(t, m, task / (size_t)t->heads, task % (size_t)t->heads, row);
}

static void back_attend(wf_exec *e, const void *entry)
{
    attend_entry t = *(const attend_entry *)entry;
    t.e = e;
    wf_pool_run(e->pool, (size_t)t.n * (size_t)t.heads, back_attend_task, &t);
    wf_grad_done(e, t.go, (size_t)t.n * (size_t)t.lq * (size_t)t.heads * (size_t)t.d);
}

static void record(wf_exec *e, const float *o, const wf_attention *a)
{
    const float *k = a->keys[0].k, *v = a->keys[0].v;
    if (!wf_track(e, o, false, wf_wanted(e, a->q) || wf_wanted(e, k) || wf_wanted(e, v))) return;
    if (a->segments != 1 || a->bias != NULL || a->group != NULL || a->shared > 0) wf_no_way_back(e);
    wf_need_scratch(e, sizeof(attend_room));
    attend_entry *t = wf_record(e, back_attend, sizeof *t);
    if (t != NULL)
        *t = (attend_entry){ .n = a->n, .heads = a->heads, .d = a->d, .lq = a->lq,
                             .lk = a->keys[0].length, .causal = a->causal, .q = a->q, .k = k,
                             .v = v, .o = o, .go = wf_grad(e, o), .gq = wf_grad(e, a->q),
                             .gk = wf_grad(e, k), .gv = wf_grad(e, v) };
}

void wf_attend(wf_exec *e, float *o, const wf_attention *a)
{
    job j = { .e = e, .a = a, .o = o };
    wf_need_scratch(e, e->products->attend_scratch(a));
    if (e->dry) {
        count(e, a);
        record(e, o, a);
        return;
    }
    size_t tiles = ((size_t)a->lq + e->products->queries - 1) / e->products->queries;
    if (!e->stopped)
        wf_pool_run(e->pool, (size_t)a->n * (size_t)a->heads * tiles, attend_task, &j);
    record(e, o, a);
}
