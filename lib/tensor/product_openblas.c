/* product_openblas.c - today's tier: float32, tiles by tiles.c, each multiplied by OpenBLAS. */
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

const wf_products wf_products_openblas = {
    "openblas", wf_gemm_nt, wf_gemm_nn, wf_gemm_tn, wide, thin, wf_tiles_wide_scratch,
    wf_tiles_thin_scratch,
};
