/* read.c - from a file's keys to modules, each with its tensors, its family and a scale.
 *
 * Three passes over the keys: first those that make modules, then those that only join one, such as
 * alpha, then the tensors that all modules of a family have together. Modules are told apart by a
 * folded name (dots as underscores, one word for each component). So a module that stands in the
 * file twice, in two dialects, is found here and refused: applying both would double it, and
 * choosing one would be a guess. What no dialect reads is left to identify.c. */
#include <math.h>

#include "adapter/adapter_internal.h"

typedef struct reader {
    weft_adapter     *a;
    const wf_source  *source;
    wf_draft         *drafts;   /* [tensors] */
    wf_map            by_name;
    json_t           *metadata; /* lora_adapter_metadata, or NULL                              */
    wf_scaling        scaling;
    const wf_dialect *listed;   /* the dialect whose list the whole file is, or NULL           */
    int32_t           list;     /* which, in its own numbers                                   */
    weft_error       *err;
} reader;

/* ---- keys to modules ------------------------------------------------------------------------- */

/* Two keys that contradict each other. */
static weft_status fail_pair(reader *rd, const char *one, const char *other, const char *what)
{
    wf_key_text a, b;
    return wf_fail(rd->err, WEFT_E_FORMAT, "%s: %s and %s %s", rd->a->name, wf_key_show(&a, one),
                   wf_key_show(&b, other), what);
}

/* A PEFT folder called text_encoder_2 holds the second encoder's modules, which look like the
 * first's. */
static bool second_encoder(const reader *rd, const wf_dialect *d, char *name)
{
    static const char first[] = "text_encoder.", second[] = "text_encoder_2.";

    if (d->config != WF_CONFIG_FILE || rd->source->folder == NULL ||
        strcmp(rd->source->folder, "text_encoder_2") != 0 ||
        strncmp(name, first, sizeof first - 1) != 0)
        return true;
    if (strlen(name) + 3 > WF_NAME_CAP) return false;
    memmove(name + sizeof second - 1, name + sizeof first - 1, strlen(name + sizeof first - 1) + 1);
    memcpy(name, second, sizeof second - 1);
    return true;
}

static void find_list(reader *rd)
{
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);

    for (size_t i = 0; i < count && rd->list == 0; i++) {
        if (all[i]->find_list == NULL) continue;
        rd->listed = all[i];
        rd->list = all[i]->find_list(rd->a->tensors);
    }
}

/* The dialect that reads this key as one that makes a module, or NULL. */
static const wf_dialect *dialect_of(const reader *rd, const char *key, wf_key *out)
{
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);

    if (rd->list != 0) {
        rd->listed->read_listed(rd->list, key, out);
        return rd->listed;
    }
    for (size_t i = 0; i < count; i++)
        if (wf_dialect_read(all[i], key, out) && (out->how & (WF_JOINS | WF_BESIDE)) == 0 &&
            second_encoder(rd, all[i], out->name))
            return all[i];
    return NULL;
}

static weft_status add_module(reader *rd, const wf_dialect *d, const wf_key *k, const wf_tensor *t,
                              const char *folded)
{
    weft_adapter *a = rd->a;
    wf_module    *m = &a->modules[a->count];
    wf_draft     *w = &rd->drafts[a->count];

    m->name = wf_bag_string(&a->bag, k->name, strlen(k->name));
    m->key = k->stem > 0 ? wf_bag_string(&a->bag, t->name, k->stem) : m->name;
    m->underscore = d->underscore;
    m->peft = d->peft;
    *w = (wf_draft){ .dialect = d, .first = t, .weak = (k->how & WF_WEAK) != 0 };
    w->folded = wf_bag_string(&a->bag, folded, strlen(folded));
    a->count++;
    if (m->name == NULL || m->key == NULL || w->folded == NULL)
        return wf_nomem(rd->err, sizeof *k, "a module's name");
    return wf_map_put(&rd->by_name, w->folded, (int64_t)a->count - 1, &(bool){ false }, rd->err);
}

/* The tensor, which dialect d read, becomes this one of module `at`. */
static weft_status give_tensor(reader *rd, const wf_dialect *d, int64_t at, const wf_key *k,
                               size_t i)
{
    const wf_tensor  *t = wf_tensors_at(rd->a->tensors, i);
    const wf_tensor **slot = &rd->a->modules[at].tensor[k->tensor];

    if (*slot != NULL)
        return fail_pair(rd, (*slot)->name, t->name,
                         k->tensor == WF_TENSOR_ALPHA ? "give the alpha of one module"
                                                      : "give the same factor of one module");
    *slot = t;
    if (k->tensor == WF_TENSOR_MAGNITUDE) rd->a->modules[at].peft_magnitude = d->peft;
    rd->a->key_module[i] = (int32_t)at;
    return WEFT_OK;
}

