/* process.h - how noise was mixed into images in training, apart from how a solver takes it off.
 *
 * Training shows the network x = signal x0 + noise n at many levels. A process says which levels
 * there are, what signal and noise are at each, and how to read the network's answer there. A
 * solver only says how to step from one level to the next. So a solver works under any process
 * that has what it asks for, and a process is one file.
 *
 * Solvers that step between any two noise levels (wf_layout below) ask for the functions of
 * wf_process alone. Solvers that step between training timesteps also read A_t, which only the
 * variance preserving process has. */
#ifndef WF_PROCESS_H
#define WF_PROCESS_H

#include "base/base.h"
#include "weft/sampler.h"

/* One noise level: x = signal x0 + noise n, and the network is shown x * input. */
typedef struct wf_level {
    double signal;
    double noise;
    double ratio; /* noise / signal, as the table has it: no rounding from the division */
    double input;
} wf_level;

/* Something made of latents and the network's answer p: x_part * x + p_part * p. */
typedef struct wf_mix {
    double x_part;
    double p_part;
} wf_mix;

/* Where the steps of a solver lie. */
typedef enum wf_layout {
    WF_LAYOUT_TIMESTEPS = 1, /* N whole training timesteps                                     */
    WF_LAYOUT_DISTILLED,     /* N of the origin_steps that a network was distilled on          */
    WF_LAYOUT_LEVELS,        /* any levels, timesteps with fractions; Karras' levels run       */
                             /* between the first and the last of the spacing                  */
    WF_LAYOUT_DPM            /* any levels, whole timesteps; N + 1 points without the lowest;  */
                             /* Karras' levels run over the whole training range               */
} wf_layout;

typedef struct wf_process {
    /* Check the options that belong to the process, take s->trained, fill timesteps[0..steps) and
     * sigmas[0..steps] for the solver's layout; the last sigma is 0. */
    weft_status (*plan)(weft_sampler *s, weft_error *err);
    /* The level that a call begins with; call == calls is the image itself. */
    wf_level (*level)(const weft_sampler *s, int32_t call);
    wf_mix (*to_x0)(const weft_sampler *s, wf_level at);
    /* What normal noise is multiplied with to begin an image at call 0. */
    double (*init_scale)(const weft_sampler *s);
} wf_process;

extern const wf_process wf_process_vp;

/* ---- process_vp.c, for solvers between training timesteps ---------------------------------- */

double   wf_vp_alpha(const weft_sampler *s, int32_t timestep); /* A_t                            */
wf_level wf_vp_level(double A);                                /* x = sqrt(A) x0 + sqrt(1 - A) n */
wf_mix   wf_vp_to_noise(const weft_sampler *s, wf_level at);
wf_mix   wf_vp_noise_of(int32_t prediction, wf_level at); /* of a network that predicts that     */
/* The fractional timestep that has this log(sigma). */
double   wf_vp_timestep_of(const weft_sampler *s, double log_sigma);

/* ---- schedule.c, for any process ----------------------------------------------------------- */

/* The decimal number that a float stands for: 0.00085f -> 0.00085. */
double wf_decimal(float v);
/* Timesteps by spacing, of the lowest T of training. `points` is how many the spacing is laid out
 * for: N, or N + 1 with the last one dropped. If not `whole`, linspace keeps fractions. */
weft_status wf_schedule_timesteps(weft_sampler *s, int32_t T, int32_t points, bool whole,
                                  weft_error *err);
weft_status wf_schedule_distilled(weft_sampler *s, weft_error *err);
/* The sigma of step i by a schedule from `high` down to `low`: Karras', exponential, beta, Lu's. */
double wf_schedule_sigma(const weft_sampler *s, double high, double low, int32_t i);
/* The sigma of step i by the tables of Align your steps. */
double wf_schedule_aligned(const weft_sampler *s, int32_t i);
/* Whether a WEFT_SCHEDULE_* says timesteps, and not sigmas. */
bool   wf_schedules_steps(int32_t schedule);
/* The timestep of step i by a schedule of timesteps, which may have a fraction. */
double wf_schedule_step(const weft_sampler *s, int32_t i);
/* Less than this is met with probability p by the beta distribution with parameters 0.6, 0.6. */
double wf_beta_quantile(double p);

#endif
