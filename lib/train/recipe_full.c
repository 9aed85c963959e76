/* recipe_full.c - every weight of the denoiser: DreamBooth, if there are class pictures.
 *
 * Weights, biases and norms are trained as they are, in float32; the model's files stay as they
 * were. A decaying mean of the weights (`ema`) can be kept beside them, and is then what is used
 * and saved. What was learnt is an adapter of whole differences, or, saved to a path that does not
 * end in .safetensors, the model itself with the differences merged in, in its own format and
 * types.
 *
 * Rate and decay are those of diffusers' DreamBooth script. Ruiz et al., DreamBooth (2023). */
#include "train/trainer_internal.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? &wf_form_norm : &wf_form_full;
}

static weft_status merge_into_model(weft_trainer *t, weft_adapter *a, const char *path,
                                    weft_error *err)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan = NULL;
    weft_status st;

    o.allocator = &t->alloc;
    if ((st = weft_plan_create(t->model, &o, &plan, err)) == WEFT_OK &&
        (st = weft_plan_add(plan, a, 1, NULL, err)) == WEFT_OK &&
        (st = weft_plan_seal(plan, 1, err)) == WEFT_OK)
        st = weft_plan_save_model(plan, path, err);
    weft_plan_free(plan);
    return st;
}

static weft_status save(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(path), e = sizeof ending - 1;
    weft_adapter *a = NULL;
    weft_status st;

    if (n > e && strcmp(path + n - e, ending) == 0)
        return wf_trainer_save_adapter(t, path, dialect, half, err);
    if (dialect != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "full: a whole model has no dialect: give 0, or a path that ends in "
                       ".safetensors");
    if (half)
        return wf_fail(err, WEFT_E_ARG,
                       "full: a whole model keeps the types of its weights: half must be 0");
    WF_TRY(weft_trainer_adapter(t, &a, err));
    st = merge_into_model(t, a, path, err);
    weft_adapter_free(a);
    return st;
}

const wf_recipe wf_recipe_full = {
    .id = WEFT_RECIPE_FULL,
    .name = "full",
    .uses = WF_USES_MODULES | WF_USES_TEXT | WF_USES_EMA,
    .flags = WEFT_TRAIN_TEXT,
    .defaults = { .rate = 5e-6, .steps = 1000 },
    .form = form,
    .save = save,
};
