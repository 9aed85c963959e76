/* planfile.c - plans in files: --plan in place of adapters and methods, and --save-plan.
 *
 * The library writes and reads the plan. What generate needs besides, as the prompt and the seed,
 * are notes of the plan: each is an option of this program, by its name and with its value as it
 * was given, or the file that it names. So one file is one picture, and an option on the command
 * line stands over its note. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

void load_plan(weft_model *model, settings *s, meter *m)
{
    weft_plan_load_options o = WEFT_PLAN_LOAD_OPTIONS_INIT;

    if (s->plan_file == NULL || s->loaded != NULL) return;
    o.flags = how_to_open(s, s->plan_file) | (s->flags & ANY_MODEL ? WEFT_LOAD_ANY_MODEL : 0u);
    o.log = warn_line;
    o.progress = show_progress;
    o.progress_user = m;
    must(weft_plan_load(model, s->plan_file, &o, &s->loaded, &err));
    read_notes(s, s->loaded);
}

/* The prompt of region `index` is a note too; the name holds until the next call. */
static const char *region_note(int32_t index)
{
    static char name[32];
    snprintf(name, sizeof name, "region-%d", (int)index);
    return name;
}

/* So is picture `k` of image prompt `index`. */
static const char *picture_note(size_t index, size_t k)
{
    static char name[64];
    snprintf(name, sizeof name, "picture-%zu-%zu", index, k);
    return name;
}

static char *copy_of(const char *text)
{
    return strcpy(zeroed(strlen(text) + 1, 1), text);
}

/* Set a note again, behind the others; nothing if there is none. */
static void renew_note(weft_plan *plan, const char *name)
{
    if (weft_plan_note(plan, name) == NULL) return;
    char *value = copy_of(weft_plan_note(plan, name));
    must((weft_plan_note_is_file(plan, name) ? weft_plan_set_note_file : weft_plan_set_note)(plan, name, value, &err));
    free(value);
}

static void show_concepts(const weft_plan *plan, settings *s)
{
    weft_concept *c;

    for (size_t i = 0; (c = weft_plan_concept(plan, i)) != NULL; i++) {
        adapter_use      *use = &s->adapters[s->adapter_count++];
        weft_concept_info about = WEFT_CONCEPT_INFO_INIT;
        must(weft_concept_info_get(c, &about, &err));
        use->file = copy_of(about.name);
        use->is_concept = 1;
        use->index = -1;
        use->weight = 1;
        use->concept = c;
    }
}

/* Tell the settings what is in a plan that was loaded, as if it had been on the command line. */
static void show_plan(const weft_plan *plan, settings *s)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    size_t         concepts = 0;
    weft_concept  *c;

    must(weft_plan_info_get(plan, &info, &err));
    while ((c = weft_plan_concept(plan, concepts)) != NULL) {
        weft_concept_free(c);
        concepts++;
    }
    free(s->adapters);
    free(s->regions);
    s->adapters = zeroed((size_t)info.adapters + concepts + 1, sizeof *s->adapters);
    s->regions = zeroed((size_t)info.regions + 1, sizeof *s->regions);
    for (int32_t a = 0; a < info.adapters; a++) { /* number a of both */
        weft_plan_adapter_info one = WEFT_PLAN_ADAPTER_INFO_INIT;
        adapter_use           *use = &s->adapters[s->adapter_count++];
        must(weft_plan_adapter(plan, a, &one, &err));
        use->file = copy_of(one.name);
        use->weight = one.weight;
        use->blocks = *one.blocks ? one.blocks : NULL;
        use->index = a;
    }
    show_concepts(plan, s);
    for (int32_t r = 0; r < info.regions; r++) {
        weft_region region = WEFT_REGION_INIT;
        weft_mask mask = WEFT_MASK_INIT;
        region_use *use = &s->regions[s->region_count++];
        must(weft_plan_region(plan, r, &region, &mask, &err));
        use->file = copy_of("the plan's");
        use->prompt = weft_plan_note(plan, region_note(r));
        use->use = region.flags & WEFT_REGION_ADAPTER ? region.adapter : -1;
        use->planned = 1;
    }
    free(s->images);
    s->images = zeroed((size_t)weft_plan_image_prompts(plan) + 1, sizeof *s->images);
    for (int32_t i = 0; i < weft_plan_image_prompts(plan); i++) {
        weft_image_prompt_info one = WEFT_IMAGE_PROMPT_INFO_INIT;
        image_use             *use = &s->images[s->image_count++];
        must(weft_plan_image_prompt(plan, i, &one, &err));
        use->file = copy_of(one.name);
        use->weight = one.weight;
        use->blocks = *one.blocks ? one.blocks : NULL;
        use->pictures = zeroed((size_t)one.images, sizeof *use->pictures);
        while (use->count < (size_t)one.images &&
               (use->pictures[use->count] = weft_plan_note(plan, picture_note((size_t)i, use->count))) != NULL)
            use->count++;
    }
    s->phase_count = 0;
    for (int32_t i = 0; i < info.phases && i < PHASES_MAX; i++) {
        weft_phase_info one = WEFT_PHASE_INFO_INIT;
        phase_use      *use = &s->phases[s->phase_count++];
        must(weft_plan_phase(plan, i, &one, &err));
        for (const word *w = methods; w->name; w++)
            if (strcmp(w->name, one.method) == 0) use->method = w->value;
        use->begin.first = one.first;
    }
}

