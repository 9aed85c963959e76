/* tiers.h - the tiers of products that this processor has, OpenBLAS first. */
#ifndef WF_TEST_TIERS_H
#define WF_TEST_TIERS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/product.h"

enum { TEST_TIERS_MAX = 8 };

/* In float32, and those that round to bfloat16 after them where `rounded`: how many. */
static inline int test_all_tiers(const wf_products *tiers[TEST_TIERS_MAX], bool rounded)
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
    if (rounded) tiers[count++] = &wf_products_bf16_emulated;
    return count;
}

/* Of these the one that WEFT_TIER names, where it is set: for a test that is repeated with OpenBLAS acting for another
 * processor, which changes nothing in weft's own tiers, or that is emulated, which is slow. */
static inline int test_tiers(const wf_products *tiers[TEST_TIERS_MAX], bool rounded)
{
    int count = test_all_tiers(tiers, rounded);
    const char *only = getenv("WEFT_TIER");
    if (only == NULL) return count;
    for (int i = 0; i < count; i++)
        if (strcmp(tiers[i]->name, only) == 0) { tiers[0] = tiers[i]; return 1; }
    printf("this processor has no tier '%s'\n", only);
    exit(1);
}

#endif
