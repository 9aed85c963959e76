/* Gradients of the three tiny models against torch's autograd on diffusers' networks, in double (make_train.py).
 *
 * A case trains what its goldens name: pairs on some layers of the UNet or of the text encoders, whole weights with
 * biases and norms, new words, with rows of their own for each cross-attention or not. Each gradient agrees to 1e-4 of its largest number, in some entries, in its length and
 * in its product with a sine. Blocks that run twice, and threads, change no bit. With every tier of products. */
#include "nets/turn.h"
#include "nets/workbench.h"
#include "run/text_rows.h"

#include "golden.h"

enum { PAIR = 3, ENTRIES = 12, LAYERS = 1024, WORDS = 2, CROSS = 64 };

static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl" };
static const char *const cases[] = { "lora", "lora_all", "full", "keys_values", "text", "words", "layered" };

/* ---- what is trained ------------------------------------------------------------------------- */

typedef struct trained { char key[256]; float *v, *g; size_t n; } trained;

typedef struct school {
    const char        *name; /* of the case */
    weft_model        *model;
    const wf_networks *nets;
    const wf_layer    *layer;
    size_t             layers;
    weft_tensors      *golden;
    trained            at[2 * LAYERS];
    size_t             count;
    wf_stack           stack[LAYERS];
    wf_delta           delta[LAYERS];
    wf_layer_grads     grads[LAYERS];
    void              *turned[LAYERS];
    const float       *extra[WF_ENCODERS_MAX][CROSS * WORDS];
    float             *extra_grads[WF_ENCODERS_MAX][CROSS * WORDS];
    bool               encodes, words;
    int32_t            cross; /* sets of rows: 1, or cross-attentions */
    golden             in[16]; /* freed at the end */
    size_t             ins;
    double             loss;
} school;

static const int32_t pair_rank = PAIR;
static const float   pair_scale = 0.5f;

/* size sin(1 + 0.61803398875 i + k) with k by the name */
static void wave(float *v, const char *name, size_t n, double size)
{
    unsigned k = 0;
    for (const char *s = name; *s != '\0'; s++) k += (unsigned char)*s;
    for (size_t i = 0; i < n; i++) v[i] = (float)(size * sin(1 + 0.61803398875 * (double)i + k % 97));
}

static trained *add(school *s, const char *layer, const char *what, size_t n)
{
    trained *t = &s->at[s->count++];
    ck_assert_uint_le(s->count, WF_LEN(s->at));
    snprintf(t->key, sizeof t->key, "%s/%s", layer, what);
    t->n = n;
    t->v = calloc(n + 1, sizeof *t->v);
    t->g = calloc(n + 1, sizeof *t->g);
    return t;
}

static bool named(const school *s, const char *layer, const char *what)
{
    char key[256];
    snprintf(key, sizeof key, "%s/%s/%s", s->name, layer, what);
    return golden_has(s->golden, key);
}

static void train_layer(school *s, size_t i)
{
    const wf_layer *l = &s->layer[i];
    size_t K = (size_t)(l->in * l->kernel * l->kernel), out = (size_t)l->out;
    if (named(s, l->name, "down")) {
        trained *down = add(s, l->name, "down", PAIR * K), *up = add(s, l->name, "up", PAIR * out);
        wave(down->v, down->key, down->n, 1 / sqrt((double)K));
        wave(up->v, up->key, up->n, 0.3);
        s->stack[i] = (wf_stack){ 1, PAIR, &pair_rank, &pair_scale, down->v, up->v, NULL };
        s->delta[i].stack = &s->stack[i];
        s->grads[i] = (wf_layer_grads){ .down = down->g, .up = up->g };
    } else if (named(s, l->name, "weight")) {
        bool norm = l->kind == WEFT_LAYER_NORM;
        trained *w = add(s, l->name, "weight", norm ? out : out * K);
        if (norm) wf_widen_any(w->v, l->weight, l->dtype, out);
        else wf_layer_load(w->v, s->nets->kernels, l);
        s->delta[i].merged = w->v;
        s->grads[i].weight = w->g;
        if (!named(s, l->name, "bias")) return;
        trained *b = add(s, l->name, "bias", out);
        memcpy(b->v, l->bias, out * sizeof *b->v);
        s->delta[i].merged_bias = b->v;
        s->grads[i].bias = b->g;
    }
}

