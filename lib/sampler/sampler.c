/* sampler.c - the handle: checks settings and the order of calls, and hands on to a solver.
 *
 * Everything that depends on settings alone is computed when the sampler is made, so a step is arithmetic. The
 * one thing a step needs that creation cannot know is how many floats a picture has: the first call takes the
 * solver's memory, later calls and later pictures of the same size use it again. */
#include <math.h>

#include "base/structs.h"
#include "sampler/sampler.h"

#define MAX_TRAIN_STEPS 100000
#define ALL_FLAGS (WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_ZERO_SNR)

#define SOLVER_ROW(name) &wf_solver_##name,
static const wf_solver *const solvers[] = { WF_SOLVERS(SOLVER_ROW) };

const wf_solver *wf_solver_of(int32_t kind)
{
    for (size_t i = 0; i < WF_LEN(solvers); i++)
        if (solvers[i]->kind == kind) return solvers[i];
    return NULL;
}

const wf_solver *wf_solver_named(const char *name)
{
    for (size_t i = 0; i < WF_LEN(solvers); i++)
        if (strcmp(solvers[i]->name, name) == 0) return solvers[i];
    return NULL;
}

/* ---- creation ---------------------------------------------------------------------------------- */

static weft_status check_range(const char *what, int32_t value, int32_t low, int32_t high, weft_error *err)
{
    if (value >= low && value <= high) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is %d, it must be %d to %d", what, value, low, high);
}

static weft_status check_betas(const weft_sampler *s, weft_error *err)
{
    wf_number_text start, end;

    if (s->beta_start > 0 && s->beta_end >= s->beta_start && s->beta_end < 1) return WEFT_OK; /* false for NaN too */
    return wf_fail(err, WEFT_E_ARG, "sampler: betas go from %s to %s, they must rise between 0 and 1",
                   wf_number(&start, s->beta_start), wf_number(&end, s->beta_end));
}

static weft_status check_eta(const weft_sampler *s, weft_error *err)
{
    wf_number_text eta;

    if (!(s->o.eta >= 0 && s->o.eta <= 1))
        return wf_fail(err, WEFT_E_ARG, "sampler: eta is %s, it must be 0 to 1", wf_number(&eta, (double)s->o.eta));
    if (s->o.eta > 0 && !s->solver->eta)
        return wf_fail(err, WEFT_E_ARG, "sampler: eta is %s, but %s has no eta; it is ddim's and tcd's",
                       wf_number(&eta, (double)s->o.eta), s->solver->name);
    return WEFT_OK;
}

/* Noise levels of the caller's own: how many, for whom, and whether they fall. */
static weft_status check_sigmas(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;
    wf_number_text        one, before;

    if ((o->sigmas == NULL) != (o->sigmas_len == 0))
        return wf_fail(err, WEFT_E_ARG, "sampler: sigmas is %s, but sigmas_len is %zu",
                       o->sigmas == NULL ? "NULL" : "given", o->sigmas_len);
    if (o->sigmas == NULL) return WEFT_OK;
    if (!s->solver->free_sigmas)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "sampler: %s has timesteps, not free noise levels: no sigmas of the "
                       "caller's own", s->solver->name);
    if (o->flags & WEFT_SAMPLER_KARRAS)
        return wf_fail(err, WEFT_E_ARG, "sampler: sigmas are given and Karras' are asked for; it must be one of them");
    if (o->steps == 0 && o->sigmas_len <= (size_t)o->train_steps) o->steps = (int32_t)o->sigmas_len;
    if (o->sigmas_len != (size_t)WF_MAX(o->steps, 0))
        return wf_fail(err, WEFT_E_ARG, "sampler: %zu sigmas are given for %d steps; it must be one for each, at most %d",
                       o->sigmas_len, o->steps, o->train_steps);
    for (size_t i = 0; i < o->sigmas_len; i++) {
        if (!(o->sigmas[i] > 0 && isfinite(o->sigmas[i])))
            return wf_fail(err, WEFT_E_ARG, "sampler: sigma %zu is %s, it must be above 0 and finite", i,
                           wf_number(&one, (double)o->sigmas[i]));
        if (i > 0 && !(o->sigmas[i] < o->sigmas[i - 1]))
            return wf_fail(err, WEFT_E_ARG, "sampler: sigma %zu is %s after %s, they must fall", i,
                           wf_number(&one, (double)o->sigmas[i]), wf_number(&before, (double)o->sigmas[i - 1]));
    }
    return WEFT_OK;
}

