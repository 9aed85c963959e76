/* optimiser.c - from gradients to new values, number by number.
 *
 * AdamW as torch has it, in its order of operations (Loshchilov and Hutter, Decoupled Weight Decay
 * Regularization, 2019; Kingma and Ba, Adam, 2015): with g the clipped gradient,
 *
 *     p = p - rate decay p
 *     m = m + (1 - b1) (g - m),   v = b2 v + (1 - b2) g^2
 *     p = p - rate / (1 - b1^k)  m / (sqrt(v) / sqrt(1 - b2^k) + epsilon)
 *
 * SGD likewise: g = g + decay p, m = b1 m + g, p = p - rate m.
 *
 * The vectors are cut into pieces by the tensors' shapes, and each piece is worked on by itself. So
 * are the sums of the gradients' norm, which are added up in the pieces' order. */
#include <math.h>

#include "train/trainer_internal.h"

enum { PIECE = 1 << 15 };

/* Pieces of n numbers from `at` on; before there is an array they are only counted. */
static void cut(weft_trainer *t, size_t at, size_t n, wf_group group, bool decay)
{
    for (size_t i = 0; i < n; i += PIECE) {
        wf_train_piece piece = { at + i, WF_MIN((size_t)PIECE, n - i), group, decay };
        if (t->piece != NULL) t->piece[t->pieces] = piece;
        t->pieces++;
    }
}

static void cut_all(weft_trainer *t)
{
    size_t words = t->begin[WF_GROUP_WORDS];

    t->pieces = 0;
    for (size_t i = 0; i < t->sites; i++) {
        const wf_site *s = &t->site[i];
        wf_group group = wf_is_text(s->layer->component) ? WF_GROUP_TEXT : WF_GROUP_LAYERS;
        for (int32_t k = 0; k < s->tensors; k++)
            cut(t, (size_t)(s->value[k] - t->values), s->tensor[k].rows * s->tensor[k].columns,
                group, !s->tensor[k].no_decay);
    }
    cut(t, words, t->begin[WF_GROUPS] - words, WF_GROUP_WORDS, true);
}

weft_status wf_train_cut_pieces(weft_trainer *t, weft_error *err)
{
    cut_all(t);
    wf_train_piece *piece = wf_bag_take(&t->bag, t->pieces, sizeof *piece);
    t->sums = wf_bag_take(&t->bag, t->pieces, sizeof *t->sums);
    if (piece == NULL || t->sums == NULL)
        return wf_nomem(err, t->pieces * (sizeof *piece + sizeof *t->sums),
                        "the pieces of a training's numbers");
    t->piece = piece;
    cut_all(t);
    return WEFT_OK;
}

/* ---- the norm -------------------------------------------------------------------------------- */

static void scale_and_sum(void *user, size_t task, int32_t worker)
{
    weft_trainer *t = user;
    const wf_train_piece *p = &t->piece[task];
    float *g = t->grads + p->at, by = (float)(1.0 / t->o.accumulate);
    double sum = 0;

    (void)worker;
    for (size_t i = 0; i < p->n; i++) {
        if (t->o.accumulate > 1) g[i] *= by;
        sum += (double)g[i] * (double)g[i];
    }
    t->sums[task] = sum;
}

double wf_train_norm(weft_trainer *t)
{
    double sum = 0;

    wf_pool_run(t->pool, t->pieces, scale_and_sum, t);
    for (size_t i = 0; i < t->pieces; i++) sum += t->sums[i];
    return sqrt(sum);
}

/* ---- the step -------------------------------------------------------------------------------- */

typedef struct update {
    weft_trainer *t;
    float  clip;                    /* what gradients are multiplied with              */
    float  keep[WF_GROUPS];         /* 1 - rate decay                                  */
    float  step[WF_GROUPS];         /* rate / (1 - b1^k); of SGD the rate              */
    float  b1, b2, rest1, rest2;    /* 1 - b                                           */
    float  root;                    /* sqrt(1 - b2^k)                                  */
    float  epsilon, decay, mean;    /* mean: the share of the old mean                 */
} update;

static void adamw(const update *u, const wf_train_piece *p)
{
    weft_trainer *t = u->t;
    float *x = t->values + p->at, *m = t->first + p->at, *v = t->second + p->at;
    const float *grads = t->grads + p->at;
    float keep = p->decay ? u->keep[p->group] : 1, step = u->step[p->group];

    for (size_t i = 0; i < p->n; i++) {
        float g = grads[i] * u->clip;
        x[i] *= keep;
        m[i] += u->rest1 * (g - m[i]);
        v[i] = v[i] * u->b2 + u->rest2 * g * g;
        x[i] -= step * (m[i] / (sqrtf(v[i]) / u->root + u->epsilon));
    }
}

static void sgd(const update *u, const wf_train_piece *p)
{
    weft_trainer *t = u->t;
    float *x = t->values + p->at, *m = t->first + p->at;
    const float *grads = t->grads + p->at;
    float decay = p->decay ? u->decay : 0, step = u->step[p->group];

    for (size_t i = 0; i < p->n; i++) {
        float g = grads[i] * u->clip + decay * x[i];
        m[i] = u->b1 * m[i] + g;
        x[i] -= step * m[i];
    }
}

static void update_task(void *user, size_t task, int32_t worker)
{
    const update *u = user;
    weft_trainer *t = u->t;
    const wf_train_piece *p = &t->piece[task];

    (void)worker;
    if (t->o.optimiser == WEFT_OPTIMISER_ADAMW) adamw(u, p);
    else sgd(u, p);
    if (t->mean == NULL) return;
    for (size_t i = p->at; i < p->at + p->n; i++)
        t->mean[i] += (1 - u->mean) * (t->values[i] - t->mean[i]);
}

/* The mean of the weights follows them closely at first: the n-th step, counted from 0, keeps at
 * most (1 + n) / (10 + n) of it, and the first nothing (diffusers' EMAModel). */
static double mean_share(const weft_trainer *t)
{
    double n = (double)t->step;
    return n == 0 ? 0 : WF_MIN(t->o.ema, (1 + n) / (10 + n));
}

void wf_train_update(weft_trainer *t, double norm)
{
    const weft_train_options *o = &t->o;
    double factor = wf_train_rate(o, t->step), k = (double)t->step + 1;
    double rates[WF_GROUPS] = { o->rate, o->text_rate, o->token_rate };
    double b1 = wf_none(o->beta1), b2 = wf_none(o->beta2), decay = wf_none(o->weight_decay);
    bool   adam = o->optimiser == WEFT_OPTIMISER_ADAMW;
    update u = { .t = t, .clip = 1, .b1 = (float)b1, .b2 = (float)b2, .rest1 = (float)(1 - b1),
                 .rest2 = (float)(1 - b2), .root = (float)sqrt(1 - pow(b2, k)),
                 .epsilon = (float)o->epsilon, .decay = (float)decay,
                 .mean = (float)mean_share(t) };

    for (int g = 0; g < WF_GROUPS; g++) {
        bool   held = t->recipe->holds != NULL && t->recipe->holds(t, g);
        double rate = held ? 0 : wf_none(rates[g]) * factor;
        u.keep[g] = (float)(1 - rate * decay);
        u.step[g] = (float)(adam ? rate / (1 - pow(b1, k)) : rate);
    }
    /* torch's clip_grad_norm_: the small number keeps a norm of 0 from dividing */
    if (o->clip > 0 && norm > 0) u.clip = (float)WF_MIN(o->clip / (norm + 1e-6), 1.0);
    wf_pool_run(t->pool, t->pieces, update_task, &u);
}
