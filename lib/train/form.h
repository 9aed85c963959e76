/* form.h - what is trained at one layer, and what the network reads of it.
 *
 * A layer of the network knows two ways to be trained: a pair (down, up) beside its weight, or a
 * weight (and bias) in place of its own. The tape gives the gradients of those, nets/tape.h. A form
 * says which tensors stand behind them: LoRA's are the pair itself, DoRA's make a weight out of
 * pair, lengths and the frozen weight. make() goes from tensors to what is read, pull() takes the
 * gradients back. So a form is a few lines about small matrices, in a file of its own, and no
 * network knows it.
 *
 * All trained tensors of a trainer lie in one vector, and their gradients in another (flat float32):
 * optimiser, clipping, means and checkpoints see numbers and no shapes. */
#ifndef WF_TRAIN_FORM_H
#define WF_TRAIN_FORM_H

#include "nets/tape.h"
#include "weft/adapter.h"

enum { WF_FORM_TENSORS = 6 };

/* One trained tensor of a layer, (rows, columns) as it lies in memory. */
typedef struct wf_form_tensor {
    const char *name;    /* for checkpoints: "lora_A" */
    size_t      rows, columns;
    bool        no_decay; /* weight decay does not act on it: biases, norms, lengths              */
} wf_form_tensor;

/* What the options say that forms need. */
typedef struct wf_form_choice {
    int32_t rank, factor;
    float   alpha;       /* 0: the rank                                                            */
    bool    exact_norm;
    bool    both;        /* LOKR: the first factor may be a product too                           */
    bool    gaussian;    /* the pair's A begins as N(0, 1 / rank^2), else uniform as PEFT's       */
} wf_form_choice;

typedef struct wf_form wf_form;

/* A layer that is trained. */
typedef struct wf_site {
    const wf_layer *layer;
    const wf_form  *form;
    int32_t         rank;   /* as it is here: never more than the layer has rows or columns       */
    float           alpha;
    float           scale;  /* alpha / rank, in the pair's part_scale or in the weight            */
    size_t          out, K; /* the weight as a matrix, K = kernel^2 in, ordered (ky, kx, in)      */
    int32_t         shape[8];  /* the form's own: a Kronecker product's factors                   */
    int32_t         tensors;
    wf_form_tensor  tensor[WF_FORM_TENSORS];
    float          *value[WF_FORM_TENSORS]; /* in the trainer's vectors                           */
    float          *grad[WF_FORM_TENSORS];
    const float    *base;   /* (out, K) the frozen weight, widened and ordered; forms that read it */
    const float    *base_bias; /* (out) or NULL                                                   */
    const void     *given;  /* what the recipe tells the form of this layer, or NULL              */
    /* What the network reads, and its gradients. In place: the values themselves. */
    float          *down, *up;        /* (rank, K), (rank, out)                                   */
    float          *weight, *bias;    /* (out, K), (out)                                          */
    float          *g_down, *g_up, *g_weight, *g_bias;
    float          *own;    /* `form->own` floats that make() leaves for pull()                   */
} wf_site;

typedef int32_t wf_form_reads;
enum { WF_READS_PAIR = 1, WF_READS_WEIGHT = 2, WF_READS_BIAS = 4 };

/* One tensor of an adapter file, in the file's layout (out, in, ky, kx); memory of the bag. */
typedef struct wf_form_out {
    const char *ending;  /* after the layer's path: "lora_A.weight"                               */
    float      *data;
    int64_t     shape[4];
    int32_t     rank;
} wf_form_out;

struct wf_form {
    const char   *name;     /* "lora" */
    wf_form_reads reads;
    bool          in_place; /* down, up, weight, bias are value[0], value[1], .. in that order    */
    bool          base;     /* it reads the frozen weight                                         */
    /* Fill rank, alpha, scale, shape and tensor[]. False: the form has no way for this layer. */
    bool   (*shape)(wf_site *s, const wf_form_choice *c);
    size_t (*own)(const wf_site *s); /* floats, or NULL                                           */
    void   (*begin)(const wf_site *s, const wf_form_choice *c, wf_mersenne *g);
    /* Both run on a worker, a site at a time; NULL where in_place. pull() adds to grad[]. */
    void   (*make)(const wf_site *s, const wf_form_choice *c);
    void   (*pull)(const wf_site *s, const wf_form_choice *c);
    /* As the tensors of kohya's (LyCORIS') or of diffusers' (PEFT's) names: count, or 0 if that
     * dialect has no form for it; -1 without memory. */
    int32_t (*write)(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out);
};
enum { WF_FORM_OUTS = 8 };

extern const wf_form wf_form_lora, wf_form_dora, wf_form_loha, wf_form_lokr, wf_form_moslora,
    wf_form_full, wf_form_norm, wf_form_zip;

/* form_write.c: a file's tensors one after another, into the `out` of write(); without memory count
 * is -1, and stays so. `o->count` is what write() gives back. */
typedef struct wf_outs {
    wf_bag      *bag;
    wf_form_out *out;
    int32_t      count;
} wf_outs;
/* (rows, columns), (n), and one number, as they lie. */
void wf_out_matrix(wf_outs *o, const char *ending, const float *v, size_t rows, size_t columns);
void wf_out_vector(wf_outs *o, const char *ending, const float *v, size_t n);
void wf_out_number(wf_outs *o, const char *ending, float v);
/* (rows, taps, in) as (rows, in taps), always of two dimensions. */
void wf_out_flat(wf_outs *o, const char *ending, const float *v, size_t rows, size_t taps,
                 size_t in);
/* (rows, taps, in) as (rows, in), beside a convolution as (rows, in, k, k). */
void wf_out_inner(wf_outs *o, const wf_site *s, const char *ending, const float *v, size_t rows,
                  size_t in);
/* An up factor (rank, out) as (out, rank), beside a convolution as (out, rank, 1, 1). */
void wf_out_outer(wf_outs *o, const wf_site *s, const char *ending, const float *up);
/* A number for each output row: (out, 1) or (out, 1, 1, 1) if `first`, else (out) or
 * (1, out, 1, 1). */
void wf_out_rows(wf_outs *o, const wf_site *s, const char *ending, const float *v, bool first);
/* form_pair.c: forms with a pair in value[0] (r, K) and value[1] (r, out), the up factor transposed.
 * shape() is false for a normalisation; write's A and B are the values or what is made of them. */
void wf_site_rank(wf_site *s, const wf_form_choice *c); /* rank, alpha, scale */
bool wf_pair_shape(wf_site *s, const wf_form_choice *c);
void wf_pair_begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g);
void wf_pair_write(const wf_site *s, bool kohya, const float *A, const float *B, wf_outs *o);

/* kernel^2 of the site's layer. */
size_t wf_site_taps(const wf_site *s);

/* forms.c: what they share. */
float wf_draw_uniform(wf_mersenne *g, float bound); /* in -bound..bound */
float wf_draw_normal(wf_mersenne *g);
/* dst (rows, in, taps) = src (rows, taps, in): from the networks' order to the files'. */
void  wf_unorder(float *dst, const float *src, size_t rows, size_t taps, size_t in);

#endif
