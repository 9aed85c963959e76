/* pick.c - which table of kernels a processor gets. */
#include "tensor/kernels.h"

const wf_kernels *wf_kernels_pick(wf_cpu cpu)
{
#if defined(__x86_64__)
    if (cpu.avx2_fma_f16c) return &wf_kernels_avx2;
#endif
    (void)cpu;
    return &wf_kernels_ref;
}
