/* module.c - what holds for a module whatever its family: its form, its sum, its bias, and how its tensors are read.
 *
 * Three parts belong to no family. A magnitude makes any module DoRA: the family's own difference is then what turns the
 * weight, and the whole becomes a dense one. A difference of the bias, or a bias to put in its place, stands beside the
 * family's own. */
#include <math.h>
#include <stdio.h>

#include "adapter/factor.h"
#include "adapter/room.h"
#include "tensor/gemm.h"

/* ---- form, sum and bias ---------------------------------------------------------------------------- */

uint64_t wf_module_parts(const wf_module *m)
{
    uint64_t parts = 0;

    for (int32_t p = 0; p < WF_PARTS; p++)
        if (m->part[p] != NULL) parts |= WF_BIT(p);
    return parts;
}

int32_t wf_module_form(const wf_module *m, const wf_layer *l)
{
    return m->part[WF_PART_MAGNITUDE] != NULL ? WF_FORM_DENSE : m->family->form(m, l);
}

bool wf_module_fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *bias[] = { m->part[WF_PART_DIFF_B], m->part[WF_PART_REPLACE_B] };

    for (size_t i = 0; i < WF_LEN(bias); i++)
        if (bias[i] != NULL && bias[i]->count != (size_t)l->out) return false;
    if (m->part[WF_PART_MAGNITUDE] != NULL && !wf_dora_fits(m, l)) return false;
    if (m->family->fits != NULL) return m->family->fits(m, l);
    return l->kind != WEFT_LAYER_NORM && m->out == l->out && m->in == l->in && m->kernel == l->kernel;
}

int32_t wf_module_pair_rank(const wf_module *m)
{
    return m->family->pair_rank != NULL ? m->family->pair_rank(m) : m->rank;
}

/* Families may multiply matrices, and are called while no run computes. */
weft_status wf_module_pair(const wf_module *m, const wf_layer *l, float *down, float *up, const weft_allocator *alloc,
                           weft_error *err)
{
    wf_blas_begin();
    weft_status st = m->family->pair(m, l, down, up, alloc, err);
    wf_blas_end();
    return st;
}

weft_status wf_module_add(const wf_module *m, const wf_layer *l, double scale, double inside, double c, float *dst,
                          const weft_allocator *alloc, weft_error *err)
{
    wf_blas_begin();
    weft_status st = m->part[WF_PART_MAGNITUDE] != NULL ? wf_dora_add(m, l, scale, inside, c, dst, alloc, err)
                                                        : m->family->add(m, l, scale, c, dst, alloc, err);
    wf_blas_end();
    return st;
}

weft_status wf_module_add_inner(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                                const weft_allocator *alloc, weft_error *err)
{
    wf_blas_begin();
    weft_status st = m->family->add(m, l, scale, c, dst, alloc, err);
    wf_blas_end();
    return st;
}

bool wf_module_of_weight(const wf_module *m)
{
    return m->part[WF_PART_MAGNITUDE] != NULL || m->part[WF_PART_REPLACE] != NULL || m->family->of_weight;
}

weft_status wf_module_kron(const wf_module *m, const wf_layer *l, float *w1, float *w2, const weft_allocator *alloc,
                           weft_error *err)
{
    wf_blas_begin();
    weft_status st = m->family->kron(m, l, w1, w2, alloc, err);
    wf_blas_end();
    return st;
}

weft_status wf_module_add_bias(const wf_module *m, const wf_layer *l, double scale, double c, float *dst, bool *any,
                               weft_error *err)
{
    const wf_tensor *t = m->part[WF_PART_DIFF_B], *whole = m->part[WF_PART_REPLACE_B];

    (void)err;
    *any = t != NULL || whole != NULL;
    if (t != NULL && dst != NULL) wf_tensor_add(t, c, dst);
    if (whole != NULL && dst != NULL) {
        wf_tensor_add(whole, c, dst);
        for (size_t o = 0; l->bias != NULL && o < whole->count; o++) dst[o] -= (float)(c * l->bias[o]);
    }
    if (m->family->add_bias != NULL) *any |= m->family->add_bias(m, l, scale, c, dst);
    return WEFT_OK;
}

