/* conflicts.c - adapters held beside each other, as an image: layers down, and for each pair of
 * adapters four columns: cosine, clash of signs, norms, overlap of the columns.
 *
 * Pale is harmless. Orange means that both do the same, blue that they work against each other; in
 * the column of the norms the hue is that of the larger adapter, full at ten times the other; green
 * is the share of common directions. */
#include "canvas.h"

enum { PAD = 24, GAP = 3, BETWEEN = 24, TABLE_HIGH = 640, CELL_HIGH = 28, LINE = 22, COLUMNS = 4 };

static const uint32_t SAME = 0xd55e00, OPPOSITE = 0x0072b2, SHARED = 0x009e73;
static const char *const headings[COLUMNS] = { "cosine", "clash", "norms", "overlap" };
static const char *const legends[] = {
    "cosine, clash: orange both do the same, blue they work against each other",
    "norms: the colour of the larger one, full at ten times the other",
    "overlap: green where both write into the same directions; white: not known",
};
static const char TITLE[] = "Conflicts";

typedef struct row { int32_t top; char block[60]; } row; /* top -1: no pair acts here */

typedef struct layout {
    const weft_conflicts *conflicts;
    const weft_plan      *plan;
    row     *row;     /* [layers of the model] */
    int64_t  layers;
    int32_t *pair_x;  /* [adapters * adapters]: where the panel of a pair begins; 0: it has none */
    int32_t  adapters, pairs, scale, column, cell_h, left, above, high, width;
} layout;

static weft_conflict conflict_at(const layout *lay, size_t i)
{
    weft_conflict c = WEFT_CONFLICT_INIT;
    (void)weft_conflicts_get(lay->conflicts, i, &c, NULL);
    return c;
}

static uint32_t towards(double v)
{
    return blend(v > 0 ? SAME : OPPOSITE, fmin(fabs(v), 1));
}

static uint32_t colour_of(const weft_conflict *c, int column)
{
    if (column == 0) return towards(c->cosine);
    if (column == 1) return towards(1 - 2 * c->clash);
    if (column == 3) return c->overlap < 0 ? PAPER : blend(SHARED, c->overlap);
    if (!(c->first_norm > 0 && c->second_norm > 0)) return EMPTY;
    double tens = log10(c->first_norm / c->second_norm);
    return blend(hue_of(tens > 0 ? c->first : c->second), fmin(fabs(tens), 1));
}

