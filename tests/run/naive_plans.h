/* naive_plans.h - what a plan means, once more: from its options to its table, by the plainest rule for
 * each method, and from the table to predictions, by naive.h's network.
 *
 * A spec says a plan as data. build() makes it through the library; check_table() and check_call() hold
 * the library's table and predictions to what follows from the spec. */
#ifndef NAIVE_PLANS_H
#define NAIVE_PLANS_H

#include "naive_adapters.h"
#include "plain.h"
#include "plan/method/method.h"

enum { H = 4, W = 6, PIXELS = H * W, N = 4 * PIXELS, TOKENS = 9, TEXT = TOKENS * NAIVE_TEXT };
enum { MERGE, SWITCH, COMPOSITE, KLORA, ZIP, BLORA, BLEND, LORATORIO, SUBBANDS, METHODS };
enum { PHASES = 3, POINTS = 4, BRANCHES = NAIVE_ADAPTERS + 1, MASK = 96, BLOCKS = 20 };

static const char *const titles[METHODS] = { "merge", "switch", "composite", "klora", "zip", "blora",
                                             "blend", "loratorio", "subbands" };

/* libcheck writes a line to disk for each assertion; there are millions of cells. */
#define HOLDS(what, ...)                      \
    do {                                      \
        if (!(what)) ck_abort_msg(__VA_ARGS__); \
    } while (0)

static weft_model   *model;
static naive_net     net;
static int           block[512]; /* of each layer: 0 to 19, -1: none */

/* ---- a plan as data --------------------------------------------------------------------------- */

typedef struct curve_point { int shape; double at, value; } curve_point;

/* Factors of blocks: a number for each of the model's 20, and what is set over those. */
typedef struct blocks {
    char   text[512];
    double slot[BLOCKS];        /* BASE, IN00 to IN08, MID, OUT00 to OUT08 */
    const char *pattern[2];     /* over layer names, after the slots        */
    double over[2];
} blocks;

typedef struct part {
    naive_adapter *of;
    float          weight, text, share;
    int            role;
    const char    *select, *exclude;
    bool           has_blocks;
    blocks         blocks;
    int            points;
    bool           by_share;
    curve_point    point[POINTS];
    bool           masked, adds;
    int            mh, mw;
    double         mask_text;
    float          mask[MASK];
    bool           here[512];   /* has it anything selected at a layer? */
} part;

typedef struct area { int adapter; bool isolated; int mh, mw; float mask[MASK]; } area;

typedef struct phase {
    int  method, first, end;
    bool by_share;
    weft_switch_options    sw;
    int32_t                order[6];
    weft_composite_options composite;
    weft_klora_options     klora;
    weft_zip_options       zip;
    bool                   from_file;
    weft_blora_options     blora;
    weft_blend_options     blend;
    weft_loratorio_options loratorio;
    weft_subbands_options  subbands;
    double *column[2][512]; /* zip: (K) of a layer for content and style, or NULL */
} phase;

typedef struct spec {
    uint64_t seed;
    int      adapters, regions, phases, calls;
    part     part[NAIVE_ADAPTERS];
    area     region[NAIVE_REGIONS];
    phase    phase[PHASES];
    int      path, text;
    bool     balanced;
    weft_balance_options balance;
    double   factor[NAIVE_ADAPTERS]; /* of the balance */
} spec;

static inline bool glob(const char *p, const char *s)
{
    if (*p == '\0' || *p == ',') return *s == '\0';
    if (*p == '*') return glob(p + 1, s) || (*s != '\0' && glob(p, s + 1));
    return *s == *p && glob(p + 1, s + 1);
}

static inline bool any_glob(const char *list, const char *s)
{
    for (const char *p = list; p != NULL; p = strchr(p, ',') != NULL ? strchr(p, ',') + 1 : NULL)
        if (glob(p, s)) return true;
    return false;
}
/* ---- the plan -------------------------------------------------------------------------------- */

static inline weft_mask mask_of(const float *v, int mh, int mw)
{
    weft_mask m = WEFT_MASK_INIT;
    m.height = mh, m.width = mw, m.values = v, m.len = (size_t)(mh * mw);
    return m;
}

static inline void add_part(weft_plan *plan, const part *p, int index)
{
    weft_add_options  o = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights t = WEFT_TEXT_WEIGHTS_INIT;
    weft_curve_point  point[POINTS];
    weft_mask         m = mask_of(p->mask, p->mh, p->mw);

    t.text_1 = p->text;
    o.flags = WEFT_ADD_SHARE;
    o.share = p->share, o.role = p->role, o.select = p->select, o.exclude = p->exclude, o.text_weights = &t;
    must(weft_plan_add(plan, p->of->handle, p->weight, &o, &golden_err));
    if (p->has_blocks)
        must(weft_plan_set_blocks(plan, index, p->blocks.text[0] != '\0' ? p->blocks.text : NULL, &golden_err));
    for (int i = 0; i < p->points; i++) {
        weft_curve_point_init(&point[i], sizeof point[i]);
        point[i].shape = p->point[i].shape, point[i].at = p->point[i].at, point[i].value = p->point[i].value;
    }
    must(weft_plan_set_curve(plan, index, p->by_share ? WEFT_CURVE_AT_SHARE : 0, point, (size_t)p->points,
                             &golden_err));
    if (!p->masked) return;
    m.flags = WEFT_MASK_TEXT | (p->adds ? WEFT_MASK_ADD : 0);
    m.text = (float)p->mask_text;
    must(weft_plan_set_mask(plan, index, &m, &golden_err));
}

/* Random coefficients for some layers of the content and some of the style. */
static inline weft_tensors *zip_file(const spec *s)
{
    static char      name[1024][600];
    weft_tensor_out *t = calloc(1024, sizeof *t);
    uint64_t         r = s->seed + 77;
    size_t           n = 0;
    weft_tensors    *out;

    for (size_t l = 0; l < net.count && n < 1000; l++)
        for (int which = 0; which < 2; which++) {
            const wf_layer *layer = &net.layers[l];
            if (layer->component != WEFT_COMPONENT_DENOISER || layer->kind == WEFT_LAYER_NORM || chance(&r, 4))
                continue;
            float *v = malloc(naive_columns(layer) * sizeof *v);
            for (size_t i = 0; i < naive_columns(layer); i++) v[i] = (float)(1.5 * unit(&r));
            snprintf(name[n], sizeof name[n], "%s.zip.m_%c", layer->name, "cs"[which]);
            weft_tensor_out_init(&t[n], sizeof t[n]);
            t[n].name = name[n], t[n].data = v, t[n].rank = 1, t[n].shape[0] = (int64_t)naive_columns(layer);
            n++;
        }
    must(weft_tensors_create(t, n, NULL, 0, NULL, &out, &golden_err));
    for (size_t i = 0; i < n; i++) free((void *)(uintptr_t)t[i].data);
    free(t);
    return out;
}

