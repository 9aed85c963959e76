/* The way back against difference quotients, in double.
 *
 * Operations and layers are compiled here a second time with doubles for floats (double.h), on products that are plain
 * loops. Each is run with a tape: with c a random number for each result, the gradient of the sum of c y is what the
 * tape leaves for each input and each weight. It must be the difference of that sum, by four points, to 1e-7 of the
 * largest gradient. After the way back nothing may be left in the block of gradients but what inputs have. */
#include "nets/clip_layer.h"
#include "nets/tape.h"
#include "weft/model.h"

enum { INPUTS = 4, PARAMS = 8, PROBES = 24 };

/* ---- weights, which are doubles here --------------------------------------------------------- */

int32_t wf_dtype_bits(wf_dtype t)
{
    ck_assert(t == WF_F32 || t == WF_F64); /* what the networks call float32 is double too */
    return 64;
}

bool wf_widen_any(float *dst, const void *src, wf_dtype type, size_t n)
{
    ck_assert(type == WF_F32 || type == WF_F64);
    memcpy(dst, src, n * sizeof *dst);
    return true;
}

size_t wf_not_finite(const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i])) return i;
    return n;
}

/* clip_layer.c can take its layers from a file; here it does not. */
weft_status wf_bind_norm(wf_binder *b, wf_norm *out, const char *prefix, const char *name, int32_t channels,
                         int32_t groups, float eps, weft_error *err)
{
    (void)b, (void)out, (void)prefix, (void)name, (void)channels, (void)groups, (void)eps, (void)err;
    return WEFT_E_INTERNAL;
}

weft_status wf_bind_linear(wf_binder *b, const wf_layer **out, const char *prefix, const char *name, int32_t outs,
                           int32_t ins, bool bias, weft_error *err)
{
    (void)b, (void)out, (void)prefix, (void)name, (void)outs, (void)ins, (void)bias, (void)err;
    return WEFT_E_INTERNAL;
}

/* ---- products as loops ----------------------------------------------------------------------- */

static void nt(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
               size_t k, float beta)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t p = 0; p < k; p++) sum += x[i * ldx + p] * w[j * ldw + p];
            y[i * ldy + j] = sum + (beta != 0 ? beta * y[i * ldy + j] : 0);
        }
}

static void nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
               size_t k, float beta)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t p = 0; p < k; p++) sum += x[i * ldx + p] * w[p * ldw + j];
            y[i * ldy + j] = sum + (beta != 0 ? beta * y[i * ldy + j] : 0);
        }
}

static void tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
               size_t k, float beta)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t p = 0; p < k; p++) sum += x[p * ldx + i] * w[p * ldw + j];
            y[i * ldy + j] = sum + (beta != 0 ? beta * y[i * ldy + j] : 0);
        }
}

static const wf_products plain;

static void wide(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    wf_tiles_wide(&plain, p, k, pool, scratch);
}

static void thin(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    wf_tiles_thin(&plain, p, k, pool, scratch);
}

static void attend(float *o, const wf_attention *a, const wf_kernels *k, size_t task, float *scratch)
{
    wf_attend_by_products(&plain, o, a, k, task, scratch);
}

static const wf_products plain = {
    "plain", nt, nn, tn, wide, thin, wf_tiles_wide_scratch, wf_tiles_thin_scratch, attend, wf_attend_by_products_scratch,
    WF_ATTEND_QUERIES,
};

/* ---- a trial --------------------------------------------------------------------------------- */

static float next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1.0;
}

/* Numbers that something is trained of, and where their gradients go. */
typedef struct param { float *value; float *grad; size_t n; } param;

typedef struct trial {
    const char *name;
    size_t      n[INPUTS]; /* floats of each input; 0: there is none                        */
    size_t      out;       /* floats of y; 0: y is the first input, and is written over     */
    bool        add;       /* y is added to: it is an input too, the last                   */
    int32_t     frozen;    /* 1 + an input whose gradient is not wanted                     */
    void      (*run)(wf_exec *e, float *y, float *const *x, const void *args);
    const void *args;
    const wf_layer_grads *grads;  /* of the layers that `run` has                           */
    const wf_delta       *deltas;
    param       params[PARAMS];
} trial;

