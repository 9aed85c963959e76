/* klora.c - for every layer and call either the content adapter or the style adapter.
 *
 * Two adapters that are added compete in each layer; K-LoRA gives the whole layer to one of them.
 * An adapter matters most at the largest entries of its delta, so a layer's score is the sum of its
 * K largest |entries|, K = rank_c * rank_s. Content wins while
 *
 *     rho = S_c / (gamma S_s)   >   S(tau)
 *
 * gamma balances two files that were trained at different strengths. The curve S lets style in late
 * (or early and late), since images get their layout in the first calls and their texture in the
 * last. rho is one number for each layer, so all weights are read once, when the plan is sealed.
 * The authors' program forms and sorts both deltas at every call of every layer; here that is a
 * comparison.
 *
 * Their program also keeps a counter over the life of the process, so that an image depends on
 * those drawn before it. Ours computes tau from call and layer. tau and S are evaluated in double
 * from integers, in this order of operations: ties between rho and S occur (a layer's S is exactly
 * 0 once in an image), and other orders decide some of them differently. */
#include <math.h>

#include "base/structs.h"
#include "plan/method/method.h"

static const double ALPHA = 1.5, BETA = 0.5; /* pattern s, Ouyang et al. (2025), section 4.1 */
static const double STAR_BETA = 0.85; /* of alpha: the authors' program, 1.275 in all       */
static const double STAR_BETA_PAPER = 1.3;
static const double FAR_RATIO = 3; /* ratios this far over the mean are left out of gamma */

/* ---- the rule -------------------------------------------------------------------------------- */

static double curve(double tau, const weft_klora_options *o)
{
    double s;

    switch (o->pattern) {
    case WEFT_KLORA_S:
        return ALPHA * tau + BETA;
    case WEFT_KLORA_CUSTOM:
        s = o->alpha * tau + o->beta;
        return o->modulus > 0 ? fmod(s, o->modulus) : s;
    default:
        return fmod(ALPHA * tau +
                        (o->flags & WEFT_KLORA_PAPER_BETA ? STAR_BETA_PAPER : STAR_BETA * ALPHA),
                    ALPHA);
    }
}

bool wf_klora_choose(double rho, int32_t n, int32_t N, int32_t l, int32_t L,
                     const weft_klora_options *options)
{
    int64_t count = (int64_t)n * L + l, all = (int64_t)N * L;
    double  tau;

    if (options->granularity == WEFT_KLORA_BY_STEP) {
        tau = (double)n / N;
    } else {
        if (options->flags & WEFT_KLORA_WRAP) count %= all;
        tau = (double)count / (double)all;
    }
    return rho > curve(tau, options); /* strict: equal goes to style */
}

double wf_klora_gamma(const double *ratio, size_t count, int32_t *dropped)
{
    double mean = 0, kept = 0;
    size_t n = 0;

    *dropped = 0;
    if (count == 0) return 1;
    for (size_t i = 0; i < count; i++) mean += ratio[i];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) {
        if (ratio[i] >= FAR_RATIO * mean) continue;
        kept += ratio[i];
        n++;
    }
    *dropped = (int32_t)(count - n);
    return kept / (double)n;
}

/* ---- what the weights say -------------------------------------------------------------------- */

/* The sums are kept with the plan and pass to its copies: they depend on the two bindings, on K and
 * on whether alpha counts, not on curve, gamma or the number of calls. */

typedef struct layer_sums {
    int64_t top_k;       /* 0: not scored            */
    double  content;     /* the top_k largest        */
    double  style;
    double  content_all; /* all entries              */
    double  style_all;
} layer_sums;

typedef struct learnt {
    wf_binding     *content; /* kept */
    wf_binding     *style;   /* kept */
    int64_t         top_k;
    bool            ignore_alpha;
    layer_sums      sums[]; /* [layers] */
} learnt;

/* What a phase concludes. */
typedef struct state {
    int32_t content; /* which adapter */
    int32_t style;
    int32_t L;       /* governed layers                                 */
    int32_t pairs;   /* of those, with something of both: gamma is theirs */
    int32_t dropped; /* of those, left out as far off                    */
    double  gamma;
    struct { int32_t position; double rho; } at[]; /* [layers] */
} state;

