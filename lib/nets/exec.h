/* exec.h - what a network computes with: kernels, products, threads, memory, and what adapters add.
 *
 * Activations are channels-last: row = pixel or token, column = channel, samples one after another.
 * A dry exec has an arena without memory: every operation then only takes its memory, counts its
 * arithmetic and returns, so that running a network once tells what it needs.
 *
 * Every operation splits its work only by shapes, and computes each sample by itself: neither the
 * number of threads nor the batch changes a bit of a result (product.h says what holds between
 * tiers). There is one exception, asked for by name: under wf_align samples see their reference,
 * and depend on it, but still on no other and on no number of threads.
 *
 * No operation writes over an input that a backward pass needs: y and x are distinct buffers,
 * except where a comment says that they may be one (docs/tape.md). */
#ifndef WF_EXEC_H
#define WF_EXEC_H

#include "io/io.h"
#include "nets/derived.h"
#include "nets/layer.h"
#include "tensor/kernels.h"
#include "tensor/product.h"

/* What adapters add to one layer: stack and cells, or a merged weight, or nothing. */
typedef struct wf_delta {
    const wf_stack *stack;   /* NULL: nothing                                                     */
    size_t          slot;    /* coefficient of part p in branch b: cells[b * slots + slot + p]    */
    const float    *merged;  /* (out, K) float32, K ordered (ky, kx, in); in place of the weight  */
    const float    *merged_bias; /* (out), in place of the bias; NULL: the layer's own            */
    size_t          patch;   /* with lines: cells[lines[b * patches + patch] + p]                 */
    const wf_cell  *copied;  /* [copied_parts] what the merged copy was made with                 */
    int32_t         copied_parts;
} wf_delta;

/* What the rows of a sample are. */
typedef int32_t wf_domain;
enum {
    WF_DOMAIN_IMAGE, /* h x w pixels of an image or of latents, row by row */
    WF_DOMAIN_TEXT,  /* h tokens of a prompt                               */
    WF_DOMAIN_VECTOR /* one row for the whole sample: an embedding         */
};

/* A batch: n samples of h x w rows. */
typedef struct wf_grid {
    int32_t   n, h, w;
    wf_domain domain;
} wf_grid;

static inline size_t wf_rows(wf_grid g) { return (size_t)g.n * (size_t)g.h * (size_t)g.w; }

static inline wf_grid wf_image_grid(int32_t n, int32_t h, int32_t w)
{
    return (wf_grid){ n, h, w, WF_DOMAIN_IMAGE };
}

static inline wf_grid wf_text_grid(int32_t n, int32_t tokens)
{
    return (wf_grid){ n, tokens, 1, WF_DOMAIN_TEXT };
}

static inline wf_grid wf_vector_grid(int32_t n) { return (wf_grid){ n, 1, 1, WF_DOMAIN_VECTOR }; }

enum {
    WF_SIZES_MAX = 32,
    WF_REGIONS_MAX = 64 /* parts of an image with texts of their own */
};

/* A mask over an image, once for each size that the network has it in. */
typedef struct wf_mask_level {
    int32_t      h, w;
    const float *rows; /* (h w) */
} wf_mask_level;

/* Which level counts is decided by the rows that a layer gives. Text tokens and vectors have no
 * place in the image, so all of them take one number: `elsewhere`. */
typedef struct wf_mask {
    const wf_mask_level *level;
    int32_t              levels;
    float                elsewhere;
} wf_mask;

/* The level of a size, or NULL. */
const float *wf_mask_rows(const wf_mask *m, int32_t h, int32_t w);

/* Keys and values of the cross-attentions, which depend only on the text and on the layers' weights,
 * kept from one evaluation to the next. An evaluation asks for them in an order that is always the
 * same. The owner (run/kept.c) says whether what is there is of this evaluation's text. */
