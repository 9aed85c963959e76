/* mask.c - the masks of a plan's adapters, regions and image prompts in every size that the
 * denoiser has the image in.
 *
 * A pixel of a smaller size covers several of the mask, and perhaps parts of some: it takes their
 * mean by area. So a soft edge stays soft, and the mean of the mask is the same in every size. Where
 * the masks of several adapters sum to more than 1, they share the pixel; so do those of several
 * regions, among themselves. Image prompts add up. */
#include "run/run_internal.h"

/* The mean of `from` over the area of pixel (y, x) of an image of h x w pixels. */
static double mean_over(const wf_plan_mask *from, int32_t h, int32_t w, int32_t y, int32_t x)
{
    double  dy = (double)from->h / h, dx = (double)from->w / w, sum = 0, area = 0;
    double  y0 = y * dy, y1 = (y + 1) * dy, x0 = x * dx, x1 = (x + 1) * dx;

    for (int32_t j = (int32_t)y0; j < from->h && j < y1; j++)
        for (int32_t i = (int32_t)x0; i < from->w && i < x1; i++) {
            double a = (WF_MIN(j + 1, y1) - WF_MAX(j, y0)) * (WF_MIN(i + 1, x1) - WF_MAX(i, x0));
            if (a <= 0) continue;
            sum += a * (double)from->values[(size_t)j * (size_t)from->w + (size_t)i];
            area += a;
        }
    return area > 0 ? sum / area : 0;
}

static void fill_level(wf_mask_level *level, const wf_plan_mask *from, float *rows)
{
    for (int32_t y = 0; y < level->h; y++)
        for (int32_t x = 0; x < level->w; x++)
            rows[(size_t)y * (size_t)level->w + (size_t)x] =
                (float)mean_over(from, level->h, level->w, y, x);
    level->rows = rows;
}

/* The masks of adapters, of regions, or of image prompts. */
typedef struct masks {
    wf_mask         *of;     /* [count] */
    int32_t          count;
    enum { OF_ADAPTERS, OF_REGIONS, OF_IMAGES } whose;
    const weft_plan *plan;
} masks;

static const wf_plan_mask *given(const masks *m, int32_t i)
{
    return m->whose == OF_REGIONS  ? wf_plan_region_mask(m->plan, i)
           : m->whose == OF_IMAGES ? wf_plan_image_mask(m->plan, i)
                                   : wf_plan_mask_of(m->plan, i);
}

/* Divide by the sum where it is above 1. */
static void share(const masks *m, int32_t size, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        double sum = 0;
        for (int32_t k = 0; k < m->count; k++)
            if (m->of[k].levels > 0) sum += (double)m->of[k].level[size].rows[i];
        for (int32_t k = 0; k < m->count && sum > 1; k++) {
            const wf_plan_mask *from = given(m, k);
            if (from == NULL || (from->adds && m->whose == OF_ADAPTERS)) continue;
            float *v = (float *)(uintptr_t)&m->of[k].level[size].rows[i]; /* our own rows */
            *v = (float)((double)*v / sum);
        }
    }
}

static void fill(const masks *m, const wf_sizes *sizes, wf_mask_level **level, float **rows)
{
    for (int32_t k = 0; k < m->count; k++) {
        const wf_plan_mask *from = given(m, k);
        if (from == NULL) continue;
        m->of[k] = (wf_mask){ *level, sizes->count, from->text };
        for (int32_t i = 0; i < sizes->count; i++, (*level)++) {
            (*level)->h = sizes->at[i].h;
            (*level)->w = sizes->at[i].w;
            fill_level(*level, from, *rows);
            *rows += (size_t)(*level)->h * (size_t)(*level)->w;
        }
    }
    for (int32_t i = 0; i < sizes->count && m->whose != OF_IMAGES; i++)
        share(m, i, (size_t)sizes->at[i].h * (size_t)sizes->at[i].w);
}

weft_status wf_run_masks_make(wf_run_masks *m, const weft_plan *plan, const wf_sizes *sizes,
                              bool measure, const weft_allocator *alloc, weft_error *err)
{
    int32_t adapters = wf_plan_adapters(plan), regions = wf_plan_regions(plan);
    int32_t images = weft_plan_image_prompts(plan);
    size_t  count = (size_t)regions, pixels = 0;
    size_t  all = (size_t)adapters + (size_t)regions + (size_t)images;

    *m = (wf_run_masks){ 0 };
    for (int32_t a = 0; a < adapters; a++) count += wf_plan_mask_of(plan, a) != NULL;
    for (int32_t i = 0; i < images; i++) count += wf_plan_image_mask(plan, i) != NULL;
    if (count == 0) return WEFT_OK;
    for (int32_t i = 0; i < sizes->count; i++)
        pixels += (size_t)sizes->at[i].h * (size_t)sizes->at[i].w;
    m->bytes = all * sizeof *m->of + count * (size_t)sizes->count * sizeof *m->level +
               count * pixels * sizeof *m->rows;
    if (measure) return WEFT_OK;
    m->of = wf_zalloc(alloc, all, sizeof *m->of);
    m->level = wf_zalloc(alloc, count * (size_t)sizes->count, sizeof *m->level);
    m->rows = wf_zalloc(alloc, count * pixels, sizeof *m->rows);
    if (m->of == NULL || m->level == NULL || m->rows == NULL)
        return wf_nomem(err, m->bytes, "the masks of a run");
    m->region = m->of + adapters;
    m->image = m->region + regions;

    wf_mask_level *level = m->level;
    float         *rows = m->rows;
    fill(&(masks){ m->of, adapters, OF_ADAPTERS, plan }, sizes, &level, &rows);
    fill(&(masks){ m->region, regions, OF_REGIONS, plan }, sizes, &level, &rows);
    fill(&(masks){ m->image, images, OF_IMAGES, plan }, sizes, &level, &rows);
    return WEFT_OK;
}

void wf_run_masks_free(wf_run_masks *m, const weft_allocator *alloc)
{
    wf_free(alloc, m->of);
    wf_free(alloc, m->level);
    wf_free(alloc, m->rows);
    *m = (wf_run_masks){ 0 };
}
