/* bind.c - an adapter meets a model: which key means which layer, and what is wrong with the rest.
 *
 * Every layer says by which names adapter files may call it (its canonical name, kohya's word in
 * diffusers' and in LDM's numbering, cloneofsimo's number), and each name is looked up among the
 * modules. That way round no name is ever taken apart, which for kohya's words cannot be done, and
 * nothing is stored but the modules' own names.
 *
 * Binding is strict, because an image made without a third of its adapter still looks like an
 * image. Every key of the file gets a row, and the verdict is an error unless all of them match or
 * the caller asked for less. Two modules that name one layer are an error even then: which of them
 * is meant nobody can say. */
#include "adapter/adapter_internal.h"
#include "base/structs.h"

/* What becomes of a module. */
typedef struct bound {
    int64_t layer; /* the first that names it, matched or not; -1: none */
    int32_t state; /* WEFT_KEY_*                                        */
    wf_text reason;
} bound;

struct weft_report {
    weft_allocator alloc;
    weft_model    *model;
    weft_adapter  *adapter;
    bound         *modules; /* [modules of the adapter] */
    wf_slice      *slices;  /* [bound] of modules that matched, in the order of the layers */
    size_t         bound;
    size_t         tally[WEFT_KEY_IGNORED + 1];
    bool           clash; /* two modules name one layer */
    weft_error     line;  /* its text: made where errors' lines are made, so as clean as they are */
};

static const char unknown_key[] = "not a key of a dialect that this version reads";
static const char token_key[] = "a token's embedding: open the file as a concept";

/* ---- names to layers ------------------------------------------------------------------------- */

/* A layer that is asked what it is called. */
typedef struct asked {
    const weft_model *model;
    const wf_layer   *layer;
    int32_t           number; /* cloneofsimo's, or -1 */
} asked;

static bool canonical(const asked *a, char *buf, size_t cap)
{
    return wf_format(buf, cap, "%s", a->layer->name) && wf_name_text_model(buf, cap);
}

static bool kohya(const asked *a, char *buf, size_t cap)
{
    return wf_name_kohya(a->model, a->layer, buf, cap);
}

static bool kohya_ldm(const asked *a, char *buf, size_t cap)
{
    return wf_name_kohya_ldm(a->model, a->layer, buf, cap);
}

/* SDXL's word for the first text encoder in a model that has only one: no other layer has that
 * word. */
static bool kohya_te1(const asked *a, char *buf, size_t cap)
{
    static const char one[] = "lora_te_", first[] = "lora_te1_";

    if (a->layer->component != WEFT_COMPONENT_TEXT_1 ||
        !wf_name_kohya(a->model, a->layer, buf, cap - 1))
        return false;
    if (strncmp(buf, one, sizeof one - 1) != 0) return false;
    memmove(buf + sizeof first - 1, buf + sizeof one - 1, strlen(buf + sizeof one - 1) + 1);
    memcpy(buf, first, sizeof first - 1);
    return true;
}

static bool numbered(const asked *a, char *buf, size_t cap)
{
    const char *component = a->layer->component == WEFT_COMPONENT_DENOISER
        ? "unet" : "text_encoder";
    return a->number >= 0 && wf_format(buf, cap, "%s:%d", component, a->number);
}

/* Ways in which files call a layer, in this order: into buf, or false if it has no such name. A new
 * way is one row. */
static const struct {
    bool (*name)(const asked *a, char *buf, size_t cap);
    bool ldm; /* in LDM's numbering of the blocks */
} aliases[] = { { canonical, false }, { kohya, false }, { kohya_ldm, true }, { kohya_te1, false },
                { numbered, false } };

/* Two modules name one layer. Which is meant nobody can say, except in SDXL's files that hold every
 * module in LDM's and in diffusers' numbering: there readers take the latter. */
