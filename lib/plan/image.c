/* image.c - pictures as prompts: what a plan's image prompts do at each layer of its model.
 *
 * An IP-Adapter has a pair of matrices for each cross-attention and does not say of which model.
 * Its pairs count the attentions on the way down, then up, then in the middle, as diffusers lists
 * them; the layer table has the middle in between. Pairs are given to layers once, when the prompt
 * is added, and the sizes of all of them are compared: a file for another base fits nowhere.
 *
 * An image prompt is no part of the table of coefficients: it has a weight, factors by layer, a
 * curve and a mask, as adapters have, but there is nothing for a method to choose. */
#include <math.h>

#include "base/structs.h"
#include "model/networks.h"
#include "plan/plan_internal.h"

enum { PICTURES_MAX = 64 };

/* ---- pairs and layers ------------------------------------------------------------------------ */

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), m = strlen(with);
    return n >= m && strcmp(name + n - m, with) == 0;
}

static bool is_cross_key(const wf_layer *l)
{
    return l->component == WEFT_COMPONENT_DENOISER && l->attention && ends(l->name, ".attn2.to_k");
}

/* 0 on the way down, 1 up, 2 in the middle. */
static int32_t part_of(const wf_layer *l)
{
    return strncmp(l->name, "unet.mid_block.", 15) == 0 ? 2
           : strncmp(l->name, "unet.up_blocks.", 15) == 0;
}

static int32_t count_cross(const wf_layer *layers, size_t count)
{
    int32_t n = 0;
    for (size_t l = 0; l < count; l++) n += is_cross_key(&layers[l]);
    return n;
}

static const char *kind_name(int32_t kind)
{
    return kind == WEFT_IMAGE_BASE ? "base" : kind == WEFT_IMAGE_PLUS ? "plus" : "full";
}

/* For whom an IP-Adapter is, judged by the width of its rows; "": unknown. */
static const char *made_for(int32_t width, int32_t pairs)
{
    if (pairs == 16) return width == 768 ? " (SD1.x)" : width == 1024 ? " (SD2.x)" : "";
    return pairs == 70 && width == 2048 ? " (SDXL)" : "";
}

static weft_status check_fit(const weft_plan *p, const weft_image_adapter *a, int32_t cross,
                             weft_error *err)
{
    const wf_networks       *n = wf_model_networks(p->model);
    const wf_denoiser_facts *f = wf_facts(n);
    int32_t pairs, width = wf_image_proj_get_config(wf_image_adapter_proj(a))->width;
    (void)wf_image_adapter_pairs(a, &pairs);
    int32_t text = f->stream[0].width;

    if (pairs == cross && width == text) return WEFT_OK;
    return wf_fail(err, WEFT_E_MISMATCH,
                   "IP-Adapter %s is for a model with %d cross-attentions over rows of %d%s; this "
                   "one (%s) has %d over rows of %d", wf_image_adapter_name(a), (int)pairs,
                   (int)width, made_for(width, pairs), wf_base_name(f->base), (int)cross,
                   (int)text);
}

