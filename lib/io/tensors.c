/* tensors.c - named tensors, wherever their memory is.
 *
 * Readers of files make one, and so does code that shows existing tensors under other names, or
 * those of several files as one. It is built in three moves: new, add as often as needed, seal.
 * Data is never copied: a tensor points into a file that was taken over, into memory that was taken
 * here, or into another weft_tensors that is kept alive. Names and metadata are copied into blocks
 * that never move.
 *
 * After the seal nothing changes, and any thread may read. Names are found by binary search: a hash
 * table would need a defence against names that are made to collide. */

#include "base/structs.h"
#include "io/io.h"

#define MAX_ENTRIES 100000u
#define MAX_METAS   1000000u
#define MAX_NAME    1024u

typedef struct meta {
    const char *key;
    const char *value;
} meta;

/* What must stay as long as the tensors do: other tensors, a file, or memory. */
typedef struct holding {
    struct holding *next;
    weft_tensors   *tensors;
    wf_file         file;
    void           *memory;
} holding;

struct weft_tensors {
    weft_allocator    alloc;
    wf_refs           refs;
    const char       *what;
    size_t            size;       /* of all files behind it   */
    size_t            count;
    size_t            cap;
    size_t            meta_count;
    size_t            meta_cap;
    wf_tensor        *tensors;    /* in order of addition     */
    const wf_tensor **by_name;    /* NULL until sealed        */
    meta             *metas;      /* sorted by key            */
    wf_bag         strings;    /* names, keys and values   */
    holding          *held;
    wf_origin         origin;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static weft_status keep_string(weft_tensors *t, const char *s, const char **out, weft_error *err)
{
    *out = wf_bag_string(&t->strings, s, strlen(s));
    return *out != NULL ? WEFT_OK : wf_nomem(err, strlen(s), "names of tensors");
}

/* The array if it has room for one more element, else a copy of twice its size; NULL without
 * memory. */
static void *with_room(weft_tensors *t, void *array, size_t count, size_t *cap, size_t size)
{
    size_t more = *cap == 0 ? 16 : 2 * *cap;
    void  *grown;

    if (count < *cap) return array;
    grown = wf_zalloc(&t->alloc, more, size);
    if (grown == NULL) return NULL;
    if (count > 0) memcpy(grown, array, count * size);
    wf_free(&t->alloc, array);
    *cap = more;
    return grown;
}

/* An empty holding, in the list already. */
static holding *hold(weft_tensors *t, weft_error *err)
{
    holding *h = wf_bag_take(&t->strings, 1, sizeof *h);

    if (h == NULL) {
        wf_nomem(err, sizeof *h, t->what);
        return NULL;
    }
    h->next = t->held;
    t->held = h;
    return h;
}

/* ---- building -------------------------------------------------------------------------------- */

weft_status wf_tensors_new(const weft_allocator *alloc, const char *what, weft_tensors **out,
                           weft_error *err)
{
    weft_tensors *t = wf_zalloc(alloc, 1, sizeof *t);
    weft_status   st;

    *out = NULL;
    if (t == NULL) return wf_nomem(err, sizeof *t, "an opened file");
    t->alloc = *alloc;
    wf_bag_init(&t->strings, &t->alloc);
    wf_ref_init(&t->refs);
    if ((st = keep_string(t, what, &t->what, err)) != WEFT_OK) {
        weft_tensors_free(t);
        return st;
    }
    *out = t;
    return WEFT_OK;
}

static weft_status fail_entry(const weft_tensors *t, const char *name, const char *why,
                              weft_error *err)
{
    return wf_fail(err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": %s", t->what, name, why);
}

/* The shape's numbers may be a stranger's. */
static weft_status measure(const weft_tensors *t, const char *name, wf_tensor *tensor,
                           weft_error *err)
{
    size_t bits;

    tensor->count = 1;
    for (int32_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] < 0) return fail_entry(t, name, "its shape has a negative value", err);
        if ((uint64_t)tensor->shape[i] > SIZE_MAX ||
            !wf_mul(tensor->count, (size_t)tensor->shape[i], &tensor->count))
            return fail_entry(t, name, "the product of its shape does not fit 64 bits", err);
    }
    if (!wf_mul(tensor->count, (size_t)wf_dtype_bits(tensor->dtype), &bits))
        return fail_entry(t, name, "its size in bits does not fit 64 bits", err);
    if (bits % 8 != 0) return fail_entry(t, name, "its size is not whole bytes", err);
    tensor->bytes = bits / 8;
    return WEFT_OK;
}

