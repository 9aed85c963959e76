/* klora.c - for every layer and call one adapter: a content's, or a style's.
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
 * With more adapters the layer goes to the largest of g_i S_i p_i(tau): g_i brings adapter i to the
 * strength of the first content, and p is 1 for contents and S(tau) for styles. p is the same for
 * all adapters of a role. So who is the best content of a layer, and who the best style, does not
 * change over the calls, and between these two it is K-LoRA with gamma = g_s / g_c. For two
 * adapters that is K-LoRA itself, to the bit: g_c is 1.
 *
 * The authors' program also keeps a counter over the life of the process, so that an image depends
 * on those drawn before it. Ours computes tau from call and layer. tau and S are evaluated in double
 * from integers, in this order of operations: ties between rho and S occur (a layer's S is exactly
 * 0 once in an image), and other orders decide some of them differently. */
#include <math.h>

#include "adapter/difference.h"
#include "base/structs.h"
#include "plan/method/method.h"

static const double ALPHA = 1.5, BETA = 0.5; /* pattern s, Ouyang et al. (2025), section 4.1 */
static const double STAR_BETA = 0.85; /* of alpha: the authors' program, 1.275 in all       */
static const double STAR_BETA_PAPER = 1.3;
static const double FIXED_SHARE = 1.0 / 3; /* where pattern s reaches 1                      */

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

    if (options->pattern == WEFT_KLORA_FIXED)
        return (double)n / N < (options->share > 0 ? options->share : FIXED_SHARE);
    if (options->granularity == WEFT_KLORA_BY_STEP) {
        tau = (double)n / N;
    } else {
        if (options->flags & WEFT_KLORA_WRAP) count %= all;
        tau = (double)count / (double)all;
    }
    return rho > curve(tau, options); /* strict: equal goes to style */
}

/* ---- what the weights say -------------------------------------------------------------------- */

/* The sums are kept with the plan and pass to its copies: they depend on the bindings, on what is
 * counted and on whether alpha counts, not on curve, gamma or the number of calls. */

typedef struct sums {
    double score; /* the K largest, or the energy                       */
    double all;   /* what gamma compares: all entries, or the energy    */
} sums;

typedef struct learnt {
    int32_t      adapters;
    int32_t      kind;         /* WEFT_KLORA_TOP_K, _ENERGY                        */
    int64_t      top_k;
    bool         ignore_alpha;
    wf_binding **bound;        /* [adapters], kept                                 */
    int64_t     *k;            /* [layers]: K; 0: not scored. Of the energy all    */
    sums        *of;           /* [layers][adapters]                               */
} learnt;

/* What a phase concludes. */
typedef struct layer_choice {
    int32_t position; /* l; 0: not governed                                     */
    int32_t content;  /* the adapter with the largest balanced score; -1: none  */
    int32_t style;
    double  rho;
} layer_choice;

typedef struct state {
    int32_t          L;       /* governed layers                                */
    int32_t          content; /* the first: gamma's reference                   */
    int32_t          style;   /* the first                                      */
    bool            *stylish; /* [adapters]: a style, not a content             */
    wf_balance      *balance; /* [adapters]: g_i                                */
    layer_choice    *at;      /* [layers]                                       */
} state;

static const weft_klora_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static bool governs(const weft_plan *p, const wf_sheet *s, const wf_layer *layer)
{
    if (layer->component != WEFT_COMPONENT_DENOISER || layer->kind == WEFT_LAYER_NORM) return false;
    if ((options_of(s)->flags & WEFT_KLORA_ATTENTION_ONLY) && !layer->attention) return false;
    for (int32_t a = 0; a < p->adapters; a++)
        if (wf_plan_module(p, a, layer->id) != NULL) return true;
    return false;
}

static weft_status pick_roles(const weft_plan *p, state *f, weft_error *err)
{
    int32_t styles = 0;

    if (p->adapters < 2)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: needs at least two adapters, content and style; the plan has %d",
                       (int)p->adapters);
    for (int32_t a = 0; a < p->adapters; a++) {
        int32_t role = wf_plan_role(p, a);
        if (role == WEFT_ROLE_NONE)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "klora: of more than two adapters each needs a role, content or style; "
                           "%s has none",
                           wf_adapter_name(p->entry[a].bound->adapter));
        f->stylish[a] = role == WEFT_ROLE_STYLE;
        styles += f->stylish[a];
    }
    if (styles == 0 || styles == p->adapters)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: %s adapters have the role %s; one is content, the other style",
                       p->adapters == 2 ? "both" : "all", styles == 0 ? "content" : "style");
    while (f->stylish[f->content]) f->content++;
    while (!f->stylish[f->style]) f->style++;
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

