/* explain.c - a plan before it runs, and a run after it, as an image: the table, and under it what the
 * table does not show.
 *
 * Before: how much of each adapter acts at each call, what the calls cost, the factors of blocks, the
 * masks, image prompts and alignment. After: what each branch's prediction counted for. Panels stand one
 * below the other, as wide as the table; each is a function that draws at a height, or with no canvas only
 * tells how high it is. */
#include "table.h"

enum { CHART_HIGH = 130, MAP = 120, TITLE_HIGH = 30, GAP_BELOW = 26, AXIS_HIGH = 32 };

typedef struct picture {
    layout          lay;
    weft_call_cost *cost;     /* [calls]           */
    double         *strength; /* [calls][adapters] */
    double         *share;    /* [calls][branches + 1] what counted, the base last; -1: there was none */
    float          *factor;   /* [layers]          */
    float          *seen;     /* [calls][images] weights of image prompts */
    int32_t         images;
    int             wide;     /* of charts         */
} picture;

static int32_t title(canvas *c, const picture *p, int32_t y, const char *text)
{
    if (c != NULL) write_text(c, p->lay.left, y + 6, 2, FAINT, text);
    return y + TITLE_HIGH;
}

/* Where a chart's column of a call begins. */
static int32_t at_call(const picture *p, int32_t n)
{
    return p->lay.left + (int32_t)((int64_t)n * p->wide / p->lay.info.calls);
}

static void frame(canvas *c, const picture *p, int32_t y, double most, const char *unit)
{
    for (int i = 0; i <= 2; i++) {
        char    s[48];
        int32_t at = y + CHART_HIGH - i * CHART_HIGH / 2;
        snprintf(s, sizeof s, "%.3g%s", most * i / 2, i == 2 ? unit : "");
        fill(c, p->lay.left, at, p->wide, 1, EMPTY - 0x0a0a0a);
        write_text(c, p->lay.left - 12 - text_width(2, s), at - 7, 2, FAINT, s);
    }
    draw_calls(c, p->lay.info.calls, p->lay.left, y + CHART_HIGH, p->wide);
}

/* The next number of one digit and a half, so that the axis has plain numbers. */
static double round_up(double v)
{
    double unit = v > 0 ? pow(10, floor(log10(v))) : 1;
    static const double steps[] = { 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 };

    for (size_t i = 0; i < LENGTH(steps); i++)
        if (steps[i] * unit >= v * (1 - 1e-9)) return steps[i] * unit;
    return v;
}

/* ---- before ---------------------------------------------------------------------------------- */

/* A curve for each adapter, of a step for each call; equal ones lie side by side. */
static int32_t strengths(canvas *c, const picture *p, int32_t y)
{
    int32_t calls = p->lay.info.calls, adapters = p->lay.info.adapters;
    double  most = 0;

    if (adapters == 0) return y;
    y = title(c, p, y, "strength of each adapter: 1 is all of it at weight 1");
    if (c == NULL) return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
    for (int32_t i = 0; i < calls * adapters; i++) most = fmax(most, p->strength[i]);
    most = round_up(fmax(most, 1e-6));
    frame(c, p, y, most, "");
    for (int32_t a = 0; a < adapters; a++) {
        int32_t before = 0;
        for (int32_t n = 0; n < calls; n++) {
            double  v = p->strength[(size_t)n * (size_t)adapters + (size_t)a];
            int32_t at = y + CHART_HIGH - (int32_t)(v / most * (CHART_HIGH - 3)) - 2 - (a % 4);
            int32_t x = at_call(p, n), to = at_call(p, n + 1);
            fill(c, x, at, to - x, 3, hue_of(a));
            if (n > 0) fill(c, x, LESS(at, before), 3, MORE(at, before) - LESS(at, before) + 3, hue_of(a));
            before = at;
        }
    }
    return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
}