typedef struct wf_kept {
    float *floats; /* NULL in a dry walk, which only counts */
    size_t size;   /* floats                                */
    size_t used;   /* by this evaluation so far             */
    bool   valid;  /* read them; else write them            */
} wf_kept;

/* What each sample has deep in a denoiser, before the last level of the way up: written by a whole
 * evaluation, and read by one that computes the outermost level only. */
typedef struct wf_deep {
    float         *floats; /* [slots] `each`                        */
    size_t         each;   /* (h, w, wf_denoiser_facts.deep)        */
    const int32_t *slot;   /* [samples of the evaluation]           */
    bool           read;
} wf_deep;

/* What is noted at one transformer block: where in the image some tokens of the text are seen
 * (locate.c). Sample s of an evaluation has place slot[s] - from, if that is one of `samples`. */
typedef struct wf_locate {
    const wf_layer *self, *cross; /* the block's query layers                                    */
    int32_t        count;         /* subjects                                                    */
    const int32_t *token;         /* rows of the text: of subject i token[first[i]] and on       */
    const int32_t *first;         /* [count + 1]                                                 */
    const int32_t *slot;          /* [samples of the evaluation]                                 */
    int32_t        from, samples;
    float         *seen;          /* [samples][count][h w]                                       */
    float         *inner;         /* [samples][h w][channels]                                    */
    int32_t        h, w;          /* of the image at the block: a dry run sets them              */
    bool           begun, whole;  /* something is noted, and all of it; who runs the network says
                                     whether that counts                                         */
} wf_locate;

/* StyleAligned: samples come in groups of `group`, and each takes on the style of its group's
 * first, the reference, which is computed as it is alone. Who sets it says how samples lie in an
 * evaluation (run/step.c). */
typedef struct wf_align {
    int32_t group;
    bool    norm;                  /* GroupNorms take the statistics of both                      */
    bool    attention;             /* the reference's keys and values are seen besides            */
    bool    queries, keys, values; /* that take on the reference's mean and deviation             */
    bool    full;                  /* all of a group see all of it; nothing else but norm         */
    float   scale, shift;          /* of the scores on the reference's keys                       */
    double  own;                   /* share of the self-attentions that see their own sample only */
} wf_align;

/* Sizes in which a network has the image. */
typedef struct wf_sizes {
    int32_t count;
    struct { int32_t h, w; } at[WF_SIZES_MAX];
} wf_sizes;

/* Finds where numbers stop being finite. What is found ends the network, as `stop` does. */
typedef struct wf_watch {
    bool            layers; /* look at what every layer reads and gives, else only at results      */
    bool            found;
    const wf_layer *layer;  /* where `layers` found it; NULL: in no layer                          */
    bool            before; /* the layer reads it already                                          */
} wf_watch;

/* Takes down what acted at each layer of a call. A layer that is computed several times, for
 * several texts, keeps of each coefficient the largest. */
typedef struct wf_notes {
    size_t   layers; /* of the model                                                      */
    size_t   slots;  /* of the exec                                                       */
    uint8_t *ways;   /* [branch][layer] WF_NOTE_BASE .. KEPT; 0: it was not computed      */
    uint8_t *kinds;  /* [branch][slot] WF_NOTE_VECTOR, MASK                               */
    float   *cells;  /* [branch][slot] coefficients                                       */
} wf_notes;
enum {
    WF_NOTE_BASE = 1, WF_NOTE_SIDE = 2, WF_NOTE_MERGED = 4, WF_NOTE_KEPT = 8,
    WF_NOTE_VECTOR = 1, WF_NOTE_MASK = 2
};

typedef struct wf_exec wf_exec;
struct wf_tape;

/* Sees what linear layers and convolutions read: asked after each of them, on the thread that
 * drives the network, with the product that it was. It may use the pool. */
typedef struct wf_tap {
    void (*see)(void *user, wf_exec *e, const wf_layer *l, const wf_product *p, wf_grid out);
    void  *user;
} wf_tap;