/* The same K for all adapters, or their scores could not be compared: the product of the largest
 * ranks of both roles. */
static int64_t k_of(const weft_plan *p, const wf_sheet *s, const wf_layer *layer, const state *f)
{
    int64_t k = options_of(s)->top_k, most[2] = { 1, 1 };

    for (int32_t a = 0; a < p->adapters; a++)
        most[f->stylish[a]] = WF_MAX(most[f->stylish[a]], rank_at(p, a, layer));
    return layer_k(layer, k > 0 ? k : most[0] * most[1]);
}

static weft_status score_one(sums *to, const weft_plan *p, const wf_sheet *s, const wf_layer *layer,
                             int32_t adapter, int64_t k, weft_error *err)
{
    const weft_adapter *file = p->entry[adapter].bound->adapter;
    int32_t             count;
    const wf_slice     *slice = wf_plan_slices(p, adapter, layer->id, &count);

    if (count == 0) return WEFT_OK;
    if (options_of(s)->score == WEFT_KLORA_TOP_K)
        return wf_slices_score(file, slice, count, layer, s->ignore_alpha, k, &to->all, &to->score,
                               &p->alloc, err);
    WF_TRY(wf_slices_energy(file, slice, count, layer, s->ignore_alpha, &to->score, &p->alloc,
                            err));
    to->all = to->score;
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
    for (int32_t a = 0; a < m->adapters; a++) wf_binding_drop(m->bound[a]);
}

/* Is what an earlier plan or phase learnt of these adapters, and counted as here? */
static bool of_these(const learnt *m, const weft_plan *p, const wf_sheet *s)
{
    const weft_klora_options *o = options_of(s);

    if (m->adapters != p->adapters || m->kind != o->score || m->top_k != o->top_k ||
        m->ignore_alpha != s->ignore_alpha)
        return false;
    for (int32_t a = 0; a < p->adapters; a++)
        if (m->bound[a] != p->entry[a].bound) return false;
    return true;
}

/* A block for the sums of this plan, with those of `old` unless it is NULL. */
static weft_status begin_learnt(wf_blob **out, const weft_plan *p, const wf_sheet *s,
                                const learnt *old, size_t layers, weft_error *err)
{
    const weft_klora_options *o = options_of(s);
    size_t  n = (size_t)p->adapters;
    size_t  size = sizeof(learnt) + layers * (n * sizeof(sums) + sizeof(int64_t)) +
                   n * sizeof(wf_binding *);
    learnt *m;

    *out = wf_blob_create(&p->alloc, size);
    if (*out == NULL) return wf_nomem(err, size, "scores");
    m = (*out)->data;
    *m = (learnt){ p->adapters, o->score, o->top_k, s->ignore_alpha, NULL, NULL, NULL };
    m->of = (sums *)(m + 1);
    m->k = (int64_t *)(m->of + layers * n);
    m->bound = (wf_binding **)(m->k + layers);
    for (size_t a = 0; a < n; a++) m->bound[a] = wf_binding_ref(p->entry[a].bound);
    (*out)->drop = drop_learnt;
    if (old != NULL) memcpy(m->of, old->of, layers * n * sizeof *m->of);
    if (old != NULL) memcpy(m->k, old->k, layers * sizeof *m->k);
    return WEFT_OK;
}

static weft_status score_layer(learnt *m, const weft_plan *p, const wf_sheet *s,
                               const wf_layer *layer, const state *f, weft_error *err)
{
    size_t  l = (size_t)layer->id;
    int64_t k = k_of(p, s, layer, f);

    for (int32_t a = 0; a < p->adapters; a++)
        WF_TRY(score_one(&m->of[l * (size_t)p->adapters + (size_t)a], p, s, layer, a, k, err));
    m->k[l] = k;
    return WEFT_OK;
}

