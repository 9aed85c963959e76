/* What the tool draws is what the library gives for the same options: conditioning, start, every
 * prediction and the last latents, to the bit, as `weft generate --save` writes them. For every
 * method with its options, plans in phases, every solver and what solvers take. That the library is
 * right is for tests/run/ to say; tool.sh sees to the pictures, the files and the refusals. */
#include "base/support.h"
#include "golden.h"

enum { STEPS = 4 }; /* "-s 4" */

static weft_model      *model;
static weft_model_info  about;
static weft_adapter    *monster, *hatching;
static const char      *saved;

#define MODEL "examples/model"
#define MONSTER "-a " MODEL "/adapters/monster.safetensors:0.9 "
#define HATCHING "-a " MODEL "/adapters/hatching.safetensors:0.8 "
#define PAIR MONSTER HATCHING
#define PROMPT "a zib monster, hatched style"
#define NEGATIVE "a square"

static void setup(void)
{
    static char path[1024];
    const char *dir = test_dir();

    about = (weft_model_info)WEFT_MODEL_INFO_INIT;
    must(weft_model_open(MODEL, NULL, &model, &golden_err));
    must(weft_model_info_get(model, &about, &golden_err));
    must(weft_adapter_open(MODEL "/adapters/monster.safetensors", NULL, &monster, &golden_err));
    must(weft_adapter_open(MODEL "/adapters/hatching.safetensors", NULL, &hatching, &golden_err));
    snprintf(path, sizeof path, "%s/saved.safetensors", dir);
    saved = path;
}

static void teardown(void)
{
    char dir[1024];

    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(saved, '/') - saved), saved);
    test_rmdir(dir);
    weft_model_free(model);
    weft_adapter_free(monster);
    weft_adapter_free(hatching);
}

/* ---- the two ways ---- */

/* What is drawn: the words of the tool's options, and the same said to the library. */
typedef struct drawing {
    const char          *words;
    weft_plan           *plan;      /* with its adapters and methods; sealed here */
    weft_sampler_options sampler;
    float                guidance, rescale;
    uint64_t             seed;
    int32_t              clip_skip;
} drawing;

static drawing a_drawing(int32_t kind)
{
    drawing d = { .sampler = WEFT_SAMPLER_OPTIONS_INIT, .guidance = 3, .words = "" };

    must(weft_plan_create(model, NULL, &d.plan, &golden_err));
    d.sampler.kind = kind;
    d.sampler.steps = STEPS;
    must(weft_sampler_options_from_model(model, &d.sampler, &golden_err));
    return d;
}

static void by_the_tool(const drawing *d)
{
    char        line[4096];
    const char *b = getenv("B");

    snprintf(line, sizeof line,
             "%s/examples/weft generate " MODEL " -q -t 2 -p '" PROMPT "' %s %s -g %g --seed %d "
             "-o %s.png --save %s %s", b != NULL ? b : "build",
             d->guidance > 1 ? "-n '" NEGATIVE "'" : "",
             strstr(d->words, "--sigmas") != NULL ? "" : "-s 4", (double)d->guidance,
             (int)d->seed, saved, saved, d->words);
    ck_assert_msg(system(line) == 0, "%s", line);
    snprintf(line, sizeof line, "%s.png", saved);
    ck_assert_int_eq(unlink(line), 0);
}

static void same(const drawing *d, const weft_tensors *t, const char *name, const float *wanted,
                 size_t n)
{
    golden got = golden_read(t, "%s", name);

    ck_assert_msg(got.n == n, "%s: %s has %zu numbers, wanted %zu", d->words, name, got.n, n);
    ck_assert_msg(memcmp(got.v, wanted, n * sizeof *wanted) == 0,
                  "%s: %s has other bits (relative %g)", d->words, name,
                  relative(got.v, wanted, n, NULL));
    free(got.v);
}