typedef struct lab {
    wf_exec        e;
    wf_tape        tape;
    weft_allocator alloc;
    float         *x[INPUTS], *y;
    float         *grads;
    size_t         bytes;
} lab;

static int32_t inputs_of(const trial *t)
{
    int32_t n = 0;
    while (n < INPUTS && t->n[n] > 0) n++;
    return n;
}

static size_t results_of(const trial *t) { return t->out > 0 ? t->out : t->n[0]; }

/* Inputs, then y, into the arena: `from` has their numbers. */
static void begin(lab *l, const trial *t, float *const *from)
{
    int32_t ins = inputs_of(t);
    for (int32_t i = 0; i < ins; i++) {
        l->x[i] = wf_take(&l->e, 1, t->n[i]);
        if (!l->e.dry) memcpy(l->x[i], from[i], t->n[i] * sizeof *from[i]);
        (void)wf_track(&l->e, l->x[i], false, t->frozen != i + 1);
    }
    l->y = t->out == 0 ? l->x[0] : t->add ? l->x[ins - 1] : wf_take(&l->e, 1, t->out);
}

/* The sum of c y, without a tape. */
static double loss(lab *l, const trial *t, float *const *from, const float *c)
{
    double sum = 0;
    l->e.tape = NULL;
    l->e.arena.used = 0;
    l->e.arena.held = false;
    begin(l, t, from);
    t->run(&l->e, l->y, l->x, t->args);
    ck_assert_msg(!l->e.stopped, "%s stopped", t->name);
    for (size_t i = 0; i < results_of(t); i++) sum += c[i] * l->y[i];
    return sum;
}

/* The gradient g of n numbers v against quotients at some of them. */
static void compare(lab *l, const trial *t, float *const *from, const float *c, float *v, const float *g, size_t n,
                    const char *what, int32_t which)
{
    static const double steps[4] = { 1e-4, -1e-4, 2e-4, -2e-4 };
    double top = 1e-3, worst = 0;
    size_t probes = n > 2000 ? PROBES / 4 : PROBES, step = n > probes ? n / probes : 1; /* a large one takes long */
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs(g[i]));
    for (size_t i = 0; i < n; i += step) {
        float old = v[i];
        double at[4];
        for (int k = 0; k < 4; k++) {
            v[i] = old + steps[k];
            at[k] = loss(l, t, from, c);
        }
        v[i] = old;
        worst = fmax(worst, fabs((8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * steps[0]) - g[i]));
    }
    ck_assert_msg(worst <= 1e-7 * top, "%s: %s %d: off by %g of %g", t->name, what, which, worst, top);
}

