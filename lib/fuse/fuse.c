/* fuse.c - the fusion handle, and the order in which layers are fused.
 *
 * What a layer reads depends on the layers before it, so fusion goes forward: text encoders first;
 * keys and values on texts that the fused encoders make; then the rest, on images drawn with fused
 * keys and values. Within a stage every concept keeps its own weights, so that the rows of a layer
 * are those that it will read when the layers before it have done what the concept's do.
 *
 * The sums of the last stage are large: K x K doubles twice for each layer with its own input, and
 * out x K for each. With a budget they are taken for some layers at a time, and each group draws
 * the concepts' images anew. They are the same images, so the result is too.
 *
 * ROUTED has no stages: every concept runs by itself, as if it were drawn alone, and all layers are
 * recorded at once. Its sums are as large as ranks are. */
#include <math.h>

#include "adapter/view.h"
#include "base/structs.h"
#include "fuse/fuse_internal.h"
#include "merge/emit.h"
#include "model/networks.h"
#include "tensor/blas_guard.h"

enum { CONCEPTS_MAX = 256, IMAGES_MAX = 1 << 20, CAPTIONS_MAX = 1 << 20 };
/* Rows of two concepts that are nearly equal (a word that both prompts have, shifted by one place)
 * and ask for different results tear a weight apart: at 1e-6 differences in the bundled model's
 * text encoder are up to 70 times the concepts' own, and it draws neither; from 1e-3 to 3e-2 it
 * draws both. */
static const double RIDGE = 1e-3;
/* Of ROUTED. The paper adds 1e-4 itself; but A x is as large as whoever trained A left it, so we
 * add it relative to the mean of G's diagonal. */
static const double ROUTED_RIDGE = 1e-4;

/* ---- the handle ------------------------------------------------------------------------------ */

static weft_status check_options(const weft_fuse_options *o, weft_error *err)
{
    const struct { bool wrong; const char *what; } rules[] = {
        { o->budget != 0, "budget" }, { o->ridge != 0, "ridge" }, { o->height != 0, "height" },
        { o->width != 0, "width" }, { o->steps != 0, "steps" }, { o->sampler != 0, "sampler" },
    };
    wf_number_text n;

    if (o->kind < 0 || o->kind > WEFT_FUSE_ROUTED)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: kind is %d, wanted a WEFT_FUSE_*",
                       (int)o->kind);
    if (o->kind != WEFT_FUSE_CONSTRAINED && (o->flags & WEFT_FUSE_SKIP_PHOTO) != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: SKIP_PHOTO is of CONSTRAINED");
    for (size_t i = 0; i < WF_LEN(rules) && o->kind == WEFT_FUSE_CONSTRAINED; i++)
        if (rules[i].wrong)
            return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: %s is of GRADIENT", rules[i].what);
    if (o->kind == WEFT_FUSE_ROUTED && o->budget != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: budget is of GRADIENT");
    if (o->ridge != 0 && !(o->ridge > 0 && isfinite(o->ridge)))
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: ridge is %s, wanted above 0",
                       wf_number(&n, o->ridge));
    if (o->steps < 0 || o->steps > 1000)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_options: steps is %d, wanted 1 to 1000",
                       (int)o->steps);
    return WEFT_OK;
}

/* Which stream is the prompt's tokens. */
static weft_status find_sequence(weft_fuse *f, weft_error *err)
{
    const wf_networks *n = wf_model_networks(f->model);

    f->sequence = -1;
    for (int32_t i = 0; i < n->streams && f->sequence < 0; i++) {
        weft_text_info_init(&f->text, sizeof f->text);
        WF_TRY(weft_model_text(f->model, i, &f->text, err));
        if (f->text.kind == WEFT_TEXT_SEQUENCE && n->stream[i].sources > 0) f->sequence = i;
    }
    if (f->sequence < 0 && f->o.kind == WEFT_FUSE_CONSTRAINED)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "the model has no cross-attention to a prompt");
    return WEFT_OK;
}