static inline void set_method(weft_plan *plan, const spec *s, const phase *p)
{
    weft_status st;

    if (p->method == MERGE) must(weft_plan_merge(plan, &golden_err));
    if (p->method == SWITCH) must(weft_plan_switch(plan, &p->sw, &golden_err));
    if (p->method == COMPOSITE) must(weft_plan_composite(plan, &p->composite, &golden_err));
    if (p->method == KLORA) must(weft_plan_klora(plan, &p->klora, &golden_err));
    if (p->method == BLORA) must(weft_plan_blora(plan, &p->blora, &golden_err));
    if (p->method == BLEND) must(weft_plan_blend(plan, &p->blend, &golden_err));
    if (p->method == LORATORIO) must(weft_plan_loratorio(plan, &p->loratorio, &golden_err));
    if (p->method == SUBBANDS) must(weft_plan_subbands(plan, &p->subbands, &golden_err));
    if (p->method != ZIP) return;
    weft_zip_options o = p->zip;
    if (p->from_file) {
        o.coefficients = zip_file(s);
        o.flags &= ~(uint32_t)WEFT_ZIP_LAMBDA; /* the file's are final */
        o.lambda = 0;
    }
    st = weft_plan_zip(plan, &o, &golden_err);
    weft_tensors_free(o.coefficients);
    must(st);
}

/* All but sealed. */
static inline weft_plan *build(const spec *s)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *plan;

    o.path = s->path, o.text = s->text;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    for (int a = 0; a < s->adapters; a++) add_part(plan, &s->part[a], a);
    for (int i = 0; i < s->phases; i++) {
        weft_phase_options po = WEFT_PHASE_OPTIONS_INIT;
        if (i > 0 && s->phase[i].by_share) po.flags = WEFT_PHASE_AT, po.at = (s->phase[i].first - 0.5) / s->calls;
        else po.first = s->phase[i].first;
        if (i > 0) must(weft_plan_begin_phase(plan, &po, &golden_err));
        set_method(plan, s, &s->phase[i]);
    }
    for (int i = 0; i < s->regions; i++) {
        const area *x = &s->region[i];
        weft_region o2 = WEFT_REGION_INIT;
        weft_mask   m = mask_of(x->mask, x->mh, x->mw);
        o2.flags = (x->adapter >= 0 ? WEFT_REGION_ADAPTER : 0) | (x->isolated ? WEFT_REGION_ISOLATED : 0);
        if (x->adapter >= 0) o2.adapter = x->adapter;
        else o2.mask = &m;
        must(weft_plan_add_region(plan, &o2, &golden_err));
    }
    if (s->balanced) must(weft_plan_balance(plan, &s->balance, &golden_err));
    return plan;
}

/* ---- the table, once more -------------------------------------------------------------------- */

static inline bool selected(const part *p, size_t layer)
{
    const char *name = net.layers[layer].name;
    if (p->of->family[layer] < 0) return false;
    if (p->select != NULL && !any_glob(p->select, name)) {
        const char *space = strchr(p->select, ' '); /* the one list with a blank in it */
        if (space == NULL || !any_glob(space + 1, name)) return false;
    }
    return p->exclude == NULL || !any_glob(p->exclude, name);
}

static inline bool has(const part *p, size_t layer) { return p->here[layer]; }
static inline bool of_unet(size_t layer) { return net.layers[layer].component == WEFT_COMPONENT_DENOISER; }
static inline bool is_matrix(size_t layer) { return of_unet(layer) && net.layers[layer].kind != WEFT_LAYER_NORM; }

/* Which of the 20 blocks, or -1: conv_in is IN00, each level two resnets and what halves it. */
static inline int block_of(size_t layer)
{
    const char *s = net.layers[layer].name;
    int         i, j;

    if (!of_unet(layer)) return 0;
    if (strncmp(s, "unet.conv_in", 12) == 0) return 1;
    if (strncmp(s, "unet.mid_block", 14) == 0) return 10;
    if (sscanf(s, "unet.down_blocks.%d.downsamplers", &i) == 1 && strstr(s, "downsamplers") != NULL)
        return 1 + 3 * (i + 1);
    if (sscanf(s, "unet.up_blocks.%d.upsamplers", &i) == 1 && strstr(s, "upsamplers") != NULL)
        return 11 + 3 * i + 2;
    if (sscanf(s, "unet.down_blocks.%d.%*[a-z].%d", &i, &j) == 2) return 1 + 3 * i + 1 + j;
    if (sscanf(s, "unet.up_blocks.%d.%*[a-z].%d", &i, &j) == 2) return 11 + 3 * i + j;
    return -1;
}

static inline double block_factor(const part *p, size_t layer)
{
    int    slot = block[layer];
    double f = slot >= 0 ? p->blocks.slot[slot] : 1;

    if (!p->has_blocks) return 1;
    for (int i = 0; i < 2; i++)
        if (p->blocks.pattern[i] != NULL && glob(p->blocks.pattern[i], net.layers[layer].name))
            f = p->blocks.over[i];
    return f;
}

static inline double curve_value(const part *p, int call, int calls)
{
    double x = p->by_share ? (double)call / calls : call;
    int    i = p->points - 1;

    if (p->points == 0) return 1;
    if (x < p->point[0].at) return p->point[0].value;
    while (p->point[i].at > x) i--; /* the last that is not past x */
    if (i == p->points - 1 || p->point[i].shape == WEFT_CURVE_HOLD) return p->point[i].value;
    double a = p->point[i].value, b = p->point[i + 1].value;
    double u = (x - p->point[i].at) / (p->point[i + 1].at - p->point[i].at);
    if (p->point[i].shape == WEFT_CURVE_COSINE) u = 0.5 - 0.5 * cos(3.14159265358979323846 * u);
    return a + (b - a) * u;
}

