/* report.c - what became of each layer in a merge. */
#include "base/structs.h"
#include "merge/merge_internal.h"

struct weft_merge_report {
    weft_allocator  alloc;
    weft_model     *model; /* names are its */
    size_t          count;
    weft_merge_row  row[];
};

weft_status wf_merge_report_new(weft_model *model, size_t rows, const weft_allocator *alloc,
                                weft_merge_report **out, weft_error *err)
{
    size_t             size = sizeof(weft_merge_report) + rows * sizeof(weft_merge_row);
    weft_merge_report *r = wf_zalloc(alloc, 1, size);

    if (r == NULL) return wf_nomem(err, size, "a report");
    r->alloc = *alloc;
    r->model = model;
    wf_model_ref(model);
    *out = r;
    return WEFT_OK;
}

void wf_merge_report_add(weft_merge_report *r, const wf_layer *l, int32_t adapters,
                         const wf_merged_layer *became)
{
    r->row[r->count++] = (weft_merge_row){
        .rank = became->rank, .layer = l->name, .layer_id = l->id, .norm = became->norm,
        .error = became->error, .adapters = adapters
    };
}

void weft_merge_report_free(weft_merge_report *r)
{
    if (r == NULL) return;
    weft_allocator alloc = r->alloc;
    weft_model_free(r->model);
    wf_free(&alloc, r);
}

size_t weft_merge_report_count(const weft_merge_report *r)
{
    return r == NULL ? 0 : r->count;
}

weft_status weft_merge_report_get(const weft_merge_report *r, size_t index, weft_merge_row *row,
                                  weft_error *err)
{
    if (r == NULL || row == NULL) return wf_fail(err, WEFT_E_ARG, "report or row is NULL");
    if (index >= r->count) return wf_fail(err, WEFT_E_ARG, "row %zu of %zu", index, r->count);
    return WF_RESULT(row, &r->row[index], weft_merge_row, err);
}
