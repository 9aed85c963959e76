/* explain.c - a sealed plan in words, for someone who asks what an image was made with.
 *
 * This file writes what all methods share: the adapters, which of them act on the prompt, the cost,
 * how each block is computed. The method writes what its options mean, and folds its table into a
 * few lines: printed whole it would be thousands of cells. */
#include <math.h>

#include "plan/method/method.h"

/* ---- adapters -------------------------------------------------------------------------------- */

/* Modules that are scaled alike, a line for each kind, of an adapter's first ones. */
static void add_scales(const weft_adapter *adapter, wf_text *out)
{
    enum { MOST = 6 };
    size_t count = weft_adapter_group_count(adapter), modules;

    for (size_t i = 0; i < count && i < MOST; i++) {
        weft_module_info m = WEFT_MODULE_INFO_INIT;
        wf_number_text   alpha, scale;
        bool             own; /* a tensor's name says no more */
        if (weft_adapter_group(adapter, i, &m, &modules, NULL) != WEFT_OK) return;
        own = m.alpha_source == WEFT_ALPHA_TENSOR || *m.alpha_key == '\0';
        wf_text_add(out, "      %zu %s of %s", modules, modules == 1 ? "module" : "modules",
                    m.family);
        if (m.rank > 0) wf_text_add(out, ", rank %d", (int)m.rank);
        if (m.alpha_source == WEFT_ALPHA_UNSAID) wf_text_add(out, ", alpha not said");
        else if (m.alpha_source != WEFT_ALPHA_UNUSED)
            wf_text_add(out, ", alpha %s (%s%s%.200s)%s",
                        wf_number(&alpha, m.zero_alpha ? 0 : m.alpha),
                        weft_alpha_source_name(m.alpha_source), own ? "" : ": ",
                        own ? "" : m.alpha_key, m.zero_alpha ? ", which is the rank" : "");
        wf_text_add(out, ", scale %s%s\n", wf_number(&scale, m.scale),
                    m.alpha_source != WEFT_ALPHA_UNUSED ? ""
                    : m.scale != 1 ? " (the family's own)"
                    : m.has_alpha  ? " (its alpha is no part of it)" : " (the file has no alpha)");
    }
    if (count > MOST) wf_text_add(out, "      and %zu groups more\n", count - MOST);
}

static void add_adapter(const weft_plan *p, int32_t a, wf_text *out)
{
    const wf_entry   *e = &p->entry[a];
    size_t            count;
    const wf_layer   *layers = wf_model_layers(p->model, &count);
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    int32_t           denoiser = 0, text = 0;
    char              ranks[32];
    wf_letter_text    letter;
    wf_number_text    weight, text_weight;
    float             in_text = e->text_weight[0];
    bool              there[WF_TEXT_ENCODERS] = { false }; /* in the model */

    for (size_t l = 0; l < count; l++) {
        int32_t encoder = wf_component_encoder(layers[l].component);
        if (encoder >= 0) there[encoder] = true;
        if (e->bound->first[l] == e->bound->first[l + 1]) continue;
        if (layers[l].component == WEFT_COMPONENT_DENOISER) denoiser++;
        else text++;
    }
    if (weft_adapter_info_get(e->bound->adapter, &info, NULL) != WEFT_OK) info.dialect = "";
    if (info.rank_min == info.rank_max) wf_format(ranks, sizeof ranks, "%d", (int)info.rank_max);
    else wf_format(ranks, sizeof ranks, "%d-%d", (int)info.rank_min, (int)info.rank_max);
    wf_text_add(out, "  %-3s %-9s %-9s %-8s %5d %5d  %-7s %-13s %s\n", wf_letter(&letter, a),
                wf_number(&weight, e->weight), wf_number(&text_weight, in_text),
                wf_plan_role_name(p, a), (int)denoiser, (int)text, ranks, info.dialect,
                wf_adapter_name(e->bound->adapter));
    add_scales(e->bound->adapter, out);
    if (e->bound->select != NULL) wf_text_add(out, "      only on %s\n", e->bound->select);
    if (e->bound->exclude != NULL) wf_text_add(out, "      not on %s\n", e->bound->exclude);
    if (e->blocks != NULL) wf_blocks_explain(p, e->blocks, out);
    for (int32_t i = 1; i < WF_TEXT_ENCODERS; i++)
        if (there[i] && e->text_weight[i] != in_text)
            wf_text_add(out, "      weight %s in text encoder %d\n",
                        wf_number(&text_weight, e->text_weight[i]), (int)i + 1);
    if (e->curve != NULL) wf_curve_explain(e->curve, out);
    if (e->mask != NULL)
        wf_text_add(out, "      in a mask of %d x %d\n", (int)wf_plan_mask_of(p, a)->w,
                    (int)wf_plan_mask_of(p, a)->h);
    if (e->weight == 0) wf_text_add(out, "      of weight 0: the UNet is left as it is\n");
}