static weft_status begin(weft_fuse *f, weft_error *err)
{
    weft_sampler *s;

    if (f->o.kind == 0) f->o.kind = WEFT_FUSE_GRADIENT;
    bool routed = f->o.kind == WEFT_FUSE_ROUTED;
    if (f->o.ridge == 0) f->o.ridge = routed ? ROUTED_RIDGE : RIDGE;
    if (f->o.steps == 0) f->o.steps = routed ? 1 : WF_FUSE_STEPS;
    if (f->o.sampler == 0) f->o.sampler = WEFT_SAMPLER_DPMPP_2M;
    f->name = wf_strdup(&f->alloc, f->o.name != NULL ? f->o.name : "fused");
    if (f->name == NULL) return wf_nomem(err, 8, "a name");
    f->layers = wf_model_layers(f->model, &f->layer_count);
    WF_TRY(wf_model_need_tokenizer(f->model, err));
    WF_TRY(find_sequence(f, err));
    WF_TRY(wf_fuse_sampler(f, &s, err)); /* a wrong one is found now */
    weft_sampler_free(s);
    return WEFT_OK;
}

weft_status weft_fuse_create(weft_model *model, const weft_fuse_options *options, weft_fuse **out,
                             weft_error *err)
{
    weft_fuse_options o;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_fuse_create: out is NULL");
    *out = NULL;
    if (model == NULL) return wf_fail(err, WEFT_E_ARG, "weft_fuse_create: model is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_fuse_options, WEFT_FUSE_SKIP_PHOTO, err));
    WF_TRY(wf_check_allocator(o.allocator, err));
    WF_TRY(check_options(&o, err));
    weft_allocator alloc = wf_allocator(o.allocator);
    weft_fuse     *f = wf_zalloc(&alloc, 1, sizeof *f);
    if (f == NULL) return wf_nomem(err, sizeof *f, "a fusion");
    f->alloc = alloc;
    f->o = o;
    f->model = model;
    wf_model_ref(model);
    weft_status st = begin(f, err);
    if (st != WEFT_OK) weft_fuse_free(f);
    else *out = f;
    return st;
}

static void drop_targets(weft_fuse *f)
{
    for (size_t i = 0; i < f->targets; i++) {
        wf_fuse_rows_free(&f->target[i].rows, &f->alloc);
        wf_fuse_route_free(&f->target[i].route, &f->alloc);
        wf_free(&f->alloc, f->target[i].B);
        wf_free(&f->alloc, f->target[i].delta);
    }
    wf_free(&f->alloc, f->target);
    f->target = NULL;
    f->targets = 0;
    f->whole = false;
}

void weft_fuse_free(weft_fuse *f)
{
    if (f == NULL) return;
    weft_allocator alloc = f->alloc;
    drop_targets(f);
    for (size_t i = 0; i < f->concepts; i++) wf_fuse_concept_free(&f->concept[i], &alloc);
    for (size_t i = 0; i < f->captions; i++) wf_free(&alloc, f->caption[i]);
    wf_free(&alloc, f->concept);
    wf_free(&alloc, f->caption);
    wf_free(&alloc, f->name);
    weft_model_free(f->model);
    wf_free(&alloc, f);
}

/* ---- what is fused --------------------------------------------------------------------------- */

/* Room for more entries of `size` bytes in an array of `count`. */
static weft_status grow(const weft_fuse *f, void *array, size_t count, size_t more, size_t size,
                        weft_error *err)
{
    void **at = array, *larger = wf_zalloc(&f->alloc, count + more, size);

    if (larger == NULL) return wf_nomem(err, (count + more) * size, "a fusion");
    if (count > 0) memcpy(larger, *at, count * size);
    wf_free(&f->alloc, *at);
    *at = larger;
    return WEFT_OK;
}

weft_status weft_fuse_add_concept(weft_fuse *f, const weft_fuse_concept *given, weft_error *err)
{
    weft_fuse_concept c;
    wf_fuse_concept   made = { .plan = NULL };

    if (f == NULL || given == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_add_concept: %s is NULL",
                       f == NULL ? "fuse" : "the concept");
    WF_TRY(WF_OPTIONS(&c, given, weft_fuse_concept, 0, err));
    if (c.plan == NULL) return wf_fail(err, WEFT_E_ARG, "concept %zu: plan is NULL", f->concepts);
    if (!wf_plan_sealed(c.plan))
        return wf_fail(err, WEFT_E_STATE, "concept %zu: its plan is not sealed", f->concepts);
    if (wf_plan_model(c.plan) != f->model)
        return wf_fail(err, WEFT_E_ARG, "concept %zu: its plan is for another model", f->concepts);
    if (c.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_fuse_concept: reserved0 is %d, must be zero",
                       (int)c.reserved0);
    bool draws = f->o.kind != WEFT_FUSE_CONSTRAINED;
    if (c.images < 0 || c.images > (draws ? IMAGES_MAX : 0))
        return wf_fail(err, WEFT_E_ARG, "concept %zu: %d images, wanted %s", f->concepts,
                       (int)c.images, draws ? "1 or more" : "0: CONSTRAINED draws none");
    if (f->concepts == CONCEPTS_MAX)
        return wf_fail(err, WEFT_E_ARG, "at most %d concepts are fused at once", CONCEPTS_MAX);
    WF_TRY(grow(f, &f->concept, f->concepts, 1, sizeof *f->concept, err));
    weft_status st = wf_fuse_concept_make(f, &made, &c, err);
    if (st != WEFT_OK) {
        wf_fuse_concept_free(&made, &f->alloc);
        return st;
    }
    f->concept[f->concepts++] = made;
    drop_targets(f);
    return WEFT_OK;
}

weft_status weft_fuse_add_captions(weft_fuse *f, const char *const *captions, size_t count,
                                   weft_error *err)
{
    if (f == NULL || (captions == NULL && count > 0))
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_add_captions: %s is NULL",
                       f == NULL ? "fuse" : "captions");
    if (f->o.kind != WEFT_FUSE_CONSTRAINED)
        return wf_fail(err, WEFT_E_ARG, "captions are of CONSTRAINED, and this fusion is %s",
                       f->o.kind == WEFT_FUSE_ROUTED ? "ROUTED" : "GRADIENT");
    if (count > CAPTIONS_MAX - f->captions)
        return wf_fail(err, WEFT_E_ARG, "at most %d captions are taken", CAPTIONS_MAX);
    for (size_t i = 0; i < count; i++)
        if (captions[i] == NULL) return wf_fail(err, WEFT_E_ARG, "caption %zu is NULL", i);
    WF_TRY(grow(f, &f->caption, f->captions, count, sizeof *f->caption, err));
    size_t had = f->captions;
    for (size_t i = 0; i < count; i++) {
        char *copy = wf_strdup(&f->alloc, captions[i]);
        if (copy == NULL) {
            while (f->captions > had) wf_free(&f->alloc, f->caption[--f->captions]);
            return wf_nomem(err, strlen(captions[i]), "a caption");
        }
        f->caption[f->captions++] = copy;
    }
    drop_targets(f);
    return WEFT_OK;
}

