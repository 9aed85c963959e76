/* text.c - the text of a step or an encode: the caller's array with an entry for each stream of the
 * model. */
#include "base/structs.h"
#include "run/run_internal.h"

size_t wf_text_floats(const wf_stream *stream, const weft_text *text)
{
    return (size_t)WF_MAX(text->cross_layers,
                          1) * (size_t)text->tokens * (size_t)stream->facts->width;
}

static weft_status check_cross_layers(const wf_stream *s, int32_t cross_layers, const char *where,
                                      weft_error *err)
{
    int32_t most = s->facts->cross_layers;
    if (cross_layers == 0 || cross_layers == most) return WEFT_OK;
    if (most == 0)
        return wf_fail(err, WEFT_E_ARG, "%s.cross_layers is %d, wanted 0", where, cross_layers);
    return wf_fail(err, WEFT_E_ARG,
                   "%s.cross_layers is %d, wanted 0 or %d, the model's cross-attention layers",
                       where,
                   cross_layers, most);
}

static weft_status check_tokens(const weft_run *r, const wf_stream *s, int32_t *tokens,
                                const char *where, weft_error *err)
{
    if (*tokens == 0) *tokens = s->tokens;
    if (s->facts->kind == WEFT_TEXT_POOLED && *tokens != 1)
        return wf_fail(err, WEFT_E_ARG, "%s.tokens is %d, but a pooled vector is one row", where,
                       *tokens);
    if (*tokens < 1 || *tokens > r->text_tokens)
        return wf_fail(err, WEFT_E_ARG,
                       "%s.tokens is %d, the run has room for %d: set weft_run_options.text_tokens",
                       where, *tokens, r->text_tokens);
    return WEFT_OK;
}

/* Entry `index` of an array whose elements are as long as the first says. */
static weft_status read_entry(weft_text *out, const weft_text *list, size_t index, uint32_t *stride,
                              const char *what, weft_error *err)
{
    const uint8_t *at = (const uint8_t *)list + index * *stride;
    uint32_t size;

    memcpy(&size, at, sizeof size);
    if (index == 0) *stride = size;
    if (size != *stride)
        return wf_fail(err, WEFT_E_ARG, "%s[%zu].struct_size is %u, but the first has %u", what,
                       index, size, *stride);
    return WF_OPTIONS(out, at, weft_text, 0, err);
}

weft_status wf_read_texts(weft_text out[WF_STREAMS_MAX], const weft_run *r, const weft_text *list,
                          size_t count, const char *what, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    uint32_t stride = 0;
    char where[40];

    if (list == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", what);
    if (count != (size_t)n->streams)
        return wf_fail(err, WEFT_E_ARG, "%s_count is %zu, the model reads %d text stream%s", what,
                       count, n->streams, n->streams == 1 ? "" : "s");
    for (size_t i = 0; i < count; i++) {
        WF_TRY(read_entry(&out[i], list, i, &stride, what, err));
        wf_format(where, sizeof where, "%s[%zu]", what, i);
        WF_TRY(check_tokens(r, &n->stream[i], &out[i].tokens, where, err));
        WF_TRY(check_cross_layers(&n->stream[i], out[i].cross_layers, where, err));
    }
    return WEFT_OK;
}

weft_status wf_read_images(weft_text out[WF_IMAGES_MAX], const weft_run *r, const weft_text *list,
                           size_t count, const char *what, weft_error *err)
{
    const weft_plan *p = r->memory.plan;
    size_t images = (size_t)weft_plan_image_prompts(p);
    uint32_t stride = 0;

    if (list == NULL && images == 0) return WEFT_OK;
    if (list == NULL || count != images)
        return wf_fail(err, WEFT_E_ARG, "%s has %zu entries, wanted %zu: the plan's image prompts",
                       what, list == NULL ? 0 : count, images);
    for (size_t i = 0; i < count; i++) {
        int32_t most = wf_plan_image_tokens(p, (int32_t)i);
        WF_TRY(read_entry(&out[i], list, i, &stride, what, err));
        if (out[i].tokens == 0) out[i].tokens = most;
        if (out[i].tokens < 1 || out[i].tokens > most)
            return wf_fail(err, WEFT_E_ARG, "%s[%zu].tokens is %d, the plan has room for %d", what,
                           i, (int)out[i].tokens, (int)most);
        if (out[i].cross_layers != 0)
            return wf_fail(err, WEFT_E_ARG, "%s[%zu].cross_layers is %d, wanted 0", what, i,
                           (int)out[i].cross_layers);
    }
    return WEFT_OK;
}

weft_status weft_run_text(const weft_run *r, int32_t stream, int32_t chunks, weft_text *text,
                          weft_error *err)
{
    weft_text t;
    if (r == NULL || text == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "text");
    const wf_networks *n = wf_run_networks(&r->memory);
    if (stream < 0 || stream >= n->streams)
        return wf_fail(err, WEFT_E_ARG, "text stream %d is not one of the model's %d", stream,
                       n->streams);
    const wf_stream *s = &n->stream[stream];
    WF_TRY(WF_OPTIONS(&t, text, weft_text, 0, err));
    if (chunks < 1 || chunks > WF_MAX(r->text_tokens / s->tokens, 1))
        return wf_fail(err, WEFT_E_ARG,
                       "%d chunks, the run has room for %d: set weft_run_options.text_tokens",
                           chunks,
                       r->text_tokens / s->tokens);
    WF_TRY(check_cross_layers(s, t.cross_layers, "text", err));
    t.tokens = s->facts->kind == WEFT_TEXT_POOLED ? 1 : chunks * s->tokens;
    text->tokens = t.tokens;
    text->len = wf_text_floats(s, &t);
    return WEFT_OK;
}
