/* Forms: what each makes of its tensors, against formulas written out again in double and worked
 * numbers; what it pulls back, against differences of these formulas; what it writes, against the
 * reader of adapter files. */
#include <math.h>

#include "adapter/adapter_internal.h"
#include "base/support.h"
#include "train/form.h"
#include "weft/weft.h"

static weft_error err;

/* ---- a site ---------------------------------------------------------------------------------- */

typedef struct bench {
    wf_layer l;
    wf_site  s;
    wf_form_choice c;
    float   *weight;  /* as the file has it, (out, in, k, k) */
    float   *bias;
    float   *memory[64];
    size_t   count;
    wf_bag   bag;
    weft_allocator heap;
} bench;

static float *floats(bench *b, size_t n)
{
    ck_assert_uint_lt(b->count, WF_LEN(b->memory));
    return b->memory[b->count++] = calloc(n + 1, sizeof(float));
}

static void fill(float *v, size_t n, float size, wf_mersenne *g)
{
    for (size_t i = 0; i < n; i++) v[i] = wf_draw_uniform(g, size);
}

/* What the trainer does: memory for the tensors, and what the form makes. */
static void lay_out(bench *b, const wf_form *form)
{
    wf_site *s = &b->s;

    *s = (wf_site){ .layer = &b->l, .form = form, .out = (size_t)b->l.out };
    s->K = (size_t)b->l.in * (size_t)b->l.kernel * (size_t)b->l.kernel;
    ck_assert(form->shape(s, &b->c));
    ck_assert_int_ge(s->tensors, 1);
    for (int32_t i = 0; i < s->tensors; i++) {
        s->value[i] = floats(b, s->tensor[i].rows * s->tensor[i].columns);
        s->grad[i] = floats(b, s->tensor[i].rows * s->tensor[i].columns);
    }
    float *base = floats(b, s->out * s->K);
    wf_layer_rows(&b->l, 0, s->out, base);
    s->base = base;
    s->base_bias = b->l.bias;
    size_t r = (size_t)s->rank;
    bool   pair = (form->reads & WF_READS_PAIR) != 0;
    s->down = pair ? floats(b, r * s->K) : NULL;
    s->up = pair ? floats(b, r * s->out) : NULL;
    s->g_down = pair ? floats(b, r * s->K) : NULL;
    s->g_up = pair ? floats(b, r * s->out) : NULL;
    s->weight = !pair ? floats(b, s->out * s->K) : NULL;
    s->g_weight = !pair ? floats(b, s->out * s->K) : NULL;
    if (form->in_place) {
        if (pair) s->down = s->value[0];
        if (pair) s->up = s->value[1];
        if (!pair) s->weight = s->value[0];
        if (!pair) s->bias = s->tensors > 1 ? s->value[1] : NULL;
    }
    if (form->own != NULL) s->own = floats(b, form->own(s));
}

static void set_up(bench *b, const wf_form *form, int32_t out, int32_t in, int32_t kernel,
                   wf_form_choice c)
{
    wf_mersenne g;
    size_t      n = (size_t)out * (size_t)in * (size_t)kernel * (size_t)kernel;

    memset(b, 0, sizeof *b);
    b->heap = wf_allocator(NULL);
    wf_bag_init(&b->bag, &b->heap);
    wf_mersenne_seed(&g, 5);
    b->weight = floats(b, n);
    b->bias = floats(b, (size_t)out);
    fill(b->weight, n, 1, &g);
    fill(b->bias, (size_t)out, 1, &g);
    b->c = c;
    b->l = (wf_layer){ .name = "unet.conv_in", .weight = b->weight, .bias = b->bias,
                       .dtype = WF_F32, .component = WEFT_COMPONENT_DENOISER, .out = out, .in = in,
                       .kind = kernel > 1 ? WEFT_LAYER_CONV : WEFT_LAYER_LINEAR,
                       .kernel = kernel, .stride = 1, .pad = kernel / 2 };
    if (form == &wf_form_norm) b->l.kind = WEFT_LAYER_NORM;
    lay_out(b, form);
    wf_mersenne_seed(&g, 7);
    form->begin(&b->s, &b->c, &g);
}

static void tear_down(bench *b)
{
    for (size_t i = 0; i < b->count; i++) free(b->memory[i]);
    wf_bag_free(&b->bag);
}

static size_t numbers(const bench *b, int32_t tensor)
{
    return b->s.tensor[tensor].rows * b->s.tensor[tensor].columns;
}

static void make(bench *b)
{
    if (b->s.form->make != NULL) b->s.form->make(&b->s, &b->c);
}

/* ---- the formulas again, in double ----------------------------------------------------------- */

/* to (m, n) += f * a (m, k) b (k, n); `turned`: a is (k, m). */
static void product(double *to, const double *a, const double *b, size_t m, size_t n, size_t k,
                    double f, bool turned)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t p = 0; p < k; p++)
                to[i * n + j] += f * a[turned ? p * m + i : i * k + p] * b[p * n + j];
}

