/* family.h - an adapter family is a set of tensors with a formula: what they add to a layer's
 * weight.
 *
 * A module of a file has tensors, and the dialect's table says what each of them is (WF_TENSOR_*).
 * The family whose `needs` are all there, and which knows every tensor that is there, is the
 * module's family. So families mix freely inside a file, and an unknown combination is rejected,
 * never guessed at.
 *
 * A new family is one file with one wf_family, and one row in WF_FAMILIES. Tensors that no family
 * has had before get their names here, in check.c and in the endings of the dialects that write
 * them. No other file asks which family a module is of: what differs between families is a member
 * of wf_family.
 *
 * A family computes (out, K) matrices with K = kernel * kernel * in ordered (ky, kx, in), in
 * float32; sums that decide something (norms, inverses) are in double.
 *
 *   form PAIR   scale * B A              side path: two thin products
 *   form KRON   scale * W1 (x) W2        side path: two small products, W1 X W2^T
 *   form DENSE  any matrix, of W or not  side path: one product as large as the layer's own
 *   form NORM   a normalisation's weight and bias
 *
 * A few tensors may stand beside those of any family (module.c): the magnitude, which makes the
 * module DoRA, a difference of the bias, and a bias in its place. */
#ifndef WF_FAMILY_H
#define WF_FAMILY_H

#include "adapter/adapter.h"
#include "adapter/view.h"

/* What a tensor of a module is. */
enum {
    WF_TENSOR_NONE,
    /* beside any family's own */
    WF_TENSOR_ALPHA, WF_TENSOR_MAGNITUDE, WF_TENSOR_DIFF_B,
    /* lowrank.c: LoRA, LoCon, Tucker, MoSLoRA, AdaLoRA */
    WF_TENSOR_DOWN, WF_TENSOR_UP, WF_TENSOR_MID, WF_TENSOR_MIXER, WF_TENSOR_LORA_E,
    WF_TENSOR_RANKNUM,
    WF_TENSOR_UP_BIAS,
    /* loha.c */
    WF_TENSOR_HADA_W1A, WF_TENSOR_HADA_W1B, WF_TENSOR_HADA_W2A, WF_TENSOR_HADA_W2B,
    WF_TENSOR_HADA_T1,
    WF_TENSOR_HADA_T2,
    /* lokr.c */
    WF_TENSOR_LOKR_W1, WF_TENSOR_LOKR_W1A, WF_TENSOR_LOKR_W1B, WF_TENSOR_LOKR_W2,
    WF_TENSOR_LOKR_W2A,
    WF_TENSOR_LOKR_W2B, WF_TENSOR_LOKR_T2,
    /* oft.c (LyCORIS, kohya), boft.c, oft_peft.c */
    WF_TENSOR_OFT_BLOCKS, WF_TENSOR_RESCALE, WF_TENSOR_OFT_R, WF_TENSOR_BOFT_R, WF_TENSOR_BOFT_S,
    /* ia3.c */
    WF_TENSOR_IA3_WEIGHT, WF_TENSOR_ON_INPUT, WF_TENSOR_IA3_L,
    /* glora.c */
    WF_TENSOR_GLORA_A1, WF_TENSOR_GLORA_A2, WF_TENSOR_GLORA_B1, WF_TENSOR_GLORA_B2,
    WF_TENSOR_GLORA_BM,
    /* full.c: a difference, a replacement, Custom Diffusion's compressed difference */
    WF_TENSOR_DIFF, WF_TENSOR_REPLACE, WF_TENSOR_REPLACE_B, WF_TENSOR_DELTA_U, WF_TENSOR_DELTA_V,
    /* norm.c */
    WF_TENSOR_W_NORM, WF_TENSOR_B_NORM,
    /* vera.c */
    WF_TENSOR_VERA_LAMBDA_B, WF_TENSOR_VERA_LAMBDA_D, WF_TENSOR_VERA_A, WF_TENSOR_VERA_B,
    /* fourierft.c, hra.c, shira.c */
    WF_TENSOR_SPECTRUM, WF_TENSOR_HRA_U, WF_TENSOR_SHIRA_WEIGHT, WF_TENSOR_SHIRA_INDICES,
    /* vblora.c: logits, or the best of them with their weights */
    WF_TENSOR_VB_LOGITS_A, WF_TENSOR_VB_LOGITS_B, WF_TENSOR_VB_INDICES_A, WF_TENSOR_VB_INDICES_B,
    WF_TENSOR_VB_WEIGHTS_A, WF_TENSOR_VB_WEIGHTS_B, WF_TENSOR_VB_BANK,
    /* c3a.c, miss.c, delora.c, gralora.c */
    WF_TENSOR_C3A_KERNEL, WF_TENSOR_MISS_BLOCK, WF_TENSOR_BONE_BLOCK,
    WF_TENSOR_DELORA_A, WF_TENSOR_DELORA_B, WF_TENSOR_DELORA_LAMBDA, WF_TENSOR_DELORA_NORM,
    WF_TENSOR_GRALORA_A, WF_TENSOR_GRALORA_B, WF_TENSOR_GRALORA_DOWN, WF_TENSOR_GRALORA_UP,
    /* randlora.c */
    WF_TENSOR_RANDLORA_LAMBDA, WF_TENSOR_RANDLORA_GAMMA, WF_TENSOR_RANDLORA_A,
    WF_TENSOR_RANDLORA_B,
    WF_TENSORS
};
/* A set of tensors. */
__extension__ typedef unsigned __int128 wf_tensor_set;
#define WF_BIT(tensor) ((wf_tensor_set)1 << (tensor))
_Static_assert(WF_TENSORS <= 128, "a module's set of tensors is kept in 128 bits");

