/* read.c - from a file's keys to modules, each with its tensors, its family and a scale.
 *
 * Two passes over the keys: first those that make modules, then those that only join one, such as alpha. Modules are
 * told apart by a folded name (dots as underscores, one word for each component), so that one module that stands
 * in the file twice, in two spellings, is found here and refused: applying both would double it, and choosing one
 * would be a guess. A key that no dialect reads is a word's embedding, which concepts are for, or of something known
 * that this version does not apply, which is refused, or stays in the list with no module; the report names it. */
#include <math.h>

#include "adapter/room.h"

/* What is needed while reading and forgotten afterwards. */
typedef struct draft {
    const wf_dialect *dialect;
    char             *folded;
    const wf_tensor  *first; /* the tensor that made the module */
    bool              weak;
} draft;

typedef struct reader {
    weft_adapter    *a;
    const wf_source *source;
    draft           *drafts; /* [tensors] */
    wf_map           by_name;
    json_t          *metadata; /* lora_adapter_metadata, or NULL                      */
    const char      *list;     /* prefix for numbers, where the file is a bare list   */
    weft_error      *err;
} reader;

/* ---- names --------------------------------------------------------------------------------------- */

static const struct {
    const char *head;
    const char *word;
    int32_t     component;
} heads[] = {
    { "unet.", "unet_", 0 },           { "lora_unet_", "unet_", 0 },
    { "text_encoder.", "te1_", 1 },    { "lora_te_", "te1_", 1 },
    { "lora_te1_", "te1_", 1 },        { "text_encoder_2.", "te2_", 2 },
    { "lora_te2_", "te2_", 2 },        { "unet:", "unet:", 0 },
    { "text_encoder:", "te1:", 1 },
};

int32_t wf_name_component(const char *name)
{
    for (size_t i = 0; i < WF_LEN(heads); i++)
        if (strncmp(name, heads[i].head, strlen(heads[i].head)) == 0) return heads[i].component;
    return -1;
}

/* The module's path inside its component. */
static const char *inside(const char *name)
{
    for (size_t i = 0; i < WF_LEN(heads); i++)
        if (strncmp(name, heads[i].head, strlen(heads[i].head)) == 0) return name + strlen(heads[i].head);
    return name;
}

/* One spelling for all dialects; buf holds WF_NAME_CAP, and folding never makes a name longer. */
static void fold(char *buf, const char *name)
{
    size_t n = 0;

    for (size_t i = 0; i < WF_LEN(heads); i++) {
        if (strncmp(name, heads[i].head, strlen(heads[i].head)) != 0) continue;
        n = strlen(heads[i].word);
        memcpy(buf, heads[i].word, n);
        name += strlen(heads[i].head);
        break;
    }
    for (; *name != '\0'; name++) buf[n++] = *name == '.' ? '_' : *name;
    buf[n] = '\0';
}

const char *wf_key_show(wf_key_text *buf, const char *key)
{
    size_t n = strlen(key), cap = sizeof buf->text;

    if (n < cap) return memcpy(buf->text, key, n + 1);
    for (n = cap - 4; n > 0 && ((unsigned char)key[n] & 0xC0) == 0x80; n--) {} /* between characters */
    memcpy(buf->text, key, n);
    memcpy(buf->text + n, "...", 4);
    return buf->text;
}

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

/* ---- what is no adapter ----------------------------------------------------------------------------- */

static weft_status refuse_key(reader *rd, const char *key, const wf_refused *row)
{
    wf_key_text k, w;
    return wf_fail(rd->err, WEFT_E_UNSUPPORTED, "%s: %s is %s%s; this version applies %s", rd->source->name,
                   wf_key_show(&k, key), row->family, row->word ? last_word(&w, key) : "", row->does);
}

/* What the keys that no dialect reads are. */
static weft_status sort_unread(reader *rd)
{
    for (size_t i = 0; i < wf_tensors_count(rd->a->tensors); i++) {
        const char *key = wf_tensors_at(rd->a->tensors, i)->name;
        if (rd->a->key_module[i] != WF_KEY_UNREAD) continue;
        const wf_refused *row = wf_refused_family(key, false);
        if (row != NULL) return refuse_key(rd, key, row);
        if (!wf_is_word(key)) continue;
        rd->a->key_module[i] = WF_KEY_WORD;
        rd->a->words++;
    }
    return WEFT_OK;
}

