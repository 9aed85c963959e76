/* save.c - a plan becomes text.
 *
 * The text is what the plan was built from, not the table: smaller by far, and the table follows
 * from it. It is one document, written in two ways: for people, and canonical for the hash. The
 * hash leaves out what may differ between equal plans: names, paths, notes.
 *
 * What a plan has and this file does not write would be lost without a word. So whoever gives a
 * plan something new comes by here and by load.c; tests/plan/test_plan_file.c counts the bytes of
 * the structs. */
#include "base/structs.h"
#include "concept/concept.h"
#include "plan/method/method.h"
#include "weft/plan_file.h"

typedef struct writer {
    const weft_plan *p;
    wf_doc           d;
    const char      *folder; /* absolute, with a slash at its end: files below it are named from
                                there; NULL: none                                            */
    bool             hashed; /* for the hash: contents alone                                 */
    size_t           pixels; /* of masks so far                                              */
} writer;

/* ---- files ----------------------------------------------------------------------------------- */

static void write_path(writer *w, wf_node *to, const char *key, const wf_origin *o)
{
    size_t n = w->folder != NULL ? strlen(w->folder) : 0;
    bool   below = n > 0 && strncmp(o->path, w->folder, n) == 0;

    if (!w->hashed) wf_node_text(&w->d, to, key, below ? o->path + n : o->path);
}

static weft_status write_hash(writer *w, wf_node *to, const char *key, const wf_origin *o,
                              weft_error *err)
{
    wf_sha256_text hash;

    WF_TRY(wf_origin_hash(o, &hash, &w->p->alloc, err));
    wf_node_text(&w->d, to, key, hash.text);
    return WEFT_OK;
}

static weft_status write_tensors(void *user, wf_doc *d, wf_node *to, const char *key,
                                 const weft_tensors *t, weft_error *err)
{
    writer          *w = user;
    const wf_origin *o = wf_tensors_origin(t);
    wf_node         *node = wf_node_object(d, to, key);

    if (o->path == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s were made in memory: a plan that is saved names a file", key,
                       wf_tensors_what(t));
    write_path(w, node, "file", o);
    return write_hash(w, node, "sha256", o, err);
}

/* Options that have no file. */
static weft_status write_fields(writer *w, wf_node *to, const wf_fields *f, const void *from,
                                weft_error *err)
{
    return wf_fields_write(&w->d, to, f, from, WF_CHANGED, write_tensors, w, err);
}

/* ---- concepts and adapters ------------------------------------------------------------------- */

static weft_status write_concept(writer *w, wf_node *list, const weft_concept *c, bool replace,
                                 weft_error *err)
{
    const wf_origin *file = wf_concept_file(c), *second = wf_concept_second(c);
    wf_node         *node = wf_node_object(&w->d, list, NULL);

    if (file->path == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "concept %s: its file cannot be named",
                       wf_concept_name(c));
    write_path(w, node, "file", file);
    WF_TRY(write_hash(w, node, "sha256", file, err));
    if (second->path != NULL) {
        write_path(w, node, "second", second);
        WF_TRY(write_hash(w, node, "second_sha256", second, err));
    }
    if (wf_concept_names(c) != NULL) wf_node_text(&w->d, node, "tokens", wf_concept_names(c));
    if (replace) wf_node_bool(&w->d, node, "replace", true);
    return WEFT_OK;
}

static weft_status write_concepts(writer *w, weft_error *err)
{
    wf_node      *list = NULL;
    weft_concept *c;
    bool          replace;

    for (size_t i = 0; (c = wf_tokens_concept(w->p->tokens, i, &replace)) != NULL; i++) {
        if (list == NULL) list = wf_node_list(&w->d, w->d.root, "concepts");
        WF_TRY(write_concept(w, list, c, replace, err));
    }
    return WEFT_OK;
}

/* The concept whose adapter this is, or -1. */
static int64_t concept_of(const weft_plan *p, const weft_adapter *a)
{
    weft_concept *c;
    bool          replace;

    for (size_t i = 0; (c = wf_tokens_concept(p->tokens, i, &replace)) != NULL; i++)
        if (wf_concept_adapter(c) != NULL && wf_adapter_same(wf_concept_adapter(c), a))
            return (int64_t)i;
    return -1;
}

static weft_status write_source(writer *w, wf_node *node, const weft_adapter *a, weft_error *err)
{
    const wf_opened     *from = wf_adapter_opened(a);
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    int64_t              concept = concept_of(w->p, a);

    if (from->path.path == NULL || from->weights.path == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "adapter %s was made in memory: save it with weft_adapter_save() and open "
                       "the file, which a plan that is saved can name",
                       wf_adapter_name(a));
    if (concept >= 0) {
        wf_node_int(&w->d, node, "concept", concept);
    } else {
        write_path(w, node, "file", &from->path);
        WF_TRY(write_hash(w, node, "sha256", &from->weights, err));
    }
    if (from->config_named) write_path(w, node, "config", &from->config);
    if (from->config.path != NULL)
        WF_TRY(write_hash(w, node, "config_sha256", &from->config, err));
    if (!w->hashed) o.name = from->name;
    o.config_text = from->config_text;
    o.alpha = from->alpha;
    o.scale = from->scale;
    return write_fields(w, node, &wf_opening_fields, &o, err);
}

