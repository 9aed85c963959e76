/* Text streams: the arrays that encodes and steps take, what is refused in them, and that steps
 * know a denoiser by its facts only. For the last a denoiser is made here that reads what no model
 * of today does: a pooled vector first, then two sequences of other lengths. */
#include <stdbool.h>

#include "golden.h"
#include "model/model_internal.h"
#include "run/run_internal.h"

enum { H = 4, W = 6, PLANE = H * W, N = 4 * PLANE };

static weft_plan *plan_of(weft_model *m)
{
    weft_plan *plan;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 2, &golden_err));
    return plan;
}

typedef struct bench {
    weft_model   *model;
    weft_plan    *plan;
    weft_run     *run;
    weft_run_info info;
} bench;

static bench bench_of(const char *name, int32_t batch)
{
    bench b = { .info = WEFT_RUN_INFO_INIT };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.threads = 2, o.batch = batch, o.height = H, o.width = W, o.text_tokens = 2 * 77;
    must(weft_model_open(data_path("models/%s", name), NULL, &b.model, &golden_err));
    b.plan = plan_of(b.model);
    must(weft_run_create(b.plan, &o, &b.run, &golden_err));
    must(weft_run_info_get(b.run, &b.info, &golden_err));
    return b;
}

static void bench_free(bench *b)
{
    weft_run_free(b->run);
    weft_plan_free(b->plan);
    weft_model_free(b->model);
}

static void make_texts(const bench *b, int32_t chunks, weft_text text[4])
{
    for (int32_t i = 0; i < b->info.text_streams; i++) {
        text[i] = (weft_text)WEFT_TEXT_INIT;
        must(weft_run_text(b->run, i, chunks, &text[i], &golden_err));
        text[i].data = calloc(text[i].len, sizeof *text[i].data);
    }
}

static void free_texts(const bench *b, weft_text text[4])
{
    for (int32_t i = 0; i < b->info.text_streams; i++) free(text[i].data);
}

static weft_status encode(const bench *b, const char *prompt, const weft_text *text,
                          weft_encode *out)
{
    weft_encode e = WEFT_ENCODE_INIT;
    e.prompt = prompt;
    e.text = text;
    e.text_count = (size_t)b->info.text_streams;
    weft_status st = weft_run_encode(b->run, &e, &golden_err);
    if (out != NULL) *out = e;
    return st;
}

static weft_step step_of(const bench *b, const weft_text *text, const weft_text *negative,
                         const float *x, float *out)
{
    weft_step s = WEFT_STEP_INIT;
    s.latent = x, s.out = out;
    s.latent_len = s.out_len = b->info.latent_len;
    s.text = text, s.text_count = (size_t)b->info.text_streams;
    s.negative = negative, s.negative_count = negative != NULL ? s.text_count : 0;
    s.timestep = 500;
    s.guidance = 3;
    return s;
}

static void refused(weft_status st, const char *words)
{
    ck_assert_int_eq(st, WEFT_E_ARG);
    ck_assert_msg(strstr(golden_err.text, words) != NULL, "%s: wanted \"%s\"", golden_err.text,
                  words);
}

START_TEST(a_model_describes_its_streams)
{
    static const struct { const char *model; int32_t streams, width, cross_layers, pooled; } all[] =
        {
        { "tiny-sd1", 1, 24, 11, 0 }, { "tiny-sd2", 1, 20, 4, 0 }, { "tiny-sdxl", 2, 40, 17, 20 },
        { "tiny-refiner", 2, 20, 14, 12 },
    };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        bench b = bench_of(all[i].model, 1);
        weft_text_info info = WEFT_TEXT_INFO_INIT;
        ck_assert_int_eq(b.info.text_streams, all[i].streams);
        must(weft_model_text(b.model, 0, &info, &golden_err));
        ck_assert(info.kind == WEFT_TEXT_SEQUENCE && info.tokens == 77 &&
                  info.width == all[i].width);
        ck_assert_int_eq(info.cross_layers, all[i].cross_layers);
        ck_assert_str_eq(info.name, "sequence");
        if (all[i].streams == 2) {
            must(weft_model_text(b.model, 1, &info, &golden_err));
            ck_assert(info.kind == WEFT_TEXT_POOLED && info.tokens == 1 &&
                      info.width == all[i].pooled);
            ck_assert_int_eq(info.cross_layers, 0);
            ck_assert_str_eq(info.name, "pooled");
        }
        refused(weft_model_text(b.model, all[i].streams, &info, &golden_err), "text stream");
        refused(weft_model_text(b.model, -1, &info, &golden_err), "text stream");
        refused(weft_model_text(NULL, 0, &info, &golden_err), "model is NULL");
        bench_free(&b);
    }
}
END_TEST

