/* config.c - what PEFT's configuration says of a module: its scale, and what else its family has to
 * know.
 *
 * PEFT keeps no alpha with the factors: adapter_config.json has lora_alpha for all modules and
 * alpha_pattern for some, and diffusers copies the same object into the file's metadata, each key
 * prefixed by the component. A pattern is a regular expression that must match the module's path to
 * its end, from the start or after a dot (pattern.c); the first that does wins. One that says more
 * than is read is refused, because a wrong alpha makes an image that is quietly wrong.
 *
 * Settings that make the tensors mean something else are refused here. */
#include <strings.h>

#include "adapter/adapter_internal.h"
#include "adapter/initial.h"

#define MOST_COST 2e9 /* some seconds; SDXL's 800 modules with a pattern for each take 5e7 */
enum { MAX_PATTERNS = 10000 }; /* trainers write one pattern for each module, at the most */

/* ---- patterns -------------------------------------------------------------------------------- */

/* Text encoders have lost the outermost word of their modules' paths: a pattern is of either
 * time. */
static const char *newer_path(const char *module)
{
    static const char word[] = "text_model.";
    return strncmp(module, word, sizeof word - 1) == 0 ? module + sizeof word - 1 : module;
}

static bool matches_either(const char *pattern, const char *module, bool loose, bool *known)
{
    const char *newer = newer_path(module);
    return wf_pattern_matches(pattern, module, loose, known) ||
           (newer != module && wf_pattern_matches(pattern, newer, loose, known));
}

bool wf_config_matches(const char *pattern, const char *path, bool *known)
{
    return matches_either(pattern, path, true, known);
}

/* ---- settings -------------------------------------------------------------------------------- */

/* The setting of this name, or NULL. */
static const json_t *setting(const wf_config *c, const char *name)
{
    char   key[96];
    size_t n = strlen(c->prefix), m = strlen(name);

    if (n + m >= sizeof key) return NULL;
    memcpy(key, c->prefix, n);
    memcpy(key + n, name, m + 1);
    return json_object_get(c->json, key);
}

bool wf_config_speaks(const wf_config *c)
{
    static const char *const any[] = { "peft_type", "r", "lora_alpha", "alpha", "target_modules",
                                       "rank_pattern", "alpha_pattern", "use_rslora" };
    const char *key;
    json_t     *entry;

    if (c->json == NULL) return false;
    for (size_t i = 0; i < WF_LEN(any) && *c->prefix == '\0'; i++)
        if (setting(c, any[i]) != NULL) return true;
    if (*c->prefix == '\0') return false;
    json_object_foreach((json_t *)c->json, key, entry)
        if (strncmp(key, c->prefix, strlen(c->prefix)) == 0) return true;
    return false;
}

static bool is_set(const json_t *v)
{
    return v != NULL && !json_is_null(v) && !json_is_false(v) &&
           !(json_is_object(v) && json_object_size(v) == 0) &&
           !(json_is_array(v) && json_array_size(v) == 0);
}

/* The configuration's type; LORA if it says none, NULL if it is one that no family has. */
static const wf_peft_type *type_of(const wf_config *c)
{
    const json_t *type = setting(c, "peft_type");

    if (type == NULL) return wf_peft_type_named("LORA");
    return json_is_string(type) ? wf_peft_type_named(json_string_value(type)) : NULL;
}

/* "LORA, ADALORA, .. and IA3": all types that families have, each once. */
static void list_types(char *list, size_t cap)
{
    const char             *names[48];
    size_t                  count, types = 0, n = 0;
    const wf_family *const *all = wf_families(&count);

    for (size_t i = 0; i < count; i++)
        for (const wf_peft_type *t = all[i]->peft_types; t != NULL && t->name != NULL; t++)
            if (types < WF_LEN(names) && wf_peft_type_named(t->name) == t) names[types++] = t->name;
    list[0] = '\0';
    for (size_t i = 0; i < types; i++) {
        const char *before = i == 0 ? "" : i + 1 < types ? ", " : " and ";
        if (!wf_format(list + n, cap - n, "%s%s", before, names[i])) return;
        n += strlen(list + n);
    }
}

/* What LoRA's factors began as, and so what the base lacks beside them. Most begin with B at zero,
 * or leave the base as it is; some take out of it what the weight alone does not tell. */
