/* sampler.c - the handle: checks settings and the order of calls, and hands on to a solver.
 *
 * Everything that depends on settings only is computed at creation. What creation cannot know is
 * how many floats an image has: weft_sampler_begin() is told, and takes the solver's memory. So
 * a step is arithmetic and cannot run out of memory, and an image that was abandoned ends where
 * the next one begins. */
#include <math.h>

#include "base/structs.h"
#include "sampler/sampler_internal.h"

#define MAX_TRAIN_STEPS 100000

/* ---- the solvers --------------------------------------------------------------------------- */

#define SOLVER_ROW(name) &wf_solver_##name,
static const wf_solver *const solvers[] = { WF_SOLVERS(SOLVER_ROW) };

const wf_solver *wf_solver_at(size_t index)
{
    return index < WF_LEN(solvers) ? solvers[index] : NULL;
}

static const wf_solver *find_kind(int32_t kind)
{
    for (size_t i = 0; i < WF_LEN(solvers); i++)
        if (solvers[i]->kind == kind) return solvers[i];
    return NULL;
}

weft_status wf_solver_of(int32_t kind, const wf_solver **out, weft_error *err)
{
    *out = find_kind(kind == 0 ? WEFT_SAMPLER_DDIM : kind);
    if (*out != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "sampler: kind is %d, which is no WEFT_SAMPLER_* of this version", kind);
}

int32_t weft_sampler_kind_at(size_t index)
{
    const wf_solver *solver = wf_solver_at(index);

    return solver == NULL ? 0 : solver->kind;
}

const char *weft_sampler_name(int32_t kind)
{
    const wf_solver *solver = find_kind(kind);

    return solver == NULL ? NULL : solver->name;
}

uint32_t weft_sampler_traits(int32_t kind)
{
    const wf_solver *solver = find_kind(kind);
    uint32_t         traits = 0;

    if (solver == NULL) return 0;
    if (wf_free_levels(solver)) traits |= WEFT_TRAIT_SIGMAS;
    if (solver->eta) traits |= WEFT_TRAIT_ETA;
    if (solver->draws != NULL) traits |= WEFT_TRAIT_DRAWS;
    return traits;
}

/* ---- creation ------------------------------------------------------------------------------ */

static weft_status check_range(const char *what, int32_t value, int32_t low, int32_t high,
                               weft_error *err)
{
    if (value >= low && value <= high) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is %d, it must be %d to %d", what, value, low,
                   high);
}

static weft_status check_eta(const weft_sampler *s, weft_error *err)
{
    wf_number_text eta;

    if (!(s->o.eta >= 0 && s->o.eta <= 1))
        return wf_fail(err, WEFT_E_ARG, "sampler: eta is %s, it must be 0 to 1",
                       wf_number(&eta, (double)s->o.eta));
    if (s->o.eta > 0 && !s->solver->eta)
        return wf_fail(err, WEFT_E_ARG, "sampler: eta is %s, but %s has no eta",
                       wf_number(&eta, (double)s->o.eta), s->solver->name);
    return WEFT_OK;
}

static weft_status check_falling(const float *sigmas, size_t len, weft_error *err)
{
    wf_number_text one, before;

    for (size_t i = 0; i < len; i++) {
        if (!(sigmas[i] > 0 && isfinite(sigmas[i])))
            return wf_fail(err, WEFT_E_ARG,
                           "sampler: sigma %zu is %s, it must be above 0 and finite", i,
                           wf_number(&one, (double)sigmas[i]));
        if (i > 0 && !(sigmas[i] < sigmas[i - 1]))
            return wf_fail(err, WEFT_E_ARG, "sampler: sigma %zu is %s after %s, they must fall", i,
                           wf_number(&one, (double)sigmas[i]),
                           wf_number(&before, (double)sigmas[i - 1]));
    }
    return WEFT_OK;
}

static weft_status check_sigma(const char *what, float sigma, weft_error *err)
{
    wf_number_text text;

    if (sigma == 0 || (sigma >= 1e-6f && sigma <= 1e6f)) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "sampler: %s is %s, it must be 1e-6 to 1e6", what,
                   wf_number(&text, (double)sigma));
}

