/* encode_image_prompt.c - a picture in, the rows of an image prompt out.
 *
 * Encoders are large, and a picture is encoded once: so this call takes the memory that it needs
 * and gives it back, where all else of a run works in memory that was taken with the run. */
#include "base/structs.h"
#include "run/run_internal.h"

/* What is encoded, checked. */
typedef struct picture {
    const weft_image_encode *in;
    const wf_clip_vision    *net;  /* NULL: not needed */
    const wf_image_proj     *proj;
    int32_t                  side;
    int32_t                  tokens; /* of the features: 1, or the encoder's hidden states */
    int32_t                  rows;   /* of the result */
    void                    *scratch; /* of wf_picture_prepare() */
} picture;

/* pixels -> features -> rows */
static void forward(const picture *p, wf_exec *e)
{
    const wf_image_proj_config *c = wf_image_proj_get_config(p->proj);
    size_t side = (size_t)p->side, mark = wf_arena_mark(&e->arena);
    float *pixels = wf_take(e, 3 * side, side);
    float *features = wf_take(e, (size_t)p->tokens, (size_t)c->features);
    bool pooled = c->kind == WEFT_IMAGE_BASE;

    if (!e->dry && !e->stopped) {
        memset(pixels, 0, 3 * side * side * sizeof *pixels);
        memset(features, 0, (size_t)p->tokens * (size_t)c->features * sizeof *features);
    }
    if (p->in->image != NULL && !e->dry && !e->stopped)
        wf_picture_prepare(pixels, p->side, p->in->image, p->in->height, p->in->width,
                           wf_image_encoder_norm(p->in->encoder), p->scratch);
    if (p->net != NULL)
        wf_clip_vision_forward(p->net, e, pixels, 1, pooled ? NULL : features,
                               pooled ? features : NULL);
    wf_image_proj_forward(p->proj, e, features, 1, p->tokens, p->in->data);
    (void)wf_watch_result(e, p->in->data, (size_t)p->rows * (size_t)c->width);
    wf_arena_release(&e->arena, mark);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static weft_status check_picture(const weft_image_encode *in, weft_error *err)
{
    if (in->image == NULL) return WEFT_OK;
    if (WF_MIN(in->height, in->width) < 1 || WF_MAX(in->height, in->width) > WF_PICTURE_MAX)
        return wf_fail(err, WEFT_E_ARG, "a picture of %d x %d, wanted sides of 1 to %d",
                       (int)in->width, (int)in->height, WF_PICTURE_MAX);
    size_t want = 3 * (size_t)in->height * (size_t)in->width;
    if (in->image_len != want)
        return wf_fail(err, WEFT_E_ARG, "a picture of %d x %d has %zu floats, wanted %zu",
                       (int)in->width, (int)in->height, in->image_len, want);
    return wf_input_finite("image", -1, in->image, in->image_len, err);
}

/* Do encoder and IP-Adapter belong together? */
static weft_status check_fit(picture *p, const char *name, weft_error *err)
{
    const wf_image_proj_config *c = wf_image_proj_get_config(p->proj);
    bool base = c->kind == WEFT_IMAGE_BASE;

    if (p->in->encoder == NULL && !(base && p->in->image == NULL))
        return wf_fail(err, WEFT_E_ARG, "weft_image_encode.encoder is NULL");
    p->side = p->tokens = 1;
    if (p->in->encoder != NULL) {
        const wf_clip_vision        *net = wf_image_encoder_net(p->in->encoder);
        const wf_clip_vision_config *v = wf_clip_vision_get_config(net);
        int32_t have = base ? v->projection : v->hidden;
        if (have != c->features)
            return wf_fail(err, WEFT_E_MISMATCH,
                           "IP-Adapter %s reads %s of %d, the image encoder gives %d: it is for "
                           "another encoder", name, base ? "a pooled vector" : "hidden states",
                           (int)c->features, (int)have);
        p->side = v->image;
        p->tokens = base ? 1 : wf_clip_vision_tokens(net);
        if (!base || p->in->image != NULL) p->net = net;
    }
    p->rows = c->kind == WEFT_IMAGE_FULL ? p->tokens : c->tokens;
    if (p->rows > c->tokens)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "IP-Adapter %s takes at most %d hidden states, the image encoder gives %d",
                       name, (int)c->tokens, (int)p->rows);
    size_t want = (size_t)p->rows * (size_t)c->width;
    if (p->in->data == NULL || p->in->len < want)
        return wf_fail(err, WEFT_E_ARG, "weft_image_encode.%s: room for %zu floats, wanted %zu",
                       p->in->data == NULL ? "data is NULL" : "len",
                       p->in->data == NULL ? 0 : p->in->len, want);
    return WEFT_OK;
}