static const float *input(school *s, const char *name)
{
    golden g = golden_read(s->golden, "in/%s", name);
    s->in[s->ins++] = g;
    ck_assert_uint_le(s->ins, WF_LEN(s->in));
    return g.v;
}

static void train_words(school *s)
{
    for (int32_t i = 0; i < s->nets->encoders; i++) {
        char name[16];
        size_t d = (size_t)wf_clip_get_config(s->nets->encoder[i].net)->hidden;
        snprintf(name, sizeof name, "words%d", i);
        trained *t = add(s, name, "row", (size_t)s->cross * WORDS * d);
        wave(t->v, name, t->n, 0.05);
        for (size_t r = 0; r < (size_t)s->cross * WORDS; r++) {
            s->extra[i][r] = t->v + r * d;
            s->extra_grads[i][r] = s->words ? t->g + r * d : NULL;
        }
    }
}

static school *open_school(int model, const char *name)
{
    school *s = calloc(1, sizeof *s);
    s->name = name;
    must(weft_model_open(data_path("models/%s", models[model]), NULL, &s->model, &golden_err));
    s->nets = wf_model_networks(s->model);
    s->layer = wf_model_layers(s->model, &s->layers);
    ck_assert_uint_le(s->layers, LAYERS);
    char file[64];
    snprintf(file, sizeof file, "train_%s.safetensors", models[model]);
    s->golden = golden_open(file);
    bool layered = strcmp(name, "layered") == 0;
    s->words = layered || strcmp(name, "words") == 0;
    s->cross = layered ? wf_facts(s->nets)->stream[0].cross_layers : 1;
    ck_assert_int_le(s->cross, CROSS);
    s->encodes = s->words || strcmp(name, "text") == 0;
    wf_pool *pool;
    weft_allocator alloc = wf_allocator(NULL);
    must(wf_pool_create(&alloc, 1, &pool, &golden_err));
    for (size_t i = 0; i < s->layers; i++) {
        const wf_layer *l = &s->layer[i];
        train_layer(s, i);
        if (l->kind == WEFT_LAYER_NORM || s->delta[i].merged != NULL) continue;
        s->turned[i] = calloc(wf_turned_bytes(l) + 1, 1);
        wf_turn_weight(s->turned[i], l, pool);
    }
    wf_pool_free(pool);
    if (s->encodes) train_words(s);
    return s;
}

static void close_school(school *s)
{
    for (size_t i = 0; i < s->count; i++) free(s->at[i].v), free(s->at[i].g);
    for (size_t i = 0; i < s->layers; i++) free(s->turned[i]);
    for (size_t i = 0; i < s->ins; i++) free(s->in[i].v);
    weft_tensors_free(s->golden);
    weft_model_free(s->model);
    free(s);
}

/* ---- a step ---------------------------------------------------------------------------------- */

enum { N = 2, H = 10, W = 6, TOKENS = 9 };

typedef struct lesson {
    school      *s;
    const float *latent, *timestep, *target, *context, *pooled, *time_ids;
    int32_t      ids[WF_ENCODERS_MAX][N * 77], eos[WF_ENCODERS_MAX][N];
} lesson;

static void read_lesson(lesson *t, school *s)
{
    bool xl = wf_facts(s->nets)->streams > 1;
    *t = (lesson){ .s = s };
    t->latent = input(s, "sample");
    t->timestep = input(s, "timestep");
    t->target = input(s, "target");
    t->context = input(s, "context");
    if (xl) t->pooled = input(s, "pooled"), t->time_ids = input(s, "time_ids");
    for (int32_t i = 0; i < s->nets->encoders; i++) {
        char name[8];
        size_t positions = (size_t)wf_encoder_positions(&s->nets->encoder[i]);
        ck_assert_uint_le(positions, 77);
        snprintf(name, sizeof name, "ids%d", i);
        const float *ids = input(s, name);
        for (size_t k = 0; k < N * positions; k++) t->ids[i][k] = (int32_t)ids[k];
        snprintf(name, sizeof name, "eos%d", i);
        const float *eos = input(s, name);
        for (size_t k = 0; k < N; k++) t->eos[i][k] = (int32_t)eos[k];
    }
}