/* Karras' flag becomes the schedule. */
static weft_status check_schedule(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;
    bool                  karras = (o->flags & WEFT_SAMPLER_KARRAS) != 0;

    WF_TRY(check_range("sigma_schedule", o->sigma_schedule, WEFT_SCHEDULE_DEFAULT,
                       WEFT_SCHEDULE_KL_OPTIMAL, err));
    if (karras && o->sigma_schedule > WEFT_SCHEDULE_KARRAS)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: Karras' sigmas and those of %s are asked for; it must be one of "
                       "them", weft_sampler_schedule_name(o->sigma_schedule));
    if (karras) o->sigma_schedule = WEFT_SCHEDULE_KARRAS;
    if (o->sigma_schedule == WEFT_SCHEDULE_DEFAULT || wf_free_levels(s->solver)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "sampler: %s steps between training timesteps: it takes no %s schedule",
                   s->solver->name,
                   karras ? "Karras" : weft_sampler_schedule_name(o->sigma_schedule));
}

static weft_status not_taken(const weft_sampler *s, const char *what, weft_error *err)
{
    return wf_fail(err, WEFT_E_UNSUPPORTED, "sampler: %s takes no %s", s->solver->name, what);
}

/* Settings about sigmas that only some kinds have. */
static weft_status check_kind_of_levels(const weft_sampler *s, weft_error *err)
{
    const weft_sampler_options *o = &s->o;
    bool     logs = (o->flags & WEFT_SAMPLER_LOG_TIMESTEPS) != 0;
    bool     log_linear = o->interpolation == WEFT_INTERPOLATION_LOG_LINEAR;
    uint32_t keys = s->solver->keys;

    if (o->final_sigma == WEFT_FINAL_MIN && !(keys & WF_KEY_FINAL) &&
        s->solver->final_sigma != WEFT_FINAL_MIN)
        return not_taken(s, "last sigma but 0", err);
    if (log_linear && !(keys & WF_KEY_INTERPOLATION))
        return not_taken(s, "log_linear interpolation", err);
    if (logs && !(keys & WF_KEY_TIMESTEP_TYPE))
        return not_taken(s, "logarithms for timesteps", err);
    if (o->lambda_min != 0 && s->solver->layout != WF_LAYOUT_DPM)
        return not_taken(s, "lambda_min", err);
    if (logs && log_linear && o->prediction == WEFT_PREDICT_V)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "sampler: log_linear interpolation together with logarithms for timesteps "
                       "makes a step more than is asked for");
    return WEFT_OK;
}

static weft_status check_levels(const weft_sampler *s, weft_error *err)
{
    const weft_sampler_options *o = &s->o;
    wf_number_text              rho;

    WF_TRY(check_range("final_sigma", o->final_sigma, WEFT_FINAL_DEFAULT, WEFT_FINAL_MIN, err));
    WF_TRY(check_range("interpolation", o->interpolation, WEFT_INTERPOLATION_LINEAR,
                       WEFT_INTERPOLATION_LOG_LINEAR, err));
    if (!isfinite(o->lambda_min))
        return wf_fail(err, WEFT_E_ARG, "sampler: lambda_min is not a finite number");
    WF_TRY(check_sigma("sigma_min", o->sigma_min, err));
    WF_TRY(check_sigma("sigma_max", o->sigma_max, err));
    if (!(o->rho == 0 || (o->rho >= 0.01f && o->rho <= 1000)))
        return wf_fail(err, WEFT_E_ARG, "sampler: rho is %s, it must be 0.01 to 1000",
                       wf_number(&rho, (double)o->rho));
    return check_kind_of_levels(s, err);
}

/* The caller's own noise levels: how many, for which solver, and whether they fall. */
static weft_status check_sigmas(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;

    if ((o->sigmas == NULL) != (o->sigmas_len == 0))
        return wf_fail(err, WEFT_E_ARG, "sampler: sigmas is %s, but sigmas_len is %zu",
                       o->sigmas == NULL ? "NULL" : "given", o->sigmas_len);
    if (o->sigmas == NULL) return WEFT_OK;
    if (!wf_free_levels(s->solver))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "sampler: %s steps between training timesteps: it takes no sigmas of your "
                       "own", s->solver->name);
    if (o->sigma_schedule != WEFT_SCHEDULE_DEFAULT)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: own sigmas and a schedule's (%s) are asked for; it must be one of "
                       "them", weft_sampler_schedule_name(o->sigma_schedule));
    if (o->steps == 0 && o->sigmas_len <= (size_t)o->train_steps) o->steps = (int32_t)o->sigmas_len;
    if (o->sigmas_len != (size_t)WF_MAX(o->steps, 0))
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %zu sigmas are given for %d steps; it must be one for each, at "
                       "most %d", o->sigmas_len, o->steps, o->train_steps);
    return check_falling(o->sigmas, o->sigmas_len, err);
}

