/* save_config.c - PEFT's configuration of one component, so that PEFT makes the modules into which the tensors fit.
 *
 * PEFT has one configuration for all modules: one family, one way to cut layers, ranks and alphas by patterns. It makes
 * its modules from these numbers before it looks at a tensor, so what follows goes its way and asks of every module
 * whether the same would come out; where no configuration does that, the adapter is refused rather than written into a
 * file that PEFT cannot open. */
#include "adapter/save.h"

typedef struct scribe {
    const wf_saver *s;
    int32_t         component;
    const char     *prefix;
    wf_text        *out;
} scribe;

/* ---- members ----------------------------------------------------------------------------------------------- */

/* The key of one more member, after a comma where one is needed. */
static void key(const scribe *w, const char *name)
{
    bool first = w->out->len > 0 && w->out->s[w->out->len - 1] == '{';
    wf_text_add(w->out, "%s\n  \"%s%s\": ", first ? "" : ",", w->prefix, name);
}

static void put_text(const scribe *w, const char *name, const char *value)
{
    key(w, name);
    wf_text_add(w->out, "\"%s\"", value);
}

static void put_bool(const scribe *w, const char *name, bool value)
{
    key(w, name);
    wf_text_add(w->out, "%s", value ? "true" : "false");
}

static void put_value(const scribe *w, const char *name, double value)
{
    wf_number_text n;

    key(w, name);
    wf_text_add(w->out, "%s", wf_number(&n, value));
}

/* Module `i` of the component, from `from` on; the count of all where there is none. */
static size_t next_module(const scribe *w, size_t from)
{
    while (from < w->s->a->count && (wf_saver_layer(w->s, from)->component != w->component ||
                                     wf_saver_skips(w->s, &w->s->a->modules[from])))
        from++;
    return from;
}

static const wf_module *module_at(const scribe *w, size_t i)
{
    return &w->s->a->modules[i];
}

/* PEFT takes a path for the end of one, so that without a text encoder's text_model it finds a module both where that is
 * in its path (transformers 4, and encoders with a projection) and where it is not. */
static const char *path_at(const scribe *w, size_t i)
{
    static const char head[] = "text_model.";
    const char       *path = wf_saver_path(wf_saver_layer(w->s, i));

    return w->component > 0 && strncmp(path, head, sizeof head - 1) == 0 ? path + sizeof head - 1 : path;
}

#define EACH(w, i) (size_t i = next_module(w, 0); i < (w)->s->a->count; i = next_module(w, i + 1))

/* A list of the paths for which `is` holds; all where it is NULL. */
static void put_paths(const scribe *w, const char *name, bool (*is)(const wf_module *))
{
    bool first = true;

    key(w, name);
    wf_text_add(w->out, "[");
    for EACH(w, i) {
        if (is != NULL && !is(module_at(w, i))) continue;
        wf_text_add(w->out, "%s\"%s\"", first ? "" : ", ", path_at(w, i));
        first = false;
    }
    wf_text_add(w->out, "]");
}

/* A number for each module: the first one's for all, and a pattern for those that have another. */
static void put_numbers(const scribe *w, const char *name, const char *patterns,
                        double (*number)(const scribe *, size_t))
{
    double common = number(w, next_module(w, 0));
    bool   first = true;

    put_value(w, name, common);
    key(w, patterns);
    wf_text_add(w->out, "{");
    for EACH(w, i) {
        wf_number_text n;
        if (number(w, i) == common) continue;
        wf_text_add(w->out, "%s\"%s\": %s", first ? "" : ", ", path_at(w, i), wf_number(&n, number(w, i)));
        first = false;
    }
    wf_text_add(w->out, "}");
}

static void put_common(const scribe *w, const char *type, const char *init)
{
    put_text(w, "peft_type", type);
    put_paths(w, "target_modules", NULL);
    put_bool(w, "inference_mode", true);
    put_bool(w, init, true);
}

static weft_status refuse(const scribe *w, size_t i, const char *why)
{
    wf_key_text k;
    return wf_fail(w->s->err, WEFT_E_UNSUPPORTED, "%s: %s %s: PEFT's configuration has no way to say it", w->s->a->name,
                   wf_key_show(&k, module_at(w, i)->key), why);
}

/* ---- LoRA and AdaLoRA ------------------------------------------------------------------------------------------- */

static double rank_of(const scribe *w, size_t i)
{
    return module_at(w, i)->rank;
}