weft_status wf_tensors_add(weft_tensors *t, const char *name, wf_dtype dtype, int32_t rank,
                           const int64_t *shape, const void *data, weft_error *err)
{
    wf_tensor tensor = { NULL, data, 0, 0, { 0 }, rank, dtype }, *list;

    if (t->by_name != NULL)
        return wf_fail(err, WEFT_E_INTERNAL, "%s: tensor added after the seal", t->what);
    if (strlen(name) > MAX_NAME)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: tensor \"%.160s...\": name of %zu bytes, expected at most %u", t->what,
                       name, strlen(name), MAX_NAME);
    if (rank < 0 || rank > WF_MAX_RANK)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": rank %d, expected at most %d",
                       t->what, name, rank, WF_MAX_RANK);
    if (t->count == MAX_ENTRIES)
        return wf_fail(err, WEFT_E_FORMAT, "%s: more than %u tensors", t->what, MAX_ENTRIES);
    if (rank > 0) memcpy(tensor.shape, shape, (size_t)rank * sizeof *shape);
    WF_TRY(measure(t, name, &tensor, err));
    list = with_room(t, t->tensors, t->count, &t->cap, sizeof *list);
    if (list == NULL) return wf_nomem(err, 2 * t->count * sizeof *list, t->what);
    t->tensors = list;
    WF_TRY(keep_string(t, name, &tensor.name, err));
    t->tensors[t->count++] = tensor;
    return WEFT_OK;
}

weft_status wf_tensors_add_as(weft_tensors *t, const char *name, const wf_tensor *source,
                              weft_error *err)
{
    return wf_tensors_add(t, name, source->dtype, source->rank, source->shape, source->data, err);
}

weft_status wf_tensors_add_meta(weft_tensors *t, const char *key, const char *value,
                                weft_error *err)
{
    meta m = { NULL, NULL }, *list;

    if (t->by_name != NULL)
        return wf_fail(err, WEFT_E_INTERNAL, "%s: metadata added after the seal", t->what);
    if (t->meta_count == MAX_METAS)
        return wf_fail(err, WEFT_E_FORMAT, "%s: more than %u metadata values", t->what, MAX_METAS);
    list = with_room(t, t->metas, t->meta_count, &t->meta_cap, sizeof *list);
    if (list == NULL) return wf_nomem(err, 2 * t->meta_count * sizeof *list, t->what);
    t->metas = list;
    WF_TRY(keep_string(t, key, &m.key, err));
    WF_TRY(keep_string(t, value, &m.value, err));
    t->metas[t->meta_count++] = m;
    return WEFT_OK;
}

void *wf_tensors_own(weft_tensors *t, size_t size, weft_error *err)
{
    holding *h = hold(t, err);

    if (h == NULL) return NULL;
    h->memory = wf_alloc(&t->alloc, size);
    if (h->memory == NULL) wf_nomem(err, size, t->what);
    return h->memory;
}

weft_status wf_tensors_keep(weft_tensors *t, weft_tensors *other, weft_error *err)
{
    holding *h = hold(t, err);

    if (h == NULL) return WEFT_E_NOMEM;
    wf_tensors_ref(other);
    h->tensors = other;
    t->size += other->size;
    return WEFT_OK;
}

