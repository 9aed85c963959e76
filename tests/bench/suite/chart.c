/* chart.c - the table as bars, and the time as stacked bars, drawn with what the examples draw with. */
#include "suite.h"

#include "../../../examples/draw/canvas.h"
#include "../../../examples/draw/table.h"

enum { LABEL = 620, ACROSS = 520, NUMBERS = 240, HIGH = 16, PAIR = 20, STEP = 28, APART = 2 * PAIR + 14,
       WIDTH = PAD + LABEL + ACROSS + 20 + NUMBERS + PAD };

static const uint32_t OURS = 0x0072b2, THEIRS = 0xc9c9c4, GOOD = 0x009e73, BAD = 0xd55e00;

static void label(canvas *c, int32_t y, const char *text)
{
    write_text(c, PAD + LABEL - 12 - text_width(2, text), y, 2, INK, text);
}

/* ---- beside the peer ------------------------------------------------------------------------------------ */

static bool beside_peer(const figure *r)
{
    return strcmp(r->unit, "x") == 0 && r->more && strcmp(r->versus, "one thread") != 0 && !isnan(r->theirs);
}

static bool beside_bar(const figure *r)
{
    return !beside_peer(r) && !isnan(r->bar) && !isnan(r->measured) && r->bar > 0;
}

static void seconds(char text[32], double s)
{
    snprintf(text, 32, s < 0.1 ? "%.1f ms" : s < 10 ? "%.2f s" : "%.1f s", s < 0.1 ? 1e3 * s : s);
}

static int32_t mark(double share)
{
    return PAD + LABEL + (int32_t)(share * ACROSS + 0.5);
}

static void paint_pair(canvas *c, const figure *r, int32_t y)
{
    double  most = fmax(r->ours, r->theirs);
    int32_t ours = (int32_t)(ACROSS * r->ours / most), theirs = (int32_t)(ACROSS * r->theirs / most);
    char    text[64], s[32];

    label(c, y + PAIR - 7, r->what);
    fill(c, PAD + LABEL, y, ours, PAIR, OURS);
    fill(c, PAD + LABEL, y + PAIR, theirs, PAIR, THEIRS);
    if (!isnan(r->bar)) fill(c, mark(r->theirs / r->bar / most), y - 3, 3, PAIR + 6, INK);
    if (!isnan(r->stretch)) fill(c, mark(r->theirs / r->stretch / most), y - 3, 1, PAIR + 6, INK);
    seconds(s, r->ours);
    write_text(c, PAD + LABEL + 6, y + 3, 2, PAPER, s);
    seconds(s, r->theirs);
    write_text(c, PAD + LABEL + 6, y + PAIR + 3, 2, INK, s);
    snprintf(text, sizeof text, "%.2f times", r->measured);
    write_text(c, PAD + LABEL + ACROSS + 20, y + PAIR - 7, 2, strcmp(verdict(r), "miss") == 0 ? BAD : INK, text);
}

/* How much of the bar, whose line stands at half of the width: figures that are to be small end before the line, and
 * figures that are to be large reach it. */
static void paint_share(canvas *c, const figure *r, int32_t y)
{
    double  share = r->measured / r->bar;
    int32_t across = (int32_t)(ACROSS / 2 * fmin(fmax(share, 0), 2));
    bool    good = strcmp(verdict(r), "miss") != 0, noise = strcmp(verdict(r), "noise") == 0;
    char    text[64];

    label(c, y, r->what);
    fill(c, PAD + LABEL, y - 1, MORE(across, 2), HIGH + 2, noise ? THEIRS : good ? GOOD : BAD);
    fill(c, mark(0.5), y - 3, 3, HIGH + 6, INK);
    if (!isnan(r->stretch))
        fill(c, mark(fmin(0.5 * r->stretch / r->bar, 1)), y - 3, 1, HIGH + 6, INK);
    bool bare = r->unit[0] == 'G' || r->unit[0] == '\0'; /* its unit stands in the label */
    snprintf(text, sizeof text, "%.3g%s%s (%s %.3g)", r->measured, bare ? "" : " ", bare ? "" : r->unit, r->more ? ">=" : "<=",
             r->bar);
    write_text(c, PAD + LABEL + ACROSS + 20, y, 2, good ? INK : BAD, text);
}

static int count_of(const suite *b, bool (*wanted)(const figure *r))
{
    int n = 0;
    for (int i = 0; i < b->row_count; i++) n += wanted(&b->rows[i]);
    return n;
}

