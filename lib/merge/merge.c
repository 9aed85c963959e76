/* merge.c - weft_adapter_merge(): options and sources are checked, layers merged one by one.
 *
 * Everything that a caller can have wrong is found before the first layer, except what only a layer
 * tells: ranks that differ, families without factors. */
#include <float.h>
#include <math.h>

#include "base/structs.h"
#include "merge/merge_internal.h"

enum { SOURCES_MAX = 1024 };

#define LIST(name) &wf_merge_##name,
static const wf_merge_method *const methods[] = { WF_MERGES(LIST) };
#undef LIST

/* One of the adapters, and where it acts. */
typedef struct source {
    weft_merge_source given;
    char             *select;  /* copies of the patterns, or NULL                   */
    char             *exclude;
    weft_report      *report;
    weft_adapter     *adapter; /* the given one, or a copy that has all its tensors */
    const wf_slice   *slice;   /* in the order of the layers                        */
    size_t            slices;
    size_t            at;      /* the first that is not merged yet                  */
} source;

typedef struct merging {
    weft_model            *model;
    const wf_layer        *layers;
    size_t                 layer_count;
    weft_merge_options     o;
    weft_allocator         alloc;
    const wf_merge_method *method;
    source                *source;
    size_t                 count;
    size_t                 fixed;  /* the source that the others give way to, or count */
    wf_merge_part         *part;   /* [count] those of one layer */
    weft_tensors          *tensors;
    weft_merge_report     *report;
} merging;

/* ---- options --------------------------------------------------------------------------------- */

static weft_status choose_method(merging *g, weft_error *err)
{
    int32_t kind = g->o.kind == 0 ? WEFT_MERGE_SUM : g->o.kind;

    for (size_t i = 0; i < WF_LEN(methods); i++)
        if (methods[i]->kind == kind) g->method = methods[i];
    return g->method != NULL ? WEFT_OK
                             : wf_fail(err, WEFT_E_ARG, "a merge of kind %d, wanted a WEFT_MERGE_*",
                                       (int)kind);
}

static bool can(const merging *g, uint32_t what)
{
    return (g->method->can & what) != 0;
}

static weft_status check_numbers(const merging *g, size_t count, weft_error *err)
{
    const weft_merge_options *o = &g->o;
    wf_number_text            n;

    if (can(g, WF_MERGE_DENSITY) && !(o->density > 0 && o->density <= 1))
        return wf_fail(err, WEFT_E_ARG, "%s keeps a density above 0, at most 1; it is %s",
                       g->method->title, wf_number(&n, o->density));
    if (o->rank < 0 || o->conv_rank < 0)
        return wf_fail(err, WEFT_E_ARG, "a merge to rank %d, wanted 1 or more",
                       (int)WF_MIN(o->rank, o->conv_rank));
    if (o->error != 0 && !(o->error > 0 && o->error < 1))
        return wf_fail(err, WEFT_E_ARG, "a relative error of %s is asked, wanted above 0, below 1",
                       wf_number(&n, o->error));
    if (o->clamp != 0 && !(o->clamp > 0 && o->clamp <= 1))
        return wf_fail(err, WEFT_E_ARG, "factors clamped to quantile %s, wanted above 0, at most 1",
                       wf_number(&n, o->clamp));
    if (!(o->strength >= 0))
        return wf_fail(err, WEFT_E_ARG, "others give way with a strength of %s, wanted 0 or more",
                       wf_number(&n, o->strength));
    if (o->majority < WEFT_MAJORITY_TOTAL || o->majority > WEFT_MAJORITY_FREQUENCY)
        return wf_fail(err, WEFT_E_ARG, "majority is %d, wanted a WEFT_MAJORITY_*",
                       (int)o->majority);
    for (size_t i = 0; o->mixer != NULL && i < count * count; i++)
        if (!isfinite(o->mixer[i]))
            return wf_fail(err, WEFT_E_ARG, "entry %zu of the mixer is not a finite number", i);
    return WEFT_OK;
}