/* ---- targets --------------------------------------------------------------------------------- */

/* The part of a name before its last word, if that is one of these. */
static size_t stem_before(const char *name, const char *const words[3])
{
    const char *dot = strrchr(name, '.');

    for (int i = 0; i < 3 && dot != NULL; i++)
        if (strcmp(dot + 1, words[i]) == 0) return (size_t)(dot - name);
    return 0;
}

/* Do both layers of a stage read the same rows: q, k and v of one self-attention? (Of a
 * cross-attention the query alone is fused on images.) */
static bool reads_the_same(const wf_layer *a, const wf_layer *b)
{
    static const char *const clip[] = { "q_proj", "k_proj", "v_proj" };
    static const char *const unet[] = { "to_q", "to_k", "to_v" };
    const char *const *words = wf_is_text(a->component) ? clip : unet;
    size_t n = stem_before(a->name, words);

    return n > 0 && n == stem_before(b->name, words) && strncmp(a->name, b->name, n) == 0;
}

/* The target whose rows target i shares. */
static size_t leader_of(const wf_fuse_target *target, size_t i, bool layered)
{
    const wf_fuse_target *t = &target[i];

    for (size_t k = 0; k < i; k++) {
        const wf_fuse_target *other = &target[k];
        if (other->of != k || other->stage != t->stage) continue;
        if (t->stage == WF_FUSE_KEYS ? !layered || other->cross == t->cross
                                     : reads_the_same(other->layer, t->layer))
            return k;
    }
    return i;
}

