/* layouts.h - what the tests of layouts share: comparing two models bit for bit, and writing a model's file again
 * with its tensors renamed, changed or left out. */
#ifndef TEST_LAYOUTS_H
#define TEST_LAYOUTS_H

#include <stdbool.h>
#include <unistd.h>

#include "base/support.h"
#include "golden.h"
#include "plain.h"
#include "model/networks.h"
#include "plan/plan.h"

static char scratch[256]; /* a folder of this test's own */

static inline void shell(const char *format, const char *a, const char *b)
{
    char line[2600];
    snprintf(line, sizeof line, format, a, b);
    ck_assert_msg(system(line) == 0, "%s", line);
}

static inline void make_scratch(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/weft-layouts-XXXXXX", tmp != NULL ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(scratch));
}

static inline void remove_scratch(void) { shell("rm -rf '%s'%s", scratch, ""); }

static inline const char *in_scratch(const char *file)
{
    static char path[8][512];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", scratch, file);
    return p;
}

static inline weft_model *opened(const char *path, const weft_model_options *o)
{
    weft_model *m;
    must(weft_model_open(path, o, &m, &golden_err));
    return m;
}

static inline weft_model_options described_by(const char *folder)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    o.config = folder;
    return o;
}

/* It is refused with this status and these words, and nothing is left behind. */
static inline void refused(const char *path, const weft_model_options *given, weft_status status, const char *word,
                    const char *word2)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    test_memory memory;
    weft_allocator alloc = test_allocator(&memory);
    weft_model *m = (weft_model *)&memory;
    weft_error err = { 0, 0, "" };

    if (given != NULL) o = *given;
    o.allocator = &alloc;
    weft_status st = weft_model_open(path, &o, &m, &err);
    ck_assert_msg(st == status, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(status), err.text);
    ck_assert_ptr_null(m);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, word) != NULL && (word2 == NULL || strstr(err.text, word2) != NULL),
                  "\"%s\" and \"%s\" are not in: %s", word, word2 != NULL ? word2 : "", err.text);
    ck_assert_uint_eq(memory.live_blocks, 0);
}

/* ---- comparing ------------------------------------------------------------------------------------------- */

static inline weft_model_info info_of(const weft_model *m)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_info_get(m, &info, &golden_err));
    return info;
}

/* The same layers in the same order with the same bits. */
static inline void same_layers(const weft_model *a, const weft_model *b)
{
    size_t n, count;
    const wf_layer *x = wf_model_layers(a, &n), *y = wf_model_layers(b, &count);
    ck_assert_uint_eq(n, count);
    for (size_t i = 0; i < n; i++) {
        size_t size = (size_t)x[i].out * (size_t)x[i].in * (size_t)x[i].kernel * (size_t)x[i].kernel *
                      (size_t)wf_dtype_bits(x[i].dtype) / 8;
        ck_assert_str_eq(x[i].name, y[i].name);
        ck_assert(x[i].kind == y[i].kind && x[i].out == y[i].out && x[i].in == y[i].in && x[i].dtype == y[i].dtype);
        ck_assert(x[i].kernel == y[i].kernel && x[i].stride == y[i].stride && x[i].component == y[i].component);
        ck_assert_msg(memcmp(x[i].weight, y[i].weight, size) == 0, "%s differs", x[i].name);
        ck_assert((x[i].bias == NULL) == (y[i].bias == NULL));
        if (x[i].bias != NULL) ck_assert_mem_eq(x[i].bias, y[i].bias, (size_t)x[i].out * sizeof(float));
    }
}

/* One step of a sealed plan on noise, with the conditioning that a prompt gives where there is a tokenizer, else noise
 * too. */
