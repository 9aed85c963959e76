/* generate.c - draw an image: encode the prompts, walk the steps, decode. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

enum { STREAMS = 4 };

/* The text of both halves of guidance: encoded here, or read from a file. */
typedef struct conditioning {
    weft_text      text[2][STREAMS];                 /* of the prompt, and of the negative prompt                */
    weft_text_info about[STREAMS];
    int32_t        streams;
    int            halves;                           /* 1: no negative                                           */
    int64_t        tokens;                           /* of a sequence                                            */
    int32_t        layers;                           /* 0, or rows for each of these cross-attention layers      */
    uint64_t       stamp;
    int32_t        adapters;                         /* with a text each, one behind the other; 0: one for all   */
    int32_t       *acts;                             /* [calls] whose text is read; -1: in each branch its own   */
    weft_text     *regions;                          /* [region_count][streams] of the plan's regions            */
    size_t         region_count;
} conditioning;

static void describe_streams(conditioning *c, const weft_model *model, const weft_model_info *info)
{
    if (info->text_streams > STREAMS) fail("the model reads %d text streams", (int)info->text_streams);
    c->streams = info->text_streams;
    for (int32_t i = 0; i < c->streams; i++) {
        c->about[i] = (weft_text_info)WEFT_TEXT_INFO_INIT;
        must(weft_model_text(model, i, &c->about[i], &err));
        c->text[0][i] = c->text[1][i] = (weft_text)WEFT_TEXT_INIT;
    }
}

/* What a stream's tensor is called in files. */
static const char *tensor_name(const conditioning *c, int half, int32_t stream)
{
    int pooled = c->about[stream].kind == WEFT_TEXT_POOLED;
    return half == 0 ? (pooled ? "pooled" : "text") : (pooled ? "negative_pooled" : "negative");
}

/* `text` is (1, tokens, width), or (layers, tokens, width) if each cross-attention layer has its
 * own. */
static int32_t layers_of_text(const weft_tensors *file, const weft_text_info *sequence)
{
    weft_tensor_info about = WEFT_TENSOR_INFO_INIT;
    int64_t index = weft_tensors_find(file, "text"), layers = sequence->cross_layers;

    if (index < 0) return 0;
    must(weft_tensors_info(file, (size_t)index, &about, &err));
    return about.rank == 3 && about.shape[0] > 1 && about.shape[0] == layers ? (int32_t)layers : 0;
}

/* One stream of one half. All sequences of a file have as many tokens as the first. */
static void read_stream(conditioning *c, const weft_tensors *file, const settings *s, int half, int32_t stream)
{
    const weft_text_info *about = &c->about[stream];
    const char *name = tensor_name(c, half, stream);
    weft_text *t = &c->text[half][stream];
    int64_t shape[3] = { c->layers, c->tokens, about->width };
    int pooled = about->kind == WEFT_TEXT_POOLED, from = pooled ? 2 : c->layers ? 0 : 1;

    t->data = read_tensor(file, s->conditioning, name, shape + from, (size_t)(3 - from));
    if (t->data == NULL && half == 1 && !pooled)
        fail("%s: it has no tensor `negative`, and guidance %g needs one", s->conditioning, (double)s->guidance);
    if (t->data == NULL) fail("%s: it has no tensor `%s`", s->conditioning, name);
    if (!pooled) c->tokens = shape[1];
    t->cross_layers = pooled ? 0 : c->layers;
    t->tokens = pooled ? 1 : (int32_t)shape[1];
    t->len = (size_t)(t->cross_layers ? t->cross_layers : 1) * (size_t)t->tokens * (size_t)about->width;
}

static void read_conditioning(conditioning *c, const settings *s)
{
    weft_tensors *file;

    weft_tensors_options how = WEFT_TENSORS_OPTIONS_INIT;
    how.flags = how_to_open(s, s->conditioning);
    must(weft_tensors_open(s->conditioning, &how, &file, &err));
    c->layers = layers_of_text(file, &c->about[0]);
    for (int half = 0; half < c->halves; half++)
        for (int32_t i = 0; i < c->streams; i++) read_stream(c, file, s, half, i);
    weft_tensors_free(file);
}

/* How brackets are read; with weights, long prompts break at commas. */
static uint32_t encode_flags(const settings *s)
{
    static const uint32_t ways[] = { 0, WEFT_ENCODE_WEIGHTS, WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_NO_MEAN,
                                     WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_FROM_EMPTY };
    return ways[s->weighting] | (s->weighting ? WEFT_ENCODE_COMMA : 0);
}

