/* Words that are learnt: what they begin as, which captions have them, their gradients against
 * PyTorch's autograd (make_train_words.py), and the files that they become. */
#include <unistd.h>

#include "../base/support.h"
#include "by_hand.h"

#include "concept/concept.h"
#include "plain.h"
#include "train/words.h"

static weft_model *model;

static void open_sd1(void) { model = open_tiny("tiny-sd1"); }
static void close_sd1(void) { weft_model_free(model); }

/* ---- what they begin as ---------------------------------------------------------------------- */

static wf_new_words *make(const weft_model *m, wf_words_choice c)
{
    weft_allocator a = wf_allocator(NULL);
    wf_new_words  *w;
    if (c.layers == 0) c.layers = 1;
    if (c.vectors == 0) c.vectors = 1;
    must(wf_new_words_create(&w, m, &c, 7, &a, &golden_err));
    return w;
}

/* A row of an encoder's table, for a word of one token. */
static const float *row_of(const weft_model *m, int32_t encoder, const char *word)
{
    static float           row[64];
    const wf_text_encoder *e = &wf_model_networks(m)->encoder[encoder];
    const wf_tensor       *table = wf_clip_tokens(e->net);
    int32_t                id;
    size_t                 n;
    must(wf_tokenizer_encode(e->tokenizer, word, &id, 1, &n, &golden_err));
    ck_assert_uint_eq(n, 1);
    size_t width = (size_t)table->shape[1], each = table->bytes / table->count;
    ck_assert(wf_widen_any(row, table->data + (size_t)id * width * each, table->dtype, width));
    return row;
}

START_TEST(a_word_begins_as_another)
{
    weft_model   *xl = open_tiny("tiny-sdxl");
    wf_new_words *w =
        make(xl, (wf_words_choice){ .tokens = "<a>, <b>", .initial = "the,of", .vectors = 3 });

    ck_assert_int_eq(w->rows, 6);
    ck_assert_int_eq(w->encoders, 2);
    ck_assert_uint_eq(w->floats, 6 * (16 + 24));
    for (int32_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 3; k++)
            for (int32_t e = 0; e < 2; e++) {
                const float *v = w->initial + w->at[e] + ((size_t)i * 3 + k) * (size_t)w->width[e];
                ck_assert_mem_eq(v, row_of(xl, e, i == 0 ? "the" : "of"),
                                 (size_t)w->width[e] * sizeof *v);
            }
    wf_new_words_free(w);
    weft_model_free(xl);
}
END_TEST

/* "the of" is two tokens, for two vectors; the layers of a word begin equal. */
START_TEST(vectors_begin_as_tokens_and_layers_equal)
{
    wf_new_words *w =
        make(model, (wf_words_choice){ .tokens = "<a>", .initial = "the of", .vectors = 2 });

    ck_assert_mem_eq(w->initial, row_of(model, 0, "the"), 24 * sizeof(float));
    ck_assert_mem_eq(w->initial + 24, row_of(model, 0, "of"), 24 * sizeof(float));
    wf_new_words_free(w);

    w = make(model, (wf_words_choice){ .tokens = "<a>,<b>", .initial = ",the", .layers = 11 });
    ck_assert_uint_eq(w->floats, 11 * 2 * 24);
    ck_assert_mem_eq(w->initial + 24, row_of(model, 0, "the"), 24 * sizeof(float));
    for (size_t j = 1; j < 11; j++)
        ck_assert_mem_eq(w->initial + j * 48, w->initial, 48 * sizeof(float));
    wf_new_words_free(w);
}
END_TEST

/* Random numbers have the size of the vocabulary's: within the spread of 64 x 24 of them. */
START_TEST(random_vectors_are_as_large_as_the_vocabularys)
{
    const wf_tensor *table = wf_clip_tokens(wf_model_networks(model)->encoder[0].net);
    float           *all = malloc(table->count * sizeof *all);
    double           sum = 0, own = 0;
    wf_new_words    *w = make(model, (wf_words_choice){ .tokens = "<a>", .vectors = 64 });

    ck_assert(wf_widen_any(all, table->data, table->dtype, table->count));
    for (size_t i = 0; i < table->count; i++) sum += (double)all[i] * all[i];
    for (size_t i = 0; i < w->floats; i++) own += (double)w->initial[i] * w->initial[i];
    double want = sqrt(sum / (double)table->count), got = sqrt(own / (double)w->floats);
    ck_assert_double_eq_tol(got / want, 1, 0.08);
    free(all);
    wf_new_words_free(w);
}
END_TEST

