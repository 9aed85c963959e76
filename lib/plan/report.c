/* report.c - a sealed plan as JSON: what explain.c says in words, for programs.
 *
 * The run adds what depends on the size of an image. Names of fields stay (docs/explain.md). */
#include "plan/fields.h"
#include "plan/method/method.h"

static const char *const reasons[] = { "none", "asked", "text", "norm", "cheap", "calls",
                                       "branches", "columns", "mask", "whole", "products",
                                       "depends" };

_Static_assert(WF_LEN(reasons) == WEFT_REASON_DEPENDS + 1, "a word for each reason");

typedef struct report {
    const weft_plan *p;
    wf_doc          *d;
    const wf_layer  *layers;
    size_t           count;
    const double    *strength; /* [calls][adapters] */
    const double    *norm;     /* [adapters]        */
    bool            *listed;   /* [layers] does any adapter act there, in any phase? */
} report;

void wf_node_washed(wf_doc *d, wf_node *in, const char *key, const char *s)
{
    char clean[512];

    wf_wash(clean, sizeof clean, s);
    wf_node_text(d, in, key, clean);
}

static void add_mask(const report *r, wf_node *in, const wf_plan_mask *m)
{
    wf_node *o = wf_node_object(r->d, in, "mask");

    wf_node_int(r->d, o, "width", m->w);
    wf_node_int(r->d, o, "height", m->h);
    wf_node_double(r->d, o, "mean", wf_plan_mask_mean(m));
    wf_node_float(r->d, o, "text", m->text);
}

static void add_adapter(const report *r, wf_node *list, int32_t a)
{
    const weft_plan *p = r->p;
    const wf_entry  *e = &p->entry[a];
    wf_node         *o = wf_node_object(r->d, list, NULL), *texts;
    wf_letter_text   letter;
    int32_t          denoiser = 0, text = 0;

    for (size_t l = 0; l < r->count; l++) {
        if (e->bound->first[l] == e->bound->first[l + 1]) continue;
        if (r->layers[l].component == WEFT_COMPONENT_DENOISER) denoiser++;
        else text++;
    }
    wf_node_text(r->d, o, "letter", wf_letter(&letter, a));
    wf_node_washed(r->d, o, "name", wf_adapter_name(e->bound->adapter));
    wf_node_text(r->d, o, "part", wf_plan_role_name(p, a));
    wf_node_float(r->d, o, "weight", e->weight);
    texts = wf_node_list(r->d, o, "text_weights");
    for (int32_t i = 0; i < WF_TEXT_ENCODERS; i++)
        wf_node_float(r->d, texts, NULL, e->text_weight[i]);
    wf_node_float(r->d, o, "share", e->share);
    wf_node_double(r->d, o, "balance", wf_balance_at(p->table.balanced, a));
    if (e->blocks != NULL) wf_node_washed(r->d, o, "blocks", wf_blocks_text(e->blocks));
    wf_node_bool(r->d, o, "curve", e->curve != NULL);
    wf_node_int(r->d, o, "layers", denoiser);
    wf_node_int(r->d, o, "text_layers", text);
    wf_node_bool(r->d, o, "in_prompt", wf_sheet_reach(&p->table.text, a) > 0);
    wf_node_double(r->d, o, "norm", r->norm[a]);
    if (e->mask != NULL) add_mask(r, o, wf_plan_mask_of(p, a));
}

static void add_region(const report *r, wf_node *list, int32_t i)
{
    const wf_region *of = &r->p->region[i];
    wf_node         *o = wf_node_object(r->d, list, NULL);
    wf_letter_text   letter;

    if (of->adapter >= 0) wf_node_text(r->d, o, "adapter", wf_letter(&letter, of->adapter));
    wf_node_bool(r->d, o, "isolated", of->isolated);
    add_mask(r, o, wf_plan_region_mask(r->p, i));
}

/* An image prompt, with its weight in each call. */
static weft_status add_image(const report *r, wf_node *list, int32_t i, weft_error *err)
{
    weft_image_prompt_info info = WEFT_IMAGE_PROMPT_INFO_INIT;
    wf_node               *o = wf_node_object(r->d, list, NULL), *weights;

    WF_TRY(weft_plan_image_prompt(r->p, i, &info, err));
    wf_node_washed(r->d, o, "name", info.name);
    wf_node_float(r->d, o, "weight", info.weight);
    wf_node_washed(r->d, o, "blocks", info.blocks);
    wf_node_int(r->d, o, "pictures", info.images);
    wf_node_int(r->d, o, "tokens", info.tokens);
    wf_node_int(r->d, o, "layers", info.layers);
    wf_node_bool(r->d, o, "masked", info.masked != 0);
    weights = wf_node_list(r->d, o, "calls");
    for (int32_t n = 0; n < r->p->table.calls; n++)
        wf_node_float(r->d, weights, NULL, wf_plan_image_weight(r->p, i, n));
    return WEFT_OK;
}

