/* train.c - steps of a LoRA's training, in turns with PyTorch, diffusers and PEFT (../train.py).
 *
 * The bundled model is small: there a round is many steps, in two recipes, of the attentions alone and of all layers with the
 * text encoder. With the shapes of SD1.5 it is one step at 256x256 and one at 512x512 that recomputes, each in a process of
 * its own, which tells the peak of its memory too. Pictures are made up here: what is learned has no meaning. */
#include "suite.h"

enum { RANK = 8, PICTURES = 4 };
static weft_error err;

typedef struct lesson { const char *id, *what; int batch, wide; } lesson;

static weft_trainer *begin(weft_model *model, int32_t size, int32_t threads, int batch, bool wide, bool recompute, int steps)
{
    weft_train_options o = WEFT_TRAIN_OPTIONS_INIT;
    size_t             len = 3 * (size_t)size * (size_t)size;
    uint8_t           *rgb = malloc(len);
    weft_trainer      *t;

    if (rgb == NULL) die("out of memory");
    o.recipe = WEFT_RECIPE_LORA;
    if (wide) o.flags |= WEFT_TRAIN_FEED | WEFT_TRAIN_CONV | WEFT_TRAIN_TEXT;
    if (recompute) o.flags |= WEFT_TRAIN_RECOMPUTE;
    o.rank = RANK;
    o.rate = 1e-3;
    o.batch = batch;
    o.steps = steps;
    o.threads = threads;
    o.width = o.height = size;
    must(weft_trainer_create(model, &o, &t, &err), &err);
    for (int i = 0; i < (batch > 1 ? PICTURES : 1); i++) {
        for (size_t k = 0; k < len; k++) rgb[k] = (uint8_t)(k / 3 % (size_t)size * 255 / (size_t)size + 16 * (size_t)i);
        must(weft_trainer_add_picture(t, rgb, len, size, size, "a slope", WEFT_PICTURE_INSTANCE, &err), &err);
    }
    free(rgb);
    must(weft_trainer_prepare(t, &err), &err);
    return t;
}

static span steps_of(weft_trainer *t, int count)
{
    weft_train_step step = WEFT_TRAIN_STEP_INIT;
    span begun = span_now();

    for (int i = 0; i < count; i++) must(weft_trainer_step(t, &step, &err), &err);
    span s = span_since(begun);
    return (span){ s.clock / count, s.busy / count };
}

static void row(suite *b, const char *id, const char *what, const samples *ours, const samples *theirs, double bar)
{
    samples ratio = { 0 };

    for (int i = 0; i < theirs->n && i < ours->n; i++) sample(&ratio, theirs->v[i] / ours->v[i]);
    figure r = figure_of("train", id, "x");
    snprintf(r.what, sizeof r.what, "%s", what);
    set_figure(&r, &ratio);
    r.rounds = ours->n;
    r.more = true;
    r.bar = bar;
    r.ours = median_of(ours);
    r.theirs = median_of(theirs);
    if (theirs->n > 0) snprintf(r.versus, sizeof r.versus, "PyTorch f32, PEFT");
    add_figure(b, &r);
}

/* One recipe on the bundled model. */
static void take_lesson(suite *b, weft_model *model, const lesson *l)
{
    samples ours = { 0 }, theirs = { 0 };
    char    answer[64];
    int     count = b->quick ? 2 : 10;
    span    other = { NAN, NAN };

    weft_trainer *t = begin(model, 64, b->threads, l->batch, l->wide, false, 100000);
    bool had = b->worker != NULL
               && peer_ask(b->worker, answer, sizeof answer, "training\t%s\t%s\t64\t%d\t%d", l->id, b->bundled, l->batch, l->wide);
    for (int i = -1; i < b->rounds; i++) {
        span own = steps_of(t, i < 0 ? 1 : count);
        if (i < 0) continue;
        sample(&ours, judged(b, own));
        if (had && peer_time(b->worker, &other, "train\t%s\t%d", l->id, count)) sample(&theirs, judged(b, other));
        note("%s, round %d: weft %.4g s a step, PyTorch %.4g s", l->what, i + 1, judged(b, own), judged(b, other));
    }
    row(b, l->id, l->what, &ours, &theirs, 1.5);
    if (had) peer_ask(b->worker, answer, sizeof answer, "drop\t%s", l->id);
    weft_trainer_free(t);
}

