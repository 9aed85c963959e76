/* table.c - a sealed plan as an image: layers down, calls across, one panel for each branch.
 *
 * The hue shows the adapter, the strength the share of the largest coefficient. If several adapters
 * act, their hues are mixed in proportion. Blocks are separated by a gap and named at the left, so
 * that "content in the middle, style outside" shows without reading a number. Cells are whole
 * pixels as long as they fit; with many calls they share the pixels. */
#include "table.h"

static const char CAPTION[] = "layers down, calls across; the paler, the smaller";
static const char SKIPPED_CAPTION[] = "not computed: deep features were reused";
static const uint32_t SKIPPED = 0xbcbcb6;

/* ---- cells ----------------------------------------------------------------------------------- */

static float cell(const layout *lay, int32_t call, int32_t branch, int64_t layer, int32_t adapter)
{
    weft_trace_cell was = WEFT_TRACE_CELL_INIT;
    weft_cell       c = WEFT_CELL_INIT;

    if (lay->run != NULL) {
        (void)weft_run_trace_cell(lay->run, call, branch, layer, adapter, &was, NULL);
        return was.number;
    }
    (void)weft_plan_cell(lay->p, call, branch, layer, adapter, &c, NULL); /* 0 where there is no such branch */
    return c.number;
}

static int has_branch(const layout *lay, int32_t call, int32_t branch)
{
    weft_call_info info = WEFT_CALL_INFO_INIT;
    return weft_plan_call(lay->p, call, &info, NULL) == WEFT_OK && branch < info.branches;
}

/* Was the call taken, and the layer not computed in it? -1: the call was not taken. */
static int is_skipped(const layout *lay, int32_t call, int32_t branch, int64_t layer)
{
    weft_trace      t = WEFT_TRACE_INIT;
    weft_trace_cell was = WEFT_TRACE_CELL_INIT;

    if (lay->run == NULL) return 0;
    if (weft_run_trace(lay->run, call, branch, &t, NULL) != WEFT_OK || !t.done) return -1;
    (void)weft_run_trace_cell(lay->run, call, branch, layer, 0, &was, NULL);
    return was.way == WEFT_TRACE_SKIPPED;
}

static uint32_t cell_colour(const layout *lay, int32_t call, int32_t branch, int64_t layer)
{
    double sum[3] = { 0, 0, 0 }, weights = 0, strength = 0, rgb[3];

    if (!has_branch(lay, call, branch)) return PAPER;
    int skipped = is_skipped(lay, call, branch, layer);
    if (skipped != 0) return skipped < 0 ? PAPER : SKIPPED;
    for (int32_t a = 0; a < lay->info.adapters; a++) {
        float c = cell(lay, call, branch, layer, a);
        if (c == 0) continue;
        double s = fabs((double)c) / (double)lay->strongest;
        for (int i = 0; i < 3; i++) sum[i] += s * channel(hue_of(a), i) * channel(hue_of(a), i);
        weights += s;
        strength = fmax(strength, s);
    }
    if (weights == 0) return EMPTY;
    /* Mixed as light, about the square of a byte: bytes alone would turn blue and orange to
     * grey. */
    for (int i = 0; i < 3; i++) rgb[i] = sqrt(sum[i] / weights);
    return tint(mix(rgb), strength);
}

static void draw_panel(canvas *c, const layout *lay, int32_t branch, int32_t x)
{
    int32_t calls = lay->info.calls;
    int    grid = lay->panel_w / calls >= 7; /* then a hair of paper between cells helps counting */

    for (int32_t r = 0; r < lay->rows; r++) {
        int32_t y = lay->above + lay->row[r].top;
        int32_t h = lay->cell_h - (lay->cell_h >= 7 ? 1 : 0);
        for (int32_t n = 0; n < calls; n++) {
            int32_t from = (int32_t)((int64_t)n * lay->panel_w / calls);
            int32_t to = (int32_t)((int64_t)(n + 1) * lay->panel_w / calls);
            if (to > from)
                fill(c, x + from, y, to - from - (grid ? 1 : 0), h, cell_colour(lay, n, branch, lay->row[r].layer));
        }
    }
}

