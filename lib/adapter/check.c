/* check.c - what a module's tensors must be before a family sees them, and how messages speak of
 * them. */
#include <math.h>
#include <stdio.h>

#include "adapter/adapter_internal.h"

/* Values that are looked at together. */
enum { CHUNK = 1024 };

enum { FACTOR, NUMBER, INDICES }; /* a number may be of any type; indices are whole numbers */

static const struct {
    const char *name;
    int32_t     kind;
} roles[WF_TENSORS] = {
    [WF_TENSOR_ALPHA] = { "alpha", NUMBER },
    [WF_TENSOR_MAGNITUDE] = { "dora_scale", FACTOR },
    [WF_TENSOR_DIFF_B] = { "diff_b", FACTOR },
    [WF_TENSOR_DOWN] = { "lora_down", FACTOR },
    [WF_TENSOR_UP] = { "lora_up", FACTOR },
    [WF_TENSOR_MID] = { "lora_mid", FACTOR },
    [WF_TENSOR_MIXER] = { "lora_AB", FACTOR },
    [WF_TENSOR_LORA_E] = { "lora_E", FACTOR },
    [WF_TENSOR_RANKNUM] = { "ranknum", NUMBER },
    [WF_TENSOR_UP_BIAS] = { "lora_up.bias", FACTOR },
    [WF_TENSOR_HADA_W1A] = { "hada_w1_a", FACTOR },
    [WF_TENSOR_HADA_W1B] = { "hada_w1_b", FACTOR },
    [WF_TENSOR_HADA_W2A] = { "hada_w2_a", FACTOR },
    [WF_TENSOR_HADA_W2B] = { "hada_w2_b", FACTOR },
    [WF_TENSOR_HADA_T1] = { "hada_t1", FACTOR },
    [WF_TENSOR_HADA_T2] = { "hada_t2", FACTOR },
    [WF_TENSOR_LOKR_W1] = { "lokr_w1", FACTOR },
    [WF_TENSOR_LOKR_W1A] = { "lokr_w1_a", FACTOR },
    [WF_TENSOR_LOKR_W1B] = { "lokr_w1_b", FACTOR },
    [WF_TENSOR_LOKR_W2] = { "lokr_w2", FACTOR },
    [WF_TENSOR_LOKR_W2A] = { "lokr_w2_a", FACTOR },
    [WF_TENSOR_LOKR_W2B] = { "lokr_w2_b", FACTOR },
    [WF_TENSOR_LOKR_T2] = { "lokr_t2", FACTOR },
    [WF_TENSOR_OFT_BLOCKS] = { "oft_blocks", FACTOR },
    [WF_TENSOR_RESCALE] = { "rescale", FACTOR },
    [WF_TENSOR_OFT_R] = { "oft_R", FACTOR },
    [WF_TENSOR_BOFT_R] = { "boft_R", FACTOR },
    [WF_TENSOR_BOFT_S] = { "boft_s", FACTOR },
    [WF_TENSOR_IA3_WEIGHT] = { "weight", FACTOR },
    [WF_TENSOR_ON_INPUT] = { "on_input", NUMBER },
    [WF_TENSOR_IA3_L] = { "ia3_l", FACTOR },
    [WF_TENSOR_GLORA_A1] = { "a1", FACTOR },
    [WF_TENSOR_GLORA_A2] = { "a2", FACTOR },
    [WF_TENSOR_GLORA_B1] = { "b1", FACTOR },
    [WF_TENSOR_GLORA_B2] = { "b2", FACTOR },
    [WF_TENSOR_GLORA_BM] = { "bm", FACTOR },
    [WF_TENSOR_DIFF] = { "diff", FACTOR },
    [WF_TENSOR_REPLACE] = { "weight", FACTOR },
    [WF_TENSOR_REPLACE_B] = { "bias", FACTOR },
    [WF_TENSOR_DELTA_U] = { "u", FACTOR },
    [WF_TENSOR_DELTA_V] = { "v", FACTOR },
    [WF_TENSOR_W_NORM] = { "w_norm", FACTOR },
    [WF_TENSOR_B_NORM] = { "b_norm", FACTOR },
    [WF_TENSOR_VERA_LAMBDA_B] = { "vera_lambda_b", FACTOR },
    [WF_TENSOR_VERA_LAMBDA_D] = { "vera_lambda_d", FACTOR },
    [WF_TENSOR_VERA_A] = { "vera_A", FACTOR },
    [WF_TENSOR_VERA_B] = { "vera_B", FACTOR },
    [WF_TENSOR_SPECTRUM] = { "fourierft_spectrum", FACTOR },
    [WF_TENSOR_HRA_U] = { "hra_u", FACTOR },
    [WF_TENSOR_SHIRA_WEIGHT] = { "shira_weight", FACTOR },
    [WF_TENSOR_SHIRA_INDICES] = { "shira_indices", INDICES },
    [WF_TENSOR_VB_LOGITS_A] = { "vblora_logits_A", FACTOR },
    [WF_TENSOR_VB_LOGITS_B] = { "vblora_logits_B", FACTOR },
    [WF_TENSOR_VB_INDICES_A] = { "vblora_logits_A_topk_indices", INDICES },
    [WF_TENSOR_VB_INDICES_B] = { "vblora_logits_B_topk_indices", INDICES },
    [WF_TENSOR_VB_WEIGHTS_A] = { "vblora_logits_A_topk_weights", FACTOR },
    [WF_TENSOR_VB_WEIGHTS_B] = { "vblora_logits_B_topk_weights", FACTOR },
    [WF_TENSOR_VB_BANK] = { "vblora_vector_bank", FACTOR },
    [WF_TENSOR_C3A_KERNEL] = { "c3a_kernel", FACTOR },
    [WF_TENSOR_MISS_BLOCK] = { "miss_block", FACTOR },
    [WF_TENSOR_BONE_BLOCK] = { "bone_block", FACTOR },
    [WF_TENSOR_DELORA_A] = { "delora_A", FACTOR },
    [WF_TENSOR_DELORA_B] = { "delora_B", FACTOR },
    [WF_TENSOR_DELORA_LAMBDA] = { "delora_lambda", NUMBER },
    [WF_TENSOR_DELORA_NORM] = { "delora_w_norm", FACTOR },
    [WF_TENSOR_GRALORA_A] = { "gralora_A", FACTOR },
    [WF_TENSOR_GRALORA_B] = { "gralora_B", FACTOR },
    [WF_TENSOR_GRALORA_DOWN] = { "gralora_A_general", FACTOR },
    [WF_TENSOR_GRALORA_UP] = { "gralora_B_general", FACTOR },
    [WF_TENSOR_RANDLORA_LAMBDA] = { "randlora_lambda", FACTOR },
    [WF_TENSOR_RANDLORA_GAMMA] = { "randlora_gamma", FACTOR },
    [WF_TENSOR_RANDLORA_A] = { "randlora_A", FACTOR },
    [WF_TENSOR_RANDLORA_B] = { "randlora_B", FACTOR },
};