static const weft_klora_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static bool governs(const weft_plan *p, const wf_sheet *s, const wf_layer *layer, const state *f)
{
    if (layer->component != WEFT_COMPONENT_DENOISER || layer->kind == WEFT_LAYER_NORM) return false;
    if ((options_of(s)->flags & WEFT_KLORA_ATTENTION_ONLY) && !layer->attention) return false;
    return wf_plan_module(p, f->content, layer->id) != NULL ||
           wf_plan_module(p, f->style, layer->id) != NULL;
}

static weft_status pick_roles(const weft_plan *p, state *f, weft_error *err)
{
    int32_t first, second;

    if (p->adapters != 2)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: needs exactly two adapters, content and style; the plan has %d",
                       (int)p->adapters);
    first = p->entry[0].role;
    second = p->entry[1].role;
    if (first != WEFT_ROLE_NONE && first == second)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: both adapters have the role %s; one is content, the other style",
                       first == WEFT_ROLE_CONTENT ? "content" : "style");
    f->style = first == WEFT_ROLE_STYLE || second == WEFT_ROLE_CONTENT ? 0 : 1;
    f->content = 1 - f->style;
    return WEFT_OK;
}

/* A module's rank in K: its family's, or for a family without one the largest that its delta can
 * have. */
static int64_t rank_of(const wf_module *m, const wf_layer *layer)
{
    return m->rank > 0 ? m->rank : WF_MIN((int64_t)layer->out, (int64_t)wf_layer_columns(layer));
}

/* K counts entries, so the delta's own number of entries bounds it. */
static int64_t layer_k(const wf_layer *layer, int64_t wanted)
{
    return WF_MIN(wanted, (int64_t)layer->out * (int64_t)wf_layer_columns(layer));
}

/* The rank that an adapter stands for in K at a layer: the sum of its modules'. */
static int64_t rank_at(const weft_plan *p, int32_t adapter, const wf_layer *layer)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer->id, &count);
    int64_t         rank = 0;

    for (int32_t i = 0; i < count; i++)
        rank += rank_of(
            wf_adapter_module(p->entry[adapter].bound->adapter, (size_t)slice[i].module), layer);
    return WF_MAX(rank, (int64_t)1);
}

static weft_status score_one(double *all, double *top, const weft_plan *p, const wf_sheet *s,
                             const wf_layer *layer, int32_t adapter, int64_t k, weft_error *err)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer->id, &count);

    if (count == 0) return WEFT_OK;
    return wf_slices_score(p->entry[adapter].bound->adapter, slice, count, layer, s->ignore_alpha,
                           k, all, top, &p->alloc, err);
}

static weft_status score_layer(layer_sums *sums, const weft_plan *p, const wf_sheet *s,
                               const wf_layer *layer, const state *f, weft_error *err)
{
    int64_t    k = options_of(s)->top_k;
    layer_sums r = { .top_k = layer_k(layer, k > 0 ? k : rank_at(p, f->content, layer) *
                                                             rank_at(p, f->style, layer)) };

    WF_TRY(score_one(&r.content_all, &r.content, p, s, layer, f->content, r.top_k, err));
    WF_TRY(score_one(&r.style_all, &r.style, p, s, layer, f->style, r.top_k, err));
    *sums = r;
    return WEFT_OK;
}

static weft_status tell(const weft_plan *p, int64_t done, int64_t total, weft_error *err)
{
    if (p->progress != NULL && p->progress(p->progress_user, "scoring layers", done, total) != 0)
        return wf_fail(err, WEFT_E_CANCELLED,
                       "sealing was stopped after %lld of %lld layers were scored", (long long)done,
                       (long long)total);
    return WEFT_OK;
}

static void drop_learnt(void *data)
{
    learnt *m = data;
    wf_binding_drop(m->content);
    wf_binding_drop(m->style);
}

