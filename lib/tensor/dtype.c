/* dtype.c - the element types that a file may hold, and each as a float.
 *
 * Every conversion goes through integers or through normal floats: a host may run with denormals
 * turned off, and the weights it loads must not depend on that. Sources are unaligned, since old
 * writers do not pad their headers. All files are little-endian; so are the machines that weft
 * builds for. */
#include <math.h>

#include "tensor/dtype.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weft reads and writes little-endian files by copying bytes"
#endif

static const struct { const char *name; int32_t bits; } types[] = {
    [WF_F32]         = { "F32", 32 },        [WF_F16]         = { "F16", 16 },
    [WF_BF16]        = { "BF16", 16 },       [WF_F64]         = { "F64", 64 },
    [WF_F8_E4M3]     = { "F8_E4M3", 8 },     [WF_F8_E5M2]     = { "F8_E5M2", 8 },
    [WF_F8_E8M0]     = { "F8_E8M0", 8 },     [WF_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", 8 },
    [WF_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", 8 }, [WF_BOOL]        = { "BOOL", 8 },
    [WF_U8]          = { "U8", 8 },          [WF_I8]          = { "I8", 8 },
    [WF_U16]         = { "U16", 16 },        [WF_I16]         = { "I16", 16 },
    [WF_U32]         = { "U32", 32 },        [WF_I32]         = { "I32", 32 },
    [WF_U64]         = { "U64", 64 },        [WF_I64]         = { "I64", 64 },
    [WF_C64]         = { "C64", 64 },        [WF_F4]          = { "F4", 4 },
    [WF_F6_E2M3]     = { "F6_E2M3", 6 },     [WF_F6_E3M2]     = { "F6_E3M2", 6 },
};

const char *wf_dtype_name(wf_dtype t)
{
    return t >= 0 && (size_t)t < WF_LEN(types) ? types[t].name : "unknown";
}

int32_t wf_dtype_bits(wf_dtype t)
{
    return t >= 0 && (size_t)t < WF_LEN(types) ? types[t].bits : 0;
}

bool wf_dtype_from_name(const char *name, wf_dtype *out)
{
    for (size_t i = 0; i < WF_LEN(types); i++)
        if (strcmp(types[i].name, name) == 0) { *out = (wf_dtype)i; return true; }
    return false;
}

static float from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

/* A subnormal half is m * 2^-24 = (1 + m/1024) 2^-14 - 2^-14: exact, and no step of it is
 * subnormal. */
static float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t exponent = h >> 10 & 31, bits;
    float    small;

    if (exponent == 31) return from_bits(sign | 0x7f800000 | rest);
    if (exponent != 0)  return from_bits(sign | (rest + ((uint32_t)(127 - 15) << 23)));
    small = from_bits(rest | 0x38800000) - from_bits(0x38800000);
    memcpy(&bits, &small, sizeof bits);
    return from_bits(sign | bits);
}

/* One byte with an exponent above m bits of fraction. The value before any special case. */
static float from_f8(uint32_t v, int m, int bias)
{
    uint32_t sign = (v & 0x80) << 24, fraction = v & ((1u << m) - 1), exponent = (v & 0x7f) >> m;
    uint32_t bits;
    float    value;

    if (exponent != 0)
        return from_bits(sign | (exponent + 127 - (uint32_t)bias) << 23 | fraction << (23 - m));
    value = (float)fraction *
            from_bits((uint32_t)(127 + 1 - bias - m) << 23); /* fraction * 2^(1-bias-m) */
    memcpy(&bits, &value, sizeof bits);
    return from_bits(sign | bits);
}

static float from_byte(wf_dtype type, uint32_t v)
{
    const float nan = from_bits(0x7fc00000);

    switch (type) {
    case WF_F8_E4M3:     return (v & 0x7f) == 0x7f ? nan : from_f8(v, 3, 7);   /* no infinity */
    case WF_F8_E5M2: return from_f16((uint16_t)(v << 8));           /* the top of a half */
    case WF_F8_E4M3FNUZ: return v == 0x80 ? nan : from_f8(v, 3, 8); /* no -0: its code is NaN */
    case WF_F8_E5M2FNUZ: return v == 0x80 ? nan : from_f8(v, 2, 16);
    case WF_F8_E8M0:
        return v == 0xff ? nan : from_bits(v == 0 ? 0x00400000 : v << 23); /* 2^(v-127) */
    case WF_BOOL:        return v != 0 ? 1.0f : 0.0f;
    case WF_I8:          return (float)(v < 128 ? (int)v : (int)v - 256);
    default:             return (float)v;
    }
}

/* 256 values are quicker looked up than computed for each element. */
static void widen_bytes(float *dst, const uint8_t *src, wf_dtype type, size_t n)
{
    float table[256];

    for (uint32_t v = 0; v < 256; v++) table[v] = from_byte(type, v);
    for (size_t i = 0; i < n; i++) dst[i] = table[src[i]];
}

static void widen_f16(float *dst, const uint8_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = from_f16(h);
    }
}

