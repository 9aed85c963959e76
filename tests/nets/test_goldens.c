/* The three tiny models and the bundled one against diffusers and transformers, through the public interface.
 * Relative error (max|a-b| / max|b|) under 1e-5 everywhere; tests/reference/make_nets.py and make_bundled.py made
 * the references. */
#include <stdbool.h>

#include "golden.h"
#include "plain.h"

typedef struct set {
    json_t       *index; /* the whole file                         */
    json_t       *entry; /* {"file", "prompts", "cases"}           */
    weft_tensors *t;
    const char   *name;
    const char   *path;  /* of the model, below tests/data         */
    bool          xl;
} set;

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    ck_assert_msg(v != NULL, "the index has no %s", key);
    return v;
}

/* 0 to 2: the tiny models; 3: the bundled one. */
static set open_set(int i)
{
    static const char *const names[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl", "bundled" };
    set s = { .name = names[i], .xl = i == 2 };
    if (i == 3) {
        s.index = golden_json("bundled.json");
        s.entry = json_object_get(s.index, "nets");
        s.path = word(s.index, "model");
    } else {
        s.index = golden_json("nets.json");
        json_t *list = json_object_get(s.index, "models");
        for (size_t m = 0; m < json_array_size(list); m++)
            if (strcmp(word(json_array_get(list, m), "name"), names[i]) == 0) s.entry = json_array_get(list, m);
        s.path = word(s.entry, "path");
    }
    s.t = golden_open(word(s.entry, "file"));
    return s;
}

static void close_set(set *s)
{
    weft_tensors_free(s->t);
    json_decref(s->index);
}

static weft_run *open_run(const set *s, int32_t height, int32_t width, int32_t tokens)
{
    weft_model *model;
    weft_plan *plan;
    weft_run *run;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    must(weft_model_open(data_path("%s", s->path), NULL, &model, &golden_err));
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.threads = 2;
    o.height = height;
    o.width = width;
    o.text_tokens = tokens;
    must(weft_run_create(plan, &o, &run, &golden_err));
    weft_plan_free(plan);
    weft_model_free(model);
    return run;
}

/* One sample at a time: the batch's samples may have timesteps of their own. */
static void check_unet(const set *set, const char *c)
{
    const weft_tensors *t = set->t;
    golden x = golden_read(t, "unet/%s/sample", c), ts = golden_read(t, "unet/%s/timestep", c);
    golden text = golden_read(t, "unet/%s/context", c), want = golden_read(t, "unet/%s/out", c);
    golden pooled = { 0 }, ids = { 0 };
    char what[128];
    bool xl = set->xl;
    size_t n = (size_t)x.shape[0], one = x.n / n;
    float *out = malloc(one * sizeof *out);
    if (xl) {
        pooled = golden_read(t, "unet/%s/text_embeds", c);
        ids = golden_read(t, "unet/%s/time_ids", c);
    }
    weft_run *run = open_run(set, (int32_t)x.shape[2], (int32_t)x.shape[3], (int32_t)text.shape[1]);
    for (size_t s = 0; s < n; s++) {
        plain_step step = PLAIN_STEP_INIT;
        step.latent = x.v + s * one;
        step.latent_len = one;
        step.out = out;
        step.out_len = one;
        step.text = text.v + s * text.n / n;
        step.text_len = text.n / n;
        step.tokens = (int32_t)text.shape[1];
        step.timestep = ts.v[ts.n > 1 ? s : 0];
        if (xl) {
            step.pooled = pooled.v + s * pooled.n / n;
            step.pooled_len = pooled.n / n;
            step.time_ids = ids.v + s * ids.n / n;
            step.time_ids_len = ids.n / n;
        }
        must(plain_run_step(run, &step, &golden_err));
        snprintf(what, sizeof what, "%s unet/%s[%zu]", set->name, c, s);
        near_golden(what, out, want.v + s * one, one, 1e-5);
    }
    weft_run_free(run);
    free(out), free(x.v), free(ts.v), free(text.v), free(want.v), free(pooled.v), free(ids.v);
}

static void check_decode(const set *set, const char *c)
{
    const weft_tensors *t = set->t;
    golden z = golden_read(t, "vae/%s/latent", c), want = golden_read(t, "vae/%s/image", c);
    char what[128];
    size_t n = (size_t)z.shape[0];
    float *image = malloc(want.n * sizeof *image);
    weft_run *run = open_run(set, (int32_t)z.shape[2], (int32_t)z.shape[3], 0);
    for (size_t i = 0; i < want.n; i++) { /* weft gives pictures in 0..1 */
        float y = want.v[i] * 0.5f + 0.5f;
        want.v[i] = y < 0 ? 0 : y > 1 ? 1 : y;
    }
    for (size_t s = 0; s < n; s++) {
        must(weft_run_decode(run, z.v + s * z.n / n, z.n / n, image + s * want.n / n, want.n / n, &golden_err));
        snprintf(what, sizeof what, "%s vae/%s[%zu]", set->name, c, s);
        near_golden(what, image + s * want.n / n, want.v + s * want.n / n, want.n / n, 1e-5);
    }
    weft_run_free(run);
    free(image), free(z.v), free(want.v);
}

/* The latents of a picture: the mean where no noise is given. */
static void check_encode(const set *set, const char *c)
{
    const weft_tensors *t = set->t;
    golden image = golden_read(t, "vae/%s/image", c), mean = golden_read(t, "vae/%s/mean", c);
    char what[128];
    size_t n = (size_t)mean.shape[0], one = mean.n / n, picture = image.n / n;
    float *latent = malloc(one * sizeof *latent);
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_model *model;
    must(weft_model_open(data_path("%s", set->path), NULL, &model, &golden_err));
    must(weft_model_info_get(model, &info, &golden_err));
    weft_run *run = open_run(set, (int32_t)mean.shape[2], (int32_t)mean.shape[3], 0);
    for (size_t i = 0; i < image.n; i++) image.v[i] = image.v[i] * 0.5f + 0.5f;
    for (size_t i = 0; i < mean.n; i++) mean.v[i] *= info.vae_scale;
    for (size_t s = 0; s < n; s++) {
        must(weft_run_encode_image(run, image.v + s * picture, picture, NULL, 0, latent, one, &golden_err));
        snprintf(what, sizeof what, "%s vae/%s[%zu]", set->name, c, s);
        near_golden(what, latent, mean.v + s * one, one, 1e-5);
    }
    weft_run_free(run);
    weft_model_free(model);
    free(latent), free(image.v), free(mean.v);
}

START_TEST(every_unet_case_is_diffusers)
{
    set s = open_set(_i);
    json_t *cases = json_object_get(s.entry, "cases");
    int unets = 0, decodes = 0, encodes = 0;
    for (size_t c = 0; c < json_array_size(cases); c++) {
        json_t *item = json_array_get(cases, c);
        if (strcmp(word(item, "net"), "unet") == 0) check_unet(&s, word(item, "name")), unets++;
        if (strcmp(word(item, "net"), "vae_decode") == 0) check_decode(&s, word(item, "name")), decodes++;
        if (strcmp(word(item, "net"), "vae_encode") == 0) check_encode(&s, word(item, "name")), encodes++;
    }
    ck_assert_int_ge(unets, 3);
    ck_assert_int_ge(decodes, 2);
    ck_assert_int_ge(encodes, 1);
    close_set(&s);
}
END_TEST

START_TEST(every_prompt_is_transformers)
{
    char what[128];
    set s = open_set(_i);
    bool xl = s.xl;
    golden ids = golden_read(s.t, "te/ids"), want = golden_read(s.t, xl ? "ctx" : "te/last"), ids2 = { 0 };
    golden pooled = { 0 };
    size_t prompts = (size_t)ids.shape[0], width = want.n / prompts;
    weft_run *run = open_run(&s, 8, 8, 0);
    float *text = malloc(width * sizeof *text), *vector = NULL;
    if (xl) {
        ids2 = golden_read(s.t, "te2/ids");
        pooled = golden_read(s.t, "te2/text_embeds");
        vector = malloc(pooled.n / prompts * sizeof *vector);
    }
    for (size_t p = 0; p < prompts; p++) {
        int32_t a[77], b[77];
        plain_encode e = PLAIN_ENCODE_INIT;
        for (int i = 0; i < 77; i++) {
            a[i] = (int32_t)ids.v[p * 77 + (size_t)i];
            b[i] = xl ? (int32_t)ids2.v[p * 77 + (size_t)i] : 0;
        }
        e.text = text;
        e.text_len = width;
        e.pooled = vector;
        e.pooled_len = xl ? pooled.n / prompts : 0;
        must(plain_run_encode_ids(run, a, xl ? b : NULL, 77, &e, &golden_err));
        snprintf(what, sizeof what, "%s prompt %zu", s.name, p);
        near_golden(what, text, want.v + p * width, width, 1e-5);
        if (xl) near_golden("pooled", vector, pooled.v + p * e.pooled_len, e.pooled_len, 1e-5);
    }
    weft_run_free(run);
    close_set(&s);
    free(text), free(vector), free(ids.v), free(ids2.v), free(want.v), free(pooled.v);
}
END_TEST

/* The same texts through our own tokenizer: as a pipeline feeds them, cut at 75. */
START_TEST(prompts_as_text_give_the_same)
{
    char what[128];
    set s = open_set(_i);
    json_t *prompts = json_object_get(s.entry, "prompts");
    golden want = golden_read(s.t, s.xl ? "ctx" : "te/last");
    size_t count = json_array_size(prompts), width = want.n / count;
    weft_run *run = open_run(&s, 8, 8, 0);
    float *text = malloc(width * sizeof *text);
    ck_assert_uint_ge(count, 3);
    for (size_t p = 0; p < count; p++) {
        plain_encode e = PLAIN_ENCODE_INIT;
        e.prompt = json_string_value(json_array_get(prompts, p));
        e.flags = WEFT_ENCODE_TRUNCATE;
        e.text = text;
        e.text_len = width;
        must(plain_run_encode(run, &e, &golden_err));
        snprintf(what, sizeof what, "%s text %zu (%d tokens, %d dropped)", s.name, p, e.tokens, e.dropped);
        near_golden(what, text, want.v + p * width, width, 1e-5);
    }
    weft_run_free(run);
    close_set(&s);
    free(text), free(want.v);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("nets against goldens");
    TCase *c = tcase_create("goldens");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, every_unet_case_is_diffusers, 0, 4);
    tcase_add_loop_test(c, every_prompt_is_transformers, 0, 4);
    tcase_add_loop_test(c, prompts_as_text_give_the_same, 0, 4);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