static float *numbers(size_t n, uint32_t seed)
{
    float *v = malloc((n + 1) * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = next(&seed);
    return v;
}

static void try_with(const trial *t, bool segments)
{
    static const wf_cell one = { 1, 0, 0 };
    lab l = { .alloc = wf_allocator(NULL) };
    int32_t ins = inputs_of(t), threads = 3;
    float *from[INPUTS], *c = numbers(results_of(t), 77), *gx[INPUTS], *saved[INPUTS];

    for (int32_t i = 0; i < ins; i++) from[i] = numbers(t->n[i], 5 + (uint32_t)i);
    l.e = (wf_exec){ .k = &wf_kernels_ref, .products = &plain, .dry = true, .arena = { .dry = true },
                     .deltas = t->deltas, .cells = &one };
    ck_assert_int_eq(wf_pool_create(&l.alloc, threads, &l.e.pool, NULL), WEFT_OK);
    wf_tape_init(&l.tape, &l.alloc);
    l.tape.layers = t->grads;
    l.tape.segments = segments;
    l.e.tape = &l.tape;
    wf_tape_begin(&l.e);
    begin(&l, t, from);
    t->run(&l.e, NULL, (float *[INPUTS]){ NULL }, t->args);
    ck_assert_msg(!l.e.stopped, "%s stopped dry", t->name);
    l.bytes = wf_tape_bytes(&l.e);
    l.e.dry = false;
    l.e.arena = (wf_arena){ .base = wf_alloc(&l.alloc, l.bytes), .size = l.bytes };
    memset(l.e.arena.base, 0xff, l.bytes);
    l.tape.grads = l.grads = wf_zalloc(&l.alloc, l.bytes, 1);
    l.e.scratch = wf_zalloc(&l.alloc, (size_t)threads, sizeof *l.e.scratch);
    for (int32_t i = 0; i < threads; i++) l.e.scratch[i] = wf_alloc(&l.alloc, l.e.scratch_need + 64);

    wf_tape_begin(&l.e);
    begin(&l, t, from);
    t->run(&l.e, l.y, l.x, t->args);
    ck_assert_msg(!l.e.stopped && !l.e.arena.overflow, "%s stopped", t->name);
    for (int32_t i = 0; i < ins; i++) gx[i] = wf_grad(&l.e, l.x[i]);
    float *gy = wf_grad(&l.e, l.y);
    ck_assert_msg(gy != NULL, "%s: nothing is wanted of y", t->name);
    memcpy(gy, c, results_of(t) * sizeof *gy);
    for (int32_t i = 0; i < PARAMS && t->params[i].n > 0; i++)
        memset(t->params[i].grad, 0, t->params[i].n * sizeof *t->params[i].grad);
    wf_tape_back(&l.e);
    ck_assert_msg(!l.e.stopped && !l.e.arena.overflow, "%s stopped on the way back", t->name);
    for (int32_t i = 0; i < ins; i++) {
        ck_assert_msg((gx[i] == NULL) == (t->frozen == i + 1 && !(t->add && i == ins - 1)), "%s: input %d", t->name, i);
        if (gx[i] == NULL) continue;
        saved[i] = malloc(t->n[i] * sizeof *saved[i]);
        memcpy(saved[i], gx[i], t->n[i] * sizeof *saved[i]);
        memset(gx[i], 0, t->n[i] * sizeof *saved[i]);
    }
    for (size_t i = 0; i < l.bytes / sizeof(float); i++)
        ck_assert_msg(l.grads[i] == 0, "%s: a gradient is left at %zu", t->name, i);

    for (int32_t i = 0; i < ins; i++)
        if (gx[i] != NULL) compare(&l, t, from, c, from[i], saved[i], t->n[i], "input", i);
    for (int32_t i = 0; i < PARAMS && t->params[i].n > 0; i++) {
        const param *p = &t->params[i];
        float *g = malloc(p->n * sizeof *g);
        memcpy(g, p->grad, p->n * sizeof *g);
        compare(&l, t, from, c, p->value, g, p->n, "parameter", i);
        free(g);
    }
    for (int32_t i = 0; i < ins; i++) {
        free(from[i]);
        if (gx[i] != NULL) free(saved[i]);
    }
    free(c);
    for (int32_t i = 0; i < threads; i++) wf_free(&l.alloc, l.e.scratch[i]);
    wf_free(&l.alloc, l.e.scratch);
    wf_free(&l.alloc, l.e.arena.base);
    wf_free(&l.alloc, l.grads);
    wf_tape_free(&l.tape);
    wf_pool_free(l.e.pool);
}

static void try(const trial *t) { try_with(t, false); }

/* ---- activations ----------------------------------------------------------------------------- */

typedef struct act_args { wf_act act; size_t rows, c; } act_args;

static void run_act(wf_exec *e, float *y, float *const *x, const void *args)
{
    const act_args *a = args;
    wf_activate(e, a->act, y, x[0], a->rows, a->c);
}

START_TEST(activations)
{
    for (wf_act act = WF_ACT_NONE; act <= WF_ACT_MISH; act++)
        for (int32_t own = 0; own < 2; own++) {
            act_args a = { act, 70, 131 };
            try(&(trial){ .name = own ? "activation" : "activation in place", .n = { a.rows * a.c },
                          .out = own ? a.rows * a.c : 0, .run = run_act, .args = &a });
        }
}
END_TEST

static void run_geglu(wf_exec *e, float *y, float *const *x, const void *args)
{
    const act_args *a = args;
    wf_geglu(e, y, x[0], a->rows, a->c);
}

START_TEST(gated)
{
    act_args few = { 0, 70, 5 }, wide_rows = { 0, 2, 600 };
    try(&(trial){ .name = "geglu", .n = { 70 * 10 }, .out = 70 * 5, .run = run_geglu, .args = &few });
    try(&(trial){ .name = "geglu", .n = { 2 * 1200 }, .out = 2 * 600, .run = run_geglu, .args = &wide_rows });
}
END_TEST

/* ---- norms ----------------------------------------------------------------------------------- */

enum { NORM_C = 12, WIDE_C = 520 };

typedef struct norm_args { wf_norm norm; wf_grid g; wf_act act; } norm_args;

static void run_norm(wf_exec *e, float *y, float *const *x, const void *args)
{
    const norm_args *a = args;
    if (a->norm.groups > 0) wf_group_norm(e, &a->norm, y, x[0], a->g, a->act);
    else wf_layer_norm(e, &a->norm, y, x[0], a->g);
}

static void try_norm(const char *name, int32_t groups, int32_t c, wf_grid g, wf_act act, bool trained, bool frozen)
{
    float *weight = numbers((size_t)c, 1), *bias = numbers((size_t)c, 2);
    float *gw = numbers((size_t)c, 0), *gb = numbers((size_t)c, 0);
    wf_layer layer = { .name = "norm", .id = 0, .kind = WEFT_LAYER_NORM };
    wf_layer_grads grads = { .weight = gw, .bias = gb };
    wf_delta delta = { .merged = weight, .merged_bias = bias };
    norm_args a = { { weight, bias, c, groups, 1e-5, &layer }, g, act };
    float ones[WIDE_C];
    for (int32_t i = 0; i < c; i++) ones[i] = 1;
    if (trained) a.norm.weight = a.norm.bias = ones; /* those of the merged copy count */
    size_t n = wf_rows(g) * (size_t)c;
    try(&(trial){ .name = name, .n = { n }, .out = n, .frozen = frozen, .run = run_norm, .args = &a,
                  .grads = trained ? &grads : NULL, .deltas = trained ? &delta : NULL,
                  .params = { { weight, gw, trained ? (size_t)c : 0 }, { bias, gb, (size_t)c } } });
    free(weight), free(bias), free(gw), free(gb);
}

START_TEST(group_norms)
{
    wf_grid g = wf_image_grid(2, 5, 30), one = wf_image_grid(1, 3, 1);
    for (wf_act act = WF_ACT_NONE; act <= WF_ACT_MISH; act++) {
        try_norm("group norm", 3, NORM_C, g, act, false, false);
        try_norm("group norm, trained", 3, NORM_C, g, act, true, false);
    }
    try_norm("group norm of frozen rows", 4, NORM_C, g, WF_ACT_SILU, true, true);
    try_norm("group norm, wide", 4, WIDE_C, one, WF_ACT_SILU, true, false);
}
END_TEST

START_TEST(layer_norms)
{
    wf_grid g = wf_text_grid(3, 50), one = wf_text_grid(1, 2);
    try_norm("layer norm", 0, NORM_C, g, WF_ACT_NONE, false, false);
    try_norm("layer norm, trained", 0, NORM_C, g, WF_ACT_NONE, true, false);
    try_norm("layer norm of frozen rows", 0, NORM_C, g, WF_ACT_NONE, true, true);
    try_norm("layer norm, wide", 0, WIDE_C - 3, one, WF_ACT_NONE, true, false);
}
END_TEST

/* ---- moving rows ----------------------------------------------------------------------------- */

static void run_concat(wf_exec *e, float *y, float *const *x, const void *args)
{
    (void)args;
    wf_concat(e, y, x[0], 3, x[1], 5, 70);
}

typedef struct grids { wf_grid from, to; size_t c; } grids;

static void run_upsample(wf_exec *e, float *y, float *const *x, const void *args)
{
    const grids *a = args;
    wf_upsample(e, y, a->to, x[0], a->from, a->c);
}

static void run_copy(wf_exec *e, float *y, float *const *x, const void *args)
{
    (void)args;
    wf_copy(e, y, x[0], 90);
    wf_rescale(e, y, 0.7, 0.1, 90);
}

static void run_turns(wf_exec *e, float *y, float *const *x, const void *args)
{
    const grids *a = args;
    float *t = wf_take(e, wf_rows(a->from), a->c), *u = wf_take(e, wf_rows(a->from), a->c);
    wf_to_rows(e, t, x[0], a->from, a->c);
    wf_activate(e, WF_ACT_SILU, u, t, wf_rows(a->from), a->c);
    wf_from_rows(e, y, u, a->from, a->c);
}

START_TEST(rows)
{
    grids odd = { wf_image_grid(2, 3, 4), wf_image_grid(2, 5, 8), 3 };
    grids twice = { wf_image_grid(2, 5, 7), wf_image_grid(2, 10, 14), 2 };
    for (int32_t frozen = 0; frozen <= 2; frozen++)
        try(&(trial){ .name = "concat", .n = { 70 * 3, 70 * 5 }, .out = 70 * 8, .frozen = frozen, .run = run_concat });
    try(&(trial){ .name = "upsample", .n = { 24 * 3 }, .out = 80 * 3, .run = run_upsample, .args = &odd });
    try(&(trial){ .name = "upsample", .n = { 70 * 2 }, .out = 280 * 2, .run = run_upsample, .args = &twice });
    try(&(trial){ .name = "copy, rescale", .n = { 90 }, .out = 90, .run = run_copy });
    try(&(trial){ .name = "to and from rows", .n = { 24 * 3 }, .out = 24 * 3, .run = run_turns, .args = &odd });
}
END_TEST

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct attend_args { int32_t n, heads, d, lq, lk; bool causal; } attend_args;

static void run_attend(wf_exec *e, float *y, float *const *x, const void *args)
{
    const attend_args *a = args;
    wf_attend(e, y, &(wf_attention){ .n = a->n, .heads = a->heads, .d = a->d, .lq = a->lq, .q = x[0],
                                     .keys = &(wf_keys){ x[1], x[2], a->lk }, .segments = 1, .causal = a->causal });
}

START_TEST(attentions)
{
    static const attend_args all[] = {
        { 2, 2, 3, 5, 4, false }, { 1, 2, 4, 70, 70, true }, { 2, 1, 5, 130, 9, false }, { 1, 1, 2, 66, 1030, false },
        { 1, 1, 2, 1030, 1030, true },
    };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        const attend_args *a = &all[i];
        size_t q = (size_t)(a->n * a->lq * a->heads * a->d), k = (size_t)(a->n * a->lk * a->heads * a->d);
        for (int32_t frozen = 0; frozen <= (a->lk > 1000 ? 0 : 3); frozen++)
            try(&(trial){ .name = "attention", .n = { q, k, k }, .out = q, .frozen = frozen, .run = run_attend,
                          .args = a });
    }
}
END_TEST

