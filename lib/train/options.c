/* options.c - what the caller asks of a training: defaults filled in, and what cannot be refused.
 *
 * Where the caller gives 0 the recipe's number stands, and where the recipe gives none that of the
 * tables below. A number below 0 stays as it is: it means none (wf_none), and what is handed out by
 * weft_trainer_get_options() must mean the same if it is given again. */
#include "train/trainer_internal.h"

#include "base/structs.h"

#define COMMON_FLAGS \
    (WEFT_TRAIN_RECOMPUTE | WEFT_TRAIN_FLIP | WEFT_TRAIN_RANDOM_CROP | WEFT_TRAIN_SMALL)
#define ALL_FLAGS                                                                              \
    (COMMON_FLAGS | WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED | WEFT_TRAIN_EXACT_NORM | \
     WEFT_TRAIN_ZIP_CODE | WEFT_TRAIN_CROSS | WEFT_TRAIN_RESIZE | WEFT_TRAIN_BOTH)

/* One number. `none`: below 0 means that there is none; `below`: it must stay under `most`. */
typedef struct number {
    const char *name;
    size_t      at;
    uint32_t    uses;
    double      general, least, most;
    bool        none, below;
} number;
#define AT(field) #field, offsetof(weft_train_options, field)

static const number doubles[] = {
    { AT(rate), 0, 1e-4, 0, 1e3, false, false },
    { AT(text_rate), WF_USES_TEXT, 0, 0, 1e3, true, false },
    { AT(token_rate), WF_USES_WORDS, 0, 0, 1e3, true, false },
    { AT(beta1), 0, 0.9, 0, 1, true, true },
    { AT(beta2), 0, 0.999, 0, 1, true, true },
    { AT(epsilon), 0, 1e-8, 0, 1, false, false },
    { AT(weight_decay), 0, 1e-2, 0, 1e3, true, false },
    { AT(clip), 0, 1, 0, 1e30, true, false },
    { AT(alpha), WF_USES_RANK, 0, 0, 1e6, false, false },
    { AT(noise_offset), 0, 0, 0, 10, true, false },
    { AT(min_snr), 0, 0, 0, 1e6, true, false },
    { AT(prior_weight), 0, 1, 0, 1e3, true, false },
    { AT(dropout), 0, 0, 0, 1, true, false },
    { AT(ema), WF_USES_EMA, 0, 0, 1, true, true },
    { AT(similarity), WF_USES_ZIP, 0.01, 0, 1e6, true, false },
};

/* `rates` before `steps`, which a checkpoint with constant rates does not say. */
static const number integers[] = {
    { AT(optimiser), 0, WEFT_OPTIMISER_ADAMW, WEFT_OPTIMISER_ADAMW, WEFT_OPTIMISER_SGD, false,
      false },
    { AT(rates), 0, WEFT_RATES_CONSTANT, WEFT_RATES_CONSTANT, WEFT_RATES_LINEAR, false, false },
    { AT(steps), 0, 1000, 1, 1e9, false, false },
    { AT(batch), 0, 1, 1, 512, false, false },
    { AT(accumulate), 0, 1, 1, 65536, false, false },
    { AT(rank), WF_USES_RANK, 4, 1, 4096, false, false },
    { AT(factor), WF_USES_FACTOR, -1, -1, 4096, true, false },
    { AT(vectors), WF_USES_WORDS, 1, 1, 64, false, false },
    { AT(warmup), 0, 0, 0, 1e9, true, false },
    { AT(threads), 0, 0, 0, WF_MAX_THREADS, false, false },
};

/* Those that change no bit, RECOMPUTE, are not among them. */
#define FLAG(name) { WEFT_TRAIN_##name, "WEFT_TRAIN_" #name }
static const struct { uint32_t flag; const char *name; } flags[] = {
    FLAG(TEXT), FLAG(CONV), FLAG(FEED), FLAG(FLIP), FLAG(RANDOM_CROP), FLAG(SMALL),
    FLAG(EXACT_NORM), FLAG(ZIP_CODE), FLAG(CROSS), FLAG(RESIZE), FLAG(BOTH),
};

static double *double_at(weft_train_options *o, const number *n)
{
    return (double *)(void *)((uint8_t *)o + n->at);
}

static int32_t *integer_at(weft_train_options *o, const number *n)
{
    return (int32_t *)(void *)((uint8_t *)o + n->at);
}

static double default_of(const wf_recipe *r, const number *n, bool whole)
{
    const uint8_t *own = (const uint8_t *)&r->defaults + n->at;
    double v = whole ? (double)*(const int32_t *)(const void *)own
                     : *(const double *)(const void *)own;
    return v != 0 ? v : n->general;
}