static void letter(char text[8], int32_t adapter)
{
    if (adapter < 26) snprintf(text, 8, "%c", 'A' + (int)adapter);
    else snprintf(text, 8, "%c%d", 'A' + (int)(adapter % 26), (int)(adapter / 26) % 100);
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* Which layers and pairs there are, and where each begins. */
static weft_status list_rows(layout *lay, const weft_model *model, weft_error *err)
{
    int32_t used = 0, y = 0;
    const char *last = "";

    for (size_t i = 0; i < weft_conflicts_count(lay->conflicts); i++) {
        weft_conflict c = conflict_at(lay, i);
        if (lay->row[c.layer].top < 0) used++;
        lay->row[c.layer].top = 0;
        if (lay->pair_x[c.first * lay->adapters + c.second] == 0)
            lay->pair_x[c.first * lay->adapters + c.second] = ++lay->pairs;
    }
    lay->cell_h = MORE(1, LESS(CELL_HIGH, TABLE_HIGH / MORE(used, 1)));
    for (int64_t id = 0; id < lay->layers; id++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        row            *r = &lay->row[id];
        weft_status     st = weft_model_layer(model, id, &layer, err);
        if (st != WEFT_OK) return st;
        if (r->top < 0) continue;
        if (layer.component == WEFT_COMPONENT_DENOISER) name_block(r->block, sizeof r->block, layer.name);
        else snprintf(r->block, sizeof r->block, "%.*s", (int)strcspn(layer.name, "."), layer.name);
        if (*last != '\0' && strcmp(last, r->block) != 0) y += GAP;
        last = r->block;
        r->top = y;
        y += lay->cell_h;
        lay->left = MORE(lay->left, text_width(2, r->block));
    }
    lay->high = MORE(y, LINE);
    return WEFT_OK;
}

static void measure(layout *lay)
{
    int32_t panel;

    lay->scale = lay->pairs <= 3 ? 2 : 1;
    lay->column = text_width(lay->scale, "overlap") + 8;
    panel = COLUMNS * lay->column + BETWEEN;
    lay->left += PAD + 16;
    lay->above = PAD + 32 + 2 * LINE + 8;
    lay->width = lay->left + MORE(lay->pairs, 1) * panel;
    for (size_t i = 0; i < LENGTH(legends); i++) lay->width = MORE(lay->width, lay->left + text_width(2, legends[i]) + PAD);
    for (int32_t i = 0; i < lay->adapters * lay->adapters; i++)
        if (lay->pair_x[i] > 0) lay->pair_x[i] = lay->left + (lay->pair_x[i] - 1) * panel;
}

/* ---- paint ----------------------------------------------------------------------------------- */

static void draw_headings(canvas *c, const layout *lay)
{
    for (int32_t i = 0; i < lay->adapters * lay->adapters; i++) {
        char a[8], b[8], both[24];
        if (lay->pair_x[i] == 0) continue;
        letter(a, i / lay->adapters);
        letter(b, i % lay->adapters);
        snprintf(both, sizeof both, "%s and %s", a, b);
        write_text(c, lay->pair_x[i], lay->above - 2 * LINE, 2, INK, both);
        for (int32_t k = 0; k < COLUMNS; k++)
            write_text(c, lay->pair_x[i] + k * lay->column, lay->above - LINE, lay->scale, FAINT, headings[k]);
    }
}

static void draw_cells(canvas *c, const layout *lay)
{
    for (size_t i = 0; i < weft_conflicts_count(lay->conflicts); i++) {
        weft_conflict one = conflict_at(lay, i);
        int32_t       x = lay->pair_x[one.first * lay->adapters + one.second];
        for (int32_t k = 0; k < COLUMNS; k++)
            fill(c, x + k * lay->column, lay->above + lay->row[one.layer].top, lay->column - 2,
                 lay->cell_h - (lay->cell_h >= 7 ? 1 : 0), colour_of(&one, k));
    }
}

static void draw_blocks(canvas *c, const layout *lay)
{
    int32_t free_from = 0;
    const char *last = "";

    for (int64_t id = 0; id < lay->layers; id++) {
        const row *r = &lay->row[id];
        int32_t    y = lay->above + r->top;
        if (r->top < 0) continue;
        fill(c, lay->left - 8, y, 2, lay->cell_h, FAINT);
        if (strcmp(last, r->block) == 0 || y < free_from) continue;
        last = r->block;
        write_text(c, lay->left - 16 - text_width(2, r->block), y, 2, INK, r->block);
        free_from = y + 18;
    }
}

static void draw_legend(canvas *c, const layout *lay, int32_t y)
{
    for (int32_t a = 0; a < lay->adapters; a++, y += LINE + 4) {
        weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
        char                   name[8], line[256];
        if (weft_plan_adapter(lay->plan, a, &info, NULL) != WEFT_OK) continue;
        letter(name, a);
        snprintf(line, sizeof line, "%s  %.150s, weight %g", name, info.name, (double)info.weight * info.balance);
        fill(c, lay->left, y - 1, 28, 16, hue_of(a));
        write_text(c, lay->left + 40, y, 2, INK, line);
    }
    for (size_t i = 0; i < LENGTH(legends); i++, y += LINE) write_text(c, lay->left, y, 2, FAINT, legends[i]);
}

static weft_status write_image(const layout *lay, const char *path, weft_error *err)
{
    canvas c = { .width = lay->width };

    c.height = lay->above + lay->high + 20 + lay->adapters * (LINE + 4) + (int32_t)LENGTH(legends) * LINE + PAD;
    c.bytes = (size_t)c.width * (size_t)c.height * 3;
    c.rgb = malloc(c.bytes);
    if (c.rgb == NULL) return fail(err, WEFT_E_NOMEM, "out of memory for a drawing of conflicts");
    fill(&c, 0, 0, c.width, c.height, PAPER);
    write_text(&c, PAD, PAD, 3, INK, TITLE);
    draw_headings(&c, lay);
    draw_cells(&c, lay);
    draw_blocks(&c, lay);
    if (lay->pairs == 0) write_text(&c, lay->left, lay->above, 2, INK, "no two adapters have a layer in common");
    draw_legend(&c, lay, lay->above + lay->high + 20);
    weft_status st = weft_png_write(path, c.rgb, c.bytes, c.width, c.height, NULL, 0, err);
    free(c.rgb);
    return st;
}

weft_status draw_conflicts(const weft_conflicts *conflicts, const weft_plan *plan, const weft_model *model,
                           const char *path, weft_error *err)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    layout         lay = { .conflicts = conflicts, .plan = plan };
    weft_status    st = weft_plan_info_get(plan, &info, err);

    if (st != WEFT_OK) return st;
    lay.layers = info.layers;
    lay.adapters = info.adapters;
    lay.row = calloc((size_t)info.layers + 1, sizeof *lay.row);
    lay.pair_x = calloc((size_t)info.adapters * (size_t)info.adapters + 1, sizeof *lay.pair_x);
    if (lay.row == NULL || lay.pair_x == NULL) {
        st = fail(err, WEFT_E_NOMEM, "out of memory for a drawing of conflicts");
    } else {
        for (int64_t id = 0; id < info.layers; id++) lay.row[id].top = -1;
        st = list_rows(&lay, model, err);
    }
    if (st == WEFT_OK) {
        measure(&lay);
        st = write_image(&lay, path, err);
    }
    free(lay.row);
    free(lay.pair_x);
    return st;
}
