/* by_hand.h - a trainer whose batch a test fills by hand: goldens bring latents, times and targets. */
#ifndef WF_TEST_BY_HAND_H
#define WF_TEST_BY_HAND_H

#include <stdbool.h>

#include "golden.h"
#include "train/trainer_internal.h"

static inline weft_model *open_tiny(const char *name)
{
    weft_model *m;
    must(weft_model_open(data_path("models/%s", name), NULL, &m, &golden_err));
    return m;
}

/* Options for pictures of 8 x 8 latents. */
static inline weft_train_options small_options(const weft_model *m, int32_t recipe)
{
    weft_train_options o = WEFT_TRAIN_OPTIONS_INIT;
    o.recipe = recipe;
    o.width = o.height = 8 * wf_vae_factor(wf_model_networks(m)->vae);
    o.threads = 2;
    o.steps = 10;
    o.batch = 1;
    o.seed = 5;
    return o;
}

static inline void add_picture(weft_trainer *t, const char *caption, int32_t kind, uint32_t seed)
{
    int32_t  side = t->o.width;
    size_t   n = (size_t)side * (size_t)side * 3;
    uint8_t *rgb = malloc(n);
    for (size_t i = 0; i < n; i++) rgb[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    must(weft_trainer_add_picture(t, rgb, n, side, side, caption, kind, &golden_err));
    free(rgb);
}

static inline weft_trainer *new_trainer(weft_model *m, const weft_train_options *o)
{
    weft_trainer *t;
    must(weft_trainer_create(m, o, &t, &golden_err));
    return t;
}

/* The batch of a golden case: captions [n], and from `file` under `key` latent, t, target (if it
 * has one), time_ids. */
static inline void fill_by_hand(weft_trainer *t, const weft_tensors *file, const char *key,
                                const char *const *captions)
{
    wf_batch *b = &t->batch;
    golden    latent = golden_read(file, "%slatent", key), times = golden_read(file, "%st", key);
    char      name[80];

    must(weft_trainer_prepare(t, &golden_err));
    ck_assert_uint_eq(latent.n, (size_t)b->n * t->image);
    memcpy(b->latent, latent.v, latent.n * sizeof(float));
    memcpy(b->timestep, times.v, times.n * sizeof(float));
    snprintf(name, sizeof name, "%starget", key);
    if (golden_has(file, name)) {
        golden target = golden_read(file, "%starget", key);
        memcpy(b->target, target.v, target.n * sizeof(float));
        free(target.v);
    }
    snprintf(name, sizeof name, "%stime_ids", key);
    if (golden_has(file, name)) {
        golden ids = golden_read(file, "%stime_ids", key);
        memcpy(b->time_ids, ids.v, ids.n * sizeof(float));
        free(ids.v);
    }
    wf_train_begin_call(t, "a test", 1000000);
    for (int32_t s = 0; s < b->n; s++) {
        b->weight[s] = 1;
        must(wf_train_caption(t, captions[s], &b->caption[s], &golden_err));
    }
    must(wf_train_end_call(t, WEFT_OK, &golden_err));
    free(latent.v), free(times.v);
}

/* Losses, and the gradients of all that is trained in t->grads. */
static inline wf_losses evaluate_by_hand(weft_trainer *t)
{
    wf_losses   l = { 0 };
    weft_status st;

    memset(t->grads, 0, t->floats * sizeof *t->grads);
    memset(t->g_made, 0, t->made_floats * sizeof *t->g_made);
    wf_train_begin_call(t, "a test", 1000000);
    wf_train_make(t);
    st = t->recipe->evaluate != NULL ? t->recipe->evaluate(t, &t->batch, &l, &golden_err)
                                     : wf_trainer_evaluate(t, &t->batch, &l, &golden_err);
    must(wf_train_end_call(t, st, &golden_err));
    wf_train_pull(t);
    return l;
}

static inline const wf_site *site_named(const weft_trainer *t, const char *name)
{
    for (size_t i = 0; i < t->sites; i++)
        if (strcmp(t->site[i].layer->name, name) == 0) return &t->site[i];
    ck_abort_msg("%s is not trained", name);
    return NULL;
}

#endif
