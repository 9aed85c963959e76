/* steps.c - guided steps, decoding and text encoding in both arithmetics, in turns with PyTorch in the same two.
 *
 * A round goes through all sides one after the other, so that what else the machine does meets all alike, and a ratio
 * is taken within its round. One round before the first does not count; a decode in tiles, which takes longer than any
 * other and is taken once, has none. */
#include "suite.h"

enum { F32, BF16, ARITHMETICS };
static const char *const names[ARITHMETICS] = { "f32", "bf16" };

typedef struct bars { double bar[ARITHMETICS], stretch[ARITHMETICS]; } bars;

/* What both sides took of one kind of work. */
typedef struct turns { samples ours[ARITHMETICS], theirs[ARITHMETICS], ratio[ARITHMETICS]; } turns;

/* Those that are measured, first <= a < end. */
static int first, end;

static void take(const suite *b, turns *t, int a, span ours, bool had, span theirs)
{
    sample(&t->ours[a], judged(b, ours));
    if (!had) return;
    sample(&t->theirs[a], judged(b, theirs));
    sample(&t->ratio[a], judged(b, theirs) / judged(b, ours));
}

static void say_turn(const suite *b, const char *what, int a, int i, span ours, bool had, span theirs)
{
    char other[48] = "";
    if (had) snprintf(other, sizeof other, ", PyTorch %.4g s", judged(b, theirs));
    note("%s, %s, round %d: weft %.4g s%s", what, names[a], i + 1, judged(b, ours), other);
}

/* How many times as fast as the peer in the same arithmetic. */
static void rows_of(suite *b, const char *group, const char *id, const char *what, const turns *t, bars limits)
{
    for (int a = first; a < end; a++) {
        char name[40];
        snprintf(name, sizeof name, "%s.%s", id, names[a]);
        figure r = figure_of(group, name, "x");
        snprintf(r.what, sizeof r.what, "%s, %s", what, names[a]);
        set_figure(&r, &t->ratio[a]);
        r.rounds = t->ours[a].n;
        r.more = true;
        r.bar = limits.bar[a];
        r.stretch = limits.stretch[a];
        r.ours = median_of(&t->ours[a]);
        r.theirs = median_of(&t->theirs[a]);
        if (t->theirs[a].n > 0) snprintf(r.versus, sizeof r.versus, "PyTorch %s", names[a]);
        add_figure(b, &r);
    }
}

/* What a step computes that is not the first with its texts: their keys and values are there. */
static double later_flops(const side *s)
{
    enum { CALLS = 2 };
    weft_call_cost   cost[CALLS] = { WEFT_CALL_COST_INIT, WEFT_CALL_COST_INIT };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan       *plan = plan_of(s->model, NULL, 0, WEFT_PATH_AUTO, CALLS);
    weft_error       err;

    o.height = s->info.height;
    o.width = s->info.width;
    o.text_tokens = s->text_tokens;
    must(weft_run_costs(plan, &o, WEFT_COSTS_GUIDED, cost, CALLS, &err), &err);
    weft_plan_free(plan);
    return cost[1].flops;
}

static void rate_row(suite *b, const char *group, int32_t size, const turns *t, double flops)
{
    samples rate = { 0 };
    char    id[40];

    if (b->rate_count == (int)(sizeof b->rates / sizeof *b->rates)) return;

    for (int i = 0; i < t->ours[F32].n; i++)
        sample(&rate, 1e-9 * flops / t->ours[F32].v[i] * (b->processor ? b->threads : 1));
    snprintf(id, sizeof id, "rate.%d.f32", (int)size);
    figure r = figure_of(group, id, "GFLOP/s");
    snprintf(r.what, sizeof r.what, "%dx%d step, f32: GFLOP/s, the peak as bar", (int)size, (int)size);
    set_figure(&r, &rate);
    r.more = true;
    b->rates[b->rate_count++] = r;
}

void add_rates(suite *b)
{
    for (int i = 0; i < b->rate_count; i++) {
        b->rates[i].bar = b->peak_f32;
        add_figure(b, &b->rates[i]);
    }
    b->rate_count = 0;
}

/* ---- how far apart they are --------------------------------------------------------------------------- */

typedef struct results { float *ours[ARITHMETICS], *theirs[ARITHMETICS]; size_t n; } results;