/* ---- blocks ---------------------------------------------------------------------------------- */

enum { MOST_LAYERS = 8 };

/* Layers with weights by chance, and what is trained beside them. */
typedef struct shelf {
    wf_layer       layer[MOST_LAYERS];
    wf_delta       delta[MOST_LAYERS];
    wf_layer_grads grads[MOST_LAYERS];
    wf_stack       stack[MOST_LAYERS];
    param          params[PARAMS];
    float         *own[6 * MOST_LAYERS];
    int32_t        layers, count, owned;
} shelf;

static float *own_numbers(shelf *s, size_t n)
{
    float *v = s->own[s->owned] = numbers(n, 100 + (uint32_t)s->owned);
    s->owned++;
    return v;
}

static const wf_layer *put_layer(shelf *s, int32_t out, int32_t in, int32_t kernel, int32_t stride)
{
    size_t n = (size_t)(out * in * kernel * kernel);
    float *w = own_numbers(s, n);
    for (size_t i = 0; i < n; i++) w[i] /= sqrt((double)(in * kernel * kernel));
    int32_t id = s->layers++;
    s->layer[id] = (wf_layer){ .name = "layer", .weight = w, .bias = own_numbers(s, (size_t)out), .dtype = WF_F64, .id = id,
                               .kind = kernel > 1 ? WEFT_LAYER_CONV : WEFT_LAYER_LINEAR, .out = out, .in = in,
                               .kernel = kernel, .stride = stride, .pad = kernel / 2 };
    return &s->layer[id];
}