/* A block like `key`, with the sums of `old` unless it is NULL. */
static weft_status begin_learnt(wf_blob **out, const weft_plan *p, const learnt *key,
                                const learnt *old, size_t layers, weft_error *err)
{
    size_t  size = sizeof *key + layers * sizeof *key->sums;
    learnt *m;

    *out = wf_blob_create(&p->alloc, size);
    if (*out == NULL) return wf_nomem(err, size, "scores");
    m = (*out)->data;
    *m = *key;
    (void)wf_binding_ref(m->content);
    (void)wf_binding_ref(m->style);
    (*out)->drop = drop_learnt;
    if (old != NULL) memcpy(m->sums, old->sums, layers * sizeof *m->sums);
    return WEFT_OK;
}

/* Score what governed layers an earlier plan or phase has not; its scores are in s->learnt. */
static weft_status score(wf_sheet *s, const weft_plan *p, const state *f, weft_error *err)
{
    const weft_klora_options *o = options_of(s);
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    const learnt   *old = s->learnt != NULL ? s->learnt->data : NULL;
    learnt          key = { p->entry[f->content].bound, p->entry[f->style].bound, o->top_k,
                            s->ignore_alpha };
    int64_t         total = 0, done = 0;
    weft_status     st = WEFT_OK;
    wf_blob        *blob = NULL;

    if (old != NULL && (old->content != key.content || old->style != key.style ||
                        old->top_k != key.top_k || old->ignore_alpha != key.ignore_alpha))
        old = NULL;
    for (size_t l = 0; l < count; l++)
        total += governs(p, s, &layers[l], f) && (old == NULL || old->sums[l].top_k == 0);
    if (old != NULL && total == 0) return WEFT_OK;

    if ((st = begin_learnt(&blob, p, &key, old, count, err)) != WEFT_OK) return st;
    wf_blob_drop(s->learnt);
    s->learnt = blob;
    layer_sums *sums = ((learnt *)blob->data)->sums;
    for (size_t l = 0; l < count && st == WEFT_OK; l++) {
        if (!governs(p, s, &layers[l], f) || sums[l].top_k != 0) continue;
        if ((st = tell(p, done++, total, err)) != WEFT_OK) break;
        st = score_layer(&sums[l], p, s, &layers[l], f, err);
    }
    if (st == WEFT_OK) st = tell(p, total, total, err);
    return st;
}

static const layer_sums *sums_of(const wf_sheet *s)
{
    return ((const learnt *)s->learnt->data)->sums;
}

/* ---- what follows from it -------------------------------------------------------------------- */

/* Layers where one of the two has nothing, or nothing but zeros, say nothing about the pair. */
static bool pairs_up(const layer_sums *s)
{
    return s->content_all > 0 && s->style_all > 0;
}

static weft_status balance(state *f, const weft_plan *p, wf_table *t, const wf_sheet *sheet,
                           size_t count, weft_error *err)
{
    const layer_sums *sums = sums_of(sheet);
    int32_t     mode = options_of(sheet)->gamma;
    double     *ratio = wf_zalloc(&p->alloc, count, sizeof *ratio), c = 0, s = 0;
    size_t      n = 0;

    if (ratio == NULL) return wf_nomem(err, count * sizeof *ratio, "the balance of two adapters");
    for (size_t l = 0; l < count; l++) {
        if (f->at[l].position == 0 || !pairs_up(&sums[l])) continue;
        c += sums[l].content_all;
        s += sums[l].style_all;
        ratio[n++] = sums[l].content_all / sums[l].style_all;
    }
    f->pairs = (int32_t)n;
    f->gamma = 1;
    if (mode == WEFT_KLORA_GAMMA_CODE) f->gamma = wf_klora_gamma(ratio, n, &f->dropped);
    if (mode == WEFT_KLORA_GAMMA_PAPER && n > 0) f->gamma = c / s;
    wf_free(&p->alloc, ratio);

    if (mode != WEFT_KLORA_GAMMA_NONE && (n == 0 || !isfinite(f->gamma) || f->gamma <= 0)) {
        f->gamma = 1;
        if (n == 0)
            wf_table_warn(p, t, "klora: no layer has something of both adapters; gamma is 1");
        else wf_table_warn(p, t, "klora: the adapters' sizes have no finite ratio; gamma is 1");
    }
    return WEFT_OK;
}

