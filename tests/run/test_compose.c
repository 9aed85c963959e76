/* Merge, switch, composite, K-LoRA, B-LoRA and ZipLoRA over 20 guided steps against a re-statement of the methods in Python on
 * top of diffusers (tests/reference/compose.py): conditioning under 1e-5, each step's prediction and the final
 * latents under 1e-4 (a hundred f32 steps of rounding lie between), or 1e-5 over 8 steps, K-LoRA's table cell by cell. */
#include <stdbool.h>

#include "base/base.h"
#include "golden.h"
#include "plain.h"

typedef struct set {
    weft_tensors *t;
    json_t       *entry;  /* of one model in compose.json */
    const char   *prefix;
    weft_model   *model;
    weft_model_info info;
    plain_shape   text;
    bool          bundled;
    double      limit;    /* of predictions and final latents */
} set;

static int number(json_t *o, const char *key, int preset)
{
    json_t *v = json_object_get(o, key);
    return v == NULL ? preset : json_is_boolean(v) ? json_is_true(v) : (int)json_integer_value(v);
}

static double real(json_t *o, const char *key, double preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : preset;
}

static const char *word(json_t *o, const char *key, const char *preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : preset;
}

static int32_t gamma_of(json_t *options)
{
    const char *gamma = word(options, "gamma", "code");
    return strcmp(gamma, "paper") == 0 ? WEFT_KLORA_GAMMA_PAPER
           : strcmp(gamma, "none") == 0 ? WEFT_KLORA_GAMMA_NONE : WEFT_KLORA_GAMMA_CODE;
}

