/* convert.c - write files for other tools: an adapter in another dialect, a merged model, one adapter
 * of several. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tool.h"

int convert(settings *s)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_adapter *adapter;

    if (s->against == NULL) misuse("for which model? --model MODEL");
    if (s->output == NULL) misuse("where to? --output FILE");
    check_writable(s->output, s->dialect == WEFT_DIALECT_PEFT ? NULL : ".safetensors");
    weft_model *model = open_model(s->against, s, &info);
    s->opening.flags |= how_to_open(s, s->target);
    must(weft_adapter_open(s->target, &s->opening, &adapter, &err));
    o.dialect = s->dialect;
    o.flags = (s->flags & HALF) != 0 ? WEFT_SAVE_HALF : 0;
    must(weft_adapter_save(adapter, model, s->output, &o, &err));
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_adapter_free(adapter);
    weft_model_free(model);
    return 0;
}

/* ---- one adapter of several ------------------------------------------------------------------ */

static weft_merge_source source_of(const settings *s, adapter_use *use)
{
    weft_merge_source source = WEFT_MERGE_SOURCE_INIT;

    if (use->adapter == NULL) open_adapter(s, use);
    source.adapter = use->adapter;
    source.weight = use->weight;
    source.text_weight = use->text_weight;
    source.select = use->how.select;
    source.exclude = use->how.exclude;
    if (use->given & TEXT_WEIGHT) source.flags |= WEFT_SOURCE_TEXT_WEIGHT;
    if (s->merge.kind == WEFT_MERGE_NULL_SPACE && use->how.role == WEFT_ROLE_STYLE) source.flags |= WEFT_SOURCE_FIXED;
    if (use->how.flags & WEFT_ADD_PARTIAL) source.flags |= WEFT_SOURCE_PARTIAL;
    return source;
}

/* Weights in the denoiser times what a plan of the same adapters finds. */
static void balance(weft_merge_source *sources, settings *s, weft_model *model, meter *m)
{
    int32_t mixed = s->plan.mixed; /* is the merge's, and does not count here */
    s->plan.mixed = WEFT_MIXED_DELTA;
    weft_plan *plan = make_plan(model, s, 1, m);

    s->plan.mixed = mixed;
    for (size_t i = 0; i < s->adapter_count; i++) {
        weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
        must(weft_plan_adapter(plan, (int32_t)i, &info, &err));
        sources[i] = source_of(s, &s->adapters[i]);
        if (!(sources[i].flags & WEFT_SOURCE_TEXT_WEIGHT)) sources[i].text_weight = sources[i].weight;
        sources[i].flags |= WEFT_SOURCE_TEXT_WEIGHT;
        sources[i].weight = (float)((double)sources[i].weight * info.balance);
    }
    weft_plan_free(plan);
}

/* The mixer: 1 within each adapter, --mix between two. */
static float *mixer_of(const settings *s)
{
    size_t n = s->adapter_count;
    float *M = floats(n * n);

    for (size_t i = 0; i < n * n; i++) M[i] = i / n == i % n || s->mix == NOTHING_SAID ? 1 : s->mix;
    return M;
}

/* How much was lost, and where the most. */
static void print_merge(const weft_merge_report *report, int every_layer)
{
    weft_merge_row row = WEFT_MERGE_ROW_INIT, worst = WEFT_MERGE_ROW_INIT;
    size_t         count = weft_merge_report_count(report), shared = 0;
    int32_t        low = INT32_MAX, high = 0;
    double         sum = 0;

    if (every_layer) printf("%5s %12s %10s  layer\n", "rank", "norm", "error");
    for (size_t i = 0; i < count; i++) {
        must(weft_merge_report_get(report, i, &row, &err));
        if (every_layer) printf("%5d %12.5g %10.3g  %s\n", (int)row.rank, row.norm, row.error, row.layer);
        shared += row.adapters > 1;
        low = row.rank < low ? row.rank : low;
        high = row.rank > high ? row.rank : high;
        sum += row.error;
        if (row.error > worst.error) worst = row;
    }
    printf("%zu layers, %zu of them of more than one adapter; ", count, shared);
    if (high > 0) printf("rank %d to %d", (int)low, (int)high);
    else printf("whole differences");
    if (worst.layer != NULL)
        printf("; error %.3g on average, at most %.3g (%s)", sum / (double)count, worst.error, worst.layer);
    printf("\n");
}

