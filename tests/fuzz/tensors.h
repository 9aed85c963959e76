/* tensors.h - what holds of a file of tensors made of any bytes: it is refused in one line, or all of it can be read. */
#ifndef FUZZ_TENSORS_H
#define FUZZ_TENSORS_H

#include "fuzz.h"
#include "io/io.h"

/* The sanitizers see to it that what is read lies inside. Not all is widened: a pickle's stride of 0 makes megabytes of
 * one element. */
static inline void read_tensor(const weft_tensors *t, size_t i, const weft_allocator *alloc)
{
    const wf_tensor *tensor = wf_tensors_at(t, i);
    wf_shape_text    shape;
    weft_error       err = { 0, 0, "" };
    volatile uint8_t ends = 0;
    float           *out;
    weft_status      st;

    must(weft_tensors_find(t, tensor->name) == (int64_t)i);
    must(tensor->bytes == tensor->count * (size_t)wf_dtype_bits(tensor->dtype) / 8);
    must(strlen(wf_shape(&shape, tensor->shape, tensor->rank)) < sizeof shape.text);
    if (tensor->bytes > 0) ends = tensor->data[0] ^ tensor->data[tensor->bytes - 1];
    (void)ends;
    if (tensor->count > 10000) return;
    out = wf_zalloc(alloc, tensor->count, sizeof *out);
    if (out == NULL) return;
    st = weft_tensors_read(t, i, out, tensor->count, &err);
    must(st == WEFT_OK || st == WEFT_E_UNSUPPORTED);
    wf_free(alloc, out);
}

/* `parse` is wf_safetensors_parse, wf_torch_parse or their like. */
static inline int read_all(const uint8_t *data, size_t size,
                           weft_status (*parse)(const uint8_t *, size_t, const char *, const weft_allocator *,
                                                weft_tensors **, weft_error *))
{
    const weft_allocator alloc = wf_allocator(NULL);
    weft_error           err   = { 0, 0, "" };
    weft_tensors        *t;
    weft_status          st = parse(data, size, "fuzz", &alloc, &t, &err);

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

#endif
