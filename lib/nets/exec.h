/* exec.h - what a network computes with: kernels, threads, memory, and what adapters add to each layer.
 *
 * Activations are channels-last: row = pixel or token, column = channel, samples one after another. A dry
 * exec has an arena without memory: every operation then only takes its memory, counts its arithmetic and
 * returns, so that running a network once tells what it needs.
 *
 * Every operation splits its work by shapes alone, and computes each sample by itself: neither the number
 * of threads nor the batch changes a bit of a result. */
#ifndef WF_EXEC_H
#define WF_EXEC_H

#include "nets/layer.h"
#include "tensor/kernels.h"

/* What adapters add to one layer: stack and cells, or a merged weight, or nothing. */
typedef struct wf_delta {
    const wf_stack *stack;   /* NULL: nothing                                                          */
    size_t          slot;    /* coefficient of part p in branch b: cells[b * slots + slot + p]         */
    const float    *merged;  /* (out, K) float32, K ordered (ky, kx, in); used in place of the weight  */
    const float    *merged_bias; /* (out), in place of the bias; NULL: the layer's own                 */
} wf_delta;

typedef struct wf_exec {
    const wf_kernels *k;
    wf_pool          *pool;
    wf_arena          arena;
    uint8_t         **scratch;       /* one block for each worker                                       */
    size_t            scratch_need;  /* bytes of a block; a dry run sets it to the most asked for       */
    bool              dry;
    double            flops;         /* counted in a dry run                                            */
    double            side_flops;

    const wf_delta   *deltas;        /* [layers], or NULL                                               */
    const float      *cells;         /* the call's coefficients, [branch][slot]                         */
    size_t            slots;
    const int32_t    *branch;        /* [samples] branch of each sample, or NULL: all 0                 */

    /* Asked at every layer: true stops the network, which then returns at once with garbage. */
    bool            (*stop)(void *user);
    void             *stop_user;
    bool              stopped;
} wf_exec;

/* A batch of pictures or token rows: n samples of h x w rows. */
typedef struct wf_grid { int32_t n, h, w; } wf_grid;

static inline size_t wf_rows(wf_grid g) { return (size_t)g.n * (size_t)g.h * (size_t)g.w; }

/* Grid of a layer's output. */
wf_grid wf_layer_grid(const wf_layer *l, wf_grid g);

/* y = layer(x), or y += layer(x) where `add`. x (rows of g, in), y (rows of the output grid, out). */
void wf_layer_apply(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g, bool add);
/* dst (out, K) = the layer's weight widened, K ordered (ky, kx, in): what a merged copy begins with. */
void wf_layer_load(float *dst, const wf_kernels *k, const wf_layer *l);
/* The coefficient of part p of a layer in a branch. */
float wf_delta_cell(const wf_exec *e, const wf_delta *d, size_t branch, int32_t p);

/* Floats from the arena; NULL in a dry run, and where the arena is too small: then `stopped` is set. */
float *wf_take(wf_exec *e, size_t rows, size_t columns);
/* Say what an operation needs of each worker's block: a dry run notes it, a real one stops where it was not noted. */
void wf_need_scratch(wf_exec *e, size_t bytes);

/* ---- ops.c --------------------------------------------------------------------------------------- */

typedef struct wf_norm {
    const float *weight; /* (channels) */
    const float *bias;
    int32_t      channels;
    int32_t      groups; /* GroupNorm; 0: LayerNorm */
    float        eps;
    const wf_layer *layer; /* its row in the layer table, or NULL: no adapter can name it */
} wf_norm;

/* Activation functions by their names in config files. */
typedef int32_t wf_act;
enum { WF_ACT_NONE, WF_ACT_SILU, WF_ACT_GELU, WF_ACT_QUICK_GELU, WF_ACT_RELU };
bool wf_act_from_name(const char *name, wf_act *out);

void wf_group_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g, wf_act act);
void wf_layer_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g);
void wf_activate(wf_exec *e, wf_act act, float *y, const float *x, size_t rows, size_t columns);
/* y (rows, c) = value * gelu(gate) with x (rows, 2 c) = [value, gate] */
void wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c);
/* x[s, row, :] += v[s, :] */
void wf_add_per_sample(wf_exec *e, float *x, const float *v, wf_grid g, size_t c);
/* y (rows, a + b) = [p, q] along channels */
void wf_concat(wf_exec *e, float *y, const float *p, size_t a, const float *q, size_t b, size_t rows);
/* y (n, h2, w2, c) = nearest neighbour of x (n, h, w, c) */
void wf_upsample(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, size_t c);
void wf_copy(wf_exec *e, float *y, const float *x, size_t n);
/* (n, c, h, w) <-> (n, h w, c) */
void wf_to_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c);
void wf_from_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c);
/* Sinusoids of C.1: y (count, dim) for values t[count] */
void wf_sinusoid(wf_exec *e, float *y, const float *t, size_t count, int32_t dim, bool flip, double shift);

/* ---- attention.c --------------------------------------------------------------------------------- */

/* o = softmax(q k^T / sqrt(d)) v for n samples and `heads` heads of width d; q, o (n lq, heads d),
 * k, v (n lk, heads d). causal: row i sees keys 0..i. Never holds more than a tile of scores. */
void wf_attend(wf_exec *e, float *o, const float *q, const float *k, const float *v, int32_t n, int32_t heads,
               int32_t d, int32_t lq, int32_t lk, bool causal);

/* ---- binder.c: where a network gets its layers from ------------------------------------------------ */

/* Walks one component's weight file as the network is built from its configuration: every tensor asked for
 * must be there with the right shape, and at the end every tensor of the file must have been asked for. */
typedef struct wf_binder {
    const weft_allocator *alloc;
    const weft_tensors   *file;
    const char           *path;       /* for messages                                                    */
    const char           *component;  /* "unet"                                                          */
    int32_t               component_id;
    wf_layer             *layers;     /* the model's table, with room for layer_cap                      */
    size_t               *layer_count;
    size_t                layer_cap;
    uint8_t              *used;       /* [tensors of the file]                                           */
    void                **kept;       /* widened norms and biases, freed with the model                  */
    size_t               *kept_count;
    size_t                kept_cap;
    int64_t               parameters;
    /* Another name under which old files keep a tensor: writes it and returns true. May be NULL. */
    bool                (*old_name)(const char *name, char *buf, size_t cap);
} wf_binder;

weft_status wf_bind_linear(wf_binder *b, const wf_layer **out, const char *prefix, const char *name, int32_t outs,
                           int32_t ins, bool bias, weft_error *err);
weft_status wf_bind_conv(wf_binder *b, const wf_layer **out, const char *prefix, const char *name, int32_t outs,
                         int32_t ins, int32_t kernel, int32_t stride, weft_error *err);
weft_status wf_bind_norm(wf_binder *b, wf_norm *out, const char *prefix, const char *name, int32_t channels,
                         int32_t groups, float eps, weft_error *err);
/* A table of rows (embedding) widened on use: the tensor itself. */
weft_status wf_bind_table(wf_binder *b, const wf_tensor **out, const char *prefix, const char *name, int32_t rows,
                          int32_t columns, weft_error *err);
/* The last row of the table, to be amended (attention flag, asymmetric padding). */
wf_layer   *wf_bind_last(wf_binder *b);
/* Every tensor of the file was asked for, or is a known buffer. */
weft_status wf_bind_finish(wf_binder *b, weft_error *err);

#endif