/* Without a picture in it, latents and the noise in them say nothing about x0. */
static weft_status check_signal(const weft_sampler *s, weft_error *err)
{
    int32_t first = (int32_t)s->timesteps[0];

    if (s->alphas[first] > 0 || s->o.prediction != WEFT_PREDICT_EPSILON) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: betas rescaled to zero terminal signal leave nothing of the picture at "
                   "timestep %d, where %s cannot start from predicted noise; the model must predict v or the sample, or "
                   "the timesteps stay below, as leading ones do", first, s->solver->name);
}

/* Fill in defaults, refuse what is out of range. */
static weft_status settle(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;
    weft_status           st;

    if (o->kind == 0) o->kind = WEFT_SAMPLER_DDIM;
    if ((s->solver = wf_solver_of(o->kind)) == NULL)
        return wf_fail(err, WEFT_E_ARG, "sampler: kind is %d, which is no WEFT_SAMPLER_* of this version", o->kind);
    if (o->train_steps == 0) o->train_steps = 1000;
    if (o->spacing == WEFT_SPACING_DEFAULT) o->spacing = s->solver->spacing;
    s->beta_start = o->beta_start == 0 ? 0.00085 : wf_decimal(o->beta_start);
    s->beta_end   = o->beta_end == 0 ? 0.012 : wf_decimal(o->beta_end);

    if ((st = check_range("train_steps", o->train_steps, 2, MAX_TRAIN_STEPS, err)) != WEFT_OK) return st;
    if ((st = check_sigmas(s, err)) != WEFT_OK) return st;
    if (o->steps == 0) o->steps = WF_MIN(20, o->train_steps);
    if ((st = check_range("steps", o->steps, 1, o->train_steps, err)) != WEFT_OK) return st;
    if ((st = check_range("spacing", o->spacing, WEFT_SPACING_LEADING, WEFT_SPACING_TRAILING, err)) != WEFT_OK) return st;
    if ((st = check_range("prediction", o->prediction, WEFT_PREDICT_EPSILON, WEFT_PREDICT_SAMPLE, err)) != WEFT_OK)
        return st;
    if ((st = check_range("betas", o->betas, WEFT_BETAS_SCALED_LINEAR, WEFT_BETAS_LINEAR, err)) != WEFT_OK) return st;
    if ((st = check_range("steps_offset", o->steps_offset, 0, o->train_steps - 1, err)) != WEFT_OK) return st;
    if (o->origin_steps == 0) o->origin_steps = WF_MIN(50, o->train_steps);
    if ((st = check_range("origin_steps", o->origin_steps, 1, o->train_steps, err)) != WEFT_OK) return st;
    if ((st = check_betas(s, err)) != WEFT_OK) return st;
    if ((st = check_eta(s, err)) != WEFT_OK) return st;
    if ((o->flags & WEFT_SAMPLER_KARRAS) && !s->solver->free_sigmas)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "sampler: %s has timesteps, not free noise levels: no Karras schedule",
                       s->solver->name);
    s->calls = s->solver->calls != NULL ? s->solver->calls(o->steps) : o->steps;
    return WEFT_OK;
}

static double *take_table(weft_sampler *s, int32_t count)
{
    return wf_zalloc(&s->alloc, (size_t)count, sizeof(double));
}

