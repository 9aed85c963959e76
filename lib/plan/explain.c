/* explain.c - a sealed plan in words, for someone who wonders what a picture was made with.
 *
 * What all methods share stands here: the adapters, who acts on the prompt, what it costs, how each block
 * is computed. The method itself says what its options mean and folds its own table into few lines; a
 * table printed whole would be thousands of cells, and the eye wants runs. */
#include <math.h>

#include "plan/method.h"

/* ---- names and numbers ------------------------------------------------------------------------------------ */

const char *wf_letter(wf_letter_text *buf, int32_t adapter)
{
    if (adapter < 26) wf_format(buf->text, sizeof buf->text, "%c", 'A' + (int)adapter);
    else wf_format(buf->text, sizeof buf->text, "%c%d", 'A' + (int)(adapter % 26), (int)(adapter / 26) % 100);
    return buf->text;
}

const char *wf_short_name(wf_short_text *buf, const char *layer)
{
    static const char *const words[][2] = {
        { "unet.", "" }, { "down_blocks.", "down." }, { "up_blocks.", "up." }, { "mid_block", "mid" },
        { "attentions.", "att." }, { "transformer_blocks.", "tf." }, { "resnets.", "res." },
    };
    size_t n = 0;

    for (const char *s = layer; *s != '\0' && n + 12 < sizeof buf->text; ) {
        size_t w = 0;
        while (w < WF_LEN(words) && strncmp(s, words[w][0], strlen(words[w][0])) != 0) w++;
        if (w == WF_LEN(words)) {
            buf->text[n++] = *s++;
        } else {
            memcpy(buf->text + n, words[w][1], strlen(words[w][1]));
            n += strlen(words[w][1]);
            s += strlen(words[w][0]);
        }
    }
    buf->text[n] = '\0';
    return buf->text;
}

const char *wf_block_name(wf_short_text *buf, const char *layer)
{
    wf_short_text name;
    const char   *s = wf_short_name(&name, layer);
    size_t        n = strcspn(s, ".");

    if (strncmp(s, "down.", 5) == 0 || strncmp(s, "up.", 3) == 0) n += 1 + strcspn(s + n + 1, ".");
    memcpy(buf->text, s, n);
    buf->text[n] = '\0';
    return buf->text;
}

const char *wf_fixed(wf_number_text *buf, double v, int32_t decimals)
{
    long long unit = 1, scaled;

    if (!isfinite(v) || fabs(v) > 1e11) {
        if (isinf(v)) wf_format(buf->text, sizeof buf->text, "%s", v > 0 ? "inf" : "-inf");
        else wf_number(buf, v);
        return buf->text;
    }
    for (int32_t i = 0; i < decimals; i++) unit *= 10;
    scaled = (long long)floor(fabs(v) * (double)unit + 0.5);
    if (decimals == 0) {
        wf_format(buf->text, sizeof buf->text, "%s%lld", v < 0 && scaled > 0 ? "-" : "", scaled);
    } else {
        wf_format(buf->text, sizeof buf->text, "%s%lld.%0*lld", v < 0 && scaled > 0 ? "-" : "", scaled / unit,
                  (int)decimals, scaled % unit);
    }
    return buf->text;
}

static const char *bytes_text(wf_number_text *buf, size_t bytes)
{
    static const char *const units[] = { "bytes", "kB", "MB", "GB" };
    wf_number_text number;
    double         v = (double)bytes;
    size_t         u = 0;

    while (v >= 1000 && u + 1 < WF_LEN(units)) {
        v /= 1000;
        u++;
    }
    wf_format(buf->text, sizeof buf->text, "%.16s %s", wf_fixed(&number, v, u == 0 ? 0 : 1), units[u]);
    return buf->text;
}

/* ---- adapters ------------------------------------------------------------------------------------------------ */

static void add_adapter(const weft_plan *p, int32_t a, wf_text *out)
{
    const wf_entry   *e = &p->entry[a];
    size_t            count;
    const wf_layer   *layers = wf_model_layers(p->model, &count);
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    int32_t           unet = 0, text = 0;
    char              ranks[32];
    wf_letter_text    letter;
    wf_number_text    weight, text_weight;

    for (size_t l = 0; l < count; l++) {
        if (e->bound->module[l] < 0) continue;
        if (layers[l].component == 0) unet++;
        else text++;
    }
    if (weft_adapter_info_get(e->bound->adapter, &info, NULL) != WEFT_OK) info.dialect = "";
    if (info.rank_min == info.rank_max) wf_format(ranks, sizeof ranks, "%d", (int)info.rank_max);
    else wf_format(ranks, sizeof ranks, "%d-%d", (int)info.rank_min, (int)info.rank_max);
    wf_text_add(out, "  %-3s %-9s %-9s %-8s %5d %5d  %-7s %-13s %s\n", wf_letter(&letter, a),
                wf_number(&weight, e->weight), wf_number(&text_weight, e->text_weight), wf_plan_part(p, a), (int)unet,
                (int)text, ranks, info.dialect, wf_adapter_name(e->bound->adapter));
    if (e->bound->select != NULL) wf_text_add(out, "      on %s alone\n", e->bound->select);
    if (e->bound->exclude != NULL) wf_text_add(out, "      not on %s\n", e->bound->exclude);
    if (e->weight == 0) wf_text_add(out, "      of weight 0: the UNet is left as it is\n");
}

static void add_adapters(const weft_plan *p, wf_text *out)
{
    if (p->adapters == 0) {
        wf_text_add(out, "\nNo adapters: the base model, bit for bit.\n");
        return;
    }
    wf_text_add(out, "\nadapters\n      %-9s %-9s %-8s %5s %5s  %-7s %-13s %s\n", "weight", "text", "role", "unet", "text",
                "rank", "dialect", "name");
    for (int32_t a = 0; a < p->adapters; a++) add_adapter(p, a, out);
}

