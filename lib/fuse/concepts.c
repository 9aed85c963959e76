/* concepts.c - what each concept changes, which prompts speak of it, and the plans that show it.
 *
 * A concept is given as a sealed plan, so anything that a plan can do to weights is a concept: one
 * adapter or several, with weights by block, a whole weight in W's place. The plan is folded into
 * one adapter first; from then on there is one D_i for each layer. Its tokens stay its own: stages
 * make plans that take them over. */
#include "adapter/family.h"
#include "fuse/fuse_internal.h"
#include "model/networks.h"
#include "model/prompt.h"

enum { PROMPTS_MAX = 4096, NAME_BYTES = 1000 };

/* ---- layers ---------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_keys(const char *layer)
{
    return ends_with(layer, ".attn2.to_k") || ends_with(layer, ".attn2.to_v");
}

wf_fuse_stage wf_fuse_stage_of(const wf_layer *l)
{
    if (wf_is_text(l->component)) return WF_FUSE_TEXT;
    return is_keys(l->name) ? WF_FUSE_KEYS : WF_FUSE_IMAGES;
}

/* The concept's slices at a layer: the first, and how many. */
static size_t slices_at(const wf_fuse_concept *c, int32_t layer, size_t *count)
{
    size_t low = 0, high = c->slices, end;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->slice[mid].layer < layer) low = mid + 1;
        else high = mid;
    }
    for (end = low; end < c->slices && c->slice[end].layer == layer;) end++;
    *count = end - low;
    return low;
}

bool wf_fuse_acts(const wf_fuse_concept *c, const wf_layer *l)
{
    size_t count;

    (void)slices_at(c, l->id, &count);
    return count > 0;
}

weft_status wf_fuse_difference(const weft_fuse *f, const wf_fuse_concept *c, const wf_layer *l,
                               float *D, bool *any, weft_error *err)
{
    size_t count, at = slices_at(c, l->id, &count);
    size_t floats = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;

    *any = count > 0;
    if (count > 0) memset(D, 0, floats * sizeof *D);
    for (; count > 0; at++, count--) {
        const wf_module *m = wf_adapter_module(c->adapter, (size_t)c->slice[at].module);
        WF_TRY(wf_slice_add(&c->slice[at], m, l, m->scale, 1, 1, D, &f->alloc, err));
    }
    return WEFT_OK;
}

/* The module of its pair at a layer; NULL: there is none. */
static const wf_module *pair_at(const wf_fuse_concept *c, const wf_layer *l, const wf_slice **slice)
{
    size_t count, at = slices_at(c, l->id, &count);

    if (count != 1) return NULL;
    const wf_module *m = wf_adapter_module(c->adapter, (size_t)c->slice[at].module);
    *slice = &c->slice[at];
    return wf_slice_form(*slice, m, l) == WF_FORM_PAIR ? m : NULL;
}

size_t wf_fuse_pair_rank(const wf_fuse_concept *c, const wf_layer *l)
{
    const wf_slice  *slice;
    const wf_module *m = pair_at(c, l, &slice);

    return m != NULL ? (size_t)wf_module_pair_rank(m) : 0;
}

weft_status wf_fuse_pair(const weft_fuse *f, const wf_fuse_concept *c, const wf_layer *l, float *A,
                         float *B, weft_error *err)
{
    const wf_slice  *slice;
    const wf_module *m = pair_at(c, l, &slice);
    size_t           n = (size_t)wf_module_pair_rank(m) * (size_t)l->out;

    WF_TRY(wf_slice_pair(slice, m, l, A, B, &f->alloc, err));
    for (size_t i = 0; i < n; i++) B[i] *= m->scale;
    return WEFT_OK;
}

static weft_status refuse(const wf_fuse_concept *c, const wf_layer *l, const char *what,
                          weft_error *err)
{
    return wf_fail(err, WEFT_E_UNSUPPORTED, "concept %.80s: %s: %s", c->name, l->name, what);
}

