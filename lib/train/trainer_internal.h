/* trainer_internal.h - the trainer, for the files of this room.
 *
 *   trainer.c     the handle: made, looked at, let go
 *   options.c     defaults and refusals
 *   sites.c       which layers are trained, and what the network reads of them
 *   prepare.c     captions and latents encoded, memory counted in a dry run and taken
 *   text.c        captions become tokens, and rows of text
 *   batch.c       what an evaluation reads: a pure function of the seed and its number
 *   loss.c        means of squares with their gradient
 *   step.c        evaluations, clipping, the optimiser: one step
 *   optimiser.c, rates.c
 *   checkpoint.c  all of it in a file, and back
 *   save.c        what was learnt, as an adapter and as files
 *   recipe_*.c, form_*.c
 *
 * All numbers that are trained lie in one vector: layers of the denoiser, then of the text
 * encoders, then words. Gradients, moments and means lie in vectors of the same shape. */
#ifndef WF_TRAINER_INTERNAL_H
#define WF_TRAINER_INTERNAL_H

#include "model/networks.h"
#include "run/text_rows.h"
#include "tensor/blas_guard.h"
#include "train/recipe.h"

/* Parts of the vector, each with a rate of its own. */
typedef int32_t wf_group;
enum { WF_GROUP_LAYERS, WF_GROUP_TEXT, WF_GROUP_WORDS, WF_GROUPS };

/* Words that are learnt. `rows` vectors follow the vocabulary of each text encoder; where `layers`
 * is above 1, there is a set of them for each cross-attention layer, and a caption is encoded once
 * for each. Vectors lie in the trainer's vector in the order (layer, encoder, row). */
typedef struct wf_words {
    size_t    rows;
    int32_t   layers;                    /* 1, or the cross-attentions                            */
    wf_extras extras[WF_ENCODERS_MAX];   /* for the tokenizers                                    */
    float    *initial;                   /* wf_words_floats() of them                             */
    void     *own;                       /* the recipe's                                          */
} wf_words;

/* A caption, read. */
typedef struct wf_caption {
    struct wf_caption *next;
    char     *text;
    int32_t  *ids[WF_ENCODERS_MAX];    /* (positions)                                             */
    int32_t   eos_at[WF_ENCODERS_MAX];
    float    *rows[WF_STREAMS_MAX];    /* encoded once; NULL: in each evaluation                  */
} wf_caption;

/* What one evaluation reads: instance pictures, then class pictures. Images are (c, h, w). */
typedef struct wf_batch {
    int32_t   n, instances;
    int64_t   evaluation;   /* since the beginning: step * accumulate + part */
    float    *latent;       /* (n, image) with noise                         */
    float    *target;       /* (n, image)                                    */
    float    *mask;         /* (n, h, w), or NULL: all of each image counts  */
    float    *timestep;     /* [n]                                           */
    double   *weight;       /* [n] w(t) of min-SNR; 1 without                */
    float    *time_ids;     /* (n, facts.time_ids)                           */
    const wf_caption **caption; /* [n]                                       */
} wf_batch;

/* Means over an evaluation. */
typedef struct wf_losses {
    double loss;  /* all that is minimised                    */
    double prior; /* of class pictures, unweighted            */
    double other; /* of a third term of the recipe, unweighted */
} wf_losses;

/* A stretch of the vectors that lies in one tensor, for work on all numbers. */
typedef struct wf_train_piece {
    size_t   at, n;
    wf_group group;
    bool     decay; /* weight decay acts on it */
} wf_train_piece;

struct weft_trainer {
    weft_allocator     alloc;
    wf_bag             bag;         /* lives as long as the trainer */
    weft_model        *model;
    const wf_networks *networks;
    const wf_recipe   *recipe;
    weft_train_options o;           /* whole: every default filled in, strings in the bag */
    void              *own;         /* the recipe's */
    wf_pool           *pool;
    int32_t            areas;       /* of OpenBLAS's that are held */

    wf_form_choice     choice;
    wf_site           *site;        /* [sites], in the order of the vector */
    size_t             sites;
    wf_words           words;       /* rows 0: none */
    size_t             floats;      /* of each vector */
    size_t             begin[WF_GROUPS + 1];
    int64_t            parameters;  /* without what aligns tensors */
    float             *values, *grads, *first, *second, *mean; /* mean NULL: no EMA */
    float             *made, *g_made; /* what forms make for the network, and its gradients */
    size_t             made_floats;
    float             *base;        /* frozen weights that forms read, widened */
    size_t             base_floats;
    wf_train_piece    *piece;       /* [pieces] */
    double            *sums;        /* [pieces] */
    size_t             pieces;