void wf_module_set_scale(wf_module *m, double divisor)
{
    if (!m->has_alpha || (m->alpha == 0 && m->underscore)) m->alpha = (float)m->rank;
    m->scale = (float)((double)m->alpha / (m->rslora ? sqrt(divisor) : divisor));
}

/* ---- reading tensors -------------------------------------------------------------------------------- */

enum { CHUNK = 1024 };

void wf_tensor_read(const wf_tensor *t, size_t from, size_t n, float *dst)
{
    (void)wf_widen_any(dst, t->data + from * (size_t)(wf_dtype_bits(t->dtype) / 8), t->dtype, n);
}

float wf_tensor_scalar(const wf_tensor *t)
{
    float v = 0;

    wf_tensor_read(t, 0, 1, &v);
    return v;
}

void wf_tensor_transposed(const wf_tensor *t, size_t rows, size_t columns, float *dst)
{
    float buf[CHUNK];

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, columns - c);
            wf_tensor_read(t, r * columns + c, n, buf);
            for (size_t j = 0; j < n; j++) dst[(c + j) * rows + r] = buf[j];
        }
}

void wf_tensor_channels_last(const wf_tensor *t, size_t r, size_t in, size_t kk, float *dst)
{
    float  buf[CHUNK];
    size_t K = in * kk;

    for (size_t p = 0; p < r; p++) {
        float *dst_p = dst + p * K;
        for (size_t i = 0; i < K; i += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, K - i);
            wf_tensor_read(t, p * K + i, n, buf);
            for (size_t j = 0; j < n; j++) dst_p[(i + j) % kk * in + (i + j) / kk] = buf[j];
        }
    }
}

/* ---- checks ------------------------------------------------------------------------------------------ */

static const char *const part_names[WF_PARTS] = {
    [WF_PART_ALPHA] = "alpha", [WF_PART_MAGNITUDE] = "dora_scale", [WF_PART_DIFF_B] = "diff_b",
    [WF_PART_DOWN] = "lora_down", [WF_PART_UP] = "lora_up", [WF_PART_MID] = "lora_mid", [WF_PART_MIXER] = "lora_AB",
    [WF_PART_LORA_E] = "lora_E", [WF_PART_RANKNUM] = "ranknum", [WF_PART_UP_BIAS] = "lora_up.bias",
    [WF_PART_HADA_W1A] = "hada_w1_a", [WF_PART_HADA_W1B] = "hada_w1_b", [WF_PART_HADA_W2A] = "hada_w2_a",
    [WF_PART_HADA_W2B] = "hada_w2_b", [WF_PART_HADA_T1] = "hada_t1", [WF_PART_HADA_T2] = "hada_t2",
    [WF_PART_LOKR_W1] = "lokr_w1", [WF_PART_LOKR_W1A] = "lokr_w1_a", [WF_PART_LOKR_W1B] = "lokr_w1_b",
    [WF_PART_LOKR_W2] = "lokr_w2", [WF_PART_LOKR_W2A] = "lokr_w2_a", [WF_PART_LOKR_W2B] = "lokr_w2_b",
    [WF_PART_LOKR_T2] = "lokr_t2", [WF_PART_OFT_BLOCKS] = "oft_blocks", [WF_PART_RESCALE] = "rescale",
    [WF_PART_OFT_R] = "oft_R", [WF_PART_BOFT_R] = "boft_R", [WF_PART_BOFT_S] = "boft_s",
    [WF_PART_IA3_WEIGHT] = "weight", [WF_PART_ON_INPUT] = "on_input", [WF_PART_IA3_L] = "ia3_l",
    [WF_PART_GLORA_A1] = "a1", [WF_PART_GLORA_A2] = "a2", [WF_PART_GLORA_B1] = "b1", [WF_PART_GLORA_B2] = "b2",
    [WF_PART_GLORA_BM] = "bm", [WF_PART_DIFF] = "diff", [WF_PART_REPLACE] = "weight",
    [WF_PART_REPLACE_B] = "bias", [WF_PART_DELTA_U] = "u", [WF_PART_DELTA_V] = "v", [WF_PART_W_NORM] = "w_norm",
    [WF_PART_B_NORM] = "b_norm",
};

