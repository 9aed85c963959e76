/* packed_neon.c - packed products, four floats at a time: 24 of 32 registers hold the tile. */
#if defined(__aarch64__)
#if !defined(__clang__)
/* gcc would take x's eight values of a step ahead, and has no registers left for them. */
#pragma GCC optimize("no-schedule-insns")
#endif
#include <arm_neon.h>
#include <math.h>

#include "tensor/dtype.h"

enum { LANES = 4 };
#define UNROLL       _Pragma("GCC unroll 16")
#define TILE_ROWS    8
#define TILE_VECTORS 3

typedef float32x4_t vec;

static inline vec  v_zero(void) { return vdupq_n_f32(0); }
static inline vec  v_set1(float x) { return vdupq_n_f32(x); }
static inline vec  v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vec x) { vst1q_f32(p, x); }
static inline vec  v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec  v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec  v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec  v_max(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec  v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }

/* There are no masks; lanes go one by one. */
static inline vec v_load_some(const float *p, size_t n)
{
    vec x = vld1q_lane_f32(p, v_zero(), 0);
    if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
    if (n > 3) x = vld1q_lane_f32(p + 3, x, 3);
    return x;
}

static inline void v_store_some(float *p, vec x, size_t n)
{
    vst1q_lane_f32(p, x, 0);
    if (n > 1) vst1q_lane_f32(p + 1, x, 1);
    if (n > 2) vst1q_lane_f32(p + 2, x, 2);
    if (n > 3) vst1q_lane_f32(p + 3, x, 3);
}

/* Files do not align what they hold: it is loaded as bytes. */
static inline vec v_load_type(const void *p, wf_dtype type, size_t n)
{
    uint8_t some[16] = { 0 };
    const uint8_t *at = p;
    if (n < LANES) {
        memcpy(some, p, n * (type == WF_F32 ? 4 : 2));
        at = some;
    }
    if (type == WF_F32) return vreinterpretq_f32_u8(vld1q_u8(at));
    uint8x8_t h = vld1_u8(at);
    if (type == WF_F16) return vcvt_f32_f16(vreinterpret_f16_u8(h));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(h), 16));
}

static inline vec v_round(vec x) { return vrndnq_f32(x); }

/* x 2^n for whole n; 0 where the exponent would leave what float32 has */
static inline vec v_scale2(vec x, vec n)
{
    int32x4_t e = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
    uint32x4_t small = vcltq_f32(n, v_set1(-126.0f));
    uint32x4_t y = vreinterpretq_u32_s32(vaddq_s32(vreinterpretq_s32_f32(x), e));
    return vreinterpretq_f32_u32(vbicq_u32(y, small));
}

static inline vec v_finite_or_zero(vec x)
{
    uint32x4_t hidden = vceqq_f32(x, v_set1(-INFINITY));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), hidden));
}

static inline bool v_all_ones(vec x) { return vminvq_u32(vceqq_f32(x, v_set1(1.0f))) != 0; }

static inline void transpose(vec *r)
{
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
    float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
    float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

#define V_DOT v_fma
#define PAIRS 0
#include "tensor/packed_kernels.h"

const wf_packed wf_packed_neon = {
    "neon", LANES, TILE_ROWS, TILE_VECTORS * LANES, multiply, multiply_turned, pack,
    WINOGRAD, softmax,
};
#else
typedef int wf_packed_neon_unused; /* a translation unit may not be empty */
#endif