static void choose_method(weft_plan *plan, const char *method, json_t *options)
{
    if (strcmp(method, "switch") == 0) {
        weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
        o.period = number(options, "period", 0);
        if (number(options, "official_offset", 0)) o.flags |= WEFT_SWITCH_OFFICIAL_OFFSET;
        if (number(options, "shares", 0)) o.flags |= WEFT_SWITCH_SHARES;
        int32_t order[8];
        json_t *turns = json_object_get(options, "order");
        ck_assert_uint_le(json_array_size(turns), WF_LEN(order));
        for (size_t t = 0; t < json_array_size(turns); t++)
            order[o.order_len++] = (int32_t)json_integer_value(json_array_get(turns, t));
        o.order = order;
        o.last_calls = number(options, "last", 0);
        o.last_adapter = number(options, "last_adapter", 0);
        must(weft_plan_switch(plan, &o, &golden_err));
    } else if (strcmp(method, "composite") == 0) {
        weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
        if (number(options, "divide_by_count", 0)) o.flags |= WEFT_COMPOSITE_DIVIDE_BY_COUNT;
        if (number(options, "nocfg_last", 0)) o.flags |= WEFT_COMPOSITE_NOCFG_LAST;
        if (number(options, "cached", 0)) o.flags |= WEFT_COMPOSITE_CACHED;
        o.c1 = number(options, "c1", 0);
        o.c2 = number(options, "c2", 0);
        must(weft_plan_composite(plan, &o, &golden_err));
    } else if (strcmp(method, "loratorio") == 0) {
        weft_loratorio_options o = WEFT_LORATORIO_OPTIONS_INIT;
        o.patch = number(options, "patch", 0);
        o.keep = number(options, "keep", 0);
        o.temperature = (float)real(options, "temperature", 0);
        if (json_object_get(options, "base") != NULL) o.flags |= WEFT_LORATORIO_BASE;
        o.base = (float)real(options, "base", 0);
        must(weft_plan_loratorio(plan, &o, &golden_err));
    } else if (strcmp(method, "subbands") == 0) {
        weft_subbands_options o = WEFT_SUBBANDS_OPTIONS_INIT;
        o.levels = number(options, "levels", 0);
        o.keep = number(options, "keep", 0);
        if (json_object_get(options, "sharpness") != NULL) o.flags |= WEFT_SUBBANDS_SHARPNESS;
        o.sharpness = (float)real(options, "sharpness", 0);
        must(weft_plan_subbands(plan, &o, &golden_err));
    } else if (strcmp(method, "klora") == 0) {
        weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
        const char *pattern = word(options, "pattern", "s_star");
        o.pattern = strcmp(pattern, "s") == 0 ? WEFT_KLORA_S : strcmp(pattern, "custom") == 0 ? WEFT_KLORA_CUSTOM
                    : strcmp(pattern, "fixed") == 0 ? WEFT_KLORA_FIXED : WEFT_KLORA_S_STAR;
        o.gamma = gamma_of(options);
        o.score = strcmp(word(options, "score", "topk"), "energy") == 0 ? WEFT_KLORA_ENERGY : WEFT_KLORA_TOP_K;
        o.share = real(options, "share", 0);
        o.granularity = strcmp(word(options, "granularity", "call"), "step") == 0 ? WEFT_KLORA_BY_STEP
                                                                                  : WEFT_KLORA_BY_CALL;
        o.top_k = number(options, "top_k", 0);
        o.alpha = real(options, "alpha", 0);
        o.beta = real(options, "beta", 0);
        o.modulus = real(options, "modulus", 0);
        if (number(options, "wrap", 0)) o.flags |= WEFT_KLORA_WRAP;
        if (number(options, "ignore_alpha", 0)) o.flags |= WEFT_KLORA_IGNORE_ALPHA;
        if (number(options, "attention_only", 0)) o.flags |= WEFT_KLORA_ATTENTION_ONLY;
        if (number(options, "paper_beta", 0)) o.flags |= WEFT_KLORA_PAPER_BETA;
        must(weft_plan_klora(plan, &o, &golden_err));
    } else if (strcmp(method, "blora") == 0) {
        weft_blora_options o = WEFT_BLORA_OPTIONS_INIT;
        o.content = word(options, "content", NULL);
        o.style = word(options, "style", NULL);
        if (number(options, "squared", 0)) o.flags |= WEFT_BLORA_SQUARED;
        must(weft_plan_blora(plan, &o, &golden_err));
    } else if (strcmp(method, "zip") == 0) {
        weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
        const char *file = word(options, "coefficients", NULL);
        if (json_object_get(options, "lambda") != NULL) o.flags |= WEFT_ZIP_LAMBDA;
        if (json_object_get(options, "style") != NULL) o.flags |= WEFT_ZIP_STYLE;
        o.lambda = real(options, "lambda", 0);
        o.style = real(options, "style", 0);
        if (file != NULL) must(weft_tensors_open(data_path("%s", file), NULL, &o.coefficients, &golden_err));
        if ((file = word(options, "network", NULL)) != NULL) {
            weft_tensors *network;
            must(weft_tensors_open(data_path("%s", file), NULL, &network, &golden_err));
            must(weft_plan_zip_predict(plan, network, &o.coefficients, &golden_err));
            weft_tensors_free(network);
        }
        must(weft_plan_zip(plan, &o, &golden_err));
        weft_tensors_free(o.coefficients);
    }
}

static void set_curve(weft_plan *plan, int32_t index, json_t *curve)
{
    weft_curve_point p[8];
    json_t *points = json_object_get(curve, "points");
    size_t n = json_array_size(points);
    if (curve == NULL) return;
    ck_assert_uint_le(n, WF_LEN(p));
    for (size_t i = 0; i < n; i++) {
        json_t *point = json_array_get(points, i);
        const char *shape = json_string_value(json_array_get(point, 2));
        weft_curve_point_init(&p[i], sizeof p[i]);
        p[i].at = json_number_value(json_array_get(point, 0));
        p[i].value = json_number_value(json_array_get(point, 1));
        p[i].shape = strcmp(shape, "hold") == 0 ? WEFT_CURVE_HOLD : strcmp(shape, "linear") == 0 ? WEFT_CURVE_LINEAR
                                                                                                 : WEFT_CURVE_COSINE;
    }
    must(weft_plan_set_curve(plan, index, number(curve, "share", 0) ? WEFT_CURVE_AT_SHARE : 0, p, n, &golden_err));
}