/* Score what governed layers an earlier plan or phase has not; its scores are in s->learnt. */
static weft_status score(wf_sheet *s, const weft_plan *p, const state *f, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    const learnt   *old = s->learnt != NULL ? s->learnt->data : NULL;
    int64_t         total = 0, done = 0;
    bool            scores = options_of(s)->pattern != WEFT_KLORA_FIXED;
    weft_status     st = WEFT_OK;
    wf_blob        *blob = NULL;

    if (old != NULL && !of_these(old, p, s)) old = NULL;
    for (size_t l = 0; l < count && scores; l++)
        total += governs(p, s, &layers[l]) && (old == NULL || old->k[l] == 0);
    if (old != NULL && total == 0) return WEFT_OK;

    if ((st = begin_learnt(&blob, p, s, old, count, err)) != WEFT_OK) return st;
    wf_blob_drop(s->learnt);
    s->learnt = blob;
    learnt *m = blob->data;
    for (size_t l = 0; l < count && st == WEFT_OK && scores; l++) {
        if (!governs(p, s, &layers[l]) || m->k[l] != 0) continue;
        if ((st = tell(p, done++, total, err)) != WEFT_OK) break;
        st = score_layer(m, p, s, &layers[l], f, err);
    }
    if (st == WEFT_OK && scores) st = tell(p, total, total, err);
    return st;
}

static const sums *sums_of(const wf_sheet *s, size_t layer)
{
    const learnt *m = s->learnt->data;
    return m->of + layer * (size_t)m->adapters;
}

/* ---- what follows from it -------------------------------------------------------------------- */

/* g_i of every adapter, of the layers that this phase governs. */
static weft_status balance(state *f, const weft_plan *p, wf_table *t, const wf_sheet *sheet,
                           size_t count, weft_error *err)
{
    double *own = wf_zalloc(&p->alloc, 2 * count, sizeof *own), *other;

    if (own == NULL) return wf_nomem(err, 2 * count * sizeof *own, "the balance of adapters");
    other = own + count;
    for (int32_t a = 0; a < p->adapters; a++) {
        size_t n = 0;
        for (size_t l = 0; l < count; l++) {
            if (f->at[l].position == 0) continue;
            own[n] = sums_of(sheet, l)[f->content].all;
            other[n++] = sums_of(sheet, l)[a].all;
        }
        f->balance[a] = wf_balance_of(own, other, n, a == f->content ? WEFT_KLORA_GAMMA_NONE
                                                                     : options_of(sheet)->gamma);
        if (f->balance[a].failed)
            wf_balance_warn(p, t, "klora", "gamma", &f->balance[a], f->content, a);
    }
    wf_free(&p->alloc, own);
    return WEFT_OK;
}

/* g_s / g_c. For two adapters g_c is 1, and this is K-LoRA's gamma. */
static double gamma_of(const state *f, int32_t content, int32_t style)
{
    return f->balance[style].factor / f->balance[content].factor;
}

/* The best of each role, and how they compare. */
static void judge(layer_choice *at, const weft_plan *p, const state *f, const sums *of)
{
    double best[2] = { 0, 0 };
    int32_t who[2] = { -1, -1 };

    for (int32_t a = 0; a < p->adapters; a++) {
        double v = f->balance[a].factor * of[a].score;
        if (!(v > best[f->stylish[a]])) continue; /* equal: who was added first */
        best[f->stylish[a]] = v;
        who[f->stylish[a]] = a;
    }
    at->content = who[0];
    at->style = who[1];
    at->rho = best[1] > 0 ? best[0] / best[1] : best[0] > 0 ? INFINITY : 0; /* alone: it wins */
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

/* One content and one style take turns for all layers at once. */
static weft_status check_fixed(const weft_plan *p, const wf_sheet *s, weft_error *err)
{
    if (options_of(s)->pattern != WEFT_KLORA_FIXED || p->adapters == 2) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "klora: the pattern fixed takes one content and one style; the plan has %d "
                   "adapters",
                   (int)p->adapters);
}