/* The model has one stream, a sequence; the caller frees its data. */
static weft_text encoded(weft_run *run, const char *prompt, int32_t clip_skip)
{
    weft_text   t = WEFT_TEXT_INIT;
    weft_encode e = WEFT_ENCODE_INIT;

    must(weft_run_text(run, 0, 1, &t, &golden_err));
    t.data = malloc(t.len * sizeof *t.data);
    e.prompt = prompt;
    e.text = &t;
    e.text_count = 1;
    e.clip_skip = clip_skip;
    must(weft_run_encode(run, &e, &golden_err));
    return t;
}

/* The loop of a caller, held call by call to what the tool saved. Lets go of the plan; the last
 * latents are the caller's. */
static float *check(drawing *d)
{
    size_t        side = (size_t)about.latent_size;
    size_t        n = (size_t)about.latent_channels * side * side;
    float        *x = malloc(n * sizeof *x), *in = malloc(n * sizeof *x);
    float        *out = malloc(n * sizeof *x);
    weft_sampler *sampler;
    weft_noise   *noise;
    weft_run     *run;
    weft_tensors *t;

    by_the_tool(d);
    must(weft_tensors_open(saved, NULL, &t, &golden_err));
    must(weft_sampler_create(&d->sampler, &sampler, &golden_err));
    must(weft_noise_create(d->seed, NULL, &noise, &golden_err));
    must(weft_plan_seal(d->plan, weft_sampler_calls(sampler), &golden_err));
    must(weft_run_create(d->plan, NULL, &run, &golden_err));
    weft_text text = encoded(run, PROMPT, d->clip_skip);
    weft_text negative = encoded(run, NEGATIVE, d->clip_skip);
    must(weft_noise_normal(noise, x, n, &golden_err));
    same(d, t, "text", text.data, text.len);
    same(d, t, "start", x, n);

    weft_step step = WEFT_STEP_INIT;
    step.latent = in;
    step.out = out;
    step.latent_len = step.out_len = n;
    step.text = &text;
    step.text_count = 1;
    if (d->guidance > 1) {
        same(d, t, "negative", negative.data, negative.len);
        step.negative = &negative;
        step.negative_count = 1;
    }
    step.guidance = d->guidance;
    step.guidance_rescale = d->rescale;
    for (size_t i = 0; i < n; i++) x[i] *= weft_sampler_init_scale(sampler);
    must(weft_sampler_begin(sampler, 0, n, &golden_err));
    for (int32_t call = 0; call < weft_sampler_calls(sampler); call++) {
        char name[32];
        step.call = call;
        step.timestep = weft_sampler_timestep(sampler, call);
        must(weft_sampler_scale(sampler, call, x, in, n, &golden_err));
        must(weft_run_step(run, &step, &golden_err));
        snprintf(name, sizeof name, "prediction_%03d", (int)call);
        same(d, t, name, out, n);
        must(weft_sampler_step(sampler, call, out, x, n, noise, &golden_err));
    }
    same(d, t, "latents", x, n);

    weft_tensors_free(t);
    ck_assert_int_eq(unlink(saved), 0);
    weft_run_free(run);
    weft_plan_free(d->plan);
    weft_noise_free(noise);
    weft_sampler_free(sampler);
    free(in), free(out), free(text.data), free(negative.data);
    return x;
}

/* ---- methods ---- */

static void pair(weft_plan *p)
{
    must(weft_plan_add(p, monster, 0.9f, NULL, &golden_err));
    must(weft_plan_add(p, hatching, 0.8f, NULL, &golden_err));
}

static void merge(weft_plan *p)
{
    pair(p);
    must(weft_plan_merge(p, &golden_err));
}

static void turns(weft_plan *p)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    pair(p);
    o.period = 2;
    must(weft_plan_switch(p, &o, &golden_err));
}

static void turns_of_one(weft_plan *p)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    pair(p);
    o.period = 1;
    o.flags = WEFT_SWITCH_OFFICIAL_OFFSET;
    must(weft_plan_switch(p, &o, &golden_err));
}

