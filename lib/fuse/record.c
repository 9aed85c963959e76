/* record.c - the rows that layers read, made by runs: prompts are encoded, images are drawn.
 *
 *   text     every token of a concept's prompts, from the first to the end token, as the layers of
 *            the text encoders see it while the concept acts there
 *   keys     tokens of the encoded text. GRADIENT: those of placeholders, and the end token; a
 *            prompt without a placeholder counts from its first word on. CONSTRAINED: from the
 *            first word, or the fourth behind "photo of a" (WEFT_FUSE_SKIP_PHOTO), to the end token
 *   images   every row that the denoiser's layers read while the concept draws its first prompts,
 *            without guidance, all steps. Text, keys and values are the fused ones by then
 *
 *   whole    ROUTED: every row, the padding of texts too, that any layer reads while the concept
 *            begins its images by its own plan, without guidance; as A x
 *
 * That is Mix-of-Show's order and its choice of tokens in its program, and Custom Diffusion's. */
#include "fuse/fuse_internal.h"
#include "model/networks.h"
#include "run/run.h"
#include "tensor/dtype.h"
#include "tensor/gemm.h"

/* ---- runs ------------------------------------------------------------------------------------ */

/* A run's own progress: the fusion's, so that it can be stopped at every layer. */
static int32_t pass_on(void *user, const char *doing, int64_t done, int64_t total)
{
    weft_fuse *f = user;

    (void)doing, (void)done, (void)total;
    if (f->o.progress == NULL) return 0;
    return f->o.progress(f->o.progress_user, f->doing, f->done, f->total);
}

static weft_status make_run(weft_fuse *f, weft_plan *plan, weft_run **out, weft_error *err)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;

    o.allocator = &f->alloc;
    o.progress = pass_on;
    o.progress_user = f;
    o.threads = f->o.threads;
    o.height = f->o.height;
    o.width = f->o.width;
    o.text_tokens = f->text.tokens > 0 ? f->text.tokens : 0;
    return weft_run_create(plan, &o, out, err);
}

/* The streams of one prompt, in one block. */
typedef struct encoded {
    weft_text text[WF_STREAMS_MAX];
    size_t    count;
    float    *floats;
} encoded;

static weft_status encode(const weft_fuse *f, weft_run *run, const char *prompt, bool layered,
                          bool cut, encoded *e, weft_error *err)
{
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_encode   call = WEFT_ENCODE_INIT;
    size_t        floats = 0, at = 0;

    *e = (encoded){ .count = 0 };
    WF_TRY(weft_run_info_get(run, &info, err));
    e->count = (size_t)info.text_streams;
    for (size_t i = 0; i < e->count; i++) {
        weft_text_init(&e->text[i], sizeof e->text[i]);
        if (layered && (int32_t)i == f->sequence) e->text[i].cross_layers = f->text.cross_layers;
        WF_TRY(weft_run_text(run, (int32_t)i, 1, &e->text[i], err));
        if (!wf_add(floats, e->text[i].len, &floats)) return wf_nomem(err, SIZE_MAX, "a text");
    }
    e->floats = wf_zalloc(&f->alloc, floats, sizeof *e->floats);
    if (e->floats == NULL) return wf_nomem(err, floats * sizeof *e->floats, "a text");
    for (size_t i = 0; i < e->count; i++) {
        e->text[i].data = e->floats + at;
        at += e->text[i].len;
    }
    call.flags = cut ? WEFT_ENCODE_TRUNCATE : 0;
    call.prompt = prompt;
    call.text = e->text;
    call.text_count = e->count;
    weft_status st = weft_run_encode(run, &call, err);
    if (st != WEFT_OK) wf_free(&f->alloc, e->floats);
    return st;
}

/* ---- taps ------------------------------------------------------------------------------------ */

