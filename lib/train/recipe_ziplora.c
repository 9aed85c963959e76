/* recipe_ziplora.c - coefficients for the columns of a content's and a style's adapter: ZipLoRA
 * (Shah et al., ZipLoRA: Any Subject in Any Style by Effectively Merging LoRAs, 2023).
 *
 * With D the network with both adapters and their coefficients, D_c and D_s with one of them alone,
 * x_c a picture of the content and x_s one in the style (instance and class pictures), of the same
 * noise and time:
 *
 *     |D(x_c) - D_c(x_c)|  +  |D(x_s) - D_s(x_s)|  +  lambda sum over layers of |m_c . m_s|
 *
 * The norms are not squared; the text calls the third term a cosine similarity but writes a
 * product, and so do we. WEFT_TRAIN_ZIP_CODE is what the known program has in its place: means of
 * squares, and for a layer the mean of |m_c m_s| column by column. Its rate, 1e-4 or less, moves
 * the coefficients by no more than a hundredth in 100 steps; ours is what the merge needs.
 *
 * Both adapters must be pairs. What they have in the text encoders acts as it stands, on all three
 * networks. */
#include <math.h>

#include "adapter/family.h"
#include "plan/plan.h"
#include "train/put.h"
#include "train/zip.h"

typedef struct zip {
    weft_adapter  *adapter[WF_ZIP_PARTS]; /* kept, complete                            */
    wf_zip_layer **layer;                 /* [layers of the model], NULL: neither acts */
    wf_delta      *alone[WF_ZIP_PARTS];   /* [layers]                                  */
} zip;

static const char *const part_names[WF_ZIP_PARTS] = { "content", "style" };

/* ---- the two adapters ------------------------------------------------------------------------ */

static weft_status check(const weft_model *m, const weft_train_options *o, weft_error *err)
{
    (void)m;
    if (o->content == NULL || o->style == NULL)
        return wf_fail(err, WEFT_E_ARG, "train: %s is NULL: ziplora takes two adapters",
                       o->content == NULL ? "content" : "style");
    if (o->min_snr > 0)
        return wf_fail(err, WEFT_E_ARG,
                       "train: min_snr weighs errors of noise, and ziplora has none");
    if (o->prior_weight != 1)
        return wf_fail(err, WEFT_E_ARG,
                       "train: prior_weight weighs a prior, and pictures of ziplora's style are "
                       "none");
    return WEFT_OK;
}

static weft_status refuse_module(const weft_adapter *a, int part, const wf_layer *l,
                                 const char *why, weft_error *err)
{
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "train: %s: %.80s: %.160s: ziplora takes pairs of factors, and this %s",
                   part_names[part], wf_adapter_name(a), l->name, why);
}

static weft_status check_slice(const weft_adapter *a, int part, const wf_slice *s,
                               const wf_layer *l, weft_error *err)
{
    const wf_module *m = wf_adapter_module(a, (size_t)s->module);
    bool             bias = false;

    if (l->kind == WEFT_LAYER_NORM) return refuse_module(a, part, l, "is a norm", err);
    if (wf_slice_form(s, m, l) != WF_FORM_PAIR)
        return refuse_module(a, part, l, "is none", err);
    WF_TRY(wf_module_add_bias(m, l, 1, 1, NULL, &bias, err));
    return bias ? refuse_module(a, part, l, "changes the bias", err) : WEFT_OK;
}

