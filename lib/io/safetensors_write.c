/* safetensors_write.c - tensors to a file that every reader accepts and that depends on nothing
 * else.
 *
 * Sorted by name, metadata by key, the header padded with spaces so that the data begins at a
 * multiple of 8: the same tensors give the same bytes, whatever the order they came in. The header
 * is written by hand rather than by jansson because its order is then ours. */

#include "io/io.h"

#define MAX_HEADER 100000000u

typedef struct pair {
    const char *key;
    const char *value;
} pair;

/* The tensors to write, checked and sorted, and what is made of them. */
typedef struct writer {
    weft_allocator   alloc;
    wf_tensor       *tensors; /* of these name, data, bytes, shape, rank and dtype */
    size_t           count;
    pair            *pairs;
    size_t           pair_count;
    wf_text          header;
    wf_part         *parts;   /* the length, the header, then each tensor */
    wf_tensor_maker  make;    /* NULL: the data is there                  */
    void            *user;
    weft_error      *err;
} writer;

static int compare_tensors(const void *a, const void *b)
{
    const wf_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int compare_pairs(const void *a, const void *b)
{
    const pair *x = a, *y = b;

    return strcmp(x->key, y->key);
}

static weft_status sort_tensors(writer *w)
{
    wf_sort(w->tensors, w->count, sizeof *w->tensors, compare_tensors);
    for (size_t i = 1; i < w->count; i++)
        if (strcmp(w->tensors[i - 1].name, w->tensors[i].name) == 0)
            return wf_fail(w->err, WEFT_E_ARG, "two tensors are named \"%.160s\"",
                           w->tensors[i].name);
    return WEFT_OK;
}

static weft_status copy_pairs(writer *w, const char *const *metadata)
{
    WF_TRY(wf_given_pairs(metadata, w->pair_count, w->err));
    for (size_t i = 0; i < w->pair_count; i++)
        w->pairs[i] = (pair){ metadata[2 * i], metadata[2 * i + 1] };
    wf_sort(w->pairs, w->pair_count, sizeof *w->pairs, compare_pairs);
    for (size_t i = 1; i < w->pair_count; i++)
        if (strcmp(w->pairs[i - 1].key, w->pairs[i].key) == 0)
            return wf_fail(w->err, WEFT_E_ARG, "metadata key \"%.160s\" is given twice",
                           w->pairs[i].key);
    return WEFT_OK;
}

static void add_string(wf_text *t, const char *s)
{
    static const char hex[] = "0123456789abcdef";

    wf_text_bytes(t, "\"", 1);
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        char escaped[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

        if (c == '"' || c == '\\') { escaped[1] = *s; wf_text_bytes(t, escaped, 2); }
        else if (c < 0x20)         wf_text_bytes(t, escaped, sizeof escaped);
        else                       wf_text_bytes(t, s, 1);
    }
    wf_text_bytes(t, "\"", 1);
}

/* The header after its 8 bytes of length, and a part for each tensor's data. */
static weft_status write_header(writer *w)
{
    wf_text *h = &w->header;
    size_t   offset = 0;

    wf_text_bytes(h, "{", 1);
    if (w->pair_count > 0) {
        wf_text_add(h, "\"__metadata__\":{");
        for (size_t i = 0; i < w->pair_count; i++) {
            if (i > 0) wf_text_bytes(h, ",", 1);
            add_string(h, w->pairs[i].key);
            wf_text_bytes(h, ":", 1);
            add_string(h, w->pairs[i].value);
        }
        wf_text_add(h, w->count > 0 ? "}," : "}");
    }
    for (size_t i = 0; i < w->count; i++) {
        const wf_tensor *t = &w->tensors[i];
        size_t           begin = offset;

        if (!wf_add(offset, t->bytes, &offset))
            return wf_fail(w->err, WEFT_E_ARG, "the tensors' sizes overflow");
        w->parts[2 + i].data = t->data;
        w->parts[2 + i].size = t->bytes;

        if (i > 0) wf_text_bytes(h, ",", 1);
        add_string(h, t->name);
        wf_text_add(h, ":{\"dtype\":\"%s\",\"shape\":[", wf_dtype_name(t->dtype));
        for (int32_t d = 0; d < t->rank; d++)
            wf_text_add(h, d > 0 ? ",%lld" : "%lld", (long long)t->shape[d]);
        wf_text_add(h, "],\"data_offsets\":[%zu,%zu]}", begin, offset);
    }
    wf_text_bytes(h, "}", 1);
    while (!h->failed && h->len % 8 != 0) wf_text_bytes(h, " ", 1);
    if (h->failed) return wf_nomem(w->err, h->len, "a safetensors header");
    if (h->len <= MAX_HEADER) return WEFT_OK;
    return wf_fail(w->err, WEFT_E_ARG,
                   "names and metadata make a header of %zu bytes, expected at most %u", h->len,
                   MAX_HEADER);
}

static weft_status take_memory(writer *w)
{
    w->tensors = wf_zalloc(&w->alloc, w->count, sizeof *w->tensors);
    w->pairs   = wf_zalloc(&w->alloc, w->pair_count, sizeof *w->pairs);
    w->parts   = wf_zalloc(&w->alloc, w->count + 2, sizeof *w->parts);
    if (w->tensors != NULL && w->pairs != NULL && w->parts != NULL) return WEFT_OK;
    return wf_nomem(w->err, w->count * sizeof *w->tensors, "tensors to be written");
}

static weft_status next_part(void *user, size_t i, wf_part *out, weft_error *err)
{
    writer *w = user;

    *out = w->parts[i];
    return i < 2 || w->make == NULL ? WEFT_OK
                                    : w->make(w->user, &w->tensors[i - 2], &out->data, err);
}

/* What remains once the tensors are there: all that is written, written. */
static weft_status write_all(writer *w, const char *path, const char *const *metadata)
{
    uint64_t length;

    WF_TRY(sort_tensors(w));
    WF_TRY(copy_pairs(w, metadata));
    WF_TRY(write_header(w));
    length = w->header.len;
    w->parts[0].data = &length;
    w->parts[0].size = sizeof length;
    w->parts[1].data = w->header.s;
    w->parts[1].size = w->header.len;
    return wf_file_write_from(path, w->count + 2, next_part, w, w->err);
}

static void free_writer(writer *w)
{
    wf_text_free(&w->header);
    wf_free(&w->alloc, w->parts);
    wf_free(&w->alloc, w->pairs);
    wf_free(&w->alloc, w->tensors);
}

/* A file whose header disagrees with its data would be ours, and nobody could read it. */
static weft_status check_stored(const wf_tensor *t, size_t index, weft_error *err)
{
    size_t bits = (size_t)wf_dtype_bits(t->dtype);
    bool   fits = true;

    WF_TRY(wf_given_name(t->name, index, err));
    for (int32_t i = 0; i < t->rank; i++)
        fits = fits && t->shape[i] >= 0 && wf_mul(bits, (size_t)t->shape[i], &bits);
    if (fits && bits % 8 == 0 && bits / 8 == t->bytes) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "tensor \"%.160s\": %zu bytes are not what its shape and type need", t->name,
                   t->bytes);
}