/* Records what layers read. */
typedef struct recorder {
    weft_fuse *f;
    wf_tap     tap;
    size_t    *target;                  /* [layers] whose rows a layer's are, or SIZE_MAX */
    size_t     tokens[WF_ENCODERS_MAX]; /* of each encoder, with both ends                */
    float     *tile;                    /* (rows, K)                                      */
    double    *wide;
    double    *turned;                  /* ROUTED: (K, R) A of a layer, and (rows, R) A x */
    double    *answers;
    size_t     concept;                 /* that is at work                                */
    bool       failed;                  /* there was no memory                            */
} recorder;

static void recorder_free(recorder *r)
{
    wf_free(&r->f->alloc, r->target);
    wf_free(&r->f->alloc, r->tile);
    wf_free(&r->f->alloc, r->wide);
    wf_free(&r->f->alloc, r->turned);
    wf_free(&r->f->alloc, r->answers);
}

/* For the open targets that have rows of their own. */
static weft_status recorder_make(recorder *r, weft_fuse *f, bool tiles, weft_error *err)
{
    size_t K = 1, R = 0, KR = 0, floats;

    *r = (recorder){ .f = f };
    r->target = wf_alloc(&f->alloc, f->layer_count * sizeof *r->target);
    if (r->target == NULL) return wf_nomem(err, f->layer_count * sizeof *r->target, "layers");
    for (size_t i = 0; i < f->layer_count; i++) r->target[i] = SIZE_MAX;
    for (size_t i = 0; i < f->targets; i++) {
        const wf_fuse_target *t = &f->target[i];
        if (!t->open || t->of != i) continue;
        r->target[t->layer->id] = i;
        K = WF_MAX(K, wf_fuse_columns(t->layer));
        R = WF_MAX(R, t->route.R);
        KR = WF_MAX(KR, wf_fuse_columns(t->layer) * t->route.R);
    }
    if (!tiles) return WEFT_OK;
    floats = WF_TILE_ROWS * K;
    r->tile = wf_alloc(&f->alloc, floats * sizeof *r->tile);
    r->wide = wf_alloc(&f->alloc, floats * sizeof *r->wide);
    if (r->tile == NULL || r->wide == NULL)
        return wf_nomem(err, 3 * floats * sizeof *r->tile, "a tile of rows");
    if (f->o.kind != WEFT_FUSE_ROUTED) return WEFT_OK;
    r->turned = wf_alloc(&f->alloc, KR * sizeof *r->turned);
    r->answers = wf_alloc(&f->alloc, WF_TILE_ROWS * R * sizeof *r->answers);
    if (r->turned == NULL || r->answers == NULL)
        return wf_nomem(err, (KR + WF_TILE_ROWS * R) * sizeof *r->turned, "a layer's factors");
    return WEFT_OK;
}

/* All rows that a convolution or a linear layer reads, tile by tile, into its sums: as they are, or
 * what A makes of them. */
static void sum_rows(void *user, wf_exec *e, const wf_layer *l, const wf_product *p, wf_grid out)
{
    recorder *r = user;
    size_t    rows = (size_t)out.h * (size_t)out.w, K = wf_fuse_columns(l);

    if (r->target[l->id] == SIZE_MAX) return;
    wf_fuse_target *t = &r->f->target[r->target[l->id]];
    size_t          R = t->route.R;
    if (R > 0 && !wf_fuse_route_reads(t, r->concept)) return;
    if (R > 0) wf_fuse_route_turned(t, r->turned);
    for (size_t s = 0; s < p->samples; s++)
        for (size_t row = 0; row < rows; row += WF_TILE_ROWS) {
            size_t n = WF_MIN((size_t)WF_TILE_ROWS, rows - row);
            wf_gather(p, r->tile, s, row, n, 0, (size_t)l->in);
            for (size_t i = 0; i < n * K; i++) r->wide[i] = r->tile[i];
            if (R > 0) wf_gemm_double(r->answers, R, r->wide, K, r->turned, R, n, R, K, 1, 0);
            wf_fuse_sums_add(&t->rows, R > 0 ? r->answers : r->wide, n, e->pool);
        }
}

