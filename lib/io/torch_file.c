/* torch_file.c - what torch.save wrote, as named tensors.
 *
 * A pickle says which tensors there are and how they lie in storages. Storages are members of a zip
 * archive or, before torch 1.6, follow one another behind the pickle. The tree of dicts and lists
 * becomes flat: keys are joined with dots, and positions in a list are keys too. Tensors in one
 * piece point into the file; others are copied. Numbers and strings become metadata under the same
 * names. Opaque values are left out.
 *
 * A tree can be a graph: a list that holds itself, or ten levels of lists that hold the level below
 * ten times. Depth, number of visits and bytes of text are bounded. So are the bytes that are
 * copied, since a stride of 0 makes any number of elements out of one. */
#include "io/pickle.h"
#include "io/zip.h"

#define MAX_DEPTH  64
#define MAX_VISITS 400000u
#define MAX_PATH   1024u
#define MAX_TEXT   ((size_t)64 << 20)
#define MORE_COPY  ((size_t)64 << 20)

typedef struct reader {
    weft_tensors  *t;
    const char    *what;
    const uint8_t *data;
    size_t         size;
    const weft_allocator *alloc;
    wf_bag         bag;
    const wf_zip  *zip;                  /* NULL for the legacy form           */
    const char    *top;                  /* the archive's folder, with its '/' */
    char           path[MAX_PATH + 1];   /* of the value that is visited       */
    size_t         path_len;
    size_t         visits;
    size_t         text;                 /* bytes of names and metadata so far */
    size_t         copied;
    weft_error    *err;
} reader;

static weft_status fail(const reader *r, const char *why)
{
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: %s", r->what, why);
}

static weft_status fail_tensor(const reader *r, const char *why)
{
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": %s", r->what, r->path, why);
}

/* ---- storages -------------------------------------------------------------------------------- */

static bool storage_bytes(const wf_storage *s, size_t *bytes)
{
    return s->count <= SIZE_MAX &&
           wf_mul((size_t)s->count, (size_t)wf_dtype_bits(s->dtype) / 8, bytes);
}

/* In the archive: the member data/<key>. A key is a name, and no way to another folder. */
static weft_status find_member(const reader *r, wf_storage *s)
{
    const wf_zip_member *member;
    char                 name[1200];
    size_t               bytes;

    if (strpbrk(s->key, "/\\") != NULL || strstr(s->key, "..") != NULL)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: storage \"%.160s\": a key with a path in it",
                       r->what, s->key);
    if (!wf_format(name, sizeof name, "%sdata/%s", r->top, s->key) ||
        (member = wf_zip_find(r->zip, name)) == NULL)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: storage \"%.160s\" is not in the archive",
                       r->what, s->key);
    if (!storage_bytes(s, &bytes) || bytes != member->size)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: storage \"%.160s\" has %zu bytes, but %llu elements of %s are "
                       "promised",
                       r->what, s->key, member->size, (unsigned long long)s->count,
                       wf_dtype_name(s->dtype));
    s->data = member->data;
    return WEFT_OK;
}

static weft_status find_storage(const reader *r, wf_storage *s)
{
    if (s->data != NULL) return WEFT_OK;
    if (r->zip != NULL) return find_member(r, s);
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: storage \"%.160s\" is not in the file", r->what,
                   s->key);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static weft_status count_text(reader *r, size_t more)
{
    r->text += r->path_len + more + 2;
    return r->text <= MAX_TEXT ? WEFT_OK : fail(r, "more than 64 MiB of strings and their names");
}

/* The largest index that the strides reach must lie in the storage, whose elements are counted in
 * the tensor's type. */
static weft_status check_reach(const reader *r, const wf_strided *t, size_t count)
{
    size_t bytes = 0, reach = (size_t)t->offset, step, have;

    storage_bytes(t->storage, &bytes);
    have = bytes / ((size_t)wf_dtype_bits(t->dtype) / 8);
    if (count == 0) return WEFT_OK;
    for (int32_t i = 0; i < t->rank; i++)
        if (!wf_mul((size_t)(t->shape[i] - 1), (size_t)t->stride[i], &step) ||
            !wf_add(reach, step, &reach))
            return fail_tensor(r, "its strides overflow");
    if (reach < have) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: tensor \"%.160s\" reaches to element %zu of a storage of %zu", r->what,
                   r->path, reach, have);
}

