/* prompt.c - the language of prompts, as Automatic1111's program reads it.
 *
 *   (x)        times 1.1, nested as often as one likes          \( \) \[ \] \\   the character
 * itself [x]        times 1/1.1                                      BREAK           the next chunk
 * begins (x:1.3)    times 1.3; white space around the number is allowed, and a sign
 *
 * Round and square brackets are counted apart, so they may overlap. One that is never closed acts
 * to the end of the prompt; one that was never opened is text, and so is ":1.3)" without a bracket
 * before it, or ":1.3]". A backslash before anything else is dropped. Neighbours of equal weight
 * become one piece before they are tokenized: (calm)(sea) is the word "calmsea".
 *
 * In two places we do what was meant there: BREAK inside brackets ends the chunk too (there it
 * becomes a word of negative weight), and a number like 1.2.3 is refused (there the program fails).
 *
 * The chunks are filled token by token. A placeholder token of n vectors stays whole: it moves to
 * the next chunk if it does not fit.
 * A full chunk may give what follows its last comma to the next, if that is at most 20 tokens with
 * the comma. */
#include <math.h>

#include "model/prompt.h"
#include "model/tokenizer.h"

enum {
    DEPTH      = 256,     /* of brackets: each multiplies all that is in it */
    BACKTRACK  = 20,      /* A1111's default                                */
    MOST_TOKENS = 1000000
};

/* ---- pieces ---------------------------------------------------------------------------------- */

typedef struct brackets {
    size_t open[DEPTH]; /* pieces that stood before each */
    size_t depth;
} brackets;

typedef struct parser {
    wf_prompt  *p;
    const char *s;
    size_t      n;
    brackets    round, square;
    weft_error *err;
} parser;

static const double opened = 1.1, lowered = 1 / 1.1;

static weft_status add_piece(parser *r, const char *s, size_t n, bool ends_chunk)
{
    wf_prompt *p = r->p;

    if (n == 0 && !ends_chunk) return WEFT_OK;
    if (p->count == p->cap) {
        size_t    cap = p->cap < 16 ? 16 : 2 * p->cap;
        wf_piece *more = wf_zalloc(p->alloc, cap, sizeof *more);
        if (more == NULL) return wf_nomem(r->err, cap * sizeof *more, "a prompt");
        if (p->count > 0) memcpy(more, p->pieces, p->count * sizeof *more);
        wf_free(p->alloc, p->pieces);
        p->pieces = more;
        p->cap = cap;
    }
    p->pieces[p->count++] = (wf_piece){ p->len, n, 1.0, ends_chunk };
    memcpy(p->text + p->len, s, n); /* never longer than the prompt */
    p->len += n;
    return WEFT_OK;
}

static void multiply(wf_prompt *p, size_t from, double by)
{
    for (size_t i = from; i < p->count; i++) p->pieces[i].weight *= by;
}

static weft_status open_bracket(parser *r, brackets *b)
{
    if (b->depth == DEPTH)
        return wf_fail(r->err, WEFT_E_ARG,
                       "the prompt opens more than %d brackets inside each other", DEPTH);
    b->open[b->depth++] = r->p->count;
    return WEFT_OK;
}

static bool word_char(const char *s, size_t n, size_t at)
{
    return at < n && (s[at] == '_' || wf_token_wordy(s, n, at));
}

static bool blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Whoever writes Chinese or Japanese has wide spaces at hand. */
static size_t blanks(const char *s, size_t n, size_t at) { return wf_token_space(s + at, n - at); }

/* Text without brackets, colons and backslashes: only BREAK, as a word of its own, means something.
 */
static weft_status add_text(parser *r, const char *s, size_t n)
{
    static const char word[] = "BREAK";
    size_t            len = sizeof word - 1, begin = 0, end;

    for (size_t at = 0; at + len <= n; at++) {
        if (s[at] != 'B' || memcmp(s + at, word, len) != 0 || word_char(s, n, at + len)) continue;
        if (at > 0 && (s[at - 1] == '_' || wf_token_wordy_before(s, at))) continue;
        for (end = at; end > begin && blank(s[end - 1]); end--) {}
        WF_TRY(add_piece(r, s + begin, end - begin, false));
        WF_TRY(add_piece(r, s, 0, true));
        begin = at + len + blanks(s, n, at + len);
        at = begin - 1;
    }
    return add_piece(r, s + begin, n - begin, false);
}

size_t wf_prompt_weight_at(const char *s, size_t n, size_t at, size_t *number, size_t *number_len)
{
    size_t end = at + 1, digits;

    end += blanks(s, n, end);
    *number = end;
    if (end < n && (s[end] == '+' || s[end] == '-')) end++;
    for (digits = end; end < n && (s[end] == '.' || (s[end] >= '0' && s[end] <= '9')); end++) {}
    if (end == digits) return 0;
    *number_len = end - *number;
    end += blanks(s, n, end);
    return end < n && s[end] == ')' ? end + 1 - at : 0;
}