static int merge_adapters(settings *s)
{
    weft_model_info    info = WEFT_MODEL_INFO_INIT;
    weft_save_options  save = WEFT_SAVE_OPTIONS_INIT;
    meter              m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    weft_merge_report *report;
    weft_adapter      *merged;

    check_writable(s->output, s->dialect == WEFT_DIALECT_PEFT ? NULL : ".safetensors");
    weft_model *model = open_model(s->target, s, &info);
    weft_merge_source *sources = zeroed(s->adapter_count, sizeof *sources);
    if (s->flags & BALANCE) balance(sources, s, model, &m);
    else
        for (size_t i = 0; i < s->adapter_count; i++) sources[i] = source_of(s, &s->adapters[i]);
    float *mixer = mixer_of(s);
    if (s->merge.kind == WEFT_MERGE_MIXER) s->merge.mixer = mixer;
    if (s->plan.mixed == WEFT_MIXED_DIRECTION) s->merge.flags |= WEFT_MERGE_DIRECTION;
    s->merge.seed = s->seed;
    s->merge.progress = show_progress;
    s->merge.progress_user = &m;
    must(weft_adapter_merge(model, sources, s->adapter_count, &s->merge, &merged, &report, &err));
    clear_progress();
    save.dialect = s->dialect;
    save.flags = (s->flags & HALF) != 0 ? WEFT_SAVE_HALF : 0;
    must(weft_adapter_save(merged, model, s->output, &save, &err));
    if (!(s->flags & QUIET) || (s->flags & REPORT)) print_merge(report, (s->flags & REPORT) != 0);
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_merge_report_free(report);
    weft_adapter_free(merged);
    weft_model_free(model);
    free(mixer);
    free(sources);
    return 0;
}

/* The plan as one adapter. */
static void write_adapter(const weft_plan *plan, weft_model *model, const settings *s)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_adapter *one;

    o.dialect = s->dialect;
    o.flags = (s->flags & HALF) != 0 ? WEFT_SAVE_HALF : 0;
    must(weft_plan_fold(plan, NULL, &one, &err));
    must(weft_adapter_save(one, model, s->output, &o, &err));
    weft_adapter_free(one);
}

/* A plan becomes weights if it does the same in every call. So many show whether it does: what changes
 * with the calls changes within them, or is of no image that people draw. */
enum { ENOUGH_CALLS = 100 };

int merge_model(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };

    if (s->adapter_count == 0 && s->plan_file == NULL) misuse("merge what? --adapter FILE[:WEIGHT]");
    if (s->output == NULL) misuse("where to? --output PATH");
    int planned = merges_a_plan(s), folder = s->into == INTO_ADAPTER ? s->dialect == WEFT_DIALECT_PEFT : is_folder(s->target);
    if (s->into == INTO_ADAPTER && !planned) return merge_adapters(s);
    check_writable(s->output, folder ? NULL : ".safetensors");
    check_writable(s->save_coefficients, ".safetensors");
    check_writable(s->save_plan, ".json");
    weft_model *model = open_model(s->target, s, &info);
    weft_plan *plan = make_plan(model, s, ENOUGH_CALLS, &m);
    if (s->save_coefficients) must(weft_plan_zip_save(plan, s->save_coefficients, &err));
    if (s->into == INTO_ADAPTER) write_adapter(plan, model, s);
    else must(weft_plan_save_model(plan, s->output, &err));
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_plan_free(plan);
    weft_model_free(model);
    return 0;
}