static void step(const lesson *t, wf_exec *e)
{
    school *s = t->s;
    const wf_denoiser_facts *f = wf_facts(s->nets);
    size_t count = N * H * W * (size_t)f->out_channels, wide = (size_t)f->stream[0].width;
    size_t narrow = f->streams > 1 ? (size_t)f->stream[1].width : 0;
    int32_t tokens = s->encodes ? s->nets->stream[0].tokens : TOKENS;
    float *given[WF_STREAMS_MAX] = { NULL };
    const float *rows[N], *pooled[N];
    wf_denoise_input in = { .grid = wf_image_grid(N, H, W), .latent = t->latent, .timestep = t->timestep,
                            .time_ids = t->time_ids };

    if (s->encodes) {
        wf_text_source from[WF_ENCODERS_MAX];
        for (int32_t i = 0; i < s->nets->encoders; i++)
            from[i] = (wf_text_source){ .ids = t->ids[i], .eos_at = t->eos[i], .extra = s->extra[i],
                                        .extra_grads = s->extra_grads[i], .extras = WORDS };
        wf_text_rows(s->nets, e, from, N, s->cross, 0, given);
    }
    const float *first = s->encodes ? given[0] : t->context, *second = s->encodes ? given[1] : t->pooled;
    for (size_t i = 0; i < N && !e->dry; i++) {
        rows[i] = first + i * (size_t)(s->cross * tokens) * wide;
        pooled[i] = second != NULL ? second + i * narrow : NULL;
    }
    in.text[0] = (wf_text_input){ rows, tokens, s->cross > 1 ? s->cross : 0 };
    in.text[1] = (wf_text_input){ pooled, 1, 0 };
    float *out = wf_take(e, count, 1);
    wf_denoise(s->nets->denoiser, e, out, &in);
    if (e->dry) return;
    ck_assert(!e->stopped && !e->arena.overflow);
    float *g = wf_grad(e, out);
    ck_assert_ptr_nonnull(g);
    s->loss = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)out[i] - (double)t->target[i];
        s->loss += d * d / (double)count;
        g[i] = (float)(2 * d / (double)count);
    }
    wf_tape_back(e);
    ck_assert(!e->stopped && !e->arena.overflow && !e->tape->failed && !e->tape->unsupported);
}

/* A dry pass, then a real one in memory of what it asked for. */
static void take_lesson(school *s, const lesson *t, int32_t threads, bool segments)
{
    weft_allocator alloc = wf_allocator(NULL);
    wf_tape tape;
    const wf_cell cell = { 1, 0, 0 };
    wf_exec e = { .k = s->nets->kernels, .products = bench_tier, .dry = true, .arena = { .dry = true },
                  .deltas = s->delta, .cells = &cell, .tape = &tape };
    must(wf_pool_create(&alloc, threads, &e.pool, &golden_err));
    wf_tape_init(&tape, &alloc);
    tape.segments = segments;
    tape.layers = s->grads;
    tape.turned = (const void *const *)s->turned;
    wf_tape_begin(&e);
    step(t, &e);
    size_t bytes = wf_tape_bytes(&e);
    e.dry = false;
    e.arena = (wf_arena){ .base = wf_alloc(&alloc, bytes), .size = bytes };
    memset(e.arena.base, 0xff, bytes);
    tape.grads = wf_zalloc(&alloc, bytes, 1);
    e.scratch = wf_zalloc(&alloc, (size_t)threads, sizeof *e.scratch);
    for (int32_t i = 0; i < threads; i++) e.scratch[i] = wf_zalloc(&alloc, e.scratch_need, 1);
    wf_blas_begin();
    for (size_t i = 0; i < s->count; i++) memset(s->at[i].g, 0, s->at[i].n * sizeof(float));
    wf_tape_begin(&e);
    step(t, &e);
    wf_blas_end();
    for (size_t i = 0; i < bytes / sizeof(float); i++) ck_assert_msg(tape.grads[i] == 0, "a gradient is left at %zu", i);
    for (int32_t i = 0; i < threads; i++) wf_free(&alloc, e.scratch[i]);
    wf_free(&alloc, e.scratch);
    wf_free(&alloc, e.arena.base);
    wf_free(&alloc, tape.grads);
    wf_tape_free(&tape);
    wf_pool_free(e.pool);
}

