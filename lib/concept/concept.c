/* concept.c - the concept as a handle: tokens from one file or two, and the adapter that was
 * trained with them.
 *
 * Vectors are widened and copied when a concept is opened; they are a few thousand floats. If the
 * file has more than tokens, the adapter room opens it too.
 *
 * A textual inversion is published under its file's name, which is what prompts write in programs
 * that load a folder of them; diffusers wants the name inside. A file of one token gives it under
 * both. */
#include "base/structs.h"
#include "concept/concept.h"

struct weft_concept {
    wf_refs        refs;
    weft_allocator alloc;
    char          *name;
    wf_token_list   list;
    weft_adapter  *adapter;
    const char    *format;
    wf_origin      file, second; /* a second without a path: none */
    char          *names;        /* that the caller gave, or NULL */
};

/* ---- opening --------------------------------------------------------------------------------- */

/* "embeddings/cat-toy.pt" is "cat-toy". */
static char *stem_of(const weft_allocator *alloc, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path,
               *dot = strrchr(base, '.');
    return wf_strndup(alloc, base, dot != NULL &&
                      dot != base ? (size_t)(dot - base) : strlen(base));
}

static weft_status read_file(wf_token_list *list, const char *path, const weft_concept_options *o,
                             const weft_allocator *alloc, weft_error *err)
{
    weft_tensors *t = NULL;
    char         *stem = stem_of(alloc, path);
    weft_status   st;

    *list = (wf_token_list){ 0 };
    if (stem == NULL) return wf_nomem(err, strlen(path), "a name");
    st = wf_tensors_open(path, (o->flags & WEFT_OPEN_COPY) != 0, alloc, &t, err);
    if (st == WEFT_OK) st = wf_tokens_read(list, t, stem, alloc, err);
    weft_tensors_free(t);
    wf_free(alloc, stem);
    return st;
}

/* The second file's vectors are those of the other text encoder. */
static weft_status join(wf_token_list *list, wf_token_list *second, const char *path,
                        weft_error *err)
{
    if (second->count == 0) return wf_fail(err, WEFT_E_UNSUPPORTED, "%.200s: no token in it", path);
    if (second->other[0] != '\0')
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%.200s: the second file of a concept holds tokens only, and here is %s",
                       path, second->other);
    if (list->count == 0) {
        wf_token_list first = *list;
        *list = *second;
        *second = first;
        memcpy(list->other, first.other, sizeof list->other);
        return WEFT_OK;
    }
    if (list->count != second->count)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "%s has %zu tokens, the file that it is the other half of has %zu", path,
                       second->count, list->count);
    for (size_t i = 0; i < list->count; i++) {
        wf_concept_token *w = &list->tokens[i], *other = &second->tokens[i];
        int from = other->of[0].v == NULL, to = w->of[0].v != NULL;
        if (w->of[to].v != NULL || other->of[!from].v != NULL)
            return wf_fail(err, WEFT_E_MISMATCH,
                           "%s: the token %.80s has vectors for both text encoders without it",
                           path, w->name);
        if (w->vectors != other->vectors || w->layers != other->layers)
            return wf_fail(err, WEFT_E_MISMATCH,
                           "%s has %d vectors for the token %.80s, its other half has %d", path,
                           WF_MAX(other->vectors, other->layers), w->name,
                           WF_MAX(w->vectors, w->layers));
        w->of[to] = other->of[from];
        other->of[from] = (wf_vectors){ 0 };
    }
    return WEFT_OK;
}

/* Names that the caller gives, separated by commas, in place of the file's. */
static weft_status rename_tokens(weft_concept *c, const char *names, weft_error *err)
{
    size_t count = 1, i = 0;

    for (const char *s = names; (s = strchr(s, ',')) != NULL; s++) count++;
    if (count != c->list.count)
        return wf_fail(err, WEFT_E_ARG, "concept options: tokens names %zu, %.200s has %zu", count,
                       c->name, c->list.count);
    for (const char *s = names;; i++) {
        size_t n = strcspn(s, ",");
        char  *token = wf_strndup(&c->alloc, s, n);
        if (token == NULL) return wf_nomem(err, n + 1, "a token");
        wf_free(&c->alloc, c->list.tokens[i].name);
        c->list.tokens[i].name = token;
        if (s[n] == '\0') return WEFT_OK;
        s += n + 1;
    }
}

const char *wf_token_unfit(const char *folded, size_t len)
{
    if (len == 0) return "is empty";
    if (len > 200) return "has more than 200 bytes";
    for (size_t k = 0; k < len; k++)
        if ((uint8_t)folded[k] < 0x20 || folded[k] == 0x7f) return "has a control character";
    return NULL;
}

