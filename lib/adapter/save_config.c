/* save_config.c - PEFT's configuration of one component, from which PEFT makes modules that the
 * tensors fit into.
 *
 * PEFT has one configuration for all modules: one family, one way to cut layers, ranks and alphas
 * by patterns. It makes its modules from these numbers before it looks at a tensor. So each
 * family's writer (wf_family.write_peft) computes what PEFT would make of the numbers and compares
 * that with every module. If no configuration gives them all, the adapter is refused rather than
 * written into a file that PEFT cannot open. */
#include "adapter/save.h"

/* ---- members --------------------------------------------------------------------------------- */

void wf_peft_key(const wf_peft_writer *w, const char *name)
{
    bool first = w->out->len > 0 && w->out->s[w->out->len - 1] == '{';
    wf_text_add(w->out, "%s\n  \"%s%s\": ", first ? "" : ",", w->prefix, name);
}

void wf_peft_text(const wf_peft_writer *w, const char *name, const char *value)
{
    wf_peft_key(w, name);
    wf_text_add(w->out, "\"%s\"", value);
}

void wf_peft_bool(const wf_peft_writer *w, const char *name, bool value)
{
    wf_peft_key(w, name);
    wf_text_add(w->out, "%s", value ? "true" : "false");
}

void wf_peft_value(const wf_peft_writer *w, const char *name, double value)
{
    wf_number_text n;

    wf_peft_key(w, name);
    wf_text_add(w->out, "%s", wf_number(&n, value));
}

void wf_peft_integer(const wf_peft_writer *w, const char *name, int64_t value)
{
    wf_peft_key(w, name);
    wf_text_add(w->out, "%lld", (long long)value);
}

size_t wf_peft_next(const wf_peft_writer *w, size_t from)
{
    while (from < w->s->a->count && (wf_saver_layer(w->s, from)->component != w->component ||
                                     wf_saver_skips(w->s, &w->s->a->modules[from])))
        from++;
    return from;
}

const wf_module *wf_peft_module(const wf_peft_writer *w, size_t i)
{
    return &w->s->a->modules[i];
}

const wf_module *wf_peft_first(const wf_peft_writer *w)
{
    return wf_peft_module(w, wf_peft_next(w, 0));
}

const wf_layer *wf_peft_layer(const wf_peft_writer *w, size_t i)
{
    return wf_saver_layer(w->s, i);
}

/* PEFT takes a path for the end of one, so that without a text encoder's text_model it finds a
 * module both where that is in its path (transformers 4, and encoders with a projection) and where
 * it is not. */
static const char *path_at(const wf_peft_writer *w, size_t i)
{
    static const char head[] = "text_model.";
    const char       *path = wf_saver_path(wf_peft_layer(w, i));

    bool text = w->component != WEFT_COMPONENT_DENOISER;
    return text && strncmp(path, head, sizeof head - 1) == 0 ? path + sizeof head - 1 : path;
}

void wf_peft_paths(const wf_peft_writer *w, const char *name, bool (*is)(const wf_module *))
{
    bool first = true;

    wf_peft_key(w, name);
    wf_text_add(w->out, "[");
    for WF_EACH(w, i) {
        if (is != NULL && !is(wf_peft_module(w, i))) continue;
        wf_text_add(w->out, "%s\"%s\"", first ? "" : ", ", path_at(w, i));
        first = false;
    }
    wf_text_add(w->out, "]");
}

void wf_peft_numbers(const wf_peft_writer *w, const char *name, const char *patterns,
                        double (*number)(const wf_peft_writer *, size_t))
{
    double common = number(w, wf_peft_next(w, 0));
    bool   first = true;

    wf_peft_value(w, name, common);
    wf_peft_key(w, patterns);
    wf_text_add(w->out, "{");
    for WF_EACH(w, i) {
        wf_number_text n;
        if (number(w, i) == common) continue;
        wf_text_add(w->out, "%s\"%s\": %s", first ? "" : ", ", path_at(w, i),
                    wf_number(&n, number(w, i)));
        first = false;
    }
    wf_text_add(w->out, "}");
}

void wf_peft_common(const wf_peft_writer *w, const char *init)
{
    wf_peft_text(w, "peft_type", w->type->name);
    wf_peft_paths(w, "target_modules", NULL);
    wf_peft_bool(w, "inference_mode", true);
    if (init != NULL) wf_peft_bool(w, init, true);
}

weft_status wf_peft_refuse(const wf_peft_writer *w, size_t i, const char *why)
{
    wf_key_text k;
    return wf_fail(w->s->err, WEFT_E_UNSUPPORTED,
                   "%s: %s %s: PEFT's configuration has no way to say it", w->s->a->name,
                   wf_key_show(&k, wf_peft_module(w, i)->key), why);
}

double wf_peft_rank_of(const wf_peft_writer *w, size_t i)
{
    return wf_peft_module(w, i)->rank;
}

double wf_peft_alpha_of(const wf_peft_writer *w, size_t i)
{
    const wf_module *m = wf_peft_module(w, i);
    return (double)wf_alpha_for(m, m->rank);
}

weft_status wf_peft_find_tucker(const wf_peft_writer *w, int32_t core, int32_t inner, bool *tucker)
{
    *tucker = false;
    for WF_EACH(w, i) *tucker = *tucker || wf_peft_module(w, i)->tensor[core] != NULL;
    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        bool             could = wf_peft_layer(w, i)->kernel > 1 && m->tensor[inner] != NULL;
        if ((m->tensor[core] != NULL) != (*tucker && could))
            return wf_peft_refuse(
                w, i, "has its kernel's core where others have none, or none where they have one");
    }
    return WEFT_OK;
}

weft_status wf_saver_config(const wf_saver *s, int32_t component, const char *prefix, wf_text *out)
{
    wf_peft_writer   w = { s, component, prefix, NULL, out };
    const wf_module *first = wf_peft_first(&w);

    w.type = wf_saver_peft_type(s, first);
    for WF_EACH(&w, i)
        if (wf_saver_peft_type(s, wf_peft_module(&w, i)) != w.type)
            return wf_peft_refuse(&w, i, "is of another family than the component's first");
    return first->family->write_peft(&w);
}
