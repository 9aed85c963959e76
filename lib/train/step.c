/* step.c - one step: evaluations with their gradients, then the optimiser.
 *
 * Gradients of all evaluations of a step are added up, and divided by their number before the norm
 * is taken. What forms make is made once at the beginning, since nothing changes until the end; and
 * for the same reason a step that fails or is cancelled leaves everything as it was. */
#include <math.h>

#include "base/structs.h"
#include "train/trainer_internal.h"

/* ---- a call ---------------------------------------------------------------------------------- */

bool wf_train_stop(void *trainer)
{
    weft_trainer *t = trainer;

    if (t->o.progress == NULL) return false;
    if (t->counted) t->done = WF_MIN(t->done + 1, t->total);
    if (t->o.progress(t->o.progress_user, t->doing, t->done, t->total) != 0) t->cancelled = true;
    return t->cancelled;
}

void wf_train_begin_call(weft_trainer *t, const char *doing, int64_t total)
{
    t->doing = doing;
    t->done = 0;
    t->total = total;
    t->cancelled = false;
    t->counted = true;
    t->exec.stopped = false;
    t->exec.arena.used = 0;
    wf_blas_begin();
}

weft_status wf_train_halted(weft_trainer *t, weft_error *err)
{
    if (t->exec.arena.overflow)
        return wf_fail(err, WEFT_E_INTERNAL, "%s needed more memory than was counted", t->doing);
    if (!t->exec.stopped) return WEFT_OK;
    if (t->tape.unsupported)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "train: the model has an operation that no gradient goes back through");
    if (t->tape.failed) return wf_nomem(err, t->tape.used, "what a step keeps");
    return wf_fail(err, WEFT_E_CANCELLED, "%s was cancelled", t->doing);
}

weft_status wf_train_end_call(weft_trainer *t, weft_status st, weft_error *err)
{
    wf_blas_end();
    if (st == WEFT_OK) st = wf_train_halted(t, err);
    if (st != WEFT_OK && t->tape.grads != NULL)
        memset(t->tape.grads, 0, t->exec.arena.size);
    t->tape.mode = WF_TAPE_OFF;
    t->exec.arena.held = t->exec.arena.overflow = false;
    t->exec.arena.used = 0;
    t->exec.stopped = false;
    return st;
}

/* ---- an evaluation --------------------------------------------------------------------------- */

wf_text_input wf_train_text(const weft_trainer *t, int32_t stream)
{
    const wf_stream *s = &t->networks->stream[stream];
    bool layered = t->words.layers > 1 && s->facts->kind != WEFT_TEXT_POOLED;

    return (wf_text_input){ t->rows[stream], s->tokens, layered ? t->words.layers : 0 };
}

/* Rows of text, then the denoiser, on samples from `first` on. */
static void predict(weft_trainer *t, const wf_batch *b, int32_t first, int32_t count, float *out)
{
    const wf_denoiser *d = t->networks->denoiser;
    wf_denoise_input *in = &t->in;

    *in = (wf_denoise_input){ .grid = wf_image_grid(count, t->height, t->width),
                              .latent = b->latent + (size_t)first * t->image,
                              .timestep = b->timestep + first,
                              .time_ids = b->time_ids +
                                          (size_t)first * (size_t)d->facts.time_ids };
    wf_train_read_text(t, &t->exec, b, first, count);
    for (int32_t i = 0; i < t->networks->streams; i++) in->text[i] = wf_train_text(t, i);
    if (!t->exec.stopped) wf_denoise(d, &t->exec, out, in);
}

weft_status wf_trainer_predict(weft_trainer *t, const wf_delta *deltas, const wf_batch *b,
                               int32_t first, int32_t count, float *out, weft_error *err)
{
    wf_exec *e = &t->exec;
    struct wf_tape *tape = e->tape;
    size_t mark = wf_arena_mark(&e->arena);

    e->tape = NULL;
    e->deltas = deltas;
    predict(t, b, first, count, out);
    e->deltas = t->deltas;
    e->tape = tape;
    wf_arena_release(&e->arena, mark);
    return wf_train_halted(t, err);
}

