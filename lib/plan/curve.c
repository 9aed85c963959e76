/* curve.c - an adapter's weight as key frames over the calls.
 *
 * A curve multiplies the user's weight in the denoiser's cells, under any method: what the method
 * chooses at a call is multiplied by the curve's value there. A pure function of the call, so it is
 * part of the table. Text encoders run before the first call and know no curve. */
#include <float.h>
#include <math.h>

#include "base/structs.h"
#include "plan/plan_internal.h"

enum { POINTS_MAX = 4096 };

typedef struct point { double at, value; int32_t shape; } point;

typedef struct curve {
    bool   share;  /* `at` is a share of all calls, not a call */
    size_t count;
    point  points[];
} curve;

static double between(const point *a, const point *b, double x)
{
    double u = (x - a->at) / (b->at - a->at);

    if (a->shape == WEFT_CURVE_HOLD) return a->value;
    if (a->shape == WEFT_CURVE_COSINE) u = (1 - cos(3.14159265358979323846 * u)) / 2;
    return a->value + (b->value - a->value) * u;
}

void wf_curve_explain(const wf_blob *blob, wf_text *out)
{
    const curve   *c = blob->data;
    wf_number_text at, value;

    wf_text_add(out, "      curve ");
    for (size_t i = 0; i < c->count && i < 8; i++)
        wf_text_add(out, "%s%s: %s", i > 0 ? ", " : "", wf_number(&at, c->points[i].at),
                    wf_number(&value, c->points[i].value));
    wf_text_add(out, "%s at %s\n", c->count > 8 ? ", ..." : "",
                c->share ? "shares of the calls" : "calls");
}

size_t wf_curve_count(const wf_blob *blob, bool *share)
{
    const curve *c = blob->data;
    *share = c->share;
    return c->count;
}

void wf_curve_point(const wf_blob *blob, size_t i, weft_curve_point *out)
{
    const point *from = &((const curve *)blob->data)->points[i];

    *out = (weft_curve_point)WEFT_CURVE_POINT_INIT;
    out->at = from->at;
    out->value = from->value;
    out->shape = from->shape;
}

double wf_curve_at(const wf_blob *blob, int32_t call, int32_t calls)
{
    const curve *c = blob != NULL ? blob->data : NULL;
    double       x;
    size_t       i = 0;

    if (c == NULL) return 1;
    x = c->share ? (double)call / calls : call;
    while (i < c->count && c->points[i].at <= x) i++; /* the first point past x */
    if (i == 0) return c->points[0].value;
    if (i == c->count) return c->points[i - 1].value;
    return between(&c->points[i - 1], &c->points[i], x);
}

static weft_status read_point(point *to, const weft_curve_point *given, size_t i, double before,
                              double most, weft_error *err)
{
    wf_number_text at, last;

    if (given->shape < WEFT_CURVE_HOLD || given->shape > WEFT_CURVE_COSINE)
        return wf_fail(err, WEFT_E_ARG, "point %zu of a curve: shape is %d, not one of WEFT_CURVE_*",
                       i, (int)given->shape);
    if (given->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "point %zu of a curve: reserved0 is %d, must be zero",
                       i, (int)given->reserved0);
    if (!isfinite(given->value) || fabs(given->value) > (double)FLT_MAX)
        return wf_fail(err, WEFT_E_ARG, "point %zu of a curve: the value is not a finite number", i);
    if (!(given->at >= 0 && given->at <= most))
        return wf_fail(err, WEFT_E_ARG, "point %zu of a curve is at %s, wanted 0 to %s", i,
                       wf_number(&at, given->at), wf_number(&last, most));
    if (given->at < before)
        return wf_fail(err, WEFT_E_ARG,
                       "point %zu of a curve is at %s, before the one at %s: a curve goes forwards",
                       i, wf_number(&at, given->at), wf_number(&last, before));
    *to = (point){ given->at, given->value, given->shape };
    return WEFT_OK;
}

/* Points are an array whose elements are as long as the first says. */
static weft_status read_points(curve *c, const weft_curve_point *points, size_t count,
                               weft_error *err)
{
    uint32_t size = points->struct_size, own;
    double   before = 0, most = c->share ? 1 : WF_CALLS_MAX;

    for (size_t i = 0; i < count; i++) {
        weft_curve_point p;
        const uint8_t *at = (const uint8_t *)points + i * size;
        memcpy(&own, at, sizeof own);
        if (own != size)
            return wf_fail(err, WEFT_E_ARG,
                           "point %zu of a curve: struct_size is %u, but the first has %u", i, own,
                           size);
        WF_TRY(WF_OPTIONS(&p, at, weft_curve_point, 0, err));
        WF_TRY(read_point(&c->points[i], &p, i, before, most, err));
        before = p.at;
    }
    c->count = count;
    return WEFT_OK;
}

weft_status weft_plan_set_curve(weft_plan *plan, int32_t index, uint32_t flags,
                                const weft_curve_point *points, size_t count, weft_error *err)
{
    wf_blob    *blob = NULL;
    weft_status st;

    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_set_curve", err));
    if ((flags & ~(uint32_t)WEFT_CURVE_AT_SHARE) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_set_curve: flags are %u, and not all known",
                       flags);
    if (count > POINTS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "a curve of %zu points, at most %d are taken", count,
                       POINTS_MAX);
    if (count > 0 && points == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_set_curve: points is NULL");
    if (count > 0) {
        blob = wf_blob_create(&plan->alloc, sizeof(curve) + count * sizeof(point));
        if (blob == NULL) return wf_nomem(err, count * sizeof(point), "a curve");
        ((curve *)blob->data)->share = (flags & WEFT_CURVE_AT_SHARE) != 0;
        if ((st = read_points(blob->data, points, count, err)) != WEFT_OK) {
            wf_blob_drop(blob);
            return st;
        }
    }
    wf_blob_drop(plan->entry[index].curve);
    plan->entry[index].curve = blob;
    return WEFT_OK;
}
