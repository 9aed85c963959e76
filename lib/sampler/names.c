/* names.c - what other programs call samplers and sigma schedules.
 *
 * One program's name has the schedule in it ("DPM++ 2M SDE Karras", "dpmpp_2m_k"), another keeps it
 * apart ("dpmpp_2m_sde" and "karras"), and all of them spell with other separators. So a name is
 * compared as its letters and digits, small; "++" is "pp". It may be a sampler's, a schedule's, or
 * a sampler's with a schedule's behind it. Where two programs mean different things by one name it
 * is written down in docs/guide.md which is taken. A name for something that is not here must not
 * find what is merely called alike ("DPM++ 2S a" is no "DPM++ 2S"): it is refused, with the nearest
 * names. */
#include "base/structs.h"
#include "sampler/sampler_internal.h"

#define LONGEST 64 /* of a name's letters and digits, and a 0 */
#define NEAREST 3

/* ---- letters ------------------------------------------------------------------------------- */

/* False if it is too long for any name. */
static bool squeeze(const char *name, char *out)
{
    size_t n = 0;

    for (const char *c = name; *c != '\0'; c++) {
        char letter = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        bool plus = c[0] == '+' && (c[1] == '+' || (c > name && c[-1] == '+'));

        if (plus) letter = 'p';
        if (!(letter >= 'a' && letter <= 'z') && !(letter >= '0' && letter <= '9')) continue;
        if (n + 1 == LONGEST) return false;
        out[n++] = letter;
    }
    out[n] = '\0';
    return true;
}

static bool is_same(const char *name, const char *squeezed)
{
    char own[LONGEST];

    return squeeze(name, own) && strcmp(own, squeezed) == 0;
}

/* ---- schedules ----------------------------------------------------------------------------- */

static const char *const schedule_names[] = {
    [WEFT_SCHEDULE_DEFAULT] = "default",
    [WEFT_SCHEDULE_KARRAS] = "karras",
    [WEFT_SCHEDULE_EXPONENTIAL] = "exponential",
    [WEFT_SCHEDULE_BETA] = "beta_sigmas",
    [WEFT_SCHEDULE_LU] = "lu",
    [WEFT_SCHEDULE_SGM_UNIFORM] = "sgm_uniform",
    [WEFT_SCHEDULE_SIMPLE] = "simple",
    [WEFT_SCHEDULE_ALIGN] = "align_your_steps",
    [WEFT_SCHEDULE_ALIGN_SDXL] = "align_your_steps_sdxl",
    [WEFT_SCHEDULE_BETA_STEPS] = "beta",
    [WEFT_SCHEDULE_NORMAL] = "normal",
    [WEFT_SCHEDULE_DDIM_UNIFORM] = "ddim_uniform",
    [WEFT_SCHEDULE_KL_OPTIMAL] = "kl_optimal",
};

static const struct {
    const char *name;
    int32_t     schedule;
} schedule_aliases[] = {
    { "automatic", WEFT_SCHEDULE_DEFAULT },     { "k", WEFT_SCHEDULE_KARRAS },
    { "polyexponential", WEFT_SCHEDULE_EXPONENTIAL }, /* whose default rho is 1 */
    { "lu_lambdas", WEFT_SCHEDULE_LU },         { "uniform", WEFT_SCHEDULE_NORMAL },
    { "ays", WEFT_SCHEDULE_ALIGN },             { "ays_sdxl", WEFT_SCHEDULE_ALIGN_SDXL },
};

const char *weft_sampler_schedule_name(int32_t schedule)
{
    bool known = schedule >= 0 && (size_t)schedule < WF_LEN(schedule_names);

    return known ? schedule_names[schedule] : NULL;
}

static bool find_schedule(const char *squeezed, int32_t *out)
{
    for (size_t i = 0; i < WF_LEN(schedule_names); i++)
        if (is_same(schedule_names[i], squeezed)) {
            *out = (int32_t)i;
            return true;
        }
    for (size_t i = 0; i < WF_LEN(schedule_aliases); i++)
        if (is_same(schedule_aliases[i].name, squeezed)) {
            *out = schedule_aliases[i].schedule;
            return true;
        }
    return false;
}

/* ---- samplers ------------------------------------------------------------------------------ */

typedef struct sampler_name {
    const char *name;
    int32_t     kind;
    int32_t     solver_type; /* WEFT_SOLVER_*; the name says this too */
} sampler_name;

/* Beside each row's own name and aliases. */
static const sampler_name sampler_names[] = {
    { "k_euler", WEFT_SAMPLER_EULER, 0 },
    { "k_euler_a", WEFT_SAMPLER_EULER_A, 0 },
    { "k_euler_ancestral", WEFT_SAMPLER_EULER_A, 0 },
    { "k_heun", WEFT_SAMPLER_HEUN, 0 },
    { "k_lms", WEFT_SAMPLER_LMS, 0 },
    { "k_dpmpp_2m", WEFT_SAMPLER_DPMPP_2M, 0 },
    { "k_dpm_2", WEFT_SAMPLER_DPM2, 0 },
    { "k_dpm_2_a", WEFT_SAMPLER_DPM2_A, 0 },
    { "k_dpm_2_ancestral", WEFT_SAMPLER_DPM2_A, 0 },
    { "dpm_2_ancestral", WEFT_SAMPLER_DPM2_A, 0 },
    { "dpmpp_2m_sde_heun", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SOLVER_HEUN },
    { "dpmpp_2m_sde_gpu", WEFT_SAMPLER_DPMPP_2M_SDE, 0 },
    { "dpmpp_2m_sde_heun_gpu", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SOLVER_HEUN },
    { "dpmpp_3m_sde_gpu", WEFT_SAMPLER_DPMPP_3M_SDE, 0 },
    { "dpmpp_sde_gpu", WEFT_SAMPLER_DPMPP_SDE, 0 },
    { "unipc_bh1", WEFT_SAMPLER_UNIPC, WEFT_SOLVER_BH1 },
    { "unipc_bh2", WEFT_SAMPLER_UNIPC, WEFT_SOLVER_BH2 },
};