static void widen_bf16(float *dst, const uint8_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = from_bits((uint32_t)h << 16);
    }
}

/* For types that C converts itself. */
#define WIDEN(type)                                        \
    for (size_t i = 0; i < n; i++) {                       \
        type v;                                            \
        memcpy(&v, bytes + i * sizeof v, sizeof v);        \
        dst[i] = (float)v;                                 \
    }                                                      \
    return true

bool wf_widen_any(float *dst, const void *src, wf_dtype type, size_t n)
{
    const uint8_t *bytes = src;

    switch (type) {
    case WF_F32:  if (n > 0) memcpy(dst, src, n * sizeof *dst); return true;
    case WF_F16:  widen_f16(dst, bytes, n); return true;
    case WF_BF16: widen_bf16(dst, bytes, n); return true;
    case WF_F8_E4M3: case WF_F8_E5M2: case WF_F8_E8M0: case WF_F8_E4M3FNUZ: case WF_F8_E5M2FNUZ:
    case WF_BOOL: case WF_U8: case WF_I8:
        widen_bytes(dst, bytes, type, n);
        return true;
    case WF_F64:  WIDEN(double);
    case WF_U16:  WIDEN(uint16_t);
    case WF_I16:  WIDEN(int16_t);
    case WF_U32:  WIDEN(uint32_t);
    case WF_I32:  WIDEN(int32_t);
    case WF_U64:  WIDEN(uint64_t);
    case WF_I64:  WIDEN(int64_t);
    default:      return false;
    }
}

/* ---- narrowing ------------------------------------------------------------------------------- */

/* The code, without its sign, of a finite float whose bits are `rest`, with m bits of fraction.
 * Below the smallest normal number the step is fixed, so the fraction is the float's shifted
 * further; rounding up may carry into the exponent, and the bits then still read right. What is too
 * large keeps counting; the caller knows where to stop. */
static uint32_t round_to(uint32_t rest, uint32_t m, uint32_t bias)
{
    uint32_t shift = 23 - m, kept, lost, half;

    if (rest >= (128 - bias) << 23) {
        rest -= (127 - bias) << 23;
    } else {
        shift += 128 - bias - (rest >> 23);
        if (shift > 24) return 0;                            /* less than half of the smallest */
        rest = (rest & 0x7fffff) | 0x800000;
    }
    kept = rest >> shift;
    lost = rest & ((1u << shift) - 1);
    half = 1u << (shift - 1);
    return kept + (lost > half || (lost == half && (kept & 1) != 0));
}

uint16_t wf_f16_from_f32(float v)
{
    uint32_t bits, sign, rest;

    memcpy(&bits, &v, sizeof bits);
    sign = bits >> 16 & 0x8000;
    rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff)); /* NaN, made quiet */
    return (uint16_t)(sign | WF_MIN(round_to(rest, 10, 15), 0x7c00));
}