struct wf_exec {
    const wf_kernels  *k;
    const wf_products *products;
    wf_pool           *pool;
    wf_arena           arena;
    uint8_t          **scratch;      /* one block for each worker                                 */
    size_t             scratch_need; /* bytes of a block; a dry run sets it to the most asked for */
    bool               dry;
    double             flops;        /* counted in a dry run                                      */
    double             side_flops;
    double             weight_bytes; /* of weights and factors that are read                      */
    double             moved_bytes;  /* of activations: layers, norms and attention               */
    bool               exact;        /* dry: count only the parts that have a coefficient         */
    wf_sizes          *sizes;        /* a dry run notes each size of the image here; or NULL      */

    const wf_delta    *deltas;       /* [layers], or NULL                                         */
    const wf_cell     *cells;        /* the call's coefficients, [branch][slot]                   */
    size_t             slots;
    const size_t      *lines;        /* where its cells begin, [branch][patch]; NULL: by slots    */
    size_t             patches;
    const float *const *vectors;     /* that cells name, each over its layer's columns            */
    const wf_mask     *masks;        /* that cells name                                           */
    wf_kept           *kept;         /* NULL: text keys and values are computed in every call     */
    const wf_deep     *deep;         /* NULL: deep features are neither kept nor reused           */
    wf_locate         *locate;       /* NULL: nothing is noted                                    */
    const wf_align    *align;        /* NULL: each sample by itself                               */
    const int32_t     *branch;       /* [samples] branch of each sample, or NULL: all 0           */
    wf_notes          *notes;        /* NULL: nobody takes down what acts                         */

    /* Asked at every layer: returning true ends the network, and its output is undefined. */
    bool             (*stop)(void *user);
    void              *stop_user;
    bool               stopped;
    wf_watch          *watch;        /* NULL: nobody looks                                        */
    const wf_tap      *tap;          /* NULL: nobody records                                      */
    struct wf_tape    *tape;         /* NULL: no gradients are asked for (tape.h)                 */
};

/* Grid of a layer's output. */
wf_grid wf_layer_grid(const wf_layer *l, wf_grid g);

/* y = layer(x), or y += layer(x) where `add`. x (rows of g, in), y (rows of the output grid,
 * out). */
void wf_layer_apply(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g, bool add);
/* y = layer(x), and `more` (n, out) added to the rows of each sample, as a bias is. */
void wf_layer_apply_to_each(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g,
                            const float *more);
/* y (rows of g, out / 2) = value * gelu(gate) with [value, gate] = layer(x), a linear one. */
void wf_layer_apply_gated(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g);
/* dst (out, K) = the layer's weight widened, K ordered (ky, kx, in). */
void wf_layer_load(float *dst, const wf_kernels *k, const wf_layer *l);
/* dst (count, K) = rows [first, first + count) of the same. */
void wf_layer_load_rows(float *dst, const wf_kernels *k, const wf_layer *l, size_t first,
                        size_t count);

/* ---- cells.c --------------------------------------------------------------------------------- */

/* The cell of a part of a layer, for one sample. */
const wf_cell *wf_cell_of(const wf_exec *e, const wf_delta *d, size_t sample, int32_t part);
/* A cell's number, as it is where the rows have no place in the image. */
float          wf_cell_number(const wf_exec *e, const wf_cell *cell, wf_grid g);
/* A cell as one sample and one grid of output rows have it. */
typedef struct wf_coefficient {
    float        number;  /* 0: the part is not there                      */
    const float *columns; /* over the layer's columns, or NULL: all 1      */
    const float *rows;    /* over the sample's output rows, or NULL: all 1 */
} wf_coefficient;
wf_coefficient wf_coefficient_of(const wf_exec *e, const wf_delta *d, size_t sample, int32_t part,
                                 wf_grid g);
/* Has every mask that a part of this layer takes a level for the grid? If not, the network
 * stops. */