static weft_status find_initial(const wf_config *c, int32_t *initial, weft_error *err)
{
    static const struct { const char *name; int32_t initial; } known[] = {
        { "gaussian", WF_INITIAL_NONE }, { "eva", WF_INITIAL_NONE },
        { "orthogonal", WF_INITIAL_NONE }, { "mica", WF_INITIAL_NONE },
        { "pissa", WF_INITIAL_TOP }, { "olora", WF_INITIAL_QR },
    };
    static const struct { const char *name, *why; } lost[] = {
        { "pissa_niter_", "takes a random approximation of the weight's top out of the base" },
        { "corda", "takes out of the base what the data of its training told" },
        { "loftq", "puts a quantised weight in the base's place" },
        { "lora_ga", "takes out of the base what gradients of its training told" },
    };
    const char *name = json_string_value(setting(c, "init_lora_weights"));
    wf_key_text k;

    *initial = WF_INITIAL_NONE;
    for (size_t i = 0; name != NULL && i < WF_LEN(known); i++) {
        if (strcasecmp(name, known[i].name) != 0) continue;
        *initial = known[i].initial;
        return WEFT_OK;
    }
    for (size_t i = 0; name != NULL && i < WF_LEN(lost); i++)
        if (strncmp(name, lost[i].name, strlen(lost[i].name)) == 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: %sinit_lora_weights is %s, which %s: no file says what; convert it "
                           "to plain LoRA with PEFT (save_pretrained with "
                           "path_initial_model_for_weight_conversion)",
                           c->what, c->prefix, wf_key_show(&k, name), lost[i].why);
    if (name == NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: %sinit_lora_weights is %s, and what that leaves of the base is not known "
                   "to this version",
                   c->what, c->prefix, wf_key_show(&k, name));
}

weft_status wf_config_check(const wf_config *c, weft_error *err)
{
    static const char *const changes[] = {
        "use_qalora", "use_bdlora", "fan_in_fan_out", "layer_replication", "arrow_config",
        "kasa_config", "velora_config",
        "monteclora_config", "alora_invocation_tokens", "target_parameters",
        "trainable_token_indices",
    };
    char        list[320];
    const char *type = json_string_value(setting(c, "peft_type"));

    if (type_of(c) == NULL) {
        list_types(list, sizeof list);
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %speft_type is %.40s; this version applies %s",
                       c->what, c->prefix, type != NULL ? type : "not a string", list);
    }
    for (size_t i = 0; i < WF_LEN(changes); i++)
        if (is_set(setting(c, changes[i])))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: %s%s is set, which this version does not apply", c->what, c->prefix,
                           changes[i]);
    return find_initial(c, &(int32_t){ 0 }, err);
}

weft_status wf_config_check_cost(const wf_config *c, size_t modules, weft_error *err)
{
    static const char *const tables[] = { "rank_pattern", "alpha_pattern" };
    const json_t            *list = setting(c, "feedforward_modules");
    const char              *pattern;
    json_t                  *entry;
    double                   cost = 0;

    for (size_t i = 0; i < WF_LEN(tables); i++) {
        json_t *table = (json_t *)setting(c, tables[i]); /* jansson only iterates over non-const */
        json_object_foreach(table, pattern, entry) cost += wf_pattern_cost(pattern);
    }
    for (size_t i = 0; i < json_array_size(list); i++)
        cost += 1 + (double)json_string_length(json_array_get(list, i));
    if (cost * (double)modules <= MOST_COST) return WEFT_OK;
    return wf_fail(
        err, WEFT_E_FORMAT,
        "%s: %srank_pattern, alpha_pattern and feedforward_modules are too long to be tried on "
        "%zu modules",
        c->what, c->prefix, modules);
}

/* The number that `name`, or the first pattern of `patterns` that matches, gives; *found tells
 * whether any, *by what it is called. */
static weft_status number_for(const wf_config *c, const char *path, const char *name,
                              const char *patterns, double *out, bool *found, const char **by,
                              weft_error *err)
{
    const json_t *v = setting(c, name);
    json_t       *table = (json_t *)setting(c, patterns); /* jansson only iterates over non-const */
    const char   *pattern;
    json_t       *entry;
    wf_key_text   k;

    *by = name;
    if (table != NULL && !json_is_null(table) && !json_is_object(table))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s%s is not an object", c->what, c->prefix,
                       patterns);
    if (json_object_size(table) > MAX_PATTERNS) /* each is tried on each module */
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s%s has %zu entries, wanted at most %d", c->what,
                       c->prefix, patterns, json_object_size(table), MAX_PATTERNS);
    json_object_foreach(table, pattern, entry) {
        bool known = true, hit = strcmp(pattern, path) == 0 ||
             wf_config_matches(pattern, path, &known);
        if (!known)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: %s%s: '%s' is a regular expression this version does not read",
                           c->what, c->prefix, patterns, wf_key_show(&k, pattern));
        if (!hit) continue;
        v = entry;
        *by = pattern;
        break;
    }
    *found = v != NULL && !json_is_null(v);
    if (*found && !json_is_number(v))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s%s for %s is not a number", c->what, c->prefix,
                       name, wf_key_show(&k, path));
    if (*found) *out = json_number_value(v);
    return WEFT_OK;
}