/* A pair for each cross-attention; those with factor 0 are left out. */
static weft_status give_pairs(wf_image_at *at, const weft_plan *p, const weft_image_adapter *a,
                              const wf_blob *blocks, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    int32_t         pairs, next = 0;
    const wf_image_pair *pair = wf_image_adapter_pairs(a, &pairs);

    WF_TRY(check_fit(p, a, count_cross(layers, count), err));
    for (int32_t part = 0; part < 3; part++)
        for (size_t l = 0; l < count; l++) {
            if (!is_cross_key(&layers[l]) || part_of(&layers[l]) != part) continue;
            const wf_image_pair *x = &pair[next++];
            float factor = wf_blocks_at(blocks, (int32_t)l);
            if (x->k->out != layers[l].out)
                return wf_fail(err, WEFT_E_MISMATCH,
                               "IP-Adapter %s: its keys number %d are %d wide, but %s is %d",
                               wf_image_adapter_name(a), (int)(2 * next - 1), (int)x->k->out,
                               layers[l].name, (int)layers[l].out);
            if (factor != 0) at[l] = (wf_image_at){ *x, factor };
        }
    return WEFT_OK;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void drop(wf_image_prompt *x)
{
    weft_image_adapter_free(x->adapter);
    wf_blob_drop(x->at);
    wf_blob_drop(x->blocks);
    wf_blob_drop(x->mask);
    wf_blob_drop(x->curve);
}

weft_status wf_plan_copy_images(weft_plan *p, const weft_plan *from, weft_error *err)
{
    if (from->images == 0) return WEFT_OK;
    p->image = wf_zalloc(&p->alloc, WF_IMAGES_MAX, sizeof *p->image);
    if (p->image == NULL)
        return wf_nomem(err, WF_IMAGES_MAX * sizeof *p->image, "a copy of a plan");
    for (; p->images < from->images; p->images++) {
        wf_image_prompt *x = &p->image[p->images];
        *x = from->image[p->images];
        wf_image_adapter_ref(x->adapter);
        (void)wf_blob_ref(x->at);
        (void)wf_blob_ref(x->blocks);
        (void)wf_blob_ref(x->mask);
        (void)wf_blob_ref(x->curve);
    }
    return WEFT_OK;
}

void wf_plan_drop_images(weft_plan *p)
{
    for (int32_t i = 0; i < p->images; i++) drop(&p->image[i]);
    wf_free(&p->alloc, p->image);
}

/* Everything but the adapter's reference, which is the last to be taken. */
static weft_status make(wf_image_prompt *x, const weft_plan *p,
                        const weft_image_prompt_options *o, weft_error *err)
{
    size_t layers;

    (void)wf_model_layers(p->model, &layers);
    if (o->blocks != NULL) WF_TRY(wf_blocks_read(&x->blocks, p, o->blocks, err));
    if (o->mask != NULL) WF_TRY(wf_plan_mask_read(&x->mask, p, o->mask, 0, err));
    x->at = wf_blob_create(&p->alloc, layers * sizeof(wf_image_at));
    if (x->at == NULL) return wf_nomem(err, layers * sizeof(wf_image_at), "an image prompt");
    return give_pairs(x->at->data, p, x->adapter, x->blocks, err);
}

static weft_status check(const weft_plan *p, const weft_image_adapter *a, float weight,
                         const weft_image_prompt_options *o, weft_error *err)
{
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_image_prompt_options: reserved0 is %d, must be zero",
                       (int)o->reserved0);
    if (p->images >= WF_IMAGES_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_plan_add_image_prompt: a plan takes at most %d image prompts",
                       WF_IMAGES_MAX);
    if (!isfinite(weight))
        return wf_fail(err, WEFT_E_ARG, "IP-Adapter %s: the weight is not a finite number",
                       wf_image_adapter_name(a));
    if (o->images < 0 || o->images > PICTURES_MAX)
        return wf_fail(err, WEFT_E_ARG, "weft_image_prompt_options: images is %d, wanted 1 to %d",
                       (int)o->images, PICTURES_MAX);
    return WEFT_OK;
}

weft_status weft_plan_add_image_prompt(weft_plan *plan, weft_image_adapter *adapter, float weight,
                                       const weft_image_prompt_options *options, weft_error *err)
{
    weft_image_prompt_options o;
    weft_status st;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_add_image_prompt", err));
    if (adapter == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_add_image_prompt: adapter is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_image_prompt_options, 0, err));
    WF_TRY(check(plan, adapter, weight, &o, err));
    if (plan->image == NULL)
        plan->image = wf_zalloc(&plan->alloc, WF_IMAGES_MAX, sizeof *plan->image);
    if (plan->image == NULL)
        return wf_nomem(err, WF_IMAGES_MAX * sizeof *plan->image, "a plan's image prompts");

    wf_image_prompt x = { .adapter = adapter, .weight = weight,
                          .images = o.images > 0 ? o.images : 1 };
    wf_image_adapter_ref(adapter);
    if ((st = make(&x, plan, &o, err)) == WEFT_OK) plan->image[plan->images++] = x;
    else drop(&x);
    return st;
}

static weft_status check_index(const weft_plan *plan, int32_t index, const char *what,
                               weft_error *err)
{
    WF_TRY(wf_plan_still_open(plan, what, err));
    if (index < 0 || index >= plan->images)
        return wf_fail(err, WEFT_E_ARG, "%s: image prompt %d of %d", what, (int)index,
                       (int)plan->images);
    return WEFT_OK;
}

weft_status weft_plan_set_image_weight(weft_plan *plan, int32_t index, float weight,
                                       weft_error *err)
{
    WF_TRY(check_index(plan, index, "weft_plan_set_image_weight", err));
    if (!isfinite(weight))
        return wf_fail(err, WEFT_E_ARG, "IP-Adapter %s: the weight is not a finite number",
                       wf_image_adapter_name(plan->image[index].adapter));
    plan->image[index].weight = weight;
    return WEFT_OK;
}

weft_status weft_plan_set_image_curve(weft_plan *plan, int32_t index, uint32_t flags,
                                      const weft_curve_point *points, size_t count,
                                      weft_error *err)
{
    wf_blob *curve;

    WF_TRY(check_index(plan, index, "weft_plan_set_image_curve", err));
    WF_TRY(wf_curve_read(&curve, plan, flags, points, count, err));
    wf_blob_drop(plan->image[index].curve);
    plan->image[index].curve = curve;
    return WEFT_OK;
}

