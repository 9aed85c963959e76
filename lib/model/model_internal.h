/* model_internal.h - the model handle, and what is gathered about a model before its networks are
 * built.
 *
 *   open.c         the whole of it: gather, build, check that the networks fit
 *   streams.c      which text encoders give which stream of text
 *   folder.c       gather from a diffusers folder
 *   single_file.c  gather from a file in LDM's or SGM's layout
 *   published.c    the configurations that such a file leaves out
 *   stranger.c     what a file is that is no model of ours
 *   prediction.c   whether it predicts noise or v
 *   vae_file.c     a VAE from elsewhere
 *   vocabulary.c   the tokenizers
 *   written.c      the way back: the files of a model, written again */
#ifndef WF_MODEL_INTERNAL_H
#define WF_MODEL_INTERNAL_H

#include <errno.h>

#include "model/ldm.h"
#include "model/networks.h"

enum { WF_COMPONENTS = 4 }; /* that files may hold today: WEFT_COMPONENT_DENOISER ..
                               WEFT_COMPONENT_VAE */
enum { WF_PATH = 1024 };

/* A tensor that was copied with rows for columns. */
typedef struct wf_turned {
    const uint8_t   *copy;
    const wf_tensor *source;
} wf_turned;

struct weft_model {
    wf_refs        refs;
    weft_allocator alloc;
    char          *path;
    wf_networks    networks;
    weft_tensors  *files[WF_COMPONENTS]; /* each component's tensors under diffusers' names */
    weft_tensors  *whole;      /* a single file as it is; NULL for a folder              */
    const char    *nest;       /* what the names in it begin with that are the model's   */
    wf_turned      turned[WF_ENCODERS_MAX];
    wf_layer      *layers;
    size_t         layer_count;
    size_t         layer_cap;
    wf_derived     derived;    /* widened norms and biases                               */
    wf_bag         names;      /* of the layers                                          */
    json_t        *scheduler;
    float         *trained_betas; /* of the scheduler, or NULL                                */
    size_t         trained_beta_count;
    bool           vae_given;  /* the VAE is not the model's own                         */
    const char    *layout;     /* as weft_model_info says it                             */
    bool           zero_negative; /* force_zeros_for_empty_prompt                        */
    int64_t        parameters;
    int64_t        bytes;
};

/* arithmetic.c: what a processor makes of what the caller asked for. */
weft_status wf_model_set_arithmetic(weft_model *m, int32_t arithmetic, bool emulate, wf_cpu cpu,
                                    weft_error *err);

/* ---- opening --------------------------------------------------------------------------------- */

/* A component: its tensors under diffusers' names, and its config.json. */
typedef struct wf_component {
    bool          there;       /* the model has this component                   */
    weft_tensors *tensors;
    json_t       *config;
    bool          projection;  /* a text encoder with a text_projection          */
    char          from[WF_PATH];        /* what messages call the weights        */
    char          config_from[WF_PATH]; /* and the configuration                 */
} wf_component;

typedef struct wf_gathered {
    wf_component component[WF_COMPONENTS];
    json_t      *scheduler;
    char         vocabulary[WF_ENCODERS_MAX][WF_PATH]; /* folders of the model's own tokenizers;
                                                          "": none */
    bool        aesthetic;                             /* requires_aesthetics_score: a refiner */
    bool        zero_negative;                         /* force_zeros_for_empty_prompt */
    const char *layout;
} wf_gathered;

/* The name that a text encoder's tensor has in files without "text_model." (open.c). */
bool wf_text_old_name(const char *name, char *buf, size_t cap);

/* ---- streams.c ------------------------------------------------------------------------------- */

/* Fill in the streams of a model whose networks are built; WEFT_E_FORMAT if the encoders do not
 * give what the denoiser reads. */
weft_status wf_make_streams(wf_networks *n, const char *path, weft_error *err);

/* ---- folder.c -------------------------------------------------------------------------------- */

weft_status wf_gather_folder(weft_model *m, const weft_model_options *o, wf_gathered *s,
                             weft_error *err);
/* What a folder says of components whose weights are there: configurations, scheduler,
 * tokenizers. */
weft_status wf_gather_descriptions(const weft_model *m, const char *folder, wf_gathered *s,
                                   weft_error *err);
/* The weights of one component in dir: a file, or shards with their index. */
weft_status wf_gather_weights(weft_model *m, const weft_model_options *o, const char *dir,
                              int32_t component, wf_component *part, weft_error *err);

/* ---- single_file.c --------------------------------------------------------------------------- */

weft_status wf_gather_file(weft_model *m, const weft_model_options *o, wf_gathered *s,
                           weft_error *err);
/* The name of a tensor of a single file when the file is written again: out of what it was nested
 * in; NULL for what is beside the model, and for EMA's shadows, which a merge leaves behind. */
const char *wf_single_name(const weft_model *m, const char *name);
/* part->tensors = the tensors of a VAE in LDM's names, with this prefix in front of each. */
weft_status wf_gather_ldm_vae(weft_model *m, weft_tensors *file, const char *prefix,
                              wf_component *part, weft_error *err);

/* ---- stranger.c ------------------------------------------------------------------------------ */

/* What a tensor of another kind of model is ("of a ControlNet, ..."); NULL: not known. */
const char *wf_stranger_tensor(const char *name);
/* Return st. If it is WEFT_E_FORMAT and a tensor of the file shows what the file is, the message
 * says so, and WEFT_E_UNSUPPORTED is returned: a variant of a model; something that is no model. */
weft_status wf_say_variant(weft_status st, const weft_tensors *file, const char *path,
                           weft_error *err);
weft_status wf_say_whole(weft_status st, const weft_tensors *file, const char *path,
                         weft_error *err);

/* ---- prediction.c ---------------------------------------------------------------------------- */

/* What a single file's tensors tell. */
typedef struct wf_hints {
    int32_t base;     /* WEFT_BASE_* that its shapes point to */
    int32_t channels; /* that the denoiser reads               */
    bool    v_pred, ztsnr;
} wf_hints;

/* Put it into s->scheduler. */
weft_status wf_find_prediction(const weft_model *m, const weft_model_options *o,
                               const wf_hints *hints, wf_gathered *s, weft_error *err);
/* What the caller says that the model predicts, into the model's scheduler. */
weft_status wf_settle_prediction(weft_model *m, const weft_model_options *o, weft_error *err);

/* ---- vae_file.c ------------------------------------------------------------------------------ */

/* Replace the model's VAE. */
weft_status wf_gather_vae(weft_model *m, const weft_model_options *o, wf_gathered *s,
                          weft_error *err);

/* ---- published.c ----------------------------------------------------------------------------- */

typedef struct wf_published {
    int32_t     base;
    const char *name;
    const char *component[WF_COMPONENTS]; /* config.json of each; NULL: it has no such component */
    const char *scheduler;
    bool        aesthetic;
    bool        zero_negative;
} wf_published;

const wf_published *wf_published_model(int32_t base); /* NULL: none is known of this base */
weft_status         wf_published_config(json_t **out, const wf_published *p, int32_t component,
                                        weft_error *err);

/* ---- vocabulary.c ---------------------------------------------------------------------------- */

weft_status wf_open_tokenizers(weft_model *m, const weft_model_options *o, const wf_gathered *s,
                               weft_error *err);

#endif
