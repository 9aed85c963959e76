/* zip.c - two adapters side by side, each with a coefficient for every column of its matrix.
 *
 * A column of Delta W belongs to one input of the layer. Adapters that are added fight in the
 * columns that both use. ZipLoRA (Shah et al., 2023) gives each column of each adapter a
 * coefficient:
 *
 *     Delta W = Delta_c diag(m_c) + w_s Delta_s diag(m_s)
 *
 * The coefficients come from a file of training, or from our own rule, which is not the paper's and
 * needs no training. Per layer, with a_j and b_j the shares of column j in the squared sums of the
 * two matrices (sum of a_j = sum of b_j = 1), take the m, n >= 0 that minimise
 *
 *     sum over j of   a_j (m_j - 1)^2  +  b_j (n_j - 1)^2  +  2 lambda sqrt(a_j b_j) m_j n_j
 *
 * The first two terms are what each adapter loses of its own output, as a share; the third bounds
 * how much the columns overlap: |c_j . s_j| is at most their product of lengths. Columns do not
 * depend on each other, and each has a closed form (wf_zip_columns). lambda 0 is the plain sum.
 * From lambda 1 on no column is left to both: each goes to the adapter that needs it more, and the
 * two matrices have no input in common.
 *
 * Only lengths of columns are needed, so a plan reads the weights once; they pass to its copies.
 * The diagonal acts on the input, so the pair of matrices stays a pair of LoRAs: weft_plan_fold()
 * makes one of them, exactly. */
#include <math.h>

#include "base/structs.h"
#include "plan/method/method.h"

enum { NAME_MAX = 600 };

/* ---- the rule -------------------------------------------------------------------------------- */

void wf_zip_columns(double a, double b, double lambda, double *m, double *n)
{
    double r;

    *m = *n = 1;
    if (!(a > 0) || !(b > 0)) return;
    r = sqrt(b / a);
    if (lambda >= 1) {
        *m = a >= b;
        *n = !(a >= b);
    } else if (lambda * r >= 1) {
        *m = 0;
    } else if (lambda >= r) {
        *n = 0;
    } else {
        *m = (1 - lambda * r) / (1 - lambda * lambda);
        *n = (1 - lambda / r) / (1 - lambda * lambda);
    }
}

double wf_zip_similarity(const float *m, const float *n, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += fabs((double)m[i] * n[i]);
    return sum / (double)count;
}

/* ---- what a phase has ------------------------------------------------------------------------ */

/* Squared lengths of the columns in the layers that both adapters have: at layer l, whose K is
 * known, square[first[l]] and on are the content's K, then the style's. */
typedef struct learnt {
    wf_binding *content; /* kept */
    wf_binding *style;   /* kept */
    size_t     *first;   /* [layers], SIZE_MAX: not both */
    double     *square;
} learnt;

typedef struct here { int32_t content, style; } here; /* 1 + a vector, 0: none */

typedef struct state {
    int32_t       content; /* which adapter */
    int32_t       style;
    int32_t       shared;  /* layers of both                                              */
    int32_t       vectors;
    double        kept_content, kept_style; /* squares that are left, means over shared layers */
    double        before, after;            /* overlap, the same                           */
    int32_t       both;    /* layers with a vector of each                                */
    double        similarity; /* mean over these                                          */
    const float **vector;  /* [vectors]                                                   */
    here         *at;      /* [layers]                                                    */
    float        *values;
} state;

static const weft_zip_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static bool governs(const weft_plan *p, const wf_layer *l, int32_t adapter)
{
    return l->component == WEFT_COMPONENT_DENOISER && l->kind != WEFT_LAYER_NORM &&
           wf_plan_module(p, adapter, l->id) != NULL;
}

static bool is_shared(const weft_plan *p, const wf_layer *l, const state *f)
{
    return governs(p, l, f->content) && governs(p, l, f->style);
}

weft_status wf_zip_roles(const weft_plan *p, int32_t *content, int32_t *style, weft_error *err)
{
    if (p->adapters != 2)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "zip: needs exactly two adapters, content and style; the plan has %d",
                       (int)p->adapters);
    if (wf_plan_role(p, 0) == wf_plan_role(p, 1))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "zip: both adapters have the role %s; one is content, the other style",
                       p->entry[0].role == WEFT_ROLE_CONTENT ? "content" : "style");
    *content = wf_plan_role(p, 0) == WEFT_ROLE_CONTENT ? 0 : 1;
    *style = 1 - *content;
    return WEFT_OK;
}