static int32_t costs(canvas *c, const picture *p, int32_t y)
{
    static const struct { double size; const char *name; } units[] = {
        { 1e15, " P" }, { 1e12, " T" }, { 1e9, " G" }, { 1e6, " M" }, { 1, "" } };
    double most = 0;
    size_t u = 0;

    y = title(c, p, y, "operations of each call: the network pale, adapters beside it dark");
    if (c == NULL) return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
    for (int32_t n = 0; n < p->lay.info.calls; n++) most = fmax(most, p->cost[n].flops + p->cost[n].side_flops);
    while (u + 1 < LENGTH(units) && most < units[u].size) u++;
    most = round_up(most);
    frame(c, p, y, most / units[u].size, units[u].name);
    for (int32_t n = 0; n < p->lay.info.calls; n++) {
        int32_t x = at_call(p, n), w = at_call(p, n + 1) - x;
        int32_t base = (int32_t)(p->cost[n].flops / most * CHART_HIGH);
        int32_t all = (int32_t)((p->cost[n].flops + p->cost[n].side_flops) / most * CHART_HIGH);
        if (p->cost[n].side_flops > 0) all = MORE(all, base + 1);
        w -= w > 3 ? 1 : 0;
        fill(c, x, y + CHART_HIGH - base, w, base, 0xc9c9c3);
        fill(c, x, y + CHART_HIGH - all, w, all - base, INK);
    }
    return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
}

/* A row of swatches for each adapter whose weight differs from block to block. */
static int32_t blocks(canvas *c, const picture *p, int32_t y)
{
    const layout *lay = &p->lay;
    int           titled = 0;

    for (int32_t a = 0; a < lay->info.adapters; a++) {
        letter_text letter;
        double      most = 0;
        int32_t     x = lay->left;
        if (lay->adapter[a].blocks[0] == '\0' ||
            weft_plan_blocks(lay->p, a, p->factor, (size_t)lay->info.layers, NULL) != WEFT_OK)
            continue;
        if (!titled) y = title(c, p, y, "weights block by block, the mean of each block's layers");
        titled = 1;
        for (int64_t l = 0; l < lay->info.layers; l++) most = fmax(most, fabs((double)p->factor[l]));
        if (c != NULL) write_text(c, lay->left - 24, y + 8, 2, INK, letter_of(&letter, a));
        for (int32_t r = 0, end; r < lay->rows && c != NULL; r = end) {
            double sum = 0;
            char   s[24];
            for (end = r; end < lay->rows && strcmp(lay->row[r].block, lay->row[end].block) == 0; end++)
                sum += (double)p->factor[lay->row[end].layer];
            sum /= end - r;
            snprintf(s, sizeof s, "%.2g", sum);
            int32_t w = MORE(text_width(2, lay->row[r].block), text_width(2, s)) + 14;
            fill(c, x, y, w - 4, 18, tint(hue_of(a), most > 0 ? fabs(sum) / most : 0));
            write_text(c, x, y + 24, 2, INK, s);
            write_text(c, x, y + 44, 2, FAINT, lay->row[r].block);
            x += w;
        }
        y += 68;
    }
    return titled ? y + GAP_BELOW / 2 : y;
}

static void map(canvas *c, const weft_mask *m, int32_t x, int32_t y, uint32_t hue)
{
    int32_t w = m->width >= m->height ? MAP : MORE(1, (int32_t)((int64_t)MAP * m->width / m->height));
    int32_t h = m->height >= m->width ? MAP : MORE(1, (int32_t)((int64_t)MAP * m->height / m->width));

    fill(c, x - 1, y - 1, w + 2, h + 2, FAINT);
    for (int32_t j = 0; j < h; j++)
        for (int32_t i = 0; i < w; i++) {
            size_t row = (size_t)((int64_t)j * m->height / h), col = (size_t)((int64_t)i * m->width / w);
            fill(c, x + i, y + j, 1, 1, blend(hue, (double)m->values[row * (size_t)m->width + col]));
        }
}