/* An option that could have no effect is refused. */
static weft_status check_meaning(const merging *g, weft_error *err)
{
    const weft_merge_options *o = &g->o;
    bool factored = o->rank > 0 || o->error > 0;
    bool apart = (o->flags & (WEFT_MERGE_FACTORS | WEFT_MERGE_KOHYA)) != 0;
    const struct { bool wrong; const char *what; } rules[] = {
        { o->density != 0 && !can(g, WF_MERGE_DENSITY),
          "it keeps all entries, and has no density" },
        { o->majority != 0 && !can(g, WF_MERGE_MAJORITY),
          "it elects no sign, and has no majority" },
        { o->seed != 0 && !can(g, WF_MERGE_SEED), "it draws nothing, and has no seed" },
        { o->mixer != NULL && !can(g, WF_MERGE_MIXES), "it has no mixer" },
        { o->strength != 0 && !can(g, WF_MERGE_GIVES_WAY),
          "no adapter gives way to another, and there is no strength" },
        { (o->flags & WEFT_MERGE_FACTORS) != 0 && !can(g, WF_MERGE_FACTORED),
          "it does not take factors apart" },
        { (o->flags & WEFT_MERGE_KOHYA) != 0 && !can(g, WF_MERGE_AS_KOHYA),
          "kohya's merge has a sum and a concatenation, and not this" },
        { (o->flags & WEFT_MERGE_FACTORS) != 0 && (o->flags & WEFT_MERGE_KOHYA) != 0,
          "factors go PEFT's way or kohya's, not both" },
        { apart && (o->flags & WEFT_MERGE_DIRECTION) != 0,
          "the directions of DoRA are not for factors apart" },
        { apart && factored, "factors that are merged apart keep their rank" },
        { g->method->kind == WEFT_MERGE_CONCAT && factored,
          "the ranks add up; the sum can have a rank" },
        { (o->flags & WEFT_MERGE_DOUBLE_SCALE) != 0 &&
              (!factored || g->method->stack != NULL || apart),
          "PEFT's doubled scale is of what is factored by SVD" },
        { o->conv_rank != 0 && o->rank == 0, "a rank of convolutions is beside a rank" },
        { o->clamp != 0 && !factored, "what is clamped is factored by SVD, to a rank or an error" },
    };

    for (size_t i = 0; i < WF_LEN(rules); i++)
        if (rules[i].wrong)
            return wf_fail(err, WEFT_E_ARG, "%s: %s", g->method->title, rules[i].what);
    return WEFT_OK;
}

static weft_status read_options(merging *g, size_t count, const weft_merge_options *options,
                                weft_error *err)
{
    const uint32_t flags = WEFT_MERGE_FACTORS | WEFT_MERGE_DOUBLE_SCALE | WEFT_MERGE_KOHYA |
                           WEFT_MERGE_DIRECTION;

    WF_TRY(WF_OPTIONS(&g->o, options, weft_merge_options, flags, err));
    WF_TRY(wf_check_allocator(g->o.allocator, err));
    g->alloc = wf_allocator(g->o.allocator);
    WF_TRY(choose_method(g, err));
    WF_TRY(check_numbers(g, count, err));
    return check_meaning(g, err);
}

/* ---- sources --------------------------------------------------------------------------------- */

static weft_status read_source(source *s, const uint8_t *at, size_t i, uint32_t stride,
                               weft_error *err)
{
    const uint32_t     flags = WEFT_SOURCE_PARTIAL | WEFT_SOURCE_TEXT_WEIGHT | WEFT_SOURCE_FIXED;
    weft_merge_source *given = &s->given;
    uint32_t           size;

    memcpy(&size, at, sizeof size);
    if (size != stride)
        return wf_fail(err, WEFT_E_ARG, "source %zu: struct_size is %u, but the first has %u", i,
                       size, stride);
    WF_TRY(WF_OPTIONS(given, at, weft_merge_source, flags, err));
    if (given->adapter == NULL) return wf_fail(err, WEFT_E_ARG, "source %zu has no adapter", i);
    if ((given->flags & WEFT_SOURCE_TEXT_WEIGHT) == 0) given->text_weight = given->weight;
    if (!isfinite(given->weight) || !isfinite(given->text_weight))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: its weight is not a finite number",
                       wf_adapter_name(given->adapter));
    return WEFT_OK;
}

static bool selected(const source *s, const wf_layer *l)
{
    return (s->select == NULL || wf_glob_any(s->select, l->name)) &&
           (s->exclude == NULL || !wf_glob_any(s->exclude, l->name));
}