/* What prompts are searched for; two tokens of a concept are two there as well. */
static weft_status fold_tokens(weft_concept *c, weft_error *err)
{
    for (size_t i = 0; i < c->list.count; i++) {
        wf_concept_token *w = &c->list.tokens[i];
        WF_TRY(wf_tokenizer_fold(w->name, &c->alloc, &w->folded, &w->folded_len, err));
        const char *why = wf_token_unfit(w->folded, w->folded_len);
        if (why != NULL)
            return wf_fail(err, WEFT_E_FORMAT, "%.200s: token %zu %s", c->name, i + 1, why);
        for (size_t k = 0; k < i; k++)
            if (strcmp(c->list.tokens[k].folded, w->folded) == 0)
                return wf_fail(err, WEFT_E_FORMAT, "%.200s: two of its tokens are %.80s", c->name,
                               w->name);
    }
    return WEFT_OK;
}

/* The only token of a file of nothing else has the file's name too, if that can be looked for. */
static weft_status name_after_file(weft_concept *c, weft_error *err)
{
    wf_concept_token *w = &c->list.tokens[0];
    weft_error        why = { 0 };
    weft_status       st;

    st = wf_tokenizer_fold(c->name, &c->alloc, &w->also_folded, &w->also_len, &why);
    if (st == WEFT_E_NOMEM) return wf_fail(err, st, "%s", why.text);
    if (st == WEFT_OK && wf_token_unfit(w->also_folded, w->also_len) == NULL &&
        strcmp(w->also_folded, w->folded) != 0)
        return (w->also = wf_strdup(&c->alloc, c->name)) != NULL
                   ? WEFT_OK
                   : wf_nomem(err, strlen(c->name) + 1, "a token");
    wf_free(&c->alloc, w->also_folded);
    w->also_folded = NULL;
    return WEFT_OK;
}

static void say_tokens(const weft_concept *c, const weft_concept_options *o)
{
    for (size_t i = 0; i < c->list.count; i++) {
        const wf_concept_token *w = &c->list.tokens[i];
        wf_log(o->log, o->log_user, WEFT_LOG_INFO, "%.200s: the token %.80s%s%.80s", c->name,
               w->name, w->also != NULL ? ", also written " : "", w->also != NULL ? w->also : "");
    }
}

static weft_status open_adapter(weft_concept *c, const char *path, const weft_concept_options *o,
                                weft_error *err)
{
    weft_adapter_options a = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter_info    info = WEFT_ADAPTER_INFO_INIT;
    weft_status          st;

    a.flags = o->flags;
    a.allocator = &c->alloc;
    a.log = o->log;
    a.log_user = o->log_user;
    st = weft_adapter_open(path, &a, &c->adapter, err);
    if (st == WEFT_OK) st = weft_adapter_info_get(c->adapter, &info, err);
    if (st == WEFT_OK && info.kind != NULL && *info.kind != '\0') c->format = info.kind;
    if ((st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED) && c->list.count == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%.200s: no token in it, and no adapter: its first tensor is %s", path,
                       c->list.other);
    if ((st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED) && err != NULL) {
        weft_error why = *err; /* which may say: this is a textual inversion */
        return wf_fail(
            err, st,
            "%.120s: beside its tokens it holds %.80s, which is not of an adapter that can be "
            "opened: %.240s",
            path, c->list.other, why.text);
    }
    if (st == WEFT_OK && c->list.count == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%.200s: no token in it: it is an adapter (%.80s, %.80s), to be opened as "
                       "one, or with its tokens in weft_concept_options.second", path, info.dialect,
                       info.family);
    return st;
}

static weft_status open_files(weft_concept *c, const char *path, const weft_concept_options *o,
                              weft_error *err)
{
    wf_token_list second = { 0 };
    weft_status  st = read_file(&c->list, path, o, &c->alloc, err);

    if (st == WEFT_OK && o->second != NULL) st = read_file(&second, o->second, o, &c->alloc, err);
    if (st == WEFT_OK && o->second != NULL) st = join(&c->list, &second, o->second, err);
    wf_token_list_free(&second);
    if (st != WEFT_OK) return st;
    c->format = c->list.format;
    if (c->list.other[0] != '\0') WF_TRY(open_adapter(c, path, o, err));
    if (c->list.count == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%.200s: no token in it: it holds no tensors",
                       path);
    if (o->tokens != NULL) WF_TRY(rename_tokens(c, o->tokens, err));
    WF_TRY(fold_tokens(c, err));
    if (o->tokens == NULL && o->second == NULL && c->adapter == NULL && c->list.count == 1)
        WF_TRY(name_after_file(c, err));
    say_tokens(c, o);
    return WEFT_OK;
}

static weft_status remember(weft_concept *c, const char *path, const weft_concept_options *o,
                            weft_error *err)
{
    if (o->tokens != NULL && (c->names = wf_strdup(&c->alloc, o->tokens)) == NULL)
        return wf_nomem(err, strlen(o->tokens) + 1, "names of tokens");
    if (o->second != NULL) WF_TRY(wf_origin_of(&c->second, o->second, &c->alloc, err));
    return wf_origin_of(&c->file, path, &c->alloc, err);
}