bool wf_masks_fit(wf_exec *e, const wf_delta *d, wf_grid g);
/* Does a part have a mask over this grid's rows, in any sample? */
bool wf_part_masked(const wf_exec *e, const wf_delta *d, int32_t part, wf_grid g);

/* Floats from the arena; NULL in a dry run, and when the arena is too small: then `stopped` is
 * set. */
float *wf_take(wf_exec *e, size_t rows, size_t columns);
/* Floats from e->kept; NULL in a dry run, and if it is too small: then `stopped` is set. */
float *wf_take_kept(wf_exec *e, size_t rows, size_t columns);
/* Is a network's result, n floats, finite, or does nobody look? */
bool wf_watch_result(wf_exec *e, const float *y, size_t n);
/* Look at what a layer read and gave. */
void wf_watch_layer(wf_exec *e, const wf_layer *l, const float *x, size_t nx, const float *y,
                    size_t ny);
/* Pass over a layer whose result is there already: it counts for progress and can be stopped at. */
void wf_layer_skip(wf_exec *e);
/* The same for one whose result was kept, over the grid g. */
void wf_layer_kept(wf_exec *e, const wf_layer *l, wf_grid g);
/* A layer has been computed over an output grid: take down what acted. A norm that no adapter can
 * name is NULL. */
void wf_note_layer(wf_exec *e, const wf_layer *l, wf_grid out);
/* Say what an operation needs of each worker's block: a dry run notes it, and a real one stops if
 * it was not noted. */
void wf_need_scratch(wf_exec *e, size_t bytes);

/* ---- norm.c, ops.c --------------------------------------------------------------------------- */

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
enum {
    WF_ACT_NONE,
    WF_ACT_SILU,
    WF_ACT_GELU,
    WF_ACT_QUICK_GELU,
    WF_ACT_RELU,
    WF_ACT_MISH
};
bool wf_act_from_name(const char *name, wf_act *out);
/* y = act(x) for n floats, on the calling thread; y may be x. */
void wf_activate_floats(const wf_kernels *k, wf_act act, float *y, const float *x, size_t n);
/* y = the slope of act at x; y may be x. */
void wf_slope_floats(const wf_kernels *k, wf_act act, float *y, const float *x, size_t n);
/* g *= the slope of act at x. */
void wf_act_back_floats(const wf_kernels *k, wf_act act, float *g, const float *x, size_t n);

/* A norm's weight is a diagonal, so a cell's vector runs over its channels. Under a mask the
 * statistics are those of all rows, and each row then has its own weight and bias:
 * w + sum c mask[row] v d, b + sum c mask[row] db. A merged copy stands in place of the weight,
 * and its bias of the bias. Under a tape they keep their x. */
void wf_group_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g,
                   wf_act act);
void wf_layer_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g);
/* Each channel of x (rows of g, c) takes on the mean and deviation that it has in the sample's
 * reference, over the rows: in place, and the references stay as they are. */
void wf_adapt_to_reference(wf_exec *e, float *x, wf_grid g, size_t c);
/* y may be x */
void wf_activate(wf_exec *e, wf_act act, float *y, const float *x, size_t rows, size_t columns);
/* y (rows, c) = value * gelu(gate) with x (rows, 2 c) = [value, gate] */
void wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c);
/* y (rows, a + b) = [p, q] along channels */
void wf_concat(wf_exec *e, float *y, const float *p, size_t a, const float *q, size_t b,
               size_t rows);
/* y (n, h2, w2, c) = nearest neighbour of x (n, h, w, c) */
void wf_upsample(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, size_t c);
/* y (rows of g, c) *= weight, or += weight x where x is given; a weight for each pixel, the same in
 * all samples. Rows of weight 0 are not read. */
