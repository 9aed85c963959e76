/* cpu.c - what the processor can do, asked of it directly each time.
 *
 * The compiler's __builtin_cpu_supports keeps its answer in a global that a load-time constructor
 * fills; a library that promises neither asks cpuid itself. An instruction set counts only if the
 * system also saves its registers on a task switch, which is what XCR0 tells. */
#include "base/base.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

#define BIT(word, n) (((word) >> (n) & 1) != 0)

/* XCR0: bit 1 SSE, bit 2 AVX, bits 5..7 the three parts of AVX-512. */
static uint32_t saved_registers(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

wf_cpu wf_cpu_detect(void)
{
    wf_cpu       cpu = { 0 };
    unsigned int a, b, c, d, leaf1_c, saved;

    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !BIT(leaf1_c, 27))
        return cpu; /* 27: xgetbv exists */
    saved = saved_registers();
    if ((saved & 0x06) != 0x06) return cpu;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;

    cpu.avx2_fma_f16c = BIT(leaf1_c, 28) && BIT(leaf1_c, 12) && BIT(leaf1_c, 29) && BIT(b, 5);
    cpu.avx512 = cpu.avx2_fma_f16c && (saved & 0xe0) == 0xe0 && BIT(b, 16) && BIT(b, 17) &&
                 BIT(b, 30) && BIT(b, 31);
    if (cpu.avx512 && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        cpu.avx512_bf16 = BIT(a, 5);
    return cpu;
}

#else

wf_cpu wf_cpu_detect(void)
{
    wf_cpu cpu = { 0 };

#if defined(__aarch64__)
    cpu.neon = true; /* part of what every compiler and system expects of the architecture */
#endif
    return cpu;
}

#endif