weft_status wf_trainer_record(weft_trainer *t, const wf_batch *b, const float **out, float **grad,
                              weft_error *err)
{
    wf_exec *e = &t->exec;

    e->arena.used = 0;
    wf_tape_begin(e);
    float *y = wf_take(e, (size_t)b->n, t->image);
    if (!e->stopped) predict(t, b, 0, b->n, y);
    WF_TRY(wf_train_halted(t, err));
    *out = y;
    *grad = wf_grad(e, y);
    if (*grad == NULL)
        return wf_fail(err, WEFT_E_ARG, "train: nothing that is trained acts on the prediction");
    return WEFT_OK;
}

weft_status wf_trainer_back(weft_trainer *t, weft_error *err)
{
    wf_tape_back(&t->exec);
    return wf_train_halted(t, err);
}

weft_status wf_trainer_evaluate(weft_trainer *t, wf_batch *b, wf_losses *l, weft_error *err)
{
    int32_t classes = b->n - b->instances;
    double prior = wf_none(t->o.prior_weight);
    const float *out;
    float *grad;

    WF_TRY(wf_trainer_record(t, b, &out, &grad, err));
    for (int32_t s = 0; s < b->n; s++) {
        bool    own = s < b->instances;
        size_t  at = (size_t)s * t->image;
        double  share = own ? b->weight[s] / b->instances : prior / classes;
        double  square = wf_loss_square(t, b, s, out + at, b->target + at, share, grad + at);
        l->loss += share * square;
        if (!own) l->prior += square / classes;
    }
    return wf_trainer_back(t, err);
}

/* ---- the step -------------------------------------------------------------------------------- */

static weft_status not_finite(const weft_trainer *t, const char *what, weft_error *err)
{
    return wf_fail(err, WEFT_E_NOT_FINITE,
                   "train: %s of step %lld is not finite: the step was not taken", what,
                   (long long)t->step + 1);
}

static weft_status gather(weft_trainer *t, wf_losses *sum, weft_error *err)
{
    int32_t parts = t->o.accumulate;

    memset(t->grads, 0, t->floats * sizeof *t->grads);
    memset(t->g_made, 0, t->made_floats * sizeof *t->g_made);
    wf_train_make(t);
    for (int32_t i = 0; i < parts; i++) {
        wf_losses l = { 0 };
        WF_TRY(wf_train_fill_batch(t, t->step * parts + i, err));
        WF_TRY(wf_train_halted(t, err));
        WF_TRY(t->recipe->evaluate != NULL ? t->recipe->evaluate(t, &t->batch, &l, err)
                                           : wf_trainer_evaluate(t, &t->batch, &l, err));
        if (!isfinite(l.loss)) return not_finite(t, "the loss", err);
        sum->loss += l.loss / parts;
        sum->prior += l.prior / parts;
        sum->other += l.other / parts;
    }
    wf_train_pull(t);
    return WEFT_OK;
}

static weft_status take_step(weft_trainer *t, weft_train_step *done, weft_error *err)
{
    wf_losses sum = { 0 };

    WF_TRY(gather(t, &sum, err));
    double norm = wf_train_norm(t);
    if (!isfinite(norm)) return not_finite(t, "a gradient", err);
    done->rate = (t->sites > 0 ? t->o.rate : wf_none(t->o.token_rate)) *
                 wf_train_rate(&t->o, t->step);
    wf_train_update(t, norm);
    t->step++;
    done->step = t->step;
    done->loss = sum.loss;
    done->prior_loss = sum.prior;
    done->other_loss = sum.other;
    done->gradient_norm = norm;
    return WEFT_OK;
}

weft_status wf_train_own_process(const weft_trainer *t, weft_error *err)
{
    if (wf_pool_own_process(t->pool)) return WEFT_OK;
    return wf_fail(err, WEFT_E_STATE,
                   "this trainer belongs to the process that forked: create one here");
}

weft_status weft_trainer_step(weft_trainer *t, weft_train_step *step, weft_error *err)
{
    weft_train_step done = WEFT_TRAIN_STEP_INIT;

    if (t == NULL || step == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", t == NULL ? "trainer" : "step");
    WF_TRY(WF_RESULT(step, &done, weft_train_step, err)); /* a wrong size is told before the step */
    WF_TRY(wf_train_own_process(t, err));
    WF_TRY(wf_train_prepare(t, err));
    wf_train_begin_call(t, "step", t->o.accumulate * t->evaluation_layers);
    weft_status st = take_step(t, &done, err);
    st = wf_train_end_call(t, st, err);
    return st == WEFT_OK ? WF_RESULT(step, &done, weft_train_step, err) : st;
}