static void note_clash(weft_report *r, int64_t at, int64_t owner, bool ldm)
{
    bound      *b = &r->modules[at];
    wf_key_text k;

    (void)wf_key_show(&k, r->adapter->modules[owner].key);
    if (ldm && wf_model_base(r->model) == WEFT_BASE_SDXL) {
        b->state = WEFT_KEY_IGNORED;
        wf_text_add(&b->reason,
                    "its layer is named by %s too, in diffusers' numbering, and that one is taken",
                    k.text);
        return;
    }
    r->clash = true;
    b->state = WEFT_KEY_UNMATCHED;
    wf_text_add(&b->reason, "its layer is named by %s already", k.text);
}

/* cloneofsimo's numbers of the layers, if the adapter has modules that are called so; else
 * NULL. */
static weft_status number_layers(const weft_report *r, const wf_layer *layers, size_t count,
                                 int32_t **out, weft_error *err)
{
    bool wanted = false;

    *out = NULL;
    for (size_t i = 0; i < r->adapter->count && !wanted; i++)
        wanted = strchr(r->adapter->modules[i].name, ':') != NULL;
    if (!wanted) return WEFT_OK;
    if ((*out = wf_zalloc(&r->alloc, count, sizeof **out)) == NULL)
        return wf_nomem(err, count * sizeof **out, "the layers' numbers");
    wf_name_numbers(layers, count, *out);
    return WEFT_OK;
}

/* Ask a layer for its names; the first that is a module's makes it the layer's. */
static void find_modules(weft_report *r, const wf_map *by_name, const wf_layer *layer,
                         int32_t number)
{
    const asked a = { r->model, layer, number };
    int64_t     owner = -1;
    bool        owner_kohya = false;
    char        alias[WF_NAME_CAP];

    for (size_t n = 0; n < WF_LEN(aliases); n++) {
        if (!aliases[n].name(&a, alias, sizeof alias)) continue;
        int64_t at = wf_map_get(by_name, alias);
        if (at < 0 || at == owner) continue;
        if (r->modules[at].layer < 0) r->modules[at].layer = layer->id;
        if (owner >= 0) {
            note_clash(r, at, owner, aliases[n].ldm && owner_kohya);
            continue;
        }
        owner = at;
        owner_kohya = aliases[n].name == kohya;
        r->slices[r->bound++] = (wf_slice){ .module = (int32_t)at, .layer = layer->id,
                                                .rows = layer->out, .of = layer->out };
    }
}

static weft_status find_layers(weft_report *r, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(r->model, &count);
    wf_map          by_name = { 0 };
    int32_t        *number = NULL;
    weft_status     st = wf_map_init(&by_name, &r->alloc, r->adapter->count, err);

    for (size_t i = 0; i < r->adapter->count && st == WEFT_OK; i++)
        st = wf_map_put(&by_name, r->adapter->modules[i].name, (int64_t)i, &(bool){ false }, err);
    if (st == WEFT_OK) st = number_layers(r, layers, count, &number, err);
    for (size_t l = 0; l < count && st == WEFT_OK; l++)
        find_modules(r, &by_name, &layers[l], number != NULL ? number[l] : -1);
    wf_free(&r->alloc, number);
    wf_map_free(&by_name);
    return st;
}

/* ---- what becomes of a module ---------------------------------------------------------------- */

static bool has_component(const weft_model *m, int32_t component)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = 0; i < count; i++)
        if (layers[i].component == component) return true;
    return false;
}

static void explain_unmatched(weft_report *r, const wf_module *m, wf_text *reason)
{
    int32_t component = wf_name_component(m->name);

    if (strstr(m->name, "token_embedding") != NULL || strstr(m->name, "position_embedding") != NULL)
        wf_text_add(reason, "this version applies nothing to embedding tables");
    else if (component == WEFT_COMPONENT_TEXT_2 && !has_component(r->model, component))
        wf_text_add(reason, "the model has no second text encoder");
    else if (component == WEFT_COMPONENT_TEXT_1 && !has_component(r->model, component))
        wf_text_add(reason, "the model has no text encoder");
    else if (component == WEFT_COMPONENT_TEXT_1 && strncmp(m->name, "lora_te_", 8) == 0 &&
             has_component(r->model, WEFT_COMPONENT_TEXT_2))
        wf_text_add(reason, "the model has two text encoders, lora_te1_ and lora_te2_");
    else
        wf_text_add(reason, "the model has no such layer");
}