static void composite(weft_plan *p)
{
    pair(p);
    must(weft_plan_composite(p, NULL, &golden_err));
}

static void composite_by_count(weft_plan *p)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_add_options       a = WEFT_ADD_OPTIONS_INIT;
    a.flags = WEFT_ADD_SHARE;
    a.share = 0.25f;
    must(weft_plan_add(p, monster, 0.9f, &a, &golden_err));
    must(weft_plan_add(p, hatching, 0.8f, NULL, &golden_err));
    o.flags = WEFT_COMPOSITE_DIVIDE_BY_COUNT;
    must(weft_plan_composite(p, &o, &golden_err));
}

static void composite_last(weft_plan *p)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    pair(p);
    o.flags = WEFT_COMPOSITE_NOCFG_LAST;
    must(weft_plan_composite(p, &o, &golden_err));
}

static void klora(weft_plan *p)
{
    pair(p);
    must(weft_plan_klora(p, NULL, &golden_err));
}

static void klora_otherwise(weft_plan *p)
{
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_add_options   a = WEFT_ADD_OPTIONS_INIT;
    a.role = WEFT_ROLE_STYLE;
    must(weft_plan_add(p, monster, 0.9f, &a, &golden_err));
    a.role = WEFT_ROLE_CONTENT;
    must(weft_plan_add(p, hatching, 0.8f, &a, &golden_err));
    o.pattern = WEFT_KLORA_CUSTOM;
    o.alpha = 1;
    o.beta = 0.25;
    o.modulus = 1.5;
    o.gamma = WEFT_KLORA_GAMMA_PAPER;
    o.granularity = WEFT_KLORA_BY_STEP;
    o.top_k = 5;
    o.flags = WEFT_KLORA_ATTENTION_ONLY | WEFT_KLORA_IGNORE_ALPHA | WEFT_KLORA_WRAP;
    must(weft_plan_klora(p, &o, &golden_err));
}

static void selected(weft_plan *p)
{
    weft_add_options  a = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
    text.text_1 = text.text_2 = text.text_3 = 0.3f;
    a.select = "unet.*,text_encoder.*";
    a.exclude = "unet.mid_block.*";
    a.text_weights = &text;
    must(weft_plan_add(p, monster, 0.5f, &a, &golden_err));
}

static void phases(weft_plan *p)
{
    weft_phase_options  at = WEFT_PHASE_OPTIONS_INIT;
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    pair(p);
    o.period = 1;
    must(weft_plan_switch(p, &o, &golden_err));
    at.first = 2;
    must(weft_plan_begin_phase(p, &at, &golden_err));
    must(weft_plan_klora(p, NULL, &golden_err));
    at = (weft_phase_options)WEFT_PHASE_OPTIONS_INIT;
    at.flags = WEFT_PHASE_AT;
    at.at = 0.75;
    must(weft_plan_begin_phase(p, &at, &golden_err));
    must(weft_plan_composite(p, NULL, &golden_err));
}

static const struct {
    const char *words;
    void      (*set)(weft_plan *p);
    float       guidance;
} methods[] = {
    { PAIR, merge, 3 },
    { PAIR "--compose switch --period 2", turns, 3 },
    { PAIR "--compose switch --period 1 --official-offset", turns_of_one, 3 },
    { PAIR "--compose composite", composite, 3 },
    { MONSTER "--share 0.25 " HATCHING "--compose composite --divide-by-count",
      composite_by_count, 3 },
    { PAIR "--compose composite --last-without-guidance", composite_last, 1 },
    { PAIR "--compose klora", klora, 3 },
    { MONSTER "--role style " HATCHING "--role content --compose klora --pattern custom --alpha 1 "
      "--beta 0.25 --modulus 1.5 --gamma paper --granularity step --top-k 5 --attention-only "
      "--ignore-alpha --wrap", klora_otherwise, 3 },
    { "-a " MODEL "/adapters/monster.safetensors:0.5 --select 'unet.*,text_encoder.*' "
      "--exclude 'unet.mid_block.*' --text-weight 0.3", selected, 3 },
    { PAIR "--compose switch --period 1 --phase 2 --compose klora --phase 0.75 --compose composite",
      phases, 3 },
};
enum { ROWS = sizeof methods / sizeof *methods };

