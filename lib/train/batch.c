/* batch.c - what an evaluation reads: pictures with noise, times, captions.
 *
 * All is a pure function of the seed and of the evaluation's number: picture i of evaluation k has
 * position k * batch + i in the stream of pictures (dataset.h), and what else is drawn for it comes
 * from a generator that begins with the sample's own seed. So a training that goes on from a
 * checkpoint draws what it would have drawn, and so does one that takes its batch in several parts.
 *
 * The noise is torch's for that seed (sampler/noise.c). With an offset b it is e + b c, c one
 * normal number for each channel of a sample (Guttenberg, Diffusion with Offset Noise, 2023); the
 * target has it too. */
#include <math.h>

#include "sampler/process.h"
#include "train/dataset.h"
#include "train/trainer_internal.h"
#include "weft/sampler.h"

/* ---- noise levels ---------------------------------------------------------------------------- */

/* A_t of the model's training, and what it predicts. */
weft_status wf_train_read_levels(weft_trainer *t, weft_error *err)
{
    weft_sampler_options told = WEFT_SAMPLER_OPTIONS_INIT, o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *s = NULL;

    told.kind = WEFT_SAMPLER_DDIM;
    WF_TRY(weft_sampler_options_from_model(t->model, &told, err));
    t->prediction = told.prediction;
    /* One step at timestep 0, which no table refuses; the table is what we are after. */
    o.kind = WEFT_SAMPLER_DDIM;
    o.allocator = &t->alloc;
    o.steps = 1;
    o.spacing = WEFT_SPACING_LEADING;
    o.flags = told.flags & WEFT_SAMPLER_ZERO_SNR;
    o.prediction = told.prediction;
    o.betas = told.betas;
    o.train_steps = told.train_steps;
    o.beta_start = told.beta_start;
    o.beta_end = told.beta_end;
    o.trained_betas = told.trained_betas;
    o.trained_betas_len = told.trained_betas_len;
    WF_TRY(weft_sampler_create(&o, &s, err));
    t->train_steps = o.train_steps != 0 ? o.train_steps : 1000;
    t->alpha = wf_bag_take(&t->bag, (size_t)t->train_steps, sizeof *t->alpha);
    for (int32_t i = 0; i < t->train_steps && t->alpha != NULL; i++)
        t->alpha[i] = wf_vp_alpha(s, i);
    weft_sampler_free(s);
    return t->alpha != NULL ? WEFT_OK
                            : wf_nomem(err, (size_t)t->train_steps * sizeof(double), "a schedule");
}

/* ---- memory ---------------------------------------------------------------------------------- */

weft_status wf_train_take_batch(weft_trainer *t, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(t->networks);
    wf_batch *b = &t->batch;
    bool classes = wf_dataset_count(t->data, WF_DATA_CLASS) > 0;
    size_t n, plane = (size_t)t->height * (size_t)t->width;

    b->instances = t->o.batch;
    b->n = classes ? 2 * t->o.batch : t->o.batch;
    n = (size_t)b->n;
    bool ok = true;
    b->latent = wf_bag_take(&t->bag, n * t->image, sizeof(float));
    b->target = wf_bag_take(&t->bag, n * t->image, sizeof(float));
    t->aside = wf_bag_take(&t->bag, n * t->image, sizeof(float));
    b->timestep = wf_bag_take(&t->bag, n, sizeof(float));
    b->weight = wf_bag_take(&t->bag, n, sizeof(double));
    b->time_ids = wf_bag_take(&t->bag, n * (size_t)f->time_ids, sizeof(float));
    b->caption = wf_bag_take(&t->bag, n, sizeof *b->caption);
    if ((t->o.flags & WEFT_TRAIN_RESIZE) != 0) {
        b->mask = wf_bag_take(&t->bag, n * plane, sizeof(float));
        ok = b->mask != NULL;
    }
    ok = ok && b->latent != NULL && b->target != NULL && t->aside != NULL && b->timestep != NULL &&
         b->weight != NULL && b->time_ids != NULL && b->caption != NULL;
    if (!ok) return wf_nomem(err, 3 * n * t->image * sizeof(float), "a batch of latents");
    return wf_train_take_text(t, err);
}

/* ---- one sample ------------------------------------------------------------------------------ */

/* Independent draws of one sample. */
enum { DRAW_TIME = 1, DRAW_DROPOUT, DRAW_OFFSET };

static double draw(uint64_t seed, uint64_t what)
{
    wf_mersenne g;
    wf_mersenne_seed(&g, wf_hash(seed, &what, sizeof what));
    return (double)wf_mersenne_uniform(&g);
}

static weft_status draw_noise(const weft_trainer *t, uint64_t seed, float *noise, weft_error *err)
{
    size_t plane = (size_t)t->height * (size_t)t->width, channels = t->image / plane;
    weft_noise_options o = WEFT_NOISE_OPTIONS_INIT;
    weft_noise *g = NULL;
    float offset[16];

    o.allocator = &t->alloc;
    WF_TRY(weft_noise_create(seed, &o, &g, err));
    weft_status st = weft_noise_normal(g, noise, t->image, err);
    weft_noise_free(g);
    if (st != WEFT_OK || t->o.noise_offset <= 0) return st;
    uint64_t what = DRAW_OFFSET;
    WF_TRY(weft_noise_create(wf_hash(seed, &what, sizeof what), &o, &g, err));
    for (size_t c = 0; c < channels && st == WEFT_OK; c++) {
        st = weft_noise_normal(g, offset, 1, err);
        for (size_t i = 0; i < plane; i++)
            noise[c * plane + i] += (float)t->o.noise_offset * offset[0];
    }
    weft_noise_free(g);
    return st;
}

