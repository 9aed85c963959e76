/* tokens.c - the placeholder tokens that concepts give to a plan's prompts.
 *
 * A token stands for its embeddings wherever a prompt of the plan has it: in prompts and negative
 * prompts, inside weights, next to other words. The embeddings form a table behind the vocabulary
 * of each text encoder, n rows for n vectors, and take n places in a chunk. The table belongs to
 * the plan: the model's vocabulary does not change, and weft_model_tokenize() knows no placeholder
 * tokens.
 *
 * A token is found whatever its case and the form of its accents, as in diffusers and
 * Automatic1111's program; unlike diffusers we do not find "cat" in "category". A token that would
 * hide something is refused: one in the vocabulary, unless the caller says so, and one of another
 * concept always.
 *
 * The tokens of a plan are one immutable block that copies share; adding a concept makes a new
 * one. */
#include <math.h>
#include <stdio.h>

#include "base/structs.h"
#include "concept/concept.h"
#include "model/networks.h"
#include "model/prompt.h"
#include "plan/plan_internal.h"
#include "weft/run.h"

typedef struct entry {
    weft_concept          *concept; /* kept */
    const wf_concept_token *token;
    const float *v[WF_ENCODERS_MAX]; /* for each text encoder of the model, (n or layers, width) */
} entry;

struct wf_tokens {
    wf_refs        refs;
    weft_allocator alloc;
    size_t         count;
    entry         *entries;  /* [count]                                 */
    wf_extra      *extras;   /* [count]                                 */
    int32_t       *owner;    /* [rows] the entry that each row is of    */
    size_t         rows;
    int32_t        encoders; /* of the model                            */
    int32_t        width[WF_ENCODERS_MAX];
    wf_extras      list[WF_ENCODERS_MAX];
};

wf_tokens *wf_tokens_ref(wf_tokens *w)
{
    if (w != NULL) wf_ref_take(&w->refs);
    return w;
}

void wf_tokens_drop(wf_tokens *w)
{
    if (w == NULL || !wf_ref_drop(&w->refs)) return;
    weft_allocator alloc = w->alloc;
    for (size_t i = 0; i < w->count; i++) weft_concept_free(w->entries[i].concept);
    wf_free(&alloc, w->entries);
    wf_free(&alloc, w->extras);
    wf_free(&alloc, w->owner);
    wf_free(&alloc, w);
}

/* ---- reading --------------------------------------------------------------------------------- */

const wf_tokens  *wf_plan_tokens(const weft_plan *p) { return p->tokens; }
const wf_extras *wf_tokens_extras(const wf_tokens *w, int32_t encoder)
{
    return w != NULL ? &w->list[encoder] : NULL;
}
size_t           wf_tokens_rows(const wf_tokens *w) { return w != NULL ? w->rows : 0; }
const char *wf_tokens_name(const wf_tokens *w, int32_t row)
{
    return w->entries[w->owner[row]].token->name;
}
int32_t wf_tokens_layers(const wf_tokens *w, int32_t row)
{
    return w->entries[w->owner[row]].token->layers;
}

void wf_tokens_fill(const wf_tokens *w, int32_t encoder, int32_t layer, const float **rows)
{
    for (size_t k = 0; k < w->rows; k++) {
        const entry *e = &w->entries[w->owner[k]];
        size_t i = e->token->layers > 0 ? (size_t)layer : k - (size_t)w->extras[w->owner[k]].row;
        rows[k] = e->v[encoder] + i * (size_t)w->width[encoder];
    }
}

uint64_t wf_tokens_stamp(const wf_tokens *w)
{
    uint64_t h = 0;

    for (size_t i = 0; w != NULL && i < w->count; i++) {
        const entry *e = &w->entries[i];
        size_t       n = (size_t)WF_MAX(e->token->vectors, e->token->layers);
        uint64_t one =
            wf_stamp_text((uint64_t)e->token->layers + 1, e->token->folded, e->token->folded_len);
        for (int32_t k = 0; k < w->encoders; k++)
            one = wf_stamp_floats(one, e->v[k], n * (size_t)w->width[k]);
        h += one; /* in whatever order they were added */
    }
    return h;
}