/* Worked by hand: 3 latents of 4 x 6, a factor of 2; 9 channels read of which 4 are the
 * latents'. */
START_TEST(a_run_tells_every_length)
{
    bench b = bench_of("tiny-inpaint", 3);
    ck_assert(b.info.batch == 3 && b.info.height == H && b.info.width == W &&
              b.info.text_tokens == 154);
    ck_assert_uint_eq(b.info.latent_len, 3 * 4 * 24);
    ck_assert_uint_eq(b.info.extra_len, 3 * 5 * 24);
    ck_assert_uint_eq(b.info.image_len, 3 * 3 * 24 * 4);
    weft_text t = WEFT_TEXT_INIT;
    must(weft_run_text(b.run, 0, 2, &t, &golden_err));
    ck_assert(t.tokens == 154 && t.len == 154 * 16 && t.data == NULL && t.cross_layers == 0);
    t.cross_layers = 4;
    must(weft_run_text(b.run, 0, 1, &t, &golden_err));
    ck_assert(t.tokens == 77 && t.len == 4 * 77 * 16 && t.cross_layers == 4);
    refused(weft_run_text(b.run, 0, 3, &t, &golden_err), "room for 2");
    refused(weft_run_text(b.run, 0, 0, &t, &golden_err), "0 chunks");
    refused(weft_run_text(b.run, 1, 1, &t, &golden_err), "text stream 1");
    t.cross_layers = 5;
    refused(weft_run_text(b.run, 0, 1, &t, &golden_err), "wanted 0 or 4");
    bench_free(&b);

    b = bench_of("tiny-sdxl", 1);
    t = (weft_text)WEFT_TEXT_INIT;
    must(weft_run_text(b.run, 1, 2, &t, &golden_err)); /* pooled: one row, whatever the prompt's
                                                          length */
    ck_assert(t.tokens == 1 && t.len == 20);
    ck_assert_uint_eq(b.info.extra_len, 0);
    bench_free(&b);
}
END_TEST

/* A stream that is not wanted changes nothing of the other. */
START_TEST(streams_are_encoded_one_by_one_too)
{
    bench b = bench_of("tiny-sdxl", 1);
    weft_text both[4], one[4];
    weft_encode e, again;
    make_texts(&b, 1, both);
    make_texts(&b, 1, one);
    must(encode(&b, "a red cat", both, &e));
    ck_assert(e.prompt_tokens > 0 && e.stamp != 0);
    for (int32_t i = 0; i < 2; i++) {
        weft_text list[2] = { one[0], one[1] };
        list[1 - i].data = NULL;
        must(encode(&b, "a red cat", list, &again));
        ck_assert(again.stamp == e.stamp && again.prompt_tokens == e.prompt_tokens);
        ck_assert(memcmp(one[i].data, both[i].data, both[i].len * sizeof(float)) == 0);
    }
    weft_text none[2] = { one[0], one[1] };
    none[0].data = none[1].data = NULL;
    refused(encode(&b, "a", none, NULL), "data of every stream is NULL");
    none[0].data = one[0].data, none[0].len--;
    refused(encode(&b, "a", none, NULL), "encode.text[0].len is");
    none[0].len++, none[0].tokens = 78;
    refused(encode(&b, "a", none, NULL), "chunks of 77");
    none[0].tokens = 77, none[1].data = one[1].data, none[1].len = 21;
    refused(encode(&b, "a", none, NULL), "encode.text[1].len is 21, wanted 20");
    free_texts(&b, both);
    free_texts(&b, one);
    bench_free(&b);
}
END_TEST

