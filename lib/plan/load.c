/* load.c - text becomes a plan.
 *
 * The text goes through the same functions that a caller would build the plan with, so nothing is
 * checked twice, and nothing can be loaded that could not be built. What is added here is where a
 * thing stands: every line begins with the file and the field.
 *
 * A field that was read is taken out of its object, and an object must be empty in the end. So a
 * field that is misspelt, or of a newer version, is refused and never passed over. */
#include "base/structs.h"
#include "concept/concept.h"
#include "plan/method/method.h"
#include "weft/plan_file.h"

enum { FILES_MAX = 4, DEPTH_MAX = 8, VALUES_MAX = 1 << 22 };

typedef struct loader {
    wf_fields_reader       r;
    wf_bag                 bag;
    weft_plan_load_options o;
    weft_allocator         alloc;
    const char            *folder;            /* where relative paths begin       */
    weft_model            *model;
    weft_plan             *plan;
    weft_concept         **concepts;          /* [concept_count], kept            */
    size_t                 concept_count;
    size_t                 pixels;            /* that masks may have yet          */
    weft_tensors          *files[FILES_MAX];  /* of the options that are read now */
    size_t                 file_count;
} loader;

/* A line about a place in the text: what a function said of the thing there. */
static weft_status at_place(const loader *l, const wf_place *place, weft_status st, weft_error *err)
{
    weft_error why;

    if (st == WEFT_OK || err == NULL || st == WEFT_E_NOMEM) return st;
    why = *err;
    wf_fail(err, st, "%.200s: %.100s: %s", l->r.what, place->text, why.text);
    err->sys = why.sys;
    return st;
}

/* ---- single values --------------------------------------------------------------------------- */

/* A text of an object, in the bag; NULL if there is none. */
static weft_status take_text(loader *l, json_t *object, const wf_place *place, const char *key,
                             const char **out, weft_error *err)
{
    const json_t *v = json_object_get(object, key);
    wf_place      at;

    *out = NULL;
    if (v == NULL) return WEFT_OK;
    wf_place_in(&at, place, key);
    if (!json_is_string(v) || *json_string_value(v) == '\0')
        return wf_expected(&l->r, v, &at, "a text", err);
    *out = wf_bag_string(&l->bag, json_string_value(v), json_string_length(v));
    if (*out == NULL) return wf_nomem(err, json_string_length(v), "a text");
    json_object_del(object, key);
    return WEFT_OK;
}

/* A whole number; `otherwise` if there is none. */
static weft_status take_int(loader *l, json_t *object, const wf_place *place, const char *key,
                            int32_t otherwise, int32_t *out, weft_error *err)
{
    const json_t *v = json_object_get(object, key);
    json_int_t    n = json_integer_value(v);
    wf_place      at;

    *out = otherwise;
    if (v == NULL) return WEFT_OK;
    wf_place_in(&at, place, key);
    if (!json_is_integer(v) || n < 0 || n > INT32_MAX)
        return wf_expected(&l->r, v, &at, "a whole number", err);
    *out = (int32_t)n;
    json_object_del(object, key);
    return WEFT_OK;
}

/* An object of an object, or of a list. */
static weft_status want_object(loader *l, const json_t *v, const wf_place *place, weft_error *err)
{
    return json_is_object(v) ? WEFT_OK : wf_expected(&l->r, v, place, "an object", err);
}

/* The list under a key, to be deleted after its elements were read; NULL: there is none. */
static weft_status get_list(loader *l, json_t *object, const char *key, size_t most, json_t **out,
                            weft_error *err)
{
    wf_place at, top = { "" };

    wf_place_in(&at, &top, key);
    *out = json_object_get(object, key);
    if (*out != NULL && !json_is_array(*out)) return wf_expected(&l->r, *out, &at, "a list", err);
    if (json_array_size(*out) > most)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is a list of %zu, a plan takes at most %zu",
                       l->r.what, key, json_array_size(*out), most);
    return WEFT_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* A path of an object as it is opened, in the bag; NULL if there is none. */
static weft_status take_path(loader *l, json_t *object, const wf_place *place, const char *key,
                             const char **out, weft_error *err)
{
    const char *path;
    char       *joined;

    WF_TRY(take_text(l, object, place, key, &path, err));
    *out = path;
    if (path == NULL || path[0] == '/' || l->folder == NULL) return WEFT_OK;
    joined = wf_path_join(&l->alloc, l->folder, path);
    if (joined == NULL) return wf_nomem(err, strlen(path), "a path");
    *out = wf_bag_string(&l->bag, joined, strlen(joined));
    wf_free(&l->alloc, joined);
    return *out != NULL ? WEFT_OK : wf_nomem(err, strlen(path), "a path");
}

