/* words.c - new words: what they begin as, and captions that have them.
 *
 * Only the rows of the new words are trained; they lie apart from the vocabulary, so that no other
 * row can change (programs that train inside the table must put all others back after each step).
 *
 * A word begins as another word's vector, all of its vectors as the same; or as the vectors of a
 * word of as many tokens; or as random numbers that are as large as the vocabulary's own. */
#include <math.h>

#include "adapter/view.h"
#include "model/prompt.h"
#include "plan/plan.h"
#include "train/words.h"

/* ---- the words ------------------------------------------------------------------------------- */

void wf_new_words_free(wf_new_words *w)
{
    if (w == NULL) return;
    weft_allocator alloc = w->alloc;
    for (int32_t i = 0; i < w->count; i++) {
        wf_free(&alloc, w->word[i].name);
        wf_free(&alloc, w->word[i].folded);
    }
    wf_free(&alloc, w->initial);
    wf_free(&alloc, w);
}

/* Part `index` of a list that commas separate, without white space around it; false: past its
 * end. */
static bool part_of(const char *list, int32_t index, const char **s, size_t *n)
{
    for (; list != NULL && index > 0; index--) {
        list = strchr(list, ',');
        if (list != NULL) list++;
    }
    if (list == NULL) return false;
    *n = strcspn(list, ",");
    while (*n > 0 && (*list == ' ' || *list == '\t')) list++, --*n;
    while (*n > 0 && (list[*n - 1] == ' ' || list[*n - 1] == '\t')) --*n;
    *s = list;
    return true;
}

static weft_status add_word(wf_new_words *w, const weft_model *model, const char *s, size_t n,
                            weft_error *err)
{
    bool taken, found;

    if (w->count == WF_NEW_WORDS)
        return wf_fail(err, WEFT_E_ARG, "train: tokens names more than %d words",
                       WF_NEW_WORDS);
    wf_new_word *to = &w->word[w->count++];
    to->row = w->rows;
    w->rows += w->vectors;
    if (n > 200)
        return wf_fail(err, WEFT_E_ARG, "train: tokens: word %d has more than 200 bytes",
                       (int)w->count);
    to->name = wf_strndup(&w->alloc, s, n);
    if (to->name == NULL) return wf_nomem(err, n + 1, "a word");
    WF_TRY(wf_tokenizer_fold(to->name, &w->alloc, &to->folded, &to->folded_len, err));
    const char *why = wf_token_unfit(to->folded, to->folded_len);
    if (why != NULL)
        return wf_fail(err, WEFT_E_ARG, "train: tokens: word %d %s", (int)w->count, why);
    for (int32_t i = 0; i < w->count - 1; i++)
        if (strcmp(w->word[i].folded, to->folded) == 0)
            return wf_fail(err, WEFT_E_ARG, "train: tokens: %.80s is there twice",
                           to->name);
    WF_TRY(wf_tokens_look_up(model, to->folded, to->folded_len, &taken, &found, err));
    if (taken)
        return wf_fail(err, WEFT_E_ARG,
                       "train: tokens: %.80s is in the model's vocabulary already",
                       to->name);
    if (!found)
        return wf_fail(err, WEFT_E_ARG,
                       "train: tokens: %.80s contains a token that the model's tokenizer "
                       "sets apart",
                       to->name);
    w->extra[w->count - 1] = (wf_extra){ to->folded, to->folded_len, to->row, w->vectors };
    return WEFT_OK;
}

static weft_status add_words(wf_new_words *w, const weft_model *model, const char *tokens,
                             weft_error *err)
{
    const wf_networks *n = wf_model_networks(model);
    const char        *s;
    size_t             len;
    int32_t            fits = INT32_MAX;

    for (int32_t i = 0; i < n->encoders; i++)
        fits = WF_MIN(fits, wf_encoder_positions(&n->encoder[i]) - 2);
    if (w->vectors < 1 || w->vectors > fits)
        return wf_fail(err, WEFT_E_ARG, "train: vectors is %d, wanted 1 to %d",
                       (int)w->vectors, (int)fits);
    if (w->layers > 1 && w->vectors != 1)
        return wf_fail(err, WEFT_E_ARG,
                       "train: vectors is %d; a word with vectors for each layer has 1",
                       (int)w->vectors);
    for (int32_t i = 0; part_of(tokens, i, &s, &len); i++)
        WF_TRY(add_word(w, model, s, len, err));
    return WEFT_OK;
}