static weft_status add_phase(const report *r, wf_node *list, int32_t i, weft_error *err)
{
    const wf_sheet  *s = &r->p->table.phase[i];
    weft_phase_info  info = WEFT_PHASE_INFO_INIT;
    wf_node         *o = wf_node_object(r->d, list, NULL), *options;

    WF_TRY(weft_plan_phase(r->p, i, &info, err));
    wf_node_text(r->d, o, "method", info.method);
    wf_node_text(r->d, o, "title", info.title);
    wf_node_int(r->d, o, "first", info.first);
    wf_node_int(r->d, o, "calls", info.calls);
    wf_node_int(r->d, o, "branches", info.branches);
    wf_node_int(r->d, o, "evaluations", info.evaluations);
    wf_node_int(r->d, o, "layers", info.touched_layers);
    wf_node_int(r->d, o, "merged", info.merged_layers);
    wf_node_int(r->d, o, "factor_bytes", info.side_bytes);
    wf_node_int(r->d, o, "copy_bytes", info.merged_bytes);
    if (s->method->fields == NULL || s->options == NULL) return WEFT_OK;
    options = wf_node_object(r->d, o, "options");
    return wf_fields_write(r->d, options, s->method->fields, s->options->data, WF_EVERY, NULL, NULL,
                           err);
}

static weft_status add_call(const report *r, wf_node *o, int32_t n, weft_error *err)
{
    weft_call_info info = WEFT_CALL_INFO_INIT;
    wf_node       *list;

    WF_TRY(weft_plan_call(r->p, n, &info, err));
    wf_node_int(r->d, o, "call", n);
    wf_node_int(r->d, o, "phase", info.phase);
    wf_node_int(r->d, o, "row", info.row);
    list = wf_node_list(r->d, o, "strength");
    for (int32_t a = 0; a < r->p->adapters; a++)
        wf_node_double(r->d, list, NULL,
                       r->strength[(size_t)n * (size_t)r->p->adapters + (size_t)a]);
    wf_node_int(r->d, o, "evaluations", info.evaluations);
    wf_node_int(r->d, o, "reused", info.reused);
    list = wf_node_list(r->d, o, "branches");
    for (int32_t b = 0; b < info.branches; b++) {
        wf_node *branch = wf_node_object(r->d, list, NULL);
        float    weight, divisor;
        WF_TRY(weft_plan_branch_weight(r->p, n, b, &weight, &divisor, err));
        wf_node_double(r->d, branch, "share", (double)weight / (double)divisor);
        wf_node_bool(r->d, branch, "reuses", wf_plan_reuses(r->p, n, b));
    }
    return WEFT_OK;
}

static void list_layers(report *r)
{
    weft_layer_use use = WEFT_LAYER_USE_INIT;

    for (size_t l = 0; l < r->count; l++)
        for (size_t i = 0; i < r->p->table.phases; i++)
            if (weft_plan_layer(r->p, (int32_t)i, (int64_t)l, &use, NULL) == WEFT_OK &&
                use.path != WEFT_PATH_AUTO)
                r->listed[l] = true;
}

static weft_status add_layer(const report *r, wf_node *list, size_t l, weft_error *err)
{
    const wf_layer *layer = &r->layers[l];
    bool            text = wf_component_encoder(layer->component) >= 0;
    wf_node        *o = wf_node_object(r->d, list, NULL), *ways;
    wf_short_text   block;

    wf_node_text(r->d, o, "name", layer->name);
    wf_node_text(r->d, o, "block", wf_block_name(&block, layer->name));
    ways = wf_node_list(r->d, o, "ways"); /* by phase; of a text encoder's one */
    for (size_t i = 0; i < (text ? 1 : r->p->table.phases); i++) {
        weft_layer_use use = WEFT_LAYER_USE_INIT;
        wf_node       *way = wf_node_object(r->d, ways, NULL);
        WF_TRY(weft_plan_layer(r->p, (int32_t)i, (int64_t)l, &use, err));
        wf_node_text(r->d, way, "path", use.path == WEFT_PATH_MERGED ? "merged"
                                        : use.path == WEFT_PATH_SIDE ? "side" : "base");
        wf_node_text(r->d, way, "reason", reasons[use.reason]);
        wf_node_text(r->d, way, "why", use.words);
        wf_node_int(r->d, way, "parts", use.parts);
        wf_node_int(r->d, way, "rank", use.rank);
        wf_node_double(r->d, way, "work", use.work);
        wf_node_int(r->d, way, "bytes", use.bytes);
    }
    return WEFT_OK;
}