weft_status weft_concept_open(const char *path, const weft_concept_options *options,
                              weft_concept **out, weft_error *err)
{
    weft_concept_options o;
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_concept_options, WEFT_OPEN_COPY, err));
    WF_TRY(wf_check_allocator(o.allocator, err));

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_concept  *c = wf_zalloc(&alloc, 1, sizeof *c);
    if (c == NULL) return wf_nomem(err, sizeof *c, "a concept");
    wf_ref_init(&c->refs);
    c->alloc = alloc;
    c->name = stem_of(&c->alloc, path);
    st = c->name != NULL ? open_files(c, path, &o, err) : wf_nomem(err, strlen(path), "a name");
    if (st == WEFT_OK) st = remember(c, path, &o, err);
    if (st == WEFT_OK) *out = c;
    else weft_concept_free(c);
    return st;
}

weft_status wf_concept_create(const weft_tensors *t, const char *name, weft_adapter *adapter,
                              const weft_allocator *allocator, weft_concept **out, weft_error *err)
{
    weft_status   st;
    weft_concept *c = wf_zalloc(allocator, 1, sizeof *c);

    *out = NULL;
    if (c == NULL) return wf_nomem(err, sizeof *c, "a concept");
    wf_ref_init(&c->refs);
    c->alloc = *allocator;
    c->name = wf_strdup(&c->alloc, name);
    st = c->name != NULL ? wf_tokens_read(&c->list, t, name, &c->alloc, err)
                         : wf_nomem(err, strlen(name) + 1, "a name");
    c->format = c->list.format;
    if (st == WEFT_OK && c->list.count == 0)
        st = wf_fail(err, WEFT_E_UNSUPPORTED, "%.200s: no token in it", name);
    if (st == WEFT_OK) st = fold_tokens(c, err);
    if (st == WEFT_OK && adapter != NULL) wf_adapter_ref(c->adapter = adapter);
    if (st == WEFT_OK) *out = c;
    else weft_concept_free(c);
    return st;
}

void weft_concept_free(weft_concept *c)
{
    if (c == NULL || !wf_ref_drop(&c->refs)) return;
    weft_allocator alloc = c->alloc;
    wf_token_list_free(&c->list);
    weft_adapter_free(c->adapter);
    wf_free(&alloc, c->name);
    wf_free(&alloc, c->names);
    wf_origin_free(&c->file, &alloc);
    wf_origin_free(&c->second, &alloc);
    wf_free(&alloc, c);
}

/* ---- asking ---------------------------------------------------------------------------------- */

void                    wf_concept_ref(weft_concept *c) { wf_ref_take(&c->refs); }
const char             *wf_concept_name(const weft_concept *c) { return c->name; }
weft_adapter           *wf_concept_adapter(const weft_concept *c) { return c->adapter; }
const wf_origin        *wf_concept_file(const weft_concept *c) { return &c->file; }
const wf_origin        *wf_concept_second(const weft_concept *c) { return &c->second; }
const char             *wf_concept_names(const weft_concept *c) { return c->names; }
size_t                  wf_concept_tokens(const weft_concept *c) { return c->list.count; }
const wf_concept_token *wf_concept_token_at(const weft_concept *c,
                                            size_t i) { return &c->list.tokens[i]; }

weft_status weft_concept_info_get(const weft_concept *c, weft_concept_info *info, weft_error *err)
{
    weft_concept_info r = WEFT_CONCEPT_INFO_INIT;

    if (c == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", c == NULL ? "concept" : "info");
    r.tokens = (int32_t)c->list.count;
    r.name = c->name;
    r.format = c->format;
    r.adapter = c->adapter != NULL;
    return WF_RESULT(info, &r, weft_concept_info, err);
}

weft_status weft_concept_token(const weft_concept *c, size_t index, weft_token_info *info,
                               weft_error *err)
{
    weft_token_info r = WEFT_TOKEN_INFO_INIT;

    if (c == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", c == NULL ? "concept" : "info");
    if (index >= c->list.count)
        return wf_fail(err, WEFT_E_ARG, "token %zu is not one of the concept's %zu", index,
                       c->list.count);
    const wf_concept_token *w = &c->list.tokens[index];
    r.vectors = w->vectors;
    r.token = w->name;
    r.width = w->of[0].width;
    r.width_2 = w->of[1].width;
    r.layers = w->layers;
    r.also = w->also;
    return WF_RESULT(info, &r, weft_token_info, err);
}

weft_adapter *weft_concept_adapter(const weft_concept *c)
{
    if (c == NULL || c->adapter == NULL) return NULL;
    wf_adapter_ref(c->adapter);
    return c->adapter;
}