static bool is_dense(const wf_strided *t)
{
    int64_t expected = 1;

    for (int32_t i = t->rank; i-- > 0;) {
        if (t->shape[i] != 1 && t->stride[i] != expected) return false;
        expected *= t->shape[i];
    }
    return true;
}

/* n elements that lie `step` bytes apart; a copy whose size the compiler knows is a load and a
 * store. */
static void gather_row(uint8_t *dst, const uint8_t *src, size_t item, size_t n, size_t step)
{
    switch (item) {
    case 1:  for (size_t i = 0; i < n; i++) dst[i] = src[i * step]; break;
    case 2:  for (size_t i = 0; i < n; i++) memcpy(dst + 2 * i, src + i * step, 2); break;
    case 4:  for (size_t i = 0; i < n; i++) memcpy(dst + 4 * i, src + i * step, 4); break;
    default: for (size_t i = 0; i < n; i++) memcpy(dst + 8 * i, src + i * step, 8); break;
    }
}

/* Row after row in the order of the indices, of which the last runs fastest. Only called for what
 * is neither empty nor dense, and so has a last index. */
static void gather(uint8_t *dst, const uint8_t *src, const wf_strided *t, size_t item, size_t count)
{
    const int32_t last = t->rank - 1;
    const size_t  row = (size_t)t->shape[last], step = (size_t)t->stride[last] * item;
    int64_t       index[WF_MAX_RANK] = { 0 };
    size_t        at = 0;

    for (size_t n = 0; n < count; n += row) {
        gather_row(dst + n * item, src + at * item, item, row, step);
        for (int32_t d = last; d-- > 0;) {
            at += (size_t)t->stride[d];
            if (++index[d] < t->shape[d]) break;
            at -= (size_t)t->shape[d] * (size_t)t->stride[d];
            index[d] = 0;
        }
    }
}

static weft_status copy_dense(reader *r, wf_strided *t, const uint8_t *src, size_t item,
                              size_t count)
{
    size_t bytes = count * item,
           limit = r->size / 4 > SIZE_MAX / 32 ? SIZE_MAX : 4 * r->size + MORE_COPY;
    uint8_t *own;

    if (bytes > limit - r->copied)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: tensor \"%.160s\" would be spread to %zu bytes, too many for a file "
                       "of %zu",
                       r->what, r->path, bytes, r->size);
    own = wf_tensors_own(r->t, bytes, r->err);
    if (own == NULL) return WEFT_E_NOMEM;
    r->copied += bytes;
    gather(own, src, t, item, count);
    t->data = own;
    return WEFT_OK;
}

static weft_status locate(reader *r, wf_strided *t)
{
    size_t item = (size_t)wf_dtype_bits(t->dtype) / 8, count = 1, bytes;

    for (int32_t i = 0; i < t->rank; i++)
        if (!wf_mul(count, (size_t)t->shape[i], &count))
            return fail_tensor(r, "the product of its shape overflows");
    if (!wf_mul(count, item, &bytes)) return fail_tensor(r, "the product of its shape overflows");
    WF_TRY(find_storage(r, t->storage));
    WF_TRY(check_reach(r, t, count));
    if (count == 0)
        t->data = t->storage->data;
    else if (is_dense(t))
        t->data = t->storage->data + (size_t)t->offset * item;
    else
        WF_TRY(copy_dense(r, t, t->storage->data + (size_t)t->offset * item, item, count));
    return WEFT_OK;
}

/* Names count as text: one tensor can have a hundred thousand long ones. */
static weft_status add_tensor(reader *r, wf_strided *t)
{
    WF_TRY(count_text(r, 0));
    if (t->data == NULL) WF_TRY(locate(r, t));
    return wf_tensors_add(r->t, r->path, t->dtype, t->rank, t->shape, t->data, r->err);
}

/* ---- the tree -------------------------------------------------------------------------------- */

static weft_status add_meta(reader *r, const char *value)
{
    WF_TRY(count_text(r, strlen(value)));
    return wf_tensors_add_meta(r->t, r->path, value, r->err);
}

static weft_status add_scalar(reader *r, const wf_value *v)
{
    wf_number_text number;
    char           digits[32];

    switch (v->kind) {
    case WF_TRUTH:  return add_meta(r, v->u.truth ? "true" : "false");
    case WF_INT:
        wf_format(digits, sizeof digits, "%lld", (long long)v->u.i);
        return add_meta(r, digits);
    case WF_FLOAT:  return add_meta(r, wf_number(&number, v->u.f));
    default:        return add_meta(r, v->u.s);
    }
}