/* The value that stands, or why not. */
static weft_status settle(double *v, const wf_recipe *r, const number *n, bool whole,
                          weft_error *err)
{
    wf_number_text found, least, most;

    if (n->uses != 0 && (r->uses & n->uses) == 0) {
        if (*v == 0) return WEFT_OK;
        return wf_fail(err, WEFT_E_ARG, "train: %s is set, which %s does not take", n->name,
                       r->name);
    }
    if (*v == 0) *v = default_of(r, n, whole);
    bool fits = *v >= n->least && *v <= n->most && !(n->below && *v == n->most);
    if (fits || (n->none && *v < 0 && *v > -1e30)) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "train: %s is %s, wanted %s %s%s%s", n->name,
                   wf_number_double(&found, *v), wf_number_double(&least, n->least),
                   n->below ? "to below " : "to ", wf_number_double(&most, n->most),
                   n->none ? ", or below 0 for none" : "");
}

static weft_status settle_numbers(weft_train_options *o, const wf_recipe *r, weft_error *err)
{
    for (size_t i = 0; i < WF_LEN(doubles); i++)
        WF_TRY(settle(double_at(o, &doubles[i]), r, &doubles[i], false, err));
    for (size_t i = 0; i < WF_LEN(integers); i++) {
        int32_t *at = integer_at(o, &integers[i]);
        double   v = *at;
        WF_TRY(settle(&v, r, &integers[i], true, err));
        *at = (int32_t)v;
    }
    return WEFT_OK;
}

/* Flags and strings of other recipes. */
static weft_status refuse_others(const weft_train_options *o, const wf_recipe *r, weft_error *err)
{
    const struct { const char *name; bool set; uint32_t uses; } pointers[] = {
        { "modules", o->modules != NULL, WF_USES_MODULES },
        { "tokens", o->tokens != NULL, WF_USES_WORDS },
        { "initial", o->initial != NULL, WF_USES_WORDS },
        { "content", o->content != NULL, WF_USES_ZIP },
        { "style", o->style != NULL, WF_USES_ZIP },
    };

    for (size_t i = 0; i < WF_LEN(flags); i++)
        if ((o->flags & flags[i].flag & ~(r->flags | r->always | COMMON_FLAGS)) != 0)
            return wf_fail(err, WEFT_E_ARG, "train: %s is set, which %s does not take",
                           flags[i].name, r->name);
    for (size_t i = 0; i < WF_LEN(pointers); i++)
        if (pointers[i].set && (r->uses & pointers[i].uses) == 0)
            return wf_fail(err, WEFT_E_ARG, "train: %s is given, which %s does not take",
                           pointers[i].name, r->name);
    return WEFT_OK;
}

/* What would change nothing beside another option. */
static weft_status refuse_idle(const weft_train_options *o, const wf_recipe *r, weft_error *err)
{
    uint32_t choice = o->flags & (WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED) & ~r->always;

    if (o->modules != NULL && choice != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "train: modules is given, which names all layers: WEFT_TRAIN_%s adds none",
                       (choice & WEFT_TRAIN_TEXT) != 0 ? "TEXT"
                       : (choice & WEFT_TRAIN_CONV) != 0 ? "CONV" : "FEED");
    if (o->optimiser == WEFT_OPTIMISER_SGD && (o->beta2 != 0 || o->epsilon != 0))
        return wf_fail(err, WEFT_E_ARG, "train: %s is set, which sgd does not take",
                       o->beta2 != 0 ? "beta2" : "epsilon");
    return WEFT_OK;
}

/* The size of the pictures: the model's own, and what its networks take. */
static weft_status settle_size(weft_train_options *o, const wf_networks *n, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(n);
    int32_t factor = wf_vae_factor(n->vae), step = factor * f->multiple;
    int32_t *sides[2] = { &o->width, &o->height };

    for (int i = 0; i < 2; i++) {
        if (*sides[i] == 0) *sides[i] = f->sample_size * factor;
        if (*sides[i] < step || *sides[i] > 8192 || *sides[i] % step != 0)
            return wf_fail(err, WEFT_E_ARG,
                           "train: %s is %d, wanted a multiple of %d, up to 8192",
                           i == 0 ? "width" : "height", *sides[i], step);
    }
    return WEFT_OK;
}

/* What the trainer asks of any model. */
static weft_status check_model(const weft_model *m, const wf_recipe *r, weft_error *err)
{
    const wf_networks *n = wf_model_networks(m);
    const wf_denoiser_facts *f = wf_facts(n);

    if (n->vae == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "train: the model has no VAE to encode pictures with: open it with "
                       "weft_model_options.vae, a VAE from elsewhere");
    WF_TRY(wf_model_need_tokenizer(m, err));
    for (int32_t i = 0; i < n->streams; i++)
        if (n->stream[i].sources == 0)
            return wf_fail(err, WEFT_E_STATE,
                           "train: no text encoder of the model gives text stream %d", (int)i);
    if (f->in_channels != f->out_channels || f->guidance || (f->time_ids != 0 && f->time_ids != 6))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s cannot train this %s model: it reads more than noisy latents, a time, a "
                       "text and sizes", r->name, wf_base_name(f->base));
    return WEFT_OK;
}