weft_status weft_plan_remove_image_prompt(weft_plan *plan, int32_t index, weft_error *err)
{
    WF_TRY(check_index(plan, index, "weft_plan_remove_image_prompt", err));
    drop(&plan->image[index]);
    plan->images--;
    for (int32_t i = index; i < plan->images; i++) plan->image[i] = plan->image[i + 1];
    return WEFT_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

int32_t weft_plan_image_prompts(const weft_plan *plan) { return plan != NULL ? plan->images : 0; }

const weft_image_adapter *wf_plan_image_adapter(const weft_plan *p, int32_t index)
{
    return p->image[index].adapter;
}

const wf_image_at *wf_plan_image_at(const weft_plan *p, int32_t index)
{
    return p->image[index].at->data;
}

const wf_plan_mask *wf_plan_image_mask(const weft_plan *p, int32_t index)
{
    return p->image[index].mask != NULL ? p->image[index].mask->data : NULL;
}

float wf_plan_image_weight(const weft_plan *p, int32_t index, int32_t call)
{
    const wf_image_prompt *x = &p->image[index];
    return (float)((double)x->weight * wf_curve_at(x->curve, call, wf_plan_calls(p)));
}

/* Weights times factors are multiplied in float when they are used, in every call. */
weft_status wf_plan_check_images(const weft_plan *p, int32_t calls, weft_error *err)
{
    size_t count;

    (void)wf_model_layers(p->model, &count);
    for (int32_t i = 0; i < p->images; i++) {
        const wf_image_prompt *x = &p->image[i];
        const wf_image_at     *at = x->at->data;
        double                 most = 1;
        for (size_t l = 0; l < count; l++) most = fmax(most, fabs((double)at[l].factor));
        for (int32_t n = 0; n < calls; n++)
            if (!isfinite((float)(x->weight * wf_curve_at(x->curve, n, calls) * most)))
                return wf_fail(err, WEFT_E_UNSUPPORTED,
                               "image prompt %s: its weight and what multiplies it are more than a "
                               "float holds",
                               wf_image_adapter_name(x->adapter));
    }
    return WEFT_OK;
}

int32_t wf_plan_image_tokens(const weft_plan *p, int32_t index)
{
    const wf_image_prompt *x = &p->image[index];
    return x->images * wf_image_proj_get_config(wf_image_adapter_proj(x->adapter))->tokens;
}

static int32_t reached(const weft_plan *p, const wf_image_prompt *x)
{
    const wf_image_at *at = x->at->data;
    size_t             count;
    int32_t            n = 0;

    (void)wf_model_layers(p->model, &count);
    for (size_t l = 0; l < count; l++) n += at[l].pair.k != NULL;
    return n;
}

weft_status weft_plan_image_prompt(const weft_plan *plan, int32_t index,
                                   weft_image_prompt_info *info, weft_error *err)
{
    weft_image_prompt_info r = WEFT_IMAGE_PROMPT_INFO_INIT;

    if (plan == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", plan == NULL ? "plan" : "info");
    if (index < 0 || index >= plan->images)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_image_prompt: image prompt %d of %d", (int)index,
                       (int)plan->images);
    const wf_image_prompt      *x = &plan->image[index];
    const wf_image_proj_config *c = wf_image_proj_get_config(wf_image_adapter_proj(x->adapter));
    r.kind = c->kind;
    r.name = wf_image_adapter_name(x->adapter);
    r.blocks = wf_blocks_text(x->blocks);
    r.weight = x->weight;
    r.images = x->images;
    r.tokens = wf_plan_image_tokens(plan, index);
    r.width = c->width;
    r.layers = reached(plan, x);
    r.masked = x->mask != NULL;
    return WF_RESULT(info, &r, weft_image_prompt_info, err);
}

void wf_images_explain(const weft_plan *p, wf_text *out)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);

    if (p->images > 0) wf_text_add(out, "\nimage prompts\n");
    for (int32_t i = 0; i < p->images; i++) {
        const wf_image_prompt *x = &p->image[i];
        wf_number_text         weight;

        wf_text_add(out,
                    "  %-3d %s (%s)  weight %s, %d %s, %d rows, at %d of %d cross-attentions\n",
                    (int)i, wf_image_adapter_name(x->adapter),
                    kind_name(wf_image_proj_get_config(wf_image_adapter_proj(x->adapter))->kind),
                    wf_number(&weight, (double)x->weight), (int)x->images,
                    x->images == 1 ? "picture" : "pictures", (int)wf_plan_image_tokens(p, i),
                    (int)reached(p, x), (int)count_cross(layers, count));
        if (x->curve != NULL) wf_curve_explain(x->curve, out);
        if (x->blocks != NULL) wf_blocks_explain(p, x->blocks, out);
        if (x->mask != NULL) {
            const wf_plan_mask *m = x->mask->data;
            wf_text_add(out, "      mask %d x %d\n", (int)m->w, (int)m->h);
        }
    }
}