/* The hash under a key is that of the file, or there is none. A file without a path was not
 * read. */
static weft_status check_hash(loader *l, json_t *object, const wf_place *place, const char *key,
                              const wf_origin *file, weft_error *err)
{
    const char    *wanted;
    wf_sha256_text found;
    wf_place       at;

    WF_TRY(take_text(l, object, place, key, &wanted, err));
    if (wanted == NULL || (l->o.flags & WEFT_LOAD_ANY_FILES) != 0) return WEFT_OK;
    wf_place_in(&at, place, key);
    if (strlen(wanted) != 64 || strspn(wanted, "0123456789abcdef") != 64)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is no SHA-256 in 64 hexadecimal digits",
                       l->r.what, at.text);
    if (file->path == NULL)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%s: %s is given, but no such file was found", l->r.what, at.text);
    WF_TRY(at_place(l, &at, wf_origin_hash(file, &found, &l->alloc, err), err));
    if (strcmp(wanted, found.text) == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_MISMATCH,
                   "%s: %s: %s has another content: its hash is %.12s.., the plan was made with "
                   "%.12s..",
                   l->r.what, place->text, file->path, found.text, wanted);
}

/* {"file": .., "sha256": ..}, kept until the options are used. */
static weft_status read_tensors(void *user, json_t *value, const wf_place *place,
                                weft_tensors **out, weft_error *err)
{
    loader              *l = user;
    weft_tensors_options how = WEFT_TENSORS_OPTIONS_INIT;
    const char          *path;

    WF_TRY(want_object(l, value, place, err));
    WF_TRY(take_path(l, value, place, "file", &path, err));
    if (path == NULL || l->file_count == FILES_MAX)
        return wf_expected(&l->r, NULL, place, "an object with a \"file\"", err);
    how.flags = l->o.flags & WEFT_OPEN_COPY;
    how.allocator = &l->alloc;
    WF_TRY(at_place(l, place, weft_tensors_open(path, &how, out, err), err));
    l->files[l->file_count++] = *out;
    WF_TRY(check_hash(l, value, place, "sha256", wf_tensors_origin(*out), err));
    return wf_none_left(&l->r, value, place, err);
}

static void drop_files(loader *l)
{
    while (l->file_count > 0) weft_tensors_free(l->files[--l->file_count]);
}

/* ---- concepts -------------------------------------------------------------------------------- */

static weft_status read_concept(loader *l, json_t *object, const wf_place *place, weft_error *err)
{
    weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
    const json_t        *replace = json_object_get(object, "replace");
    const char          *path;
    weft_concept        *c;
    wf_place             at;

    WF_TRY(want_object(l, object, place, err));
    WF_TRY(take_path(l, object, place, "file", &path, err));
    WF_TRY(take_path(l, object, place, "second", &o.second, err));
    WF_TRY(take_text(l, object, place, "tokens", &o.tokens, err));
    wf_place_in(&at, place, "file");
    if (path == NULL) return wf_expected(&l->r, NULL, &at, "the path of a file", err);
    wf_place_in(&at, place, "replace");
    if (replace != NULL && !json_is_boolean(replace))
        return wf_expected(&l->r, replace, &at, "true or false", err);
    bool replaces = json_is_true(replace);
    json_object_del(object, "replace");
    o.flags = l->o.flags & WEFT_OPEN_COPY;
    o.allocator = &l->alloc;
    o.log = l->o.log;
    o.log_user = l->o.log_user;
    WF_TRY(at_place(l, place, weft_concept_open(path, &o, &c, err), err));
    l->concepts[l->concept_count++] = c;
    WF_TRY(check_hash(l, object, place, "sha256", wf_concept_file(c), err));
    WF_TRY(check_hash(l, object, place, "second_sha256", wf_concept_second(c), err));
    WF_TRY(at_place(l, place, wf_plan_add_tokens(l->plan, c, replaces, err), err));
    return wf_none_left(&l->r, object, place, err);
}

