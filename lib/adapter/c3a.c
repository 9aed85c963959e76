/* c3a.c - circular convolution adaptation: a matrix of blocks, each made of one row.
 *
 *   kernel (out / b, in / b, b)      Delta W[m b + t, n b + j] = kernel[m, n, (j - t) mod b] / in
 *
 * A block is a circulant: every row is the one above, moved by one place. Training multiplies by it
 * through Fourier transforms; the matrix is the same one, and is formed here. It has no scale
 * besides the division by the layer's inputs.
 *
 * Keys c3a_kernel. Chen et al., Parameter-Efficient Fine-Tuning via Circular Convolution, 2024. */
#include "adapter/factor.h"
#include "adapter/save.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_C3A_KERNEL];

    if (t->rank != 3) return wf_module_wrong_shape(t, source, "(out / b, in / b, b)", err);
    int64_t b = t->shape[2], out = t->shape[0] * b, in = t->shape[1] * b;
    if (out > INT32_MAX || in > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks make a matrix wider than 2^31");
    m->out = (int32_t)out;
    m->in = (int32_t)in;
    m->kernel = 1;
    m->rank = 0;
    m->scale = 1;
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_C3A_KERNEL];
    size_t           rows = (size_t)t->shape[0], columns = (size_t)t->shape[1],
                     b = (size_t)t->shape[2], in = (size_t)m->in;
    float            f = (float)(scale * c / m->in);
    float           *k = wf_zalloc(alloc, b, sizeof *k);

    (void)l;
    if (k == NULL) return wf_nomem(err, b * sizeof *k, "a row of a block");
    for (size_t i = 0; i < rows * columns; i++) {
        float *block = dst + i / columns * b * in + i % columns * b;
        wf_tensor_read(t, i * b, b, k);
        for (size_t r = 0; r < b; r++) {
            float *row = block + r * in;
            for (size_t j = 0; j < r; j++) row[j] += f * k[b + j - r];
            for (size_t j = r; j < b; j++) row[j] += f * k[j - r];
        }
    }
    wf_free(alloc, k);
    return WEFT_OK;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "C3A", .known_by = WF_BIT(WF_TENSOR_C3A_KERNEL) },
    { .name = NULL },
};

static double block_of(const wf_peft_writer *w, size_t i)
{
    return (double)wf_peft_module(w, i)->tensor[WF_TENSOR_C3A_KERNEL]->shape[2];
}

/* PEFT's pattern for a size of block stands behind a dot: the path without its first word. */
static const char *tail_of(const wf_peft_writer *w, size_t i)
{
    const char *path = wf_saver_path(wf_peft_layer(w, i)), *dot = strchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* The block that PEFT takes for a module: the first pattern's that its path ends in. */
static double given(const wf_peft_writer *w, size_t i, double common)
{
    const char *path = wf_saver_path(wf_peft_layer(w, i));
    size_t      len = strlen(path);

    for WF_EACH(w, k) {
        const char *tail = tail_of(w, k);
        size_t      n = strlen(tail);
        if (block_of(w, k) != common && n < len && path[len - n - 1] == '.' &&
            strcmp(path + len - n, tail) == 0)
            return block_of(w, k);
    }
    return common;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    double common = block_of(w, wf_peft_next(w, 0));
    bool   first = true;

    for WF_EACH(w, i)
        if (given(w, i, common) != block_of(w, i))
            return wf_peft_refuse(w, i, "has other blocks than one whose path ends alike");
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "block_size", common);
    wf_peft_key(w, "block_size_pattern");
    wf_text_add(w->out, "{");
    for WF_EACH(w, i) {
        wf_number_text n;
        if (block_of(w, i) == common) continue;
        wf_text_add(w->out, "%s\"%s\": %s", first ? "" : ", ", tail_of(w, i),
                    wf_number(&n, block_of(w, i)));
        first = false;
    }
    wf_text_add(w->out, "}");
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_c3a = {
    .name = "c3a",
    .title = "C3A",
    .needs = WF_BIT(WF_TENSOR_C3A_KERNEL),
    .shape = shape,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