/* Fill in defaults, refuse what is out of range. The process checks its own settings in plan(). */
static weft_status read_options(weft_sampler *s, weft_error *err)
{
    weft_sampler_options *o = &s->o;

    WF_TRY(wf_solver_of(o->kind, &s->solver, err));
    s->process = &wf_process_vp;
    o->kind = s->solver->kind;
    if (o->train_steps == 0) o->train_steps = 1000;
    if (o->spacing == WEFT_SPACING_DEFAULT) o->spacing = s->solver->spacing;

    WF_TRY(check_range("train_steps", o->train_steps, 2, MAX_TRAIN_STEPS, err));
    WF_TRY(check_schedule(s, err));
    WF_TRY(check_levels(s, err));
    WF_TRY(check_sigmas(s, err));
    if (o->steps == 0) o->steps = WF_MIN(20, o->train_steps);
    WF_TRY(check_range("steps", o->steps, 1, o->train_steps, err));
    WF_TRY(check_range("spacing", o->spacing, WEFT_SPACING_LEADING, WEFT_SPACING_TRAILING, err));
    WF_TRY(check_range("prediction", o->prediction, WEFT_PREDICT_EPSILON, WEFT_PREDICT_SAMPLE,
                       err));
    WF_TRY(check_range("betas", o->betas, WEFT_BETAS_SCALED_LINEAR, WEFT_BETAS_EXP, err));
    WF_TRY(check_range("steps_offset", o->steps_offset, 0, o->train_steps - 1, err));
    if (o->origin_steps == 0) o->origin_steps = WF_MIN(50, o->train_steps);
    WF_TRY(check_range("origin_steps", o->origin_steps, 1, o->train_steps, err));
    WF_TRY(check_eta(s, err));
    WF_TRY(wf_check_variants(s, err));
    s->calls = s->solver->calls != NULL ? s->solver->calls(o->steps) : o->steps;
    s->prediction = o->prediction;
    return WEFT_OK;
}

/* From one entry for a step to one for a call; in place, since no step comes after its calls. */
static void spread_over_calls(weft_sampler *s)
{
    double final = s->sigmas[s->o.steps];

    if (s->solver->step_of == NULL) return;
    for (int32_t call = s->calls - 1; call >= 0; call--) {
        s->timesteps[call] = s->timesteps[s->solver->step_of(call)];
        s->sigmas[call] = s->sigmas[s->solver->step_of(call)];
    }
    s->sigmas[s->calls] = final;
    if (s->solver->between != NULL) s->solver->between(s);
}

weft_status weft_sampler_create(const weft_sampler_options *options, weft_sampler **out,
                                weft_error *err)
{
    weft_sampler_options o;
    weft_allocator       alloc;
    weft_sampler        *s = NULL;
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_sampler_create: out is NULL");
    *out = NULL;
    WF_TRY(WF_OPTIONS(&o, options, weft_sampler_options, WF_SAMPLER_FLAGS, err));
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_sampler_options: reserved0 is %d, must be zero", (int)o.reserved0);
    WF_TRY(wf_check_allocator(o.allocator, err));

    alloc = wf_allocator(o.allocator);
    if ((s = wf_zalloc(&alloc, 1, sizeof *s)) == NULL) return wf_nomem(err, sizeof *s, "a sampler");
    s->alloc = alloc;
    s->o = o;
    if ((st = read_options(s, err)) != WEFT_OK) goto done;

    s->timesteps = wf_zalloc(&s->alloc, (size_t)s->calls, sizeof(double));
    s->sigmas    = wf_zalloc(&s->alloc, (size_t)s->calls + 1, sizeof(double));
    if (s->timesteps == NULL || s->sigmas == NULL) {
        st = wf_nomem(err, ((size_t)s->calls + 1) * sizeof(double), "a noise schedule");
        goto done;
    }
    if ((st = s->process->plan(s, err)) != WEFT_OK) goto done;
    spread_over_calls(s);
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
    wf_free(&alloc, sampler->trained);
    wf_free(&alloc, sampler->timesteps);
    wf_free(&alloc, sampler->sigmas);
    wf_free(&alloc, sampler->memory);
    wf_free(&alloc, sampler);
}

/* ---- what the schedule says ---------------------------------------------------------------- */

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