/* First pass: a key that makes a module, or belongs to the one that keys before it made. */
static weft_status add_key(reader *rd, size_t i)
{
    weft_adapter     *a = rd->a;
    const wf_tensor  *t = wf_tensors_at(a->tensors, i);
    wf_key            k;
    char              folded[WF_NAME_CAP];
    int32_t           component, tensor;

    if (wf_shared_read(t->name, &component, &tensor)) return WEFT_OK; /* the third pass */
    const wf_dialect *d = dialect_of(rd, t->name, &k);
    if (d == NULL) return WEFT_OK; /* the second pass, or the report */
    wf_name_fold(folded, k.name);
    int64_t at = wf_map_get(&rd->by_name, folded);
    if (at < 0) {
        const wf_refused *row = wf_refused_family(t->name, true);
        if (row != NULL) return wf_identify_refused(a, t->name, row, rd->err);
        WF_TRY(add_module(rd, d, &k, t, folded));
        at = (int64_t)a->count - 1;
    }
    const wf_module *m = &a->modules[at];
    const wf_draft  *w = &rd->drafts[at];
    bool             same = w->dialect == d &&
                (k.stem == 0 ||
                 (strlen(m->key) == k.stem && strncmp(m->key, t->name, k.stem) == 0));
    if (!same && m->tensor[k.tensor] == NULL)
        return fail_pair(rd, w->first->name, t->name, "name one module in two ways");
    return give_tensor(rd, d, at, &k, i);
}

/* May the key join the module? One that only stands beside certain tensors may if a family then
 * takes them all. */
static bool may_join(const wf_module *m, const wf_key *k)
{
    return (k->how & WF_BESIDE) == 0 ||
           wf_family_of(wf_module_tensors(m) | WF_BIT(k->tensor)) != NULL;
}

/* Second pass: a key that joins a module. Endings such as ".alpha" are in several dialects: the
 * first that leads to a module is taken. */
static weft_status join_key(reader *rd, size_t i)
{
    weft_adapter            *a = rd->a;
    const wf_tensor         *t = wf_tensors_at(a->tensors, i);
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);
    wf_key                   k;
    wf_key_text              text;
    char                     folded[WF_NAME_CAP];
    bool                     joins = false;
    int32_t                  component, tensor;

    if (a->key_module[i] != WF_KEY_UNREAD || wf_shared_read(t->name, &component, &tensor))
        return WEFT_OK;
    for (size_t d = 0; d < count; d++) {
        if (!wf_dialect_read(all[d], t->name, &k) || (k.how & (WF_JOINS | WF_BESIDE)) == 0)
            continue;
        if (!second_encoder(rd, all[d], k.name)) continue;
        joins |= (k.how & WF_JOINS) != 0;
        wf_name_fold(folded, k.name);
        int64_t at = wf_map_get(&rd->by_name, folded);
        if (at < 0 || !may_join(&a->modules[at], &k)) continue;
        return give_tensor(rd, all[d], at, &k, i);
    }
    if (!joins) return WEFT_OK;
    return wf_fail(rd->err, WEFT_E_FORMAT, "%s: %s has no factors beside it", a->name,
                   wf_key_show(&text, t->name));
}

static bool same_tensor(const wf_tensor *a, const wf_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0 &&
           memcmp(a->data, b->data, a->bytes) == 0;
}

/* Third pass: a tensor that no module has alone goes to all modules of its family. A model's state
 * may repeat it for each of them. */
static weft_status share_key(reader *rd, size_t i)
{
    weft_adapter    *a = rd->a;
    const wf_tensor *t = wf_tensors_at(a->tensors, i);
    int32_t          component, tensor;

    if (!wf_shared_read(t->name, &component, &tensor)) return WEFT_OK;
    for (size_t at = 0; at < a->count; at++) {
        wf_module *m = &a->modules[at];
        if (component >= 0 && component != wf_name_component(m->name)) continue;
        if (!wf_family_shares(wf_module_tensors(m), tensor)) continue;
        if ((m->shared & WF_BIT(tensor)) != 0)
            return fail_pair(rd, m->tensor[tensor]->name, t->name,
                             "give the same tensor of all modules");
        if (m->tensor[tensor] != NULL && !same_tensor(m->tensor[tensor], t))
            return fail_pair(rd, m->tensor[tensor]->name, t->name,
                             "are one tensor of all modules, and differ");
        m->tensor[tensor] = t;
        m->shared |= WF_BIT(tensor);
        a->key_module[i] = WF_KEY_SHARED;
    }
    return a->key_module[i] == WF_KEY_SHARED ? wf_tensor_check_finite(t, a->name, rd->err)
                                             : WEFT_OK;
}