static weft_status read_concepts(loader *l, json_t *root, weft_error *err)
{
    json_t  *list;
    wf_place at, all = { "concepts" };

    WF_TRY(get_list(l, root, "concepts", WF_TOKENS_MAX, &list, err));
    l->concepts = wf_bag_take(&l->bag, json_array_size(list) + 1, sizeof *l->concepts);
    if (l->concepts == NULL)
        return wf_nomem(err, json_array_size(list) * sizeof *l->concepts, "a plan's concepts");
    for (size_t i = 0; i < json_array_size(list); i++) {
        wf_place_at(&at, &all, i);
        WF_TRY(read_concept(l, json_array_get(list, i), &at, err));
    }
    json_object_del(root, "concepts");
    return WEFT_OK;
}

/* ---- adapters -------------------------------------------------------------------------------- */

/* The adapter of a file, or that of a concept: a new reference. */
static weft_status open_adapter(loader *l, json_t *object, const wf_place *place,
                                weft_adapter **out, weft_error *err)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    const char          *path;
    int32_t              concept;
    wf_place             at;

    WF_TRY(take_path(l, object, place, "file", &path, err));
    WF_TRY(take_int(l, object, place, "concept", -1, &concept, err));
    if ((path == NULL) == (concept < 0))
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: %s has %s: an adapter is of a file, or of a concept", l->r.what,
                       place->text, path == NULL ? "no \"file\" and no \"concept\"" : "both");
    if (path == NULL) {
        wf_place_in(&at, place, "concept");
        if ((size_t)concept < l->concept_count) *out = weft_concept_adapter(l->concepts[concept]);
        if (*out != NULL) return WEFT_OK;
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %d: there is no such concept with an adapter",
                       l->r.what, at.text, (int)concept);
    }
    WF_TRY(wf_fields_read(&l->r, object, place, &wf_opening_fields, &o, err));
    WF_TRY(take_path(l, object, place, "config", &o.config, err));
    o.flags = l->o.flags & WEFT_OPEN_COPY;
    o.allocator = &l->alloc;
    o.log = l->o.log;
    o.log_user = l->o.log_user;
    return at_place(l, place, weft_adapter_open(path, &o, out, err), err);
}

static weft_status check_adapter(loader *l, json_t *object, const wf_place *place,
                                 const weft_adapter *a, weft_error *err)
{
    const wf_opened *from = wf_adapter_opened(a);

    WF_TRY(check_hash(l, object, place, "sha256", &from->weights, err));
    return check_hash(l, object, place, "config_sha256", &from->config, err);
}

/* An object's "weight", 1 where it has none. */
static weft_status take_weight(loader *l, json_t *object, const wf_place *place, float *out,
                               weft_error *err)
{
    static const wf_field weight_field[] = {
        { .name = "weight", .kind = WF_FIELD_FLOAT, .at = offsetof(weft_text_weights, text_1) },
    };
    static const wf_fields weight_fields = WF_FIELDS(weight_field, weft_text_weights);
    weft_text_weights weight = WEFT_TEXT_WEIGHTS_INIT;

    weight.text_1 = 1;
    WF_TRY(wf_fields_read(&l->r, object, place, &weight_fields, &weight, err));
    *out = weight.text_1;
    return WEFT_OK;
}

/* Its weight and how it is added. */
static weft_status add_adapter(loader *l, json_t *object, const wf_place *place, weft_adapter *a,
                               weft_error *err)
{
    weft_add_options  o = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
    json_t           *texts = json_object_get(object, "text_weights");
    float             weight;
    wf_place          at;

    WF_TRY(take_weight(l, object, place, &weight, err));
    WF_TRY(wf_fields_read(&l->r, object, place, &wf_add_fields, &o, err));
    if (texts != NULL) {
        wf_place_in(&at, place, "text_weights");
        WF_TRY(want_object(l, texts, &at, err));
        WF_TRY(wf_fields_read(&l->r, texts, &at, &wf_text_fields, &text, err));
        WF_TRY(wf_none_left(&l->r, texts, &at, err));
        json_object_del(object, "text_weights");
        o.text_weights = &text;
    }
    return at_place(l, place, weft_plan_add(l->plan, a, weight, &o, err), err);
}

/* weft_plan_set_curve(), or the like of it for something else than an adapter. */
typedef weft_status (*curve_user)(weft_plan *plan, int32_t index, uint32_t flags,
                                  const weft_curve_point *points, size_t count, weft_error *err);

