/* bench_kernels.c - products, convolutions and attention beside what the processor could give.
 *
 *     bench_kernels [--threads N] [--json] [--only WORD] [--rounds N]
 *
 * The ceilings are measured here too: multiply-adds in registers, bf16 dot products in registers, memory. Those in
 * registers are the best of about a second, of all threads at once with --threads: two that share a core share what it
 * gives. --only ceilings measures these alone, --only registers without memory. The
 * shapes are those of SD1.5 at 512x512 with both halves of guidance, weights in f16, and two of its decoder. Each line
 * is a tier at a shape: the best of some rounds by the processor time of this thread (of all threads with --threads),
 * so that other programs on the machine disturb little. GFLOP/s count a convolution as done directly, whatever the
 * tier does. Tiers take turns. --json prints an object a line. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "nets/exec.h"
#include "tensor/gemm.h"
#include "tensor/product.h"

static const char *only = "";
static int32_t threads = 1;
static int rounds = 5;
static bool json;
static wf_pool *pool;
static uint8_t *scratch[WF_MAX_THREADS];

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double busy(void)
{
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static void say(const char *what, const char *tier, double seconds, double gflop, const char *unit)
{
    double rate = gflop / seconds;
    if (json)
        printf("{\"what\": \"%s\", \"tier\": \"%s\", \"seconds\": %.6g, \"rate\": %.5g, \"unit\": \"%s\"}\n", what, tier,
               seconds, rate, unit);
    else printf("%-44s %-12s %10.3f ms %9.1f %s\n", what, tier, 1e3 * seconds, rate, unit);
    fflush(stdout);
}

static float *floats(size_t n, uint32_t seed)
{
    float *p = malloc(n * sizeof *p);
    if (p == NULL) exit(1);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
    }
    return p;
}

/* ---- ceilings --------------------------------------------------------------------------------- */

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static float fma_avx2(size_t n)
{
    __m256 s[12], a = _mm256_set1_ps(1.0001f), b = _mm256_set1_ps(1e-6f);
    for (int i = 0; i < 12; i++) s[i] = _mm256_set1_ps((float)i);
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) s[i] = _mm256_fmadd_ps(s[i], a, b);
        __asm__ volatile("" : "+x"(a));
    }
    for (int i = 1; i < 12; i++) s[0] = _mm256_add_ps(s[0], s[i]);
    return _mm256_cvtss_f32(s[0]);
}

__attribute__((target("avx512f"))) static float fma_avx512(size_t n)
{
    __m512 s[24], a = _mm512_set1_ps(1.0001f), b = _mm512_set1_ps(1e-6f);
    for (int i = 0; i < 24; i++) s[i] = _mm512_set1_ps((float)i);
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 24
        for (int i = 0; i < 24; i++) s[i] = _mm512_fmadd_ps(s[i], a, b);
        __asm__ volatile("" : "+v"(a));
    }
    for (int i = 1; i < 24; i++) s[0] = _mm512_add_ps(s[0], s[i]);
    return _mm512_cvtss_f32(s[0]);
}

__attribute__((target("avx512f,avx512bf16"))) static float dot_bf16(size_t n)
{
    __m512 s[24];
    __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3400);
    for (int i = 0; i < 24; i++) s[i] = _mm512_set1_ps((float)i);
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 24
        for (int i = 0; i < 24; i++) s[i] = _mm512_dpbf16_ps(s[i], a, b);
        __asm__ volatile("" : "+v"(a));
    }
    for (int i = 1; i < 24; i++) s[0] = _mm512_add_ps(s[0], s[i]);
    return _mm512_cvtss_f32(s[0]);
}
#endif

static volatile float sink;

typedef struct chunk { float (*f)(size_t); size_t n; double seconds[WF_MAX_THREADS]; float sum[WF_MAX_THREADS]; } chunk;

static void run_chunk(void *user, size_t i, int32_t worker)
{
    chunk *c = user;
    double t = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    (void)worker;
    c->sum[i] = c->f(c->n);
    c->seconds[i] = seconds_of(CLOCK_THREAD_CPUTIME_ID) - t;
}

/* The rate of one thread while all are at it. */
static void loop(const char *what, float (*f)(size_t), size_t n, double each)
{
    static chunk c;
    double best = 1e9, least = rounds > 1 ? 1 : 0, begin = seconds_of(CLOCK_MONOTONIC);

    c.f = f;
    c.n = n;
    do {
        double sum = 0;
        wf_pool_run(pool, (size_t)threads, run_chunk, &c);
        for (int32_t i = 0; i < threads; i++) sum += c.seconds[i], sink = c.sum[i];
        best = fmin(best, sum / threads);
    } while (seconds_of(CLOCK_MONOTONIC) - begin < least);
    say(what, "registers", best, each * (double)n * 1e-9, "GFLOP/s");
}