/* Append a key to the path; the caller cuts it back. */
static weft_status enter(reader *r, const char *key)
{
    size_t n = strlen(key), dot = r->path_len > 0;

    if (n + dot > MAX_PATH - r->path_len)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: the name of \"%.160s...\" has more than %u bytes", r->what, r->path,
                       MAX_PATH);
    if (dot) r->path[r->path_len++] = '.';
    memcpy(r->path + r->path_len, key, n + 1);
    r->path_len += n;
    return WEFT_OK;
}

static void leave(reader *r, size_t length)
{
    r->path_len     = length;
    r->path[length] = '\0';
}

static weft_status visit(reader *r, const wf_value *v, int depth);

/* What is passed over counts too: a dict of half a million keys that are no names can be looked at
 * very often. */
static weft_status count_visit(reader *r)
{
    if (++r->visits > MAX_VISITS)
        return fail(r, "more than 400000 values when its lists and dicts are followed");
    return WEFT_OK;
}

static weft_status visit_dict(reader *r, const wf_items *items, int depth)
{
    const size_t length = r->path_len;
    char         digits[32];

    for (size_t i = 0; i + 1 < items->count; i += 2) {
        const wf_value *key = &items->at[i];

        if (key->kind != WF_STRING && key->kind != WF_INT) {
            WF_TRY(count_visit(r));
            continue;
        }
        if (key->kind == WF_INT) wf_format(digits, sizeof digits, "%lld", (long long)key->u.i);
        WF_TRY(enter(r, key->kind == WF_INT ? digits : key->u.s));
        WF_TRY(visit(r, &items->at[i + 1], depth));
        leave(r, length);
    }
    return WEFT_OK;
}

static weft_status visit_list(reader *r, const wf_items *items, int depth)
{
    const size_t length = r->path_len;
    char         digits[32];

    for (size_t i = 0; i < items->count; i++) {
        wf_format(digits, sizeof digits, "%zu", i);
        WF_TRY(enter(r, digits));
        WF_TRY(visit(r, &items->at[i], depth));
        leave(r, length);
    }
    return WEFT_OK;
}

static weft_status visit(reader *r, const wf_value *v, int depth)
{
    WF_TRY(count_visit(r));
    if (depth == MAX_DEPTH) return fail(r, "lists and dicts nested deeper than 64");

    switch (v->kind) {
    case WF_DICT:   return visit_dict(r, v->u.items, depth + 1);
    case WF_LIST:
    case WF_TUPLE:  return visit_list(r, v->u.items, depth + 1);
    case WF_TENSOR: return add_tensor(r, v->u.tensor);
    case WF_TRUTH:
    case WF_INT:
    case WF_FLOAT:
    case WF_STRING: return add_scalar(r, v);
    default:        return WEFT_OK;
    }
}

static weft_status visit_root(reader *r, const wf_value *root)
{
    switch (root->kind) {
    case WF_DICT:
        break;
    case WF_LIST:
    case WF_TUPLE:
        WF_TRY(wf_tensors_add_meta(r->t, "weft.root", "list", r->err));
        break;
    case WF_TENSOR:
        WF_TRY(wf_tensors_add_meta(r->t, "weft.root", "tensor", r->err));
        WF_TRY(enter(r, "0"));
        break;
    case WF_OPAQUE:
        if (root->u.symbol != NULL)
            return wf_fail(r->err, WEFT_E_UNSUPPORTED,
                           "%s: an object of class %.80s.%.80s, saved whole; a dict of "
                           "tensors (its state_dict) is expected",
                           r->what, root->u.symbol->module, root->u.symbol->name);
        return wf_fail(r->err, WEFT_E_UNSUPPORTED, "%s: no tensors; a dict of them is expected",
                       r->what);
    default:
        return wf_fail(r->err, WEFT_E_UNSUPPORTED, "%s: no tensors; a dict of them is expected",
                       r->what);
    }
    WF_TRY(visit(r, root, 0));
    return wf_tensors_seal(r->t, r->err);
}

/* ---- the zip form ---------------------------------------------------------------------------- */