static void keep(float **kept, const float *v, size_t n)
{
    if (*kept == NULL && (*kept = malloc(n * sizeof **kept)) == NULL) die("out of memory");
    memcpy(*kept, v, n * sizeof **kept);
}

/* The bar of f32 is the bound of the default arithmetic; that of bf16 is the peer's own error in bf16. */
static void error_rows(suite *b, const char *group, const char *id, const char *what, const results *got)
{
    char name[40], text[72];
    const float *truth = got->theirs[F32] != NULL ? got->theirs[F32] : got->ours[F32];

    if (got->theirs[F32] != NULL) {
        snprintf(name, sizeof name, "error.%s.f32", id);
        snprintf(text, sizeof text, "%s, f32: apart from PyTorch", what);
        one_error(b, group, name, text, apart(got->ours[F32], truth, got->n), 5e-5);
    }
    if (got->ours[BF16] == NULL || truth == NULL) return;
    snprintf(name, sizeof name, "error.%s.bf16", id);
    snprintf(text, sizeof text, "%s, bf16: error, PyTorch's as bar", what);
    one_error(b, group, name, text, apart(got->ours[BF16], truth, got->n),
              got->theirs[BF16] != NULL ? apart(got->theirs[BF16], truth, got->n) : NAN);
}

static void forget(results *r)
{
    for (int a = 0; a < ARITHMETICS; a++) free(r->ours[a]), free(r->theirs[a]);
}

/* ---- groups -------------------------------------------------------------------------------------------- */

static weft_model *model[ARITHMETICS];
static bool        peer_has[ARITHMETICS];

static void open_all(suite *b, const char *path, const char *parts, int from, int to)
{
    first = from;
    end = b->bf16 || to == 1 ? to : 1;
    for (int a = first; a < end; a++) {
        span t;
        model[a] = open_model(path, a == BF16);
        peer_has[a] = b->worker != NULL && peer_time(b->worker, &t, "load\t%s\t%s\t%s\t%s", names[a], path, names[a], parts);
        if (peer_has[a]) note("PyTorch %s opened it in %.2f s", names[a], t.clock);
    }
}

static void close_all(suite *b)
{
    char answer[64];
    for (int a = first; a < end; a++) {
        weft_model_free(model[a]);
        if (peer_has[a]) peer_ask(b->worker, answer, sizeof answer, "drop\t%s", names[a]);
    }
}

static void out_path(const suite *b, char *path, size_t cap)
{
    snprintf(path, cap, "%s/peer.f32", b->dir);
}

static void steps_at(suite *b, const char *group, const char *what, int32_t size, int steps, bars limits)
{
    char    words[1200], path[1024], id[40];
    turns   t = { 0 };
    results got = { 0 };
    side    s[ARITHMETICS];

    for (int a = first; a < end; a++)
        side_open(&s[a], model[a], plan_of(model[a], NULL, 0, WEFT_PATH_AUTO, 1), size, b->threads, 0);
    peer_inputs(b, &s[first], words, sizeof words);
    out_path(b, path, sizeof path);
    got.n = s[first].info.latent_len;
    for (int i = -1; i < b->rounds; i++)
        for (int a = first; a < end; a++) {
            span ours = side_steps(&s[a], i < 0 ? 1 : steps), theirs = { NAN, NAN };
            bool had = peer_has[a] && i >= 0 /* its first time warms it up */
                       && peer_time(b->worker, &theirs, "step\t%s\t%d\t%s\t%s", names[a], steps, words, path);
            if (i < 0) continue;
            take(b, &t, a, ours, had, theirs);
            say_turn(b, what, a, i, ours, had, theirs);
            if (i == 0) keep(&got.ours[a], s[a].out, got.n);
            if (i == 0 && had) got.theirs[a] = peer_result(path, got.n);
        }
    snprintf(id, sizeof id, "step.%d", (int)size);
    rows_of(b, group, id, what, &t, limits);
    if (strcmp(group, "steps") == 0) rate_row(b, group, size, &t, later_flops(&s[F32]));
    error_rows(b, group, id, what, &got);
    forget(&got);
    for (int a = first; a < end; a++) side_close(&s[a]);
}

