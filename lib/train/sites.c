/* sites.c - which layers are trained, where their numbers lie, and what the network reads of them.
 *
 * Every tensor begins at a multiple of 64 bytes of the one vector, so that products read it as they
 * would any buffer; what fills the gaps stays zero. A form that is read in place costs nothing in a
 * step. The others make what is read once in each step, and take its gradient back once, a site at
 * a time on each thread. */
#include "train/trainer_internal.h"

enum { ALIGN = 16 }; /* floats */

static size_t aligned(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static size_t taps(const wf_layer *l) { return (size_t)l->kernel * (size_t)l->kernel; }

/* ---- choice ---------------------------------------------------------------------------------- */

/* The form of a layer that is trained, or NULL. */
static const wf_form *choose(const weft_trainer *t, const wf_layer *l)
{
    const wf_recipe *r = t->recipe;
    const wf_form *form = r->form != NULL ? r->form(t, l) : NULL;
    bool text = wf_is_text(l->component);

    if (form == NULL || (!text && l->component != WEFT_COMPONENT_DENOISER)) return NULL;
    if (t->o.modules != NULL) return wf_glob_any(t->o.modules, l->name) ? form : NULL;
    if (text && (t->o.flags & WEFT_TRAIN_TEXT) == 0) return NULL;
    return r->picks == NULL || r->picks(t, l) ? form : NULL;
}

/* A site as its form has it; false if the form has no way for the layer. */
static bool shape_site(const weft_trainer *t, const wf_layer *l, const wf_form *form, wf_site *s)
{
    *s = (wf_site){ .layer = l, .form = form, .out = (size_t)l->out,
                    .K = taps(l) * (size_t)l->in, .base_bias = l->bias };
    if (t->recipe->given != NULL) s->given = t->recipe->given(t, l);
    return form->shape(s, &t->choice);
}

/* Layers of the denoiser, then of the text encoders; with `site` NULL only counted. */
static size_t list_sites(const weft_trainer *t, wf_site *site)
{
    size_t layers, count = 0;
    const wf_layer *l = wf_model_layers(t->model, &layers);

    for (int text = 0; text < 2; text++)
        for (size_t i = 0; i < layers; i++) {
            bool ours = wf_is_text(l[i].component) == (text != 0);
            const wf_form *form = ours ? choose(t, &l[i]) : NULL;
            wf_site s;
            if (form == NULL || !shape_site(t, &l[i], form, &s)) continue;
            if (site != NULL) site[count] = s;
            count++;
        }
    return count;
}

/* ---- places ---------------------------------------------------------------------------------- */

static bool grow(size_t *total, size_t rows, size_t columns)
{
    size_t n;
    return wf_mul(rows, columns, &n) && n < SIZE_MAX / 64 && wf_add(*total, aligned(n), total);
}

static bool count_floats(weft_trainer *t)
{
    t->floats = t->made_floats = t->base_floats = 0;
    t->parameters = 0;
    for (size_t i = 0; i < t->sites; i++) {
        const wf_site *s = &t->site[i];
        wf_form_reads reads = s->form->reads;
        if (wf_is_text(s->layer->component) && t->begin[WF_GROUP_TEXT] == SIZE_MAX)
            t->begin[WF_GROUP_TEXT] = t->floats;
        for (int32_t k = 0; k < s->tensors; k++) {
            if (!grow(&t->floats, s->tensor[k].rows, s->tensor[k].columns)) return false;
            t->parameters += (int64_t)(s->tensor[k].rows * s->tensor[k].columns);
        }
        if (s->form->base && !grow(&t->base_floats, s->out, s->K)) return false;
        if (s->form->own != NULL && !grow(&t->made_floats, s->form->own(s), 1)) return false;
        if (s->form->in_place) continue;
        if ((reads & WF_READS_PAIR) != 0 &&
            (!grow(&t->made_floats, (size_t)s->rank, s->K) ||
             !grow(&t->made_floats, (size_t)s->rank, s->out)))
            return false;
        if ((reads & WF_READS_WEIGHT) != 0 && !grow(&t->made_floats, s->out, s->K)) return false;
        if ((reads & WF_READS_BIAS) != 0 && !grow(&t->made_floats, s->out, 1)) return false;
    }
    if (t->begin[WF_GROUP_TEXT] == SIZE_MAX) t->begin[WF_GROUP_TEXT] = t->floats;
    size_t words = wf_words_floats(t->networks, &t->words);
    t->begin[WF_GROUP_WORDS] = t->floats;
    t->parameters += (int64_t)words;
    if (!grow(&t->floats, words, 1)) return false;
    t->begin[WF_GROUPS] = t->begin[WF_GROUP_WORDS] + words;
    return true;
}

uint64_t wf_train_state_bytes(const weft_trainer *t)
{
    uint64_t vectors = 2 + (t->first != NULL) + (t->second != NULL) + (t->mean != NULL);
    return (vectors * t->floats + 2 * (uint64_t)t->made_floats + t->base_floats) * sizeof(float);
}

/* Zeroed floats; NULL if `wanted` is false, or without memory: then *ok is false. */
static float *take(const weft_trainer *t, size_t floats, bool wanted, bool *ok)
{
    float *v = wanted && *ok ? wf_zalloc(&t->alloc, WF_MAX(floats, (size_t)1), sizeof *v) : NULL;
    if (wanted && v == NULL) *ok = false;
    return v;
}

static weft_status take_vectors(weft_trainer *t, weft_error *err)
{
    bool ok = true;
    size_t n = t->floats;

    t->values = take(t, n, true, &ok);
    t->grads = take(t, n, true, &ok);
    t->first = take(t, n, true, &ok);
    t->second = take(t, n, t->o.optimiser == WEFT_OPTIMISER_ADAMW, &ok);
    t->mean = take(t, n, t->o.ema > 0, &ok);
    t->made = take(t, t->made_floats, true, &ok);
    t->g_made = take(t, t->made_floats, true, &ok);
    t->base = take(t, t->base_floats, true, &ok);
    if (ok) return WEFT_OK;
    size_t all = 5 * n + 2 * t->made_floats + t->base_floats;
    return wf_nomem(err, all * sizeof(float), "what is trained, its gradients and moments");
}

/* The next `rows` x `columns` floats of a vector. */
static float *next(float *vector, size_t *at, size_t rows, size_t columns)
{
    float *v = vector + *at;
    *at += aligned(rows * columns);
    return v;
}

void wf_train_point(weft_trainer *t, float *values)
{
    size_t at = 0;

    for (size_t i = 0; i < t->sites; i++) {
        wf_site *s = &t->site[i];
        for (int32_t k = 0; k < s->tensors; k++) {
            s->grad[k] = t->grads + at;
            s->value[k] = next(values, &at, s->tensor[k].rows, s->tensor[k].columns);
        }
        if (!s->form->in_place) continue;
        if ((s->form->reads & WF_READS_PAIR) != 0) {
            s->down = s->value[0], s->g_down = s->grad[0];
            s->up = s->value[1], s->g_up = s->grad[1];
        } else {
            int32_t k = 0;
            if ((s->form->reads & WF_READS_WEIGHT) != 0)
                s->weight = s->value[k], s->g_weight = s->grad[k++];
            if ((s->form->reads & WF_READS_BIAS) != 0 && k < s->tensors)
                s->bias = s->value[k], s->g_bias = s->grad[k];
        }
    }
}

/* A buffer that the form makes, and its gradient beside it. */
static float *made(weft_trainer *t, size_t *at, size_t rows, size_t columns, float **grad)
{
    *grad = t->g_made + *at;
    return next(t->made, at, rows, columns);
}

static void place(weft_trainer *t)
{
    size_t at = 0, base = 0;

    wf_train_point(t, t->values);
    for (size_t i = 0; i < t->sites; i++) {
        wf_site *s = &t->site[i];
        wf_form_reads reads = s->form->reads;
        if (s->form->base) s->base = next(t->base, &base, s->out, s->K);
        if (s->form->own != NULL) s->own = next(t->made, &at, s->form->own(s), 1);
        if (s->form->in_place) continue;
        if ((reads & WF_READS_PAIR) != 0) {
            s->down = made(t, &at, (size_t)s->rank, s->K, &s->g_down);
            s->up = made(t, &at, (size_t)s->rank, s->out, &s->g_up);
        }
        if ((reads & WF_READS_WEIGHT) != 0) s->weight = made(t, &at, s->out, s->K, &s->g_weight);
        if ((reads & WF_READS_BIAS) != 0) s->bias = made(t, &at, s->out, 1, &s->g_bias);
    }
}

/* ---- the network's view ---------------------------------------------------------------------- */

/* A stack of one pair. */
typedef struct single {
    wf_stack stack;
    int32_t  rank;
    float    scale;
} single;

static weft_status hang(weft_trainer *t, weft_error *err)
{
    single *one = wf_bag_take(&t->bag, t->sites, sizeof *one);
    t->deltas = wf_bag_take(&t->bag, t->layers, sizeof *t->deltas);
    t->layer_grads = wf_bag_take(&t->bag, t->layers, sizeof *t->layer_grads);
    t->turned = wf_bag_take(&t->bag, t->layers, sizeof *t->turned);
    if (one == NULL || t->turned == NULL || t->deltas == NULL || t->layer_grads == NULL)
        return wf_nomem(err, t->layers * sizeof *t->deltas, "the trained layers");
    t->cell.number = 1;
    for (size_t i = 0; i < t->sites; i++) {
        wf_site *s = &t->site[i];
        wf_delta *d = &t->deltas[s->layer->id];
        t->layer_grads[s->layer->id] = (wf_layer_grads){ s->g_down, s->g_up, s->g_weight,
                                                         s->g_bias };
        if ((s->form->reads & WF_READS_PAIR) != 0) {
            one[i].rank = s->rank;
            one[i].scale = s->scale;
            one[i].stack = (wf_stack){ .parts = 1, .rank = s->rank, .part_rank = &one[i].rank,
                                       .part_scale = &one[i].scale, .down = s->down,
                                       .up = s->up };
            d->stack = &one[i].stack;
        } else {
            d->merged = s->weight;
            d->merged_bias = s->bias;
        }
    }
    return WEFT_OK;
}

/* ---- beginning ------------------------------------------------------------------------------- */

static void begin_task(void *user, size_t task, int32_t worker)
{
    weft_trainer *t = user;
    wf_site *s = &t->site[task];
    uint64_t seed = wf_hash(t->o.seed, s->layer->name, strlen(s->layer->name));
    wf_mersenne g;

    (void)worker;
    /* what forms read of the frozen weight, widened and ordered */
    if (s->base != NULL) wf_layer_load((float *)(uintptr_t)s->base, t->networks->kernels, s->layer);
    wf_mersenne_seed(&g, seed);
    s->form->begin(s, &t->choice, &g);
}

/* A pattern that names nothing is usually a typo. */
static weft_status check_modules(const weft_trainer *t, weft_error *err)
{
    weft_status st = WEFT_OK;
    char       *one = wf_strdup(&t->alloc, t->o.modules);

    if (one == NULL) return wf_nomem(err, strlen(t->o.modules) + 1, "a pattern");
    for (const char *p = t->o.modules; st == WEFT_OK;) {
        size_t n = strcspn(p, ","), hits = 0;
        memcpy(one, p, n);
        one[n] = '\0';
        for (size_t i = 0; i < t->sites && hits == 0; i++)
            hits += wf_glob_any(one, t->site[i].layer->name);
        if (hits == 0)
            st = wf_fail(err, WEFT_E_ARG,
                         "train: modules: no layer that %s can train is named by \"%.200s\"",
                         t->recipe->name, one);
        if (p[n] == '\0') break;
        p += n + 1;
    }
    wf_free(&t->alloc, one);
    return st;
}

weft_status wf_train_make_sites(weft_trainer *t, weft_error *err)
{
    const char *modules = t->o.modules;

    wf_model_layers(t->model, &t->layers);
    t->sites = list_sites(t, NULL);
    if (modules != NULL && t->sites == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "train: modules: no layer that %s can train is named by \"%.200s\"",
                       t->recipe->name, modules);
    if (t->sites == 0 && t->words.rows == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s finds nothing to train in this %s model",
                       t->recipe->name, wf_base_name(wf_facts(t->networks)->base));
    t->site = wf_bag_take(&t->bag, t->sites, sizeof *t->site);
    if (t->site == NULL) return wf_nomem(err, t->sites * sizeof *t->site, "the trained layers");
    list_sites(t, t->site);
    if (modules != NULL) WF_TRY(check_modules(t, err));
    t->begin[WF_GROUP_TEXT] = SIZE_MAX;
    if (!count_floats(t)) return wf_nomem(err, SIZE_MAX, "what is trained");
    WF_TRY(take_vectors(t, err));
    place(t);
    WF_TRY(hang(t, err));
    WF_TRY(wf_train_cut_pieces(t, err));
    wf_blas_begin();
    wf_pool_run(t->pool, t->sites, begin_task, t);
    wf_blas_end();
    size_t words = wf_words_floats(t->networks, &t->words);
    if (words > 0)
        memcpy(t->values + t->begin[WF_GROUP_WORDS], t->words.initial, words * sizeof(float));
    if (t->mean != NULL) memcpy(t->mean, t->values, t->floats * sizeof(float));
    return WEFT_OK;
}

static void make_task(void *user, size_t task, int32_t worker)
{
    weft_trainer *t = user;
    const wf_site *s = &t->site[task];
    (void)worker;
    if (s->form->make != NULL) s->form->make(s, &t->choice);
}

static void pull_task(void *user, size_t task, int32_t worker)
{
    weft_trainer *t = user;
    const wf_site *s = &t->site[task];
    (void)worker;
    if (s->form->pull != NULL) s->form->pull(s, &t->choice);
}

void wf_train_make(weft_trainer *t) { wf_pool_run(t->pool, t->sites, make_task, t); }

void wf_train_pull(weft_trainer *t) { wf_pool_run(t->pool, t->sites, pull_task, t); }