/* What the network reads, of tensors v: a weight (out, K), or down and then up. `norms`: of DoRA,
 * frozen; NULL: those of v. */
static void formula(const bench *b, double *const v[], const double *norms, double *to)
{
    const wf_site *s = &b->s;
    size_t         out = s->out, K = s->K, r = (size_t)s->rank;
    const char    *form = s->form->name;

    if (strcmp(form, "moslora") == 0) {
        memset(to, 0, r * (K + out) * sizeof *to);
        product(to, v[2], v[0], r, K, r, 1, false);
        for (size_t i = 0; i < r * out; i++) to[r * K + i] = v[1][i];
        return;
    }
    for (size_t i = 0; i < out * K; i++) to[i] = (double)s->base[i];
    if (strcmp(form, "dora") == 0) {
        product(to, v[1], v[0], out, K, r, (double)s->scale, true);
        for (size_t j = 0; j < out; j++) {
            double n = 0;
            for (size_t i = 0; i < K; i++) n += to[j * K + i] * to[j * K + i];
            n = norms != NULL ? norms[j] : sqrt(n);
            for (size_t i = 0; i < K; i++) to[j * K + i] *= v[2][j] / n;
        }
    } else if (strcmp(form, "loha") == 0) {
        double *p = calloc(2 * out * K, sizeof *p), *q = p + out * K;
        product(p, v[0], v[1], out, K, r, 1, false);
        product(q, v[2], v[3], out, K, r, 1, false);
        for (size_t i = 0; i < out * K; i++) to[i] += (double)s->scale * p[i] * q[i];
        free(p);
    } else { /* lokr: shape is o1 i1 o2 i2, and is W1, W2 a product? */
        size_t  o1 = (size_t)s->shape[0], i1 = (size_t)s->shape[1], o2 = (size_t)s->shape[2],
                i2 = (size_t)s->shape[3], taps = K / (i1 * i2);
        double *w1 = calloc(o1 * i1 + o2 * taps * i2, sizeof *w1), *w2 = w1 + o1 * i1;
        double *const *u = v + (s->shape[4] ? 2 : 1);
        if (s->shape[4]) product(w1, v[0], v[1], o1, i1, r, 1, false);
        else memcpy(w1, v[0], o1 * i1 * sizeof *w1);
        if (s->shape[5]) product(w2, u[0], u[1], o2, taps * i2, r, 1, false);
        else memcpy(w2, u[0], o2 * taps * i2 * sizeof *w2);
        for (size_t o = 0; o < out; o++)
            for (size_t k = 0; k < K; k++) {
                size_t tap = k / (i1 * i2), i = k % (i1 * i2);
                to[o * K + k] += (double)s->scale * w1[o / o2 * i1 + i / i2] *
                                 w2[(o % o2 * taps + tap) * i2 + i % i2];
            }
        free(w1);
    }
}

typedef struct doubles { double *v[WF_FORM_TENSORS]; } doubles;

static doubles widen(const bench *b)
{
    doubles d = { { NULL } };
    for (int32_t t = 0; t < b->s.tensors; t++) {
        d.v[t] = calloc(numbers(b, t) + 1, sizeof **d.v);
        for (size_t i = 0; i < numbers(b, t); i++) d.v[t][i] = (double)b->s.value[t][i];
    }
    return d;
}

static void let_go(doubles *d)
{
    for (size_t t = 0; t < WF_FORM_TENSORS; t++) free(d->v[t]);
}

static size_t reads(const bench *b)
{
    size_t r = (size_t)b->s.rank;
    return b->s.down != NULL ? r * (b->s.K + b->s.out) : b->s.out * b->s.K;
}

/* ---- there and back -------------------------------------------------------------------------- */

static const struct {
    const wf_form *form;
    int32_t        out, in, kernel;
    wf_form_choice c;
} cases[] = {
    { &wf_form_dora, 6, 5, 1, { .rank = 2, .alpha = 3 } },
    { &wf_form_dora, 37, 9, 1, { .rank = 4, .alpha = 2 } },
    { &wf_form_dora, 5, 4, 3, { .rank = 3, .alpha = 3 } },
    { &wf_form_dora, 37, 9, 1, { .rank = 4, .alpha = 2, .exact_norm = true } },
    { &wf_form_dora, 5, 4, 3, { .rank = 3, .alpha = 1, .exact_norm = true } },
    { &wf_form_loha, 6, 5, 1, { .rank = 2, .alpha = 1 } },
    { &wf_form_loha, 70, 7, 1, { .rank = 3, .alpha = 3 } },
    { &wf_form_loha, 6, 4, 3, { .rank = 2, .alpha = 3 } },
    { &wf_form_lokr, 12, 10, 1, { .rank = 9, .alpha = 3, .factor = -1 } },
    { &wf_form_lokr, 24, 12, 1, { .rank = 2, .alpha = 3, .factor = 2 } },
    { &wf_form_lokr, 36, 64, 1, { .rank = 2, .alpha = 3, .factor = -1, .both = true } },
    { &wf_form_lokr, 8, 6, 3, { .rank = 1, .alpha = 2, .factor = -1 } },
    { &wf_form_lokr, 8, 6, 3, { .rank = 7, .alpha = 2, .factor = -1 } },
    { &wf_form_lokr, 7, 11, 1, { .rank = 2, .alpha = 2, .factor = 4 } },
    { &wf_form_moslora, 6, 5, 1, { .rank = 2, .alpha = 1 } },
    { &wf_form_moslora, 5, 4, 3, { .rank = 4, .alpha = 4 } },
};