/* Everything lies in one folder of any name: the one that holds a data.pkl. */
static weft_status find_top(reader *r, const wf_zip_member **pickle)
{
    *pickle = NULL;
    for (size_t i = 0; i < r->zip->count; i++) {
        const wf_zip_member *m     = &r->zip->members[i];
        const char          *slash = strchr(m->name, '/');

        if (slash == NULL || strcmp(slash, "/data.pkl") != 0) continue;
        if (*pickle != NULL) return fail(r, "zip archive with more than one data.pkl");
        *pickle = m;
        r->top  = wf_bag_string(&r->bag, m->name, (size_t)(slash - m->name) + 1);
        if (r->top == NULL) return wf_nomem(r->err, strlen(m->name), r->what);
    }
    if (*pickle == NULL)
        return wf_fail(r->err, WEFT_E_UNSUPPORTED,
                       "%s: a zip archive without a data.pkl: not a file of torch.save", r->what);
    if (strlen(r->top) > MAX_PATH)
        return fail(r, "zip archive with a folder of more than 1024 bytes");
    return WEFT_OK;
}

static const wf_zip_member *member_of_top(const reader *r, const char *name)
{
    char path[1200];

    return wf_format(path, sizeof path, "%s%s", r->top, name) ? wf_zip_find(r->zip, path) : NULL;
}

static weft_status read_zip(reader *r)
{
    const wf_zip_member *pickle, *order;
    wf_zip    zip;
    wf_pickle p;

    WF_TRY(wf_zip_read(&r->bag, r->data, r->size, r->what, &zip, r->err));
    r->zip = &zip;
    WF_TRY(find_top(r, &pickle));
    if (member_of_top(r, "constants.pkl") != NULL)
        return wf_fail(r->err, WEFT_E_UNSUPPORTED, "%s: a TorchScript program, expected tensors",
                       r->what);
    order = member_of_top(r, "byteorder");
    if (order != NULL && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
        return wf_fail(r->err, WEFT_E_UNSUPPORTED, "%s: its byte order is not little", r->what);
    WF_TRY(wf_pickle_load(&r->bag, pickle->data, pickle->size, r->what, &p, r->err));
    return visit_root(r, &p.root);
}

/* ---- the legacy form ------------------------------------------------------------------------- */

static const uint8_t legacy_magic[] = { 0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                        0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e };

static weft_status next_pickle(reader *r, size_t *at, wf_pickle *p)
{
    WF_TRY(wf_pickle_load(&r->bag, r->data + *at, r->size - *at, r->what, p, r->err));
    *at += p->used;
    return WEFT_OK;
}

static bool says_little_endian(const wf_value *system)
{
    if (system->kind != WF_DICT) return false;
    for (size_t i = 0; i + 1 < system->u.items->count; i += 2) {
        const wf_value *key = &system->u.items->at[i];

        if (key->kind == WF_STRING && strcmp(key->u.s, "little_endian") == 0)
            return key[1].kind == WF_TRUTH && key[1].u.truth;
    }
    return false;
}

/* One storage at *at: the number of its elements, then the elements. All mentions of it in the
 * pickle get the place. */
static weft_status place_storage(reader *r, const wf_value *key, wf_map *first, wf_storage **all,
                                 size_t *at)
{
    int64_t     index = key->kind == WF_STRING ? wf_map_get(first, key->u.s) : -1;
    uint64_t    count = 0;
    size_t      bytes = 0;
    wf_storage *s;

    if (index < 0) return fail(r, "a storage follows that no tensor mentions");
    s = all[index];
    if (s->data != NULL)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: storage \"%.160s\" is there twice", r->what,
                       s->key);
    if (r->size - *at < sizeof count) return fail(r, "it ends before its last storage");
    memcpy(&count, r->data + *at, sizeof count);
    *at += sizeof count;
    if (count != s->count)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: storage \"%.160s\" has %llu elements, but %llu are promised", r->what,
                       s->key, (unsigned long long)count, (unsigned long long)s->count);
    if (!storage_bytes(s, &bytes) || bytes > r->size - *at)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: storage \"%.160s\" of %llu elements of %s, but %zu bytes are left",
                       r->what, s->key, (unsigned long long)count, wf_dtype_name(s->dtype),
                       r->size - *at);
    s->data = r->data + *at;
    *at += bytes;
    return WEFT_OK;
}

/* The first mention of each key gets the place; the others take it over, if they promise the
 * same. */
