/* save.c - an adapter written in another dialect, for a model whose layers give the names.
 *
 * Factors go out as they lie in the file, bit for bit; what changes is how they are called, where
 * alpha stands, and whether a 1x1 convolution's factors have two dimensions or four. Endings are
 * looked up in the same tables that reading uses, so that what is written is read. A few things
 * have no word in a dialect and are brought to one that it has:
 *
 *   a mixer, and outside PEFT AdaLoRA's weights, are multiplied into the inner factor, as for
 *     computing (lowrank.c); so is a Tucker core outside kohya's dialect
 *   a compressed difference u v is a low-rank pair with alpha = rank
 *   a bias of the up factor is in kohya's dialect a difference of the layer's, scaled
 *   a scale that no alpha of the file gave (rsLoRA, AdaLoRA) becomes the alpha that gives it, to
 *     the last bit if there is one
 *
 * Everything else that a dialect cannot say is refused: another family's tensors under a name that
 * means something else would give wrong images silently. */
#include <errno.h>
#include <math.h>
#include <sys/stat.h>

#include "adapter/save.h"
#include "base/structs.h"

static weft_status save_kohya(wf_saver *s, const char *path);
static weft_status save_diffusers(wf_saver *s, const char *path);
static weft_status save_peft(wf_saver *s, const char *path);

/* What can be written, by WEFT_DIALECT_*: the endings are those of a dialect that is read. */
static const struct {
    const char       *name;
    const wf_dialect *dialect;
    weft_status     (*save)(wf_saver *s, const char *path);
} targets[] = {
    [WEFT_DIALECT_KOHYA]     = { "kohya", &wf_dialect_kohya, save_kohya },
    [WEFT_DIALECT_DIFFUSERS] = { "diffusers", &wf_dialect_diffusers, save_diffusers },
    [WEFT_DIALECT_PEFT]      = { "PEFT", &wf_dialect_peft, save_peft },
};

/* ---- which dialect has which family ---------------------------------------------------------- */

static bool has(const wf_module *m, int32_t tensor)
{
    return m->tensor[tensor] != NULL;
}

/* Why this dialect has no form for the module, or NULL if it has one. */
static const char *no_form(const wf_module *m, const wf_layer *l, int32_t dialect)
{
    const wf_family *f = m->family;
    bool             dora = has(m, WF_TENSOR_MAGNITUDE), lora = f->peft_types != NULL &&
                     f->peft_types[0].lora;

    if (has(m, WF_TENSOR_REPLACE_B) && (f->any & WF_BIT(WF_TENSOR_REPLACE_B)) == 0)
        return "with a bias in its place";
    if (dialect != WEFT_DIALECT_KOHYA && has(m, WF_TENSOR_DIFF_B))
        return "with a difference of the bias";
    if (dialect != WEFT_DIALECT_KOHYA && dora && !(lora && wf_dora_rows(m, l)))
        return "with a magnitude of columns, or beside what is no LoRA";
    if ((f->dialects & (uint32_t)1 << dialect) == 0)
        return f->elsewhere != NULL ? f->elsewhere : "";
    return f->cannot_write != NULL ? f->cannot_write(m, dialect) : NULL;
}

/* "<adapter>: <key> would hold ...": a number that its type has not is none to whoever reads it. */
static weft_status check_held(const wf_saver *s, const char *key, wf_dtype type, const float *v,
                              size_t n)
{
    size_t         at = wf_narrow_fails(type, v, n);
    wf_key_text    k;
    wf_number_text found;

    if (at == n) return WEFT_OK;
    if (!isfinite(v[at]))
        return wf_fail(s->err, WEFT_E_UNSUPPORTED,
                       "%s: %s would hold %s: its scale is beyond reason", s->a->name,
                       wf_key_show(&k, key), isnan(v[at]) ? "NaN" : "infinity");
    return wf_fail(s->err, WEFT_E_UNSUPPORTED,
                   "%s: %s holds %s, which %s does not: as %s it can be written, without "
                   "WEFT_SAVE_HALF",
                   s->a->name, wf_key_show(&k, key), wf_number(&found, v[at]), wf_dtype_name(type),
                   wf_dtype_for(v[at]));
}