/* A place in the middle of a training: nothing is zero. */
static void scatter(bench *b)
{
    wf_mersenne g;

    wf_mersenne_seed(&g, 11);
    for (int32_t t = 0; t < b->s.tensors; t++)
        for (size_t i = 0; i < numbers(b, t); i++) b->s.value[t][i] += wf_draw_uniform(&g, 0.5f);
}

static void near(const char *what, size_t i, double got, double wanted, double most, double limit)
{
    ck_assert_msg(fabs(got - wanted) <= limit * (most > 1 ? most : 1),
                  "%s[%zu] is %.9g, wanted %.9g", what, i, got, wanted);
}

static double largest(const double *v, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(v[i]));
    return most;
}

START_TEST(make_is_the_formula)
{
    bench   b;
    doubles v;
    double *to;

    set_up(&b, cases[_i].form, cases[_i].out, cases[_i].in, cases[_i].kernel, cases[_i].c);
    scatter(&b);
    make(&b);
    v = widen(&b);
    to = calloc(reads(&b), sizeof *to);
    formula(&b, v.v, NULL, to);
    size_t down = b.s.down != NULL ? (size_t)b.s.rank * b.s.K : 0;
    for (size_t i = 0; i < reads(&b); i++) {
        float got = b.s.down == NULL ? b.s.weight[i] : i < down ? b.s.down[i] : b.s.up[i - down];
        near(b.s.form->name, i, (double)got, to[i], largest(to, reads(&b)), 1e-6);
    }
    free(to);
    let_go(&v);
    tear_down(&b);
}
END_TEST

static double weigh(const double *to, const float *G, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += to[i] * (double)G[i];
    return sum;
}

/* The gradient of sum(G * what is read), by differences of the formula. Twice pulled is twice
 * added. */
START_TEST(pull_is_the_gradient_of_make)
{
    bench       b;
    doubles     v;
    wf_mersenne g;
    const double h = 1e-5;

    set_up(&b, cases[_i].form, cases[_i].out, cases[_i].in, cases[_i].kernel, cases[_i].c);
    scatter(&b);
    make(&b);
    size_t n = reads(&b), down = b.s.down != NULL ? (size_t)b.s.rank * b.s.K : 0;
    float *G = calloc(n, sizeof *G);
    wf_mersenne_seed(&g, 13);
    fill(G, n, 1, &g);
    if (down == 0) memcpy(b.s.g_weight, G, n * sizeof *G);
    else memcpy(b.s.g_down, G, down * sizeof *G);
    if (down != 0) memcpy(b.s.g_up, G + down, (n - down) * sizeof *G);
    for (int32_t times = 0; times < 2; times++) {
        make(&b);
        b.s.form->pull(&b.s, &b.c);
    }

    v = widen(&b);
    double *to = calloc(2 * n, sizeof *to), norms[128] = { 0 }, *frozen = NULL;
    bool    dora = strcmp(b.s.form->name, "dora") == 0;
    if (dora && !b.c.exact_norm) { /* the norms as they are here */
        formula(&b, v.v, NULL, to);
        for (size_t j = 0; j < WF_LEN(norms); j++) norms[j] = 1;
        formula(&b, v.v, norms, to + n);
        for (size_t j = 0; j < b.s.out; j++) norms[j] = to[n + j * b.s.K] / to[j * b.s.K];
        frozen = norms;
    }
    for (int32_t t = 0; t < b.s.tensors; t++) {
        size_t  count = numbers(&b, t);
        double *wanted = calloc(count, sizeof *wanted);
        for (size_t i = 0; i < count; i++) {
            double x = v.v[t][i];
            v.v[t][i] = x + h;
            formula(&b, v.v, frozen, to);
            v.v[t][i] = x - h;
            formula(&b, v.v, frozen, to + n);
            v.v[t][i] = x;
            wanted[i] = (weigh(to, G, n) - weigh(to + n, G, n)) / (2 * h);
        }
        for (size_t i = 0; i < count; i++)
            near(b.s.tensor[t].name, i, (double)b.s.grad[t][i], 2 * wanted[i],
                 2 * largest(wanted, count), 3e-6);
        free(wanted);
    }
    free(to);
    free(G);
    let_go(&v);
    tear_down(&b);
}
END_TEST

/* ---- the beginning --------------------------------------------------------------------------- */