static const char *show_shape(wf_shape_text *buf, int32_t out, int32_t in, int32_t kernel)
{
    const int64_t shape[] = { out, in, kernel, kernel };
    return wf_shape(buf, shape, kernel > 1 ? 4 : 2);
}

/* A module that is no pair of factors may only know its layer's inputs or its outputs, and its bias
 * or magnitude may be what is wrong. */
static void explain_shape(const wf_module *m, const wf_layer *l, wf_text *reason)
{
    const wf_tensor *g = m->tensor[WF_TENSOR_MAGNITUDE], *bias = m->tensor[WF_TENSOR_DIFF_B];
    wf_shape_text    have, want;

    (void)show_shape(&want, l->out, l->in, l->kernel);
    if (bias == NULL) bias = m->tensor[WF_TENSOR_REPLACE_B];
    if (bias != NULL && bias->count != (size_t)l->out)
        wf_text_add(reason, "its bias has %zu values, the layer %d outputs", bias->count, l->out);
    else if ((l->kind == WEFT_LAYER_NORM) != m->norm &&
             !(l->kind == WEFT_LAYER_NORM && m->in == 0 && bias != NULL))
        wf_text_add(reason, "%s does not apply to a %s", m->family->title,
                    l->kind == WEFT_LAYER_NORM
                        ? "normalisation" : "layer that is no normalisation");
    else if (g != NULL && !wf_dora_fits(m, l))
        wf_text_add(reason, "its magnitude has %zu values, the layer is %s", g->count, want.text);
    else if (l->kind == WEFT_LAYER_NORM)
        wf_text_add(reason, "it has %d channels, the layer %d", m->out, l->out);
    else if (m->family->misfit != NULL && (m->out == 0 || m->out == l->out) &&
             (m->in == 0 || m->in == l->in))
        wf_text_add(reason, "%s %s", m->family->misfit, want.text);
    else if (m->out > 0 && m->in > 0)
        wf_text_add(reason, "its product is %s, the layer %s",
                    show_shape(&have, m->out, m->in, m->kernel), want.text);
    else if (m->out > 0 || m->in > 0)
        wf_text_add(reason, "it is for %d %s, the layer is %s", WF_MAX(m->out, m->in),
                    m->out > 0 ? "outputs" : "inputs", want.text);
    else
        wf_text_add(reason, "its blocks do not divide the inputs of the layer, which is %s",
                    want.text);
}

/* A module matches if no clash has settled it, and if it fits wherever it is bound. */
static void settle_modules(weft_report *r)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(r->model, &count);

    for (size_t i = 0; i < r->adapter->count; i++) {
        bound *b = &r->modules[i];
        if (b->state != 0) continue;
        b->state = b->layer < 0 ? WEFT_KEY_UNMATCHED : WEFT_KEY_MATCHED;
        if (b->layer < 0) explain_unmatched(r, &r->adapter->modules[i], &b->reason);
    }
    for (size_t k = 0; k < r->bound; k++) {
        bound           *b = &r->modules[r->slices[k].module];
        const wf_module *m = &r->adapter->modules[r->slices[k].module];
        const wf_layer  *l = &layers[r->slices[k].layer];
        if (b->state != WEFT_KEY_MATCHED || wf_slice_fits(&r->slices[k], m, l)) continue;
        b->state = WEFT_KEY_SHAPE_MISMATCH;
        explain_shape(m, l, &b->reason);
    }
}

/* Slices of modules that did not match go. */
static void keep_matched(weft_report *r)
{
    size_t kept = 0;

    for (size_t k = 0; k < r->bound; k++)
        if (r->modules[r->slices[k].module].state == WEFT_KEY_MATCHED)
            r->slices[kept++] = r->slices[k];
    r->bound = kept;
}