/* All layers that some concept changes, *out NULL if there is none. */
static weft_status list_targets(const weft_fuse *f, wf_fuse_target **out, size_t *count,
                                weft_error *err)
{
    wf_fuse_target *target = wf_zalloc(&f->alloc, f->layer_count, sizeof *target);
    int32_t         cross = -1;
    bool            layered = false;

    *count = 0;
    if (target == NULL) return wf_nomem(err, f->layer_count * sizeof *target, "layers to fuse");
    for (size_t c = 0; c < f->concepts; c++) layered = layered || f->concept[c].layered;
    for (size_t i = 0; i < f->layer_count; i++) {
        const wf_layer *l = &f->layers[i];
        size_t          n = strlen(l->name);
        int32_t         acts = 0;
        if (wf_fuse_stage_of(l) == WF_FUSE_KEYS && l->name[n - 1] == 'k') cross++;
        for (size_t c = 0; c < f->concepts; c++) acts += wf_fuse_acts(&f->concept[c], l);
        if (acts == 0) continue;
        wf_fuse_target *t = &target[*count];
        t->layer = l;
        t->stage = f->o.kind == WEFT_FUSE_ROUTED ? WF_FUSE_WHOLE : wf_fuse_stage_of(l);
        t->cross = cross;
        t->rows.K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
        t->rows.distinct = f->o.kind == WEFT_FUSE_CONSTRAINED;
        t->row = (weft_fuse_row){ .concepts = acts, .layer = l->name, .layer_id = l->id };
        t->of = t->stage == WF_FUSE_WHOLE ? *count : leader_of(target, *count, layered);
        (*count)++;
    }
    *out = target;
    return WEFT_OK;
}

static weft_status make_targets(weft_fuse *f, weft_error *err)
{
    drop_targets(f);
    WF_TRY(list_targets(f, &f->target, &f->targets, err));
    if (f->targets == 0) return wf_fail(err, WEFT_E_MISMATCH, "no concept changes any layer");
    for (size_t i = 0; i < f->targets; i++) {
        wf_fuse_target *t = &f->target[i];
        if (t->of != i || t->stage >= WF_FUSE_IMAGES) continue;
        t->rows.first = wf_zalloc(&f->alloc, f->concepts + 1, sizeof *t->rows.first);
        if (t->rows.first == NULL) return wf_nomem(err, (f->concepts + 1) * sizeof(size_t), "rows");
    }
    return WEFT_OK;
}

/* The end of the group of leaders that begins at target i and fits the budget; *bytes what it
 * takes. */
static weft_status next_group(const weft_fuse *f, size_t i, size_t *end, uint64_t *bytes,
                              weft_error *err)
{
    *bytes = 0;
    for (*end = i; *end < f->targets; (*end)++) {
        if (f->target[*end].of != *end || f->target[*end].stage != WF_FUSE_IMAGES) continue;
        uint64_t more = wf_fuse_sums_bytes(f, *end);
        if (f->o.budget > 0 && more > f->o.budget)
            return wf_fail(err, WEFT_E_ARG, "%s: its sums take %llu bytes, and the budget is %llu",
                           f->target[*end].layer->name, (unsigned long long)more,
                           (unsigned long long)f->o.budget);
        if (f->o.budget > 0 && *bytes > f->o.budget - more) return WEFT_OK;
        *bytes += more;
    }
    return WEFT_OK;
}

