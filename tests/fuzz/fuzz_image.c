/* fuzz_image.c - any bytes as an IP-Adapter, as the settings of an image encoder, or as a picture.
 *
 * What begins with { is a configuration and a preprocessor's; with P a picture, after four bytes for its sides and one
 * for the encoder's; anything else a file of tensors. */
#include <math.h>

#include "fuzz.h"
#include "image/image.h"
#include "nets/config.h"

static void settings(const uint8_t *data, size_t size)
{
    wf_clip_vision_config c;
    wf_picture_norm       norm;
    weft_error            err = { 0, 0, "" };
    json_t               *json;

    if (wf_json_parse(&json, (const char *)data, size, "fuzz", &err) != WEFT_OK) return;
    weft_status st = wf_config_clip_vision(&c, json, "fuzz", &err);
    if (st == WEFT_OK) {
        must(c.hidden >= 1 && c.heads >= 1 && c.hidden % c.heads == 0 && c.patch >= 1 && c.image >= c.patch);
        must(c.image / c.patch <= 256 && c.layers >= 1 && c.projection >= 1 && c.eps >= 0);
        must(3 * (int64_t)c.patch * c.patch <= INT32_MAX);
    } else {
        must(err.code == st && one_line(err.text));
    }
    st = wf_picture_config(&norm, json, 224, "fuzz", &err);
    if (st != WEFT_OK) must(err.code == st && one_line(err.text));
    for (int i = 0; i < 3 && st == WEFT_OK; i++) must(isfinite(norm.mean[i]) && norm.deviation[i] > 0);
    json_decref(json);
}

/* Scratch and result are of the size that is told, so that a sanitizer sees what goes beyond. */
static void picture(const uint8_t *data, size_t size)
{
    static const wf_picture_norm norm = { { 0.5f, 0.5f, 0.5f }, { 0.5f, 0.5f, 0.5f } };
    if (size < 6) return;
    int32_t h = data[1] + 256 * (data[2] % 4), w = data[3] + 256 * (data[4] % 4), side = 1 + data[5] % 64;
    size_t  scratch = wf_picture_scratch(h, w, side), n = 3 * (size_t)h * (size_t)w, of = 3 * (size_t)side * (size_t)side;

    must((scratch == 0) == (h == 0 || w == 0));
    if (scratch == 0) return;
    float *image = malloc(n * sizeof *image), *out = malloc(of * sizeof *out);
    void  *room = malloc(scratch);
    for (size_t i = 0; i < n; i++) image[i] = ((float)data[i % size] - 64) / 100;
    wf_picture_prepare(out, side, image, h, w, &norm, room);
    for (size_t i = 0; i < of; i++) must(out[i] >= -1 && out[i] <= 1);
    free(image), free(out), free(room);
}

/* What a plan and a run would read of it. */
static void look_at(const weft_image_adapter *a)
{
    weft_image_adapter_info i = WEFT_IMAGE_ADAPTER_INFO_INIT;
    int32_t                 count;
    const wf_image_pair    *pairs = wf_image_adapter_pairs(a, &count);
    wf_exec e = { .k = &wf_kernels_ref, .products = &wf_products_openblas, .dry = true, .arena = { .dry = true } };

    must(weft_image_adapter_info_get(a, &i, NULL) == WEFT_OK && count == i.cross_layers && count >= 1);
    must(i.kind >= WEFT_IMAGE_BASE && i.kind <= WEFT_IMAGE_FULL && i.tokens >= 1 && i.width >= 1 && i.features >= 1);
    for (int32_t k = 0; k < count; k++) {
        volatile uint8_t last = 0;
        size_t bytes = (size_t)pairs[k].v->out * (size_t)i.width * (size_t)(wf_dtype_bits(pairs[k].v->dtype) / 8);
        must(pairs[k].k->in == i.width && pairs[k].k->out == pairs[k].v->out && pairs[k].v->in == i.width);
        last = ((const uint8_t *)pairs[k].v->weight)[bytes - 1];
        (void)last;
    }
    wf_image_proj_forward(wf_image_adapter_proj(a), &e, NULL, 1, 5, NULL);
    must(!e.arena.overflow && e.arena.used == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator heap = wf_allocator(NULL);
    weft_tensors        *t = NULL;
    weft_image_adapter  *a = NULL;
    weft_error           err = { 0, 0, "" };

    if (size > 0 && data[0] == '{') return settings(data, size), 0;
    if (size > 0 && data[0] == 'P') return picture(data, size), 0;
    if (wf_tensors_parse(data, size, "fuzz", &heap, &t, &err) != WEFT_OK) return 0;
    weft_status st = wf_image_adapter_make(&a, t, "fuzz", &heap, &err);
    if (st == WEFT_OK) look_at(a);
    else must(a == NULL && err.code == st && one_line(err.text));
    weft_image_adapter_free(a);
    weft_tensors_free(t);
    return 0;
}