/* Content or style, of two also by what the other is. */
static inline bool stylish(const spec *s, int a)
{
    if (s->part[a].role != WEFT_ROLE_NONE) return s->part[a].role == WEFT_ROLE_STYLE;
    if (s->part[1 - a].role != WEFT_ROLE_NONE) return s->part[1 - a].role == WEFT_ROLE_CONTENT;
    return a == 1;
}

static inline int switch_turn(const spec *s, const phase *p, int n)
{
    int    turns = p->sw.order != NULL ? (int)p->sw.order_len : s->adapters;
    int    period = p->sw.period > 0 ? p->sw.period : 5, of[8], calls[8], cycle = turns * period, left = cycle;
    double sum = 0, rest[8];

    if (n >= p->end - p->first - p->sw.last_calls) return p->sw.last_adapter;
    if (p->sw.flags & WEFT_SWITCH_OFFICIAL_OFFSET) n = n > 0 ? n - 1 : 0;
    for (int t = 0; t < turns; t++) {
        of[t] = p->sw.order != NULL ? p->sw.order[t] : t;
        calls[t] = period;
        sum += (double)s->part[of[t]].share;
    }
    for (int t = 0; t < turns && (p->sw.flags & WEFT_SWITCH_SHARES); t++) {
        double exact = (double)s->part[of[t]].share * cycle / sum;
        calls[t] = (int)floor(exact);
        rest[t] = exact - calls[t];
        left -= calls[t];
    }
    for (; (p->sw.flags & WEFT_SWITCH_SHARES) && left > 0; left--) {
        int most = 0;
        for (int t = 1; t < turns; t++)
            if (rest[t] > rest[most]) most = t;
        calls[most]++;
        rest[most] = -1;
    }
    n %= cycle;
    for (int t = 0;; t++) {
        if (n < calls[t]) return of[t];
        n -= calls[t];
    }
}

/* ---- K-LoRA ---------------------------------------------------------------------------------- */

static inline int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static inline bool governs(const spec *s, const phase *p, size_t layer)
{
    if (!is_matrix(layer)) return false;
    if ((p->klora.flags & WEFT_KLORA_ATTENTION_ONLY) && !net.layers[layer].attention) return false;
    for (int a = 0; a < s->adapters; a++)
        if (has(&s->part[a], layer)) return true;
    return false;
}

static inline size_t entries(size_t layer) { return (size_t)net.layers[layer].out * naive_columns(&net.layers[layer]); }

/* The sum of |entries|, and of the K largest of them. */
static inline double sum_of(const part *p, size_t layer, size_t K, double *top)
{
    size_t  n = entries(layer);
    double *v = naive_zeros(n), all = 0;

    for (size_t i = 0; i < n; i++) all += v[i] = fabs(p->of->w[layer][i]);
    if (top != NULL) {
        qsort(v, n, sizeof *v, descending);
        *top = 0;
        for (size_t i = 0; i < K; i++) *top += v[i];
    }
    free(v);
    return all;
}

static inline double energy_of(const part *p, size_t layer)
{
    double sum = 0;
    for (size_t i = 0; i < entries(layer); i++) sum += pow(p->of->w[layer][i], 2);
    return sqrt(sum);
}

/* g = how many times as strong `own` is as `other`, over the layers where both have something. */
static inline double gamma_of(const double *own, const double *other, size_t n, int kind)
{
    double mean = 0, kept = 0, mine = 0, its = 0;
    int    pairs = 0, near = 0;

    for (size_t l = 0; l < n; l++) {
        if (own[l] <= 0 || other[l] <= 0) continue;
        mean += own[l] / other[l];
        mine += own[l], its += other[l];
        pairs++;
    }
    if (pairs == 0 || kind == WEFT_KLORA_GAMMA_NONE) return 1;
    if (kind == WEFT_KLORA_GAMMA_PAPER) return mine / its;
    mean /= pairs;
    for (size_t l = 0; l < n; l++) {
        if (own[l] <= 0 || other[l] <= 0 || own[l] / other[l] >= 3 * mean) continue;
        kept += own[l] / other[l];
        near++;
    }
    return kept / near;
}

static inline int rank_of(const part *p, size_t layer)
{
    const wf_layer *l = &net.layers[layer];
    size_t          K = naive_columns(l);
    if (!has(p, layer)) return 1;
    return p->of->rank[layer] > 0 ? p->of->rank[layer] : (int)((size_t)l->out < K ? (size_t)l->out : K);
}

/* The best content and style of every layer, -1: none, and how they compare. Checked against what the
 * library says that it saw, which then decides: it reads the same deltas in single precision. */
static inline void klora_scores(const spec *s, const phase *p, const weft_plan *plan, int (*best)[2], double *rho)
{
    size_t         n = net.count;
    double        *score = naive_zeros(n * NAIVE_ADAPTERS), *all = naive_zeros(n * NAIVE_ADAPTERS);
    double         g[NAIVE_ADAPTERS];
    int            first = 0, position = 0;

    while (stylish(s, first)) first++;
    for (size_t l = 0; l < n; l++) {
        size_t most[2] = { 1, 1 }, K;
        if (!governs(s, p, l)) continue;
        for (int a = 0; a < s->adapters; a++)
            if ((size_t)rank_of(&s->part[a], l) > most[stylish(s, a)])
                most[stylish(s, a)] = (size_t)rank_of(&s->part[a], l);
        K = p->klora.top_k > 0 ? (size_t)p->klora.top_k : most[0] * most[1];
        if (K > entries(l)) K = entries(l);
        for (int a = 0; a < s->adapters; a++) {
            double *to = &score[(size_t)a * n + l];
            if (!has(&s->part[a], l)) continue;
            if (p->klora.score == WEFT_KLORA_ENERGY) all[(size_t)a * n + l] = *to = energy_of(&s->part[a], l);
            else all[(size_t)a * n + l] = sum_of(&s->part[a], l, K, to);
        }
    }
    for (int a = 0; a < s->adapters; a++)
        g[a] = a == first ? 1 : gamma_of(all + (size_t)first * n, all + (size_t)a * n, n, p->klora.gamma);
    for (size_t l = 0; l < n; l++) {
        double           top[2] = { 0, 0 };
        weft_klora_score k = WEFT_KLORA_SCORE_INIT;
        best[l][0] = best[l][1] = -1;
        HOLDS(weft_plan_klora_score(plan, p->first, (int64_t)l, &k, &golden_err) == WEFT_OK, "%s", golden_err.text);
        HOLDS(k.position == (governs(s, p, l) ? ++position : 0), "plan %llu: layer %zu is the %d. that is governed",
              (unsigned long long)s->seed, l, k.position);
        for (int a = 0; a < s->adapters && governs(s, p, l); a++) {
            double v = g[a] * score[(size_t)a * n + l];
            if (v <= top[stylish(s, a)]) continue;
            top[stylish(s, a)] = v;
            best[l][stylish(s, a)] = a;
        }
        rho[l] = k.rho;
        if (best[l][0] < 0 || best[l][1] < 0) continue;
        HOLDS(k.content_index == best[l][0] && k.style_index == best[l][1], "plan %llu: %d against %d in layer %zu",
              (unsigned long long)s->seed, k.content_index, k.style_index, l);
        HOLDS(fabs(k.rho - top[0] / top[1]) <= 1e-5 * k.rho, "plan %llu: rho %.9g of layer %zu, wanted %.9g",
              (unsigned long long)s->seed, k.rho, l, top[0] / top[1]);
    }
    free(score), free(all);
}