static weft_status keep_string(const char **s, const char *name, wf_bag *bag, weft_error *err)
{
    if (*s == NULL) return WEFT_OK;
    size_t n = strlen(*s);
    if (!wf_utf8_valid(*s, n)) return wf_fail(err, WEFT_E_ARG, "train: %s is not UTF-8", name);
    *s = wf_bag_string(bag, *s, n);
    return *s != NULL ? WEFT_OK : wf_nomem(err, n + 1, "the options of a training");
}

weft_status wf_train_read_options(weft_train_options *o, const weft_train_options *given,
                                  weft_error *err)
{
    WF_TRY(WF_OPTIONS(o, given, weft_train_options, ALL_FLAGS, err));
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_train_options: reserved0 is %d, must be zero", o->reserved0);
    if (wf_recipe_of(o->recipe) == NULL)
        return wf_fail(err, WEFT_E_ARG,
                       "train: recipe is %d, which is no WEFT_RECIPE_* of this version", o->recipe);
    return wf_check_allocator(o->allocator, err);
}

weft_status wf_train_settle(weft_trainer *t, weft_error *err)
{
    const wf_recipe    *r = t->recipe;
    weft_train_options *o = &t->o;

    WF_TRY(check_model(t->model, r, err));
    WF_TRY(refuse_others(o, r, err));
    WF_TRY(refuse_idle(o, r, err));
    WF_TRY(settle_numbers(o, r, err));
    if (o->optimiser == WEFT_OPTIMISER_SGD) o->beta2 = o->epsilon = 0;
    o->flags |= r->always;
    if (o->token_rate == 0 && (r->uses & WF_USES_WORDS) != 0) o->token_rate = o->rate;
    if (o->alpha == 0 && (r->uses & WF_USES_RANK) != 0) o->alpha = o->rank;
    if (o->threads == 0) o->threads = wf_cores();
    WF_TRY(settle_size(o, t->networks, err));
    t->choice.rank = o->rank;
    t->choice.alpha = (float)o->alpha;
    t->choice.factor = o->factor;
    t->choice.exact_norm = (o->flags & WEFT_TRAIN_EXACT_NORM) != 0;
    t->choice.both = (o->flags & WEFT_TRAIN_BOTH) != 0;
    t->choice.gaussian = r->gaussian;
    const struct { const char **at, *name; } strings[] = {
        { &o->modules, "modules" }, { &o->tokens, "tokens" }, { &o->initial, "initial" },
        { &o->name, "name" },
    };
    for (size_t i = 0; i < WF_LEN(strings); i++)
        WF_TRY(keep_string(strings[i].at, strings[i].name, &t->bag, err));
    return r->check != NULL ? r->check(t->model, o, err) : WEFT_OK;
}

weft_status wf_train_settle_text_rate(weft_trainer *t, weft_error *err)
{
    bool trained = t->begin[WF_GROUP_WORDS] > t->begin[WF_GROUP_TEXT];

    if (trained && t->o.text_rate == 0) t->o.text_rate = t->o.rate;
    if (trained || t->o.text_rate == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "train: text_rate is set, but no layer of the text encoders is trained: %s",
                   t->o.modules != NULL ? "modules names none" : "set WEFT_TRAIN_TEXT");
}

/* ---- as text --------------------------------------------------------------------------------- */

void wf_train_say_options(const weft_train_options *o, wf_train_say say, void *user)
{
    const struct { const char *name, *value; } strings[] = {
        { "modules", o->modules }, { "tokens", o->tokens }, { "initial", o->initial },
    };
    weft_train_options copy = *o;
    wf_number_text text;
    char whole[32];

    say(user, "recipe", weft_recipe_name(o->recipe));
    for (size_t i = 0; i < WF_LEN(strings); i++)
        say(user, strings[i].name, strings[i].value != NULL ? strings[i].value : "");
    for (size_t i = 0; i < WF_LEN(flags); i++)
        say(user, flags[i].name, (o->flags & flags[i].flag) != 0 ? "yes" : "no");
    wf_format(whole, sizeof whole, "%llu", (unsigned long long)o->seed);
    say(user, "seed", whole);
    for (size_t i = 0; i < WF_LEN(integers); i++) {
        const char *name = integers[i].name;
        bool open_end = o->rates == WEFT_RATES_CONSTANT && strcmp(name, "steps") == 0;
        if (open_end || strcmp(name, "threads") == 0) continue;
        say(user, name, wf_number_double(&text, *integer_at(&copy, &integers[i])));
    }
    for (size_t i = 0; i < WF_LEN(doubles); i++)
        say(user, doubles[i].name, wf_number_double(&text, *double_at(&copy, &doubles[i])));
    say(user, "width", wf_number_double(&text, o->width));
    say(user, "height", wf_number_double(&text, o->height));
}
