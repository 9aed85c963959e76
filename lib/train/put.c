/* put.c - trained numbers as named tensors, and the file of a recipe that has a form of its own. */
#include "train/put.h"

weft_status wf_trainer_put(weft_tensors *to, const char *name, const float *v, int32_t rank,
                           const int64_t *shape, bool half, weft_error *err)
{
    size_t n = 1;
    void  *copy;

    for (int32_t i = 0; i < rank; i++) n *= (size_t)shape[i]; /* of memory that is there */
    copy = wf_tensors_own(to, n * (half ? sizeof(uint16_t) : sizeof *v), err);
    if (copy == NULL) return WEFT_E_NOMEM;
    if (half && wf_narrow_fails(WF_F16, v, n) != n)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%.160s has a number that float16 does not hold: in float32 it can be "
                       "written", name);
    if (half) (void)wf_narrow(copy, WF_F16, v, n);
    else memcpy(copy, v, n * sizeof *v);
    return wf_tensors_add(to, name, half ? WF_F16 : WF_F32, rank, shape, copy, err);
}

weft_status wf_trainer_write(const weft_trainer *t, weft_tensors *list, const char *path,
                             weft_error *err)
{
    const char *const *meta;
    const char       **pairs;
    wf_bag             bag;
    size_t             n = 0, own;
    weft_status        st;

    WF_TRY(wf_tensors_seal(list, err));
    own = wf_tensors_meta_count(list);
    wf_bag_init(&bag, &t->alloc);
    st = wf_trainer_metadata(t, &bag, &meta, &n, err);
    if (st == WEFT_OK) {
        pairs = wf_bag_take(&bag, 2 * (n + own), sizeof *pairs);
        if (pairs == NULL) st = wf_nomem(err, 2 * (n + own) * sizeof *pairs, "metadata");
    }
    if (st == WEFT_OK) {
        memcpy(pairs, meta, 2 * n * sizeof *pairs);
        for (size_t i = 0; i < own; i++) {
            pairs[2 * (n + i)] = wf_tensors_meta_key(list, i);
            pairs[2 * (n + i) + 1] = wf_tensors_meta_value(list, i);
        }
        st = wf_tensors_write_as_stored(path, wf_tensors_at(list, 0), wf_tensors_count(list), pairs,
                                        n + own, &t->alloc, err);
    }
    wf_bag_free(&bag);
    return st;
}
