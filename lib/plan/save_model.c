/* save_model.c - the plan merged into the model's weights, as a checkpoint of its own.
 *
 * The base is never written to: a copy is written, tensor by tensor. A tensor that no adapter
 * touches goes through as it is. One that is touched is widened, summed in float32 exactly as a
 * merged copy of a run is, and narrowed to its dtype, which must hold it. No more than one tensor
 * is in memory.
 *
 * A tensor of the file may hold several layers (q, k and v in one matrix). Each layer is written
 * into its own rows, which are found by where the layer's weights lie in memory. */
#include <math.h>

#include "model/networks.h"
#include "model/written.h"
#include "plan/method/method.h"

/* A layer's weight or bias, and its place in the file. */
typedef struct change {
    const wf_patch   *patch;
    const wf_cell    *cells;  /* [patch->parts] */
    const float *const *vectors; /* that these name */
    const wf_layer   *layer;
    const wf_tensor  *tensor; /* as the model shows it                                  */
    const wf_tensor  *source; /* that it was turned from, rows for columns; NULL: none  */
    bool              bias;
} change;

typedef struct saving {
    const weft_plan *plan;
    change          *changes;
    size_t           count;
    uint8_t         *buffer;  /* the tensor that is being written     */
    float           *floats;  /* one layer's weight, its bias, a line */
    int64_t          done, all;
} saving;

/* ---- what is to be changed ------------------------------------------------------------------- */

static weft_status add_change(saving *s, const change *like, bool bias, weft_error *err)
{
    change *c = &s->changes[s->count];
    *c = *like;
    c->bias = bias;
    c->tensor = wf_model_tensor(wf_plan_model(s->plan), c->layer, bias, &c->source);
    if (c->tensor == NULL && bias)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the plan adds a bias, and the layer has none that "
                       "could be written",
                       c->layer->name);
    if (c->tensor == NULL)
        return wf_fail(err, WEFT_E_INTERNAL, "%s: its weight is in no file", c->layer->name);
    s->count++;
    return WEFT_OK;
}

static weft_status add_sheet(saving *s, const wf_sheet *sheet, weft_error *err)
{
    const wf_layer *table = wf_model_layers(wf_plan_model(s->plan), &(size_t){ 0 });

    for (size_t i = 0; i < sheet->patched_count; i++) {
        const wf_patched *at = &sheet->patched[i];
        const change      c = { .patch = at->patch, .layer = &table[at->layer],
                                .cells = wf_sheet_cells(sheet, &sheet->row[0]) + at->slot,
                                .vectors = sheet->vectors };
        if (!wf_sheet_any_cell(sheet, (size_t)at->slot, (size_t)(at->slot + at->patch->parts)))
            continue;
        WF_TRY(add_change(s, &c, false, err));
        if (wf_patch_has_bias(at->patch, c.layer)) WF_TRY(add_change(s, &c, true, err));
    }
    return WEFT_OK;
}

/* wf_plan_must_be_fixed() made sure that there is one phase, with one row. */
static weft_status list_changes(saving *s, weft_error *err)
{
    const wf_sheet *phase = wf_plan_phase(s->plan, 0), *text = wf_plan_text_sheet(s->plan);
    size_t          most = 2 * (phase->patched_count + text->patched_count);

    s->changes = wf_zalloc(&s->plan->alloc, most, sizeof *s->changes);
    if (s->changes == NULL) return wf_nomem(err, most * sizeof *s->changes, "a checkpoint");
    WF_TRY(add_sheet(s, phase, err));
    return add_sheet(s, text, err);
}

/* ---- one layer ------------------------------------------------------------------------------- */

/* Narrowing that also knows F64, the dtype of old files. */
static bool narrow(void *dst, wf_dtype type, const float *src, size_t n)
{
    if (type != WF_F64) return wf_narrow(dst, type, src, n);
    for (size_t i = 0; i < n; i++) {
        double d = src[i];
        memcpy((uint8_t *)dst + i * sizeof d, &d, sizeof d);
    }
    return true;
}

/* The merged weight and bias, in s->floats. */
static weft_status merge(saving *s, const change *p, weft_error *err)
{
    float *bias = s->floats + (size_t)p->layer->out * wf_layer_columns(p->layer);

    return wf_plan_patched_weight(s->plan, p->patch, p->cells, p->vectors, s->floats, bias,
                                  &s->plan->alloc, err);
}

/* to (out, in, ky, kx) in the file's type from w (out, ky, kx, in); `turned`: to (in, out). line
 * holds K floats. */