/* Notes of a plan that is about to be sealed: the options that are kept, and prompts of regions. */
void note_settings(weft_plan *plan, const settings *s)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    int32_t index = 0;

    if (s->save_plan == NULL) return;
    must(weft_plan_info_get(plan, &info, &err));
    write_notes(s, plan);
    for (int32_t i = 0; i < weft_plan_image_prompts(plan); i++) /* those of a plan that was loaded: behind the options */
        for (size_t k = 0; weft_plan_note(plan, picture_note((size_t)i, k)) != NULL; k++)
            renew_note(plan, picture_note((size_t)i, k));
    for (int32_t r = 0; r < info.regions; r++) renew_note(plan, region_note(r)); /* and those of regions */
    for (size_t i = 0; i < s->image_count; i++)
        for (size_t k = 0; k < s->images[i].count; k++)
            must(weft_plan_set_note_file(plan, picture_note(i, k), s->images[i].pictures[k], &err));
    for (size_t i = 0; i < s->region_count; i++) {
        if (!is_region_of_plan(s, &s->regions[i])) continue;
        if (s->regions[i].prompt)
            must(weft_plan_set_note(plan, region_note(index), s->regions[i].prompt, &err));
        index++;
    }
}

void save_plan(const weft_plan *plan, const settings *s)
{
    if (s->save_plan == NULL) return;
    must(weft_plan_save(plan, s->save_plan, &err));
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->save_plan);
}

weft_plan *seal_plan(weft_plan *plan, settings *s, int32_t calls)
{
    must(weft_plan_seal(plan, calls, &err));
    clear_progress();
    if (s->loaded != NULL) show_plan(plan, s);
    if (s->find_masks == 0) save_plan(plan, s); /* else when they are found */
    return plan;
}

/* What other tools read of the plan: its hash, and where it came from. A file that cannot be hashed is
 * no reason not to draw. */
void describe_hash(FILE *f, const settings *s, const weft_plan *plan)
{
    char hash[65];

    if (s->plan_file) fprintf(f, ", Plan: %s", s->plan_file);
    if (weft_plan_hash(plan, hash, sizeof hash, &err) == WEFT_OK) fprintf(f, ", Plan hash: %s", hash);
    else warn_line(NULL, WEFT_LOG_WARN, err.text);
}

/* Options of methods that decide what is seen of an adapter. */
void describe_phase(FILE *f, const phase_use *p)
{
    if (p->method == ZIP) {
        if (p->coefficients) fprintf(f, ", Zip coefficients: %s", p->coefficients);
        if (p->zip.flags & WEFT_ZIP_LAMBDA) fprintf(f, ", Zip lambda: %g", p->zip.lambda);
        if (p->zip.flags & WEFT_ZIP_STYLE) fprintf(f, ", Zip style weight: %g", p->zip.style);
    }
    if (p->method == BLORA) {
        if (p->blora.content) fprintf(f, ", B-LoRA content: \"%s\"", p->blora.content);
        if (p->blora.style) fprintf(f, ", B-LoRA style: \"%s\"", p->blora.style);
        if (p->blora.flags & WEFT_BLORA_SQUARED) fprintf(f, ", B-LoRA weights: squared");
    }
}