static weft_status read_points(loader *l, json_t *list, const wf_place *place, curve_user use,
                               int32_t index, bool share, weft_error *err)
{
    size_t            count = json_array_size(list);
    weft_curve_point *points = wf_bag_take(&l->bag, count, sizeof *points);
    wf_place          at;

    if (!json_is_array(list) || count == 0)
        return wf_expected(&l->r, list, place, "a list of points", err);
    if (points == NULL) return wf_nomem(err, count * sizeof *points, "a curve");
    for (size_t i = 0; i < count; i++) {
        json_t *point = json_array_get(list, i);
        wf_place_at(&at, place, i);
        points[i].struct_size = sizeof *points;
        WF_TRY(want_object(l, point, &at, err));
        if (json_object_get(point, "at") == NULL || json_object_get(point, "value") == NULL)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s has no \"%s\"", l->r.what, at.text,
                           json_object_get(point, "at") == NULL ? "at" : "value");
        WF_TRY(wf_fields_read(&l->r, point, &at, &wf_curve_fields, &points[i], err));
        WF_TRY(wf_none_left(&l->r, point, &at, err));
    }
    return at_place(l, place,
                    use(l->plan, index, share ? WEFT_CURVE_AT_SHARE : 0, points, count, err), err);
}

static weft_status read_curve(loader *l, json_t *object, const wf_place *of, curve_user use,
                              int32_t index, weft_error *err)
{
    json_t     *curve = json_object_get(object, "curve");
    const char *by;
    wf_place    place, at;

    if (curve == NULL) return WEFT_OK;
    wf_place_in(&place, of, "curve");
    WF_TRY(want_object(l, curve, &place, err));
    wf_place_in(&at, &place, "by");
    WF_TRY(take_text(l, curve, &place, "by", &by, err));
    if (by != NULL && strcmp(by, "call") != 0 && strcmp(by, "share") != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is \"%.64s\", expected \"call\" or \"share\"",
                       l->r.what, at.text, by);
    wf_place_in(&at, &place, "points");
    WF_TRY(read_points(l, json_object_get(curve, "points"), &at, use, index,
                       by != NULL && strcmp(by, "share") == 0, err));
    json_object_del(curve, "points");
    WF_TRY(wf_none_left(&l->r, curve, &place, err));
    json_object_del(object, "curve");
    return WEFT_OK;
}

/* Give a mask to an adapter, or to the region. */
typedef weft_status (*mask_user)(loader *l, const weft_mask *m, void *to, weft_error *err);

/* The mask of an object, whose values are gone when `use` is done; *had tells whether there was
 * one. */
static weft_status read_mask(loader *l, json_t *object, const wf_place *of, mask_user use, void *to,
                             bool *had, weft_error *err)
{
    json_t          *mask = json_object_get(object, "mask");
    weft_mask        m = WEFT_MASK_INIT;
    wf_bag           bag;
    wf_fields_reader r = l->r;
    wf_place         place;
    weft_status      st;

    *had = mask != NULL;
    if (mask == NULL) return WEFT_OK;
    wf_place_in(&place, of, "mask");
    wf_bag_init(&bag, &l->alloc);
    r.bag = &bag;
    st = wf_mask_read(&r, mask, &place, &l->pixels, &m, err);
    if (st == WEFT_OK) st = wf_fields_read(&r, mask, &place, &wf_mask_fields, &m, err);
    if (st == WEFT_OK) st = wf_none_left(&r, mask, &place, err);
    if (st == WEFT_OK) st = at_place(l, &place, use(l, &m, to, err), err);
    wf_bag_free(&bag);
    if (st == WEFT_OK) json_object_del(object, "mask");
    return st;
}

static weft_status mask_adapter(loader *l, const weft_mask *m, void *to, weft_error *err)
{
    return weft_plan_set_mask(l->plan, *(const int32_t *)to, m, err);
}

static weft_status read_adapter(loader *l, json_t *object, const wf_place *place, int32_t index,
                                weft_error *err)
{
    weft_adapter *a = NULL;
    const char   *blocks;
    wf_place      at;
    bool          masked;
    weft_status   st;

    WF_TRY(want_object(l, object, place, err));
    WF_TRY(take_text(l, object, place, "blocks", &blocks, err));
    WF_TRY(open_adapter(l, object, place, &a, err));
    st = check_adapter(l, object, place, a, err);
    if (st == WEFT_OK) st = add_adapter(l, object, place, a, err);
    weft_adapter_free(a);
    if (st != WEFT_OK) return st;
    WF_TRY(read_curve(l, object, place, weft_plan_set_curve, index, err));
    WF_TRY(read_mask(l, object, place, mask_adapter, &index, &masked, err));
    wf_place_in(&at, place, "blocks");
    if (blocks != NULL)
        WF_TRY(at_place(l, &at, weft_plan_set_blocks(l->plan, index, blocks, err), err));
    return wf_none_left(&l->r, object, place, err);
}