/* Training begins at the model as it is, to the last bit, however tensors are drawn. */
START_TEST(beginning_changes_nothing)
{
    bench          b;
    wf_form_choice c = cases[_i / 2].c;

    c.gaussian = _i % 2 == 1;
    set_up(&b, cases[_i / 2].form, cases[_i / 2].out, cases[_i / 2].in, cases[_i / 2].kernel, c);
    make(&b);
    for (size_t i = 0; b.s.weight != NULL && i < b.s.out * b.s.K; i++)
        ck_assert_float_eq(b.s.weight[i], b.s.base[i]);
    for (size_t i = 0; b.s.up != NULL && i < (size_t)b.s.rank * b.s.out; i++)
        ck_assert_float_eq(b.s.up[i], 0);
    for (int32_t t = 0; t < b.s.tensors; t++) { /* but something has a gradient */
        double sum = 0;
        for (size_t i = 0; i < numbers(&b, t); i++) sum += fabs((double)b.s.value[t][i]);
        if (sum > 0) break;
        ck_assert_int_lt(t, b.s.tensors - 1);
    }
    tear_down(&b);
}
END_TEST

static const struct {
    const wf_form *form;
    bool           gaussian;
    int32_t        tensor;
    double         bound;     /* of a uniform draw; 0: none */
    double         deviation; /* 0: all is zero             */
} draws[] = {
    /* layer (96, 64, 3, 3): K = 576. Kaiming's bound with a = sqrt(5) is 1 / sqrt(columns), the deviation
     * of a uniform draw its bound / sqrt(3). */
    { &wf_form_lora, false, 0, 1 / 24.0, 1 / 24.0 / 1.7320508 },
    { &wf_form_lora, false, 1, 0, 0 },
    { &wf_form_lora, true, 0, 0, 1 / 16.0 },
    { &wf_form_dora, false, 0, 1 / 24.0, 1 / 24.0 / 1.7320508 },
    { &wf_form_moslora, false, 0, 1 / 24.0, 1 / 24.0 / 1.7320508 },
    { &wf_form_moslora, false, 2, 1 / 4.0, 1 / 4.0 / 1.7320508 },
    { &wf_form_loha, false, 0, 1 / 4.0, 1 / 4.0 / 1.7320508 },
    { &wf_form_loha, false, 1, 1 / 24.0, 1 / 24.0 / 1.7320508 },
    { &wf_form_loha, false, 2, 1 / 4.0, 1 / 4.0 / 1.7320508 },
    { &wf_form_loha, false, 3, 0, 0 },
    { &wf_form_loha, true, 0, 0, 0 },
    { &wf_form_loha, true, 1, 0, 1 },
    { &wf_form_loha, true, 2, 0, 0.1 },
    { &wf_form_loha, true, 3, 0, 1 },
    { &wf_form_lokr, false, 0, 0, 0 },  /* 8 x 12 of 96, 8 x 8 of 64: W2 (12, 72), whole at rank 16 */
    { &wf_form_lokr, false, 1, 0.11785113, 0.11785113 / 1.7320508 },
    { &wf_form_lokr, true, 0, 0.35355339, 0.35355339 / 1.7320508 },
    { &wf_form_lokr, true, 1, 0, 0 },
};

START_TEST(tensors_are_drawn_as_their_authors_do)
{
    bench  b;
    double sum = 0, square = 0, most = 0;
    const double deviation = draws[_i].deviation, bound = draws[_i].bound;

    set_up(&b, draws[_i].form, 96, 64, 3,
           (wf_form_choice){ .rank = 16, .alpha = 16, .factor = -1, .gaussian = draws[_i].gaussian });
    size_t n = numbers(&b, draws[_i].tensor);
    for (size_t i = 0; i < n; i++) {
        double x = (double)b.s.value[draws[_i].tensor][i];
        sum += x;
        square += x * x;
        most = fmax(most, fabs(x));
    }
    ck_assert_double_le(fabs(sum / (double)n), 5 * deviation / sqrt((double)n));
    ck_assert_double_le(fabs(sqrt(square / (double)n) - deviation),
                        5 * deviation / sqrt((double)n));
    if (bound > 0) {
        ck_assert_double_le(most, bound);
        ck_assert_double_ge(most, bound * 0.9);
    } else if (deviation > 0) {
        ck_assert_double_ge(most, 2 * deviation); /* no uniform draw */
    }
    tear_down(&b);
}
END_TEST

/* ---- worked numbers -------------------------------------------------------------------------- */

static const float A1[] = { 1, 2, 0, -1, 0, 1, 3, 1 }, B1_up[] = { 1, 0.5f, 2, 0, -1, 1 },
                   W1[] = { 1, 2, 2, 0, 0, 3, 4, 0, 2, -1, 0, 2 };

static void put(bench *b, int32_t tensor, const float *v)
{
    memcpy(b->s.value[tensor], v, numbers(b, tensor) * sizeof *v);
}