/* The dialect that most keys come near to, and how near: 2 they begin as its do, 1 they end so, 0 none does. */
static const wf_dialect *nearest_dialect(const weft_tensors *t, int32_t *near)
{
    size_t                   count, best = 0, keys = WF_MIN(wf_tensors_count(t), (size_t)1000);
    const wf_dialect *const *all = wf_dialects(&count);
    const wf_dialect        *found = NULL;

    *near = 0;
    for (size_t d = 0; d < count; d++)
        for (int32_t n = 1; n <= 2; n++) {
            size_t hits = 0;
            for (size_t i = 0; i < keys; i++) hits += wf_dialect_near(all[d], wf_tensors_at(t, i)->name) == n;
            if (hits <= best) continue;
            best = hits;
            found = all[d];
            *near = n;
        }
    return found;
}

/* A file without one module: what is it then? */
static weft_status refuse_strangers(reader *rd)
{
    static const int64_t widths[] = { 768, 1024, 1280 };
    weft_tensors        *t = rd->a->tensors;
    int32_t              near;
    wf_key_text          k, other;

    if (wf_tensors_count(t) == 0)
        return wf_fail(rd->err, WEFT_E_FORMAT, "%s: the file holds no tensors", rd->source->name);
    const wf_tensor *first = wf_tensors_at(t, 0);
    for (size_t i = 0; i < wf_tensors_count(t); i++)
        if (rd->a->key_module[i] == WF_KEY_WORD)
            return wf_fail(rd->err, WEFT_E_UNSUPPORTED, "%s: %s is a textual inversion: open it as a concept",
                           rd->source->name, wf_key_show(&k, wf_tensors_at(t, i)->name));
    for (size_t i = 0; i < WF_LEN(widths) && wf_tensors_count(t) == 1; i++)
        if ((first->rank == 1 || first->rank == 2) && first->shape[first->rank - 1] == widths[i])
            return wf_fail(rd->err, WEFT_E_UNSUPPORTED,
                           "%s: %s, one tensor of width %d, is a textual inversion: open it as a concept",
                           rd->source->name, wf_key_show(&k, first->name), (int32_t)widths[i]);
    const wf_dialect *d = nearest_dialect(t, &near);
    if (d != NULL)
        return wf_fail(rd->err, WEFT_E_UNSUPPORTED,
                       "%s: no key is of a LoRA dialect that this version reads; they %s as %s's do and %s otherwise; the "
                       "first is %s, the last %s", rd->source->name, near == 2 ? "begin" : "end", d->name,
                       near == 2 ? "end" : "begin", wf_key_show(&k, first->name),
                       wf_key_show(&other, wf_tensors_at(t, wf_tensors_count(t) - 1)->name));
    return wf_fail(rd->err, WEFT_E_UNSUPPORTED,
                   "%s: no key is of a LoRA dialect that this version reads (kohya, LyCORIS, diffusers, PEFT, cloneofsimo, "
                   "Custom Diffusion, ED-LoRA); the first is %s", rd->source->name, wf_key_show(&k, first->name));
}

/* ---- keys to modules ------------------------------------------------------------------------------- */

static weft_status twice(reader *rd, const char *one, const char *other, const char *what)
{
    wf_key_text a, b;
    return wf_fail(rd->err, WEFT_E_FORMAT, "%s: %s and %s %s", rd->source->name, wf_key_show(&a, one),
                   wf_key_show(&b, other), what);
}

/* A PEFT folder called text_encoder_2 holds the second encoder's modules, which look like the first's. */
static bool second_encoder(const reader *rd, const wf_dialect *d, char *name)
{
    static const char first[] = "text_encoder.", second[] = "text_encoder_2.";

    if (d->config != WF_CONFIG_FILE || rd->source->folder == NULL ||
        strcmp(rd->source->folder, "text_encoder_2") != 0 || strncmp(name, first, sizeof first - 1) != 0)
        return true;
    if (strlen(name) + 3 > WF_NAME_CAP) return false;
    memmove(name + sizeof second - 1, name + sizeof first - 1, strlen(name + sizeof first - 1) + 1);
    memcpy(name, second, sizeof second - 1);
    return true;
}

static bool is_number(const char *key)
{
    size_t n = strlen(key);
    return n > 0 && n < 8 && strspn(key, "0123456789") == n;
}

