/* generate.c - draw images: encode the prompts, walk the steps, decode.
 *
 * Several pictures are one batch, but each has a sampler and noise of its own: it is the picture that
 * its prompt and seed make alone, bit for bit, unless the plan aligns them. A reference is sample 0
 * of the batch, whose latents are put in its place before each call. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

enum { STREAMS = 4 };

/* A text that is not of the first prompt from call 0 on. */
typedef struct other_text {
    int32_t   of;                                    /* a prompt; NEGATIVE, or REFERENCE                         */
    int32_t   from;                                  /* call                                                     */
    weft_text text[STREAMS];
} other_text;
enum { NEGATIVE = -1, REFERENCE = -2 };

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
    int32_t       *reads;                            /* [samples] which prompt, or REFERENCE                     */
    other_text    *others;                           /* of each prompt in the order of the calls                 */
    size_t         other_count;
    float         *now[STREAMS];                     /* what a call reads, a block for each branch and sample    */
    weft_text     *regions;                          /* [region_count][streams] of the plan's regions            */
    size_t         region_count;
    weft_text     *images[2];                        /* [image_count] rows of image prompts, as of text          */
    size_t         image_count;
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
        used += times(plan, use, i, s->negative, encode_flags(s)) + times(plan, use, i, s->reference_text, encode_flags(s));
        for (size_t k = 0; k < s->prompt_count; k++) used += times(plan, use, i, s->prompts[k], encode_flags(s));
        for (size_t k = 0; k < s->change_count; k++) used += times(plan, use, i, s->changes[k].text, encode_flags(s));
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

/* *most becomes the chunks of this prompt if they are more; says so if it is long and has a name. */
static void measure_prompt(const weft_plan *plan, const settings *s, const conditioning *c, const char *prompt,
                           const char *name, int32_t *most)
{
    int32_t tokens, chunks;

    if (prompt == NULL) return;
    must(weft_plan_prompt_size(plan, prompt, encode_flags(s), &tokens, &chunks, &err));
    if (chunks > 1 && name && !(s->flags & QUIET))
        fprintf(stderr, "weft: the %s has %d tokens: encoded whole, in %d chunks of %d\n", name, (int)tokens, (int)chunks,
                (int)c->about[0].tokens - 2);
    if (chunks > *most) *most = chunks;
}