/* methods.md 2.3: W, A1 and B1 of 0.2, s = 0.5, g = [3.3, 4.5, 3]. */
START_TEST(dora_gives_the_worked_numbers)
{
    static const float wanted[] = { 1.257301f, 2.514603f, 1.676402f, -0.419100f,
                                    0.282355f, 3.388261f, 2.823551f, -0.847065f,
                                    2.267787f, 1.133893f, 1.133893f, 1.133893f },
                       g[] = { 3.3f, 4.5f, 3 };
    bench b;

    set_up(&b, &wf_form_dora, 3, 4, 1, (wf_form_choice){ .rank = 2, .alpha = 1 });
    memcpy((float *)(uintptr_t)b.s.base, W1, sizeof W1);
    put(&b, 0, A1);
    put(&b, 1, B1_up);
    put(&b, 2, g);
    make(&b);
    for (size_t i = 0; i < 12; i++) ck_assert_float_eq_tol(b.s.weight[i], wanted[i], 1.5e-6f);
    tear_down(&b);
}
END_TEST

/* 2.1: alpha = 1, r = 2. */
START_TEST(loha_gives_the_worked_numbers)
{
    static const float w1a[] = { 1, 0, 2, 1 }, w1b[] = { 1, -1, 0, 0, 2, 1 },
                       w2a[] = { 1, 1, 0, -1 }, w2b[] = { 2, 0, 1, 1, 1, 0 },
                       wanted[] = { 1.5f, -0.5f, 0, -1, 0, 0 };
    bench b;

    set_up(&b, &wf_form_loha, 2, 3, 1, (wf_form_choice){ .rank = 2, .alpha = 1 });
    memset((float *)(uintptr_t)b.s.base, 0, 6 * sizeof(float));
    put(&b, 0, w1a);
    put(&b, 1, w1b);
    put(&b, 2, w2a);
    put(&b, 3, w2b);
    make(&b);
    for (size_t i = 0; i < 6; i++) ck_assert_float_eq(b.s.weight[i], wanted[i]);
    tear_down(&b);
}
END_TEST

/* 2.2: the product of (2, 2) and (2, 3), both whole, whatever alpha says. */
START_TEST(lokr_gives_the_worked_numbers)
{
    static const float w1[] = { 1, 2, 0, -1 }, w2[] = { 1, 0, 2, 3, -1, 1 },
                       wanted[] = { 1, 0, 2, 2, 0, 4, 3, -1, 1, 6, -2, 2,
                                    0, 0, 0, -1, 0, -2, 0, 0, 0, -3, 1, -1 };
    bench b;

    set_up(&b, &wf_form_lokr, 4, 6, 1, (wf_form_choice){ .rank = 4, .alpha = 1, .factor = -1 });
    memset((float *)(uintptr_t)b.s.base, 0, 24 * sizeof(float));
    put(&b, 0, w1);
    put(&b, 1, w2);
    make(&b);
    for (size_t i = 0; i < 24; i++) ck_assert_float_eq(b.s.weight[i], wanted[i]);
    tear_down(&b);
}
END_TEST

/* 2.2 and PEFT's factorization(): dimension, factor, the two factors. */
START_TEST(lokr_cuts_as_peft_does)
{
    static const int32_t cuts[][4] = {
        { 128, -1, 8, 16 }, { 512, -1, 16, 32 }, { 360, -1, 18, 20 }, { 1024, -1, 32, 32 },
        { 127, -1, 1, 127 }, { 128, 4, 4, 32 }, { 256, -1, 16, 16 }, { 250, 5, 5, 50 },
        { 250, 7, 5, 50 }, { 360, 8, 8, 45 }, { 12, 8, 3, 4 }, { 7, 4, 1, 7 }, { 4, 4, 4, 1 },
    };
    bench b;

    set_up(&b, &wf_form_lokr, cuts[_i][0], 6, 1,
           (wf_form_choice){ .rank = 1, .alpha = 1, .factor = cuts[_i][1] });
    ck_assert_int_eq(b.s.shape[0], cuts[_i][2]);
    ck_assert_int_eq(b.s.shape[2], cuts[_i][3]);
    tear_down(&b);
}
END_TEST

/* 6 x 8 of 36 x 64: the first factor is whole unless it is asked for as a product, the second where the rank is no
 * less than half of 8. */
START_TEST(lokr_takes_products_where_they_are_thin)
{
    static const struct { int32_t rank; bool both; const char *names; } wanted[] = {
        { 3, false, "w1 w2_a w2_b" }, { 3, true, "w1_a w1_b w2_a w2_b" }, { 4, true, "w1 w2" },
    };
    bench b;
    char  names[64] = "";

    set_up(&b, &wf_form_lokr, 36, 64, 1,
           (wf_form_choice){ .rank = wanted[_i].rank, .alpha = 1, .factor = -1, .both = wanted[_i].both });
    for (int32_t t = 0; t < b.s.tensors; t++)
        snprintf(names + strlen(names), 16, "%s%s", t > 0 ? " " : "", b.s.tensor[t].name);
    ck_assert_str_eq(names, wanted[_i].names);
    tear_down(&b);
}
END_TEST