/* cloneofsimo's list has numbers for keys and says nothing else. A text encoder's projections are square. */
static void find_list(reader *rd)
{
    const weft_tensors *t = rd->a->tensors;
    bool                square = true;

    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        const wf_tensor *v = wf_tensors_at(t, i);
        if (!is_number(v->name) || v->rank < 2) return;
        const wf_tensor *first = wf_tensors_at(t, 0);
        int64_t          wide = WF_MAX(v->shape[0], v->shape[1]);
        square = square && wide == WF_MAX(first->shape[0], first->shape[1]);
    }
    rd->list = square ? "text_encoder:" : "unet:";
}

static bool read_number(const char *list, const char *key, wf_key *out)
{
    int32_t n = 0;

    for (const char *c = key; *c != '\0'; c++) n = 10 * n + (*c - '0');
    wf_format(out->name, sizeof out->name, "%s%d", list, (int)(n / 2));
    out->part = n % 2 == 0 ? WF_PART_UP : WF_PART_DOWN;
    out->stem = 0;
    out->how = 0;
    return true;
}

/* The dialect that reads this key as one that makes a module, or NULL. */
static const wf_dialect *dialect_of(const reader *rd, const char *key, wf_key *out)
{
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);

    if (rd->list != NULL && read_number(rd->list, key, out)) return &wf_dialect_cloneofsimo;
    for (size_t i = 0; i < count; i++)
        if (wf_dialect_read(all[i], key, out) && (out->how & (WF_JOINS | WF_BESIDE)) == 0 &&
            second_encoder(rd, all[i], out->name))
            return all[i];
    return NULL;
}

static weft_status add_module(reader *rd, const wf_dialect *d, const wf_key *k, const wf_tensor *t,
                              const char *folded)
{
    weft_adapter *a = rd->a;
    wf_module    *m = &a->modules[a->count];
    draft        *w = &rd->drafts[a->count];
    char         *name = wf_strdup(&a->alloc, k->name);
    char         *key = k->stem > 0 ? wf_strndup(&a->alloc, t->name, k->stem) : wf_strdup(&a->alloc, k->name);

    m->name = name;
    m->key = key;
    m->underscore = d->underscore;
    m->peft = d->peft;
    *w = (draft){ .dialect = d, .first = t, .weak = (k->how & WF_WEAK) != 0, .folded = wf_strdup(&a->alloc, folded) };
    a->count++;
    if (name == NULL || key == NULL || w->folded == NULL) return wf_nomem(rd->err, sizeof *k, "a module's name");
    return wf_map_put(&rd->by_name, w->folded, (int64_t)a->count - 1, &(bool){ false }, rd->err);
}

/* The tensor, which dialect d read, becomes this part of module `at`. */
static weft_status give_part(reader *rd, const wf_dialect *d, int64_t at, const wf_key *k, size_t i)
{
    const wf_tensor  *t = wf_tensors_at(rd->a->tensors, i);
    const wf_tensor **slot = &rd->a->modules[at].part[k->part];

    if (*slot != NULL)
        return twice(rd, (*slot)->name, t->name,
                     k->part == WF_PART_ALPHA ? "give the alpha of one module" : "give the same factor of one module");
    *slot = t;
    if (k->part == WF_PART_MAGNITUDE) rd->a->modules[at].peft_magnitude = d->peft;
    rd->a->key_module[i] = (int32_t)at;
    return WEFT_OK;
}

/* First pass: a key that makes a module, or belongs to the one that keys before it made. */
static weft_status add_key(reader *rd, size_t i)
{
    weft_adapter     *a = rd->a;
    const wf_tensor  *t = wf_tensors_at(a->tensors, i);
    wf_key            k;
    char              folded[WF_NAME_CAP];
    weft_status       st;
    const wf_dialect *d = dialect_of(rd, t->name, &k);

    if (d == NULL) return WEFT_OK; /* the second pass, or the report */
    fold(folded, k.name);
    int64_t at = wf_map_get(&rd->by_name, folded);
    if (at < 0) {
        const wf_refused *row = wf_refused_family(t->name, true);
        if (row != NULL) return refuse_key(rd, t->name, row);
        if ((st = add_module(rd, d, &k, t, folded)) != WEFT_OK) return st;
        at = (int64_t)a->count - 1;
    }
    const wf_module *m = &a->modules[at];
    const draft     *w = &rd->drafts[at];
    bool             same = w->dialect == d &&
                (k.stem == 0 || (strlen(m->key) == k.stem && strncmp(m->key, t->name, k.stem) == 0));
    if (!same && m->part[k.part] == NULL) return twice(rd, w->first->name, t->name, "name one module in two ways");
    return give_part(rd, d, at, &k, i);
}