/* Room for the factors of all slices of a layer, one below the other, and the factors. */
static weft_status take_factors(weft_trainer *t, const weft_adapter *a, int part,
                                const wf_slice *slice, size_t count, const wf_layer *l,
                                weft_error *err)
{
    zip   *z = t->own;
    size_t K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, out = (size_t)l->out, at = 0,
           R = 0;

    for (size_t i = 0; i < count; i++) {
        WF_TRY(check_slice(a, part, &slice[i], l, err));
        R += (size_t)wf_module_pair_rank(wf_adapter_module(a, (size_t)slice[i].module));
    }
    if (z->layer[l->id] == NULL) z->layer[l->id] = wf_bag_take(&t->bag, 1, sizeof **z->layer);
    wf_zip_layer *to = z->layer[l->id];
    if (to == NULL) return wf_nomem(err, sizeof *to, "a layer of ZipLoRA");
    to->rank[part] = (int32_t)R;
    to->down[part] = wf_bag_take(&t->bag, R * K, sizeof(float));
    to->up[part] = wf_bag_take(&t->bag, R * out, sizeof(float));
    if (to->down[part] == NULL || to->up[part] == NULL)
        return wf_nomem(err, R * (K + out) * sizeof(float), "an adapter's factors");
    for (size_t i = 0; i < count; i++) {
        const wf_module *m = wf_adapter_module(a, (size_t)slice[i].module);
        size_t           r = (size_t)wf_module_pair_rank(m);
        float           *up = to->up[part] + at * out;
        WF_TRY(wf_slice_pair(&slice[i], m, l, to->down[part] + at * K, up, &t->alloc, err));
        for (size_t k = 0; k < r * out; k++) up[k] *= m->scale;
        at += r;
    }
    return WEFT_OK;
}

static weft_status open_part(weft_trainer *t, int part, weft_adapter *given, weft_error *err)
{
    zip            *z = t->own;
    size_t          layers, n = 0;
    const wf_layer *l = wf_model_layers(t->model, &layers);
    weft_report    *report;
    weft_status     st;

    WF_TRY(weft_report_create(t->model, given, &report, err));
    const wf_slice *s = wf_report_slices(report, &n);
    st = wf_report_verdict(report, false, err);
    if (st == WEFT_OK) st = wf_adapter_complete(given, l, s, n, &z->adapter[part], err);
    for (size_t i = 0, end; i < n && st == WEFT_OK; i = end) { /* by layer */
        for (end = i; end < n && s[end].layer == s[i].layer; end++) {}
        st = take_factors(t, z->adapter[part], part, &s[i], end - i, &l[s[i].layer], err);
    }
    weft_report_free(report);
    return st;
}

static weft_status begin(weft_trainer *t, weft_error *err)
{
    size_t layers;
    zip   *z = t->own = wf_bag_take(&t->bag, 1, sizeof *z);

    (void)wf_model_layers(t->model, &layers);
    if (z != NULL) z->layer = wf_bag_take(&t->bag, layers, sizeof *z->layer);
    if (z == NULL || z->layer == NULL)
        return wf_nomem(err, layers * sizeof *z->layer, "the layers of ZipLoRA");
    WF_TRY(open_part(t, WF_ZIP_CONTENT, t->o.content, err));
    return open_part(t, WF_ZIP_STYLE, t->o.style, err);
}

static void end(weft_trainer *t)
{
    zip *z = t->own;

    for (int part = 0; z != NULL && part < WF_ZIP_PARTS; part++)
        weft_adapter_free(z->adapter[part]);
}

static const void *given(const weft_trainer *t, const wf_layer *l)
{
    const zip *z = t->own;
    return z->layer[l->id];
}

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    bool ours = l->component == WEFT_COMPONENT_DENOISER && given(t, l) != NULL;
    return ours ? &wf_form_zip : NULL;
}

static bool picks(const weft_trainer *t, const wf_layer *l)
{
    return form(t, l) != NULL;
}

/* ---- each alone ------------------------------------------------------------------------------ */

/* A stack of one pair, in the bag; NULL without memory. */
static const wf_stack *stack_of(weft_trainer *t, int32_t rank, const float *down, const float *up)
{
    wf_stack *s = wf_bag_take(&t->bag, 1, sizeof *s);
    int32_t  *ranks = wf_bag_take(&t->bag, 1, sizeof *ranks);
    float    *scale = wf_bag_take(&t->bag, 1, sizeof *scale);

    if (s == NULL || ranks == NULL || scale == NULL) return NULL;
    *ranks = rank;
    *scale = 1;
    *s = (wf_stack){ .parts = 1, .rank = rank, .part_rank = ranks, .part_scale = scale,
                     .down = down, .up = up };
    return s;
}

