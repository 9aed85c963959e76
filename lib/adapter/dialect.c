/* dialect.c - the dialects, and the one reader that walks their tables.
 *
 * The keys show the dialect, key by key, never the file's name: real files mix dialects (a
 * UNet part in one and a text part in another), so each key goes to the first dialect whose tables
 * read it. The order matters in one place only: PEFT reads names without any prefix, so it is asked
 * last. */
#include "adapter/dialect.h"

static const wf_dialect *const dialects[] = {
    &wf_dialect_kohya,
    &wf_dialect_kohya_peft,
    &wf_dialect_lycoris,
    &wf_dialect_diffusers,
    &wf_dialect_diffusers_old,
    &wf_dialect_cloneofsimo,
    &wf_dialect_custom,
    &wf_dialect_custom_delta,
    &wf_dialect_custom_ldm,
    &wf_dialect_edlora,
    &wf_dialect_peft,
};

const wf_dialect *const *wf_dialects(size_t *count)
{
    *count = WF_LEN(dialects);
    return dialects;
}

static bool begins(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

/* Length of s before the ending, or 0: a key that is all ending names no module. */
static size_t ends(const char *s, size_t len, const char *with)
{
    size_t w = strlen(with);

    while (w > 0 && len > 0) {
        if (with[w - 1] == '*') {
            if (s[len - 1] == '.') return 0;
            while (len > 0 && s[len - 1] != '.') len--;
        } else if (s[len - 1] == with[w - 1]) {
            len--;
        } else {
            return 0;
        }
        w--;
    }
    return w == 0 ? len : 0;
}

/* Append n bytes to name, which holds *len; false if it does not fit. */
static bool append(char *name, size_t *len, const char *s, size_t n)
{
    if (n >= WF_NAME_CAP - *len) return false;
    memcpy(name + *len, s, n);
    *len += n;
    name[*len] = '\0';
    return true;
}

bool wf_name_text_model(char *name, size_t cap)
{
    static const struct { const char *heads[3], *roots[3], *word; } forms[] = {
        { { "text_encoder.", "text_encoder_2.", NULL },
          { "encoder.", "embeddings.", "final_layer_norm" }, "text_model." },
        { { "lora_te_", "lora_te1_", "lora_te2_" },
          { "encoder_layers_", "embeddings_", "final_layer_norm" }, "text_model_" },
    };

    for (size_t f = 0; f < WF_LEN(forms); f++)
        for (size_t h = 0; h < 3 && forms[f].heads[h] != NULL; h++) {
            if (!begins(name, forms[f].heads[h])) continue;
            char  *rest = name + strlen(forms[f].heads[h]);
            size_t n = strlen(forms[f].word);
            for (size_t r = 0; r < 3; r++) {
                if (!begins(rest, forms[f].roots[r])) continue;
                if (strlen(name) + n + 1 > cap) return false;
                memmove(rest + n, rest, strlen(rest) + 1);
                memcpy(rest, forms[f].word, n);
                return true;
            }
        }
    return true;
}

/* The name's end as the model calls it: ".processor.to_q" -> ".to_q". Every row may apply, in
 * order. */
static bool rename_end(const wf_rename *renames, char *name)
{
    for (const wf_rename *r = renames; r != NULL && r->from != NULL; r++) {
        size_t len = ends(name, strlen(name), r->from);
        if (len > 0 && !append(name, &len, r->to, strlen(r->to))) return false;
    }
    return true;
}

/* The ending that the key has, in one of the dialect's tables; *stem is what stands before it. */
static const wf_ending *find_ending(const wf_dialect *d, const char *key, bool wrapped,
                                    size_t *stem)
{
    size_t len = strlen(key);

    for (size_t t = 0; t < WF_LEN(d->endings) && d->endings[t] != NULL; t++)
        for (const wf_ending *e = d->endings[t]; e->text != NULL; e++)
            if ((wrapped || (e->how & WF_WRAPPED) == 0) && (*stem = ends(key, len, e->text)) > 0)
                return e;
    return NULL;
}

/* What programs wrap around a model before it is saved: PEFT, DistributedDataParallel, Lightning, a
 * pipeline object. They stack in any order, outside a component's name and inside it. */
static const char *const wrappers[] = {
    WF_PEFT_WRAPPER, "module.", "model.", "state_dict.", "pipeline.", "pipe.",
};

/* What torch.compile, FSDP and checkpointing put around any part of a model, as a word of its own
 * in the path. No layer is called so. */
static const char *const inner_words[] = {
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
};

/* Bytes at `s` that wrap what follows; 0 if nothing does. */
static size_t wrapper_at(const char *s)
{
    for (size_t i = 0; i < WF_LEN(wrappers); i++)
        if (begins(s, wrappers[i])) return strlen(wrappers[i]);
    return 0;
}

/* The key without inner words: itself if it has none, or what it is put together as in buf. A key
 * that is too long for buf stays as it is. */
static const char *without_inner_words(const char *key, char *buf, size_t cap)
{
    size_t n = strlen(key);
    bool   any = false;

    for (size_t i = 0; i < WF_LEN(inner_words); i++) any |= strstr(key, inner_words[i]) != NULL;
    if (!any || n >= cap) return key;
    memcpy(buf, key, n + 1);
    for (size_t i = 0; i < WF_LEN(inner_words); i++) {
        size_t w = strlen(inner_words[i]);
        for (char *at = buf; (at = strstr(at, inner_words[i])) != NULL;) {
            bool starts = at == buf || at[-1] == '.' || at[-1] == '_';
            if (starts && (at[w] == '.' || at[w] == '_')) memmove(at, at + w + 1, strlen(at + w));
            else at++;
        }
    }
    return buf;
}

static const wf_prefix *prefix_at(const wf_dialect *d, const char *s)
{
    for (const wf_prefix *p = d->prefixes; p->from != NULL; p++)
        if (begins(s, p->from)) return p;
    return NULL;
}

/* The prefix that the key has after its wrappers; *body is what stands after it. Behind a prefix
 * that ends in a dot wrappers and the prefix itself may follow again ("unet.unet.",
 * "unet.base_model.model."). PEFT's word in front is a mark of PEFT's dialect. */
static const wf_prefix *find_prefix(const wf_dialect *d, const char *key, const char **body,
                                    bool *wrapped)
{
    const wf_prefix *p;
    size_t           n;

    *wrapped = false;
    for (*body = key; (p = prefix_at(d, *body)) == NULL; *body += n) {
        bool own = d->wrapper != NULL && begins(*body, d->wrapper);
        n = own ? strlen(d->wrapper) : wrapper_at(*body);
        if (n == 0 || (!own && begins(*body, WF_PEFT_WRAPPER))) return NULL;
        *wrapped |= own;
    }
    *body += (n = strlen(p->from));
    if (p->from[n - 1] != '.') return p;
    for (;; *body += n) {
        n = begins(*body, p->from) ? strlen(p->from) : wrapper_at(*body);
        if (n == 0) return p;
        if (begins(*body, WF_PEFT_WRAPPER) && !d->peft) return NULL; /* its tensors mean PEFT's */
    }
}

int32_t wf_dialect_near(const wf_dialect *d, const char *whole)
{
    char        buf[WF_KEY_CAP];
    const char *body, *key = without_inner_words(whole, buf, sizeof buf);
    size_t      stem;
    bool        wrapped;

    if (find_prefix(d, key, &body, &wrapped) != NULL) return 2;
    const wf_ending *e = find_ending(d, key, false, &stem);
    return e != NULL && (e->how & (WF_JOINS | WF_BESIDE)) == 0 ? 1 : 0;
}

bool wf_dialect_read(const wf_dialect *d, const char *whole, wf_key *out)
{
    char             buf[WF_KEY_CAP];
    const char      *body, *key = without_inner_words(whole, buf, sizeof buf);
    size_t           stem, n = 0;
    bool             wrapped;
    const wf_prefix *p = find_prefix(d, key, &body, &wrapped);
    const wf_ending *e = p != NULL ? find_ending(d, key, wrapped, &stem) : NULL;

    if (e == NULL || stem >= WF_NAME_CAP) return false;
    if ((size_t)(body - key) > stem) return false;

    out->name[0] = '\0';
    if (!append(out->name, &n, p->to, strlen(p->to)) ||
        !append(out->name, &n, body, stem - (size_t)(body - key)) ||
        !append(out->name, &n, e->to, strlen(e->to)))
        return false;
    if (d->underscore)
        for (char *c = out->name; *c != '\0'; c++)
            if (*c == '.') *c = '_';
    if (!rename_end(d->renames, out->name) || !wf_name_text_model(out->name, sizeof out->name))
        return false;
    out->stem = stem + strlen(whole) - strlen(key); /* the words stood before the ending */
    out->tensor = e->tensor;
    out->how = e->how;
    return true;
}
