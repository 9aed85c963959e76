/* vector_plain.h - a vector of four floats for any processor, for packed_tiles.h and
 * packed_kernels.h: what compilers make of their vector types, without an instruction by name. */
#ifndef WF_VECTOR_PLAIN_H
#define WF_VECTOR_PLAIN_H

#include <math.h>

#include "tensor/dtype.h"

enum { LANES = 4 };
#define UNROLL       _Pragma("GCC unroll 16")
#define TILE_ROWS    4
#define TILE_VECTORS 3

typedef float    vec __attribute__((vector_size(16)));
typedef int32_t  v_int __attribute__((vector_size(16)));
typedef uint32_t v_bits __attribute__((vector_size(16)));

static inline vec  v_zero(void) { return (vec){ 0, 0, 0, 0 }; }
static inline vec  v_set1(float x) { return (vec){ x, x, x, x }; }
static inline vec  v_add(vec a, vec b) { return a + b; }
static inline vec  v_sub(vec a, vec b) { return a - b; }
static inline vec  v_mul(vec a, vec b) { return a * b; }
static inline void v_store(float *p, vec x) { memcpy(p, &x, sizeof x); }

static inline vec v_load(const float *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* Rounded once (but for one sum in 2^29): the transforms of Winograd and the softmax need it. */
static inline vec v_fma(vec a, vec b, vec c)
{
    vec x;
    UNROLL for (int i = 0; i < LANES; i++) x[i] = (float)((double)a[i] * b[i] + c[i]);
    return x;
}

static inline vec v_load_some(const float *p, size_t n)
{
    vec x = v_zero();
    memcpy(&x, p, n * sizeof *p);
    return x;
}

static inline void v_store_some(float *p, vec x, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = x[i];
}

/* a where the mask has ones, else b */
static inline vec v_choose(v_int mask, vec a, vec b)
{
    return (vec)((mask & (v_int)a) | (~mask & (v_int)b));
}

static inline vec v_max(vec a, vec b) { return v_choose(a > b, a, b); }

static inline vec v_load_type(const void *p, wf_dtype type, size_t n)
{
    if (type == WF_F32) return n == LANES ? v_load(p) : v_load_some(p, n);
    uint16_t half[LANES] = { 0 };
    if (n == LANES) memcpy(half, p, sizeof half);
    else memcpy(half, p, n * sizeof *half);
    v_bits h = { half[0], half[1], half[2], half[3] };
    if (type == WF_BF16) return (vec)(h << 16);
    /* The exponent's bias differs by 112; what was infinite or no number stays it. */
    v_bits positive = (h & 0x7fff) << 13;
    v_bits huge = (v_bits)(positive >= 0x7c00u << 13) & 0x7f800000;
    return (vec)((v_bits)((vec)positive * v_set1(0x1p112f)) | huge | (h & 0x8000) << 16);
}

/* Of |x| < 2^22, to even; a NaN stays one. */
static inline vec v_round(vec x) { return x + v_set1(0x1.8p23f) - v_set1(0x1.8p23f); }

/* x 2^n for whole n; 0 where the exponent would leave what float32 has */
static inline vec v_scale2(vec x, vec n)
{
    v_bits e = (v_bits)__builtin_convertvector(n, v_int) << 23;
    return v_choose(n < v_set1(-126.0f), v_zero(), (vec)((v_bits)x + e));
}

static inline vec v_finite_or_zero(vec x)
{
    return v_choose(x == v_set1(-INFINITY), v_zero(), x);
}

static inline bool v_all_ones(vec x)
{
    return x[0] == 1 && x[1] == 1 && x[2] == 1 && x[3] == 1;
}

static inline void transpose(vec *r)
{
    vec t[LANES] = { r[0], r[1], r[2], r[3] };
    UNROLL for (int i = 0; i < LANES; i++) r[i] = (vec){ t[0][i], t[1][i], t[2][i], t[3][i] };
}

#endif
