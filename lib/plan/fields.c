/* fields.c - option structs to JSON and back, by their tables. */
#include <math.h>

#include "plan/fields.h"

enum { FLAGS_AT = sizeof(uint32_t) }; /* in every options struct: behind struct_size */

const char *wf_word_of(const wf_word *words, int32_t value)
{
    while (words->word != NULL && words->value != value) words++;
    return words->word;
}

static uint32_t flags_of(const void *of)
{
    uint32_t flags;
    memcpy(&flags, (const char *)of + FLAGS_AT, sizeof flags);
    return flags;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The value of a number or a word. */
static double value_of(const wf_field *f, const void *at)
{
    int32_t i;
    int64_t l;
    float   x;
    double  d;

    switch (f->kind) {
    case WF_FIELD_FLOAT:  memcpy(&x, at, sizeof x); return (double)x;
    case WF_FIELD_DOUBLE: memcpy(&d, at, sizeof d); return d;
    case WF_FIELD_INT64:  memcpy(&l, at, sizeof l); return (double)l;
    default:              memcpy(&i, at, sizeof i); return i;
    }
}

static void write_number(wf_doc *d, wf_node *to, const wf_field *f, const void *at)
{
    int64_t l;
    double  v = value_of(f, at);

    switch (f->kind) {
    case WF_FIELD_FLOAT:  wf_node_float(d, to, f->name, (float)v); break;
    case WF_FIELD_DOUBLE: wf_node_double(d, to, f->name, v); break;
    case WF_FIELD_INT64:
        memcpy(&l, at, sizeof l);
        wf_node_int(d, to, f->name, l);
        break;
    case WF_FIELD_WORD:   wf_node_text(d, to, f->name, wf_word_of(f->words, (int32_t)v)); break;
    default:              wf_node_int(d, to, f->name, (int32_t)v); break;
    }
}

static void write_list(wf_doc *d, wf_node *to, const wf_field *f, const void *from, const void *at)
{
    const int32_t *list;
    size_t         count;

    memcpy(&list, at, sizeof list);
    memcpy(&count, (const char *)from + f->count, sizeof count);
    if (count == 0) return;
    wf_node *node = wf_node_list(d, to, f->name);
    for (size_t i = 0; i < count; i++) wf_node_int(d, node, NULL, list[i]);
}

weft_status wf_fields_write(wf_doc *d, wf_node *to, const wf_fields *f, const void *from, int what,
                            wf_file_writer file, void *user, weft_error *err)
{
    for (const wf_field *x = f->field; x < f->field + f->count; x++) {
        const void   *at = (const char *)from + x->at;
        bool          set = (flags_of(from) & x->bit) != 0;
        const char   *text;
        weft_tensors *tensors;

        switch (x->kind) {
        case WF_FIELD_FLAG:
            if (set || what == WF_EVERY) wf_node_bool(d, to, x->name, set);
            break;
        case WF_FIELD_TEXT:
            memcpy(&text, at, sizeof text);
            if (text != NULL) wf_node_text(d, to, x->name, text);
            break;
        case WF_FIELD_LIST:
            write_list(d, to, x, from, at);
            break;
        case WF_FIELD_FILE:
            memcpy(&tensors, at, sizeof tensors);
            if (tensors != NULL && file != NULL) WF_TRY(file(user, d, to, x->name, tensors, err));
            else if (tensors != NULL) wf_node_text(d, to, x->name, wf_tensors_what(tensors));
            break;
        default:
            if (what == WF_EVERY || value_of(x, at) != x->otherwise) write_number(d, to, x, at);
            break;
        }
    }
    return WEFT_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

void wf_place_in(wf_place *to, const wf_place *of, const char *key)
{
    wf_format(to->text, sizeof to->text, "%s%s%.64s", of->text, *of->text != '\0' ? "." : "", key);
}

void wf_place_at(wf_place *to, const wf_place *of, size_t index)
{
    wf_format(to->text, sizeof to->text, "%s[%zu]", of->text, index);
}

/* A value for a message. */
static void show(char *buf, size_t cap, const json_t *v)
{
    wf_number_text number;

    switch (json_typeof(v)) {
    case JSON_OBJECT:  wf_format(buf, cap, "an object"); break;
    case JSON_ARRAY:   wf_format(buf, cap, "a list of %zu", json_array_size(v)); break;
    case JSON_STRING:  wf_format(buf, cap, "\"%.64s\"", json_string_value(v)); break;
    case JSON_INTEGER: wf_format(buf, cap, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL:
        wf_format(buf, cap, "%s", wf_number_double(&number, json_real_value(v)));
        break;
    default:           wf_format(buf, cap, json_is_true(v)    ? "true"
                                           : json_is_false(v) ? "false"
                                                              : "null"); break;
    }
}

weft_status wf_expected(const wf_fields_reader *r, const json_t *found, const wf_place *place,
                        const char *expected, weft_error *err)
{
    char text[128];

    if (found == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: there is no %s, expected %s", r->what, place->text,
                       expected);
    show(text, sizeof text, found);
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %s, expected %s", r->what, place->text, text,
                   expected);
}

weft_status wf_none_left(const wf_fields_reader *r, json_t *object, const wf_place *place,
                         weft_error *err)
{
    wf_place at;

    if (json_object_size(object) == 0) return WEFT_OK;
    wf_place_in(&at, place, json_object_iter_key(json_object_iter(object)));
    return wf_fail(err, WEFT_E_FORMAT,
                   "%s: %s is a field that this library (version %d.%d.%d) does not know",
                   r->what, at.text, WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH);
}

static weft_status read_word(const wf_fields_reader *r, const wf_field *f, const json_t *v,
                             const wf_place *place, void *at, weft_error *err)
{
    char list[256] = "one of";

    for (const wf_word *w = f->words; w->word != NULL; w++) {
        size_t n = strlen(list);
        if (json_is_string(v) && strcmp(json_string_value(v), w->word) == 0) {
            memcpy(at, &w->value, sizeof w->value);
            return WEFT_OK;
        }
        wf_format(list + n, sizeof list - n, "%s \"%s\"", w != f->words ? "," : "", w->word);
    }
    return wf_expected(r, v, place, list, err);
}

static weft_status read_list(const wf_fields_reader *r, const wf_field *f, const json_t *v,
                             const wf_place *place, void *to, void *at, weft_error *err)
{
    size_t   count = json_array_size(v);
    int32_t *list = wf_bag_take(r->bag, count, sizeof *list);
    wf_place here;

    if (!json_is_array(v) || count == 0) return wf_expected(r, v, place, "a list of numbers", err);
    if (list == NULL) return wf_nomem(err, count * sizeof *list, "a list of numbers");
    for (size_t i = 0; i < count; i++) {
        const json_t *x = json_array_get(v, i);
        json_int_t    n = json_integer_value(x);
        wf_place_at(&here, place, i);
        if (!json_is_integer(x) || n < INT32_MIN || n > INT32_MAX)
            return wf_expected(r, x, &here, "a whole number", err);
        list[i] = (int32_t)n;
    }
    memcpy(at, &list, sizeof list);
    memcpy((char *)to + f->count, &count, sizeof count);
    return WEFT_OK;
}

static weft_status read_number(const wf_fields_reader *r, const wf_field *f, const json_t *v,
                               const wf_place *place, void *at, weft_error *err)
{
    json_int_t l = json_integer_value(v);
    int32_t    i = (int32_t)WF_MAX(INT32_MIN, WF_MIN(INT32_MAX, l));
    double     d = json_number_value(v);

    if (f->kind == WF_FIELD_FLOAT || f->kind == WF_FIELD_DOUBLE) {
        float x = (float)d;
        if (!json_is_number(v) || !isfinite(d) || (f->kind == WF_FIELD_FLOAT && !isfinite(x)))
            return wf_expected(r, v, place, "a number", err);
        if (f->kind == WF_FIELD_FLOAT) memcpy(at, &x, sizeof x);
        else memcpy(at, &d, sizeof d);
        return WEFT_OK;
    }
    if (!json_is_integer(v) || (f->kind == WF_FIELD_INT32 && i != l))
        return wf_expected(r, v, place, "a whole number", err);
    if (f->kind == WF_FIELD_INT32) memcpy(at, &i, sizeof i);
    else memcpy(at, &(int64_t){ l }, sizeof(int64_t));
    return WEFT_OK;
}

static weft_status read_one(const wf_fields_reader *r, const wf_field *f, json_t *v,
                            const wf_place *place, void *to, weft_error *err)
{
    void         *at = (char *)to + f->at;
    uint32_t      flags = flags_of(to);
    const char   *text;
    weft_tensors *tensors;

    if (f->kind == WF_FIELD_FLAG && !json_is_boolean(v))
        return wf_expected(r, v, place, "true or false", err);
    if (f->kind != WF_FIELD_FLAG || json_is_true(v)) flags |= f->bit;
    memcpy((char *)to + FLAGS_AT, &flags, sizeof flags);
    switch (f->kind) {
    case WF_FIELD_FLAG: return WEFT_OK;
    case WF_FIELD_WORD: return read_word(r, f, v, place, at, err);
    case WF_FIELD_LIST: return read_list(r, f, v, place, to, at, err);
    case WF_FIELD_TEXT:
        if (!json_is_string(v)) return wf_expected(r, v, place, "a text", err);
        text = wf_bag_string(r->bag, json_string_value(v), json_string_length(v));
        if (text == NULL) return wf_nomem(err, json_string_length(v), "a text");
        memcpy(at, &text, sizeof text);
        return WEFT_OK;
    case WF_FIELD_FILE:
        WF_TRY(r->file(r->user, v, place, &tensors, err));
        memcpy(at, &tensors, sizeof tensors);
        return WEFT_OK;
    default: return read_number(r, f, v, place, at, err);
    }
}

weft_status wf_fields_read(const wf_fields_reader *r, json_t *object, const wf_place *place,
                           const wf_fields *f, void *to, weft_error *err)
{
    for (const wf_field *x = f->field; x < f->field + f->count; x++) {
        json_t     *v = json_object_get(object, x->name);
        wf_place    at;

        if (v == NULL) continue;
        wf_place_in(&at, place, x->name);
        WF_TRY(read_one(r, x, v, &at, to, err));
        json_object_del(object, x->name);
    }
    return WEFT_OK;
}

/* ---- tables that several files use ----------------------------------------------------------- */

const wf_word wf_role_words[] = {
    { "none", WEFT_ROLE_NONE }, { "content", WEFT_ROLE_CONTENT }, { "style", WEFT_ROLE_STYLE },
    { NULL, 0 },
};
const wf_word wf_gamma_words[] = {
    { "code", WEFT_KLORA_GAMMA_CODE }, { "paper", WEFT_KLORA_GAMMA_PAPER },
    { "none", WEFT_KLORA_GAMMA_NONE }, { NULL, 0 },
};
static const wf_word path_words[] = {
    { "auto", WEFT_PATH_AUTO }, { "side", WEFT_PATH_SIDE }, { "merged", WEFT_PATH_MERGED },
    { NULL, 0 },
};
static const wf_word text_words[] = {
    { "method", WEFT_TEXT_METHOD }, { "all", WEFT_TEXT_ALL }, { "first", WEFT_TEXT_FIRST },
    { "none", WEFT_TEXT_NONE }, { NULL, 0 },
};
static const wf_word mixed_words[] = {
    { "delta", WEFT_MIXED_DELTA }, { "inside", WEFT_MIXED_INSIDE }, { "stack", WEFT_MIXED_STACK },
    { "direction", WEFT_MIXED_DIRECTION }, { NULL, 0 },
};
static const wf_word shape_words[] = {
    { "hold", WEFT_CURVE_HOLD }, { "linear", WEFT_CURVE_LINEAR }, { "cosine", WEFT_CURVE_COSINE },
    { NULL, 0 },
};

static const wf_field plan_fields[] = {
    { WF_VALUE("path", WORD, weft_plan_options, path), .words = path_words },
    { WF_VALUE("text_plan", WORD, weft_plan_options, text), .words = text_words },
    { WF_VALUE("mixed", WORD, weft_plan_options, mixed), .words = mixed_words },
};
const wf_fields wf_plan_fields = WF_FIELDS(plan_fields, weft_plan_options);

/* REPLACE is of a concept's tokens, and text_weights is a struct of its own. */
static const wf_field add_fields[] = {
    { WF_VALUE("role", WORD, weft_add_options, role), .words = wf_role_words },
    { WF_VALUE("share", FLOAT, weft_add_options, share), .bit = WEFT_ADD_SHARE,
      .otherwise = 1 },
    { WF_VALUE("select", TEXT, weft_add_options, select) },
    { WF_VALUE("exclude", TEXT, weft_add_options, exclude) },
    { WF_FLAG("partial", WEFT_ADD_PARTIAL) },
    { WF_FLAG("peft_dora", WEFT_ADD_PEFT_DORA) },
};
const wf_fields wf_add_fields = WF_FIELDS(add_fields, weft_add_options);

static const wf_field text_fields[] = {
    { WF_VALUE("text_1", FLOAT, weft_text_weights, text_1) },
    { WF_VALUE("text_2", FLOAT, weft_text_weights, text_2) },
    { WF_VALUE("text_3", FLOAT, weft_text_weights, text_3) },
};
const wf_fields wf_text_fields = WF_FIELDS(text_fields, weft_text_weights);

static const wf_field phase_fields[] = {
    { WF_VALUE("first", INT32, weft_phase_options, first) },
    { WF_VALUE("at", DOUBLE, weft_phase_options, at), .bit = WEFT_PHASE_AT,
      .otherwise = -1 },
};
const wf_fields wf_phase_fields = WF_FIELDS(phase_fields, weft_phase_options);

static const wf_field curve_fields[] = {
    { WF_VALUE("at", DOUBLE, weft_curve_point, at), .otherwise = -1 },
    { WF_VALUE("value", DOUBLE, weft_curve_point, value), .otherwise = -INFINITY },
    { WF_VALUE("shape", WORD, weft_curve_point, shape), .words = shape_words },
};
const wf_fields wf_curve_fields = WF_FIELDS(curve_fields, weft_curve_point);

static const wf_field mask_fields[] = {
    { WF_VALUE("text", FLOAT, weft_mask, text), .bit = WEFT_MASK_TEXT, .otherwise = 1 },
    { WF_FLAG("add", WEFT_MASK_ADD) },
};
const wf_fields wf_mask_fields = WF_FIELDS(mask_fields, weft_mask);

static const wf_field region_fields[] = {
    { WF_VALUE("adapter", INT32, weft_region, adapter), .bit = WEFT_REGION_ADAPTER,
      .otherwise = -1 },
    { WF_FLAG("isolated", WEFT_REGION_ISOLATED) },
};
const wf_fields wf_region_fields = WF_FIELDS(region_fields, weft_region);

static const wf_field balance_fields[] = {
    { WF_VALUE("by", WORD, weft_balance_options, gamma), .words = wf_gamma_words,
      .otherwise = -1 },
    { WF_VALUE("role", WORD, weft_balance_options, role), .words = wf_role_words },
    { WF_VALUE("reference", INT32, weft_balance_options, reference) },
};
const wf_fields wf_balance_fields = WF_FIELDS(balance_fields, weft_balance_options);

static const wf_field opening_fields[] = {
    { WF_VALUE("name", TEXT, weft_adapter_options, name) },
    { WF_VALUE("config_text", TEXT, weft_adapter_options, config_text) },
    { WF_VALUE("alpha", FLOAT, weft_adapter_options, alpha) },
    { WF_VALUE("scale", FLOAT, weft_adapter_options, scale) },
};
const wf_fields wf_opening_fields = WF_FIELDS(opening_fields, weft_adapter_options);