const char *wf_tensor_role(int32_t tensor)
{
    bool known = tensor > WF_TENSOR_NONE && tensor < WF_TENSORS && roles[tensor].name != NULL;
    return known ? roles[tensor].name : "?";
}

bool wf_tensor_is_factor(int32_t tensor)
{
    return roles[tensor].kind == FACTOR;
}

weft_status wf_module_wrong_shape(const wf_tensor *t, const char *source, const char *wanted,
                                  weft_error *err)
{
    wf_key_text   k;
    wf_shape_text s;

    return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %s, wanted %s", source, wf_key_show(&k, t->name),
                   wf_shape(&s, t->shape, t->rank), wanted);
}

weft_status wf_module_fail(const wf_module *m, const char *source, weft_error *err,
                           const char *format, ...)
{
    char        line[400];
    wf_key_text k;
    va_list     args;

    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s: %s", source, wf_key_show(&k, m->key), line);
}

static bool is_float(wf_dtype t)
{
    return t == WF_F32 || t == WF_F16 || t == WF_BF16 || t == WF_F64 || t == WF_F8_E4M3 ||
           t == WF_F8_E5M2 ||
           t == WF_F8_E4M3FNUZ || t == WF_F8_E5M2FNUZ;
}

/* PEFT stores indices as F32 where it runs on Windows. */
static bool is_index(wf_dtype t)
{
    return t == WF_U8 || t == WF_I8 || t == WF_U16 || t == WF_I16 || t == WF_U32 || t == WF_I32 ||
           t == WF_U64 || t == WF_I64 || t == WF_F32;
}

static weft_status check_number(const wf_tensor *t, const char *source, weft_error *err)
{
    wf_key_text k;
    float       v;

    if (t->count != 1 || !wf_widen_any(&v, t->data, t->dtype, 1))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %zu values of %s, wanted one number",
                       source, wf_key_show(&k, t->name), t->count, wf_dtype_name(t->dtype));
    return WEFT_OK;
}

