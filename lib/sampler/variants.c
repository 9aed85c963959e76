/* variants.c - what a caller may ask of a solver beside its kind: order, algorithm, clipping ...
 *
 * Zero asks for what the kind does by itself, as its row says. What the row does not have is
 * refused by name: to ignore a request silently would be worse. */
#include <math.h>

#include "sampler/sampler_internal.h"

/* ---- what a row does not take -------------------------------------------------------------- */

static weft_status refuse(const weft_sampler *s, const char *what, weft_error *err)
{
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is asked for, which %s does not have", what,
                   s->solver->name);
}

static weft_status check_flags(const weft_sampler *s, weft_error *err)
{
    static const struct { uint32_t flag, takes; const char *name; } flags[] = {
        { WEFT_SAMPLER_EULER_LAST, WF_TAKES_EULER_LAST, "a last step of order 1" },
        { WEFT_SAMPLER_OF_NOISE, WF_TAKES_OF_NOISE, "the integral over the noise" },
        { WEFT_SAMPLER_CLIP, WF_TAKES_CLIP, "clipping" },
        { WEFT_SAMPLER_THRESHOLD, WF_TAKES_THRESHOLD, "thresholding" },
        { WEFT_SAMPLER_CLIPPED_NOISE, WF_TAKES_CLIPPED_NOISE, "the noise of the clipped image" },
    };

    for (size_t i = 0; i < WF_LEN(flags); i++)
        if ((s->o.flags & flags[i].flag) && !(s->solver->takes & flags[i].takes))
            return refuse(s, flags[i].name, err);
    if (s->o.uncorrected != 0 && !(s->solver->takes & WF_TAKES_UNCORRECTED))
        return refuse(s, "a step without correction", err);
    return WEFT_OK;
}

/* One of some enumerated ways: `has` are the row's, 0 if it has none; *value 0 becomes `own`. */
static weft_status check_way(const weft_sampler *s, const char *what, int32_t *value, int32_t own,
                             uint32_t has, weft_error *err)
{
    if (*value == 0) *value = own;
    if (*value == own || (*value > 0 && *value < 32 && (has & WF_WAY(*value)))) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is %d, which %s does not have", what, *value,
                   s->solver->name);
}

/* ---- numbers ------------------------------------------------------------------------------- */

static weft_status check_order(weft_sampler *s, weft_error *err)
{
    const wf_solver *solver = s->solver;
    int32_t         *order = &s->o.order;

    if (*order == 0) *order = solver->order;
    if (*order == solver->order || (*order >= 1 && *order <= solver->max_order)) return WEFT_OK;
    if (solver->max_order > 0)
        return wf_fail(err, WEFT_E_ARG, "sampler: order is %d, it must be 1 to %d for %s", *order,
                       solver->max_order, solver->name);
    if (solver->order > 0)
        return wf_fail(err, WEFT_E_ARG, "sampler: order is %d, but that of %s is %d", *order,
                       solver->name, solver->order);
    return wf_fail(err, WEFT_E_ARG, "sampler: order is %d, but %s has none", *order, solver->name);
}

/* *value 0 becomes `own`; outside of low .. high it is refused. */
static weft_status check_number(const char *what, float *value, float own, float low, float high,
                                weft_error *err)
{
    wf_number_text is, from, to;

    if (*value == 0) *value = own;
    if (*value >= low && *value <= high) return WEFT_OK; /* false for NaN too */
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is %s, it must be %s to %s", what,
                   wf_number(&is, (double)*value), wf_number(&from, (double)low),
                   wf_number(&to, (double)high));
}

static weft_status check_clipping(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;

    WF_TRY(check_number("clip_range", &o->clip_range, 1, 1e-6f, 1e6f, err));
    WF_TRY(check_number("threshold_ratio", &o->threshold_ratio, 0.995f, 1e-6f, 1, err));
    WF_TRY(check_number("threshold_max", &o->threshold_max, 1, 1, 1e6f, err));
    if (o->images == 0) o->images = 1;
    if (o->images > 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: images is %d, it must be 1 or more", o->images);
}

/* ---- what does not go together ------------------------------------------------------------- */

/* Over the noise the last step has no end at sigma 0: it would be 0 times infinity. */
static weft_status check_last_sigma(const weft_sampler *s, weft_error *err)
{
    const weft_sampler_options *o = &s->o;
    bool noise = o->algorithm == WEFT_ALGORITHM_DPM || o->algorithm == WEFT_ALGORITHM_DPM_SDE ||
                 (o->flags & WEFT_SAMPLER_OF_NOISE) || s->solver->final_sigma == WEFT_FINAL_MIN;

    if (!noise || o->final_sigma == WEFT_FINAL_MIN) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "sampler: %s integrates the predicted noise, which has no step to sigma 0: "
                   "final_sigma must be the smallest of training", s->solver->name);
}

weft_status wf_check_variants(weft_sampler *s, weft_error *err)
{
    const wf_solver      *solver = s->solver;
    weft_sampler_options *o = &s->o;
    uint32_t lasts = WF_WAY(WEFT_LAST_LOWER) | WF_WAY(WEFT_LAST_FULL);

    WF_TRY(check_flags(s, err));
    WF_TRY(check_order(s, err));
    WF_TRY(check_way(s, "algorithm", &o->algorithm, solver->algorithm, solver->algorithms, err));
    WF_TRY(check_way(s, "solver_type", &o->solver_type, solver->solver_type, solver->solver_types,
                     err));
    WF_TRY(check_way(s, "last_steps", &o->last_steps, solver->last_steps,
                     solver->takes & WF_TAKES_LAST ? lasts : 0, err));
    WF_TRY(check_way(s, "variance", &o->variance, WEFT_VARIANCE_SMALL,
                     solver->takes & WF_TAKES_VARIANCE ? WF_WAY(WEFT_VARIANCE_LARGE) : 0, err));
    WF_TRY(check_clipping(s, err));
    if (o->algorithm == WEFT_ALGORITHM_DPM_SDE && o->order == 3)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: order is 3, but the predicted noise with noise has 1 and 2 alone");
    if (o->final_sigma == WEFT_FINAL_DEFAULT)
        o->final_sigma = solver->final_sigma == 0 ? WEFT_FINAL_ZERO : solver->final_sigma;
    return check_last_sigma(s, err);
}
