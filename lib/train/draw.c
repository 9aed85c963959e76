/* draw.c - what is read at a position of the stream, as a pure function of a seed.
 *
 * Every draw hashes (seed, list, purpose, position) and starts a generator of its own from that, so
 * a training that goes on after a break draws what it would have drawn, with nothing to store. The
 * numbers of one draw are taken in one order whatever the options are: turning flips on changes no
 * crop.
 *
 * An epoch is a permutation (Fisher and Yates) from the hash of its number: every picture once,
 * then again in another order. The last order is remembered, since a batch asks for it many times.
 * */
#include "train/dataset_internal.h"

enum { FOR_SAMPLE = 1, FOR_ORDER = 2, FOR_LATENT = 3, FOR_SPARE = 4 };

/* Custom Diffusion: smaller with this chance, and the bounds of both sizes. */
static const double smaller = 0.66, least = 1.0 / 3, more = 1.2, most = 1.4, far = 0.6;

static uint64_t seed_of(uint64_t seed, wf_data_list list, uint64_t purpose, uint64_t at)
{
    uint64_t words[3] = { (uint64_t)list, purpose, at };
    return wf_hash(seed, words, sizeof words);
}

/* 0 to n - 1. */
static size_t below(wf_mersenne *g, size_t n)
{
    return (size_t)(((uint64_t)wf_mersenne_next(g) * n) >> 32);
}

static weft_status make_order(wf_dataset *set, wf_data_list list, uint64_t seed, uint64_t epoch,
                              weft_error *err)
{
    wf_data_order *o = &set->order[list];
    size_t n = set->count[list], bytes;
    wf_mersenne g;

    if (o->of != NULL && o->count == n && o->seed == seed && o->epoch == epoch) return WEFT_OK;
    if (o->of == NULL || o->count != n) {
        wf_free(&set->alloc, o->of);
        o->of = NULL;
        if (!wf_mul(n, sizeof *o->of, &bytes) || (o->of = wf_alloc(&set->alloc, bytes)) == NULL)
            return wf_nomem(err, n * sizeof *o->of, "the order of the pictures");
    }
    o->count = n;
    o->seed = seed;
    o->epoch = epoch;
    for (size_t i = 0; i < n; i++) o->of[i] = i;
    wf_mersenne_seed(&g, seed_of(seed, list, FOR_ORDER, epoch));
    for (size_t i = n; i > 1; i--) {
        size_t k = below(&g, i), last = o->of[i - 1];
        o->of[i - 1] = o->of[k];
        o->of[k] = last;
    }
    return WEFT_OK;
}

/* Half of what is left over, halves to even: torchvision's center_crop. */
static int32_t middle(int32_t left_over)
{
    int32_t half = left_over / 2;
    return half + (left_over % 2 & half % 2);
}

static int32_t scaled(int32_t side, double by)
{
    int32_t n = (int32_t)(side * by);
    return n < 1 ? 1 : n;
}

/* The smallest size of the picture's shape that covers ours times `by`, rounded down as torchvision
 * does, and the middle of it: as much as ours at most. */
static void fit(const wf_dataset *set, wf_sample *s, double by)
{
    int32_t w = scaled(set->o.width, by), h = scaled(set->o.height, by);

    s->original_w = set->picture[s->list][s->picture].width;
    s->original_h = set->picture[s->list][s->picture].height;
    if ((int64_t)s->original_w * h <= (int64_t)s->original_h * w) {
        s->resized_w = w;
        s->resized_h = (int32_t)((int64_t)s->original_h * w / s->original_w);
    } else {
        s->resized_h = h;
        s->resized_w = (int32_t)((int64_t)s->original_w * h / s->original_h);
    }
    s->cut_w = WF_MIN(w, set->o.width);
    s->cut_h = WF_MIN(h, set->o.height);
    s->left = middle(s->resized_w - s->cut_w);
    s->top = middle(s->resized_h - s->cut_h);
}

void wf_data_plain(const wf_dataset *set, wf_data_list list, size_t picture, bool flip,
                   wf_sample *sample)
{
    *sample = (wf_sample){ .list = list, .picture = picture, .flip = flip };
    fit(set, sample, 1);
}

weft_status wf_dataset_draw(wf_dataset *set, wf_data_list list, uint64_t seed, uint64_t position,
                            wf_sample *sample, weft_error *err)
{
    const wf_dataset_options *o = &set->o;
    size_t      n = set->count[list];
    double      by = 1;
    bool        anywhere = o->random_crop;
    wf_mersenne g;

    if (n == 0)
        return wf_fail(err, WEFT_E_STATE, "there are no %s to train on",
                       list == WF_DATA_CLASS ? "class pictures" : "pictures");
    WF_TRY(make_order(set, list, seed, position / n, err));
    wf_sample s = { .list = list, .epoch = position / n,
                    .picture = set->order[list].of[position % n],
                    .seed = seed_of(seed, list, FOR_LATENT, position),
                    .spare_seed = seed_of(seed, list, FOR_SPARE, position) };

    wf_mersenne_seed(&g, seed_of(seed, list, FOR_SAMPLE, position));
    bool   heads = wf_mersenne_next(&g) >> 31 != 0;
    double which = (double)wf_mersenne_uniform(&g), size = (double)wf_mersenne_uniform(&g);
    uint32_t across = wf_mersenne_next(&g), down = wf_mersenne_next(&g);
    s.flip = o->flip && heads;
    if (o->augment && list == WF_DATA_INSTANCE) {
        by = which < smaller ? least + (1 - least) * size : more + (most - more) * size;
        anywhere = anywhere || by > 1;
        s.phrase = by < far ? "seen small in the distance" : by > 1 ? "seen close up" : NULL;
    }
    fit(set, &s, by);
    if (anywhere) {
        s.left = (int32_t)((uint64_t)across * (uint64_t)(s.resized_w - s.cut_w + 1) >> 32);
        s.top = (int32_t)((uint64_t)down * (uint64_t)(s.resized_h - s.cut_h + 1) >> 32);
    }
    s.at_x = (int32_t)below(&g, (size_t)(o->width - s.cut_w) + 1);
    s.at_y = (int32_t)below(&g, (size_t)(o->height - s.cut_h) + 1);
    *sample = s;
    return WEFT_OK;
}
