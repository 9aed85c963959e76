/* run_internal.h - the run handle and the computations, for the files of lib/run. */
#ifndef WF_RUN_INTERNAL_H
#define WF_RUN_INTERNAL_H

#include "model/networks.h"
#include "nets/exec.h"
#include "plan/plan.h"
#include "run/run.h"
#include "tensor/gemm.h"
#include "weft/run.h"

/* A merged copy of a layer's weight under some coefficients. Phases, and plans that a run moves
 * between, share the copies that are the same. */
typedef struct wf_merged {
    int32_t   refs;
    wf_patch *patch;   /* kept                                              */
    wf_cell  *cells;   /* [patch->parts]                                    */
    size_t    floats;
    float    *weight;  /* (out, K), and behind it, where a part changes it: */
    float    *bias;    /* (out), or NULL                                    */
} wf_merged;

/* What the plan adds to each layer in the calls of one sheet. */
typedef struct wf_sheet_deltas {
    wf_delta   *deltas;  /* [layers of the model]                              */
    wf_merged **merged;  /* [patched_count of the sheet], NULL for side layers */
    size_t      count;
} wf_sheet_deltas;

/* What an evaluation's keys and values were made of. */
typedef struct wf_kept_origin {
    const wf_row *row;     /* NULL: nothing is there */
    const void   *deltas;
    int32_t       count;   /* samples                */
    int32_t       tokens;  /* of the text            */
    int32_t       parts;   /* halves in the batch    */
    int32_t       regions[WF_REGIONS_MAX]; /* tokens of each region's text */
    int32_t       images[WF_IMAGES_MAX];   /* rows of each image prompt    */
} wf_kept_origin;

/* Keys and values of the text, kept between calls (kept.c). */
typedef struct wf_run_kept {
    wf_kept at[2];
    wf_kept_origin of[2];
    float  *rows;      /* (samples, tokens, width) of the text, of the regions' and of image prompts */
    size_t  width;
    size_t  tokens;    /* most, of all                              */
    int32_t samples;   /* most                                      */
    size_t  floats;    /* of keys and values, most                  */
    size_t  bytes;     /* of all this                               */
} wf_run_kept;

/* The masks of the plan's adapters, regions and image prompts, in every size that the denoiser has
 * the image in (mask.c). */
typedef struct wf_run_masks {
    wf_mask       *of;     /* [adapters]; NULL: there are no masks */
    wf_mask       *region; /* [regions]                            */
    wf_mask       *image;  /* [image prompts]                      */
    wf_mask_level *level;  /* [adapters][sizes]                       */
    float         *rows;
    size_t         bytes;
} wf_run_masks;

/* Deep features of the samples of a call, and which call wrote or read them last: a call reuses them
 * only if it follows that one. */
typedef struct wf_run_deep {
    float *floats;  /* [samples] each; NULL: the plan reuses none */
    size_t each;
    int32_t call;   /* -2: none                                   */
    bool   guided;
    double error;   /* the largest that was measured              */
} wf_run_deep;

typedef struct wf_call wf_call;

/* What acted in each call (trace.c). */
typedef struct wf_run_trace wf_run_trace;

/* What a run needs for one plan: all of it is taken before the old one is freed. */
typedef struct wf_run_memory {
    weft_plan       *plan;
    wf_sheet_deltas *phase;      /* [phases of the plan]                             */
    size_t           phases;
    wf_sheet_deltas  text;
    wf_cell         *text_cells; /* [slots of the text sheet] while one adapter encodes */
    int32_t         *branch;     /* [samples]                                        */
    float           *timestep;   /* [samples]                                        */
    float           *time_ids;   /* [samples][ids]                                   */
    float           *guidance;   /* [samples] the guidance scale as an input         */
    const float    **text_of;    /* [streams][samples]                               */
    const float    **preds;      /* [evaluations of a call], of one half             */
    const float    **cond_preds; /* the same of the conditional half, behind them    */
    int32_t         *slot;       /* [samples] of deep                                */
    wf_run_deep      deep;
    wf_run_masks     masks;
    const float    **region_of;    /* [regions][samples] text                            */
    const float    **image_of;     /* [image prompts][samples] rows                      */
    wf_cell         *region_cells; /* [1 + regions][region_stride] for layers over text  */
    size_t           region_stride;
    uint8_t         *arena;
    size_t           arena_size;
    uint8_t        **scratch;    /* [threads]                                        */
    size_t           scratch_size;
    wf_run_kept     *kept;       /* NULL: nothing is kept                            */
    wf_run_trace    *trace;      /* NULL: nobody asks what acted                     */
    int32_t          threads;
    int32_t          samples;    /* most evaluations * 2 * batch                     */
    uint64_t         bytes;      /* of all of this                                   */
    struct {                     /* of these, and what each needs of the scratch     */
        uint64_t scratch, copies, kept, step, encode, decode, encode_image;
    } use;
    uint64_t         stamp;      /* of what the plan encodes with; 0: not yet known  */
    double           step_flops, side_flops, decode_flops;
    /* layers that each passes through: for progress */
    int64_t          step_layers, encode_layers, decode_layers, encode_image_layers;
} wf_run_memory;