/* Only what is a matrix, and with constraints only keys and values. */
static weft_status check_layers(const weft_fuse *f, const wf_fuse_concept *c, weft_error *err)
{
    for (size_t i = 0; i < c->slices; i++) {
        const wf_layer  *l = &f->layers[c->slice[i].layer];
        const wf_module *m = wf_adapter_module(c->adapter, (size_t)c->slice[i].module);
        bool             bias = false;
        if (l->kind == WEFT_LAYER_NORM)
            return refuse(c, l,
                          "a normalisation, and least squares fuse matrices: leave it out with "
                          "weft_add_options.exclude", err);
        WF_TRY(wf_slice_add_bias(&c->slice[i], m, l, m->scale, 1, NULL, &bias, &f->alloc, err));
        if (bias)
            return refuse(c, l,
                          "its bias changes, and least squares fuse matrices: leave the layer "
                          "out with weft_add_options.exclude", err);
        if (f->o.kind == WEFT_FUSE_CONSTRAINED && wf_fuse_stage_of(l) != WF_FUSE_KEYS)
            return refuse(c, l, "constraints are for keys and values of cross-attentions: select "
                          "those (*attn2.to_k,*attn2.to_v), or fuse by GRADIENT", err);
        if (f->o.kind == WEFT_FUSE_ROUTED && wf_fuse_pair_rank(c, l) == 0)
            return refuse(c, l, "what it has there is no LoRA pair, and ROUTED chooses between "
                          "pairs: bring it to a rank first with weft_adapter_merge()", err);
        if (f->o.kind == WEFT_FUSE_ROUTED) continue;
        if (wf_fuse_stage_of(l) == WF_FUSE_KEYS && (f->sequence < 0 || l->in != f->text.width))
            return refuse(c, l, "it reads no text that a prompt could give", err);
    }
    return WEFT_OK;
}

/* ---- the adapter ----------------------------------------------------------------------------- */

static weft_status fold(const weft_fuse *f, wf_fuse_concept *c, weft_error *err)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    size_t               phases;
    const wf_sheet      *phase = wf_plan_phases(c->plan, &phases);

    if (phases == 1 && phase->patched_count == 0 &&
        wf_plan_text_sheet(c->plan)->patched_count == 0)
        return WEFT_OK;
    o.allocator = &f->alloc;
    o.name = c->name;
    WF_TRY(weft_plan_fold(c->plan, &o, &c->adapter, err));
    WF_TRY(weft_report_create(f->model, c->adapter, &c->report, err));
    WF_TRY(wf_report_verdict(c->report, false, err));
    c->slice = wf_report_slices(c->report, &c->slices);
    return check_layers(f, c, err);
}

/* ---- names and tokens ------------------------------------------------------------------------ */

static const char *token_of(const wf_tokens *t, size_t row)
{
    return wf_tokens_name(t, (int32_t)row);
}

/* A row that begins a token, which may have several. */
static bool begins(const wf_tokens *t, size_t row)
{
    return row == 0 || strcmp(token_of(t, row), token_of(t, row - 1)) != 0;
}

static weft_status make_name(const weft_fuse *f, wf_fuse_concept *c, const char *given,
                             weft_error *err)
{
    const wf_tokens *t = wf_plan_tokens(c->plan);
    wf_text          text;

    if (given != NULL && (given[0] == '\0' || strlen(given) > NAME_BYTES))
        return wf_fail(err, WEFT_E_ARG, "concept %zu: a name of %zu characters, wanted 1 to %d",
                       f->concepts, strlen(given), NAME_BYTES);
    if (given == NULL && wf_tokens_rows(t) == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "concept %zu: its plan has no token, so it needs a name: what prompts "
                       "call it",
                       f->concepts);
    wf_text_init(&text, &f->alloc);
    if (given != NULL) wf_text_add(&text, "%s", given);
    for (size_t i = 0; given == NULL && i < wf_tokens_rows(t); i++)
        if (begins(t, i)) wf_text_add(&text, "%s%s", i > 0 ? " " : "", token_of(t, i));
    c->name = text.failed ? NULL : wf_strdup(&f->alloc, text.s);
    wf_text_free(&text);
    if (c->name == NULL) return wf_nomem(err, NAME_BYTES, "a concept's name");
    for (size_t i = 0; i < wf_tokens_rows(t); i++)
        c->layered = c->layered || wf_tokens_layers(t, (int32_t)i) > 0;
    return WEFT_OK;
}