/* The cells of an adapter in a branch of a row, over the layers of the denoiser that are listed. */
static void add_cells(const report *r, wf_node *list, const wf_sheet *s, const wf_row *row,
                      int32_t branch, int32_t adapter)
{
    for (size_t l = 0; l < r->count; l++)
        if (r->listed[l] && r->layers[l].component == WEFT_COMPONENT_DENOISER)
            wf_node_float(r->d, list, NULL,
                          wf_sheet_cell(s, row, branch, (int64_t)l, adapter).number);
}

static bool acts(const wf_sheet *s, const wf_row *row, int32_t branch, int32_t adapter)
{
    for (size_t k = 0; k < s->slots; k++)
        if (s->slot[k].adapter == adapter &&
            wf_sheet_cell(s, row, branch, s->slot[k].layer, adapter).number != 0)
            return true;
    return false;
}

/* rows[row][branch].A = a coefficient for each listed layer of the denoiser. */
static void add_table(const report *r, wf_node *list, const wf_sheet *s)
{
    wf_node *rows = wf_node_list(r->d, list, NULL);

    for (size_t i = 0; i < s->rows; i++) {
        const wf_row *row = &s->row[i];
        wf_node      *branches = wf_node_list(r->d, rows, NULL);
        for (int32_t b = 0; b < row->branches - s->base; b++) {
            wf_node *of = wf_node_object(r->d, branches, NULL);
            for (int32_t a = 0; a < r->p->adapters; a++) {
                wf_letter_text letter;
                if (!acts(s, row, b, a)) continue;
                add_cells(r, wf_node_list(r->d, of, wf_letter(&letter, a)), s, row, b, a);
            }
        }
    }
}

static void add_warnings(const report *r, wf_node *list)
{
    const wf_text *w = &r->p->table.warnings;

    for (const char *s = w->s, *end; w->len > 0 && *s != '\0'; s = *end != '\0' ? end + 1 : end) {
        char line[512];
        end = s + strcspn(s, "\n");
        wf_format(line, sizeof line, "%.*s", (int)WF_MIN(end - s, 500), s);
        wf_node_washed(r->d, list, NULL, line + strspn(line, " "));
    }
}

static weft_status add_all(const report *r, wf_node **call, weft_error *err)
{
    const weft_plan *p = r->p;
    wf_doc          *d = r->d;
    wf_node         *list = wf_node_list(d, d->root, "adapters");

    for (int32_t a = 0; a < p->adapters; a++) add_adapter(r, list, a);
    list = wf_node_list(d, d->root, "regions");
    for (int32_t i = 0; i < p->regions; i++) add_region(r, list, i);
    list = wf_node_list(d, d->root, "image_prompts");
    for (int32_t i = 0; i < p->images; i++) WF_TRY(add_image(r, list, i, err));
    if (p->align != NULL)
        WF_TRY(wf_fields_write(d, wf_node_object(d, d->root, "align"), &wf_align_fields,
                               p->align->data, WF_EVERY, NULL, NULL, err));
    list = wf_node_list(d, d->root, "phases");
    for (size_t i = 0; i < p->table.phases; i++) WF_TRY(add_phase(r, list, (int32_t)i, err));
    list = wf_node_list(d, d->root, "calls");
    for (int32_t n = 0; n < p->table.calls; n++) {
        call[n] = wf_node_object(d, list, NULL);
        WF_TRY(add_call(r, call[n], n, err));
    }
    list = wf_node_list(d, d->root, "layers");
    for (size_t l = 0; l < r->count; l++)
        if (r->listed[l]) WF_TRY(add_layer(r, list, l, err));
    list = wf_node_list(d, d->root, "table");
    for (size_t i = 0; i < p->table.phases; i++) add_table(r, list, &p->table.phase[i]);
    add_warnings(r, wf_node_list(d, d->root, "warnings"));
    return WEFT_OK;
}

weft_status wf_plan_report(const weft_plan *p, const double *strength, const double *norm,
                           wf_doc *d, wf_node **call, weft_error *err)
{
    report      r = { .p = p, .d = d, .strength = strength, .norm = norm };
    weft_status st;

    r.layers = wf_model_layers(p->model, &r.count);
    r.listed = wf_zalloc(&d->alloc, r.count, sizeof *r.listed);
    if (r.listed == NULL) return wf_nomem(err, r.count, "a report of a plan");
    list_layers(&r);
    st = add_all(&r, call, err);
    wf_free(&d->alloc, r.listed);
    return st;
}