/* ---- lengths of columns ---------------------------------------------------------------------- */

weft_status wf_plan_difference(const weft_plan *p, int32_t adapter, const wf_layer *l, float *D,
                               weft_error *err)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, l->id, &count);

    memset(D, 0, (size_t)l->out * wf_layer_columns(l) * sizeof *D);
    for (int32_t i = 0; i < count; i++) {
        const wf_module *m =
            wf_adapter_module(p->entry[adapter].bound->adapter, (size_t)slice[i].module);
        WF_TRY(wf_slice_add(&slice[i], m, l, m->scale, 1, 1, D, &p->alloc, err));
    }
    return WEFT_OK;
}

/* square (K) = squared lengths of the columns of all that an adapter has at a layer. D (out, K) is
 * scratch. */
static weft_status measure(const weft_plan *p, int32_t adapter, const wf_layer *l, float *D,
                           double *square, weft_error *err)
{
    size_t K = wf_layer_columns(l);

    WF_TRY(wf_plan_difference(p, adapter, l, D, err));
    memset(square, 0, K * sizeof *square);
    for (size_t o = 0; o < (size_t)l->out; o++)
        for (size_t k = 0; k < K; k++) square[k] += (double)D[o * K + k] * D[o * K + k];
    return WEFT_OK;
}

static void drop_learnt(void *data)
{
    learnt *m = data;
    wf_binding_drop(m->content);
    wf_binding_drop(m->style);
}

static weft_status begin_learnt(wf_blob **out, const weft_plan *p, const state *f, weft_error *err)
{
    size_t          layers, doubles = 0, bytes;
    const wf_layer *l = wf_model_layers(p->model, &layers);

    for (size_t i = 0; i < layers; i++)
        if (is_shared(p, &l[i], f)) doubles += 2 * wf_layer_columns(&l[i]);
    bytes = sizeof(learnt) + layers * sizeof(size_t) + doubles * sizeof(double);
    *out = wf_blob_create(&p->alloc, bytes);
    if (*out == NULL) return wf_nomem(err, bytes, "lengths of columns");
    learnt *m = (*out)->data;
    m->square = (double *)(void *)(m + 1);
    m->first = (size_t *)(void *)(m->square + doubles);
    m->content = wf_binding_ref(p->entry[f->content].bound);
    m->style = wf_binding_ref(p->entry[f->style].bound);
    (*out)->drop = drop_learnt;
    doubles = 0;
    for (size_t i = 0; i < layers; i++) {
        m->first[i] = is_shared(p, &l[i], f) ? doubles : SIZE_MAX;
        if (m->first[i] != SIZE_MAX) doubles += 2 * wf_layer_columns(&l[i]);
    }
    return WEFT_OK;
}

static weft_status tell(const weft_plan *p, int64_t done, int64_t total, weft_error *err)
{
    if (p->progress != NULL && p->progress(p->progress_user, "measuring columns", done, total) != 0)
        return wf_fail(err, WEFT_E_CANCELLED,
                       "sealing was stopped after %lld of %lld layers were measured",
                       (long long)done, (long long)total);
    return WEFT_OK;
}

static weft_status measure_layers(const weft_plan *p, const state *f, learnt *m, weft_error *err)
{
    size_t          layers, most = 0;
    const wf_layer *l = wf_model_layers(p->model, &layers);
    weft_status     st = WEFT_OK;
    int64_t         done = 0;

    for (size_t i = 0; i < layers; i++)
        if (m->first[i] != SIZE_MAX)
            most = WF_MAX(most, (size_t)l[i].out * wf_layer_columns(&l[i]));
    float *D = wf_zalloc(&p->alloc, most, sizeof *D);
    if (D == NULL) return wf_nomem(err, most * sizeof *D, "a layer's difference");
    for (size_t i = 0; i < layers && st == WEFT_OK; i++) {
        if (m->first[i] == SIZE_MAX) continue;
        double *square = m->square + m->first[i];
        st = tell(p, done++, f->shared, err);
        if (st == WEFT_OK) st = measure(p, f->content, &l[i], D, square, err);
        if (st == WEFT_OK)
            st = measure(p, f->style, &l[i], D, square + wf_layer_columns(&l[i]), err);
    }
    wf_free(&p->alloc, D);
    return st == WEFT_OK ? tell(p, done, f->shared, err) : st;
}

