/* pickle.c - a pickle read as data.
 *
 * A pickle is a program for a small stack machine, and in Python that machine can call anything.
 * This one has values and no calls. GLOBAL gives an inert name. REDUCE and NEWOBJ know the half
 * dozen names that build dicts and tensors; for every other name they give an opaque value, which
 * stays opaque whatever is done to it. The opcodes are those that torch.save writes. Any other ends
 * the reading.
 *
 * There is no recursion, and each opcode takes at least a byte of input and a bounded amount of
 * memory. So time and memory are linear in the size of the pickle, up to the limits below. Values
 * may be reached twice, and may contain themselves; those who walk them must bound that. */
#include "io/pickle.h"

#define MAX_STEPS  2000000u   /* a checkpoint of SDXL takes about 110,000 */
#define MAX_MEMO   1000000u
#define MAX_STACK  1000000u
#define MAX_STRING ((size_t)1 << 20)
#define MAX_SYMBOL 1024u
#define MAX_KEY    256u

/* What REDUCE, NEWOBJ and the persistent ids know of a name. */
enum {
    UNKNOWN,
    ORDERED_DICT,
    PARAMETER_DICT,
    REBUILD_TENSOR,
    REBUILD_TENSOR_V2,
    REBUILD_TENSOR_V3,
    REBUILD_PARAMETER,
    REBUILD_FROM_TYPE,
    STORAGE,
    DTYPE
};

