/* The way back of attention against its formulas in double, with every tier of products and every table of kernels.
 *
 * Sizes stand around the tiles of 64 queries and 1024 keys. The bits are the same for one and three threads, and what
 * is frozen changes no bit of the rest. (In double, against difference quotients: test_double.c.) */
#include "nets/tape.h"
#include "nets/workbench.h"

static const wf_kernels *tables[2];
static size_t            table_count;

typedef struct shape { int32_t n, heads, d, lq, lk; bool causal; } shape;

static const shape shapes[] = {
    { 2, 2, 8, 5, 4, false },     { 1, 3, 40, 64, 64, true },    { 1, 2, 5, 65, 77, false }, { 2, 1, 64, 77, 77, true },
    { 1, 1, 16, 70, 1024, false }, { 1, 2, 3, 64, 1025, false }, { 1, 1, 4, 1030, 1030, true },
};

typedef struct sides { float *q, *k, *v; size_t nq, nk; } sides; /* values, or gradients */

/* Gradients of q, k, v for the gradient g of o. frozen: 1 to 3 of them, whose pointer is left NULL. */
static sides go_back(const shape *s, const wf_kernels *table, const sides *x, const float *g, int32_t threads, int32_t frozen)
{
    workbench w;
    wf_tape tape;
    float *at[3] = { NULL }, *grad[3];
    const size_t size[3] = { x->nq, x->nk, x->nk };
    const float *from[3] = { x->q, x->k, x->v };
    float **to[3];
    sides out = { malloc(x->nq * sizeof *g), malloc(x->nk * sizeof *g), malloc(x->nk * sizeof *g), x->nq, x->nk };
    wf_attention a = { .n = s->n, .heads = s->heads, .d = s->d, .lq = s->lq, .keys = &(wf_keys){ NULL, NULL, s->lk },
                       .segments = 1, .causal = s->causal };

    bench_open(&w, table, threads);
    wf_tape_init(&tape, &w.alloc);
    w.e.tape = &tape;
    wf_tape_begin(&w.e);
    for (int i = 0; i < 3; i++) (void)wf_take(&w.e, size[i], 1);
    (void)wf_take(&w.e, x->nq, 1);
    wf_attend(&w.e, NULL, &a);
    w.e.arena.held = false;
    w.e.arena.peak = wf_tape_bytes(&w.e);
    w.e.arena.used = 0;
    bench_real(&w);
    tape.grads = wf_zalloc(&w.alloc, w.peak, 1);
    wf_tape_begin(&w.e);
    for (int i = 0; i < 3; i++) {
        at[i] = wf_take(&w.e, size[i], 1);
        memcpy(at[i], from[i], size[i] * sizeof *g);
        (void)wf_track(&w.e, at[i], false, frozen != i + 1);
        grad[i] = wf_grad(&w.e, at[i]);
    }
    float *o = wf_take(&w.e, x->nq, 1);
    a.q = at[0];
    a.keys = &(wf_keys){ at[1], at[2], s->lk };
    wf_attend(&w.e, o, &a);
    memcpy(wf_grad(&w.e, o), g, x->nq * sizeof *g);
    wf_tape_back(&w.e);
    ck_assert(!w.e.stopped);
    to[0] = &out.q, to[1] = &out.k, to[2] = &out.v;
    for (int i = 0; i < 3; i++) {
        ck_assert((grad[i] == NULL) == (frozen == i + 1));
        if (grad[i] != NULL) memcpy(*to[i], grad[i], size[i] * sizeof *g);
        else free(*to[i]), *to[i] = NULL;
    }
    w.e.arena.used = 0;
    wf_free(&w.alloc, tape.grads);
    wf_tape_free(&tape);
    bench_close(&w);
    return out;
}

typedef struct exact { double *q, *k, *v; } exact;

static exact formula(const shape *s, const sides *x, const float *g)
{
    exact e = { calloc(x->nq, sizeof(double)), calloc(x->nk, sizeof(double)), calloc(x->nk, sizeof(double)) };
    size_t d = (size_t)s->d, width = (size_t)s->heads * d, lk = (size_t)s->lk;
    double root = 1 / sqrt((double)d), *p = malloc(lk * sizeof *p), *t = malloc(lk * sizeof *t);
    for (size_t n = 0; n < (size_t)s->n; n++)
        for (size_t h = 0; h < (size_t)s->heads; h++)
            for (size_t i = 0; i < (size_t)s->lq; i++) {
                size_t at = (n * (size_t)s->lq + i) * width + h * d, key = n * lk * width + h * d;
                size_t seen = s->causal ? i + 1 : lk;
                double top = -INFINITY, sum = 0, mean = 0;
                for (size_t j = 0; j < seen; j++) {
                    p[j] = t[j] = 0;
                    for (size_t c = 0; c < d; c++) {
                        p[j] += (double)x->q[at + c] * x->k[key + j * width + c] * root;
                        t[j] += (double)g[at + c] * x->v[key + j * width + c];
                    }
                    top = fmax(top, p[j]);
                }
                for (size_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - top);
                for (size_t j = 0; j < seen; j++) mean += (p[j] /= sum) * t[j];
                for (size_t j = 0; j < seen; j++)
                    for (size_t c = 0; c < d; c++) {
                        double score = p[j] * (t[j] - mean) * root;
                        e.v[key + j * width + c] += p[j] * g[at + c];
                        e.q[at + c] += score * x->k[key + j * width + c];
                        e.k[key + j * width + c] += score * x->q[at + c];
                    }
            }
    free(p), free(t);
    return e;
}

static void close_to(const char *what, const float *y, const double *want, size_t n)
{
    double top = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(y[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        worst = d <= worst ? worst : d;
    }
    ck_assert_msg(worst <= 1e-5 * top, "%s: off by %g of %g", what, worst, top);
}

static void same(const float *a, const float *b, size_t n)
{
    if (a != NULL && b != NULL) ck_assert(memcmp(a, b, n * sizeof *a) == 0);
}

static void drop(sides *s) { free(s->q), free(s->k), free(s->v); }

START_TEST(attention_goes_back)
{
    const shape *s = &shapes[_i];
    size_t width = (size_t)(s->n * s->heads * s->d), nq = width * (size_t)s->lq, nk = width * (size_t)s->lk;
    sides x = { bench_floats(nq, 1), bench_floats(nk, 2), bench_floats(nk, 3), nq, nk };
    float *g = bench_floats(nq, 4);
    for (size_t i = 0; i < nq; i++) x.q[i] *= 3; /* so that some keys count for much */
    exact want = formula(s, &x, g);
    for (size_t k = 0; k < table_count; k++) {
        sides whole = go_back(s, tables[k], &x, g, 1, 0);
        close_to("queries", whole.q, want.q, nq);
        close_to("keys", whole.k, want.k, nk);
        close_to("values", whole.v, want.v, nk);
        for (int32_t frozen = 0; frozen <= 3; frozen++) {
            sides part = go_back(s, tables[k], &x, g, 3, frozen);
            same(whole.q, part.q, nq), same(whole.k, part.k, nk), same(whole.v, part.v, nk);
            drop(&part);
        }
        drop(&whole);
    }
    drop(&x);
    free(g), free(want.q), free(want.k), free(want.v);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("the way back of attention");
    TCase *c = tcase_create("attention");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, attention_goes_back, 0, (int)WF_LEN(shapes));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    table_count = bench_tables(tables);
    return bench_every_tier(suite) == 0 ? 0 : 1;
}