/* The lengths that an earlier plan or phase has measured, or new ones, in s->learnt. */
static weft_status learn(wf_sheet *s, const weft_plan *p, const state *f, weft_error *err)
{
    const learnt *old = s->learnt != NULL ? s->learnt->data : NULL;
    wf_blob      *blob = NULL;

    if (old != NULL && old->content == p->entry[f->content].bound &&
        old->style == p->entry[f->style].bound)
        return WEFT_OK;
    WF_TRY(begin_learnt(&blob, p, f, err));
    wf_blob_drop(s->learnt);
    s->learnt = blob;
    return measure_layers(p, f, blob->data, err);
}

static double sum_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i];
    return sum;
}

/* The vectors of a layer by our rule, m (K) and n (K). */
static void choose_columns(state *f, const double *square, size_t K, double lambda, float *m,
                           float *n)
{
    const double *c = square, *s = square + K;
    double        all_c = sum_of(c, K), all_s = sum_of(s, K);

    for (size_t k = 0; k < K; k++) {
        double a = all_c > 0 ? c[k] / all_c : 0, b = all_s > 0 ? s[k] / all_s : 0, x, y;
        wf_zip_columns(a, b, lambda, &x, &y);
        m[k] = (float)x;
        n[k] = (float)y;
        f->kept_content += a * x * x / f->shared;
        f->kept_style += b * y * y / f->shared;
        f->before += sqrt(a * b) / f->shared;
        f->after += sqrt(a * b) * x * y / f->shared;
    }
}

/* ---- coefficients of a file ------------------------------------------------------------------ */

const char *const wf_zip_endings[2] = { ".zip.m_c", ".zip.m_s" };

static const wf_tensor *find_coefficients(const weft_tensors *t, const wf_layer *l, int which)
{
    char name[NAME_MAX];
    if (!wf_format(name, sizeof name, "%s%s", l->name, wf_zip_endings[which])) return NULL;
    return wf_tensors_find(t, name);
}

/* to (K), ordered (ky, kx, in): the file's order is (in, ky, kx), or one number for each input. */
static void read_vector(const wf_tensor *t, const wf_layer *l, float *to)
{
    size_t in = (size_t)l->in, K = wf_layer_columns(l), taps = K / in;

    for (size_t k = 0; k < K; k++) {
        size_t i = k % in, tap = k / in;
        wf_tensor_read(t, t->count == in ? i : i * taps + tap, 1, &to[k]);
    }
}

static weft_status check_tensor(const weft_tensors *t, const wf_tensor *x, const wf_map *names,
                                const wf_layer *layers, weft_error *err)
{
    const char *file = wf_tensors_what(t);
    char        stem[NAME_MAX];
    size_t      n = strlen(x->name), e = strlen(wf_zip_endings[0]);
    bool        named = n > e && n - e < sizeof stem &&
                 (strcmp(x->name + n - e, wf_zip_endings[0]) == 0 ||
                  strcmp(x->name + n - e, wf_zip_endings[1]) == 0);
    int64_t     id = -1;

    if (named) {
        memcpy(stem, x->name, n - e);
        stem[n - e] = '\0';
        id = wf_map_get(names, stem);
    }
    if (id < 0)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%s: %.120s: wanted a layer of the UNet with %s or %s behind it", file,
                       x->name, wf_zip_endings[0], wf_zip_endings[1]);
    size_t in = (size_t)layers[id].in, K = wf_layer_columns(&layers[id]);
    if (x->rank != 1 || (x->count != in && x->count != K))
        return wf_fail(err, WEFT_E_MISMATCH, "%s: %.120s has %zu values, the layer has %zu columns",
                       file, x->name, x->count, K);
    if (x->dtype != WF_F32 && x->dtype != WF_F16 && x->dtype != WF_BF16 && x->dtype != WF_F64)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %.120s is %s, wanted floats", file, x->name,
                       wf_dtype_name(x->dtype));
    for (size_t i = 0; i < x->count; i++) {
        float v;
        wf_tensor_read(x, i, 1, &v);
        if (!isfinite(v))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %.120s: value %zu is not finite", file, x->name,
                           i);
    }
    return WEFT_OK;
}