static weft_status check_forms(const wf_saver *s)
{
    for (size_t i = 0; i < s->a->count; i++) {
        const wf_module *m = &s->a->modules[i];
        wf_key_text      k;
        if (s->layers[i] < 0)
            return wf_fail(s->err, WEFT_E_MISMATCH, "%s: %s has no layer in the model", s->a->name,
                           wf_key_show(&k, m->key));
        const char *why = no_form(m, wf_saver_layer(s, i), s->dialect);
        const float alpha = wf_alpha_for(m, m->rank);
        WF_TRY(check_held(s, m->key, WF_F32, &alpha, 1));
        if (why == NULL) continue;
        return wf_fail(s->err, WEFT_E_UNSUPPORTED,
                       "%s: %s is %s%s%s, which %s's dialect has no form for", s->a->name,
                       wf_key_show(&k, m->key), m->family->title, *why != '\0' ? ", " : "", why,
                       targets[s->dialect].name);
    }
    return WEFT_OK;
}

/* ---- tensors to be written ------------------------------------------------------------------- */

/* Memory that lives until the file is written. */
static void *keep(wf_saver *s, size_t size)
{
    void *p;

    if (s->kept_count == s->kept_cap) return NULL; /* counted in make_room() */
    if ((p = wf_alloc(&s->alloc, size)) != NULL) s->kept[s->kept_count++] = p;
    return p;
}

/* In F16, refusing what does not fit. */
static weft_status halve(wf_saver *s, wf_tensor *t)
{
    uint16_t *half = keep(s, t->count * sizeof *half);
    float     buf[1024];

    if (half == NULL) return wf_nomem(s->err, t->count * sizeof *half, "factors in F16");
    for (size_t i = 0; i < t->count; i += WF_LEN(buf)) {
        size_t n = WF_MIN(WF_LEN(buf), t->count - i);
        wf_tensor_read(t, i, n, buf);
        WF_TRY(check_held(s, t->name, WF_F16, buf, n));
        (void)wf_narrow(half + i, WF_F16, buf, n);
    }
    t->data = (const uint8_t *)half;
    t->bytes = t->count * sizeof *half;
    t->dtype = WF_F16;
    return WEFT_OK;
}

/* One more tensor: stem + ending. */
static weft_status put(wf_saver *s, const char *stem, const char *ending, wf_tensor t, bool factor)
{
    size_t n = strlen(stem), e = strlen(ending);
    char  *name = keep(s, n + e + 1);

    if (name == NULL) return wf_nomem(s->err, n + e + 1, "a key");
    memcpy(name, stem, n);
    memcpy(name + n, ending, e + 1);
    t.name = name;
    if (factor && s->half && t.dtype != WF_F16) WF_TRY(halve(s, &t));
    s->tensors[s->count++] = t;
    return WEFT_OK;
}

static weft_status put_number(wf_saver *s, const char *stem, const char *ending, float v)
{
    float *data = keep(s, sizeof *data);

    if (data == NULL) return wf_nomem(s->err, sizeof *data, "an alpha");
    *data = v;
    WF_TRY(check_held(s, stem, WF_F32, &v, 1));
    return put(s, stem, ending,
               (wf_tensor){ .data = (const uint8_t *)data, .bytes = sizeof v, .count = 1,
                            .dtype = WF_F32 }, false);
}

/* What the dialect calls a tensor; NULL if it has no word. `bare`: not inside a layer of its
 * own. */