static weft_status make_state(wf_sheet *s, const weft_plan *p, size_t layers, weft_error *err)
{
    size_t n = (size_t)p->adapters;
    size_t size = sizeof(state) + layers * sizeof(layer_choice) +
                  n * (sizeof(wf_balance) + sizeof(bool));
    state *f;

    s->state = wf_blob_create(&p->alloc, size);
    if (s->state == NULL) return wf_nomem(err, size, "a plan's scores");
    f = s->state->data;
    f->at = (layer_choice *)(f + 1);
    f->balance = (wf_balance *)(f->at + layers);
    f->stylish = (bool *)(f->balance + n);
    for (size_t a = 0; a < n; a++) f->balance[a].factor = 1;
    return WEFT_OK;
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    state          *f;

    WF_TRY(make_state(s, p, count, err));
    f = s->state->data;
    WF_TRY(pick_roles(p, f, err));
    WF_TRY(check_fixed(p, s, err));
    s->ignore_alpha = (options_of(s)->flags & WEFT_KLORA_IGNORE_ALPHA) != 0;
    WF_TRY(score(s, p, f, err));

    for (size_t l = 0; l < count; l++)
        if (governs(p, s, &layers[l])) f->at[l].position = ++f->L;
    if (f->L == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "klora: no adapter has a layer of the UNet that K-LoRA governs");
    warn_of_norms(p, t, layers, count);
    if (options_of(s)->pattern != WEFT_KLORA_FIXED) WF_TRY(balance(f, p, t, s, count, err));
    for (size_t l = 0; l < count; l++) {
        layer_choice *at = &f->at[l];
        at->content = at->style = -1;
        if (at->position == 0) continue;
        if (options_of(s)->pattern != WEFT_KLORA_FIXED) {
            judge(at, p, f, sums_of(s, l));
        } else {
            at->content = f->content;
            at->style = f->style;
        }
    }
    return WEFT_OK;
}

/* Whose a layer is at a call; -1: nobody's. */
static int32_t winner(const wf_sheet *s, int32_t call, int32_t layer)
{
    const state        *f = s->state->data;
    const layer_choice *at = &f->at[layer];

    if (at->position == 0) return -1;
    if (at->content < 0) return at->style; /* the only one wins, whatever a curve says */
    if (at->style < 0) return at->content;
    return wf_klora_choose(at->rho, call, s->calls, at->position, f->L, options_of(s)) ? at->content
                                                                                      : at->style;
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)p, (void)branch;
    return adapter == winner(s, call, layer) ? WF_ALL : WF_NOTHING;
}

static const char *part(const weft_plan *p, const wf_sheet *s, int32_t adapter)
{
    const state *f = s->state->data;

    (void)p;
    return f->stylish[adapter] ? "style" : "content";
}

/* ---- in words -------------------------------------------------------------------------------- */

static void describe_roles(const weft_plan *p, const state *f, wf_text *out)
{
    wf_letter_text letter;

    if (p->adapters == 2) {
        wf_text_add(out, "  content    %s,", wf_letter(&letter, f->content));
        wf_text_add(out, " style %s\n", wf_letter(&letter, f->style));
        return;
    }
    for (int role = 0; role < 2; role++) {
        int32_t n = 0;
        wf_text_add(out, role == 0 ? "  contents  " : "  styles    ");
        for (int32_t a = 0; a < p->adapters; a++)
            if (f->stylish[a] == (role == 1))
                wf_text_add(out, "%s %s", n++ > 0 ? "," : "", wf_letter(&letter, a));
        wf_text_add(out, "\n");
    }
}

static void describe_curve(const weft_klora_options *o, wf_text *out)
{
    wf_number_text a, b, m;

    if (o->pattern == WEFT_KLORA_FIXED) {
        wf_text_add(out, "  pattern    content in the first %s of the calls, then style (fixed)\n",
                    o->share > 0 ? wf_number(&a, o->share) : "third");
        return;
    }
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
}

