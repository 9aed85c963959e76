/* read.c - from the tensors of a file to its tokens.
 *
 * Every key is looked up in the table of forms. If that gives no token, and the file is one tensor
 * of one or two dimensions, the tensor is the token, and its key is the token's name: diffusers
 * saves a textual inversion so, whatever the token looks like. Tensors that are left over are an
 * adapter's, and the adapter room reads them. */
#include "concept/concept.h"

enum { MOST_VECTORS = 4096, MOST_WIDTH = 65536 };

void wf_token_list_free(wf_token_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        wf_concept_token *w = &list->tokens[i];
        wf_free(list->alloc, w->name);
        wf_free(list->alloc, w->folded);
        wf_free(list->alloc, w->also);
        wf_free(list->alloc, w->also_folded);
        for (int k = 0; k < 2; k++) wf_free(list->alloc, w->of[k].v);
    }
    wf_free(list->alloc, list->tokens);
    *list = (wf_token_list){ 0 };
}

/* The token of this name: the one that is there, or a new one. */
static weft_status token_named(wf_token_list *list, const char *name, size_t len,
                               wf_concept_token **out, weft_error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        *out = &list->tokens[i];
        if (strlen((*out)->name) == len && memcmp((*out)->name, name, len) == 0) return WEFT_OK;
    }
    if (list->count == WF_CONCEPT_TOKENS)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "more than %d tokens in one file",
                       WF_CONCEPT_TOKENS);
    *out = &list->tokens[list->count];
    (*out)->name = wf_strndup(list->alloc, name, len);
    if ((*out)->name == NULL) return wf_nomem(err, len + 1, "a token");
    list->count++;
    return WEFT_OK;
}

static weft_status check_shape(const wf_tensor *t, const char *what, weft_error *err)
{
    wf_shape_text shape;
    bool fits = (t->rank == 1 || t->rank == 2) && t->count > 0 &&
         t->shape[t->rank - 1] <= MOST_WIDTH &&
                (t->rank == 1 || t->shape[0] <= MOST_VECTORS);
    if (fits) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT, "%s: %.160s is %s: the vectors of a token are (d) or (n, d)",
                   what, t->name, wf_shape(&shape, t->shape, t->rank));
}

/* Rows [first, first + n) of t, widened, as the vectors of w. */
static weft_status take_rows(wf_token_list *list, wf_concept_token *w, const wf_tensor *t,
                             size_t first, size_t n, int32_t encoder, const char *what,
                             weft_error *err)
{
    size_t      width = (size_t)t->shape[t->rank - 1], each = (size_t)wf_dtype_bits(t->dtype) / 8;
    wf_vectors *to = &w->of[encoder < 0 ? 0 : encoder];
    if (to->v != NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %.160s: the token %.80s has vectors already", what,
                       t->name, w->name);
    if (w->vectors > 0 && (size_t)w->vectors != n)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: %.160s has %zu vectors for the token %.80s, its other text encoder has "
                       "%d", what, t->name, n, w->name, w->vectors);
    to->v = wf_zalloc(list->alloc, n * width, sizeof *to->v);
    if (to->v == NULL) return wf_nomem(err, n * width * sizeof *to->v, "the vectors of a token");
    to->width = (int32_t)width;
    w->vectors = (int32_t)n;
    if (each == 0 || !wf_widen_any(to->v, t->data + first * width * each, t->dtype, n * width))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %.160s holds %s, which vectors are not read from", what, t->name,
                       wf_dtype_name(t->dtype));
    for (size_t i = 0; i < n * width; i++)
        if (to->v[i] - to->v[i] != 0)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %.160s: value %zu is not a finite number", what,
                           t->name, first * width + i);
    return WEFT_OK;
}

