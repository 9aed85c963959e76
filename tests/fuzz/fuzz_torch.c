/* A file of torch.save of any bytes, zip or legacy, is refused in one line, or all of its tensors can be read. */
#include "fuzz.h"
#include "io/io.h"

/* Not all is widened: a stride of 0 makes megabytes of one element, and the sanitizers see the ends as well. */
static void read_tensor(const weft_tensors *t, size_t i, const weft_allocator *alloc)
{
    const wf_tensor *tensor = wf_tensors_at(t, i);
    weft_error       err = { 0, 0, "" };
    volatile uint8_t ends = 0;
    float           *out;
    weft_status      st;

    must(weft_tensors_find(t, tensor->name) == (int64_t)i);
    must(tensor->bytes == tensor->count * (size_t)wf_dtype_bits(tensor->dtype) / 8);
    if (tensor->bytes > 0) ends = tensor->data[0] ^ tensor->data[tensor->bytes - 1];
    (void)ends;
    if (tensor->count > 10000) return;
    out = wf_zalloc(alloc, tensor->count, sizeof *out);
    if (out == NULL) return;
    st = weft_tensors_read(t, i, out, tensor->count, &err);
    must(st == WEFT_OK || st == WEFT_E_UNSUPPORTED);
    wf_free(alloc, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator alloc = wf_allocator(NULL);
    weft_error           err   = { 0, 0, "" };
    weft_tensors        *t;
    weft_status          st = wf_torch_parse(data, size, "fuzz", &alloc, &t, &err);

    if (st != WEFT_OK) {
        must(t == NULL && err.code == st && one_line(err.text));
        return 0;
    }
    for (size_t i = 0; i < wf_tensors_count(t); i++) read_tensor(t, i, &alloc);
    for (size_t i = 0; i < wf_tensors_meta_count(t); i++)
        must(weft_tensors_metadata(t, wf_tensors_meta_key(t, i)) == wf_tensors_meta_value(t, i));
    weft_tensors_free(t);
    return 0;
}
