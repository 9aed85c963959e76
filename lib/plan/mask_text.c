/* mask_text.c - a mask inside a plan's text.
 *
 * Most masks are drawn: boxes, shapes with hard edges. They are written so that a person can read
 * and change them, as runs: [3, 0, 10, 1, 6] are three rows alike, ten pixels of 0 and six of 1. A
 * mask with soft edges would be longer so than as its bytes in base64: "gray" has a byte k for each
 * pixel, k / 255, which is what a PNG holds; "float32" has its bytes as they are, the lowest first.
 * Which of the three follows from the values alone, so equal masks are equal texts, to the bit. */
#include <math.h>

#include "plan/fields.h"
#include "plan/plan_internal.h"

enum { NUMBERS_MAX = 8192, SIDE_MAX = 4096 }; /* of runs; of a mask, as mask.c has it */

/* ---- base64 (RFC 4648) ----------------------------------------------------------------------- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode(char *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i += 3) {
        uint32_t word = (uint32_t)from[i] << 16;
        if (i + 1 < n) word |= (uint32_t)from[i + 1] << 8;
        if (i + 2 < n) word |= from[i + 2];
        for (int k = 0; k < 4; k++) *to++ = digits[word >> (18 - 6 * k) & 63];
        if (i + 2 >= n) to[-1] = '=';
        if (i + 1 >= n) to[-2] = '=';
    }
    *to = '\0';
}

/* Exactly n bytes; false for any other text. */
static bool decode(uint8_t *to, size_t n, const char *from, size_t length)
{
    if (length != (n + 2) / 3 * 4) return false;
    for (size_t i = 0; i < n; i += 3, from += 4) {
        size_t   given = n - i < 3 ? n - i : 3; /* bytes in these four characters */
        uint32_t word = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *at = from[k] != '\0' ? strchr(digits, from[k]) : NULL;
            if ((at == NULL) != (k > given) || (at == NULL && from[k] != '=')) return false;
            word = word << 6 | (at != NULL ? (uint32_t)(at - digits) : 0);
        }
        if ((word & ((UINT32_C(1) << 8 * (3 - given)) - 1)) != 0) return false;
        for (size_t k = 0; k < given; k++) to[i + k] = (uint8_t)(word >> (16 - 8 * k));
    }
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Equal to the last bit: -0 is not 0. */
static bool same(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

static int32_t run_at(const wf_plan_mask *m, int32_t y, int32_t x)
{
    const float *row = m->values + (size_t)y * (size_t)m->w;
    int32_t      n = 1;

    while (x + n < m->w && same(row + x, row + x + n, 1)) n++;
    return n;
}

static int32_t rows_alike(const wf_plan_mask *m, int32_t y)
{
    const float *row = m->values + (size_t)y * (size_t)m->w;
    int32_t      n = 1;

    while (y + n < m->h && same(row, row + (size_t)n * (size_t)m->w, (size_t)m->w)) n++;
    return n;
}

/* Numbers that runs take, or more than NUMBERS_MAX. */
static size_t numbers_of(const wf_plan_mask *m)
{
    size_t n = 0;

    for (int32_t y = 0; y < m->h && n <= NUMBERS_MAX; y += rows_alike(m, y)) {
        n++;
        for (int32_t x = 0; x < m->w && n <= NUMBERS_MAX; x += run_at(m, y, x)) n += 2;
    }
    return n;
}

static void write_runs(wf_doc *d, wf_node *to, const wf_plan_mask *m)
{
    wf_node *rows = wf_node_list(d, to, "rows");

    for (int32_t y = 0, n; y < m->h; y += n) {
        wf_node *row = wf_node_list(d, rows, NULL);
        n = rows_alike(m, y);
        wf_node_int(d, row, NULL, n);
        for (int32_t x = 0, k; x < m->w; x += k) {
            k = run_at(m, y, x);
            wf_node_float(d, row, NULL, m->values[(size_t)y * (size_t)m->w + (size_t)x]);
            wf_node_int(d, row, NULL, k);
        }
    }
}

static bool is_gray(const wf_plan_mask *m)
{
    for (size_t i = 0; i < (size_t)m->h * (size_t)m->w; i++) {
        float back = (float)lrintf(m->values[i] * 255) / 255;
        if (!same(&m->values[i], &back, 1)) return false;
    }
    return true;
}

static void write_bytes(wf_doc *d, wf_node *to, const wf_plan_mask *m, const weft_allocator *alloc)
{
    bool     gray = is_gray(m);
    size_t   n = (size_t)m->h * (size_t)m->w, bytes = gray ? n : 4 * n;
    uint8_t *raw = wf_alloc(alloc, bytes);
    char    *text = wf_alloc(alloc, (bytes + 2) / 3 * 4 + 1);

    if (raw == NULL || text == NULL) {
        d->failed = true;
    } else {
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &m->values[i], sizeof bits);
            if (gray) raw[i] = (uint8_t)lrintf(m->values[i] * 255);
            else for (size_t k = 0; k < 4; k++) raw[4 * i + k] = (uint8_t)(bits >> 8 * k);
        }
        encode(text, raw, bytes);
        wf_node_text(d, to, gray ? "gray" : "float32", text);
    }
    wf_free(alloc, raw);
    wf_free(alloc, text);
}