static const char *ending_of(const wf_ending *const tables[2], int32_t tensor, bool bare)
{
    for (size_t t = 0; t < 2 && tables[t] != NULL; t++)
        for (const wf_ending *e = tables[t]; e->text != NULL; e++) {
            size_t n = strlen(e->text);
            bool   inside = n > 7 && strcmp(e->text + n - 7, ".weight") == 0;
            if (e->tensor == tensor && strchr(e->text, '*') == NULL && !(bare && inside))
                return e->text;
        }
    return NULL;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static wf_tensor with_shape(wf_tensor t, int32_t rank, int64_t a, int64_t b, int64_t k)
{
    t.rank = rank;
    t.shape[0] = a;
    t.shape[1] = b;
    t.shape[2] = t.shape[3] = k;
    return t;
}

/* The shape in which the layer's own kind has such a tensor; the values stay in their order. */
static void fit_shape(const wf_saver *s, const wf_module *m, const wf_layer *l, int32_t tensor,
                      wf_tensor *t)
{
    bool conv = l->kind == WEFT_LAYER_CONV;

    if (tensor != WF_TENSOR_MAGNITUDE) {
        if (m->family->shape_for != NULL) m->family->shape_for(m, l, tensor, t);
        return;
    }
    if (!wf_dora_rows(m, l)) return;
    int64_t n = (int64_t)t->count;
    if (s->dialect == WEFT_DIALECT_KOHYA) *t = with_shape(*t, conv ? 4 : 2, n, 1, 1);
    else *t = conv ? with_shape(*t, 4, 1, n, 1) : with_shape(*t, 1, n, 0, 0);
}

/* ---- alpha ----------------------------------------------------------------------------------- */

/* The tensors that are multiplied into the inner factor, as bits. */
static wf_tensor_set folded(const wf_saver *s, const wf_module *m)
{
    return m->family->folded != NULL ? m->family->folded(m, s->dialect) : 0;
}

/* kohya's alpha tensor: as it was stored if that gives the scale by kohya's rule, else the one that
 * does. Families without a scale have none, except OFT, where it is the constraint. */
static weft_status put_alpha(wf_saver *s, const wf_module *m, const char *stem)
{
    int32_t          means = m->family->alpha_means != NULL
        ? m->family->alpha_means(m) : WF_ALPHA_NONE;
    const wf_tensor *stored = m->tensor[WF_TENSOR_ALPHA];
    bool gives = means != WF_ALPHA_SCALE || m->rank == 0 ||
         (float)((double)m->alpha / m->rank) == m->scale;

    if (means == WF_ALPHA_SCALE && m->scale == 0)
        return put_number(s, stem, ".alpha", 1e-30f); /* 0 would be read as the rank */
    if (stored != NULL && gives) return put(s, stem, ".alpha", *stored, false);
    if (means == WF_ALPHA_LIMIT) return put_number(s, stem, ".alpha", m->has_alpha ? m->alpha : 0);
    return means == WF_ALPHA_SCALE ? put_number(s, stem, ".alpha",
                                                wf_alpha_for(m, m->rank)) : WEFT_OK;
}

/* ---- modules --------------------------------------------------------------------------------- */

/* down (r, in, k, k) with it folded in, F32. */
static weft_status fold_down(wf_saver *s, const wf_module *m, const wf_layer *l, wf_tensor *t)
{
    size_t r = (size_t)m->rank, in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel,
           K = in * kk;
    float *down = wf_zalloc(&s->alloc, r * K, sizeof *down),
          *stored = keep(s, r * K * sizeof *stored);
    weft_status st = WEFT_OK;

    if (down == NULL || stored == NULL) st = wf_nomem(s->err, 2 * r * K * sizeof *down, "a factor");
    if (st == WEFT_OK) st = wf_module_pair(m, l, down, NULL, &s->alloc, s->err);
    for (size_t i = 0; st == WEFT_OK && i < r * K; i++)
        stored[i / K * K + i % K % in * kk + i % K / in] = down[i];
    if (st == WEFT_OK) st = check_held(s, m->key, WF_F32, stored, r * K);
    wf_free(&s->alloc, down);
    *t = (wf_tensor){ .data = (const uint8_t *)stored, .bytes = r * K * sizeof *stored,
                      .count = r * K, .dtype = WF_F32 };
    *t = l->kind == WEFT_LAYER_CONV ? with_shape(*t, 4, m->rank, l->in, l->kernel)
                                    : with_shape(*t, 2, m->rank, (int64_t)K, 0);
    return st;
}

/* kohya's dialect has no bias of a factor, but it has differences of the layer's. */
static weft_status put_up_bias(wf_saver *s, const wf_module *m, const char *stem)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_UP_BIAS];
    float           *v = keep(s, t->count * sizeof *v);

    if (v == NULL) return wf_nomem(s->err, t->count * sizeof *v, "a bias");
    wf_tensor_read(t, 0, t->count, v);
    for (size_t i = 0; i < t->count; i++) v[i] = (float)((double)m->scale * v[i]);
    WF_TRY(check_held(s, m->key, WF_F32, v, t->count));
    return put(s, stem, ".diff_b",
               (wf_tensor){ .data = (const uint8_t *)v, .bytes = t->count * sizeof *v,
                            .count = t->count, .shape = { t->shape[0] }, .rank = 1,
                            .dtype = WF_F32 }, true);
}

static int32_t written_as(const wf_module *m, int32_t tensor)
{
    return m->family->written_as != NULL ? m->family->written_as(m, tensor) : tensor;
}