static bool place(uint8_t *to, const wf_layer *l, wf_dtype type, const float *w, float *line,
                  bool turned)
{
    size_t size = (size_t)wf_dtype_bits(type) / 8, in = (size_t)l->in,
           taps = (size_t)l->kernel * (size_t)l->kernel;
    size_t K = taps * in, out = (size_t)l->out;
    bool known = true;

    if (taps == 1 && !turned) return narrow(to, type, w, out * K);
    for (size_t o = 0; o < out && known; o++) {
        for (size_t i = 0; i < K && turned && known; i++)
            known = narrow(to + (i * out + o) * size, type, w + o * K + i, 1);
        for (size_t i = 0; i < K && !turned; i++) line[i] = w[o * K + i % taps * in + i / taps];
        if (!turned) known = narrow(to + o * K * size, type, line, K);
    }
    return known;
}

/* A weight that the file's type cannot hold would be written as infinity, and draw nothing. */
static weft_status check_held(const change *p, const float *v, size_t n, weft_error *err)
{
    wf_dtype       type = p->tensor->dtype;
    size_t         at = wf_narrow_fails(type, v, n);
    wf_number_text found;

    if (at == n) return WEFT_OK;
    const char *what = p->bias ? "bias" : "weight", *other = wf_dtype_for(v[at]);
    if (other == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: its merged %s has the value %s, which no type holds: an adapter's "
                       "scale or weight is beyond reason",
                       p->layer->name, what,
                       isnan(v[at]) ? "NaN" : v[at] < 0 ? "-infinity" : "infinity");
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: its merged %s has the value %s, which %s does not hold: merge into a model "
                   "whose weights are %s, or with a smaller weight",
                   p->layer->name, what, wf_number(&found, v[at]), wf_dtype_name(type), other);
}

static weft_status apply(saving *s, const change *p, const wf_tensor *whole, weft_error *err)
{
    const wf_layer *l = p->layer;
    size_t weight = (size_t)l->out * wf_layer_columns(l);
    float *bias = s->floats + weight, *line = bias + l->out;
    uint8_t *to = s->buffer + (p->source != NULL ? 0 : (size_t)(p->tensor->data - whole->data));
    bool known;

    WF_TRY(merge(s, p, err));
    WF_TRY(check_held(p, p->bias ? bias : s->floats, p->bias ? (size_t)l->out : weight, err));
    known = p->bias ? narrow(to, p->tensor->dtype, bias, (size_t)l->out)
                    : place(to, l, p->tensor->dtype, s->floats, line, p->source != NULL);
    return known ? WEFT_OK
                 : wf_fail(err, WEFT_E_UNSUPPORTED, "%s: weights in %s are not written", l->name,
                           wf_dtype_name(p->tensor->dtype));
}

/* ---- one file -------------------------------------------------------------------------------- */

/* Does the layer's part lie in this tensor of the file? */
static bool lies_in(const change *p, const wf_tensor *t)
{
    if (p->source != NULL) return p->source->data == t->data;
    return (uintptr_t)p->tensor->data >= (uintptr_t)t->data &&
           (uintptr_t)p->tensor->data + p->tensor->bytes <= (uintptr_t)t->data + t->bytes;
}

/* A pickle's tensors can share their memory. What is merged into one of them must not appear in the
 * other. */
static weft_status check_alone(const saving *s, const wf_tensor *tensors, size_t count,
                               weft_error *err)
{
    for (size_t i = 0; i < s->count; i++) {
        const wf_tensor *first = NULL;
        for (size_t k = 0; k < count; k++) {
            if (tensors[k].bytes == 0 || !lies_in(&s->changes[i], &tensors[k])) continue;
            if (first != NULL)
                return wf_fail(err, WEFT_E_UNSUPPORTED,
                               "%s: tensors %.120s and %.120s of the file are the same memory, "
                               "which with the plan they would not be",
                               s->changes[i].layer->name, first->name, tensors[k].name);
            first = &tensors[k];
        }
    }
    return WEFT_OK;
}

static weft_status make_data(void *user, const wf_tensor *t, const void **data, weft_error *err)
{
    saving *s = user;
    const weft_plan *p = s->plan;

    if (p->progress != NULL &&
        p->progress(p->progress_user, "saving model", s->done++, s->all) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "saving the model was cancelled");
    for (size_t i = 0; i < s->count; i++) {
        if (t->bytes == 0 || !lies_in(&s->changes[i], t)) continue;
        if (*data == t->data) memcpy(s->buffer, t->data, t->bytes);
        *data = s->buffer;
        WF_TRY(apply(s, &s->changes[i], t, err));
    }
    return WEFT_OK;
}