/* The tokens of a prompt that a text encoder's layer reads; of a layer over one vector that one. */
static void keep_tokens(void *user, wf_exec *e, const wf_layer *l, const wf_product *p, wf_grid out)
{
    recorder *r = user;
    size_t    rows = (size_t)out.h * (size_t)out.w;

    if (r->target[l->id] == SIZE_MAX) return;
    if (out.domain == WF_DOMAIN_TEXT)
        rows = WF_MIN(rows, r->tokens[wf_component_encoder(l->component)]);
    for (size_t row = 0; row < rows; row++)
        if (!wf_fuse_keep(&r->f->target[r->target[l->id]].rows, p->x + row * (size_t)l->in,
                          &r->f->alloc))
            r->failed = e->stopped = true;
}

/* An error of a recorded call: "cancelled" where the recorder found no memory. */
static weft_status recorded(const recorder *r, weft_status st, weft_error *err)
{
    return r->failed ? wf_nomem(err, 0, "rows that a layer reads") : st;
}

/* ---- inside the text encoders ---------------------------------------------------------------- */

static weft_status count_tokens(recorder *r, const wf_fuse_concept *c, const char *prompt,
                                weft_error *err)
{
    const wf_networks *n = wf_model_networks(r->f->model);

    for (int32_t i = 0; i < n->encoders; i++) {
        int32_t *ids;
        size_t   count;
        int32_t  which = wf_component_encoder(n->encoder[i].component);
        WF_TRY(wf_fuse_ids(r->f, c->plan, prompt, i, false, &ids, &count, err));
        wf_free(&r->f->alloc, ids);
        r->tokens[which] = count + 2;
    }
    return WEFT_OK;
}

/* Where the rows of concept c begin, for all targets of a stage. */
static void mark(weft_fuse *f, wf_fuse_stage stage, size_t c)
{
    for (size_t i = 0; i < f->targets; i++)
        if (f->target[i].stage == stage && f->target[i].of == i)
            f->target[i].rows.first[c] = f->target[i].rows.count;
}

static weft_status record_text_of(weft_fuse *f, const wf_fuse_concept *c, recorder *r,
                                  weft_error *err)
{
    weft_plan  *plan = NULL;
    weft_run   *run = NULL;
    weft_status st = wf_fuse_stage_plan(f, c, WF_FUSE_TEXT, NULL, 1, &plan, err);

    if (st == WEFT_OK) st = make_run(f, plan, &run, err);
    if (st == WEFT_OK) wf_run_set_tap(run, &r->tap);
    for (size_t i = 0; i < c->count && st == WEFT_OK; i++) {
        encoded e = { .count = 0 };
        if ((st = count_tokens(r, c, c->prompts[i], err)) == WEFT_OK)
            st = recorded(r, encode(f, run, c->prompts[i], c->layered, false, &e, err), err);
        if (st != WEFT_OK) break;
        wf_free(&f->alloc, e.floats);
        st = wf_fuse_tick(f, 1, err);
    }
    weft_run_free(run);
    weft_plan_free(plan);
    return st;
}

weft_status wf_fuse_record_text(weft_fuse *f, weft_error *err)
{
    recorder    r;
    weft_status st = recorder_make(&r, f, false, err);

    r.tap = (wf_tap){ keep_tokens, &r };
    for (size_t c = 0; c < f->concepts && st == WEFT_OK; c++) {
        mark(f, WF_FUSE_TEXT, c);
        st = record_text_of(f, &f->concept[c], &r, err);
    }
    mark(f, WF_FUSE_TEXT, f->concepts);
    recorder_free(&r);
    return st;
}

/* ---- the encoded text ------------------------------------------------------------------------ */