/* Where the source acts. */
static weft_status bind(const merging *g, source *s, weft_error *err)
{
    bool        partial = (s->given.flags & WEFT_SOURCE_PARTIAL) != 0;
    const char *name = wf_adapter_name(s->given.adapter);
    size_t      kept = 0;

    WF_TRY(wf_glob_copy(&s->select, s->given.select, name, "select", &g->alloc, err));
    WF_TRY(wf_glob_copy(&s->exclude, s->given.exclude, name, "exclude", &g->alloc, err));
    WF_TRY(weft_report_create(g->model, s->given.adapter, &s->report, err));
    WF_TRY(wf_report_verdict(s->report, partial, err));
    s->slice = wf_report_slices(s->report, &s->slices);
    for (size_t i = 0; i < s->slices; i++) {
        const wf_layer *l = &g->layers[s->slice[i].layer];
        if (l->component != WEFT_COMPONENT_DENOISER && !wf_is_text(l->component))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "adapter %s: %s: adapters act on the UNet and the text encoders",
                           name, l->name);
        kept += selected(s, l);
    }
    if (kept == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "adapter %s: its patterns leave none of its layers", name);
    return wf_adapter_complete(s->given.adapter, g->layers, s->slice, s->slices, &s->adapter, err);
}

/* Which of the sources the others give way to: the one that says so, or the last. */
static weft_status find_fixed(merging *g, weft_error *err)
{
    g->fixed = g->count;
    for (size_t i = 0; i < g->count; i++) {
        if ((g->source[i].given.flags & WEFT_SOURCE_FIXED) == 0) continue;
        if (!can(g, WF_MERGE_GIVES_WAY))
            return wf_fail(err, WEFT_E_ARG, "%s: no adapter gives way to %s", g->method->title,
                           wf_adapter_name(g->source[i].given.adapter));
        if (g->fixed < g->count)
            return wf_fail(err, WEFT_E_ARG, "both %s and %s are fixed, wanted one",
                           wf_adapter_name(g->source[g->fixed].given.adapter),
                           wf_adapter_name(g->source[i].given.adapter));
        g->fixed = i;
    }
    if (!can(g, WF_MERGE_GIVES_WAY)) return WEFT_OK;
    if (g->count < 2)
        return wf_fail(err, WEFT_E_ARG, "%s: one adapter, wanted one that stays and others",
                       g->method->title);
    if (g->fixed == g->count) g->fixed = g->count - 1;
    return WEFT_OK;
}