/* Tokens with a vector for each cross-attention layer ask for a conditioning for each. */
static int32_t layers_of_tokens(const settings *s)
{
    int32_t most = 0;
    for (size_t i = 0; i < s->adapter_count; i++) {
        weft_concept_info about = WEFT_CONCEPT_INFO_INIT;
        if (s->adapters[i].concept == NULL) continue;
        must(weft_concept_info_get(s->adapters[i].concept, &about, &err));
        for (int32_t t = 0; t < about.tokens; t++) {
            weft_token_info token = WEFT_TOKEN_INFO_INIT;
            must(weft_concept_token(s->adapters[i].concept, (size_t)t, &token, &err));
            if (token.layers > most) most = token.layers;
        }
    }
    return most;
}

/* How often a prompt has a concept's token; NULL has none. */
static int32_t times(const weft_plan *plan, const adapter_use *use, int32_t token, const char *prompt, uint32_t flags)
{
    int32_t count = 0;
    if (prompt != NULL)
        must(weft_plan_token_count(plan, use->concept, (size_t)token, prompt, flags, &count, &err));
    return count;
}

/* Says which tokens a concept's file gave, and warns if no prompt has one of them. */
static void report_tokens(const weft_plan *plan, const settings *s, const adapter_use *use)
{
    weft_concept_info about = WEFT_CONCEPT_INFO_INIT;
    char list[256] = "", line[512];
    int32_t used = 0;
    size_t n = 0;

    must(weft_concept_info_get(use->concept, &about, &err));
    for (int32_t i = 0; i < about.tokens; i++) {
        weft_token_info t = WEFT_TOKEN_INFO_INIT;
        must(weft_concept_token(use->concept, (size_t)i, &t, &err));
        int also = t.also != NULL && times(plan, use, i, t.also, 0) > 0; /* in the plan, not only in the file */
        used += times(plan, use, i, s->prompt, encode_flags(s)) + times(plan, use, i, s->negative, encode_flags(s));
        for (size_t k = 0; k < s->region_count; k++)
            used += times(plan, use, i, s->regions[k].prompt, encode_flags(s));
        if (n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s%s%s", i ? ", " : "", t.token, also ? " or " : "",
                                  also ? t.also : "");
    }
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: %s gives %s\n", use->file, list);
    if (used == 0) {
        snprintf(line, sizeof line, "%.120s: no prompt has what it gives: write %s where it is meant", use->file, list);
        warn_line(NULL, WEFT_LOG_WARN, line);
    }
}

/* What is given beside a file of tokens alone, and would be an adapter's. */
static void warn_of_settings(const adapter_use *use)
{
    weft_concept_info about = WEFT_CONCEPT_INFO_INIT;
    char line[512];
    int given = use->weight != 1.0f || use->how.select || use->how.exclude || use->how.role || use->given;

    must(weft_concept_info_get(use->concept, &about, &err));
    if (about.adapter || !given) return;
    snprintf(line, sizeof line, "%.120s: there is no adapter in it that a weight or a choice of layers could act on; "
             "--weighting reads (token:0.8) in prompts", use->file);
    warn_line(NULL, WEFT_LOG_WARN, line);
}

static void report_concepts(const weft_plan *plan, const settings *s)
{
    for (size_t i = 0; i < s->adapter_count; i++) {
        const adapter_use *use = &s->adapters[i];
        if (use->concept == NULL) continue;
        warn_of_settings(use);
        if (s->conditioning == NULL) report_tokens(plan, s, use);
        else {
            char line[512];
            snprintf(line, sizeof line, "%.120s: its tokens have no effect: --conditioning stands in for prompts", use->file);
            warn_line(NULL, WEFT_LOG_WARN, line);
        }
    }
}

/* How many tokens the text of these prompts has; says so if a prompt is long. */
static int64_t measure_prompts(const weft_plan *plan, const settings *s, const conditioning *c)
{
    const char *prompts[2] = { s->prompt, c->halves == 2 ? s->negative : NULL };
    int32_t most = 1;

    for (size_t i = 0; i < s->region_count; i++) {
        int32_t chunks = 1;
        if (s->regions[i].prompt != NULL)
            must(weft_plan_prompt_size(plan, s->regions[i].prompt, encode_flags(s), NULL, &chunks, &err));
        if (chunks > most) most = chunks;
    }
    for (int i = 0; i < 2; i++) {
        int32_t tokens, chunks;
        if (prompts[i] == NULL) continue;
        must(weft_plan_prompt_size(plan, prompts[i], encode_flags(s), &tokens, &chunks, &err));
        if (chunks > 1 && !(s->flags & QUIET))
            fprintf(stderr, "weft: the %s has %d tokens: encoded whole, in %d chunks of %d\n",
                    i ? "negative prompt" : "prompt", (int)tokens, (int)chunks, (int)c->about[0].tokens - 2);
        if (chunks > most) most = chunks;
    }
    return (int64_t)most * c->about[0].tokens;
}