static weft_status share_places(const reader *r, const wf_map *first, wf_storage **all,
                                wf_storage *storages)
{
    for (wf_storage *s = storages; s != NULL; s = s->next) {
        const wf_storage *known = all[wf_map_get(first, s->key)];

        if (s->dtype != known->dtype || s->count != known->count)
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: storage \"%.160s\" is mentioned with two types or sizes", r->what,
                           s->key);
        s->data = known->data;
    }
    return WEFT_OK;
}

static weft_status place_storages(reader *r, wf_storage *storages, const wf_value *keys, size_t at)
{
    wf_map       first = { 0 };
    wf_storage **all;
    size_t       count = 0, n = 0;
    weft_status  st = WEFT_OK;

    if (keys->kind != WF_LIST) return fail(r, "the list of its storages is no list");
    for (wf_storage *s = storages; s != NULL; s = s->next) count++;
    all = wf_bag_take(&r->bag, count, sizeof *all);
    if (all == NULL) return wf_nomem(r->err, count * sizeof *all, r->what);
    if ((st = wf_map_init(&first, r->alloc, count, r->err)) != WEFT_OK) goto done;
    for (wf_storage *s = storages; s != NULL; s = s->next) {
        bool added;

        if ((st = wf_map_put(&first, s->key, (int64_t)n, &added, r->err)) != WEFT_OK) goto done;
        if (added) all[n++] = s;
    }
    for (size_t i = 0; i < keys->u.items->count; i++)
        if ((st = place_storage(r, &keys->u.items->at[i], &first, all, &at)) != WEFT_OK) goto done;
    if (at != r->size) { st = fail(r, "bytes follow its last storage"); goto done; }
    st = share_places(r, &first, all, storages);
done:
    wf_map_free(&first);
    return st;
}

static weft_status read_legacy(reader *r)
{
    wf_pickle version, system, object, keys;
    size_t    at = sizeof legacy_magic;

    WF_TRY(next_pickle(r, &at, &version));
    if (version.root.kind != WF_INT || version.root.u.i != 1001)
        return fail(r, "its version is not 1001");
    WF_TRY(next_pickle(r, &at, &system));
    if (!says_little_endian(&system.root))
        return wf_fail(r->err, WEFT_E_UNSUPPORTED, "%s: its byte order is not little", r->what);
    WF_TRY(next_pickle(r, &at, &object));
    WF_TRY(next_pickle(r, &at, &keys));
    WF_TRY(place_storages(r, object.storages, &keys.root, at));
    return visit_root(r, &object.root);
}

/* ---- telling and reading --------------------------------------------------------------------- */

wf_torch_form wf_torch_form_of(const uint8_t *data, size_t size)
{
    static const uint8_t none[4] = { 0 };

    if (size >= 4 && memcmp(data, "PK\3\4", 4) == 0) return WF_TORCH_ZIP;
    if (size >= sizeof legacy_magic && memcmp(data, legacy_magic, sizeof legacy_magic) == 0)
        return WF_TORCH_LEGACY;
    if (size < 3 || data[0] != 0x80 || data[1] < 2 || data[1] > 5) return WF_TORCH_NOT;
    /* Or a safetensors header of 640, 896, 1152 or 1408 bytes, whose length begins like that. */
    return size >= 8 && memcmp(data + 4, none, 4) == 0 ? WF_TORCH_NOT : WF_TORCH_BARE;
}

weft_status wf_torch_parse(const uint8_t *data, size_t size, const char *what,
                           const weft_allocator *alloc, weft_tensors **out, weft_error *err)
{
    reader      r = { .what = what, .data = data, .size = size, .alloc = alloc, .err = err };
    weft_status st;

    *out = NULL;
    wf_bag_init(&r.bag, alloc);
    WF_TRY(wf_tensors_new(alloc, what, &r.t, err));
    switch (wf_torch_form_of(data, size)) {
    case WF_TORCH_ZIP:    st = read_zip(&r); break;
    case WF_TORCH_LEGACY: st = read_legacy(&r); break;
    default:
        st = wf_fail(err, WEFT_E_UNSUPPORTED,
                     "%s: a pickle that torch.save did not write: it can hold no tensors", what);
        break;
    }
    wf_bag_free(&r.bag);
    if (st == WEFT_OK) *out = r.t;
    else               weft_tensors_free(r.t);
    return st;
}