void wf_mask_write(wf_doc *d, wf_node *to, const wf_plan_mask *m, const weft_allocator *alloc)
{
    size_t numbers = numbers_of(m);

    wf_node_int(d, to, "width", m->w);
    wf_node_int(d, to, "height", m->h);
    if (numbers <= NUMBERS_MAX && (numbers <= 64 || numbers <= (size_t)m->h * (size_t)m->w / 2))
        write_runs(d, to, m);
    else
        write_bytes(d, to, m, alloc);
}

/* ---- reading --------------------------------------------------------------------------------- */

static weft_status read_side(const wf_fields_reader *r, json_t *object, const wf_place *place,
                             const char *key, int32_t *out, weft_error *err)
{
    const json_t *v = json_object_get(object, key);
    json_int_t    n = json_integer_value(v);
    wf_place      at;

    wf_place_in(&at, place, key);
    if (!json_is_integer(v) || n < 1 || n > SIDE_MAX)
        return wf_expected(r, v, &at, "1 to 4096 pixels", err);
    *out = (int32_t)n;
    json_object_del(object, key);
    return WEFT_OK;
}

/* A row of runs: how many rows are so, and their values, (w). */
static weft_status read_row(const wf_fields_reader *r, const json_t *list, const wf_place *place,
                            int32_t w, int32_t *alike, float *values, weft_error *err)
{
    size_t     count = json_array_size(list);
    json_int_t n = json_integer_value(json_array_get(list, 0));
    int32_t    x = 0;
    wf_place   at;

    if (count < 3 || count % 2 == 0)
        return wf_expected(r, list, place, "rows alike, then values with their pixels", err);
    wf_place_at(&at, place, 0);
    if (!json_is_integer(json_array_get(list, 0)) || n < 1 || n > SIDE_MAX)
        return wf_expected(r, json_array_get(list, 0), &at, "a number of rows", err);
    *alike = (int32_t)n;
    for (size_t i = 1; i < count; i += 2) {
        const json_t *value = json_array_get(list, i), *pixels = json_array_get(list, i + 1);
        wf_place_at(&at, place, i);
        if (!json_is_number(value)) return wf_expected(r, value, &at, "a number of 0 to 1", err);
        n = json_integer_value(pixels);
        wf_place_at(&at, place, i + 1);
        if (!json_is_integer(pixels) || n < 1 || n > w - x)
            return wf_expected(r, pixels, &at, "pixels that the row has left", err);
        for (int32_t k = 0; k < (int32_t)n; k++) values[x++] = (float)json_number_value(value);
    }
    if (x == w) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s has %d pixels, the mask is %d wide", r->what,
                   place->text, (int)x, (int)w);
}