/* ---- what it takes --------------------------------------------------------------------------- */

static bool any_of(const weft_fuse *f, wf_fuse_stage stage)
{
    for (size_t i = 0; i < f->targets; i++)
        if (f->target[i].stage == stage) return true;
    return false;
}

/* Doubles to keep the rows of a stage and to solve with them, the most for one input. */
static weft_status kept_bytes(const weft_fuse *f, wf_fuse_stage stage, uint64_t *bytes,
                              weft_error *err)
{
    uint64_t rows = 0, held = 0, most = 0;

    for (size_t c = 0; c < f->concepts; c++)
        for (size_t i = 0; i < f->concept[c].count; i++) {
            int32_t *ids;
            size_t   n;
            WF_TRY(wf_fuse_ids(f, f->concept[c].plan, f->concept[c].prompts[i], 0, false, &ids, &n,
                               err));
            wf_free(&f->alloc, ids);
            rows += (n + 2) * (uint64_t)(stage == WF_FUSE_TEXT && f->concept[c].layered
                                             ? WF_MAX(f->text.cross_layers, 1) : 1);
        }
    for (size_t i = 0; i < f->targets; i++) {
        uint64_t K = f->target[i].rows.K;
        if (f->target[i].stage != stage) continue;
        if (f->target[i].of == i) held += 2 * rows * K; /* arrays grow by doubling */
        most = WF_MAX(most,
                      3 * rows * K + rows * rows + (uint64_t)f->target[i].layer->out * (rows + K) +
                                (stage == WF_FUSE_KEYS || rows > K ? 2 * K * K : 0));
    }
    *bytes = (held + most) * sizeof(double);
    return WEFT_OK;
}

/* Is there a layer where concepts are to be told apart? */
static bool any_shared(const weft_fuse *f)
{
    for (size_t i = 0; i < f->targets; i++)
        if (f->target[i].row.concepts > 1) return true;
    return false;
}

/* Images of one pass, of all concepts. */
static int64_t images_of(const weft_fuse *f)
{
    int64_t images = 0;

    for (size_t c = 0; c < f->concepts; c++) images += f->concept[c].images;
    return images;
}

/* ROUTED: factors, those of the adapter, and sums. */
static weft_status describe_routed(const weft_fuse *f, weft_fuse_info *info, weft_error *err)
{
    weft_sampler *s;

    for (size_t i = 0; i < f->targets; i++)
        info->bytes += wf_fuse_route_bytes(f, &f->target[i]);
    if (!any_shared(f)) return WEFT_OK;
    WF_TRY(wf_fuse_sampler(f, &s, err));
    info->passes = 1;
    info->prompts = images_of(f);
    info->calls = info->prompts * wf_fuse_calls(f, s);
    weft_sampler_free(s);
    return WEFT_OK;
}

static weft_status describe(const weft_fuse *f, weft_fuse_info *info, weft_error *err)
{
    uint64_t bytes, most = 0;

    info->layers = (int32_t)f->targets;
    info->concepts = (int32_t)f->concepts;
    if (f->o.kind == WEFT_FUSE_ROUTED) return describe_routed(f, info, err);
    for (size_t i = 0; i < f->targets; i++)
        info->bytes += (uint64_t)f->target[i].layer->out * f->target[i].rows.K * sizeof(float);
    for (wf_fuse_stage s = WF_FUSE_TEXT; s <= WF_FUSE_KEYS; s++) {
        if (!any_of(f, s)) continue;
        WF_TRY(kept_bytes(f, s, &bytes, err));
        most = WF_MAX(most, bytes);
        for (size_t c = 0; c < f->concepts; c++) info->prompts += (int64_t)f->concept[c].count;
    }
    if (any_of(f, WF_FUSE_IMAGES)) {
        weft_sampler *s;
        for (size_t i = 0, end; i < f->targets; i = end) {
            WF_TRY(next_group(f, i, &end, &bytes, err));
            most = WF_MAX(most, bytes);
            info->passes += bytes > 0;
        }
        WF_TRY(wf_fuse_sampler(f, &s, err));
        int64_t images = images_of(f) * info->passes;
        info->calls = images * weft_sampler_calls(s);
        info->prompts += images;
        weft_sampler_free(s);
    }
    info->prompts += (int64_t)f->captions;
    info->bytes = info->bytes * 2 + most; /* an adapter has a copy of what was fused */
    return WEFT_OK;
}

