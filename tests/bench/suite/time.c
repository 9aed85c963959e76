/* time.c - where the time of a step and of a decode goes, by operation and by shape.
 *
 * The products are timed by a tier of our own: a copy of the one that is measured, whose functions note the time and
 * call on. The operations between products are reached by the linker, which sends the networks' calls of five functions
 * through ours (--wrap, in the Makefile); what is left of the whole is copies and all the rest. Seconds are of the
 * processor, all threads together, so that other programs disturb little. What an operation does in passing counts
 * as its own: bias, residual and the adapters' up product belong to the product that they are fused with. */
#include "suite.h"

#include "model/networks.h"
#include "nets/exec.h"

enum { CONVOLUTION, LINEAR, ATTENTION, SIDE, NORM, ACTIVATION, REST, PARTS };
const char *const time_parts[TIME_PARTS] = {
    [CONVOLUTION] = "convolutions 3x3", [LINEAR] = "products", [ATTENTION] = "attention", [SIDE] = "adapters' down products",
    [NORM] = "norms", [ACTIVATION] = "activations", [REST] = "copies, the rest",
};

enum { SHAPES_MAX = 128 };
typedef struct shape { char what[64]; int calls; double flops, bytes, seconds; } shape;

static struct {
    bool               on;
    const wf_products *inner;
    double             seconds[PARTS];
    shape              shapes[SHAPES_MAX];
    int                shape_count;
} taken;

static void take(int part, span begin)
{
    if (taken.on) taken.seconds[part] += span_since(begin).busy;
}

static void take_shape(const char *what, double flops, double bytes, span begin)
{
    double seconds = span_since(begin).busy;
    int    i = 0;

    if (!taken.on) return;
    while (i < taken.shape_count && strcmp(taken.shapes[i].what, what) != 0) i++;
    if (i == SHAPES_MAX) return;
    shape *s = &taken.shapes[i];
    if (i == taken.shape_count) {
        *s = (shape){ 0 };
        snprintf(s->what, sizeof s->what, "%s", what);
        taken.shape_count++;
    }
    s->calls++;
    s->flops += flops;
    s->bytes += bytes;
    s->seconds += seconds;
}

/* ---- the tier -------------------------------------------------------------------------------------------- */

static void wide(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    span   begin = span_now();
    size_t taps = wf_window_taps(&p->window), rows = p->samples * wf_window_rows(&p->window);
    char   what[64];

    taken.inner->wide(p, k, pool, scratch);
    take(taps > 1 ? CONVOLUTION : LINEAR, begin);
    if (taps == 1) snprintf(what, sizeof what, "product %zu x %zu x %zu", rows, p->out, p->in);
    else snprintf(what, sizeof what, "conv %dx%d, %dx%d, %zu to %zu%s", (int)p->window.kernel, (int)p->window.kernel,
                  (int)p->window.out_h, (int)p->window.out_w, p->in, p->out, p->window.stride > 1 ? ", stride 2" : "");
    take_shape(what, 2 * (double)rows * (double)(taps * p->in) * (double)p->out,
               (double)(taps * p->in * p->out) * (p->type == WF_F32 ? 4 : 2)
                   + 4 * ((double)(p->samples * (size_t)p->window.h * (size_t)p->window.w * p->in) + (double)(rows * p->out)),
               begin);
}

static void thin(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    span begin = span_now();
    taken.inner->thin(p, k, pool, scratch);
    take(SIDE, begin);
}

/* ---- the operations that the linker sends here --------------------------------------------------------------- */

__typeof__(wf_attend)     __real_wf_attend, __wrap_wf_attend;
__typeof__(wf_group_norm) __real_wf_group_norm, __wrap_wf_group_norm;
__typeof__(wf_layer_norm) __real_wf_layer_norm, __wrap_wf_layer_norm;
__typeof__(wf_activate)   __real_wf_activate, __wrap_wf_activate;
__typeof__(wf_geglu)      __real_wf_geglu, __wrap_wf_geglu;