static weft_status check_coefficients(const weft_plan *p, const weft_tensors *t, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    wf_map          names;
    bool            added;
    weft_status     st;

    if (wf_tensors_count(t) == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "%s: no coefficients in it", wf_tensors_what(t));
    WF_TRY(wf_map_init(&names, &p->alloc, count, err));
    st = WEFT_OK;
    for (size_t l = 0; l < count && st == WEFT_OK; l++)
        if (layers[l].component == WEFT_COMPONENT_DENOISER && layers[l].kind != WEFT_LAYER_NORM)
            st = wf_map_put(&names, layers[l].name, (int64_t)l, &added, err);
    for (size_t i = 0; i < wf_tensors_count(t) && st == WEFT_OK; i++)
        st = check_tensor(t, wf_tensors_at(t, i), &names, layers, err);
    wf_map_free(&names);
    return st;
}

/* ---- sealing --------------------------------------------------------------------------------- */

/* Has the adapter in this part a vector at the layer? */
static bool has_vector(const weft_plan *p, const wf_sheet *s, const state *f, const wf_layer *l,
                       int which)
{
    const weft_tensors *t = options_of(s)->coefficients;

    if (t == NULL) return is_shared(p, l, f);
    return governs(p, l, which == 0 ? f->content : f->style) &&
           find_coefficients(t, l, which) != NULL;
}

/* A block with room for all vectors. */
static weft_status make_state(wf_blob **out, const weft_plan *p, const wf_sheet *s, state f,
                              weft_error *err)
{
    size_t          layers, n = 0, floats = 0, bytes;
    const wf_layer *l = wf_model_layers(p->model, &layers);

    for (size_t i = 0; i < layers; i++) {
        f.shared += is_shared(p, &l[i], &f);
        for (int which = 0; which < 2; which++)
            if (has_vector(p, s, &f, &l[i], which)) n++, floats += wf_layer_columns(&l[i]);
    }
    bytes = sizeof(state) + n * sizeof(float *) + layers * sizeof(here) + floats * sizeof(float);
    *out = wf_blob_create(&p->alloc, bytes);
    if (*out == NULL) return wf_nomem(err, bytes, "coefficients of columns");
    state *to = (*out)->data;
    *to = f;
    to->vector = (const float **)(void *)(to + 1);
    to->at = (here *)(void *)(to->vector + n);
    to->values = (float *)(void *)(to->at + layers);
    return WEFT_OK;
}

static void place_vectors(state *f, const weft_plan *p, const wf_sheet *s)
{
    size_t          layers, at = 0;
    const wf_layer *l = wf_model_layers(p->model, &layers);

    for (size_t i = 0; i < layers; i++) {
        int32_t *to[] = { &f->at[i].content, &f->at[i].style };
        for (int which = 0; which < 2; which++) {
            if (!has_vector(p, s, f, &l[i], which)) continue;
            f->vector[f->vectors++] = f->values + at;
            *to[which] = f->vectors;
            at += wf_layer_columns(&l[i]);
        }
    }
}

static float *values_of(const state *f, int32_t vector)
{
    return f->values + (f->vector[vector - 1] - f->values);
}

static void fill_vectors(state *f, const weft_plan *p, const wf_sheet *s)
{
    const weft_zip_options *o = options_of(s);
    size_t                  layers;
    const wf_layer         *l = wf_model_layers(p->model, &layers);

    for (size_t i = 0; i < layers; i++) {
        int32_t c = f->at[i].content, y = f->at[i].style;
        if (o->coefficients == NULL && c != 0) {
            const learnt *m = s->learnt->data;
            choose_columns(f, m->square + m->first[i], wf_layer_columns(&l[i]), o->lambda,
                           values_of(f, c), values_of(f, y));
            continue;
        }
        if (c != 0)
            read_vector(find_coefficients(o->coefficients, &l[i], 0), &l[i], values_of(f, c));
        if (y != 0)
            read_vector(find_coefficients(o->coefficients, &l[i], 1), &l[i], values_of(f, y));
        if (c == 0 || y == 0) continue;
        f->both++;
        f->similarity +=
            wf_zip_similarity(values_of(f, c), values_of(f, y), wf_layer_columns(&l[i]));
    }
    if (f->both > 0) f->similarity /= f->both;
}

const char *const wf_zip_names[2] = { "weft.zip.content", "weft.zip.style" };