/* No two rows draw the same, so that a method or an option that the tool forgets shows. */
START_TEST(every_method_is_the_librarys)
{
    size_t side = (size_t)about.latent_size, n = (size_t)about.latent_channels * side * side;
    float *last[ROWS];

    for (size_t i = 0; i < ROWS; i++) {
        drawing d = a_drawing(WEFT_SAMPLER_DDIM);
        d.words = methods[i].words;
        d.guidance = methods[i].guidance;
        methods[i].set(d.plan);
        last[i] = check(&d);
        for (size_t k = 0; k < i; k++)
            ck_assert_msg(relative(last[i], last[k], n, NULL) > 1e-3, "the same: %s\nand %s",
                          methods[i].words, methods[k].words);
    }
    for (size_t i = 0; i < ROWS; i++) free(last[i]);
}
END_TEST

/* ---- solvers ---- */

START_TEST(every_solver_is_the_librarys)
{
    int32_t kind;

    for (size_t i = 0; (kind = weft_sampler_kind_at(i)) != 0; i++) {
        char    words[64];
        drawing d = a_drawing(kind);
        snprintf(words, sizeof words, "--sampler %s", weft_sampler_name(kind));
        d.words = words;
        d.seed = i; /* solvers that draw noise draw it behind the start's */
        free(check(&d));
    }
}
END_TEST

START_TEST(what_solvers_take_is_passed_on)
{
    const float sigmas[STEPS] = { 14.5f, 5, 1.5f, 0.375f };
    drawing     d = a_drawing(WEFT_SAMPLER_EULER);

    d.sampler.flags |= WEFT_SAMPLER_KARRAS;
    d.sampler.spacing = WEFT_SPACING_TRAILING;
    d.words = "--sampler euler --karras --spacing trailing";
    free(check(&d));

    d = a_drawing(WEFT_SAMPLER_HEUN);
    d.sampler.sigma_schedule = WEFT_SCHEDULE_EXPONENTIAL;
    d.sampler.sigma_min = 0.125f;
    d.sampler.sigma_max = 12;
    d.words = "--sampler Heun --schedule Exponential --sigma-min 0.125 --sigma-max 12";
    free(check(&d));

    d = a_drawing(WEFT_SAMPLER_DPMPP_2M_SDE);
    d.sampler.sigma_schedule = WEFT_SCHEDULE_KARRAS;
    d.sampler.solver_type = WEFT_SOLVER_HEUN;
    d.words = "--sampler 'DPM++ 2M SDE Heun Karras'";
    free(check(&d));

    d = a_drawing(WEFT_SAMPLER_DDIM);
    d.sampler.eta = 0.5f;
    d.rescale = 0.5f;
    d.words = "--eta 0.5 --guidance-rescale 0.5";
    free(check(&d));

    d = a_drawing(WEFT_SAMPLER_DDIM);
    d.clip_skip = 1;
    d.words = "--clip-skip 1";
    free(check(&d));

    d = a_drawing(WEFT_SAMPLER_EULER);
    d.sampler.sigmas = sigmas;
    d.sampler.sigmas_len = STEPS;
    d.words = "--sampler euler --sigmas 14.5,5,1.5,0.375";
    free(check(&d));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("the tool and the library");
    TCase *t = tcase_create("all");

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_method_is_the_librarys);
    tcase_add_test(t, every_solver_is_the_librarys);
    tcase_add_test(t, what_solvers_take_is_passed_on);
    suite_add_tcase(s, t);
    return run_suite(s);
}
