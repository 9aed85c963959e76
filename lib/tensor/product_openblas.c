/* product_openblas.c - the tier for processors without one of weft's own: float32, tiles by
 * tiles.c, each multiplied by OpenBLAS. */
#include "tensor/gemm.h"
#include "tensor/product.h"

static void wide(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    wf_tiles_wide(&wf_products_openblas, p, k, pool, scratch);
}

static void thin(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    wf_tiles_thin(&wf_products_openblas, p, k, pool, scratch);
}

static void attend(float *o, const wf_attention *a, const wf_kernels *k, size_t task,
                   float *scratch)
{
    wf_attend_by_products(&wf_products_openblas, o, a, k, task, scratch);
}

const wf_products wf_products_openblas = {
    "openblas", wf_gemm_nt, wf_gemm_nn, wf_gemm_tn, wide, thin, wf_tiles_wide_scratch,
    wf_tiles_thin_scratch, attend, wf_attend_by_products_scratch, WF_ATTEND_QUERIES,
};