static double rho_of(const layer_sums *s, double gamma)
{
    if (s->style > 0) return s->content / (gamma * s->style);
    return s->content > 0 ? INFINITY : 0; /* only one has something: it wins */
}

/* Differences of normalisations have no score against a delta, and adding them whatever wins would
 * be a merge. */
static void warn_of_norms(const weft_plan *p, wf_table *t, const wf_layer *layers, size_t count)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        int32_t n = 0;
        for (size_t l = 0; l < count; l++)
            n += layers[l].component == WEFT_COMPONENT_DENOISER &&
                 layers[l].kind == WEFT_LAYER_NORM && wf_plan_module(p, a, layers[l].id) != NULL;
        if (n > 0)
            wf_table_warn(
                p, t,
                "klora: %d normalisations of %s do not act: K-LoRA governs layers with a product",
                (int)n, wf_adapter_name(p->entry[a].bound->adapter));
    }
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    state          *f;
    weft_status     st;

    s->state = wf_blob_create(&p->alloc, sizeof *f + count * sizeof *f->at);
    if (s->state == NULL)
        return wf_nomem(err, sizeof *f + count * sizeof *f->at, "a plan's scores");
    f = s->state->data;
    if ((st = pick_roles(p, f, err)) != WEFT_OK) return st;
    s->ignore_alpha = (options_of(s)->flags & WEFT_KLORA_IGNORE_ALPHA) != 0;
    if ((st = score(s, p, f, err)) != WEFT_OK) return st;

    for (size_t l = 0; l < count; l++)
        if (governs(p, s, &layers[l], f)) f->at[l].position = ++f->L;
    if (f->L == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: neither adapter has a layer of the UNet that K-LoRA governs");
    if ((st = balance(f, p, t, s, count, err)) != WEFT_OK) return st;
    warn_of_norms(p, t, layers, count);
    for (size_t l = 0; l < count; l++)
        if (f->at[l].position > 0) f->at[l].rho = rho_of(&sums_of(s)[l], f->gamma);
    return WEFT_OK;
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    const state      *f = s->state->data;
    const layer_sums *sums = &sums_of(s)[layer];
    int32_t           l = f->at[layer].position;
    bool              content;

    (void)p, (void)branch;
    if (l == 0 || (sums->content == 0 && sums->style == 0)) return WF_NOTHING;
    if (sums->content == 0 ||
        sums->style == 0) /* the only one wins, whatever a curve of the caller's own says */
        content = sums->style == 0;
    else
        content = wf_klora_choose(f->at[layer].rho, call, s->calls, l, f->L, options_of(s));
    return adapter == (content ? f->content : f->style) ? WF_ALL : WF_NOTHING;
}

static const char *part(const weft_plan *p, const wf_sheet *s, int32_t adapter)
{
    const state *f = s->state->data;

    (void)p;
    return adapter == f->content ? "content" : "style";
}