/* Whose a layer is at call n of N; -1: nobody's. */
static inline int klora_winner(const phase *p, const int best[2], double rho, int n, int l, int L)
{
    int    N = p->end - p->first;
    double tau, S;

    if (best[0] < 0 || best[1] < 0) return best[0] < 0 ? best[1] : best[0];
    if (p->klora.pattern == WEFT_KLORA_FIXED)
        return best[(double)n / N >= (p->klora.share > 0 ? p->klora.share : 1.0 / 3)];
    tau = p->klora.granularity == WEFT_KLORA_BY_STEP ? (double)n / N : (double)(n * L + l) / (double)(N * L);
    if ((p->klora.flags & WEFT_KLORA_WRAP) && p->klora.granularity == WEFT_KLORA_BY_CALL && tau == 1) tau = 0;
    switch (p->klora.pattern) {
    case WEFT_KLORA_S: S = 1.5 * tau + 0.5; break;
    case WEFT_KLORA_CUSTOM:
        S = p->klora.alpha * tau + p->klora.beta;
        if (p->klora.modulus > 0) S = fmod(S, p->klora.modulus);
        break;
    default: S = fmod(1.5 * tau + (p->klora.flags & WEFT_KLORA_PAPER_BETA ? 1.3 : 1.275), 1.5);
    }
    return best[rho > S ? 0 : 1];
}

/* ---- zip ------------------------------------------------------------------------------------- */

/* min over m, n >= 0 of a (m - 1)^2 + b (n - 1)^2 + 2 lambda sqrt(a b) m n, by trying its corners: both
 * derivatives zero, or one of the two at the border. */
static inline void zip_pair(double a, double b, double lambda, double *m, double *n)
{
    double best = INFINITY, t = lambda * sqrt(a * b), det = a * b - t * t;
    double try[3][2] = { { 1, 0 }, { 0, 1 }, { -1, -1 } };

    if (det > 0) try[2][0] = (a * b - t * b) / det, try[2][1] = (a * b - t * a) / det;
    for (int i = 0; i < 3; i++) {
        double x = try[i][0], y = try[i][1];
        if (x < 0 || y < 0) continue;
        double v = a * pow(x - 1, 2) + b * pow(y - 1, 2) + 2 * t * x * y;
        if (v < best) best = v, *m = x, *n = y;
    }
}

static inline void zip_columns(const spec *s, phase *p)
{
    weft_tensors *file = p->from_file ? zip_file(s) : NULL;
    double        lambda = (p->zip.flags & WEFT_ZIP_LAMBDA) ? p->zip.lambda : 1;
    int           of[2] = { stylish(s, 0) ? 1 : 0, stylish(s, 0) ? 0 : 1 };

    for (size_t l = 0; l < net.count; l++) {
        size_t  K = naive_columns(&net.layers[l]);
        double *sq[2] = { naive_zeros(K), naive_zeros(K) }, all[2] = { 0, 0 };
        bool    both = is_matrix(l) && has(&s->part[0], l) && has(&s->part[1], l);
        for (int which = 0; which < 2 && both && file == NULL; which++) {
            const double *d = s->part[of[which]].of->w[l];
            p->column[which][l] = naive_zeros(K);
            for (size_t i = 0; i < entries(l); i++) sq[which][i % K] += d[i] * d[i], all[which] += d[i] * d[i];
        }
        for (size_t k = 0; k < K && both && file == NULL; k++) {
            double a = sq[0][k] / all[0], b = sq[1][k] / all[1], m = 1, n = 1;
            if (a > 0 && b > 0) zip_pair(a, b, lambda, &m, &n);
            p->column[0][l][k] = m, p->column[1][l][k] = n;
        }
        for (int which = 0; which < 2 && file != NULL && is_matrix(l); which++) {
            char name[600];
            snprintf(name, sizeof name, "%s.zip.m_%c", net.layers[l].name, "cs"[which]);
            if (has(&s->part[of[which]], l)) p->column[which][l] = naive_read(file, name, K);
        }
        free(sq[0]), free(sq[1]);
    }
    weft_tensors_free(file);
}

/* ---- one cell -------------------------------------------------------------------------------- */

typedef struct table {
    int    best[PHASES][512][2];
    double rho[PHASES][512];
    int    position[PHASES][512], governed[PHASES];
} table;

static inline int masks_before(const spec *s, int adapter)
{
    int n = 0;
    for (int a = 0; a < adapter; a++) n += s->part[a].masked;
    return n;
}

static inline int branches_at(const spec *s, const phase *p, int n)
{
    if (p->method == COMPOSITE || p->method == LORATORIO || p->method == SUBBANDS) return s->adapters;
    if (p->method == BLEND && n >= p->blend.start) return 1 + masks_before(s, s->adapters);
    return 1;
}