/* ---- the line -------------------------------------------------------------------------------- */

/* The module whose fate a key shares: its own; of a key that many have, one that matched if
 * any. */
static int32_t module_of(const weft_report *r, size_t index)
{
    const weft_adapter *a = r->adapter;
    const wf_tensor    *t = wf_tensors_at(a->tensors, index);
    int32_t             found = -1;

    if (a->key_module[index] != WF_KEY_SHARED) return a->key_module[index];
    for (size_t m = 0; m < a->count; m++)
        for (int32_t p = 0; p < WF_TENSORS && a->modules[m].shared != 0; p++) {
            if (a->modules[m].tensor[p] != t) continue;
            if (r->modules[m].state == WEFT_KEY_MATCHED) return (int32_t)m;
            if (found < 0) found = (int32_t)m;
        }
    return found;
}

static void fill_row(const weft_report *r, size_t index, weft_report_row *row)
{
    int32_t at = module_of(r, index);
    size_t  count;

    row->key = wf_tensors_at(r->adapter->tensors, index)->name;
    row->layer = row->reason = "";
    row->layer_id = -1;
    row->state = WEFT_KEY_UNMATCHED;
    if (at < 0) {
        row->reason = at == WF_KEY_TOKEN ? token_key : unknown_key;
        if (at == WF_KEY_TOKEN) row->state = WEFT_KEY_IGNORED;
        return;
    }
    const bound *b = &r->modules[at];
    row->state = b->state;
    row->layer_id = b->layer;
    if (b->layer >= 0) row->layer = wf_model_layers(r->model, &count)[b->layer].name;
    if (b->reason.s != NULL) row->reason = b->reason.s;
}

static void write_line(weft_report *r)
{
    size_t          keys = wf_tensors_count(r->adapter->tensors), matched = 0;
    size_t          good = r->tally[WEFT_KEY_MATCHED] + r->tally[WEFT_KEY_IGNORED];
    int32_t         theirs = wf_adapter_base(r->adapter), ours = wf_model_base(r->model);
    weft_report_row row = WEFT_REPORT_ROW_INIT;
    wf_key_text     k;

    for (size_t i = 0; i < r->adapter->count; i++)
        matched += r->modules[i].state == WEFT_KEY_MATCHED;
    if (good == keys) {
        (void)wf_fail(&r->line, WEFT_OK, "%zu of %zu keys matched (%zu module%s)", good, keys,
                      matched, matched == 1 ? "" : "s");
        return;
    }
    for (size_t i = 0; i < keys; i++) {
        fill_row(r, i, &row);
        if (row.state == WEFT_KEY_UNMATCHED || row.state == WEFT_KEY_SHAPE_MISMATCH) break;
    }
    (void)wf_key_show(&k, row.key);
    if (theirs != ours && theirs != WEFT_BASE_UNKNOWN && ours != WEFT_BASE_UNKNOWN)
        (void)wf_fail(&r->line, WEFT_OK, "adapter is for %s, model is %s; first mismatch %s: %s",
                      wf_base_name(theirs), wf_base_name(ours), k.text, row.reason);
    else if (r->clash)
        (void)wf_fail(&r->line, WEFT_OK, "two modules name one layer: %s: %s", k.text, row.reason);
    else
        (void)wf_fail(&r->line, WEFT_OK, "%zu of %zu keys matched; first mismatch %s: %s", good,
                      keys, k.text, row.reason);
}

/* ---- the report ------------------------------------------------------------------------------ */

