/* workbench.h - an exec to try a network or an operation on: first dry, then in memory of exactly the size that
 * the dry walk asked for, filled with not-a-numbers, so that what is read before it is written shows. A program's
 * suite runs once for each tier of products that the processor has. */
#ifndef WF_TEST_WORKBENCH_H
#define WF_TEST_WORKBENCH_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/tiers.h"
#include "nets/exec.h"
#include "tensor/gemm.h"

typedef struct workbench {
    wf_exec        e;
    weft_allocator alloc;
    size_t         peak; /* of the dry walk */
    int32_t        threads;
} workbench;

static const wf_products *bench_tier = &wf_products_openblas;

static inline void bench_open(workbench *w, const wf_kernels *k, int32_t threads)
{
    *w = (workbench){ .e = { .k = k, .products = bench_tier, .dry = true,
                             .arena = { .dry = true } },
                      .alloc = wf_allocator(NULL), .threads = threads };
    ck_assert_int_eq(wf_pool_create(&w->alloc, threads, &w->e.pool, NULL), WEFT_OK);
}

static inline uint8_t *bench_block(workbench *w, size_t size)
{
    uint8_t *p = wf_alloc(&w->alloc, size);
    ck_assert_ptr_nonnull(p);
    memset(p, 0xff, size);
    return p;
}

/* Call after walking dry. */
static inline void bench_real(workbench *w)
{
    ck_assert(!w->e.arena.overflow && w->e.arena.used == 0);
    w->peak = w->e.arena.peak;
    w->e.dry = false;
    w->e.arena = (wf_arena){ .base = bench_block(w, w->peak), .size = w->peak };
    w->e.scratch = wf_zalloc(&w->alloc, (size_t)w->threads, sizeof *w->e.scratch);
    for (int32_t i = 0; i < w->threads; i++) w->e.scratch[i] = bench_block(w, w->e.scratch_need);
    wf_blas_begin();
}

/* The real walk took exactly what the dry one counted. */
static inline void bench_close(workbench *w)
{
    wf_blas_end();
    ck_assert(!w->e.arena.overflow && w->e.arena.used == 0);
    ck_assert_uint_eq(w->e.arena.peak, w->peak);
    wf_free(&w->alloc, w->e.arena.base);
    for (int32_t i = 0; i < w->threads; i++) wf_free(&w->alloc, w->e.scratch[i]);
    wf_free(&w->alloc, w->e.scratch);
    wf_pool_free(w->e.pool);
}

/* The tables of kernels that this processor can run. */
static inline size_t bench_tables(const wf_kernels *tables[2])
{
    size_t n = 0;
    tables[n++] = &wf_kernels_ref;
#if defined(__x86_64__)
    if (wf_cpu_detect().avx2_fma_f16c) tables[n++] = &wf_kernels_avx2;
#elif defined(__aarch64__)
    if (wf_cpu_detect().neon) tables[n++] = &wf_kernels_neon;
#endif
    return n;
}

/* The suite under each tier: how many tests failed. */
static inline int bench_every_tier(Suite *(*suite)(void))
{
    const wf_products *tiers[TEST_TIERS_MAX];
    int count = test_tiers(tiers, false), failed = 0;
    for (int i = 0; i < count; i++) {
        bench_tier = tiers[i];
        SRunner *r = srunner_create(suite());
        srunner_run_all(r, CK_ENV);
        if (srunner_ntests_failed(r) > 0) printf("failed with the products of %s\n", bench_tier->name);
        failed += srunner_ntests_failed(r);
        srunner_free(r);
    }
    return failed;
}

/* Numbers in -1..1, the same on every run. */
static inline float bench_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1.0f;
}

static inline float *bench_floats(size_t n, uint32_t seed)
{
    float *p = malloc((n + 1) * sizeof *p);
    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < n; i++) p[i] = bench_next(&seed);
    return p;
}

#endif