static weft_status take_tensor(wf_token_list *list, const wf_tensor *t, const wf_token_form *form,
                               const char *name, size_t len, const char *what, weft_error *err)
{
    wf_concept_token *w;
    size_t rows;
    char numbered[32];

    WF_TRY(check_shape(t, what, err));
    rows = t->rank == 1 ? 1 : (size_t)t->shape[0];
    if (form->shape != WF_TOKEN_ROWS) {
        WF_TRY(token_named(list, name, len, &w, err));
        WF_TRY(take_rows(list, w, t, 0, rows, form->encoder, what, err));
        if (form->shape == WF_TOKEN_LAYERS && rows > 1) {
            w->layers = w->vectors;
            w->vectors = 1;
        }
        return WEFT_OK;
    }
    for (size_t i = 0; i < rows; i++) {
        wf_format(numbered, sizeof numbered, "<new%zu>", i + 1);
        WF_TRY(token_named(list, numbered, strlen(numbered), &w, err));
        WF_TRY(take_rows(list, w, t, i, 1, form->encoder, what, err));
    }
    return WEFT_OK;
}

/* The name of a token whose key does not say it: the metadata "name", or the key's last word if it
 * is not A1111's "*". */
static const char *given_name(const weft_tensors *t, const char *key, const char *stem)
{
    static const char prefix[] = "string_to_param.";
    const char *name = weft_tensors_metadata(t, "name");

    if (name != NULL && *name != '\0') return name;
    if (strncmp(key, prefix, sizeof prefix - 1) == 0 && strcmp(key + sizeof prefix - 1, "*") != 0 &&
        key[sizeof prefix - 1] != '\0')
        return key + sizeof prefix - 1;
    return stem;
}

/* A file with one tensor. */
static bool lone(const weft_tensors *t)
{
    const wf_tensor *one = wf_tensors_count(t) == 1 ? wf_tensors_at(t, 0) : NULL;
    return one != NULL && (one->rank == 1 ||
                           one->rank == 2) && wf_dtype_bits(one->dtype) >= 8 &&
                           one->dtype < WF_BOOL;
}

weft_status wf_tokens_read(wf_token_list *list, const weft_tensors *t, const char *stem,
                           const weft_allocator *alloc, weft_error *err)
{
    static const wf_token_form diffusers = { "@", WF_TOKEN_WHOLE, -1,
                                             "textual inversion (diffusers)" };
    const char *root = weft_tensors_metadata(t, "weft.root"), *what = wf_tensors_what(t);
    weft_status st = WEFT_OK;

    *list = (wf_token_list){ .alloc = alloc };
    list->tokens = wf_zalloc(alloc, WF_CONCEPT_TOKENS, sizeof *list->tokens);
    if (list->tokens == NULL)
        return wf_nomem(err, WF_CONCEPT_TOKENS * sizeof *list->tokens, "the tokens of a file");
    for (size_t i = 0; i < wf_tensors_count(t) && st == WEFT_OK; i++) {
        const wf_tensor *one = wf_tensors_at(t, i);
        const char *name, *meta = weft_tensors_metadata(t, one->name);
        size_t len;
        const wf_token_form *form = wf_token_form_of(one->name, &name, &len);

        if (form == NULL && (lone(t) || (meta != NULL && strcmp(meta, "<embed>") == 0))) {
            form = &diffusers; /* the latter is how cloneofsimo's files mark a token */
            name = root != NULL ? stem : one->name;
            len = strlen(name);
        }
        if (form == NULL) {
            if (list->other[0] == '\0') wf_wash(list->other, sizeof list->other,
                                                  one->name[0] != '\0'
                                                      ? one->name : "without a name");
            continue;
        }
        if (form->shape == WF_TOKEN_NONE) {
            if (form->format != NULL) list->format = form->format;
            continue;
        }
        if (len == 0) name = given_name(t, one->name, stem);
        st = take_tensor(list, one, form, name, len > 0 ? len : strlen(name), what, err);
        if (list->format == NULL) list->format = form->format;
    }
    if (st != WEFT_OK) wf_token_list_free(list);
    return st;
}