/* 2.7: M = [[1, .5], [-.5, 2]], s = 1/2. */
START_TEST(moslora_gives_the_worked_numbers)
{
    static const float M[] = { 1, 0.5f, -0.5f, 2 },
                       wanted[] = { 0.5f, 1.25f, 0.75f, -0.25f, 0.5f, 0.125f, -2.625f, -1.375f,
                                    0.75f, 3, 4.5f, 0.75f };
    bench b;

    set_up(&b, &wf_form_moslora, 3, 4, 1, (wf_form_choice){ .rank = 2, .alpha = 1 });
    put(&b, 0, A1);
    put(&b, 1, B1_up);
    put(&b, 2, M);
    make(&b);
    for (size_t i = 0; i < 12; i++) {
        float d = 0;
        for (size_t p = 0; p < 2; p++) d += b.s.up[p * 3 + i / 4] * b.s.down[p * 4 + i % 4];
        ck_assert_float_eq(b.s.scale * d, wanted[i]);
    }
    tear_down(&b);
}
END_TEST

/* A row of zeros has no direction: it stays, and gives no gradient that is not a number. */
START_TEST(dora_bears_a_row_of_zeros)
{
    bench b;

    set_up(&b, &wf_form_dora, 3, 4, 1,
           (wf_form_choice){ .rank = 2, .alpha = 1, .exact_norm = _i == 1 });
    memset((float *)(uintptr_t)b.s.base + 4, 0, 4 * sizeof(float));
    make(&b);
    for (size_t i = 0; i < 12; i++) b.s.g_weight[i] = 1;
    b.s.form->pull(&b.s, &b.c);
    for (size_t i = 0; i < 4; i++) ck_assert_float_eq(b.s.weight[4 + i], 0);
    for (int32_t t = 0; t < 3; t++)
        for (size_t i = 0; i < numbers(&b, t); i++) ck_assert(isfinite(b.s.grad[t][i]));
    tear_down(&b);
}
END_TEST

/* ---- ranks ----------------------------------------------------------------------------------- */

START_TEST(rank_is_cut_to_the_layer_and_the_scale_stays)
{
    bench b;

    set_up(&b, &wf_form_lora, 3, 8, 1, (wf_form_choice){ .rank = 16, .alpha = 8 });
    ck_assert_int_eq(b.s.rank, 3);
    ck_assert_float_eq_tol(b.s.scale, 0.5f, 1e-7f);
    ck_assert_float_eq_tol(b.s.alpha, 1.5f, 1e-7f);
    tear_down(&b);
    set_up(&b, &wf_form_lora, 3, 8, 1, (wf_form_choice){ .rank = 16 }); /* no alpha: the rank */
    ck_assert_float_eq(b.s.scale, 1);
    ck_assert_float_eq(b.s.alpha, 3);
    tear_down(&b);
    set_up(&b, &wf_form_lokr, 30, 8, 1, (wf_form_choice){ .rank = 2, .factor = -1 });
    ck_assert_float_eq(b.s.scale, 1);
    ck_assert_float_eq(b.s.alpha, 2);
    tear_down(&b);
}
END_TEST