/* How many tokens the text of all prompts has. */
static int64_t measure_prompts(const weft_plan *plan, const settings *s, const conditioning *c)
{
    int32_t most = 1;

    for (size_t i = 0; i < s->region_count; i++) measure_prompt(plan, s, c, s->regions[i].prompt, NULL, &most);
    for (size_t i = 0; i < s->prompt_count; i++) measure_prompt(plan, s, c, s->prompts[i], "prompt", &most);
    for (size_t i = 0; i < s->change_count; i++) measure_prompt(plan, s, c, s->changes[i].text, NULL, &most);
    measure_prompt(plan, s, c, s->reference_text, NULL, &most);
    if (c->halves == 2) measure_prompt(plan, s, c, s->negative, "negative prompt", &most);
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

/* Add the text of a prompt from a call on. */
static void add_text(weft_run *run, const char *prompt, const settings *s, conditioning *c, int32_t of, int32_t from)
{
    other_text *t = &c->others[c->other_count++];
    t->of = of;
    t->from = from;
    for (int32_t i = 0; i < c->streams; i++) t->text[i] = (weft_text)WEFT_TEXT_INIT;
    encode_prompt(run, prompt, s, c, t->text, -1);
}

/* Texts besides the first prompt and the negative one. */
static void encode_others(weft_run *run, const settings *s, conditioning *c, int32_t calls)
{
    c->others = zeroed(s->prompt_count + s->change_count + 1, sizeof *c->others);
    for (size_t i = 1; i < s->prompt_count; i++) add_text(run, s->prompts[i], s, c, (int32_t)i, 0);
    if (s->reference) add_text(run, s->reference_text, s, c, REFERENCE, 0);
    for (size_t i = 0; i < s->change_count; i++) {
        const change_use *u = &s->changes[i];
        const char *option = u->of < 0 ? "--negative-from" : "--prompt-from";
        int32_t from = call_of(u->when, calls);
        if (from >= calls) fail("%s %s: that is after the last call, which is %d", option, u->when, (int)calls - 1);
        for (size_t k = 0; k < i; k++)
            if (s->changes[k].of == u->of && call_of(s->changes[k].when, calls) >= from)
                fail("%s %s: that is not after %s %s", option, u->when, option, s->changes[k].when);
        if (u->of >= 0 || c->halves == 2) add_text(run, u->text, s, c, u->of < 0 ? NEGATIVE : u->of, from);
    }
}

/* What a prompt is at a call. */
static const weft_text *text_at(const conditioning *c, int32_t of, int32_t call)
{
    const weft_text *text = c->text[of == NEGATIVE];
    for (size_t i = 0; i < c->other_count; i++)
        if (c->others[i].of == of && c->others[i].from <= call) text = c->others[i].text;
    return text;
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

/* The pictures of one image prompt behind each other; the unconditional half has as many times none. */
static void encode_pictures(weft_run *run, const weft_plan *plan, const weft_image_encoder *encoder, const image_use *use,
                            int32_t prompt, weft_text *rows, int none)
{
    weft_image_prompt_info about = WEFT_IMAGE_PROMPT_INFO_INIT;

    must(weft_plan_image_prompt(plan, prompt, &about, &err));
    size_t room = (size_t)about.tokens * (size_t)about.width;
    *rows = (weft_text)WEFT_TEXT_INIT;
    rows->data = floats(room);
    for (size_t k = 0; k < use->count; k++) {
        weft_image_encode e = WEFT_IMAGE_ENCODE_INIT;
        float *picture = none ? NULL : read_picture(use->pictures[k], &e.width, &e.height);
        e.encoder = encoder;
        e.prompt = prompt;
        e.image = picture;
        e.image_len = 3 * (size_t)e.width * (size_t)e.height;
        e.data = rows->data + rows->len;
        e.len = room - rows->len;
        must(weft_run_encode_image_prompt(run, &e, &err));
        rows->tokens += e.tokens;
        rows->len = (size_t)rows->tokens * (size_t)about.width;
        free(picture);
    }
}

static void encode_images(weft_run *run, const weft_plan *plan, const settings *s, conditioning *c)
{
    weft_image_options how = WEFT_IMAGE_OPTIONS_INIT;
    weft_image_encoder *encoder;

    if (s->image_count == 0) return;
    for (size_t i = 0; i < s->image_count; i++) /* of a plan that was loaded; else it was looked at before */
        if (s->images[i].count == 0) fail("image prompt %zu of the plan, %s: no note says which picture", i, s->images[i].file);
    if (s->image_encoder == NULL) fail("the plan has image prompts: they need CLIP's image encoder, --image-encoder DIR");
    how.flags = how_to_open(s, s->image_encoder);
    how.log = warn_line;
    must(weft_image_encoder_open(s->image_encoder, &how, &encoder, &err));
    for (int half = 0; half < c->halves; half++) c->images[half] = zeroed(s->image_count, sizeof *c->images[half]);
    for (; c->image_count < s->image_count; c->image_count++)
        for (int half = 0; half < c->halves; half++)
            encode_pictures(run, plan, encoder, &s->images[c->image_count], (int32_t)c->image_count,
                            &c->images[half][c->image_count], half);
    weft_image_encoder_free(encoder);
}

static void free_conditioning(conditioning *c)
{
    for (int half = 0; half < 2; half++) {
        for (size_t i = 0; i < c->image_count && c->images[half]; i++) free(c->images[half][i].data);
        free(c->images[half]);
    }
    free(c->acts);
    free(c->reads);
    for (size_t i = 0; i < c->other_count; i++)
        for (int32_t k = 0; k < c->streams; k++) free(c->others[i].text[k].data);
    free(c->others);
    for (int32_t i = 0; i < c->streams; i++) free(c->now[i]);
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
    int64_t       shape[4];                          /* (n, c, h, w) */
    int32_t       n;                                 /* samples; the first is the reference if there is one */
    size_t        len;                               /* of a sample */
    float        *start, *latents;                   /* of all */
    float       **reference;                         /* [calls] its latents as each begins; NULL: there is none */
    weft_sampler **samplers;                         /* [n] */
    weft_noise  **noises;                            /* [n] */
    float       **predictions;                       /* [calls], each NULL unless saved */
    int32_t       calls;
} drawing;

static size_t all_of(const drawing *p) { return (size_t)p->n * p->len; }

/* Each sample's from its own source. */
static float *draw_noise(const drawing *p)
{
    float *drawn = floats(all_of(p));
    for (int32_t i = 0; i < p->n; i++)
        must(weft_noise_normal(p->noises[i], drawn + (size_t)i * p->len, p->len, &err));
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
    p->shape[0] = p->n;
    p->shape[1] = info->latent_channels;
    p->shape[2] = s->run.height;
    p->shape[3] = s->run.width;
    p->len = (size_t)info->latent_channels * (size_t)s->run.height * (size_t)s->run.width;
}

/* Latents of an image, drawn for each sample from the distribution that the encoder gives, as
 * diffusers draws them. */
static float *encode_image(const drawing *p, weft_run *run, const float *image, const settings *s)
{
    size_t each = 3 * (size_t)s->width * (size_t)s->height;
    float *drawn = draw_noise(p), *latents = floats(all_of(p)), *copies = floats((size_t)p->n * each);
    for (size_t i = 0; i < (size_t)p->n; i++) memcpy(copies + i * each, image, each * sizeof *image);
    must(weft_run_encode_image(run, copies, (size_t)p->n * each, drawn, all_of(p), latents, all_of(p), &err));
    free(copies);
    free(drawn);
    return latents;
}

/* The mask in latent pixels; and the image with grey under the mask, which an inpainting model
 * reads beside it. With any other model denoise() puts the image back around the mask after every
 * call. */
static void read_masked(drawing *p, float *image, const settings *s, const weft_model_info *info, weft_run *run)
{
    size_t pixels = (size_t)s->width * (size_t)s->height, plane = p->len / (size_t)info->latent_channels;
    size_t factor = (size_t)info->image_factor, across = (size_t)s->run.width;
    float *mask = read_mask(s->mask, s->width, s->height), *masked;

    p->from.mask = floats(plane);
    for (size_t i = 0; i < plane; i++)
        p->from.mask[i] = mask[i / across * factor * (size_t)s->width + i % across * factor];
    for (size_t i = 0; i < 3 * pixels; i++)
        if (mask[i % pixels] > 0) image[i] = 0.5f;
    masked = encode_image(p, run, image, s);
    if (info->input_channels > info->latent_channels) {
        p->from.extra_len = (size_t)p->n * (plane + p->len);
        p->from.extra = floats(p->from.extra_len);
        for (size_t i = 0; i < (size_t)p->n; i++) {
            float *extra = p->from.extra + i * (plane + p->len);
            memcpy(extra, p->from.mask, plane * sizeof *masked);
            memcpy(extra + plane, masked + i * p->len, p->len * sizeof *masked);
        }
    }
    free(masked);
    free(mask);
}

/* What an image begins with. Noise is drawn in diffusers' order, so that a seed means the same:
 * first for the image of --image (unless an inpainting model redraws all of it), then for the
 * latents, last for the image under the mask, even if no model reads that. */
static void read_origin(drawing *p, const settings *s, const weft_model_info *info, weft_run *run)
{
    float *image = s->image ? read_image(s->image, s->width, s->height) : NULL;
    int reads = info->input_channels > info->latent_channels;

    if (image && !(reads && s->strength >= 1.0f)) p->from.latents = encode_image(p, run, image, s);
    if (p->start == NULL) p->start = draw_noise(p);
    if (s->mask) read_masked(p, image, s, info, run);
    free(image);
}

/* Everything outside the mask becomes the image again, with the noise of the next call. */
static void keep_unmasked(drawing *p, int32_t next, float *scratch)
{
    size_t plane = (size_t)(p->shape[2] * p->shape[3]);
    const float *kept = p->from.latents;
    if (next < p->calls) {
        must(weft_sampler_add_noise(p->samplers[0], next, p->from.latents, p->start, scratch, all_of(p), &err));
        kept = scratch;
    }
    for (size_t i = 0; i < all_of(p); i++)
        if (p->from.mask[i % plane] == 0.0f) p->latents[i] = kept[i];
}

static void first_latents(drawing *p, const settings *s)
{
    const weft_sampler *sampler = p->samplers[0];

    p->latents = floats(all_of(p));
    if (p->from.latents && !(s->mask && s->strength >= 1.0f)) {
        must(weft_sampler_add_noise(sampler, p->from.first, p->from.latents, p->start, p->latents, all_of(p), &err));
        return;
    }
    for (size_t i = 0; i < all_of(p); i++) p->latents[i] = p->start[i] * weft_sampler_init_scale(sampler);
}

/* What samples [0, n) read at a call: one text for all, that of the adapter that acts, or each branch
 * its own; if there are several samples, a block for each. */
static void choose_texts(conditioning *c, int32_t call, int32_t n, weft_text text[2][STREAMS], weft_step *step)
{
    int32_t who = c->adapters ? c->acts[call] : 0;
    size_t branches = who < 0 ? (size_t)c->adapters : 1, block = 0;

    for (int half = 0; half < c->halves; half++) {
        text_of(c, text_at(c, half ? NEGATIVE : c->reads[0], call), who < 0 ? 0 : who, text[half]);
        for (int32_t i = 0; i < c->streams && who < 0; i++) text[half][i].len *= (size_t)c->adapters;
    }
    for (size_t b = 0; b < branches && n > 1; b++)
        for (int32_t k = 0; k < n; k++, block++) {
            weft_text one[STREAMS];
            text_of(c, text_at(c, c->reads[k], call), who < 0 ? (int32_t)b : who, one);
            for (int32_t i = 0; i < c->streams; i++) memcpy(c->now[i] + block * one[i].len, one[i].data, one[i].len * sizeof(float));
        }
    for (int32_t i = 0; i < c->streams && n > 1; i++) {
        text[0][i].len *= (size_t)n;
        text[0][i].data = c->now[i];
    }
    step->flags = who < 0 ? WEFT_STEP_TEXT_PER_BRANCH : 0;
}

/* What all calls of n samples have in common. */
static weft_step begin_step(const drawing *p, const settings *s, int32_t n, weft_text text[2][STREAMS])
{
    weft_step step = WEFT_STEP_INIT;

    step.latent_len = step.out_len = (size_t)n * p->len;
    step.text = text[0];                           step.text_count = (size_t)p->cond.streams;
    step.region_text = p->cond.region_count ? p->cond.regions : NULL;
    step.region_text_count = p->cond.region_count * (size_t)p->cond.streams;
    step.image = p->cond.images[0];                step.image_count = p->cond.image_count;
    if (p->distilled) step.guidance_embed = s->guidance;
    step.stamp = p->cond.stamp;
    return step;
}

/* The latents of --reference as each call begins, back from the picture: by the network itself, call by
 * call without guidance, or with noise that is drawn. */
static void take_reference(drawing *p, const settings *s, weft_plan *plan)
{
    const weft_sampler *sampler = p->samplers[0];
    size_t pixels = 3 * (size_t)s->width * (size_t)s->height;
    float *image = read_image(s->reference, s->width, s->height), *x = floats(p->len), *other = floats(p->len);
    weft_text text[2][STREAMS];
    weft_run_options one = s->run;
    weft_run *run;

    one.batch = 1;
    must(weft_run_create(plan, &one, &run, &err));
    watch_interrupt(run);
    must(weft_run_encode_image(run, image, pixels, NULL, 0, x, p->len, &err));
    if (s->reference_by == BY_NOISE) memcpy(other, p->start, p->len * sizeof *other);
    weft_step step = begin_step(p, s, 1, text);
    step.latent = step.out = other;
    p->reference = zeroed((size_t)p->calls, sizeof *p->reference);
    for (int32_t n = p->calls - 1; n >= p->from.first; n--) {
        p->reference[n] = floats(p->len);
        if (s->reference_by == BY_NOISE) {
            must(weft_sampler_add_noise(sampler, n, x, other, p->reference[n], p->len, &err));
            continue;
        }
        memcpy(other, x, p->len * sizeof *x);
        if (n + 1 < p->calls) must(weft_sampler_scale(sampler, n + 1, x, other, p->len, &err));
        choose_texts(&p->cond, n, 1, text, &step);
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_invert(sampler, n, other, x, p->len, &err));
        memcpy(p->reference[n], x, p->len * sizeof *x);
    }
    watch_interrupt(NULL);
    weft_run_free(run);
    free(image);
    free(x);
    free(other);
}

/* Calls up to `last`. */
static void denoise(drawing *p, const settings *s, weft_run *run, int32_t last, meter *m)
{
    float *scaled = floats(all_of(p)), *prediction = floats(all_of(p));
    weft_text text[2][STREAMS];
    weft_step step = begin_step(p, s, p->n, text);

    step.latent = scaled;
    step.out = prediction;
    if (p->cond.halves == 2) step.negative = text[1], step.negative_count = (size_t)p->cond.streams;
    if (p->cond.halves == 2) step.image_negative = p->cond.images[1], step.image_negative_count = p->cond.image_count;
    step.guidance = s->guidance;
    step.guidance_rescale = s->rescale;
    step.extra = p->from.extra;                    step.extra_len = p->from.extra_len;

    first_latents(p, s);
    for (int32_t i = 0; i < p->n; i++) must(weft_sampler_begin(p->samplers[i], p->from.first, p->len, &err));
    for (int32_t n = p->from.first; n < last; n++) {
        m->step = n - p->from.first;
        if (p->reference) memcpy(p->latents, p->reference[n], p->len * sizeof *p->latents);
        must(weft_sampler_scale(p->samplers[0], n, p->latents, scaled, all_of(p), &err));
        choose_texts(&p->cond, n, p->n, text, &step);
        step.call = n;
        step.timestep = weft_sampler_timestep(p->samplers[0], n);
        must(weft_run_step(run, &step, &err));
        for (int32_t i = 0; i < p->n; i++)
            must(weft_sampler_step(p->samplers[i], n, prediction + (size_t)i * p->len, p->latents + (size_t)i * p->len, p->len,
                                   p->noises[i], &err));
        if (p->from.mask && !p->from.extra) keep_unmasked(p, n + 1, scaled);
        if (s->save && last == p->calls) p->predictions[n] = memcpy(floats(all_of(p)), prediction, all_of(p) * sizeof(float));
    }
    free(scaled);
    free(prediction);
}

/* The rows of an adapter's words in the prompt. */
static weft_subject subject_of(const weft_plan *plan, const settings *s, const adapter_use *use)
{
    weft_subject subject = WEFT_SUBJECT_INIT;
    uint32_t     flags = encode_flags(s);

    must(weft_plan_find_words(plan, s->prompt, use->words, flags, NULL, 0, &subject.count, &err));
    int32_t *rows = zeroed(subject.count, sizeof *rows);
    must(weft_plan_find_words(plan, s->prompt, use->words, flags, rows, subject.count, &subject.count, &err));
    subject.tokens = rows;
    return subject;
}

static void save_mask(const settings *s, int32_t adapter, const float *mask, int32_t h, int32_t w)
{
    size_t   n = (size_t)h * (size_t)w;
    uint8_t *rgb = zeroed(3 * n, 1);
    char     path[4096];

    for (size_t i = 0; i < 3 * n; i++) rgb[i] = mask[i / 3] > 0 ? 255 : 0;
    snprintf(path, sizeof path, "%s-%c.png", s->save_masks, 'A' + (int)adapter);
    must(weft_png_write(path, rgb, 3 * n, w, h, NULL, 0, &err));
    free(rgb);
}

/* The plan with masks for the adapters that have words. */
static weft_plan *masked_plan(weft_plan *plan, const settings *s, const weft_run *run, int32_t calls)
{
    weft_plan *masked;
    weft_mask  m = WEFT_MASK_INIT;
    size_t     subjects = 0, at = 0;

    for (size_t i = 0; i < s->adapter_count; i++) subjects += s->adapters[i].words != NULL;
    must(weft_run_located_size(run, &m.height, &m.width, &err));
    m.len = (size_t)m.height * (size_t)m.width;
    float *masks = floats(subjects * m.len);
    must(weft_run_located(run, 0, WEFT_LOCATED_MASKS, masks, subjects * m.len, &err));
    must(weft_plan_copy(plan, &masked, &err));
    for (size_t i = 0; i < s->adapter_count; i++) {
        const adapter_use *use = &s->adapters[i];
        if (use->words == NULL) continue;
        m.values = masks + at++ * m.len;
        must(weft_plan_set_mask(masked, use->index, &m, &err));
        if (s->save_masks) save_mask(s, use->index, m.values, m.height, m.width);
    }
    must(weft_plan_seal(masked, calls, &err));
    save_plan(masked, s);
    free(masks);
    return masked;
}

/* A first pass looks where the adapters' words are; the run goes on with masks there. */
static weft_plan *find_masks(drawing *p, const settings *s, weft_plan *plan, weft_run *run, meter *m)
{
    weft_locate_options o = WEFT_LOCATE_OPTIONS_INIT;
    weft_subject       *subjects = zeroed(s->adapter_count, sizeof *subjects);
    int32_t             last = p->from.first + s->find_masks;
    weft_noise         *own = p->noises[0];

    for (size_t i = 0; i < s->adapter_count; i++)
        if (s->adapters[i].words) subjects[o.subject_count++] = subject_of(plan, s, &s->adapters[i]);
    o.subjects = subjects;
    must(weft_run_locate(run, &o, &err));
    must(weft_noise_create(s->seed, NULL, &p->noises[0], &err)); /* the image's own stays as it is */
    m->steps = last < p->calls ? s->find_masks : p->calls - p->from.first;
    denoise(p, s, run, last < p->calls ? last : p->calls, m);
    weft_plan *masked = masked_plan(plan, s, run, p->calls);
    must(weft_run_locate(run, NULL, &err));
    must(weft_run_set_plan(run, masked, &err));
    for (size_t i = 0; i < o.subject_count; i++) free((int32_t *)(uintptr_t)subjects[i].tokens);
    free(subjects);
    weft_noise_free(p->noises[0]);
    p->noises[0] = own;
    free(p->latents);
    weft_plan_free(plan);
    return masked;
}

static void describe_changes(FILE *f, const settings *s, int32_t of, const char *name)
{
    for (size_t i = 0; i < s->change_count; i++)
        if (s->changes[i].of == of) fprintf(f, ", %s from %s: \"%s\"", name, s->changes[i].when, s->changes[i].text);
}

static void describe_align(FILE *f, const settings *s)
{
    const weft_align_options *o = &s->align;
    static const struct { uint32_t bit; const char *says; } parts[] = {
        { WEFT_ALIGN_NO_GROUP_NORM, " without group-norm" }, { WEFT_ALIGN_NO_ATTENTION, " without attention" },
        { WEFT_ALIGN_NO_QUERIES, " without queries" }, { WEFT_ALIGN_NO_KEYS, " without keys" },
        { WEFT_ALIGN_VALUES, " adain_values" }, { WEFT_ALIGN_FULL, " full_attention_share" },
    };

    fprintf(f, ", Aligned:%s", s->reference ? " to " : "");
    if (s->reference) fprintf(f, "\"%s\" by %s", s->reference, s->reference_by == BY_NOISE ? "noise" : "inversion");
    else fprintf(f, " to the first");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (o->flags & parts[i].bit) fputs(parts[i].says, f);
    if (o->flags & WEFT_ALIGN_SCALE) fprintf(f, " shared_score_scale %g", (double)o->shared_score_scale);
    if (o->shared_score_shift != 0) fprintf(f, " shared_score_shift %g", (double)o->shared_score_shift);
    if (o->only_self_level != 0) fprintf(f, " only_self_level %g", o->only_self_level);
}

/* The text other tools read: the prompt, the negative prompt, then one line of settings. Of picture
 * `index`, whose prompt is number `of`. */
static char *describe(const settings *s, const weft_plan *plan, int32_t index, int32_t of)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL) fail("out of memory");

    fprintf(f, "%s\n", s->prompt ? s->prompts[of] : "");
    if (s->negative && *s->negative) fprintf(f, "Negative prompt: %s\n", s->negative);
    fprintf(f, "Steps: %d, Sampler: ", (int)s->steps);
    print_sampler(f, s);
    fprintf(f, ", CFG scale: %g, Seed: %" PRIu64 ", Size: %dx%d, Model: %s", (double)s->guidance,
            s->seed + (uint64_t)index, (int)s->width, (int)s->height, s->target);
    if (s->open.arithmetic != WEFT_ARITHMETIC_F32)
        fprintf(f, ", Arithmetic: %s", weft_arithmetic_name(s->open.arithmetic));
    describe_changes(f, s, of, "Prompt");
    describe_changes(f, s, -1, "Negative");
    if (s->flags & ALIGN) describe_align(f, s);
    if (s->rescale > 0.0f) fprintf(f, ", CFG rescale: %g", (double)s->rescale);
    if (s->eta > 0.0f) fprintf(f, ", Eta: %g", (double)s->eta);
    if (s->sampling.order > 0) fprintf(f, ", Solver order: %d", (int)s->sampling.order);
    if (s->clip_skip) fprintf(f, ", Clip skip: %d", (int)s->clip_skip + 1); /* other tools count the last layer as 1 */
    if (s->image) fprintf(f, ", Denoising strength: %g, Image: %s", (double)s->strength, s->image);
    if (s->mask) fprintf(f, ", Mask: %s", s->mask);
    if (s->latents) fprintf(f, ", Start latents: %s", s->latents);
    if (s->conditioning) fprintf(f, ", Conditioning: %s", s->conditioning);
    describe_hash(f, s, plan);
    if (s->adapter_count) {
        fprintf(f, ", Compose: %s", word_of(methods, s->phases[0].method));
        describe_phase(f, &s->phases[0]);
        for (size_t i = 1; i < s->phase_count; i++) {
            const phase_use *ph = &s->phases[i];
            fprintf(f, ", Phase: %s from ", word_of(methods, ph->method));
            if (ph->begin.flags & WEFT_PHASE_AT) fprintf(f, "%g of the calls", ph->begin.at);
            else fprintf(f, "call %d", (int)ph->begin.first);
            describe_phase(f, ph);
        }
        if (s->plan.mixed != WEFT_MIXED_DELTA) fprintf(f, ", Mixed: %s", word_of(mixes, s->plan.mixed));
        if (s->flags & BALANCE)
            fprintf(f, ", Balance: %s%s", s->balance.gamma == WEFT_KLORA_GAMMA_PAPER ? "paper" : "code",
                    s->balance.role == WEFT_ROLE_CONTENT ? " to content" : s->balance.role == WEFT_ROLE_STYLE ? " to style" : "");
        fprintf(f, ", Adapters: \"");
        for (size_t i = 0; i < s->adapter_count; i++)
            fprintf(f, "%s%s:%g%s%s", i ? ", " : "", s->adapters[i].file, (double)s->adapters[i].weight,
                    s->adapters[i].blocks ? " blocks " : "", s->adapters[i].blocks ? s->adapters[i].blocks : "");
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
    for (size_t i = 0; i < s->image_count; i++) {
        const image_use *u = &s->images[i];
        fprintf(f, "%s%s:%g", i ? ", " : ", Image prompts: \"", u->file, (double)u->weight);
        for (size_t k = 0; k < u->count; k++) fprintf(f, "%s %s", k ? " and" : " of", u->pictures[k]);
        if (u->blocks) fprintf(f, " at %s", u->blocks);
        if (u->mask) fprintf(f, " in %s", u->mask);
        if (i + 1 == s->image_count) fputc('"', f);
    }
    if (s->find_masks) {
        fprintf(f, ", Masks found in: %d calls", (int)s->find_masks);
        for (size_t i = 0; i < s->adapter_count; i++)
            if (s->adapters[i].words) fprintf(f, ", %s", s->adapters[i].words);
    }
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
        { "start", p->start, { p->n, p->shape[1], p->shape[2], p->shape[3] }, 4 },
        { "latents", p->latents, { p->n, p->shape[1], p->shape[2], p->shape[3] }, 4 },
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (fixed[i].data == NULL) continue;
        out[count].name = fixed[i].name;
        out[count].data = fixed[i].data;
        out[count].rank = fixed[i].rank;
        memcpy(out[count++].shape, fixed[i].shape, sizeof fixed[i].shape);
    }
    for (int i = 0; i < c->halves * c->streams && c->adapters == 0 && c->other_count == 0; i++) { /* a file is one text for all */
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

/* "cat.png" of several pictures is "cat-1.png" and on. The caller frees it. */
static char *output_name(const settings *s, int32_t index, int32_t count)
{
    const char *path = s->output ? s->output : "weft.png", *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    size_t stem = dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path), room = strlen(path) + 16;
    char *name = zeroed(room, 1);

    if (count == 1) memcpy(name, path, strlen(path));
    else snprintf(name, room, "%.*s-%d%s", (int)stem, path, (int)index + 1, path + stem);
    return name;
}

