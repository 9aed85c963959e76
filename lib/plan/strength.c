/* strength.c - how much of each adapter acts at each call, as one number.
 *
 * A coefficient says little by itself: 0.7 at two small layers is not 0.7 at all of them. So each
 * coefficient is weighed by what the adapter changes there, and the sum is held against the whole
 * adapter at weight 1:
 *
 *     strength_i(call) = sum over branches b of  q_b sqrt(sum over l of (c_l m_i |Delta_l|_F)^2)
 *                        / sqrt(sum over l of |Delta_l|_F^2)
 *
 * over the layers l of the denoiser, with c the cell in branch b and q_b the branch's share of the
 * result. A merge at weight 0.8 has 0.8; half of the layers of K-LoRA have about 0.7; one of three
 * adapters of a composite a third. m_i is the mean of the adapter's mask, where cells have one.
 * Under blend, where masks share out the predictions, it stands for q_b. Where the network decides
 * (LoRAtorio, sub-bands) q_b is the share that was asked for. A column coefficient v turns Delta
 * into Delta diag(v).
 *
 * All differences are read once for each phase. */
#include <math.h>

#include "adapter/difference.h"
#include "plan/method/method.h"

typedef struct reading {
    const weft_plan *p;
    const wf_layer  *layers;
    double          *norm; /* [adapters] the sum of squares at weight 1 */
} reading;

/* All that a slot's adapter has at its layer, as the sheet takes it. */
static weft_status load(wf_difference *d, const weft_plan *p, const wf_sheet *s, int32_t adapter,
                        const wf_layer *layer, weft_error *err)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer->id, &count);
    weft_adapter   *a = p->entry[adapter].bound->adapter;
    weft_status     st = WEFT_OK;

    if (!wf_plan_weighs_inside(p, adapter, layer->id))
        return wf_difference_load(d, a, slice, count, layer, s != NULL && s->ignore_alpha,
                                  &p->alloc, err);
    *d = (wf_difference){ .out = (size_t)layer->out, .K = wf_layer_columns(layer), .scale = 1 };
    d->D = wf_zalloc(&p->alloc, d->out * d->K, sizeof *d->D);
    if (d->D == NULL) return wf_nomem(err, d->out * d->K * sizeof *d->D, "a layer's difference");
    double inside = s != NULL ? (double)wf_plan_weight(p, adapter, layer->id) : 1;
    for (int32_t i = 0; i < count && st == WEFT_OK; i++) {
        const wf_module *m = wf_adapter_module(a, (size_t)slice[i].module);
        st = wf_slice_add(&slice[i], m, layer, (double)m->scale, inside, 1, d->D, &p->alloc, err);
    }
    if (st != WEFT_OK) wf_difference_free(d, &p->alloc);
    return st;
}

/* The square of its Frobenius norm, with a factor for each column unless v is NULL. */
static weft_status square_of(double *square, const weft_plan *p, const wf_sheet *s, int32_t adapter,
                             const wf_layer *layer, const float *v, weft_error *err)
{
    wf_difference d;

    WF_TRY(load(&d, p, s, adapter, layer, err));
    size_t rows = d.D != NULL ? d.out : d.r;
    float *of = d.D != NULL ? d.D : d.A;
    for (size_t i = 0; v != NULL && i < rows * d.K; i++) of[i] *= v[i % d.K];
    weft_status st = wf_difference_dot(square, &d, &d, &p->alloc, err);
    wf_difference_free(&d, &p->alloc);
    return st;
}

static weft_status tell(const weft_plan *p, size_t done, size_t total, weft_error *err)
{
    if (p->progress != NULL &&
        p->progress(p->progress_user, "weighing layers", (int64_t)done, (int64_t)total) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "stopped after %zu of %zu layers were weighed", done,
                       total);
    return WEFT_OK;
}

/* r->norm: what each adapter has in all layers of the denoiser, as its file scales it. */
static weft_status read_norms(reading *r, weft_error *err)
{
    const weft_plan *p = r->p;
    size_t           count;

    wf_model_layers(p->model, &count);
    for (size_t l = 0; l < count; l++) {
        if (r->layers[l].component != WEFT_COMPONENT_DENOISER) continue;
        WF_TRY(tell(p, l, count, err));
        for (int32_t a = 0; a < p->adapters; a++) {
            double square;
            if (wf_plan_module(p, a, (int32_t)l) == NULL) continue;
            WF_TRY(square_of(&square, p, NULL, a, &r->layers[l], NULL, err));
            r->norm[a] += square;
        }
    }
    return tell(p, count, count, err);
}

/* sum [rows][branches][adapters] += (c m |Delta|)^2 of a slot in every row and branch. */
static weft_status add_slot(double *sum, int32_t branches, const weft_plan *p, const wf_sheet *s,
                            size_t patch, size_t part, const wf_layer *layer, weft_error *err)
{
    int32_t adapter = s->slot[(size_t)s->patched[patch].slot + part].adapter;
    double  square = 0, mask = 1;
    int32_t known = -1; /* the vector of `square` */

    for (size_t r = 0; r < s->rows; r++)
        for (int32_t b = 0; b < s->row[r].branches; b++) {
            const wf_cell *c = &wf_sheet_line(s, &s->row[r], b, patch)[part];
            if (c->number == 0) continue;
            if (c->vector != known)
                WF_TRY(square_of(&square, p, s, adapter, layer,
                                 c->vector != 0 ? s->vectors[c->vector - 1] : NULL, err));
            if (c->mask != 0 && known < 0) mask = wf_plan_mask_mean(wf_plan_mask_of(p, adapter));
            known = c->vector;
            double x = (double)c->number * (c->mask != 0 ? mask : 1);
            sum[((size_t)r * (size_t)branches + (size_t)b) * (size_t)p->adapters +
                (size_t)adapter] += x * x * square;
        }
    return WEFT_OK;
}

