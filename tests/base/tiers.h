/* tiers.h - the tiers of products that this processor has, OpenBLAS first. */
#ifndef WF_TEST_TIERS_H
#define WF_TEST_TIERS_H

#include "tensor/product.h"

enum { TEST_TIERS_MAX = 8 };

/* In float32, and those that round to bfloat16 after them where `rounded`: how many. */
static inline int test_tiers(const wf_products *tiers[TEST_TIERS_MAX], bool rounded)
{
    int count = 0;
    tiers[count++] = &wf_products_openblas;
#if defined(__x86_64__)
    wf_cpu cpu = wf_cpu_detect();
    if (cpu.avx2_fma_f16c) tiers[count++] = &wf_products_avx2;
    if (cpu.avx512) tiers[count++] = &wf_products_avx512;
    if (cpu.avx512_bf16 && rounded) tiers[count++] = &wf_products_avx512_bf16;
#endif
    if (rounded) tiers[count++] = &wf_products_bf16_emulated;
    return count;
}

#endif