static wf_norm put_norm(shelf *s, int32_t channels, int32_t groups)
{
    int32_t id = s->layers++;
    s->layer[id] = (wf_layer){ .name = "norm", .id = id, .kind = WEFT_LAYER_NORM, .out = channels, .in = 1 };
    return (wf_norm){ own_numbers(s, (size_t)channels), own_numbers(s, (size_t)channels), channels, groups, 1e-5,
                      &s->layer[id] };
}

static float *train(shelf *s, float *value, size_t n)
{
    float *g = own_numbers(s, n);
    s->params[s->count++] = (param){ value, g, n };
    return g;
}

static const int32_t ranks[] = { 2 };
static const float   scales[] = { 0.5 };

static void train_pair(shelf *s, const wf_layer *l)
{
    size_t K = (size_t)(l->in * l->kernel * l->kernel), out = (size_t)l->out;
    float *down = own_numbers(s, 2 * K), *up = own_numbers(s, 2 * out);
    s->stack[l->id] = (wf_stack){ 1, 2, ranks, scales, down, up, NULL };
    s->delta[l->id].stack = &s->stack[l->id];
    s->grads[l->id] = (wf_layer_grads){ .down = train(s, down, 2 * K), .up = train(s, up, 2 * out) };
}

static void train_whole(shelf *s, const wf_layer *l)
{
    size_t n = l->kind == WEFT_LAYER_NORM ? (size_t)l->out : (size_t)(l->out * l->in * l->kernel * l->kernel);
    float *w = own_numbers(s, n), *b = own_numbers(s, (size_t)l->out);
    s->delta[l->id].merged = w;
    s->delta[l->id].merged_bias = b;
    s->grads[l->id] = (wf_layer_grads){ .weight = train(s, w, n), .bias = train(s, b, (size_t)l->out) };
}