/* What the method has for a cell, before the weight. */
static inline double chosen(const spec *s, const table *t, int i, int n, int branch, size_t layer, int a)
{
    const phase *p = &s->phase[i];
    const char  *name = net.layers[layer].name;
    bool         style;

    switch (p->method) {
    case SWITCH: return switch_turn(s, p, n) == a;
    case COMPOSITE: case LORATORIO: case SUBBANDS: return branch == a;
    case KLORA:
        if (t->position[i][layer] == 0) return 0;
        return klora_winner(p, t->best[i][layer], t->rho[i][layer], n, t->position[i][layer], t->governed[i]) == a;
    case ZIP: return stylish(s, a) && (p->zip.flags & WEFT_ZIP_STYLE) ? p->zip.style : 1;
    case BLEND: return !s->part[a].masked || branch == 1 + masks_before(s, a);
    case BLORA:
        style = p->blora.style != NULL ? any_glob(p->blora.style, name)
                                       : glob("unet.down_blocks.0.*", name) || glob("unet.up_blocks.2.*", name);
        bool content = p->blora.content != NULL
                           ? any_glob(p->blora.content, name)
                           : glob("unet.down_blocks.1.*", name) || glob("unet.up_blocks.1.*", name) ||
                                 glob("unet.mid_block.*", name);
        bool both = s->adapters == 1 && s->part[a].role == WEFT_ROLE_NONE;
        bool acts = both ? content || style : s->adapters == 1 ? (s->part[a].role == WEFT_ROLE_STYLE ? style : content)
                                                                : stylish(s, a) ? style : content;
        return !acts ? 0 : p->blora.flags & WEFT_BLORA_SQUARED ? (double)s->part[a].weight : 1;
    default: return 1;
    }
}

static inline double text_cell(const spec *s, size_t layer, int a)
{
    int method = s->phase[0].method, who = s->text;
    if (who == WEFT_TEXT_METHOD)
        who = method == SWITCH ? WEFT_TEXT_FIRST : method == KLORA || method == BLORA ? WEFT_TEXT_NONE : WEFT_TEXT_ALL;
    if (who == WEFT_TEXT_NONE || (who == WEFT_TEXT_FIRST && a > 0) || !has(&s->part[a], layer)) return 0;
    return (double)(float)((double)s->part[a].text * block_factor(&s->part[a], layer));
}

static inline double cell_at(const spec *s, const table *t, int i, int call, int branch, size_t layer, int a)
{
    const part *p = &s->part[a];
    if (!of_unet(layer)) return text_cell(s, layer, a);
    if (!has(p, layer)) return 0;
    return (double)(float)(chosen(s, t, i, call - s->phase[i].first, branch, layer, a) *
                           ((double)p->weight * block_factor(p, layer)) * s->factor[a] *
                           curve_value(p, call, s->calls));
}

static inline int phase_at(const spec *s, int call)
{
    int i = 0;
    while (call >= s->phase[i].end) i++;
    return i;
}

/* ---- the table against the library's --------------------------------------------------------- */

static inline void check_balance(spec *s, const weft_plan *plan)
{
    double *sum[NAIVE_ADAPTERS];

    for (int a = 0; a < s->adapters; a++) {
        sum[a] = naive_zeros(net.count);
        s->factor[a] = 1;
        for (size_t l = 0; l < net.count && s->balanced; l++)
            if (is_matrix(l) && has(&s->part[a], l)) sum[a][l] = sum_of(&s->part[a], l, 0, NULL);
    }
    for (int a = 0; a < s->adapters && s->balanced; a++) {
        weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
        double want = a == s->balance.reference ? 1
                          : gamma_of(sum[s->balance.reference], sum[a], net.count, s->balance.gamma);
        must(weft_plan_adapter(plan, a, &info, &golden_err));
        ck_assert_msg(fabs(info.balance - want) <= 1e-5 * want, "plan %llu: balance of %d is %.9g, wanted %.9g",
                      (unsigned long long)s->seed, a, info.balance, want);
        s->factor[a] = info.balance; /* its deltas are floats */
    }
    for (int a = 0; a < s->adapters; a++) free(sum[a]);
}

static inline void learn(spec *s, table *t, const weft_plan *plan)
{
    memset(t, 0, sizeof *t);
    for (int i = 0; i < s->phases; i++) {
        phase *p = &s->phase[i];
        if (p->method == ZIP) zip_columns(s, p);
        if (p->method != KLORA) continue;
        for (size_t l = 0; l < net.count; l++)
            if (governs(s, p, l)) t->position[i][l] = ++t->governed[i];
        if (p->klora.pattern != WEFT_KLORA_FIXED) {
            klora_scores(s, p, plan, t->best[i], t->rho[i]);
            continue;
        }
        for (size_t l = 0; l < net.count; l++)
            for (int a = 0; a < 2; a++) t->best[i][l][stylish(s, a)] = a;
    }
}

static const double *columns_of(const spec *s, const phase *p, size_t layer, int a)
{
    return p->method == ZIP && of_unet(layer) ? p->column[stylish(s, a) ? 1 : 0][layer] : NULL;
}

/* The vector that a cell names is as (ky, kx, in), ours as stored. */
static inline void check_vector(const spec *s, const weft_plan *plan, int call, size_t layer, int a, const double *want)
{
    const wf_sheet *sheet = wf_plan_phase(plan, call);
    const wf_layer *l = &net.layers[layer];
    wf_cell         c = wf_sheet_cell(sheet, wf_sheet_row(sheet, call), 0, (int64_t)layer, a);
    size_t          taps = (size_t)(l->kernel * l->kernel), in = (size_t)l->in;

    for (size_t i = 0; i < in; i++)
        for (size_t k = 0; k < taps; k++) {
            double got = (double)sheet->vectors[c.vector - 1][k * in + i];
            HOLDS(fabs(got - want[i * taps + k]) <= 1e-5, "plan %llu: %s, column %zu is %.9g, wanted %.9g",
                  (unsigned long long)s->seed, l->name, i * taps + k, got, want[i * taps + k]);
        }
}