enum { WF_FORM_PAIR = 1, WF_FORM_KRON, WF_FORM_DENSE, WF_FORM_NORM };

/* One module of an adapter. */
struct wf_module {
    const char      *key;      /* stem of the file's keys                                        */
    const char      *name;     /* canonical name, or the underscore name if `underscore`         */
    const struct wf_family *family;
    const wf_tensor *tensor[WF_TENSORS]; /* NULL for those that it has not                       */
    wf_tensor_set    shared;   /* those that it has with all modules of its family               */
    void            *extra;    /* what its family keeps besides (wf_family.extra_size bytes), or NULL */
    int32_t          rank;     /* 0 if the family has none                                       */
    int32_t          out;      /* 0: the family cannot tell without the layer (as are in, kernel) */
    int32_t          in;
    int32_t          kernel;   /* k, 1 for linear                                                */
    float            alpha;    /* as the file or its configuration says, else the rank           */
    float            scale;    /* what multiplies the family's product: alpha / rank, ...        */
    bool             has_alpha;
    bool             rslora;   /* alpha / sqrt(rank)                                             */
    bool             zero_alpha; /* its file says 0, which stands for the rank there             */
    bool             norm;     /* it is for a normalisation                                      */
    bool             underscore;
    bool             peft;     /* from a dialect in which tensors mean what PEFT means by them   */
    bool             peft_magnitude; /* the magnitude's own key is PEFT's: always of rows        */
    int32_t          alpha_source; /* WEFT_ALPHA_*                                               */
    const char      *alpha_key;  /* what it is called there, or NULL                             */
};

struct wf_settings;
struct wf_config;
struct wf_peft_writer;

/* One kind of adapter that PEFT has: how its configuration is read and written. */
typedef struct wf_peft_type {
    const char *name;          /* peft_type; NULL ends a list                                    */
    wf_tensor_set known_by;    /* each of its modules has one of these tensors                   */
    const char *rank;          /* what the configuration calls the rank at the start of training */
    const char *rank_patterns; /* the ranks of single modules by pattern; NULL: it has none      */
    const char *alpha;         /* what the configuration calls alpha; NULL: it has none          */
    bool        lora;          /* the rank must be the factors', and use_dora wants magnitudes   */
    bool        bare;          /* its tensors are parameters of their own: no ".weight" in keys  */
} wf_peft_type;

typedef struct wf_family wf_family;
struct wf_family {
    const char *name;      /* "loha": for reports and weft_has()                                 */
    const char *title;     /* "LoHa": for messages                                               */
    wf_tensor_set needs;   /* tensors that must be there                                         */
    wf_tensor_set any;     /* of these one at least, if any; shape() says what is missing beside */
    wf_tensor_set may;     /* tensors that may be there besides; the common ones always may      */
    bool        of_weight; /* Delta W depends on W                                               */
    bool      (*reads_weight)(const wf_module *m); /* of some modules it does; NULL: of none     */
    size_t      extra_size; /* bytes of wf_module.extra                                          */