START_TEST(ids_name_their_encoder)
{
    bench b = bench_of("tiny-sdxl", 1);
    weft_text text[4], want[4];
    weft_encode e = WEFT_ENCODE_INIT;
    int32_t ids[2][77], found[8];
    size_t n;
    make_texts(&b, 1, text);
    make_texts(&b, 1, want);
    must(encode(&b, "a red cat", want, NULL));
    weft_ids list[2] = { WEFT_IDS_INIT, WEFT_IDS_INIT };
    for (int i = 0; i < 2; i++) { /* the second before the first */
        const wf_text_encoder *t = &wf_model_networks(b.model)->encoder[1 - i];
        must(weft_model_tokenize(b.model, t->component, "a red cat", found, 8, &n, &golden_err));
        for (size_t k = 0; k < 77; k++)
            ids[i][k] = k == 0       ? wf_tokenizer_bos(t->tokenizer)
                        : k <= n     ? found[k - 1]
                        : k == n + 1 ? wf_tokenizer_eos(t->tokenizer)
                                     : wf_tokenizer_pad(t->tokenizer);
        list[i].component = t->component, list[i].ids = ids[i], list[i].len = 77;
    }
    e.text = text, e.text_count = 2;
    must(weft_run_encode_ids(b.run, list, 2, &e, &golden_err));
    for (int i = 0; i < 2; i++)
        ck_assert(memcmp(text[i].data, want[i].data, want[i].len * sizeof(float)) == 0);
    refused(weft_run_encode_ids(b.run, list, 1, &e, &golden_err), "none for text_encoder");
    refused(weft_run_encode_ids(b.run, NULL, 2, &e, &golden_err), "ids is NULL");
    list[1].component = WEFT_COMPONENT_TEXT_2;
    refused(weft_run_encode_ids(b.run, list, 2, &e, &golden_err), "text_encoder_2 is given twice");
    list[1].component = WEFT_COMPONENT_VAE;
    refused(weft_run_encode_ids(b.run, list, 2, &e, &golden_err), "not a text encoder");
    list[1].component = WEFT_COMPONENT_TEXT_1, list[1].len = 76;
    refused(weft_run_encode_ids(b.run, list, 2, &e, &golden_err), "len is 76, wanted 77");
    list[1].len = 77, ids[1][5] = -1;
    refused(weft_run_encode_ids(b.run, list, 2, &e, &golden_err), "id -1 at 5");
    free_texts(&b, text);
    free_texts(&b, want);
    bench_free(&b);
}
END_TEST

/* A pooled vector is that of the first EOS: no token sees those after it, so what stands behind the
 * first EOS cannot change the vector, whatever comes there, another EOS too. */
START_TEST(pooled_vectors_end_at_the_first_eos)
{
    bench b = bench_of("tiny-sdxl", 1);
    weft_text text[4];
    weft_encode e = WEFT_ENCODE_INIT;
    weft_ids list[2] = { WEFT_IDS_INIT, WEFT_IDS_INIT };
    int32_t ids[2][77];
    float before[20];

    make_texts(&b, 1, text);
    ck_assert_uint_eq(text[1].len, 20);
    for (int i = 0; i < 2; i++) {
        const wf_text_encoder *t = &wf_model_networks(b.model)->encoder[i];
        for (size_t k = 0; k < 77; k++) ids[i][k] = 3;
        ids[i][0] = wf_tokenizer_bos(t->tokenizer);
        ids[i][4] = ids[i][9] = wf_tokenizer_eos(t->tokenizer);
        list[i].component = t->component, list[i].ids = ids[i], list[i].len = 77;
    }
    e.text = text, e.text_count = 2;
    must(weft_run_encode_ids(b.run, list, 2, &e, &golden_err));
    memcpy(before, text[1].data, sizeof before);
    ids[0][6] = ids[1][6] = 5; /* between the two */
    must(weft_run_encode_ids(b.run, list, 2, &e, &golden_err));
    ck_assert_mem_eq(before, text[1].data, sizeof before);
    ids[0][2] = ids[1][2] = 5; /* before the first */
    must(weft_run_encode_ids(b.run, list, 2, &e, &golden_err));
    ck_assert_mem_ne(before, text[1].data, sizeof before);
    free_texts(&b, text);
    bench_free(&b);
}
END_TEST

