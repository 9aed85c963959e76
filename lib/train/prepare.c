/* prepare.c - all that is made before the first step: latents, memory, captions.
 *
 * A dry exec walks one evaluation over the whole batch, under a tape: what the arena's mark says
 * then is what a step takes, and its gradients take as much again. The sizes are added up before
 * anything of it is taken. */
#include "nets/turn.h"
#include "train/dataset.h"
#include "train/trainer_internal.h"

/* ---- pictures -------------------------------------------------------------------------------- */

static weft_status need_pictures(const weft_trainer *t, weft_error *err)
{
    if (wf_dataset_count(t->data, WF_DATA_INSTANCE) == 0)
        return wf_fail(err, WEFT_E_STATE, "train: no pictures were added");
    if (t->recipe->both && wf_dataset_count(t->data, WF_DATA_CLASS) == 0)
        return wf_fail(err, WEFT_E_STATE,
                       "train: %s needs pictures of both kinds, and no WEFT_PICTURE_CLASS was "
                       "added", t->recipe->name);
    if (t->expected != 0 && t->expected != wf_dataset_stamp(t->data))
        return wf_fail(err, WEFT_E_MISMATCH,
                       "train: the checkpoint was made with other pictures or captions");
    return WEFT_OK;
}

/* Progress counts pictures, and the encoder's layers only ask whether to stop. */
static int32_t pass_on(void *user, const char *what, int64_t done, int64_t total)
{
    weft_trainer *t = user;

    t->doing = what;
    t->done = done;
    t->total = total;
    t->counted = false;
    return t->o.progress != NULL ? t->o.progress(t->o.progress_user, what, done, total) : 0;
}

/* Latents that can be kept are encoded now; the encoder stays for those that cannot. */
static weft_status cache(weft_trainer *t, weft_error *err)
{
    bool again = false;

    if (t->cached) return WEFT_OK;
    for (int i = 0; i < WF_DATA_LISTS; i++)
        again = again || (wf_dataset_count(t->data, (wf_data_list)i) > 0 &&
                          !wf_dataset_cacheable(t->data, (wf_data_list)i));
    if (t->encoder == NULL)
        WF_TRY(wf_encoder_create(&t->encoder, t->model, t->pool, t->o.width, t->o.height,
                                 wf_train_stop, t, &t->alloc, err));
    t->counted = false;
    WF_TRY(wf_dataset_cache(t->data, t->encoder, pass_on, t, err));
    t->doing = "preparing";
    t->cached = true;
    t->cache_bytes += wf_dataset_cache_bytes(t->data);
    if (!again) {
        wf_encoder_free(t->encoder);
        t->encoder = NULL;
    }
    return WEFT_OK;
}

enum { WF_TRAIN_COMPONENTS = 16 }; /* more than WEFT_COMPONENT_* has */

/* ---- the dry walk ---------------------------------------------------------------------------- */

/* The first layer of each component that is trained, in the order of execution: no gradient goes
 * back behind it. */
static void find_first(const weft_trainer *t, int32_t first[WF_TRAIN_COMPONENTS])
{
    for (int i = 0; i < WF_TRAIN_COMPONENTS; i++) {
        bool words = t->words.rows > 0 && wf_is_text(i);
        first[i] = words ? -1 : INT32_MAX;
    }
    for (size_t i = 0; i < t->sites; i++) {
        const wf_layer *l = t->site[i].layer;
        first[l->component] = WF_MIN(first[l->component], l->id);
    }
    if (t->text_taped) first[WEFT_COMPONENT_DENOISER] = -1; /* the text's gradient goes on there */
}

/* Is a turned copy of the layer's weight read on the way back? A layer that has none, and is asked
 * all the same, is turned there and then. */
static bool turns(const weft_trainer *t, const wf_layer *l, const int32_t *first)
{
    bool kind = wf_is_text(l->component) || l->component == WEFT_COMPONENT_DENOISER;

    if (!kind || l->kind == WEFT_LAYER_NORM || l->weight == NULL) return false;
    if (t->deltas[l->id].merged != NULL || l->id <= first[l->component]) return false;
    if (wf_is_text(l->component)) return t->text_taped;
    return t->text_taped || !wf_glob_any("*.attn2.to_k,*.attn2.to_v,*time_emb*", l->name);
}

static wf_exec dry_exec(weft_trainer *t, wf_tape *tape)
{
    return (wf_exec){ .k = t->networks->kernels, .products = t->networks->exact, .dry = true,
                      .arena = { .dry = true }, .deltas = t->deltas, .cells = &t->cell, .slots = 1,
                      .tape = tape };
}

static bool count_layer(void *user)
{
    ++*(int64_t *)user;
    return false;
}

typedef struct need {
    size_t arena, scratch;
    size_t turned;
} need;

static void walk(weft_trainer *t, wf_exec *e)
{
    const wf_denoiser *d = t->networks->denoiser;
    wf_denoise_input in = { .grid = wf_image_grid(t->batch.n, t->height, t->width) };

    if (t->text_taped) wf_train_read_text(t, e, NULL, 0, t->batch.n);
    for (int32_t i = 0; i < t->networks->streams; i++) in.text[i] = wf_train_text(t, i);
    (void)wf_take(e, (size_t)t->batch.n, t->image);
    wf_denoise(d, e, NULL, &in);
}