/* A word of each line is enough to bring it in. */
static float read_all(const uint64_t *x, size_t n)
{
    uint64_t s[4] = { 0 };
    for (size_t i = 0; i + 32 <= n; i += 32)
        for (size_t k = 0; k < 4; k++) s[k] ^= x[i + 8 * k];
    return (float)((s[0] ^ s[1] ^ s[2] ^ s[3]) & 1);
}

static void ceilings(wf_cpu cpu)
{
#if defined(__x86_64__)
    if (cpu.avx2_fma_f16c) loop("f32 multiply-add, 256 bits", fma_avx2, 4000000, 12 * 16);
    if (cpu.avx512) loop("f32 multiply-add, 512 bits", fma_avx512, 2000000, 24 * 32);
    if (cpu.avx512_bf16) loop("bf16 dot product, 512 bits", dot_bf16, 2000000, 24 * 64);
#endif
    (void)cpu;
    if (strcmp(only, "registers") == 0) return;
    size_t n = (size_t)64 << 20;
    float *x = floats(n, 1), *y = malloc(n * sizeof *y);
    double best = 1e9;
    memset(y, 0, n * sizeof *y);
    for (int i = 0; i < rounds; i++) {
        double t = busy();
        memcpy(y, x, n * sizeof *y);
        best = fmin(best, busy() - t);
    }
    say("copying 256 MiB, bytes read and written", "memcpy", best, 8e-9 * (double)n, "GB/s");
    best = 1e9;
    for (int i = 0; i < rounds; i++) {
        double t = busy();
        sink = read_all((const uint64_t *)(const void *)x, n / 2);
        best = fmin(best, busy() - t);
    }
    say("reading 256 MiB", "memory", best, 4e-9 * (double)n, "GB/s");
    free(x), free(y);
}

/* ---- products --------------------------------------------------------------------------------- */

static const wf_products *tiers[8];
static int tier_count;

static void run_product(const char *kind, size_t samples, size_t in, size_t out, wf_window w)
{
    char name[96];
    size_t taps = wf_window_taps(&w), rows = wf_window_rows(&w);
    if (w.kernel == 1) snprintf(name, sizeof name, "%s %zu x %zu x %zu", kind, samples * rows, out, in);
    else snprintf(name, sizeof name, "%s %zu of %dx%d, %zu to %zu, stride %d", kind, samples, w.h, w.w, in, out, w.stride);
    if (strstr(name, only) == NULL) return;
    float *x = floats(samples * (size_t)w.h * (size_t)w.w * in, 1), *wide = floats(out * in * taps, 2);
    float *bias = floats(out, 3), *y = floats(samples * rows * out, 4);
    uint16_t *weight = malloc(out * in * taps * sizeof *weight);
    for (size_t i = 0; i < out * in * taps; i++) weight[i] = wf_f16_from_f32(wide[i] / 16);
    wf_product p = { .y = y, .x = x, .samples = samples, .in = in, .out = out, .window = w, .weight = weight,
                     .type = WF_F16, .bias = bias };
    double best[8];
    for (int i = 0; i < tier_count; i++) best[i] = 1e9;
    for (int i = 0; i < tier_count; i++)
        for (int k = 0; k < threads; k++) scratch[k] = realloc(scratch[k], 1 + tiers[i]->wide_scratch(&p) + (64 << 20));
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < tier_count; i++) {
            double t = busy();
            tiers[i]->wide(&p, wf_kernels_pick(wf_cpu_detect()), pool, scratch);
            best[i] = fmin(best[i], busy() - t);
        }
    for (int i = 0; i < tier_count; i++)
        say(name, tiers[i]->name, best[i], 2e-9 * (double)(samples * rows) * (double)(in * taps) * (double)out, "GFLOP/s");
    free(x), free(wide), free(bias), free(y), free(weight);
}

static void linear(size_t rows, size_t out, size_t in)
{
    run_product("product", 2, in, out, (wf_window){ (int32_t)rows, 1, (int32_t)rows, 1, 1, 1, 0 });
}

static void conv(size_t samples, int32_t size, size_t in, size_t out, int32_t stride)
{
    run_product("conv", samples, in, out, (wf_window){ size, size, size / stride, size / stride, 3, stride, 1 });
}

/* ---- attention -------------------------------------------------------------------------------- */