float weft_sampler_init_scale(const weft_sampler *sampler)
{
    return sampler == NULL ? NAN : (float)sampler->process->init_scale(sampler);
}

static int32_t calls_per_step(const weft_sampler *s)
{
    return WF_MAX(s->solver->calls_per_step, 1);
}

weft_status weft_sampler_start(const weft_sampler *sampler, float strength, int32_t *call,
                               weft_error *err)
{
    wf_number_text text;
    int32_t        steps;

    if (sampler == NULL || call == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_start: %s is NULL",
                       sampler == NULL ? "sampler" : "call");
    *call = 0;
    if (!(strength >= 0 && strength <= 1)) /* false for NaN too */
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_start: strength is %s, it must be 0 to 1",
                       wf_number(&text, (double)strength));
    steps = (int32_t)(sampler->o.steps * wf_decimal(strength));
    if (steps == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_sampler_start: strength %s of %d steps leaves none to take",
                       wf_number(&text, wf_decimal(strength)), sampler->o.steps);
    *call = (sampler->o.steps - steps) * calls_per_step(sampler);
    return WEFT_OK;
}

static weft_status check_call(const weft_sampler *s, int32_t call, size_t len, const char *function,
                              weft_error *err)
{
    if (s == NULL) return wf_fail(err, WEFT_E_ARG, "%s: sampler is NULL", function);
    if (len == 0) return wf_fail(err, WEFT_E_ARG, "%s: len is 0", function);
    if (call >= 0 && call < s->calls) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s: call is %d, the sampler has calls 0 to %d", function, call,
                   s->calls - 1);
}

static weft_status check_buffers(const void *a, const void *b, const void *c, const char *function,
                                 weft_error *err)
{
    if (a != NULL && b != NULL && c != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s: a buffer is NULL", function);
}

weft_status weft_sampler_scale(const weft_sampler *sampler, int32_t call, const float *x,
                               float *out, size_t len, weft_error *err)
{
    double by;

    WF_TRY(check_call(sampler, call, len, "weft_sampler_scale", err));
    WF_TRY(check_buffers(x, out, out, "weft_sampler_scale", err));
    by = sampler->process->level(sampler, call).input;
    for (size_t i = 0; i < len; i++) out[i] = (float)((double)x[i] * by);
    return WEFT_OK;
}

weft_status weft_sampler_add_noise(const weft_sampler *sampler, int32_t call, const float *x0,
                                   const float *noise, float *out, size_t len, weft_error *err)
{
    wf_level at;

    WF_TRY(check_call(sampler, call, len, "weft_sampler_add_noise", err));
    WF_TRY(check_buffers(x0, noise, out, "weft_sampler_add_noise", err));
    at = sampler->process->level(sampler, call);
    for (size_t i = 0; i < len; i++)
        out[i] = (float)(at.signal * (double)x0[i] + at.noise * (double)noise[i]);
    return WEFT_OK;
}

/* The noise that an answer stands for; on latents without any that is all that it says. */
static wf_mix noise_of(const weft_sampler *s, wf_level at)
{
    wf_mix x0 = s->process->to_x0(s, at);

    if (at.noise == 0) return (wf_mix){ 0, 1 };
    return (wf_mix){ (1 - at.signal * x0.x_part) / at.noise, -at.signal * x0.p_part / at.noise };
}

weft_status weft_sampler_invert(const weft_sampler *sampler, int32_t call, const float *prediction,
                                float *x, size_t len, weft_error *err)
{
    WF_TRY(check_call(sampler, call, len, "weft_sampler_invert", err));
    WF_TRY(check_buffers(prediction, x, x, "weft_sampler_invert", err));
    if (sampler->o.prediction == WEFT_PREDICT_SAMPLE)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_sampler_invert: the network predicts the sample, which says nothing "
                       "of the noise of an image without any");
    wf_level from = sampler->process->level(sampler, call + 1);
    wf_level to = sampler->process->level(sampler, call);
    wf_mix   e = noise_of(sampler, from);
    double   kept = to.signal / from.signal, added = to.noise - kept * from.noise;

    for (size_t i = 0; i < len; i++) {
        double noise = e.x_part * (double)x[i] + e.p_part * (double)prediction[i];
        x[i] = (float)(kept * (double)x[i] + added * noise);
    }
    return WEFT_OK;
}

/* ---- an image ------------------------------------------------------------------------------ */