static double alpha_of(const scribe *w, size_t i)
{
    const wf_module *m = module_at(w, i);
    return (double)wf_alpha_for(m, m->rank);
}

static double stored_alpha(const scribe *w, size_t i)
{
    return (double)module_at(w, i)->alpha;
}

static weft_status lora(const scribe *w)
{
    const wf_module *one = module_at(w, next_module(w, 0));
    bool             dora = one->part[WF_PART_MAGNITUDE] != NULL, rslora = true, bias = false;

    for EACH(w, i) {
        const wf_module *m = module_at(w, i);
        if ((m->part[WF_PART_MAGNITUDE] != NULL) != dora)
            return refuse(w, i, dora ? "has no magnitude, but others have" : "has a magnitude, but others have not");
        rslora = rslora && m->rslora;
        bias = bias || m->part[WF_PART_UP_BIAS] != NULL;
    }
    put_common(w, "LORA", "init_lora_weights");
    put_numbers(w, "r", "rank_pattern", rank_of);
    put_numbers(w, "lora_alpha", "alpha_pattern", rslora ? stored_alpha : alpha_of);
    put_bool(w, "use_rslora", rslora);
    put_bool(w, "use_dora", dora);
    put_bool(w, "lora_bias", bias);
    put_text(w, "bias", "none");
    put_value(w, "lora_dropout", 0);
    return WEFT_OK;
}

static int32_t first_rank(const wf_module *m)
{
    return m->init_rank > 0 ? m->init_rank : m->rank;
}

/* What pruning left of a module's triplets: the first ones, as the tensors have them. */
static void put_pruned(const scribe *w)
{
    bool first = true;

    key(w, "rank_pattern");
    wf_text_add(w->out, "{");
    for EACH(w, i) {
        const wf_module *m = module_at(w, i);
        if (m->rank == first_rank(m)) continue;
        wf_text_add(w->out, "%s\"%s.lora_E\": [", first ? "" : ", ", wf_saver_path(wf_saver_layer(w->s, i)));
        for (int32_t p = 0; p < first_rank(m); p++)
            wf_text_add(w->out, "%s%s", p > 0 ? ", " : "", p < m->rank ? "true" : "false");
        wf_text_add(w->out, "]");
        first = false;
    }
    wf_text_add(w->out, "}");
}

static weft_status adalora(const scribe *w)
{
    const wf_module *one = module_at(w, next_module(w, 0));

    for EACH(w, i) {
        const wf_module *m = module_at(w, i);
        if (first_rank(m) != first_rank(one) || m->alpha != one->alpha)
            return refuse(w, i, "began with another rank or alpha than the others");
        if (first_rank(m) < m->rank || first_rank(m) > 1 << 20) return refuse(w, i, "has more triplets than it began with");
        if (m->part[WF_PART_MAGNITUDE] != NULL) return refuse(w, i, "has a magnitude beside AdaLoRA's weights");
    }
    put_common(w, "ADALORA", "init_lora_weights");
    put_value(w, "init_r", first_rank(one));
    put_value(w, "target_r", first_rank(one));
    put_value(w, "lora_alpha", (double)one->alpha);
    put_pruned(w);
    put_value(w, "tinit", 0); /* its schedule of training, which must make sense */
    put_value(w, "tfinal", 0);
    put_value(w, "total_step", 1);
    return WEFT_OK;
}

/* ---- LoHa and LoKr ----------------------------------------------------------------------------------------------- */

/* A Tucker core in all convolutions larger than 1x1 whose inner factor is one of two, or in none. */
static weft_status find_tucker(const scribe *w, int32_t core, int32_t inner, bool *tucker)
{
    *tucker = false;
    for EACH(w, i) *tucker = *tucker || module_at(w, i)->part[core] != NULL;
    for EACH(w, i) {
        const wf_module *m = module_at(w, i);
        bool             could = wf_saver_layer(w->s, i)->kernel > 1 && m->part[inner] != NULL;
        if ((m->part[core] != NULL) != (*tucker && could))
            return refuse(w, i, "has its kernel's core where others have none, or none where they have one");
    }
    return WEFT_OK;
}

static weft_status loha(const scribe *w)
{
    bool tucker;

    WF_TRY(find_tucker(w, WF_PART_HADA_T1, WF_PART_HADA_W1B, &tucker));
    put_common(w, "LOHA", "init_weights");
    put_numbers(w, "r", "rank_pattern", rank_of);
    put_numbers(w, "alpha", "alpha_pattern", alpha_of);
    put_bool(w, "use_effective_conv2d", tucker);
    return WEFT_OK;
}

