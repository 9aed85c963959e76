/* sampler.h (internal) - what a solver is, and the tables that all solvers share.
 *
 * A solver is one file that fills one wf_solver and one name in WF_SOLVERS below; nothing else in the
 * library knows it. Its plan() decides on which timesteps and noise levels the calls fall, its step()
 * takes the latents from one noise level to the next. */
#ifndef WF_SAMPLER_H
#define WF_SAMPLER_H

#include <jansson.h>

#include "base/base.h"
#include "weft/sampler.h"

/* The table of solvers: one row each. */
#define WF_SOLVERS(row)                                                                                      \
    row(ddim) row(euler) row(euler_a) row(dpmpp_2m) row(pndm) row(ddpm) row(heun) row(lcm) row(tcd)

/* Tables are kept in double, but hold what float32 arithmetic gave where diffusers computes in float32:
 * near t = 0 the last bit of A_t moves 1 - A_t, and with it sigma, by 7e-5. */
struct weft_sampler {
    weft_allocator       alloc;
    weft_sampler_options o;       /* with every default filled in                                     */
    const struct wf_solver *solver;
    double  beta_start;           /* o.beta_start as the decimal that was meant, see wf_decimal()     */
    double  beta_end;
    int32_t calls;
    double *alphas;               /* [train_steps] A_t                                                */
    double *timesteps;            /* [calls]                                                          */
    double *sigmas;               /* [calls + 1] sqrt((1-A)/A), the last is 0                         */
    float  *memory;               /* solver->history buffers of len floats, then the noise if it draws */
    size_t  memory_len;           /* floats in memory                                                 */
    size_t  len;                  /* of the picture under way                                         */
    int32_t first;                /* the call it began with                                           */
    int32_t next;                 /* the call that comes next                                         */
};

typedef struct wf_solver {
    const char *name;
    int32_t     kind;      /* WEFT_SAMPLER_*                                                      */
    int32_t     spacing;   /* what WEFT_SPACING_DEFAULT means here                                */
    int32_t     order;     /* calls that make one step, where a picture may begin; 0: 1           */
    int32_t     history;   /* buffers kept from one call to the next                              */
    bool        free_sigmas; /* noise levels may lie between those of training: Karras', the caller's */
    bool        exploding; /* latents are x0 + sigma noise and are scaled down for the network    */
    bool        eta;       /* has one                                                             */
    int32_t   (*calls)(int32_t steps);                       /* NULL: as many as steps            */
    bool      (*draws)(const weft_sampler *s, int32_t call); /* NULL: never                       */
    /* Fill timesteps[calls] and sigmas[calls + 1] from alphas. */
    weft_status (*plan)(weft_sampler *s, weft_error *err);
    /* x becomes the latents of call + 1. history[0] starts `history` buffers of len floats. */
    void      (*step)(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                      float *history, float *x, size_t len);
} wf_solver;

#define WF_SOLVER_DECLARE(name) extern const wf_solver wf_solver_##name;
WF_SOLVERS(WF_SOLVER_DECLARE)

/* The solver of this kind or name, or NULL. */
const wf_solver *wf_solver_of(int32_t kind);
const wf_solver *wf_solver_named(const char *name);

/* ---- schedule.c -------------------------------------------------------------------------------- */

/* The decimal number that a float stands for: 0.00085f -> 0.00085. */
double wf_decimal(float v);
/* A_t of the training schedule. */
weft_status wf_schedule_alphas(weft_sampler *s, weft_error *err);
/* Timesteps by spacing. `points` is how many the spacing is laid out for: N, or N + 1 with the last one
 * dropped. Whole numbers where `whole`, otherwise linspace keeps fractions. */
weft_status wf_schedule_timesteps(weft_sampler *s, int32_t points, bool whole, weft_error *err);
/* Timesteps of the few-step solvers: N of the origin_steps that a network was distilled on. */
weft_status wf_schedule_distilled(weft_sampler *s, weft_error *err);
double wf_schedule_sigma(const weft_sampler *s, int32_t t);         /* sqrt((1-A_t)/A_t), in float32        */
/* One level for each of the N steps, and 0 appended: sigmas at the timesteps; Karras' from `high` down to `low`, or
 * the caller's, and the timesteps that have them. */
void   wf_schedule_interpolate(weft_sampler *s);
void   wf_schedule_karras(weft_sampler *s, double high, double low);
void   wf_schedule_given(weft_sampler *s);

/* The network's answer p read as a picture or as noise: x_part * x + p_part * p. */
typedef struct wf_mix {
    double x_part;
    double p_part;
} wf_mix;
/* x = alpha x0 + sigma noise. */
wf_mix wf_predicted_x0(int32_t prediction, double alpha, double sigma);
wf_mix wf_predicted_noise(int32_t prediction, double alpha, double sigma);
/* x = x0 + sigma noise, while the network saw x / sqrt(sigma^2 + 1). */
wf_mix wf_predicted_x0_exploding(int32_t prediction, double sigma);

/* ---- config.c ---------------------------------------------------------------------------------- */

/* What weft_sampler_options_from_model() does with a scheduler_config.json; NULL changes nothing. */
weft_status wf_sampler_options_from_json(const json_t *config, weft_sampler_options *options, weft_error *err);

#endif