/* "photo of a" in the first 15 characters. */
static bool begins_with_photo(const char *prompt)
{
    char start[16] = "";

    strncat(start, prompt, sizeof start - 1);
    return strstr(start, "photo of a") != NULL;
}

/* keep [ids + 2], BOS and the end token with them: which tokens count. */
static void choose_tokens(const weft_fuse *f, const weft_plan *plan, const char *prompt,
                          const int32_t *ids, size_t count, bool *keep)
{
    const wf_tokens *t = plan != NULL ? wf_plan_tokens(plan) : NULL;
    size_t           first = 1;
    bool             placeholder = false;

    if ((f->o.flags & WEFT_FUSE_SKIP_PHOTO) != 0 && begins_with_photo(prompt))
        first = WF_MIN((size_t)4, count + 1);
    for (size_t i = 0; i < count && t != NULL && f->o.kind == WEFT_FUSE_GRADIENT; i++)
        placeholder = placeholder || ids[i] >= wf_tokens_extras(t, 0)->base;
    for (size_t i = 1; i <= count + 1; i++)
        keep[i] = i > count ? true
                : placeholder ? ids[i - 1] >= wf_tokens_extras(t, 0)->base : i >= first;
}

/* Takes the rows of one prompt that count: given row by row to `take`, with its cross-attention. */
typedef weft_status taking(void *user, size_t cross, const float *row, weft_error *err);

static weft_status take_rows(weft_fuse *f, weft_run *run, const wf_fuse_concept *c,
                             const char *prompt, taking *take, void *user, weft_error *err)
{
    const weft_plan *plan = c != NULL ? c->plan : NULL;
    bool     layered = c != NULL && c->layered, *keep;
    int32_t *ids;
    size_t   count;
    encoded  e;

    WF_TRY(wf_fuse_ids(f, plan, prompt, 0, c == NULL, &ids, &count, err));
    keep = wf_zalloc(&f->alloc, count + 2, sizeof *keep);
    weft_status st = keep != NULL ? encode(f, run, prompt, layered, c == NULL, &e, err)
                                  : wf_nomem(err, count + 2, "a prompt's tokens");
    if (st == WEFT_OK) {
        const weft_text *text = &e.text[f->sequence];
        size_t           crosses = (size_t)WF_MAX(text->cross_layers, 1);
        choose_tokens(f, plan, prompt, ids, count, keep);
        for (size_t j = 0; j < crosses && st == WEFT_OK; j++)
            for (size_t i = 1; i <= count + 1 && st == WEFT_OK; i++)
                if (keep[i])
                    st = take(user, j,
                              text->data + (j * (size_t)text->tokens + i) * (size_t)f->text.width,
                              err);
        wf_free(&f->alloc, e.floats);
    }
    wf_free(&f->alloc, keep);
    wf_free(&f->alloc, ids);
    return st;
}

/* Into every target of keys and values that sees this cross-attention's text. A concept whose text
 * is the same for all gives it to each. */
typedef struct keeping { weft_fuse *f; bool layered; } keeping;

static weft_status keep_row(void *user, size_t cross, const float *row, weft_error *err)
{
    keeping *k = user;

    for (size_t i = 0; i < k->f->targets; i++) {
        wf_fuse_target *t = &k->f->target[i];
        if (t->stage != WF_FUSE_KEYS || t->of != i) continue;
        if (k->layered && t->cross != (int32_t)cross) continue;
        if (!wf_fuse_keep(&t->rows, row, &k->f->alloc))
            return wf_nomem(err, t->rows.K * sizeof(double), "rows of the text");
    }
    return WEFT_OK;
}