/* w(t) = min(SNR, gamma) / SNR, or / (SNR + 1) where the network predicts v, or by nothing where it
 * predicts the image: Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy
 * (2023). Without any signal it is 1, or 0. */
static double snr_weight(const weft_trainer *t, double A)
{
    double gamma = t->o.min_snr, snr = A / (1 - A);

    if (gamma <= 0) return 1;
    if (t->prediction == WEFT_PREDICT_V) return WF_MIN(snr, gamma) / (snr + 1);
    if (t->prediction == WEFT_PREDICT_SAMPLE) return WF_MIN(snr, gamma);
    return snr <= gamma ? 1 : gamma / snr;
}

/* x = sqrt(A) x0 + sqrt(1 - A) e, and what the network should say of it; x0 comes in `latent`. */
static void mix(const weft_trainer *t, double A, float *latent, float *target)
{
    float signal = (float)sqrt(A), noise = (float)sqrt(1 - A);

    for (size_t i = 0; i < t->image; i++) {
        float x = latent[i], e = target[i];
        latent[i] = signal * x + noise * e;
        if (t->prediction == WEFT_PREDICT_V) target[i] = signal * e - noise * x;
        else if (t->prediction == WEFT_PREDICT_SAMPLE) target[i] = x;
    }
}

/* The sample's caption, as the recipe words it. */
static weft_status read_caption(weft_trainer *t, const wf_sample *s, bool class_picture,
                                const wf_caption **out, weft_error *err)
{
    const char *own = wf_dataset_caption(t->data, s->list, s->picture);
    const char *what = wf_dataset_name(t->data, s->list, s->picture);
    bool left_out = !class_picture && draw(s->spare_seed, DRAW_DROPOUT) < wf_none(t->o.dropout);
    wf_text text;
    weft_status st = WEFT_OK;

    if (left_out) return wf_train_caption(t, "", out, err);
    wf_text_init(&text, &t->alloc);
    if (t->recipe->caption != NULL)
        st = t->recipe->caption(t, class_picture, what, own, s->spare_seed, &text, err);
    else wf_text_add(&text, "%s", own);
    if (st == WEFT_OK && s->phrase != NULL) wf_text_add(&text, " %s", s->phrase);
    if (st == WEFT_OK && (text.failed || text.s == NULL) && (text.failed || own[0] != '\0'))
        st = wf_nomem(err, strlen(own), "a caption");
    if (st == WEFT_OK) st = wf_train_caption(t, text.s != NULL ? text.s : "", out, err);
    wf_text_free(&text);
    return st;
}

weft_status wf_train_check_captions(weft_trainer *t, weft_error *err)
{
    const wf_caption *caption;

    for (int list = 0; list < WF_DATA_LISTS; list++)
        for (size_t i = 0; i < wf_dataset_count(t->data, (wf_data_list)list); i++) {
            wf_sample s = { .list = (wf_data_list)list, .picture = i, .spare_seed = t->o.seed };
            WF_TRY(read_caption(t, &s, list == WF_DATA_CLASS, &caption, err));
            if (t->exec.stopped) return WEFT_OK; /* the caller asks */
        }
    return WEFT_OK;
}

/* SDXL's sizes: of the file, where the cut begins, of the picture. */
static void fill_time_ids(const weft_trainer *t, const wf_sample *s, float *ids)
{
    const float all[6] = { (float)s->original_h, (float)s->original_w, (float)s->top,
                           (float)s->left, (float)t->o.height, (float)t->o.width };
    if (wf_facts(t->networks)->time_ids == 6) memcpy(ids, all, sizeof all);
}

static weft_status fill_sample(weft_trainer *t, wf_batch *b, int32_t place, weft_error *err)
{
    bool class_picture = place >= b->instances;
    int32_t i = class_picture ? place - b->instances : place;
    uint64_t position = (uint64_t)b->evaluation * (uint64_t)t->o.batch + (uint64_t)i;
    float *latent = b->latent + (size_t)place * t->image;
    float *target = b->target + (size_t)place * t->image;
    size_t plane = (size_t)t->height * (size_t)t->width;
    wf_sample s, first;

    WF_TRY(wf_dataset_draw(t->data, class_picture ? WF_DATA_CLASS : WF_DATA_INSTANCE, t->o.seed,
                           position, &s, err));
    uint64_t seed = s.spare_seed;
    if (class_picture && t->recipe->same_noise) {
        WF_TRY(wf_dataset_draw(t->data, WF_DATA_INSTANCE, t->o.seed, position, &first, err));
        seed = first.spare_seed;
    }
    WF_TRY(wf_dataset_latent(t->data, &s, t->encoder, latent, err));
    WF_TRY(draw_noise(t, seed, target, err));
    int32_t time = (int32_t)(draw(seed, DRAW_TIME) * t->train_steps);
    double A = t->alpha[time];
    b->timestep[place] = (float)time;
    b->weight[place] = class_picture ? 1 : snr_weight(t, A);
    mix(t, A, latent, target);
    if (b->mask != NULL) {
        float *mask = b->mask + (size_t)place * plane;
        for (size_t k = 0; k < plane; k++) mask[k] = 1;
        if (!class_picture) wf_dataset_mask(t->data, &s, mask);
    }
    fill_time_ids(t, &s, b->time_ids + (size_t)place * (size_t)wf_facts(t->networks)->time_ids);
    return read_caption(t, &s, class_picture, &b->caption[place], err);
}

weft_status wf_train_fill_batch(weft_trainer *t, int64_t evaluation, weft_error *err)
{
    t->batch.evaluation = evaluation;
    for (int32_t i = 0; i < t->batch.n && !t->exec.stopped; i++)
        WF_TRY(fill_sample(t, &t->batch, i, err));
    return WEFT_OK;
}