START_TEST(wrong_streams_are_refused)
{
    bench b = bench_of("tiny-sdxl", 1);
    weft_text text[4], negative[4];
    float x[N] = { 1 }, out[N];
    make_texts(&b, 1, text);
    make_texts(&b, 1, negative);
    weft_step good = step_of(&b, text, negative, x, out), s = good;
    must(weft_run_step(b.run, &s, &golden_err));
    s.text_count = 1;
    refused(weft_run_step(b.run, &s, &golden_err),
            "step.text_count is 1, the model reads 2 text streams");
    s = good, s.negative_count = 3;
    refused(weft_run_step(b.run, &s, &golden_err), "step.negative_count is 3");
    s = good, s.text = NULL;
    refused(weft_run_step(b.run, &s, &golden_err), "step.text is NULL");
    const struct { weft_text bad; int32_t stream; const char *words; } cases[] = {
        { { 32, 0, NULL, text[0].len, 77, 0 }, 0, "step.text[0].data is NULL" },
        { { 32, 0, text[0].data, text[0].len - 1, 77, 0 }, 0, "step.text[0].len is" },
        { { 32, 0, text[0].data, text[0].len, 155, 0 }, 0, "room for 154" },
        { { 32, 0, text[0].data, text[0].len, -1, 0 }, 0, "tokens is -1" },
        { { 32, 0, text[0].data, text[0].len, 77, 3 }, 0, "wanted 0 or 17" },
        { { 40, 0, text[1].data, text[1].len, 1, 0 }, 1,
          "step.text[1].struct_size is 40, but the first has 32" },
        { { 32, 0, text[1].data, text[1].len, 2, 0 }, 1, "a pooled vector is one row" },
        { { 32, 0, text[1].data, text[1].len, 1, 17 }, 1, "cross_layers is 17, wanted 0" },
        { { 32, 0, text[1].data, 19, 1, 0 }, 1, "step.text[1].len is 19, wanted 20" },
    };
    ck_assert_uint_eq(sizeof(weft_text), 32);
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        weft_text list[2] = { text[0], text[1] };
        list[cases[i].stream] = cases[i].bad;
        s = good, s.text = list;
        refused(weft_run_step(b.run, &s, &golden_err), cases[i].words);
    }
    weft_text other[2] = { negative[0], negative[1] };
    other[0].tokens = 1, other[0].len = 40;
    s = good, s.negative = other;
    refused(weft_run_step(b.run, &s, &golden_err), "they must agree");
    text[0].flags = 1;
    ck_assert_int_eq(weft_run_step(b.run, &good, &golden_err), WEFT_E_UNSUPPORTED);
    free_texts(&b, text);
    free_texts(&b, negative);
    bench_free(&b);
}
END_TEST

/* What would be ignored is refused; 0 < w <= 1 is the conditional half. */
START_TEST(a_negative_needs_guidance)
{
    bench b = bench_of("tiny-sd1", 1);
    weft_text text[4], negative[4];
    float x[N] = { 1, -1 }, alone[N], out[N];
    make_texts(&b, 1, text);
    make_texts(&b, 1, negative);
    must(encode(&b, "a cat", text, NULL));
    weft_step s = step_of(&b, text, NULL, x, alone);
    s.guidance = 0;
    must(weft_run_step(b.run, &s, &golden_err));
    s = step_of(&b, text, negative, x, out);
    s.guidance = 0;
    refused(weft_run_step(b.run, &s, &golden_err),
            "step.negative is given, but step.guidance is not above 0");
    s.guidance = -2;
    refused(weft_run_step(b.run, &s, &golden_err), "not above 0");
    for (int i = 1; i <= 2; i++) {
        s.guidance = (float)i / 2;
        must(weft_run_step(b.run, &s, &golden_err));
        ck_assert(memcmp(out, alone, sizeof out) == 0);
    }
    free_texts(&b, text);
    free_texts(&b, negative);
    bench_free(&b);
}
END_TEST

/* step.out may be the buffer of step.latent: with guidance or not, in one evaluation or two, for a
 * batch. */