enum { NOBODY = -1, SEVERAL = -2 };

/* The one adapter that acts on the denoiser in a branch of a call. */
static int32_t acting(const weft_plan *plan, const weft_model *model, int32_t call, int32_t branch, int32_t adapters)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    int32_t found = NOBODY;

    must(weft_model_info_get(model, &info, &err));
    for (int32_t a = 0; a < adapters; a++)
        for (int64_t l = 0; l < info.layers; l++) {
            weft_layer_info layer = WEFT_LAYER_INFO_INIT;
            weft_cell cell = WEFT_CELL_INIT;
            must(weft_model_layer(model, l, &layer, &err));
            if (strncmp(layer.name, "text_encoder", 12) == 0) continue;
            must(weft_plan_cell(plan, call, branch, l, a, &cell, &err));
            if (cell.number == 0) continue;
            if (found != NOBODY) return SEVERAL;
            found = a;
            break;
        }
    return found;
}

/* Where nobody acts, the text is that of the call before. */
static void assign_texts(conditioning *c, const weft_plan *plan, const weft_model *model, int32_t calls)
{
    weft_plan_info about = WEFT_PLAN_INFO_INIT;
    int32_t last = 0;

    must(weft_plan_info_get(plan, &about, &err));
    if (about.adapters == 0) return;
    c->adapters = about.adapters;
    c->acts = zeroed((size_t)calls, sizeof *c->acts);
    for (int32_t n = 0; n < calls; n++) {
        weft_call_info call = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(plan, n, &call, &err));
        int own = call.branches == c->adapters && call.branches > 1;
        for (int32_t b = 0; b < call.branches; b++) {
            int32_t a = acting(plan, model, n, b, c->adapters);
            if (a == SEVERAL || (call.branches > 1 && !own) || (own && a != NOBODY && a != b))
                misuse("--text-plan each: at call %d several adapters act at once; switch, composite, loratorio and "
                       "subbands have one at a time", (int)n);
            if (a != NOBODY && !own) last = a;
        }
        c->acts[n] = own ? -1 : last;
    }
}

/* Room for one half's streams, zeroed. */
static void make_streams(weft_run *run, const conditioning *c, weft_text *text)
{
    for (int32_t i = 0; i < c->streams; i++) {
        weft_text *t = &text[i];
        if (c->about[i].cross_layers) t->cross_layers = c->layers;
        must(weft_run_text(run, i, (int32_t)(c->tokens / c->about[0].tokens), t, &err));
        t->data = floats(t->len * (size_t)(c->adapters > 1 ? c->adapters : 1));
    }
}

/* The text of adapter `a`, or the one for all. */
static void text_of(const conditioning *c, const weft_text *all, int32_t a, weft_text *text)
{
    for (int32_t i = 0; i < c->streams; i++) {
        text[i] = all[i];
        text[i].data += (size_t)a * text[i].len;
    }
}

/* With the text-encoder parts that the plan says, or if it is not negative, with those of one adapter. */
static void encode_prompt(weft_run *run, const char *prompt, const settings *s, conditioning *c, weft_text *text,
                          int32_t adapter)
{
    weft_encode encode = WEFT_ENCODE_INIT;
    weft_text one[STREAMS];
    int each = adapter < 0 && c->adapters > 0; /* a text of each adapter, one behind the other */

    make_streams(run, c, text);
    encode.flags = encode_flags(s) | (each || adapter >= 0 ? WEFT_ENCODE_ADAPTER : 0);
    encode.clip_skip = s->clip_skip;
    encode.prompt = prompt ? prompt : "";
    encode.text = one;
    encode.text_count = (size_t)c->streams;
    for (int32_t a = 0; a == 0 || (each && a < c->adapters); a++) {
        if (encode.flags & WEFT_ENCODE_ADAPTER) encode.adapter = each ? a : adapter;
        text_of(c, text, a, one);
        must(weft_run_encode(run, &encode, &err));
    }
    c->stamp = encode.stamp;
}