static void describe_scores(const weft_plan *p, const weft_klora_options *o, const state *f,
                            wf_text *out)
{
    wf_letter_text letter;

    wf_text_add(out, "  rho        S_c / (gamma S_s), ");
    if (o->score == WEFT_KLORA_ENERGY) wf_text_add(out, "Frobenius norms\n");
    else if (o->top_k > 0)
        wf_text_add(out, "sums of the K largest |entries|, K = %lld\n", (long long)o->top_k);
    else wf_text_add(out, "sums of the K largest |entries|, K = rank_c rank_s\n");
    if (p->adapters > 2)
        wf_text_add(out, "  gamma      g_s / g_c, of the largest g S of each role, g to %s:\n",
                    wf_letter(&letter, f->content));
    for (int32_t a = 0; a < p->adapters; a++) {
        const wf_balance *g = &f->balance[a];
        wf_number_text    number;
        if (a == f->content) continue;
        if (p->adapters == 2) wf_text_add(out, "  gamma      %s", wf_fixed(&number, g->factor, 6));
        else wf_text_add(out, "             %s of %s", wf_fixed(&number, g->factor, 6),
                         wf_letter(&letter, a));
        wf_balance_describe(g, out);
    }
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_klora_options *o = options_of(s);
    const state              *f = s->state->data;

    describe_roles(p, f, out);
    describe_curve(o, out);
    if (o->pattern != WEFT_KLORA_FIXED) describe_scores(p, o, f, out);
    wf_text_add(out, "  layers     L = %d%s\n", (int)f->L,
                o->flags & WEFT_KLORA_ATTENTION_ONLY ? ", attention only: adapters act nowhere else"
                                                     : "");
    if (o->flags & WEFT_KLORA_IGNORE_ALPHA)
        wf_text_add(out, "  alpha      of the files left out\n");
    if (o->flags & WEFT_KLORA_WRAP)
        wf_text_add(out, "  wrap       tau falls back to 0 at the very last layer\n");
}

/* Does a layer choose at every call as another one does? */
static bool same_choices(const wf_sheet *s, int32_t a, int32_t b)
{
    for (int32_t n = 0; n < s->calls; n++)
        if (winner(s, n, a) != winner(s, n, b)) return false;
    return true;
}

/* C and S for two adapters, letters for more. */
static const char *symbol_of(wf_letter_text *buf, const weft_plan *p, const state *f, int32_t who)
{
    if (who < 0) return "-";
    if (p->adapters == 2) return f->stylish[who] ? "S" : "C";
    return wf_letter(buf, who);
}

static void explain_group(const weft_plan *p, const wf_sheet *s, const state *f, wf_text *out,
                          const int32_t *at, int32_t first, int32_t end)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    bool            fixed = options_of(s)->pattern == WEFT_KLORA_FIXED;
    wf_short_text   name;
    wf_letter_text  letter;
    wf_number_text  low_text, high_text;
    double          low = INFINITY, high = 0;

    for (int32_t i = first; i < end; i++) {
        low = fmin(low, f->at[at[i]].rho);
        high = fmax(high, f->at[at[i]].rho);
    }
    wf_text_add(out, "  %-38s %5d  %8s %8s ", wf_short_name(&name, layers[at[first]].name),
                (int)(end - first), fixed ? "-" : wf_fixed(&low_text, low, 3),
                fixed ? "-" : wf_fixed(&high_text, high, 3));
    for (int32_t n = 0, next; n < s->calls; n = next) {
        int32_t who = winner(s, n, at[first]);
        for (next = n + 1; next < s->calls && winner(s, next, at[first]) == who; next++) {}
        wf_text_add(out, " %s%s%d", symbol_of(&letter, p, f, who),
                    p->adapters > 2 && who >= 0 ? ":" : "", (int)(next - n));
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
    wf_text_add(out, "  %-38s %5s  %8s %8s  calls: %s\n", "from layer", "count", "rho from", "to",
                p->adapters == 2 ? "C content, S style" : "whose, and how many");
    for (int32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && same_choices(s, at[i], at[end]); end++) {}
        explain_group(p, s, f, out, at, i, end);
    }
    wf_free(&p->alloc, at);
}

/* ---- public ---------------------------------------------------------------------------------- */

/* What stands beside the pattern fixed and the score by energy, or must not. */
static weft_status check_new_options(const weft_klora_options *o, weft_error *err)
{
    bool fixed = o->pattern == WEFT_KLORA_FIXED;

    if (!(o->share >= 0 && o->share <= 1))
        return wf_fail(err, WEFT_E_ARG, "weft_klora_options: share must be 0 to 1");
    if (!fixed && o->share != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: share is read only with WEFT_KLORA_FIXED, leave it 0");
    if (o->top_k != 0 && (fixed || o->score == WEFT_KLORA_ENERGY))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: top_k is of WEFT_KLORA_TOP_K and a curve, leave it 0");
    if (fixed && (o->score != 0 || o->gamma != 0 || o->granularity != 0))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: WEFT_KLORA_FIXED scores nothing and changes between "
                       "calls: leave score, gamma and granularity 0");
    return WEFT_OK;
}