static void set_mask(const set *s, weft_plan *plan, int32_t index, json_t *mask)
{
    weft_mask m = WEFT_MASK_INIT;
    if (mask == NULL) return;
    golden values = golden_read(s->t, "mask/%s", word(mask, "name", ""));
    m.values = values.v;
    m.len = values.n;
    m.height = (int32_t)values.shape[0];
    m.width = (int32_t)values.shape[1];
    if (number(mask, "adds", 0)) m.flags |= WEFT_MASK_ADD;
    if (json_object_get(mask, "text") != NULL) {
        m.flags |= WEFT_MASK_TEXT;
        m.text = (float)real(mask, "text", 1);
    }
    must(weft_plan_set_mask(plan, index, &m, &golden_err));
    free(values.v);
}

static weft_plan *build(const set *s, json_t *c, int steps)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    json_t *adapters = json_object_get(c, "adapters"), *paths = json_object_get(s->entry, "adapters");
    json_t *balance = json_object_get(c, "balance");
    const char *text = word(c, "text", "method");
    o.text = strcmp(text, "all") == 0 ? WEFT_TEXT_ALL : strcmp(text, "first") == 0 ? WEFT_TEXT_FIRST
             : strcmp(text, "none") == 0 ? WEFT_TEXT_NONE : WEFT_TEXT_METHOD;
    must(weft_plan_create(s->model, &o, &plan, &golden_err));
    for (size_t i = 0; i < json_array_size(adapters); i++) {
        json_t *a = json_array_get(adapters, i);
        weft_add_options add = WEFT_ADD_OPTIONS_INIT;
        weft_adapter *adapter;
        must(weft_adapter_open(data_path("%s", word(paths, word(a, "name", ""), "")), NULL, &adapter, &golden_err));
        if (json_object_get(a, "text_weight") != NULL) {
            add.text_weights = text_weight((float)real(a, "text_weight", 0));
        }
        if (json_object_get(a, "share") != NULL) {
            add.flags |= WEFT_ADD_SHARE;
            add.share = (float)real(a, "share", 1);
        }
        const char *role = word(a, "role", "");
        add.role = strcmp(role, "style") == 0 ? WEFT_ROLE_STYLE : strcmp(role, "content") == 0 ? WEFT_ROLE_CONTENT
                                                                                               : WEFT_ROLE_NONE;
        must(weft_plan_add(plan, adapter, (float)real(a, "weight", 1), &add, &golden_err));
        set_curve(plan, (int32_t)i, json_object_get(a, "curve"));
        set_mask(s, plan, (int32_t)i, json_object_get(a, "mask"));
        must(weft_plan_set_blocks(plan, (int32_t)i, word(a, "blocks", NULL), &golden_err));
        weft_adapter_free(adapter);
    }
    choose_method(plan, word(c, "method", ""), json_object_get(c, "options"));
    if (balance != NULL) {
        weft_balance_options b = WEFT_BALANCE_OPTIONS_INIT;
        b.gamma = gamma_of(balance);
        b.reference = number(balance, "reference", 0);
        must(weft_plan_balance(plan, &b, &golden_err));
    }
    must(weft_plan_seal(plan, steps, &golden_err));
    return plan;
}

/* choice (N, L): which adapter, or one past the last for none, over the layers that K-LoRA governs, in order of
 * execution. */