/* A tensor under the name that the dialect has for it. */
static weft_status put_tensor(wf_saver *s, size_t module, int32_t tensor, const char *stem)
{
    const wf_module    *m = &s->a->modules[module];
    const wf_layer     *l = wf_saver_layer(s, module);
    const wf_peft_type *type = s->dialect != WEFT_DIALECT_KOHYA ? wf_saver_peft_type(s, m) : NULL;
    wf_tensor           t = *m->tensor[tensor];
    int32_t             word = written_as(m, tensor);
    wf_tensor_set       fold = folded(s, m);
    bool                bare = type != NULL && type->bare;
    const char         *ending;

    if (tensor == WF_TENSOR_ALPHA || word == WF_TENSOR_NONE || (fold & WF_BIT(tensor)) != 0)
        return WEFT_OK;
    if (tensor == WF_TENSOR_UP_BIAS && s->dialect == WEFT_DIALECT_KOHYA)
        return put_up_bias(s, m, stem);
    if (tensor == WF_TENSOR_DOWN && fold != 0) WF_TRY(fold_down(s, m, l, &t));
    else if (!bare) fit_shape(s, m, l, tensor, &t);
    if (tensor == WF_TENSOR_MAGNITUDE && s->dialect != WEFT_DIALECT_KOHYA)
        bare = true; /* PEFT has no .weight there */
    if ((ending = ending_of(s->endings, word, bare)) == NULL)
        return wf_fail(s->err, WEFT_E_INTERNAL, "no ending for %s", wf_tensor_role(tensor));
    return put(s, stem, ending, t, wf_tensor_is_factor(tensor));
}

static weft_status put_module(wf_saver *s, size_t module, const char *stem)
{
    const wf_module *m = &s->a->modules[module];

    if (wf_saver_skips(s, m)) return WEFT_OK;
    for (int32_t p = 1; p < WF_TENSORS; p++)
        if (m->tensor[p] != NULL && (m->shared & WF_BIT(p)) == 0)
            WF_TRY(put_tensor(s, module, p, stem));
    return s->dialect == WEFT_DIALECT_KOHYA ? put_alpha(s, m, stem) : WEFT_OK;
}

/* What the modules of a component have together: only PEFT has such families. */
static weft_status put_shared(wf_saver *s, int32_t component)
{
    wf_tensor_set done = 0;

    for (size_t i = 0; i < s->a->count; i++) {
        const wf_module *m = &s->a->modules[i];
        if (wf_saver_layer(s, i)->component != component) continue;
        for (int32_t p = 1; p < WF_TENSORS; p++) {
            if ((m->shared & ~done & WF_BIT(p)) == 0) continue;
            WF_TRY(put_tensor(s, i, p, "base_model"));
            done |= WF_BIT(p);
        }
    }
    return WEFT_OK;
}

/* ---- the three dialects ---------------------------------------------------------------------- */

/* Does the key say alpha of a module? What is written has it in a tensor. */
static bool says_alpha(const wf_saver *s, const char *key)
{
    for (size_t i = 0; i < s->a->count; i++)
        if (s->a->modules[i].alpha_source == WEFT_ALPHA_METADATA &&
            strcmp(s->a->modules[i].alpha_key, key) == 0)
            return true;
    return false;
}

/* The metadata of the file itself that begins with a prefix, except what described its own
 * dialect. */
static size_t copy_metadata(const wf_saver *s, const char *prefix, const char **pairs)
{
    size_t n = 0;

    for (size_t i = 0; i < wf_tensors_meta_count(s->a->tensors); i++) {
        const char *key = wf_tensors_meta_key(s->a->tensors, i);
        if (strncmp(key, prefix, strlen(prefix)) != 0) continue;
        if (strcmp(key, "lora_adapter_metadata") == 0 || strcmp(key, "format") == 0) continue;
        if (says_alpha(s, key)) continue;
        pairs[2 * n] = key;
        pairs[2 * n++ + 1] = wf_tensors_meta_value(s->a->tensors, i);
    }
    return n;
}