static weft_status fill_report(weft_report *r, weft_error *err)
{
    size_t          keys = wf_tensors_count(r->adapter->tensors);
    bool            failed = false;
    weft_report_row row = WEFT_REPORT_ROW_INIT;
    weft_status     st = find_layers(r, err);

    if (st != WEFT_OK) return st;
    settle_modules(r);
    keep_matched(r);
    for (size_t i = 0; i < keys; i++) {
        fill_row(r, i, &row);
        r->tally[row.state]++;
    }
    write_line(r);
    for (size_t i = 0; i < r->adapter->count; i++) failed |= r->modules[i].reason.failed;
    return failed ? wf_nomem(err, keys, "a report") : WEFT_OK;
}

weft_status weft_report_create(weft_model *model, weft_adapter *adapter, weft_report **out,
                               weft_error *err)
{
    weft_report *r;
    size_t       layers;
    weft_status  st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (model == NULL || adapter == NULL)
        return wf_fail(err, WEFT_E_ARG, "model or adapter is NULL");

    if ((r = wf_zalloc(&adapter->alloc, 1, sizeof *r)) == NULL)
        return wf_nomem(err, sizeof *r, "a report");
    r->alloc = adapter->alloc;
    r->model = model;
    r->adapter = adapter;
    wf_model_ref(r->model);
    wf_adapter_ref(r->adapter);

    r->modules = wf_zalloc(&r->alloc, adapter->count, sizeof *r->modules);
    (void)wf_model_layers(model, &layers);
    r->slices = wf_zalloc(&r->alloc, layers, sizeof *r->slices); /* a layer has one module */
    if (r->modules == NULL || r->slices == NULL) {
        st = wf_nomem(err, adapter->count * sizeof *r->modules + layers * sizeof *r->slices,
                      "a report");
        goto done;
    }
    for (size_t i = 0; i < adapter->count; i++) {
        r->modules[i].layer = -1;
        wf_text_init(&r->modules[i].reason, &r->alloc);
    }
    if ((st = fill_report(r, err)) != WEFT_OK) goto done;

    *out = r;
    r = NULL;
done:
    weft_report_free(r);
    return st;
}

void weft_report_free(weft_report *r)
{
    if (r == NULL) return;
    weft_allocator alloc = r->alloc;
    for (size_t i = 0; r->modules != NULL && i < r->adapter->count; i++)
        wf_text_free(&r->modules[i].reason);
    wf_free(&alloc, r->modules);
    wf_free(&alloc, r->slices);
    weft_model_free(r->model);
    weft_adapter_free(r->adapter);
    wf_free(&alloc, r);
}

size_t weft_report_count(const weft_report *r)
{
    return r == NULL ? 0 : wf_tensors_count(r->adapter->tensors);
}

weft_status weft_report_get(const weft_report *r, size_t index, weft_report_row *row,
                            weft_error *err)
{
    weft_report_row full = WEFT_REPORT_ROW_INIT;

    if (r == NULL || row == NULL) return wf_fail(err, WEFT_E_ARG, "report or row is NULL");
    if (index >= weft_report_count(r))
        return wf_fail(err, WEFT_E_ARG, "row %zu of %zu", index, weft_report_count(r));
    fill_row(r, index, &full);
    return WF_RESULT(row, &full, weft_report_row, err);
}

size_t weft_report_tally(const weft_report *r, int32_t state)
{
    return r == NULL || state < WEFT_KEY_MATCHED || state > WEFT_KEY_IGNORED ? 0 : r->tally[state];
}

const char *weft_report_line(const weft_report *r)
{
    return r == NULL ? "" : r->line.text;
}

const wf_slice *wf_report_slices(const weft_report *r, size_t *count)
{
    *count = r->bound;
    return r->slices;
}

weft_status wf_report_verdict(const weft_report *r, bool allow_partial, weft_error *err)
{
    size_t wrong = r->tally[WEFT_KEY_UNMATCHED] + r->tally[WEFT_KEY_SHAPE_MISMATCH];

    if (r->tally[WEFT_KEY_MATCHED] > 0 && !r->clash && (wrong == 0 || allow_partial))
        return WEFT_OK;
    return wf_fail(err, WEFT_E_MISMATCH, "%s: %s", r->adapter->name, r->line.text);
}