void wf_tokens_explain(const wf_tokens *w, wf_text *out)
{
    if (w != NULL && w->count > 0)
        wf_text_add(out, "\ntokens\n      %6s  %-24s %s\n", "places", "token", "concept");
    for (size_t i = 0; w != NULL && i < w->count; i++) {
        const entry *e = &w->entries[i];
        wf_text_add(out, "      %6d  %-24s %s", e->token->vectors, e->token->folded,
                    wf_concept_name(e->concept));
        if (e->token->layers > 0)
            wf_text_add(out, ", a vector for each of %d layers", e->token->layers);
        wf_text_add(out, "\n");
    }
}

/* ---- adding ---------------------------------------------------------------------------------- */

static wf_tokens *make(const weft_plan *p, size_t count, size_t rows)
{
    wf_tokens *w = wf_zalloc(&p->alloc, 1, sizeof *w);

    if (w == NULL) return NULL;
    wf_ref_init(&w->refs);
    w->alloc = p->alloc;
    w->entries = wf_zalloc(&w->alloc, count, sizeof *w->entries);
    w->extras = wf_zalloc(&w->alloc, count, sizeof *w->extras);
    w->owner = wf_zalloc(&w->alloc, rows, sizeof *w->owner);
    if (w->entries != NULL && w->extras != NULL && w->owner != NULL) return w;
    wf_tokens_drop(w);
    return NULL;
}

static void append(wf_tokens *w, const entry *e)
{
    int32_t n = e->token->vectors;

    w->extras[w->count] = (wf_extra){ e->token->folded, e->token->folded_len, (int32_t)w->rows, n };
    for (int32_t k = 0; k < n; k++) w->owner[w->rows++] = (int32_t)w->count;
    w->entries[w->count++] = *e;
    wf_concept_ref(e->concept);
}

/* "concept X: the token Y <text>" */
static weft_status refuse(const entry *e, weft_error *err, const char *format, ...) WF_PRINTF(3, 4);
static weft_status refuse(const entry *e, weft_error *err, const char *format, ...)
{
    char    line[360];
    va_list args;

    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    return wf_fail(err, WEFT_E_MISMATCH, "concept %.80s: the token %.80s %s",
                   wf_concept_name(e->concept), e->token->name, line);
}

/* "768", or "768 and 1280". */
static void widths(char *buf, size_t cap, int32_t a, int32_t b)
{
    if (a > 0 && b > 0) wf_format(buf, cap, "%d and %d", a, b);
    else wf_format(buf, cap, "%d", WF_MAX(a, b));
}

/* Which vectors are for which text encoder: their width decides, and their order if both encoders
 * are equally wide. Each encoder must get some. The first of a pair may go unused with a refiner,
 * which has only the second text encoder. */
static weft_status match_widths(entry *e, const wf_networks *n, weft_error *err)
{
    const wf_concept_token *w = e->token;
    int32_t wanted[2] = { 0, 0 }; /* by the first and the second encoder of SDXL */
    char    has[32], wants[32];

    for (int32_t i = 0; i < n->encoders; i++)
        wanted[n->encoder[i].component == WEFT_COMPONENT_TEXT_2] =
            wf_clip_get_config(n->encoder[i].net)->hidden;
    for (int swap = 0; swap < 2; swap++) {
        const wf_vectors *v[2] = { &w->of[swap], &w->of[!swap] };
        bool served = true;
        for (int i = 0; i < 2; i++) {
            if (wanted[i] > 0) served = served && v[i]->v != NULL && v[i]->width == wanted[i];
            else served = served && (v[i]->v == NULL || (i == 0 && !swap));
        }
        if (!served) continue;
        for (int32_t i = 0; i < n->encoders; i++)
            e->v[i] = v[n->encoder[i].component == WEFT_COMPONENT_TEXT_2]->v;
        return WEFT_OK;
    }
    if (wanted[0] == 0 && wanted[1] == 0)
        return refuse(e, err, "has nowhere to go: the model has no text encoder");
    bool both = wanted[0] > 0 && wanted[1] > 0,
         half = false; /* half: one of the two is here, and fits */
    for (int i = 0; i < 2 && both; i++)
        half = half || (w->of[i].v != NULL && w->of[!i].v == NULL &&
                        (w->of[i].width == wanted[0] || w->of[i].width == wanted[1]));
    widths(has, sizeof has, w->of[0].width, w->of[1].width);
    widths(wants, sizeof wants, wanted[0], wanted[1]);
    return refuse(e, err, "has vectors %s wide, the model's text encoder%s %s%s", has,
                  both ? "s take" : " takes", wants,
                  half ? ": give the other half in weft_concept_options.second" : "");
}