/* What is looked for in the image (locate.c). */
typedef struct wf_run_locate wf_run_locate;

struct weft_run {
    weft_allocator   alloc;
    weft_log_fn      log;
    void            *log_user;
    weft_progress_fn progress;
    void            *progress_user;
    wf_pool         *pool;
    wf_exec          exec;
    wf_run_memory    memory;
    int32_t          threads, batch, height, width, text_tokens, tile;
    int32_t          areas;   /* of OpenBLAS's that are held */
    bool             keep_text, check, measure, trace;
    wf_watch         watch;   /* of the call in progress */
    wf_run_locate   *locate;  /* NULL: nothing is looked for */
    const wf_tap    *tap;     /* of whoever records; NULL: nobody */
    char             result[120]; /* what it computes, for a line about it */
    atomic_int       cancel;
    const char      *doing;   /* for progress */
    int64_t          done, total;
};

/* The run's shape from its options, defaults filled in from the model. */
weft_status wf_run_shape(weft_run *r, const weft_plan *plan, const weft_run_options *o,
                         weft_error *err);
/* Is it a sealed plan? */
weft_status wf_run_ready(const weft_plan *plan, weft_error *err);
/* What a run with these options would be, and what it would need, counted only. */
weft_status wf_run_measure(weft_run *shape, weft_plan *plan, wf_run_memory *b,
                           const weft_run_options *options, weft_error *err);
/* Everything a run of this shape needs for a plan; with `measure` only bytes and counts are
 * computed. It keeps its plan alive. */
weft_status wf_run_memory_create(const weft_run *r, weft_plan *plan, bool measure, wf_run_memory *out,
                          weft_error *err);
/* The same in the place of what the run has: merged copies, and scratch that is large enough, are
 * kept. On failure the run keeps what it has. */
weft_status wf_run_memory_replace(weft_run *r, weft_plan *plan, weft_error *err);
void        wf_run_memory_free(wf_run_memory *b, const weft_allocator *alloc);
/* Fill merged copies, whose memory was taken, on all the run's threads (merged.c). */
weft_status wf_merged_make(const weft_run *r, const weft_plan *plan, wf_merged *const *copy,
                           size_t count, weft_error *err);

/* A dry walk through a guided call of one branch, without adapters, that notes the size of the image
 * where `locate` looks (memory.c). */
void        wf_run_dry_step(const weft_run *r, wf_locate *locate);

/* What a call is to note; NULL: nothing (locate.c). */
wf_locate  *wf_run_locate_of(const weft_run *r);
/* The call ended, well or not: what it began to note counts or is lost. Under another plan all is. */
void        wf_run_locate_end(const weft_run *r, bool well);
void        wf_run_locate_forget(const weft_run *r);
void        wf_run_locate_free(wf_run_locate *l);
/* maps [count][h w] become masks, each pixel one subject's (share.c). */
weft_status wf_share_image(float *maps, int32_t count, int32_t h, int32_t w,
                           const weft_allocator *alloc, weft_error *err);

/* In a dry walk a merged layer only has to be known as such. */
void        wf_run_mark_merged(wf_run_memory *b, float *mark);

/* Count the bytes, and unless `measure` make them. */
weft_status wf_run_masks_make(wf_run_masks *m, const weft_plan *plan, const wf_sizes *sizes,
                              bool measure, const weft_allocator *alloc, weft_error *err);
void        wf_run_masks_free(wf_run_masks *m, const weft_allocator *alloc);

/* Every call that computes is between these two. begin answers CANCELLED or STATE; end tells
 * whether the call was stopped, or what it computed is not finite: `result` is then the subject of
 * the line. */