weft_status weft_sampler_create(const weft_sampler_options *options, weft_sampler **out, weft_error *err)
{
    weft_sampler_options o;
    weft_allocator       alloc;
    weft_sampler        *s = NULL;
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_sampler_create: out is NULL");
    *out = NULL;
    if ((st = WF_OPTIONS(&o, options, weft_sampler_options, ALL_FLAGS, err)) != WEFT_OK) return st;
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_sampler_options: reserved0 is %d, must be zero", (int)o.reserved0);
    if ((st = wf_check_allocator(o.allocator, err)) != WEFT_OK) return st;

    alloc = wf_allocator(o.allocator);
    if ((s = wf_zalloc(&alloc, 1, sizeof *s)) == NULL) return wf_nomem(err, sizeof *s, "a sampler");
    s->alloc = alloc;
    s->o = o;
    if ((st = settle(s, err)) != WEFT_OK) goto done;

    s->alphas    = take_table(s, s->o.train_steps);
    s->timesteps = take_table(s, s->calls);
    s->sigmas    = take_table(s, s->calls + 1);
    if (s->alphas == NULL || s->timesteps == NULL || s->sigmas == NULL) {
        st = wf_nomem(err, (size_t)s->o.train_steps * sizeof(double), "a noise schedule");
        goto done;
    }
    if ((st = wf_schedule_alphas(s, err)) != WEFT_OK) goto done;
    if ((st = s->solver->plan(s, err)) != WEFT_OK) goto done;
    if ((st = check_signal(s, err)) != WEFT_OK) goto done;
    s->o.sigmas = NULL; /* the caller's, and copied */

    *out = s;
    s = NULL;
done:
    weft_sampler_free(s);
    return st;
}

void weft_sampler_free(weft_sampler *sampler)
{
    if (sampler == NULL) return;
    weft_allocator alloc = sampler->alloc;
    wf_free(&alloc, sampler->alphas);
    wf_free(&alloc, sampler->timesteps);
    wf_free(&alloc, sampler->sigmas);
    wf_free(&alloc, sampler->memory);
    wf_free(&alloc, sampler);
}

/* ---- what the schedule says -------------------------------------------------------------------- */

int32_t weft_sampler_calls(const weft_sampler *sampler)
{
    return sampler == NULL ? 0 : sampler->calls;
}

float weft_sampler_timestep(const weft_sampler *sampler, int32_t call)
{
    if (sampler == NULL || call < 0 || call >= sampler->calls) return NAN;
    return (float)sampler->timesteps[call];
}

float weft_sampler_sigma(const weft_sampler *sampler, int32_t call)
{
    if (sampler == NULL || call < 0 || call > sampler->calls) return NAN;
    return (float)sampler->sigmas[call];
}

static int32_t order_of(const weft_sampler *s)
{
    return WF_MAX(s->solver->order, 1);
}

/* Leading spacing starts below the largest training sigma, where the latents of a training picture still hold
 * some of it: their spread is sqrt(sigma^2 + 1). The other spacings start at pure noise. */
float weft_sampler_init_scale(const weft_sampler *sampler)
{
    double sigma;

    if (sampler == NULL) return NAN;
    if (!sampler->solver->exploding) return 1;
    sigma = sampler->sigmas[0];
    return (float)(sampler->o.spacing == WEFT_SPACING_LEADING ? sqrt(sigma * sigma + 1) : sigma);
}

weft_status weft_sampler_start(const weft_sampler *sampler, float strength, int32_t *call, weft_error *err)
{
    wf_number_text text;
    int32_t        steps;

    if (sampler == NULL || call == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_start: %s is NULL", sampler == NULL ? "sampler" : "call");
    *call = 0;
    if (!(strength >= 0 && strength <= 1)) /* false for NaN too */
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_start: strength is %s, it must be 0 to 1",
                       wf_number(&text, (double)strength));
    steps = (int32_t)(sampler->o.steps * wf_decimal(strength));
    if (steps == 0)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_start: strength %s of %d steps leaves none to take",
                       wf_number(&text, wf_decimal(strength)), sampler->o.steps);
    *call = (sampler->o.steps - steps) * order_of(sampler);
    return WEFT_OK;
}

static weft_status check_call(const weft_sampler *s, int32_t call, const void *a, const void *b, size_t len,
                              const char *function, weft_error *err)
{
    if (s == NULL) return wf_fail(err, WEFT_E_ARG, "%s: sampler is NULL", function);
    if (a == NULL || b == NULL) return wf_fail(err, WEFT_E_ARG, "%s: a buffer is NULL", function);
    if (len == 0) return wf_fail(err, WEFT_E_ARG, "%s: len is 0", function);
    if (call < 0 || call >= s->calls)
        return wf_fail(err, WEFT_E_ARG, "%s: call is %d, the sampler has calls 0 to %d", function, call, s->calls - 1);
    return WEFT_OK;
}

