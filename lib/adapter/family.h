/* family.h - an adapter family is a set of tensors with a formula: what they add to a layer's weight.
 *
 * A module of a file is a bag of tensors, each with a part (WF_PART_*) that the dialect's table gave it. The
 * family whose `needs` are all there, and which knows every part that is there, is the module's family: so
 * families mix freely inside a file, and one that nobody knows is an error, never a guess. A new family is one
 * file with one wf_family, its parts below, and a row in families.c.
 *
 * What a family computes, it computes for (out, K) matrices with K = kernel * kernel * in ordered (ky, kx, in),
 * in float32, sums in double where they decide (norms, inverses).
 *
 *   form PAIR   scale * B A              side path: two thin products
 *   form KRON   scale * W1 (x) W2        side path: two small products, W1 X W2^T
 *   form DENSE  any matrix, of W or not  side path: one product as large as the layer's own
 *   form NORM   a normalisation's weight and bias
 *
 * Some parts are common to all families and not their business (module.c): the magnitude, which makes the module
 * DoRA whatever its inner family is, a difference of the bias, and a bias in its place. */
#ifndef WF_FAMILY_H
#define WF_FAMILY_H

#include "adapter/adapter.h"

/* What a tensor of a module is. */
enum {
    WF_PART_NONE,
    /* common */
    WF_PART_ALPHA, WF_PART_MAGNITUDE, WF_PART_DIFF_B,
    /* lowrank.c: LoRA, LoCon, Tucker, MoSLoRA, AdaLoRA */
    WF_PART_DOWN, WF_PART_UP, WF_PART_MID, WF_PART_MIXER, WF_PART_LORA_E, WF_PART_RANKNUM, WF_PART_UP_BIAS,
    /* loha.c */
    WF_PART_HADA_W1A, WF_PART_HADA_W1B, WF_PART_HADA_W2A, WF_PART_HADA_W2B, WF_PART_HADA_T1, WF_PART_HADA_T2,
    /* lokr.c */
    WF_PART_LOKR_W1, WF_PART_LOKR_W1A, WF_PART_LOKR_W1B, WF_PART_LOKR_W2, WF_PART_LOKR_W2A, WF_PART_LOKR_W2B,
    WF_PART_LOKR_T2,
    /* oft.c (LyCORIS, kohya), boft.c, oft_peft.c */
    WF_PART_OFT_BLOCKS, WF_PART_RESCALE, WF_PART_OFT_R, WF_PART_BOFT_R, WF_PART_BOFT_S,
    /* ia3.c */
    WF_PART_IA3_WEIGHT, WF_PART_ON_INPUT, WF_PART_IA3_L,
    /* glora.c */
    WF_PART_GLORA_A1, WF_PART_GLORA_A2, WF_PART_GLORA_B1, WF_PART_GLORA_B2, WF_PART_GLORA_BM,
    /* full.c: a difference, a replacement, Custom Diffusion's compressed difference */
    WF_PART_DIFF, WF_PART_REPLACE, WF_PART_REPLACE_B, WF_PART_DELTA_U, WF_PART_DELTA_V,
    /* norm.c */
    WF_PART_W_NORM, WF_PART_B_NORM,
    WF_PARTS
};
#define WF_BIT(part) ((uint64_t)1 << (part))

enum { WF_FORM_PAIR = 1, WF_FORM_KRON, WF_FORM_DENSE, WF_FORM_NORM };

/* One module of an adapter. */
struct wf_module {
    const char      *key;      /* stem of the file's keys                                        */
    const char      *name;     /* canonical name, or the underscore name when `underscore`       */
    const struct wf_family *family;
    const wf_tensor *part[WF_PARTS]; /* NULL where the file has none                             */
    int32_t          rank;     /* 0 where the family has none                                    */
    int32_t          out;      /* 0: the family cannot tell without the layer (as are in, kernel) */
    int32_t          in;
    int32_t          kernel;   /* k, 1 for linear                                                */
    float            alpha;    /* as the file or its configuration says, else the rank           */
    float            scale;    /* what multiplies the family's product: alpha / rank, ...        */
    bool             has_alpha;
    bool             rslora;   /* alpha / sqrt(rank)                                             */
    bool             underscore;
    bool             peft;     /* in PEFT's or diffusers' spelling: LoKr's scale is told by it   */
    bool             peft_magnitude; /* the magnitude's own key is PEFT's: always of rows        */
    bool             feedforward; /* PEFT's (IA)^3: the factor scales the input (its config); only asked of convolutions */
    int32_t          init_rank; /* PEFT's r, AdaLoRA's init_r, as the config says: what alpha is divided by where the
                                   tensors do not tell; 0: not told                               */
    int32_t          neumann;  /* PEFT's OFT: terms of the series (num_cayley_neumann_terms); 0: the exact inverse */
    float            coft;     /* PEFT's OFT: its config's eps where it says coft; 0: no bound    */
};

