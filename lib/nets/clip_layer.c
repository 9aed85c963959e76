/* clip_layer.c - a pre-norm transformer layer:
 *
 *     x += out(attend(q, k, v)) of norm1(x);   x += fc2(act(fc1(norm2(x)))) */
#include "nets/clip_layer.h"
#include "nets/tape.h"

weft_status wf_clip_layer_bind(wf_binder *b, wf_clip_layer *l, const wf_clip_shape *s,
                               const char *base, int32_t index, weft_error *err)
{
    int32_t d = s->hidden;
    char p[96];

    wf_format(p, sizeof p, "%s.encoder.layers.%d", base, index);
    WF_TRY(wf_bind_norm(b, &l->norm1, p, "layer_norm1", d, 0, s->eps, err));
    WF_TRY(wf_bind_linear(b, &l->q, p, "self_attn.q_proj", d, d, true, err));
    WF_TRY(wf_bind_linear(b, &l->k, p, "self_attn.k_proj", d, d, true, err));
    WF_TRY(wf_bind_linear(b, &l->v, p, "self_attn.v_proj", d, d, true, err));
    WF_TRY(wf_bind_linear(b, &l->out, p, "self_attn.out_proj", d, d, true, err));
    WF_TRY(wf_bind_norm(b, &l->norm2, p, "layer_norm2", d, 0, s->eps, err));
    WF_TRY(wf_bind_linear(b, &l->fc1, p, "mlp.fc1", s->intermediate, d, true, err));
    return wf_bind_linear(b, &l->fc2, p, "mlp.fc2", d, s->intermediate, true, err);
}

typedef struct layer_args {
    const wf_clip_layer *l;
    const wf_clip_shape *s;
    float               *x;
    wf_grid              g;
} layer_args;

static void run_layer(wf_exec *e, const void *args)
{
    const layer_args *a = args;
    const wf_clip_layer *l = a->l;
    const wf_clip_shape *s = a->s;
    wf_grid g = a->g;
    float *x = a->x;
    size_t rows = wf_rows(g), d = (size_t)s->hidden, mark = wf_arena_mark(&e->arena);
    int32_t length = g.h * g.w;
    float *t = wf_take(e, rows, d);
    float *q = wf_take(e, rows, d);
    float *k = wf_take(e, rows, d);
    float *v = wf_take(e, rows, d);
    float *o = wf_take(e, rows, d);

    wf_layer_norm(e, &l->norm1, t, x, g);
    wf_layer_apply(e, l->q, q, t, g, false);
    wf_layer_apply(e, l->k, k, t, g, false);
    wf_layer_apply(e, l->v, v, t, g, false);
    wf_attend(e, o, &(wf_attention){ .n = g.n, .heads = s->heads, .d = s->hidden / s->heads,
                                     .lq = length, .q = q, .keys = &(wf_keys){ k, v, length },
                                     .segments = 1, .causal = s->causal });
    wf_layer_apply(e, l->out, x, o, g, true);
    wf_arena_release(&e->arena, mark);

    float *n = wf_take(e, rows, d);
    float *wide = wf_take(e, rows, (size_t)s->intermediate);
    float *acted = wf_take(e, rows, (size_t)s->intermediate);
    wf_layer_norm(e, &l->norm2, n, x, g);
    wf_layer_apply(e, l->fc1, wide, n, g, false);
    wf_activate(e, s->act, acted, wide, rows, (size_t)s->intermediate);
    wf_layer_apply(e, l->fc2, x, acted, g, true);
    wf_arena_release(&e->arena, mark);
}

void wf_clip_layer_run(wf_exec *e, const wf_clip_layer *l, const wf_clip_shape *s, float *x,
                       wf_grid g)
{
    layer_args args = { l, s, x, g };
    wf_segment_input in = { x, wf_rows(g) * (size_t)s->hidden };
    wf_segment(e, run_layer, &args, sizeof args, x, &in, 1);
}
