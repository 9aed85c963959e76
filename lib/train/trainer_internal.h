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
 * All numbers that are trained lie in one vector: layers of the denoiser, then of the text encoders,
 * then words. Gradients, moments and means lie in vectors of the same shape. */
#ifndef WF_TRAINER_INTERNAL_H
#define WF_TRAINER_INTERNAL_H

#include "model/networks.h"
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

typedef struct wf_dataset_ref wf_dataset_ref;

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

    /* What the network is given: [layers of the model]. */
    wf_delta          *deltas;
    wf_layer_grads    *layer_grads;
    const void       **turned;
    wf_cell            cell;        /* of every part: the number 1 */

    wf_exec            exec;
    wf_tape            tape;
    bool               text_taped;  /* text encoders are on the tape */

    struct wf_dataset *data;
    struct wf_encoder *encoder;     /* kept where not all latents are cached */
    wf_caption        *captions;
    wf_batch           batch;
    float             *aside;       /* (n, image) for what evaluate() computes without the tape */
    double            *alpha;       /* [train_steps] the share of the image's power, A_t */
    int32_t            train_steps;
    int32_t            prediction;  /* WEFT_PREDICT_* */
    int32_t            height, width; /* of latents */
    size_t             image;       /* floats of one sample's latents */

    int64_t            step;        /* done */
    bool               prepared;
    const char        *doing;       /* for progress */
    int64_t            done, total;
    uint64_t           step_bytes, weight_bytes, cache_bytes;
};

/* ---- for recipes: an evaluation ---------------------------------------------------------------- */

/* The prediction of samples [first, first + count), copied into `out` (count, image), and no
 * gradient: with `deltas` in the place of what is trained. Before wf_trainer_record() only. */
weft_status wf_trainer_predict(weft_trainer *t, const wf_delta *deltas, const wf_batch *b,
                               int32_t first, int32_t count, float *out, weft_error *err);
/* The whole batch with what is trained: *out (n, image), and *grad, zeroed, where its gradient
 * belongs. Then wf_trainer_back() adds to what the network's layers and words have as gradients. */
weft_status wf_trainer_record(weft_trainer *t, const wf_batch *b, const float **out, float **grad,
                              weft_error *err);
weft_status wf_trainer_back(weft_trainer *t, weft_error *err);
/* The mean of sample s's squares under its mask, and `grad` (image) = `share` times its gradient. */
double      wf_loss_square(const weft_trainer *t, const wf_batch *b, int32_t s, const float *out,
                           const float *target, double share, float *grad);
/* What recipes do that have no evaluate() of their own. */
weft_status wf_trainer_evaluate(weft_trainer *t, wf_batch *b, wf_losses *l, weft_error *err);

/* ---- for recipes: words ------------------------------------------------------------------------ */

/* Floats of all words in the vector. */
size_t      wf_words_floats(const wf_networks *n, const wf_words *w);
/* Where the vector of (layer, encoder, row) begins, counted from the first word's. */
size_t      wf_words_at(const wf_networks *n, const wf_words *w, int32_t layer, int32_t encoder,
                        size_t row);
/* The vectors of words as they are now (their mean, where one is kept). */
const float *wf_trainer_words(const weft_trainer *t);

/* ---- save.c ------------------------------------------------------------------------------------ */

/* What all forms write, under the names of a dialect, with metadata. */
weft_status wf_trainer_tensors(weft_trainer *t, int32_t dialect, weft_tensors **out,
                               weft_error *err);
/* Metadata of anything that is saved: pairs of strings in the bag, [2 * *pairs]. */
weft_status wf_trainer_metadata(const weft_trainer *t, wf_bag *bag, const char *const **out,
                                size_t *pairs, weft_error *err);

#endif