/* MODEL TOKENIZER SIZE THREADS RECOMPUTE STEPS: seconds of a step by both clocks, and the peak in MB. The model of
 * random weights has no tokenizer, so it has that of the bundled one, whose words are among its own. */
int child_train(int argc, char **argv)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model        *model;

    if (argc != 7) return 2;
    o.tokenizer = argv[2];
    must(weft_model_open(argv[1], &o, &model, &err), &err);
    weft_trainer *t = begin(model, atoi(argv[3]), atoi(argv[4]), 1, false, atoi(argv[5]) != 0, 1000);
    steps_of(t, 1);
    span s = steps_of(t, atoi(argv[6]));
    printf("%.6g %.6g %.6g\n", s.clock, s.busy, status_kb("VmHWM:") / 1024);
    weft_trainer_free(t);
    weft_model_free(model);
    return 0;
}

static void memory_row(suite *b, const char *id, const char *what, double ours, double theirs, double bar)
{
    samples one = { 0 };

    sample(&one, ours);
    figure r = figure_of("train", id, "MB");
    snprintf(r.what, sizeof r.what, "%s", what);
    set_figure(&r, &one);
    r.bar = bar;
    if (!isnan(theirs)) note("%s: weft %.0f MB, PyTorch %.0f MB", what, ours, theirs);
    add_figure(b, &r);
}

/* A step at the shapes of SD1.5: its time and memory, and the peer's. Minutes, so one round. */
static void large_step(suite *b, int32_t size, bool recompute, double bar)
{
    char    side[16], threads[16], tokenizer[1024], script[1024], id[40], what[72];
    double  own[3], other[3] = { NAN, NAN, NAN };
    samples ours = { 0 }, theirs = { 0 };

    snprintf(side, sizeof side, "%d", (int)size);
    snprintf(threads, sizeof threads, "%d", (int)b->threads);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", b->bundled);
    snprintf(script, sizeof script, "%s/train.py", b->source);
    const char *const mine[] = { b->self, "--child-train", b->model, tokenizer, side, threads, recompute ? "1" : "0", "1", NULL };
    const char *const peers[] = { b->python, script, b->model, side, threads, "1", "0", recompute ? "1" : "0", "1", NULL };
    if (!ask_child(mine, own, 3)) {
        note("a child for a step of training at %d failed", (int)size);
        return;
    }
    bool had = b->worker != NULL && ask_child(peers, other, 3);
    sample(&ours, b->processor ? own[1] : own[0]);
    if (had) sample(&theirs, b->processor ? other[1] : other[0]);
    snprintf(id, sizeof id, "train.%d", (int)size);
    snprintf(what, sizeof what, "a LoRA's step at %dx%d%s", (int)size, (int)size, recompute ? ", recomputed" : "");
    row(b, id, what, &ours, &theirs, NAN);
    snprintf(id, sizeof id, "train.memory.%d", (int)size);
    snprintf(what, sizeof what, "its peak, with mapped files%s", recompute ? ", recomputed" : "");
    memory_row(b, id, what, own[2], other[2], bar);
    if (had) {
        snprintf(id, sizeof id, "train.memory.%d.peer", (int)size);
        snprintf(what, sizeof what, "PyTorch's");
        memory_row(b, id, what, other[2], NAN, NAN);
    }
}

void group_train(suite *b)
{
    static const lesson lessons[] = {
        { "train.attention", "bundled, a LoRA's step, batch 4: attentions", 4, 0 },
        { "train.wide", "the same: all layers, and the text encoder", 4, 1 },
    };
    weft_model *model = open_model(b->bundled, false);
    bool        full = b->full;

    b->full = true; /* these bars are of the bundled model */
    for (size_t i = 0; i < sizeof lessons / sizeof *lessons; i++) take_lesson(b, model, &lessons[i]);
    b->full = full;
    weft_model_free(model);
    if (!full) return;
    large_step(b, 256, false, 12000);
    large_step(b, 512, true, 16000);
}
