/* learned.c - pictures that train draws: of the class before the first step, and of what was learned
 * on the way. Both by the examples' short loop (draw/picture.c): the model's own sampler, 20 steps,
 * guidance 5. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "../draw/draw.h"
#include "tool.h"

/* How many cross-attentions the concept's words have a vector for each of; 0: none. */
static weft_status layers_of(const weft_concept *concept, int32_t *most)
{
    weft_concept_info about = WEFT_CONCEPT_INFO_INIT;
    weft_status       st = weft_concept_info_get(concept, &about, &err);

    *most = 0;
    for (int32_t i = 0; i < about.tokens && st == WEFT_OK; i++) {
        weft_token_info t = WEFT_TOKEN_INFO_INIT;
        st = weft_concept_token(concept, (size_t)i, &t, &err);
        if (st == WEFT_OK && t.layers > *most) *most = t.layers;
    }
    return st;
}

/* Over a few steps, on a plan that is sealed here. */
static weft_status draw(const easel_use *e, weft_plan *plan, const char *prompt, uint64_t seed, int32_t layers,
                        const char *path)
{
    draw_job job = { .prompt = prompt, .seed = seed, .width = e->width / e->factor, .height = e->height / e->factor,
                     .layers = layers, .progress = e->progress, .progress_user = e->user, .path = path };
    weft_sampler *sampler;
    weft_status   st = draw_sampler(e->model, &sampler, &err);

    if (st == WEFT_OK) st = weft_plan_seal(plan, weft_sampler_calls(sampler), &err);
    weft_sampler_free(sampler);
    return st == WEFT_OK ? draw_picture(e->model, plan, &job, &err) : st;
}

weft_status draw_learned(const easel_use *e, weft_adapter *adapter, weft_concept *concept, const char *prompt,
                         const char *path)
{
    weft_plan  *plan;
    int32_t     layers = 0;
    weft_status st = weft_plan_create(e->model, NULL, &plan, &err);

    if (st == WEFT_OK && adapter != NULL) st = weft_plan_add(plan, adapter, 1.0f, NULL, &err);
    if (st == WEFT_OK && concept != NULL) st = weft_plan_add_concept(plan, concept, 1.0f, NULL, &err);
    if (st == WEFT_OK && concept != NULL) st = layers_of(concept, &layers);
    if (st == WEFT_OK) st = draw(e, plan, prompt, e->seed, layers, path);
    weft_plan_free(plan);
    return st;
}

static int is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot != NULL &&
           (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

static int32_t count_pictures(const char *folder)
{
    DIR           *d = opendir(folder);
    struct dirent *entry;
    int32_t        count = 0;

    if (d == NULL) fail("%s: %s", folder, strerror(errno));
    while ((entry = readdir(d)) != NULL) count += is_picture(entry->d_name);
    closedir(d);
    return count;
}

/* drawn-0001.png is of the first seed, whatever else is there: a folder that was begun is gone on with. */
int32_t draw_class(const easel_use *e, const char *folder, const char *prompt, int32_t count)
{
    size_t   room = strlen(folder) + 32;
    char    *path = zeroed(room, 1);
    int32_t  drawn = 0;

    if (mkdir(folder, 0777) != 0 && errno != EEXIST) fail("cannot make %s: %s", folder, strerror(errno));
    int32_t there = count_pictures(folder);
    for (int32_t i = 0; there + drawn < count; i++) {
        struct stat about;
        weft_plan  *plan;
        snprintf(path, room, "%s/drawn-%04d.png", folder, (int)i + 1);
        if (stat(path, &about) == 0) continue;
        snprintf(e->doing, DOING, "drawing picture %d of %d of the class", (int)(there + drawn) + 1, (int)count);
        must(weft_plan_create(e->model, NULL, &plan, &err));
        weft_status st = draw(e, plan, prompt, e->seed + (uint64_t)i, 0, path);
        weft_plan_free(plan);
        must(st);
        drawn++;
    }
    e->doing[0] = '\0';
    free(path);
    return drawn;
}