static weft_status check_tokens(const weft_fuse *f, const wf_fuse_concept *c, weft_error *err)
{
    const wf_tokens *ours = wf_plan_tokens(c->plan);

    for (size_t k = 0; k < f->concepts; k++) {
        const wf_tokens *theirs = wf_plan_tokens(f->concept[k].plan);
        for (size_t i = 0; i < wf_tokens_rows(ours); i++)
            for (size_t j = 0; j < wf_tokens_rows(theirs); j++)
                if (strcmp(token_of(ours, i), token_of(theirs, j)) == 0)
                    return wf_fail(err, WEFT_E_MISMATCH,
                                   "concepts %.80s and %.80s both have the token %.80s: open one "
                                   "of them under another name (weft_concept_options.tokens)",
                                   f->concept[k].name, c->name, token_of(ours, i));
    }
    return WEFT_OK;
}

weft_status wf_fuse_ids(const weft_fuse *f, const weft_plan *plan, const char *prompt,
                        int32_t encoder, bool cut, int32_t **ids, size_t *count, weft_error *err)
{
    const wf_text_encoder *t = &wf_model_networks(f->model)->encoder[encoder];
    const wf_tokens       *tokens = plan != NULL ? wf_plan_tokens(plan) : NULL;
    wf_prompt              p;
    wf_chunks              c;

    *ids = NULL;
    WF_TRY(wf_prompt_parse(&p, prompt, false, &f->alloc, err));
    weft_status st = wf_prompt_chunk(&c, &p, t->tokenizer, wf_tokens_extras(tokens, encoder),
                                     (size_t)wf_encoder_positions(t) - 2, false, err);
    wf_prompt_free(&p);
    if (st != WEFT_OK) return st;
    *count = c.begin[1];
    if (c.count > 1 && !cut)
        st = wf_fail(err, WEFT_E_ARG,
                     "the prompt '%.80s' has %zu tokens, and fusion reads one chunk",
                     prompt, c.tokens);
    if (st == WEFT_OK) {
        *ids = wf_zalloc(&f->alloc, *count, sizeof **ids);
        if (*ids == NULL) st = wf_nomem(err, *count * sizeof **ids, "a prompt's tokens");
        else if (*count > 0) memcpy(*ids, c.ids, *count * sizeof **ids);
    }
    wf_chunks_free(&c);
    return st;
}

static weft_status add_prompt(const weft_fuse *f, wf_fuse_concept *c, const char *format,
                              const char *text, weft_error *err)
{
    wf_text full;

    wf_text_init(&full, &f->alloc);
    wf_text_add(&full, "%s%s", format, text);
    if (!full.failed) c->prompts[c->count] = wf_strdup(&f->alloc, full.s);
    wf_text_free(&full);
    if (c->prompts[c->count] == NULL) return wf_nomem(err, strlen(text), "a prompt");
    const char *prompt = c->prompts[c->count++];
    for (int32_t i = 0; i < wf_model_networks(f->model)->encoders; i++) {
        int32_t *ids;
        size_t   n;
        WF_TRY(wf_fuse_ids(f, c->plan, prompt, i, false, &ids, &n, err));
        wf_free(&f->alloc, ids);
    }
    return WEFT_OK;
}