static void decode_at(suite *b, const char *group, int32_t size, int32_t tile, bars limits)
{
    char    path[1024], words[1200], id[40], what[72];
    turns   t = { 0 };
    results got = { 0 };
    side    s[ARITHMETICS];

    for (int a = first; a < end; a++)
        side_open(&s[a], model[a], plan_of(model[a], NULL, 0, WEFT_PATH_AUTO, 1), size, b->threads, tile);
    peer_inputs(b, &s[first], words, sizeof words);
    out_path(b, path, sizeof path);
    got.n = s[first].info.image_len;
    for (int i = tile > 0 ? 0 : -1; i < b->rounds; i++)
        for (int a = first; a < end; a++) {
            span ours = side_decode(&s[a]), theirs = { NAN, NAN };
            bool had = peer_has[a] && peer_time(b->worker, &theirs, "decode\t%s\t%d\t%d\t%d\t%d\t%s/inputs.f32\t%s", names[a],
                                                (int)s[a].about.latent_channels, (int)s[a].info.height,
                                                (int)s[a].info.width, (int)tile, b->dir, path);
            if (i < 0) continue;
            take(b, &t, a, ours, had, theirs);
            say_turn(b, "decode", a, i, ours, had, theirs);
            if (i == 0) keep(&got.ours[a], s[a].image, got.n);
            if (i == 0 && had) got.theirs[a] = peer_result(path, got.n);
        }
    for (int a = first; a < end && size == 512; a++) /* the stretch is five seconds, whatever the peer takes */
        limits.stretch[a] = median_of(&t.theirs[a]) / (5 * (b->processor ? b->threads : 1));
    snprintf(id, sizeof id, "decode.%d", (int)size);
    snprintf(what, sizeof what, "VAE decode %dx%d%s", (int)size, (int)size, tile > 0 ? " in tiles" : "");
    rows_of(b, group, id, what, &t, limits);
    if (tile == 0) error_rows(b, group, id, what, &got);
    forget(&got);
    for (int a = first; a < end; a++) side_close(&s[a]);
}

static void encode_both(suite *b)
{
    samples ours = { 0 }, theirs = { 0 };
    char    ids[2 * 77 * 8] = "";
    side    s;

    side_open(&s, model[F32], plan_of(model[F32], NULL, 0, WEFT_PATH_AUTO, 1), b->small, b->threads, 0);
    for (int which = 0, used = 0; which < 2; which++) {
        int32_t number[77];
        token_ids(number, which);
        for (int i = 0; i < 77; i++)
            used += snprintf(ids + used, sizeof ids - (size_t)used, "%s%d", used > 0 ? "," : "", (int)number[i]);
    }
    for (int i = -1; i < b->rounds; i++) {
        span t = side_encode(&s), other;
        if (i < 0) continue;
        sample(&ours, judged(b, t) / (b->processor ? b->threads : 1)); /* its bar is of the clock */
        if (b->full && peer_has[F32] && peer_time(b->worker, &other, "encode\tf32\t%s", ids))
            sample(&theirs, judged(b, other) / (b->processor ? b->threads : 1));
    }
    figure r = figure_of("steps", "encode", "s");
    snprintf(r.what, sizeof r.what, "text encoding of both prompts");
    set_figure(&r, &ours);
    r.bar = 0.25;
    r.ours = r.measured;
    r.theirs = median_of(&theirs);
    if (theirs.n > 0) snprintf(r.versus, sizeof r.versus, "PyTorch f32");
    add_figure(b, &r);
    side_close(&s);
}

static void name_step(char what[72], int32_t size)
{
    snprintf(what, 72, "%dx%d step", (int)size, (int)size);
}

void group_steps(suite *b)
{
    static const bars step = { { 1.7, 1.5 }, { 2, 1.9 } }, decode = { { 3, 1.5 }, { NAN, NAN } };
    char what[72];

    open_all(b, b->model, "unet,vae,text", F32, ARITHMETICS);
    encode_both(b);
    name_step(what, b->small);
    if (b->small != b->size) steps_at(b, "steps", what, b->small, b->steps, step);
    name_step(what, b->size);
    steps_at(b, "steps", what, b->size, b->steps, step);
    decode_at(b, "steps", b->size, 0, decode);
    close_all(b);
}

