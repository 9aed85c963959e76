/* room.h - the run handle; seen by this room's files alone. */
#ifndef WF_RUN_ROOM_H
#define WF_RUN_ROOM_H

#include "model/parts.h"
#include "nets/exec.h"
#include "plan/plan.h"
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

/* What a run needs for one plan: taken whole before an old one is let go. */
typedef struct wf_fit {
    weft_plan       *plan;
    wf_sheet_deltas *phase;      /* [phases of the plan]                             */
    size_t           phases;
    wf_sheet_deltas  text;
    wf_cell         *text_cells; /* [slots of the text sheet] while one adapter encodes */
    int32_t         *branch;     /* [samples]                                        */
    float           *timestep;   /* [samples]                                        */
    float           *time_ids;   /* [samples][ids]                                   */
    float           *guidance;   /* [samples] the guidance scale as an input         */
    const float    **text_of;    /* [samples]                                        */
    const float    **pooled;     /* [samples]                                        */
    const float    **preds;      /* [evaluations of a call]                          */
    uint8_t         *arena;
    size_t           arena_size;
    uint8_t        **scratch;    /* [threads]                                        */
    size_t           scratch_size;
    int32_t          threads;
    int32_t          samples;    /* most evaluations * 2 * batch                     */
    uint64_t         bytes;      /* of all of this                                   */
    uint64_t         stamp;      /* of the plan's text side; 0 until it is asked for */
    double           step_flops, side_flops, decode_flops;
    int64_t          step_layers, encode_layers, decode_layers, encode_image_layers; /* calls of each: for progress */
} wf_fit;

struct weft_run {
    weft_allocator   alloc;
    weft_log_fn      log;
    void            *log_user;
    weft_progress_fn progress;
    void            *progress_user;
    wf_pool         *pool;
    wf_exec          exec;
    wf_fit           fit;
    int32_t          threads, batch, height, width, text_tokens, tile;
    atomic_int       cancel;
    const char      *doing;   /* for progress */
    int64_t          done, total;
};

/* What options ask for, with defaults filled in from the model. */
weft_status wf_run_shape(weft_run *r, const weft_plan *plan, const weft_run_options *o, weft_error *err);
/* Everything a run of this shape needs for a plan; with `measure` only bytes and counts are found. The fit that it
 * makes keeps the plan alive. */
weft_status wf_fit_create(const weft_run *r, weft_plan *plan, bool measure, wf_fit *out, weft_error *err);
/* The same in the place of the run's fit: merged copies, and scratch that is large enough, are taken over.
 * On failure the run keeps what it has. */
weft_status wf_fit_replace(weft_run *r, weft_plan *plan, weft_error *err);
void        wf_fit_free(wf_fit *b, const weft_allocator *alloc);
/* Fill merged copies, whose memory was taken, on all the run's threads (merged.c). */
weft_status wf_merged_make(const weft_run *r, const weft_plan *plan, wf_merged *const *copy, size_t count,
                           weft_error *err);

/* Every call that computes is between these two. begin answers CANCELLED or STATE; end tells whether the
 * call was stopped. */
weft_status wf_run_begin(weft_run *r, const char *doing, int64_t total, weft_error *err);
weft_status wf_run_end(weft_run *r, weft_error *err);

/* Chunks on their way through the text encoders, and what becomes of them. */
typedef struct wf_encoding {
    int32_t             chunks;
    int32_t             skip;       /* layers left out besides those that the model leaves out          */
    const int32_t      *ids[2];     /* (chunks, positions) for each encoder                             */
    const float *const *extra[2];   /* rows that follow its vocabulary; NULL where no id asks           */
    const int32_t      *eos_at;     /* [chunks] position that is pooled                                 */
    const float        *weights[2]; /* (chunks, positions); NULL: all 1                                 */
    const float        *empty;      /* (positions, d) what weights measure from; NULL: zero             */
    bool                keep_mean;  /* each weighted chunk of each encoder keeps the mean that it had   */
    float              *text;       /* (chunks, positions, d)                                           */
    float              *pooled;     /* (projection) of the first chunk; may be NULL                     */
} wf_encoding;

/* The computations, also walked dry to find what they need. A step of `evaluations` branches, the last of
 * which is the base's where `base`. */
void wf_step_forward(const weft_run *r, wf_exec *e, const wf_fit *b, const weft_step *step, bool guided,
                     int32_t evaluations, bool base);
void wf_encode_forward(const weft_run *r, wf_exec *e, const wf_encoding *in);
void wf_decode_forward(const weft_run *r, wf_exec *e, const float *latent, float *image);
void wf_encode_image_forward(const weft_run *r, wf_exec *e, const float *image, const float *noise, float *latent);

/* The stamp of the plan's text side, worked out once for each plan that a run is on (encode.c). */
uint64_t wf_run_stamp(weft_run *r);

static inline const wf_parts *wf_run_parts(const wf_fit *b)
{
    return wf_model_parts(wf_plan_model(b->plan));
}

/* Floats of one latent, and of one picture. */
static inline size_t wf_run_latent_floats(const weft_run *r)
{
    return (size_t)wf_run_parts(&r->fit)->unet_config.out_channels * (size_t)r->height * (size_t)r->width;
}

static inline size_t wf_run_picture_floats(const weft_run *r)
{
    size_t f = (size_t)wf_vae_factor(wf_run_parts(&r->fit)->vae);
    return 3 * (size_t)r->height * f * (size_t)r->width * f;
}

/* ---- tile.c: the overlapping tiles of a picture, one where it is small enough ---- */

typedef struct wf_tiles {
    int32_t h, w;                /* of the latents                                       */
    int32_t tile, overlap, step; /* latent pixels                                        */
    int32_t rows, cols;          /* of tiles                                             */
    int32_t scale, channels;     /* of a tile's result: its pixels for each latent pixel */
    float  *above, *left;        /* ends of the neighbours' results                      */
} wf_tiles;

typedef struct wf_tile { int32_t row, col, y, x, h, w, keep_h, keep_w; } wf_tile; /* all but row, col: latent pixels */

wf_tiles wf_tiles_make(const weft_run *r, int32_t scale, int32_t channels);
/* Take the neighbours' strips from the arena. */
void     wf_tiles_take(wf_tiles *t, wf_exec *e);
wf_tile  wf_tiles_at(const wf_tiles *t, int32_t row, int32_t col);
/* Fade the results y (channels, h * scale, w * scale) of a tile into its neighbours', row by row from the left. */
void     wf_tiles_blend(const wf_tiles *t, const wf_tile *k, float *y);

/* Tokens of one chunk. */
static inline int32_t wf_run_positions(const wf_parts *p)
{
    const wf_clip *encoder = p->text[0] != NULL ? p->text[0] : p->text[1];
    return encoder != NULL ? wf_clip_get_config(encoder)->positions : 77;
}

#endif
