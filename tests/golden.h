/* golden.h - reading reference values and models from tests/data in a test program. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "weft/weft.h"
#include "weights.h"

static weft_error golden_err;

static inline void must(weft_status st)
{
    ck_assert_msg(st == WEFT_OK, "%s: %s", weft_status_name(st), golden_err.text);
}

/* A path under tests/, wherever the tests are run from. */
static inline const char *data_path(const char *format, ...)
{
    static char buf[8][1024];
    static int  next;
    const char *root = getenv("WEFT_TESTS");
    char *s = buf[next++ % 8];
    int n = snprintf(s, 1024, "%s/data/", root != NULL ? root : "tests");
    va_list args;
    va_start(args, format);
    vsnprintf(s + n, 1024 - (size_t)n, format, args);
    va_end(args);
    return s;
}

/* Golden tensors: read by name, freed by the caller. */
typedef struct golden { float *v; size_t n; int64_t shape[8]; size_t rank; } golden;

static inline weft_tensors *golden_open(const char *name)
{
    weft_tensors *t;
    must(weft_tensors_open(data_path("golden/%s", name), NULL, &t, &golden_err));
    return t;
}

static inline bool golden_has(const weft_tensors *t, const char *name) { return weft_tensors_find(t, name) >= 0; }

static inline golden golden_read(const weft_tensors *t, const char *format, ...)
{
    char name[256];
    va_list args;
    golden g = { NULL, 0, { 0 }, 0 };
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    int64_t i = weft_tensors_find(t, name);
    ck_assert_msg(i >= 0, "no golden tensor %s", name);
    must(weft_tensors_info(t, (size_t)i, &info, &golden_err));
    g.v = malloc((info.count + 1) * sizeof *g.v);
    must(weft_tensors_read(t, (size_t)i, g.v, info.count, &golden_err));
    g.n = info.count;
    g.rank = info.rank;
    memcpy(g.shape, info.shape, sizeof g.shape);
    return g;
}

static inline json_t *golden_json(const char *name)
{
    json_error_t e;
    json_t *j = json_load_file(data_path("golden/%s", name), 0, &e);
    ck_assert_msg(j != NULL, "%s: %s", name, e.text);
    return j;
}

/* max|a-b| / max|b|, and |a-b|_2 / |b|_2 beside it. Not a number counts as infinitely wrong. */
static inline double relative(const float *a, const float *b, size_t n, double *l2)
{
    double worst = 0, most = 0, d2 = 0, b2 = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= 1e30)) return INFINITY;
        worst = d > worst ? d : worst;
        most = fabs(b[i]) > most ? fabs(b[i]) : most;
        d2 += d * d;
        b2 += (double)b[i] * b[i];
    }
    if (l2 != NULL) *l2 = b2 > 0 ? sqrt(d2 / b2) : sqrt(d2);
    return most > 0 ? worst / most : worst;
}

/* The largest error is held to the limit, and the l2 error to a third of it: a small bias everywhere is no rounding. Set
 * GOLDEN_SHOW to see every error. */
static inline void near_golden(const char *what, const float *a, const float *b, size_t n, double limit)
{
    double l2 = 0, worst = relative(a, b, n, &l2);
    if (getenv("GOLDEN_SHOW") != NULL) printf("%-48s %.2e  l2 %.2e\n", what, worst, l2);
    ck_assert_msg(worst <= limit, "%s: relative error %g (l2 %g), limit %g", what, worst, l2, limit);
    ck_assert_msg(l2 <= limit / 3, "%s: l2 error %g (largest %g), limit %g", what, l2, worst, limit / 3);
}

#endif