static weft_status check_factor(const wf_module *m, const wf_tensor *t, bool indices,
                                const char *source, weft_error *err)
{
    wf_key_text k;

    if (!(indices ? is_index(t->dtype) : is_float(t->dtype)))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %s, wanted %s", source,
                       wf_key_show(&k, t->name), wf_dtype_name(t->dtype),
                       indices ? "whole numbers" : "floating-point numbers");
    int64_t least = m->family->may_be_empty != NULL && m->family->may_be_empty(m) ? 0 : 1;
    for (int32_t d = 0; d < t->rank; d++)
        if (t->shape[d] < least || t->shape[d] > INT32_MAX)
            return wf_module_wrong_shape(t, source, "no dimension of zero and none over 2^31", err);
    if (t->rank < 1 || t->rank > 4)
        return wf_module_wrong_shape(t, source, "one to four dimensions", err);
    return WEFT_OK;
}

weft_status wf_module_check_tensors(const wf_module *m, const char *source, weft_error *err)
{
    for (int32_t p = 0; p < WF_TENSORS; p++) {
        const wf_tensor *t = m->tensor[p];
        if (t == NULL) continue;
        if (roles[p].kind == NUMBER) WF_TRY(check_number(t, source, err));
        else WF_TRY(check_factor(m, t, roles[p].kind == INDICES, source, err));
    }
    return WEFT_OK;
}

weft_status wf_tensor_check_indices(const wf_tensor *t, size_t from, size_t n, double end,
                                    const char *source, weft_error *err)
{
    float       buf[CHUNK];
    wf_key_text k;

    for (size_t i = from; i < from + n; i += CHUNK) {
        size_t m = WF_MIN((size_t)CHUNK, from + n - i);
        wf_tensor_read(t, i, m, buf);
        for (size_t j = 0; j < m; j++) {
            wf_number_text v, e;
            if (buf[j] >= 0 && (double)buf[j] < end && buf[j] == floorf(buf[j])) continue;
            return wf_fail(err, WEFT_E_FORMAT,
                           "%s: %s holds %s at index %zu, wanted whole numbers below %s", source,
                           wf_key_show(&k, t->name), wf_number(&v, (double)buf[j]), i + j,
                           wf_number(&e, end));
        }
    }
    return WEFT_OK;
}

/* Are all values finite, told by their bits, 8 bytes at a time? An exponent of all ones, and no
 * other, reaches the sign bit when its lowest bit is added once more. Files are read from end to
 * end for this, so it should cost no more than that. False also for types that are looked at one by
 * one. */
static bool finite_bits(const wf_tensor *t)
{
    static const struct { wf_dtype type; uint64_t exponent, one, sign; } types[] = {
        { WF_F32, 0x7f8000007f800000u, 0x0080000000800000u, 0x8000000080000000u },
        { WF_F16, 0x7c007c007c007c00u, 0x0400040004000400u, 0x8000800080008000u },
        { WF_BF16, 0x7f807f807f807f80u, 0x0080008000800080u, 0x8000800080008000u },
    };
    uint64_t any = 0, word;

    for (size_t k = 0; k < WF_LEN(types); k++) {
        if (types[k].type != t->dtype) continue;
        for (size_t i = 0; i < t->bytes; i += sizeof word) {
            size_t n = WF_MIN(sizeof word, t->bytes - i);
            if (n < sizeof word) word = 0;
            memcpy(&word, t->data + i, n);
            any |= (word & types[k].exponent) + types[k].one;
        }
        return (any & types[k].sign) == 0;
    }
    return false;
}

weft_status wf_tensor_check_finite(const wf_tensor *t, const char *source, weft_error *err)
{
    float       buf[CHUNK];
    wf_key_text k;

    if (finite_bits(t)) return WEFT_OK;
    for (size_t i = 0; i < t->count; i += CHUNK) {
        size_t n = WF_MIN((size_t)CHUNK, t->count - i);
        wf_tensor_read(t, i, n, buf);
        for (size_t j = 0; j < n; j++)
            if (!isfinite(buf[j]))
                return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %s at index %zu of %zu", source,
                               wf_key_show(&k, t->name), isnan(buf[j]) ? "NaN" : "infinity", i + j,
                               t->count);
    }
    return WEFT_OK;
}

weft_status wf_module_check_finite(const wf_module *m, const char *source, weft_error *err)
{
    for (int32_t p = 0; p < WF_TENSORS; p++)
        if (m->tensor[p] != NULL && (m->shared & WF_BIT(p)) == 0)
            WF_TRY(wf_tensor_check_finite(m->tensor[p], source, err));
    return WEFT_OK;
}