/* The prompt of a region sees its adapter's text-encoder part and no other's. */
static void encode_regions(weft_run *run, const settings *s, conditioning *c)
{
    c->regions = zeroed(s->region_count * (size_t)c->streams, sizeof *c->regions);
    for (size_t i = 0; i < s->region_count; i++) {
        const region_use *r = &s->regions[i];
        weft_text *text = &c->regions[c->region_count * (size_t)c->streams];
        if (!is_region_of_plan(s, r)) continue;
        for (int32_t k = 0; k < c->streams; k++) text[k] = (weft_text)WEFT_TEXT_INIT;
        encode_prompt(run, r->prompt ? r->prompt : s->prompt, s, c, text,
                      r->use >= 0 && s->plan.text != WEFT_TEXT_NONE ? s->adapters[r->use].index : -1);
        c->region_count++;
    }
}

static void free_conditioning(conditioning *c)
{
    free(c->acts);
    for (size_t i = 0; i < c->region_count * (size_t)c->streams; i++) free(c->regions[i].data);
    free(c->regions);
    for (int32_t i = 0; i < c->streams; i++) free(c->text[0][i].data), free(c->text[1][i].data);
}

/* What an image begins with besides noise. */
typedef struct origin {
    float  *latents;                                 /* of the image that is given; NULL: none                 */
    float  *mask;                                    /* (h, w) in latent pixels, 1 where it is redrawn; or NULL  */
    float  *extra;                                   /* mask and masked image, for a model that reads them     */
    size_t  extra_len;
    int32_t first;                                   /* call to begin with                                       */
} origin;

typedef struct drawing {
    conditioning  cond;
    origin        from;
    int           distilled;                         /* the guidance scale is an input of the model */
    int64_t       shape[4];                          /* (1, c, h, w) */
    size_t        len;
    float        *start, *latents;
    float       **predictions;                       /* [calls], each NULL unless saved */
    int32_t       calls;
} drawing;

static float *draw_noise(size_t len, weft_noise *noise)
{
    float *drawn = floats(len);
    must(weft_noise_normal(noise, drawn, len, &err));
    return drawn;
}

/* The size, which may be that of a file of latents; its noise, before the sampler scales it, is
 * read here. */
static void read_size(drawing *p, settings *s, const weft_model_info *info)
{
    weft_tensors *file;
    int64_t shape[3] = { info->latent_channels, s->height / info->image_factor, s->width / info->image_factor };

    if (s->latents) {
        weft_tensors_options how = WEFT_TENSORS_OPTIONS_INIT;
        how.flags = how_to_open(s, s->latents);
        must(weft_tensors_open(s->latents, &how, &file, &err));
        const char *name = weft_tensors_find(file, "start") >= 0 ? "start" : "latents";
        if ((p->start = read_tensor(file, s->latents, name, shape, 3)) == NULL)
            fail("%s: it has no tensor `start` or `latents`", s->latents);
        weft_tensors_free(file);
        s->height = (int32_t)shape[1] * info->image_factor;
        s->width = (int32_t)shape[2] * info->image_factor;
    }
    set_size(s, info);
    p->shape[0] = 1;
    p->shape[1] = info->latent_channels;
    p->shape[2] = s->run.height;
    p->shape[3] = s->run.width;
    p->len = (size_t)info->latent_channels * (size_t)s->run.height * (size_t)s->run.width;
}

/* Latents of an image, drawn from the distribution that the encoder gives, as diffusers draws
 * them. */
static float *encode_image(weft_run *run, const float *image, const settings *s, size_t len, weft_noise *noise)
{
    float *drawn = draw_noise(len, noise), *latents = floats(len);
    must(weft_run_encode_image(run, image, 3 * (size_t)s->width * (size_t)s->height, drawn, len, latents, len, &err));
    free(drawn);
    return latents;
}

/* The mask in latent pixels; and the image with grey under the mask, which an inpainting model
 * reads beside it. With any other model denoise() puts the image back around the mask after every
 * call. */
static void read_masked(drawing *p, float *image, const settings *s, const weft_model_info *info, weft_run *run,
                        weft_noise *noise)
{
    size_t pixels = (size_t)s->width * (size_t)s->height, plane = p->len / (size_t)info->latent_channels;
    size_t factor = (size_t)info->image_factor, across = (size_t)s->run.width;
    float *mask = read_mask(s->mask, s->width, s->height), *masked;

    p->from.mask = floats(plane);
    for (size_t i = 0; i < plane; i++)
        p->from.mask[i] = mask[i / across * factor * (size_t)s->width + i % across * factor];
    for (size_t i = 0; i < 3 * pixels; i++)
        if (mask[i % pixels] > 0) image[i] = 0.5f;
    masked = encode_image(run, image, s, p->len, noise);
    if (info->input_channels > info->latent_channels) {
        p->from.extra_len = plane + p->len;
        p->from.extra = floats(p->from.extra_len);
        memcpy(p->from.extra, p->from.mask, plane * sizeof *masked);
        memcpy(p->from.extra + plane, masked, p->len * sizeof *masked);
    }
    free(masked);
    free(mask);
}