/* ---- in words -------------------------------------------------------------------------------- */

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_klora_options *o = options_of(s);
    const state   *f = s->state->data;
    wf_letter_text letter;
    wf_number_text a, b, m;

    (void)p;
    wf_text_add(out, "  content    %s,", wf_letter(&letter, f->content));
    wf_text_add(out, " style %s\n", wf_letter(&letter, f->style));
    wf_text_add(out, "  pattern    content while rho > S(tau), ");
    if (o->pattern == WEFT_KLORA_S)
        wf_text_add(out, "S = 1.5 tau + 0.5 (s)\n");
    else if (o->pattern == WEFT_KLORA_S_STAR)
        wf_text_add(out, "S = (1.5 tau + %s) mod 1.5 (s*)\n",
                    o->flags & WEFT_KLORA_PAPER_BETA ? "1.3" : "1.275");
    else if (o->modulus > 0)
        wf_text_add(out, "S = (%s tau + %s) mod %s\n", wf_number(&a, o->alpha),
                    wf_number(&b, o->beta), wf_number(&m, o->modulus));
    else
        wf_text_add(out, "S = %s tau + %s\n", wf_number(&a, o->alpha), wf_number(&b, o->beta));
    wf_text_add(out, "  tau        0 to 1 over the phase, counted by %s\n",
                o->granularity == WEFT_KLORA_BY_STEP ? "call" : "call and layer");
    wf_text_add(out, "  rho        S_c / (gamma S_s), sums of the K largest |entries|");
    if (o->top_k > 0) wf_text_add(out, ", K = %lld\n", (long long)o->top_k);
    else wf_text_add(out, ", K = rank_c rank_s\n");
    wf_text_add(out, "  gamma      %s", wf_fixed(&a, f->gamma, 6));
    if (o->gamma == WEFT_KLORA_GAMMA_NONE) wf_text_add(out, " (left out)\n");
    else if (o->gamma == WEFT_KLORA_GAMMA_PAPER)
        wf_text_add(out, ", ratio of the sums over %d layers\n", (int)f->pairs);
    else
        wf_text_add(out, ", mean ratio of %d layers, %d far ones left out\n",
                    (int)(f->pairs - f->dropped), (int)f->dropped);
    wf_text_add(out, "  layers     L = %d%s\n", (int)f->L,
                o->flags & WEFT_KLORA_ATTENTION_ONLY ? ", attention only: adapters act nowhere else"
                                                     : "");
    if (o->flags & WEFT_KLORA_IGNORE_ALPHA)
        wf_text_add(out, "  alpha      of the files left out\n");
    if (o->flags & WEFT_KLORA_WRAP)
        wf_text_add(out, "  wrap       tau falls back to 0 at the very last layer\n");
}

/* Does a layer choose at every call as another one does? */
static bool same_choices(const weft_plan *p, const wf_sheet *s, int32_t a, int32_t b)
{
    for (int32_t n = 0; n < s->calls; n++)
        for (int32_t i = 0; i < 2; i++)
            if (choose(p, s, n, 0, a, i).number != choose(p, s, n, 0, b, i).number) return false;
    return true;
}

static char symbol_at(const weft_plan *p, const wf_sheet *s, const state *f, int32_t call,
                      int32_t layer)
{
    if (choose(p, s, call, 0, layer, f->content).number != 0) return 'C';
    return choose(p, s, call, 0, layer, f->style).number != 0 ? 'S' : '-';
}

static void explain_group(const weft_plan *p, const wf_sheet *s, const state *f, wf_text *out,
                          const int32_t *at, int32_t first, int32_t end)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    wf_short_text   name;
    wf_number_text  low_text, high_text;
    double          low = INFINITY, high = 0;

    for (int32_t i = first; i < end; i++) {
        low = fmin(low, f->at[at[i]].rho);
        high = fmax(high, f->at[at[i]].rho);
    }
    wf_text_add(out, "  %-38s %5d  %8s %8s ", wf_short_name(&name, layers[at[first]].name),
                (int)(end - first), wf_fixed(&low_text, low, 3), wf_fixed(&high_text, high, 3));
    for (int32_t n = 0, next; n < s->calls; n = next) {
        char c = symbol_at(p, s, f, n, at[first]);
        for (next = n + 1; next < s->calls && symbol_at(p, s, f, next, at[first]) == c; next++) {}
        wf_text_add(out, " %c%d", c, (int)(next - n));
    }
    wf_text_add(out, "\n");
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const state *f = s->state->data;
    size_t       count;
    int32_t     *at, n = 0;

    wf_model_layers(p->model, &count);
    at = wf_zalloc(&p->alloc, (size_t)f->L, sizeof *at);
    if (at == NULL) {
        out->failed = true;
        return;
    }
    for (size_t l = 0; l < count; l++)
        if (f->at[l].position > 0) at[n++] = (int32_t)l;
    wf_text_add(out, "  %-38s %5s  %8s %8s  calls: C content, S style\n", "from layer", "count",
                "rho from", "to");
    for (int32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && same_choices(p, s, at[i], at[end]); end++) {}
        explain_group(p, s, f, out, at, i, end);
    }
    wf_free(&p->alloc, at);
}

