/* cell.c - the user's weights in a coefficient, and which adapters act on the text encoders.
 *
 * A cell is the method's number times the user's weight. All that multiplies is multiplied in
 * double, and rounded once, where the cell is made. Text encoders run before the first call,
 * so methods do not decide about them. A policy says which adapters act: the plan's own policy, or
 * that of the first phase's method. */
#include "plan/plan_internal.h"
#include "plan/method/method.h"

bool wf_plan_weighs_inside(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_module *m = wf_plan_module(p, adapter, layer);
    return p->entry[adapter].peft_dora && m != NULL && m->tensor[WF_TENSOR_MAGNITUDE] != NULL;
}

double wf_plan_weight(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    int32_t         text = wf_component_encoder(layers[layer].component);
    const wf_entry *e = &p->entry[adapter];
    return (double)(text < 0 ? e->weight : e->text_weight[text]) *
           (double)wf_blocks_at(e->blocks, layer);
}

double wf_plan_cell_weight(const weft_plan *p, int32_t adapter, int32_t layer)
{
    return wf_plan_weighs_inside(p, adapter, layer) ? 1 : wf_plan_weight(p, adapter, layer);
}

int32_t wf_plan_role(const weft_plan *p, int32_t adapter)
{
    int32_t role = p->entry[adapter].role, other;

    if (role != WEFT_ROLE_NONE || p->adapters != 2) return role;
    other = p->entry[1 - adapter].role;
    if (other != WEFT_ROLE_NONE)
        return other == WEFT_ROLE_CONTENT ? WEFT_ROLE_STYLE : WEFT_ROLE_CONTENT;
    return adapter == 0 ? WEFT_ROLE_CONTENT : WEFT_ROLE_STYLE;
}

bool wf_plan_text_acts(const weft_plan *p, int32_t adapter)
{
    int32_t who = p->text != WEFT_TEXT_METHOD ? p->text : p->phase[0].method->text;
    return who == WEFT_TEXT_ALL || (who == WEFT_TEXT_FIRST && adapter == 0);
}

float wf_plan_text_cell(const weft_plan *p, int32_t adapter, int32_t layer)
{
    return wf_plan_text_acts(p, adapter) ? (float)wf_plan_cell_weight(p, adapter, layer) : 0;
}