weft_status wf_fuse_record_keys(weft_fuse *f, weft_adapter *fused, weft_error *err)
{
    weft_status st = WEFT_OK;

    for (size_t c = 0; c < f->concepts && st == WEFT_OK; c++) {
        keeping    k = { f, f->concept[c].layered };
        weft_plan *plan = NULL;
        weft_run  *run = NULL;
        mark(f, WF_FUSE_KEYS, c);
        st = wf_fuse_stage_plan(f, &f->concept[c], WF_FUSE_KEYS, fused, 1, &plan, err);
        if (st == WEFT_OK) st = make_run(f, plan, &run, err);
        for (size_t i = 0; i < f->concept[c].count && st == WEFT_OK; i++) {
            st = take_rows(f, run, &f->concept[c], f->concept[c].prompts[i], keep_row, &k, err);
            if (st == WEFT_OK) st = wf_fuse_tick(f, 1, err);
        }
        weft_run_free(run);
        weft_plan_free(plan);
    }
    mark(f, WF_FUSE_KEYS, f->concepts);
    return st;
}

/* ---- captions -------------------------------------------------------------------------------- */

typedef struct summing { double *H, *row; size_t K; } summing;

static weft_status sum_row(void *user, size_t cross, const float *row, weft_error *err)
{
    summing *s = user;

    (void)cross, (void)err;
    for (size_t i = 0; i < s->K; i++) s->row[i] = row[i];
    for (size_t i = 0; i < s->K; i++)
        for (size_t k = 0; k < s->K; k++) s->H[i * s->K + k] += s->row[i] * s->row[k];
    return WEFT_OK;
}

weft_status wf_fuse_record_captions(weft_fuse *f, double *H, size_t K, weft_error *err)
{
    summing     s = { H, wf_alloc(&f->alloc, K * sizeof *s.row), K };
    weft_plan  *plan = NULL;
    weft_run   *run = NULL;
    weft_status st = s.row != NULL ? wf_fuse_stage_plan(f, NULL, WF_FUSE_KEYS, NULL, 1, &plan, err)
                                   : wf_nomem(err, K * sizeof *s.row, "a row of the text");

    memset(H, 0, K * K * sizeof *H);
    if (st == WEFT_OK) st = make_run(f, plan, &run, err);
    for (size_t i = 0; i < f->captions && st == WEFT_OK; i++) {
        st = take_rows(f, run, NULL, f->caption[i], sum_row, &s, err);
        if (st == WEFT_OK) st = wf_fuse_tick(f, 1, err);
    }
    weft_run_free(run);
    weft_plan_free(plan);
    wf_free(&f->alloc, s.row);
    return st;
}

/* ---- images ---------------------------------------------------------------------------------- */

weft_status wf_fuse_sampler(const weft_fuse *f, weft_sampler **out, weft_error *err)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = f->o.sampler;
    o.steps = f->o.kind == WEFT_FUSE_ROUTED ? WF_MAX(f->o.steps, WF_FUSE_STEPS) : f->o.steps;
    WF_TRY(weft_sampler_options_from_model(f->model, &o, err));
    o.allocator = &f->alloc;
    return weft_sampler_create(&o, out, err);
}

int32_t wf_fuse_calls(const weft_fuse *f, const weft_sampler *s)
{
    int32_t all = weft_sampler_calls(s);
    return f->o.kind == WEFT_FUSE_ROUTED ? WF_MIN(f->o.steps, all) : all;
}

/* Latents, what the network reads of them, its prediction: (3, n). */
static weft_status draw_steps(weft_fuse *f, weft_run *run, weft_sampler *s, const encoded *text,
                              weft_noise *noise, float *x, size_t n, weft_error *err)
{
    weft_model_info about = WEFT_MODEL_INFO_INIT;
    weft_step       step = WEFT_STEP_INIT;
    float          *scaled = x + n, *prediction = scaled + n, first = weft_sampler_init_scale(s);

    WF_TRY(weft_model_info_get(f->model, &about, err));
    WF_TRY(weft_noise_normal(noise, x, n, err));
    for (size_t i = 0; i < n; i++) x[i] *= first;
    WF_TRY(weft_sampler_begin(s, 0, n, err));
    step.latent = scaled;
    step.out = prediction;
    step.latent_len = step.out_len = n;
    step.text = text->text;
    step.text_count = text->count;
    step.guidance_embed = about.guidance_embed != 0 ? 1.0f : 0.0f;
    for (int32_t i = 0; i < wf_fuse_calls(f, s); i++) {
        WF_TRY(weft_sampler_scale(s, i, x, scaled, n, err));
        step.timestep = weft_sampler_timestep(s, i);
        step.call = i;
        WF_TRY(weft_run_step(run, &step, err));
        WF_TRY(weft_sampler_step(s, i, prediction, x, n, noise, err));
        WF_TRY(wf_fuse_tick(f, 1, err));
    }
    return WEFT_OK;
}