static weft_status read_sources(merging *g, const weft_merge_source *sources, size_t count,
                                weft_error *err)
{
    uint32_t stride;

    g->source = wf_zalloc(&g->alloc, count, sizeof *g->source);
    g->part = wf_zalloc(&g->alloc, count, sizeof *g->part);
    if (g->source == NULL || g->part == NULL)
        return wf_nomem(err, count * sizeof *g->source, "adapters to merge");
    g->count = count;
    memcpy(&stride, sources, sizeof stride);
    for (size_t i = 0; i < count; i++)
        WF_TRY(read_source(&g->source[i], (const uint8_t *)sources + i * stride, i, stride, err));
    return find_fixed(g, err);
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* The parts of a layer: g->part, and their number. Slices are in the order of layers. */
static int32_t parts_of(merging *g, const wf_layer *l)
{
    int32_t parts = 0;

    for (size_t i = 0; i < g->count; i++) {
        source *s = &g->source[i];
        size_t  first = s->at;
        while (s->at < s->slices && s->slice[s->at].layer == l->id) s->at++;
        if (s->at == first || !selected(s, l)) continue;
        g->part[parts++] = (wf_merge_part){
            .adapter = s->adapter, .slice = s->slice + first, .slices = (int32_t)(s->at - first),
            .source = (int32_t)i, .fixed = g->fixed == i,
            .weight = (double)(wf_is_text(l->component) ? s->given.text_weight : s->given.weight)
        };
    }
    return parts;
}

/* How many layers there are, and whether any has two adapters. */
static weft_status look(merging *g, size_t *layers, weft_error *err)
{
    bool shared = false;

    *layers = 0;
    for (size_t i = 0; i < g->layer_count; i++) {
        int32_t parts = parts_of(g, &g->layers[i]);
        *layers += parts > 0;
        shared |= parts > 1;
    }
    for (size_t i = 0; i < g->count; i++) g->source[i].at = 0;
    if (shared || g->count == 1 || !can(g, WF_MERGE_COMPARES)) return WEFT_OK;
    return wf_fail(err, WEFT_E_MISMATCH,
                   "%s compares adapters where they meet, and these share no layer: %s and %s",
                   g->method->title, wf_adapter_name(g->source[0].adapter),
                   wf_adapter_name(g->source[1].adapter));
}

static weft_status merge_layer(merging *g, const wf_layer *l, int32_t parts, weft_error *err)
{
    wf_merged_layer became;
    wf_bag          bag;

    wf_bag_init(&bag, &g->alloc);
    weft_status st = wf_merge_one_layer(g->method, &g->o, (int32_t)g->count, l, g->part, parts,
                                        &bag, &became, err);
    if (st == WEFT_OK) st = wf_merge_emit(g->tensors, g->model, l, &became, err);
    if (st == WEFT_OK && g->report != NULL) wf_merge_report_add(g->report, l, parts, &became);
    wf_bag_free(&bag);
    return st;
}

static weft_status merge_layers(merging *g, size_t all, weft_error *err)
{
    int64_t done = 0;

    for (size_t i = 0; i < g->layer_count; i++) {
        int32_t parts = parts_of(g, &g->layers[i]);
        if (parts == 0) continue;
        if (g->o.progress != NULL && g->o.progress(g->o.progress_user, "merging adapters", done++,
                                                   (int64_t)all) != 0)
            return wf_fail(err, WEFT_E_CANCELLED, "merging adapters was cancelled");
        WF_TRY(merge_layer(g, &g->layers[i], parts, err));
    }
    if (wf_tensors_count(g->tensors) == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "%s of these adapters is zero in every layer",
                       g->method->title);
    return WEFT_OK;
}

/* What the file says of its origin: "TIES of cat 0.7, ink 0.3". */
static weft_status note_origin(merging *g, weft_error *err)
{
    wf_text        text;
    wf_number_text n;
    weft_status    st;

    wf_text_init(&text, &g->alloc);
    wf_text_add(&text, "%s of ", g->method->title);
    for (size_t i = 0; i < g->count; i++)
        wf_text_add(&text, "%s%s %s", i > 0 ? ", " : "", wf_adapter_name(g->source[i].adapter),
                    wf_number(&n, (double)g->source[i].given.weight));
    st = text.failed ? wf_nomem(err, text.len, "metadata")
                     : wf_tensors_add_meta(g->tensors, "weft.merge", text.s, err);
    wf_text_free(&text);
    return st;
}

static weft_status run(merging *g, bool reported, weft_adapter **out, weft_error *err)
{
    weft_adapter_options adapter = WEFT_ADAPTER_OPTIONS_INIT;
    size_t               layers;

    g->layers = wf_model_layers(g->model, &g->layer_count);
    for (size_t i = 0; i < g->count; i++) WF_TRY(bind(g, &g->source[i], err));
    WF_TRY(look(g, &layers, err));
    if (reported) WF_TRY(wf_merge_report_new(g->model, layers, &g->alloc, &g->report, err));
    adapter.name = g->o.name != NULL ? g->o.name : "merged";
    adapter.allocator = &g->alloc;
    WF_TRY(wf_tensors_new(&g->alloc, adapter.name, &g->tensors, err));
    WF_TRY(merge_layers(g, layers, err));
    WF_TRY(note_origin(g, err));
    WF_TRY(wf_tensors_seal(g->tensors, err));
    return weft_adapter_create(g->tensors, &adapter, out, err);
}

weft_status weft_adapter_merge(weft_model *model, const weft_merge_source *sources, size_t count,
                               const weft_merge_options *options, weft_adapter **out,
                               weft_merge_report **report, weft_error *err)
{
    merging     g = { .model = model };
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (report != NULL) *report = NULL;
    if (model == NULL) return wf_fail(err, WEFT_E_ARG, "model is NULL");
    if (sources == NULL || count == 0)
        return wf_fail(err, WEFT_E_ARG, "there is no adapter to merge");
    if (count > SOURCES_MAX)
        return wf_fail(err, WEFT_E_ARG, "%zu adapters, at most %d are merged at once", count,
                       SOURCES_MAX);
    WF_TRY(read_options(&g, count, options, err));
    if ((st = read_sources(&g, sources, count, err)) == WEFT_OK)
        st = run(&g, report != NULL, out, err);
    if (st == WEFT_OK && report != NULL) {
        *report = g.report;
        g.report = NULL;
    }
    weft_merge_report_free(g.report);
    weft_tensors_free(g.tensors);
    for (size_t i = 0; i < g.count; i++) {
        weft_report_free(g.source[i].report);
        weft_adapter_free(g.source[i].adapter);
        wf_free(&g.alloc, g.source[i].select);
        wf_free(&g.alloc, g.source[i].exclude);
    }
    wf_free(&g.alloc, g.source);
    wf_free(&g.alloc, g.part);
    return st;
}