/* ---- scale ----------------------------------------------------------------------------------- */

/* The configuration that speaks of the module; false if there is none. PEFT's is a file, and
 * diffusers' the metadata, which has the settings of one component under its name or, where only one
 * was saved, bare. */
static bool find_config(const reader *rd, const wf_module *m, const wf_dialect *d, wf_config *out)
{
    const char     *prefix = wf_component_prefix(wf_name_component(m->name)), *name = rd->a->name;
    bool            file = d->config == WF_CONFIG_FILE || strstr(m->key, WF_PEFT_WRAPPER) != NULL;
    const wf_config all[] = {
        { rd->metadata, prefix != NULL ? prefix : "", name, WEFT_ALPHA_METADATA },
        { rd->metadata, "", name, WEFT_ALPHA_METADATA },
    };

    *out = (wf_config){ rd->source->config, "", name, WEFT_ALPHA_CONFIG };
    if (d->config == WF_CONFIG_NONE) return false;
    if (file && out->json != NULL) return true;
    for (size_t i = 0; i < WF_LEN(all); i++) {
        *out = all[i];
        if (wf_config_speaks(out)) return true;
    }
    return false;
}

/* Settings into the module; alpha from its tensor, else the configuration. */
static weft_status take_settings(reader *rd, wf_module *m, wf_settings *s)
{
    wf_key_text k;

    if (m->tensor[WF_TENSOR_ALPHA] != NULL) {
        s->alpha = wf_tensor_scalar(m->tensor[WF_TENSOR_ALPHA]);
        s->has_alpha = true;
        s->alpha_source = WEFT_ALPHA_TENSOR;
        s->alpha_key = m->tensor[WF_TENSOR_ALPHA]->name;
    } else if (s->has_alpha) { /* the configuration is let go of */
        s->alpha_key = wf_bag_string(&rd->a->bag, s->alpha_key, strlen(s->alpha_key));
        if (s->alpha_key == NULL) return wf_nomem(rd->err, 1, "a setting's name");
    }
    if (s->has_alpha && !isfinite((float)s->alpha))
        return wf_fail(rd->err, WEFT_E_FORMAT, "%s: alpha of %s is not a finite number",
                       rd->a->name, wf_key_show(&k, m->key));
    m->has_alpha = s->has_alpha;
    m->alpha = s->has_alpha ? (float)s->alpha : 0;
    m->rslora = s->rslora;
    return WEFT_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The family that would take these tensors if more were there, and what is missing; NULL: none. */
static const wf_family *nearest_family(wf_tensor_set tensors, int32_t *missing)
{
    size_t                  count;
    const wf_family *const *all = wf_families(&count);

    for (size_t i = 0; i < count; i++) {
        wf_tensor_set want = all[i]->needs & ~tensors;
        if (wf_family_of(tensors | all[i]->needs) != all[i]) continue;
        for (*missing = 0; (want & WF_BIT(*missing)) == 0; ++*missing) {}
        return all[i];
    }
    return NULL;
}

/* No family has exactly these tensors: say what is there, or what is missing. */
static weft_status refuse_tensors(reader *rd, size_t i, wf_tensor_set tensors)
{
    const wf_module *m = &rd->a->modules[i];
    int32_t          missing, first = 0;
    wf_key_text      k;
    char             list[160] = "";
    size_t           n = 0;

    if (nearest_family(tensors, &missing) != NULL) {
        const char *word = wf_tensor_role(missing);
        if (strncmp(word, "lora_", 5) == 0) word += 5;
        return wf_fail(rd->err, WEFT_E_FORMAT,
                       "%s: %s has no partner: the %s factor of its module is missing", rd->a->name,
                       wf_key_show(&k, rd->drafts[i].first->name), word);
    }
    for (int32_t t = 1; t < WF_TENSORS; t++) {
        size_t len = strlen(wf_tensor_role(t));
        if ((tensors & WF_BIT(t)) == 0 || n + len + 3 > sizeof list) continue;
        if (first++ > 0) memcpy(list + n, ", ", 2), n += 2;
        memcpy(list + n, wf_tensor_role(t), len + 1);
        n += len;
    }
    return wf_fail(rd->err, WEFT_E_UNSUPPORTED, "%s: %s has %s: no family has %s", rd->a->name,
                   wf_key_show(&k, m->key), list, first > 1 ? "these together" : "that alone");
}

static weft_status finish_module(reader *rd, size_t i)
{
    wf_module  *m = &rd->a->modules[i];
    wf_tensor_set tensors = wf_module_tensors(m);
    const char *source = rd->a->name, *path = wf_name_path(m->name);
    wf_settings s = { 0 };
    wf_config   config;
    wf_key_text k;

    m->family = wf_module_family(m);
    if (m->family == NULL) return refuse_tensors(rd, i, tensors);
    WF_TRY(wf_module_check_tensors(m, source, rd->err));
    bool configured = find_config(rd, m, rd->drafts[i].dialect, &config);
    if (configured) WF_TRY(wf_config_read(&config, path, tensors, &s, rd->err));
    WF_TRY(take_settings(rd, m, &s));
    if (m->family->extra_size > 0 &&
        (m->extra = wf_bag_take(&rd->a->bag, 1, m->family->extra_size)) == NULL)
        return wf_nomem(rd->err, m->family->extra_size, "a module's settings");
    WF_TRY(wf_module_settle(m, &s, configured ? &config : NULL, path, rd->err));
    WF_TRY(m->family->shape(m, source, rd->err));
    WF_TRY(wf_scale_settle(&rd->scaling, m, &rd->drafts[i], &s, configured ? &config : NULL, path,
                           rd->err));
    WF_TRY(wf_module_check_finite(m, source, rd->err));
    if (s.has_rank && m->rank > 0 && s.rank != m->rank) { /* a whole weight beside LoRA has none */
        wf_number_text num;
        return wf_fail(rd->err, WEFT_E_FORMAT,
                       "%s: the configuration says rank %s for %s, whose factors have rank %d",
                       source,
                       wf_number(&num, s.rank), wf_key_show(&k, path), (int)m->rank);
    }
    return WEFT_OK;
}

static weft_status check_config(reader *rd, const json_t *json, const char *prefix)
{
    const wf_config config = { json, prefix, rd->a->name, 0 };

    WF_TRY(wf_config_check(&config, rd->err));
    return wf_config_check_cost(&config, rd->a->count, rd->err);
}

/* Configurations that say that the tensors do not mean what they seem to. */
static weft_status check_configs(reader *rd)
{
    const char *text = weft_tensors_metadata(rd->a->tensors, "lora_adapter_metadata"), *prefix;

    if (rd->source->config != NULL) WF_TRY(check_config(rd, rd->source->config, ""));
    if (text == NULL) return WEFT_OK;
    WF_TRY(wf_json_parse(&rd->metadata, text, strlen(text), "lora_adapter_metadata", rd->err));
    for (int32_t c = 0; (prefix = wf_component_prefix(c)) != NULL; c++)
        WF_TRY(check_config(rd, rd->metadata, prefix));
    return check_config(rd, rd->metadata, "");
}

static weft_status read_all(reader *rd)
{
    weft_adapter *a = rd->a;
    size_t        count = wf_tensors_count(a->tensors);

    WF_TRY(wf_map_init(&rd->by_name, &a->alloc, count, rd->err));
    find_list(rd);
    for (size_t i = 0; i < count; i++) WF_TRY(add_key(rd, i));
    for (size_t i = 0; i < count && a->count > 0; i++) WF_TRY(join_key(rd, i));
    for (size_t i = 0; i < count; i++) WF_TRY(share_key(rd, i));
    WF_TRY(wf_identify_unread(a, rd->err));
    if (a->count == 0) return wf_identify_stranger(a, rd->err);
    WF_TRY(check_configs(rd));
    wf_scales_init(&rd->scaling.scales, a->tensors);
    for (size_t i = 0; i < a->count; i++) WF_TRY(finish_module(rd, i));
    WF_TRY(wf_scales_report(&rd->scaling, a->count, rd->err));
    WF_TRY(wf_adapter_group(a, rd->err));
    wf_identify(a, rd->drafts);
    return WEFT_OK;
}

weft_status wf_adapter_parse(weft_tensors *tensors, const wf_source *source,
                             const weft_allocator *allocator, weft_adapter **out, weft_error *err)
{
    weft_allocator alloc = wf_allocator(allocator);
    size_t         count = wf_tensors_count(tensors);
    reader         rd = { .source = source, .scaling = { .source = source }, .err = err };
    weft_status    st;

    *out = NULL;
    if ((st = wf_adapter_new(tensors, source->name, &alloc, &rd.a, err)) != WEFT_OK) return st;
    rd.drafts = wf_zalloc(&alloc, count, sizeof *rd.drafts);
    st = rd.drafts != NULL ? read_all(&rd) : wf_nomem(err, count * sizeof *rd.drafts,
                                                      "an adapter's modules");
    wf_map_free(&rd.by_name); /* it uses the adapter's allocator */
    wf_free(&alloc, rd.drafts);
    json_decref(rd.metadata);
    if (st == WEFT_OK) *out = rd.a;
    else weft_adapter_free(rd.a);
    return st;
}