weft_status wf_tensors_take_file(weft_tensors *t, wf_file *file, weft_error *err)
{
    const wf_file none = WF_FILE_NONE;
    holding      *h    = hold(t, err);

    if (h == NULL) return WEFT_E_NOMEM;
    h->file  = *file;
    t->size += file->size;
    *file    = none;
    return WEFT_OK;
}

static int compare_names(const void *a, const void *b)
{
    const wf_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int compare_keys(const void *a, const void *b)
{
    const meta *x = a, *y = b;

    return strcmp(x->key, y->key);
}

weft_status wf_tensors_seal(weft_tensors *t, weft_error *err)
{
    if (t->by_name != NULL) return WEFT_OK;
    t->by_name = wf_zalloc(&t->alloc, t->count, sizeof *t->by_name);
    if (t->by_name == NULL) return wf_nomem(err, t->count * sizeof *t->by_name, t->what);
    for (size_t i = 0; i < t->count; i++) t->by_name[i] = &t->tensors[i];
    wf_sort(t->by_name, t->count, sizeof *t->by_name, compare_names);
    if (t->meta_count > 0) wf_sort(t->metas, t->meta_count, sizeof *t->metas, compare_keys);

    for (size_t i = 1; i < t->count; i++)
        if (strcmp(t->by_name[i - 1]->name, t->by_name[i]->name) == 0)
            return wf_fail(err, WEFT_E_FORMAT, "%s: two tensors are named \"%.160s\"", t->what,
                           t->by_name[i]->name);
    for (size_t i = 1; i < t->meta_count; i++)
        if (strcmp(t->metas[i - 1].key, t->metas[i].key) == 0)
            return wf_fail(err, WEFT_E_FORMAT, "%s: two metadata values are named \"%.160s\"",
                           t->what, t->metas[i].key);
    return WEFT_OK;
}

/* ---- references ------------------------------------------------------------------------------ */

void wf_tensors_ref(weft_tensors *t)
{
    wf_ref_take(&t->refs);
}

void weft_tensors_free(weft_tensors *tensors)
{
    weft_allocator alloc;

    if (tensors == NULL || !wf_ref_drop(&tensors->refs)) return;
    alloc = tensors->alloc;
    for (holding *h = tensors->held; h != NULL; h = h->next) {
        weft_tensors_free(h->tensors);
        wf_file_close(&h->file, &alloc);
        wf_free(&alloc, h->memory);
    }
    wf_bag_free(&tensors->strings);
    wf_free(&alloc, tensors->tensors);
    wf_free(&alloc, tensors->by_name);
    wf_free(&alloc, tensors->metas);
    wf_origin_free(&tensors->origin, &alloc);
    wf_free(&alloc, tensors);
}

/* ---- looking --------------------------------------------------------------------------------- */

size_t wf_tensors_count(const weft_tensors *t)
{
    return t->count;
}

const wf_tensor *wf_tensors_at(const weft_tensors *t, size_t i)
{
    return i < t->count ? &t->tensors[i] : NULL;
}

const wf_tensor *wf_tensors_find(const weft_tensors *t, const char *name)
{
    size_t low = 0, high = t->by_name != NULL ? t->count : 0;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int    c   = strcmp(name, t->by_name[mid]->name);

        if (c == 0) return t->by_name[mid];
        if (c < 0) high = mid;
        else       low = mid + 1;
    }
    return NULL;
}

size_t wf_tensors_file_size(const weft_tensors *t)
{
    return t->size;
}

const wf_origin *wf_tensors_origin(const weft_tensors *t)
{
    return &t->origin;
}

weft_status wf_tensors_set_origin(weft_tensors *t, const char *path, weft_error *err)
{
    return wf_origin_of(&t->origin, path, &t->alloc, err);
}

const char *wf_tensors_what(const weft_tensors *t)
{
    return t->what;
}

size_t wf_tensors_meta_count(const weft_tensors *t)
{
    return t->meta_count;
}

const char *wf_tensors_meta_key(const weft_tensors *t, size_t i)
{
    return i < t->meta_count ? t->metas[i].key : NULL;
}