/* What a step takes. t->turned only says which layers will have a copy. */
static weft_status measure(weft_trainer *t, need *n, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(t->model, &(size_t){ 0 });
    int32_t first[WF_TRAIN_COMPONENTS];
    wf_tape tape;
    wf_exec e;

    *n = (need){ 0 };
    find_first(t, first);
    for (size_t i = 0; i < t->layers; i++) {
        t->turned[i] = turns(t, &layers[i], first) ? &t->cell : NULL;
        if (t->turned[i] != NULL && !wf_add(n->turned, (wf_turned_bytes(&layers[i]) + 63) / 64 * 64,
                                            &n->turned))
            return wf_nomem(err, SIZE_MAX, "turned weights");
    }
    wf_tape_init(&tape, &t->alloc);
    tape.segments = (t->o.flags & WEFT_TRAIN_RECOMPUTE) != 0;
    tape.layers = t->layer_grads;
    tape.turned = t->turned;
    e = dry_exec(t, &tape);
    t->evaluation_layers = 0;
    e.stop = count_layer;
    e.stop_user = &t->evaluation_layers;
    wf_tape_begin(&e);
    walk(t, &e);
    n->arena = wf_tape_bytes(&e);
    n->scratch = e.scratch_need;
    t->evaluation_layers *= 2;
    bool unsupported = tape.unsupported, overflow = e.arena.overflow;
    wf_tape_free(&tape);
    if (unsupported)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "train: the model has an operation that no gradient goes back through");
    e = dry_exec(t, NULL); /* captions that are kept are encoded without a tape */
    wf_train_read_text(t, &e, NULL, 0, 1);
    n->arena = WF_MAX(n->arena, e.arena.peak);
    n->scratch = WF_MAX(n->scratch, e.scratch_need);
    return overflow || e.arena.overflow ? wf_nomem(err, SIZE_MAX, "a step") : WEFT_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void wf_train_let_go(weft_trainer *t)
{
    wf_free(&t->alloc, t->exec.arena.base);
    wf_free(&t->alloc, t->tape.grads);
    wf_free(&t->alloc, t->turned_block);
    for (int32_t i = 0; t->exec.scratch != NULL && i < t->o.threads; i++)
        wf_free(&t->alloc, t->exec.scratch[i]);
    wf_free(&t->alloc, t->exec.scratch);
    wf_tape_free(&t->tape);
    t->exec = (wf_exec){ .dry = false };
    t->turned_block = NULL;
}

static bool take_blocks(weft_trainer *t, const need *n)
{
    const weft_allocator *a = &t->alloc;

    t->exec.arena.base = wf_alloc(a, n->arena);
    t->exec.arena.size = n->arena;
    t->tape.grads = wf_zalloc(a, n->arena, 1);
    t->turned_block = wf_alloc(a, n->turned);
    t->exec.scratch = wf_zalloc(a, (size_t)t->o.threads, sizeof *t->exec.scratch);
    if (t->exec.arena.base == NULL || t->tape.grads == NULL || t->turned_block == NULL ||
        t->exec.scratch == NULL)
        return false;
    for (int32_t i = 0; i < t->o.threads; i++)
        if ((t->exec.scratch[i] = wf_alloc(a, n->scratch)) == NULL) return false;
    return true;
}

static weft_status take_memory(weft_trainer *t, const need *n, weft_error *err)
{
    size_t all, threads;

    if (!wf_mul(n->arena, 2, &all) || !wf_add(all, n->turned, &all) ||
        !wf_mul(n->scratch, (size_t)t->o.threads, &threads) || !wf_add(all, threads, &all))
        return wf_nomem(err, SIZE_MAX, "a step of this training");
    wf_tape_init(&t->tape, &t->alloc);
    if (!take_blocks(t, n)) {
        wf_train_let_go(t);
        return wf_nomem(err, all, "a step of this training");
    }
    t->step_bytes = 2 * (uint64_t)n->arena + threads;
    t->weight_bytes = n->turned;
    t->tape.segments = (t->o.flags & WEFT_TRAIN_RECOMPUTE) != 0;
    t->tape.layers = t->layer_grads;
    t->tape.turned = t->turned;
    t->exec.k = t->networks->kernels;
    t->exec.products = t->networks->exact;
    t->exec.pool = t->pool;
    t->exec.scratch_need = n->scratch;
    t->exec.deltas = t->deltas;
    t->exec.cells = &t->cell;
    t->exec.slots = 1;
    t->exec.stop = wf_train_stop;
    t->exec.stop_user = t;
    t->exec.tape = &t->tape;
    return WEFT_OK;
}

static void turn_weights(weft_trainer *t)
{
    const wf_layer *layers = wf_model_layers(t->model, &(size_t){ 0 });
    uint8_t *at = t->turned_block;

    for (size_t i = 0; i < t->layers; i++) {
        if (t->turned[i] == NULL) continue;
        t->turned[i] = at;
        wf_turn_weight(at, &layers[i], t->pool);
        at += (wf_turned_bytes(&layers[i]) + 63) / 64 * 64;
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static weft_status prepare(weft_trainer *t, weft_error *err)
{
    need n;

    WF_TRY(cache(t, err));
    if (t->place == NULL) WF_TRY(wf_train_take_batch(t, err));
    WF_TRY(measure(t, &n, err));
    WF_TRY(take_memory(t, &n, err));
    turn_weights(t);
    WF_TRY(wf_train_check_captions(t, err));
    return wf_train_halted(t, err);
}

weft_status wf_train_prepare(weft_trainer *t, weft_error *err)
{
    if (t->prepared) return WEFT_OK;
    WF_TRY(need_pictures(t, err));
    wf_train_begin_call(t, "preparing", 0);
    weft_status st = prepare(t, err);
    st = wf_train_end_call(t, st, err);
    if (st != WEFT_OK) wf_train_let_go(t);
    t->prepared = st == WEFT_OK;
    return st;
}