/* Both adapters' pairs at a layer of a text encoder, one below the other. */
static const wf_stack *both_of(weft_trainer *t, const wf_layer *l, const wf_zip_layer *z)
{
    size_t  K = (size_t)l->in, out = (size_t)l->out, r = (size_t)z->rank[0],
            R = r + (size_t)z->rank[1];
    float  *down = wf_bag_take(&t->bag, R * K, sizeof *down);
    float  *up = wf_bag_take(&t->bag, R * out, sizeof *up);

    if (down == NULL || up == NULL) return NULL;
    for (int part = 0; part < WF_ZIP_PARTS; part++) {
        size_t at = part == 0 ? 0 : r, n = (size_t)z->rank[part];
        if (n > 0) memcpy(down + at * K, z->down[part], n * K * sizeof *down);
        if (n > 0) memcpy(up + at * out, z->up[part], n * out * sizeof *up);
    }
    return stack_of(t, (int32_t)R, down, up);
}

static weft_status ready(weft_trainer *t, weft_error *err)
{
    zip            *z = t->own;
    size_t          layers;
    const wf_layer *l = wf_model_layers(t->model, &layers);

    for (int part = 0; part < WF_ZIP_PARTS; part++)
        if ((z->alone[part] = wf_bag_take(&t->bag, layers, sizeof **z->alone)) == NULL)
            return wf_nomem(err, layers * sizeof **z->alone, "the layers of ZipLoRA");
    for (size_t i = 0; i < layers; i++) {
        const wf_zip_layer *at = z->layer[i];
        bool                text = l[i].component != WEFT_COMPONENT_DENOISER;
        if (at == NULL) continue;
        if (text && (t->deltas[i].stack = both_of(t, &l[i], at)) == NULL)
            return wf_nomem(err, sizeof(wf_stack), "the text encoder's pairs");
        for (int part = 0; part < WF_ZIP_PARTS && !text; part++) {
            if (at->rank[part] == 0) continue;
            z->alone[part][i].stack =
                stack_of(t, at->rank[part], at->down[part], at->up[part]);
            if (z->alone[part][i].stack == NULL)
                return wf_nomem(err, sizeof(wf_stack), "an adapter's pairs");
        }
    }
    return WEFT_OK;
}

/* ---- the loss -------------------------------------------------------------------------------- */

/* |out - target| of a sample, or in the program's form the mean of squares, and `share` times its
 * gradient. */
static double term(const weft_trainer *t, const wf_batch *b, int32_t s, const float *out,
                   const float *target, double share, float *grad)
{
    bool   code = (t->o.flags & WEFT_TRAIN_ZIP_CODE) != 0;
    double mean = wf_loss_square(t, b, s, out, target, code ? share : 1, grad);

    if (code) return mean;
    double norm = sqrt(mean * (double)t->image); /* grad is 2 (out - target) / image */
    double factor = norm > 0 ? share * (double)t->image / (2 * norm) : 0;
    for (size_t i = 0; i < t->image; i++) grad[i] = (float)(factor * grad[i]);
    return norm;
}

/* The third term at one layer, and `share` times its gradient added. */
static double similarity(const float *m, const float *n, size_t K, bool code, double share,
                         float *g_m, float *g_n)
{
    double dot = 0;

    if (code) {
        double each = share / (double)K;
        for (size_t k = 0; k < K; k++) {
            double sign = (double)((double)m[k] * n[k] > 0) - (double)((double)m[k] * n[k] < 0);
            g_m[k] += (float)(each * sign * n[k]);
            g_n[k] += (float)(each * sign * m[k]);
        }
        return wf_zip_similarity(m, n, K);
    }
    for (size_t k = 0; k < K; k++) dot += (double)m[k] * n[k];
    double signed_share = dot > 0 ? share : dot < 0 ? -share : 0;
    for (size_t k = 0; k < K; k++) {
        g_m[k] += (float)(signed_share * n[k]);
        g_n[k] += (float)(signed_share * m[k]);
    }
    return fabs(dot);
}

static double all_similarities(weft_trainer *t, double share)
{
    bool   code = (t->o.flags & WEFT_TRAIN_ZIP_CODE) != 0;
    double sum = 0;

    for (size_t i = 0; i < t->sites; i++) {
        wf_site *s = &t->site[i];
        int32_t  c = wf_zip_tensor(s, WF_ZIP_CONTENT), y = wf_zip_tensor(s, WF_ZIP_STYLE);
        if (c >= 0 && y >= 0)
            sum += similarity(s->value[c], s->value[y], s->K, code, share, s->grad[c], s->grad[y]);
    }
    return sum;
}