/* A file that names other adapters: nothing says that theirs are these under other names. */
static void warn_of_others(const weft_plan *p, wf_table *t, const wf_sheet *s, const state *f)
{
    const weft_tensors *file = options_of(s)->coefficients;
    const int32_t       own[2] = { f->content, f->style };

    for (int i = 0; i < 2; i++) {
        const char *its = weft_tensors_metadata(file, wf_zip_names[i]);
        const char *ours = wf_plan_adapter_name(p, own[i]);
        if (its != NULL && strcmp(its, ours) != 0)
            wf_table_warn(p, t, "zip: %s was made for the %s %.100s, not for %.100s",
                          wf_tensors_what(file), i == 0 ? "content" : "style", its, ours);
    }
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    state f = { 0 };

    WF_TRY(wf_zip_roles(p, &f.content, &f.style, err));
    WF_TRY(make_state(&s->state, p, s, f, err));
    state *to = s->state->data;
    place_vectors(to, p, s);
    if (options_of(s)->coefficients == NULL) {
        WF_TRY(learn(s, p, to, err));
        if (to->shared == 0)
            wf_table_warn(p, t, "zip: the adapters share no layer, so there is nothing to choose");
    } else if (to->vectors == 0) {
        return wf_fail(err, WEFT_E_MISMATCH,
                       "zip: %s has no coefficients for a layer of these adapters",
                       wf_tensors_what(options_of(s)->coefficients));
    }
    if (options_of(s)->coefficients != NULL) warn_of_others(p, t, s, to);
    fill_vectors(to, p, s);
    s->vectors = to->vector;
    return WEFT_OK;
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    const state *f = s->state->data;

    (void)p, (void)call, (void)branch;
    if (adapter == f->content) return (wf_cell){ 1, f->at[layer].content, 0 };
    return (wf_cell){ (float)options_of(s)->style, f->at[layer].style, 0 };
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
    const weft_zip_options *o = options_of(s);
    const state            *f = s->state->data;
    wf_letter_text          letter;
    wf_number_text          a, b;

    (void)p;
    wf_text_add(out, "  content    %s,", wf_letter(&letter, f->content));
    wf_text_add(out, " style %s", wf_letter(&letter, f->style));
    if (o->style != 1) wf_text_add(out, " times %s", wf_number(&a, o->style));
    wf_text_add(out, "\n");
    if (o->coefficients != NULL) {
        wf_text_add(out, "  columns    %d vectors of %s\n", (int)f->vectors,
                    wf_tensors_what(o->coefficients));
        wf_text_add(out, "  similarity %s, the mean of |m_c m_s| in %d layers with both\n",
                    wf_fixed(&a, f->similarity, 4), (int)f->both);
        return;
    }
    wf_text_add(out, "  columns    in closed form, lambda %s, in %d layers of both\n",
                wf_number(&a, o->lambda), (int)f->shared);
    if (f->shared == 0) return;
    wf_text_add(out, "  kept       %s %% of the content's squares",
                wf_fixed(&a, 100 * f->kept_content, 1));
    wf_text_add(out, ", %s %% of the style's\n", wf_fixed(&a, 100 * f->kept_style, 1));
    wf_text_add(out, "  overlap    %s of the plain sum's %s\n", wf_fixed(&a, f->after, 4),
                wf_fixed(&b, f->before, 4));
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const state *f = s->state->data;

    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        double         w = p->entry[a].weight * (a == f->style ? options_of(s)->style : 1);
        wf_text_add(out, "  %s  %s at every call, %s, at %d layers of the UNet\n",
                    wf_letter(&letter, a), wf_number(&c, (float)w), part(p, s, a),
                    (int)wf_sheet_reach(s, a));
    }
}

/* ---- public ---------------------------------------------------------------------------------- */

static void drop_options(void *data)
{
    weft_tensors_free(((weft_zip_options *)data)->coefficients);
}

weft_status weft_plan_zip(weft_plan *plan, const weft_zip_options *options, weft_error *err)
{
    weft_zip_options o;

    WF_TRY(WF_OPTIONS(&o, options, weft_zip_options, WEFT_ZIP_LAMBDA | WEFT_ZIP_STYLE, err));
    WF_TRY(wf_plan_still_open(plan, "weft_plan_zip", err));
    if ((o.flags & WEFT_ZIP_LAMBDA) != 0 && o.coefficients != NULL)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_zip_options: lambda is for the closed form, and there are "
                       "coefficients");
    if (!(o.flags & WEFT_ZIP_LAMBDA)) o.lambda = 1;
    if (!(o.flags & WEFT_ZIP_STYLE)) o.style = 1;
    if (!isfinite(o.lambda) || o.lambda < 0)
        return wf_fail(err, WEFT_E_ARG, "weft_zip_options: lambda must be finite and not negative");
    if (!isfinite((float)o.style))
        return wf_fail(err, WEFT_E_ARG, "weft_zip_options: style is not a finite number");
    if (o.coefficients != NULL) WF_TRY(check_coefficients(plan, o.coefficients, err));
    WF_TRY(wf_plan_use(plan, &wf_method_zip, &o, sizeof o, err));
    if (o.coefficients != NULL) {
        wf_tensors_ref(o.coefficients);
        plan->phase[plan->phases - 1].options->drop = drop_options;
    }
    return WEFT_OK;
}