const char *wf_tensors_meta_value(const weft_tensors *t, size_t i)
{
    return i < t->meta_count ? t->metas[i].value : NULL;
}

const char *wf_shape(wf_shape_text *buf, const int64_t *shape, int32_t rank)
{
    char  *p = buf->text, *end = buf->text + sizeof buf->text - 6;  /* room for "...)" */

    *p++ = '(';
    for (int32_t i = 0; i < rank; i++) {
        char     digits[24];
        size_t   n = 0;
        uint64_t left = shape[i] < 0 ? 0 - (uint64_t)shape[i] : (uint64_t)shape[i];

        do { digits[n++] = (char)('0' + left % 10); left /= 10; } while (left > 0);
        if (shape[i] < 0) digits[n++] = '-';
        if ((size_t)(end - p) < n + 2) { memcpy(p, "...", 3); p += 3; break; }
        if (i > 0) { *p++ = ','; *p++ = ' '; }
        while (n > 0) *p++ = digits[--n];
    }
    if (rank == 1) *p++ = ',';  /* a list of one, as Python writes it */
    *p++ = ')';
    *p   = '\0';
    return buf->text;
}

size_t weft_tensors_count(const weft_tensors *tensors)
{
    return tensors != NULL ? tensors->count : 0;
}

static weft_status tensor_at(const weft_tensors *tensors, size_t index, const wf_tensor **out,
                             weft_error *err)
{
    if (tensors == NULL) return wf_fail(err, WEFT_E_ARG, "tensors is NULL");
    *out = wf_tensors_at(tensors, index);
    if (*out != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "tensor %zu asked for, but the file has %zu", index,
                   tensors->count);
}

weft_status weft_tensors_info(const weft_tensors *tensors, size_t index, weft_tensor_info *info,
                              weft_error *err)
{
    weft_tensor_info filled = WEFT_TENSOR_INFO_INIT;
    const wf_tensor *tensor = NULL;
    weft_status      st;

    if ((st = tensor_at(tensors, index, &tensor, err)) != WEFT_OK) return st;
    filled.name  = tensor->name;
    filled.dtype = wf_dtype_name(tensor->dtype);
    filled.rank  = (size_t)tensor->rank;
    filled.count = tensor->count;
    memcpy(filled.shape, tensor->shape, sizeof filled.shape);
    return WF_RESULT(info, &filled, weft_tensor_info, err);
}

int64_t weft_tensors_find(const weft_tensors *tensors, const char *name)
{
    const wf_tensor *tensor =
        tensors != NULL && name != NULL ? wf_tensors_find(tensors, name) : NULL;

    return tensor != NULL ? (int64_t)(tensor - tensors->tensors) : -1;
}

weft_status weft_tensors_read(const weft_tensors *tensors, size_t index, float *out, size_t len,
                              weft_error *err)
{
    const wf_tensor *tensor = NULL;
    weft_status      st;

    if ((st = tensor_at(tensors, index, &tensor, err)) != WEFT_OK) return st;
    if (out == NULL && len > 0) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    if (len != tensor->count)
        return wf_fail(err, WEFT_E_ARG,
                       "tensor \"%.160s\" has %zu elements, but the buffer has %zu", tensor->name,
                       tensor->count, len);
    if (wf_widen_any(out, tensor->data, tensor->dtype, len)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "tensor \"%.160s\" is %s, which is not read as numbers",
                   tensor->name, wf_dtype_name(tensor->dtype));
}

const char *weft_tensors_metadata(const weft_tensors *tensors, const char *key)
{
    size_t low = 0, high = tensors != NULL && tensors->by_name != NULL && key != NULL
                               ? tensors->meta_count
                               : 0;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int    c   = strcmp(key, tensors->metas[mid].key);

        if (c == 0) return tensors->metas[mid].value;
        if (c < 0) high = mid;
        else       low = mid + 1;
    }
    return NULL;
}