static bool is_called(const wf_solver *solver, const char *squeezed)
{
    if (is_same(solver->name, squeezed)) return true;
    for (const char *const *alias = solver->aliases; *alias != NULL; alias++)
        if (is_same(*alias, squeezed)) return true;
    return false;
}

static bool find_sampler(const char *squeezed, sampler_name *out)
{
    const wf_solver *solver;

    for (size_t i = 0; (solver = wf_solver_at(i)) != NULL; i++)
        if (is_called(solver, squeezed)) {
            *out = (sampler_name){ solver->name, solver->kind, 0 };
            return true;
        }
    for (size_t i = 0; i < WF_LEN(sampler_names); i++)
        if (is_same(sampler_names[i].name, squeezed)) {
            *out = sampler_names[i];
            return true;
        }
    return false;
}

int32_t weft_sampler_find(const char *name)
{
    char         squeezed[LONGEST];
    sampler_name found;

    if (name == NULL || !squeeze(name, squeezed) || !find_sampler(squeezed, &found)) return 0;
    return found.solver_type == 0 ? found.kind : 0;
}

/* ---- both ---------------------------------------------------------------------------------- */

/* The longest sampler's name at its head whose rest is a schedule's. */
static bool find_both(char *squeezed, sampler_name *sampler, int32_t *schedule)
{
    for (size_t cut = strlen(squeezed); cut > 0; cut--) {
        char head[LONGEST];

        memcpy(head, squeezed, cut);
        head[cut] = '\0';
        if (!find_sampler(head, sampler)) continue;
        if (squeezed[cut] == '\0' || find_schedule(squeezed + cut, schedule)) return true;
    }
    return false;
}

/* How many letters must be put in, taken out or changed (Levenshtein). */
static size_t distance(const char *a, const char *b)
{
    size_t row[LONGEST], n = strlen(b);

    for (size_t k = 0; k <= n; k++) row[k] = k;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t k = 0; k < n; k++) {
            size_t changed = diagonal + (a[i] != b[k]);

            diagonal = row[k + 1];
            row[k + 1] = WF_MIN(changed, WF_MIN(row[k], diagonal) + 1);
        }
    }
    return row[n];
}

static weft_status refuse(const char *name, const char *squeezed, weft_error *err)
{
    const char      *nearest[NEAREST] = { NULL };
    size_t           far[NEAREST];
    const wf_solver *solver;

    for (size_t i = 0; (solver = wf_solver_at(i)) != NULL; i++) {
        char   own[LONGEST];
        size_t d, k;

        squeeze(solver->name, own);
        d = distance(squeezed, own);
        for (k = NEAREST; k > 0 && (nearest[k - 1] == NULL || d < far[k - 1]); k--)
            if (k < NEAREST) {
                nearest[k] = nearest[k - 1];
                far[k] = far[k - 1];
            }
        if (k < NEAREST) {
            nearest[k] = solver->name;
            far[k] = d;
        }
    }
    return wf_fail(err, WEFT_E_ARG,
                   "there is no sampler \"%.60s\"; the nearest names are %s, %s and %s", name,
                   nearest[0], nearest[1], nearest[2]);
}

weft_status weft_sampler_options_named(const char *name, weft_sampler_options *options,
                                       weft_error *err)
{
    weft_sampler_options o;
    sampler_name         sampler = { NULL, 0, 0 };
    char                 squeezed[LONGEST];
    int32_t              schedule = -1;

    if (name == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_options_named: %s is NULL",
                       name == NULL ? "name" : "options");
    WF_TRY(WF_OPTIONS(&o, options, weft_sampler_options, WF_SAMPLER_FLAGS, err));
    if (!squeeze(name, squeezed)) squeezed[0] = '\0';
    if (squeezed[0] == '\0')
        return wf_fail(err, WEFT_E_ARG, "there is no sampler \"%.60s\"", name);
    if (!find_schedule(squeezed, &schedule) && !find_both(squeezed, &sampler, &schedule))
        return refuse(name, squeezed, err);
    if (sampler.kind != 0) {
        const wf_solver *solver;

        WF_TRY(wf_solver_of(sampler.kind, &solver, err));
        o.kind = sampler.kind;
        o.solver_type = sampler.solver_type;
    }
    if (schedule >= 0) {
        o.sigma_schedule = schedule;
        o.flags &= ~(uint32_t)WEFT_SAMPLER_KARRAS;
    }
    return WF_RESULT(options, &o, weft_sampler_options, err);
}
