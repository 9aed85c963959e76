/* pick.c - which kernels and which tier of products a processor gets. */
#include "tensor/kernels.h"
#include "tensor/product.h"

const wf_kernels *wf_kernels_pick(wf_cpu cpu)
{
#if defined(__x86_64__)
    if (cpu.avx2_fma_f16c) return &wf_kernels_avx2;
#elif defined(__aarch64__)
    if (cpu.neon) return &wf_kernels_neon;
#endif
    (void)cpu;
    return &wf_kernels_ref;
}

const wf_products *wf_products_pick(wf_cpu cpu)
{
#if defined(__x86_64__)
    if (cpu.avx512) return &wf_products_avx512;
    if (cpu.avx2_fma_f16c) return &wf_products_avx2;
#elif defined(__aarch64__)
    if (cpu.neon) return &wf_products_neon;
#endif
    (void)cpu;
    return &wf_products_openblas;
}

const wf_products *wf_products_pick_bf16(wf_cpu cpu)
{
#if defined(__x86_64__)
    if (cpu.avx512_bf16) return &wf_products_avx512_bf16;
#endif
    (void)cpu;
    return NULL;
}