/* Second pass: a key that joins a module. Endings such as ".alpha" are in several dialects: whichever leads to one. */
static weft_status join_key(reader *rd, size_t i)
{
    weft_adapter            *a = rd->a;
    const wf_tensor         *t = wf_tensors_at(a->tensors, i);
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);
    wf_key                   k;
    wf_key_text              text;
    char                     folded[WF_NAME_CAP];
    bool                     joins = false;

    if (a->key_module[i] >= 0) return WEFT_OK;
    for (size_t d = 0; d < count; d++) {
        if (!wf_dialect_read(all[d], t->name, &k) || (k.how & (WF_JOINS | WF_BESIDE)) == 0) continue;
        if (!second_encoder(rd, all[d], k.name)) continue;
        joins |= (k.how & WF_JOINS) != 0;
        fold(folded, k.name);
        int64_t at = wf_map_get(&rd->by_name, folded);
        if (at < 0 || ((k.how & WF_BESIDE) != 0 && a->modules[at].part[WF_PART_ON_INPUT] == NULL)) continue;
        return give_part(rd, all[d], at, &k, i);
    }
    if (!joins) return WEFT_OK;
    return wf_fail(rd->err, WEFT_E_FORMAT, "%s: %s has no factors beside it", rd->source->name,
                   wf_key_show(&text, t->name));
}

/* ---- scale ------------------------------------------------------------------------------------------ */

/* What the configuration says of the module, where the dialect has one. */
static weft_status read_settings(reader *rd, const wf_module *m, const wf_dialect *d, uint64_t parts, wf_settings *s)
{
    static const char *const prefixes[] = { "unet.", "text_encoder.", "text_encoder_2." };
    int32_t                  component = wf_name_component(m->name);

    if (d->config == WF_CONFIG_FILE && rd->source->config != NULL)
        return wf_config_read(rd->source->config, "", rd->source->name, inside(m->name), parts, s, rd->err);
    if (d->config == WF_CONFIG_METADATA && rd->metadata != NULL && component >= 0)
        return wf_config_read(rd->metadata, prefixes[component], rd->source->name, inside(m->name), parts, s, rd->err);
    return WEFT_OK;
}