static weft_status draw(weft_fuse *f, weft_run *run, weft_sampler *s, const wf_fuse_concept *c,
                        int32_t image, const wf_tap *tap, weft_error *err)
{
    weft_run_info      info = WEFT_RUN_INFO_INIT;
    weft_noise_options o = WEFT_NOISE_OPTIONS_INIT;
    weft_noise        *noise = NULL;
    encoded            e;

    WF_TRY(weft_run_info_get(run, &info, err));
    if (info.extra_len > 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "the model reads a mask or an image beside its latents, and fusion draws "
                       "from prompts alone: fuse with the model that it was made of");
    wf_run_set_tap(run, tap); /* text encoders too, of which none is open but under ROUTED */
    WF_TRY(encode(f, run, c->prompts[(size_t)image % c->count], c->layered, false, &e, err));
    o.allocator = &f->alloc;
    weft_status st = weft_noise_create(c->seed + (uint64_t)image, &o, &noise, err);
    float *x = wf_zalloc(&f->alloc, 3 * info.latent_len, sizeof *x);
    if (st == WEFT_OK && x == NULL) st = wf_nomem(err, 3 * info.latent_len * sizeof *x, "latents");
    if (st == WEFT_OK) st = draw_steps(f, run, s, &e, noise, x, info.latent_len, err);
    wf_run_set_tap(run, NULL);
    wf_free(&f->alloc, x);
    weft_noise_free(noise);
    wf_free(&f->alloc, e.floats);
    return st;
}

/* The sums of one concept, ended. */
static weft_status record_images_of(weft_fuse *f, weft_adapter *fused, const wf_fuse_concept *c,
                                    const wf_tap *tap, weft_error *err)
{
    weft_sampler *s = NULL;
    weft_plan    *plan = NULL;
    weft_run     *run = NULL;
    weft_status   st = wf_fuse_sampler(f, &s, err);

    if (st == WEFT_OK)
        st = wf_fuse_stage_plan(f, c,
                                f->o.kind == WEFT_FUSE_ROUTED ? WF_FUSE_WHOLE : WF_FUSE_IMAGES,
                                fused, weft_sampler_calls(s), &plan, err);
    if (st == WEFT_OK) st = make_run(f, plan, &run, err);
    for (int32_t i = 0; i < c->images && st == WEFT_OK; i++) st = draw(f, run, s, c, i, tap, err);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_sampler_free(s);
    for (size_t i = 0; i < f->targets && st == WEFT_OK; i++) {
        wf_fuse_target *t = &f->target[i];
        if (!t->open || t->of != i) continue;
        if (t->route.R > 0) wf_fuse_route_end(t, (size_t)(c - f->concept));
        else st = wf_fuse_sums_end(f, i, c, err);
    }
    return st;
}

weft_status wf_fuse_record_images(weft_fuse *f, weft_adapter *fused, weft_error *err)
{
    recorder    r;
    weft_status st = recorder_make(&r, f, true, err);

    r.tap = (wf_tap){ sum_rows, &r };
    for (size_t c = 0; c < f->concepts && st == WEFT_OK; c++) {
        r.concept = c;
        st = record_images_of(f, fused, &f->concept[c], &r.tap, err);
    }
    recorder_free(&r);
    return st;
}
