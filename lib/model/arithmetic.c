/* arithmetic.c - which tier of products a model's networks run.
 *
 * The denoiser and the VAE run in the arithmetic that the caller asked for. Text encoders, image
 * encoders and projections stay in float32: they are a hundredth of the work, and an error in what
 * they say is read by every step, while an error inside a step is one among many (docs/performance.md
 * has the figures). What is made of weights before a network runs is no tier's business. */
#include "model/model_internal.h"

const char *weft_arithmetic_name(int32_t arithmetic)
{
    static const char *const names[] = { "f32", "bf16" };
    return arithmetic >= 0 && (size_t)arithmetic < WF_LEN(names) ? names[arithmetic] : NULL;
}

weft_status wf_model_set_arithmetic(weft_model *m, int32_t arithmetic, bool emulate, wf_cpu cpu,
                                    weft_error *err)
{
    wf_networks *n = &m->networks;

    if (weft_arithmetic_name(arithmetic) == NULL)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_model_options.arithmetic is %d, wanted a WEFT_ARITHMETIC_*",
                       (int)arithmetic);
    n->exact = wf_products_pick(cpu);
    n->products = arithmetic == WEFT_ARITHMETIC_BF16 ? wf_products_pick_bf16(cpu) : n->exact;
    n->arithmetic = arithmetic;
    n->emulated = n->products == NULL;
    if (!n->emulated) return WEFT_OK;
    if (!emulate)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: this processor has no bfloat16 dot product (AVX512-BF16); "
                       "WEFT_OPEN_EMULATE computes it slowly", m->path);
    n->products = &wf_products_bf16_emulated;
    return WEFT_OK;
}