struct wf_family {
    const char *name;   /* "loha": for reports and weft_has()                */
    const char *title;  /* "LoHa": for messages                              */
    uint64_t    needs;  /* parts that must be there                          */
    uint64_t    any;    /* of these one at least, where not 0; shape() says what is missing beside it */
    bool        of_weight; /* Delta W depends on W                                */
    uint64_t    may;    /* parts that may be there besides (common ones always may, unless a family cannot be DoRA) */

    /* Where parts alone do not tell, is this module one of it? NULL: yes. Only asked with the parts above there. */
    bool (*takes)(const wf_module *m);
    /* Fill rank, out, in, kernel and scale from the tensors' shapes and m->alpha; check that they agree and that
     * no product is beyond INT32_MAX. wf_module_fail() writes the line. At open, so without a layer; alpha, has_alpha and
     * what configurations say are filled in already, and wf_module_check_parts() found nothing wrong. */
    weft_status (*shape)(wf_module *m, const char *source, weft_error *err);
    /* Does it fit the layer? NULL: out, in and kernel are equal. For families that need the layer to tell. */
    bool (*fits)(const wf_module *m, const wf_layer *l);
    /* WF_FORM_* of this module at this layer. */
    int32_t (*form)(const wf_module *m, const wf_layer *l);

    /* PAIR: rank at this layer (GLoRA has twice m->rank; NULL: m->rank) and its factors widened, in the order of wf_stack:
     * down (r, K), up transposed (r, out). Nothing is scaled. Either may be NULL. */
    int32_t     (*pair_rank)(const wf_module *m);
    weft_status (*pair)(const wf_module *m, const wf_layer *l, float *down, float *up, const weft_allocator *alloc,
                        weft_error *err);
    /* KRON: o1 i1 o2 i2, then w1 (o1, i1) and w2 (o2, kernel * kernel * i2 ordered ky, kx, i2). Nothing is scaled. */
    void        (*kron_size)(const wf_module *m, const wf_layer *l, int32_t size[4]);
    weft_status (*kron)(const wf_module *m, const wf_layer *l, float *w1, float *w2, const weft_allocator *alloc,
                        weft_error *err);

    /* dst (out, K) += c * Delta W, with the file's scale inside; every family has it. `l` gives the base weight to families
     * that need it; its dtype is anything. `scale` replaces m->scale (K-LoRA may leave alpha out). Not DoRA, not bias.
     * NORM: dst is (out), the weight's difference. */
    weft_status (*add)(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err);
    /* The family's own difference of the bias, besides WF_PART_DIFF_B (LoRA's up bias, PEFT's (IA)^3, a replaced one):
     * dst (out) += c * difference, and true; false, with dst untouched, where this module has none. dst NULL only asks.
     * NULL: no module has one. */
    bool (*add_bias)(const wf_module *m, const wf_layer *l, double scale, double c, float *dst);
};
typedef struct wf_family wf_family;

/* All families (families.c), in the order in which a module's parts are held against them. */
const wf_family *const *wf_families(size_t *count);
/* The family of a set of parts (bits), NULL where none fits exactly. */
const wf_family *wf_family_of(uint64_t parts);
/* The family of a module, by its parts and where these are shared by its shapes; NULL as above. */
const wf_family *wf_module_family(const wf_module *m);

extern const wf_family wf_family_lora;      /* lowrank.c */
extern const wf_family wf_family_loha, wf_family_lokr, wf_family_glora, wf_family_oft, wf_family_boft,
    wf_family_oft_peft, wf_family_boft_peft, wf_family_ia3, wf_family_ia3_peft, wf_family_full, wf_family_norm;

/* ---- module.c: what holds for a module of any family -------------------------------------------------- */

/* Its form at a layer: the family's, or DENSE where a magnitude makes it DoRA. */
int32_t wf_module_form(const wf_module *m, const wf_layer *l);
bool    wf_module_fits(const wf_module *m, const wf_layer *l);
/* Rank of its pair, and the factors: what the family says (wf_family.pair). */
int32_t     wf_module_pair_rank(const wf_module *m);
weft_status wf_module_pair(const wf_module *m, const wf_layer *l, float *down, float *up, const weft_allocator *alloc,
                           weft_error *err);
