/* derived.c - a list of blocks that end with the model, and their bytes. */
#include "nets/derived.h"

static weft_status grow(wf_derived *d, weft_error *err)
{
    size_t room = d->room == 0 ? 64 : 2 * d->room;
    void **block = wf_zalloc(d->alloc, room, sizeof *block);
    if (block == NULL) return wf_nomem(err, room * sizeof *block, "what a model derives");
    if (d->count > 0) memcpy(block, d->block, d->count * sizeof *block);
    wf_free(d->alloc, d->block);
    d->block = block;
    d->room = room;
    return WEFT_OK;
}

weft_status wf_derived_take(wf_derived *d, void **out, size_t count, size_t size, const char *what,
                            weft_error *err)
{
    size_t bytes;
    *out = NULL;
    if (!wf_mul(count, size, &bytes)) return wf_nomem(err, SIZE_MAX, what);
    if (d->count == d->room) WF_TRY(grow(d, err));
    void *block = wf_alloc(d->alloc, bytes);
    if (block == NULL) return wf_nomem(err, bytes, what);
    d->block[d->count++] = block;
    d->bytes += bytes;
    *out = block;
    return WEFT_OK;
}

void wf_derived_free(wf_derived *d)
{
    for (size_t i = 0; i < d->count; i++) wf_free(d->alloc, d->block[i]);
    if (d->block != NULL) wf_free(d->alloc, d->block);
    d->block = NULL;
    d->count = d->room = 0;
}