static weft_status write_curve(writer *w, wf_node *node, const wf_blob *blob, weft_error *err)
{
    bool     share;
    size_t   count = wf_curve_count(blob, &share);
    wf_node *curve = wf_node_object(&w->d, node, "curve");

    wf_node_text(&w->d, curve, "by", share ? "share" : "call");
    wf_node *list = wf_node_list(&w->d, curve, "points");
    for (size_t i = 0; i < count; i++) {
        weft_curve_point point;
        wf_curve_point(blob, i, &point);
        WF_TRY(write_fields(w, wf_node_object(&w->d, list, NULL), &wf_curve_fields, &point, err));
    }
    return WEFT_OK;
}

static weft_status write_mask(writer *w, wf_node *node, const wf_plan_mask *from, weft_error *err)
{
    weft_mask m = WEFT_MASK_INIT;
    wf_node  *mask = wf_node_object(&w->d, node, "mask");

    w->pixels += (size_t)from->h * (size_t)from->w;
    if (w->pixels > WF_MASK_PIXELS)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "a plan cannot be saved with masks of more than %d pixels, all together",
                       WF_MASK_PIXELS);
    m.flags = WEFT_MASK_TEXT | (from->adds ? WEFT_MASK_ADD : 0u);
    m.text = from->text;
    WF_TRY(write_fields(w, mask, &wf_mask_fields, &m, err));
    wf_mask_write(&w->d, mask, from, &w->p->alloc);
    return WEFT_OK;
}

static bool texts_differ(const wf_entry *e)
{
    bool differ = false;
    for (int i = 0; i < WF_TEXT_ENCODERS; i++) differ = differ || e->text_weight[i] != e->weight;
    return differ;
}

static weft_status write_adapter(writer *w, wf_node *list, int32_t index, weft_error *err)
{
    const wf_entry   *e = &w->p->entry[index];
    wf_node          *node = wf_node_object(&w->d, list, NULL);
    weft_add_options  o = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;

    WF_TRY(write_source(w, node, e->bound->adapter, err));
    wf_node_float(&w->d, node, "weight", e->weight);
    text.text_1 = e->text_weight[0];
    text.text_2 = e->text_weight[1];
    text.text_3 = e->text_weight[2];
    if (texts_differ(e))
        WF_TRY(write_fields(w, wf_node_object(&w->d, node, "text_weights"), &wf_text_fields, &text,
                            err));
    o.flags = WEFT_ADD_SHARE | (e->peft_dora ? WEFT_ADD_PEFT_DORA : 0u) |
              (e->partial ? WEFT_ADD_PARTIAL : 0u);
    o.share = e->share;
    o.role = e->role;
    o.select = e->bound->select;
    o.exclude = e->bound->exclude;
    WF_TRY(write_fields(w, node, &wf_add_fields, &o, err));
    if (e->blocks != NULL) wf_node_text(&w->d, node, "blocks", wf_blocks_text(e->blocks));
    if (e->curve != NULL) WF_TRY(write_curve(w, node, e->curve, err));
    return e->mask != NULL ? write_mask(w, node, wf_plan_mask_of(w->p, index), err) : WEFT_OK;
}

