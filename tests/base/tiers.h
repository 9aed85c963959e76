/* tiers.h - the tiers of products that this processor has, OpenBLAS first. */
#ifndef WF_TEST_TIERS_H
#define WF_TEST_TIERS_H

#include <stdlib.h>
#include <string.h>

#include "tensor/product.h"

enum { TEST_TIERS_MAX = 4 };

/* WEFT_TIER=openblas asks for that one alone: what a test is repeated for when OpenBLAS shall act for
 * another processor, which changes nothing in weft's own tiers. */
static inline int test_tiers_wanted(int count)
{
    const char *only = getenv("WEFT_TIER");
    return only != NULL && strcmp(only, "openblas") == 0 ? 1 : count;
}

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
#elif defined(__aarch64__)
    if (wf_cpu_detect().neon) tiers[count++] = &wf_products_neon;
#endif
    (void)rounded;
    return test_tiers_wanted(count);
}

#endif
