/* lowrank.c - the low-rank family: Delta W = scale * B A.
 *
 *   A "down" (r, in) or (r, in, k, k)     B "up" (out, r) or (out, r, 1, 1)     Delta W (out, in, k, k)
 *
 * Factors stay in the file's dtype, where they are mapped; whoever computes asks for them widened, in the order
 * that the networks use: channels last, so K = k * k * in runs over (ky, kx, in). A 1x1 convolution and a linear
 * layer are the same thing here, whichever of the two forms the file chose. */
#include "adapter/family.h"
#include "tensor/gemm.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->part[WF_PART_DOWN], *B = m->part[WF_PART_UP];
    wf_shape_text    a, b;

    if (A->rank != 2 && A->rank != 4) return wf_module_misshapen(m, A, source, "(r, in) or (r, in, k, k)", err);
    if (B->rank != 2 && B->rank != 4) return wf_module_misshapen(m, B, source, "(out, r) or (out, r, 1, 1)", err);
    if (A->rank == 4 && A->shape[2] != A->shape[3]) return wf_module_misshapen(m, A, source, "a square kernel", err);
    if (B->rank == 4 && (B->shape[2] != 1 || B->shape[3] != 1))
        return wf_module_misshapen(m, B, source, "(out, r, 1, 1)", err);
    if (A->shape[0] != B->shape[1])
        return wf_module_fail(m, source, err, "up is %s but down is %s: ranks %d and %d differ",
                              wf_shape(&b, B->shape, B->rank), wf_shape(&a, A->shape, A->rank), (int)B->shape[1],
                              (int)A->shape[0]);

    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)A->shape[1];
    m->out = (int32_t)B->shape[0];
    m->kernel = A->rank == 4 ? (int32_t)A->shape[2] : 1;
    wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_PAIR;
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up, const weft_allocator *alloc,
                        weft_error *err)
{
    const wf_tensor *A = m->part[WF_PART_DOWN], *B = m->part[WF_PART_UP];
    size_t           kk = (size_t)m->kernel * (size_t)m->kernel;

    (void)l, (void)alloc, (void)err;
    if (down != NULL && kk == 1) wf_tensor_read(A, 0, A->count, down);
    if (down != NULL && kk > 1) wf_tensor_channels_last(A, (size_t)m->rank, (size_t)m->in, kk, down);
    if (up != NULL) wf_tensor_transposed(B, (size_t)m->out, (size_t)m->rank, up);
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t r = (size_t)m->rank, out = (size_t)m->out, K = m->part[WF_PART_DOWN]->count / r;
    float *down = wf_alloc(alloc, r * (K + 2 * out) * sizeof *down), *up, *B;

    if (down == NULL) return wf_nomem(err, r * (K + 2 * out) * sizeof *down, "a layer's factors");
    up = down + r * K;
    B = up + r * out;
    weft_status st = pair(m, l, down, up, alloc, err);
    for (size_t p = 0; p < r && st == WEFT_OK; p++)
        for (size_t o = 0; o < out; o++) B[o * r + p] = (float)(c * scale * up[p * out + o]);
    if (st == WEFT_OK) wf_gemm_nn(dst, K, B, r, down, K, out, K, r, 1.0f);
    wf_free(alloc, down);
    return st;
}

const wf_family wf_family_lora = {
    .name = "lora", .title = "LoRA", .needs = WF_BIT(WF_PART_DOWN) | WF_BIT(WF_PART_UP),
    .shape = shape, .form = form, .pair = pair, .add = add,
};