static void check_choice(const set *s, json_t *c, weft_plan *plan, const char *name, int steps)
{
    char tensor[256];
    snprintf(tensor, sizeof tensor, "%s%s/choice", s->prefix, name);
    if (!golden_has(s->t, tensor)) return;
    golden choice = golden_read(s->t, "%s", tensor), rho = golden_read(s->t, "%s%s/rho", s->prefix, name);
    size_t L = (size_t)choice.shape[1], at = 0;
    ck_assert_uint_eq((size_t)choice.shape[0], (size_t)steps);
    for (int64_t layer = 0; layer < s->info.layers; layer++) {
        weft_klora_score k = WEFT_KLORA_SCORE_INIT;
        must(weft_plan_klora_score(plan, 0, layer, &k, &golden_err));
        if (k.position == 0) continue;
        ck_assert_int_eq(k.position, (int)at + 1);
        ck_assert_uint_lt(at, L);
        if (isfinite(rho.v[at]))
            ck_assert_msg(fabs(k.rho - rho.v[at]) <= 1e-5 * fabs(rho.v[at]), "%s: rho %g, wanted %g", name, k.rho,
                          (double)rho.v[at]);
        int adapters = (int)json_array_size(json_object_get(c, "adapters"));
        if (adapters == 2) ck_assert_double_eq_tol(k.gamma, real(c, "gamma", 0), 1e-5);
        for (int n = 0; n < steps; n++) {
            int want = (int)choice.v[(size_t)n * L + at];
            for (int a = 0; a < adapters; a++) {
                weft_cell cell = WEFT_CELL_INIT;
                must(weft_plan_cell(plan, n, 0, layer, a, &cell, &golden_err));
                ck_assert_msg((cell.number != 0) == (a == want), "%s: call %d, layer %zu: adapter %d is %g, wanted %d (rho %g)",
                              name, n, at, a, (double)cell.number, want, k.rho);
            }
        }
        at++;
    }
    ck_assert_uint_eq(at, L);
    free(choice.v), free(rho.v);
}

/* What the tool and the table say of balanced weights. */
static void check_factors(json_t *c, weft_plan *plan, const char *name)
{
    json_t *factors = json_object_get(c, "factors");
    for (size_t i = 0; i < json_array_size(factors); i++) {
        weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
        double want = json_number_value(json_array_get(factors, i));
        must(weft_plan_adapter(plan, (int32_t)i, &info, &golden_err));
        ck_assert_msg(fabs(info.balance - want) <= 1e-6 * want, "%s: adapter %zu: %.9g, wanted %.9g", name, i,
                      info.balance, want);
    }
}

/* Compared where the golden has it; on the bundled model the nets' own goldens hold the text encoder to account. */
static void check_context(const set *s, const char *name, const float *v, size_t n)
{
    if (s->bundled && !golden_has(s->t, name)) return;
    golden want = golden_read(s->t, "%s", name);
    ck_assert_uint_eq(want.n, n);
    near_golden(name, v, want.v, n, 1e-5);
    free(want.v);
}

/* The prompt as each adapter alone encodes it, one behind the other. */
static float *encode_each(const set *s, weft_run *run, json_t *c, const char *prompt)
{
    size_t one = 77 * (size_t)s->text.dim, k = json_array_size(json_object_get(c, "adapters"));
    float *text = malloc(k * one * sizeof *text);
    for (size_t a = 0; a < k; a++) {
        plain_encode e = PLAIN_ENCODE_INIT;
        e.prompt = prompt;
        e.flags = WEFT_ENCODE_ADAPTER;
        e.adapter = (int32_t)a;
        e.text = text + a * one;
        e.text_len = one;
        must(plain_run_encode(run, &e, &golden_err));
    }
    return text;
}

/* Which adapter acts at a call; under a method with branches they are all there are, in order. */
static size_t acting(const set *s, const weft_plan *plan, int call, size_t adapters)
{
    for (int32_t a = 0; a < (int32_t)adapters; a++)
        for (int64_t l = 0; l < s->info.layers; l++) {
            weft_layer_info about = WEFT_LAYER_INFO_INIT;
            weft_cell cell = WEFT_CELL_INIT;
            must(weft_model_layer(s->model, l, &about, &golden_err));
            if (strncmp(about.name, "unet.", 5) != 0) continue;
            must(weft_plan_cell(plan, call, 0, l, a, &cell, &golden_err));
            if (cell.number != 0) return (size_t)a;
        }
    ck_abort_msg("no adapter acts at call %d", call);
}