weft_status wf_tensors_write_made(const char *path, const wf_tensor *tensors, size_t count,
                                  const char *const *metadata, size_t pairs, wf_tensor_maker make,
                                  void *user, const weft_allocator *alloc, weft_error *err)
{
    writer w = { .alloc = wf_allocator(alloc),
                 .count = count,
                 .pair_count = pairs,
                 .make = make,
                 .user = user,
                 .err = err };
    weft_status st;

    wf_text_init(&w.header, &w.alloc);
    if ((st = take_memory(&w)) != WEFT_OK) goto done;
    for (size_t i = 0; i < count; i++) {
        if ((st = check_stored(&tensors[i], i, err)) != WEFT_OK) goto done;
        w.tensors[i] = tensors[i];
    }
    st = write_all(&w, path, metadata);
done:
    free_writer(&w);
    return st;
}

weft_status wf_tensors_write_as_stored(const char *path, const wf_tensor *tensors, size_t count,
                                       const char *const *metadata, size_t pairs,
                                       const weft_allocator *alloc, weft_error *err)
{
    return wf_tensors_write_made(path, tensors, count, metadata, pairs, NULL, NULL, alloc, err);
}

weft_status weft_tensors_write(const char *path, const weft_tensor_out *tensors, size_t count,
                               const char *const *metadata, size_t pairs, weft_error *err)
{
    writer w = { .alloc = wf_allocator(NULL), .count = count, .pair_count = pairs, .err = err };
    weft_status st;

    wf_text_init(&w.header, &w.alloc);
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    WF_TRY(wf_given_count(tensors, count, metadata, pairs, err));

    if ((st = take_memory(&w)) != WEFT_OK) goto done;
    if ((st = wf_given_tensors(tensors, count, w.tensors, err)) != WEFT_OK) goto done;
    st = write_all(&w, path, metadata);
done:
    free_writer(&w);
    return st;
}
