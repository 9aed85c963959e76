/* identify.c - what a file is: the names of its dialects, families and kind, and what is said of a
 * file that is none.
 *
 * A key that no dialect reads is a token's embedding, which concepts are for, or of something known
 * that this version does not apply, which is refused; or else it stays in the list with no module,
 * and the report names it. */
#include "adapter/adapter_internal.h"

/* ---- what is no adapter ---------------------------------------------------------------------- */

/* " (hada_w1_a)": the last word of a key that says something. */
static const char *last_word(wf_key_text *buf, const char *key)
{
    const char *end = key + strlen(key), *start;

    if (end - key > 7 && strcmp(end - 7, ".weight") == 0) end -= 7;
    for (start = end; start > key && start[-1] != '.';) start--;
    size_t n = (size_t)(end - start);
    if (n > 40) return "";
    memcpy(buf->text, " (", 2);
    memcpy(buf->text + 2, start, n);
    memcpy(buf->text + 2 + n, ")", 2);
    return buf->text;
}

weft_status wf_identify_refused(const weft_adapter *a, const char *key, const wf_refused *row,
                                weft_error *err)
{
    wf_key_text k, w;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %s is %s%s; this version applies %s", a->name,
                   wf_key_show(&k, key), row->family, row->word ? last_word(&w, key) : "",
                   row->does);
}

weft_status wf_identify_unread(weft_adapter *a, weft_error *err)
{
    for (size_t i = 0; i < wf_tensors_count(a->tensors); i++) {
        const char *key = wf_tensors_at(a->tensors, i)->name;
        if (a->key_module[i] != WF_KEY_UNREAD) continue;
        const wf_refused *row = wf_refused_family(key, false);
        if (row != NULL) return wf_identify_refused(a, key, row, err);
        if (!wf_is_token(key)) continue;
        a->key_module[i] = WF_KEY_TOKEN;
        a->tokens++;
    }
    return WEFT_OK;
}

/* The dialect that most keys come near to, and how near: 2 they begin as its do, 1 they end so, 0
 * none does. */
static const wf_dialect *nearest_dialect(const weft_tensors *t, int32_t *near)
{
    size_t                   count, best = 0, keys = WF_MIN(wf_tensors_count(t), (size_t)1000);
    const wf_dialect *const *all = wf_dialects(&count);
    const wf_dialect        *found = NULL;

    *near = 0;
    for (size_t d = 0; d < count; d++)
        for (int32_t n = 1; n <= 2; n++) {
            size_t hits = 0;
            for (size_t i = 0; i < keys; i++)
                hits += wf_dialect_near(all[d], wf_tensors_at(t, i)->name) == n;
            if (hits <= best) continue;
            best = hits;
            found = all[d];
            *near = n;
        }
    return found;
}

/* The dialects that are read, by their titles, separated by commas. */
static void list_dialects(char *list, size_t cap)
{
    size_t                   count, n = 0;
    const wf_dialect *const *all = wf_dialects(&count);

    list[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        bool listed = false;
        for (size_t j = 0; j < i; j++) listed |= strcmp(all[j]->title, all[i]->title) == 0;
        if (listed) continue;
        if (!wf_format(list + n, cap - n, "%s%s", n > 0 ? ", " : "", all[i]->title)) return;
        n += strlen(list + n);
    }
}

/* The first tensor that is a token's embedding, by its key or, in a file of one, by its width; or
 * NULL. */
static const wf_tensor *find_token(const weft_adapter *a, int32_t *width)
{
    static const int32_t widths[] = { 768, 1024, 1280 };
    const wf_tensor     *first = wf_tensors_at(a->tensors, 0);

    *width = 0;
    for (size_t i = 0; i < wf_tensors_count(a->tensors); i++)
        if (a->key_module[i] == WF_KEY_TOKEN) return wf_tensors_at(a->tensors, i);
    if (wf_tensors_count(a->tensors) != 1 || (first->rank != 1 && first->rank != 2)) return NULL;
    for (size_t i = 0; i < WF_LEN(widths); i++)
        if (first->shape[first->rank - 1] == widths[i]) *width = widths[i];
    return *width != 0 ? first : NULL;
}