static weft_status check_options(const weft_klora_options *o, weft_error *err)
{
    if (o->pattern < WEFT_KLORA_S_STAR || o->pattern > WEFT_KLORA_FIXED)
        return wf_fail(
            err, WEFT_E_ARG,
            "weft_klora_options: pattern is %d, not one of WEFT_KLORA_S_STAR, _S, _CUSTOM, _FIXED",
            (int)o->pattern);
    if (o->gamma < WEFT_KLORA_GAMMA_CODE || o->gamma > WEFT_KLORA_GAMMA_NONE)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: gamma is %d, not one of WEFT_KLORA_GAMMA_*",
                       (int)o->gamma);
    if (o->granularity < WEFT_KLORA_BY_CALL || o->granularity > WEFT_KLORA_BY_STEP)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: granularity is %d, not one of WEFT_KLORA_BY_*",
                       (int)o->granularity);
    if (o->score < WEFT_KLORA_TOP_K || o->score > WEFT_KLORA_ENERGY)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_klora_options: score is %d, not one of WEFT_KLORA_TOP_K, _ENERGY",
                       (int)o->score);
    if (o->reserved0 != 0 || o->reserved1 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_klora_options: reserved0 is %d, must be zero",
                       (int)(o->reserved0 != 0 ? o->reserved0 : o->reserved1));
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
    return check_new_options(o, err);
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
    const layer_choice *at;
    int32_t           c, y;
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
    at = &f->at[layer];
    c = at->content >= 0 ? at->content : f->content; /* who is alone is compared with the first */
    y = at->style >= 0 ? at->style : f->style;
    r.gamma = gamma_of(f, c, y);
    r.position = at->position;
    r.content_index = r.style_index = -1;
    if (at->position > 0) {
        const sums *of = sums_of(s, (size_t)layer);
        if (options_of(s)->score == WEFT_KLORA_TOP_K)
            r.top_k = ((learnt *)s->learnt->data)->k[layer];
        r.content = of[c].score;
        r.style = of[y].score;
        r.ratio = of[c].all > 0 && of[y].all > 0 ? of[c].all / of[y].all : 0;
        r.rho = at->rho;
        r.content_index = at->content;
        r.style_index = at->style;
    }
    return WF_RESULT(score_out, &r, weft_klora_score, err);
}

static const wf_word pattern_words[] = {
    { "s_star", WEFT_KLORA_S_STAR }, { "s", WEFT_KLORA_S }, { "custom", WEFT_KLORA_CUSTOM },
    { "fixed", WEFT_KLORA_FIXED }, { NULL, 0 },
};
static const wf_word granularity_words[] = {
    { "call", WEFT_KLORA_BY_CALL }, { "step", WEFT_KLORA_BY_STEP }, { NULL, 0 },
};
static const wf_word score_words[] = {
    { "topk", WEFT_KLORA_TOP_K }, { "energy", WEFT_KLORA_ENERGY }, { NULL, 0 },
};
static const wf_field field_list[] = {
    { WF_VALUE("pattern", WORD, weft_klora_options, pattern), .words = pattern_words },
    { WF_VALUE("gamma", WORD, weft_klora_options, gamma), .words = wf_gamma_words },
    { WF_VALUE("granularity", WORD, weft_klora_options, granularity),
      .words = granularity_words },
    { WF_VALUE("score", WORD, weft_klora_options, score), .words = score_words },
    { WF_VALUE("top_k", INT64, weft_klora_options, top_k) },
    { WF_VALUE("alpha", DOUBLE, weft_klora_options, alpha) },
    { WF_VALUE("beta", DOUBLE, weft_klora_options, beta) },
    { WF_VALUE("modulus", DOUBLE, weft_klora_options, modulus) },
    { WF_VALUE("share", DOUBLE, weft_klora_options, share) },
    { WF_FLAG("attention_only", WEFT_KLORA_ATTENTION_ONLY) },
    { WF_FLAG("ignore_alpha", WEFT_KLORA_IGNORE_ALPHA) },
    { WF_FLAG("paper_beta", WEFT_KLORA_PAPER_BETA) },
    { WF_FLAG("wrap", WEFT_KLORA_WRAP) },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_klora_options);
WF_METHOD_USE(weft_plan_klora, weft_klora_options)

const wf_method wf_method_klora = {
    .name = "klora",
    .title = "K-LoRA",
    .text = WEFT_TEXT_NONE,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .choose = choose,
    .part = part,
    .describe = describe,
    .explain = explain,
};