/* What an image begins with. Noise is drawn in diffusers' order, so that a seed means the same:
 * first for the image of --image (unless an inpainting model redraws all of it), then for the
 * latents, last for the image under the mask, even if no model reads that. */
static void read_origin(drawing *p, const settings *s, const weft_model_info *info, weft_run *run, weft_noise *noise)
{
    float *image = s->image ? read_image(s->image, s->width, s->height) : NULL;
    int reads = info->input_channels > info->latent_channels;

    if (image && !(reads && s->strength >= 1.0f)) p->from.latents = encode_image(run, image, s, p->len, noise);
    if (p->start == NULL) p->start = draw_noise(p->len, noise);
    if (s->mask) read_masked(p, image, s, info, run, noise);
    free(image);
}

/* Everything outside the mask becomes the image again, with the noise of the next call. */
static void keep_unmasked(drawing *p, const weft_sampler *sampler, int32_t next, float *scratch)
{
    size_t plane = (size_t)(p->shape[2] * p->shape[3]);
    const float *kept = p->from.latents;
    if (next < p->calls) {
        must(weft_sampler_add_noise(sampler, next, p->from.latents, p->start, scratch, p->len, &err));
        kept = scratch;
    }
    for (size_t i = 0; i < p->len; i++)
        if (p->from.mask[i % plane] == 0.0f) p->latents[i] = kept[i];
}

static void first_latents(drawing *p, const settings *s, const weft_sampler *sampler)
{
    p->latents = floats(p->len);
    if (p->from.latents && !(s->mask && s->strength >= 1.0f)) {
        must(weft_sampler_add_noise(sampler, p->from.first, p->from.latents, p->start, p->latents, p->len, &err));
        return;
    }
    for (size_t i = 0; i < p->len; i++) p->latents[i] = p->start[i] * weft_sampler_init_scale(sampler);
}

/* What a call reads: one text for all, that of the adapter that acts, or each branch its own. */
static void choose_texts(const conditioning *c, int32_t call, weft_text text[2][STREAMS], weft_step *step)
{
    int32_t who = c->adapters ? c->acts[call] : 0;

    for (int half = 0; half < c->halves; half++) {
        text_of(c, c->text[half], who < 0 ? 0 : who, text[half]);
        for (int32_t i = 0; i < c->streams && who < 0; i++) text[half][i].len *= (size_t)c->adapters;
    }
    step->flags = who < 0 ? WEFT_STEP_TEXT_PER_BRANCH : 0;
}

static void denoise(drawing *p, const settings *s, weft_run *run, weft_sampler *sampler, weft_noise *noise, meter *m)
{
    float *scaled = floats(p->len), *prediction = floats(p->len);
    weft_text text[2][STREAMS];
    weft_step step = WEFT_STEP_INIT;

    step.latent = scaled;                          step.latent_len = p->len;
    step.text = text[0];                           step.text_count = (size_t)p->cond.streams;
    if (p->cond.halves == 2) step.negative = text[1], step.negative_count = (size_t)p->cond.streams;
    step.region_text = p->cond.region_count ? p->cond.regions : NULL;
    step.region_text_count = p->cond.region_count * (size_t)p->cond.streams;
    step.out = prediction;                         step.out_len = p->len;
    step.guidance = s->guidance;
    step.guidance_rescale = s->rescale;
    if (p->distilled) step.guidance_embed = s->guidance;
    step.extra = p->from.extra;                    step.extra_len = p->from.extra_len;
    step.stamp = p->cond.stamp;

    first_latents(p, s, sampler);
    must(weft_sampler_begin(sampler, p->from.first, p->len, &err));
    for (int32_t n = p->from.first; n < p->calls; n++) {
        m->step = n - p->from.first;
        must(weft_sampler_scale(sampler, n, p->latents, scaled, p->len, &err));
        choose_texts(&p->cond, n, text, &step);
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, n, prediction, p->latents, p->len, noise, &err));
        if (p->from.mask && !p->from.extra) keep_unmasked(p, sampler, n + 1, scaled);
        if (s->save) p->predictions[n] = memcpy(floats(p->len), prediction, p->len * sizeof(float));
    }
    free(scaled);
    free(prediction);
}