weft_status weft_fuse_info_get(const weft_fuse *f, weft_fuse_info *info, weft_error *err)
{
    weft_fuse_info i = WEFT_FUSE_INFO_INIT;

    if (f == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_info_get: %s is NULL",
                       f == NULL ? "fuse" : "info");
    weft_fuse   look = *f;
    weft_status st = list_targets(f, &look.target, &look.targets, err);
    if (st != WEFT_OK) return st;
    st = describe(&look, &i, err);
    wf_free(&f->alloc, look.target);
    return st == WEFT_OK ? WF_RESULT(info, &i, weft_fuse_info, err) : st;
}

/* ---- the run --------------------------------------------------------------------------------- */

weft_status wf_fuse_tick(weft_fuse *f, int64_t n, weft_error *err)
{
    f->done = WF_MIN(f->done + n, f->total);
    if (f->o.progress == NULL ||
        f->o.progress(f->o.progress_user, f->doing, f->done, f->total) == 0)
        return WEFT_OK;
    return wf_fail(err, WEFT_E_CANCELLED, "fusing was cancelled");
}

/* ROUTED: a layer's factors. */
static weft_status emit_pair(const weft_fuse *f, weft_tensors *t, const wf_fuse_target *of,
                             weft_error *err)
{
    const wf_fuse_route *r = &of->route;
    size_t          floats = r->R * wf_fuse_columns(of->layer);
    float          *stored = wf_alloc(&f->alloc, floats * sizeof *stored);
    wf_merged_layer became = { .down = stored, .up = r->B, .rank = (int32_t)r->R,
                               .alpha = (double)r->R };

    if (stored == NULL) return wf_nomem(err, floats * sizeof *stored, of->layer->name);
    wf_rows_as_stored(of->layer, r->A, r->R, stored);
    weft_status st = wf_merge_emit(t, f->model, of->layer, &became, err);
    wf_free(&f->alloc, stored);
    return st;
}

/* A fused layer in the order of files; zero differences are left out. */
static weft_status emit(const weft_fuse *f, weft_tensors *t, const wf_fuse_target *of,
                        weft_error *err)
{
    const wf_layer *l = of->layer;
    size_t in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;
    wf_merged_layer became = { .full = of->delta };
    float *stored = NULL;

    if (of->row.norm == 0) return WEFT_OK;
    if (of->route.R > 0) return emit_pair(f, t, of, err);
    if (of->delta == NULL) return WEFT_OK;
    if (kk > 1) {
        stored = became.full = wf_alloc(&f->alloc, (size_t)l->out * K * sizeof *stored);
        if (stored == NULL) return wf_nomem(err, (size_t)l->out * K * sizeof *stored, l->name);
        for (size_t o = 0; o < (size_t)l->out; o++)
            for (size_t k = 0; k < K; k++)
                stored[o * K + k % in * kk + k / in] = of->delta[o * K + k];
    }
    weft_status st = wf_merge_emit(t, f->model, l, &became, err);
    wf_free(&f->alloc, stored);
    return st;
}