static weft_status save_kohya(wf_saver *s, const char *path)
{
    char         stem[WF_NAME_CAP];
    const char **pairs = wf_zalloc(&s->alloc, 2 * wf_tensors_meta_count(s->a->tensors) + 1,
                                   sizeof *pairs);
    weft_status  st = WEFT_OK;

    if (pairs == NULL) return wf_nomem(s->err, sizeof *pairs, "metadata");
    for (size_t i = 0; i < s->a->count && st == WEFT_OK; i++) {
        const wf_layer *l = wf_saver_layer(s, i);
        if (!wf_name_kohya(s->model, l, stem, sizeof stem))
            st = wf_fail(s->err, WEFT_E_UNSUPPORTED, "%s: %s has no name in kohya's dialect",
                         s->a->name, l->name);
        else
            st = put_module(s, i, stem);
    }
    if (st == WEFT_OK)
        st = wf_tensors_write_as_stored(path, s->tensors, s->count, pairs,
                                        copy_metadata(s, "", pairs), &s->alloc, s->err);
    wf_free(&s->alloc, pairs);
    return st;
}

static weft_status save_diffusers(wf_saver *s, const char *path)
{
    wf_text     config;
    weft_status st = WEFT_OK;

    wf_text_init(&config, &s->alloc);
    wf_text_bytes(&config, "{", 1);
    for (int32_t c = 0; wf_component_prefix(c) != NULL && st == WEFT_OK; c++)
        if (wf_saver_holds(s, c)) st = wf_saver_config(s, c, wf_component_prefix(c), &config);
    wf_text_bytes(&config, "}", 1);
    for (size_t i = 0; i < s->a->count && st == WEFT_OK; i++)
        st = put_module(s, i, wf_saver_layer(s, i)->name);
    if (st == WEFT_OK && config.failed) st = wf_nomem(s->err, config.len, "metadata");
    if (st == WEFT_OK) {
        size_t       own = wf_tensors_meta_count(s->a->tensors), n = 2;
        const char **pairs = wf_zalloc(&s->alloc, 2 * (own + 2), sizeof *pairs);
        if (pairs != NULL) {
            const char *const said[] = { "format", "pt", "lora_adapter_metadata", config.s };
            memcpy(pairs, said, sizeof said);
            n += copy_metadata(s, "weft.", pairs + 4);
            st = wf_tensors_write_as_stored(path, s->tensors, s->count, pairs, n, &s->alloc,
                                            s->err);
        } else {
            st = wf_nomem(s->err, 2 * (own + 2) * sizeof *pairs, "metadata");
        }
        wf_free(&s->alloc, pairs);
    }
    wf_text_free(&config);
    return st;
}

static weft_status make_folder(const char *path, weft_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && wf_path_is_dir(path))) return WEFT_OK;
    return wf_fail_sys(err, errno, "%s cannot be made", path);
}

/* One component's folder: the configuration first, so that a file of tensors is never without
 * it. */
static weft_status save_component(wf_saver *s, int32_t component, const char *folder)
{
    static const char wrapper[] = WF_PEFT_WRAPPER;
    char              stem[WF_NAME_CAP + sizeof wrapper];
    const char       *pairs[] = { "format", "pt" };
    char             *json = wf_path_join(&s->alloc, folder, "adapter_config.json");
    char             *file = wf_path_join(&s->alloc, folder, "adapter_model.safetensors");
    wf_text           config;
    weft_status       st = WEFT_OK;

    wf_text_init(&config, &s->alloc);
    if (json == NULL || file == NULL) st = wf_nomem(s->err, strlen(folder), "a path");
    wf_text_bytes(&config, "{", 1);
    if (st == WEFT_OK) st = wf_saver_config(s, component, "", &config);
    wf_text_bytes(&config, "\n}\n", 3);
    if (st == WEFT_OK && config.failed) st = wf_nomem(s->err, config.len, "a configuration");
    s->count = 0;
    for (size_t i = 0; i < s->a->count && st == WEFT_OK; i++) {
        const wf_layer *l = wf_saver_layer(s, i);
        if (l->component != component) continue;
        if (!wf_format(stem, sizeof stem, "%s%s", wrapper, wf_saver_path(l)))
            st = wf_fail(s->err, WEFT_E_UNSUPPORTED, "%s: the name of %s is too long", s->a->name,
                         l->name);
        else
            st = put_module(s, i, stem);
    }
    if (st == WEFT_OK) st = put_shared(s, component);
    if (st == WEFT_OK) st = make_folder(folder, s->err);
    if (st == WEFT_OK) st = wf_file_write(json, config.s, config.len, s->err);
    if (st == WEFT_OK)
        st = wf_tensors_write_as_stored(file, s->tensors, s->count, pairs, 1, &s->alloc, s->err);
    wf_text_free(&config);
    wf_free(&s->alloc, file);
    wf_free(&s->alloc, json);
    return st;
}

