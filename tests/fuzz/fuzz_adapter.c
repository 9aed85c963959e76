/* fuzz_adapter.c - any bytes as an adapter: the container, then its keys, its configuration, its factors.
 *
 * An input is a safetensors file, or two bytes of length, a configuration of that length, and a safetensors file. */
#include <math.h>

#include "adapter/adapter_internal.h"
#include "fuzz.h"

enum { MOST = 4096 };

/* What a plan asks of a module at a layer that it fits: its factors, its sum, its bias, its score. */
static void apply(const wf_module *m, const wf_layer *l, const weft_allocator *heap)
{
    static float dst[MOST], other[4 * MOST];
    int32_t      form = wf_module_form(m, l), size[4] = { 0, 0, 0, 0 };
    size_t       K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, out = (size_t)l->out;
    double       all, top;
    bool         any;

    must(form >= WF_FORM_PAIR && form <= WF_FORM_NORM && (form == WF_FORM_NORM) == (l->kind == WEFT_LAYER_NORM));
    memset(dst, 0, sizeof dst);
    (void)wf_module_add(m, l, m->scale, 1, 0.5, dst, heap, NULL);
    (void)wf_module_add_bias(m, l, m->scale, 0.5, dst, &any, NULL);
    if (form == WF_FORM_PAIR) {
        size_t r = (size_t)wf_module_pair_rank(m);
        must(r > 0);
        if (r * (K + out) <= WF_LEN(other)) (void)wf_module_pair(m, l, other, other + r * K, heap, NULL);
    }
    if (form == WF_FORM_KRON) {
        m->family->kron_size(m, l, size);
        must(size[0] > 0 && size[1] > 0 && size[0] * size[2] == l->out && size[1] * size[3] == l->in);
        (void)wf_module_kron(m, l, other, other + MOST, heap, NULL);
    }
    if (form != WF_FORM_NORM) (void)wf_module_score(m, l, m->scale, 7, &all, &top, heap, NULL);
}

/* The module at small layers of every kind, where it fits one. */
static void try_layers(const wf_module *m, const weft_allocator *heap)
{
    static const int32_t widths[] = { 1, 2, 3, 4, 6, 8, 16 };
    static float         weight[MOST], bias[MOST];

    for (size_t i = 0; i < MOST; i++) weight[i] = 0.25f * (float)(i % 7) - 0.5f;
    for (int32_t kind = WEFT_LAYER_LINEAR; kind <= WEFT_LAYER_NORM; kind++)
        for (size_t o = 0; o < WF_LEN(widths); o++)
            for (size_t i = 0; i < (kind == WEFT_LAYER_NORM ? 1 : WF_LEN(widths)); i++) {
                wf_layer l = { .name = "unet.x", .weight = weight, .bias = o % 2 == 0 ? bias : NULL, .dtype = WF_F32,
                               .kind = kind, .out = widths[o], .in = widths[i],
                               .kernel = kind == WEFT_LAYER_CONV ? 3 : 1, .stride = 1 };
                if (wf_module_fits(m, &l)) apply(m, &l, heap);
            }
}

/* The adapter at made-up layers, a module each, with what its file leaves out; or NULL. */
static weft_adapter *completed(weft_adapter *a, const weft_allocator *heap)
{
    size_t        n = wf_adapter_modules(a);
    wf_layer     *layer = wf_zalloc(heap, n, sizeof *layer);
    wf_slice     *slice = wf_zalloc(heap, n, sizeof *slice);
    weft_adapter *whole = NULL;
    weft_error    err;

    for (size_t i = 0; i < n; i++) {
        layer[i].in = (int32_t)(i % 3 + 6);
        layer[i].out = WF_MIN(wf_adapter_module(a, i)->out, MOST);
        slice[i] = (wf_slice){ .module = (int32_t)i, .layer = (int32_t)i };
    }
    weft_status st = wf_adapter_complete(a, layer, slice, n, &whole, &err);
    must((st == WEFT_OK) == (whole != NULL) && (st == WEFT_OK || one_line(err.text)));
    wf_free(heap, layer);
    wf_free(heap, slice);
    return whole;
}

/* Everything that may be asked of an adapter without a model. */
static void look_at(weft_adapter *a, const weft_allocator *heap)
{
    weft_adapter     *whole = completed(a, heap);
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    weft_module_info  m = WEFT_MODULE_INFO_INIT;

    must(weft_adapter_info_get(a, &info, NULL) == WEFT_OK && *info.dialect != '\0' && *info.family != '\0');
    for (size_t i = 0; i < wf_adapter_modules(a); i++) {
        must(weft_adapter_module(a, i, &m, NULL) == WEFT_OK);
        must(m.rank >= 0 && m.in >= 0 && m.out >= 0 && m.kernel >= 0 && isfinite(m.scale) && *m.family != '\0');
        if (i < 8 && whole != NULL) try_layers(wf_adapter_module(whole, i), heap);
    }
    weft_adapter_free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator heap = wf_allocator(NULL);
    wf_source            source = { .name = "fuzz", .folder = "text_encoder_2" };
    weft_tensors        *t = NULL;
    weft_adapter        *a = NULL;
    weft_error           err;

    if (size > 2 && data[1] < 16 && (size_t)(data[0] + 256 * data[1]) < size - 2 && data[2] == '{') {
        size_t n = (size_t)(data[0] + 256 * data[1]);
        (void)wf_json_parse(&source.config, (const char *)data + 2, n, "config", &err);
        data += 2 + n;
        size -= 2 + n;
    }
    weft_status st = wf_tensors_parse(data, size, "fuzz", &heap, &t, &err);
    if (st == WEFT_OK) st = wf_adapter_parse(t, &source, &heap, &a, &err);
    if (st == WEFT_OK) look_at(a, &heap);
    else must(a == NULL && err.code == st && one_line(err.text));
    weft_adapter_free(a);
    weft_tensors_free(t);
    json_decref(source.config);
    return 0;
}