/* A line where a phase begins. */
static void draw_phases(canvas *c, const layout *lay, int32_t x)
{
    for (int32_t i = 1; i < lay->info.phases; i++) {
        weft_phase_info phase = WEFT_PHASE_INFO_INIT;
        if (weft_plan_phase(lay->p, i, &phase, NULL) != WEFT_OK) continue;
        int32_t at = x + (int32_t)((int64_t)phase.first * lay->panel_w / lay->info.calls);
        fill(c, at - 1, lay->above - 6, 1, lay->high + 12, INK);
    }
}

void draw_calls(canvas *c, int32_t calls, int32_t x, int32_t y, int32_t across)
{
    static const int32_t rounds[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000, 1000000 };
    int32_t step = rounds[LENGTH(rounds) - 1];

    for (size_t i = LENGTH(rounds); i-- > 0; )
        if ((int64_t)rounds[i] * across / calls >= 48) step = rounds[i];
    for (int32_t n = 0; n < calls; n += step) {
        char    s[16];
        int32_t middle = x + (int32_t)(((int64_t)2 * n + 1) * across / calls / 2);
        snprintf(s, sizeof s, "%d", (int)n);
        fill(c, middle, y + 2, 1, 5, FAINT);
        write_text(c, middle - text_width(2, s) / 2, y + 10, 2, INK, s);
        if (step > calls - 1 - n) break;
    }
}

static void draw_blocks(canvas *c, const layout *lay)
{
    int32_t free_from = 0;

    for (int32_t r = 0, end; r < lay->rows; r = end) {
        const char *block = lay->row[r].block;
        int32_t     top, bottom, y;
        for (end = r + 1; end < lay->rows; end++)
            if (strcmp(block, lay->row[end].block) != 0) break;
        top = lay->above + lay->row[r].top;
        bottom = lay->above + lay->row[end - 1].top + lay->cell_h;
        fill(c, lay->left - 8, top, 2, bottom - top - (lay->cell_h >= 7 ? 1 : 0), FAINT);
        y = (top + bottom) / 2 - 7;
        if (y < free_from) continue; /* a thin block next to a named one stays without a name */
        write_text(c, lay->left - 16 - text_width(2, block), y, 2, INK, block);
        free_from = y + 18;
    }
}

const char *letter_of(letter_text *buf, int32_t adapter)
{
    if (adapter < 26) snprintf(buf->text, sizeof buf->text, "%c", 'A' + (int)adapter);
    else snprintf(buf->text, sizeof buf->text, "%c%d", 'A' + (int)(adapter % 26), (int)(adapter / 26));
    return buf->text;
}

/* One adapter's line: who, its weight, its part. */
typedef struct legend_text { char text[256]; } legend_text;

static const char *legend(legend_text *buf, const layout *lay, int32_t adapter)
{
    const weft_plan_adapter_info *a = &lay->adapter[adapter];
    letter_text letter;

    snprintf(buf->text, sizeof buf->text, "%s  %.150s, weight %g%s%s", letter_of(&letter, adapter), a->name,
             (double)a->weight, a->part[0] != '\0' ? ", as " : "", a->part);
    return buf->text;
}