weft_status wf_identify_stranger(const weft_adapter *a, weft_error *err)
{
    size_t      count = wf_tensors_count(a->tensors);
    int32_t     near, width;
    wf_key_text k, other;
    char        list[160];

    if (count == 0) return wf_fail(err, WEFT_E_FORMAT, "%s: the file holds no tensors", a->name);
    const wf_tensor *first = wf_tensors_at(a->tensors, 0), *token = find_token(a, &width);
    if (token != NULL && width == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s is a textual inversion: open it as a concept", a->name,
                       wf_key_show(&k, token->name));
    if (token != NULL)
        return wf_fail(
            err, WEFT_E_UNSUPPORTED,
            "%s: %s, one tensor of width %d, is a textual inversion: open it as a concept", a->name,
            wf_key_show(&k, token->name), width);
    if (wf_glob_any("conv_in.*,decoder.*,encoder.*,text_model.*,vision_model.*,*.resnets.*",
                    first->name))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s is of a part of a model, not of an adapter: the folder that it lies "
                       "in is opened as a model",
                       a->name, wf_key_show(&k, first->name));
    const wf_dialect *d = nearest_dialect(a->tensors, &near);
    if (d != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: no key is of a LoRA dialect that this version reads; they %s as %s's "
                       "do and %s otherwise; "
                       "the first is %s, the last %s",
                       a->name, near == 2 ? "begin" : "end", d->name, near == 2 ? "end" : "begin",
                       wf_key_show(&k, first->name),
                       wf_key_show(&other, wf_tensors_at(a->tensors, count - 1)->name));
    list_dialects(list, sizeof list);
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: no key is of a LoRA dialect that this version reads (%s); the first is %s",
                   a->name, list,
                   wf_key_show(&k, first->name));
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Add " + word" to a list of words that has room for `cap` bytes, unless it is in it. */
static void join_word(char *to, size_t cap, const char *word)
{
    size_t n = strlen(to), len = strlen(word);

    for (const char *at = to; (at = strstr(at, word)) != NULL; at += len)
        if ((at == to || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0')) return;
    if (n + len + 4 > cap) return;
    if (n > 0) memcpy(to + n, " + ", 3), n += 3;
    memcpy(to + n, word, len + 1);
}

/* "kohya", or "diffusers + kohya", in the order of their table. Endings that several dialects share
 * name one only in a file that has nothing else. */
static void name_dialects(weft_adapter *a, const wf_draft *drafts)
{
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);
    bool                     strong = false;

    for (size_t m = 0; m < a->count; m++) strong |= !drafts[m].weak;
    for (size_t i = 0; i < count; i++)
        for (size_t m = 0; m < a->count; m++)
            if (drafts[m].dialect == all[i] && !(strong && drafts[m].weak)) {
                join_word(a->dialect, sizeof a->dialect, all[i]->name);
                break;
            }
}

static void name_families(weft_adapter *a)
{
    size_t                  count;
    const wf_family *const *all = wf_families(&count);
    bool                    dora = false;

    for (size_t i = 0; i < count; i++)
        for (size_t m = 0; m < a->count; m++)
            if (a->modules[m].family == all[i] &&
                a->modules[m].tensor[WF_TENSOR_MAGNITUDE] == NULL) {
                join_word(a->families, sizeof a->families, all[i]->name);
                break;
            }
    for (size_t m = 0; m < a->count; m++) dora |= a->modules[m].tensor[WF_TENSOR_MAGNITUDE] != NULL;
    if (dora) join_word(a->families, sizeof a->families, "dora");
}

/* B-LoRA's file: LoRA in the two blocks that carry content and style, which other models than SDXL
 * do not have. */
static bool is_blora(const weft_adapter *a)
{
    static const char *const blocks[] = { "*up_blocks?0?attentions?0?*,*output_blocks?0?1?*",
                                          "*up_blocks?0?attentions?1?*,*output_blocks?1?1?*" };

    for (size_t m = 0; m < a->count; m++) {
        const char *name = a->modules[m].name;
        if (wf_name_component(name) != WEFT_COMPONENT_DENOISER ||
            a->modules[m].family != &wf_family_lora)
            return false;
        if (!wf_glob_any(blocks[0], name) && !wf_glob_any(blocks[1], name)) return false;
    }
    return true;
}

/* What all modules are, if their dialect says so of whole differences; or NULL. */
static const char *whole_kind(const weft_adapter *a, const wf_draft *drafts)
{
    const char *kind = drafts[0].dialect->whole_kind;

    for (size_t m = 0; m < a->count; m++)
        if (a->modules[m].tensor[WF_TENSOR_DIFF] == NULL || drafts[m].dialect->whole_kind != kind)
            return NULL;
    return kind;
}

/* What the whole file is, if that can be told: by a dialect, by the modules' families, by the
 * layers. */
static const char *kind_of(const weft_adapter *a, const wf_draft *drafts)
{
    const char *kind = is_blora(a) ? "B-LoRA" : "", *whole = whole_kind(a, drafts);

    for (size_t m = 0; m < a->count; m++)
        if (drafts[m].dialect->kind != NULL) return drafts[m].dialect->kind;
    if (whole != NULL) kind = whole;
    for (size_t m = 0; m < a->count; m++) {
        const wf_module *one = &a->modules[m];
        const char      *word = one->family->kind != NULL ? one->family->kind(one) : NULL;
        if (word != NULL) kind = word;
    }
    return kind;
}

void wf_identify(weft_adapter *a, const wf_draft *drafts)
{
    name_dialects(a, drafts);
    name_families(a);
    a->kind = kind_of(a, drafts);
}