/* How PEFT cuts a dimension into two factors: by the factor where that divides it, else the nearest to a square whose
 * smaller is not above the factor; -1 means no bound. */
static void cut(int32_t dimension, int32_t factor, int32_t *one, int32_t *other)
{
    int32_t limit = factor < 0 ? dimension : factor;

    *one = 1;
    *other = dimension;
    if (factor > 0 && dimension % factor == 0) {
        *one = factor;
        *other = dimension / factor;
        return;
    }
    for (int64_t length = (int64_t)dimension + 1; *one < *other;) {
        int32_t next = *one + 1;
        while (dimension % next != 0) next++;
        if ((int64_t)next + dimension / next > length || next > limit) return;
        *one = next;
        *other = dimension / next;
    }
    if (*one > *other) {
        *other = *one;
        *one = dimension / *other;
    }
}

/* The rank that PEFT must be told: where both factors are whole, one that leaves them so. */
static int32_t kron_rank(const scribe *w, size_t i)
{
    const wf_module *m = module_at(w, i);
    int32_t          size[4];

    if (m->rank > 0) return m->rank;
    m->family->kron_size(m, wf_saver_layer(w->s, i), size);
    return WF_MAX(m->init_rank, WF_MAX(WF_MAX(size[0], size[1]), WF_MAX(size[2], size[3])));
}

static double kron_rank_of(const scribe *w, size_t i)
{
    return kron_rank(w, i);
}

static double kron_alpha_of(const scribe *w, size_t i)
{
    return (double)wf_alpha_for(module_at(w, i), kron_rank(w, i));
}

/* Would PEFT cut this module's layer as its tensors are, and leave whole what is whole? */
static bool cuts(const scribe *w, size_t i, int32_t factor, bool both)
{
    const wf_module *m = module_at(w, i);
    const wf_layer  *l = wf_saver_layer(w->s, i);
    int32_t          size[4], o1, o2, i1, i2, r = kron_rank(w, i);

    m->family->kron_size(m, l, size);
    cut(l->out, factor, &o1, &o2);
    cut(l->in, factor, &i1, &i2);
    if (size[0] != o1 || size[1] != i1 || size[2] != o2 || size[3] != i2) return false;
    return (m->part[WF_PART_LOKR_W1] == NULL) == (both && 2 * (int64_t)r < WF_MAX(o1, i1)) &&
           (m->part[WF_PART_LOKR_W2] == NULL) == (2 * (int64_t)r < WF_MAX(o2, i2));
}

static bool factor_for_all(const scribe *w, int32_t factor, bool both)
{
    for EACH(w, i)
        if (!cuts(w, i, factor, both)) return false;
    return true;
}

static weft_status lokr(const scribe *w)
{
    int32_t factor = -1, found = 0;
    bool    both = false, tucker;

    WF_TRY(find_tucker(w, WF_PART_LOKR_T2, WF_PART_LOKR_W2B, &tucker));
    for EACH(w, i) both = both || module_at(w, i)->part[WF_PART_LOKR_W1A] != NULL;
    for (; factor <= 1024 && found == 0; factor++)
        if (factor != 0 && factor_for_all(w, factor, both)) found = factor;
    if (found == 0) return refuse(w, next_module(w, 0), "and the others are cut in ways that no one factor gives");
    put_common(w, "LOKR", "init_weights");
    put_numbers(w, "r", "rank_pattern", kron_rank_of);
    put_numbers(w, "alpha", "alpha_pattern", kron_alpha_of);
    put_bool(w, "decompose_both", both);
    put_value(w, "decompose_factor", found);
    put_bool(w, "use_effective_conv2d", tucker);
    return WEFT_OK;
}

/* ---- OFT, BOFT and (IA)^3 ------------------------------------------------------------------------------------------ */

static int64_t columns_at(const scribe *w, size_t i)
{
    const wf_layer *l = wf_saver_layer(w->s, i);
    return (int64_t)l->in * l->kernel * l->kernel;
}

/* b of rows with b (b - 1) / 2 values. */
static int64_t block_at(const scribe *w, size_t i)
{
    int64_t packed = module_at(w, i)->part[WF_PART_OFT_R]->shape[1], b = 2;
    while (b * (b - 1) / 2 < packed) b++;
    return b;
}

/* What PEFT takes for a size, or a number, of blocks that does not divide the columns: the nearest that does, the smaller
 * first. */
