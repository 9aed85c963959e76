/* streams.c - which text encoders give which stream of text that a denoiser reads.
 *
 *   SD1, SD2            a sequence: the last layer of the one encoder, through its final norm
 *   SDXL, its refiner   a sequence: the layer before the last of every encoder, no norm, side by
 *                       side by columns;
 *                       a pooled vector: the last encoder's
 *
 * A new base adds its row and, if it uses the encoders in another way, its rule. */
#include "model/model_internal.h"

enum { CLIP_POSITIONS = 77 }; /* tokens of a chunk when the model brings no text encoder */

static const struct recipe {
    int32_t base;
    int32_t left_out;
    bool    norm;
} recipes[] = {
    { WEFT_BASE_SD1, 0, true },
    { WEFT_BASE_SD2, 0, true },
    { WEFT_BASE_SDXL, 1, false },
    { WEFT_BASE_SDXL_REFINER, 1, false },
};

static int32_t width_of(const wf_text_encoder *t) { return wf_clip_get_config(t->net)->hidden; }

/* The hidden states of all encoders, side by side. */
static weft_status side_by_side(wf_networks *n, wf_stream *s, const char *path, weft_error *err)
{
    int32_t width = 0;
    s->tokens = CLIP_POSITIONS;
    for (int32_t i = 0; i < n->encoders; i++) {
        s->from[s->sources++] = (wf_stream_source){ i, width };
        width += width_of(&n->encoder[i]);
        s->tokens = wf_encoder_positions(&n->encoder[i]);
    }
    if (n->encoders > 0 && width != s->facts->width)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: the text encoders give %d channels, the denoiser takes %d", path, width,
                       s->facts->width);
    for (int32_t i = 0; i < n->encoders; i++)
        if (wf_encoder_positions(&n->encoder[i]) != s->tokens)
            return wf_fail(err, WEFT_E_FORMAT, "%s: the text encoders take %d and %d tokens", path,
                           wf_encoder_positions(&n->encoder[i]), s->tokens);
    return WEFT_OK;
}

/* The pooled vector of the last encoder. */
static weft_status pooled(const wf_networks *n, wf_stream *s, const char *path, weft_error *err)
{
    int32_t last = n->encoders - 1;
    s->tokens = 1;
    if (last < 0) return WEFT_OK;
    int32_t width = wf_clip_get_config(n->encoder[last].net)->projection;
    if (width != s->facts->width)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the text encoders give a pooled vector of %d, the denoiser takes %d",
                       path, width, s->facts->width);
    s->from[s->sources++] = (wf_stream_source){ last, 0 };
    return WEFT_OK;
}

weft_status wf_make_streams(wf_networks *n, const char *path, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(n);
    n->streams = f->streams;
    for (int32_t i = 0; i < f->streams; i++) {
        wf_stream *s = &n->stream[i];
        s->facts = &f->stream[i];
        WF_TRY(s->facts->kind == WEFT_TEXT_POOLED ? pooled(n, s, path, err)
               : side_by_side(n, s, path, err));
    }
    for (size_t r = 0; r < WF_LEN(recipes); r++)
        for (int32_t i = 0; i < n->encoders && recipes[r].base == f->base; i++) {
            n->encoder[i].left_out = recipes[r].left_out;
            n->encoder[i].norm = recipes[r].norm;
        }
    return WEFT_OK;
}