static weft_status check_size(const entry *e, const wf_networks *n, weft_error *err)
{
    const wf_concept_token *w = e->token;
    int32_t fits = INT32_MAX, layers = 0;

    for (int32_t i = 0; i < n->encoders; i++)
        fits = WF_MIN(fits, wf_encoder_positions(&n->encoder[i]) - 2);
    for (int32_t i = 0; i < n->streams; i++)
        layers = WF_MAX(layers, n->stream[i].facts->cross_layers);
    if (w->vectors > fits)
        return refuse(e, err, "has %d vectors, a prompt's chunk takes %d", w->vectors, fits);
    if (w->layers != 0 && w->layers != layers)
        return refuse(e, err, "has vectors for %d cross-attention layers, the model has %d",
                      w->layers, layers);
    return WEFT_OK;
}

enum { APART = 1 << 25 }; /* past any vocabulary */

/* The vocabulary must not have the token, unless the caller wants it replaced; and the tokenizer
 * must be able to find it in a prompt. */
static weft_status check_vocabulary(const entry *e, const wf_networks *networks, bool replace,
                                    weft_error *err)
{
    const wf_concept_token *w = e->token;
    const wf_extra         token = { w->folded, w->folded_len, 0, 1 };

    for (int32_t i = 0; i < networks->encoders; i++) {
        const wf_tokenizer *t = networks->encoder[i].tokenizer;
        wf_extras           single = { &token, 1, APART };
        int32_t             id = 0;
        size_t              n = 0;

        if (t == NULL) continue;
        WF_TRY(wf_tokenizer_encode_with(t, NULL, w->folded, w->folded_len, &id, 1, &n, err));
        if (n == 1 && !replace)
            return refuse(e, err, "is in the model's vocabulary already: name it otherwise with "
                          "weft_concept_options.tokens, or add it with WEFT_ADD_REPLACE");
        WF_TRY(wf_tokenizer_encode_with(t, &single, w->folded, w->folded_len, &id, 1, &n, err));
        if (n != 1 || id != single.base)
            return refuse(
                e, err,
                "contains a token that the model's tokenizer sets apart: name it otherwise with "
                "weft_concept_options.tokens");
    }
    return WEFT_OK;
}

static weft_status check_others(const weft_plan *plan, const entry *e, weft_error *err)
{
    for (size_t i = 0; plan->tokens != NULL && i < plan->tokens->count; i++) {
        const entry *other = &plan->tokens->entries[i];
        if (strcmp(other->token->folded, e->token->folded) == 0)
            return refuse(e, err,
                          "is a token of concept %.80s already: name one of them otherwise with "
                          "weft_concept_options.tokens",
                          wf_concept_name(other->concept));
    }
    return WEFT_OK;
}