void __wrap_wf_attend(wf_exec *e, float *o, const wf_attention *a)
{
    span   begin = span_now();
    char   what[64];
    double keys = 0, width = (double)a->heads * a->d;

    __real_wf_attend(e, o, a);
    take(ATTENTION, begin);
    for (int32_t i = 0; i < a->segments; i++) keys += a->keys[i].length;
    snprintf(what, sizeof what, "attention %d x %.0f, %d heads of %d", (int)a->lq, keys, (int)a->heads, (int)a->d);
    take_shape(what, 4 * a->n * width * a->lq * keys, 8 * a->n * width * (a->lq + keys), begin);
}

void __wrap_wf_group_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g, wf_act act)
{
    span begin = span_now();
    __real_wf_group_norm(e, norm, y, x, g, act);
    take(NORM, begin);
}

void __wrap_wf_layer_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g)
{
    span begin = span_now();
    __real_wf_layer_norm(e, norm, y, x, g);
    take(NORM, begin);
}

void __wrap_wf_activate(wf_exec *e, wf_act act, float *y, const float *x, size_t rows, size_t columns)
{
    span begin = span_now();
    __real_wf_activate(e, act, y, x, rows, columns);
    take(ACTIVATION, begin);
}

void __wrap_wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c)
{
    span begin = span_now();
    __real_wf_geglu(e, y, x, rows, c);
    take(ACTIVATION, begin);
}

/* ---- bars and rows -------------------------------------------------------------------------------------------- */

static time_bar bars[2 * TIME_BARS];
static int      bar_count;

static time_bar *bar_of(const char *what, const char *label)
{
    for (int i = 0; i < bar_count; i++)
        if (strcmp(bars[i].what, what) == 0 && strcmp(bars[i].label, label) == 0) return &bars[i];
    if (bar_count == (int)(sizeof bars / sizeof *bars)) return NULL;
    time_bar *t = &bars[bar_count++];
    *t = (time_bar){ 0 };
    snprintf(t->what, sizeof t->what, "%s", what);
    snprintf(t->label, sizeof t->label, "%s", label);
    return t;
}

static void finish(suite *b, const char *what, const char *label, double whole)
{
    time_bar *t = bar_of(what, label);

    taken.seconds[REST] = whole;
    for (int i = 0; i < REST; i++) taken.seconds[REST] -= taken.seconds[i];
    for (int i = 0; i < PARTS; i++) {
        if (t != NULL) t->seconds[i] = taken.seconds[i];
        fprintf(b->json, "{\"group\": \"time\", \"what\": \"%s\", \"label\": \"%s\"", what, label);
        fprintf(b->json, ", \"part\": \"%s\", \"seconds\": %.6g}\n", time_parts[i], taken.seconds[i]);
    }
    note("time of a %s, %s: %.3f s of processor time", what, label, whole);
}

/* Rows that an earlier version wrote. */
static void read_before(const char *path)
{
    FILE *f = fopen(path, "r");
    char  line[1024], what[24], label[40], part[40];
    double seconds;

    if (f == NULL) return;
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "{\"group\": \"time\", \"what\": \"%23[^\"]\", \"label\": \"%39[^\"]\", \"part\": \"%39[^\"]\""
                         ", \"seconds\": %lf", what, label, part, &seconds) != 4)
            continue;
        time_bar *t = bar_of(what, label);
        for (int i = 0; i < PARTS && t != NULL; i++)
            if (strcmp(part, time_parts[i]) == 0) t->seconds[i] = seconds;
    }
    fclose(f);
}

/* ---- roofline ------------------------------------------------------------------------------------------------------ */

static int by_seconds(const void *a, const void *b)
{
    double x = ((const shape *)a)->seconds, y = ((const shape *)b)->seconds;
    return (x < y) - (x > y);
}