/* The text other tools read: the prompt, the negative prompt, then one line of settings. */
static char *describe(const settings *s)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL) fail("out of memory");

    fprintf(f, "%s\n", s->prompt ? s->prompt : "");
    if (s->negative && *s->negative) fprintf(f, "Negative prompt: %s\n", s->negative);
    fprintf(f, "Steps: %d, Sampler: ", (int)s->steps);
    print_sampler(f, s);
    fprintf(f, ", CFG scale: %g, Seed: %" PRIu64 ", Size: %dx%d, Model: %s", (double)s->guidance, s->seed,
            (int)s->width, (int)s->height, s->target);
    if (s->rescale > 0.0f) fprintf(f, ", CFG rescale: %g", (double)s->rescale);
    if (s->eta > 0.0f) fprintf(f, ", Eta: %g", (double)s->eta);
    if (s->sampling.order > 0) fprintf(f, ", Solver order: %d", (int)s->sampling.order);
    if (s->clip_skip) fprintf(f, ", Clip skip: %d", (int)s->clip_skip + 1); /* other tools count the last layer as 1 */
    if (s->image) fprintf(f, ", Denoising strength: %g, Image: %s", (double)s->strength, s->image);
    if (s->mask) fprintf(f, ", Mask: %s", s->mask);
    if (s->latents) fprintf(f, ", Start latents: %s", s->latents);
    if (s->conditioning) fprintf(f, ", Conditioning: %s", s->conditioning);
    if (s->adapter_count) {
        fprintf(f, ", Compose: %s", word_of(methods, s->phases[0].method));
        for (size_t i = 1; i < s->phase_count; i++) {
            const phase_use *ph = &s->phases[i];
            fprintf(f, ", Phase: %s from ", word_of(methods, ph->method));
            if (ph->begin.flags & WEFT_PHASE_AT) fprintf(f, "%g of the calls", ph->begin.at);
            else fprintf(f, "call %d", (int)ph->begin.first);
        }
        if (s->plan.mixed != WEFT_MIXED_DELTA) fprintf(f, ", Mixed: %s", word_of(mixes, s->plan.mixed));
        if (s->flags & BALANCE)
            fprintf(f, ", Balance: %s%s", s->balance.gamma == WEFT_KLORA_GAMMA_PAPER ? "paper" : "code",
                    s->balance.role == WEFT_ROLE_CONTENT ? " to content" : s->balance.role == WEFT_ROLE_STYLE ? " to style" : "");
        fprintf(f, ", Adapters: \"");
        for (size_t i = 0; i < s->adapter_count; i++)
            fprintf(f, "%s%s:%g", i ? ", " : "", s->adapters[i].file, (double)s->adapters[i].weight);
        fputc('"', f);
    }
    for (size_t i = 0; i < s->region_count; i++) {
        const region_use *r = &s->regions[i];
        fprintf(f, "%s%s", i ? ", " : ", Regions: \"", r->file);
        if (r->use >= 0) fprintf(f, " for %s", s->adapters[r->use].file);
        if (r->prompt) fprintf(f, ": %s", r->prompt);
        if (i + 1 == s->region_count) fputc('"', f);
    }
    if (s->flags & ISOLATE) fprintf(f, ", Isolated");
    uint32_t v = weft_version();
    fprintf(f, ", Version: weft %u.%u.%u", (unsigned)(v >> 16), (unsigned)(v >> 8 & 255), (unsigned)(v & 255));
    if (fclose(f) != 0) fail("out of memory");
    return text;
}

