/* share.c - maps of several subjects become masks that share the image out: a balanced choice.
 *
 * Each pixel goes to the subject of largest score, and the scores move for 15 rounds until each
 * subject has about as many pixels as the others: in round i, with n pixels and L subjects,
 *
 *     p_l      = (score_l - bias_l) between the least and the largest of all subjects, 0 to 1
 *     P_l      = 0.8 p_l + 0.2 P_l
 *     bias_l  += 0.01 range 0.95^i sign(pixels that l has - n / L)
 *     score_l  = map_l - bias_l + 3e-5 (mean of P_l over the 8 neighbours)
 *                - 3e-5 (squared distance from the centre of mass of P_l)
 *
 * range is that of all maps, at least 1e-4. Places run from -1 to 1 along each side, and across 1.3
 * times as far, so subjects lie rather beside than above each other. Neighbours off the image count
 * as 0. The first P_l is map_l between its own least and largest value.
 *
 * Source: FreeFuse's program, with its defaults. */
#include <math.h>

#include "run/run_internal.h"

enum { ROUNDS = 15 };

typedef struct sharing {
    int32_t count, h, w;
    size_t n;
    const float *map; /* [count][n] */
    double *score;    /* [count][n] */
    double *part;     /* [count][n] P */
    double *bias;     /* [count]    */
    double *next;     /* [n]        */
} sharing;

static double along(int32_t i, int32_t n)
{
    return n > 1 ? -1 + 2.0 * i / (n - 1) : -1;
}

static int32_t best(const sharing *s, size_t p, bool biased)
{
    int32_t k = 0;
    for (int32_t l = 1; l < s->count; l++) {
        double a = s->score[(size_t)l * s->n + p] - (biased ? s->bias[l] : 0);
        double b = s->score[(size_t)k * s->n + p] - (biased ? s->bias[k] : 0);
        if (a > b) k = l;
    }
    return k;
}

static double begin(sharing *s)
{
    double least = INFINITY, most = -INFINITY;

    for (int32_t l = 0; l < s->count; l++) {
        double low = INFINITY, high = -INFINITY;
        for (size_t p = 0; p < s->n; p++) {
            double v = s->map[(size_t)l * s->n + p];
            low = fmin(low, v), high = fmax(high, v);
        }
        for (size_t p = 0; p < s->n; p++) {
            double v = s->map[(size_t)l * s->n + p];
            s->part[(size_t)l * s->n + p] = (v - low) / (high - low + 1e-8);
            s->score[(size_t)l * s->n + p] = v;
        }
        least = fmin(least, low), most = fmax(most, high);
    }
    return fmax(most - least, 1e-4);
}

static void mix_parts(sharing *s)
{
    for (size_t p = 0; p < s->n; p++) {
        double low = INFINITY, high = -INFINITY;
        for (int32_t l = 0; l < s->count; l++) {
            double v = s->score[(size_t)l * s->n + p] - s->bias[l];
            low = fmin(low, v), high = fmax(high, v);
        }
        for (int32_t l = 0; l < s->count; l++) {
            size_t at = (size_t)l * s->n + p;
            s->part[at] =
                0.8 * (s->score[at] - s->bias[l] - low) / (high - low + 1e-8) + 0.2 * s->part[at];
        }
    }
}

static void move_bias(sharing *s, double step, double most)
{
    for (int32_t l = 0; l < s->count; l++) {
        double has = 0, fair = (double)s->n / s->count;
        for (size_t p = 0; p < s->n; p++) has += best(s, p, true) == l;
        s->next[l] = has > fair ? step : has < fair ? -step : 0;
    }
    for (int32_t l = 0; l < s->count; l++)
        s->bias[l] = fmax(-most, fmin(most, s->bias[l] + s->next[l]));
}

static double neighbours(const sharing *s, const double *part, int32_t y, int32_t x)
{
    double sum = 0;
    for (int32_t i = WF_MAX(y - 1, 0); i <= WF_MIN(y + 1, s->h - 1); i++)
        for (int32_t j = WF_MAX(x - 1, 0); j <= WF_MIN(x + 1, s->w - 1); j++)
            if (i != y || j != x) sum += part[(size_t)i * (size_t)s->w + (size_t)j];
    return sum / 8;
}

static void find_centre(const sharing *s, const double *part, double *cy, double *cx)
{
    double mass = 1e-6, y = 0, x = 0;

    for (size_t p = 0; p < s->n; p++) {
        mass += part[p];
        y += part[p] * along((int32_t)(p / (size_t)s->w), s->h);
        x += part[p] * along((int32_t)(p % (size_t)s->w), s->w) * 1.3;
    }
    *cy = y / mass;
    *cx = x / mass;
}

/* cy, cx [count]: centres before the bias moved. */
static void score_again(sharing *s, const double *cy, const double *cx)
{
    for (int32_t l = 0; l < s->count; l++)
        for (int32_t y = 0; y < s->h; y++)
            for (int32_t x = 0; x < s->w; x++) {
                size_t at = (size_t)l * s->n + (size_t)y * (size_t)s->w + (size_t)x;
                double dy = along(y, s->h) - cy[l], dx = along(x, s->w) * 1.3 - cx[l];
                s->score[at] = s->map[at] - s->bias[l] +
                               3e-5 * neighbours(s, s->part + (size_t)l * s->n, y, x) -
                               3e-5 * (dy * dy + dx * dx);
            }
}

weft_status wf_share_image(float *maps, int32_t count, int32_t h, int32_t w,
                           const weft_allocator *alloc, weft_error *err)
{
    size_t n = (size_t)h * (size_t)w, k = (size_t)count, all = 2 * k * n + 3 * k + WF_MAX(n, k);
    double *memory = wf_zalloc(alloc, all, sizeof *memory);
    double lr = 0.01, decay = 1;

    if (memory == NULL) return wf_nomem(err, all * sizeof *memory, "masks");
    sharing s = {.count = count,
                 .h = h,
                 .w = w,
                 .n = n,
                 .map = maps,
                 .score = memory,
                 .part = memory + k * n,
                 .bias = memory + 2 * k * n,
                 .next = memory + 2 * k * n + 3 * k};
    double *cy = s.bias + k, *cx = cy + k, range = begin(&s);

    for (int i = 0; i < ROUNDS; i++, decay *= 0.95) {
        mix_parts(&s);
        for (int32_t l = 0; l < count; l++) find_centre(&s, s.part + (size_t)l * n, &cy[l], &cx[l]);
        move_bias(&s, lr * range * decay, 10 * range);
        score_again(&s, cy, cx);
    }
    for (size_t p = 0; p < n; p++) {
        int32_t mine = best(&s, p, false);
        for (int32_t l = 0; l < count; l++) maps[(size_t)l * n + p] = l == mine ? 1.0f : 0.0f;
    }
    wf_free(alloc, memory);
    return WEFT_OK;
}