static inline void check_cell(const spec *s, const table *t, const weft_plan *plan, int i, int call, int branch,
                       size_t layer, int a)
{
    const phase  *p = &s->phase[i];
    weft_cell     c = WEFT_CELL_INIT;
    double        want = cell_at(s, t, i, call, branch, layer, a);
    const double *columns = columns_of(s, p, layer, a);
    int           kind = WEFT_CELL_NUMBER;

    HOLDS(weft_plan_cell(plan, call, branch, (int64_t)layer, a, &c, &golden_err) == WEFT_OK, "%s",
          golden_err.text);
    HOLDS(fabs((double)c.number - want) <= 1e-12 * fmax(1, fabs(want)),
          "plan %llu (%s): call %d, branch %d, %s, adapter %d: %.9g, wanted %.9g",
          (unsigned long long)s->seed, titles[p->method], call, branch, net.layers[layer].name, a,
          (double)c.number, want);
    if (want == 0) return;
    if (of_unet(layer) && s->part[a].masked && p->method != BLEND) kind |= WEFT_CELL_MASK;
    if (columns != NULL) kind |= WEFT_CELL_VECTOR;
    HOLDS(c.kind == kind, "plan %llu: the kind of a cell is %d, wanted %d", (unsigned long long)s->seed, c.kind, kind);
    if (columns != NULL && call == p->first) check_vector(s, plan, call, layer, a, columns);
}

static inline void check_table(const spec *s, const table *t, const weft_plan *plan)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    must(weft_plan_info_get(plan, &info, &golden_err));
    ck_assert_int_eq(info.phases, s->phases);
    for (int call = 0; call < s->calls; call++) {
        int            i = phase_at(s, call);
        const phase   *p = &s->phase[i];
        weft_call_info about = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(plan, call, &about, &golden_err));
        ck_assert_int_eq(about.phase, i);
        ck_assert_int_eq(about.branches, branches_at(s, p, call - p->first));
        ck_assert_int_eq(about.evaluations, about.branches + (p->method == LORATORIO || p->method == SUBBANDS));
        for (int b = 0; b < about.branches; b++)
            for (size_t l = 0; l < net.count; l++)
                for (int a = 0; a < s->adapters; a++) check_cell(s, t, plan, i, call, b, l, a);
    }
}

/* ---- what comes of the predictions ----------------------------------------------------------- */

/* e [half][branch], the base's last; out [N]. */
typedef struct predictions {
    double e[2][BRANCHES + 1][N];
    int    branches;
} predictions;