static void roofline(suite *b, FILE *f, const char *what, const char *label, double peak)
{
    double whole = 0;

    for (int i = 0; i < taken.shape_count; i++) whole += taken.shapes[i].seconds;
    qsort(taken.shapes, (size_t)taken.shape_count, sizeof *taken.shapes, by_seconds);
    fprintf(f, "\n%s, %s; the ceiling is %.4g GFLOP/s per thread\n\n", what, label, peak);
    fprintf(f, "| %-42s | %5s | %8s | %9s | %9s | %18s | %10s |\n", "", "calls", "GFLOP", "FLOP/byte", "share",
            "GFLOP/s per thread", "of ceiling");
    fprintf(f, "| %-42s | %5s | %8s | %9s | %9s | %18s | %10s |\n", "---", "---:", "---:", "---:", "---:", "---:", "---:");
    for (int i = 0; i < taken.shape_count; i++) {
        const shape *s = &taken.shapes[i];
        double rate = s->flops / s->seconds * 1e-9;
        if (s->seconds >= 0.01 * whole)
            fprintf(f, "| %-42s | %5d | %8.1f | %9.0f | %7.1f %% | %18.1f | %9.2f  |\n", s->what, s->calls, s->flops * 1e-9,
                    s->flops / s->bytes, 100 * s->seconds / whole, rate, rate / peak);
        fprintf(b->json, "{\"group\": \"roofline\", \"what\": \"%s\", \"label\": \"%s\", \"shape\": \"%s\", \"calls\": %d", what, label,
                s->what, s->calls);
        put_number(b->json, "flops", s->flops);
        put_number(b->json, "bytes", s->bytes);
        put_number(b->json, "seconds", s->seconds);
        put_number(b->json, "of_ceiling", rate / peak);
        fputs("}\n", b->json);
    }
}

static void begin(void)
{
    memset(taken.seconds, 0, sizeof taken.seconds);
    taken.shape_count = 0;
    taken.on = true;
}

static void measure(suite *b, FILE *f, bool bf16, const wf_products *inner, const char *label, weft_adapter *const *adapter,
                    int adapters, double peak)
{
    weft_model *model = open_model(b->model, bf16);
    union { const wf_networks *in; wf_networks *out; } shared = { wf_model_networks(model) };
    wf_networks *n = shared.out; /* ours alone, so its tier may change */
    wf_products  timed = inner != NULL ? *inner : *n->products;
    const wf_products *own = n->products;
    side s;
    span t;

    taken.inner = inner != NULL ? inner : own;
    timed.wide = wide;
    timed.thin = thin;
    n->products = &timed;
    side_open(&s, model, plan_of(model, adapter, adapters, WEFT_PATH_SIDE, 1), b->size, b->threads, 0);
    side_steps(&s, 1);
    begin();
    t = side_steps(&s, 1);
    taken.on = false;
    finish(b, "step", label, t.busy);
    if (adapters == 0) {
        roofline(b, f, "step", label, peak);
        begin();
        t = side_decode(&s);
        taken.on = false;
        finish(b, "decode", label, t.busy);
        roofline(b, f, "decode", label, peak);
    }
    side_close(&s);
    n->products = own;
    weft_model_free(model);
}

static void draw_bars(const suite *b)
{
    char path[1024], title[128];

    snprintf(path, sizeof path, "%s/time.png", b->dir);
    snprintf(title, sizeof title, "Where the time goes, %dx%d: seconds of processor time", (int)b->size, (int)b->size);
    draw_times(bars, bar_count, title, path);
    note("time by operation: %s", path);
}

void group_time(suite *b)
{
    weft_adapter *adapter[2];
    weft_error    err;
    char          path[1024];
    double        f32 = b->peak_f32 / b->threads, bf16 = b->peak_bf16 / b->threads;

    snprintf(path, sizeof path, "%s/roofline.md", b->dir);
    FILE *f = fopen(path, "w");
    if (f == NULL) die("cannot write %s", path);
    bar_count = 0;
    if (b->as_before) {
        measure(b, f, false, &wf_products_openblas, "OpenBLAS tier, f32", NULL, 0, f32);
    } else {
        if (b->full) read_before(b->before);
        for (int i = 0; i < 2; i++) must(weft_adapter_open(b->lora[i], NULL, &adapter[i], &err), &err);
        measure(b, f, false, NULL, "f32", NULL, 0, f32);
        measure(b, f, false, NULL, "f32, 2 LoRAs", adapter, 2, f32);
        if (b->bf16) measure(b, f, true, NULL, "bf16", NULL, 0, bf16);
        for (int i = 0; i < 2; i++) weft_adapter_free(adapter[i]);
    }
    fclose(f);
    b->wrote_time = true;
    note("roofline by shape: %s", path);
    draw_bars(b);
}

void draw_time_of(suite *b, const char *path)
{
    bar_count = 0;
    if (b->full) read_before(b->before);
    read_before(path);
    if (bar_count > 0) draw_bars(b);
}