static weft_status make_prompts(const weft_fuse *f, wf_fuse_concept *c,
                                const weft_fuse_concept *given, weft_error *err)
{
    bool   own = given->prompts_count == 0, constrained = f->o.kind == WEFT_FUSE_CONSTRAINED;
    size_t count = own ? 2 : given->prompts_count;

    if (count > PROMPTS_MAX)
        return wf_fail(err, WEFT_E_ARG, "concept %.80s: %zu prompts, at most %d are taken", c->name,
                       count, PROMPTS_MAX);
    c->prompts = wf_zalloc(&f->alloc, count, sizeof *c->prompts);
    if (c->prompts == NULL) return wf_nomem(err, count * sizeof *c->prompts, "prompts");
    if (own && constrained) WF_TRY(add_prompt(f, c, "", c->name, err));
    if (own) WF_TRY(add_prompt(f, c, constrained ? "a photo of " : "photo of a ", c->name, err));
    if (own && !constrained) WF_TRY(add_prompt(f, c, "", c->name, err));
    for (size_t i = 0; i < given->prompts_count; i++) {
        if (given->prompts == NULL || given->prompts[i] == NULL)
            return wf_fail(err, WEFT_E_ARG, "concept %.80s: prompt %zu is NULL", c->name, i);
        WF_TRY(add_prompt(f, c, "", given->prompts[i], err));
    }
    return WEFT_OK;
}

/* ---- a concept's life ------------------------------------------------------------------------ */

weft_status wf_fuse_concept_make(weft_fuse *f, wf_fuse_concept *c, const weft_fuse_concept *given,
                                 weft_error *err)
{
    c->plan = given->plan;
    wf_plan_ref(c->plan);
    c->seed = given->seed;
    c->images = given->images != 0 ? given->images : 1;
    WF_TRY(make_name(f, c, given->name, err));
    WF_TRY(check_tokens(f, c, err));
    WF_TRY(make_prompts(f, c, given, err));
    WF_TRY(fold(f, c, err));
    if (f->o.kind != WEFT_FUSE_ROUTED || c->slices > 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "concept %.80s: its plan changes no layer, and ROUTED chooses between adapters",
                   c->name);
}

void wf_fuse_concept_free(wf_fuse_concept *c, const weft_allocator *alloc)
{
    for (size_t i = 0; i < c->count; i++) wf_free(alloc, c->prompts[i]);
    wf_free(alloc, c->prompts);
    wf_free(alloc, c->name);
    weft_report_free(c->report);
    weft_adapter_free(c->adapter);
    weft_plan_free(c->plan);
}

/* ---- plans ----------------------------------------------------------------------------------- */

/* Does the concept change a layer of this stage? (Of WHOLE it does.) */
static bool acts_in(const weft_fuse *f, const wf_fuse_concept *c, wf_fuse_stage stage)
{
    for (size_t i = 0; i < c->slices; i++)
        if (wf_fuse_stage_of(&f->layers[c->slice[i].layer]) == stage) return true;
    return stage == WF_FUSE_WHOLE;
}

weft_status wf_fuse_stage_plan(const weft_fuse *f, const wf_fuse_concept *c, wf_fuse_stage stage,
                               weft_adapter *fused, int32_t calls, weft_plan **out,
                               weft_error *err)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options  own = WEFT_ADD_OPTIONS_INIT;
    weft_plan        *p;

    o.allocator = &f->alloc;
    WF_TRY(weft_plan_create(f->model, &o, &p, err));
    if (c != NULL) wf_plan_take_tokens(p, c->plan);
    weft_status st = fused != NULL ? weft_plan_add(p, fused, 1, NULL, err) : WEFT_OK;
    if (stage != WF_FUSE_WHOLE) own.select = stage == WF_FUSE_TEXT ? "text_encoder*" : "unet.*";
    if (stage == WF_FUSE_IMAGES) own.exclude = "*.attn2.to_k,*.attn2.to_v";
    if (st == WEFT_OK && c != NULL && stage != WF_FUSE_KEYS && acts_in(f, c, stage))
        st = weft_plan_add(p, c->adapter, 1, &own, err);
    if (st == WEFT_OK) st = weft_plan_seal(p, calls, err);
    if (st != WEFT_OK) weft_plan_free(p);
    else *out = p;
    return st;
}