weft_status wf_run_begin(weft_run *r, const char *doing, const char *result, int64_t total,
                         weft_error *err);
weft_status wf_run_end(weft_run *r, weft_error *err);

/* ---- finite.c: results that are not finite ---- */

/* WEFT_E_ARG with the place of the first value of the caller's that is not finite; v may be NULL,
 * index is below 0 for what is no array of buffers. */
weft_status wf_input_finite(const char *what, int32_t index, const float *v, size_t n,
                            weft_error *err);
weft_status wf_texts_finite(const char *what, const weft_text *list, size_t count, weft_error *err);
/* If something was found: begin again, with a look at every layer, and true. */
bool        wf_run_look_again(weft_run *r);
/* WEFT_E_NOT_FINITE, with what the last look found. */
weft_status wf_run_not_finite(const weft_run *r, weft_error *err);

/* ---- trace.c: what acted ---- */

weft_status wf_run_trace_create(wf_run_trace **out, const weft_run *r, wf_run_memory *b,
                                bool measure, weft_error *err);
void        wf_run_trace_free(wf_run_trace *t, const weft_allocator *alloc);
/* Around a call: e->notes is its place, or NULL. */
void        wf_run_trace_begin(wf_exec *e, const wf_run_memory *b, const wf_call *call);
void        wf_run_trace_end(wf_exec *e, const wf_run_memory *b, const wf_call *call, bool done);
/* Where combining a half says what each evaluation counts for; NULL: nobody asks. */
double     *wf_run_trace_shares(const wf_exec *e, const wf_run_memory *b, const wf_call *call,
                                int32_t half);

/* ---- text.c: the caller's arrays of weft_text ---- */

/* Copy and check one array, `what` in messages, with `tokens` filled in; data and len are left to
 * be checked. */
weft_status wf_read_texts(weft_text out[WF_STREAMS_MAX], const weft_run *r, const weft_text *list,
                          size_t count, const char *what, weft_error *err);
/* The same of the rows of the plan's image prompts, whose `tokens` are filled in too. */
weft_status wf_read_images(weft_text out[WF_IMAGES_MAX], const weft_run *r, const weft_text *list,
                           size_t count, const char *what, weft_error *err);
/* Floats of one block of a stream. */
size_t      wf_text_floats(const wf_stream *stream, const weft_text *text);

/* ---- the computations, also walked dry to find what they need ---- */

/* The first result of a call that is not finite. */
typedef struct wf_step_fault {
    enum { WF_SOUND, WF_FAULT_PREDICTION, WF_FAULT_COMBINED, WF_FAULT_GUIDED } where;
    int32_t branch, half;
} wf_step_fault;

/* One call, checked: the caller's step, the shape of its text, and the evaluations of its phase. */
struct wf_call {
    const weft_step *step;
    bool             guided;
    bool             base;        /* the last evaluation is the base's */
    int32_t          evaluations; /* branches, and the base            */
    const wf_row    *row;         /* of the plan's table               */
    bool             keeps;       /* deep features: writes those of every branch that it computes */
    bool             reuse;       /* and reads those that the plan says                   */
    double          *error;       /* where to say how much that changes; NULL: not measured */
    wf_step_fault   *fault;       /* where to say what is not finite; NULL: nobody looks */
    struct { int32_t tokens, cross_layers; } text[WF_STREAMS_MAX], region[WF_REGIONS_MAX];
    int32_t          image[WF_IMAGES_MAX]; /* rows of each image prompt */
};

/* A guided call of one evaluation whose texts and pictures are as long as they may be, for dry
 * walks (memory.c). */
wf_call wf_run_dry_call(const weft_run *r, const wf_run_memory *b, const weft_step *step);
void wf_step_forward(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call);
/* Does a branch of the call reuse deep features? */
bool wf_call_reuses(const wf_run_memory *b, const wf_call *call, int32_t branch);

/* The stream that cross-attentions read: the first sequence; -1: none. */
int32_t wf_sequence_of(const wf_denoiser_facts *f);

/* ---- kept.c ---- */

/* Are keys and values of the text kept in any call of the plan? */
bool        wf_run_keeps_text(const weft_run *r, const wf_run_memory *b);

weft_status wf_run_kept_create(wf_run_kept **out, const weft_run *r, const wf_run_memory *b, size_t floats,
                               weft_error *err);