const char *wf_part_name(int32_t part)
{
    return part > WF_PART_NONE && part < WF_PARTS && part_names[part] != NULL ? part_names[part] : "?";
}

weft_status wf_module_misshapen(const wf_module *m, const wf_tensor *t, const char *source, const char *wanted,
                                weft_error *err)
{
    wf_key_text   k;
    wf_shape_text s;

    (void)m;
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %s, wanted %s", source, wf_key_show(&k, t->name),
                   wf_shape(&s, t->shape, t->rank), wanted);
}

weft_status wf_module_fail(const wf_module *m, const char *source, weft_error *err, const char *format, ...)
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
    return t == WF_F32 || t == WF_F16 || t == WF_BF16 || t == WF_F64 || t == WF_F8_E4M3 || t == WF_F8_E5M2 ||
           t == WF_F8_E4M3FNUZ || t == WF_F8_E5M2FNUZ;
}

static bool is_number(int32_t part)
{
    return part == WF_PART_ALPHA || part == WF_PART_RANKNUM || part == WF_PART_ON_INPUT;
}

static weft_status check_number(const wf_tensor *t, const char *source, weft_error *err)
{
    wf_key_text k;
    float       v;

    if (t->count != 1 || !wf_widen_any(&v, t->data, t->dtype, 1))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %zu values of %s, wanted one number", source,
                       wf_key_show(&k, t->name), t->count, wf_dtype_name(t->dtype));
    return WEFT_OK;
}

static weft_status check_part(const wf_module *m, const wf_tensor *t, const char *source, weft_error *err)
{
    wf_key_text k;

    if (!is_float(t->dtype))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %s, wanted floating-point numbers", source,
                       wf_key_show(&k, t->name), wf_dtype_name(t->dtype));
    int64_t least = m->part[WF_PART_LORA_E] != NULL ? 0 : 1; /* AdaLoRA prunes modules away, to rank 0 */
    for (int32_t d = 0; d < t->rank; d++)
        if (t->shape[d] < least || t->shape[d] > INT32_MAX)
            return wf_module_misshapen(m, t, source, "no dimension of zero and none over 2^31", err);
    if (t->rank < 1 || t->rank > 4) return wf_module_misshapen(m, t, source, "one to four dimensions", err);
    return WEFT_OK;
}

weft_status wf_module_check_parts(const wf_module *m, const char *source, weft_error *err)
{
    for (int32_t p = 0; p < WF_PARTS; p++) {
        const wf_tensor *t = m->part[p];
        if (t == NULL) continue;
        WF_TRY(is_number(p) ? check_number(t, source, err) : check_part(m, t, source, err));
    }
    return WEFT_OK;
}

/* Are all values finite, told by their bits, 8 bytes at a time? An exponent of all ones, and no other, reaches the sign
 * bit when its lowest bit is added once more. Files are read from end to end for this, so it should cost no more than
 * that. False also for types that are looked at one by one. */
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

static weft_status check_finite(const wf_tensor *t, const char *source, weft_error *err)
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
                               wf_key_show(&k, t->name), isnan(buf[j]) ? "NaN" : "infinity", i + j, t->count);
    }
    return WEFT_OK;
}

weft_status wf_module_check_finite(const wf_module *m, const char *source, weft_error *err)
{
    for (int32_t p = 0; p < WF_PARTS; p++)
        if (m->part[p] != NULL) WF_TRY(check_finite(m->part[p], source, err));
    return WEFT_OK;
}