static weft_status read_number(const char *s, size_t n, double *out, weft_error *err)
{
    if (wf_number_read(s, n, out)) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "the prompt's weight \"%.*s\" is not a number: wanted one like 1.3, or \\) for "
                   "a bracket that is meant as text",
                   (int)WF_MIN(n, 40), s);
}

static weft_status read_piece(parser *r, size_t *at)
{
    const char *s = r->s;
    size_t      i = *at, n = r->n, number, number_len, len;
    double      by = 1;

    *at = i + 1;
    switch (s[i]) {
    case '\\':
        if (i + 1 == n || strchr("()[]\\", s[i + 1]) == NULL) return WEFT_OK;
        *at = i + 2;
        return add_piece(r, s + i + 1, 1, false);
    case '(':
        return open_bracket(r, &r->round);
    case '[':
        return open_bracket(r, &r->square);
    case ')':
        if (r->round.depth == 0) return add_piece(r, s + i, 1, false);
        multiply(r->p, r->round.open[--r->round.depth], opened);
        return WEFT_OK;
    case ']':
        if (r->square.depth == 0) return add_piece(r, s + i, 1, false);
        multiply(r->p, r->square.open[--r->square.depth], lowered);
        return WEFT_OK;
    case ':':
        len = wf_prompt_weight_at(s, n, i, &number, &number_len);
        if (len > 0) *at = i + len;
        if (len == 0 || r->round.depth == 0) return add_piece(r, s + i, *at - i, false);
        WF_TRY(read_number(s + number, number_len, &by, r->err));
        multiply(r->p, r->round.open[--r->round.depth], by);
        return WEFT_OK;
    default:
        len = strcspn(s + i, "\\()[]:");
        *at = i + len;
        return add_text(r, s + i, len);
    }
}

/* Runs of equal weight become one piece. */
static void merge(wf_prompt *p)
{
    size_t kept = 0;

    for (size_t i = 0; i < p->count; i++) {
        wf_piece *last = kept > 0 ? &p->pieces[kept - 1] : NULL, *next = &p->pieces[i];
        if (last != NULL && !last->ends_chunk && !next->ends_chunk && last->weight == next->weight)
            last->len += next->len;
        else
            p->pieces[kept++] = *next;
    }
    p->count = kept;
}

weft_status wf_prompt_parse(wf_prompt *p, const char *prompt, bool weights,
                            const weft_allocator *alloc, weft_error *err)
{
    parser      r = { .p = p, .s = prompt, .err = err };
    weft_status st;

    *p = (wf_prompt){ .alloc = alloc };
    if ((st = wf_tokenizer_check(prompt, &r.n, err)) != WEFT_OK) return st;
    p->text = wf_alloc(alloc, r.n + 1);
    if (p->text == NULL) return wf_nomem(err, r.n + 1, "a prompt");
    if (!weights) st = add_piece(&r, prompt, r.n, false);
    for (size_t at = 0; weights && st == WEFT_OK && at < r.n;) st = read_piece(&r, &at);
    if (st == WEFT_OK) {
        while (r.round.depth > 0) multiply(p, r.round.open[--r.round.depth], opened);
        while (r.square.depth > 0) multiply(p, r.square.open[--r.square.depth], lowered);
        merge(p);
        for (size_t i = 0; i < p->count && st == WEFT_OK; i++)
            if (!isfinite((float)p->pieces[i].weight))
                st = wf_fail(err, WEFT_E_ARG,
                             "the prompt's weights multiply to more than a float holds");
    }
    if (st != WEFT_OK) wf_prompt_free(p);
    return st;
}

void wf_prompt_free(wf_prompt *p)
{
    if (p->alloc == NULL) return;
    wf_free(p->alloc, p->text);
    wf_free(p->alloc, p->pieces);
    *p = (wf_prompt){ 0 };
}

/* ---- chunks ---------------------------------------------------------------------------------- */

typedef struct filler {
    wf_chunks       *c;
    const wf_extras *extras;
    size_t           fits;
    bool             moves;  /* what follows a comma     */
    int32_t          comma;  /* its id, or -1            */
    size_t           last;   /* comma of this chunk, + 1 */
    weft_error      *err;
} filler;