static weft_status evaluate(weft_trainer *t, wf_batch *b, wf_losses *l, weft_error *err)
{
    const zip   *z = t->own;
    int32_t      n = b->instances, other = b->n - n;
    const float *out;
    float       *grad, *wanted = t->aside;
    double       content = 0, style = 0, share = wf_none(t->o.similarity);

    WF_TRY(wf_trainer_predict(t, z->alone[WF_ZIP_CONTENT], b, 0, n, wanted, err));
    WF_TRY(wf_trainer_predict(t, z->alone[WF_ZIP_STYLE], b, n, other,
                              wanted + (size_t)n * t->image, err));
    WF_TRY(wf_trainer_record(t, b, &out, &grad, err));
    for (int32_t s = 0; s < b->n; s++) {
        size_t at = (size_t)s * t->image;
        int32_t of = s < n ? n : other;
        double  one = term(t, b, s, out + at, wanted + at, 1.0 / of, grad + at) / of;
        *(s < n ? &content : &style) += one;
    }
    WF_TRY(wf_trainer_back(t, err));
    l->prior = style;
    l->other = all_similarities(t, share);
    l->loss = content + style + share * l->other;
    return WEFT_OK;
}

/* ---- the result ------------------------------------------------------------------------------ */

static weft_status put_vector(weft_trainer *t, const wf_site *s, int part, bool half,
                              weft_tensors *to, weft_error *err)
{
    int32_t     tensor = wf_zip_tensor(s, part);
    int64_t     shape[] = { (int64_t)s->K };
    char        name[600];
    float      *v;
    weft_status st;

    if (tensor < 0) return WEFT_OK;
    if ((v = wf_zalloc(&t->alloc, s->K, sizeof *v)) == NULL)
        return wf_nomem(err, s->K * sizeof *v, "coefficients");
    wf_unorder(v, s->value[tensor], 1, wf_site_taps(s), s->K / wf_site_taps(s));
    wf_format(name, sizeof name, "%s%s", s->layer->name, wf_zip_endings[part]);
    st = wf_trainer_put(to, name, v, 1, shape, half, err);
    wf_free(&t->alloc, v);
    return st;
}

/* The file that weft_plan_zip() takes. */
static weft_status save_coefficients(weft_trainer *t, const char *path, bool half, weft_error *err)
{
    const zip    *z = t->own;
    weft_tensors *list;
    weft_status   st = WEFT_OK;

    WF_TRY(wf_tensors_new(&t->alloc, path, &list, err));
    for (int part = 0; part < WF_ZIP_PARTS && st == WEFT_OK; part++) {
        st = wf_tensors_add_meta(list, wf_zip_names[part], wf_adapter_name(z->adapter[part]), err);
        for (size_t i = 0; i < t->sites && st == WEFT_OK; i++)
            st = put_vector(t, &t->site[i], part, half, list, err);
    }
    if (st == WEFT_OK) st = wf_trainer_write(t, list, path, err);
    weft_tensors_free(list);
    return st;
}

/* A dialect asks for the merged pairs. */
static weft_status save(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_adapter     *a;
    weft_status       st;

    if (dialect == 0) return save_coefficients(t, path, half, err);
    WF_TRY(weft_trainer_adapter(t, &a, err));
    o.dialect = dialect;
    if (half) o.flags |= WEFT_SAVE_HALF;
    st = weft_adapter_save(a, t->model, path, &o, err);
    weft_adapter_free(a);
    return st;
}

const wf_recipe wf_recipe_ziplora = {
    .id = WEFT_RECIPE_ZIPLORA,
    .name = "ziplora",
    .uses = WF_USES_ZIP,
    .flags = WEFT_TRAIN_ZIP_CODE,
    .defaults = { .rate = 0.01, .weight_decay = -1, .steps = 100, .similarity = 0.01, .batch = 1 },
    .same_noise = true,
    .both = true,
    .check = check,
    .begin = begin,
    .end = end,
    .form = form,
    .picks = picks,
    .given = given,
    .ready = ready,
    .evaluate = evaluate,
    .save = save,
};