    /* What the network is given: [layers of the model]. */
    wf_delta          *deltas;
    wf_layer_grads    *layer_grads;
    const void       **turned;
    uint8_t           *turned_block;
    wf_cell            cell;        /* of every part: the number 1 */
    size_t             layers;      /* of the model */

    wf_exec            exec;
    wf_tape            tape;
    bool               text_taped;  /* text encoders are on the tape */
    const float      **extra[WF_ENCODERS_MAX];   /* [words.layers][words.rows] vectors of words   */
    float            **g_extra[WF_ENCODERS_MAX]; /* and their gradients                           */
    wf_text_source     from[WF_ENCODERS_MAX];    /* what the encoders read: ids (n, positions)    */
    int32_t           *ids[WF_ENCODERS_MAX], *eos_at[WF_ENCODERS_MAX];
    int32_t           *place;                    /* [n] which of the different captions it has    */

    struct wf_dataset *data;
    struct wf_encoder *encoder;     /* kept where not all latents are cached */
    wf_caption        *captions;
    wf_batch           batch;
    wf_denoise_input   in;          /* of the evaluation: segments read it on the way back    */
    const float      **rows[WF_STREAMS_MAX]; /* [n] of the batch's text                       */
    float             *aside;       /* (n, image) for what evaluate() computes without the tape */
    double            *alpha;       /* [train_steps] the share of the image's power, A_t */
    int32_t            train_steps;
    int32_t            prediction;  /* WEFT_PREDICT_* */
    int32_t            height, width; /* of latents */
    size_t             image;       /* floats of one sample's latents */

    int64_t            step;        /* done */
    bool               prepared, cached, cancelled;
    bool               counted;     /* wf_train_stop() counts layers for progress */
    uint64_t           expected;    /* stamp of the pictures of a checkpoint; 0: none was read */
    int64_t            evaluation_layers; /* that progress counts */
    const char        *doing;       /* for progress */
    int64_t            done, total;
    uint64_t           step_bytes, weight_bytes, cache_bytes;
};

/* ---- for recipes: an evaluation -------------------------------------------------------------- */

/* The prediction of samples [first, first + count), copied into `out` (count, image), and no
 * gradient: with `deltas` in the place of what is trained. Before wf_trainer_record() only. */
weft_status wf_trainer_predict(weft_trainer *t, const wf_delta *deltas, const wf_batch *b,
                               int32_t first, int32_t count, float *out, weft_error *err);
/* The whole batch with what is trained: *out (n, image), and *grad, zeroed, where its gradient
 * belongs. Then wf_trainer_back() adds to what the network's layers and words have as gradients. */
weft_status wf_trainer_record(weft_trainer *t, const wf_batch *b, const float **out, float **grad,
                              weft_error *err);
weft_status wf_trainer_back(weft_trainer *t, weft_error *err);
/* The mean of sample s's squares under its mask; `grad` (image) = `share` times its gradient. */
double      wf_loss_square(const weft_trainer *t, const wf_batch *b, int32_t s, const float *out,
                           const float *target, double share, float *grad);
/* What recipes do that have no evaluate() of their own. */
weft_status wf_trainer_evaluate(weft_trainer *t, wf_batch *b, wf_losses *l, weft_error *err);

/* ---- for recipes: words ---------------------------------------------------------------------- */

/* Floats of all words in the vector. */
size_t      wf_words_floats(const wf_networks *n, const wf_words *w);
/* Where the vector of (layer, encoder, row) begins, counted from the first word's. */
size_t      wf_words_at(const wf_networks *n, const wf_words *w, int32_t layer, int32_t encoder,
                        size_t row);
/* The vectors of words as they are now (their mean, where one is kept). */
const float *wf_trainer_words(const weft_trainer *t);

/* ---- options.c, rates.c, optimiser.c --------------------------------------------------------- */

/* A number of the options where one below 0 means none. */
static inline double wf_none(double v) { return v > 0 ? v : 0; }

/* The caller's options, copied; strings are still the caller's. */
weft_status wf_train_read_options(weft_train_options *o, const weft_train_options *given,
                                  weft_error *err);
/* Fill in t->o and t->choice for t->model, or refuse. */
weft_status wf_train_settle(weft_trainer *t, weft_error *err);
/* The same of text_rate, once the layers are chosen. */
weft_status wf_train_settle_text_rate(weft_trainer *t, weft_error *err);
/* Every option that has a part in what comes out, by name and as text. */
typedef void (*wf_train_say)(void *user, const char *name, const char *value);
void        wf_train_say_options(const weft_train_options *o, wf_train_say say, void *user);
/* The factor of all rates after `done` steps. */
double      wf_train_rate(const weft_train_options *o, int64_t done);
/* Cut the vectors into pieces, once all tensors have their place. */
weft_status wf_train_cut_pieces(weft_trainer *t, weft_error *err);
/* Make the sum over a step's evaluations their mean; the norm of all gradients. */
double      wf_train_norm(weft_trainer *t);
/* Clip, and take the step. */
void        wf_train_update(weft_trainer *t, double norm);

