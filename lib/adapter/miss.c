/* miss.c - matrix shards that share one block, which was called Bone before.
 *
 *   block (r, out)            Delta W[o, i] = block[i mod r, o]       a pair of rank r, whose down
 *                                                                     factor only adds up inputs
 *   block (r, n), "mini"      Delta W[o, i] = block[i mod r, o mod n] the same, repeated over rows
 *   block (out / r, r, r)     Delta W = W B + B of each r x r block of W, B that of its rows: "bat"
 *
 * Which of the first two it is only the configuration says (init_weights): without it a block that
 * is no layer's width would be taken for a smaller one. There is no scale.
 *
 * Keys miss_block; bone_block. Kang et al., MiSS, 2024 (arXiv 2409.15371). */
#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

static const wf_tensor *block_of(const wf_module *m)
{
    return m->tensor[WF_TENSOR_MISS_BLOCK] != NULL ? m->tensor[WF_TENSOR_MISS_BLOCK]
                                                   : m->tensor[WF_TENSOR_BONE_BLOCK];
}

static bool is_mini(const wf_module *m)
{
    return ((const wf_miss *)m->extra)->mini;
}

/* "bat": each block turns its part of W. */
static bool turns(const wf_module *m)
{
    return block_of(m)->rank == 3;
}

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    const char *init = config != NULL ? wf_config_text(config, "init_weights") : NULL;
    wf_miss    *extra = m->extra;

    (void)s, (void)path, (void)err;
    extra->told = config != NULL;
    extra->mini = init != NULL && strcmp(init, "mini") == 0;
    extra->bat = init != NULL && strcmp(init, "bat") == 0;
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = block_of(m);
    const wf_miss   *extra = m->extra;
    int64_t          r = t->shape[t->rank - 1], out;

    if (t->rank != 2 && (t->rank != 3 || t->shape[1] != r))
        return wf_module_wrong_shape(t, source, "(r, out) or (out / r, r, r)", err);
    if (extra->told && extra->bat != turns(m))
        return wf_module_wrong_shape(t, source,
                                     extra->bat ? "(out / r, r, r), as the configuration says bat"
                                                : "(r, out), as the configuration does not say bat",
                                     err);
    out = turns(m) ? t->shape[0] * r : t->shape[1];
    if (out > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks turn more than 2^31 rows");
    m->rank = (int32_t)(turns(m) ? r : t->shape[0]);
    m->out = is_mini(m) ? 0 : (int32_t)out;
    m->in = 0;
    m->kernel = 1;
    m->scale = 1;
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    if (l->kind == WEFT_LAYER_NORM || l->kernel != 1 || m->rank > l->in) return false;
    if (is_mini(m)) return l->out % block_of(m)->shape[1] == 0;
    return m->out == l->out && (!turns(m) || l->in % m->rank == 0);
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)l;
    return turns(m) ? WF_FORM_DENSE : WF_FORM_PAIR;
}

static bool reads_weight(const wf_module *m)
{
    return turns(m);
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = block_of(m);
    size_t           r = (size_t)m->rank, in = (size_t)l->in, out = (size_t)l->out,
                     n = (size_t)t->shape[1];

    (void)alloc, (void)err;
    for (size_t p = 0; p < r && down != NULL; p++)
        for (size_t i = 0; i < in; i++) down[p * in + i] = i % r == p ? 1 : 0;
    for (size_t p = 0; p < r && up != NULL; p++)
        for (size_t o = 0; o < out; o += n) wf_tensor_read(t, p * n, n, up + p * out + o);
    return WEFT_OK;
}

/* dst += f (W B + B), r rows of W at a time, which all have one B. */
static weft_status add_turned(const wf_module *m, const wf_layer *l, double f, float *dst,
                              const weft_allocator *alloc, weft_error *err)
{
    size_t r = (size_t)m->rank, in = (size_t)l->in, rr = r * r, floats;
    float *B;

    if (!wf_mul(r, r + 2 * in, &floats) || (B = wf_zalloc(alloc, floats, sizeof *B)) == NULL)
        return wf_nomem(err, floats * sizeof *B, "a strip of a layer");
    float *W = B + rr, *WB = W + r * in;
    for (size_t k = 0; k < (size_t)l->out / r; k++) {
        wf_tensor_read(block_of(m), k * rr, rr, B);
        wf_layer_rows(l, k * r, r, W);
        for (size_t i = 0; i < in; i += r) {
            wf_gemm_nn(WB + i, in, W + i, in, B, r, r, r, r, 0);
            for (size_t j = 0; j < rr; j++) WB[j / r * in + i + j % r] += B[j];
        }
        for (size_t j = 0; j < r * in; j++) dst[k * r * in + j] += (float)(f * WB[j]);
    }
    wf_free(alloc, B);
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    return turns(m) ? add_turned(m, l, scale * c, dst, alloc, err)
                    : wf_add_pair(m, l, scale, c, dst, alloc, err);
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "MISS", .known_by = WF_BIT(WF_TENSOR_MISS_BLOCK), .rank = "r" },
    { .name = "BONE", .known_by = WF_BIT(WF_TENSOR_BONE_BLOCK), .rank = "r" },
    { .name = NULL },
};

/* PEFT of today has the newer name alone. */
static int32_t written_as(const wf_module *m, int32_t tensor)
{
    (void)m;
    return tensor == WF_TENSOR_BONE_BLOCK ? WF_TENSOR_MISS_BLOCK : tensor;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);

    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if (m->rank != one->rank) return wf_peft_refuse(w, i, "has another rank than the others");
        if (turns(m) != turns(one) || is_mini(m) != is_mini(one) ||
            (is_mini(m) && block_of(m)->shape[1] != block_of(one)->shape[1]))
            return wf_peft_refuse(w, i, "is of another kind than the others");
    }
    wf_peft_common(w, NULL);
    if (turns(one) || is_mini(one)) wf_peft_text(w, "init_weights", turns(one) ? "bat" : "mini");
    else wf_peft_bool(w, "init_weights", true);
    wf_peft_value(w, "r", one->rank);
    wf_peft_value(w, "mini_r", is_mini(one) ? (double)block_of(one)->shape[1] : 1);
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_miss = {
    .name = "miss",
    .title = "MiSS",
    .any = WF_BIT(WF_TENSOR_MISS_BLOCK) | WF_BIT(WF_TENSOR_BONE_BLOCK),
    .reads_weight = reads_weight,
    .extra_size = sizeof(wf_miss),
    .settle = settle,
    .shape = shape,
    .fits = fits,
    .form = form,
    .pair = pair,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .written_as = written_as,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