weft_status weft_sampler_scale(const weft_sampler *sampler, int32_t call, const float *x, float *out, size_t len,
                               weft_error *err)
{
    weft_status st = check_call(sampler, call, x, out, len, "weft_sampler_scale", err);
    double      sigma, by = 1;

    if (st != WEFT_OK) return st;
    sigma = sampler->sigmas[call];
    if (sampler->solver->exploding) by = 1 / sqrt(sigma * sigma + 1);
    for (size_t i = 0; i < len; i++) out[i] = (float)((double)x[i] * by);
    return WEFT_OK;
}

weft_status weft_sampler_add_noise(const weft_sampler *sampler, int32_t call, const float *x0, const float *noise,
                                   float *out, size_t len, weft_error *err)
{
    const weft_sampler *s = sampler;
    weft_status         st = check_call(s, call, x0, noise, len, "weft_sampler_add_noise", err);
    double              sigma, keep = 1;

    if (st != WEFT_OK) return st;
    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_sampler_add_noise: a buffer is NULL");
    sigma = s->sigmas[call];
    if (!s->solver->exploding && s->solver->free_sigmas) {
        keep = 1 / sqrt(sigma * sigma + 1);
        sigma *= keep;
    } else if (!s->solver->exploding) { /* by timestep: where nothing is left of the picture, sigma is infinite */
        keep = sqrt(s->alphas[(int32_t)s->timesteps[call]]);
        sigma = sqrt(1 - s->alphas[(int32_t)s->timesteps[call]]);
    }
    for (size_t i = 0; i < len; i++) out[i] = (float)(keep * (double)x0[i] + sigma * (double)noise[i]);
    return WEFT_OK;
}

/* ---- a step ------------------------------------------------------------------------------------ */

static weft_status take_memory(weft_sampler *s, size_t buffers, size_t len, weft_error *err)
{
    size_t floats, bytes;
    float *memory;

    if (!wf_mul(buffers, len, &floats) || !wf_mul(floats, sizeof(float), &bytes))
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_step: len is %zu, which no memory holds", len);
    if (floats <= s->memory_len) return WEFT_OK;
    if ((memory = wf_alloc(&s->alloc, bytes)) == NULL) return wf_nomem(err, bytes, "the sampler's history");
    wf_free(&s->alloc, s->memory);
    s->memory = memory;
    s->memory_len = floats;
    return WEFT_OK;
}

/* Whether this call goes on with the picture under way, or else begins one. */
static weft_status check_order(const weft_sampler *s, int32_t call, size_t len, weft_error *err)
{
    bool goes_on = call != 0 && call == s->next;

    if (!goes_on && call % order_of(s) != 0)
        return wf_fail(err, WEFT_E_STATE, "weft_sampler_step: call is %d, the second half of a step of %s, but call %d "
                       "comes next", call, s->solver->name, s->next < s->calls ? s->next : 0);
    if (goes_on && len != s->len)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_step: len is %zu, but the picture was begun with %zu", len, s->len);
    return WEFT_OK;
}

weft_status weft_sampler_step(weft_sampler *sampler, int32_t call, const float *prediction, float *x, size_t len,
                              weft_noise *noise, weft_error *err)
{
    weft_sampler *s = sampler;
    weft_status   st;
    bool          draws;
    size_t        kept;
    float        *drawn = NULL;

    if ((st = check_call(s, call, prediction, x, len, "weft_sampler_step", err)) != WEFT_OK) return st;
    if ((st = check_order(s, call, len, err)) != WEFT_OK) return st;
    draws = s->solver->draws != NULL && s->solver->draws(s, call);
    if (draws && noise == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_step: noise is NULL, but %s draws noise at call %d",
                       s->solver->name, call);

    kept = (size_t)s->solver->history;
    if (kept + draws > 0 && (st = take_memory(s, kept + draws, len, err)) != WEFT_OK) return st;
    if (draws) {
        drawn = s->memory + kept * len;
        if ((st = weft_noise_normal(noise, drawn, len, err)) != WEFT_OK) return st;
    }
    if (call == 0 || call != s->next) s->first = call;
    s->solver->step(s, call, prediction, drawn, s->memory, x, len);
    s->len  = len;
    s->next = call + 1;
    return WEFT_OK;
}