/* The masks of adapters, then of the regions that have one of their own. */
static int32_t masks(canvas *c, const picture *p, int32_t y)
{
    const layout *lay = &p->lay;
    int32_t       x = lay->left, shown = 0;

    for (int32_t i = 0; i < lay->info.adapters + lay->info.regions; i++) {
        weft_region region = WEFT_REGION_INIT;
        weft_mask   m = WEFT_MASK_INIT;
        letter_text letter;
        char        name[48];
        int32_t     k = i - lay->info.adapters;
        if (k < 0 && (weft_plan_mask(lay->p, i, &m, NULL) != WEFT_OK || m.height == 0)) continue;
        if (k >= 0 && (weft_plan_region(lay->p, k, &region, &m, NULL) != WEFT_OK ||
                       (region.flags & WEFT_REGION_ADAPTER) != 0)) continue;
        if (shown == 0) y = title(c, p, y, "masks: where in the image they act");
        if (shown > 0 && x + MAP > lay->left + p->wide) {
            x = lay->left;
            y += MAP + TITLE_HIGH;
        }
        if (k < 0) snprintf(name, sizeof name, "%s", letter_of(&letter, i));
        else snprintf(name, sizeof name, "region %d", (int)k);
        if (c != NULL) map(c, &m, x, y, k < 0 ? hue_of(i) : INK);
        if (c != NULL) write_text(c, x, y + MAP + 6, 2, INK, name);
        x += MAP + 24;
        shown++;
    }
    return shown > 0 ? y + MAP + TITLE_HIGH + GAP_BELOW / 2 : y;
}

/* ---- what the table does not show: words */

enum { WORDS = 400, STRIP = 14 };

/* The least and the most of an image prompt's weight over the calls: the same without a curve. */
static void range_of(const picture *p, int32_t i, double *least, double *most)
{
    *least = *most = (double)p->seen[i];
    for (int32_t n = 1; n < p->lay.info.calls; n++) {
        double v = (double)p->seen[(size_t)n * (size_t)p->images + (size_t)i];
        *least = fmin(*least, v);
        *most = fmax(*most, v);
    }
}

/* "0 plus_sd15: weight 0.7, 1 picture, at 16 layers, blocks NONE"; false: there is no such prompt. */
static int image_words(char *s, const picture *p, int32_t i)
{
    weft_image_prompt_info one = WEFT_IMAGE_PROMPT_INFO_INIT;
    double least, most;

    if (i >= p->images || weft_plan_image_prompt(p->lay.p, i, &one, NULL) != WEFT_OK) return 0;
    range_of(p, i, &least, &most);
    int n = snprintf(s, WORDS, "%d %.100s: weight %.3g", (int)i, one.name, (double)one.weight);
    if (least != most) n += snprintf(s + n, WORDS - (size_t)n, ", over the calls %.3g to %.3g", least, most);
    snprintf(s + n, WORDS - (size_t)n, "%s, %d %s, at %d %s%s%.150s", one.masked ? " in a mask" : "", (int)one.images,
             one.images == 1 ? "picture" : "pictures", (int)one.layers, one.layers == 1 ? "layer" : "layers",
             *one.blocks ? ", blocks " : "", one.blocks);
    return 1;
}

/* Its lines, and under one with a curve a strip that is darker where it weighs more. */
static int32_t image_prompts(canvas *c, const picture *p, int32_t y)
{
    char words[WORDS];

    if (p->images > 0) y = title(c, p, y, "image prompts");
    for (int32_t i = 0; image_words(words, p, i); i++) {
        double least, most;
        if (c != NULL) write_text(c, p->lay.left, y, 2, INK, words);
        y += LINE;
        range_of(p, i, &least, &most);
        if (least == most) continue;
        for (int32_t n = 0; n < p->lay.info.calls && c != NULL; n++) {
            double v = fabs((double)p->seen[(size_t)n * (size_t)p->images + (size_t)i]) / fmax(fabs(least), fabs(most));
            fill(c, at_call(p, n), y, at_call(p, n + 1) - at_call(p, n), STRIP, tint(INK, v));
        }
        if (c != NULL) draw_calls(c, p->lay.info.calls, p->lay.left, y + STRIP, p->wide);
        y += STRIP + AXIS_HIGH;
    }
    return p->images > 0 ? y + GAP_BELOW / 2 : y;
}