/* ---- public ---------------------------------------------------------------------------------- */

static weft_status check_options(const weft_klora_options *o, weft_error *err)
{
    if (o->pattern < WEFT_KLORA_S_STAR || o->pattern > WEFT_KLORA_CUSTOM)
        return wf_fail(
            err, WEFT_E_ARG,
            "weft_klora_options: pattern is %d, not one of WEFT_KLORA_S_STAR, _S, _CUSTOM",
            (int)o->pattern);
    if (o->gamma < WEFT_KLORA_GAMMA_CODE || o->gamma > WEFT_KLORA_GAMMA_NONE)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: gamma is %d, not one of WEFT_KLORA_GAMMA_*",
                       (int)o->gamma);
    if (o->granularity < WEFT_KLORA_BY_CALL || o->granularity > WEFT_KLORA_BY_STEP)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: granularity is %d, not one of WEFT_KLORA_BY_*",
                       (int)o->granularity);
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_klora_options: reserved0 is %d, must be zero",
                       (int)o->reserved0);
    if (o->top_k < 0)
        return wf_fail(err, WEFT_E_ARG, "weft_klora_options: top_k is %lld, need 0 or more",
                       (long long)o->top_k);
    if (!isfinite(o->alpha) || !isfinite(o->beta) || !isfinite(o->modulus) || o->modulus < 0)
        return wf_fail(
            err, WEFT_E_ARG,
            "weft_klora_options: alpha, beta and modulus must be finite, modulus not negative");
    if (o->pattern != WEFT_KLORA_CUSTOM && (o->alpha != 0 || o->beta != 0 || o->modulus != 0))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: alpha, beta and modulus are read only with "
                       "WEFT_KLORA_CUSTOM, leave them 0");
    return WEFT_OK;
}

weft_status weft_plan_klora(weft_plan *plan, const weft_klora_options *options, weft_error *err)
{
    weft_klora_options o;
    weft_status st = WF_OPTIONS(&o, options, weft_klora_options, WEFT_KLORA_WRAP |
                                WEFT_KLORA_IGNORE_ALPHA | WEFT_KLORA_ATTENTION_ONLY |
                                WEFT_KLORA_PAPER_BETA, err);

    if (st != WEFT_OK) return st;
    if ((st = check_options(&o, err)) != WEFT_OK) return st;
    return wf_plan_use(plan, &wf_method_klora, &o, sizeof o, err);
}

weft_status weft_plan_klora_score(const weft_plan *plan, int32_t call, int64_t layer,
                                  weft_klora_score *score_out, weft_error *err)
{
    weft_klora_score  r = WEFT_KLORA_SCORE_INIT;
    const wf_sheet   *s;
    const state      *f;
    const layer_sums *sums;
    size_t            count;

    if (score_out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_klora_score: score is NULL");
    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_klora_score", err));
    if (call < 0 || call >= plan->table.calls)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_klora_score: call %d of %d", (int)call,
                       (int)plan->table.calls);
    s = wf_plan_phase(plan, call);
    if (s->method != &wf_method_klora)
        return wf_fail(err, WEFT_E_STATE, "weft_plan_klora_score: call %d is under %s, not K-LoRA",
                       (int)call, s->method->title);
    wf_model_layers(plan->model, &count);
    if (layer < 0 || (uint64_t)layer >= count)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_klora_score: layer %lld of %zu",
                       (long long)layer, count);
    f = s->state->data;
    sums = &sums_of(s)[layer];
    r.gamma = f->gamma;
    r.position = f->at[layer].position;
    if (r.position > 0) {
        r.top_k = sums->top_k;
        r.content = sums->content;
        r.style = sums->style;
        r.ratio = pairs_up(sums) ? sums->content_all / sums->style_all : 0;
        r.rho = f->at[layer].rho;
    }
    return WF_RESULT(score_out, &r, weft_klora_score, err);
}

const wf_method wf_method_klora = {
    .name = "klora",
    .title = "K-LoRA",
    .text = WEFT_TEXT_NONE,
    .begin = begin,
    .choose = choose,
    .part = part,
    .describe = describe,
    .explain = explain,
};