START_TEST(a_step_may_write_over_its_latents)
{
    bench b = bench_of("tiny-sd1", 2);
    weft_text text[4], negative[4];
    float x[2 * N], out[2 * N], both[2 * N];
    weft_noise *noise;
    make_texts(&b, 1, text);
    make_texts(&b, 1, negative);
    must(encode(&b, "a cat", text, NULL));
    must(weft_noise_create(5, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, 2 * N, &golden_err));
    weft_noise_free(noise);
    for (uint32_t i = 0; i < 3; i++) {
        weft_step s = step_of(&b, text, i == 0 ? NULL : negative, x, out);
        s.guidance_rescale = i == 0 ? 0 : 0.7f;
        s.flags = i == 2 ? WEFT_STEP_SPLIT_GUIDANCE : 0;
        must(weft_run_step(b.run, &s, &golden_err));
        memcpy(both, x, sizeof x);
        s.latent = s.out = both;
        must(weft_run_step(b.run, &s, &golden_err));
        ck_assert(memcmp(both, out, sizeof out) == 0 && memcmp(both, x, sizeof x) != 0);
    }
    free_texts(&b, text);
    free_texts(&b, negative);
    bench_free(&b);
}
END_TEST

START_TEST(components_have_names)
{
    ck_assert_str_eq(weft_component_name(WEFT_COMPONENT_DENOISER), "unet");
    ck_assert_str_eq(weft_component_name(WEFT_COMPONENT_TEXT_1), "text_encoder");
    ck_assert_str_eq(weft_component_name(WEFT_COMPONENT_TEXT_2), "text_encoder_2");
    ck_assert_str_eq(weft_component_name(WEFT_COMPONENT_TEXT_3), "text_encoder_3");
    ck_assert_str_eq(weft_component_name(WEFT_COMPONENT_VAE), "vae");
    ck_assert(weft_component_name(-1) == NULL && weft_component_name(5) == NULL);
}
END_TEST

/* ---- another denoiser ------------------------------------------------------------------------ */

enum { POOLED, LONG, SHORT, STREAMS };

/* out = latent + (sum over streams of 10^k times the first float of its text) + time id + guidance:
 * all of them small whole numbers, so that every sum is exact. Text of a stream with cross_layers
 * counts the last layer's. */
static void sums_forward(const wf_denoiser *d, wf_exec *e, float *out, const wf_denoise_input *in)
{
    size_t plane = (size_t)in->grid.h * (size_t)in->grid.w;
    for (size_t s = 0; s < (size_t)in->grid.n && !e->dry; s++) {
        float sum = in->time_ids[s] + in->guidance[s], scale = 1;
        for (int32_t k = 0; k < d->facts.streams; k++, scale *= 10) {
            const wf_text_input *t = &in->text[k];
            size_t layer = (size_t)WF_MAX(t->cross_layers - 1, 0);
            sum += scale * t->rows[s][layer * (size_t)t->tokens * (size_t)d->facts.stream[k].width];
        }
        for (size_t i = 0; i < 2 * plane; i++)
            out[s * 2 * plane + i] = in->latent[s * 2 * plane + i] + sum;
    }
}

static const wf_denoiser_ops sums_ops = { .class_name = "sums", .forward = sums_forward };

/* A model whose denoiser is another, until it is put back. */
static wf_denoiser *replace(weft_model *m, wf_denoiser *d)
{
    wf_networks *n = &m->networks;
    wf_denoiser *before = n->denoiser;
    n->denoiser = d;
    n->streams = d->facts.streams;
    for (int32_t i = 0; i < n->streams; i++)
        n->stream[i] = (wf_stream){ .facts = &d->facts.stream[i],
                                    .tokens = i == LONG ? 5 : i == SHORT ? 3 : 1 };
    return before;
}

/* A latent's first value in the batch's sample i, after a step on zero latents. */
static float value(const float *out, int i) { return out[i * 2 * PLANE]; }