static weft_status read_adapters(loader *l, json_t *root, weft_error *err)
{
    json_t  *list;
    wf_place at, all = { "adapters" };

    WF_TRY(get_list(l, root, "adapters", WF_ADAPTERS_MAX, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        wf_place_at(&at, &all, i);
        WF_TRY(read_adapter(l, json_array_get(list, i), &at, (int32_t)i, err));
    }
    json_object_del(root, "adapters");
    return WEFT_OK;
}

/* ---- image prompts --------------------------------------------------------------------------- */

typedef struct adding_image {
    weft_image_adapter       *adapter;
    float                     weight;
    weft_image_prompt_options o;
} adding_image;

static weft_status mask_image(loader *l, const weft_mask *m, void *to, weft_error *err)
{
    adding_image *x = to;

    x->o.mask = m;
    return weft_plan_add_image_prompt(l->plan, x->adapter, x->weight, &x->o, err);
}

static weft_status add_image(loader *l, json_t *object, const wf_place *place,
                             weft_image_adapter *a, weft_error *err)
{
    adding_image x = { .adapter = a, .o = WEFT_IMAGE_PROMPT_OPTIONS_INIT };
    bool         masked;

    WF_TRY(check_hash(l, object, place, "sha256", wf_image_adapter_origin(a), err));
    WF_TRY(take_weight(l, object, place, &x.weight, err));
    WF_TRY(wf_fields_read(&l->r, object, place, &wf_image_fields, &x.o, err));
    WF_TRY(read_mask(l, object, place, mask_image, &x, &masked, err));
    return masked ? WEFT_OK : at_place(l, place, mask_image(l, NULL, &x, err), err);
}

static weft_status read_image(loader *l, json_t *object, const wf_place *place, int32_t index,
                              weft_error *err)
{
    weft_image_options  o = WEFT_IMAGE_OPTIONS_INIT;
    weft_image_adapter *a;
    const char         *path;
    weft_status         st;

    WF_TRY(want_object(l, object, place, err));
    WF_TRY(take_path(l, object, place, "file", &path, err));
    if (path == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s has no \"file\"", l->r.what, place->text);
    o.flags = l->o.flags & WEFT_OPEN_COPY;
    o.allocator = &l->alloc;
    o.log = l->o.log;
    o.log_user = l->o.log_user;
    WF_TRY(at_place(l, place, weft_image_adapter_open(path, &o, &a, err), err));
    st = add_image(l, object, place, a, err);
    weft_image_adapter_free(a);
    if (st != WEFT_OK) return st;
    WF_TRY(read_curve(l, object, place, weft_plan_set_image_curve, index, err));
    return wf_none_left(&l->r, object, place, err);
}

static weft_status read_images(loader *l, json_t *root, weft_error *err)
{
    json_t  *list;
    wf_place at, all = { "image_prompts" };

    WF_TRY(get_list(l, root, "image_prompts", WF_IMAGES_MAX, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        wf_place_at(&at, &all, i);
        WF_TRY(read_image(l, json_array_get(list, i), &at, (int32_t)i, err));
    }
    json_object_del(root, "image_prompts");
    return WEFT_OK;
}

/* ---- regions, balance, phases, notes --------------------------------------------------------- */

static weft_status mask_region(loader *l, const weft_mask *m, void *to, weft_error *err)
{
    weft_region *o = to;

    o->mask = m;
    return weft_plan_add_region(l->plan, o, err);
}

static weft_status read_regions(loader *l, json_t *root, weft_error *err)
{
    json_t  *list;
    wf_place at, all = { "regions" };

    WF_TRY(get_list(l, root, "regions", WF_REGIONS_MAX, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t     *object = json_array_get(list, i);
        weft_region o = WEFT_REGION_INIT;
        bool        masked;
        wf_place_at(&at, &all, i);
        WF_TRY(want_object(l, object, &at, err));
        WF_TRY(wf_fields_read(&l->r, object, &at, &wf_region_fields, &o, err));
        WF_TRY(read_mask(l, object, &at, mask_region, &o, &masked, err));
        if (!masked) WF_TRY(at_place(l, &at, weft_plan_add_region(l->plan, &o, err), err));
        WF_TRY(wf_none_left(&l->r, object, &at, err));
    }
    json_object_del(root, "regions");
    return WEFT_OK;
}

static weft_status read_balance(loader *l, json_t *root, weft_error *err)
{
    json_t              *object = json_object_get(root, "balance");
    weft_balance_options o = WEFT_BALANCE_OPTIONS_INIT;
    wf_place             place = { "balance" };

    if (object == NULL) return WEFT_OK;
    WF_TRY(want_object(l, object, &place, err));
    WF_TRY(wf_fields_read(&l->r, object, &place, &wf_balance_fields, &o, err));
    WF_TRY(wf_none_left(&l->r, object, &place, err));
    WF_TRY(at_place(l, &place, weft_plan_balance(l->plan, &o, err), err));
    json_object_del(root, "balance");
    return WEFT_OK;
}

static weft_status read_align(loader *l, json_t *root, weft_error *err)
{
    json_t            *object = json_object_get(root, "align");
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    wf_place           place = { "align" };

    if (object == NULL) return WEFT_OK;
    WF_TRY(want_object(l, object, &place, err));
    WF_TRY(wf_fields_read(&l->r, object, &place, &wf_align_fields, &o, err));
    WF_TRY(wf_none_left(&l->r, object, &place, err));
    WF_TRY(at_place(l, &place, weft_plan_align(l->plan, &o, err), err));
    json_object_del(root, "align");
    return WEFT_OK;
}

static const wf_method *method_named(const char *name)
{
#define METHOD(one) &wf_method_##one,
    static const wf_method *const all[] = { WF_METHODS(METHOD) };
#undef METHOD
    for (size_t i = 0; name != NULL && i < WF_LEN(all); i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

static weft_status use_method(loader *l, json_t *object, const wf_place *place,
                              const wf_method *m, weft_error *err)
{
    char       *options = NULL;
    weft_status st = WEFT_OK;

    if (m->fields != NULL) {
        uint32_t size = (uint32_t)m->fields->size;
        if ((options = wf_bag_take(&l->bag, 1, size)) == NULL)
            return wf_nomem(err, size, "a method's options");
        memcpy(options, &size, sizeof size);
        st = wf_fields_read(&l->r, object, place, m->fields, options, err);
    }
    if (st == WEFT_OK) st = wf_none_left(&l->r, object, place, err);
    if (st == WEFT_OK) st = at_place(l, place, m->use(l->plan, options, err), err);
    drop_files(l);
    return st;
}

static weft_status read_phase(loader *l, json_t *object, const wf_place *place, size_t index,
                              weft_error *err)
{
    weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;
    const json_t      *method;
    const wf_method   *m;
    wf_place           at;

    WF_TRY(want_object(l, object, place, err));
    WF_TRY(wf_fields_read(&l->r, object, place, &wf_phase_fields, &o, err));
    if (index == 0 && ((o.flags & WEFT_PHASE_AT) != 0 || o.first != 0))
        return wf_fail(err, WEFT_E_ARG,
                       "%s: %s: the first phase begins at call 0, without saying so", l->r.what,
                       place->text);
    if (index > 0) WF_TRY(at_place(l, place, weft_plan_begin_phase(l->plan, &o, err), err));
    wf_place_in(&at, place, "method");
    method = json_object_get(object, "method");
    if (!json_is_string(method))
        return wf_expected(&l->r, method, &at, "the name of a method", err);
    if ((m = method_named(json_string_value(method))) == NULL)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: %s is \"%.64s\", which is no method of this library (version %d.%d.%d)",
                       l->r.what, at.text, json_string_value(method), WEFT_VERSION_MAJOR,
                       WEFT_VERSION_MINOR, WEFT_VERSION_PATCH);
    json_object_del(object, "method");
    return use_method(l, object, place, m, err);
}

static weft_status read_phases(loader *l, json_t *root, weft_error *err)
{
    json_t  *list;
    wf_place at, all = { "phases" };

    WF_TRY(get_list(l, root, "phases", WF_PHASES_MAX, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        wf_place_at(&at, &all, i);
        WF_TRY(read_phase(l, json_array_get(list, i), &at, i, err));
    }
    json_object_del(root, "phases");
    return WEFT_OK;
}

/* {"file": .., "sha256": ..} */
static weft_status read_note_file(loader *l, const char *name, json_t *object,
                                  const wf_place *place, weft_error *err)
{
    const char *path;
    wf_note     note = { 0 };
    wf_place    at;

    WF_TRY(take_path(l, object, place, "file", &path, err));
    wf_place_in(&at, place, "file");
    if (path == NULL) return wf_expected(&l->r, NULL, &at, "the path of a file", err);
    WF_TRY(at_place(l, place, weft_plan_set_note_file(l->plan, name, path, err), err));
    (void)wf_plan_note_find(l->plan, name, &note);
    WF_TRY(check_hash(l, object, place, "sha256", &note.file, err));
    return wf_none_left(&l->r, object, place, err);
}

/* A note is a text or a file; a number or a truth value that somebody wrote is taken as its
 * text. */
static weft_status read_note(loader *l, const char *name, json_t *v, weft_error *err)
{
    wf_place       at, all = { "notes" };
    wf_number_text number;
    char           whole[32];
    const char    *text = json_string_value(v);

    wf_place_in(&at, &all, name);
    if (json_is_object(v)) return read_note_file(l, name, v, &at, err);
    wf_format(whole, sizeof whole, "%lld", (long long)json_integer_value(v));
    if (json_is_integer(v)) text = whole;
    if (json_is_real(v)) text = wf_number_double(&number, json_real_value(v));
    if (json_is_boolean(v)) text = json_is_true(v) ? "true" : "false";
    if (text == NULL) return wf_expected(&l->r, v, &at, "a text or a file", err);
    return at_place(l, &at, weft_plan_set_note(l->plan, name, text, err), err);
}

static weft_status read_notes(loader *l, json_t *root, weft_error *err)
{
    json_t     *object = json_object_get(root, "notes"), *v;
    const char *name;
    wf_place    place = { "notes" };

    if (object == NULL) return WEFT_OK;
    WF_TRY(want_object(l, object, &place, err));
    json_object_foreach(object, name, v) WF_TRY(read_note(l, name, v, err));
    json_object_del(root, "notes");
    return WEFT_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static weft_status check_format(loader *l, json_t *root, weft_error *err)
{
    const json_t *format = json_object_get(root, "weft_plan");

    if (format == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: no plan: it has no field \"weft_plan\"", l->r.what);
    if (!json_is_integer(format) || json_integer_value(format) != WF_PLAN_FORMAT)
        return wf_expected(&l->r, format, &(wf_place){ "weft_plan" },
                           "1, the format that this library reads", err);
    json_object_del(root, "weft_plan");
    return WEFT_OK;
}

static weft_status check_model(loader *l, json_t *root, weft_error *err)
{
    json_t        *object = json_object_get(root, "model");
    const char    *name, *base, *fingerprint;
    wf_place       place = { "model" };
    wf_sha256_text own;

    if (object == NULL) return WEFT_OK;
    WF_TRY(want_object(l, object, &place, err));
    WF_TRY(take_text(l, object, &place, "name", &name, err));
    WF_TRY(take_text(l, object, &place, "base", &base, err));
    WF_TRY(take_text(l, object, &place, "fingerprint", &fingerprint, err));
    WF_TRY(wf_none_left(&l->r, object, &place, err));
    json_object_del(root, "model");
    if (fingerprint == NULL || (l->o.flags & WEFT_LOAD_ANY_MODEL) != 0) return WEFT_OK;
    wf_model_fingerprint(l->model, &own);
    if (strcmp(fingerprint, own.text) == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_MISMATCH,
                   "%s: model: the plan was made for another model, %.80s of %.24s (%.12s..); this "
                   "is %.80s of %s (%.12s..)",
                   l->r.what, name != NULL ? name : "one without a name",
                   base != NULL ? base : "an unknown base", fingerprint, wf_model_path(l->model),
                   wf_base_name(wf_model_base(l->model)), own.text);
}

static weft_status create_plan(loader *l, json_t *root, weft_error *err)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    wf_place          top = { "" };

    WF_TRY(wf_fields_read(&l->r, root, &top, &wf_plan_fields, &o, err));
    o.allocator = &l->alloc;
    o.log = l->o.log;
    o.log_user = l->o.log_user;
    o.progress = l->o.progress;
    o.progress_user = l->o.progress_user;
    return weft_plan_create(l->model, &o, &l->plan, err);
}

static weft_status read_root(loader *l, json_t *root, weft_error *err)
{
    wf_place top = { "" };
    int32_t  calls;

    WF_TRY(check_format(l, root, err));
    WF_TRY(check_model(l, root, err));
    WF_TRY(create_plan(l, root, err));
    WF_TRY(read_notes(l, root, err));
    WF_TRY(read_concepts(l, root, err));
    WF_TRY(read_adapters(l, root, err));
    WF_TRY(read_regions(l, root, err));
    WF_TRY(read_images(l, root, err));
    WF_TRY(read_balance(l, root, err));
    WF_TRY(read_align(l, root, err));
    WF_TRY(read_phases(l, root, err));
    WF_TRY(take_int(l, root, &top, "calls", 0, &calls, err));
    WF_TRY(wf_none_left(&l->r, root, &top, err));
    if ((l->o.flags & WEFT_LOAD_SEAL) == 0) return WEFT_OK;
    if (calls == 0)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: it says no \"calls\", which it is to be sealed for", l->r.what);
    return at_place(l, &(wf_place){ "calls" }, weft_plan_seal(l->plan, calls, err), err);
}

/* Behind white space and a byte order mark. */
static bool begins_an_object(const char *text, size_t size)
{
    size_t i = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

    while (i < size && strchr(" \t\r\n", text[i]) != NULL && text[i] != '\0') i++;
    return i < size && text[i] == '{';
}

static weft_status load(weft_model *model, const char *text, size_t size, const char *what,
                        const char *folder, const weft_plan_load_options *o, weft_plan **out,
                        weft_error *err)
{
    loader      l = { .o = *o, .folder = folder, .model = model, .pixels = WF_MASK_PIXELS };
    json_t     *root = NULL;
    weft_status st;

    l.alloc = wf_allocator(o->allocator);
    wf_bag_init(&l.bag, &l.alloc);
    l.r = (wf_fields_reader){ .what = what, .bag = &l.bag, .file = read_tensors, .user = &l };
    if (begins_an_object(text, size))
        st = wf_json_parse_bounded(&root, text, size, DEPTH_MAX, VALUES_MAX, what, err);
    else
        st = wf_say_foreign(wf_fail(err, WEFT_E_FORMAT, "%s: no plan: it is not JSON, which begins "
                                    "with {", what),
                            (const uint8_t *)text, size, "a plan in JSON", what, err);
    if (st == WEFT_OK) st = read_root(&l, root, err);
    json_decref(root);
    drop_files(&l);
    for (size_t i = 0; i < l.concept_count; i++) weft_concept_free(l.concepts[i]);
    wf_bag_free(&l.bag);
    if (st == WEFT_OK) *out = l.plan;
    else weft_plan_free(l.plan);
    return st;
}

/* ---- public ---------------------------------------------------------------------------------- */

static weft_status read_options(weft_plan_load_options *o, weft_model *model, const void *text,
                                const weft_plan_load_options *options, weft_plan **out,
                                const char *who, weft_error *err)
{
    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "%s: out is NULL", who);
    *out = NULL;
    if (model == NULL) return wf_fail(err, WEFT_E_ARG, "%s: model is NULL", who);
    if (text == NULL) return wf_fail(err, WEFT_E_ARG, "%s: there is no text, NULL", who);
    WF_TRY(WF_OPTIONS(o, options, weft_plan_load_options,
                      WEFT_OPEN_COPY | WEFT_LOAD_ANY_MODEL | WEFT_LOAD_ANY_FILES | WEFT_LOAD_SEAL,
                      err));
    return wf_check_allocator(o->allocator, err);
}

weft_status weft_plan_from_json(weft_model *model, const char *text, size_t size,
                                const weft_plan_load_options *options, weft_plan **out,
                                weft_error *err)
{
    weft_plan_load_options o;

    WF_TRY(read_options(&o, model, text, options, out, "weft_plan_from_json", err));
    return load(model, text, size, "plan", o.folder, &o, out, err);
}

weft_status weft_plan_load(weft_model *model, const char *path,
                           const weft_plan_load_options *options, weft_plan **out, weft_error *err)
{
    enum { BYTES_MAX = 1 << 29 }; /* some masks of the largest size */
    weft_plan_load_options o;
    wf_file                file = WF_FILE_NONE;
    weft_status            st;

    WF_TRY(read_options(&o, model, path, options, out, "weft_plan_load", err));
    if (o.folder != NULL)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_plan_load_options: folder is for a text; a file has its own");
    weft_allocator alloc = wf_allocator(o.allocator);
    const char    *slash = strrchr(path, '/');
    char          *folder = NULL;
    if (slash != NULL) folder = wf_strndup(&alloc, path, (size_t)(slash - path) + 1);
    if (slash != NULL && folder == NULL) return wf_nomem(err, strlen(path), "a path");
    st = wf_file_read(&file, path, BYTES_MAX, &alloc, err);
    if (st == WEFT_OK)
        st = load(model, (const char *)file.data, file.size, path, folder, &o, out, err);
    wf_file_close(&file, &alloc);
    wf_free(&alloc, folder);
    return st;
}
