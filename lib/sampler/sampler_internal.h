/* sampler_internal.h - for the files of this room: the handle, and what a solver is.
 *
 * Three things make a sampler: a process (process.h: what a noise level is), a solver (below: how
 * to step from one level to the next), and the handle, which checks the caller and owns memory. */
#ifndef WF_SAMPLER_INTERNAL_H
#define WF_SAMPLER_INTERNAL_H

#include <jansson.h>

#include "base/base.h"
#include "sampler/process.h"
#include "sampler/solvers.h"
#include "weft/sampler.h"

/* All that weft_sampler_options.flags may have. */
#define WF_SAMPLER_FLAGS                                                                     \
    (WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_ZERO_SNR |               \
     WEFT_SAMPLER_EULER_LAST | WEFT_SAMPLER_OF_NOISE | WEFT_SAMPLER_CLIP |                   \
     WEFT_SAMPLER_THRESHOLD | WEFT_SAMPLER_CLIPPED_NOISE | WEFT_SAMPLER_LOG_TIMESTEPS)

/* Tables are double, but hold what float32 arithmetic gives if diffusers computes in float32: near
 * t = 0 the last bit of A_t moves 1 - A_t, and with it sigma, by 7e-5. */
struct weft_sampler {
    weft_allocator          alloc;
    weft_sampler_options    o; /* with every default filled in */
    const struct wf_solver *solver;
    const wf_process       *process;
    int32_t                 calls;
    double *trained;        /* [train_steps] the process's table; VP: A_t             */
    double *timesteps;      /* [calls]                                                */
    double *sigmas;         /* [calls + 1] the last is 0                              */
    float  *memory;         /* solver->history buffers of len floats, then the noise, */
                            /* then the clipped image                                 */
    size_t  memory_len;     /* floats in memory                                       */
    size_t  len;            /* of the image under way; 0 before the first             */
    int32_t first;          /* the call it began with                                 */
    int32_t next;           /* the call that comes next; calls: the image is finished */
    int32_t prediction;     /* what the solver is given: o.prediction, or the sample  */
                            /* where that was clipped (clip.c)                        */
    const float *answer;    /* the network's own, before clipping; NULL: as given     */
};

/* A key of scheduler_config.json that changes a solver's images, and the value that we follow. Any
 * other value is refused. */
typedef struct wf_setting {
    const char *key;
    int32_t     type;   /* JSON_STRING, JSON_REAL for numbers, JSON_TRUE for truth values, */
                        /* JSON_NULL for what may only be null                            */
    const char *text;   /* of a string: the words that are accepted. The first is what we */
                        /* do. The others belong to other solvers; diffusers takes the    */
                        /* first in their place                                           */
    double      number; /* of a number; of a truth value 0 or 1                           */
    const char *why;
} wf_setting;

#define WF_SETTING_LEARNED                                                                      \
    { "variance_type", JSON_STRING, "fixed_small fixed_small_log fixed_large fixed_large_log", 0, \
      "a network that predicts its variance is not read here" }
#define WF_SETTINGS_END { NULL, 0, NULL, 0, NULL }

/* Keys about sigmas that diffusers' class of a solver has beside those of wf_solver.karras. */
enum wf_key {
    WF_KEY_LU            = 1 << 0, /* use_lu_lambdas                        */
    WF_KEY_FINAL         = 1 << 1, /* final_sigmas_type                     */
    WF_KEY_INTERPOLATION = 1 << 2, /* interpolation_type                    */
    WF_KEY_TIMESTEP_TYPE = 1 << 3, /* timestep_type                         */
    WF_KEY_LAMBDA        = 1 << 4, /* lambda_min_clipped                    */
    WF_KEY_FLOW          = 1 << 5  /* use_flow_sigmas, use_dynamic_shifting */
};

/* What a solver takes of weft_sampler_options: bits of wf_solver.takes. The rest is refused. */
enum wf_takes {
    WF_TAKES_LAST        = 1 << 0, /* last_steps; lower_order_final                          */
    WF_TAKES_EULER_LAST  = 1 << 1, /* WEFT_SAMPLER_EULER_LAST; euler_at_final                */
    WF_TAKES_OF_NOISE    = 1 << 2, /* WEFT_SAMPLER_OF_NOISE; predict_x0                      */
    WF_TAKES_UNCORRECTED = 1 << 3, /* uncorrected; disable_corrector                         */
    WF_TAKES_CLIP        = 1 << 4, /* WEFT_SAMPLER_CLIP; clip_sample                         */
    WF_TAKES_THRESHOLD   = 1 << 5, /* WEFT_SAMPLER_THRESHOLD; thresholding                   */
    WF_TAKES_CLIPPED_NOISE = 1 << 6, /* WEFT_SAMPLER_CLIPPED_NOISE; no key                   */
    WF_TAKES_VARIANCE    = 1 << 7  /* variance; variance_type                                */
};

/* One WEFT_ALGORITHM_* or WEFT_SOLVER_* in a set of them. */
#define WF_WAY(n) (1u << (n))

