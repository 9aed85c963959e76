/* work.c - a model at work: a plan's run with the inputs of a guided step, the same for all that have its shapes. */
#include "suite.h"

static weft_error err;

weft_model *open_model(const char *path, bool bf16)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model        *model;

    o.arithmetic = bf16 ? WEFT_ARITHMETIC_BF16 : WEFT_ARITHMETIC_F32;
    must(weft_model_open(path, &o, &model, &err), &err);
    return model;
}

weft_plan *plan_of(weft_model *model, weft_adapter *const *adapter, int count, int32_t path, int32_t calls)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *plan;

    o.path = path;
    must(weft_plan_create(model, &o, &plan, &err), &err);
    for (int i = 0; i < count; i++) must(weft_plan_add(plan, adapter[i], 0.8f, NULL, &err), &err);
    if (calls > 0) must(weft_plan_seal(plan, calls, &err), &err);
    return plan;
}

float *noise_of(size_t n, uint64_t seed)
{
    weft_noise *noise;
    float      *v = malloc(n * sizeof *v);

    if (v == NULL) die("out of memory");
    must(weft_noise_create(seed, NULL, &noise, &err), &err);
    must(weft_noise_normal(noise, v, n, &err), &err);
    weft_noise_free(noise);
    return v;
}

double apart(const float *a, const float *b, size_t n)
{
    double most = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        top = fmax(top, fabs((double)b[i]));
    }
    return most / top;
}

void side_open(side *s, weft_model *model, weft_plan *plan, int32_t size, int32_t threads, int32_t tile)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_text_info   sequence = WEFT_TEXT_INFO_INIT;

    *s = (side){ .model = model, .plan = plan, .about = WEFT_MODEL_INFO_INIT, .info = WEFT_RUN_INFO_INIT };
    must(weft_model_info_get(model, &s->about, &err), &err);
    must(weft_model_text(model, 0, &sequence, &err), &err);
    o.threads = threads;
    o.tile = tile;
    o.height = o.width = size / s->about.image_factor;
    o.text_tokens = s->text_tokens = sequence.tokens;
    must(weft_run_create(plan, &o, &s->run, &err), &err);
    must(weft_run_info_get(s->run, &s->info, &err), &err);
    for (int32_t i = 0; i < 2 * s->about.text_streams; i++) {
        weft_text *one = &s->text[i % 2][i / 2];
        *one = (weft_text)WEFT_TEXT_INIT;
        must(weft_run_text(s->run, i / 2, 1, one, &err), &err);
        one->data = noise_of(one->len, 2 + (uint64_t)i);
    }
    s->latent = noise_of(s->info.latent_len, 1);
    s->out = calloc(s->info.latent_len, sizeof *s->out);
    s->image = calloc(s->info.image_len + 1, sizeof *s->image);
    if (s->out == NULL || s->image == NULL) die("out of memory");
    s->step = (weft_step)WEFT_STEP_INIT;
    s->step.latent = s->latent;
    s->step.out = s->out;
    s->step.latent_len = s->step.out_len = s->info.latent_len;
    s->step.text = s->text[0];
    s->step.negative = s->text[1];
    s->step.text_count = s->step.negative_count = (size_t)s->about.text_streams;
    s->step.timestep = 500;
    s->step.guidance = 7.5f;
}

void side_close(side *s)
{
    for (int32_t i = 0; i < 2 * s->about.text_streams; i++) free(s->text[i % 2][i / 2].data);
    free(s->latent);
    free(s->out);
    free(s->image);
    weft_run_free(s->run);
    weft_plan_free(s->plan);
}

span side_steps(side *s, int steps)
{
    span begin = span_now();
    for (int i = 0; i < steps; i++) must(weft_run_step(s->run, &s->step, &err), &err);
    span t = span_since(begin);
    return (span){ t.clock / steps, t.busy / steps };
}

span side_decode(side *s)
{
    span begin = span_now();
    must(weft_run_decode(s->run, s->latent, s->info.latent_len, s->image, s->info.image_len, &err), &err);
    return span_since(begin);
}

void token_ids(int32_t ids[77], int which)
{
    enum { BOS = 49406, EOS = 49407, WORDS = 12 };
    for (int i = 0; i < 77; i++) ids[i] = i == 0 ? BOS : i <= WORDS && which == 0 ? 320 + 1531 * i : EOS;
}

span side_encode(side *s)
{
    static const char *const prompts[2] = { "a red circle on a blue background", "" };
    span begin = span_now();

    for (int i = 0; i < 2; i++) {
        weft_encode e = WEFT_ENCODE_INIT;
        e.prompt = prompts[i];
        e.text = s->text[i];
        e.text_count = (size_t)s->about.text_streams;
        weft_status st = weft_run_encode(s->run, &e, &err);
        if (st == WEFT_E_STATE) { /* a model without a tokenizer */
            int32_t  number[77];
            weft_ids ids[2] = { WEFT_IDS_INIT, WEFT_IDS_INIT };
            token_ids(number, i);
            for (int k = 0; k < 2; k++) {
                ids[k].ids = number;
                ids[k].len = 77;
                ids[k].component = k == 0 ? WEFT_COMPONENT_TEXT_1 : WEFT_COMPONENT_TEXT_2;
            }
            st = weft_run_encode_ids(s->run, ids, s->about.text_streams > 1 ? 2 : 1, &e, &err);
        }
        must(st, &err);
    }
    return span_since(begin);
}