static void draw_legend(canvas *c, const layout *lay, int32_t y)
{
    for (int32_t a = 0; a < lay->info.adapters; a++, y += LINE + 4) {
        double  strength = fabs((double)lay->adapter[a].weight) / fmax((double)lay->strongest, 1e-30);
        legend_text line;
        fill(c, lay->left, y - 1, 28, 16, tint(hue_of(a), fmin(strength, 1)));
        write_text(c, lay->left + 40, y, 2, INK, legend(&line, lay, a));
    }
    if (!lay->skipped) return;
    fill(c, lay->left, y - 1, 28, 16, SKIPPED);
    write_text(c, lay->left + 40, y, 2, INK, SKIPPED_CAPTION);
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* The largest coefficient of a layer, without its sign. */
static float strongest(const layout *lay, int64_t layer)
{
    float most = 0;

    for (int32_t n = 0; n < lay->info.calls; n++)
        for (int32_t b = 0; b < lay->info.branches; b++)
            for (int32_t a = 0; a < lay->info.adapters; a++) most = fmaxf(most, fabsf(cell(lay, n, b, layer, a)));
    return most;
}

/* The denoiser's layers with something to show, with a gap where a block begins. */
static weft_status list_rows(layout *lay, weft_error *err)
{
    int32_t y = 0;

    for (int64_t id = 0; id < lay->info.layers; id++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        weft_status     st = weft_model_layer(lay->model, id, &layer, err);
        float           most;
        if (st != WEFT_OK) return st;
        if (layer.component != WEFT_COMPONENT_DENOISER || (most = strongest(lay, id)) == 0) continue;
        for (int32_t n = 0; n < lay->info.calls; n++)
            for (int32_t b = 0; b < lay->info.branches && has_branch(lay, n, b); b++)
                lay->skipped = lay->skipped || is_skipped(lay, n, b, id) > 0;
        lay->strongest = fmaxf(lay->strongest, most);
        lay->row[lay->rows].layer = id;
        name_block(lay->row[lay->rows].block, sizeof lay->row[lay->rows].block, layer.name);
        lay->rows++;
    }
    lay->cell_h = MORE(1, LESS(CELL_HIGH, TABLE_HIGH / MORE(lay->rows, 1)));
    for (int32_t r = 0; r < lay->rows; r++) {
        if (r > 0 && strcmp(lay->row[r].block, lay->row[r - 1].block) != 0) y += GAP;
        lay->row[r].top = y;
        y += lay->cell_h;
    }
    lay->high = MORE(y, LINE);
    return WEFT_OK;
}

static void measure(layout *lay)
{
    int32_t calls = lay->info.calls, branches = lay->info.branches;
    int32_t names = 0, share = MORE(TABLE_WIDE / branches, 60);

    for (int32_t r = 0; r < lay->rows; r++) names = MORE(names, text_width(2, lay->row[r].block));
    if (lay->rows == 0) names = text_width(2, "100 G"); /* room for the numbers of charts below */
    lay->left = PAD + names + 16;
    lay->panel_w = calls <= share ? LESS(share / calls, CELL_WIDE) * calls : share;
    if (lay->panel_w * branches < LEAST_PANEL)
        lay->panel_w = (LEAST_PANEL / branches + calls - 1) / calls * calls;
    lay->above = PAD + 32 + LINE + (branches > 1 ? LINE : 0) + 12;
}

static void draw_heading(canvas *c, const layout *lay, int32_t branch, int32_t x)
{
    char s[16];

    snprintf(s, sizeof s, "%d", (int)branch);
    if (text_width(2, "branch 00") <= lay->panel_w)
        x += write_text(c, x, lay->above - LINE, 2, FAINT, "branch ");
    write_text(c, x, lay->above - LINE, 2, FAINT, s);
}

void table_paint(canvas *c, const layout *lay)
{
    write_text(c, PAD, PAD, 3, INK, lay->title);
    write_text(c, PAD, PAD + 32, 2, FAINT, CAPTION);
    draw_blocks(c, lay);
    for (int32_t b = 0; b < lay->info.branches; b++) {
        int32_t x = lay->left + b * (lay->panel_w + BETWEEN);
        if (lay->info.branches > 1) draw_heading(c, lay, b, x);
        draw_panel(c, lay, b, x);
        draw_calls(c, lay->info.calls, x, lay->above + lay->high, lay->panel_w);
        draw_phases(c, lay, x);
    }
    if (lay->rows == 0) write_text(c, lay->left, lay->above, 2, INK, "no layer of the denoiser is touched");
    draw_legend(c, lay, lay->above + lay->high + 10 + LINE + 14);
}

int32_t table_across(const layout *lay)
{
    return lay->info.branches * (lay->panel_w + BETWEEN) - BETWEEN;
}

int32_t table_width(const layout *lay)
{
    int32_t w = lay->left + table_across(lay);

    w = MORE(w, PAD + text_width(3, lay->title));
    w = MORE(w, PAD + text_width(2, CAPTION));
    for (int32_t a = 0; a < lay->info.adapters; a++) {
        legend_text line;
        int32_t     right = lay->left + 40 + text_width(2, legend(&line, lay, a));
        w = MORE(w, LESS(right, 1400));
    }
    return w + PAD;
}

int32_t table_height(const layout *lay)
{
    int32_t lines = lay->info.adapters + (lay->skipped ? 1 : 0);
    return lay->above + lay->high + 10 + LINE + 14 + lines * (LINE + 4) + PAD - 8;
}

weft_status write_canvas(int32_t width, int32_t height, void (*paint)(canvas *c, void *user), void *user,
                         const char *path, weft_error *err)
{
    canvas c = { .width = width, .height = height };

    c.bytes = (size_t)c.width * (size_t)c.height * 3;
    c.rgb = malloc(c.bytes);
    if (c.rgb == NULL) return fail(err, WEFT_E_NOMEM, "out of memory for a drawing of a plan");
    fill(&c, 0, 0, c.width, c.height, PAPER);
    paint(&c, user);
    weft_status st = weft_png_write(path, c.rgb, c.bytes, c.width, c.height, NULL, 0, err);
    free(c.rgb);
    return st;
}

/* "LoRA Composite 8, Merge 12 calls": each phase and how many calls it has. */
static void write_title(layout *lay)
{
    size_t used = 0;

    for (int32_t i = 0; i < lay->info.phases && used < sizeof lay->title; i++) {
        weft_phase_info phase = WEFT_PHASE_INFO_INIT;
        if (weft_plan_phase(lay->p, i, &phase, NULL) != WEFT_OK) continue;
        int n = snprintf(lay->title + used, sizeof lay->title - used, "%s%s%s %d", i > 0 ? ", " : "", phase.title,
                         lay->info.phases == 1 ? "," : "", (int)phase.calls);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < sizeof lay->title)
        snprintf(lay->title + used, sizeof lay->title - used, " %s%s", lay->info.calls == 1 ? "call" : "calls",
                 lay->run != NULL ? ": what acted" : "");
}

static weft_status read_plan(layout *lay, weft_error *err)
{
    weft_status st = weft_plan_info_get(lay->p, &lay->info, err);

    if (st != WEFT_OK) return st;
    if (!lay->info.sealed) return fail(err, WEFT_E_STATE, "draw_table: the plan is not sealed");
    lay->row = calloc((size_t)lay->info.layers + 1, sizeof *lay->row);
    lay->adapter = calloc((size_t)lay->info.adapters + 1, sizeof *lay->adapter);
    if (lay->row == NULL || lay->adapter == NULL) return fail(err, WEFT_E_NOMEM, "out of memory for a plan's table");
    for (int32_t a = 0; a < lay->info.adapters && st == WEFT_OK; a++) {
        lay->adapter[a] = (weft_plan_adapter_info)WEFT_PLAN_ADAPTER_INFO_INIT;
        st = weft_plan_adapter(lay->p, a, &lay->adapter[a], err);
    }
    write_title(lay);
    return st;
}

weft_status table_begin(layout *lay, weft_error *err)
{
    weft_status st = read_plan(lay, err);

    if (st == WEFT_OK) st = list_rows(lay, err);
    if (st == WEFT_OK) measure(lay);
    return st;
}

void table_end(layout *lay)
{
    free(lay->row);
    free(lay->adapter);
}

static void paint_table(canvas *c, void *user)
{
    table_paint(c, user);
}

weft_status draw_table(const weft_plan *plan, const weft_model *model, const char *path, weft_error *err)
{
    layout      lay = { .p = plan, .model = model, .info = WEFT_PLAN_INFO_INIT };
    weft_status st = table_begin(&lay, err);

    if (st == WEFT_OK) st = write_canvas(table_width(&lay), table_height(&lay), paint_table, &lay, path, err);
    table_end(&lay);
    return st;
}
