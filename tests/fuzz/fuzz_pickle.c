/* A pickle of any bytes is refused in one line, or gives a tree of values that can be walked. */
#include "fuzz.h"
#include "io/pickle.h"

static size_t visits;

/* A tree may contain itself: as for every walker, depth and number are bounded here. */
static void walk(const wf_value *v, int depth)
{
    if (depth == 20 || ++visits > 2000) return;
    switch (v->kind) {
    case WF_TUPLE:
    case WF_LIST:
    case WF_DICT:
        must(v->u.items->count <= v->u.items->cap);
        must(v->kind != WF_DICT || v->u.items->count % 2 == 0);
        for (size_t i = 0; i < v->u.items->count; i++) walk(&v->u.items->at[i], depth + 1);
        break;
    case WF_STRING:
        must(wf_utf8_valid(v->u.s, strlen(v->u.s)));
        break;
    case WF_TENSOR:
        must(v->u.tensor->rank >= 0 && v->u.tensor->rank <= WF_MAX_RANK && v->u.tensor->offset >= 0);
        must(v->u.tensor->storage->key != NULL && wf_dtype_bits(v->u.tensor->dtype) >= 8);
        for (int32_t i = 0; i < v->u.tensor->rank; i++)
            must(v->u.tensor->shape[i] >= 0 && v->u.tensor->stride[i] >= 0);
        break;
    default:
        must(v->kind != WF_MARK);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const weft_allocator alloc = wf_allocator(NULL);
    weft_error           err   = { 0, 0, "" };
    wf_bag               bag;
    wf_pickle            p;
    weft_status          st;

    wf_bag_init(&bag, &alloc);
    st = wf_pickle_load(&bag, data, size, "fuzz", &p, &err);
    if (st == WEFT_OK) {
        must(p.used > 0 && p.used <= size && data[p.used - 1] == '.');
        visits = 0;
        walk(&p.root, 0);
    } else {
        must(err.code == st && one_line(err.text));
    }
    wf_bag_free(&bag);
    return 0;
}
