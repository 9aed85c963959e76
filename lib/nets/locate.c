/* locate.c - where in the image some words of the text are seen, noted while a network runs.
 *
 * At one transformer block two things are kept of each sample that counts: how much each pixel's
 * cross-attention sees of each subject's tokens (the mean over heads and tokens of
 * softmax(q k^T / sqrt(d))), and what self-attention gave it, before it is added to the rest. */
#include <math.h>

#include "nets/exec.h"

/* Where a sample's notes go; -1: nowhere. */
static int32_t place_of(const wf_locate *l, int32_t sample)
{
    int32_t at = l->slot[sample] - l->from;
    return at >= 0 && at < l->samples ? at : -1;
}

bool wf_locates(const wf_exec *e, const wf_layer *q, wf_grid g)
{
    wf_locate *l = e->locate;

    if (l == NULL || (q != l->cross && q != l->self)) return false;
    if (e->dry) l->h = g.h, l->w = g.w;
    return !e->dry && !e->stopped;
}

void wf_locate_inner(const wf_exec *e, const float *x, float sign, wf_grid g)
{
    wf_locate *l = e->locate;
    size_t each = (size_t)g.h * (size_t)g.w * (size_t)l->self->out;

    for (int32_t s = 0; s < g.n; s++) {
        int32_t at = place_of(l, s);
        if (at < 0) continue;
        float *to = l->inner + (size_t)at * each;
        for (size_t i = 0; i < each; i++)
            to[i] = sign * x[(size_t)s * each + i] + (sign < 0 ? 0 : to[i]);
    }
    l->begun = true;
    l->whole = false;
}

typedef struct job {
    const wf_locate *l;
    const float *q, *k;
    size_t heads, d, pixels, keys;
} job;

static double score(const job *j, const float *q, const float *k)
{
    double sum = 0;
    for (size_t i = 0; i < j->d; i++) sum += (double)q[i] * k[i];
    return sum / sqrt((double)j->d);
}

/* seen [count][pixels] of one sample at one pixel */
static void look(const job *j, const float *q, const float *k, float *seen)
{
    const wf_locate *l = j->l;
    size_t width = j->heads * j->d;

    for (int32_t i = 0; i < l->count; i++) seen[(size_t)i * j->pixels] = 0;
    for (size_t h = 0; h < j->heads; h++) {
        double top = -INFINITY, sum = 0;
        for (size_t t = 0; t < j->keys; t++) {
            double s = score(j, q + h * j->d, k + t * width + h * j->d);
            if (s > top)
                sum = sum * exp(top - s) + 1, top = s;
            else
                sum += exp(s - top);
        }
        for (int32_t i = 0; i < l->count; i++) {
            double part = 0;
            for (int32_t t = l->first[i]; t < l->first[i + 1]; t++)
                part +=
                    exp(score(j, q + h * j->d, k + (size_t)l->token[t] * width + h * j->d) - top);
            part /= sum * (double)j->heads * (double)(l->first[i + 1] - l->first[i]);
            seen[(size_t)i * j->pixels] += (float)part;
        }
    }
}

static void look_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    size_t width = j->heads * j->d, s = task / j->pixels, p = task % j->pixels;
    int32_t at = place_of(j->l, (int32_t)s);

    (void)worker;
    if (at < 0) return;
    look(j, j->q + (s * j->pixels + p) * width, j->k + s * j->keys * width,
         j->l->seen + (size_t)at * (size_t)j->l->count * j->pixels + p);
}

void wf_locate_seen(const wf_exec *e, const float *q, const float *k, int32_t heads, wf_grid g,
                    int32_t keys)
{
    wf_locate *l = e->locate;
    job j = {.l = l,
             .q = q,
             .k = k,
             .heads = (size_t)heads,
             .d = (size_t)(l->cross->out / heads),
             .keys = (size_t)keys,
             .pixels = (size_t)g.h * (size_t)g.w};

    for (int32_t t = 0; t < l->first[l->count]; t++)
        if (l->token[t] >= keys) return; /* a shorter text: nothing is noted */
    wf_pool_run(e->pool, (size_t)g.n * j.pixels, look_task, &j);
    l->whole = true;
}
