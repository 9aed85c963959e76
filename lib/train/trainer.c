/* trainer.c - the handle: made, given pictures, looked at, let go. */
#include "adapter/adapter.h"
#include "base/structs.h"
#include "train/dataset.h"
#include "train/trainer_internal.h"

/* ---- making ---------------------------------------------------------------------------------- */

static weft_status make_data(weft_trainer *t, weft_error *err)
{
    uint32_t flags = t->o.flags;
    wf_dataset_options o = { .width = t->o.width, .height = t->o.height,
                             .factor = wf_vae_factor(t->networks->vae),
                             .random_crop = (flags & WEFT_TRAIN_RANDOM_CROP) != 0,
                             .flip = (flags & WEFT_TRAIN_FLIP) != 0,
                             .augment = (flags & WEFT_TRAIN_RESIZE) != 0,
                             .allow_small = (flags & WEFT_TRAIN_SMALL) != 0,
                             .log = t->o.log, .log_user = t->o.log_user };
    return wf_dataset_create(&t->data, &o, &t->alloc, err);
}

/* Are text encoders on the tape: is a layer of theirs trained, or a word? */
static bool tapes_text(const weft_trainer *t)
{
    for (size_t i = 0; i < t->sites; i++)
        if (wf_is_text(t->site[i].layer->component)) return true;
    return t->words.rows > 0;
}

static weft_status fill(weft_trainer *t, weft_error *err)
{
    const wf_recipe *r = t->recipe;
    int32_t factor;

    WF_TRY(wf_train_settle(t, err));
    factor = wf_vae_factor(t->networks->vae);
    t->height = t->o.height / factor;
    t->width = t->o.width / factor;
    t->image = (size_t)wf_facts(t->networks)->out_channels * (size_t)t->height * (size_t)t->width;
    WF_TRY(wf_train_read_levels(t, err));
    WF_TRY(wf_pool_create(&t->alloc, t->o.threads, &t->pool, err));
    WF_TRY(wf_blas_hold(t->o.threads, err));
    t->areas = t->o.threads;
    if (r->begin != NULL) WF_TRY(r->begin(t, err));
    if (r->words != NULL) WF_TRY(r->words(t, &t->words, err));
    WF_TRY(wf_train_make_sites(t, err));
    WF_TRY(wf_train_settle_text_rate(t, err));
    WF_TRY(wf_train_place_words(t, err));
    t->text_taped = tapes_text(t);
    WF_TRY(make_data(t, err));
    return r->ready != NULL ? r->ready(t, err) : WEFT_OK;
}

weft_status weft_trainer_create(weft_model *model, const weft_train_options *options,
                                weft_trainer **out, weft_error *err)
{
    weft_train_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (model == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", model == NULL ? "model" : "options");
    WF_TRY(wf_train_read_options(&o, options, err));
    weft_allocator alloc = wf_allocator(o.allocator);
    weft_trainer *t = wf_zalloc(&alloc, 1, sizeof *t);
    if (t == NULL) return wf_nomem(err, sizeof *t, "a trainer");
    t->alloc = alloc;
    t->o = o;
    t->o.allocator = NULL; /* copied */
    wf_bag_init(&t->bag, &t->alloc);
    wf_model_ref(model);
    t->model = model;
    t->networks = wf_model_networks(model);
    t->recipe = wf_recipe_of(o.recipe);
    if (o.content != NULL) wf_adapter_ref(o.content);
    if (o.style != NULL) wf_adapter_ref(o.style);
    st = fill(t, err);
    if (st == WEFT_OK) *out = t;
    else weft_trainer_free(t);
    return st;
}

void weft_trainer_free(weft_trainer *t)
{
    if (t == NULL) return;
    weft_allocator alloc = t->alloc;
    float *vectors[] = { t->values, t->grads, t->first, t->second, t->mean, t->made, t->g_made,
                         t->base };

    if (t->recipe->end != NULL) t->recipe->end(t);
    wf_train_let_go(t);
    wf_encoder_free(t->encoder);
    wf_dataset_free(t->data);
    for (size_t i = 0; i < WF_LEN(vectors); i++) wf_free(&alloc, vectors[i]);
    wf_pool_free(t->pool);
    wf_blas_let_go(t->areas);
    weft_adapter_free(t->o.content);
    weft_adapter_free(t->o.style);
    weft_model_free(t->model);
    wf_bag_free(&t->bag);
    wf_free(&alloc, t);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static weft_status may_add(const weft_trainer *t, int32_t kind, weft_error *err)
{
    if (t == NULL) return wf_fail(err, WEFT_E_ARG, "trainer is NULL");
    if (kind != WEFT_PICTURE_INSTANCE && kind != WEFT_PICTURE_CLASS)
        return wf_fail(err, WEFT_E_ARG, "train: kind is %d, wanted a WEFT_PICTURE_*", (int)kind);
    if (t->prepared || t->cached)
        return wf_fail(err, WEFT_E_STATE, "train: pictures are added before the first step");
    return WEFT_OK;
}

static wf_data_list list_of(int32_t kind)
{
    return kind == WEFT_PICTURE_CLASS ? WF_DATA_CLASS : WF_DATA_INSTANCE;
}

weft_status weft_trainer_add_picture(weft_trainer *t, const uint8_t *rgb, size_t rgb_len,
                                     int32_t width, int32_t height, const char *caption,
                                     int32_t kind, weft_error *err)
{
    WF_TRY(may_add(t, kind, err));
    if (rgb == NULL || caption == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", rgb == NULL ? "rgb" : "caption");
    return wf_dataset_add_pixels(t->data, list_of(kind), rgb, rgb_len, width, height, caption, err);
}

weft_status weft_trainer_add_folder(weft_trainer *t, const char *folder, const char *prompt,
                                    int32_t kind, weft_error *err)
{
    WF_TRY(may_add(t, kind, err));
    if (folder == NULL) return wf_fail(err, WEFT_E_ARG, "folder is NULL");
    return wf_dataset_add_folder(t->data, list_of(kind), folder, prompt, err);
}

weft_status weft_trainer_prepare(weft_trainer *t, weft_error *err)
{
    if (t == NULL) return wf_fail(err, WEFT_E_ARG, "trainer is NULL");
    WF_TRY(wf_train_own_process(t, err));
    return wf_train_prepare(t, err);
}

/* ---- looking --------------------------------------------------------------------------------- */

weft_status weft_trainer_get_info(const weft_trainer *t, weft_trainer_info *info, weft_error *err)
{
    weft_trainer_info i = WEFT_TRAINER_INFO_INIT;

    if (t == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "info");
    i.flags = t->o.flags;
    i.parameters = t->parameters;
    i.step = t->step;
    i.state_bytes = wf_train_state_bytes(t);
    i.step_bytes = t->step_bytes;
    i.weight_bytes = t->weight_bytes;
    i.cache_bytes = t->cache_bytes;
    i.recipe = t->recipe->id;
    i.layers = (int32_t)t->sites;
    i.pictures = (int32_t)wf_dataset_count(t->data, WF_DATA_INSTANCE);
    i.class_pictures = (int32_t)wf_dataset_count(t->data, WF_DATA_CLASS);
    return WF_RESULT(info, &i, weft_trainer_info, err);
}

weft_status weft_trainer_get_options(const weft_trainer *t, weft_train_options *options,
                                     weft_error *err)
{
    if (t == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "options");
    return WF_RESULT(options, &t->o, weft_train_options, err);
}