/* The upper half of the float, rounded. */
static uint16_t to_bf16(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* E4M3 has no infinity: what is too large becomes 448, and so does infinity. */
static uint8_t to_f8(float v, wf_dtype type)
{
    uint32_t bits, sign, rest;

    memcpy(&bits, &v, sizeof bits);
    sign = bits >> 24 & 0x80;
    rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (type == WF_F8_E4M3) return (uint8_t)(sign | WF_MIN(round_to(rest, 3, 7), 0x7e));
    return (uint8_t)(sign | WF_MIN(round_to(rest, 2, 15), 0x7c));
}

bool wf_narrow(void *dst, wf_dtype type, const float *src, size_t n)
{
    uint8_t *bytes = dst;

    if (type != WF_F32 && type != WF_F16 && type != WF_BF16 && type != WF_F8_E4M3 &&
        type != WF_F8_E5M2)
        return false;
    if (type == WF_F32 && n > 0) memcpy(dst, src, n * sizeof *src);
    for (size_t i = 0; i < n && (type == WF_F16 || type == WF_BF16); i++) {
        uint16_t h = type == WF_F16 ? wf_f16_from_f32(src[i]) : to_bf16(src[i]);

        memcpy(bytes + 2 * i, &h, sizeof h);
    }
    for (size_t i = 0; i < n && (type == WF_F8_E4M3 || type == WF_F8_E5M2); i++)
        bytes[i] = to_f8(src[i], type);
    return true;
}

/* What rounds beyond the largest number of a type: half a step above it, where the tie is to even. */
static float beyond(wf_dtype type)
{
    switch (type) {
    case WF_F16:     return 65520;
    case WF_BF16:    return 0x1.ffp127f;
    case WF_F8_E4M3: return 464.00003f; /* 464 itself is rounded to 448 */
    case WF_F8_E5M2: return 61440;
    default:         return INFINITY;
    }
}

size_t wf_narrow_fails(wf_dtype type, const float *src, size_t n)
{
    float limit = beyond(type);

    for (size_t i = 0; i < n; i++)
        if (!(fabsf(src[i]) < limit)) return i;
    return n;
}

const char *wf_dtype_for(float v)
{
    if (wf_narrow_fails(WF_F16, &v, 1) == 1) return "F16, BF16 or F32";
    if (wf_narrow_fails(WF_BF16, &v, 1) == 1) return "BF16 or F32";
    return wf_narrow_fails(WF_F32, &v, 1) == 1 ? "F32" : NULL;
}

/* An exponent of all ones is an infinity or no number: one more overflows into the sign. So a block
 * is looked at without a branch, and without an instruction that any processor lacks. */
size_t wf_not_finite(const float *v, size_t n)
{
    enum { BLOCK = 64 };

    for (size_t i = 0; i < n; i += BLOCK) {
        size_t   end = WF_MIN(i + BLOCK, n);
        uint32_t any = 0, bits;
        for (size_t k = i; k < end; k++) {
            memcpy(&bits, &v[k], sizeof bits);
            any |= (bits & 0x7fffffffu) + 0x00800000u;
        }
        for (size_t k = i; k < end && any >> 31 != 0; k++)
            if (!(v[k] - v[k] == 0.0f)) return k;
    }
    return n;
}

bool wf_finite_any(const void *src, wf_dtype type, size_t n)
{
    enum { PIECE = 256 };
    const uint8_t *at = src;
    size_t         size = (size_t)wf_dtype_bits(type) / 8;
    float          piece[PIECE];

    for (size_t i = 0; i < n; i += PIECE) {
        size_t some = WF_MIN((size_t)PIECE, n - i);
        if (!wf_widen_any(piece, at + i * size, type, some)) return true;
        if (wf_not_finite(piece, some) < some) return false;
    }
    return true;
}