weft_status wf_config_lists(const wf_config *c, const char *name, const char *path, bool *out,
                            weft_error *err)
{
    const json_t *list = setting(c, name);
    size_t        len = strlen(path);
    wf_key_text   k;

    *out = false;
    if (json_is_string(list)) {
        bool known;
        *out = matches_either(json_string_value(list), path, false, &known);
        if (!known)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: %s: '%s' is a regular expression this version does not read",
                           c->what, name, wf_key_show(&k, json_string_value(list)));
        return WEFT_OK;
    }
    for (size_t i = 0; i < json_array_size(list) && !*out; i++) {
        const char *end = json_string_value(json_array_get(list, i));
        size_t      n = end == NULL ? 0 : strlen(end);
        *out = n > 0 && n <= len && strcmp(path + len - n, end) == 0;
    }
    return WEFT_OK;
}

double wf_config_number(const wf_config *c, const char *name, double otherwise)
{
    const json_t *v = setting(c, name);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

int32_t wf_config_count(const wf_config *c, const char *name, int32_t otherwise)
{
    double v = wf_config_number(c, name, otherwise);
    return v >= 0 && v <= 1 << 20 ? (int32_t)v : otherwise;
}

const char *wf_config_text(const wf_config *c, const char *name)
{
    return json_string_value(setting(c, name));
}

bool wf_config_integer(const wf_config *c, const char *name, int64_t otherwise, int64_t *out)
{
    const json_t *v = setting(c, name);

    *out = v != NULL ? json_integer_value(v) : otherwise;
    return v == NULL || json_is_integer(v);
}

bool wf_config_true(const wf_config *c, const char *name)
{
    return json_is_true(setting(c, name));
}

bool wf_config_false(const wf_config *c, const char *name)
{
    return json_is_false(setting(c, name));
}

/* The rank of the module at the start of training. */
static weft_status read_rank(const wf_config *c, const wf_peft_type *type, const char *path,
                             wf_settings *out, weft_error *err)
{
    bool        found = false;
    double      rank = 0;
    const char *by;

    if (type->rank_patterns == NULL) {
        out->start_rank = type->rank != NULL ? wf_config_count(c, type->rank, 0) : 0;
        return WEFT_OK;
    }
    WF_TRY(number_for(c, path, type->rank, type->rank_patterns, &rank, &found, &by, err));
    if (found && rank >= 0 && rank <= INT32_MAX) out->start_rank = (int32_t)rank;
    out->has_rank = found && type->lora;
    out->rank = rank;
    return WEFT_OK;
}

weft_status wf_config_read(const wf_config *c, const char *path, wf_tensor_set tensors,
                           wf_settings *out, weft_error *err)
{
    const wf_tensor_set whole = WF_BIT(WF_TENSOR_REPLACE) | WF_BIT(WF_TENSOR_REPLACE_B);
    const wf_peft_type *type = type_of(c); /* one that is known: wf_config_check() has looked */
    wf_key_text         k;

    if (type == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %speft_type is unknown", c->what, c->prefix);
    if ((tensors & (type->known_by | whole)) == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %speft_type is %s, but %s has no tensor of that", c->what, c->prefix,
                       type->name, wf_key_show(&k, path));
    if (type->lora && wf_config_true(c, "use_dora") &&
        (tensors & (WF_BIT(WF_TENSOR_MAGNITUDE) | whole)) == 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %suse_dora is set, but %s has no magnitude",
                       c->what, c->prefix, wf_key_show(&k, path));
    out->rslora = wf_config_true(c, "use_rslora");
    WF_TRY(read_rank(c, type, path, out, err));
    if (type->lora) WF_TRY(find_initial(c, &out->initial, err));
    if (type->alpha == NULL) return WEFT_OK;
    out->alpha_source = c->source;
    return number_for(c, path, type->alpha, "alpha_pattern", &out->alpha, &out->has_alpha,
                      &out->alpha_key, err);
}