static float *encode(const set *s, weft_run *run, json_t *c, const char *which, const char *prompt, float **pooled)
{
    plain_encode e = PLAIN_ENCODE_INIT;
    char name[256];
    e.prompt = prompt;
    e.text_len = 77 * (size_t)s->text.dim;
    e.text = malloc(e.text_len * sizeof *e.text);
    if (s->text.pooled > 0) {
        e.pooled_len = (size_t)s->text.pooled;
        e.pooled = malloc(e.pooled_len * sizeof *e.pooled);
    }
    must(plain_run_encode(run, &e, &golden_err));
    snprintf(name, sizeof name, "%s/%s", word(c, "context", ""), which);
    check_context(s, name, e.text, e.text_len);
    snprintf(name, sizeof name, "%s/%s_pooled", word(c, "context", ""), which);
    if (e.pooled != NULL) check_context(s, name, e.pooled, e.pooled_len);
    *pooled = e.pooled;
    return e.text;
}

/* Within 1/255 for 99.9 % of the values, where the golden has pixels. */
static void check_pixels(const set *s, weft_run *run, const char *name, const float *x, size_t n)
{
    char tensor[256];
    snprintf(tensor, sizeof tensor, "%s%s/u8", s->prefix, name);
    if (!golden_has(s->t, tensor)) return;
    golden u8 = golden_read(s->t, "%s", tensor);
    float *image = malloc(u8.n * sizeof *image);
    uint8_t *rgb = malloc(u8.n);
    size_t off = 0;
    must(weft_run_decode(run, x, n, image, u8.n, &golden_err));
    must(weft_image_bytes(image, u8.n, (int32_t)u8.shape[1], (int32_t)u8.shape[0], rgb, u8.n, &golden_err));
    for (size_t i = 0; i < u8.n; i++) off += fabs((double)rgb[i] - u8.v[i]) > 1.0;
    ck_assert_msg(off * 1000 <= u8.n, "%s: %zu of %zu values differ by more than 1", name, off, u8.n);
    free(image), free(rgb), free(u8.v);
}

