/* draw.c - a sealed plan as a picture: layers down, calls across, one panel for each branch.
 *
 * The hue says which adapter, the strength how much of the largest coefficient; where several act, their
 * hues are mixed in proportion. Blocks are set apart by a gap and named at the left, so that "content in
 * the middle, style outside" is seen without reading a number. Cells are whole pixels as long as they
 * fit; a picture of many calls shares out its pixels instead. */
#include <math.h>

#include "plan/method.h"
#include "weft/image.h"

enum {
    PAD         = 24,   /* around everything                       */
    GAP         = 3,    /* between blocks                          */
    BETWEEN     = 20,   /* between panels                          */
    TABLE_WIDE  = 1000, /* pixels that the panels share out        */
    TABLE_HIGH  = 640,
    LEAST_PANEL = 560,  /* pixels of all panels, however few calls */
    CELL_WIDE   = 40,   /* at most                                 */
    CELL_HIGH   = 28,
    LINE        = 22    /* height of a line of text at scale 2     */
};

static const uint32_t INK = 0x222222, FAINT = 0x777777, PAPER = 0xffffff, EMPTY = 0xf1f1ee;
static const char CAPTION[] = "layers down, calls across; the paler, the smaller";
/* Told apart also by eyes that see red and green alike. */
static const uint32_t hues[] = { 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x7a5230, 0x7f3fbf };

typedef struct canvas {
    uint8_t *rgb;
    size_t   bytes;
    int32_t  width;
    int32_t  height;
} canvas;

typedef struct layout {
    const weft_plan *p;
    int32_t  *layer;   /* [rows] ids                             */
    int32_t  *top;     /* [rows] pixels from the table's top     */
    int32_t   rows;
    int32_t   cell_h;
    int32_t   panel_w;
    int32_t   left;    /* of the first panel                     */
    int32_t   above;   /* of the panels                          */
    int32_t   high;    /* of the panels                          */
    float     strongest;
} layout;

/* ---- ink ---------------------------------------------------------------------------------------------------- */

static void fill(canvas *c, int32_t x, int32_t y, int32_t w, int32_t h, uint32_t colour)
{
    for (int32_t j = WF_MAX(y, 0); j < WF_MIN(y + h, c->height); j++)
        for (int32_t i = WF_MAX(x, 0); i < WF_MIN(x + w, c->width); i++) {
            uint8_t *px = c->rgb + ((size_t)j * (size_t)c->width + (size_t)i) * 3;
            px[0] = (uint8_t)(colour >> 16);
            px[1] = (uint8_t)(colour >> 8);
            px[2] = (uint8_t)colour;
        }
}

static int32_t write_text(canvas *c, int32_t x, int32_t y, int32_t scale, uint32_t colour, const char *s)
{
    return weft_image_text(c->rgb, c->bytes, c->width, c->height, x, y, scale, colour, s);
}

static int32_t text_width(int32_t scale, const char *s)
{
    return weft_image_text(NULL, 0, 0, 0, 0, 0, scale, 0, s);
}

static uint32_t mix(const double rgb[3])
{
    uint32_t v = 0;
    for (int i = 0; i < 3; i++) v = v << 8 | (uint32_t)(fmin(fmax(rgb[i], 0), 255) + 0.5);
    return v;
}

static double channel(uint32_t colour, int i)
{
    return (double)(colour >> (16 - 8 * i) & 255);
}

static uint32_t hue_of(int32_t adapter)
{
    return hues[(size_t)adapter % WF_LEN(hues)];
}

/* A hue on paper; the faintest is still seen. */
static uint32_t tint(uint32_t colour, double strength)
{
    double rgb[3], s = strength > 0 ? 0.15 + 0.85 * strength : 0;

    for (int i = 0; i < 3; i++) rgb[i] = s * channel(colour, i) + (1 - s) * channel(EMPTY, i);
    return mix(rgb);
}

/* ---- cells ---------------------------------------------------------------------------------------------------- */

static uint32_t cell_colour(const layout *lay, int32_t call, int32_t branch, int32_t layer)
{
    double sum[3] = { 0, 0, 0 }, weights = 0, strength = 0, rgb[3];

    for (int32_t a = 0; a < lay->p->adapters; a++) {
        float c;
        if (weft_plan_cell(lay->p, call, branch, layer, a, &c, NULL) != WEFT_OK || c == 0) continue;
        double s = fabs((double)c) / (double)lay->strongest;
        for (int i = 0; i < 3; i++) sum[i] += s * channel(hue_of(a), i) * channel(hue_of(a), i);
        weights += s;
        strength = fmax(strength, s);
    }
    if (weights == 0) return EMPTY;
    /* Mixed as light, about the square of a byte: bytes alone would turn blue and orange to grey. */
    for (int i = 0; i < 3; i++) rgb[i] = sqrt(sum[i] / weights);
    return tint(mix(rgb), strength);
}

