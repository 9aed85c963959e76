/* attention.c - softmax(q k^T / sqrt(d)) v, a tile at a time.
 *
 * A task is a tile of queries of one head of one sample. It walks the keys in tiles too, keeping for each
 * query the largest score so far, the sum of exponentials and the weighted sum of values; when a later tile
 * brings a larger score, what was summed before is scaled down (Milakov and Gimelshein, Online normalizer
 * calculation for softmax, 2018). So 64 x 64 latents never need their 4096 x 4096 scores in memory: a worker
 * holds one tile of QUERIES x KEYS. */
#include <math.h>

#include "nets/exec.h"
#include "tensor/gemm.h"

enum { QUERIES = 64, KEYS = 512 };

typedef struct attend {
    wf_exec     *e;
    float       *o;
    const float *q;
    const float *k;
    const float *v;
    size_t       heads;
    size_t       d;
    size_t       lq;
    size_t       lk;
    size_t       tiles;
    bool         causal;
} attend;

static void attend_task(void *user, size_t task, int32_t worker)
{
    const attend *a = user;
    const wf_kernels *kern = a->e->k;
    size_t tile = task % a->tiles, head = task / a->tiles % a->heads, n = task / a->tiles / a->heads;
    size_t width = a->heads * a->d, row = tile * QUERIES, rows = WF_MIN((size_t)QUERIES, a->lq - row);
    size_t keys = a->causal ? WF_MIN(a->lk, row + rows) : a->lk;
    float *s = (float *)(void *)a->e->scratch[worker]; /* scores (rows, KEYS) */
    float *o = a->o + (n * a->lq + row) * width + head * a->d;
    const float *q = a->q + (n * a->lq + row) * width + head * a->d;
    float top[QUERIES], sum[QUERIES], scale = (float)(1.0 / sqrt((double)a->d));

    for (size_t at = 0; at < keys; at += KEYS) {
        size_t cols = WF_MIN((size_t)KEYS, keys - at);
        const float *k = a->k + (n * a->lk + at) * width + head * a->d;
        const float *v = a->v + (n * a->lk + at) * width + head * a->d;
        wf_gemm_nt(s, cols, q, width, k, width, rows, cols, a->d, 0.0f);
        for (size_t r = 0; r < rows; r++) {
            float *s_r = s + r * cols;
            size_t seen = cols;
            if (a->causal) { /* keys after the query count for nothing */
                seen = row + r + 1 > at ? WF_MIN(cols, row + r + 1 - at) : 0;
                memset(s_r + seen, 0, (cols - seen) * sizeof *s_r);
                if (seen == 0) continue;
            }
            float high = kern->max(s_r, seen) * scale;
            if (at == 0 || high > top[r]) {
                float shrink = at == 0 ? 0.0f : expf(top[r] - high);
                if (at > 0) {
                    sum[r] *= shrink;
                    kern->scale(o + r * width, shrink, a->d);
                }
                top[r] = high;
            }
            float part = kern->exp_sum(s_r, scale, top[r], seen);
            sum[r] = at == 0 ? part : sum[r] + part;
        }
        wf_gemm_nn(o, width, s, cols, v, width, rows, a->d, cols, at == 0 ? 0.0f : 1.0f);
    }
    for (size_t r = 0; r < rows; r++) kern->scale(o + r * width, 1.0f / sum[r], a->d);
}

void wf_attend(wf_exec *e, float *o, const float *q, const float *k, const float *v, int32_t n, int32_t heads,
               int32_t d, int32_t lq, int32_t lk, bool causal)
{
    attend a = { e, o, q, k, v, (size_t)heads, (size_t)d, (size_t)lq, (size_t)lk, 0, causal };
    a.tiles = (a.lq + QUERIES - 1) / QUERIES;
    wf_need_scratch(e, QUERIES * KEYS * sizeof(float));
    if (e->dry) {
        e->flops += 4.0 * n * heads * (double)d * lq * lk;
        return;
    }
    if (!e->stopped) wf_pool_run(e->pool, (size_t)n * a.heads * a.tiles, attend_task, &a);
}