static void add_text_policy(const weft_plan *p, wf_text *out)
{
    int32_t acting = 0;

    wf_text_add(out, "  prompt     encoded with");
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        bool           acts = false;
        for (size_t s = 0; s < p->table.slots && !acts; s++)
            acts = p->table.slot[s].adapter == a &&
                   wf_model_layers(p->model, &(size_t){ 0 })[p->table.slot[s].layer].component != 0 &&
                   wf_plan_text_cell(p, a, p->table.slot[s].layer) != 0;
        if (acts)
            wf_text_add(out, "%s %s", acting++ > 0 ? "," : " the text parts of", wf_letter(&letter, a));
    }
    wf_text_add(out, "%s\n", acting == 0 ? " the base model's text encoder" : "");
}

/* Where the policy for adapters that depend on the weight says something else than delta. */
static void add_mixed(const weft_plan *p, wf_text *out)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    int32_t         n = 0;

    if (p->mixed == WEFT_MIXED_DELTA) return;
    for (size_t i = 0; i < p->table.touched_count; i++) {
        const wf_touched *at = &p->table.touched[i];
        n += layers[at->layer].component == 0 && wf_mixed_matters(p, &layers[at->layer], at->strand, at->parts);
    }
    wf_text_add(out, "  mixed      %s, where adapters depend on the weights: %d %s of the UNet\n", wf_mixed_name(p->mixed),
                (int)n, n == 1 ? "layer" : "layers");
}

/* ---- cost ------------------------------------------------------------------------------------------------------ */

static void add_cost(const weft_plan *p, wf_text *out)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    wf_number_text side, merged;

    if (weft_plan_info_get(p, &info, NULL) != WEFT_OK) return;
    wf_text_add(out, "\ncost\n  layers     %lld of %lld touched\n", (long long)info.touched_layers,
                (long long)info.layers);
    wf_text_add(out, "  memory     %s of stacked factors with the plan, %s of merged copies in each run\n",
                bytes_text(&side, (size_t)info.side_bytes), bytes_text(&merged, (size_t)info.merged_bytes));
    wf_text_add(out, "  table      %zu distinct %s for %d %s\n", p->table.rows, p->table.rows == 1 ? "row" : "rows",
                (int)p->table.calls, p->table.calls == 1 ? "call" : "calls");
}

/* How the layers of each block are computed. */
static void add_paths(const weft_plan *p, wf_text *out)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    if (p->table.touched_count == 0) return;
    wf_text_add(out, "\n  %-18s %6s %8s  %14s %14s\n", "block", "side", "merged", "factors", "merged copies");
    for (size_t i = 0, end; i < p->table.touched_count; i = end) {
        wf_short_text  block, other;
        wf_number_text side_text, merged_text;
        size_t         side = 0, merged = 0, side_bytes = 0, merged_bytes = 0;
        wf_block_name(&block, layers[p->table.touched[i].layer].name);
        for (end = i; end < p->table.touched_count; end++) {
            const wf_touched *at = &p->table.touched[end];
            const wf_layer   *layer = &layers[at->layer];
            if (strcmp(block.text, wf_block_name(&other, layer->name)) != 0) break;
            side_bytes += wf_stack_floats(layer, &at->stack) * sizeof(float);
            if (!at->merged) {
                side++;
            } else {
                merged++;
                merged_bytes += wf_merged_floats(at, layer) * sizeof(float);
            }
        }
        wf_text_add(out, "  %-18s %6zu %8zu  %14s %14s\n", block.text, side, merged, bytes_text(&side_text, side_bytes),
                    merged == 0 ? "-" : bytes_text(&merged_text, merged_bytes));
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void write_plan(const weft_plan *p, wf_text *out)
{
    wf_text_add(out, "%s: %d %s, %d %s, %d %s of the network in each (guidance doubles it)\n", p->method->title,
                (int)p->adapters, p->adapters == 1 ? "adapter" : "adapters", (int)p->table.calls,
                p->table.calls == 1 ? "call" : "calls", (int)p->table.branches,
                p->table.branches == 1 ? "evaluation" : "evaluations");
    if (p->method->describe != NULL) p->method->describe(p, out);
    if (p->adapters > 0) add_text_policy(p, out);
    if (p->adapters > 0) add_mixed(p, out);
    wf_words_explain(p->words, out);
    add_adapters(p, out);
    if (p->adapters == 0) return;
    add_cost(p, out);
    add_paths(p, out);
    wf_text_add(out, "\ntable\n");
    p->method->explain(p, out);
    if (p->table.warnings.len > 0) wf_text_add(out, "\nwarnings\n%s", p->table.warnings.s);
}

weft_status weft_plan_text(const weft_plan *plan, char *buf, size_t cap, size_t *needed, weft_error *err)
{
    wf_text     text;
    weft_status st = WEFT_OK;

    if (needed != NULL) *needed = 0;
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_text: plan is NULL");
    if (buf == NULL && cap != 0) return wf_fail(err, WEFT_E_ARG, "weft_plan_text: buf is NULL but cap is %zu", cap);
    if (!plan->sealed) return wf_fail(err, WEFT_E_STATE, "weft_plan_text: the plan is not sealed");
    wf_text_init(&text, &plan->alloc);
    write_plan(plan, &text);
    if (text.failed) st = wf_nomem(err, text.len, "a plan's text");
    else wf_copy_out(text.s, text.len, buf, cap, needed);
    wf_text_free(&text);
    return st;
}