static weft_status save_peft(wf_saver *s, const char *path)
{
    static const char *const names[] = { "unet", "text_encoder", "text_encoder_2" };
    weft_status              st = make_folder(path, s->err);

    for (int32_t c = 0; c < 3 && st == WEFT_OK; c++) {
        if (!wf_saver_holds(s, c)) continue;
        char *folder = wf_path_join(&s->alloc, path, names[c]);
        st = folder != NULL ? save_component(s, c, folder) : wf_nomem(s->err, strlen(path),
                                                                      "a path");
        wf_free(&s->alloc, folder);
    }
    return st;
}

/* ---- the call -------------------------------------------------------------------------------- */

/* The layer that each module is written for. */
static weft_status take_layers(wf_saver *s, const weft_report *report)
{
    size_t            count, layer_count;
    const wf_slice *slices = wf_report_slices(report, &count);
    const wf_layer   *layers = wf_model_layers(s->model, &layer_count);

    if ((s->layers = wf_zalloc(&s->alloc, s->a->count, sizeof *s->layers)) == NULL)
        return wf_nomem(s->err, s->a->count * sizeof *s->layers, "modules to be written");
    for (size_t i = 0; i < s->a->count; i++) s->layers[i] = -1;
    for (size_t i = 0; i < count; i++)
        if (wf_slice_whole(&slices[i], &layers[slices[i].layer]))
            s->layers[slices[i].module] = slices[i].layer;
    return WEFT_OK;
}

/* Tensors and what they need of memory: of each part a name, perhaps other values; an alpha, and
 * its name. */
static weft_status make_room(wf_saver *s)
{
    size_t tensors = 0;

    for (size_t i = 0; i < s->a->count; i++) {
        wf_tensor_set left = wf_module_tensors(&s->a->modules[i]);
        for (tensors += 1; left != 0; left &= left - 1) tensors++;
    }
    s->kept_cap = 3 * tensors;
    s->tensors = wf_zalloc(&s->alloc, tensors, sizeof *s->tensors);
    s->kept = wf_zalloc(&s->alloc, s->kept_cap, sizeof *s->kept);
    if (s->tensors != NULL && s->kept != NULL) return WEFT_OK;
    return wf_nomem(s->err, tensors * sizeof *s->tensors, "tensors to be written");
}

weft_status weft_adapter_save(weft_adapter *adapter, weft_model *model, const char *path,
                              const weft_save_options *options, weft_error *err)
{
    weft_save_options o;
    weft_report      *report = NULL;
    wf_saver          s = { .a = adapter, .model = model, .err = err };
    weft_status       st;

    if (adapter == NULL || model == NULL)
        return wf_fail(err, WEFT_E_ARG, "adapter or model is NULL");
    if (path == NULL || *path == '\0') return wf_fail(err, WEFT_E_ARG, "path is NULL or empty");
    WF_TRY(WF_OPTIONS(&o, options, weft_save_options, WEFT_SAVE_HALF, err));
    s.dialect = o.dialect == 0 ? WEFT_DIALECT_KOHYA : o.dialect;
    if (s.dialect < WEFT_DIALECT_KOHYA || s.dialect > WEFT_DIALECT_PEFT)
        return wf_fail(err, WEFT_E_ARG, "weft_save_options: dialect is %d, wanted a WEFT_DIALECT_*",
                       (int)o.dialect);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_save_options: reserved0 is not zero");
    s.half = (o.flags & WEFT_SAVE_HALF) != 0;
    s.alloc = adapter->alloc;
    s.endings = targets[s.dialect].dialect->endings;

    if ((st = weft_report_create(model, adapter, &report, err)) != WEFT_OK) goto done;
    if ((st = wf_report_verdict(report, false, err)) != WEFT_OK) goto done;
    if ((st = take_layers(&s, report)) != WEFT_OK) goto done;
    if ((st = check_forms(&s)) != WEFT_OK) goto done;
    if ((st = make_room(&s)) != WEFT_OK) goto done;
    st = targets[s.dialect].save(&s, path);
done:
    for (size_t i = 0; i < s.kept_count; i++) wf_free(&s.alloc, s.kept[i]);
    wf_free(&s.alloc, s.kept);
    wf_free(&s.alloc, s.tensors);
    wf_free(&s.alloc, s.layers);
    weft_report_free(report);
    return st;
}
