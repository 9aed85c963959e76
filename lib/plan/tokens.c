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
 * concept always. A token's second name, its file's, asks for less: where it would hide something
 * it is left out, and a token that is added later may take it.
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
    int32_t row;   /* of its first vector                                     */
    bool replace;  /* takes what is in the vocabulary                         */
    bool also;     /* its second name stands for it too                       */
} entry;

struct wf_tokens {
    wf_refs        refs;
    weft_allocator alloc;
    size_t         count;
    entry         *entries;  /* [count]                                 */
    wf_extra      *extras;   /* [names] those of the entries, then their second names */
    size_t         names;
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

void wf_plan_take_tokens(weft_plan *to, const weft_plan *from)
{
    wf_tokens *kept = wf_tokens_ref(from->tokens);

    wf_tokens_drop(to->tokens);
    to->tokens = kept;
}

void wf_tokens_fill(const wf_tokens *w, int32_t encoder, int32_t layer, const float **rows)
{
    for (size_t k = 0; k < w->rows; k++) {
        const entry *e = &w->entries[w->owner[k]];
        size_t i = e->token->layers > 0 ? (size_t)layer : k - (size_t)e->row;
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
        if (e->also) one = wf_stamp_text(one, e->token->also_folded, e->token->also_len);
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
        if (e->also) wf_text_add(out, ", also written %s", e->token->also_folded);
        if (e->token->layers > 0)
            wf_text_add(out, ", a vector for each of %d layers", e->token->layers);
        wf_text_add(out, "\n");
    }
}

void wf_tokens_warn(const weft_plan *p, wf_table *t)
{
    for (int32_t i = 0; i < p->adapters; i++) {
        const weft_adapter *a = p->entry[i].bound->adapter;
        weft_adapter_info   info = WEFT_ADAPTER_INFO_INIT;
        weft_error          none;
        bool                given = false;

        for (size_t k = 0; p->tokens != NULL && k < p->tokens->count; k++)
            given = given || wf_concept_adapter(p->tokens->entries[k].concept) == a;
        if (given || weft_adapter_info_get(a, &info, &none) != WEFT_OK || info.tokens == 0)
            continue;
        wf_table_warn(p, t,
                      "adapter %s: its file has %d embedding%s of tokens too, which prompts do not "
                      "know unless it is added with weft_plan_add_concept()",
                      wf_adapter_name(a), info.tokens, info.tokens == 1 ? "" : "s");
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
    w->extras = wf_zalloc(&w->alloc, 2 * count, sizeof *w->extras);
    w->owner = wf_zalloc(&w->alloc, rows, sizeof *w->owner);
    if (w->entries != NULL && w->extras != NULL && w->owner != NULL) return w;
    wf_tokens_drop(w);
    return NULL;
}

static void append(wf_tokens *w, const entry *e)
{
    entry  *to = &w->entries[w->count];
    int32_t n = e->token->vectors;

    *to = *e;
    to->row = (int32_t)w->rows;
    w->extras[w->names++] = (wf_extra){ e->token->folded, e->token->folded_len, to->row, n };
    for (int32_t k = 0; k < n; k++) w->owner[w->rows++] = (int32_t)w->count;
    w->count++;
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

weft_status wf_tokens_look_up(const weft_model *m, const char *text, size_t len, bool *taken,
                              bool *found, weft_error *err)
{
    const wf_networks *networks = wf_model_networks(m);
    const wf_extra     token = { text, len, 0, 1 };

    *taken = false;
    *found = true;
    for (int32_t i = 0; i < networks->encoders; i++) {
        const wf_tokenizer *t = networks->encoder[i].tokenizer;
        wf_extras           single = { &token, 1, APART };
        int32_t             id = 0;
        size_t              n = 0;

        if (t == NULL) continue;
        WF_TRY(wf_tokenizer_encode_with(t, NULL, text, len, &id, 1, &n, err));
        *taken = *taken || n == 1;
        WF_TRY(wf_tokenizer_encode_with(t, &single, text, len, &id, 1, &n, err));
        *found = *found && n == 1 && id == single.base;
    }
    return WEFT_OK;
}

/* The vocabulary must not have the token, unless the caller wants it replaced; and the tokenizer
 * must be able to find it in a prompt. */
static weft_status check_vocabulary(const entry *e, const weft_model *model, weft_error *err)
{
    bool taken, found;

    WF_TRY(wf_tokens_look_up(model, e->token->folded, e->token->folded_len, &taken, &found, err));
    if (taken && !e->replace)
        return refuse(e, err, "is in the model's vocabulary already: name it otherwise with "
                      "weft_concept_options.tokens, or add it with WEFT_ADD_REPLACE");
    if (!found)
        return refuse(e, err,
                      "contains a token that the model's tokenizer sets apart: name it otherwise "
                      "with weft_concept_options.tokens");
    return WEFT_OK;
}

/* Does another entry have this name, as its first or its second? */
static bool named_by_another(const wf_tokens *w, const entry *e, const char *name)
{
    for (size_t i = 0; i < w->count; i++) {
        const wf_concept_token *other = w->entries[i].token;
        if (&w->entries[i] == e) continue;
        if (strcmp(other->folded, name) == 0) return true;
        if (other->also_folded != NULL && strcmp(other->also_folded, name) == 0) return true;
    }
    return false;
}

/* Second names, of all that hide nothing. They are looked at again whenever a concept is added, so
 * that the order of adding does not matter. */
static weft_status add_second_names(wf_tokens *w, const weft_model *model, weft_error *err)
{
    for (size_t i = 0; i < w->count; i++) {
        entry                  *e = &w->entries[i];
        const wf_concept_token *t = e->token;
        bool taken, found;

        e->also = false;
        if (t->also_folded == NULL || named_by_another(w, e, t->also_folded)) continue;
        WF_TRY(wf_tokens_look_up(model, t->also_folded, t->also_len, &taken, &found, err));
        if (!found || (taken && !e->replace)) continue;
        e->also = true;
        w->extras[w->names++] = (wf_extra){ t->also_folded, t->also_len, e->row, t->vectors };
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
        entry e = { .concept = concept, .replace = replace };
        e.token = wf_concept_token_at(concept, i);
        if ((st = match_widths(&e, n, err)) == WEFT_OK) st = check_size(&e, n, err);
        if (st == WEFT_OK) st = check_vocabulary(&e, plan->model, err);
        if (st == WEFT_OK) st = check_others(plan, &e, err);
        if (st == WEFT_OK) append(w, &e);
    }
    if (st == WEFT_OK) st = add_second_names(w, plan->model, err);
    w->encoders = n->encoders;
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_clip_config *c = wf_clip_get_config(n->encoder[i].net);
        w->width[i] = c->hidden;
        w->list[i] = (wf_extras){ w->extras, w->names, c->vocab };
    }
    if (st != WEFT_OK) wf_tokens_drop(w);
    else *out = w;
    return st;
}

weft_concept *wf_tokens_concept(const wf_tokens *w, size_t index, bool *replace)
{
    for (size_t i = 0; w != NULL && i < w->count; i++) {
        if (i > 0 && w->entries[i].concept == w->entries[i - 1].concept) continue;
        *replace = w->entries[i].replace;
        if (index-- == 0) return w->entries[i].concept;
    }
    return NULL;
}

weft_status wf_plan_add_tokens(weft_plan *plan, weft_concept *concept, bool replace,
                               weft_error *err)
{
    wf_tokens *tokens = NULL;

    WF_TRY(extend(&tokens, plan, concept, replace, err));
    wf_tokens_drop(plan->tokens);
    plan->tokens = tokens;
    return WEFT_OK;
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

static weft_status check_flags(const char *name, uint32_t flags, weft_error *err)
{
    if ((flags & ~WF_ENCODE_FLAGS) == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: flags are %u, and not all of them known", name,
                   flags);
}

/* The chunks of a text for the first text encoder. */
static weft_status chunks_of(const weft_plan *plan, const char *text, uint32_t flags, wf_chunks *c,
                             weft_error *err)
{
    const wf_text_encoder *encoder = &wf_model_networks(plan->model)->encoder[0];
    const wf_extras *extras = plan->tokens != NULL ? &plan->tokens->list[0] : NULL;
    bool comma = (flags & (WEFT_ENCODE_COMMA | WEFT_ENCODE_TRUNCATE)) == WEFT_ENCODE_COMMA;
    wf_prompt p;

    WF_TRY(wf_prompt_parse(&p, text, (flags & WEFT_ENCODE_WEIGHTS) != 0, &plan->alloc, err));
    weft_status st = wf_prompt_chunk(c, &p, encoder->tokenizer, extras,
                                     (size_t)wf_encoder_positions(encoder) - 2, comma, err);
    wf_prompt_free(&p);
    return st;
}

/* Counted by the first of its places. */
weft_status weft_plan_token_count(const weft_plan *plan, const weft_concept *of, size_t index,
                                  const char *prompt, uint32_t flags, int32_t *count,
                                  weft_error *err)
{
    static const char name[] = "weft_plan_token_count";
    const wf_tokens  *w = plan != NULL ? plan->tokens : NULL;
    const entry      *e = NULL;
    wf_chunks         c;

    if (plan == NULL || of == NULL || prompt == NULL || count == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s: %s is NULL", name,
                       plan == NULL     ? "plan"
                       : of == NULL     ? "the concept"
                       : prompt == NULL ? "prompt"
                                        : "count");
    WF_TRY(check_flags(name, flags, err));
    if (index >= wf_concept_tokens(of))
        return wf_fail(err, WEFT_E_ARG, "%s: token %zu is not one of the concept's %zu", name,
                       index, wf_concept_tokens(of));
    for (size_t i = 0; w != NULL && i < w->count && e == NULL; i++)
        if (w->entries[i].token == wf_concept_token_at(of, index)) e = &w->entries[i];
    if (e == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s: concept %.80s is not of the plan", name,
                       wf_concept_name(of));
    WF_TRY(wf_model_need_tokenizer(plan->model, err));
    WF_TRY(chunks_of(plan, prompt, flags, &c, err));
    *count = 0;
    for (size_t i = 0; i < c.tokens; i++) *count += c.ids[i] == w->list[0].base + e->row;
    wf_chunks_free(&c);
    return WEFT_OK;
}

/* Rows of the tokens of `words` in `c`: chunk k begins at row k positions, with BOS. */
static size_t find_words(const wf_chunks *c, const wf_chunks *words, size_t positions,
                         int32_t *rows, size_t cap)
{
    size_t found = 0, chunk = 0, last = SIZE_MAX;

    for (size_t i = 0; i + words->tokens <= c->tokens; i++) {
        if (memcmp(c->ids + i, words->ids, words->tokens * sizeof *c->ids) != 0) continue;
        for (size_t t = last == SIZE_MAX || i > last ? i : last + 1; t < i + words->tokens; t++) {
            while (chunk + 1 < c->count && t >= c->begin[chunk + 1]) chunk++;
            if (found < cap) rows[found] = (int32_t)(chunk * positions + 1 + t - c->begin[chunk]);
            found++;
            last = t;
        }
    }
    return found;
}

weft_status weft_plan_find_words(const weft_plan *plan, const char *prompt, const char *words,
                                 uint32_t flags, int32_t *rows, size_t cap, size_t *count,
                                 weft_error *err)
{
    static const char name[] = "weft_plan_find_words";
    wf_chunks c, w;
    weft_status st;

    if (plan == NULL || prompt == NULL || words == NULL || count == NULL ||
        (cap > 0 && rows == NULL))
        return wf_fail(err, WEFT_E_ARG, "%s: %s is NULL", name,
                       plan == NULL     ? "plan"
                       : prompt == NULL ? "prompt"
                       : words == NULL  ? "words"
                       : count == NULL  ? "count"
                                        : "rows");
    WF_TRY(check_flags(name, flags, err));
    WF_TRY(wf_model_need_tokenizer(plan->model, err));
    WF_TRY(chunks_of(plan, prompt, flags, &c, err));
    if ((st = chunks_of(plan, words, 0, &w, err)) == WEFT_OK) {
        size_t positions =
            (size_t)wf_encoder_positions(&wf_model_networks(plan->model)->encoder[0]);
        *count = w.tokens > 0 ? find_words(&c, &w, positions, rows, cap) : 0;
        if (*count == 0)
            st = wf_fail(err, WEFT_E_MISMATCH, "the words '%.80s' are not in the prompt '%.200s'",
                         words, prompt);
        wf_chunks_free(&w);
    }
    wf_chunks_free(&c);
    return st;
}

weft_status weft_plan_prompt_size(const weft_plan *plan, const char *prompt, uint32_t flags,
                                  int32_t *tokens, int32_t *chunks, weft_error *err)
{
    bool cut = (flags & WEFT_ENCODE_TRUNCATE) != 0,
         comma = (flags & WEFT_ENCODE_COMMA) != 0 && !cut;
    size_t most = 0, needed = 0;
    wf_prompt p;

    if (plan == NULL || prompt == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_prompt_size: %s is NULL",
                       plan == NULL ? "plan" : "prompt");
    WF_TRY(check_flags("weft_plan_prompt_size", flags, err));
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