static void attention(int32_t lq, int32_t lk, int32_t heads, int32_t d)
{
    char name[96];
    int32_t n = 2;
    size_t width = (size_t)heads * (size_t)d;
    snprintf(name, sizeof name, "attention %d x %d, %d heads of %d", lq, lk, heads, d);
    if (strstr(name, only) == NULL) return;
    float *q = floats((size_t)(n * lq) * width, 1), *k = floats((size_t)(n * lk) * width, 2);
    float *v = floats((size_t)(n * lk) * width, 3), *o = floats((size_t)(n * lq) * width, 4);
    double best[8];
    for (int i = 0; i < tier_count; i++) best[i] = 1e9;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < tier_count; i++) {
            wf_exec e = { .k = wf_kernels_pick(wf_cpu_detect()), .products = tiers[i], .pool = pool, .scratch = scratch,
                          .dry = true };
            wf_attention a = { .n = n, .heads = heads, .d = d, .lq = lq, .q = q, .keys = &(wf_keys){ k, v, lk },
                               .segments = 1 };
            wf_attend(&e, o, &a);
            for (int s = 0; s < threads; s++) scratch[s] = realloc(scratch[s], e.scratch_need);
            e.dry = false;
            double t = busy();
            wf_attend(&e, o, &a);
            best[i] = fmin(best[i], busy() - t);
        }
    for (int i = 0; i < tier_count; i++)
        say(name, tiers[i]->name, best[i], 4e-9 * n * (double)width * lq * lk, "GFLOP/s");
    free(q), free(k), free(v), free(o);
}

int main(int argc, char **argv)
{
    weft_allocator alloc = wf_allocator(NULL);
    wf_cpu cpu = wf_cpu_detect();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) rounds = atoi(argv[++i]);
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) only = argv[++i];
        else if (strcmp(argv[i], "--json") == 0) json = true;
        else {
            fprintf(stderr, "usage: bench_kernels [--threads N] [--json] [--only WORD] [--rounds N]\n");
            return 2;
        }
    }
    if (threads < 1 || threads > WF_MAX_THREADS || wf_pool_create(&alloc, threads, &pool, NULL) != WEFT_OK) return 1;
    tiers[tier_count++] = &wf_products_openblas;
#if defined(__x86_64__)
    if (cpu.avx2_fma_f16c) tiers[tier_count++] = &wf_products_avx2;
    if (cpu.avx512) tiers[tier_count++] = &wf_products_avx512;
    if (cpu.avx512_bf16) tiers[tier_count++] = &wf_products_avx512_bf16;
#endif
    wf_blas_begin();
    if (only[0] == '\0' || strcmp(only, "ceilings") == 0 || strcmp(only, "registers") == 0) ceilings(cpu);
    static const struct { size_t rows, out, in; } products[] = {
        { 4096, 320, 320 }, { 4096, 2560, 320 }, { 4096, 320, 1280 }, { 1024, 640, 640 }, { 1024, 5120, 640 },
        { 1024, 640, 2560 }, { 256, 1280, 1280 }, { 256, 10240, 1280 }, { 256, 1280, 5120 }, { 64, 1280, 1280 },
        { 77, 320, 768 }, { 4096, 16, 320 },
    };
    for (size_t i = 0; i < WF_LEN(products); i++) linear(products[i].rows, products[i].out, products[i].in);
    static const struct { size_t samples; int32_t size; size_t in, out; int32_t stride; } convs[] = {
        { 2, 64, 320, 320, 1 }, { 2, 64, 640, 320, 1 }, { 2, 32, 640, 640, 1 }, { 2, 32, 1280, 640, 1 },
        { 2, 16, 1280, 1280, 1 }, { 2, 16, 2560, 1280, 1 }, { 2, 8, 1280, 1280, 1 }, { 2, 64, 320, 320, 2 },
        { 2, 64, 4, 320, 1 }, { 2, 64, 320, 4, 1 }, { 1, 128, 512, 512, 1 }, { 1, 256, 256, 256, 1 },
    };
    for (size_t i = 0; i < WF_LEN(convs); i++)
        conv(convs[i].samples, convs[i].size, convs[i].in, convs[i].out, convs[i].stride);
    static const struct { int32_t lq, lk, heads, d; } attentions[] = {
        { 4096, 4096, 8, 40 }, { 4096, 77, 8, 40 }, { 1024, 1024, 8, 80 }, { 1024, 77, 8, 80 }, { 256, 256, 8, 160 },
        { 4096, 4096, 1, 512 }, { 4096, 4096, 10, 64 },
    };
    for (size_t i = 0; i < WF_LEN(attentions); i++)
        attention(attentions[i].lq, attentions[i].lk, attentions[i].heads, attentions[i].d);
    wf_blas_end();
    wf_pool_free(pool);
    for (int i = 0; i < threads; i++) free(scratch[i]);
    return 0;
}