START_TEST(steps_know_a_denoiser_by_its_facts)
{
    wf_denoiser sums = {
        .ops = &sums_ops,
        .facts = { .in_channels = 2, .out_channels = 2, .multiple = 2, .sample_size = 4,
                   .streams = STREAMS, .time_ids = 1, .guidance = true,
                   .stream = { { WEFT_TEXT_POOLED, 7, 0 }, { WEFT_TEXT_SEQUENCE, 4, 0 },
                               { WEFT_TEXT_SEQUENCE, 2, 3 } } },
    };
    float pooled[2 * 7] = { 1 }, longer[2 * 5 * 4] = { 2 }, shorter[2 * 3 * 3 * 2] = { 3 },
        layers[3 * 3 * 2] = { 0 };
    float no_pooled[7] = { 4 }, no_longer[20] = { 5 }, no_shorter[6] = { 6 };
    float x[2 * 2 * PLANE] = { 0 }, out[2 * 2 * PLANE], ids[1] = { 8 };
    weft_model *model;
    weft_run *run;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    weft_plan *plan = plan_of(model);
    wf_denoiser *unet = replace(model, &sums);

    o.threads = 1, o.batch = 2, o.height = H, o.width = W;
    o.height = 3;
    refused(weft_run_create(plan, &o, &run, &golden_err), "wanted multiples of 2");
    o.height = H;
    must(weft_run_create(plan, &o, &run, &golden_err));
    must(weft_run_info_get(run, &info, &golden_err));
    ck_assert(info.text_streams == STREAMS && info.latent_len == 2 * 2 * PLANE &&
              info.text_tokens == 20);

    weft_text text[STREAMS] = { { sizeof *text, 0, pooled, 7, 0, 0 },
                                { sizeof *text, 0, longer, 20, 0, 0 },
                                { sizeof *text, 0, shorter, 6, 0, 0 } };
    weft_text negative[STREAMS] = { { sizeof *text, 0, no_pooled, 7, 0, 0 },
                                    { sizeof *text, 0, no_longer, 20, 0, 0 },
                                    { sizeof *text, 0, no_shorter, 6, 0, 0 } };
    weft_step s = WEFT_STEP_INIT;
    s.latent = x, s.out = out, s.latent_len = s.out_len = info.latent_len;
    s.text = text, s.text_count = STREAMS;
    s.time_ids = ids, s.time_ids_len = 1;
    s.guidance_embed = 16;
    must(weft_run_step(run, &s, &golden_err)); /* 8 + 16 + 1 + 20 + 300 */
    ck_assert(value(out, 0) == 345 && value(out, 1) == 345);

    s.negative = negative, s.negative_count = STREAMS, s.guidance = 2;
    for (int split = 0; split < 2; split++) { /* u = 24 + 654, c = 345: u + 2 (c - u) */
        s.flags = split ? WEFT_STEP_SPLIT_GUIDANCE : 0;
        must(weft_run_step(run, &s, &golden_err));
        ck_assert(value(out, 0) == 678 + 2 * (345 - 678) && value(out, 1) == value(out, 0));
    }
    s.negative = NULL, s.negative_count = 0, s.flags = 0;

    pooled[7] = 9, text[POOLED].len = 14; /* a pooled vector for each sample, the sequences for
                                             both */
    must(weft_run_step(run, &s, &golden_err));
    ck_assert(value(out, 0) == 345 && value(out, 1) == 353);
    shorter[6] = 7, text[SHORT].len = 12;
    must(weft_run_step(run, &s, &golden_err));
    ck_assert(value(out, 0) == 345 && value(out, 1) == 753);

    layers[2 * 3 * 2] = 5; /* one text for each of three layers, the same for both samples */
    text[SHORT] = (weft_text){ sizeof *text, 0, layers, 18, 3, 3 };
    must(weft_run_step(run, &s, &golden_err));
    ck_assert(value(out, 0) == 545 && value(out, 1) == 553);

    text[LONG].cross_layers = 3;
    refused(weft_run_step(run, &s, &golden_err), "step.text[1].cross_layers is 3, wanted 0");
    weft_run_free(run);
    weft_plan_free(plan);
    (void)replace(model, unet);
    must(wf_make_streams(&model->networks, "the model", &golden_err));
    weft_model_free(model);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("text streams");
    TCase *c = tcase_create("streams");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, a_model_describes_its_streams);
    tcase_add_test(c, a_run_tells_every_length);
    tcase_add_test(c, streams_are_encoded_one_by_one_too);
    tcase_add_test(c, ids_name_their_encoder);
    tcase_add_test(c, pooled_vectors_end_at_the_first_eos);
    tcase_add_test(c, wrong_streams_are_refused);
    tcase_add_test(c, a_negative_needs_guidance);
    tcase_add_test(c, a_step_may_write_over_its_latents);
    tcase_add_test(c, components_have_names);
    tcase_add_test(c, steps_know_a_denoiser_by_its_facts);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
