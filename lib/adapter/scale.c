/* scale.c - what multiplies a module's product, and who says so.
 *
 * The scale is alpha / rank, and alpha is no factor: a file keeps it in a tensor, in PEFT's
 * configuration, in metadata, or not at all. Taken for the rank where nothing says it, it makes an
 * image that is quietly too weak or too strong. So every place is asked: the tensor, the
 * configuration, then plain metadata, which trainers write without any standard; then the caller.
 * Where nobody says it, PEFT's spelling is refused, since PEFT has no rule for that either, and
 * others get scale 1, as their own programs give them, and a warning.
 *
 * Plain metadata is believed where it can be meant: if it says a rank too, only of modules with
 * that rank, and kohya's ss_network_alpha not of convolutions that have an alpha of their own. */
#include <math.h>

#include "adapter/adapter_internal.h"

/* Trainers set alpha to the rank, to twice it, or to 1; the largest in use is some hundred over a
 * rank of 1, the smallest 1 over a rank of some hundred. What is ten times beyond is a mistake. */
static const float least_scale = 1e-4f, most_scale = 1e3f;

/* ---- plain metadata -------------------------------------------------------------------------- */

/* A number as Python writes it; false for anything else ("None", "Dynamic"). */
static bool number_of(const char *text, double *out)
{
    char       json[64];
    json_t    *object = NULL;
    weft_error ignored;
    size_t     n = text != NULL ? strlen(text) : 0;

    if (n == 0 || n > 32 || strspn(text, "0123456789+-.eE") != n) return false;
    if (!wf_format(json, sizeof json, "{\"v\":%s}", text)) return false;
    if (wf_json_parse(&object, json, strlen(json), "metadata", &ignored) != WEFT_OK) return false;
    *out = json_number_value(json_object_get(object, "v"));
    json_decref(object);
    return isfinite(*out);
}

/* The first of these names, behind the prefix or behind the prefix with an underscore, that has a
 * number; returns the key, or NULL. */
static const char *find_number(const weft_tensors *t, const char *prefix, const char *const *names,
                               size_t count, double *out)
{
    char key[64];

    for (size_t i = 0; i < count; i++)
        for (int32_t form = 0; form < (*prefix != '\0' ? 2 : 1); form++) {
            size_t n = strlen(prefix);
            if (!wf_format(key, sizeof key, "%s%s", prefix, names[i])) continue;
            if (form == 1) key[n - 1] = '_';
            for (size_t k = 0; k < wf_tensors_meta_count(t); k++)
                if (strcmp(wf_tensors_meta_key(t, k), key) == 0 &&
                    number_of(wf_tensors_meta_value(t, k), out))
                    return wf_tensors_meta_key(t, k);
        }
    return NULL;
}

static bool is_true(const char *text)
{
    return text != NULL && (strcmp(text, "true") == 0 || strcmp(text, "True") == 0 ||
                            strcmp(text, "1") == 0);
}

/* What ss_network_args, the trainer's own settings in JSON, says of this; false: no number. */
static bool argument(const json_t *args, const char *name, double *out)
{
    const json_t *v = json_object_get(args, name);

    if (json_is_number(v)) *out = json_number_value(v);
    return json_is_number(v) || number_of(json_string_value(v), out);
}

static void read_kohya(wf_scales *s, const weft_tensors *t)
{
    static const char *const alpha[] = { "ss_network_alpha" }, *const dim[] = { "ss_network_dim" };
    const char *text = weft_tensors_metadata(t, "ss_network_args");
    wf_said    *all = &s->kohya, *conv = &s->kohya_conv;
    json_t     *args = NULL;
    weft_error  ignored;
    double      other;

    all->key = find_number(t, "", alpha, 1, &all->alpha);
    all->has_rank = find_number(t, "", dim, 1, &all->rank) != NULL;
    if (text != NULL) (void)wf_json_parse(&args, text, strlen(text), "ss_network_args", &ignored);
    all->rslora = is_true(json_string_value(json_object_get(args, "rs_lora"))) ||
                  json_is_true(json_object_get(args, "rs_lora"));
    *conv = *all;
    if (argument(args, "conv_dim", &other) || argument(args, "conv_alpha", &other)) {
        conv->key = argument(args, "conv_alpha", &conv->alpha) && all->key != NULL ?
                    "ss_network_args" : NULL;
        conv->has_rank = argument(args, "conv_dim", &conv->rank);
    }
    json_decref(args);
}