void wf_weigh_rows(wf_exec *e, float *y, const float *x, const float *weight, wf_grid g, size_t c);
void wf_copy(wf_exec *e, float *y, const float *x, size_t n);
/* The same, and a tape takes no notice of it. */
void wf_copy_floats(wf_exec *e, float *y, const float *x, size_t n);
/* x = a x + b */
void wf_rescale(wf_exec *e, float *x, float a, float b, size_t n);
/* (n, c, h, w) <-> (n, h w, c) */
void wf_to_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c);
void wf_from_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c);
/* Sinusoids of C.1: y (count, dim) for values t[count] */
void wf_sinusoid(wf_exec *e, float *y, const float *t, size_t count, int32_t dim, bool flip,
                 double shift);

/* ---- attention.c ----------------------------------------------------------------------------- */

/* o = attention (tensor/product.h). Never holds more than a tile of scores. */
void wf_attend(wf_exec *e, float *o, const wf_attention *a);

/* ---- locate.c -------------------------------------------------------------------------------- */

/* Is the attention with this query layer noted, and not in a dry run, which notes its size? */
bool wf_locates(const wf_exec *e, const wf_layer *q, wf_grid g);
/* The stream before self-attention was added, sign -1, and after, sign 1. x (rows of g, channels) */
void wf_locate_inner(const wf_exec *e, const float *x, float sign, wf_grid g);
/* What cross-attention sees of the subjects. q (rows of g, channels), k (g.n keys, channels) */
void wf_locate_seen(const wf_exec *e, const float *q, const float *k, int32_t heads, wf_grid g,
                    int32_t keys);

/* ---- binder.c: where a network gets its layers from ------------------------------------------ */

/* Walks one component's weight file as the network is built from its configuration: every tensor
 * asked for must be there with the right shape, and at the end every tensor of the file must have
 * been asked for. */
typedef struct wf_binder {
    const weft_allocator *alloc;
    const weft_tensors   *file;
    const char           *path;       /* for messages                                             */
    const char           *component;  /* "unet"                                                   */
    int32_t               component_id;
    wf_layer             *layers;     /* the model's table, with room for layer_cap               */
    size_t               *layer_count;
    size_t                layer_cap;
    uint8_t              *used;       /* [tensors of the file]                                    */
    wf_derived           *derived;    /* the model's: widened norms and biases                    */
    wf_bag               *names;      /* the model's: the layers' names                           */
    int64_t               parameters;
    /* Another name under which old files keep a tensor: writes it and returns true. May be NULL. */
    bool                (*old_name)(const char *name, char *buf, size_t cap);
} wf_binder;

weft_status wf_bind_linear(wf_binder *b, const wf_layer **out, const char *prefix, const char *name,
                           int32_t outs, int32_t ins, bool bias, weft_error *err);
weft_status wf_bind_conv(wf_binder *b, const wf_layer **out, const char *prefix, const char *name,
                         int32_t outs, int32_t ins, int32_t kernel, int32_t stride,
                         weft_error *err);
weft_status wf_bind_norm(wf_binder *b, wf_norm *out, const char *prefix, const char *name,
                         int32_t channels, int32_t groups, float eps, weft_error *err);
/* A table of rows (embedding) widened on use: the tensor itself. */
weft_status wf_bind_table(wf_binder *b, const wf_tensor **out, const char *prefix, const char *name,
                          int32_t rows, int32_t columns, weft_error *err);
/* A convolution whose windows lie side by side and cover the image: a linear layer over windows of
 * (ins, size, size) numbers in that order, without a bias. */
weft_status wf_bind_windows(wf_binder *b, const wf_layer **out, const char *prefix,
                            const char *name, int32_t outs, int32_t ins, int32_t size,
                            weft_error *err);
/* A small tensor with this whole name, widened and kept with the owner of `derived`. */
weft_status wf_bind_values(wf_binder *b, const float **out, const char *name, const int64_t *shape,
                           int32_t rank, weft_error *err);
/* The last row of the table, to be amended (attention flag, asymmetric padding). */
wf_layer   *wf_bind_last(wf_binder *b);
/* Every tensor of the file was asked for, or is a known buffer. */
weft_status wf_bind_finish(wf_binder *b, weft_error *err);

#endif
