/* fuse.c - several concepts become one adapter by least squares.
 *
 * Every --concept or --adapter of the command line is a concept of its own, so each gets a plan. What
 * is written has no tokens: those stay in the concepts' files, which a prompt takes at weight 0. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

/* The file's lines that are not empty, in one block with their pointers. */
static char *read_lines(const char *path, const char ***lines, size_t *count)
{
    FILE  *f = fopen(path, "rb");
    size_t size = 0, room = 1 << 16;
    char  *text = zeroed(room, 1);

    if (f == NULL) fail("%s: %s", path, strerror(errno));
    for (size_t n; (n = fread(text + size, 1, room - 1 - size, f)) > 0;) {
        size += n;
        if (size < room - 1) continue;
        char *more = realloc(text, room *= 2);
        if (more == NULL) fail("out of memory");
        text = more;
    }
    if (ferror(f)) fail("%s: %s", path, strerror(errno));
    fclose(f);
    text[size] = '\0';
    if (strlen(text) != size) fail("%s: byte %zu is zero: captions are lines of text", path, strlen(text));
    *lines = zeroed(size / 2 + 1, sizeof **lines);
    for (char *line = strtok(text, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) (*lines)[(*count)++] = line;
    if (*count == 0) fail("%s has no captions", path);
    return text;
}

static void add_captions(weft_fuse *f, const char *path)
{
    const char **lines;
    size_t       count = 0;
    char        *text = read_lines(path, &lines, &count);

    must(weft_fuse_add_captions(f, lines, count, &err));
    free(lines);
    free(text);
}

/* A concept and its images, whose seeds follow one another; use NULL: the model itself. */
static void add_concept(weft_fuse *f, weft_model *model, const settings *s, adapter_use *use, uint64_t *seed, meter *m)
{
    weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;
    settings          one = *s;

    one.adapters = use;
    one.adapter_count = use != NULL;
    c.plan = make_plan(model, &one, 1, m);
    c.name = use != NULL ? use->called : "the model";
    c.prompts = use != NULL ? use->prompts : s->ordinary;
    c.prompts_count = use != NULL ? use->prompt_count : s->ordinary_count;
    c.images = use != NULL ? use->images : (int32_t)s->ordinary_count;
    c.seed = *seed;
    *seed += c.images > 0 ? (uint64_t)c.images : 1;
    must(weft_fuse_add_concept(f, &c, &err));
    weft_plan_free(c.plan);
}

static void print_rows(const weft_fuse *f, const settings *s)
{
    weft_fuse_row row = WEFT_FUSE_ROW_INIT, worst = WEFT_FUSE_ROW_INIT;
    size_t        count = weft_fuse_count(f), helped = 0;
    double        before = 0, after = 0;

    if (s->flags & REPORT) printf("%8s %10s %10s %9s %9s  layer\n", "rows", "before", "after", "residual", "norm");
    for (size_t i = 0; i < count; i++) {
        must(weft_fuse_get(f, i, &row, &err));
        if (s->flags & REPORT)
            printf("%8" PRId64 " %10.3g %10.3g %9.3g %9.3g  %s\n", row.rows, row.before, row.after, row.residual,
                   row.norm, row.layer);
        before += row.before;
        after += row.after;
        helped += row.jitter > 0;
        if (row.residual > worst.residual) worst = row;
    }
    printf("%zu layers; of what the concepts change there, %.3g %% of the mean square is left", count,
           before > 0 ? 100 * after / before : 0);
    if (worst.layer != NULL) printf("; residual at most %.3g (%s)", worst.residual, worst.layer);
    if (helped > 0) printf("; %zu layers were singular and got a little added to their diagonal", helped);
    printf("\n");
}

/* Whole differences, or factors of them. */
static weft_adapter *to_rank(weft_model *model, weft_adapter *whole, const settings *s)
{
    weft_merge_source  from = WEFT_MERGE_SOURCE_INIT;
    weft_merge_options o = s->merge;
    weft_adapter      *low;

    if (o.rank == 0 && o.error == 0) return whole;
    from.adapter = whole;
    from.weight = 1;
    must(weft_adapter_merge(model, &from, 1, &o, &low, NULL, &err));
    weft_adapter_free(whole);
    return low;
}

int fuse(settings *s)
{
    weft_model_info   about = WEFT_MODEL_INFO_INIT;
    weft_save_options save = WEFT_SAVE_OPTIONS_INIT;
    weft_fuse_info    info = WEFT_FUSE_INFO_INIT;
    meter             m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    uint64_t          seed = s->seed;
    weft_adapter     *whole;
    weft_fuse        *f;

    if (s->adapter_count == 0) misuse("fuse what? --concept FILE[:WEIGHT] or --adapter FILE[:WEIGHT]");
    if (s->output == NULL) misuse("where to? --output FILE");
    check_writable(s->output, s->dialect == WEFT_DIALECT_PEFT ? NULL : ".safetensors");
    weft_model *model = open_model(s->target, s, &about);
    if (s->width) {
        set_size(s, &about);
        s->fuse.width = s->run.width;
        s->fuse.height = s->run.height;
    }
    s->fuse.log = warn_line;
    s->fuse.progress = show_progress;
    s->fuse.progress_user = &m;
    must(weft_fuse_create(model, &s->fuse, &f, &err));
    if (s->captions) add_captions(f, s->captions);
    for (size_t i = 0; i < s->adapter_count; i++) add_concept(f, model, s, &s->adapters[i], &seed, &m);
    if (s->ordinary_count > 0) add_concept(f, model, s, NULL, &seed, &m);
    must(weft_fuse_info_get(f, &info, &err));
    if (!(s->flags & QUIET)) {
        printf("%zu concepts, %d layers: ", s->adapter_count, (int)info.layers);
        print_bytes((double)info.bytes);
        printf(" beside a run, %" PRId64 " prompts, %" PRId64 " calls of the denoiser\n", info.prompts, info.calls);
    }
    must(weft_fuse_run(f, &whole, &err));
    clear_progress();
    whole = to_rank(model, whole, s);
    save.dialect = s->dialect;
    save.flags = (s->flags & HALF) != 0 ? WEFT_SAVE_HALF : 0;
    must(weft_adapter_save(whole, model, s->output, &save, &err));
    if (!(s->flags & QUIET) || (s->flags & REPORT)) print_rows(f, s);
    if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    weft_adapter_free(whole);
    weft_fuse_free(f);
    weft_model_free(model);
    return 0;
}