    /* ---- reading: any member may be NULL, shape() excepted ---- */

    /* If tensors alone do not tell: is this module one of it? NULL: yes. Only asked with the
     * tensors above there. */
    bool (*takes)(const wf_module *m);
    /* May a tensor of this module have a dimension of 0? NULL: no. */
    bool (*may_be_empty)(const wf_module *m);
    /* Fill m->extra from the module's configuration; `config` is NULL if there is none, `path` is
     * the module's inside its component. */
    weft_status (*settle)(wf_module *m, const struct wf_settings *s, const struct wf_config *config,
                          const char *path, weft_error *err);
    /* Fill rank, out, in, kernel, scale and norm from the tensors' shapes and m->alpha; check that
     * they agree and that no product is beyond INT32_MAX. wf_module_fail() writes the line. At
     * open, so without a layer; alpha, has_alpha and m->extra are filled in already, and
     * wf_module_check_tensors() found nothing wrong. */
    weft_status (*shape)(wf_module *m, const char *source, weft_error *err);
    /* Is known what alpha is divided by, with a rank that the shapes do not show? NULL: yes. */
    bool (*divides)(const wf_module *m);
    /* What a file with such a module is called, if that is more than the family ("MoSLoRA"); NULL:
     * nothing. */
    const char *(*kind)(const wf_module *m);

    /* ---- tensors that a file leaves out because a seed gives them (complete.c) ---- */

    /* Does the module lack some? NULL: never. */
    bool (*lacks)(const wf_module *m);
    /* Make them for all modules of a component, of which m is one, `in` and `out` the most inputs
     * and outputs that any of them has: made[WF_TENSOR_*], in memory from the bag. */
    weft_status (*make)(const wf_module *m, size_t in, size_t out, wf_bag *bag,
                        const wf_tensor *made[WF_TENSORS], weft_error *err);

    /* ---- computing: form() and add() are always there ---- */

    /* Does it fit the layer? NULL: out, in and kernel are equal. For families that need the layer
     * to tell. */
    bool (*fits)(const wf_module *m, const wf_layer *l);
    /* Where it does not and outputs and inputs do not show why: what is said before the layer's
     * shape. NULL: that its blocks do not divide the inputs. */
    const char *misfit;
    /* WF_FORM_* of this module at this layer. */
    int32_t (*form)(const wf_module *m, const wf_layer *l);

    /* PAIR: rank at this layer (GLoRA has twice m->rank; NULL: m->rank) and its factors widened, in
     * the order of wf_stack: down (r, K), up transposed (r, out). Nothing is scaled. Either may be
     * NULL. */
    int32_t     (*pair_rank)(const wf_module *m);
    weft_status (*pair)(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err);
    /* KRON: o1 i1 o2 i2, then w1 (o1, i1) and w2 (o2, kernel * kernel * i2 ordered ky, kx, i2).
     * Nothing is scaled. */
    void        (*kron_size)(const wf_module *m, const wf_layer *l, int32_t size[4]);
    weft_status (*kron)(const wf_module *m, const wf_layer *l, float *w1, float *w2,
                        const weft_allocator *alloc, weft_error *err);

    /* dst (out, K) += c * Delta W, with the file's scale inside. `l` gives the base weight to
     * families that need it; its dtype is anything. `scale` replaces m->scale (K-LoRA may leave
     * alpha out). Not DoRA, not bias. NORM: dst is (out), the weight's difference. */
    weft_status (*add)(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err);
    /* The family's own difference of the bias, besides WF_TENSOR_DIFF_B (LoRA's up bias, PEFT's
     * (IA)^3): dst (out) += c * difference, and true; false, with dst untouched, if this module has
     * none. dst NULL only asks. NULL: no module has one. */
    bool (*add_bias)(const wf_module *m, const wf_layer *l, double scale, double c, float *dst);

    /* ---- writing (save.c): any member may be NULL ---- */

