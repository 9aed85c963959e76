/* denoiser.h - a denoiser as the rest of the house sees it: its facts, and one evaluation.
 *
 * Steps, encoders, plans and openers read facts and call wf_denoise(). Which network answers is
 * decided once, when config.json names its class. A new denoiser is one file with a
 * wf_denoiser_ops, and its row in denoiser.c. */
#ifndef WF_DENOISER_H
#define WF_DENOISER_H

#include "nets/exec.h"

enum {
    WF_STREAMS_MAX  = 4, /* streams of text that a denoiser reads */
    WF_IMAGES_MAX   = 16, /* image prompts */
    WF_TIME_IDS_MAX = 6
};

/* One stream of text. A sequence has any number of rows, a pooled vector is one row. */
typedef struct wf_stream_facts {
    int32_t kind;         /* WEFT_TEXT_SEQUENCE or WEFT_TEXT_POOLED */
    int32_t width;        /* floats of a row */
    int32_t cross_layers; /* cross-attention layers that may each have rows of their own; 0: none
                             may */
} wf_stream_facts;

typedef struct wf_denoiser_facts {
    int32_t         base;        /* WEFT_BASE_* */
    int32_t         in_channels; /* latents have out_channels; what is more is read after them */
    int32_t         out_channels;
    int32_t         multiple;    /* height and width of the latents are multiples of it */
    int32_t         sample_size; /* height and width of the latents that it was trained on */
    int32_t         streams;
    wf_stream_facts stream[WF_STREAMS_MAX];
    int32_t         time_ids; /* numbers about the image's size that it reads; 0: none */
    int32_t         deep; /* channels of wf_deep's features; 0: it has only one level */
    bool            guidance; /* guidance-distilled: takes the guidance scale as an input */
} wf_denoiser_facts;

typedef struct wf_denoiser wf_denoiser;

/* The text of one stream for n samples. */
typedef struct wf_text_input {
    const float *const *rows;   /* [n] (tokens, width), or (cross_layers, tokens, width)     */
    int32_t             tokens;
    int32_t             cross_layers; /* as in the facts, or 0: the same rows for every layer */
} wf_text_input;

/* A text for a part of the image. */
typedef struct wf_region_input {
    wf_text_input  text;     /* of the sequence                                               */
    const wf_mask *mask;     /* its share of each pixel; of all regions at most 1             */
    bool           isolated; /* hidden from other isolated regions in self-attention          */
    const wf_cell *cells;    /* coefficients where layers read this text, [branch][slot]      */
} wf_region_input;

/* What attention sees beside the network's own text and pixels. */
typedef struct wf_regions {
    int32_t                count;
    const wf_region_input *at;    /* [count]                                                  */
    const wf_cell         *cells; /* coefficients where layers read the text of the whole     */
} wf_regions;

/* Keys and values of an image prompt for one cross-attention: linear layers (channels, width)
 * without a bias, on which no adapter acts. */
typedef struct wf_image_pair { const wf_layer *k, *v; } wf_image_pair;

/* What an image prompt does at a layer of the model: at a cross-attention's to_k, if at all. */
typedef struct wf_image_at {
    wf_image_pair pair;   /* k NULL: nothing */
    float         factor; /* of its weight; not 0 */
} wf_image_at;

/* Rows that stand for a picture, seen by every cross-attention beside the text. */
typedef struct wf_image_input {
    const float *const *rows;   /* [n] (tokens, width), width that of the sequence       */
    int32_t             tokens;
    float               weight; /* of this call                                          */
    const wf_image_at  *at;     /* [layers of the model]                                 */
    const wf_mask      *mask;   /* its share of each pixel; NULL: all of every           */
} wf_image_input;

typedef struct wf_images {
    int32_t               count;
    const wf_image_input *of; /* [count] */
} wf_images;

/* Inputs of one evaluation of n = grid.n samples, each with its own timestep and text. A dry exec
 * reads only the shapes: all pointers may then be NULL. */
typedef struct wf_denoise_input {
    wf_grid       grid;                 /* (n, h, w) of the latents                   */
    const float  *latent;               /* (n, in_channels, h, w)                     */
    const float  *timestep;             /* (n)                                        */
    wf_text_input text[WF_STREAMS_MAX]; /* [facts.streams]                            */
    const float  *time_ids;             /* (n, facts.time_ids)                        */
    const float  *guidance;             /* (n) scales; read where facts.guidance      */
    const wf_regions *regions;          /* NULL: none                                 */
    const wf_images  *images;           /* NULL: none                                 */
} wf_denoise_input;

/* What the rest of the model tells a denoiser whose own configuration leaves something open. */
typedef struct wf_denoiser_hints {
    int32_t pooled;    /* width of the pooled vector that the text encoders give; -1: no text
                          encoders */
    bool    aesthetic; /* model_index.json has requires_aesthetics_score */
} wf_denoiser_hints;

typedef struct wf_denoiser_ops {
    const char *class_name;    /* in config.json */
    const struct wf_key *keys; /* of its config.json, nets/keys.h */
    /* Read the configuration and take every tensor of the file. Layers go into the binder's table
     * in order of execution. */
    weft_status (*build)(const json_t *config, const char *path, const wf_denoiser_hints *hints,
                         wf_binder *b, wf_denoiser **out, weft_error *err);
    void (*free)(wf_denoiser *d, const weft_allocator *alloc);
    void (*forward)(const wf_denoiser *d, wf_exec *e, float *out, const wf_denoise_input *in);
} wf_denoiser_ops;

/* What every denoiser begins with. */
struct wf_denoiser {
    const wf_denoiser_ops *ops;
    wf_denoiser_facts      facts;
};

/* Build the denoiser whose class the configuration names; a configuration without a class is a
 * UNet's. */
weft_status wf_denoiser_build(const json_t *config, const char *path,
                              const wf_denoiser_hints *hints, wf_binder *b,
                              wf_denoiser **out, weft_error *err);
void        wf_denoiser_free(wf_denoiser *d, const weft_allocator *alloc);
/* out (n, out_channels, h, w) */
void        wf_denoise(const wf_denoiser *d, wf_exec *e, float *out, const wf_denoise_input *in);

#endif
