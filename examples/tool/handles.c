/* handles.c - from what was asked for to the library's handles. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

weft_model *open_model(const char *path, settings *s, weft_model_info *info)
{
    weft_model *model;
    s->open.log = warn_line;
    s->open.flags |= how_to_open(s, path) | (s->open.vae != NULL ? how_to_open(s, s->open.vae) : 0);
    must(weft_model_open(path, &s->open, &model, &err));
    must(weft_model_info_get(model, info, &err));
    return model;
}

int is_guided(const settings *s, const weft_model_info *info)
{
    return s->guidance > 1.0f && !info->guidance_embed;
}

weft_sampler *make_sampler(const weft_model *model, const settings *s)
{
    weft_sampler_options o = s->sampling;
    weft_sampler *sampler;

    o.steps = s->steps;
    o.sigmas = s->sigmas;
    o.sigmas_len = s->sigma_count;
    if (s->flags & KARRAS) o.sigma_schedule = WEFT_SCHEDULE_KARRAS;
    must(weft_sampler_options_from_model(model, &o, &err));
    o.eta = s->eta;
    if (s->spacing != NOTHING_SAID) o.spacing = s->spacing;
    must(weft_sampler_create(&o, &sampler, &err));
    return sampler;
}

void print_sampler(FILE *f, const settings *s)
{
    int32_t schedule = s->flags & KARRAS ? WEFT_SCHEDULE_KARRAS : s->sampling.sigma_schedule;

    fputs(weft_sampler_name(s->sampling.kind), f);
    if (schedule != WEFT_SCHEDULE_DEFAULT) fprintf(f, " %s", weft_sampler_schedule_name(schedule));
}

/* Is it an adapter of the plan, and not tokens only? */
static int acts(const adapter_use *use)
{
    if (!use->is_concept) return 1;
    weft_adapter *inside = weft_concept_adapter(use->concept);
    weft_adapter_free(inside);
    if (inside == NULL && (use->curve_points || use->region || use->blocks))
        misuse("%s has tokens only: %s is for an adapter", use->file,
               use->region ? "--region" : use->blocks ? "--blocks" : "--curve");
    return inside != NULL;
}

static void set_curve(weft_plan *plan, int32_t index, adapter_use *use)
{
    for (size_t i = 0; i < use->curve_points; i++) use->curve[i].shape = use->curve_shape;
    must_of("--curve of", use->file,
            weft_plan_set_curve(plan, index, use->curve_flags, use->curve, use->curve_points, &err));
}

/* The caller frees what it gives as values. */
static float *read_region(weft_mask *m, const char *file)
{
    float *values = read_gray(file, &m->width, &m->height);
    m->values = values;
    m->len = (size_t)m->width * (size_t)m->height;
    return values;
}

static void set_region(weft_plan *plan, int32_t index, const adapter_use *use)
{
    weft_mask m = WEFT_MASK_INIT;
    float *values = read_region(&m, use->region);
    m.flags = WEFT_MASK_TEXT;
    m.text = use->region_text;
    must_of("--region", use->region, weft_plan_set_mask(plan, index, &m, &err));
    free(values);
}

int is_region_of_plan(const settings *s, const region_use *region)
{
    return region->planned || region->prompt != NULL || (s->flags & ISOLATE);
}

static void add_regions(weft_plan *plan, const settings *s)
{
    for (size_t i = 0; i < s->region_count; i++) {
        const region_use *use = &s->regions[i];
        weft_region region = WEFT_REGION_INIT;
        weft_mask m = WEFT_MASK_INIT;
        float *values = NULL;
        if (!is_region_of_plan(s, use)) continue;
        if (s->flags & ISOLATE) region.flags |= WEFT_REGION_ISOLATED;
        if (use->use >= 0) {
            region.flags |= WEFT_REGION_ADAPTER;
            region.adapter = s->adapters[use->use].index;
        } else {
            values = read_region(&m, use->file);
            region.mask = &m;
        }
        must_of("--region", use->file != NULL ? use->file : "of an adapter",
                weft_plan_add_region(plan, &region, &err));
        free(values);
    }
}

/* The plan keeps the IP-Adapters. */
static void add_images(weft_plan *plan, const settings *s)
{
    for (size_t i = 0; i < s->image_count; i++) {
        const image_use *use = &s->images[i];
        weft_image_options how = WEFT_IMAGE_OPTIONS_INIT;
        weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
        weft_mask m = WEFT_MASK_INIT;
        weft_image_adapter *adapter;
        float *values = NULL;

        how.flags = how_to_open(s, use->file);
        how.log = warn_line;
        must(weft_image_adapter_open(use->file, &how, &adapter, &err));
        o.blocks = use->blocks;
        o.images = (int32_t)use->count;
        if (use->mask) {
            values = read_region(&m, use->mask);
            o.mask = &m;
        }
        must(weft_plan_add_image_prompt(plan, adapter, use->weight, &o, &err));
        must(weft_plan_set_image_curve(plan, (int32_t)i, use->curve_flags, use->curve, use->curve_points, &err));
        weft_image_adapter_free(adapter);
        free(values);
    }
}

void open_adapter(const settings *s, adapter_use *use)
{
    use->opening.flags |= how_to_open(s, use->file);
    must(weft_adapter_open(use->file, &use->opening, &use->adapter, &err));
}