void wf_scales_init(wf_scales *s, const weft_tensors *t)
{
    static const char *const alphas[] = { "lora_alpha", "network_alpha", "alpha" },
                      *const ranks[] = { "r", "rank", "lora_rank", "network_dim" };
    const char *prefix;

    read_kohya(s, t);
    for (int32_t c = 0; (prefix = wf_component_prefix(c)) != NULL; c++) {
        const char *const of[] = { prefix, "" };
        wf_said          *said = &s->of_component[c];
        for (size_t i = 0; i < WF_LEN(of); i++) {
            char rslora[64];
            if (said->key == NULL)
                said->key = find_number(t, of[i], alphas, WF_LEN(alphas), &said->alpha);
            if (!said->has_rank)
                said->has_rank = find_number(t, of[i], ranks, WF_LEN(ranks), &said->rank) != NULL;
            said->rslora |= wf_format(rslora, sizeof rslora, "%suse_rslora", of[i]) &&
                            is_true(weft_tensors_metadata(t, rslora));
        }
    }
}

/* What metadata says of the module: an alpha that can be meant (rank false), or a rank; NULL if
 * nothing. */
static const wf_said *said_of(const wf_scales *s, const wf_module *m, bool rank)
{
    int32_t        c = wf_name_component(m->name);
    const wf_said *both[] = { c >= 0 && c < WF_SAID ? &s->of_component[c] : NULL,
                              m->kernel > 1 ? &s->kohya_conv : &s->kohya };

    for (size_t i = 0; i < WF_LEN(both); i++) {
        const wf_said *said = both[i];
        if (said == NULL || !(rank ? said->has_rank : said->key != NULL)) continue;
        if (rank || !said->has_rank || m->rank == 0 || said->rank == m->rank) return said;
    }
    return NULL;
}

/* ---- one module ------------------------------------------------------------------------------ */

/* Does alpha have a part in what this module does? */
static bool matters(const wf_module *m, const wf_dialect *d)
{
    if (d->unscaled || m->family->alpha_means == NULL ||
        m->family->alpha_means(m) != WF_ALPHA_SCALE)
        return false;
    if (m->rank > 0) return true;
    /* without a rank: pruned away, or LoKr of two whole factors, which PEFT alone scales */
    return m->peft && !(m->family->may_be_empty != NULL && m->family->may_be_empty(m));
}

/* Is the divisor known, so that an alpha is enough? */
static bool divides(const wf_module *m)
{
    return m->family->divides == NULL || m->family->divides(m);
}

static weft_status take_alpha(wf_module *m, double alpha, bool rslora, int32_t source,
                              const char *key, const char *what, weft_error *err)
{
    m->has_alpha = true;
    m->alpha = (float)alpha;
    m->rslora |= rslora;
    m->alpha_source = source;
    m->alpha_key = key;
    return m->family->shape(m, what, err); /* the scale again */
}

static weft_status refuse(const wf_module *m, const wf_scaling *at, bool config, weft_error *err)
{
    wf_key_text k;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: %s: nothing says its %s, without which the scale is not known; PEFT keeps "
                   "it in adapter_config.json, %s: give weft_adapter_options.alpha or "
                   "weft_adapter_options.scale",
                   at->source->name, wf_key_show(&k, m->key), m->has_alpha ? "rank" : "alpha",
                   config ? "which leaves it out here" : "which is not beside this file");
}

weft_status wf_scale_settle(wf_scaling *at, wf_module *m, const wf_draft *draft, wf_settings *s,
                            const wf_config *config, const char *path, weft_error *err)
{
    const wf_source *from = at->source;
    const wf_said   *said = said_of(&at->scales, m, false), *rank = said_of(&at->scales, m, true);

    if (!matters(m, draft->dialect)) return WEFT_OK;
    m->alpha_source = m->has_alpha ? s->alpha_source : WEFT_ALPHA_UNSAID;
    m->alpha_key = m->has_alpha ? s->alpha_key : NULL;
    if (!divides(m) && rank != NULL && rank->rank >= 1 && rank->rank <= INT32_MAX) {
        s->start_rank = (int32_t)rank->rank;
        WF_TRY(wf_module_settle(m, s, config, path, err));
        WF_TRY(m->family->shape(m, from->name, err));
    }
    if (!m->has_alpha && said != NULL)
        WF_TRY(take_alpha(m, said->alpha, said->rslora, WEFT_ALPHA_METADATA, said->key, from->name,
                          err));
    if (!m->has_alpha && from->alpha != 0) {
        at->given++;
        WF_TRY(take_alpha(m, (double)from->alpha, false, WEFT_ALPHA_OPTION, "alpha", from->name,
                          err));
    }
    if (!isfinite(m->alpha) || !isfinite(m->scale))
        return wf_module_fail(m, from->name, err, "its %s is not a finite number",
                              isfinite(m->alpha) ? "scale" : "alpha");
    bool known = m->has_alpha && divides(m);
    if (!known && from->scale != 0) {
        at->given++;
        m->has_alpha = true;
        m->alpha = from->scale * (float)WF_MAX(m->rank, 1);
        m->scale = from->scale;
        m->alpha_source = WEFT_ALPHA_OPTION;
        m->alpha_key = "scale";
    } else if (!known && draft->dialect->config == WF_CONFIG_FILE) {
        return refuse(m, at, config != NULL, err);
    } else if (!known) {
        m->alpha_source = WEFT_ALPHA_UNSAID;
        if (!draft->dialect->rank_is_alpha && at->unsaid++ == 0) at->first_unsaid = m;
    }
    float size = fabsf(m->scale);
    if ((size > most_scale || size < least_scale) && at->odd++ == 0) at->first_odd = m;
    return WEFT_OK;
}