void        wf_run_kept_free(wf_run_kept *x, const weft_allocator *alloc);
/* Is it large enough for this memory, with `floats` of keys and values? NULL is not. */
bool        wf_run_kept_serves(const wf_run_kept *x, const weft_run *r, const wf_run_memory *b, size_t floats);
/* Bytes of one that holds `floats` of keys and values. */
size_t      wf_run_kept_bytes(const weft_run *r, const wf_run_memory *b, size_t floats);
/* Around an evaluation of samples [first, first + count): e->kept is its place, or NULL. */
void        wf_run_kept_begin(wf_exec *e, const wf_run_memory *b, const wf_call *call, const wf_denoise_input *in,
                              int32_t first, int32_t count);
/* What is kept is made anew by the next evaluation. */
void        wf_run_kept_forget(const wf_run_memory *b);
void        wf_run_kept_end(wf_exec *e, const wf_run_memory *b, const wf_call *call, int32_t first);

/* What one text encoder reads. */
typedef struct wf_encoder_input {
    int32_t             chunks;
    const int32_t      *ids;     /* (chunks, positions)                                           */
    const float *const *extra;   /* rows that follow its vocabulary; NULL if no id needs them     */
    const int32_t      *eos_at;  /* [chunks] position that is pooled                              */
    const float        *weights; /* (chunks, positions); NULL: all 1                              */
    const float        *empty;   /* (positions, width) what weights measure from; NULL: zero      */
    float              *hidden;  /* (chunks, positions, width) written, before weighting; or NULL */
} wf_encoder_input;

typedef struct wf_encoding {
    int32_t          skip;      /* layers left out besides those that the base leaves out */
    bool             keep_mean; /* each weighted chunk of each encoder keeps the mean that it had */
    wf_encoder_input encoder[WF_ENCODERS_MAX];
    float           *stream[WF_STREAMS_MAX]; /* one block of each, written; NULL: not wanted */
} wf_encoding;

void wf_encode_forward(const weft_run *r, wf_exec *e, const wf_encoding *in);
void wf_decode_forward(const weft_run *r, wf_exec *e, const float *latent, float *image);
void wf_encode_image_forward(const weft_run *r, wf_exec *e, const float *image, const float *noise,
                             float *latent);

/* The stamp of what the plan encodes with, computed once for each plan that a run is on
 * (encode.c). */
uint64_t wf_run_stamp(weft_run *r);

static inline const wf_networks *wf_run_networks(const wf_run_memory *b)
{
    return wf_model_networks(wf_plan_model(b->plan));
}

/* Floats of one sample's latents, and of one image. */
static inline size_t wf_run_latent_floats(const weft_run *r)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(&r->memory));
    return (size_t)f->out_channels * (size_t)r->height * (size_t)r->width;
}

/* Floats of weft_step.extra, for the whole batch. */
static inline size_t wf_run_extra_floats(const weft_run *r)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(&r->memory));
    size_t others = (size_t)(f->in_channels - f->out_channels);
    return (size_t)r->batch * others * (size_t)r->height * (size_t)r->width;
}

static inline size_t wf_run_image_floats(const weft_run *r)
{
    size_t f = (size_t)wf_vae_factor(wf_run_networks(&r->memory)->vae);
    return 3 * (size_t)r->height * f * (size_t)r->width * f;
}

/* ---- tile.c: the overlapping tiles of an image, or one tile if it is small enough ---- */

typedef struct wf_tiles {
    int32_t h, w;                /* of the latents                                       */
    int32_t tile, overlap, step; /* latent pixels                                        */
    int32_t rows, cols;          /* of tiles                                             */
    int32_t scale, channels;     /* of a tile's result: its pixels for each latent pixel */
    float  *above, *left;        /* ends of the neighbours' results                      */
} wf_tiles;

/* all but row, col: latent pixels */
typedef struct wf_tile { int32_t row, col, y, x, h, w, keep_h, keep_w; } wf_tile;

wf_tiles wf_tiles_make(const weft_run *r, int32_t scale, int32_t channels);
/* Take the neighbours' strips from the arena. */
void     wf_tiles_take(wf_tiles *t, wf_exec *e);
wf_tile  wf_tiles_at(const wf_tiles *t, int32_t row, int32_t col);
/* Fade the results y (channels, h * scale, w * scale) of a tile into its neighbours', row by row
 * from the left. */
void     wf_tiles_blend(const wf_tiles *t, const wf_tile *k, float *y);

#endif