/* stable-diffusion.cpp has no call for one step, so a round is one picture of it. */
void group_sdcpp(suite *b)
{
    samples ours = { 0 }, theirs = { 0 }, ratio = { 0 };
    span    t;
    side    s;

    if (b->sdcpp == NULL || !b->full) return;
    if (!peer_time(b->sdcpp, &t, "load\t%s\t%d", b->single, (int)b->threads)) return;
    weft_model *m = open_model(b->model, false);
    side_open(&s, m, plan_of(m, NULL, 0, WEFT_PATH_AUTO, 1), b->small, b->threads, 0);
    side_steps(&s, 1);
    for (int i = 0; i < b->rounds; i++) {
        double own = judged(b, side_steps(&s, 1));
        if (!peer_time(b->sdcpp, &t, "step\t%d\t2", (int)b->small)) break;
        sample(&ours, own);
        sample(&theirs, judged(b, t));
        sample(&ratio, judged(b, t) / own);
        note("round %d: weft %.4g s, stable-diffusion.cpp %.4g s", i + 1, own, judged(b, t));
    }
    figure r = figure_of("sdcpp", "sdcpp", "x");
    snprintf(r.what, sizeof r.what, "%dx%d step, f32, beside stable-diffusion.cpp", (int)b->small, (int)b->small);
    set_figure(&r, &ratio);
    r.more = true;
    r.ours = median_of(&ours);
    r.theirs = median_of(&theirs);
    snprintf(r.versus, sizeof r.versus, "stable-diffusion.cpp");
    if (ratio.n > 0) add_figure(b, &r);
    side_close(&s);
    weft_model_free(m);
}

/* The small model that comes with weft, as it is used: its bars hold for it alone. */
void group_bundled(suite *b)
{
    static const bars third = { { 3, NAN }, { NAN, NAN } };
    bool full = b->full;

    b->full = true;
    open_all(b, b->bundled, "unet", F32, ARITHMETICS);
    steps_at(b, "bundled", "bundled, 64x64 step", 64, b->quick ? 2 : 20, third);
    close_all(b);
    b->full = full;
}

void group_sdxl(suite *b)
{
    static const bars step = { { 1.7, 1.5 }, { 2, 1.9 } }, decode = { { 3, 1.5 }, { NAN, NAN } };
    char path[1024];
    int  rounds = b->rounds;
    bool full = b->full;
    const int32_t size = 1024;

    snprintf(path, sizeof path, "%s/sdxl", b->dir);
    b->full = true; /* whatever the other groups have */
    b->rounds = 1; /* minutes each */
    for (int a = F32; a < (b->bf16 ? ARITHMETICS : 1); a++) { /* the peer's weights of both would be much at once */
        open_all(b, path, "unet,vae", a, a + 1);
        steps_at(b, "sdxl", "SDXL, guided step", size, 1, step);
        decode_at(b, "sdxl", size, 64, decode);
        close_all(b);
    }
    b->rounds = rounds;
    b->full = full;
}

/* From one thread to all of them, and the same bits. */
void group_threads(suite *b)
{
    samples one = { 0 }, all = { 0 }, ratio = { 0 };
    side    s[2];
    int32_t count = b->threads > 2 ? 2 : b->threads;
    bool    same = true;

    if (count < 2) {
        note("threads: one thread only, nothing to compare");
        return;
    }
    weft_model *m = open_model(b->model, false);
    for (int k = 0; k < 2; k++)
        side_open(&s[k], m, plan_of(m, NULL, 0, WEFT_PATH_AUTO, 1), b->small, k == 0 ? 1 : count, 0);
    for (int i = -1; i < b->rounds; i++) {
        span single = side_steps(&s[0], b->steps), both = side_steps(&s[1], b->steps);
        same = same && memcmp(s[0].out, s[1].out, s[0].info.latent_len * sizeof(float)) == 0;
        if (i < 0) continue;
        /* Where the processor judges: what it would be if both threads had a core of their own and never waited. */
        double share = b->processor ? both.busy / count : both.clock;
        sample(&one, judged(b, single));
        sample(&all, share);
        sample(&ratio, judged(b, single) / share);
    }
    figure r = figure_of("threads", "threads", "x");
    snprintf(r.what, sizeof r.what, "%dx%d step, 1 to %d threads", (int)b->small, (int)b->small, (int)count);
    set_figure(&r, &ratio);
    r.more = true;
    r.bar = b->processor ? NAN : 1.85; /* time that the processor waits is not seen in its own */
    r.ours = median_of(&all);
    r.theirs = median_of(&one);
    snprintf(r.versus, sizeof r.versus, "one thread");
    add_figure(b, &r);
    one_error(b, "threads", "threads.bits", "results that other threads changed", same ? 0 : 1, 0);
    for (int k = 0; k < 2; k++) side_close(&s[k]);
    weft_model_free(m);
}