    uint32_t    dialects;  /* that have a form for it: 1 << WEFT_DIALECT_* each                   */
    const char *elsewhere; /* what a refusal for the other dialects adds: "in LyCORIS' form"     */
    /* Why one of `dialects` has no form for this module, NULL if it has one. NULL: it always
     * has. */
    const char *(*cannot_write)(const wf_module *m, int32_t dialect);
    /* What alpha means to this module, WF_ALPHA_*. NULL: WF_ALPHA_NONE. */
    int32_t (*alpha_means)(const wf_module *m);
    /* As which tensor this one is written, WF_TENSOR_NONE if not at all. NULL: as itself. */
    int32_t (*written_as)(const wf_module *m, int32_t tensor);
    /* The tensors, as bits, that this dialect has no word for and that are multiplied into
     * WF_TENSOR_DOWN. NULL: none. */
    wf_tensor_set (*folded)(const wf_module *m, int32_t dialect);
    /* Give the copy `t` of a tensor the shape that it has beside a layer of l's kind; its values
     * stay in their order. NULL: all stay as they are. */
    void (*shape_for)(const wf_module *m, const wf_layer *l, int32_t tensor, wf_tensor *t);

    /* PEFT's types of this family (settings are read by them), and the writer of their
     * configuration (save_config.c). */
    const wf_peft_type *peft_types;
    const wf_peft_type *(*peft_type)(const wf_module *m, int32_t dialect); /* NULL: the first */
    weft_status (*write_peft)(const struct wf_peft_writer *w);
};

enum {
    WF_ALPHA_NONE,  /* nothing: it is written only if the file has one */
    WF_ALPHA_SCALE, /* scale = alpha / rank                            */
    WF_ALPHA_LIMIT  /* a bound: 0 is written if the file has none      */
};

/* All families, in the order in which a module's tensors are held against them. */
#define WF_FAMILIES(row) \
    row(lora) row(loha) row(lokr) row(full) row(norm) row(oft) row(boft) row(ia3) row(glora) \
    row(oft_peft) row(boft_peft) row(ia3_peft) row(vera) row(fourierft) row(hra) row(shira) \
    row(vblora) \
    row(c3a) row(miss) row(delora) row(gralora) row(randlora)
#define WF_FAMILY_EXTERN(name) extern const wf_family wf_family_##name;
WF_FAMILIES(WF_FAMILY_EXTERN)
#undef WF_FAMILY_EXTERN

const wf_family *const *wf_families(size_t *count);
/* The family of a set of tensors (bits), NULL if none fits exactly. */
const wf_family *wf_family_of(wf_tensor_set tensors);
/* The family of a module, by its tensors and, if several share these, by their shapes; NULL as
 * above. */
const wf_family *wf_module_family(const wf_module *m);
/* Does a family that has one of these tensors of its own, and no tensor unknown to it, know this
 * one too? */
bool wf_family_shares(wf_tensor_set tensors, int32_t tensor);
/* PEFT's type of this name among all families', or NULL. */
const wf_peft_type *wf_peft_type_named(const char *name);

/* ---- module.c: what holds for a module of any family ----------------------------------------- */

/* Its family as reports have it: a magnitude makes it "dora". */
const char *wf_module_family_name(const wf_module *m);
/* Its form at a layer: the family's, or DENSE if a magnitude makes it DoRA. */
int32_t wf_module_form(const wf_module *m, const wf_layer *l);
bool    wf_module_fits(const wf_module *m, const wf_layer *l);
/* Rank of its pair, and the factors: what the family says (wf_family.pair). */
int32_t     wf_module_pair_rank(const wf_module *m);
weft_status wf_module_pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                           const weft_allocator *alloc, weft_error *err);
/* dst (out, K) += c * (W' - W). For DoRA W' = g V / |V|, V = W + inside * scale * Delta; `inside`
 * is 1 except under WEFT_ADD_PEFT_DORA. For the others c * Delta W. */
weft_status wf_module_add(const wf_module *m, const wf_layer *l, double scale, double inside,
                          double c, float *dst, const weft_allocator *alloc, weft_error *err);
/* dst (out) += c * difference of the bias; *any false, and dst untouched, if the module has none.
 * dst may be NULL. */
weft_status wf_module_add_bias(const wf_module *m, const wf_layer *l, double scale, double c,
                               float *dst, bool *any, weft_error *err);
/* Does W' - W depend on the base weight W: DoRA, the families that say so, a weight in W's
 * place? */
bool        wf_module_of_weight(const wf_module *m);
/* dst (out, K) += c * the family's own difference, without the magnitude that makes it DoRA. */
weft_status wf_module_add_inner(const wf_module *m, const wf_layer *l, double scale, double c,
                                float *dst, const weft_allocator *alloc, weft_error *err);