static void save_tensors(const drawing *p, const settings *s, const char *parameters)
{
    const conditioning *c = &p->cond;
    const char *metadata[2] = { "parameters", parameters };
    weft_tensor_out *out = zeroed(2 + 2 * (size_t)c->streams + (size_t)p->calls, sizeof *out);
    char (*names)[24] = zeroed((size_t)p->calls, sizeof *names);
    size_t count = 0;

    const struct { const char *name; const float *data; int64_t shape[4]; size_t rank; } fixed[] = {
        { "start", p->start, { 1, p->shape[1], p->shape[2], p->shape[3] }, 4 },
        { "latents", p->latents, { 1, p->shape[1], p->shape[2], p->shape[3] }, 4 },
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (fixed[i].data == NULL) continue;
        out[count].name = fixed[i].name;
        out[count].data = fixed[i].data;
        out[count].rank = fixed[i].rank;
        memcpy(out[count++].shape, fixed[i].shape, sizeof fixed[i].shape);
    }
    for (int i = 0; i < c->halves * c->streams && c->adapters == 0; i++) { /* a file is one text for all */
        const weft_text *t = &c->text[i / c->streams][i % c->streams];
        const weft_text_info *about = &c->about[i % c->streams];
        const int64_t pooled[2] = { 1, about->width };
        const int64_t sequence[3] = { t->cross_layers ? t->cross_layers : 1, t->tokens, about->width };
        out[count].name = tensor_name(c, i / c->streams, i % c->streams);
        out[count].data = t->data;
        out[count].rank = about->kind == WEFT_TEXT_POOLED ? 2 : 3;
        memcpy(out[count].shape, out[count].rank == 2 ? pooled : sequence, (size_t)out[count].rank * sizeof *pooled);
        count++;
    }
    for (int32_t n = p->from.first; n < p->calls; n++) {
        snprintf(names[n], sizeof names[n], "prediction_%03d", (int)n);
        out[count].name = names[n];
        out[count].data = p->predictions[n];
        out[count].rank = 4;
        memcpy(out[count++].shape, p->shape, sizeof p->shape);
    }
    for (size_t i = 0; i < count; i++) out[i].struct_size = sizeof out[i];
    must(weft_tensors_write(s->save, out, count, metadata, 1, &err));
    free(names);
    free(out);
}

static void write_image(const drawing *p, const settings *s, weft_run *run, const char *parameters)
{
    const char *path = s->output ? s->output : "weft.png";
    const char *text[2] = { "parameters", parameters };
    size_t len = 3 * (size_t)s->width * (size_t)s->height;
    float *image = floats(len);
    uint8_t *rgb = zeroed(len, 1);

    must(weft_run_decode(run, p->latents, p->len, image, len, &err));
    must(weft_image_bytes(image, len, s->width, s->height, rgb, len, &err));
    must(weft_png_write(path, rgb, len, s->width, s->height, text, s->flags & NO_PARAMETERS ? 0 : 1, &err));
    free(image);
    free(rgb);
}