static weft_status write_adapters(writer *w, weft_error *err)
{
    wf_node *list = wf_node_list(&w->d, w->d.root, "adapters");

    for (int32_t a = 0; a < w->p->adapters; a++) WF_TRY(write_adapter(w, list, a, err));
    return WEFT_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static weft_status write_regions(writer *w, weft_error *err)
{
    const weft_plan *p = w->p;
    wf_node         *list = p->regions > 0 ? wf_node_list(&w->d, w->d.root, "regions") : NULL;

    for (int32_t i = 0; i < p->regions; i++) {
        const wf_region *r = &p->region[i];
        wf_node         *node = wf_node_object(&w->d, list, NULL);
        weft_region      o = WEFT_REGION_INIT;

        o.flags = r->isolated ? WEFT_REGION_ISOLATED : 0;
        o.adapter = r->adapter;
        WF_TRY(write_fields(w, node, &wf_region_fields, &o, err));
        if (r->mask != NULL) WF_TRY(write_mask(w, node, r->mask->data, err));
    }
    return WEFT_OK;
}

static weft_status write_image(writer *w, wf_node *node, const wf_image_prompt *x, weft_error *err)
{
    const wf_origin          *file = wf_image_adapter_origin(x->adapter);
    weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;

    if (file->path == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "IP-Adapter %s: its file cannot be named",
                       wf_image_adapter_name(x->adapter));
    write_path(w, node, "file", file);
    WF_TRY(write_hash(w, node, "sha256", file, err));
    wf_node_float(&w->d, node, "weight", x->weight);
    o.images = x->images;
    o.blocks = x->blocks != NULL ? wf_blocks_text(x->blocks) : NULL;
    WF_TRY(write_fields(w, node, &wf_image_fields, &o, err));
    if (x->curve != NULL) WF_TRY(write_curve(w, node, x->curve, err));
    return x->mask != NULL ? write_mask(w, node, x->mask->data, err) : WEFT_OK;
}

static weft_status write_images(writer *w, weft_error *err)
{
    const weft_plan *p = w->p;
    wf_node         *list = p->images > 0 ? wf_node_list(&w->d, w->d.root, "image_prompts") : NULL;

    for (int32_t i = 0; i < p->images; i++)
        WF_TRY(write_image(w, wf_node_object(&w->d, list, NULL), &p->image[i], err));
    return WEFT_OK;
}

static weft_status write_phases(writer *w, weft_error *err)
{
    wf_node *list = wf_node_list(&w->d, w->d.root, "phases");

    for (size_t i = 0; i < w->p->phases; i++) {
        const wf_phase    *phase = &w->p->phase[i];
        wf_node           *node = wf_node_object(&w->d, list, NULL);
        weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;

        o.first = phase->at < 0 ? phase->first : 0;
        o.at = phase->at < 0 ? -1 : phase->at;
        WF_TRY(write_fields(w, node, &wf_phase_fields, &o, err));
        wf_node_text(&w->d, node, "method", phase->method->name);
        if (phase->method->fields != NULL && phase->options != NULL)
            WF_TRY(write_fields(w, node, phase->method->fields, phase->options->data, err));
    }
    return WEFT_OK;
}

static void write_model(writer *w)
{
    const weft_model *m = w->p->model;
    const char       *path = wf_model_path(m), *last;
    wf_node          *node = wf_node_object(&w->d, w->d.root, "model");
    wf_sha256_text    hash;
    char              name[256], clean[sizeof name];
    size_t            n = strlen(path);

    while (n > 1 && path[n - 1] == '/') n--;
    for (last = path + n; last > path && last[-1] != '/'; ) last--;
    wf_format(name, sizeof name, "%.*s", (int)WF_MIN(path + n - last, 255), last);
    wf_wash(clean, sizeof clean, name);
    wf_model_fingerprint(m, &hash);
    if (!w->hashed) wf_node_text(&w->d, node, "name", clean);
    if (!w->hashed) wf_node_text(&w->d, node, "base", wf_base_name(wf_model_base(m)));
    wf_node_text(&w->d, node, "fingerprint", hash.text);
}

static weft_status write_notes(writer *w, weft_error *err)
{
    wf_node *node = NULL;
    wf_note  note;

    for (size_t i = 0; !w->hashed && wf_plan_note_at(w->p, i, &note); i++) {
        if (node == NULL) node = wf_node_object(&w->d, w->d.root, "notes");
        if (note.file.path == NULL) {
            wf_node_text(&w->d, node, note.name, note.value);
            continue;
        }
        wf_node *file = wf_node_object(&w->d, node, note.name);
        write_path(w, file, "file", &note.file);
        WF_TRY(write_hash(w, file, "sha256", &note.file, err));
    }
    return WEFT_OK;
}

static weft_status write_plan(writer *w, weft_error *err)
{
    const weft_plan  *p = w->p;
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;

    wf_node_int(&w->d, w->d.root, "weft_plan", WF_PLAN_FORMAT);
    WF_TRY(write_notes(w, err));
    write_model(w);
    o.path = p->path;
    o.text = p->text;
    o.mixed = p->mixed;
    WF_TRY(write_fields(w, w->d.root, &wf_plan_fields, &o, err));
    WF_TRY(write_concepts(w, err));
    WF_TRY(write_adapters(w, err));
    WF_TRY(write_regions(w, err));
    WF_TRY(write_images(w, err));
    if (p->balance != NULL)
        WF_TRY(write_fields(w, wf_node_object(&w->d, w->d.root, "balance"), &wf_balance_fields,
                            p->balance->data, err));
    if (p->align != NULL)
        WF_TRY(write_fields(w, wf_node_object(&w->d, w->d.root, "align"), &wf_align_fields,
                            p->align->data, err));
    WF_TRY(write_phases(w, err));
    if (p->sealed) wf_node_int(&w->d, w->d.root, "calls", p->table.calls);
    return WEFT_OK;
}

static weft_status say_not_utf8(const writer *w, weft_error *err)
{
    wf_text     place;
    weft_status st;

    wf_text_init(&place, &w->p->alloc);
    wf_node_place(w->d.not_utf8, &place);
    st = place.failed ? wf_nomem(err, place.len, "a line")
                      : wf_fail(err, WEFT_E_UNSUPPORTED,
                                "a plan's text is UTF-8, and what it would say at %s is not",
                                place.s);
    wf_text_free(&place);
    return st;
}

/* The plan's text; `folder` absolute, with a slash at its end, or NULL. */
static weft_status make_text(wf_text *out, const weft_plan *p, const char *folder, bool hashed,
                             weft_error *err)
{
    writer      w = { .p = p, .folder = folder, .hashed = hashed };
    weft_status st;

    wf_doc_init(&w.d, &p->alloc);
    st = w.d.failed ? WEFT_OK : write_plan(&w, err);
    if (st == WEFT_OK && !w.d.failed) {
        if (hashed) wf_doc_canonical(&w.d, out);
        else wf_doc_write(&w.d, out);
    }
    if (st == WEFT_OK && (w.d.failed || out->failed)) st = wf_nomem(err, out->len, "a plan's text");
    if (st == WEFT_OK && w.d.not_utf8 != NULL) st = say_not_utf8(&w, err);
    wf_doc_free(&w.d);
    return st;
}

/* ---- public ---------------------------------------------------------------------------------- */

/* `path` as an absolute one, up to the slash behind its folder; or the whole, a folder, with a
 * slash. */
static weft_status folder_of(char **out, const char *path, bool whole, const weft_allocator *alloc,
                             weft_error *err)
{
    char  *absolute;
    size_t n;

    WF_TRY(wf_path_absolute(&absolute, path, alloc, err));
    n = strlen(absolute);
    while (!whole && n > 0 && absolute[n - 1] != '/') n--;
    *out = wf_alloc(alloc, n + 2);
    if (*out != NULL)
        wf_format(*out, n + 2, "%.*s%s", (int)n, absolute, absolute[n - 1] == '/' ? "" : "/");
    wf_free(alloc, absolute);
    return *out != NULL ? WEFT_OK : wf_nomem(err, n + 2, "a path");
}

weft_status weft_plan_save(const weft_plan *plan, const char *path, weft_error *err)
{
    wf_text     text;
    char       *folder = NULL;
    weft_status st;

    if (plan == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_save: %s is NULL",
                       plan == NULL ? "plan" : "path");
    WF_TRY(folder_of(&folder, path, false, &plan->alloc, err));
    wf_text_init(&text, &plan->alloc);
    st = make_text(&text, plan, folder, false, err);
    if (st == WEFT_OK) st = wf_file_write(path, text.s, text.len, err);
    wf_text_free(&text);
    wf_free(&plan->alloc, folder);
    return st;
}

weft_status weft_plan_to_json(const weft_plan *plan, const char *folder, char *buf, size_t cap,
                              size_t *needed, weft_error *err)
{
    wf_text     text;
    char       *from = NULL;
    weft_status st;

    if (needed != NULL) *needed = 0;
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_to_json: plan is NULL");
    if (buf == NULL && cap != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_to_json: buf is NULL but cap is %zu", cap);
    if (folder != NULL) WF_TRY(folder_of(&from, folder, true, &plan->alloc, err));
    wf_text_init(&text, &plan->alloc);
    st = make_text(&text, plan, from, false, err);
    if (st == WEFT_OK) wf_copy_out(text.s, text.len, buf, cap, needed);
    wf_text_free(&text);
    wf_free(&plan->alloc, from);
    return st;
}

weft_status weft_plan_hash(const weft_plan *plan, char *hash, size_t cap, weft_error *err)
{
    wf_text        text;
    wf_sha256      s;
    wf_sha256_text out;
    weft_status    st;

    if (plan == NULL || hash == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_hash: %s is NULL",
                       plan == NULL ? "plan" : "hash");
    if (cap < sizeof out.text)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_hash: cap is %zu, a hash takes %zu bytes", cap,
                       sizeof out.text);
    wf_text_init(&text, &plan->alloc);
    st = make_text(&text, plan, NULL, true, err);
    if (st == WEFT_OK) {
        wf_sha256_init(&s);
        wf_sha256_add(&s, text.s, text.len);
        wf_sha256_end(&s, &out);
        memcpy(hash, out.text, sizeof out.text);
    }
    wf_text_free(&text);
    return st;
}

weft_concept *weft_plan_concept(const weft_plan *plan, size_t index)
{
    bool          replace;
    weft_concept *c = plan != NULL ? wf_tokens_concept(plan->tokens, index, &replace) : NULL;

    if (c != NULL) wf_concept_ref(c);
    return c;
}