static inline double cosine_of(const double *a, const double *b, int top, int left, int patch)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < N; i++) {
        int y = i % PIXELS / W, x = i % W;
        if (y < top || y >= top + patch || x < left || x >= left + patch) continue;
        ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* Weights from scores of which the highest count most: `keep` of them, times shares. */
static inline void normalise(const spec *s, const double *raw, const double *score, int keep, double *weight)
{
    double sum = 0;
    for (int a = 0; a < s->adapters; a++) {
        int above = 0;
        for (int k = 0; k < s->adapters; k++) above += score[k] > score[a];
        weight[a] = keep > 0 && above >= keep ? 0 : (double)s->part[a].share * raw[a];
        sum += weight[a];
    }
    for (int a = 0; a < s->adapters; a++) weight[a] /= sum;
}

static inline void mix_patches(const spec *s, const phase *p, const predictions *x, int half, double *out)
{
    int    patch = p->loratorio.patch > 0 ? p->loratorio.patch : 8;
    double T = p->loratorio.temperature > 0 ? (double)p->loratorio.temperature : (double)0.1f;
    double base = half == 1 ? 0 : p->loratorio.flags & WEFT_LORATORIO_BASE ? (double)p->loratorio.base : 0.5;

    for (int i = 0; i < N; i++) {
        int    top = i % PIXELS / W / patch * patch, left = i % W / patch * patch;
        double raw[BRANCHES], score[BRANCHES], weight[BRANCHES];
        for (int a = 0; a < s->adapters; a++) {
            double c = cosine_of(x->e[1][a], x->e[1][x->branches], top, left, patch);
            raw[a] = exp((1 - c) / T);
            score[a] = -c;
        }
        normalise(s, raw, score, p->loratorio.keep, weight);
        out[i] = base * x->e[half][x->branches][i];
        for (int a = 0; a < s->adapters; a++) out[i] += (1 - base) * weight[a] * x->e[half][a][i];
    }
}

/* One level of the Haar transform of lines of n values, `step` apart, at v. */
static inline void haar(double *v, int step, int n, bool back)
{
    double t[16];
    int    low = (n + 1) / 2;

    for (int i = 0; i < low; i++) {
        bool   lone = 2 * i + 1 == n;
        double a = v[(back ? i : 2 * i) * step], b = lone ? 0 : v[(back ? low + i : 2 * i + 1) * step];
        if (lone) t[back ? 2 * i : i] = back ? a / sqrt(2) : a * sqrt(2);
        else t[back ? 2 * i : i] = (a + b) / sqrt(2), t[back ? 2 * i + 1 : low + i] = (a - b) / sqrt(2);
    }
    for (int i = 0; i < n; i++) v[i * step] = t[i];
}

static inline void transform(double *v, int levels, bool back)
{
    for (int l = back ? levels - 1 : 0; back ? l >= 0 : l < levels; l += back ? -1 : 1) {
        int h = H, w = W;
        for (int k = 0; k < l; k++) h = (h + 1) / 2, w = (w + 1) / 2;
        for (int c = 0; c < 4; c++) {
            for (int y = 0; y < h && !back; y++) haar(v + c * PIXELS + y * W, 1, w, false);
            for (int x = 0; x < w; x++) haar(v + c * PIXELS + x, W, h, back);
            for (int y = 0; y < h && back; y++) haar(v + c * PIXELS + y * W, 1, w, true);
        }
    }
}

/* Which band a coefficient at (y, x) is in: 3 of each level, and what is left. */
static inline int band_at(int y, int x, int levels)
{
    int h = H, w = W;
    for (int l = 0; l < levels; l++, h = (h + 1) / 2, w = (w + 1) / 2) {
        bool down = y >= (h + 1) / 2, right = x >= (w + 1) / 2;
        if (down || right) return 3 * l + (down ? 1 + right : 0);
    }
    return 3 * levels;
}

static inline void mix_bands(const spec *s, const phase *p, const predictions *x, int half, double *out)
{
    int    levels = p->subbands.levels > 0 ? p->subbands.levels : 2, bands = 3 * levels + 1;
    double sharp = p->subbands.flags & WEFT_SUBBANDS_SHARPNESS ? (double)p->subbands.sharpness : 1;
    double d[BRANCHES][N], e[BRANCHES][N], rms[16][BRANCHES];

    for (int a = 0; a < s->adapters; a++) {
        for (int i = 0; i < N; i++) d[a][i] = x->e[1][a][i] - x->e[1][x->branches][i];
        memcpy(e[a], x->e[half][a], sizeof e[a]);
        transform(d[a], levels, false);
        transform(e[a], levels, false);
        for (int k = 0; k < bands; k++) {
            double sum = 0, n = 0;
            for (int i = 0; i < N; i++)
                if (band_at(i % PIXELS / W, i % W, levels) == k) sum += d[a][i] * d[a][i], n++;
            rms[k][a] = n > 0 ? sqrt(sum / n) : 0;
        }
    }
    for (int i = 0; i < N; i++) {
        const double *score = rms[band_at(i % PIXELS / W, i % W, levels)];
        double        raw[BRANCHES], weight[BRANCHES], most = 0;
        for (int a = 0; a < s->adapters; a++) most = fmax(most, score[a]);
        for (int a = 0; a < s->adapters; a++) raw[a] = most > 0 ? pow(score[a] / most, sharp) : 1;
        normalise(s, raw, score, p->subbands.keep, weight);
        out[i] = 0;
        for (int a = 0; a < s->adapters; a++) out[i] += weight[a] * e[a][i];
    }
    transform(out, levels, true);
}

static inline void mix_places(const spec *s, const predictions *x, int half, const naive_mask *mask, double *out)
{
    for (int i = 0; i < N; i++) {
        double sum = 0;
        out[i] = 0;
        for (int a = 0, b = 1; a < s->adapters; a++) {
            if (!s->part[a].masked) continue;
            double m = naive_rows(&mask[a], H, W)[i % PIXELS]; /* they share a place already */
            out[i] += m * x->e[half][b++][i];
            sum += m;
        }
        out[i] += fmax(0, 1 - sum) * x->e[half][0][i];
    }
}

static inline void mix(const spec *s, const phase *p, const predictions *x, int half, bool guided,
                const naive_mask *mask, double *out)
{
    double sum = 0;

    if (p->method == LORATORIO) mix_patches(s, p, x, half, out);
    else if (p->method == SUBBANDS) mix_bands(s, p, x, half, out);
    else if (p->method == BLEND && x->branches > 1) mix_places(s, x, half, mask, out);
    else if (p->method != COMPOSITE) memcpy(out, x->e[half][0], N * sizeof *out);
    else if (!guided && (p->composite.flags & WEFT_COMPOSITE_NOCFG_LAST))
        memcpy(out, x->e[half][s->adapters - 1], N * sizeof *out);
    else {
        for (int a = 0; a < s->adapters; a++) sum += (double)s->part[a].share;
        if (p->composite.flags & WEFT_COMPOSITE_DIVIDE_BY_COUNT) sum = s->adapters;
        for (int i = 0; i < N; i++) {
            out[i] = 0;
            for (int a = 0; a < s->adapters; a++) out[i] += (double)s->part[a].share * x->e[half][a][i] / sum;
        }
    }
}

/* ---- one call -------------------------------------------------------------------------------- */

/* Masks of adapters in all sizes, divided where they sum to more than 1. */
static inline void make_masks(const spec *s, naive_mask *mask)
{
    for (int a = 0; a < s->adapters; a++) {
        const part *p = &s->part[a];
        mask[a] = (naive_mask){ 0 };
        if (p->masked) mask[a] = naive_mask_of(H, W, p->mask, p->mh, p->mw, (double)(float)p->mask_text);
    }
    for (int level = 0, h = H, w = W; level < NAIVE_LEVELS; level++, h = (h + 1) / 2, w = (w + 1) / 2)
        for (int i = 0; i < h * w; i++) {
            double sum = 0;
            for (int a = 0; a < s->adapters; a++)
                if (s->part[a].masked) sum += mask[a].value[level][i];
            for (int a = 0; a < s->adapters && sum > 1; a++)
                if (s->part[a].masked && !s->part[a].adds) mask[a].value[level][i] /= sum;
        }
}

static naive_act     act[512][NAIVE_ADAPTERS];
static int           acts[512];

/* Which coefficients a branch has; branch -1: the base. */
static inline void hang(const spec *s, const table *t, int call, int branch)
{
    int          i = phase_at(s, call);
    const phase *p = &s->phase[i];

    for (size_t l = 0; l < net.count; l++) {
        acts[l] = 0;
        for (int a = 0; a < s->adapters && branch >= 0 && of_unet(l); a++) {
            const part *x = &s->part[a];
            double      c = cell_at(s, t, i, call, branch, l, a);
            int         region = -1;
            for (int r = 0; r < s->regions; r++)
                if (s->region[r].adapter == a) region = r;
            if (c == 0) continue;
            act[l][acts[l]++] = (naive_act){ .c = c, .columns = columns_of(s, p, l, a), .region = region,
                                             .mask = x->masked && p->method != BLEND ? a : -1,
                                             .w = x->of->w[l], .b = x->of->b[l] };
        }
    }
}

/* Random floats that stand for what a text encoder made. */
static inline void fill(float *v, size_t n, uint64_t seed)
{
    weft_noise *noise;
    must(weft_noise_create(seed, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, v, n, &golden_err));
    weft_noise_free(noise);
}

typedef struct asked {
    int   call;
    bool  guided, split, each; /* text for each branch */
    float latent[N], timestep, guidance;
    float text[2][BRANCHES * TEXT], region[2][NAIVE_REGIONS * TEXT];
} asked;

static inline void draw_call(asked *q, const spec *s, int call)
{
    uint64_t r = s->seed * 1000 + (uint64_t)call;
    q->call = call;
    q->guided = chance(&r, 3), q->split = chance(&r, 2), q->each = chance(&r, 3);
    q->timestep = (float)(1 + below(&r, 990));
    q->guidance = (float)(1.5 + 4 * unit(&r));
    fill(q->latent, N, r);
    for (int h = 0; h < 2; h++) {
        fill(q->text[h], BRANCHES * TEXT, r + 1 + (uint64_t)h);
        fill(q->region[h], NAIVE_REGIONS * TEXT, r + 3 + (uint64_t)h);
    }
}

static inline void predict_naively(const spec *s, const table *t, const asked *q, double *out)
{
    const phase *p = &s->phase[phase_at(s, q->call)];
    bool         base = p->method == LORATORIO || p->method == SUBBANDS;
    naive_mask   mask[NAIVE_ADAPTERS], region[NAIVE_REGIONS];
    predictions *x = calloc(1, sizeof *x);
    double       half[2][N];
    naive_eval   e = { .net = &net, .act = (const naive_act(*)[NAIVE_ADAPTERS])act, .acts = acts, .mask = mask, .h = H,
                       .w = W, .tokens = TOKENS, .regions = s->regions, .region = region,
                       .timestep = (double)q->timestep };

    make_masks(s, mask);
    for (int r = 0; r < s->regions; r++) {
        region[r] = naive_mask_of(H, W, s->region[r].mask, s->region[r].mh, s->region[r].mw, 1);
        e.isolated[r] = s->region[r].isolated;
    }
    x->branches = branches_at(s, p, q->call - p->first);
    for (int h = q->guided ? 0 : 1; h < 2; h++)
        for (int b = 0; b < x->branches + base; b++) {
            bool own = b < x->branches && q->each;
            hang(s, t, q->call, b < x->branches ? b : -1);
            e.text[0] = q->text[h] + (own ? b * TEXT : 0);
            for (int r = 0; r < s->regions; r++) e.text[1 + r] = q->region[h] + r * TEXT;
            naive_predict(e, x->e[h][b], q->latent);
        }
    for (int h = q->guided ? 0 : 1; h < 2; h++) mix(s, p, x, h, q->guided, mask, half[h]);
    for (int i = 0; i < N; i++)
        out[i] = q->guided ? half[0][i] + (double)q->guidance * (half[1][i] - half[0][i]) : half[1][i];
    for (int a = 0; a < s->adapters; a++) naive_mask_free(&mask[a]);
    for (int r = 0; r < s->regions; r++) naive_mask_free(&region[r]);
    free(x);
}

static inline void predict(weft_run *run, const spec *s, const asked *q, float *out)
{
    const phase *p = &s->phase[phase_at(s, q->call)];
    weft_step    step = WEFT_STEP_INIT;
    weft_text    text[2], region[2][NAIVE_REGIONS];
    int          blocks = q->each ? branches_at(s, p, q->call - p->first) : 1;

    for (int h = 0; h < 2; h++) {
        text[h] = plain_text(q->text[h], (size_t)(blocks * TEXT), TOKENS, 0);
        for (int r = 0; r < s->regions; r++) region[h][r] = plain_text(q->region[h] + r * TEXT, TEXT, TOKENS, 0);
    }
    step.flags = (q->split ? WEFT_STEP_SPLIT_GUIDANCE : 0) | (q->each ? WEFT_STEP_TEXT_PER_BRANCH : 0);
    step.latent = q->latent, step.latent_len = step.out_len = N, step.out = out;
    step.text = &text[1], step.text_count = 1;
    if (s->regions > 0) step.region_text = region[1], step.region_text_count = (size_t)s->regions;
    step.timestep = q->timestep, step.call = q->call;
    if (q->guided) {
        step.negative = &text[0], step.negative_count = 1, step.guidance = q->guidance;
        if (s->regions > 0) step.region_negative = region[0], step.region_negative_count = (size_t)s->regions;
    }
    must(weft_run_step(run, &step, &golden_err));
}

static inline void check_call(weft_run *run, const spec *s, const table *t, int call)
{
    asked *q = calloc(1, sizeof *q);
    double want[N], worst = 0, most = 0;
    float  got[N];

    draw_call(q, s, call);
    predict(run, s, q, got);
    predict_naively(s, t, q, want);
    for (int i = 0; i < N; i++) {
        worst = fmax(worst, fabs((double)got[i] - want[i]));
        most = fmax(most, fabs(want[i]));
    }
    ck_assert_msg(worst <= 1e-5 * most, "plan %llu (%s), call %d: off by %.2g of %.2g", (unsigned long long)s->seed,
                  titles[s->phase[phase_at(s, call)].method], call, worst, most);
    free(q);
}

/* ---- the model ------------------------------------------------------------------------------- */

static inline void open_all(void)
{
    char file[4096];
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    snprintf(file, sizeof file, "%s", data_path("models/tiny-sd1/unet/diffusion_pytorch_model.safetensors"));
    net = naive_open(model, file);
    ck_assert_uint_le(net.count, 512);
    for (size_t l = 0; l < net.count; l++) block[l] = block_of(l);
}

static inline void close_all(void)
{
    naive_close(&net);
    weft_model_free(model);
}

static inline weft_run *run_of(weft_plan *plan, uint64_t seed)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run        *run;
    o.height = H, o.width = W, o.text_tokens = 77;
    o.threads = 1 + (int32_t)(seed % 2);
    if (seed % 3 == 0) o.flags = WEFT_RUN_FORGET_TEXT;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

/* What acts where, which the rest of this file asks for. */
static inline void select_layers(spec *s)
{
    for (int a = 0; a < s->adapters; a++)
        for (size_t l = 0; l < net.count; l++) s->part[a].here[l] = selected(&s->part[a], l);
}

/* The whole of it: one call of each phase, number `which` counted round. */
static inline void check_plan(spec *s, uint64_t which)
{
    table *t = malloc(sizeof *t);

    select_layers(s);
    weft_plan *plan = build(s);
    must(weft_plan_seal(plan, s->calls, &golden_err));
    check_balance(s, plan);
    learn(s, t, plan);
    check_table(s, t, plan);
    weft_run *run = run_of(plan, which);
    for (int i = 0; i < s->phases; i++)
        check_call(run, s, t, s->phase[i].first + (int)(which % (uint64_t)(s->phase[i].end - s->phase[i].first)));
    weft_run_free(run);
    weft_plan_free(plan);
    for (int i = 0; i < s->phases; i++)
        for (size_t l = 0; l < net.count; l++) free(s->phase[i].column[0][l]), free(s->phase[i].column[1][l]);
    free(t);
}

#endif
