/* loss.c - the loss of a training over its steps.
 *
 * The loss of one step says little: it depends most on the time that was drawn, so it jumps between
 * near 0 and several times its mean. So each step's number is a faint column, and what is looked at
 * is their decaying mean. The axis begins at 0 and ends above the mean and above 98 % of the numbers:
 * a single jump does not press all others flat, and is cut at the top. */
#include "table.h"

enum { WIDE = 960, HIGH = 480, LEFT = 96, RIGHT = 24, TOP = 64, BOTTOM = 64, ACROSS = WIDE - LEFT - RIGHT,
       DOWN = HIGH - TOP - BOTTOM };

typedef struct curve {
    const double *loss;
    size_t        count;
    int64_t       first;
    const char   *title;
    double        top;       /* of the axis */
    double        tick;
    double       *mean;
} curve;

double draw_smooth(double mean, double *weight, double loss)
{
    const double keep = 0.98;

    *weight = keep * *weight + (1 - keep);
    return mean + (1 - keep) / *weight * (loss - mean);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A round number that is at least `least`: 1, 2 or 5 times a power of ten. */
static double round_above(double least)
{
    double ten = pow(10, floor(log10(least)));
    return least <= ten ? ten : least <= 2 * ten ? 2 * ten : least <= 5 * ten ? 5 * ten : 10 * ten;
}

static weft_status measure(curve *c, weft_error *err)
{
    double *sorted = malloc(c->count * sizeof *sorted), weight = 0, most = 0;

    c->mean = malloc(c->count * sizeof *c->mean);
    if (sorted == NULL || c->mean == NULL) {
        free(sorted);
        return fail(err, WEFT_E_NOMEM, "out of memory for a curve");
    }
    memcpy(sorted, c->loss, c->count * sizeof *sorted);
    qsort(sorted, c->count, sizeof *sorted, ascending);
    most = sorted[(size_t)(0.98 * (double)(c->count - 1))];
    for (size_t i = 0; i < c->count; i++) {
        c->mean[i] = draw_smooth(i > 0 ? c->mean[i - 1] : 0, &weight, c->loss[i]);
        most = MORE(most, c->mean[i]);
    }
    free(sorted);
    c->tick = round_above(MORE(most, 1e-12) / 6);
    c->top = c->tick * (floor(most / c->tick) + 1);
    return WEFT_OK;
}

static int32_t row_of(const curve *c, double loss)
{
    return TOP + DOWN - 1 - (int32_t)(fmin(fmax(loss / c->top, 0), 1) * (DOWN - 1) + 0.5);
}

static int32_t column_of(const curve *c, size_t i)
{
    return LEFT + (c->count > 1 ? (int32_t)((double)i / (double)(c->count - 1) * (ACROSS - 1) + 0.5) : ACROSS / 2);
}

static void paint_axes(canvas *k, const curve *c)
{
    char   text[32];
    double step = round_above(MORE((double)(c->count - 1) / 8, 1));

    for (int n = 0; n * c->tick <= c->top * (1 + 1e-9); n++) {
        int32_t y = row_of(c, n * c->tick);
        snprintf(text, sizeof text, "%.6g", n * c->tick);
        fill(k, LEFT, y, ACROSS, 1, EMPTY);
        write_text(k, LEFT - 10 - text_width(2, text), y - 7, 2, INK, text);
    }
    for (double at = ceil((double)c->first / step) * step; at <= (double)(c->first + (int64_t)c->count - 1); at += step) {
        int32_t x = column_of(c, (size_t)(at - (double)c->first));
        snprintf(text, sizeof text, "%.0f", at);
        fill(k, x, TOP + DOWN, 1, 5, FAINT);
        write_text(k, x - text_width(2, text) / 2, TOP + DOWN + 10, 2, INK, text);
    }
    fill(k, LEFT - 1, TOP, 1, DOWN, FAINT);
    fill(k, LEFT, TOP + DOWN, ACROSS, 1, FAINT);
    write_text(k, LEFT, TOP + DOWN + 34, 2, FAINT, "steps; faint: the loss of each, line: its mean over the last 50");
}

static void paint_curve(canvas *k, void *user)
{
    const curve *c = user;
    int32_t      before = -1;

    write_text(k, LEFT, 24, 2, INK, c->title);
    paint_axes(k, c);
    for (size_t i = 0; i < c->count; i++) {
        int32_t x = column_of(c, i), y = row_of(c, c->loss[i]), next = i + 1 < c->count ? column_of(c, i + 1) : x + 1;
        fill(k, x, y, MORE(LESS(next - x - 1, 8), 1), TOP + DOWN - y, blend(hues[0], 0.25));
    }
    for (int32_t x = 0; x < ACROSS; x++) { /* between steps a straight line */
        double  at = (double)x / (ACROSS - 1) * (double)(c->count - 1);
        size_t  i = LESS((size_t)at, c->count - 1), next = LESS(i + 1, c->count - 1);
        int32_t y = row_of(c, c->mean[i] + (at - (double)i) * (c->mean[next] - c->mean[i])), from = before < 0 ? y : before;
        fill(k, LEFT + x, LESS(from, y) - 1, 1, abs(from - y) + 3, hues[1]);
        before = y;
    }
}

weft_status draw_loss(const double *loss, size_t count, int64_t first, const char *title, const char *path,
                      weft_error *err)
{
    curve c = { .loss = loss, .count = count, .first = first, .title = title };
    weft_status st;

    if (count == 0) return fail(err, WEFT_E_ARG, "no step was taken: there is no curve to draw");
    for (size_t i = 0; i < count; i++)
        if (!isfinite(loss[i])) return fail(err, WEFT_E_ARG, "a loss that is no number cannot be drawn");
    st = measure(&c, err);
    if (st == WEFT_OK) st = write_canvas(WIDE, HIGH, paint_curve, &c, path, err);
    free(c.mean);
    return st;
}