static void add_adapters(const weft_plan *p, wf_text *out)
{
    if (p->adapters == 0) {
        wf_text_add(out, p->regions > 0 || p->align != NULL
                             ? "\nNo adapters.\n"
                             : "\nNo adapters: the base model, bit for bit.\n");
        return;
    }
    wf_text_add(out, "\nadapters\n      %-9s %-9s %-8s %5s %5s  %-7s %-13s %s\n", "weight", "text",
                "role", "unet", "text", "rank", "dialect", "name");
    for (int32_t a = 0; a < p->adapters; a++) add_adapter(p, a, out);
}

static void add_text_policy(const weft_plan *p, wf_text *out)
{
    const wf_sheet *s = &p->table.text;
    int32_t         acting = 0;

    wf_text_add(out, "  prompt     encoded with");
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        if (wf_sheet_reach(s, a) > 0)
            wf_text_add(out, "%s %s", acting++ > 0 ? "," : " the text parts of",
                        wf_letter(&letter, a));
    }
    wf_text_add(out, "%s\n", acting == 0 ? " the base model's text encoder" : "");
}

/* The layers to which a policy other than delta applies. */
static void add_mixed(const weft_plan *p, wf_text *out)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    int32_t         n = 0;

    if (p->mixed == WEFT_MIXED_DELTA) return;
    for (size_t l = 0; l < count; l++) {
        bool here = false;
        for (size_t i = 0; i < p->table.phases && !here; i++) {
            const wf_sheet *s = &p->table.phase[i];
            for (size_t k = 0; k < s->patched_count && !here; k++)
                here = (size_t)s->patched[k].layer == l &&
                       wf_mixed_matters(p, &layers[l], s->patched[k].patch->part,
                                        s->patched[k].patch->parts);
        }
        n += here;
    }
    wf_text_add(out, "  mixed      %s, where adapters depend on the weights: %d %s of the UNet\n",
                wf_mixed_name(p->mixed), (int)n, n == 1 ? "layer" : "layers");
}

/* ---- cost ------------------------------------------------------------------------------------ */

static void add_cost(const weft_plan *p, wf_text *out)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    wf_number_text side, merged;
    size_t         rows = 0;

    if (weft_plan_info_get(p, &info, NULL) != WEFT_OK) return;
    for (size_t i = 0; i < p->table.phases; i++) rows += p->table.phase[i].rows;
    wf_text_add(out, "\ncost\n  layers     %lld of %lld touched%s\n",
                (long long)info.touched_layers, (long long)info.layers,
                p->table.phases > 1 ? ", counted in each phase" : "");
    wf_text_add(
        out, "  memory     %s of stacked factors with the plan, %s of merged copies in each run\n",
        wf_bytes_text(&side, (size_t)info.side_bytes),
        wf_bytes_text(&merged, (size_t)info.merged_bytes));
    wf_text_add(out, "  table      %zu distinct %s for %d %s\n", rows, rows == 1 ? "row" : "rows",
                (int)p->table.calls, p->table.calls == 1 ? "call" : "calls");
}

/* How the layers of each block of a sheet are computed. */
static void add_paths(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    for (size_t i = 0, end; i < s->patched_count; i = end) {
        wf_short_text  block, other;
        wf_number_text side_text, merged_text;
        size_t         side = 0, merged = 0, side_bytes = 0, merged_bytes = 0;
        wf_block_name(&block, layers[s->patched[i].layer].name);
        for (end = i; end < s->patched_count; end++) {
            const wf_patch *x = s->patched[end].patch;
            const wf_layer *layer = &layers[x->layer];
            if (strcmp(block.text, wf_block_name(&other, layer->name)) != 0) break;
            side_bytes += wf_stack_floats(layer, &x->stack) * sizeof(float);
            if (!x->merged) {
                side++;
            } else {
                merged++;
                merged_bytes += wf_patch_merged_floats(x, layer) * sizeof(float);
            }
        }
        wf_text_add(out, "  %-18s %6zu %8zu  %14s %14s\n", block.text, side, merged,
                    wf_bytes_text(&side_text, side_bytes),
                    merged == 0 ? "-" : wf_bytes_text(&merged_text, merged_bytes));
    }
}

/* Why the layers of a sheet take their ways, a line for each reason. */
static void add_reasons(const wf_sheet *s, wf_text *out)
{
    for (int32_t reason = WEFT_REASON_ASKED; reason <= WEFT_REASON_DEPENDS; reason++) {
        size_t count[2] = { 0, 0 };
        for (size_t i = 0; i < s->patched_count; i++)
            count[s->patched[i].patch->merged] += s->patched[i].reason == reason;
        for (int way = 0; way < 2; way++)
            if (count[way] > 0)
                wf_text_add(out, "  %zu %s: %s\n", count[way], way ? "merged" : "side",
                            wf_reason_words(reason));
    }
}