static weft_status lay_out(wf_new_words *w, const wf_networks *n, weft_error *err)
{
    size_t floats;

    w->encoders = n->encoders;
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_clip_config *c = wf_clip_get_config(n->encoder[i].net);
        w->width[i] = c->hidden;
        w->list[i] = (wf_extras){ w->extra, (size_t)w->count, c->vocab };
        w->at[i] = w->each;
        if (!wf_mul((size_t)w->rows, (size_t)c->hidden, &floats) ||
            !wf_add(w->each, floats, &w->each))
            return wf_nomem(err, SIZE_MAX, "new words");
    }
    if (!wf_mul(w->each, (size_t)w->layers, &w->floats))
        return wf_nomem(err, SIZE_MAX, "new words");
    w->initial = wf_zalloc(&w->alloc, w->floats, sizeof *w->initial);
    return w->initial != NULL ? WEFT_OK
                              : wf_nomem(err, w->floats * sizeof *w->initial, "new words");
}

/* ---- what they begin as ---------------------------------------------------------------------- */

static float *vector_at(const wf_new_words *w, float *floats, int32_t encoder, int32_t layer,
                        int32_t row)
{
    return floats + (size_t)layer * w->each + w->at[encoder] +
           (size_t)row * (size_t)w->width[encoder];
}

/* Root mean square of the vocabulary's numbers, from at most 1024 of its rows. */
static double usual_size(const wf_tensor *table, float *row)
{
    size_t rows = (size_t)table->shape[0], width = (size_t)table->shape[1],
           step = WF_MAX(rows / 1024, 1), count = 0;
    double sum = 0;

    for (size_t r = 0; r < rows; r += step, count += width) {
        wf_tensor_read(table, r * width, width, row);
        for (size_t i = 0; i < width; i++) sum += (double)row[i] * row[i];
    }
    return sqrt(sum / (double)count);
}

/* The ids of a text in an encoder's vocabulary: *n of them, of which at most `cap` are written. */
static weft_status ids_of(const wf_text_encoder *e, const char *s, size_t len, int32_t *ids,
                          size_t cap, size_t *n, weft_error *err)
{
    return wf_tokenizer_encode_with(e->tokenizer, NULL, s, len, ids, cap, n, err);
}

/* The vectors of word i for one encoder, in the first layer: ids[0] for all, ids[k] for vector k,
 * or without ids random ones. */
static void begin_word(wf_new_words *w, const wf_networks *n, int32_t encoder, int32_t i,
                       const int32_t *ids, size_t count, wf_mersenne *g)
{
    const wf_tensor *table = wf_clip_tokens(n->encoder[encoder].net);
    size_t           width = (size_t)w->width[encoder];
    float           *first = vector_at(w, w->initial, encoder, 0, w->word[i].row);

    double size = count == 0 ? usual_size(table, first) : 0;
    for (size_t k = 0; k < (size_t)w->vectors; k++) {
        float *to = first + k * width;
        if (count > 0) {
            size_t id = (size_t)ids[count > 1 ? k : 0];
            wf_tensor_read(table, id * width, width, to);
        }
        for (size_t j = 0; j < width && count == 0; j++)
            to[j] = (float)(size * (double)wf_draw_normal(g));
    }
}

/* Words that CLIP's vocabulary has and captions have not, as Custom Diffusion's authors chose. */
static const char *const rare_words[] = { "ktn", "pll", "ucd" };