/* Settings into the module; alpha from its tensor, else the configuration. */
static weft_status take_settings(reader *rd, wf_module *m, wf_settings *s)
{
    wf_key_text k;

    if (m->part[WF_PART_ALPHA] != NULL) {
        s->alpha = wf_tensor_scalar(m->part[WF_PART_ALPHA]);
        s->has_alpha = true;
    }
    if (s->has_alpha && !isfinite((float)s->alpha))
        return wf_fail(rd->err, WEFT_E_FORMAT, "%s: alpha of %s is not a finite number", rd->source->name,
                       wf_key_show(&k, m->key));
    m->has_alpha = s->has_alpha;
    m->alpha = s->has_alpha ? (float)s->alpha : 0;
    m->rslora = s->rslora;
    m->init_rank = s->init_rank;
    m->neumann = s->neumann;
    m->coft = s->coft;
    m->feedforward = s->feedforward;
    return WEFT_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

/* The family that would take these parts if more were there, and what is missing; NULL: none. */
static const wf_family *nearest_family(uint64_t parts, int32_t *missing)
{
    size_t                  count;
    const wf_family *const *all = wf_families(&count);

    for (size_t i = 0; i < count; i++) {
        uint64_t want = all[i]->needs & ~parts;
        if (wf_family_of(parts | all[i]->needs) != all[i]) continue;
        for (*missing = 0; (want & WF_BIT(*missing)) == 0; ++*missing) {}
        return all[i];
    }
    return NULL;
}

/* No family has exactly these parts: say what is there, or what is missing. */
static weft_status refuse_parts(reader *rd, size_t i, uint64_t parts)
{
    const wf_module *m = &rd->a->modules[i];
    int32_t          missing, first = 0;
    wf_key_text      k;
    char             list[160] = "";
    size_t           n = 0;

    if (nearest_family(parts, &missing) != NULL) {
        const char *word = wf_part_name(missing);
        if (missing == WF_PART_DOWN) word = "down";
        if (missing == WF_PART_UP) word = "up";
        return wf_fail(rd->err, WEFT_E_FORMAT, "%s: %s has no partner: the %s factor of its module is missing",
                       rd->source->name, wf_key_show(&k, rd->drafts[i].first->name), word);
    }
    for (int32_t p = 1; p < WF_PARTS; p++) {
        size_t len = strlen(wf_part_name(p));
        if ((parts & WF_BIT(p)) == 0 || n + len + 3 > sizeof list) continue;
        if (first++ > 0) memcpy(list + n, ", ", 2), n += 2;
        memcpy(list + n, wf_part_name(p), len + 1);
        n += len;
    }
    return wf_fail(rd->err, WEFT_E_UNSUPPORTED, "%s: %s has %s: no family has %s", rd->source->name,
                   wf_key_show(&k, m->key), list, first > 1 ? "these together" : "that alone");
}

static weft_status finish_module(reader *rd, size_t i)
{
    wf_module  *m = &rd->a->modules[i];
    uint64_t    parts = wf_module_parts(m);
    const char *source = rd->source->name;
    wf_settings s = WF_SETTINGS_NONE;
    wf_key_text k;

    m->family = wf_module_family(m);
    if (m->family == NULL) return refuse_parts(rd, i, parts);
    WF_TRY(wf_module_check_parts(m, source, rd->err));
    WF_TRY(read_settings(rd, m, rd->drafts[i].dialect, parts, &s));
    WF_TRY(take_settings(rd, m, &s));
    WF_TRY(m->family->shape(m, source, rd->err));
    WF_TRY(wf_module_check_finite(m, source, rd->err));
    if (s.has_rank && m->rank > 0 && s.rank != m->rank) { /* a whole weight beside LoRA has none */
        wf_number_text num;
        return wf_fail(rd->err, WEFT_E_FORMAT, "%s: the configuration says rank %s for %s, whose factors have rank %d",
                       source, wf_number(&num, s.rank), wf_key_show(&k, inside(m->name)), (int)m->rank);
    }
    return WEFT_OK;
}

/* Configurations that say that the factors are not plain LoRA. */
static weft_status check_configs(reader *rd)
{
    static const char *const prefixes[] = { "unet.", "text_encoder.", "text_encoder_2." };
    const char              *text = NULL;
    weft_status              st;
    bool                     peft = false;

    for (size_t i = 0; i < rd->a->count; i++) peft |= rd->drafts[i].dialect->config == WF_CONFIG_FILE;
    if (peft && rd->source->config != NULL) {
        WF_TRY(wf_config_check(rd->source->config, "", rd->source->name, rd->err));
        WF_TRY(wf_config_check_cost(rd->source->config, "", rd->source->name, rd->a->count, rd->err));
    }
    for (size_t i = 0; i < wf_tensors_meta_count(rd->a->tensors); i++)
        if (strcmp(wf_tensors_meta_key(rd->a->tensors, i), "lora_adapter_metadata") == 0)
            text = wf_tensors_meta_value(rd->a->tensors, i);
    if (text == NULL) return WEFT_OK;
    if ((st = wf_json_parse(&rd->metadata, text, strlen(text), "lora_adapter_metadata", rd->err)) != WEFT_OK)
        return st;
    for (size_t i = 0; i < WF_LEN(prefixes); i++) {
        WF_TRY(wf_config_check(rd->metadata, prefixes[i], rd->source->name, rd->err));
        WF_TRY(wf_config_check_cost(rd->metadata, prefixes[i], rd->source->name, rd->a->count, rd->err));
    }
    return WEFT_OK;
}

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

/* "kohya", or "diffusers + kohya": dialects and families in the order of their tables. Endings that several dialects
 * share name one only in a file that has nothing else. */
static void name_dialects(reader *rd)
{
    weft_adapter            *a = rd->a;
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);
    bool                     strong = false;

    for (size_t m = 0; m < a->count; m++) strong |= !rd->drafts[m].weak;
    for (size_t i = 0; i < count; i++)
        for (size_t m = 0; m < a->count; m++)
            if (rd->drafts[m].dialect == all[i] && !(strong && rd->drafts[m].weak)) {
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
            if (a->modules[m].family == all[i] && a->modules[m].part[WF_PART_MAGNITUDE] == NULL) {
                join_word(a->families, sizeof a->families, all[i]->name);
                break;
            }
    for (size_t m = 0; m < a->count; m++) dora |= a->modules[m].part[WF_PART_MAGNITUDE] != NULL;
    if (dora) join_word(a->families, sizeof a->families, "dora");
}

/* B-LoRA's file: LoRA in the two blocks that carry content and style, which other models than SDXL do not have. */
static bool is_blora(const weft_adapter *a)
{
    static const char *const blocks[] = { "*up_blocks?0?attentions?0?*,*output_blocks?0?1?*",
                                          "*up_blocks?0?attentions?1?*,*output_blocks?1?1?*" };

    for (size_t m = 0; m < a->count; m++) {
        const char *name = a->modules[m].name;
        if (wf_name_component(name) != 0 || (!wf_glob_any(blocks[0], name) && !wf_glob_any(blocks[1], name))) return false;
        if (a->modules[m].family != &wf_family_lora) return false;
    }
    return true;
}

/* What the whole file is, where that can be told. */
static void name_kind(reader *rd)
{
    weft_adapter *a = rd->a;

    a->kind = "";
    for (size_t m = 0; m < a->count; m++)
        if (rd->drafts[m].dialect->kind != NULL) a->kind = rd->drafts[m].dialect->kind;
    if (*a->kind != '\0') return;
    if (is_blora(a)) a->kind = "B-LoRA";
    bool whole = true, mixer = false, pruned = false;
    for (size_t m = 0; m < a->count; m++) {
        whole &= a->modules[m].part[WF_PART_DIFF] != NULL && rd->drafts[m].dialect == &wf_dialect_diffusers_old;
        mixer |= a->modules[m].part[WF_PART_MIXER] != NULL;
        pruned |= a->modules[m].part[WF_PART_LORA_E] != NULL;
    }
    if (whole) a->kind = "ZipLoRA";
    if (mixer) a->kind = "MoSLoRA";
    if (pruned) a->kind = "AdaLoRA";
}

static weft_status read_all(reader *rd)
{
    weft_adapter *a = rd->a;
    size_t        count = wf_tensors_count(a->tensors);
    weft_status   st;

    find_list(rd);
    for (size_t i = 0; i < count; i++)
        if ((st = add_key(rd, i)) != WEFT_OK) return st;
    if (a->count > 0)
        for (size_t i = 0; i < count; i++)
            if ((st = join_key(rd, i)) != WEFT_OK) return st;
    if ((st = sort_unread(rd)) != WEFT_OK) return st;
    if (a->count == 0) return refuse_strangers(rd);
    if ((st = check_configs(rd)) != WEFT_OK) return st;
    for (size_t i = 0; i < a->count; i++)
        if ((st = finish_module(rd, i)) != WEFT_OK) return st;
    name_dialects(rd);
    name_families(a);
    name_kind(rd);
    return WEFT_OK;
}

weft_status wf_adapter_parse(weft_tensors *tensors, const wf_source *source, const weft_allocator *allocator,
                             weft_adapter **out, weft_error *err)
{
    weft_allocator alloc = wf_allocator(allocator);
    size_t         count = wf_tensors_count(tensors);
    reader         rd = { .source = source, .err = err };
    weft_adapter  *a = wf_zalloc(&alloc, 1, sizeof *a);
    weft_status    st;

    *out = NULL;
    if (a == NULL) return wf_nomem(err, sizeof *a, "an adapter");
    wf_ref_init(&a->refs);
    a->alloc = alloc;
    a->tensors = tensors;
    wf_tensors_ref(tensors);
    rd.a = a;

    a->name = wf_strdup(&alloc, source->name);
    a->modules = wf_zalloc(&alloc, count, sizeof *a->modules);
    a->key_module = wf_zalloc(&alloc, count, sizeof *a->key_module);
    rd.drafts = wf_zalloc(&alloc, count, sizeof *rd.drafts);
    if (a->name == NULL || a->modules == NULL || a->key_module == NULL || rd.drafts == NULL) {
        st = wf_nomem(err, count * sizeof *a->modules, "an adapter's modules");
        goto done;
    }
    wf_wash(a->name, strlen(source->name) + 1, source->name); /* a file may be called anything; texts are UTF-8 */
    for (size_t i = 0; i < count; i++) a->key_module[i] = WF_KEY_UNREAD;
    if (count > INT32_MAX) {
        st = wf_fail(err, WEFT_E_FORMAT, "%s: %zu tensors are too many", source->name, count);
        goto done;
    }
    if ((st = wf_map_init(&rd.by_name, &a->alloc, count, err)) != WEFT_OK) goto done;
    if ((st = read_all(&rd)) != WEFT_OK) goto done;

    *out = a;
    a = NULL;
done:
    for (size_t i = 0; rd.drafts != NULL && i < rd.a->count; i++) wf_free(&alloc, rd.drafts[i].folded);
    wf_free(&alloc, rd.drafts);
    wf_map_free(&rd.by_name);
    json_decref(rd.metadata);
    weft_adapter_free(a);
    return st;
}