static weft_status read_runs(const wf_fields_reader *r, const json_t *rows, const wf_place *place,
                             weft_mask *m, float *values, weft_error *err)
{
    int32_t  y = 0, n = 0;
    wf_place at;

    if (!json_is_array(rows)) return wf_expected(r, rows, place, "a list of rows", err);
    for (size_t i = 0; i < json_array_size(rows); i++, y += n) {
        float *row = values + (size_t)y * (size_t)m->width;
        wf_place_at(&at, place, i);
        if (y == m->height)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s is a row too many: the mask is %d high",
                           r->what, at.text, (int)m->height);
        WF_TRY(read_row(r, json_array_get(rows, i), &at, m->width, &n, row, err));
        if (n > m->height - y)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %d rows, the mask has %d left", r->what,
                           at.text, (int)n, (int)(m->height - y));
        for (int32_t k = 1; k < n; k++)
            memcpy(row + (size_t)k * (size_t)m->width, row, (size_t)m->width * sizeof *row);
    }
    if (y == m->height) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s has %d rows, the mask is %d high", r->what,
                   place->text, (int)y, (int)m->height);
}

/* The bytes are decoded at the end of the values, which are made of them from the front. */
static weft_status read_bytes(const wf_fields_reader *r, const json_t *v, const wf_place *place,
                              bool gray, size_t n, float *values, weft_error *err)
{
    size_t   bytes = gray ? n : 4 * n;
    uint8_t *raw = (uint8_t *)values + 4 * n - bytes;

    if (!json_is_string(v)) return wf_expected(r, v, place, "a text in base64", err);
    if (!decode(raw, bytes, json_string_value(v), json_string_length(v)))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not %zu bytes in base64", r->what,
                       place->text, bytes);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        if (gray) {
            values[i] = (float)raw[i] / 255;
            continue;
        }
        for (size_t k = 0; k < 4; k++) bits |= (uint32_t)raw[4 * i + k] << 8 * k;
        memcpy(&values[i], &bits, sizeof bits);
    }
    return WEFT_OK;
}

weft_status wf_mask_read(const wf_fields_reader *r, json_t *object, const wf_place *place,
                         size_t *left, weft_mask *out, weft_error *err)
{
    static const char *const forms[] = { "rows", "gray", "float32" };
    size_t   form = WF_LEN(forms), n;
    float   *values;
    wf_place at;

    if (!json_is_object(object)) return wf_expected(r, object, place, "an object", err);
    WF_TRY(read_side(r, object, place, "width", &out->width, err));
    WF_TRY(read_side(r, object, place, "height", &out->height, err));
    for (size_t i = 0; i < WF_LEN(forms); i++) {
        if (json_object_get(object, forms[i]) == NULL) continue;
        if (form != WF_LEN(forms))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s has %s and %s: one or the other", r->what,
                           place->text, forms[form], forms[i]);
        form = i;
    }
    if (form == WF_LEN(forms))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s has no values: rows, gray or float32", r->what,
                       place->text);
    out->len = n = (size_t)out->width * (size_t)out->height;
    if (n > *left)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s: masks of more than %d pixels, all together",
                       r->what, place->text, WF_MASK_PIXELS);
    *left -= n;
    values = wf_bag_take(r->bag, n, sizeof *values);
    if (values == NULL) return wf_nomem(err, n * sizeof *values, "a mask");
    out->values = values;
    const json_t *v = json_object_get(object, forms[form]);
    wf_place_in(&at, place, forms[form]);
    if (form == 0) WF_TRY(read_runs(r, v, &at, out, values, err));
    else WF_TRY(read_bytes(r, v, &at, form == 1, n, values, err));
    json_object_del(object, forms[form]);
    return WEFT_OK;
}