static void draw_panel(canvas *c, const layout *lay, int32_t branch, int32_t x)
{
    int32_t calls = lay->p->table.calls;
    bool    grid = lay->panel_w / calls >= 7; /* then a hair of paper between cells helps counting */

    for (int32_t r = 0; r < lay->rows; r++) {
        int32_t y = lay->above + lay->top[r];
        int32_t h = lay->cell_h - (lay->cell_h >= 7 ? 1 : 0);
        for (int32_t n = 0; n < calls; n++) {
            int32_t from = (int32_t)((int64_t)n * lay->panel_w / calls);
            int32_t to = (int32_t)((int64_t)(n + 1) * lay->panel_w / calls);
            if (to > from)
                fill(c, x + from, y, to - from - (grid ? 1 : 0), h, cell_colour(lay, n, branch, lay->layer[r]));
        }
    }
}

/* Numbers under a panel at round calls, far enough apart to be read. */
static void draw_calls(canvas *c, const layout *lay, int32_t x)
{
    static const int32_t rounds[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000, 1000000 };
    int32_t calls = lay->p->table.calls, step = rounds[WF_LEN(rounds) - 1];

    for (size_t i = WF_LEN(rounds); i-- > 0; )
        if ((int64_t)rounds[i] * lay->panel_w / calls >= 48) step = rounds[i];
    for (int32_t n = 0; n < calls; n += step) {
        wf_number_text number;
        int32_t        middle = x + (int32_t)(((int64_t)2 * n + 1) * lay->panel_w / calls / 2);
        const char    *s = wf_fixed(&number, n, 0);
        fill(c, middle, lay->above + lay->high + 2, 1, 5, FAINT);
        write_text(c, middle - text_width(2, s) / 2, lay->above + lay->high + 10, 2, INK, s);
        if (step > calls - 1 - n) break;
    }
}

static void draw_blocks(canvas *c, const layout *lay)
{
    const wf_layer *layers = wf_model_layers(lay->p->model, &(size_t){ 0 });
    int32_t         free_from = 0;

    for (int32_t r = 0, end; r < lay->rows; r = end) {
        wf_short_text block, other;
        int32_t       top, bottom, y;
        wf_block_name(&block, layers[lay->layer[r]].name);
        for (end = r + 1; end < lay->rows; end++)
            if (strcmp(block.text, wf_block_name(&other, layers[lay->layer[end]].name)) != 0) break;
        top = lay->above + lay->top[r];
        bottom = lay->above + lay->top[end - 1] + lay->cell_h;
        fill(c, lay->left - 8, top, 2, bottom - top - (lay->cell_h >= 7 ? 1 : 0), FAINT);
        y = (top + bottom) / 2 - 7;
        if (y < free_from) continue; /* a thin block next to a named one stays without a name */
        write_text(c, lay->left - 16 - text_width(2, block.text), y, 2, INK, block.text);
        free_from = y + 18;
    }
}

/* One adapter's line: who, its weight, its part. */
typedef struct legend_text { char text[256]; } legend_text;

static const char *legend(legend_text *buf, const weft_plan *p, int32_t adapter)
{
    const char    *name = wf_adapter_name(p->entry[adapter].bound->adapter), *part = wf_plan_part(p, adapter);
    char           cut[160];
    wf_letter_text letter;
    wf_number_text weight;

    wf_copy_out(name, strlen(name), cut, sizeof cut, NULL);
    wf_format(buf->text, sizeof buf->text, "%s  %s, weight %s%s%s", wf_letter(&letter, adapter), cut,
              wf_number(&weight, p->entry[adapter].weight), part[0] != '\0' ? ", as " : "", part);
    return buf->text;
}

static void draw_legend(canvas *c, const layout *lay, int32_t y)
{
    for (int32_t a = 0; a < lay->p->adapters; a++, y += LINE + 4) {
        double  strength = fabs((double)lay->p->entry[a].weight) / fmax((double)lay->strongest, 1e-30);
        legend_text line;
        fill(c, lay->left, y - 1, 28, 16, tint(hue_of(a), fmin(strength, 1)));
        write_text(c, lay->left + 40, y, 2, INK, legend(&line, lay->p, a));
    }
}

/* ---- layout ------------------------------------------------------------------------------------------------------ */

/* The UNet layers with something to show, with a gap where a block begins. */
static void list_rows(layout *lay)
{
    const wf_table *t = &lay->p->table;
    const wf_layer *layers = wf_model_layers(lay->p->model, &(size_t){ 0 });
    wf_short_text   block = { "" }, name;
    int32_t         y = 0;

    for (size_t i = 0; i < t->touched_count; i++)
        if (layers[t->touched[i].layer].component == 0) lay->layer[lay->rows++] = t->touched[i].layer;
    lay->cell_h = WF_MAX(1, WF_MIN(CELL_HIGH, TABLE_HIGH / WF_MAX(lay->rows, 1)));
    for (int32_t r = 0; r < lay->rows; r++) {
        wf_block_name(&name, layers[lay->layer[r]].name);
        if (r > 0 && strcmp(name.text, block.text) != 0) y += GAP;
        block = name;
        lay->top[r] = y;
        y += lay->cell_h;
    }
    lay->high = WF_MAX(y, LINE);
}

