/* region.c - parts of the image with prompts of their own.
 *
 * A region is where an adapter's mask is, or has a mask itself. Its adapter acts on the keys and
 * values of its prompt, and not on those of other prompts: an adapter's mask has no place there
 * that could keep it apart. The masks of all regions are shared where they sum to more than 1,
 * whether the adapters' differences add up there or not: of keys and values there is one mean. */
#include "base/structs.h"
#include "plan/plan_internal.h"

int32_t wf_plan_regions(const weft_plan *p)
{
    return p->regions;
}

bool wf_plan_region_isolated(const weft_plan *p, int32_t region)
{
    return p->region[region].isolated;
}

const wf_plan_mask *wf_plan_region_mask(const weft_plan *p, int32_t region)
{
    const wf_region *r = &p->region[region];
    return r->mask != NULL ? r->mask->data : wf_plan_mask_of(p, r->adapter);
}

/* The region of an adapter; -1: it has none. */
static int32_t region_of(const weft_plan *p, int32_t adapter)
{
    for (int32_t i = 0; i < p->regions; i++)
        if (p->region[i].adapter == adapter) return i;
    return -1;
}

void wf_plan_region_cells(const weft_plan *p, const wf_sheet *s, const wf_row *row, int32_t region,
                          wf_cell *cells)
{
    for (int32_t b = 0; b < row->branches; b++, cells += s->slots)
        for (size_t k = 0; k < s->patched_count; k++) {
            const wf_patched *at = &s->patched[k];
            const wf_cell    *line = wf_sheet_line(s, row, b, k);
            for (int32_t i = 0; i < at->patch->parts; i++) {
                int32_t own = region_of(p, s->slot[at->slot + i].adapter);
                cells[at->slot + i] =
                    own >= 0 && own != region ? (wf_cell){ 0, 0, 0 } : line[i];
            }
        }
}

weft_status wf_plan_check_regions(const weft_plan *p, weft_error *err)
{
    for (int32_t i = 0; i < p->regions; i++)
        if (wf_plan_region_mask(p, i) == NULL)
            return wf_fail(err, WEFT_E_ARG,
                           "region %d is where the mask of adapter %s is, and that has no mask",
                           (int)i, wf_adapter_name(p->entry[p->region[i].adapter].bound->adapter));
    return WEFT_OK;
}

weft_status wf_plan_copy_regions(weft_plan *p, const weft_plan *from, weft_error *err)
{
    if (from->regions == 0) return WEFT_OK;
    p->region = wf_zalloc(&p->alloc, (size_t)from->regions, sizeof *p->region);
    if (p->region == NULL)
        return wf_nomem(err, (size_t)from->regions * sizeof *p->region, "a copy of a plan");
    for (; p->regions < from->regions; p->regions++) {
        p->region[p->regions] = from->region[p->regions];
        (void)wf_blob_ref(p->region[p->regions].mask);
    }
    return WEFT_OK;
}

void wf_plan_drop_regions(weft_plan *p)
{
    for (int32_t i = 0; i < p->regions; i++) wf_blob_drop(p->region[i].mask);
    wf_free(&p->alloc, p->region);
}

static void remove_at(weft_plan *p, int32_t index)
{
    wf_blob_drop(p->region[index].mask);
    p->regions--;
    for (int32_t i = index; i < p->regions; i++) p->region[i] = p->region[i + 1];
}

void wf_plan_regions_forget(weft_plan *p, int32_t adapter)
{
    for (int32_t i = p->regions; i-- > 0; ) {
        if (p->region[i].adapter == adapter) remove_at(p, i);
        else if (p->region[i].adapter > adapter) p->region[i].adapter--;
    }
}

static weft_status check(const weft_plan *p, const weft_region *o, weft_error *err)
{
    bool of_adapter = (o->flags & WEFT_REGION_ADAPTER) != 0;

    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_region: reserved0 is %d, must be zero",
                       (int)o->reserved0);
    if (p->regions >= WF_REGIONS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_add_region: a plan takes at most %d regions",
                       WF_REGIONS_MAX);
    if (of_adapter == (o->mask != NULL))
        return wf_fail(err, WEFT_E_ARG,
                       of_adapter ? "weft_region: it has an adapter and a mask, but where an "
                                    "adapter acts is said by the adapter's own mask"
                                  : "weft_region: it has neither an adapter nor a mask");
    if (!of_adapter && o->adapter != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_region: adapter is %d, but flags has no WEFT_REGION_ADAPTER",
                       (int)o->adapter);
    if (!of_adapter) return WEFT_OK;
    if (o->adapter < 0 || o->adapter >= p->adapters)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_add_region: adapter %d of %d", (int)o->adapter,
                       (int)p->adapters);
    if (region_of(p, o->adapter) >= 0)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_add_region: adapter %d has a region already",
                       (int)o->adapter);
    return WEFT_OK;
}

weft_status weft_plan_add_region(weft_plan *plan, const weft_region *region, weft_error *err)
{
    weft_region o;
    wf_blob    *mask = NULL;
    wf_region  *more;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_add_region", err));
    if (region == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_add_region: region is NULL");
    WF_TRY(WF_OPTIONS(&o, region, weft_region, WEFT_REGION_ADAPTER | WEFT_REGION_ISOLATED, err));
    WF_TRY(check(plan, &o, err));
    if (o.mask != NULL) WF_TRY(wf_plan_mask_read(&mask, plan, o.mask, 0, err));
    more = wf_zalloc(&plan->alloc, (size_t)plan->regions + 1, sizeof *more);
    if (more == NULL) {
        wf_blob_drop(mask);
        return wf_nomem(err, ((size_t)plan->regions + 1) * sizeof *more, "a plan's regions");
    }
    if (plan->regions > 0) memcpy(more, plan->region, (size_t)plan->regions * sizeof *more);
    wf_free(&plan->alloc, plan->region);
    plan->region = more;
    plan->region[plan->regions++] =
        (wf_region){ .mask = mask, .adapter = o.mask != NULL ? -1 : o.adapter,
                     .isolated = (o.flags & WEFT_REGION_ISOLATED) != 0 };
    return WEFT_OK;
}

weft_status weft_plan_remove_region(weft_plan *plan, int32_t index, weft_error *err)
{
    WF_TRY(wf_plan_still_open(plan, "weft_plan_remove_region", err));
    if (index < 0 || index >= plan->regions)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_remove_region: region %d of %d", (int)index,
                       (int)plan->regions);
    remove_at(plan, index);
    return WEFT_OK;
}