static bool draws_at(const weft_sampler *s, int32_t call)
{
    return s->solver->draws != NULL && s->solver->draws(s, call);
}

/* Room for the history, the noise if a call from `call` on draws any, and a clipped image. */
static weft_status take_memory(weft_sampler *s, int32_t call, size_t len, weft_error *err)
{
    size_t buffers = (size_t)s->solver->history, floats, bytes;
    bool   draws = false, clips = wf_clips(s);
    float *memory;

    for (int32_t c = call; c < s->calls; c++) draws = draws || draws_at(s, c);
    buffers += (draws || clips) + clips;
    if (!wf_mul(buffers, len, &floats) || !wf_mul(floats, sizeof(float), &bytes))
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_begin: len is %zu, which no memory holds",
                       len);
    if (floats <= s->memory_len) return WEFT_OK;
    if ((memory = wf_alloc(&s->alloc, bytes)) == NULL)
        return wf_nomem(err, bytes, "the sampler's history");
    wf_free(&s->alloc, s->memory);
    s->memory = memory;
    s->memory_len = floats;
    return WEFT_OK;
}

weft_status weft_sampler_begin(weft_sampler *sampler, int32_t call, size_t len, weft_error *err)
{
    WF_TRY(check_call(sampler, call, len, "weft_sampler_begin", err));
    if (call % calls_per_step(sampler) != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_sampler_begin: call is %d, in the middle of a step of %s", call,
                       sampler->solver->name);
    if ((sampler->o.flags & WEFT_SAMPLER_THRESHOLD) && len % (size_t)sampler->o.images != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_sampler_begin: len is %zu, which %d images of one size cannot have",
                       len, sampler->o.images);
    WF_TRY(take_memory(sampler, call, len, err));
    sampler->len = len;
    sampler->first = call;
    sampler->next = call;
    return WEFT_OK;
}

static weft_status check_order(const weft_sampler *s, int32_t call, size_t len, weft_error *err)
{
    if (s->len == 0 || s->next == s->calls)
        return wf_fail(err, WEFT_E_STATE,
                       "weft_sampler_step: call %d without weft_sampler_begin(): %s", call,
                       s->len == 0 ? "no image was begun" : "the last image is finished");
    if (call != s->next)
        return wf_fail(err, WEFT_E_STATE,
                       "weft_sampler_step: call is %d, but call %d comes next; another image "
                       "starts with weft_sampler_begin()", call, s->next);
    if (len != s->len)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_sampler_step: len is %zu, but the image was begun with %zu", len,
                       s->len);
    return WEFT_OK;
}

/* Noise is NULL or in its place behind the history; what is clipped goes behind that. */
static void take_step(weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                      float *x)
{
    if (!wf_clips(s)) { /* there may be no memory at all */
        s->solver->step(s, call, prediction, noise, s->memory, x, s->len);
        return;
    }
    float *clipped = s->memory + ((size_t)s->solver->history + 1) * s->len;
    wf_clip(s, call, prediction, x, clipped, s->len);
    s->prediction = WEFT_PREDICT_SAMPLE;
    s->answer = prediction;
    s->solver->step(s, call, clipped, noise, s->memory, x, s->len);
    s->prediction = s->o.prediction;
    s->answer = NULL;
}

weft_status weft_sampler_step(weft_sampler *sampler, int32_t call, const float *prediction,
                              float *x, size_t len, weft_noise *noise, weft_error *err)
{
    weft_sampler *s = sampler;
    float        *drawn = NULL;

    WF_TRY(check_call(s, call, len, "weft_sampler_step", err));
    WF_TRY(check_buffers(prediction, x, x, "weft_sampler_step", err));
    WF_TRY(check_order(s, call, len, err));
    if (draws_at(s, call)) {
        if (noise == NULL)
            return wf_fail(err, WEFT_E_ARG,
                           "weft_sampler_step: noise is NULL, but %s draws noise at call %d",
                           s->solver->name, call);
        drawn = s->memory + (size_t)s->solver->history * len;
        WF_TRY(weft_noise_normal(noise, drawn, len, err));
    }
    take_step(s, call, prediction, drawn, x);
    s->next = call + 1;
    return WEFT_OK;
}

void wf_step_linear(wf_mix by, double sd, const float *prediction, const float *noise, float *x,
                    size_t len)
{
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(by.x_part * (double)x[i] + by.p_part * (double)prediction[i] +
                       (noise ? sd * (double)noise[i] : 0.0));
}