static void paint_targets(canvas *c, void *user)
{
    const suite *b = user;
    int32_t      y = PAD;
    char         title[96];

    if (count_of(b, beside_peer) > 0) {
        snprintf(title, sizeof title, "%s beside peers in the same run. Thick line: the bar; thin line: the stretch.",
                 b->processor ? "Processor time" : "Time");
        write_text(c, PAD, y, 2, INK, title);
        y += LINE + 12;
        for (int i = 0; i < b->row_count; i++)
            if (beside_peer(&b->rows[i])) paint_pair(c, &b->rows[i], y), y += APART;
        fill(c, PAD + LABEL, y, 14, HIGH, OURS);
        write_text(c, PAD + LABEL + 22, y + 1, 2, INK, "weft");
        fill(c, PAD + LABEL + 100, y, 14, HIGH, THEIRS);
        write_text(c, PAD + LABEL + 122, y + 1, 2, INK, "the peer");
        y += LINE + 24;
    }
    if (count_of(b, beside_bar) == 0) return;
    write_text(c, PAD, y, 2, INK, "Thick line: the bar, to stay below (<=) or to reach (>=); thin line: the stretch.");
    y += LINE;
    write_text(c, PAD, y, 2, INK, "Green: the bar is reached; orange: it is not; grey: the rounds spread over it.");
    y += LINE + 12;
    for (int i = 0; i < b->row_count; i++)
        if (beside_bar(&b->rows[i])) paint_share(c, &b->rows[i], y), y += STEP;
}

bool draw_targets(const suite *b, const char *path)
{
    weft_error err;
    int        pairs = count_of(b, beside_peer), shares = count_of(b, beside_bar);
    int32_t    high = 2 * PAD;
    union { const suite *in; void *out; } user = { b };

    if (pairs > 0) high += LINE + 12 + pairs * APART + LINE + 24;
    if (shares > 0) high += 2 * LINE + 12 + shares * STEP;
    if (pairs + shares == 0) {
        note("no bars to draw: neither a peer nor a model of true shapes");
        return false;
    }
    must(write_canvas(WIDTH, high, paint_targets, user.out, path, &err), &err);
    return true;
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

static const uint32_t part_hues[TIME_PARTS] = { 0x0072b2, 0x56b4e9, 0xe69f00, 0xcc79a7, 0x009e73, 0xd55e00, 0xbdbdb8 };

typedef struct times { const time_bar *bars; int count; const char *title; double most; } times;

static double whole(const time_bar *t)
{
    double sum = 0;
    for (int i = 0; i < TIME_PARTS; i++) sum += t->seconds[i];
    return sum;
}

/* Bars of one kind of work stand together, in the order of the first of each. */
static bool is_first(const times *t, int i)
{
    for (int k = 0; k < i; k++)
        if (strcmp(t->bars[k].what, t->bars[i].what) == 0) return false;
    return true;
}

static void paint_bar(canvas *c, const times *t, const time_bar *bar, int32_t y)
{
    double at = 0, per = ACROSS / t->most;
    char   text[80], s[32];

    snprintf(text, sizeof text, "%s, %s", bar->what, bar->label);
    label(c, y + 5, text);
    for (int i = 0; i < TIME_PARTS && time_parts[i] != NULL; i++) {
        int32_t x = (int32_t)(at * per), end = (int32_t)((at + fmax(bar->seconds[i], 0)) * per);
        fill(c, PAD + LABEL + x, y, end - x, 24, part_hues[i]);
        snprintf(s, sizeof s, t->most < 1 ? "%.0f" : "%.1f", t->most < 1 ? 1e3 * bar->seconds[i] : bar->seconds[i]);
        if (text_width(2, s) + 3 < end - x)
            write_text(c, PAD + LABEL + (x + end - text_width(2, s)) / 2, y + 5, 2, PAPER, s);
        at += fmax(bar->seconds[i], 0);
    }
    seconds(s, whole(bar));
    write_text(c, PAD + LABEL + (int32_t)(at * per) + 10, y + 5, 2, INK, s);
}

static void paint_times(canvas *c, void *user)
{
    const times *t = user;
    int32_t      y = PAD, x = PAD + LABEL;

    write_text(c, PAD, y, 2, INK, t->title);
    y += LINE + 12;
    for (int i = 0; i < t->count; i++) {
        if (!is_first(t, i)) continue;
        for (int k = i; k < t->count; k++)
            if (strcmp(t->bars[k].what, t->bars[i].what) == 0) paint_bar(c, t, &t->bars[k], y), y += 32;
        y += 12;
    }
    for (int i = 0; i < TIME_PARTS && time_parts[i] != NULL; i++) {
        int32_t n = text_width(2, time_parts[i]) + 44;
        if (x + n > WIDTH - PAD) x = PAD + LABEL, y += LINE;
        fill(c, x, y, 14, 14, part_hues[i]);
        write_text(c, x + 20, y, 2, INK, time_parts[i]);
        x += n;
    }
}

void draw_times(const time_bar *bars, int count, const char *title, const char *path)
{
    times      t = { .bars = bars, .count = count, .title = title };
    int        kinds = 0;
    weft_error err;

    for (int i = 0; i < count; i++) {
        t.most = fmax(t.most, whole(&bars[i]));
        kinds += is_first(&t, i);
    }
    must(write_canvas(WIDTH, 2 * PAD + LINE + 12 + 32 * count + 12 * kinds + 3 * LINE, paint_times, &t, path, &err), &err);
}