/* The file's order of a layer's vector, (in, ky, kx). */
static void as_stored(const wf_layer *l, const float *v, float *to)
{
    size_t in = (size_t)l->in, K = wf_layer_columns(l), taps = K / in;

    for (size_t k = 0; k < K; k++) to[k % in * taps + k / in] = v[k];
}

static weft_status add_vector(weft_tensors *t, const wf_layer *l, int which, const float *v,
                              weft_error *err)
{
    char    name[NAME_MAX];
    int64_t shape[] = { (int64_t)wf_layer_columns(l) };
    float  *to = wf_tensors_own(t, (size_t)shape[0] * sizeof *to, err);

    if (to == NULL) return WEFT_E_NOMEM;
    as_stored(l, v, to);
    wf_format(name, sizeof name, "%s%s", l->name, wf_zip_endings[which]);
    return wf_tensors_add(t, name, WF_F32, 1, shape, to, err);
}

/* All vectors of a sheet as named tensors. */
static weft_status list_vectors(weft_tensors *t, const weft_plan *p, const wf_sheet *s,
                                weft_error *err)
{
    const state    *f = s->state->data;
    size_t          layers;
    const wf_layer *l = wf_model_layers(p->model, &layers);

    for (size_t i = 0; i < layers; i++) {
        int32_t of[] = { f->at[i].content, f->at[i].style };
        for (int which = 0; which < 2; which++)
            if (of[which] != 0)
                WF_TRY(add_vector(t, &l[i], which, f->vector[of[which] - 1], err));
    }
    return wf_tensors_seal(t, err);
}

static weft_status write_vectors(const weft_plan *p, const wf_sheet *s, const weft_tensors *t,
                                 const char *path, weft_error *err)
{
    const state *f = s->state->data;
    const char  *meta[] = { "format", "pt", wf_zip_names[0], wf_plan_adapter_name(p, f->content),
                            wf_zip_names[1], wf_plan_adapter_name(p, f->style) };
    size_t       count = wf_tensors_count(t);

    if (count == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_plan_zip_save: the adapters share no layer, so there are no "
                       "coefficients");
    return wf_tensors_write_as_stored(path, wf_tensors_at(t, 0), count, meta, 3, &p->alloc, err);
}

weft_status weft_plan_zip_save(const weft_plan *plan, const char *path, weft_error *err)
{
    const wf_sheet *s = NULL;
    weft_tensors   *t;
    weft_status     st;
    size_t          phases;

    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_zip_save", err));
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_zip_save: path is NULL");
    const wf_sheet *phase = wf_plan_phases(plan, &phases);
    for (size_t i = 0; i < phases && s == NULL; i++)
        if (phase[i].method == &wf_method_zip) s = &phase[i];
    if (s == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "weft_plan_zip_save: no phase of the plan is under ZipLoRA");
    WF_TRY(wf_tensors_new(&plan->alloc, path, &t, err));
    st = list_vectors(t, plan, s, err);
    if (st == WEFT_OK) st = write_vectors(plan, s, t, path, err);
    weft_tensors_free(t);
    return st;
}

static const wf_field field_list[] = {
    { WF_VALUE("coefficients", FILE, weft_zip_options, coefficients) },
    { WF_VALUE("lambda", DOUBLE, weft_zip_options, lambda), .bit = WEFT_ZIP_LAMBDA,
      .otherwise = 1 },
    { WF_VALUE("style", DOUBLE, weft_zip_options, style), .bit = WEFT_ZIP_STYLE, .otherwise = 1 },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_zip_options);
WF_METHOD_USE(weft_plan_zip, weft_zip_options)

const wf_method wf_method_zip = {
    .name = "zip",
    .title = "ZipLoRA",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .choose = choose,
    .part = part,
    .describe = describe,
    .explain = explain,
};