static void try_block(shelf *s, trial *t)
{
    t->grads = s->grads;
    t->deltas = s->delta;
    memcpy(t->params, s->params, sizeof t->params);
    try_with(t, false);
    try_with(t, true);
    while (s->owned > 0) free(s->own[--s->owned]);
}

typedef struct clip_args { wf_clip_layer l; wf_clip_shape s; wf_grid g; } clip_args;

static void run_clip_layer(wf_exec *e, float *y, float *const *x, const void *args)
{
    const clip_args *a = args;
    (void)x;
    wf_clip_layer_run(e, &a->l, &a->s, y, a->g);
}

START_TEST(transformer_layers)
{
    enum { D = 6, WIDE = 10 };
    for (wf_act act = WF_ACT_GELU; act <= WF_ACT_QUICK_GELU; act++) {
        shelf s = { .layers = 0 };
        clip_args a = { .s = { D, 2, WIDE, 1e-5, act, act == WF_ACT_GELU }, .g = wf_text_grid(2, 5) };
        a.l.norm1 = put_norm(&s, D, 0);
        a.l.norm2 = put_norm(&s, D, 0);
        a.l.q = put_layer(&s, D, D, 1, 1);
        a.l.k = put_layer(&s, D, D, 1, 1);
        a.l.v = put_layer(&s, D, D, 1, 1);
        a.l.out = put_layer(&s, D, D, 1, 1);
        a.l.fc1 = put_layer(&s, WIDE, D, 1, 1);
        a.l.fc2 = put_layer(&s, D, WIDE, 1, 1);
        train_pair(&s, a.l.k);
        train_pair(&s, a.l.fc2);
        train_whole(&s, a.l.norm1.layer);
        train_whole(&s, a.l.fc1);
        try_block(&s, &(trial){ .name = "transformer layer", .n = { 10 * D }, .run = run_clip_layer, .args = &a });
    }
}
END_TEST