static weft_status begin_as(wf_new_words *w, const weft_model *model, int32_t i, const char *s,
                            size_t len, bool given, wf_mersenne *g, weft_error *err)
{
    const wf_networks *n = wf_model_networks(model);
    int32_t           *ids = NULL;
    size_t             room = (size_t)w->vectors, count = 0;
    weft_status        st = WEFT_OK;

    ids = wf_zalloc(&w->alloc, room, sizeof *ids);
    if (ids == NULL) return wf_nomem(err, room * sizeof *ids, "a word");
    for (int32_t k = 0; k < n->encoders && st == WEFT_OK; k++) {
        if (len > 0) st = ids_of(&n->encoder[k], s, len, ids, room, &count, err);
        if (st != WEFT_OK) break;
        if (!given && count != 1) count = 0; /* a rare word that this vocabulary has not */
        if (given && len > 0 && count != 1 && count != room)
            st = wf_fail(err, WEFT_E_ARG,
                         "train: initial: '%.*s' is %zu tokens, wanted 1%s%s",
                         (int)WF_MIN(len, 80), s, count, room > 1 ? ", or as many as vectors" : "",
                         room > 1 ? "" : ": a word has one vector");
        else begin_word(w, n, k, i, ids, count, g);
    }
    wf_free(&w->alloc, ids);
    return st;
}

static weft_status begin_all(wf_new_words *w, const weft_model *model, const wf_words_choice *c,
                             uint64_t seed, weft_error *err)
{
    wf_mersenne g;

    wf_mersenne_seed(&g, seed);
    for (int32_t i = 0; i < w->count; i++) {
        const char *s = "";
        size_t      len = 0;
        bool        given = c->initial != NULL;
        if (given && !part_of(c->initial, i, &s, &len))
            return wf_fail(err, WEFT_E_ARG, "train: initial has %d words, tokens %d",
                           (int)i, (int)w->count);
        if (!given && c->rare) s = rare_words[(size_t)i % WF_LEN(rare_words)], len = strlen(s);
        WF_TRY(begin_as(w, model, i, s, len, given, &g, err));
    }
    const char *s;
    size_t      len;
    if (part_of(c->initial, w->count, &s, &len))
        return wf_fail(err, WEFT_E_ARG, "train: initial has more words than tokens, which "
                       "are %d", (int)w->count);
    for (int32_t j = 1; j < w->layers; j++) /* all layers begin equal */
        memcpy(w->initial + (size_t)j * w->each, w->initial, w->each * sizeof *w->initial);
    return WEFT_OK;
}

weft_status wf_new_words_create(wf_new_words **out, const weft_model *model,
                                const wf_words_choice *choice, uint64_t seed,
                                const weft_allocator *alloc, weft_error *err)
{
    wf_new_words *w;
    weft_status   st;

    *out = NULL;
    if (choice->tokens == NULL)
        return wf_fail(err, WEFT_E_ARG, "train: tokens is NULL: which words are to be "
                       "learnt?");
    WF_TRY(wf_model_need_tokenizer(model, err));
    w = wf_zalloc(alloc, 1, sizeof *w);
    if (w == NULL) return wf_nomem(err, sizeof *w, "new words");
    w->alloc = *alloc;
    w->vectors = choice->vectors;
    w->layers = choice->layers;
    st = add_words(w, model, choice->tokens, err);
    if (st == WEFT_OK) st = lay_out(w, wf_model_networks(model), err);
    if (st == WEFT_OK) st = begin_all(w, model, choice, seed, err);
    if (st == WEFT_OK) *out = w;
    else wf_new_words_free(w);
    return st;
}

/* ---- captions -------------------------------------------------------------------------------- */

/* What Textual Inversion says of its pictures: its authors' program has lists like these. */
static const char *const objects[] = {
    "a photo of {}",           "a picture of {}",          "an image showing {}",
    "{}",                      "a photo of one {}",        "a photo of the {}",
    "a close photo of {}",     "a sharp photo of {}",      "a blurry photo of {}",
    "a bright photo of {}",    "a dark photo of {}",       "a small picture of {}",
    "a large picture of {}",   "a good photo of {}",       "a simple picture of {}",
    "a detailed image of {}",  "a drawing of {}",          "{} in the middle of a picture",
};
static const char *const styles[] = {
    "a painting in the style of {}",     "a picture in the style of {}",
    "a drawing in the style of {}",      "a small picture in the style of {}",
    "a large painting in the style of {}", "a bright picture in the style of {}",
    "a dark picture in the style of {}", "a simple drawing in the style of {}",
    "a detailed image in the style of {}", "art in the style of {}",
    "something in the style of {}",      "the style of {}",
};

static void add_words_to(const wf_new_words *w, wf_text *t)
{
    for (int32_t i = 0; i < w->count; i++)
        wf_text_add(t, "%s%s", i > 0 ? " " : "", w->word[i].name);
}