/* "gradient fusion of <new1> cat, <new2> dog", for the file. */
static weft_status note_origin(const weft_fuse *f, weft_tensors *t, weft_error *err)
{
    wf_text text;

    wf_text_init(&text, &f->alloc);
    wf_text_add(&text, "%s fusion of ",
                f->o.kind == WEFT_FUSE_GRADIENT ? "gradient"
                : f->o.kind == WEFT_FUSE_ROUTED ? "routed" : "constrained");
    for (size_t i = 0; i < f->concepts; i++)
        wf_text_add(&text, "%s%s", i > 0 ? ", " : "", f->concept[i].name);
    weft_status st = text.failed ? wf_nomem(err, text.len, "metadata")
                                 : wf_tensors_add_meta(t, "weft.fuse", text.s, err);
    wf_text_free(&text);
    return st;
}

/* What is fused so far as an adapter; NULL if that is nothing. */
static weft_status make_adapter(const weft_fuse *f, weft_adapter **out, weft_error *err)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors        *t = NULL;
    weft_status          st = wf_tensors_new(&f->alloc, f->name, &t, err);

    *out = NULL;
    for (size_t i = 0; i < f->targets && st == WEFT_OK; i++) st = emit(f, t, &f->target[i], err);
    if (st == WEFT_OK && wf_tensors_count(t) > 0) {
        o.name = f->name;
        o.allocator = &f->alloc;
        if ((st = note_origin(f, t, err)) == WEFT_OK) st = wf_tensors_seal(t, err);
        if (st == WEFT_OK) st = weft_adapter_create(t, &o, out, err);
    }
    weft_tensors_free(t);
    return st;
}

static weft_status solve_stage(weft_fuse *f, wf_fuse_stage stage, const double *H, weft_error *err)
{
    for (size_t i = 0; i < f->targets; i++)
        if (f->target[i].stage == stage && f->target[i].of == i)
            WF_TRY(wf_fuse_solve_kept(f, i, H, err));
    return WEFT_OK;
}

static weft_status fuse_text(weft_fuse *f, weft_error *err)
{
    if (!any_of(f, WF_FUSE_TEXT)) return WEFT_OK;
    for (size_t i = 0; i < f->targets; i++) f->target[i].open = f->target[i].stage == WF_FUSE_TEXT;
    f->doing = "fusing text encoders";
    WF_TRY(wf_fuse_record_text(f, err));
    return solve_stage(f, WF_FUSE_TEXT, NULL, err);
}

static weft_status fuse_keys(weft_fuse *f, weft_error *err)
{
    size_t        K = (size_t)WF_MAX(f->text.width, 0);
    weft_adapter *fused = NULL;
    double       *H = NULL;

    if (!any_of(f, WF_FUSE_KEYS)) return WEFT_OK;
    f->doing = "fusing keys and values";
    weft_status st = make_adapter(f, &fused, err);
    if (st == WEFT_OK && f->o.kind == WEFT_FUSE_CONSTRAINED) {
        H = wf_zalloc(&f->alloc, K * K, sizeof *H);
        st = H != NULL ? wf_fuse_record_captions(f, H, K, err)
                       : wf_nomem(err, K * K * sizeof *H, "sums over captions");
    }
    if (st == WEFT_OK) st = wf_fuse_record_keys(f, fused, err);
    if (st == WEFT_OK) st = solve_stage(f, WF_FUSE_KEYS, H, err);
    wf_free(&f->alloc, H);
    weft_adapter_free(fused);
    return st;
}

static weft_status fuse_group(weft_fuse *f, size_t first, size_t end, weft_adapter *fused,
                              weft_error *err)
{
    for (size_t i = first; i < end; i++)
        if (f->target[i].stage == WF_FUSE_IMAGES && f->target[i].of == i)
            WF_TRY(wf_fuse_sums_take(f, i, err));
    WF_TRY(wf_fuse_record_images(f, fused, err));
    for (size_t i = first; i < end; i++)
        if (f->target[i].stage == WF_FUSE_IMAGES && f->target[i].of == i)
            WF_TRY(wf_fuse_solve_summed(f, i, err));
    return WEFT_OK;
}