static weft_status grow_tokens(wf_chunks *c, size_t count, weft_error *err)
{
    size_t   cap = WF_MAX(2 * c->tokens_cap, c->tokens + count);
    int32_t *ids;
    float   *weights;

    if (c->tokens + count <= c->tokens_cap) return WEFT_OK;
    if (c->tokens + count > MOST_TOKENS)
        return wf_fail(err, WEFT_E_ARG, "the prompt has more than %d tokens", MOST_TOKENS);
    ids = wf_zalloc(c->alloc, cap, sizeof *ids);
    weights = wf_zalloc(c->alloc, cap, sizeof *weights);
    if (ids == NULL || weights == NULL) {
        wf_free(c->alloc, ids);
        wf_free(c->alloc, weights);
        return wf_nomem(err, cap * (sizeof *ids + sizeof *weights), "the prompt's tokens");
    }
    if (c->tokens > 0) memcpy(ids, c->ids, c->tokens * sizeof *ids);
    if (c->tokens > 0) memcpy(weights, c->weights, c->tokens * sizeof *weights);
    wf_free(c->alloc, c->ids);
    wf_free(c->alloc, c->weights);
    c->ids = ids;
    c->weights = weights;
    c->tokens_cap = cap;
    return WEFT_OK;
}

/* A chunk begins at token `at`; its end is set when the next one begins. */
static weft_status next_chunk(filler *f, size_t at)
{
    wf_chunks *c = f->c;

    if (c->count + 2 > c->begin_cap) {
        size_t  cap = WF_MAX(2 * c->begin_cap, (size_t)8);
        size_t *begin = wf_zalloc(c->alloc, cap, sizeof *begin);
        if (begin == NULL) return wf_nomem(f->err, cap * sizeof *begin, "the prompt's chunks");
        if (c->count > 0) memcpy(begin, c->begin, c->count * sizeof *begin);
        wf_free(c->alloc, c->begin);
        c->begin = begin;
        c->begin_cap = cap;
    }
    c->begin[c->count++] = at;
    f->last = 0;
    return WEFT_OK;
}

static size_t filled(const wf_chunks *c) { return c->tokens - c->begin[c->count - 1]; }

/* One id of the tokenizer: a token, or a placeholder token with all its places. */
static weft_status place(filler *f, int32_t id, float weight)
{
    wf_chunks      *c = f->c;
    bool            own = f->extras != NULL && id >= f->extras->base;
    const wf_extra *extra = own ? &f->extras->token[id - f->extras->base] : NULL;
    size_t          places = extra != NULL ? (size_t)extra->places : 1;

    if (f->moves && id != f->comma && filled(c) == f->fits && f->last > 0 &&
        c->tokens - (f->last - 1) <= BACKTRACK)
        WF_TRY(next_chunk(f, f->last));
    if (filled(c) + places > f->fits) WF_TRY(next_chunk(f, c->tokens));
    WF_TRY(grow_tokens(c, places, f->err));
    for (size_t k = 0; k < places; k++) {
        c->ids[c->tokens] = extra != NULL ? f->extras->base + extra->row + (int32_t)k : id;
        c->weights[c->tokens++] = weight;
    }
    if (f->moves && id == f->comma) f->last = c->tokens;
    return WEFT_OK;
}

static weft_status place_piece(filler *f, const wf_piece *piece, const char *text,
                               const wf_tokenizer *t)
{
    size_t      count = 0;
    int32_t    *ids;
    weft_status st;

    WF_TRY(wf_tokenizer_encode_with(t, f->extras, text, piece->len, NULL, 0, &count, f->err));
    ids = wf_zalloc(f->c->alloc, count, sizeof *ids);
    if (ids == NULL) return wf_nomem(f->err, count * sizeof *ids, "the prompt's tokens");
    st = wf_tokenizer_encode_with(t, f->extras, text, piece->len, ids, count, &count, f->err);
    for (size_t i = 0; st == WEFT_OK && i < count; i++) st = place(f, ids[i], (float)piece->weight);
    wf_free(f->c->alloc, ids);
    return st;
}

weft_status wf_prompt_chunk(wf_chunks *c, const wf_prompt *p, const wf_tokenizer *t,
                            const wf_extras *extras, size_t fits, bool comma, weft_error *err)
{
    filler      f = { c, extras, fits, comma, -1, 0, err };
    int32_t     id;
    size_t      ids = 0;
    weft_status st;

    *c = (wf_chunks){ .alloc = p->alloc };
    st = wf_tokenizer_encode_with(t, NULL, ",", 1, &id, 1, &ids, err);
    if (ids == 1) f.comma = id;
    if (st == WEFT_OK) st = next_chunk(&f, 0);
    for (size_t i = 0; i < p->count && st == WEFT_OK; i++) {
        const wf_piece *piece = &p->pieces[i];
        st = piece->ends_chunk ? next_chunk(&f, c->tokens)
                               : place_piece(&f, piece, p->text + piece->begin, t);
    }
    if (st != WEFT_OK) {
        wf_chunks_free(c);
        return st;
    }
    if (c->count > 1 && filled(c) == 0) c->count--; /* nothing follows the last BREAK */
    c->begin[c->count] = c->tokens;
    return WEFT_OK;
}

void wf_chunks_free(wf_chunks *c)
{
    if (c->alloc == NULL) return;
    wf_free(c->alloc, c->ids);
    wf_free(c->alloc, c->weights);
    wf_free(c->alloc, c->begin);
    *c = (wf_chunks){ 0 };
}