/* ---- the comparison -------------------------------------------------------------------------- */

static double length_of(const float *g, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)g[i] * (double)g[i];
    return sqrt(sum);
}

/* How far a gradient is from its digest, as a share of its largest number, or of `least`. */
static double distance(const school *s, const trained *t, double least)
{
    golden want = golden_read(s->golden, "%s/%s", s->name, t->key);
    size_t m = WF_MIN(t->n, (size_t)ENTRIES);
    double top = least, worst = 0, sine = 0, length = length_of(t->g, t->n), long_ = fmax(want.v[m], least);

    ck_assert_uint_eq(want.n, m + 2);
    for (size_t i = 0; i < t->n; i++) {
        top = fmax(top, fabs(t->g[i]));
        sine += (double)t->g[i] * sin(0.7 * (double)i + 0.3);
    }
    for (size_t k = 0; k < m; k++) worst = fmax(worst, fabs((double)t->g[k * t->n / m] - (double)want.v[k]) / top);
    worst = fmax(worst, fabs(length - (double)want.v[m]) / long_);
    worst = fmax(worst, fabs(sine - (double)want.v[m + 1]) / long_);
    free(want.v);
    return worst;
}

/* How many goldens the case has, its loss aside. */
static size_t goldens_of(const school *s)
{
    size_t n = strlen(s->name), count = 0;
    for (size_t i = 0; i < weft_tensors_count(s->golden); i++) {
        weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(s->golden, i, &info, &golden_err));
        count += strncmp(info.name, s->name, n) == 0 && info.name[n] == '/' && strcmp(info.name + n, "/loss") != 0;
    }
    return count;
}

static void compare(const school *s)
{
    golden loss = golden_read(s->golden, "%s/loss", s->name);
    double longest = 0, worst = 0;
    size_t checked = 0;

    ck_assert_msg(fabs(s->loss - loss.v[0]) <= 1e-5 * loss.v[0], "loss %.9g, wanted %.9g", s->loss, loss.v[0]);
    free(loss.v);
    for (size_t i = 0; i < s->count; i++) longest = fmax(longest, length_of(s->at[i].g, s->at[i].n));
    for (size_t i = 0; i < s->count; i++) {
        const trained *t = &s->at[i];
        if (s->encodes && !s->words && strncmp(t->key, "words", 5) == 0) continue; /* frozen */
        double d = distance(s, t, 1e-3 * longest);
        worst = fmax(worst, d);
        checked++;
        ck_assert_msg(d <= 1e-4, "%s, %s: off by %.2g", s->name, t->key, d);
    }
    ck_assert_uint_eq(checked, goldens_of(s)); /* none is passed over */
    if (getenv("GOLDEN_SHOW") != NULL) printf("%-12s %zu gradients, worst %.2g\n", s->name, checked, worst);
}

START_TEST(gradients_are_autograds)
{
    school *s = open_school(_i / (int)WF_LEN(cases), cases[_i % (int)WF_LEN(cases)]);
    lesson *t = malloc(sizeof *t);
    read_lesson(t, s);
    take_lesson(s, t, 1, false);
    compare(s);
    float **kept = calloc(s->count, sizeof *kept);
    for (size_t i = 0; i < s->count; i++) {
        kept[i] = malloc((s->at[i].n + 1) * sizeof(float));
        memcpy(kept[i], s->at[i].g, s->at[i].n * sizeof(float));
    }
    take_lesson(s, t, 3, true);
    for (size_t i = 0; i < s->count; i++) {
        ck_assert_msg(memcmp(kept[i], s->at[i].g, s->at[i].n * sizeof(float)) == 0, "%s", s->at[i].key);
        free(kept[i]);
    }
    free(kept);
    free(t);
    close_school(s);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gradients against autograd");
    TCase *c = tcase_create("cases");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, gradients_are_autograds, 0, (int)(WF_LEN(models) * WF_LEN(cases)));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return bench_every_tier(suite) == 0 ? 0 : 1;
}