/* What acted, as a picture or as JSON: the name's ending says which. */
static int is_json(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

static void write_trace(const char *path, const weft_run *run, const weft_plan *plan, const weft_model *model)
{
    size_t needed;

    if (!is_json(path)) {
        must(draw_trace(run, plan, model, path, &err));
        return;
    }
    must(weft_run_trace_json(run, NULL, 0, &needed, &err));
    char *text = zeroed(needed, 1);
    must(weft_run_trace_json(run, text, needed, NULL, &err));
    FILE *f = fopen(path, "w");
    if (f == NULL || fputs(text, f) < 0) fail("cannot write %s: %s", path, strerror(errno));
    if (fclose(f) != 0) fail("cannot write %s: %s", path, strerror(errno));
    free(text);
}

/* The size is the image's unless one is asked for; and less strength means fewer calls. */
static void begin_with_image(drawing *p, settings *s, const weft_model_info *info, const weft_sampler *sampler)
{
    int32_t w, h;
    if (s->strength < 0) s->strength = s->mask ? 1.0f : 0.8f;
    if (s->width == 0) {
        image_size(s->image, &w, &h);
        s->width = w / info->image_factor * info->image_factor;
        s->height = h / info->image_factor * info->image_factor;
        if (s->width == 0 || s->height == 0) fail("%s: %d x %d pixels are too few", s->image, (int)w, (int)h);
    }
    must(weft_sampler_start(sampler, s->strength, &p->from.first, &err));
}

int generate(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    drawing p;
    weft_noise *noise;
    weft_run *run;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };

    if (s->prompt == NULL && s->conditioning == NULL) misuse("what shall be drawn? --prompt TEXT");
    if (s->conditioning && (s->prompt || s->negative)) misuse("--conditioning stands in for --prompt and --negative");
    if (s->negative && s->guidance <= 1.0f) misuse("--negative has no effect without guidance above 1");
    if (s->rescale > 0.0f && s->guidance <= 1.0f) misuse("--guidance-rescale has no effect without guidance above 1");
    if (s->conditioning && (s->weighting || s->clip_skip))
        misuse("%s is of prompts, and --conditioning stands in for them", s->weighting ? "--weighting" : "--clip-skip");
    if (s->plan.text == TEXT_EACH && s->conditioning)
        misuse("--text-plan each is of prompts, and --conditioning stands in for them");
    for (size_t i = 0; i < s->region_count; i++)
        if (s->conditioning && is_region_of_plan(s, &s->regions[i]))
            misuse("--region %s: --conditioning stands in for prompts, and has none for regions", s->regions[i].file);
    check_writable(s->output ? s->output : "weft.png", ".png");
    check_writable(s->save, ".safetensors");
    if (s->trace) check_writable(s->trace, is_json(s->trace) ? ".json" : ".png");
    memset(&p, 0, sizeof p);
    m.began = now();

    weft_model *model = open_model(s->target, s, &info);
    int guided = is_guided(s, &info);
    if (info.guidance_embed && (s->negative || s->rescale > 0.0f))
        misuse("%s is guidance-distilled (takes the guidance scale as an input): %s has no effect", s->target,
               s->negative ? "--negative" : "--guidance-rescale");
    if (!info.has_vae) fail("%s: the model has no VAE to turn latents into an image: give one with --vae", s->target);
    if (info.input_channels == 2 * info.latent_channels + 1 && !(s->image && s->mask))
        misuse("%s is an inpainting model: it wants --image and --mask", s->target);
    if (info.input_channels != info.latent_channels && info.input_channels != 2 * info.latent_channels + 1)
        fail("%s: it reads %d channels; this tool draws with those that read %d, or for inpainting %d", s->target,
             (int)info.input_channels, (int)info.latent_channels, (int)(2 * info.latent_channels + 1));
    weft_sampler *sampler = make_sampler(model, s);
    p.distilled = info.guidance_embed;
    p.calls = weft_sampler_calls(sampler);
    p.predictions = zeroed((size_t)p.calls, sizeof *p.predictions);
    must(weft_noise_create(s->seed, NULL, &noise, &err));
    if (s->image) begin_with_image(&p, s, &info, sampler);
    read_size(&p, s, &info);
    describe_streams(&p.cond, model, &info);
    p.cond.halves = guided ? 2 : 1;
    if (s->conditioning) read_conditioning(&p.cond, s);
    weft_plan *plan = make_plan(model, s, p.calls, &m);
    report_concepts(plan, s);
    if (!s->conditioning) {
        p.cond.tokens = measure_prompts(plan, s, &p.cond);
        p.cond.layers = layers_of_tokens(s);
        if (s->plan.text == TEXT_EACH) assign_texts(&p.cond, plan, model, p.calls);
    }
    s->run.text_tokens = (int32_t)p.cond.tokens;
    if (s->trace) s->run.flags |= WEFT_RUN_TRACE;
    s->run.log = warn_line;
    s->run.progress = show_progress;
    s->run.progress_user = &m;
    must(weft_run_create(plan, &s->run, &run, &err));
    watch_interrupt(run);
    if (!s->conditioning) {
        encode_prompt(run, s->prompt, s, &p.cond, p.cond.text[0], -1);
        if (guided && s->negative == NULL && info.zero_negative) /* as its authors have it, and diffusers does */
            make_streams(run, &p.cond, p.cond.text[1]);
        else if (guided)
            encode_prompt(run, s->negative, s, &p.cond, p.cond.text[1], -1);
        encode_regions(run, s, &p.cond);
    }
    read_origin(&p, s, &info, run, noise);

    double loop = now();
    m.steps = p.calls - p.from.first;
    denoise(&p, s, run, sampler, noise, &m);
    m.steps = 0;
    double looped = now() - loop;

    if (s->run.flags & WEFT_RUN_MEASURE) {
        weft_run_info about = WEFT_RUN_INFO_INIT;
        must(weft_run_info_get(run, &about, &err));
        clear_progress();
        fprintf(stderr, "weft: reused features change a call's result by at most %.2g of its largest value\n",
                about.reuse_error);
    }
    char *parameters = describe(s);
    write_image(&p, s, run, parameters);
    if (s->save) save_tensors(&p, s, parameters);
    if (s->trace) write_trace(s->trace, run, plan, model);
    watch_interrupt(NULL);
    clear_progress();
    if (!(s->flags & QUIET))
        fprintf(stderr, "weft: wrote %s: %dx%d, %d steps in %.2f s, %.2f s in all\n", s->output ? s->output : "weft.png",
                (int)s->width, (int)s->height, (int)(p.calls - p.from.first), looped, now() - m.began);

    for (int32_t n = 0; n < p.calls; n++) free(p.predictions[n]);
    free(p.predictions);
    free(p.start);
    free(p.latents);
    free(p.from.latents);
    free(p.from.mask);
    free(p.from.extra);
    free(parameters);
    free_conditioning(&p.cond);
    weft_noise_free(noise);
    weft_sampler_free(sampler);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}