weft_status wf_scales_report(const wf_scaling *at, size_t modules, weft_error *err)
{
    const wf_source *from = at->source;
    const wf_module *m = at->first_odd;
    wf_key_text      k;
    wf_number_text   scale, alpha, most, least;

    if ((from->alpha != 0 || from->scale != 0) && at->given == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "%s: weft_adapter_options.%s is given, but nothing is unsaid that it could "
                       "say",
                       from->name, from->alpha != 0 ? "alpha" : "scale");
    if (at->unsaid > 0)
        wf_log(from->log, from->log_user, WEFT_LOG_WARN,
               "%s: nothing says the alpha of %zu of its %zu modules (%s the first): they get "
               "scale 1; if that is not how they were trained, give weft_adapter_options.alpha or "
               "weft_adapter_options.scale",
               from->name, at->unsaid, modules, wf_key_show(&k, at->first_unsaid->key));
    if (m != NULL)
        wf_log(from->log, from->log_user, WEFT_LOG_WARN,
               "%s: %zu of its %zu modules have a scale that no training gives, %s the first: %s "
               "(alpha %s, rank %d), not between %s and %s; it is used as it is",
               from->name, at->odd, modules, wf_key_show(&k, m->key),
               wf_number(&scale, m->scale), wf_number(&alpha, m->alpha), (int)m->rank,
               wf_number(&least, least_scale), wf_number(&most, most_scale));
    return WEFT_OK;
}

/* ---- groups ---------------------------------------------------------------------------------- */

/* What the modules of a group have in common, as one text. */
static const char *group_key(weft_adapter *a, const wf_module *m)
{
    char           key[600];
    wf_number_text scale, alpha;
    bool           tensor = m->alpha_source == WEFT_ALPHA_TENSOR; /* each has its own key */
    const char    *from = tensor || m->alpha_key == NULL ? "" : m->alpha_key;

    (void)wf_format(key, sizeof key, "%s %d %s %s %d %d %.400s", wf_module_family_name(m),
                    (int)m->rank, wf_number(&alpha, m->alpha), wf_number(&scale, m->scale),
                    (int)m->alpha_source, m->zero_alpha, from);
    return wf_bag_string(&a->bag, key, strlen(key));
}

weft_status wf_adapter_group(weft_adapter *a, weft_error *err)
{
    wf_map      map;
    weft_status st = wf_map_init(&map, &a->alloc, a->count, err);

    a->groups = st == WEFT_OK ? wf_bag_take(&a->bag, a->count, sizeof *a->groups) : NULL;
    if (st == WEFT_OK && a->groups == NULL)
        st = wf_nomem(err, a->count * sizeof *a->groups, "groups of modules");
    for (size_t i = 0; i < a->count && st == WEFT_OK; i++) {
        bool        added = false;
        const char *key = group_key(a, &a->modules[i]);
        if (key == NULL) st = wf_nomem(err, 1, "a group of modules");
        else st = wf_map_put(&map, key, (int64_t)a->group_count, &added, err);
        if (added) a->groups[a->group_count++].first = i;
        if (st == WEFT_OK) a->groups[wf_map_get(&map, key)].modules++;
    }
    wf_map_free(&map);
    return st;
}

size_t weft_adapter_group_count(const weft_adapter *a)
{
    return a == NULL ? 0 : a->group_count;
}

weft_status weft_adapter_group(const weft_adapter *a, size_t index, weft_module_info *first,
                               size_t *modules, weft_error *err)
{
    if (a == NULL || first == NULL) return wf_fail(err, WEFT_E_ARG, "adapter or first is NULL");
    if (index >= a->group_count)
        return wf_fail(err, WEFT_E_ARG, "%s: group %zu of %zu", a->name, index, a->group_count);
    WF_TRY(weft_adapter_module(a, a->groups[index].first, first, err));
    if (modules != NULL) *modules = a->groups[index].modules;
    return WEFT_OK;
}

const char *weft_alpha_source_name(int32_t source)
{
    switch (source) {
    case WEFT_ALPHA_UNUSED:   return "unused";
    case WEFT_ALPHA_TENSOR:   return "tensor";
    case WEFT_ALPHA_CONFIG:   return "configuration";
    case WEFT_ALPHA_METADATA: return "metadata";
    case WEFT_ALPHA_OPTION:   return "option";
    case WEFT_ALPHA_UNSAID:   return "not said";
    default:                  return "unknown";
    }
}
