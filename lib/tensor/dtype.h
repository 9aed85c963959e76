/* dtype.h - the element types that a weight file may hold, and each as a float. */
#ifndef WF_DTYPE_H
#define WF_DTYPE_H

#include "base/base.h"

/* Element types; the order is that of the table in dtype.c. */
typedef int32_t wf_dtype;
enum {
    WF_F32, WF_F16, WF_BF16, WF_F64, WF_F8_E4M3, WF_F8_E5M2, WF_F8_E8M0, WF_F8_E4M3FNUZ,
    WF_F8_E5M2FNUZ, WF_BOOL, WF_U8, WF_I8, WF_U16, WF_I16, WF_U32, WF_I32, WF_U64, WF_I64, WF_C64,
    WF_F4, WF_F6_E2M3, WF_F6_E3M2
};
const char *wf_dtype_name(wf_dtype t);
int32_t     wf_dtype_bits(wf_dtype t);
bool        wf_dtype_from_name(const char *name, wf_dtype *out);
/* dst[i] = src[i] as float for n elements; src may be unaligned. False for complex types and for
 * those of less than a byte. */
bool        wf_widen_any(float *dst, const void *src, wf_dtype type, size_t n);
uint16_t    wf_f16_from_f32(float v); /* round to nearest even, here and below */
/* dst = src in F32, F16, BF16, F8_E4M3 or F8_E5M2, as torch narrows: too large is infinite, in
 * F8_E4M3 448. False for other types. dst may be unaligned. */
bool        wf_narrow(void *dst, wf_dtype type, const float *src, size_t n);
/* Index of the first value that the type has no finite number for; n if it has one for each. Types
 * as in wf_narrow(), and F64. */
size_t      wf_narrow_fails(wf_dtype type, const float *src, size_t n);
/* The types that have one for v, for a message: "BF16 or F32"; NULL if none of wf_narrow()'s has. */
const char *wf_dtype_for(float v);
/* Index of the first of n floats that is infinite or no number; n: all are finite. */
size_t      wf_not_finite(const float *v, size_t n);
/* Are n elements finite? Types that do not widen pass. */
bool        wf_finite_any(const void *src, wf_dtype type, size_t n);

#endif