static weft_status fuse_images(weft_fuse *f, weft_error *err)
{
    weft_adapter *fused = NULL;
    uint64_t      bytes;

    if (!any_of(f, WF_FUSE_IMAGES)) return WEFT_OK;
    for (size_t i = 0; i < f->targets; i++) f->target[i].open = false;
    f->doing = "fusing layers over images";
    weft_status st = make_adapter(f, &fused, err);
    for (size_t i = 0, end; i < f->targets && st == WEFT_OK; i = end) {
        st = next_group(f, i, &end, &bytes, err);
        if (st == WEFT_OK && bytes > 0) st = fuse_group(f, i, end, fused, err);
    }
    weft_adapter_free(fused);
    return st;
}

static weft_status fuse_routed(weft_fuse *f, weft_error *err)
{
    f->doing = "routing";
    for (size_t i = 0; i < f->targets; i++) WF_TRY(wf_fuse_route_take(f, i, err));
    if (any_shared(f)) WF_TRY(wf_fuse_record_images(f, NULL, err));
    for (size_t i = 0; i < f->targets; i++) {
        WF_TRY(wf_fuse_route_solve(f, i, err));
        WF_TRY(wf_fuse_tick(f, 1, err));
    }
    return WEFT_OK;
}

static weft_status fuse_all(weft_fuse *f, weft_adapter **out, weft_error *err)
{
    weft_fuse_info info = WEFT_FUSE_INFO_INIT;
    wf_number_text size;

    WF_TRY(make_targets(f, err));
    WF_TRY(describe(f, &info, err));
    f->done = 0;
    f->total = info.prompts - info.passes * images_of(f) + info.calls + info.layers;
    wf_log(f->o.log, f->o.log_user, WEFT_LOG_INFO,
           "fusing %zu concepts over %zu layers: %s MB, %d passes over images", f->concepts,
           f->targets,
           wf_number(&size, (double)(info.bytes / 100000) / 10), (int)info.passes);
    if (f->o.kind == WEFT_FUSE_ROUTED) WF_TRY(fuse_routed(f, err));
    WF_TRY(fuse_text(f, err));
    WF_TRY(fuse_keys(f, err));
    WF_TRY(fuse_images(f, err));
    WF_TRY(make_adapter(f, out, err));
    if (*out == NULL)
        return wf_fail(err, WEFT_E_MISMATCH, "what the concepts add is zero in every layer");
    f->whole = true;
    for (size_t i = 0; i < f->targets; i++) { /* the adapter has its own */
        wf_free(&f->alloc, f->target[i].delta);
        f->target[i].delta = NULL;
        wf_fuse_route_free(&f->target[i].route, &f->alloc);
    }
    return WEFT_OK;
}

weft_status weft_fuse_run(weft_fuse *f, weft_adapter **out, weft_error *err)
{
    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_fuse_run: out is NULL");
    *out = NULL;
    if (f == NULL) return wf_fail(err, WEFT_E_ARG, "weft_fuse_run: fuse is NULL");
    if (f->concepts == 0) return wf_fail(err, WEFT_E_ARG, "there is no concept to fuse");
    if (f->o.kind == WEFT_FUSE_CONSTRAINED && f->captions == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "there are no captions, on which constrained fusion holds the model still");
    WF_TRY(wf_blas_hold(1, err));
    wf_blas_begin();
    weft_status st = fuse_all(f, out, err);
    wf_blas_end();
    wf_blas_let_go(1);
    if (st != WEFT_OK) drop_targets(f);
    return st;
}

/* ---- the report ------------------------------------------------------------------------------ */

size_t weft_fuse_count(const weft_fuse *f)
{
    return f != NULL && f->whole ? f->targets : 0;
}

weft_status weft_fuse_get(const weft_fuse *f, size_t index, weft_fuse_row *row, weft_error *err)
{
    if (f == NULL || row == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_fuse_get: %s is NULL", f == NULL ? "fuse" : "row");
    if (index >= weft_fuse_count(f))
        return wf_fail(err, WEFT_E_ARG, "row %zu of %zu", index, weft_fuse_count(f));
    return WF_RESULT(row, &f->target[index].row, weft_fuse_row, err);
}