typedef struct resnet_args { wf_norm norm1, norm2; const wf_layer *conv1, *conv2, *time, *down; wf_grid g; } resnet_args;

/* A resnet as unet.c has it, then half its size and back again. */
static void run_resnet(wf_exec *e, float *y, float *const *x, const void *args)
{
    const resnet_args *a = args;
    size_t rows = wf_rows(a->g), c = (size_t)a->conv1->in;
    wf_grid half = wf_layer_grid(a->down, a->g);
    float *n1 = wf_take(e, rows, c), *t = wf_take(e, (size_t)a->g.n, c), *h = wf_take(e, rows, c);
    float *n2 = wf_take(e, rows, c), *z = wf_take(e, rows, c), *d = wf_take(e, wf_rows(half), c);

    wf_group_norm(e, &a->norm1, n1, x[0], a->g, WF_ACT_SILU);
    wf_layer_apply(e, a->time, t, x[1], wf_vector_grid(a->g.n), false);
    wf_layer_apply_to_each(e, a->conv1, h, n1, a->g, t);
    wf_group_norm(e, &a->norm2, n2, h, a->g, WF_ACT_SILU);
    wf_copy(e, z, x[0], rows * c);
    wf_layer_apply(e, a->conv2, z, n2, a->g, true);
    wf_layer_apply(e, a->down, d, z, a->g, false);
    wf_upsample(e, y, a->g, d, half, c);
}

START_TEST(resnets)
{
    enum { C = 4, TIME = 3 };
    for (int32_t whole = 0; whole < 2; whole++) {
        shelf s = { .layers = 0 };
        resnet_args a = { .g = wf_image_grid(2, 5, 4) };
        a.norm1 = put_norm(&s, C, 2);
        a.norm2 = put_norm(&s, C, 2);
        a.conv1 = put_layer(&s, C, C, 3, 1);
        a.conv2 = put_layer(&s, C, C, 3, 1);
        a.time = put_layer(&s, C, TIME, 1, 1);
        a.down = put_layer(&s, C, C, 3, 2);
        if (whole) {
            train_whole(&s, a.norm2.layer);
            train_whole(&s, a.conv1);
            train_whole(&s, a.down);
        } else {
            train_pair(&s, a.conv1);
            train_pair(&s, a.time);
            train_pair(&s, a.down);
        }
        size_t n = 40 * C;
        try_block(&s, &(trial){ .name = "resnet", .n = { n, 2 * TIME }, .out = n, .run = run_resnet, .args = &a });
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("the way back in double");
    TCase *c = tcase_create("operations");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, activations);
    tcase_add_test(c, gated);
    tcase_add_test(c, group_norms);
    tcase_add_test(c, layer_norms);
    tcase_add_test(c, rows);
    tcase_add_test(c, attentions);
    tcase_add_test(c, transformer_layers);
    tcase_add_test(c, resnets);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