/* The strength of an adapter in a row of the sheet, from the sums of its branches. */
static double strength_of(const weft_plan *p, const wf_sheet *s, const wf_row *row, int32_t call,
                          int32_t adapter, const double *sum, double norm)
{
    double total = 0, most = 0;

    for (int32_t b = 0; b < row->branches - s->base && norm > 0; b++) {
        float  weight = 1, divisor = 1;
        double own = sqrt(sum[(size_t)b * (size_t)p->adapters + (size_t)adapter] / norm);
        if (s->method->weigh != NULL)
            s->method->weigh(p, s, call - s->first, b, &weight, &divisor);
        total += own * (double)weight / (double)divisor;
        most = WF_MAX(most, own);
    }
    if (!s->method->masks_predictions) return total;
    const wf_plan_mask *m = wf_plan_mask_of(p, adapter);
    return m != NULL ? most * wf_plan_mask_mean(m) : most;
}

/* The calls of one phase. */
static weft_status read_phase(double *strength, const reading *r, const wf_sheet *s,
                              weft_error *err)
{
    const weft_plan *p = r->p;
    int32_t          branches = wf_sheet_branches(s) + s->base;
    size_t           each = (size_t)branches * (size_t)p->adapters;
    double          *sum = wf_zalloc(&p->alloc, s->rows * each, sizeof *sum);
    weft_status      st = WEFT_OK;

    if (sum == NULL) return wf_nomem(err, s->rows * each * sizeof *sum, "strengths of adapters");
    for (size_t i = 0; i < s->patched_count && st == WEFT_OK; i++) {
        const wf_patched *at = &s->patched[i];
        st = tell(p, i, s->patched_count, err);
        for (size_t k = 0; k < (size_t)at->patch->parts && st == WEFT_OK; k++)
            if (s->slot[(size_t)at->slot + k].slice == 0) /* the others have the same cell */
                st = add_slot(sum, branches, p, s, i, k, &r->layers[at->layer], err);
    }
    for (int32_t n = s->first; n < s->first + s->calls && st == WEFT_OK; n++) {
        const wf_row *row = wf_sheet_row(s, n);
        for (int32_t a = 0; a < p->adapters; a++)
            strength[(size_t)n * (size_t)p->adapters + (size_t)a] = strength_of(
                p, s, row, n, a, sum + (size_t)(row - s->row) * each, r->norm[a]);
    }
    wf_free(&p->alloc, sum);
    return st;
}

weft_status wf_plan_strengths(const weft_plan *p, double *strength, double *norm, weft_error *err)
{
    reading     r = { p, wf_model_layers(p->model, &(size_t){ 0 }), NULL };
    size_t      n = (size_t)p->adapters;
    weft_status st;

    r.norm = wf_zalloc(&p->alloc, n, sizeof *r.norm);
    if (r.norm == NULL) return wf_nomem(err, n * sizeof *r.norm, "strengths of adapters");
    st = read_norms(&r, err);
    for (size_t i = 0; i < p->table.phases && st == WEFT_OK; i++)
        st = read_phase(strength, &r, &p->table.phase[i], err);
    for (size_t a = 0; a < n && norm != NULL && st == WEFT_OK; a++) norm[a] = sqrt(r.norm[a]);
    wf_free(&p->alloc, r.norm);
    return st;
}

weft_status weft_plan_strengths(const weft_plan *plan, double *strength, size_t strength_len,
                                double *norm, size_t norm_len, weft_error *err)
{
    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_strengths", err));
    size_t n = (size_t)plan->adapters, all = (size_t)plan->table.calls * n;
    if (strength == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_strengths: strength is NULL");
    if (strength_len != all || (norm != NULL && norm_len != n))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_plan_strengths: %s_len is %zu, wanted %zu: one for each %sadapter",
                       strength_len != all ? "strength" : "norm",
                       strength_len != all ? strength_len : norm_len,
                       strength_len != all ? all : n, strength_len != all ? "call and " : "");
    return wf_plan_strengths(plan, strength, norm, err);
}

weft_status weft_plan_image_weights(const weft_plan *plan, float *weights, size_t len,
                                    weft_error *err)
{
    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_image_weights", err));
    size_t n = (size_t)plan->images, all = (size_t)plan->table.calls * n;
    if (weights == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_image_weights: weights is NULL");
    if (len != all)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_plan_image_weights: len is %zu, wanted %zu: one for each call and "
                       "image prompt",
                       len, all);
    for (size_t i = 0; i < all; i++)
        weights[i] = wf_plan_image_weight(plan, (int32_t)(i % n), (int32_t)(i / n));
    return WEFT_OK;
}
