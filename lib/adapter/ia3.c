/* ia3.c - (IA)^3: a layer's outputs, or its inputs, each times a learned number.
 *
 *   LyCORIS   weight (n) or (1, n, 1, 1), the offset from 1; on_input 0 or 1
 *             Delta W = diag(weight) W, or W diag(weight)          the bias stays what it is
 *   PEFT      ia3_l, the factor itself: (out, 1) for outputs, (1, in) for inputs; (1, n, 1, 1) for
 * a convolution, where its configuration tells which Delta W = diag(l - 1) W, or W diag(l - 1)
 * outputs: the bias is scaled too
 *
 * Liu et al., Few-Shot Parameter-Efficient Fine-Tuning, 2022. */
#include "adapter/factor.h"
#include "adapter/save.h"

/* ---- what both have -------------------------------------------------------------------------- */

static bool on_input(const wf_module *m)
{
    return m->in > 0;
}

/* One of out and in is known; the rest is the layer's. */
static void set_side(wf_module *m, bool input, int64_t n)
{
    m->in = input ? (int32_t)n : 0;
    m->out = input ? 0 : (int32_t)n;
    m->kernel = 0;
    m->rank = 0;
    m->scale = 1;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    return l->kind != WEFT_LAYER_NORM && (on_input(m) ? m->in == l->in : m->out == l->out);
}

/* dst += f * W diag(t - one), or diag(t - one) W. */
static weft_status add_scaled(const wf_module *m, const wf_layer *l, const wf_tensor *t, float one,
                              double f, float *dst, const weft_allocator *alloc, weft_error *err)
{
    size_t out = (size_t)l->out, in = (size_t)l->in, K = in * (size_t)l->kernel * (size_t)l->kernel;
    size_t floats = WF_STRIP * K + t->count;
    float *W = wf_zalloc(alloc, floats, sizeof *W);

    if (W == NULL) return wf_nomem(err, floats * sizeof *W, "a strip of a layer");
    float *v = W + WF_STRIP * K;
    wf_tensor_read(t, 0, t->count, v);
    for (size_t i = 0; i < t->count; i++) v[i] = (float)(f * (v[i] - one));
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        wf_layer_rows(l, o, n, W);
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < K; i++)
                dst[(o + j) * K + i] += v[on_input(m) ? i % in : o + j] * W[j * K + i];
    }
    wf_free(alloc, W);
    return WEFT_OK;
}

/* ---- LyCORIS --------------------------------------------------------------------------------- */

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *w = m->tensor[WF_TENSOR_IA3_WEIGHT];
    int64_t          n = w->shape[w->rank == 1 ? 0 : 1];

    if (w->count != (size_t)n || (w->rank != 1 && w->shape[0] != 1))
        return wf_module_wrong_shape(w, source, "(n) or (1, n, 1, 1)", err);
    set_side(m, wf_tensor_scalar(m->tensor[WF_TENSOR_ON_INPUT]) != 0, n);
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    return add_scaled(m, l, m->tensor[WF_TENSOR_IA3_WEIGHT], 0, scale * c, dst, alloc, err);
}

const wf_family wf_family_ia3 = {
    .name = "ia3",
    .title = "(IA)^3",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_IA3_WEIGHT) | WF_BIT(WF_TENSOR_ON_INPUT),
    .shape = shape,
    .fits = fits,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA,
    .elsewhere = "in LyCORIS' form",
};

/* ---- PEFT ------------------------------------------------------------------------------------ */

static weft_status settle_peft(wf_module *m, const wf_settings *s, const wf_config *config,
                               const char *path, weft_error *err)
{
    wf_ia3_peft *extra = m->extra;

    (void)s;
    return config == NULL ? WEFT_OK : wf_config_lists(config, "feedforward_modules", path,
                                                      &extra->on_input, err);
}

static weft_status shape_peft(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_IA3_L];
    bool             input, of_input = ((const wf_ia3_peft *)m->extra)->on_input;

    if (t->rank == 2 && (t->shape[0] == 1 || t->shape[1] == 1))
        input = t->shape[0] == t->shape[1] ? of_input : t->shape[0] == 1;
    else if (t->rank == 4 && t->count == (size_t)t->shape[1])
        input = of_input;
    else
        return wf_module_wrong_shape(t, source, "(out, 1), (1, in) or (1, n, 1, 1)", err);
    set_side(m, input, (int64_t)t->count);
    return WEFT_OK;
}

static weft_status add_peft(const wf_module *m, const wf_layer *l, double scale, double c,
                            float *dst, const weft_allocator *alloc, weft_error *err)
{
    return add_scaled(m, l, m->tensor[WF_TENSOR_IA3_L], 1, scale * c, dst, alloc, err);
}

static bool add_bias_peft(const wf_module *m, const wf_layer *l, double scale, double c, float *dst)
{
    if (on_input(m) || l->bias == NULL) return false;
    for (size_t o = 0; dst != NULL && o < (size_t)l->out; o++) {
        float v;
        wf_tensor_read(m->tensor[WF_TENSOR_IA3_L], o, 1, &v);
        dst[o] += (float)(scale * c * (v - 1) * l->bias[o]);
    }
    return true;
}

static const wf_peft_type peft_types[] = {
    { .name = "IA3", .known_by = WF_BIT(WF_TENSOR_IA3_L), .rank = "r",
      .rank_patterns = "rank_pattern", .alpha = "lora_alpha" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    wf_peft_common(w, "init_ia3_weights");
    wf_peft_paths(w, "feedforward_modules", on_input);
    return WEFT_OK;
}

const wf_family wf_family_ia3_peft = {
    .name = "ia3",
    .title = "PEFT's (IA)^3",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_IA3_L),
    .extra_size = sizeof(wf_ia3_peft),
    .settle = settle_peft,
    .shape = shape_peft,
    .fits = fits,
    .form = wf_form_dense,
    .add = add_peft,
    .add_bias = add_bias_peft,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