/* The text with the words in place of each {}. */
static void add_filled(const wf_new_words *w, wf_text *t, const char *s)
{
    for (const char *at; (at = strstr(s, "{}")) != NULL; s = at + 2) {
        wf_text_bytes(t, s, (size_t)(at - s));
        add_words_to(w, t);
    }
    wf_text_bytes(t, s, strlen(s));
}

static void add_templates(wf_text *t, const char *s, uint64_t seed)
{
    static const struct {
        const char        *mark;
        const char *const *list;
        size_t             count;
    } sets[] = { { "{object}", objects, WF_LEN(objects) }, { "{style}", styles, WF_LEN(styles) } };

    for (size_t i = 0; i < WF_LEN(sets); i++) {
        const char *at = strstr(s, sets[i].mark);
        if (at == NULL) continue;
        uint64_t pick = wf_hash(seed, sets[i].mark, strlen(sets[i].mark)) % sets[i].count;
        wf_text_bytes(t, s, (size_t)(at - s));
        wf_text_bytes(t, sets[i].list[pick], strlen(sets[i].list[pick]));
        s = at + strlen(sets[i].mark);
        break; /* one of them in a caption */
    }
    wf_text_bytes(t, s, strlen(s));
}

void wf_new_words_fill(const wf_new_words *w, const char *caption, uint64_t seed, wf_text *out)
{
    wf_text sentence;

    wf_text_init(&sentence, out->alloc);
    add_templates(&sentence, caption, seed);
    if (sentence.s != NULL) add_filled(w, out, sentence.s);
    out->failed = out->failed || sentence.failed;
    wf_text_free(&sentence);
}

/* Is one of the words in the first chunk of this text, all that is encoded of a caption? */
static weft_status has_word(const wf_new_words *w, const wf_networks *n, const char *text,
                            bool *has, weft_error *err)
{
    const wf_text_encoder *e = &n->encoder[0];
    wf_prompt              p;
    wf_chunks              c;
    weft_status            st;

    *has = false;
    WF_TRY(wf_prompt_parse(&p, text, false, &w->alloc, err));
    st = wf_prompt_chunk(&c, &p, e->tokenizer, &w->list[0],
                         (size_t)wf_encoder_positions(e) - 2, false, err);
    wf_prompt_free(&p);
    if (st != WEFT_OK) return st;
    for (size_t i = 0; i < c.begin[1]; i++) *has = *has || c.ids[i] >= w->list[0].base;
    wf_chunks_free(&c);
    return WEFT_OK;
}

/* ---- for recipes ----------------------------------------------------------------------------- */

const wf_new_words *wf_trainer_new_words(const weft_trainer *t) { return t->words.own; }

weft_status wf_recipe_words(weft_trainer *t, bool rare, int32_t layers, wf_words *out,
                            weft_error *err)
{
    wf_words_choice choice = { .tokens = t->o.tokens, .initial = t->o.initial, .rare = rare,
                               .vectors = t->o.vectors, .layers = layers };
    wf_new_words   *w;

    WF_TRY(wf_new_words_create(&w, t->model, &choice, t->o.seed, &t->alloc, err));
    *out = (wf_words){ .rows = (size_t)w->rows, .layers = w->layers, .initial = w->initial,
                       .own = w };
    memcpy(out->extras, w->list, sizeof w->list);
    return WEFT_OK;
}

void wf_recipe_words_end(weft_trainer *t)
{
    wf_new_words_free(t->words.own);
    t->words.own = NULL;
}

weft_status wf_recipe_words_caption(const weft_trainer *t, bool class_picture, const char *what,
                                    const char *caption, uint64_t seed, wf_text *out,
                                    weft_error *err)
{
    const wf_new_words *w = wf_trainer_new_words(t);
    size_t              from = out->len;
    bool                has;

    wf_new_words_fill(w, caption, seed, out);
    if (out->failed) return wf_nomem(err, strlen(caption), "a caption");
    if (class_picture || out->s == NULL) return WEFT_OK;
    WF_TRY(has_word(w, t->networks, out->s + from, &has, err));
    if (has) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT,
                   "%.160s: the caption '%.160s' has none of the words to be learnt, as %.80s: "
                   "write it, or {} in its place",
                   what, caption, w->word[0].name);
}