/* ---- sites.c --------------------------------------------------------------------------------- */

/* Choose the layers, take the vectors, and let forms begin. */
weft_status wf_train_make_sites(weft_trainer *t, weft_error *err);
/* The tensors stand for these values: the vector itself, or the means. */
void        wf_train_point(weft_trainer *t, float *values);
/* Forms make what the network reads; and take its gradients back. */
void        wf_train_make(weft_trainer *t);
void        wf_train_pull(weft_trainer *t);
uint64_t    wf_train_state_bytes(const weft_trainer *t);

/* ---- text.c ---------------------------------------------------------------------------------- */

/* A caption, read now or before, and encoded where it can be once and for all. */
weft_status wf_train_caption(weft_trainer *t, const char *text, const wf_caption **out,
                             weft_error *err);
/* Where the vectors of words lie. */
weft_status wf_train_place_words(weft_trainer *t, weft_error *err);
/* What a batch's captions need beside the arena. */
weft_status wf_train_take_text(weft_trainer *t, weft_error *err);
/* Rows of text of samples [first, first + count) into t->rows: kept ones, or in the arena. In a dry
 * run b is NULL, and every sample counts as one of its own. */
void        wf_train_read_text(weft_trainer *t, wf_exec *e, const wf_batch *b, int32_t first,
                               int32_t count);

/* ---- prepare.c, batch.c ---------------------------------------------------------------------- */

weft_status wf_train_prepare(weft_trainer *t, weft_error *err);
/* A_t of the model's training, and what the model predicts. */
weft_status wf_train_read_levels(weft_trainer *t, weft_error *err);
weft_status wf_train_take_batch(weft_trainer *t, weft_error *err);
/* Read every caption once: refusals, tokens, rows that are kept. */
weft_status wf_train_check_captions(weft_trainer *t, weft_error *err);
weft_status wf_train_fill_batch(weft_trainer *t, int64_t evaluation, weft_error *err);
/* Between these a call computes: threads' products, progress, cancelling. end leaves the
 * tape's gradients zero, whatever happened, and gives the status back. */
void        wf_train_begin_call(weft_trainer *t, const char *doing, int64_t total);
weft_status wf_train_end_call(weft_trainer *t, weft_status st, weft_error *err);
/* Has it stopped? Then why. */
weft_status wf_train_halted(weft_trainer *t, weft_error *err);
/* What prepare took; the vectors stay. */
void        wf_train_let_go(weft_trainer *t);
/* WEFT_E_STATE in a child after fork(). */
weft_status wf_train_own_process(const weft_trainer *t, weft_error *err);
/* t->rows of a stream, as the denoiser reads them. */
wf_text_input wf_train_text(const weft_trainer *t, int32_t stream);
/* The progress function, asked; true: stop. wf_exec.stop. */
bool        wf_train_stop(void *trainer);

/* ---- checkpoint.c ---------------------------------------------------------------------------- */

enum { WF_CHECKPOINT_VECTORS = 4 }; /* values, first and second moments, mean */

/* What a checkpoint must be to be this training's. */
typedef struct wf_checkpoint_want {
    size_t             floats;                       /* of each vector                         */
    bool               has[WF_CHECKPOINT_VECTORS];
    const char *const *pairs;                        /* metadata, [2 * count]                  */
    size_t             count;
} wf_checkpoint_want;

/* Look at a file's tensors: the vectors and the steps done, or what is wrong. */
weft_status wf_checkpoint_read(const weft_tensors *file, const wf_checkpoint_want *want,
                               const wf_tensor *vector[WF_CHECKPOINT_VECTORS], int64_t *step,
                               weft_error *err);

/* ---- save.c ---------------------------------------------------------------------------------- */

/* What all forms write, under the names of a dialect, with metadata. */
weft_status wf_trainer_tensors(weft_trainer *t, int32_t dialect, weft_tensors **out,
                               weft_error *err);
/* What recipes do that have no save() of their own: an adapter in a dialect, 0: the usual one. */
weft_status wf_trainer_save_adapter(weft_trainer *t, const char *path, int32_t dialect, bool half,
                                    weft_error *err);
/* Metadata of anything that is saved: pairs of strings in the bag, [2 * *pairs]. */
weft_status wf_trainer_metadata(const weft_trainer *t, wf_bag *bag, const char *const **out,
                                size_t *pairs, weft_error *err);

#endif