static const struct refusal {
    wf_words_choice c;
    const char     *text;
} refusals[] = {
    { { NULL, NULL, false, 1, 1 }, "train: tokens is NULL: which words are to be learnt?" },
    { { "<a>,", NULL, false, 1, 1 }, "train: tokens: word 2 is empty" },
    { { "<a>,<A>", NULL, false, 1, 1 }, "train: tokens: <A> is there twice" },
    { { "the", NULL, false, 1, 1 },
      "train: tokens: the is in the model's vocabulary already" },
    { { "<a>", NULL, false, 76, 1 }, "train: vectors is 76, wanted 1 to 75" },
    { { "<a>", NULL, false, 0, 1 }, "train: vectors is 0, wanted 1 to 75" },
    { { "<a>", NULL, false, 2, 11 },
      "train: vectors is 2; a word with vectors for each layer has 1" },
    { { "<a>", "the of", false, 1, 1 },
      "train: initial: 'the of' is 2 tokens, wanted 1: a word has one vector" },
    { { "<a>", "the of", false, 3, 1 },
      "train: initial: 'the of' is 2 tokens, wanted 1, or as many as vectors" },
    { { "<a>,<b>", "the", false, 1, 1 }, "train: initial has 1 words, tokens 2" },
    { { "<a>", "the,of", false, 1, 1 },
      "train: initial has more words than tokens, which are 1" },
};

START_TEST(what_is_no_word)
{
    weft_allocator a = wf_allocator(NULL);
    wf_new_words  *w;

    ck_assert_int_eq(wf_new_words_create(&w, model, &refusals[_i].c, 7, &a, &golden_err),
                     WEFT_E_ARG);
    ck_assert_ptr_null(w);
    ck_assert_str_eq(golden_err.text, refusals[_i].text);
}
END_TEST

/* ---- captions -------------------------------------------------------------------------------- */

static const char *filled(const wf_new_words *w, const char *caption, uint64_t seed)
{
    static char    buf[400];
    weft_allocator a = wf_allocator(NULL);
    wf_text        t;

    wf_text_init(&t, &a);
    wf_new_words_fill(w, caption, seed, &t);
    ck_assert(!t.failed);
    snprintf(buf, sizeof buf, "%s", t.s != NULL ? t.s : "");
    wf_text_free(&t);
    return buf;
}

START_TEST(captions_are_filled)
{
    wf_new_words *w = make(model, (wf_words_choice){ .tokens = "<a>,<b>" });
    int           kinds = 0;
    char          first[400];

    ck_assert_str_eq(filled(w, "a photo of {} and {}.", 0), "a photo of <a> <b> and <a> <b>.");
    ck_assert_str_eq(filled(w, "a photo", 0), "a photo");
    ck_assert_str_eq(filled(w, "", 0), "");
    snprintf(first, sizeof first, "%s", filled(w, "{object}, red", 0));
    for (uint64_t s = 0; s < 100; s++) {
        const char *text = filled(w, "{object}, red", s);
        ck_assert_ptr_nonnull(strstr(text, "<a> <b>"));
        ck_assert_ptr_null(strchr(text, '{'));
        ck_assert_str_eq(text + strlen(text) - 5, ", red");
        kinds += strcmp(text, first) != 0;
        ck_assert_ptr_nonnull(strstr(filled(w, "{style}", s), "style of <a> <b>"));
        ck_assert_str_eq(filled(w, "{object}, red", 0), first);
    }
    ck_assert_int_gt(kinds, 80);
    wf_new_words_free(w);
}
END_TEST

static weft_train_options ti_options(const weft_model *m)
{
    weft_train_options o = small_options(m, WEFT_RECIPE_TEXTUAL_INVERSION);
    o.tokens = "<new1>";
    o.initial = "the";
    return o;
}