static const struct { const char *module, *name; int32_t meaning; wf_dtype dtype; } known[] = {
    { "collections", "OrderedDict", ORDERED_DICT, 0 },
    { "torch.nn.modules.container", "ParameterDict", PARAMETER_DICT, 0 },
    { "torch._utils", "_rebuild_tensor", REBUILD_TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR_V2, 0 },
    { "torch._utils", "_rebuild_tensor_v3", REBUILD_TENSOR_V3, 0 },
    { "torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0 },
    { "torch._utils", "_rebuild_parameter_with_state", REBUILD_PARAMETER, 0 },
    { "torch._tensor", "_rebuild_from_type_v2", REBUILD_FROM_TYPE, 0 },
    { "torch", "FloatStorage", STORAGE, WF_F32 },         { "torch", "float32", DTYPE, WF_F32 },
    { "torch", "HalfStorage", STORAGE, WF_F16 },          { "torch", "float16", DTYPE, WF_F16 },
    { "torch", "BFloat16Storage", STORAGE, WF_BF16 },     { "torch", "bfloat16", DTYPE, WF_BF16 },
    { "torch", "DoubleStorage", STORAGE, WF_F64 },        { "torch", "float64", DTYPE, WF_F64 },
    { "torch", "LongStorage", STORAGE, WF_I64 },          { "torch", "int64", DTYPE, WF_I64 },
    { "torch", "IntStorage", STORAGE, WF_I32 },           { "torch", "int32", DTYPE, WF_I32 },
    { "torch", "ShortStorage", STORAGE, WF_I16 },         { "torch", "int16", DTYPE, WF_I16 },
    { "torch", "CharStorage", STORAGE, WF_I8 },           { "torch", "int8", DTYPE, WF_I8 },
    { "torch", "ByteStorage", STORAGE, WF_U8 },           { "torch", "uint8", DTYPE, WF_U8 },
    { "torch", "BoolStorage", STORAGE, WF_BOOL },         { "torch", "bool", DTYPE, WF_BOOL },
    { "torch", "ComplexFloatStorage", STORAGE, WF_C64 },  { "torch", "complex64", DTYPE, WF_C64 },
    { "torch.storage", "UntypedStorage", STORAGE, WF_U8 },
    { "torch", "uint16", DTYPE, WF_U16 },                 { "torch", "uint32", DTYPE, WF_U32 },
    { "torch", "uint64", DTYPE, WF_U64 },
    { "torch", "float8_e4m3fn", DTYPE, WF_F8_E4M3 },      { "torch", "float8_e5m2", DTYPE, WF_F8_E5M2 },
    { "torch", "float8_e4m3fnuz", DTYPE, WF_F8_E4M3FNUZ },{ "torch", "float8_e5m2fnuz", DTYPE, WF_F8_E5M2FNUZ },
    { "torch", "float8_e8m0fnu", DTYPE, WF_F8_E8M0 },
};

typedef struct machine {
    const weft_allocator *alloc;
    wf_bag        *bag;
    const char    *what;
    const uint8_t *data;
    size_t         size;
    size_t         at;
    size_t         op;          /* where the running opcode stands, for messages */
    size_t         steps;
    wf_items       stack;
    wf_items       memo;        /* `count` is one behind the largest index put   */
    wf_storage    *storages;
    weft_error    *err;
} machine;

static const char too_long[] = "more than 2000000 steps";

static const wf_value nothing = { WF_NONE, { .i = 0 } };

/* ---- messages, memory ------------------------------------------------------------------------ */

static weft_status fail(const machine *m, const char *why)
{
    return wf_fail(m->err, WEFT_E_FORMAT, "%s: pickle, byte %zu: %s", m->what, m->op, why);
}

static weft_status nomem(const machine *m, size_t size)
{
    return wf_nomem(m->err, size, m->what);
}

/* Stack and memo come from the allocator, since they are done with at the end. */
static weft_status reserve(const machine *m, wf_items *items, size_t cap)
{
    size_t    more = WF_MAX(cap, WF_MAX(2 * items->cap, 64));
    wf_value *grown;

    if (cap <= items->cap) return WEFT_OK;
    grown = wf_zalloc(m->alloc, more, sizeof *grown);
    if (grown == NULL) return nomem(m, more * sizeof *grown);
    if (items->count > 0) memcpy(grown, items->at, items->count * sizeof *grown);
    wf_free(m->alloc, items->at);
    items->at  = grown;
    items->cap = more;
    return WEFT_OK;
}

/* A container's items lie in the bag; what was outgrown stays there, in all less than once
 * again. */
static weft_status extend(const machine *m, wf_items *items, const wf_value *from, size_t n)
{
    if (n > items->cap - items->count) {
        size_t    more = WF_MAX(items->count + n, 2 * items->cap);
        wf_value *grown = wf_bag_take(m->bag, more, sizeof *grown);

        if (grown == NULL) return nomem(m, more * sizeof *grown);
        if (items->count > 0) memcpy(grown, items->at, items->count * sizeof *grown);
        items->at  = grown;
        items->cap = more;
    }
    if (n > 0) memcpy(items->at + items->count, from, n * sizeof *from);
    items->count += n;
    return WEFT_OK;
}

/* ---- the stack ------------------------------------------------------------------------------- */

static weft_status push(machine *m, wf_value v)
{
    if (m->stack.count == MAX_STACK) return fail(m, "more than 1000000 values on the stack");
    WF_TRY(reserve(m, &m->stack, m->stack.count + 1));
    m->stack.at[m->stack.count++] = v;
    return WEFT_OK;
}

static weft_status pop(machine *m, wf_value *v)
{
    if (m->stack.count == 0 || m->stack.at[m->stack.count - 1].kind == WF_MARK)
        return fail(m, "a value is taken where there is none");
    *v = m->stack.at[--m->stack.count];
    return WEFT_OK;
}

/* The values above the last mark stay where they are, valid until the next push; the mark goes
 * too. */
static weft_status pop_to_mark(machine *m, const wf_value **values, size_t *n)
{
    size_t at = m->stack.count;

    while (at > 0 && m->stack.at[at - 1].kind != WF_MARK) at--;
    if (at == 0) return fail(m, "a mark is asked for where there is none");
    *values = m->stack.at + at;
    *n      = m->stack.count - at;
    m->stack.count = at - 1;
    return WEFT_OK;
}

static weft_status push_items(machine *m, wf_kind kind, const wf_value *values, size_t n)
{
    wf_value v = { kind, { .items = wf_bag_take(m->bag, 1, sizeof(wf_items)) } };

    if (v.u.items == NULL) return nomem(m, sizeof(wf_items));
    WF_TRY(extend(m, v.u.items, values, n));
    return push(m, v);
}

static weft_status push_int(machine *m, int64_t i)
{
    return push(m, (wf_value){ WF_INT, { .i = i } });
}

static weft_status push_truth(machine *m, bool truth)
{
    return push(m, (wf_value){ WF_TRUTH, { .truth = truth } });
}

static weft_status push_opaque(machine *m, const wf_symbol *symbol)
{
    return push(m, (wf_value){ WF_OPAQUE, { .symbol = symbol } });
}

/* ---- arguments in the bytes ------------------------------------------------------------------ */

static weft_status read_bytes(machine *m, size_t n, const uint8_t **bytes)
{
    if (n > m->size - m->at)
        return wf_fail(m->err, WEFT_E_FORMAT,
                       "%s: pickle, byte %zu: %zu bytes are asked for and %zu are left", m->what,
                       m->op, n, m->size - m->at);
    *bytes = m->data + m->at;
    m->at += n;
    return WEFT_OK;
}

/* An unsigned little-endian number of n <= 8 bytes. */
static weft_status read_number(machine *m, size_t n, uint64_t *out)
{
    const uint8_t *bytes = NULL;

    WF_TRY(read_bytes(m, n, &bytes));
    *out = 0;
    memcpy(out, bytes, n);
    return WEFT_OK;
}

/* Up to a newline, which is consumed and not part of it. */
static weft_status read_line(machine *m, const uint8_t **line, size_t *n)
{
    const uint8_t *end = memchr(m->data + m->at, '\n', WF_MIN(m->size - m->at, MAX_SYMBOL + 1));

    if (end == NULL) return fail(m, "a name does not end");
    *line = m->data + m->at;
    *n    = (size_t)(end - *line);
    m->at += *n + 1;
    return WEFT_OK;
}

/* Python's strings may hold what ours cannot; such a one is opaque. */
static weft_status push_string(machine *m, size_t width)
{
    const uint8_t *bytes = NULL;
    uint64_t       n = 0;
    wf_value       v = { WF_STRING, { .s = NULL } };

    WF_TRY(read_number(m, width, &n));
    if (n > MAX_STRING)
        return wf_fail(m->err, WEFT_E_FORMAT,
                       "%s: pickle, byte %zu: a string of %llu bytes, expected at most %zu",
                       m->what, m->op, (unsigned long long)n, MAX_STRING);
    WF_TRY(read_bytes(m, (size_t)n, &bytes));
    if (!wf_utf8_valid((const char *)bytes, (size_t)n)) return push_opaque(m, NULL);
    v.u.s = wf_bag_string(m->bag, (const char *)bytes, (size_t)n);
    if (v.u.s == NULL) return nomem(m, (size_t)n);
    return push(m, v);
}

/* Two's complement of any length; what does not fit 64 bits is opaque. */
static weft_status push_long(machine *m)
{
    const uint8_t *bytes = NULL;
    uint64_t       n = 0, bits;

    WF_TRY(read_number(m, 1, &n));
    WF_TRY(read_bytes(m, (size_t)n, &bytes));
    if (n > 8) return push_opaque(m, NULL);
    bits = n > 0 && (bytes[n - 1] & 0x80) != 0 ? UINT64_MAX : 0;
    memcpy(&bits, bytes, (size_t)n);
    return push_int(m, (int64_t)bits);
}

static weft_status push_float(machine *m)
{
    const uint8_t *bytes = NULL;
    uint64_t       bits = 0;
    wf_value       v = { WF_FLOAT, { .f = 0 } };

    WF_TRY(read_bytes(m, 8, &bytes));
    for (int i = 0; i < 8; i++) bits = bits << 8 | bytes[i]; /* the one number that is big-endian */
    memcpy(&v.u.f, &bits, sizeof bits);
    return push(m, v);
}

/* ---- the memo -------------------------------------------------------------------------------- */

static weft_status put(machine *m, uint64_t index)
{
    if (index >= MAX_MEMO) return fail(m, "more than 1000000 values in the memo");
    if (m->stack.count == 0 || m->stack.at[m->stack.count - 1].kind == WF_MARK)
        return fail(m, "a value is remembered where there is none");
    WF_TRY(reserve(m, &m->memo, (size_t)index + 1));
    while (m->memo.count <= index) m->memo.at[m->memo.count++] = (wf_value){ WF_MARK, { .i = 0 } };
    m->memo.at[index] = m->stack.at[m->stack.count - 1];
    return WEFT_OK;
}

static weft_status get(machine *m, uint64_t index)
{
    if (index >= m->memo.count || m->memo.at[index].kind == WF_MARK)
        return wf_fail(m->err, WEFT_E_FORMAT,
                       "%s: pickle, byte %zu: memo %llu is read before it is written", m->what,
                       m->op, (unsigned long long)index);
    return push(m, m->memo.at[index]);
}

/* ---- symbols --------------------------------------------------------------------------------- */

static weft_status push_symbol(machine *m, const char *module, size_t module_len, const char *name,
                               size_t name_len)
{
    wf_symbol *s = wf_bag_take(m->bag, 1, sizeof *s);

    if (!wf_utf8_valid(module, module_len) || !wf_utf8_valid(name, name_len))
        return fail(m, "a name is not UTF-8");
    if (s == NULL) return nomem(m, sizeof *s);
    s->module = wf_bag_string(m->bag, module, module_len);
    s->name   = wf_bag_string(m->bag, name, name_len);
    if (s->module == NULL || s->name == NULL) return nomem(m, module_len + name_len);
    for (size_t i = 0; i < WF_LEN(known); i++)
        if (strcmp(known[i].module, s->module) == 0 && strcmp(known[i].name, s->name) == 0) {
            s->meaning = known[i].meaning;
            s->dtype   = known[i].dtype;
        }
    return push(m, (wf_value){ WF_SYMBOL, { .symbol = s } });
}

static weft_status push_global(machine *m)
{
    const uint8_t *module = NULL, *name = NULL;
    size_t         module_len = 0, name_len = 0;

    WF_TRY(read_line(m, &module, &module_len));
    WF_TRY(read_line(m, &name, &name_len));
    return push_symbol(m, (const char *)module, module_len, (const char *)name, name_len);
}

static weft_status push_stack_global(machine *m)
{
    wf_value module, name;

    WF_TRY(pop(m, &name));
    WF_TRY(pop(m, &module));
    if (module.kind != WF_STRING || name.kind != WF_STRING || strlen(module.u.s) > MAX_SYMBOL ||
        strlen(name.u.s) > MAX_SYMBOL)
        return fail(m, "the name of a class is not two short strings");
    return push_symbol(m, module.u.s, strlen(module.u.s), name.u.s, strlen(name.u.s));
}

/* ---- storages and tensors -------------------------------------------------------------------- */

static bool is_word(const wf_value *v, const char *word)
{
    return v->kind == WF_STRING && strcmp(v->u.s, word) == 0;
}

/* ("storage", type, key, location, count); the legacy form has a sixth, None or a view into the
 * storage. */
static weft_status push_storage(machine *m, const wf_value *id, size_t n)
{
    wf_storage *s;

    if (n < 5 || n > 6 || id[1].kind != WF_SYMBOL || id[2].kind != WF_STRING ||
        id[4].kind != WF_INT || id[4].u.i < 0)
        return fail(m, "a storage is not described by type, key, place and size");
    if (strlen(id[2].u.s) > MAX_KEY) return fail(m, "the key of a storage has more than 256 bytes");
    if (id[1].u.symbol->meaning != STORAGE)
        return wf_fail(m->err, WEFT_E_UNSUPPORTED,
                       "%s: pickle, byte %zu: a storage of type %.80s.%.80s, which is not "
                       "one of plain numbers",
                       m->what, m->op, id[1].u.symbol->module, id[1].u.symbol->name);
    if (n == 6 && id[5].kind != WF_NONE)
        return wf_fail(m->err, WEFT_E_UNSUPPORTED,
                       "%s: pickle, byte %zu: a storage that is a part of another; save "
                       "the file again with a torch of today",
                       m->what, m->op);
    if ((s = wf_bag_take(m->bag, 1, sizeof *s)) == NULL) return nomem(m, sizeof *s);
    s->key   = id[2].u.s;
    s->dtype = id[1].u.symbol->dtype;
    s->count = (uint64_t)id[4].u.i;
    s->next  = m->storages;
    m->storages = s;
    return push(m, (wf_value){ WF_STORAGE, { .storage = s } });
}

/* What stands outside of the pickle: a storage, or in the legacy form the source text of a class,
 * which is given together with the class and not looked at. */
static weft_status push_persistent(machine *m)
{
    wf_value        v;
    const wf_value *id;
    size_t          n;

    WF_TRY(pop(m, &v));
    if (v.kind != WF_TUPLE || v.u.items->count == 0)
        return fail(m, "a persistent id is not a tuple");
    id = v.u.items->at;
    n  = v.u.items->count;
    if (is_word(&id[0], "storage")) return push_storage(m, id, n);
    if (is_word(&id[0], "module") && n >= 2 && id[1].kind == WF_SYMBOL) return push(m, id[1]);
    return fail(m, "a persistent id that is neither a storage nor a class");
}

static weft_status read_axes(const machine *m, const wf_value *v, int64_t out[WF_MAX_RANK],
                             int32_t *rank)
{
    if (v->kind != WF_TUPLE) return fail(m, "a tensor's shape is not a tuple");
    if (v->u.items->count > WF_MAX_RANK) return fail(m, "a tensor has more than 8 dimensions");
    *rank = (int32_t)v->u.items->count;
    for (int32_t i = 0; i < *rank; i++) {
        if (v->u.items->at[i].kind != WF_INT || v->u.items->at[i].u.i < 0)
            return fail(m, "a tensor's shape or stride is not a number from 0");
        out[i] = v->u.items->at[i].u.i;
    }
    return WEFT_OK;
}

/* The dict that may stand behind the values: where it says "neg" or "conj", the numbers in the
 * storage are not those of the tensor. */
static weft_status check_bits(machine *m, const wf_value *said)
{
    if (said->kind == WF_NONE) return WEFT_OK;
    if (said->kind != WF_DICT) return fail(m, "a tensor's metadata is no dict");
    for (size_t i = 0; i + 1 < said->u.items->count; i += 2) {
        const wf_value *key = &said->u.items->at[i], *value = key + 1;

        if (m->steps++ > MAX_STEPS) return fail(m, too_long);
        if (value->kind == WF_TRUTH && !value->u.truth) continue;
        if (is_word(key, "neg") || is_word(key, "conj"))
            return wf_fail(m->err, WEFT_E_UNSUPPORTED,
                           "%s: pickle, byte %zu: a tensor that is kept with the other sign; "
                           "save its clone() instead",
                           m->what, m->op);
    }
    return WEFT_OK;
}

/* (storage, offset, shape, stride, requires grad, hooks, metadata); v3 has the type of the elements
 * before the last, which need not be there. */
static weft_status make_tensor(machine *m, int32_t meaning, const wf_items *args, wf_value *out)
{
    const wf_value *a = args->at;
    wf_strided     *t;
    int32_t         strides;
    size_t          least = meaning == REBUILD_TENSOR ? 4 : meaning == REBUILD_TENSOR_V2 ? 6 : 7;

    if (args->count < least) return fail(m, "a tensor is built from too few values");
    if (a[0].kind != WF_STORAGE) return fail(m, "a tensor is not built from a storage");
    if (a[1].kind != WF_INT || a[1].u.i < 0)
        return fail(m, "a tensor's offset is not a number from 0");
    if (meaning == REBUILD_TENSOR_V3 && (a[6].kind != WF_SYMBOL || a[6].u.symbol->meaning != DTYPE))
        return wf_fail(m->err, WEFT_E_UNSUPPORTED,
                       "%s: pickle, byte %zu: a tensor of a type that is not one of plain "
                       "numbers",
                       m->what, m->op);
    if (least > 4 && args->count > least) WF_TRY(check_bits(m, &a[least]));
    if ((t = wf_bag_take(m->bag, 1, sizeof *t)) == NULL) return nomem(m, sizeof *t);
    WF_TRY(read_axes(m, &a[2], t->shape, &t->rank));
    WF_TRY(read_axes(m, &a[3], t->stride, &strides));
    if (t->rank != strides) return fail(m, "a tensor's shape and stride differ in length");
    t->storage = a[0].u.storage;
    t->dtype   = meaning == REBUILD_TENSOR_V3 ? a[6].u.symbol->dtype : t->storage->dtype;
    t->offset  = a[1].u.i;
    *out = (wf_value){ WF_TENSOR, { .tensor = t } };
    return WEFT_OK;
}

/* ---- what looks like calls ------------------------------------------------------------------- */

static weft_status make_dict(machine *m, bool parameters, wf_value *out)
{
    *out = (wf_value){ WF_DICT, { .items = wf_bag_take(m->bag, 1, sizeof(wf_items)) } };
    if (out->u.items == NULL) return nomem(m, sizeof(wf_items));
    out->u.items->parameters = parameters;
    return WEFT_OK;
}

static weft_status apply(machine *m, const wf_symbol *s, const wf_items *args, wf_value *out)
{
    const wf_value *a = args->at;

    switch (s->meaning) {
    case ORDERED_DICT:
    case PARAMETER_DICT:
        if (args->count == 0) return make_dict(m, s->meaning == PARAMETER_DICT, out);
        break;
    case REBUILD_TENSOR:
    case REBUILD_TENSOR_V2:
    case REBUILD_TENSOR_V3:
        return make_tensor(m, s->meaning, args, out);
    case REBUILD_PARAMETER:
        if (args->count == 0 || a[0].kind != WF_TENSOR)
            return fail(m, "a parameter is not built from a tensor");
        *out = a[0];
        return WEFT_OK;
    default:
        break;
    }
    *out = (wf_value){ WF_OPAQUE, { .symbol = s } };
    return WEFT_OK;
}

/* A tensor with attributes: (function, type, its arguments, attributes). The function is taken at
 * one level only. */
static weft_status apply_from_type(machine *m, const wf_symbol *s, const wf_items *args,
                                   wf_value *out)
{
    const wf_value *a = args->at;

    *out = (wf_value){ WF_OPAQUE, { .symbol = s } };
    if (args->count < 3 || a[0].kind != WF_SYMBOL || a[2].kind != WF_TUPLE) return WEFT_OK;
    return apply(m, a[0].u.symbol, a[2].u.items, out);
}

static weft_status reduce(machine *m)
{
    wf_value callee, args, out = nothing;

    WF_TRY(pop(m, &args));
    WF_TRY(pop(m, &callee));
    if (callee.kind == WF_OPAQUE) return push(m, callee);
    if (callee.kind != WF_SYMBOL) return fail(m, "something is called that is no function");
    if (args.kind == WF_OPAQUE) return push_opaque(m, callee.u.symbol);
    if (args.kind != WF_TUPLE) return fail(m, "the arguments of a call are no tuple");
    if (callee.u.symbol->meaning == REBUILD_FROM_TYPE)
        WF_TRY(apply_from_type(m, callee.u.symbol, args.u.items, &out));
    else
        WF_TRY(apply(m, callee.u.symbol, args.u.items, &out));
    return push(m, out);
}

/* ---- filling containers ---------------------------------------------------------------------- */

/* What an opaque value would have done with its items is not known, nor needed. */
static weft_status append(machine *m, const wf_value *values, size_t n)
{
    wf_value *to = m->stack.count > 0 ? &m->stack.at[m->stack.count - 1] : NULL;

    if (to != NULL && to->kind == WF_OPAQUE) return WEFT_OK;
    if (to == NULL || to->kind != WF_LIST)
        return fail(m, "values are appended to something that is no list");
    return extend(m, to->u.items, values, n);
}

static weft_status set_items(machine *m, const wf_value *values, size_t n)
{
    wf_value *to = m->stack.count > 0 ? &m->stack.at[m->stack.count - 1] : NULL;

    if (n % 2 != 0) return fail(m, "a key has no value");
    if (to != NULL && to->kind == WF_OPAQUE) return WEFT_OK;
    if (to == NULL || to->kind != WF_DICT)
        return fail(m, "items are set in something that is no dict");
    return extend(m, to->u.items, values, n);
}

static weft_status append_one(machine *m)
{
    wf_value v;

    WF_TRY(pop(m, &v));
    return append(m, &v, 1);
}

static weft_status set_item(machine *m)
{
    wf_value pair[2];

    WF_TRY(pop(m, &pair[1]));
    WF_TRY(pop(m, &pair[0]));
    return set_items(m, pair, 2);
}

/* A ParameterDict's state: the dict under "_parameters", and what tensors newer versions keep as
 * attributes. The state can be one that is used a million times, so each of its items counts as a
 * step. */
static weft_status add_parameters(machine *m, wf_items *to, const wf_items *state)
{
    for (size_t i = 0; i + 1 < state->count; i += 2) {
        const wf_value *key = &state->at[i], *value = &state->at[i + 1];

        if (m->steps++ > MAX_STEPS) return fail(m, too_long);
        if (key->kind != WF_STRING) continue;
        if (value->kind == WF_TENSOR) {
            WF_TRY(extend(m, to, key, 2));
        } else if (strcmp(key->u.s, "_parameters") == 0 && value->kind == WF_DICT &&
                   value->u.items != to) {
            m->steps += value->u.items->count;
            if (m->steps > MAX_STEPS) return fail(m, too_long);
            WF_TRY(extend(m, to, value->u.items->at, value->u.items->count));
        }
    }
    return WEFT_OK;
}

static weft_status build(machine *m)
{
    wf_value state, *to;

    WF_TRY(pop(m, &state));
    to = m->stack.count > 0 ? &m->stack.at[m->stack.count - 1] : NULL;
    if (to == NULL || (to->kind != WF_OPAQUE && to->kind != WF_DICT && to->kind != WF_TENSOR))
        return fail(m, "a state is given to something that has none");
    if (to->kind == WF_DICT && to->u.items->parameters && state.kind == WF_DICT &&
        state.u.items != to->u.items)
        return add_parameters(m, to->u.items, state.u.items);
    return WEFT_OK;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static weft_status to_mark(machine *m, weft_status (*with)(machine *, const wf_value *, size_t))
{
    const wf_value *values = NULL;
    size_t          n = 0;

    WF_TRY(pop_to_mark(m, &values, &n));
    return with(m, values, n);
}

static weft_status push_tuple(machine *m, const wf_value *values, size_t n)
{
    return push_items(m, WF_TUPLE, values, n);
}

static weft_status tuple_of(machine *m, size_t n)
{
    wf_value values[3];

    for (size_t i = n; i > 0; i--) WF_TRY(pop(m, &values[i - 1]));
    return push_tuple(m, values, n);
}

static weft_status read_protocol(machine *m)
{
    uint64_t version = 0;

    WF_TRY(read_number(m, 1, &version));
    if (version >= 2 && version <= 5) return WEFT_OK;
    return wf_fail(m->err, WEFT_E_FORMAT, "%s: pickle, byte %zu: protocol %llu, expected 2 to 5",
                   m->what, m->op, (unsigned long long)version);
}

static weft_status read_int32(machine *m)
{
    uint64_t bits = 0;

    WF_TRY(read_number(m, 4, &bits));
    return push_int(m, bits < 0x80000000u ? (int64_t)bits : (int64_t)bits - 0x100000000);
}

static weft_status read_uint(machine *m, size_t width)
{
    uint64_t bits = 0;

    WF_TRY(read_number(m, width, &bits));
    return push_int(m, (int64_t)bits);
}

static weft_status with_index(machine *m, size_t width, weft_status (*with)(machine *, uint64_t))
{
    uint64_t index = 0;

    WF_TRY(read_number(m, width, &index));
    return with(m, index);
}

static weft_status refuse_opcode(const machine *m, uint8_t op)
{
    const char digits[] = "0123456789abcdef", hex[3] = { digits[op >> 4], digits[op & 15], '\0' };

    return wf_fail(m->err, WEFT_E_FORMAT,
                   "%s: pickle, byte %zu: opcode 0x%s, which torch.save does not write", m->what,
                   m->op, hex);
}

/* One opcode, by its letter in the protocol. */
static weft_status step(machine *m, uint8_t op)
{
    uint64_t ignored = 0;

    switch (op) {
    case 0x80: return read_protocol(m);                      /* PROTO            */
    case 0x95: return read_number(m, 8, &ignored);           /* FRAME            */
    case '(':  return push(m, (wf_value){ WF_MARK, { .i = 0 } });
    case 'N':  return push(m, nothing);                      /* NONE             */
    case 0x88: return push_truth(m, true);                   /* NEWTRUE          */
    case 0x89: return push_truth(m, false);                  /* NEWFALSE         */
    case 'J':  return read_int32(m);                         /* BININT           */
    case 'K':  return read_uint(m, 1);                       /* BININT1          */
    case 'M':  return read_uint(m, 2);                       /* BININT2          */
    case 0x8a: return push_long(m);                          /* LONG1            */
    case 'G':  return push_float(m);                         /* BINFLOAT         */
    case 'X':  case 'T': return push_string(m, 4);           /* BINUNICODE, BINSTRING             */
    case 0x8c: case 'U': return push_string(m, 1);           /* SHORT_BINUNICODE, SHORT_BINSTRING */
    case '}':  return push_items(m, WF_DICT, NULL, 0);       /* EMPTY_DICT       */
    case ']':  return push_items(m, WF_LIST, NULL, 0);       /* EMPTY_LIST       */
    case ')':  return push_items(m, WF_TUPLE, NULL, 0);      /* EMPTY_TUPLE      */
    case 't':  return to_mark(m, push_tuple);                /* TUPLE            */
    case 0x85: return tuple_of(m, 1);                        /* TUPLE1           */
    case 0x86: return tuple_of(m, 2);                        /* TUPLE2           */
    case 0x87: return tuple_of(m, 3);                        /* TUPLE3           */
    case 'a':  return append_one(m);                         /* APPEND           */
    case 'e':  return to_mark(m, append);                    /* APPENDS          */
    case 's':  return set_item(m);                           /* SETITEM          */
    case 'u':  return to_mark(m, set_items);                 /* SETITEMS         */
    case 'q':  return with_index(m, 1, put);                 /* BINPUT           */
    case 'r':  return with_index(m, 4, put);                 /* LONG_BINPUT      */
    case 0x94: return put(m, m->memo.count);                 /* MEMOIZE          */
    case 'h':  return with_index(m, 1, get);                 /* BINGET           */
    case 'j':  return with_index(m, 4, get);                 /* LONG_BINGET      */
    case 'c':  return push_global(m);                        /* GLOBAL           */
    case 0x93: return push_stack_global(m);                  /* STACK_GLOBAL     */
    case 'Q':  return push_persistent(m);                    /* BINPERSID        */
    case 'R':  case 0x81: return reduce(m);                  /* REDUCE, NEWOBJ   */
    case 'b':  return build(m);                              /* BUILD            */
    default:   return refuse_opcode(m, op);
    }
}

static weft_status run(machine *m, wf_pickle *out)
{
    while (m->steps++ < MAX_STEPS) {
        m->op = m->at;
        if (m->at == m->size) return fail(m, "it ends without a STOP");
        if (m->data[m->at++] != '.') {                       /* STOP */
            WF_TRY(step(m, m->data[m->op]));
            continue;
        }
        WF_TRY(pop(m, &out->root));
        if (m->stack.count > 0) return fail(m, "values are left at the STOP");
        out->storages = m->storages;
        out->used     = m->at;
        return WEFT_OK;
    }
    return fail(m, too_long);
}

weft_status wf_pickle_load(wf_bag *bag, const uint8_t *data, size_t size, const char *what,
                           wf_pickle *out, weft_error *err)
{
    machine m = {
        .alloc = bag->alloc, .bag = bag, .what = what, .data = data, .size = size, .err = err
    };
    weft_status st;

    out->root     = nothing;
    out->storages = NULL;
    out->used     = 0;
    st = run(&m, out);
    wf_free(m.alloc, m.stack.at);
    wf_free(m.alloc, m.memo.at);
    return st;
}