/* Of StyleAligned, what is not as the authors have it; false: nothing is aligned. */
static int align_words(char *s, const picture *p)
{
    static const struct { uint32_t flag; const char *words; } all[] = {
        { WEFT_ALIGN_NO_GROUP_NORM, ", group norms apart" }, { WEFT_ALIGN_NO_ATTENTION, ", attention apart" },
        { WEFT_ALIGN_NO_QUERIES, ", queries as they are" },  { WEFT_ALIGN_NO_KEYS, ", keys as they are" },
        { WEFT_ALIGN_VALUES, ", values too" },
    };
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;

    if (weft_plan_alignment(p->lay.p, &o, NULL) != WEFT_OK || (o.flags & WEFT_ALIGN_OFF)) return 0;
    int n = snprintf(s, WORDS, "aligned: %s", o.flags & WEFT_ALIGN_FULL ? "every sample of a batch sees all of them"
                                                                       : "a batch takes on the style of its first sample");
    for (size_t i = 0; i < LENGTH(all); i++)
        if (o.flags & all[i].flag) n += snprintf(s + n, WORDS - (size_t)n, "%s", all[i].words);
    if (o.flags & WEFT_ALIGN_SCALE) n += snprintf(s + n, WORDS - (size_t)n, ", scores times %.3g", (double)o.shared_score_scale);
    if (o.shared_score_shift != 0) n += snprintf(s + n, WORDS - (size_t)n, ", scores plus %.3g", (double)o.shared_score_shift);
    if (o.only_self_level > 0) snprintf(s + n, WORDS - (size_t)n, ", but %.3g of the layers", o.only_self_level);
    return 1;
}

static int32_t alignment(canvas *c, const picture *p, int32_t y)
{
    char words[WORDS];

    if (!align_words(words, p)) return y;
    if (c != NULL) write_text(c, p->lay.left, y + 6, 2, INK, words);
    return y + TITLE_HIGH + GAP_BELOW / 2;
}

static int32_t paint_before(canvas *c, const picture *p)
{
    int32_t y = table_height(&p->lay);

    if (c != NULL) table_paint(c, &p->lay);
    y = alignment(c, p, y);
    y = image_prompts(c, p, y);
    y = strengths(c, p, y);
    y = costs(c, p, y);
    y = blocks(c, p, y);
    return masks(c, p, y);
}

static void before(canvas *c, void *user) { (void)paint_before(c, user); }

/* ---- after ----------------------------------------------------------------------------------- */

/* The adapter that alone had a coefficient in a branch; -1: none or several. */
static int32_t alone(const picture *p, int32_t call, int32_t branch)
{
    int32_t found = -1;

    for (int32_t a = 0; a < p->lay.info.adapters; a++)
        for (int32_t r = 0; r < p->lay.rows; r++) {
            weft_trace_cell cell = WEFT_TRACE_CELL_INIT;
            if (weft_run_trace_cell(p->lay.run, call, branch, p->lay.row[r].layer, a, &cell, NULL) != WEFT_OK ||
                cell.number == 0)
                continue;
            if (found >= 0) return -1;
            found = a;
            break;
        }
    return found;
}

/* What each prediction counted for in the conditional half, stacked. */
static int32_t shares(canvas *c, const picture *p, int32_t y)
{
    int32_t branches = p->lay.info.branches;

    if (branches < 2) return y;
    y = title(c, p, y, "what each branch's prediction counted for");
    if (c == NULL) return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
    frame(c, p, y, 1, "");
    for (int32_t n = 0; n < p->lay.info.calls; n++) {
        int32_t x = at_call(p, n), w = at_call(p, n + 1) - x;
        double  sum = 0;
        for (int32_t b = 0; b <= branches; b++) {
            double s = p->share[(size_t)n * (size_t)(branches + 1) + (size_t)b];
            if (!(s > 0)) continue;
            int32_t own = b < branches ? alone(p, n, b) : -1;
            int32_t from = (int32_t)(fmin(sum, 1) * CHART_HIGH + 0.5), to = (int32_t)(fmin(sum + s, 1) * CHART_HIGH + 0.5);
            fill(c, x, y + CHART_HIGH - to, w - (w > 3 ? 1 : 0), to - from, own >= 0 ? hue_of(own) : 0xbcbcb6);
            sum += s;
        }
    }
    return y + CHART_HIGH + AXIS_HIGH + GAP_BELOW;
}

static int32_t paint_after(canvas *c, const picture *p)
{
    if (c != NULL) table_paint(c, &p->lay);
    return shares(c, p, table_height(&p->lay));
}

static void after(canvas *c, void *user) { (void)paint_after(c, user); }