START_TEST(a_caption_without_the_word_is_refused)
{
    weft_train_options o = ti_options(model);
    weft_trainer      *t = new_trainer(model, &o);

    add_picture(t, "a photo of {}", WEFT_PICTURE_INSTANCE, 1);
    add_picture(t, "a photo of a cat", WEFT_PICTURE_INSTANCE, 2);
    ck_assert_int_eq(weft_trainer_prepare(t, &golden_err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(golden_err.text, ": the caption 'a photo of a cat' has none of the "
                                                  "words to be learnt, as <new1>"));
    weft_trainer_free(t);
}
END_TEST

/* ---- gradients ------------------------------------------------------------------------------- */

static void set_words(weft_trainer *t, const weft_tensors *g, const char *key)
{
    const wf_new_words *w = wf_trainer_new_words(t);
    float              *values = t->values + t->begin[WF_GROUP_WORDS];

    for (int32_t e = 0; e < w->encoders; e++) {
        golden rows = golden_read(g, "%srows%d", key, e);
        size_t one = (size_t)w->rows * (size_t)w->width[e];
        ck_assert_uint_eq(rows.n, (size_t)w->layers * one);
        for (size_t j = 0; j < (size_t)w->layers; j++)
            memcpy(values + j * w->each + w->at[e], rows.v + j * one, one * sizeof(float));
        free(rows.v);
    }
}

static void near_words(const weft_trainer *t, const weft_tensors *g, const char *key)
{
    const wf_new_words *w = wf_trainer_new_words(t);
    const float        *grads = t->grads + t->begin[WF_GROUP_WORDS];
    char                what[80];

    for (int32_t e = 0; e < w->encoders; e++) {
        golden want = golden_read(g, "%sgrad%d", key, e);
        float *got = malloc(want.n * sizeof *got);
        size_t one = (size_t)w->rows * (size_t)w->width[e];
        for (size_t j = 0; j < (size_t)w->layers; j++)
            memcpy(got + j * one, grads + j * w->each + w->at[e], one * sizeof(float));
        snprintf(what, sizeof what, "%sgrad%d", key, e);
        near_golden(what, got, want.v, want.n, 1e-4);
        free(got), free(want.v);
    }
}

static void near_loss(double loss, const weft_tensors *g, const char *key)
{
    golden want = golden_read(g, "%sloss", key);
    ck_assert_double_eq_tol(loss / (double)want.v[0], 1, 1e-5);
    free(want.v);
}

static const char *const two[] = { "a photo of <new1> on the mat", "<new1>, and a red <new1>" };

START_TEST(rows_against_autograd)
{
    static const char *const names[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl" };
    weft_model              *m = open_tiny(names[_i / 2]);
    weft_tensors            *g = golden_open("train_words.safetensors");
    weft_train_options       o = ti_options(m);
    char                     key[40];

    snprintf(key, sizeof key, "ti/%s/", names[_i / 2]);
    o.batch = 2;
    o.vectors = 2;
    if (_i % 2 == 1) o.flags |= WEFT_TRAIN_RECOMPUTE;
    weft_trainer *t = new_trainer(m, &o);
    add_picture(t, two[0], WEFT_PICTURE_INSTANCE, 1);
    fill_by_hand(t, g, key, two);
    set_words(t, g, key);
    near_loss(evaluate_by_hand(t).loss, g, key);
    near_words(t, g, key);
    weft_trainer_free(t);
    weft_tensors_free(g);
    weft_model_free(m);
}
END_TEST

START_TEST(rows_of_each_layer_against_autograd)
{
    weft_tensors      *g = golden_open("train_words.safetensors");
    weft_train_options o = small_options(model, WEFT_RECIPE_ED_LORA);

    o.batch = 2;
    o.tokens = "<new1>";
    if (_i == 1) o.flags = WEFT_TRAIN_RECOMPUTE;
    weft_trainer *t = new_trainer(model, &o);
    ck_assert_int_eq(t->words.layers, 11);
    add_picture(t, two[0], WEFT_PICTURE_INSTANCE, 1);
    fill_by_hand(t, g, "ed/tiny-sd1/", two);
    set_words(t, g, "ed/tiny-sd1/");
    near_loss(evaluate_by_hand(t).loss, g, "ed/tiny-sd1/");
    near_words(t, g, "ed/tiny-sd1/");
    weft_trainer_free(t);
    weft_tensors_free(g);
}
END_TEST

/* The first picture under a mask, the second of the class. */
START_TEST(keys_and_values_against_autograd)
{
    static const char *const captions[] = { "a photo of a <new1> cat", "a photo of a cat" };
    weft_tensors            *g = golden_open("train_words.safetensors");
    weft_train_options       o = small_options(model, WEFT_RECIPE_CUSTOM_DIFFUSION);
    golden                   mask = golden_read(g, "cd/tiny-sd1/mask");

    o.tokens = "<new1>";
    o.flags = _i == 1 ? WEFT_TRAIN_RESIZE | WEFT_TRAIN_RECOMPUTE : WEFT_TRAIN_RESIZE;
    weft_trainer *t = new_trainer(model, &o);
    add_picture(t, captions[0], WEFT_PICTURE_INSTANCE, 1);
    add_picture(t, captions[1], WEFT_PICTURE_CLASS, 2);
    fill_by_hand(t, g, "cd/tiny-sd1/", captions);
    ck_assert_int_eq(t->batch.n, 2);
    for (size_t i = 0; i < 64; i++) t->batch.mask[i] = mask.v[i], t->batch.mask[64 + i] = 1;
    set_words(t, g, "cd/tiny-sd1/");
    near_loss(evaluate_by_hand(t).loss, g, "cd/tiny-sd1/");
    near_words(t, g, "cd/tiny-sd1/");
    ck_assert_uint_eq(t->sites, 22);
    for (size_t i = 0; i < t->sites; i++) {
        const wf_site *s = &t->site[i];
        golden         want = golden_read(g, "cd/tiny-sd1/w/%s", s->layer->name);
        ck_assert_int_eq(s->tensors, 1);
        ck_assert_uint_eq(want.n, s->out * s->K);
        near_golden(s->layer->name, s->grad[0], want.v, want.n, 1e-4);
        free(want.v);
    }
    free(mask.v);
    weft_trainer_free(t);
    weft_tensors_free(g);
}
END_TEST

/* ---- what is learnt -------------------------------------------------------------------------- */

/* What a plan with the concept (NULL: none) makes of a prompt. */
static float *encoded(weft_model *m, weft_concept *c, const char *prompt, int32_t layers, size_t *n)
{
    weft_plan       *p;
    weft_run        *r;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    plain_shape      s = plain_shape_of(m);
    plain_encode     e = PLAIN_ENCODE_INIT;

    must(weft_plan_create(m, NULL, &p, &golden_err));
    if (c != NULL) must(weft_plan_add_concept(p, c, 1, NULL, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    must(weft_run_create(p, &o, &r, &golden_err));
    e.prompt = prompt;
    e.chunks = 1;
    e.layers = layers;
    e.text_len = (size_t)s.tokens * (size_t)s.dim * (size_t)(layers > 0 ? layers : 1);
    e.text = malloc(e.text_len * sizeof(float));
    e.pooled_len = (size_t)s.pooled;
    e.pooled = malloc((e.pooled_len + 1) * sizeof(float));
    if (s.pooled == 0) free(e.pooled), e.pooled = NULL;
    must(plain_run_encode(r, &e, &golden_err));
    *n = e.text_len;
    free(e.pooled);
    weft_run_free(r);
    weft_plan_free(p);
    return e.text;
}

/* methods.md 8: an embedding that is an existing row gives that word's features, bit for bit. After
 * steps the word has changed and nothing else: captions without it are as they were. */
START_TEST(only_the_word_changes)
{
    weft_train_options o = ti_options(model);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_trainer      *t;
    weft_adapter      *a;
    weft_concept      *c;
    size_t             n;
    float             *the = encoded(model, NULL, "a photo of the cat", 0, &n), *word;

    o.rate = 0.1;
    t = new_trainer(model, &o);
    add_picture(t, "a photo of {}", WEFT_PICTURE_INSTANCE, 1);
    must(weft_trainer_concept(t, &c, &golden_err));
    word = encoded(model, c, "a photo of <new1> cat", 0, &n);
    ck_assert_mem_eq(word, the, n * sizeof *the);
    free(word);
    weft_concept_free(c);

    for (int i = 0; i < 3; i++) must(weft_trainer_step(t, &done, &golden_err));
    must(weft_trainer_concept(t, &c, &golden_err));
    word = encoded(model, c, "a photo of <new1> cat", 0, &n);
    ck_assert(memcmp(word, the, n * sizeof *the) != 0);
    free(word);
    word = encoded(model, c, "a photo of the cat", 0, &n);
    ck_assert_mem_eq(word, the, n * sizeof *the);
    free(word), free(the);
    weft_concept_free(c);
    ck_assert_int_eq(weft_trainer_adapter(t, &a, &golden_err), WEFT_E_UNSUPPORTED);
    weft_trainer_free(t);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

static void same_tokens(const weft_concept *a, const weft_concept *b)
{
    ck_assert_uint_eq(wf_concept_tokens(a), wf_concept_tokens(b));
    for (size_t i = 0; i < wf_concept_tokens(a); i++) {
        const wf_concept_token *x = wf_concept_token_at(a, i), *y = NULL;
        for (size_t k = 0; k < wf_concept_tokens(b); k++)
            if (strcmp(wf_concept_token_at(b, k)->name, x->name) == 0)
                y = wf_concept_token_at(b, k);
        ck_assert_msg(y != NULL, "%s is lost", x->name);
        ck_assert_int_eq(x->vectors, y->vectors);
        ck_assert_int_eq(x->layers, y->layers);
        for (int k = 0; k < 2; k++) {
            size_t n = (size_t)WF_MAX(x->vectors, x->layers) * (size_t)x->of[k].width;
            ck_assert_int_eq(x->of[k].width, y->of[k].width);
            ck_assert(n == 0 || memcmp(x->of[k].v, y->of[k].v, n * sizeof(float)) == 0);
        }
    }
}

/* A concept's vectors are the trainer's numbers, layer by layer. */
static void same_values(const weft_concept *c, const weft_trainer *t)
{
    const wf_new_words *w = wf_trainer_new_words(t);
    const float        *values = t->values + t->begin[WF_GROUP_WORDS];

    for (size_t i = 0; i < wf_concept_tokens(c); i++) {
        const wf_concept_token *x = wf_concept_token_at(c, i);
        int32_t                 k = 0;
        while (strcmp(w->word[k].name, x->name) != 0) k++;
        for (int32_t e = 0; e < w->encoders; e++)
            for (size_t j = 0; j < (size_t)w->layers; j++) {
                size_t       one = (size_t)w->vectors * (size_t)w->width[e];
                const float *own = values + j * w->each + w->at[e] +
                                   (size_t)w->word[k].row * (size_t)w->width[e];
                ck_assert_mem_eq(x->of[e].v + j * one, own, one * sizeof *own);
            }
    }
}

static const struct saved {
    const char *model, *tokens, *format;
    int32_t     recipe, vectors, width_2, layers, adapter;
} saves[] = {
    { "tiny-sd1", "<new1>", "textual inversion (diffusers)", WEFT_RECIPE_TEXTUAL_INVERSION, 3, 0, 0,
      0 },
    { "tiny-sd2", "ohwx", "textual inversion (diffusers)", WEFT_RECIPE_TEXTUAL_INVERSION, 1, 0, 0,
      0 },
    { "tiny-sd1", "<a>,<b>", "textual inversion (diffusers)", WEFT_RECIPE_TEXTUAL_INVERSION, 2, 0,
      0, 0 },
    { "tiny-sd1", "ohwx,sks1", "bundled textual inversion", WEFT_RECIPE_TEXTUAL_INVERSION, 2, 0, 0,
      0 },
    { "tiny-sd1", "ohwx,<a>", "textual inversion (diffusers)", WEFT_RECIPE_TEXTUAL_INVERSION, 2, 0, 0,
      0 },
    { "tiny-sdxl", "<new1>", "textual inversion (SDXL)", WEFT_RECIPE_TEXTUAL_INVERSION, 2, 24, 0,
      0 },
    { "tiny-sdxl", "<a>,ohwx", "bundled textual inversion", WEFT_RECIPE_TEXTUAL_INVERSION, 2, 24, 0,
      0 },
    { "tiny-sd1", "<new1>", "Custom Diffusion", WEFT_RECIPE_CUSTOM_DIFFUSION, 1, 0, 0, 1 },
    { "tiny-sdxl", "<new1>", "Custom Diffusion", WEFT_RECIPE_CUSTOM_DIFFUSION, 1, 24, 0, 1 },
    { "tiny-sd1", "<c1>,<c2>", "ED-LoRA", WEFT_RECIPE_ED_LORA, 1, 0, 11, 1 },
};

/* What a plan of one concept makes of every layer, folded: all tensors, and their names. */
static weft_status fold_of(weft_model *m, weft_concept *c, const char *path)
{
    weft_plan   *p;
    weft_adapter *a;

    must(weft_plan_create(m, NULL, &p, &golden_err));
    must(weft_plan_add_concept(p, c, 1, NULL, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    must(weft_plan_fold(p, NULL, &a, &golden_err));
    must(weft_adapter_save(a, m, path, NULL, &golden_err));
    weft_adapter_free(a);
    weft_plan_free(p);
    return WEFT_OK;
}

static void same_file(const char *one, const char *other, double limit)
{
    weft_tensors *a, *b;

    must(weft_tensors_open(one, NULL, &a, &golden_err));
    must(weft_tensors_open(other, NULL, &b, &golden_err));
    ck_assert_uint_gt(weft_tensors_count(a), 0);
    ck_assert_uint_eq(weft_tensors_count(a), weft_tensors_count(b));
    for (size_t i = 0; i < weft_tensors_count(a); i++) {
        weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(a, i, &info, &golden_err));
        golden x = golden_read(a, "%s", info.name), y = golden_read(b, "%s", info.name);
        ck_assert_uint_eq(x.n, y.n);
        near_golden(info.name, x.v, y.v, x.n, limit);
        free(x.v), free(y.v);
    }
    weft_tensors_free(a), weft_tensors_free(b);
}

START_TEST(files_hold_what_was_learnt)
{
    const struct saved  *f = &saves[_i];
    weft_model          *m = open_tiny(f->model);
    weft_train_options   o = small_options(m, f->recipe);
    weft_train_step      done = WEFT_TRAIN_STEP_INIT;
    weft_concept_options with = WEFT_CONCEPT_OPTIONS_INIT;
    weft_concept_info    info = WEFT_CONCEPT_INFO_INIT;
    weft_token_info      token = WEFT_TOKEN_INFO_INIT;
    weft_concept        *learnt, *read;
    char                 path[64], beside[64], fold[2][64];

    snprintf(path, sizeof path, "words-%d-%d.safetensors", (int)getpid(), _i);
    snprintf(beside, sizeof beside, "words-%d-%d.words.safetensors", (int)getpid(), _i);
    o.tokens = f->tokens;
    o.vectors = f->vectors;
    o.rate = 1e-2;
    if (f->recipe == WEFT_RECIPE_CUSTOM_DIFFUSION) o.flags = WEFT_TRAIN_CROSS;
    weft_trainer *t = new_trainer(m, &o);
    add_picture(t, "a photo of {}", WEFT_PICTURE_INSTANCE, 1);
    for (int i = 0; i < 2; i++) must(weft_trainer_step(t, &done, &golden_err));
    must(weft_trainer_save(t, path, 0, 0, &golden_err));
    must(weft_trainer_concept(t, &learnt, &golden_err));
    if (f->recipe == WEFT_RECIPE_CUSTOM_DIFFUSION) with.second = beside;
    must(weft_concept_open(path, &with, &read, &golden_err));
    must(weft_concept_info_get(read, &info, &golden_err));
    must(weft_concept_token(read, 0, &token, &golden_err));
    ck_assert_str_eq(info.format, f->format);
    ck_assert_int_eq(info.adapter, f->adapter);
    ck_assert_int_eq(token.vectors, f->vectors);
    ck_assert_int_eq(token.width_2, f->width_2);
    ck_assert_int_eq(token.layers, f->layers);
    same_tokens(learnt, read);
    same_values(read, t);
    if (f->recipe == WEFT_RECIPE_CUSTOM_DIFFUSION)
        ck_assert_int_eq(site_named(t, "unet.mid_block.attentions.0.transformer_blocks.0.attn2."
                                       "to_out.0")->tensors, 2); /* and its bias */
    if (f->adapter) {
        for (int k = 0; k < 2; k++) {
            snprintf(fold[k], sizeof fold[k], "words-fold-%d-%d-%d.safetensors", (int)getpid(), _i,
                     k);
            must(fold_of(m, k == 0 ? learnt : read, fold[k]));
        }
        same_file(fold[0], fold[1], 3e-5);
        unlink(fold[0]), unlink(fold[1]);
    }
    ck_assert_int_eq(weft_trainer_save(t, path, WEFT_DIALECT_KOHYA, 0, &golden_err),
                     WEFT_E_UNSUPPORTED);
    unlink(path), unlink(beside);
    weft_concept_free(learnt), weft_concept_free(read);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* Words of ED-LoRA grow to one and a half of the length that they began with, and pairs go on. */
START_TEST(words_stop_growing)
{
    weft_train_options o = small_options(model, WEFT_RECIPE_ED_LORA);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_trainer      *t;
    float             *words, *others;
    bool               held = false;

    o.tokens = "<new1>";
    o.initial = "the";
    o.token_rate = 0.5;
    o.steps = 100;
    t = new_trainer(model, &o);
    add_picture(t, "a photo of {}", WEFT_PICTURE_INSTANCE, 1);
    size_t at = t->begin[WF_GROUP_WORDS], n = t->begin[WF_GROUPS] - at;
    words = malloc(n * sizeof *words), others = malloc(at * sizeof *others);
    for (int i = 0; i < 12; i++) {
        bool holds = t->recipe->holds(t, WF_GROUP_WORDS);
        memcpy(words, t->values + at, n * sizeof *words);
        memcpy(others, t->values, at * sizeof *others);
        must(weft_trainer_step(t, &done, &golden_err));
        ck_assert_int_eq(memcmp(words, t->values + at, n * sizeof *words) == 0, holds);
        ck_assert(memcmp(others, t->values, at * sizeof *others) != 0);
        ck_assert(!held || holds);
        ck_assert(i > 0 || !holds);
        held = holds;
    }
    ck_assert(held);
    free(words), free(others);
    weft_trainer_free(t);
}
END_TEST

/* ED-LoRA is for one text encoder, and its files have no alpha. */
START_TEST(what_ed_lora_refuses)
{
    weft_model        *xl = open_tiny("tiny-sdxl");
    weft_train_options o = small_options(xl, WEFT_RECIPE_ED_LORA);
    weft_trainer      *t;

    o.tokens = "<new1>";
    ck_assert_int_eq(weft_trainer_create(xl, &o, &t, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_str_eq(golden_err.text,
                     "ed-lora is for models with one text encoder, and this one has 2");
    o.alpha = 2;
    ck_assert_int_eq(weft_trainer_create(model, &o, &t, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text,
                     "train: alpha is for other recipes: files of ed-lora have none");
    weft_model_free(xl);
}
END_TEST

/* Each recipe's trainer, from its options to the first step. */
START_TEST(trainers_memory_may_run_out)
{
    static const int32_t recipes[] = { WEFT_RECIPE_TEXTUAL_INVERSION, WEFT_RECIPE_CUSTOM_DIFFUSION,
                                       WEFT_RECIPE_ED_LORA };
    test_memory          m;
    weft_allocator       alloc = test_allocator(&m);
    weft_train_options   o = small_options(model, recipes[_i]);
    weft_status          st = WEFT_E_NOMEM;
    size_t               n = 1;

    o.allocator = &alloc;
    o.threads = 1;
    o.tokens = "<a>,<b>";
    for (; st == WEFT_E_NOMEM; n++) {
        weft_trainer *t;
        weft_concept *concept = NULL;
        m.calls = 0;
        m.fail_at = n;
        st = weft_trainer_create(model, &o, &t, &golden_err);
        if (st == WEFT_OK) st = weft_trainer_concept(t, &concept, &golden_err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", golden_err.text);
        weft_concept_free(concept);
        weft_trainer_free(t);
        ck_assert_uint_eq(m.live_blocks, 0);
        ck_assert_uint_lt(n, 10000);
    }
    must(st);
    ck_assert_uint_gt(n, 20);
}
END_TEST

static float *trained_on(int32_t threads, int32_t recipe, size_t *n)
{
    weft_train_options o = small_options(model, recipe);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;

    o.threads = threads;
    o.tokens = "<a>";
    weft_trainer *t = new_trainer(model, &o);
    add_picture(t, "a photo of {}", WEFT_PICTURE_INSTANCE, 1);
    add_picture(t, "a photo of the cat", WEFT_PICTURE_CLASS, 1);
    for (int i = 0; i < 2; i++) must(weft_trainer_step(t, &done, &golden_err));
    float *v = malloc(t->floats * sizeof *v);
    memcpy(v, t->values, t->floats * sizeof *v);
    *n = t->floats;
    weft_trainer_free(t);
    return v;
}

/* A checkpoint after two of four steps, and another trainer that goes on from it. */
START_TEST(a_break_changes_nothing)
{
    weft_train_options o = small_options(model, WEFT_RECIPE_ED_LORA);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_trainer      *t[2];
    char               path[64];

    snprintf(path, sizeof path, "words-break-%d.safetensors", (int)getpid());
    o.tokens = "<a>,<b>";
    o.initial = ",the";
    for (int k = 0; k < 2; k++) {
        t[k] = new_trainer(model, &o);
        add_picture(t[k], "{object}", WEFT_PICTURE_INSTANCE, 1);
        add_picture(t[k], "{style} and more", WEFT_PICTURE_INSTANCE, 2);
        if (k == 1) must(weft_trainer_resume(t[1], path, &golden_err));
        for (int i = 2 * k; i < 4; i++) {
            if (k == 0 && i == 2) must(weft_trainer_checkpoint(t[0], path, &golden_err));
            must(weft_trainer_step(t[k], &done, &golden_err));
        }
    }
    ck_assert_mem_eq(t[0]->values, t[1]->values, t[0]->floats * sizeof(float));
    weft_trainer_free(t[0]), weft_trainer_free(t[1]);
    o.tokens = "<a>,<c>"; /* other words are another training */
    t[0] = new_trainer(model, &o);
    ck_assert_int_eq(weft_trainer_resume(t[0], path, &golden_err), WEFT_E_MISMATCH);
    weft_trainer_free(t[0]);
    unlink(path);
}
END_TEST

START_TEST(any_number_of_threads_gives_the_same_bits)
{
    int32_t recipe = _i == 0 ? WEFT_RECIPE_CUSTOM_DIFFUSION : WEFT_RECIPE_ED_LORA;
    size_t  n, m;
    float  *one = trained_on(1, recipe, &n), *three = trained_on(3, recipe, &m);

    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(one, three, n * sizeof *one);
    free(one), free(three);
}
END_TEST

START_TEST(memory_may_run_out)
{
    test_memory    m;
    weft_allocator alloc = test_allocator(&m);
    weft_status    st = WEFT_E_NOMEM;
    size_t         n = 1;
    wf_words_choice c = { "<a>,<b>", ",the", false, 1, 11 };

    for (; st == WEFT_E_NOMEM; n++) {
        wf_new_words *w;
        weft_concept *concept = NULL;
        m.calls = 0;
        m.fail_at = n;
        st = wf_new_words_create(&w, model, &c, 7, &alloc, &golden_err);
        if (st == WEFT_OK)
            st = wf_new_words_concept(w, w->initial, "a", NULL, &concept, &golden_err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", golden_err.text);
        weft_concept_free(concept);
        wf_new_words_free(w);
        ck_assert_uint_eq(m.live_blocks, 0);
        ck_assert_uint_lt(n, 1000);
    }
    must(st);
    ck_assert_uint_gt(n, 10);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("words");
    TCase *c = tcase_create("words");
    tcase_add_checked_fixture(c, open_sd1, close_sd1);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, a_word_begins_as_another);
    tcase_add_test(c, vectors_begin_as_tokens_and_layers_equal);
    tcase_add_test(c, random_vectors_are_as_large_as_the_vocabularys);
    tcase_add_loop_test(c, what_is_no_word, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(c, captions_are_filled);
    tcase_add_test(c, a_caption_without_the_word_is_refused);
    tcase_add_loop_test(c, rows_against_autograd, 0, 6);
    tcase_add_loop_test(c, rows_of_each_layer_against_autograd, 0, 2);
    tcase_add_loop_test(c, keys_and_values_against_autograd, 0, 2);
    tcase_add_test(c, only_the_word_changes);
    tcase_add_loop_test(c, files_hold_what_was_learnt, 0, sizeof saves / sizeof *saves);
    tcase_add_test(c, words_stop_growing);
    tcase_add_test(c, what_ed_lora_refuses);
    tcase_add_test(c, memory_may_run_out);
    tcase_add_loop_test(c, trainers_memory_may_run_out, 0, 3);
    tcase_add_test(c, a_break_changes_nothing);
    tcase_add_loop_test(c, any_number_of_threads_gives_the_same_bits, 0, 2);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