static void add_all_paths(const weft_plan *p, wf_text *out)
{
    size_t any = p->table.text.patched_count;

    for (size_t i = 0; i < p->table.phases; i++) any += p->table.phase[i].patched_count;
    if (any == 0) return;
    wf_text_add(out, "\n  %-18s %6s %8s  %14s %14s\n", "block", "side", "merged", "factors",
                "merged copies");
    for (size_t i = 0; i < p->table.phases; i++) {
        if (p->table.phases > 1) wf_text_add(out, "  phase %zu\n", i);
        add_paths(p, &p->table.phase[i], out);
        add_reasons(&p->table.phase[i], out);
    }
    add_paths(p, &p->table.text, out);
    add_reasons(&p->table.text, out);
}

/* ---- regions --------------------------------------------------------------------------------- */

static void add_regions(const weft_plan *p, wf_text *out)
{
    if (p->regions > 0)
        wf_text_add(out, "\nregions with prompts of their own\n");
    for (int32_t i = 0; i < p->regions; i++) {
        const wf_plan_mask *m = wf_plan_region_mask(p, i);
        const wf_region    *r = &p->region[i];
        wf_letter_text      letter;
        wf_number_text      share;

        wf_text_add(out, "  %-3d %s %% of the image", (int)i,
                    wf_fixed(&share, 100 * wf_plan_mask_mean(m), 1));
        if (r->adapter >= 0)
            wf_text_add(out, ", where %s acts, whose prompt is the only one that it changes",
                        wf_letter(&letter, r->adapter));
        wf_text_add(out, "%s\n", r->isolated ? "; isolated" : "");
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* One phase of several: its calls and what they cost. */
static void add_phase(const wf_sheet *s, size_t index, wf_text *out)
{
    int32_t last = s->first + s->calls - 1, evaluations = wf_sheet_branches(s) + s->base;

    wf_text_add(out, "  phase %zu    %s, calls %d to %d, %d %s in each\n", index, s->method->title,
                (int)s->first, (int)last, (int)evaluations,
                evaluations == 1 ? "evaluation" : "evaluations");
}

static void write_plan(const weft_plan *p, wf_text *out)
{
    const wf_table *t = &p->table;
    int32_t         most = wf_plan_evaluations(p);

    wf_text_add(out, "%s: %d %s, %d %s, %s%d %s of the network in each (guidance doubles it)\n",
                t->phases == 1 ? t->phase[0].method->title : "Plan in phases", (int)p->adapters,
                p->adapters == 1 ? "adapter" : "adapters", (int)t->calls,
                t->calls == 1 ? "call" : "calls", t->phases == 1 ? "" : "at most ", (int)most,
                most == 1 ? "evaluation" : "evaluations");
    for (size_t i = 0; i < t->phases; i++) {
        if (t->phases > 1) add_phase(&t->phase[i], i, out);
        if (t->phase[i].method->describe != NULL)
            t->phase[i].method->describe(p, &t->phase[i], out);
    }
    if (p->adapters > 0) add_text_policy(p, out);
    if (p->adapters > 0) add_mixed(p, out);
    wf_align_explain(p, out);
    wf_balance_explain(p, out);
    wf_tokens_explain(p->tokens, out);
    add_adapters(p, out);
    add_regions(p, out);
    if (p->adapters == 0) return;
    add_cost(p, out);
    add_all_paths(p, out);
    wf_text_add(out, "\ntable\n");
    for (size_t i = 0; i < t->phases; i++) {
        if (t->phases > 1) add_phase(&t->phase[i], i, out);
        if (t->phase[i].method->explain != NULL) t->phase[i].method->explain(p, &t->phase[i], out);
    }
    if (t->warnings.len > 0) wf_text_add(out, "\nwarnings\n%s", t->warnings.s);
}

weft_status weft_plan_text(const weft_plan *plan, char *buf, size_t cap, size_t *needed,
                           weft_error *err)
{
    wf_text     text;
    weft_status st = WEFT_OK;

    if (needed != NULL) *needed = 0;
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_text: plan is NULL");
    if (buf == NULL && cap != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_text: buf is NULL but cap is %zu", cap);
    if (!plan->sealed) return wf_fail(err, WEFT_E_STATE, "weft_plan_text: the plan is not sealed");
    wf_text_init(&text, &plan->alloc);
    write_plan(plan, &text);
    if (text.failed) st = wf_nomem(err, text.len, "a plan's text");
    else wf_copy_out(text.s, text.len, buf, cap, needed);
    wf_text_free(&text);
    return st;
}