static void measure(layout *lay)
{
    const wf_table *t = &lay->p->table;
    const wf_layer *layers = wf_model_layers(lay->p->model, &(size_t){ 0 });
    int32_t         names = 0, share = WF_MAX(TABLE_WIDE / t->branches, 60);

    for (int32_t r = 0; r < lay->rows; r++) {
        wf_short_text block;
        names = WF_MAX(names, text_width(2, wf_block_name(&block, layers[lay->layer[r]].name)));
    }
    lay->left = PAD + names + 16;
    lay->panel_w = t->calls <= share ? WF_MIN(share / t->calls, CELL_WIDE) * t->calls : share;
    if (lay->panel_w * t->branches < LEAST_PANEL)
        lay->panel_w = (LEAST_PANEL / t->branches + t->calls - 1) / t->calls * t->calls;
    lay->above = PAD + 32 + LINE + (t->branches > 1 ? LINE : 0) + 12;
    lay->strongest = 0;
    for (size_t i = 0; i < t->rows * (size_t)t->branches * t->slots; i++)
        if (layers[t->slot[i % t->slots].layer].component == 0)
            lay->strongest = fmaxf(lay->strongest, fabsf(t->cells[i].number));
}

static void draw_heading(canvas *c, const layout *lay, int32_t branch, int32_t x)
{
    wf_number_text number;
    const char    *s = wf_fixed(&number, branch, 0);

    if (text_width(2, "branch 00") <= lay->panel_w)
        x += write_text(c, x, lay->above - LINE, 2, FAINT, "branch ");
    write_text(c, x, lay->above - LINE, 2, FAINT, s);
}

static void paint(canvas *c, const layout *lay, const char *title)
{
    const wf_table *t = &lay->p->table;

    fill(c, 0, 0, c->width, c->height, PAPER);
    write_text(c, PAD, PAD, 3, INK, title);
    write_text(c, PAD, PAD + 32, 2, FAINT, CAPTION);
    draw_blocks(c, lay);
    for (int32_t b = 0; b < t->branches; b++) {
        int32_t x = lay->left + b * (lay->panel_w + BETWEEN);
        if (t->branches > 1) draw_heading(c, lay, b, x);
        draw_panel(c, lay, b, x);
        draw_calls(c, lay, x);
    }
    if (lay->rows == 0) write_text(c, lay->left, lay->above, 2, INK, "no layer of the UNet is touched");
    draw_legend(c, lay, lay->above + lay->high + 10 + LINE + 14);
}

static int32_t picture_width(const layout *lay, const char *title)
{
    int32_t w = lay->left + lay->p->table.branches * (lay->panel_w + BETWEEN) - BETWEEN;

    w = WF_MAX(w, PAD + text_width(3, title));
    w = WF_MAX(w, PAD + text_width(2, CAPTION));
    for (int32_t a = 0; a < lay->p->adapters; a++) {
        legend_text line;
        int32_t     right = lay->left + 40 + text_width(2, legend(&line, lay->p, a));
        w = WF_MAX(w, WF_MIN(right, 1400));
    }
    return w + PAD;
}

static weft_status draw(const weft_plan *p, const char *path, layout *lay, const char *title, weft_error *err)
{
    canvas      c = { NULL, 0, 0, 0 };
    weft_status st;

    list_rows(lay);
    measure(lay);
    c.width = picture_width(lay, title);
    c.height = lay->above + lay->high + 10 + LINE + 14 + p->adapters * (LINE + 4) + PAD - 8;
    c.bytes = (size_t)c.width * (size_t)c.height * 3;
    c.rgb = wf_alloc(&p->alloc, c.bytes);
    if (c.rgb == NULL) return wf_nomem(err, c.bytes, "a plan's picture");
    paint(&c, lay, title);
    st = weft_png_write(path, c.rgb, c.bytes, c.width, c.height, NULL, 0, err);
    wf_free(&p->alloc, c.rgb);
    return st;
}

weft_status weft_plan_draw(const weft_plan *plan, const char *path, weft_error *err)
{
    layout      lay = { 0 };
    char        title[64];
    weft_status st;

    if (plan == NULL || path == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_draw: %s is NULL", plan == NULL ? "plan" : "path");
    if (!plan->sealed) return wf_fail(err, WEFT_E_STATE, "weft_plan_draw: the plan is not sealed");
    lay.p = plan;
    wf_format(title, sizeof title, "%s, %d %s", plan->method->title, (int)plan->table.calls,
              plan->table.calls == 1 ? "call" : "calls");
    lay.layer = wf_zalloc(&plan->alloc, plan->table.touched_count, sizeof *lay.layer);
    lay.top = wf_zalloc(&plan->alloc, plan->table.touched_count, sizeof *lay.top);
    if (lay.layer == NULL || lay.top == NULL)
        st = wf_nomem(err, plan->table.touched_count * sizeof *lay.top, "a plan's picture");
    else
        st = draw(plan, path, &lay, title, err);
    wf_free(&plan->alloc, lay.layer);
    wf_free(&plan->alloc, lay.top);
    return st;
}
