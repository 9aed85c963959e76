/* open.h (internal to opening) - what is gathered about a model before its networks are built.
 *
 *   open.c         the whole of it: gather, build, check that the parts fit
 *   folder.c       gather from a diffusers folder
 *   single_file.c  gather from a file in LDM's or SGM's layout
 *   published.c    the configurations that such a file leaves out
 *   prediction.c   whether it predicts noise or v
 *   vae_file.c     a VAE from elsewhere
 *   vocabulary.c   the tokenizers
 *   written.c      the way back: the files of a model, written again                                    */
#ifndef WF_MODEL_OPEN_H
#define WF_MODEL_OPEN_H

#include "model/ldm.h"
#include "model/room.h"

enum { WF_UNET, WF_TEXT, WF_TEXT_2, WF_VAE };
enum { WF_PATH = 1024 };

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
    wf_component     parts[WF_COMPONENTS];
    json_t     *scheduler;
    char        vocabulary[2][WF_PATH]; /* folders of the model's own tokenizers; "" where there are none */
    bool        aesthetic;              /* requires_aesthetics_score: a refiner                           */
    bool        zero_negative;          /* force_zeros_for_empty_prompt                                   */
    const char *layout;
} wf_gathered;

const char *wf_component_name(int32_t component); /* its folder, "unet" */

/* The name that a text encoder's tensor has in files without "text_model." (open.c). */
bool wf_text_old_name(const char *name, char *buf, size_t cap);

/* ---- folder.c ------------------------------------------------------------------------------------ */

weft_status wf_gather_folder(weft_model *m, const weft_model_options *o, wf_gathered *s, weft_error *err);
/* What a folder says of components whose weights are there: configurations, scheduler, tokenizers. */
weft_status wf_gather_descriptions(const weft_model *m, const char *folder, wf_gathered *s, weft_error *err);
/* The weights of one component in dir: a file, or shards with their index. */
weft_status wf_gather_weights(weft_model *m, const weft_model_options *o, const char *dir, int32_t component,
                              wf_component *part, weft_error *err);

/* ---- single_file.c ------------------------------------------------------------------------------- */

weft_status wf_gather_file(weft_model *m, const weft_model_options *o, wf_gathered *s, weft_error *err);
/* The name of a tensor of a single file when the file is written again: out of what it was nested in; NULL for what is
 * beside the model, and for EMA's shadows, which a merge leaves behind. */
const char *wf_single_name(const weft_model *m, const char *name);
/* part->tensors = the tensors of a VAE in LDM's names, with this prefix in front of each. */
weft_status wf_gather_ldm_vae(weft_model *m, weft_tensors *file, const char *prefix, wf_component *part, weft_error *err);

/* ---- prediction.c -------------------------------------------------------------------------------- */

/* What a single file's tensors tell. */
typedef struct wf_hints {
    int32_t base;   /* WEFT_BASE_* that its shapes point to */
    int32_t channels; /* that the UNet reads                    */
    bool    v_pred, ztsnr;
} wf_hints;

/* Put it into s->scheduler. */
weft_status wf_find_prediction(const weft_model *m, const weft_model_options *o, const wf_hints *hints, wf_gathered *s,
                               weft_error *err);
/* What the caller says that the model predicts, into the model's scheduler. */
weft_status wf_settle_prediction(weft_model *m, const weft_model_options *o, weft_error *err);

/* ---- vae_file.c ---------------------------------------------------------------------------------- */

/* Replace the model's VAE. */
weft_status wf_gather_vae(weft_model *m, const weft_model_options *o, wf_gathered *s, weft_error *err);

/* ---- published.c --------------------------------------------------------------------------------- */

typedef struct wf_published {
    int32_t     base;  
    const char *name;
    const char *parts[WF_COMPONENTS]; /* config.json of each; NULL: it has no such component */
    const char *scheduler;
    bool        aesthetic;
    bool        zero_negative;
} wf_published;

const wf_published *wf_published_model(int32_t base); /* NULL for a base that has none */
weft_status         wf_published_config(json_t **out, const wf_published *p, int32_t component, weft_error *err);

/* ---- vocabulary.c -------------------------------------------------------------------------------- */

weft_status wf_open_tokenizers(weft_model *m, const weft_model_options *o, const wf_gathered *s, weft_error *err);

#endif