START_TEST(forms_say_which_layers_they_have)
{
    static const wf_form *const forms[] = { &wf_form_lora, &wf_form_dora, &wf_form_loha,
                                            &wf_form_lokr, &wf_form_moslora, &wf_form_full };
    const wf_form_choice c = { .rank = 2, .alpha = 2, .factor = -1 };
    const wf_layer norm = { .name = "n", .kind = WEFT_LAYER_NORM, .out = 8, .in = 1, .kernel = 1 },
                   linear = { .name = "l", .kind = WEFT_LAYER_LINEAR, .out = 8, .in = 8,
                              .kernel = 1 };
    wf_site on_norm = { .layer = &norm, .out = 8, .K = 1 },
            on_linear = { .layer = &linear, .out = 8, .K = 8 };

    for (size_t i = 0; i < WF_LEN(forms); i++) {
        ck_assert(!forms[i]->shape(&on_norm, &c));
        ck_assert(forms[i]->shape(&on_linear, &c));
    }
    ck_assert(wf_form_norm.shape(&on_norm, &c));
    ck_assert(!wf_form_norm.shape(&on_linear, &c));
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

/* What the form writes, behind the name of a layer, as an adapter. */
static weft_adapter *open_written(bench *b, int32_t dialect, const char *stem, const char *config)
{
    wf_form_out          out[WF_FORM_OUTS];
    weft_tensor_out      t[WF_FORM_OUTS];
    char                 name[WF_FORM_OUTS][128];
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors        *tensors = NULL;
    weft_adapter        *a = NULL;
    int32_t              n = b->s.form->write(&b->s, dialect, &b->bag, out);

    ck_assert_int_ge(n, 1);
    ck_assert_int_le(n, WF_FORM_OUTS);
    for (int32_t i = 0; i < n; i++) {
        weft_tensor_out_init(&t[i], sizeof t[i]);
        snprintf(name[i], sizeof name[i], "%s.%s", stem, out[i].ending);
        t[i].name = name[i];
        t[i].data = out[i].data;
        t[i].rank = (size_t)out[i].rank;
        memcpy(t[i].shape, out[i].shape, sizeof out[i].shape);
    }
    o.name = "written";
    o.config_text = config;
    ck_assert_msg(weft_tensors_create(t, (size_t)n, NULL, 0, NULL, &tensors, &err) == WEFT_OK, "%s",
                  err.text);
    ck_assert_msg(weft_adapter_create(tensors, &o, &a, &err) == WEFT_OK, "%s", err.text);
    weft_tensors_free(tensors);
    return a;
}

/* What the adapter makes of the layer's weight. */
static void check_weight(bench *b, const weft_adapter *a)
{
    const wf_site *s = &b->s;
    float         *delta = floats(b, s->out * s->K), *wanted = floats(b, s->out * s->K);

    ck_assert_uint_eq(a->count, 1);
    ck_assert(wf_module_fits(&a->modules[0], &b->l));
    ck_assert_msg(wf_module_add(&a->modules[0], &b->l, (double)a->modules[0].scale, 1, 1, delta,
                                &b->heap, &err) == WEFT_OK, "%s", err.text);
    for (size_t o = 0; o < s->out; o++)
        for (size_t i = 0; i < s->K; i++) {
            double at = 0;
            for (size_t p = 0; s->down != NULL && p < (size_t)s->rank; p++)
                at += (double)(s->scale * s->up[p * s->out + o]) * (double)s->down[p * s->K + i];
            if (s->down == NULL)
                at = (double)s->weight[o * s->K + i] - (double)s->base[o * s->K + i];
            wanted[o * s->K + i] = (float)at;
        }
    for (size_t i = 0; i < s->out * s->K; i++)
        near(s->form->name, i, (double)delta[i], (double)wanted[i], 1, 2e-6);
}

static const struct {
    const wf_form *form;
    int32_t        out, in, kernel;
    wf_form_choice c;
    const char    *config; /* of PEFT's; NULL: it has no form for it */
} written[] = {
    { &wf_form_lora, 6, 5, 1, { .rank = 2, .alpha = 3 },
      "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3}" },
    { &wf_form_lora, 6, 5, 3, { .rank = 2, .alpha = 3 },
      "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3}" },
    { &wf_form_dora, 6, 5, 1, { .rank = 2, .alpha = 3 },
      "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3, \"use_dora\": true}" },
    { &wf_form_dora, 6, 6, 3, { .rank = 2, .alpha = 3 },
      "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3, \"use_dora\": true}" },
    { &wf_form_moslora, 6, 5, 1, { .rank = 2, .alpha = 1 },
      "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1}" },
    { &wf_form_loha, 6, 5, 1, { .rank = 2, .alpha = 1 },
      "{\"peft_type\": \"LOHA\", \"r\": 2, \"alpha\": 1}" },
    { &wf_form_loha, 6, 4, 3, { .rank = 2, .alpha = 3 },
      "{\"peft_type\": \"LOHA\", \"r\": 2, \"alpha\": 3}" },
    { &wf_form_lokr, 24, 12, 1, { .rank = 2, .alpha = 3, .factor = 2 },
      "{\"peft_type\": \"LOKR\", \"r\": 2, \"alpha\": 3}" },
    { &wf_form_lokr, 36, 64, 1, { .rank = 2, .alpha = 3, .factor = -1, .both = true },
      "{\"peft_type\": \"LOKR\", \"r\": 2, \"alpha\": 3}" },
    { &wf_form_lokr, 8, 6, 3, { .rank = 1, .alpha = 2, .factor = -1 },
      "{\"peft_type\": \"LOKR\", \"r\": 1, \"alpha\": 2}" },
    { &wf_form_lokr, 8, 6, 3, { .rank = 7, .alpha = 2, .factor = -1 },
      "{\"peft_type\": \"LOKR\", \"r\": 7, \"alpha\": 7}" },
    { &wf_form_full, 6, 5, 1, { .rank = 2, .alpha = 1 }, NULL },
    { &wf_form_full, 6, 5, 3, { .rank = 2, .alpha = 1 }, NULL },
};

/* In the middle of a training, in both ways of naming. */
START_TEST(what_is_written_is_what_was_trained)
{
    bench         b;
    weft_adapter *a;

    set_up(&b, written[_i].form, written[_i].out, written[_i].in, written[_i].kernel,
           written[_i].c);
    scatter(&b);
    make(&b);
    a = open_written(&b, WEFT_DIALECT_KOHYA, "lora_unet_conv_in", NULL);
    check_weight(&b, a);
    if (written[_i].form == &wf_form_full) {
        float bias[6] = { 0 };
        bool  any = false;
        ck_assert(wf_module_add_bias(&a->modules[0], &b.l, 1, 1, bias, &any, &err) == WEFT_OK);
        ck_assert(any);
        for (size_t i = 0; i < 6; i++)
            ck_assert_float_eq_tol(bias[i] + b.bias[i], b.s.value[1][i], 1e-6f);
    }
    weft_adapter_free(a);
    if (written[_i].config != NULL) {
        a = open_written(&b, WEFT_DIALECT_PEFT, "base_model.model.conv_in", written[_i].config);
        check_weight(&b, a);
        weft_adapter_free(a);
    } else {
        wf_form_out out[WF_FORM_OUTS];
        ck_assert_int_eq(b.s.form->write(&b.s, WEFT_DIALECT_PEFT, &b.bag, out), 0);
        ck_assert_int_eq(b.s.form->write(&b.s, WEFT_DIALECT_DIFFUSERS, &b.bag, out), 0);
    }
    tear_down(&b);
}
END_TEST

START_TEST(norms_are_written_as_differences)
{
    bench b;
    float w[7] = { 0 }, d[7] = { 0 };
    bool  any = false;

    set_up(&b, &wf_form_norm, 7, 1, 1, (wf_form_choice){ .rank = 1 });
    for (size_t i = 0; i < 7; i++) ck_assert_float_eq(b.s.weight[i], b.weight[i]);
    for (size_t i = 0; i < 7; i++) ck_assert_float_eq(b.s.bias[i], b.bias[i]);
    scatter(&b);
    weft_adapter *a = open_written(&b, WEFT_DIALECT_KOHYA, "lora_unet_conv_norm_out", NULL);
    ck_assert_str_eq(a->modules[0].family->name, "norm");
    ck_assert(wf_module_add(&a->modules[0], &b.l, 1, 1, 1, w, &b.heap, &err) == WEFT_OK);
    ck_assert(wf_module_add_bias(&a->modules[0], &b.l, 1, 1, d, &any, &err) == WEFT_OK);
    ck_assert(any);
    for (size_t i = 0; i < 7; i++) {
        ck_assert_float_eq_tol(b.weight[i] + w[i], b.s.weight[i], 1e-6f);
        ck_assert_float_eq_tol(b.bias[i] + d[i], b.s.bias[i], 1e-6f);
    }
    weft_adapter_free(a);
    tear_down(&b);
}
END_TEST

/* LoHa and LoKr have no names in diffusers' own files. */
START_TEST(dialects_without_a_form_get_nothing)
{
    bench       b;
    wf_form_out out[WF_FORM_OUTS];

    set_up(&b, _i == 0 ? &wf_form_loha : &wf_form_lokr, 6, 4, 1,
           (wf_form_choice){ .rank = 1, .alpha = 1, .factor = -1 });
    ck_assert_int_eq(b.s.form->write(&b.s, WEFT_DIALECT_DIFFUSERS, &b.bag, out), 0);
    tear_down(&b);
}
END_TEST

/* Memory that ends anywhere while a form writes. */
START_TEST(writing_without_memory_says_so)
{
    bench b;
    bool  whole = false;

    set_up(&b, written[_i].form, written[_i].out, written[_i].in, written[_i].kernel,
           written[_i].c);
    for (size_t n = 1; !whole; n++) {
        test_memory    m;
        weft_allocator alloc = test_allocator(&m);
        wf_form_out    out[WF_FORM_OUTS];
        wf_bag         bag;
        m.fail_at = n;
        wf_bag_init(&bag, &alloc);
        int32_t count = b.s.form->write(&b.s, WEFT_DIALECT_KOHYA, &bag, out);
        whole = count > 0;
        ck_assert(count == -1 || count > 0);
        ck_assert(whole || m.calls >= n);
        wf_bag_free(&bag);
        ck_assert_uint_eq(m.live_blocks, 0);
    }
    tear_down(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("train: forms");
    TCase *t = tcase_create("there and back");

    tcase_add_loop_test(t, make_is_the_formula, 0, (int)WF_LEN(cases));
    tcase_add_loop_test(t, pull_is_the_gradient_of_make, 0, (int)WF_LEN(cases));
    suite_add_tcase(s, t);
    t = tcase_create("beginnings");
    tcase_add_loop_test(t, beginning_changes_nothing, 0, 2 * (int)WF_LEN(cases));
    tcase_add_loop_test(t, tensors_are_drawn_as_their_authors_do, 0, (int)WF_LEN(draws));
    tcase_add_test(t, rank_is_cut_to_the_layer_and_the_scale_stays);
    tcase_add_test(t, forms_say_which_layers_they_have);
    suite_add_tcase(s, t);
    t = tcase_create("worked numbers");
    tcase_add_test(t, dora_gives_the_worked_numbers);
    tcase_add_test(t, loha_gives_the_worked_numbers);
    tcase_add_test(t, lokr_gives_the_worked_numbers);
    tcase_add_loop_test(t, lokr_cuts_as_peft_does, 0, 13);
    tcase_add_loop_test(t, lokr_takes_products_where_they_are_thin, 0, 3);
    tcase_add_test(t, moslora_gives_the_worked_numbers);
    tcase_add_loop_test(t, dora_bears_a_row_of_zeros, 0, 2);
    suite_add_tcase(s, t);
    t = tcase_create("files");
    tcase_add_loop_test(t, what_is_written_is_what_was_trained, 0, (int)WF_LEN(written));
    tcase_add_test(t, norms_are_written_as_differences);
    tcase_add_loop_test(t, dialects_without_a_form_get_nothing, 0, 2);
    tcase_add_loop_test(t, writing_without_memory_says_so, 0, (int)WF_LEN(written));
    suite_add_tcase(s, t);
    return run_suite(s);
}