/* dst (out, K) += c * (W' - W). For DoRA W' = g V / |V|, V = W + inside * scale * Delta; `inside` is 1 but under
 * WEFT_ADD_PEFT_DORA. For the others c * Delta W. */
weft_status wf_module_add(const wf_module *m, const wf_layer *l, double scale, double inside, double c, float *dst,
                          const weft_allocator *alloc, weft_error *err);
/* dst (out) += c * difference of the bias; *any false, and dst untouched, where the module has none. dst may be NULL. */
weft_status wf_module_add_bias(const wf_module *m, const wf_layer *l, double scale, double c, float *dst, bool *any,
                               weft_error *err);
/* Does W' - W depend on the base weight W: DoRA, the families that say so, a weight in W's place? */
bool        wf_module_of_weight(const wf_module *m);
/* dst (out, K) += c * the family's own difference, without the magnitude that makes it DoRA. */
weft_status wf_module_add_inner(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                                const weft_allocator *alloc, weft_error *err);
/* The family's kron(). */
weft_status wf_module_kron(const wf_module *m, const wf_layer *l, float *w1, float *w2, const weft_allocator *alloc,
                           weft_error *err);
/* dora.c: the sum above where there is a magnitude, and whether that is as long as the layer's rows or columns. */
bool        wf_dora_fits(const wf_module *m, const wf_layer *l);
bool        wf_dora_rows(const wf_module *m, const wf_layer *l); /* is the magnitude of rows? */
/* norm (out) of V's rows (out, K), or (in) of its columns over outputs and kernel. */
void        wf_dora_norms(double *norm, const float *V, const wf_layer *l, bool rows);
weft_status wf_dora_add(const wf_module *m, const wf_layer *l, double scale, double inside, double c, float *dst,
                        const weft_allocator *alloc, weft_error *err);

/* ---- for the families' files --------------------------------------------------------------------------- */

/* The usual scale, for shape() once m->rank is known: alpha / divisor, alpha / sqrt(divisor) for rsLoRA. Without an
 * alpha it is the rank. One of 0 is the rank too for kohya and LyCORIS, and means 0 to PEFT and diffusers. */
void        wf_module_set_scale(wf_module *m, double divisor);
/* "<source>: <key>: <text>" as WEFT_E_FORMAT, for what shapes say together: shapes go through wf_shape(). */
weft_status wf_module_fail(const wf_module *m, const char *source, weft_error *err, const char *format, ...)
    WF_PRINTF(4, 5);

/* "<source>: <key>.<part>... <text>" as WEFT_E_FORMAT: t the tensor that is wrong, with its shape, and what was wanted. */
weft_status wf_module_misshapen(const wf_module *m, const wf_tensor *t, const char *source, const char *wanted,
                                weft_error *err);
/* Rank 1..4 and dims 1..INT32_MAX of every part present, floating point; one number of any type for alpha, ranknum and
 * on_input. Checked before shape() is called. */
weft_status wf_module_check_parts(const wf_module *m, const char *source, weft_error *err);
/* Refuse a tensor with NaN or infinity, naming key and index. */
weft_status wf_module_check_finite(const wf_module *m, const char *source, weft_error *err);
/* How messages call a part: "lora_down", "hada_w1_a". */
const char *wf_part_name(int32_t part);
/* The parts that a module has, as bits. */
uint64_t    wf_module_parts(const wf_module *m);
/* n floats of t from element `from`. */
void        wf_tensor_read(const wf_tensor *t, size_t from, size_t n, float *dst);
/* dst (columns, rows) = t (rows, columns): rows become columns. */
void        wf_tensor_transposed(const wf_tensor *t, size_t rows, size_t columns, float *dst);
/* dst (r, k * k, in) = t (r, in, k, k): the order of the networks. */
void        wf_tensor_channels_last(const wf_tensor *t, size_t r, size_t in, size_t kk, float *dst);
/* w (n, K) = rows [from, from + n) of the layer's base weight widened, K ordered (ky, kx, in) (factor.c). */
void        wf_layer_rows(const wf_layer *l, size_t from, size_t n, float *w);
/* One value of a 0-d or 1-element tensor. */
float       wf_tensor_scalar(const wf_tensor *t);

#endif
