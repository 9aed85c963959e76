/* saver.c - what both the tensors and the configuration ask while an adapter is written. */
#include "adapter/save.h"

#include <math.h>

const wf_layer *wf_saver_layer(const wf_saver *s, size_t module)
{
    size_t count;
    return &wf_model_layers(s->model, &count)[s->layers[module]];
}

bool wf_saver_holds(const wf_saver *s, int32_t component)
{
    for (size_t i = 0; i < s->a->count; i++)
        if (wf_saver_layer(s, i)->component == component && !wf_saver_skips(s, &s->a->modules[i]))
            return true;
    return false;
}

/* AdaLoRA prunes modules away; only PEFT's own type has a form for them. */
bool wf_saver_skips(const wf_saver *s, const wf_module *m)
{
    return m->rank == 0 && m->family->may_be_empty != NULL && m->family->may_be_empty(m) &&
           s->dialect != WEFT_DIALECT_PEFT;
}

/* CLIPTextModel has no text_model of its own any more (transformers 5), CLIPTextModelWithProjection
 * has. */
const char *wf_saver_path(const wf_layer *l)
{
    static const char head[] = "text_model.";
    const char       *dot = strchr(l->name, '.'), *path = dot != NULL ? dot + 1 : l->name;

    bool first = l->component == WEFT_COMPONENT_TEXT_1;
    return first && strncmp(path, head, sizeof head - 1) == 0 ? path + sizeof head - 1 : path;
}

/* Most often the stored one. */
float wf_alpha_for(const wf_module *m, int32_t divisor)
{
    double rank = divisor > 0 ? divisor : 1;
    float  alpha = (float)((double)m->scale * rank), down = alpha, up = alpha;

    if (!m->rslora && (float)((double)m->alpha / rank) == m->scale) return m->alpha;
    for (int i = 0; i < 4; i++) { /* rounding may have moved it */
        if ((float)((double)down / rank) == m->scale) return down;
        if ((float)((double)up / rank) == m->scale) return up;
        down = nextafterf(down, -INFINITY);
        up = nextafterf(up, INFINITY);
    }
    return alpha;
}

const wf_peft_type *wf_saver_peft_type(const wf_saver *s, const wf_module *m)
{
    const wf_family *f = m->family;
    return f->peft_type != NULL ? f->peft_type(m, s->dialect) : f->peft_types;
}