/* Every picture but the reference. Answers the parameters of the first. */
static char *write_images(const drawing *p, const settings *s, weft_run *run, const weft_plan *plan)
{
    int32_t from = p->reference != NULL, count = p->n - from;
    size_t len = 3 * (size_t)s->width * (size_t)s->height;
    float *images = floats((size_t)p->n * len);
    uint8_t *rgb = zeroed(len, 1);
    char *first = NULL;

    must(weft_run_decode(run, p->latents, all_of(p), images, (size_t)p->n * len, &err));
    for (int32_t i = 0; i < count; i++) {
        char *parameters = describe(s, plan, i, p->cond.reads[from + i]), *name = output_name(s, i, count);
        const char *text[2] = { "parameters", parameters };
        must(weft_image_bytes(images + (size_t)(from + i) * len, len, s->width, s->height, rgb, len, &err));
        must(weft_png_write(name, rgb, len, s->width, s->height, text, s->flags & NO_PARAMETERS ? 0 : 1, &err));
        free(name);
        if (i == 0) first = parameters;
        else free(parameters);
    }
    free(images);
    free(rgb);
    return first;
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

/* Samples, and what each has of its own. */
static void make_samples(drawing *p, settings *s, const weft_model *model)
{
    int32_t pictures = s->prompt_count > 1 ? (int32_t)s->prompt_count : s->run.batch > 0 ? s->run.batch : 1;
    int32_t from = s->reference != NULL;

    p->n = s->run.batch = pictures + from;
    p->samplers = zeroed((size_t)p->n, sizeof(weft_sampler *));
    p->noises = zeroed((size_t)p->n, sizeof(weft_noise *));
    p->cond.reads = zeroed((size_t)p->n, sizeof *p->cond.reads);
    for (int32_t i = 0; i < p->n; i++) {
        int32_t picture = i < from ? pictures : i - from; /* the reference's noise comes after all others' */
        p->samplers[i] = make_sampler(model, s);
        must(weft_noise_create(s->seed + (uint64_t)picture, NULL, &p->noises[i], &err));
        p->cond.reads[i] = i < from ? REFERENCE : s->prompt_count > 1 ? picture : 0;
    }
    p->calls = weft_sampler_calls(p->samplers[0]);
    p->predictions = zeroed((size_t)p->calls, sizeof *p->predictions);
}

static void free_drawing(drawing *p)
{
    for (int32_t n = 0; n < p->calls; n++) {
        free(p->predictions[n]);
        if (p->reference) free(p->reference[n]);
    }
    for (int32_t i = 0; i < p->n; i++) {
        weft_sampler_free(p->samplers[i]);
        weft_noise_free(p->noises[i]);
    }
    free((void *)p->samplers);
    free((void *)p->noises);
    free((void *)p->predictions);
    free((void *)p->reference);
    free(p->start);
    free(p->latents);
    free(p->from.latents);
    free(p->from.mask);
    free(p->from.extra);
    free_conditioning(&p->cond);
}

static void check_find_masks(const settings *s)
{
    int words = 0;

    for (size_t i = 0; i < s->adapter_count; i++) {
        const adapter_use *use = &s->adapters[i];
        if (use->words == NULL) continue;
        words++;
        if (s->find_masks == 0) misuse("--words is of --find-masks");
        if (use->is_concept) misuse("--words is of an --adapter, and %s is a concept", use->file);
        if (use->region) misuse("%s has a --region, and --words would find another", use->file);
    }
    if (s->find_masks && words < 2) misuse("--find-masks: %d adapters have --words, wanted 2 or more that share the image", words);
    if (s->find_masks && s->conditioning) misuse("--find-masks is of a prompt, and --conditioning stands in for it");
    if (s->save_masks && s->find_masks == 0) misuse("--save-masks is of --find-masks");
}

int generate(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    drawing p;
    weft_run *run;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };

    weft_model *model = NULL;
    if (s->plan_file) { /* which has settings too */
        model = open_model(s->target, s, &info);
        load_plan(model, s, &m);
    }
    if (s->prompt == NULL && s->conditioning == NULL) misuse("what shall be drawn? --prompt TEXT");
    if (s->conditioning && (s->prompt || s->negative)) misuse("--conditioning stands in for --prompt and --negative");
    for (size_t i = 0; i < s->change_count && s->guidance <= 1.0f; i++)
        if (s->changes[i].of < 0) misuse("--negative-from has no effect without guidance above 1");
    if (s->negative && s->guidance <= 1.0f) misuse("--negative has no effect without guidance above 1");
    if (s->rescale > 0.0f && s->guidance <= 1.0f) misuse("--guidance-rescale has no effect without guidance above 1");
    if (s->conditioning && (s->weighting || s->clip_skip))
        misuse("%s is of prompts, and --conditioning stands in for them", s->weighting ? "--weighting" : "--clip-skip");
    if (s->plan.text == TEXT_EACH && s->conditioning)
        misuse("--text-plan each is of prompts, and --conditioning stands in for them");
    for (size_t i = 0; i < s->region_count; i++)
        if (s->conditioning && is_region_of_plan(s, &s->regions[i]))
            misuse("--region %s: --conditioning stands in for prompts, and has none for regions", s->regions[i].file);
    for (size_t i = 0; i < s->image_count; i++)
        if (s->images[i].count == 0) misuse("--ip-adapter %s: which picture? --image-prompt PNG", s->images[i].file);
    if (s->image_count && s->image_encoder == NULL)
        misuse("--ip-adapter needs CLIP's image encoder: --image-encoder DIR");
    check_find_masks(s);
    check_writable(s->output ? s->output : "weft.png", ".png");
    check_writable(s->save, ".safetensors");
    if (s->trace) check_writable(s->trace, is_json(s->trace) ? ".json" : ".png");
    check_writable(s->save_plan, ".json");
    memset(&p, 0, sizeof p);
    m.began = now();

    if (model == NULL) model = open_model(s->target, s, &info);
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
    make_samples(&p, s, model);
    p.distilled = info.guidance_embed;
    if (s->image) begin_with_image(&p, s, &info, p.samplers[0]);
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
        encode_others(run, s, &p.cond, p.calls);
        encode_regions(run, s, &p.cond);
    }
    encode_images(run, plan, s, &p.cond);
    for (int32_t i = 0; i < p.cond.streams && p.n > 1; i++)
        p.cond.now[i] = floats((size_t)p.n * (size_t)(p.cond.adapters > 1 ? p.cond.adapters : 1) * p.cond.text[0][i].len);
    read_origin(&p, s, &info, run);
    if (s->reference) {
        take_reference(&p, s, plan);
        watch_interrupt(run);
    }

    if (s->find_masks && p.n > 1) misuse("--find-masks is of one picture at a time");
    double loop = now();
    if (s->find_masks) plan = find_masks(&p, s, plan, run, &m);
    m.steps = p.calls - p.from.first;
    denoise(&p, s, run, p.calls, &m);
    m.steps = 0;
    double looped = now() - loop;

    if (s->run.flags & WEFT_RUN_MEASURE) {
        weft_run_info about = WEFT_RUN_INFO_INIT;
        must(weft_run_info_get(run, &about, &err));
        clear_progress();
        fprintf(stderr, "weft: reused features change a call's result by at most %.2g of its largest value\n",
                about.reuse_error);
    }
    char *parameters = write_images(&p, s, run, plan), *wrote = output_name(s, 0, p.n - (p.reference != NULL));
    if (s->save) save_tensors(&p, s, parameters);
    if (s->trace) write_trace(s->trace, run, plan, model);
    watch_interrupt(NULL);
    clear_progress();
    if (!(s->flags & QUIET))
        fprintf(stderr, "weft: wrote %s%s: %dx%d, %d steps in %.2f s, %.2f s in all\n", wrote,
                p.n - (p.reference != NULL) > 1 ? " and on" : "", (int)s->width, (int)s->height, (int)(p.calls - p.from.first), looped, now() - m.began);

    free(parameters);
    free(wrote);
    free_drawing(&p);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}