static void set_zip(weft_plan *plan, const phase_use *p)
{
    weft_zip_options o = p->zip;
    if (p->coefficients) must(weft_tensors_open(p->coefficients, NULL, &o.coefficients, &err));
    if (p->zip_network) {
        weft_tensors *network;
        must(weft_tensors_open(p->zip_network, NULL, &network, &err));
        must(weft_plan_zip_predict(plan, network, &o.coefficients, &err));
        weft_tensors_free(network);
    }
    must(weft_plan_zip(plan, &o, &err));
    weft_tensors_free(o.coefficients);
}

weft_plan *make_plan(weft_model *model, settings *s, int32_t calls, meter *m)
{
    weft_plan *plan;
    int32_t index = 0;

    load_plan(model, s, m);
    if (s->loaded != NULL) {
        note_settings(s->loaded, s);
        return seal_plan(s->loaded, s, calls);
    }
    weft_plan_options o = s->plan;
    if (o.text == TEXT_EACH) o.text = WEFT_TEXT_METHOD;
    o.log = warn_line;
    o.progress = show_progress;
    o.progress_user = m;
    must(weft_plan_create(model, &o, &plan, &err));
    for (size_t i = 0; i < s->adapter_count; i++) {
        adapter_use      *use = &s->adapters[i];
        weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
        text.text_1 = text.text_2 = text.text_3 = use->text_weight;
        if (use->given & TEXT_WEIGHT) use->how.text_weights = &text;
        if (use->is_concept) {
            use->tokens.flags |= how_to_open(s, use->file);
            must(weft_concept_open(use->file, &use->tokens, &use->concept, &err));
            must(weft_plan_add_concept(plan, use->concept, use->weight, &use->how, &err));
        } else {
            open_adapter(s, use);
            must(weft_plan_add(plan, use->adapter, use->weight, &use->how, &err));
        }
        use->how.text_weights = NULL;
        if (!acts(use)) continue;
        if (use->curve_points) set_curve(plan, index, use);
        if (use->region) set_region(plan, index, use);
        if (use->blocks)
            must_of("--blocks of", use->file, weft_plan_set_blocks(plan, index, use->blocks, &err));
        use->index = index++;
    }
    add_regions(plan, s);
    add_images(plan, s);
    if (s->flags & ALIGN) must(weft_plan_align(plan, &s->align, &err));
    for (size_t i = 0; i < s->phase_count; i++) {
        const phase_use *p = &s->phases[i];
        if (i > 0) must(weft_plan_begin_phase(plan, &p->begin, &err));
        switch (p->method) {
        case SWITCH:    must(weft_plan_switch(plan, &p->taking_turns, &err)); break;
        case COMPOSITE: must(weft_plan_composite(plan, &p->composite, &err)); break;
        case KLORA:     must(weft_plan_klora(plan, &p->klora, &err)); break;
        case LORATORIO: must(weft_plan_loratorio(plan, &p->loratorio, &err)); break;
        case SUBBANDS:  must(weft_plan_subbands(plan, &p->subbands, &err)); break;
        case BLEND:     must(weft_plan_blend(plan, &p->blend, &err)); break;
        case ZIP:       set_zip(plan, p); break;
        case BLORA:     must(weft_plan_blora(plan, &p->blora, &err)); break;
        default:        must(weft_plan_merge(plan, &err)); break;
        }
    }
    if (s->flags & BALANCE) must(weft_plan_balance(plan, &s->balance, &err));
    note_settings(plan, s);
    return seal_plan(plan, s, calls);
}

int32_t call_of(const char *when, int32_t calls)
{
    double  at = strtod(when, NULL);
    int32_t n = 0;

    if (strchr(when, '.') == NULL) return (int32_t)at;
    while ((double)n / calls < at) n++;
    return n > 0 ? n : 1;
}

/* The image's size in latent pixels goes into the run's options. */
void set_size(settings *s, const weft_model_info *info)
{
    int32_t factor = info->image_factor;
    if (s->width % factor || s->height % factor)
        misuse("--size %dx%d: this model's images come in multiples of %d", (int)s->width, (int)s->height,
               (int)factor);
    s->run.width = s->width ? s->width / factor : info->latent_size;
    s->run.height = s->height ? s->height / factor : info->latent_size;
    s->width = s->run.width * factor;
    s->height = s->run.height * factor;
}

/* A name that promises another format than `format`, ".png": other programs go by it. */
static void check_ending(const char *path, const char *format)
{
    static const char *const endings[] = {
        ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
        ".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".json", ".txt",
    };
    const char *dot = strrchr(path, '.');

    if (dot == NULL || strcasecmp(dot, format) == 0) return;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (strcasecmp(dot, endings[i]) == 0)
            misuse("%s: what is written is a %s file, not %s: name it so", path, format, dot);
}

/* Better to hear it before the first step than after the last. */
void check_writable(const char *path, const char *format)
{
    if (path == NULL) return;
    if (format != NULL) check_ending(path, format);
    const char *slash = strrchr(path, '/');
    char *folder = zeroed(strlen(path) + 2, 1);

    if (slash == NULL) strcpy(folder, ".");
    else memcpy(folder, path, slash == path ? 1 : (size_t)(slash - path));
    int why = access(folder, W_OK) != 0 ? errno : 0;
    free(folder);
    if (why != 0) fail("cannot write %s: %s", path, strerror(why));
}

int is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}