static weft_status read_shares(picture *p, weft_error *err)
{
    int32_t branches = p->lay.info.branches;

    for (int32_t n = 0; n < p->lay.info.calls; n++) {
        weft_call_info call = WEFT_CALL_INFO_INIT;
        weft_status    st = weft_plan_call(p->lay.p, n, &call, err);
        for (int32_t k = 0; k < call.evaluations && st == WEFT_OK; k++) {
            weft_trace t = WEFT_TRACE_INIT;
            st = weft_run_trace(p->lay.run, n, k, &t, err);
            p->share[(size_t)n * (size_t)(branches + 1) + (size_t)(t.base ? branches : k)] = t.share;
        }
        if (st != WEFT_OK) return st;
    }
    return WEFT_OK;
}

/* ---- both ------------------------------------------------------------------------------------ */

static weft_status take(picture *p, weft_error *err)
{
    size_t calls = (size_t)p->lay.info.calls, adapters = (size_t)p->lay.info.adapters;

    p->cost = calloc(calls, sizeof *p->cost);
    p->strength = calloc(calls * adapters + 1, sizeof *p->strength);
    p->share = calloc(calls * ((size_t)p->lay.info.branches + 1), sizeof *p->share);
    p->factor = calloc((size_t)p->lay.info.layers + 1, sizeof *p->factor);
    p->images = weft_plan_image_prompts(p->lay.p);
    p->seen = calloc(calls * (size_t)p->images + 1, sizeof *p->seen);
    if (p->cost == NULL || p->strength == NULL || p->share == NULL || p->factor == NULL || p->seen == NULL)
        return fail(err, WEFT_E_NOMEM, "out of memory for a drawing of a plan");
    p->wide = table_across(&p->lay);
    return weft_plan_image_weights(p->lay.p, p->seen, calls * (size_t)p->images, err);
}

static void let_go(picture *p)
{
    table_end(&p->lay);
    free(p->cost);
    free(p->strength);
    free(p->share);
    free(p->factor);
    free(p->seen);
}

/* The charts' titles may be wider than a narrow table, and so may lines, within reason. */
static int32_t width_of(const picture *p)
{
    int32_t title_width = text_width(2, "operations of each call: the network pale, adapters beside it dark");
    char    words[WORDS];

    for (int32_t i = 0; image_words(words, p, i); i++)
        title_width = MORE(title_width, LESS(text_width(2, words), 1600));
    if (align_words(words, p)) title_width = MORE(title_width, LESS(text_width(2, words), 1600));
    return MORE(table_width(&p->lay), p->lay.left + title_width + PAD);
}

weft_status draw_explain(const weft_plan *plan, const weft_model *model, const weft_run_options *options,
                         uint32_t flags, const char *path, weft_error *err)
{
    picture     p = { .lay = { .p = plan, .model = model, .info = WEFT_PLAN_INFO_INIT } };
    weft_status st = table_begin(&p.lay, err);

    if (st == WEFT_OK) st = take(&p, err);
    if (st == WEFT_OK) {
        size_t calls = (size_t)p.lay.info.calls;
        for (size_t n = 0; n < calls; n++) p.cost[n] = (weft_call_cost)WEFT_CALL_COST_INIT;
        st = weft_run_costs(plan, options, flags, p.cost, calls, err);
        if (st == WEFT_OK)
            st = weft_plan_strengths(plan, p.strength, calls * (size_t)p.lay.info.adapters, NULL, 0, err);
    }
    if (st == WEFT_OK) st = write_canvas(width_of(&p), paint_before(NULL, &p), before, &p, path, err);
    let_go(&p);
    return st;
}

weft_status draw_trace(const weft_run *run, const weft_plan *plan, const weft_model *model, const char *path,
                       weft_error *err)
{
    picture     p = { .lay = { .p = plan, .model = model, .run = run, .info = WEFT_PLAN_INFO_INIT } };
    weft_status st = table_begin(&p.lay, err);

    if (st == WEFT_OK) st = take(&p, err);
    if (st == WEFT_OK) st = read_shares(&p, err);
    if (st == WEFT_OK) st = write_canvas(width_of(&p), paint_after(NULL, &p), after, &p, path, err);
    let_go(&p);
    return st;
}