typedef struct wf_solver {
    const char        *name;       /* as in WF_SOLVERS                                       */
    int32_t            kind;       /* WEFT_SAMPLER_*                                         */
    const char *const *aliases;    /* other names, diffusers' class first; ends with NULL    */
    wf_layout          layout;
    int32_t            spacing;    /* what WEFT_SPACING_DEFAULT means here                   */
    bool               straight;   /* steps along the slope (x - x0) / sigma: VP latents are */
                                   /* then x0 + sigma n, scaled down for the network         */
    bool               eta;        /* weft_sampler_options.eta is used                       */
    int32_t            history;    /* buffers kept from one call to the next                 */
    int32_t            calls_per_step; /* an image begins where a step does; 0: 1            */
    int32_t (*calls)(int32_t steps);   /* how many N steps make; NULL: N                     */
    int32_t (*step_of)(int32_t call);  /* the step whose level a call is at; NULL: its own   */
    void    (*between)(weft_sampler *s); /* sets levels inside steps; NULL: there are none   */
    bool    (*draws)(const weft_sampler *s, int32_t call); /* noise; NULL: never             */
    /* x becomes the latents of call + 1. history[0] starts `history` buffers of len floats. */
    void (*step)(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len);

    /* Its variants. */
    uint32_t takes;                /* WF_TAKES_*                                             */
    int32_t  order;                /* what order 0 means; 0: no order is asked for           */
    int32_t  max_order;            /* the orders are 1 to this; 0: `order` alone             */
    int32_t  algorithm;            /* what WEFT_ALGORITHM_DEFAULT means                      */
    uint32_t algorithms;           /* those that it has: WF_WAY(WEFT_ALGORITHM_*)            */
    int32_t  solver_type;          /* what WEFT_SOLVER_DEFAULT means                         */
    uint32_t solver_types;         /* WF_WAY(WEFT_SOLVER_*)                                  */
    int32_t  last_steps;           /* what WEFT_LAST_DEFAULT means                           */
    int32_t  final_sigma;          /* what WEFT_FINAL_DEFAULT means; 0: zero                 */

    /* What scheduler_config.json means to it. */
    bool karras;                   /* use_karras_sigmas, use_exponential_sigmas and          */
                                   /* use_beta_sigmas are keys of its diffusers class, which */
                                   /* then obeys sigma_min and sigma_max too                 */
    bool karras_range;             /* but for Karras' sigmas, it does not                    */
    uint32_t keys;                 /* WF_KEY_*                                               */
    bool no_spacing;               /* timestep_spacing and steps_offset are no keys of it    */
    bool rounds_karras;            /* the timesteps of Karras' levels are whole; layout      */
                                   /* LEVELS                                                 */
    bool repeats_last;             /* WEFT_FINAL_MIN is the last of Karras', exponential or  */
                                   /* beta sigmas again, not training's smallest             */
    struct {
        int32_t  betas;
        float    beta_start;
        float    beta_end;
        uint32_t flags;
    } absent;                      /* what diffusers takes for keys that are absent          */
    const wf_setting *settings;    /* not NULL; ends with WF_SETTINGS_END, which may be all  */
} wf_solver;

#define WF_SOLVER_DECLARE(name) extern const wf_solver wf_solver_##name;
WF_SOLVERS(WF_SOLVER_DECLARE)

/* ---- sampler.c ----------------------------------------------------------------------------- */

const wf_solver *wf_solver_at(size_t index); /* NULL past the last */
/* The solver of a kind, 0 being DDIM. WEFT_E_ARG for a kind that this library does not have. */
weft_status wf_solver_of(int32_t kind, const wf_solver **out, weft_error *err);

static inline bool wf_free_levels(const wf_solver *solver)
{
    return solver->layout == WF_LAYOUT_LEVELS || solver->layout == WF_LAYOUT_DPM;
}

/* x = by.x_part x + by.p_part prediction + sd noise; without noise, NULL. */
void wf_step_linear(wf_mix by, double sd, const float *prediction, const float *noise, float *x,
                    size_t len);

/* ---- variants.c ---------------------------------------------------------------------------- */

/* Fill in what the solver's row says for the variants that are not asked for; refuse those that it
 * does not have. */
weft_status wf_check_variants(weft_sampler *s, weft_error *err);

/* ---- clip.c -------------------------------------------------------------------------------- */

/* Whether the predicted image is clipped. */
bool wf_clips(const weft_sampler *s);
/* out = the image that `prediction` at `call` stands for, clipped as the options say. */
void wf_clip(const weft_sampler *s, int32_t call, const float *prediction, const float *x,
             float *out, size_t len);

/* ---- dpm.c --------------------------------------------------------------------------------- */

/* A step of the DPM solvers from one level to another, h = lambda' - lambda long:
 * x' = x x + m D0 + (half or trend) D1 + curve D2 + noise n. */
typedef struct wf_dpm {
    double h;
    double x;
    double m;
    double half;  /* of D1 with solver_type midpoint, in steps of order two */
    double trend; /* of D1 with heun, and in steps of order three           */
    double curve;
    double noise;
} wf_dpm;

wf_dpm wf_dpm_step(const weft_sampler *s, wf_level from, wf_level to);
/* What they remember of an answer: the image or the noise, as the algorithm is. */
wf_mix wf_dpm_answer(const weft_sampler *s, wf_level at);
bool   wf_dpm_draws(const weft_sampler *s, int32_t call);

/* ---- config.c ------------------------------------------------------------------------------ */

/* weft_sampler_options_from_model() for one scheduler_config.json; NULL changes nothing. */
weft_status wf_sampler_options_from_json(const json_t *config, weft_sampler_options *options,
                                         weft_error *err);

#endif
