/* open.c - the first bytes of a file decide which reader it needs, never its name. */
#include "base/structs.h"
#include "io/io.h"

weft_status wf_tensors_parse(const uint8_t *data, size_t size, const char *what,
                             const weft_allocator *alloc, weft_tensors **out, weft_error *err)
{
    if (wf_torch_form_of(data, size) != WF_TORCH_NOT)
        return wf_torch_parse(data, size, what, alloc, out, err);
    weft_status st = wf_safetensors_parse(data, size, what, alloc, out, err);
    return wf_say_foreign(st, data, size, "safetensors", what, err);
}

weft_status wf_tensors_open(const char *path, bool copy, const weft_allocator *alloc,
                            weft_tensors **out, weft_error *err)
{
    weft_tensors *t    = NULL;
    wf_file       file = WF_FILE_NONE;
    weft_status   st;

    *out = NULL;
    if ((st = wf_file_open(&file, path, copy, alloc, err)) != WEFT_OK) return st;
    if ((st = wf_tensors_parse(file.data, file.size, path, alloc, &t, err)) != WEFT_OK) goto done;
    if ((st = wf_tensors_take_file(t, &file, err)) != WEFT_OK) goto done;
    *out = t;
    t = NULL;
done:
    wf_file_close(&file, alloc);
    weft_tensors_free(t);
    return st;
}

weft_status weft_tensors_open(const char *path, const weft_tensors_options *options,
                              weft_tensors **out, weft_error *err)
{
    weft_tensors_options o;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    WF_TRY(WF_OPTIONS(&o, options, weft_tensors_options, WEFT_OPEN_COPY, err));
    WF_TRY(wf_check_allocator(o.allocator, err));
    if (o.name != NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_tensors_options: name is for tensors in memory");

    const weft_allocator alloc = wf_allocator(o.allocator);
    WF_TRY(wf_tensors_open(path, (o.flags & WEFT_OPEN_COPY) != 0, &alloc, out, err));
    weft_status st = wf_tensors_set_origin(*out, path, err);
    if (st != WEFT_OK) {
        weft_tensors_free(*out);
        *out = NULL;
    }
    return st;
}