/* The file's own metadata, without sums that no longer hold, and what transformers wants to see. */
static weft_status write_file(void *user, const char *path, const weft_tensors *file,
                              const wf_tensor *tensors, size_t count, weft_error *err)
{
    saving *s = user;
    const weft_allocator *alloc = &s->plan->alloc;
    size_t all = wf_tensors_meta_count(file), n = 0;
    const char **pairs;

    WF_TRY(check_alone(s, tensors, count, err));
    pairs = wf_zalloc(alloc, 2 * (all + 1), sizeof *pairs);
    if (pairs == NULL) return wf_nomem(err, 2 * (all + 1) * sizeof *pairs, path);
    for (size_t i = 0; i < all; i++) {
        const char *key = wf_tensors_meta_key(file, i);
        if (strcmp(key, "format") == 0 || strstr(key, "hash") != NULL ||
            strncmp(key, "weft.", 5) == 0)
            continue;
        pairs[2 * n] = key;
        pairs[2 * n++ + 1] = wf_tensors_meta_value(file, i);
    }
    pairs[2 * n] = "format";
    pairs[2 * n++ + 1] = "pt";
    s->done = 0;
    s->all = (int64_t)count;
    weft_status st =
        wf_tensors_write_made(path, tensors, count, pairs, n, make_data, s, alloc, err);
    wf_free(alloc, pairs);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Memory for the largest tensor that is changed and the largest layer in it. */
static weft_status take_memory(saving *s, weft_error *err)
{
    size_t bytes = 1, floats = 1;

    for (size_t i = 0; i < s->count; i++) {
        const wf_layer *l = s->changes[i].layer;
        size_t need = ((size_t)l->out + 1) * wf_layer_columns(l) + (size_t)l->out;
        floats = WF_MAX(floats, need);
        bytes =
            WF_MAX(bytes, 3 * s->changes[i].tensor->bytes); /* it may be a third of q, k and v */
    }
    s->buffer = wf_alloc(&s->plan->alloc, bytes);
    s->floats = wf_alloc(&s->plan->alloc, floats * sizeof *s->floats);
    return s->buffer != NULL && s->floats != NULL
               ? WEFT_OK
               : wf_nomem(err, bytes + floats * sizeof *s->floats, "a checkpoint");
}

weft_status wf_plan_must_be_fixed(const weft_plan *p, const char *what, weft_error *err)
{
    size_t phases;

    WF_TRY(wf_plan_must_be_sealed(p, what, err));
    const wf_sheet *phase = wf_plan_phases(p, &phases);
    if (phases > 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the plan has %zu phases, and weights "
                       "hold one",
                       what, phases);
    if (wf_plan_evaluations(p) != 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s has %d branches, and weights hold one",
                       what, phase->method->title, wf_plan_evaluations(p));
    float weight = 1, divisor = 1;
    WF_TRY(weft_plan_branch_weight(p, 0, 0, &weight, &divisor, err));
    if (weight != divisor)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s multiplies the prediction, and weights cannot", what,
                       phase->method->title);
    if (p->regions > 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the plan has %d regions, and weights have no place "
                       "in the image",
                       what, (int)p->regions);
    if (p->align != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the plan aligns the samples of a batch, and weights know only one",
                       what);
    for (int32_t a = 0; a < p->adapters; a++)
        if (p->entry[a].mask != NULL && wf_sheet_reach(phase, a) > 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: adapter %s has a mask, and weights have no place "
                           "in the image",
                           what, wf_plan_adapter_name(p, a));
    for (int32_t call = 1; call < phase->calls; call++)
        if (phase->row_of_call[call] != 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: the coefficients of %s change at "
                           "call %d, and weights do not",
                           what, phase->method->title, call);
    return WEFT_OK;
}

weft_status weft_plan_save_model(const weft_plan *plan, const char *path, weft_error *err)
{
    saving s = { .plan = plan };
    weft_status st;

    if (plan == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_save_model: %s is NULL",
                       plan == NULL ? "plan" : "path");
    WF_TRY(wf_plan_must_be_fixed(plan, "weft_plan_save_model", err));
    if ((st = list_changes(&s, err)) == WEFT_OK && (st = take_memory(&s, err)) == WEFT_OK)
        st = wf_model_write(wf_plan_model(plan), path, write_file, &s, err);
    wf_free(&plan->alloc, s.changes);
    wf_free(&plan->alloc, s.buffer);
    wf_free(&plan->alloc, s.floats);
    return st;
}
