/* fuzz_adapter.c - any bytes as an adapter: the container, then its keys, its configuration, its factors.
 *
 * An input is a safetensors file, or two bytes of length, a configuration of that length, and a safetensors file. */
#include <math.h>

#include "adapter/room.h"
#include "fuzz.h"

/* Everything that may be asked of an adapter without a model. */
static void look_at(const weft_adapter *a, const weft_allocator *heap)
{
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    weft_module_info  m = WEFT_MODULE_INFO_INIT;
    double            all, top;

    must(weft_adapter_info_get(a, &info, NULL) == WEFT_OK && *info.dialect != '\0');
    for (size_t i = 0; i < wf_adapter_modules(a); i++) {
        must(weft_adapter_module(a, i, &m, NULL) == WEFT_OK);
        must(m.rank > 0 && m.in > 0 && m.out > 0 && m.kernel > 0 && isfinite(m.scale));
        if (m.out * m.in * m.kernel * m.kernel > 1 << 16) continue;
        (void)wf_module_score(wf_adapter_module(a, i), NULL, m.scale, m.rank, &all, &top, heap, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator heap = wf_allocator(NULL);
    wf_source            source = { "fuzz", "text_encoder_2", NULL };
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