static weft_status check(picture *p, const weft_run *r, weft_error *err)
{
    const weft_plan *plan = r->memory.plan;
    int32_t prompts = weft_plan_image_prompts(plan);

    if (p->in->prompt < 0 || p->in->prompt >= prompts)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_image_encode.prompt is %d, the plan has %d image prompts",
                       (int)p->in->prompt, (int)prompts);
    WF_TRY(check_picture(p->in, err));
    const weft_image_adapter *a = wf_plan_image_adapter(plan, p->in->prompt);
    p->proj = wf_image_adapter_proj(a);
    return check_fit(p, wf_image_adapter_name(a), err);
}

/* ---- memory for the time of the call --------------------------------------------------------- */

static bool count_layer(void *user)
{
    (*(int64_t *)user)++;
    return false;
}

/* What the picture needs: memory of its own, on the run's threads. */
typedef struct room {
    wf_arena  arena;
    uint8_t **scratch_of;  /* [threads]              */
    size_t    scratch_need;
    int64_t   layers;
    void     *scratch;     /* of the picture         */
} room;

static void give_back(room *x, const weft_run *r)
{
    wf_free(&r->alloc, x->arena.base);
    for (int32_t i = 0; x->scratch_of != NULL && i < r->threads; i++)
        wf_free(&r->alloc, x->scratch_of[i]);
    wf_free(&r->alloc, x->scratch_of);
    wf_free(&r->alloc, x->scratch);
}

static weft_status take(room *x, picture *p, const weft_run *r, weft_error *err)
{
    wf_exec dry = { .k = r->exec.k, .products = wf_run_networks(&r->memory)->exact, .dry = true,
                    .arena = { .dry = true }, .stop = count_layer, .stop_user = &x->layers };
    size_t  own = p->in->image != NULL
                      ? wf_picture_scratch(p->in->height, p->in->width, p->side) : 1;

    forward(p, &dry);
    x->arena = (wf_arena){ .size = dry.arena.peak };
    x->scratch_need = dry.scratch_need;
    x->scratch_of = wf_zalloc(&r->alloc, (size_t)r->threads, sizeof *x->scratch_of);
    x->scratch = p->scratch = wf_alloc(&r->alloc, own);
    bool there = !dry.arena.overflow && x->scratch_of != NULL && x->scratch != NULL &&
                 (x->arena.base = wf_alloc(&r->alloc, dry.arena.peak)) != NULL;
    for (int32_t i = 0; there && i < r->threads; i++)
        there = (x->scratch_of[i] = wf_alloc(&r->alloc, dry.scratch_need)) != NULL;
    return there ? WEFT_OK : wf_nomem(err, dry.arena.peak + own, "encoding a picture");
}

/* ---- public ---------------------------------------------------------------------------------- */

static weft_status run(weft_run *r, const picture *p, room *x, weft_error *err)
{
    WF_TRY(wf_run_begin(r, "encoding the picture", "the encoded picture", x->layers, err));
    wf_exec own = r->exec; /* the run's own memory waits */
    r->exec.arena = x->arena;
    r->exec.scratch = x->scratch_of;
    r->exec.scratch_need = x->scratch_need;
    r->exec.products = wf_run_networks(&r->memory)->exact;
    forward(p, &r->exec);
    if (wf_run_look_again(r)) forward(p, &r->exec);
    weft_status st = wf_run_end(r, err);
    own.stopped = r->exec.stopped;
    r->exec = own;
    return st;
}

weft_status weft_run_encode_image_prompt(weft_run *r, weft_image_encode *encode, weft_error *err)
{
    weft_image_encode in;
    picture p = { .in = &in };
    room x = { .layers = 0 };

    if (r == NULL || encode == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "encode");
    WF_TRY(WF_OPTIONS(&in, encode, weft_image_encode, 0, err));
    WF_TRY(check(&p, r, err));
    weft_status st = take(&x, &p, r, err);
    if (st == WEFT_OK) st = run(r, &p, &x, err);
    give_back(&x, r);
    if (st == WEFT_OK) encode->tokens = p.rows;
    return st;
}