/* The family's kron(). */
weft_status wf_module_kron(const wf_module *m, const wf_layer *l, float *w1, float *w2,
                           const weft_allocator *alloc, weft_error *err);
/* Fill m->extra, which is zeroed; see wf_family.settle. */
weft_status wf_module_settle(wf_module *m, const struct wf_settings *s,
                             const struct wf_config *config, const char *path, weft_error *err);
/* The tensors that a module has, as bits. */
wf_tensor_set wf_module_tensors(const wf_module *m);
/* The usual scale, for shape() once m->rank is known: alpha / divisor, alpha / sqrt(divisor) for
 * rsLoRA. Without an alpha it is the rank. One of 0 is the rank too for kohya and LyCORIS, and
 * means 0 to PEFT and diffusers. */
void        wf_module_set_scale(wf_module *m, double divisor);

/* ---- slice.c: the same of a module at a slice of a layer --------------- */

/* Does the module act on all rows of the layer with all of its own? Then what follows is what
 * stands above. */
bool        wf_slice_whole(const wf_slice *b, const wf_layer *l);
bool        wf_slice_fits(const wf_slice *b, const wf_module *m, const wf_layer *l);
/* Part of a Kronecker product is a dense matrix. */
int32_t     wf_slice_form(const wf_slice *b, const wf_module *m, const wf_layer *l);
/* up is (r, l->out), 0 outside the slice's rows. */
weft_status wf_slice_pair(const wf_slice *b, const wf_module *m, const wf_layer *l, float *down,
                            float *up, const weft_allocator *alloc, weft_error *err);
weft_status wf_slice_add(const wf_slice *b, const wf_module *m, const wf_layer *l, double scale,
                           double inside, double c, float *dst, const weft_allocator *alloc,
                           weft_error *err);
weft_status wf_slice_add_bias(const wf_slice *b, const wf_module *m, const wf_layer *l,
                                double scale, double c, float *dst, bool *any,
                                const weft_allocator *alloc, weft_error *err);

/* ---- dora.c: a magnitude beside a family's own difference ------------------------------------ */

/* Is the magnitude as long as the layer's rows or columns, and is it of rows? */
bool wf_dora_fits(const wf_module *m, const wf_layer *l);
bool wf_dora_rows(const wf_module *m, const wf_layer *l);
/* norm (out) of V's rows (out, K), or (in) of its columns over outputs and kernel. */
void wf_dora_norms(double *norm, const float *V, const wf_layer *l, bool rows);

/* ---- check.c: what a module's tensors must be, and how messages speak of them ---------------- */

/* "<source>: <key>: <text>" as WEFT_E_FORMAT, for what shapes say together: shapes go through
 * wf_shape(). */
weft_status wf_module_fail(const wf_module *m, const char *source, weft_error *err,
                           const char *format, ...)
    WF_PRINTF(4, 5);
/* "<source>: <key> is <shape>, wanted ..." as WEFT_E_FORMAT: t the tensor that is wrong. */
weft_status wf_module_wrong_shape(const wf_tensor *t, const char *source, const char *wanted,
                                  weft_error *err);
/* Rank 1..4 and dims 1..INT32_MAX of every tensor, floating point; one number of any type for
 * alpha, ranknum and on_input. Checked before shape() is called. */
weft_status wf_module_check_tensors(const wf_module *m, const char *source, weft_error *err);
/* Refuse a tensor with NaN or infinity, naming key and index; of a module those that it does not
 * share. */
weft_status wf_tensor_check_finite(const wf_tensor *t, const char *source, weft_error *err);
weft_status wf_module_check_finite(const wf_module *m, const char *source, weft_error *err);
/* Up to here a float holds every whole number. */
enum { WF_INDICES_END = 1 << 24 };
/* Refuse values of t[from, from + n) that are no whole numbers from 0 to `end`, without that. */
weft_status wf_tensor_check_indices(const wf_tensor *t, size_t from, size_t n, double end,
                                    const char *source, weft_error *err);
/* How messages call a tensor: "lora_down", "hada_w1_a". */
const char *wf_tensor_role(int32_t tensor);
/* Is it a factor, rather than a single number or indices? */
bool        wf_tensor_is_factor(int32_t tensor);

#endif