/* The plan's tokens and the concept's together. */
static weft_status extend(wf_tokens **out, const weft_plan *plan, weft_concept *concept,
                          bool replace, weft_error *err)
{
    const wf_networks *n = wf_model_networks(plan->model);
    const wf_tokens *old = plan->tokens;
    size_t          count = (old != NULL ? old->count : 0) + wf_concept_tokens(concept);
    size_t          rows = old != NULL ? old->rows : 0;
    wf_tokens       *w;
    weft_status     st = WEFT_OK;

    for (size_t i = 0; i < wf_concept_tokens(concept); i++)
        rows += (size_t)wf_concept_token_at(concept, i)->vectors;
    if (count > WF_TOKENS_MAX || rows > WF_TOKENS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "concept %.120s: a plan takes at most %d tokens and vectors",
                       wf_concept_name(concept), WF_TOKENS_MAX);
    w = make(plan, count, rows);
    if (w == NULL) return wf_nomem(err, count * sizeof *w->entries, "a plan's tokens");
    for (size_t i = 0; old != NULL && i < old->count; i++) append(w, &old->entries[i]);
    for (size_t i = 0; i < wf_concept_tokens(concept) && st == WEFT_OK; i++) {
        entry e = { concept, wf_concept_token_at(concept, i), { NULL } };
        if ((st = match_widths(&e, n, err)) == WEFT_OK) st = check_size(&e, n, err);
        if (st == WEFT_OK) st = check_vocabulary(&e, n, replace, err);
        if (st == WEFT_OK) st = check_others(plan, &e, err);
        if (st == WEFT_OK) append(w, &e);
    }
    w->encoders = n->encoders;
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_clip_config *c = wf_clip_get_config(n->encoder[i].net);
        w->width[i] = c->hidden;
        w->list[i] = (wf_extras){ w->extras, w->count, c->vocab };
    }
    if (st != WEFT_OK) wf_tokens_drop(w);
    else *out = w;
    return st;
}

weft_status weft_plan_add_concept(weft_plan *plan, weft_concept *concept, float weight,
                                  const weft_add_options *options, weft_error *err)
{
    weft_add_options o;
    wf_tokens        *tokens = NULL;
    weft_status      st = WEFT_OK;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_add_concept", err));
    if (concept == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_add_concept: concept is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_add_options, WEFT_ADD_PARTIAL |
                      WEFT_ADD_SHARE | WEFT_ADD_PEFT_DORA | WEFT_ADD_REPLACE, err));
    WF_TRY(wf_plan_check_add(&o, weight, wf_concept_name(concept), err));
    WF_TRY(extend(&tokens, plan, concept, (o.flags & WEFT_ADD_REPLACE) != 0, err));
    o.struct_size = sizeof o;
    o.flags &= ~(uint32_t)WEFT_ADD_REPLACE;
    if (wf_concept_adapter(concept) != NULL)
        st = weft_plan_add(plan, wf_concept_adapter(concept), weight, &o, err);
    if (st != WEFT_OK) {
        wf_tokens_drop(tokens);
        return st;
    }
    wf_tokens_drop(plan->tokens);
    plan->tokens = tokens;
    return WEFT_OK;
}

/* ---- counting -------------------------------------------------------------------------------- */

weft_status weft_plan_prompt_size(const weft_plan *plan, const char *prompt, uint32_t flags,
                                  int32_t *tokens, int32_t *chunks, weft_error *err)
{
    bool cut = (flags & WEFT_ENCODE_TRUNCATE) != 0,
         comma = (flags & WEFT_ENCODE_COMMA) != 0 && !cut;
    size_t    most = 0, needed = 0;
    wf_prompt p;

    if (plan == NULL || prompt == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_prompt_size: %s is NULL",
                       plan == NULL ? "plan" : "prompt");
    if ((flags & ~WF_ENCODE_FLAGS) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_plan_prompt_size: flags are %u, and not all of them known", flags);
    WF_TRY(wf_model_need_tokenizer(plan->model, err));
    const wf_networks *n = wf_model_networks(plan->model);
    weft_status st =
        wf_prompt_parse(&p, prompt, (flags & WEFT_ENCODE_WEIGHTS) != 0, &plan->alloc, err);
    for (int32_t i = 0; i < n->encoders && st == WEFT_OK; i++) {
        wf_chunks c;
        size_t fits = (size_t)wf_encoder_positions(&n->encoder[i]) - 2;
        st = wf_prompt_chunk(&c, &p, n->encoder[i].tokenizer,
                             wf_tokens_extras(wf_plan_tokens(plan), i), fits, comma, err);
        if (st != WEFT_OK) break;
        most = WF_MAX(most, c.tokens);
        needed = WF_MAX(needed, cut ? 1 : c.count);
        wf_chunks_free(&c);
    }
    wf_prompt_free(&p);
    if (st != WEFT_OK) return st;
    if (tokens != NULL) *tokens = (int32_t)most;
    if (chunks != NULL) *chunks = (int32_t)needed;
    return WEFT_OK;
}