static int64_t adjusted(int64_t columns, int64_t wanted)
{
    int64_t low = wanted, high = wanted;

    if (wanted >= columns) return columns;
    while (columns % high != 0) high++;
    while (low > 1 && columns % low != 0) low--;
    return wanted - low <= high - wanted ? low : high;
}

static bool block_for_all(const scribe *w, int64_t block)
{
    for EACH(w, i)
        if (adjusted(columns_at(w, i), block) != block_at(w, i)) return false;
    return true;
}

static bool blocks_for_all(const scribe *w, int64_t blocks)
{
    for EACH(w, i) {
        int64_t K = columns_at(w, i);
        if (K / adjusted(K, blocks) != block_at(w, i)) return false;
    }
    return true;
}

static weft_status oft(const scribe *w)
{
    const wf_module *one = module_at(w, next_module(w, 0));
    bool             shared = false;
    int64_t          block = 0, blocks = 0; /* PEFT wants one of the two */

    for EACH(w, i) {
        int64_t r = columns_at(w, i) / block_at(w, i);
        if (block == 0 && blocks == 0 && blocks_for_all(w, r)) blocks = r;
        shared = shared || (module_at(w, i)->part[WF_PART_OFT_R]->shape[0] == 1 && columns_at(w, i) != block_at(w, i));
        if (block == 0 && block_for_all(w, block_at(w, i))) block = block_at(w, i);
    }
    if (block == 0 && blocks == 0)
        return refuse(w, next_module(w, 0), "and the others have blocks of sizes that no one size gives");
    for EACH(w, i)
        if (shared && module_at(w, i)->part[WF_PART_OFT_R]->shape[0] != 1)
            return refuse(w, i, "has a block of each, where others share one");
    put_common(w, "OFT", "init_weights");
    put_value(w, "r", block > 0 ? 0 : (double)blocks);
    put_value(w, "oft_block_size", (double)block);
    put_bool(w, "block_share", shared);
    put_bool(w, "coft", one->coft > 0);
    put_value(w, "eps", one->coft > 0 ? (double)one->coft : 6e-5);
    put_bool(w, "use_cayley_neumann", one->neumann > 0);
    put_value(w, "num_cayley_neumann_terms", one->neumann > 0 ? one->neumann : 5);
    put_text(w, "bias", "none");
    put_text(w, "peft_version", "0.18.0"); /* the first whose series this is */
    return WEFT_OK;
}

static weft_status boft(const scribe *w)
{
    const wf_tensor *one = module_at(w, next_module(w, 0))->part[WF_PART_BOFT_R];

    for EACH(w, i) {
        const wf_tensor *t = module_at(w, i)->part[WF_PART_BOFT_R];
        if (t->shape[0] != one->shape[0] || t->shape[2] != one->shape[2])
            return refuse(w, i, "has other stages or blocks than the others");
    }
    put_common(w, "BOFT", "init_weights");
    put_value(w, "boft_block_size", (double)one->shape[2]);
    put_value(w, "boft_block_num", 0);
    put_value(w, "boft_n_butterfly_factor", (double)one->shape[0]);
    put_text(w, "bias", "none");
    return WEFT_OK;
}

static bool scales_input(const wf_module *m)
{
    return m->in > 0;
}

static weft_status ia3(const scribe *w)
{
    put_common(w, "IA3", "init_ia3_weights");
    put_paths(w, "feedforward_modules", scales_input);
    return WEFT_OK;
}

/* ---- which ----------------------------------------------------------------------------------------------------------- */

static weft_status (*writer_of(const wf_saver *s, const wf_module *m))(const scribe *)
{
    if (m->family == &wf_family_loha) return loha;
    if (m->family == &wf_family_lokr) return lokr;
    if (m->family == &wf_family_oft_peft) return oft;
    if (m->family == &wf_family_boft_peft) return boft;
    if (m->family == &wf_family_ia3_peft) return ia3;
    return m->part[WF_PART_LORA_E] != NULL && s->naming == WEFT_NAMING_PEFT ? adalora : lora;
}

weft_status wf_saver_config(const wf_saver *s, int32_t component, const char *prefix, wf_text *out)
{
    scribe w = { s, component, prefix, out };
    size_t one = next_module(&w, 0);

    for EACH(&w, i)
        if (writer_of(s, module_at(&w, i)) != writer_of(s, module_at(&w, one)))
            return refuse(&w, i, "is of another family than the component's first");
    return writer_of(s, module_at(&w, one))(&w);
}