static void check_picture(const set *s, json_t *c, weft_plan *plan, const char *name, int steps)
{
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_sampler_options so = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *sampler;
    weft_run *run;
    char what[256];
    golden x = golden_read(s->t, "%snoise", s->prefix), want = golden_read(s->t, "%s%s/latents", s->prefix, name);
    golden preds = { 0 };
    float *out = malloc(x.n * sizeof *out), *pooled[2] = { NULL, NULL };

    snprintf(what, sizeof what, "%s%s/preds", s->prefix, name);
    if (golden_has(s->t, what)) preds = golden_read(s->t, "%s", what);
    json_t *schedule = json_object_get(s->entry, "sampler");
    so.kind = WEFT_SAMPLER_DDIM;
    so.steps = steps;
    so.steps_offset = number(schedule, "steps_offset", 0);
    if (number(schedule, "set_alpha_to_one", 1)) so.flags |= WEFT_SAMPLER_ALPHA_TO_ONE;
    must(weft_sampler_create(&so, &sampler, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)x.shape[2];
    ro.width = (int32_t)x.shape[3];
    must(weft_run_create(plan, &ro, &run, &golden_err));
    bool each = strcmp(word(c, "text", ""), "each") == 0;
    size_t adapters = json_array_size(json_object_get(c, "adapters")), one = 77 * (size_t)s->text.dim;
    float *cond = each ? encode_each(s, run, c, word(s->entry, "prompt", ""))
                       : encode(s, run, c, "cond", word(s->entry, "prompt", ""), &pooled[0]);
    float *uncond = each ? encode_each(s, run, c, word(s->entry, "negative", ""))
                         : encode(s, run, c, "uncond", word(s->entry, "negative", ""), &pooled[1]);
    bool branched = strcmp(word(c, "method", ""), "switch") != 0;
    must(weft_sampler_begin(sampler, 0, x.n, &golden_err));
    for (int n = 0; n < steps; n++) {
        plain_step step = PLAIN_STEP_INIT;
        step.latent = x.v;
        step.out = out;
        step.latent_len = step.out_len = x.n;
        size_t skip = each && !branched ? acting(s, plan, n, adapters) * one : 0;
        if (each && branched) step.flags |= WEFT_STEP_TEXT_PER_BRANCH;
        step.text = cond + skip;
        step.negative = uncond + skip;
        step.text_len = step.negative_len = each && branched ? adapters * one : one;
        step.pooled = pooled[0];
        step.negative_pooled = pooled[1];
        step.pooled_len = step.negative_pooled_len = (size_t)s->text.pooled;
        step.timestep = weft_sampler_timestep(sampler, n);
        step.guidance = (float)real(c, "guidance", 1);
        step.call = n;
        must(plain_run_step(run, &step, &golden_err));
        if (preds.v != NULL) {
            snprintf(what, sizeof what, "%s%s/preds[%d]", s->prefix, name, n);
            near_golden(what, out, preds.v + (size_t)n * x.n, x.n, s->limit);
        }
        must(weft_sampler_step(sampler, n, out, x.v, x.n, NULL, &golden_err));
    }
    snprintf(what, sizeof what, "%s%s/latents", s->prefix, name);
    near_golden(what, x.v, want.v, x.n, s->limit);
    check_pixels(s, run, name, x.v, x.n);
    free(x.v), free(want.v), free(preds.v), free(out), free(cond), free(uncond), free(pooled[0]), free(pooled[1]);
    weft_sampler_free(sampler);
    weft_run_free(run);
}

/* SD1 and SDXL of compose.json; two pairs of adapters on the bundled model; curves and masks; orders,
 * texts of adapters, weights of patches and bands; blocks, B-LoRA
 * and ZipLoRA; K-LoRA of many, balanced weights. */
static const struct { const char *index, *file; size_t model; double limit; } groups[] = {
    { "compose.json", "compose.safetensors", 0, 1e-4 }, { "compose.json", "compose.safetensors", 1, 1e-4 },
    { "bundled.json", NULL, 0, 1e-4 }, { "bundled.json", NULL, 1, 1e-4 },
    { "weights.json", "weights.safetensors", 0, 1e-4 },
    { "branches.json", "branches.safetensors", 0, 1e-5 },
    { "blocks.json", "blocks.safetensors", 0, 1e-4 }, { "blocks.json", "blocks.safetensors", 1, 1e-4 },
    { "choices.json", "choices.safetensors", 0, 1e-4 },
};

START_TEST(every_method_is_its_restatement)
{
    bool bundled = groups[_i].file == NULL;
    json_t *index = golden_json(groups[_i].index);
    json_t *group = bundled ? json_object_get(index, "compose") : index;
    set s = { .t = golden_open(bundled ? word(group, "file", "") : groups[_i].file),
              .info = WEFT_MODEL_INFO_INIT, .bundled = bundled, .limit = groups[_i].limit };
    s.entry = json_array_get(json_object_get(group, "models"), groups[_i].model);
    ck_assert_ptr_nonnull(s.entry);
    s.prefix = word(s.entry, "prefix", "");
    must(weft_model_open(data_path("%s", word(s.entry, "model", "")), NULL, &s.model, &golden_err));
    must(weft_model_info_get(s.model, &s.info, &golden_err));
    s.text = plain_shape_of(s.model);
    json_t *cases = json_object_get(s.entry, "cases");
    ck_assert_uint_ge(json_array_size(cases), 5);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i);
        const char *name = word(c, "name", "");
        int steps = number(c, "steps", 20);
        weft_plan *plan = build(&s, c, steps);
        check_factors(c, plan, name);
        if (strcmp(word(c, "method", ""), "klora") == 0) check_choice(&s, c, plan, name, steps);
        if (json_object_get(c, "context") != NULL) check_picture(&s, c, plan, name, steps);
        weft_plan_free(plan);
    }
    weft_model_free(s.model);
    weft_tensors_free(s.t);
    json_decref(index);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("methods against goldens");
    TCase *c = tcase_create("goldens");
    tcase_set_timeout(c, 600);
    tcase_add_loop_test(c, every_method_is_its_restatement, 0, (int)WF_LEN(groups));
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