static inline float *predict_with(weft_plan *plan, size_t *n)
{
    enum { SIDE = 8 };
    weft_model_info info = info_of(wf_plan_model(plan));
    plain_shape shape = plain_shape_of(wf_plan_model(plan));
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_step s = PLAIN_STEP_INIT;
    weft_noise *noise;
    weft_run *run;
    size_t plane = SIDE * SIDE, extra = (size_t)(info.input_channels - info.latent_channels);
    *n = (size_t)info.latent_channels * plane;
    size_t text = (size_t)shape.tokens * (size_t)shape.dim;
    float *all = calloc(2 * *n + extra * plane + text + (size_t)shape.pooled, sizeof *all), *out = all;
    float *latent = out + *n, *more = latent + *n, *cond = more + extra * plane, *pooled = cond + text;

    ro.height = ro.width = SIDE;
    ro.threads = 1;
    must(weft_run_create(plan, &ro, &run, &golden_err));
    must(weft_noise_create(3, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, *n, &golden_err));
    if (extra > 0) must(weft_noise_normal(noise, more, extra * plane, &golden_err));
    must(weft_noise_normal(noise, cond, text, &golden_err));
    if (shape.pooled > 0) must(weft_noise_normal(noise, pooled, (size_t)shape.pooled, &golden_err));
    if (info.has_tokenizer) {
        plain_encode e = PLAIN_ENCODE_INIT;
        e.prompt = "a photo of a cat";
        e.text = cond, e.text_len = text;
        if (shape.pooled > 0) e.pooled = pooled, e.pooled_len = (size_t)shape.pooled;
        must(plain_run_encode(run, &e, &golden_err));
    }
    s.latent = latent, s.latent_len = *n;
    s.out = out, s.out_len = *n;
    s.text = cond, s.text_len = text;
    if (shape.pooled > 0) s.pooled = pooled, s.pooled_len = (size_t)shape.pooled;
    if (extra > 0) s.extra = more, s.extra_len = extra * plane;
    if (info.guidance_embed) s.guidance_embed = 7.5f;
    s.timestep = 500;
    must(plain_run_step(run, &s, &golden_err));
    weft_noise_free(noise);
    weft_run_free(run);
    return all;
}

static inline float *predict(weft_model *m, size_t *n)
{
    weft_plan *plan;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    float *out = predict_with(plan, n);
    weft_plan_free(plan);
    return out;
}

static inline void same_prediction(weft_model *a, weft_model *b)
{
    size_t n, count;
    float *x = predict(a, &n), *y = predict(b, &count);
    ck_assert_uint_eq(n, count);
    ck_assert_mem_eq(x, y, n * sizeof *x);
    free(x);
    free(y);
}

/* Two ways to the same model; `a` is the folder. */
static inline void same_model(weft_model *a, weft_model *b)
{
    weft_model_info x = info_of(a), y = info_of(b);
    weft_sampler_options s = WEFT_SAMPLER_OPTIONS_INIT, t = WEFT_SAMPLER_OPTIONS_INIT;
    same_layers(a, b);
    ck_assert(x.base == y.base && x.latent_channels == y.latent_channels && x.latent_size == y.latent_size);
    plain_shape p = plain_shape_of(a), q = plain_shape_of(b);
    ck_assert(x.text_encoders == y.text_encoders && x.text_streams == y.text_streams);
    ck_assert(p.dim == q.dim && p.tokens == q.tokens && p.layers == q.layers && p.pooled == q.pooled);
    ck_assert(x.time_ids == y.time_ids && x.has_vae == y.has_vae);
    ck_assert(x.parameters == y.parameters && x.layers == y.layers && x.vae_scale == y.vae_scale);
    ck_assert(x.prediction == y.prediction && x.input_channels == y.input_channels);
    ck_assert(x.zero_negative == y.zero_negative && x.guidance_embed == y.guidance_embed);
    ck_assert_int_eq(x.has_tokenizer, y.has_tokenizer);
    must(weft_sampler_options_from_model(a, &s, &golden_err));
    must(weft_sampler_options_from_model(b, &t, &golden_err));
    ck_assert_mem_eq(&s, &t, sizeof s);
    same_prediction(a, b);
}

/* ---- writing a file again ----------------------------------------------------------------------------------- */

/* The name that a tensor gets, in buf or as it is; NULL to leave it out. */
typedef const char *(*naming)(const char *name, char *buf, size_t cap);
/* Change n bytes of a tensor's data. */
typedef void (*changing)(const wf_tensor *t, uint8_t *data);

static inline void rewrite(const char *from, const char *to, naming name_of, changing change)
{
    weft_allocator alloc = wf_allocator(NULL);
    weft_tensors *file;
    must(wf_tensors_open(from, false, &alloc, &file, &golden_err));
    size_t count = wf_tensors_count(file), n = 0;
    wf_tensor *list = calloc(count, sizeof *list);
    char (*names)[256] = calloc(count, sizeof *names);
    uint8_t **data = calloc(count, sizeof *data);
    for (size_t i = 0; i < count; i++) {
        list[n] = *wf_tensors_at(file, i);
        if (name_of != NULL) list[n].name = name_of(list[n].name, names[n], sizeof names[n]);
        if (list[n].name == NULL) continue;
        if (change != NULL) {
            data[n] = malloc(list[n].bytes + 1);
            memcpy(data[n], list[n].data, list[n].bytes);
            change(&list[n], data[n]);
            list[n].data = data[n];
        }
        n++;
    }
    must(wf_tensors_write_as_stored(to, list, n, NULL, 0, &alloc, &golden_err));
    for (size_t i = 0; i < n; i++) free(data[i]);
    free(data), free(names), free(list);
    weft_tensors_free(file);
}

#endif
