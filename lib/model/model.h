/* model.h (internal) - an opened model: components, layer table, name maps, tokenizers. */
#ifndef WF_MODEL_H
#define WF_MODEL_H

#include "io/io.h"
#include "nets/layer.h"
#include "weft/model.h"
#include "weft/text.h"

/* The layer table; ids are indices. */
const wf_layer *wf_model_layers(const weft_model *m, size_t *count);
int32_t         wf_model_base(const weft_model *m);
const char     *wf_base_name(int32_t base);
void            wf_model_ref(weft_model *m);
const char     *wf_model_path(const weft_model *m); /* as it was opened */
/* What tells this model from others, whatever layout it was opened from (fingerprint.c). */
void            wf_model_fingerprint(const weft_model *m, wf_sha256_text *out);
/* What tells latents that its VAE makes from those of others: of the encoder. */
void            wf_vae_fingerprint(const weft_model *m, wf_sha256_text *out);

/* Which text encoder a component is, from 0 on; -1: none. */
int32_t wf_component_encoder(int32_t component);
static inline bool wf_is_text(int32_t component) { return wf_component_encoder(component) >= 0; }

/* Names by which adapter files may call a layer (names.c). Each writes into buf (cap bytes) and
 * returns true, or returns false if the layer has no such name.
 *   canonical "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
 *   kohya     "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
 *             "lora_te_..." with one
 *             text encoder, "lora_te1_..." and "lora_te2_..." with two
 *   ldm       "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" */
bool wf_name_kohya(const weft_model *m, const wf_layer *layer, char *buf, size_t cap);
bool wf_name_kohya_ldm(const weft_model *m, const wf_layer *layer, char *buf, size_t cap);

/* cloneofsimo's numbers: number[i] of layer i among its component's targets, -1: not a target.
 * UNets: projections of the attentions and ff.net.0.proj, blocks down, then up, then the middle;
 * text encoders: projections k v q out. */
void wf_name_numbers(const wf_layer *layers, size_t count, int32_t *number);

/* The structure of a UNet, which LDM's numbering of blocks needs, and the pure functions behind the
 * names: a path inside the UNet as LDM numbers it ("input_blocks.4.1.transformer_blocks.0..."), and
 * prefix + path with dots as underscores. */
typedef struct wf_blocks {
    int32_t layers_per_block;
    int32_t count; /* of down blocks, and of up blocks */
    bool    up_attention[16];
} wf_blocks;
bool wf_name_ldm(const char *module, const wf_blocks *shape, char *buf, size_t cap);
bool wf_name_kohya_path(const char *prefix, const char *path, char *buf, size_t cap);

/* The scheduler_config.json that came with the model, or NULL. */
const json_t *wf_model_scheduler(const weft_model *m);
/* Its trained_betas, if that is a list of numbers; else NULL and 0. */
const float *wf_model_trained_betas(const weft_model *m, size_t *count);

/* ---- tokenizer.c ----------------------------------------------------------------------------- */

/* CLIP's byte pair encoding, read from a folder with vocab.json and merges.txt
 * (tokenizer_config.json and special_tokens_map.json where they are there). Immutable. */
typedef struct wf_tokenizer wf_tokenizer;
weft_status wf_tokenizer_open(const char *folder, const weft_allocator *alloc, wf_tokenizer **out,
                              weft_error *err);
/* The same from file contents in memory (fuzzing, and tests with the published merges); any may be
 * NULL but merges. */
weft_status wf_tokenizer_parse(const char *vocab, size_t vocab_len, const char *merges,
                               size_t merges_len,
                               const char *config, size_t config_len, const char *special,
                                   size_t special_len,
                               const weft_allocator *alloc, wf_tokenizer **out, weft_error *err);
void        wf_tokenizer_free(wf_tokenizer *t);
int32_t     wf_tokenizer_bos(const wf_tokenizer *t);
int32_t     wf_tokenizer_eos(const wf_tokenizer *t);
int32_t     wf_tokenizer_pad(const wf_tokenizer *t);
int32_t     wf_tokenizer_size(const wf_tokenizer *t); /* highest id + 1 */
/* Ids of a text without BOS, EOS, padding. *needed gets the full count; ids beyond cap are not
 * written. */
weft_status wf_tokenizer_encode(const wf_tokenizer *t, const char *text, int32_t *ids, size_t cap,
                                size_t *needed, weft_error *err);

/* Placeholder tokens beside the vocabulary. They are found in the normalised text, the longest
 * first, before it is cut into pieces. Where one begins or ends with a letter or a digit, no other
 * letter or digit may touch it, and a space in it stands for any white space. Token k comes out as
 * the one id `base` + k. */
typedef struct wf_extra {
    const char *text;   /* from wf_tokenizer_fold(); its bytes and no NUL                    */
    size_t      len;
    int32_t     row;    /* of its first vector, in the table that follows the vocabulary     */
    int32_t     places; /* vectors, which take as many places in a chunk                     */
} wf_extra;
typedef struct wf_extras {
    const wf_extra *token;
    size_t          count;
    int32_t         base;  /* rows of the encoder's own vocabulary */
} wf_extras;
/* wf_tokenizer_encode() of n bytes with such tokens; `extras` may be NULL. */
weft_status wf_tokenizer_encode_with(const wf_tokenizer *t, const wf_extras *extras,
                                     const char *text, size_t n,
                                     int32_t *ids, size_t cap, size_t *needed, weft_error *err);
/* A token as it is looked for: NFC, lower case, white space inside as one space, none around. In
 * new memory. */
weft_status wf_tokenizer_fold(const char *token, const weft_allocator *alloc, char **out,
                              size_t *out_len, weft_error *err);
/* A text that can be tokenized: not too long, and valid UTF-8. */
weft_status wf_tokenizer_check(const char *text, size_t *len, weft_error *err);

#endif
